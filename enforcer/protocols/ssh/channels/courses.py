"""What runs in a session's channel once it was permitted: its bytes, booked, both ways."""
from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from enforcer.protocols.ssh.book import Book
from enforcer.protocols.ssh.channels.flow import Half
from enforcer.protocols.ssh.desk import Verdict
from enforcer.protocols.ssh.messages import STDERR
from enforcer.protocols.ssh.wanted import Wanted
from enforcer.words.commands import CLIENT


class Streams:
    """Where a course's bytes go."""

    def __init__(
        self, book: Book, number: int, crew: Half, server: Half, terminal: bool, timer: Callable[[float], None],
    ) -> None:
        self.book, self.number, self.crew, self.server = book, number, crew, server
        self.terminal, self.timer = terminal, timer

    def end(self, peer: int) -> None:
        """`peer` has said all that it will: the other side is told."""
        (self.server if peer == CLIENT else self.crew).end()


class Course(Protocol):
    @property
    def backlog(self) -> int:
        """Bytes that wait in it."""
        ...

    def from_client(self, data: bytes) -> None: ...

    def from_server(self, data: bytes, error: bool) -> None: ...

    def ended(self, peer: int) -> None: ...

    def flush(self) -> None:
        """What is held back goes on."""
        ...

    def closed(self) -> None: ...

    def fired(self) -> None: ...


class Plain:
    """Input and output of a program."""

    backlog = 0

    def __init__(self, streams: Streams) -> None:
        self._to = streams

    def from_client(self, data: bytes) -> None:
        self._to.book.piece(self._to.number, "in", data)
        self._to.server.put(data)

    def from_server(self, data: bytes, error: bool) -> None:
        self._to.book.piece(self._to.number, "err" if error else "out", data)
        self._to.crew.put(data, STDERR if error else 0)

    def ended(self, peer: int) -> None:
        self._to.end(peer)

    def flush(self) -> None: ...

    def closed(self) -> None: ...

    def fired(self) -> None: ...


def choose(streams: Streams, wanted: Wanted, verdict: Verdict) -> Course:
    return Plain(streams)
