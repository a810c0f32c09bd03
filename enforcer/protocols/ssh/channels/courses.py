"""What runs in a session's channel once it was permitted: its bytes, booked, both ways."""
from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from enforcer.core.book import Book
from enforcer.core.desk import Verdict
from enforcer.core.hiding import FirstLine, asks
from enforcer.policy.stream_masks import StreamMask
from enforcer.protocols.ssh.channels.flow import Half
from enforcer.protocols.ssh.echo import Echo, Piece
from enforcer.protocols.ssh.messages import STDERR
from enforcer.protocols.ssh.scp import Scp
from enforcer.protocols.ssh.sftp.gate import Gate
from enforcer.protocols.ssh.wanted import BYTES, COPIES, FILES, Wanted
from enforcer.words.commands import CLIENT
from enforcer.words.errors import ProtocolError

NANO: Final = 1_000_000_000
HELD: Final = 0.05                    # seconds that output is held back for what may go on


class Streams:
    """Where a course's bytes go."""

    def __init__(
        self, book: Book, number: int, crew: Half, server: Half, terminal: bool, timer: Callable[[float], None],
        fail: Callable[[str], None], tell: Callable[[str], None],
    ) -> None:
        """`fail`: the channel ends, for this reason.  `tell`: the client's user reads this."""
        self.book, self.number, self.crew, self.server = book, number, crew, server
        self.terminal, self.fail, self.tell = terminal, fail, tell
        self._timer, self._set = timer, 0.0

    def wake(self, seconds: float) -> None:
        """`fired` after that, where it is not set already; 0: not."""
        if bool(seconds) != bool(self._set) or seconds < self._set:
            self._set = seconds
            self._timer(seconds)

    def woken(self) -> None:
        self._set = 0.0

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


class Plain:
    """Input and output of a program, or bytes that only both ends understand."""

    answers = False

    def __init__(
        self, streams: Streams, masks: tuple[StreamMask, StreamMask] | None, first: FirstLine | None = None,
    ) -> None:
        """`masks`: of output and errors.  `first`: of the input, for the recording, where there is no terminal."""
        self._to, self._masks, self._first = streams, masks, first
        self._echo = Echo() if streams.terminal else None
        self._told: set[str] = set()
        self._since = [0.0, 0.0]      # when each began to hold what it holds now, 0: it holds nothing
        self._passed = [0, 0]         # of each, what it had passed on by then

    @property
    def backlog(self) -> int:
        return 0

    def from_client(self, data: bytes) -> None:
        to = self._to
        if self._echo is None:
            to.book.piece(to.number, "in", data if self._first is None else self._first.feed(data))
            to.server.put(data)
            return
        to.book.typed(to.number, len(data))
        to.server.put(data)
        self._show(self._echo.typed(data, self._now()))
        self._wake()

    def from_server(self, data: bytes, error: bool) -> None:
        if self._echo is not None and not error:
            self._show(self._echo.printed(data, self._now()))
        if self._masks is not None:
            data = self._masks[error].feed(data)
        self._deliver(data, error)
        self._wake()

    def resize(self, columns: int) -> None:
        for mask in self._masks or ():
            mask.resize(columns)

    def ended(self, peer: int) -> None:
        if peer != CLIENT:
            self.flush()
        self._to.end(peer)

    def flush(self) -> None:
        for number in range(len(self._masks or ())):
            self._flush(number)

    def _flush(self, number: int) -> None:
        assert self._masks is not None
        self._since[number] = 0.0
        self._deliver(self._masks[number].flush(), bool(number))

    def closed(self) -> None:
        if not self._to.crew.closed:           # nobody reads it any more
            self.flush()
        self.lost()

    def lost(self) -> None:
        echo, self._echo = self._echo, None
        if echo is not None:
            self._show(echo.end())
            self._tell_unseen(echo.unseen, "what was typed", "were not shown by its terminal")
        if self._first is not None:
            self._tell_unseen(self._first.hidden, "its input", "are where it reads a password")
            self._first.hidden = 0

    def _tell_unseen(self, size: int, what: str, why: str) -> None:
        """Or "all kept" would be said of what nobody can read."""
        if size:
            told = f"operation {self._to.number}: of {what}, {size} bytes {why} and are recorded as stars"
            self._to.book.tell("unseen", told)

    def fired(self) -> None:
        self._to.woken()
        for number, since in enumerate(self._since):
            if since and self._now() - since > HELD * 0.9:
                self._flush(number)
        if self._echo is not None:
            self._show(self._echo.due(self._now()))
        self._wake()

    def _deliver(self, data: bytes, error: bool) -> None:
        to = self._to
        if data:
            to.book.piece(to.number, "err" if error else "out", data)
            to.crew.put(data, STDERR if error else 0)
        if self._masks is not None and (new := self._masks[error].found - self._told):
            self._told |= new
            to.book.tell("masked", f"operation {to.number}: {', '.join(sorted(new))}")

    def _show(self, pieces: list[Piece]) -> None:
        for one in pieces:
            self._to.book.shown(self._to.number, one.offset, one.content)

    def _wake(self) -> None:
        """As soon as something need not be held any more."""
        now, waits = self._now(), []
        for number, mask in enumerate(self._masks or ()):
            if not mask.pending:
                self._since[number] = 0.0
                continue
            if not self._since[number] or self._passed[number] != mask.passed:     # something else is held now
                self._since[number], self._passed[number] = now, mask.passed
            waits.append(max(self._since[number] + HELD - now, 0.001))
        if self._echo is not None and (due := self._echo.deadline) is not None:
            waits.append(max(due - now, 0.001))
        self._to.wake(min(waits, default=0.0))

    def _now(self) -> float:
        return self._to.book.context.monotonic() / NANO


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
