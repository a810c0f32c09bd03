"""The real credential, as it travels from the agent to the enforcer.  Never printed: repr hides it."""
from __future__ import annotations

import msgspec


class Credential(msgspec.Struct, frozen=True):
    user: str
    password: str = ""
    certificate: str = ""             # PEM chain; for SSH a line as in id_ed25519-cert.pub
    key: str = ""                     # PEM; for SSH also OpenSSH's format
    expires: int = 0                  # Unix seconds; 0: not known to
    lease: int = 0                    # to be given back when its session ends; 0: none
    token: str = ""                   # HTTP: bearer token
    agent: str = ""                   # SSH: Unix socket of an ssh-agent that has the key

    def lasts(self, now: float) -> bool:
        """Whether a login by it may be tried at `now` (Unix seconds)."""
        return not self.expires or now < self.expires

    def __repr__(self) -> str:
        return f"Credential(user={self.user!r}, ...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("user", self.user)]
