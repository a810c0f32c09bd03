"""One operation's streams as an asciicast.  Pure: entries in, lines out.

Source: asciinema's documentation, "asciicast v2": a header, then an event a line, `[seconds, code, data]`, with the
codes "o" (what the terminal showed), "i" (what was typed) and "r" (a new size, "COLUMNSxROWS").
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Final

import msgspec

from enforcer.recording.read import Entry
from enforcer.recording.tapes import HEIGHT, SECOND, SIZE, WIDTH, Piece, parse_size, read_pieces

EARLY: Final = 100                    # pieces among which the first size is looked for
UNSAID: Final = "0x0"
SHOWN: Final = ("out", "err")
CODES: Final = {"out": "o", "err": "o", "in": "i", SIZE: "r"}
_encode: Final = msgspec.json.Encoder().encode


def render_asciicast(entries: Iterable[Entry], title: str = "") -> Iterator[str]:
    """Lines without their ends.  The size is the first that is said before anything is shown, 80x24 where none is."""
    pieces = read_pieces(entries)
    early, said = _until_shown(pieces)
    width, height = parse_size(said.text.encode()) if said is not None else (WIDTH, HEIGHT)
    header = {"version": 2, "width": width, "height": height, "timestamp": early[0].at // SECOND if early else 0,
              **({"title": title} if title else {})}
    yield _encode(header).decode()
    for piece in chain((one for one in early if one.stream != SIZE), pieces):
        if piece.stream in CODES:
            yield _line(piece)


def _until_shown(pieces: Iterator[Piece]) -> tuple[list[Piece], Piece | None]:
    """What comes up to the first size that is one ("0x0" is not said), or the first output; and that size."""
    early: list[Piece] = []
    for piece in islice(pieces, EARLY):
        early.append(piece)
        if piece.stream == SIZE and piece.text != UNSAID:
            return early, piece
        if piece.stream in SHOWN:
            break
    return early, None


def _line(piece: Piece) -> str:
    text = piece.text
    if piece.stream == SIZE:
        text = "x".join(map(str, parse_size(text.encode())))
    return _encode([round(piece.after / SECOND, 6), CODES[piece.stream], text]).decode()
