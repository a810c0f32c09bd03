"""What runs in a session's channel once it was permitted: its bytes, booked, both ways."""
from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from enforcer.core.book import Book
from enforcer.core.desk import Verdict
from enforcer.core.hiding import FirstLine, asks
from enforcer.core.terminal.alarm import Alarm
from enforcer.core.terminal.plain import Plain
from enforcer.policy.stream_masks import StreamMask
from enforcer.protocols.ssh.channels.flow import Half
from enforcer.protocols.ssh.messages import STDERR
from enforcer.protocols.ssh.scp import Scp
from enforcer.protocols.ssh.sftp.gate import Gate
from enforcer.protocols.ssh.wanted import BYTES, COPIES, FILES, Wanted
from enforcer.words.commands import CLIENT
from enforcer.words.errors import ProtocolError

NANO: Final = 1_000_000_000


class Streams(Alarm):
    """Where a course's bytes go."""

    def __init__(
        self, book: Book, number: int, crew: Half, server: Half, terminal: bool, timer: Callable[[float], None],
        fail: Callable[[str], None], tell: Callable[[str], None],
    ) -> None:
        """`fail`: the channel ends, for this reason.  `tell`: the client's user reads this."""
        super().__init__(timer)
        self.book, self.number, self.crew, self.server = book, number, crew, server
        self.terminal, self.fail, self.tell = terminal, fail, tell

    # terminal.plain.Ends

    @property
    def desk(self) -> Book:
        return self.book

    @property
    def unread(self) -> bool:
        return self.crew.closed

    def now(self) -> float:
        return self.book.context.monotonic() / NANO

    def to_server(self, data: bytes) -> None:
        self.server.put(data)

    def to_client(self, data: bytes, error: bool) -> None:
        self.crew.put(data, STDERR if error else 0)

    def end(self, peer: int) -> None:
        """`peer` has said all that it will: the other side is told."""
        (self.server if peer == CLIENT else self.crew).end()


class Course(Protocol):
    answers: bool                     # by itself: who does not read them is not read

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

    def lost(self) -> None:
        """With the connection: nothing more is delivered."""
        ...

    def fired(self) -> None: ...

    def resize(self, columns: int) -> None: ...


class Files:
    """SFTP and scp: each file on its own."""

    answers = True

    def __init__(self, streams: Streams, gate: Gate | Scp) -> None:
        self._to, self._gate = streams, gate

    @property
    def backlog(self) -> int:
        return self._gate.backlog

    def from_client(self, data: bytes) -> None:
        try:
            self._gate.from_client(data)
        except ProtocolError as error:
            self._to.fail(str(error))

    def from_server(self, data: bytes, error: bool) -> None:
        if error:
            self._to.book.piece(self._to.number, "err", data)
            self._to.crew.put(data, STDERR)
            return
        try:
            self._gate.from_server(data)
        except ProtocolError as wrong:
            self._to.fail(f"the server: {wrong}")

    def ended(self, peer: int) -> None:
        if peer == CLIENT:
            self._gate.client_eof()
        else:
            self._gate.server_eof()
            self._to.end(peer)

    def flush(self) -> None: ...

    def closed(self) -> None:
        self._gate.closed()

    def lost(self) -> None:
        self._gate.closed()

    def fired(self) -> None: ...

    def resize(self, columns: int) -> None: ...


def choose(streams: Streams, wanted: Wanted, verdict: Verdict, columns: int) -> Course:
    """`columns` of its terminal."""
    target = streams.book.context.target
    if wanted.course == FILES:
        return Files(streams, Gate(streams.book, streams.crew.put, streams.server.put, target.content_labels,
                                   target.payload, streams.server.end, say=streams.tell))
    if wanted.course == COPIES and wanted.call is not None:
        return Files(streams, Scp(streams.book, streams.crew.put, streams.server.put, wanted.call,
                                  target.content_labels, target.payload, streams.server.end))
    if wanted.course == BYTES:
        return Plain(streams, None)
    everything, labels = ", ".join(verdict.masked), streams.book.masked(wanted.requests)
    first = FirstLine() if wanted.verb == "exec" and not streams.terminal and asks(wanted.text) else None
    if not everything and not labels:
        return Plain(streams, None, first)
    return Plain(streams, (StreamMask(labels, everything, columns), StreamMask(labels, everything, columns)), first)
