"""Pure: a stream inside of another protocol that passes as it is: its beginning is judged as a flow's is.

For a tunnel that leads to no registered target: SOCKS, CONNECT and a registered protocol in plaintext end it.
"""
from __future__ import annotations

from collections.abc import Callable

from enforcer.core.first import BRIEF, HOLD, UNKNOWN, Beginning

Passed = tuple[bytes, str]            # what goes on now, and why the stream ends ("": it does not)


class Raw:
    """`wait`: after so many seconds `due` is to be called, where that is not 0; look after every call of the others.
    `address`: host that is asked for.  `spoken`: enforcer.protocols.spoken."""

    def __init__(self, address: str, spoken: Callable[[bytes], str]) -> None:
        self._first = Beginning((), address, spoken)
        self._held: list[bytes] = []
        self._let = False             # its brief time is over
        self.wait = 0.0

    @property
    def rule(self) -> str:
        """By which it ends: of enforcer.core.first."""
        return self._first.rule

    def client(self, data: bytes) -> Passed:
        """With what the client sends next, never empty."""
        verdict = self._first.client(data)
        if verdict:
            return self._refuse(verdict)
        self._held.append(data)
        if verdict is UNKNOWN and (not self._let or self._first.waits()):
            self.wait = self.wait or BRIEF
            return b"", ""
        return self._release()

    def server(self, data: bytes) -> Passed:
        if reason := self._first.server(data):
            return self._refuse(reason)
        return data, ""

    def due(self) -> Passed:
        """`wait` is over."""
        if not self._first.waits():
            self._let = True
            return self._release()
        if self.wait == BRIEF:
            self.wait = HOLD - BRIEF
            return b"", ""
        return self._refuse(self._first.late())

    def no_more(self) -> Passed:
        """The client has said all that it will: what is held is the whole of it."""
        return self._refuse(self._first.late()) if self._first.waits() else self._release()

    def _release(self) -> Passed:
        held, self.wait = b"".join(self._held), 0.0
        self._held.clear()
        return held, ""

    def _refuse(self, reason: str) -> Passed:
        self._held.clear()
        self.wait = 0.0
        return b"", reason
