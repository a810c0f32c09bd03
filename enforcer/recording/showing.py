"""A session in a terminal: a transcript, and its terminals as they looked.

What goes to the viewer's terminal went through `escapes`: nothing that was recorded can ask it anything, or reach past
it.  However it ends, the terminal is left as one is.
"""
from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final

from rich.console import Console

from enforcer.recording.escapes import Escapes
from enforcer.recording.read import Entry, Reader
from enforcer.recording.replay import join_pieces, render_transcript
from enforcer.recording.tapes import SECOND, SIZE, Piece, Reading, is_terminal, parse_size, read_pieces
from enforcer.words import events

SHOWN: Final = ("out", "err")
SOON: Final = 0.004                   # seconds: what is nearer together is one
BEFORE: Final = 256                   # pieces of a live terminal that are drawn at once, to come to where it is
WAITING: Final = 1000                 # lines that wait for a live terminal to end


@dataclass(frozen=True)
class Pace:
    """`speed` 0: all at once.  `idle`: seconds of a pause at most."""

    speed: float = 1.0
    idle: float = 2.0

    def wait(self, nanoseconds: int) -> float:
        if not self.speed:
            return 0.0
        return min(self.idle, max(0, nanoseconds) / SECOND) / self.speed


def terminals_of(reader: Reader, session: str) -> set[int]:
    """Operations that have one."""
    return {operation for _, operation, _ in reader.streaming(session)
            if is_terminal(next(reader.streams_of(session, operation), None))}


def show_session(
    reader: Reader, session: str, console: Console, pace: Pace, speed: float, everything: bool,
) -> None:
    """The transcript at `speed`; where a terminal began stands what it showed, whole, at `pace`."""
    terminals, played, shown = terminals_of(reader, session), set[int](), 0
    lines_pace = Pace(speed, 3.0)
    lines = render_transcript(join_pieces(
        entry for entry in _with_tapes(reader, session, terminals, played, console, pace)), everything)
    for after, text in lines:
        time.sleep(lines_pace.wait(after - shown))
        shown = after
        console.print(text, soft_wrap=True)


def _with_tapes(
    reader: Reader, session: str, terminals: set[int], played: set[int], console: Console, pace: Pace,
) -> Iterator[Entry]:
    for entry in reader.entries(session):
        if entry.kind != events.STREAMED or entry.event.operation not in terminals:
            yield entry
        elif entry.event.operation not in played:
            played.add(entry.event.operation)
            play(read_pieces(reader.streams_of(session, entry.event.operation)), console, pace)


def play(pieces: Iterable[Piece], console: Console, pace: Pace, sleep: Callable[[float], None] = time.sleep) -> None:
    """One terminal, as it looked."""
    out, escapes, shown = console.file, Escapes(), 0
    pieces = iter(pieces)
    first = next(pieces, None)
    if first is None:
        return
    _say_size(console, first)
    out.write("\n" * (console.height - 1) + "\x1b[H")     # an empty screen; what was there is above it
    try:
        for piece in chain([first], pieces):
            if piece.stream not in SHOWN:
                continue
            wait = pace.wait(piece.after - shown)
            if wait > SOON:
                out.flush()
                sleep(wait)
            shown = piece.after
            out.write(escapes.feed(piece.text))
    finally:
        out.write(escapes.finish())
        out.flush()


def _say_size(console: Console, first: Piece) -> None:
    if first.stream != SIZE:
        return
    columns, rows = parse_size(first.text.encode())
    if columns > console.width or rows > console.height:
        said = f"it was drawn for {columns} columns and {rows} rows"
        more = f"yours has {console.width} and {console.height}: make it larger to see it whole"
        console.print(f"{said}; {more}", style="yellow", soft_wrap=True, highlight=False)


class Live:
    """What comes of an open session, in a terminal: lines, and while one of its terminals is open, that one.  Lines
    that come meanwhile wait for its end; so do terminals beside the first."""

    def __init__(self, console: Console) -> None:
        self._console, self._operation = console, 0
        self._escapes, self._reading = Escapes(), Reading()
        self._before: dict[int, deque[Entry]] = {}     # of open terminals, the last pieces
        self._waiting: deque[object] = deque(maxlen=WAITING)

    def see(self, entry: Entry, new: bool) -> bool:
        """Whether it was a terminal's, and is dealt with.  `new`: it came while we looked."""
        operation = getattr(entry.event, "operation", 0)
        if is_terminal(entry) and operation not in self._before and len(self._before) < WAITING:
            self._before[operation] = deque(maxlen=BEFORE)
        if entry.kind in (events.RESULT, events.SESSION_CLOSED):
            self._end(operation if entry.kind == events.RESULT else self._operation)
            return False
        if entry.kind not in (events.STREAMED, events.STREAM_ENDED) or operation not in self._before:
            return False
        self._before[operation].append(entry)
        if new:
            self._draw(entry) if operation == self._operation else self.begin()
        return True

    def begin(self) -> None:
        """Draw the terminal that is open, where one is."""
        if self._operation or not self._before:
            return
        self._operation = max(self._before)
        self._escapes, self._reading = Escapes(), Reading()
        self._console.file.write("\n" * (self._console.height - 1) + "\x1b[H")
        for entry in self._before[self._operation]:
            self._draw(entry)

    def _draw(self, entry: Entry) -> None:
        piece = self._reading.take(entry)
        if piece is not None and piece.stream in SHOWN:
            self._console.file.write(self._escapes.feed(piece.text))
            self._console.file.flush()

    def _end(self, operation: int) -> None:
        self._before.pop(operation, None)
        if operation and operation == self._operation:
            self.close()

    def close(self) -> None:
        """Leave the terminal as it was, and say what waited."""
        if self._operation:
            self._console.file.write(self._escapes.finish())
            self._operation = 0
        while self._waiting:
            self._console.print(self._waiting.popleft(), soft_wrap=True)

    def say(self, text: object) -> None:
        if self._operation:
            self._waiting.append(text)
        else:
            self._console.print(text, soft_wrap=True)


