"""Input and output of a program as they pass: recorded, masked, and what was typed without echo in stars."""
from __future__ import annotations

from typing import Final, Protocol

from enforcer.core.desk import Desk
from enforcer.core.terminal.echo import Echo, Piece
from enforcer.policy.stream_masks import StreamMask
from enforcer.words.commands import CLIENT

HELD: Final = 0.05                    # seconds that output is held back for what may go on


class Ends(Protocol):
    """Where the bytes go, and under which number they are booked."""

    terminal: bool
    number: int

    @property
    def desk(self) -> Desk: ...

    @property
    def unread(self) -> bool:
        """Nobody reads the output any more."""
        ...

    def now(self) -> float:
        """Seconds, of a clock that goes on evenly."""
        ...

    def to_server(self, data: bytes) -> None: ...

    def to_client(self, data: bytes, error: bool) -> None: ...

    def end(self, peer: int) -> None:
        """`peer` has said all that it will: the other side is told."""
        ...

    def wake(self, seconds: float) -> None:
        """`Plain.fired` after that, where it is not set already; 0: not."""
        ...

    def woken(self) -> None: ...


class First(Protocol):
    """Of the input, what is recorded of its first line (enforcer.core.hiding)."""

    hidden: int

    def feed(self, data: bytes) -> bytes: ...


class Plain:
    """Input and output of a program, or bytes that only both ends understand."""

    answers = False

    def __init__(
        self, ends: Ends, masks: tuple[StreamMask, StreamMask] | None, first: First | None = None,
    ) -> None:
        """`masks`: of output and errors.  `first`: of the input, for the recording, where there is no terminal."""
        self._to, self._masks, self._first = ends, masks, first
        self._echo = Echo() if ends.terminal else None
        self._told: set[str] = set()
        self._since = [0.0, 0.0]      # when each began to hold what it holds now, 0: it holds nothing
        self._passed = [0, 0]         # of each, what it had passed on by then

    @property
    def backlog(self) -> int:
        return 0

    def from_client(self, data: bytes) -> None:
        to = self._to
        if self._echo is None:
            to.desk.piece(to.number, "in", data if self._first is None else self._first.feed(data))
            to.to_server(data)
            return
        to.desk.typed(to.number, len(data))
        to.to_server(data)
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
        if not self._to.unread:           # nobody reads it any more
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
            self._to.desk.tell("unseen", told)

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
            to.desk.piece(to.number, "err" if error else "out", data)
            to.to_client(data, error)
        if self._masks is not None and (new := self._masks[error].found - self._told):
            self._told |= new
            to.desk.tell("masked", f"operation {to.number}: {', '.join(sorted(new))}")

    def _show(self, pieces: list[Piece]) -> None:
        for one in pieces:
            self._to.desk.shown(self._to.number, one.offset, one.content)

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
        return self._to.now()
