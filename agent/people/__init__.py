"""Who is behind a workload: logins, identities, and who is locked out."""
