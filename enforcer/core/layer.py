"""What a protocol layer is: a state machine that takes bytes and gives commands.

It has no sockets, clock, database or await.  The edge calls `start` once, then `receive` for bytes and `handle` for
everything else, and carries the returned commands out in order.  A layer that raises ProtocolError is closed on both
sides after the commands of `refuse`.
"""
from __future__ import annotations

from typing import Protocol

from enforcer.words.commands import Command
from enforcer.words.inputs import Input


class Layer(Protocol):
    def start(self) -> list[Command]:
        """The client is connected and attributed; nothing is read yet."""
        ...

    def receive(self, peer: int, data: bytes) -> list[Command]:
        """Bytes from CLIENT or SERVER, cut anywhere, never empty."""
        ...

    def handle(self, event: Input) -> list[Command]: ...

    def refuse(self, error: Exception) -> list[Command]:
        """Last words: the protocol's own error to whoever can still hear it, SessionClosed, CloseConnection of both."""
        ...

    @property
    def state(self) -> str:
        """login | idle | active | held"""
        ...

    @property
    def operations(self) -> int:
        """How many so far."""
        ...
