"""Payload as recorded: the DataRow and CopyData messages that the client got, one after the other, maybe cut.

Source: PostgreSQL 15 documentation, 55.7: a kind, four bytes length with themselves; DataRow: number of columns, then
for each its length (-1 is NULL) and the value.  Values of a binary result that are no text are shown in hexadecimal.
"""
from __future__ import annotations

from collections.abc import Iterator

Row = list[str | None]


def parse_payload(content: bytes) -> Iterator[Row]:
    """Rows in their order; what is cut or malformed ends them."""
    at = 0
    while at + 5 <= len(content):
        kind, size = content[at:at + 1], int.from_bytes(content[at + 1:at + 5], "big")
        body = content[at + 5:at + 1 + size]
        if size < 4 or len(body) < size - 4:
            return
        at += 1 + size
        if kind == b"d":
            yield [_text(body.rstrip(b"\n"))]
            continue
        row = _columns(body) if kind == b"D" else None
        if row is None:
            return
        yield row


def _columns(body: bytes) -> Row | None:
    row: Row = []
    at = 2
    for _ in range(int.from_bytes(body[:2], "big")):
        size = int.from_bytes(body[at:at + 4], "big", signed=True)
        at += 4
        if size < -1 or at > len(body) or at + max(size, 0) > len(body):
            return None
        row.append(None if size < 0 else _text(body[at:at + size]))
        at += max(size, 0)
    return row


def _text(value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return "\\x" + value.hex()
    return text if text.isprintable() or any(c in text for c in "\n\t") else "\\x" + value.hex()
