"""SFTP, version 3: every path of a session is judged as the server itself resolves it."""
from __future__ import annotations

from enforcer.protocols.ssh.sftp.gate import Gate

__all__ = ["Gate"]
