"""What flowed in one operation, as a person would see it: pieces of streams as text, in their order.  Pure.

UTF-8 is read across the pieces of one stream; what is none of it is shown as U+FFFD, as terminals do.
"""
from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from enforcer.recording.read import Entry
from enforcer.words import events

IN, OUT, ERR, SIZE, SIGNAL = "in", "out", "err", "size", "signal"
FLOWING: Final = (IN, OUT, ERR)
WIDTH, HEIGHT = 80, 24                # of a terminal that has not said
MOST_COLUMNS, MOST_ROWS = 1000, 200   # a client may say anything
SECOND: Final = 10**9


class Piece(NamedTuple):
    seq: int
    after: int                        # nanoseconds since the operation's first piece, never less than before
    at: int                           # nanoseconds UTC
    stream: str
    text: str


def parse_size(content: bytes) -> tuple[int, int]:
    """(columns, rows) of "COLUMNSxROWS", within what a terminal may have."""
    columns, _, rows = content.partition(b"x")
    return (_bounded(columns, WIDTH, MOST_COLUMNS), _bounded(rows, HEIGHT, MOST_ROWS))


def _bounded(digits: bytes, unknown: int, most: int) -> int:
    if not digits.isdigit() or len(digits) > 9:
        return unknown
    return min(int(digits), most) or unknown          # RFC 4254, 6.2: zero is to be ignored


class Reading:
    """Turns entries of one operation into pieces, one at a time."""

    def __init__(self) -> None:
        self._decoders = {one: codecs.getincrementaldecoder("utf-8")("replace") for one in FLOWING}
        self._began: int | None = None
        self._after = 0

    def take(self, entry: Entry) -> Piece | None:
        """None: it is no piece, or nothing of it can be shown yet, or any more."""
        e = entry.event
        if entry.kind == events.STREAM_ENDED and e.stream in self._decoders:
            return self._made(entry, e.stream, self._decoders[e.stream].decode(b"", True))
        if entry.kind != events.STREAMED:
            return None
        if entry.content is None:
            return self._made(entry, e.stream, "")
        decoder = self._decoders.get(e.stream)
        text = entry.content.decode("utf-8", "replace") if decoder is None else decoder.decode(entry.content)
        return self._made(entry, e.stream, text)

    def _made(self, entry: Entry, stream: str, text: str) -> Piece | None:
        e = entry.event
        if self._began is None:
            self._began = e.monotonic
        self._after = max(self._after, e.monotonic - self._began)
        return Piece(entry.seq, self._after, e.at, stream, text) if text else None


def read_pieces(entries: Iterable[Entry]) -> Iterator[Piece]:
    """Of one operation."""
    reading = Reading()
    for entry in entries:
        piece = reading.take(entry)
        if piece is not None:
            yield piece


def is_terminal(first: Entry | None) -> bool:
    """Whether the operation whose first piece this is has a terminal: its size comes before all else."""
    return first is not None and first.kind == events.STREAMED and first.event.stream == SIZE
