"""Pure: the name that a TLS client asks for (RFC 8446 4.1.2, RFC 6066 3), from records as they come."""
from __future__ import annotations

from typing import Final

MOST: Final = 64 << 10                # bytes of a ClientHello
RECORDS: Final = 1024                 # that it may come in
_ALERT, _HANDSHAKE = 0x15, 0x16
_CLIENT_HELLO: Final = 1


class Unfinished(Exception):
    """More bytes are needed."""


class Malformed(ValueError):
    """Why it is no ClientHello that a server would take; "opaque": it is not TLS at all."""


def server_name(data: bytes) -> str:
    """In lower case, without the last dot; "" where none is asked for.  Raises Unfinished, Malformed."""
    if data[:1] and data[0] & 0x80:   # SSL 2 (RFC 5246 E.2): it has no extensions
        if len(data) < 4:
            raise Unfinished
        if data[2] == 1 and data[3] in (0, 2, 3):
            return ""
        raise Malformed("opaque")
    hello = _hello(data)
    at = 2 + 32                       # legacy_version, random
    at += 1 + _byte(hello, at)        # legacy_session_id
    at += 2 + _number(hello, at)      # cipher_suites
    at += 1 + _byte(hello, at)        # legacy_compression_methods
    if at == len(hello):
        return ""
    end = at + 2 + _number(hello, at)
    if end != len(hello):
        raise Malformed("extensions of a wrong length")
    return _find(hello, at + 2, end)


def _hello(data: bytes) -> bytes:
    """Body of the first handshake message, put together from its records."""
    message, at = b"", 0
    for _ in range(RECORDS):
        head = data[at:at + 5]
        if len(head) > 1 and head[1] != 3 and (at or not _lenient(data)):
            raise Malformed("a record of another version" if at else "opaque")
        if head[:1] and head[0] != _HANDSHAKE:
            if len(head) < 2:
                raise Unfinished
            raise Malformed("it does not begin with a handshake")
        if len(head) < 5:
            raise Unfinished
        size = head[3] << 8 | head[4]
        if not 0 < size <= 1 << 14:   # RFC 8446 5.1
            raise Malformed("a record of a wrong length")
        message += data[at + 5:at + 5 + size]
        if message[:1] and message[0] != _CLIENT_HELLO:
            raise Malformed("it does not begin with a ClientHello")
        if len(message) >= 4:
            length = int.from_bytes(message[1:4], "big")
            if length > MOST:
                raise Malformed("a ClientHello that is too long")
            if len(message) >= 4 + length:
                return message[4:4 + length]
        if len(data) < at + 5 + size:
            raise Unfinished
        at += 5 + size
    raise Malformed("in too many records")


def _lenient(data: bytes) -> bool:
    """Whether what begins with another version than 3.x may be TLS all the same: it is not looked at by every server
    (RFC 8446 5.1 says so; Go's takes any below 16.0), and an alert may come before a hello."""
    if data[1] >= 16 or data[0] not in (_ALERT, _HANDSHAKE):
        return False
    if len(data) < 6:
        raise Unfinished
    if data[0] == _ALERT:
        return data[3:5] == b"\0\2" and data[5] in (1, 2)     # RFC 8446 6: level and description
    return data[5] == _CLIENT_HELLO


def _find(hello: bytes, at: int, end: int) -> str:
    names = []
    while at < end:
        kind, size = _number(hello, at), _number(hello, at + 2)
        at += 4 + size
        if at > end:
            raise Malformed("an extension of a wrong length")
        if kind == 0:
            names.append(_name(hello[at - size:at]))
    if len(names) > 1:
        raise Malformed("two server names")
    return names[0] if names else ""


def _name(extension: bytes) -> str:
    """RFC 6066 3: a list of exactly one host_name, as all clients send it."""
    size = _number(extension, 3)
    if _number(extension, 0) != len(extension) - 2 or extension[2] != 0 or size != len(extension) - 5 or not size:
        raise Malformed("a server name of another form")
    try:
        return extension[5:].decode("ascii").lower().removesuffix(".")
    except UnicodeDecodeError:
        raise Malformed("a server name of another form") from None


def _byte(data: bytes, at: int) -> int:
    if at >= len(data):
        raise Malformed("it ends within itself")
    return data[at]


def _number(data: bytes, at: int) -> int:
    if at + 2 > len(data):
        raise Malformed("it ends within itself")
    return data[at] << 8 | data[at + 1]
