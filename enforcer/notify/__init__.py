"""What waits for people, told to Slack and webhooks, in a process of its own.  Imported by nothing but that process."""
