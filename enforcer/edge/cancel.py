"""Cancel keys of Weir's own, and who may use them.

A client is shown a key that Weir drew; the server's stays here.  A cancel counts only where the asking connection's
workload and uid are those of the session: a key that leaked to another workload cancels nothing.
"""
from __future__ import annotations

import hmac
from dataclasses import dataclass

from agent.contract.credential import Credential
from agent.contract.owner import Owner
from agent.contract.target import Target
from enforcer.edge.upstream import Road


@dataclass(frozen=True, slots=True)
class Key:
    """The real key of one session, and where it works.  Never printed."""

    session: str
    owner: Owner
    target: Target
    credential: Credential | None     # a server may want its certificate for a cancel too
    address: str                      # "ADDRESS:PORT" of the server that the session reached
    process: int
    secret: bytes
    road: Road | None = None          # by which it was reached, where it was not dialled

    def __repr__(self) -> str:
        return f"Key(session={self.session!r})"


class Cancels:
    """Weir's key (process, secret) -> Key."""

    def __init__(self) -> None:
        self._keys: dict[int, dict[bytes, Key]] = {}

    def register(self, process: int, secret: bytes, key: Key) -> None:
        self._keys.setdefault(process, {})[secret] = key

    def forget(self, process: int, secret: bytes) -> None:
        shared = self._keys.get(process, {})
        shared.pop(secret, None)
        if not shared:
            self._keys.pop(process, None)

    def find(self, process: int, secret: bytes, owner: Owner, target: str) -> Key | str:
        """The session's key, or why the request does not count."""
        for known, key in self._keys.get(process, {}).items():
            if hmac.compare_digest(known, secret):
                if key.target.name != target:
                    return "the cancel key belongs to a session with another target"
                if (key.owner.workload, key.owner.uid) != (owner.workload, owner.uid):
                    return "the cancel key belongs to another workload's session"
                return key
        return "no session has this cancel key"
