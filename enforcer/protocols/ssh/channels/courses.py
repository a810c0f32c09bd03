"""What runs in a session's channel once it was permitted: its bytes, booked, both ways."""
from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from enforcer.protocols.ssh.book import Book
from enforcer.protocols.ssh.channels.flow import Half
from enforcer.protocols.ssh.desk import Verdict
from enforcer.protocols.ssh.messages import STDERR
from enforcer.protocols.ssh.sftp.gate import Gate
from enforcer.protocols.ssh.wanted import Wanted
from enforcer.words.commands import CLIENT
from enforcer.words.errors import ProtocolError


class Streams:
    """Where a course's bytes go."""

    def __init__(
        self, book: Book, number: int, crew: Half, server: Half, terminal: bool, timer: Callable[[float], None],
        fail: Callable[[str], None],
    ) -> None:
        """`fail`: the channel ends, for this reason."""
        self.book, self.number, self.crew, self.server = book, number, crew, server
        self.terminal, self.timer, self.fail = terminal, timer, fail

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


class Files:
    """SFTP: each operation on its own."""

    def __init__(self, streams: Streams) -> None:
        self._to = streams
        target = streams.book.context.target
        self._gate = Gate(streams.book, streams.crew.put, streams.server.put, target.content_labels, target.payload,
                          streams.server.end)

    @property
    def backlog(self) -> int:
        return self._gate.backlog

    def from_client(self, data: bytes) -> None:
        try:
            self._gate.from_client(data)
        except ProtocolError as error:
            self._to.fail(f"SFTP: {error}")

    def from_server(self, data: bytes, error: bool) -> None:
        if error:
            self._to.book.piece(self._to.number, "err", data)
            self._to.crew.put(data, STDERR)
            return
        try:
            self._gate.from_server(data)
        except ProtocolError as wrong:
            self._to.fail(f"SFTP, the server: {wrong}")

    def ended(self, peer: int) -> None:
        if peer == CLIENT:
            self._gate.client_eof()
        else:
            self._gate.server_eof()
            self._to.end(peer)

    def flush(self) -> None: ...

    def closed(self) -> None:
        self._gate.closed()

    def fired(self) -> None: ...


def choose(streams: Streams, wanted: Wanted, verdict: Verdict) -> Course:
    if wanted.verb == "subsystem" and wanted.text == b"sftp":
        return Files(streams)
    return Plain(streams)
