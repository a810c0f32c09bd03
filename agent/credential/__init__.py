"""What opens a target: credentials, authorities and certificates, and reading what is secret."""
