"""DataRow rewriting: masked values replaced, the rest copied.  Runs as it is and compiled by mypyc.

Source: PostgreSQL 15 documentation, 55.7, DataRow: 'D', Int32 length, Int16 columns, then for each Int32 length (-1 is
NULL) and that many bytes.
"""
from __future__ import annotations

from collections.abc import Callable

Mask = Callable[[bytes], bytes | None]


def rewrite(data: bytes, start: int, end: int, masks: list[Mask | None]) -> bytes | None:
    """The whole DataRows that fill data[start:end] with `masks[i]` applied to column i; None where one is malformed.
    A mask that gives None makes the value NULL."""
    parts: list[bytes] = []
    at: int = start
    while at < end:
        if end - at < 7:
            return None
        stop: int = at + 1 + ((data[at + 1] << 24) | (data[at + 2] << 16) | (data[at + 3] << 8) | data[at + 4])
        if stop > end or ((data[at + 5] << 8) | data[at + 6]) != len(masks):
            return None
        kept: int = at + 5
        size: int = 4
        here: int = len(parts)
        parts.append(b"")
        at += 7
        for mask in masks:
            if at + 4 > stop:
                return None
            length: int = (data[at] << 24) | (data[at + 1] << 16) | (data[at + 2] << 8) | data[at + 3]
            body: int = at + 4
            if length == 0xFFFFFFFF:
                at = body
                continue
            if body + length > stop:
                return None
            at = body + length
            if mask is None:
                continue
            parts.append(data[kept:body - 4])
            size += body - 4 - kept
            value = mask(data[body:at])
            if value is None:
                parts.append(b"\xff\xff\xff\xff")
                size += 4
            else:
                parts.append(len(value).to_bytes(4, "big"))
                parts.append(value)
                size += 4 + len(value)
            kept = at
        if at != stop:
            return None
        parts.append(data[kept:stop])
        size += stop - kept
        parts[here] = b"D" + size.to_bytes(4, "big")
    return b"".join(parts)
