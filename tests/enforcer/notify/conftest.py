from notify_lab import here, hook, quick, slack  # noqa: F401  fixtures
