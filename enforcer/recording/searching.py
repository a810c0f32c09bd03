"""Looking for words in what flowed: on terminals' screens (screens.py) and in streams, line by line, the newest
operations first.  A terminal is slow to draw: the search ends when its time is over, and says what it did not see.
"""
from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec
from rich.text import Text

from enforcer.recording.read import Entry, Reader
from enforcer.recording.replay import local_time, plain, utc_time
from enforcer.recording.screens import Drawn
from enforcer.recording.tapes import FLOWING, SIZE, Piece, is_terminal, parse_size, read_pieces

LINE: Final = 64 << 10                # characters of a line that has no end
SHOWN: Final = 400                    # characters of a line that is shown, around the first word
SAME: Final = 10_000                  # lines of one operation that are not told again


class FoundLine(msgspec.Struct, frozen=True):
    session: str
    operation: int
    at: int                           # nanoseconds UTC, when it was whole
    stream: str                       # "screen" | "in" | "out" | "err"
    line: str


class Searched(msgspec.Struct):
    """How far it came."""

    operations: int = 0               # that have streams
    whole: int = 0                    # of them were searched to their end
    bytes: int = 0                    # kept of all
    seen: int = 0


Progress = Callable[[Searched], None]


class Search:
    """`until`: time.monotonic() by which it ends."""

    def __init__(self, words: Iterable[str], until: float, progress: Progress = lambda _: None) -> None:
        self._words, self._until, self._progress = [one.casefold() for one in words], until, progress
        self.searched = Searched()

    def run(self, reader: Reader, limit: int) -> list[FoundLine]:
        """The newest operations' first, each operation's in their order; at most `limit`."""
        todo = reader.streaming()
        self.searched.operations, self.searched.bytes = len(todo), sum(kept for _, _, kept in todo)
        found: list[FoundLine] = []
        for session, operation, _ in todo:
            for one in self._look(reader.streams_of(session, operation), session, operation):
                if one is not None:
                    found.append(one)
                if len(found) >= limit or self._is_over():
                    return found
            self.searched.whole += 1
        return found

    def _is_over(self) -> bool:
        self._progress(self.searched)
        return time.monotonic() > self._until

    def _look(self, entries: Iterator[Entry], session: str, operation: int) -> Iterator[FoundLine | None]:
        """None: time goes by."""
        first = next(entries, None)
        if first is None:
            return
        pieces = read_pieces(itertools.chain([first], self._counted(entries)))
        told: set[tuple[str, str]] = set()
        for at, stream, line in _drawn(pieces) if is_terminal(first) else _lines(pieces):
            folded = line.casefold()
            if not line or not all(word in folded for word in self._words) or (stream, line) in told:
                yield None
                continue
            if len(told) < SAME:
                told.add((stream, line))
            yield FoundLine(session, operation, at, stream, self._around(line, folded))

    def _counted(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        for entry in entries:
            self.searched.seen += len(entry.content or b"") if entry.kind != 13 else 0
            yield entry

    def _around(self, line: str, folded: str) -> str:
        begin = max(0, folded.find(self._words[0]) - SHOWN // 2) if len(line) > SHOWN else 0
        return ("..." if begin else "") + line[begin:begin + SHOWN] + ("..." if begin + SHOWN < len(line) else "")


def _drawn(pieces: Iterator[Piece]) -> Iterator[tuple[int, str, str]]:
    """(when, "screen", line).  What was typed is there by its echo."""
    drawn, at = Drawn(), 0
    for piece in pieces:
        if piece.stream == SIZE:
            lines = drawn.resize(*parse_size(piece.text.encode()))
        elif piece.stream in ("out", "err"):
            lines = drawn.feed(piece.text)
        else:
            continue
        at = piece.at
        yield from ((at, "screen", line) for line in lines)
    yield from ((at, "screen", line) for line in drawn.finish())


def _lines(pieces: Iterator[Piece]) -> Iterator[tuple[int, str, str]]:
    """(when, stream, line); a line that is too long comes in parts."""
    rest = dict.fromkeys(FLOWING, "")
    at = 0
    for piece in pieces:
        if piece.stream not in rest:
            continue
        at = piece.at
        *whole, left = (rest[piece.stream] + piece.text).split("\n")
        while len(left) > LINE:
            whole, left = [*whole, left[:LINE]], left[LINE:]
        rest[piece.stream] = left
        yield at, piece.stream, ""
        yield from ((at, piece.stream, line.rstrip("\r")) for line in whole)
    yield from ((at, stream, line) for stream, line in rest.items())


def render_line(one: FoundLine) -> Text:
    return Text.assemble((f"{local_time(one.at)} ", "dim"), f"{plain(one.session)} ", (f"{one.operation:>4} ", "dim"),
                         (f"{one.stream} ", "cyan"), (plain(one.line), "bold"))


def line_json(one: FoundLine) -> dict[str, Any]:
    return {"type": "line", "time": utc_time(one.at), **msgspec.structs.asdict(one)}


def render_left(searched: Searched) -> str:
    """What was not searched; "" where that is nothing."""
    left = searched.operations - searched.whole
    if left <= 0:
        return ""
    return (f"{left} of {searched.operations} operations with streams were not searched to their end "
            f"({(searched.bytes - searched.seen) / 10**6:.1f} of {searched.bytes / 10**6:.1f} MB)")
