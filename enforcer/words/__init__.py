"""The vocabulary that every part of the enforcer shares.  Imports nothing of ours but `agent.contract`."""
