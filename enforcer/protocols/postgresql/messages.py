"""Messages of the PostgreSQL protocol: rendered and parsed.  Pure.

Source: PostgreSQL 15 documentation, 55.7 Message Formats.  Every `parse_*` takes the body without kind and length and
raises RemoteProtocolError where it is not what the format allows.
"""
from __future__ import annotations

import struct
from typing import Final, NamedTuple

from enforcer.words.errors import RemoteProtocolError

SSL_REQUEST: Final = 80877103
GSSENC_REQUEST: Final = 80877104
CANCEL_REQUEST: Final = 80877102
PROTOCOL_3: Final = 3
STARTUP_LIMIT: Final = 10_000         # MAX_STARTUP_PACKET_LENGTH
NO_PORTAL: Final = b"weir: a portal that cannot exist"


class Field(NamedTuple):
    """One column of a RowDescription."""

    name: bytes
    table: int
    attribute: int
    type: int
    format: int


def render(kind: bytes, body: bytes = b"") -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def render_error(severity: str, code: str, message: str, detail: str = "", hint: str = "", kind: bytes = b"E") -> bytes:
    """ErrorResponse, or NoticeResponse with kind N.  55.8 Error and Notice Message Fields."""
    fields = [("S", severity), ("V", severity), ("C", code), ("M", message), ("D", detail), ("H", hint)]
    body = b"".join(k.encode() + _text(v) for k, v in fields if v)
    return render(kind, body + b"\0")


def _text(value: str) -> bytes:
    return value.replace("\0", "").encode("utf-8", "replace") + b"\0"


def render_execute(portal: bytes) -> bytes:
    return render(b"E", portal + b"\0" + b"\0\0\0\0")


def render_describe_portal(portal: bytes) -> bytes:
    return render(b"D", b"P" + portal + b"\0")


SYNC: Final = render(b"S")
FLUSH: Final = render(b"H")
TERMINATE: Final = render(b"X")
DENIAL: Final = render_execute(NO_PORTAL)


def parse_strings(body: bytes, count: int) -> tuple[list[bytes], int]:
    """`count` NUL-terminated strings from the beginning, and where they end."""
    found, at = [], 0
    for _ in range(count):
        end = body.find(b"\0", at)
        if end < 0:
            raise RemoteProtocolError("a string is not terminated")
        found.append(body[at:end])
        at = end + 1
    return found, at


def parse_error(body: bytes) -> dict[str, str]:
    """Fields of an ErrorResponse or NoticeResponse by their letter."""
    fields: dict[str, str] = {}
    for piece in body.split(b"\0"):
        if piece:
            fields[chr(piece[0])] = piece[1:].decode("utf-8", "replace")
    return fields


def parse_row_description(body: bytes) -> tuple[Field, ...]:
    fields = []
    try:
        count, at = int.from_bytes(body[:2], "big"), 2
        for _ in range(count):
            end = body.index(b"\0", at)
            table, attribute, kind, _, _, form = struct.unpack_from(">IhIhih", body, end + 1)
            fields.append(Field(body[at:end], table, attribute, kind, form))
            at = end + 19
    except (ValueError, struct.error):
        raise RemoteProtocolError("RowDescription is malformed") from None
    if at != len(body):
        raise RemoteProtocolError("RowDescription has bytes left over")
    return tuple(fields)


def parse_types(body: bytes) -> tuple[int, ...]:
    """Parameter types that end a Parse."""
    try:
        (count,) = struct.unpack_from(">H", body)
        types = struct.unpack_from(f">{count}I", body, 2)
    except struct.error:
        raise RemoteProtocolError("Parse is cut short") from None
    if len(body) != 2 + 4 * count:
        raise RemoteProtocolError("Parse has bytes left over")
    return types


class Bind(NamedTuple):
    portal: bytes
    statement: bytes
    values: tuple[bytes | None, ...]
    formats: tuple[int, ...]           # of the parameters: empty, one for all, or one each
    results: tuple[int, ...]           # of the columns, likewise


def parse_bind(body: bytes) -> Bind:
    (portal, statement), at = parse_strings(body, 2)
    try:
        formats, at = _shorts(body, at)
        (count,) = struct.unpack_from(">H", body, at)
        at += 2
        values: list[bytes | None] = []
        for _ in range(count):
            (size,) = struct.unpack_from(">i", body, at)
            at += 4
            if size < -1 or at + max(size, 0) > len(body):
                raise RemoteProtocolError("Bind: a value is longer than the message")
            values.append(None if size < 0 else body[at:at + size])
            at += max(size, 0)
        results, at = _shorts(body, at)
    except struct.error:
        raise RemoteProtocolError("Bind is cut short") from None
    if at != len(body):
        raise RemoteProtocolError("Bind has bytes left over")
    return Bind(portal, statement, tuple(values), formats, results)


def _shorts(body: bytes, at: int) -> tuple[tuple[int, ...], int]:
    (count,) = struct.unpack_from(">H", body, at)
    return struct.unpack_from(f">{count}h", body, at + 2), at + 2 + 2 * count


def parse_startup(body: bytes) -> dict[str, str]:
    """Parameters of a StartupMessage (after the version); keys are kept as they are."""
    if not body.endswith(b"\0\0") and body != b"\0":
        raise RemoteProtocolError("StartupMessage is not terminated")
    pieces = body[:-1].split(b"\0")[:-1] if body != b"\0" else []
    if len(pieces) % 2:
        raise RemoteProtocolError("StartupMessage: a name without a value")
    try:
        words = [piece.decode("utf-8") for piece in pieces]
    except UnicodeDecodeError:
        raise RemoteProtocolError("StartupMessage is not UTF-8") from None
    return dict(zip(words[::2], words[1::2], strict=True))
