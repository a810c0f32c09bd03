"""The exceptions of the enforcer.  Anything else that is raised is a bug."""
from __future__ import annotations


class ConfigError(Exception):
    """`file`, `line` and `column` (from 1; 0 where not known), the field, and what would be right."""

    def __init__(self, file: str, line: int, column: int, message: str) -> None:
        super().__init__(f"{file}:{line}:{column}: {message}")
        self.file, self.line, self.column, self.message = file, line, column, message


class ProtocolError(Exception):
    """The bytes are not what the protocol allows."""


class LocalProtocolError(ProtocolError):
    """Our own fault."""


class RemoteProtocolError(ProtocolError):
    """The peer's fault."""


class AuthenticationError(Exception):
    """Login at the target failed, or a peer could not be identified.  The text holds no secret."""


class UpstreamError(Exception):
    """The target could not be reached, or its certificate not verified."""


class RecordingError(Exception):
    """The journal or the recording cannot be written: nothing may be forwarded."""


class PlatformError(Exception):
    """The kernel or the host lacks something that Weir needs."""
