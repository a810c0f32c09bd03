"""The frame of every stream between Weir's processes: 4 bytes little-endian length, then the body.  Pure."""
from __future__ import annotations

import struct
from typing import Final

HEADER: Final = struct.Struct("<I")


def render_frame(body: bytes, limit: int) -> bytes:
    """Raises ValueError: it is over the limit, bytes of a body."""
    if len(body) > limit:
        raise ValueError(f"message of {len(body)} bytes, limit {limit}")
    return HEADER.pack(len(body)) + body


def parse_length(head: bytes, limit: int) -> int:
    """Length of the body that follows these 4 bytes; ValueError where it is over the limit: nothing is kept of it."""
    size: int = HEADER.unpack(head)[0]
    if size > limit:
        raise ValueError(f"message of {size} bytes, limit {limit}")
    return size
