"""One operation's streams as an asciicast.  Pure: entries in, lines out.

Source: asciinema's documentation, "asciicast v2": a header, then an event a line, `[seconds, code, data]`, with the
codes "o" (what the terminal showed), "i" (what was typed) and "r" (a new size, "COLUMNSxROWS").
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

import msgspec

from enforcer.recording.read import Entry
from enforcer.recording.tapes import HEIGHT, SECOND, SIZE, WIDTH, Piece, parse_size, read_pieces

CODES: Final = {"out": "o", "err": "o", "in": "i", SIZE: "r"}
_encode: Final = msgspec.json.Encoder().encode


def render_asciicast(entries: Iterable[Entry], title: str = "") -> Iterator[str]:
    """Lines without their ends.  The size is that of the first `size`, 80x24 where there is none."""
    pieces = read_pieces(entries)
    first = next(pieces, None)
    sized = first is not None and first.stream == SIZE
    width, height = parse_size(first.text.encode()) if first is not None and sized else (WIDTH, HEIGHT)
    header = {"version": 2, "width": width, "height": height, "timestamp": first.at // SECOND if first else 0,
              **({"title": title} if title else {})}
    yield _encode(header).decode()
    for piece in chain(() if first is None or sized else (first,), pieces):
        if piece.stream in CODES:
            yield _line(piece)


def _line(piece: Piece) -> str:
    text = piece.text
    if piece.stream == SIZE:
        text = "x".join(map(str, parse_size(text.encode())))
    return _encode([round(piece.after / SECOND, 6), CODES[piece.stream], text]).decode()
