"""Credentials that another server gives: Vault's API, by a process that does nothing else."""
