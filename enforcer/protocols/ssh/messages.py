"""Messages of the SSH connection protocol as bytes (RFC 4254): pure."""
from __future__ import annotations

import struct
from typing import Final

import msgspec

from enforcer.words.errors import RemoteProtocolError

GLOBAL_REQUEST: Final = 80            # RFC 4250 4.1.2
REQUEST_SUCCESS: Final = 81
REQUEST_FAILURE: Final = 82
CHANNEL_OPEN: Final = 90
OPEN_CONFIRMATION: Final = 91
OPEN_FAILURE: Final = 92
WINDOW_ADJUST: Final = 93
DATA: Final = 94
EXTENDED_DATA: Final = 95
EOF: Final = 96
CLOSE: Final = 97
REQUEST: Final = 98
SUCCESS: Final = 99
FAILURE: Final = 100
FIRST: Final = GLOBAL_REQUEST         # of this protocol

PROHIBITED: Final = 1                 # reasons of OPEN_FAILURE, RFC 4254 5.1
CONNECT_FAILED: Final = 2
UNKNOWN_TYPE: Final = 3
SHORTAGE: Final = 4

STDERR: Final = 1                     # the one type of extended data, RFC 4254 5.2
REST: Final = 16 << 10                # bytes that an open may have besides: a host's name, a path
NAME: Final = 128                     # bytes of a name of a request or channel type: RFC 4250 4.6.1 has 64
_U32: Final = struct.Struct("!I")
_HEAD: Final = struct.Struct("!BI")
_TWO: Final = struct.Struct("!BII")
_THREE: Final = struct.Struct("!BIII")
_OPENED: Final = struct.Struct("!BIIII")


class Fields:
    """The fields of a message, one after the other.  RemoteProtocolError where one is not there."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data, self._at = data, at

    def number(self) -> int:
        if self._at + 4 > len(self._data):
            raise RemoteProtocolError("a message ends within a number")
        found: int = _U32.unpack_from(self._data, self._at)[0]
        self._at += 4
        return found

    def flag(self) -> bool:
        if self._at >= len(self._data):
            raise RemoteProtocolError("a message ends within a flag")
        self._at += 1
        return self._data[self._at - 1] != 0          # RFC 4251 5: any other value is true

    def string(self, most: int = 1 << 20) -> bytes:
        size = self.number()
        if size > most or self._at + size > len(self._data):
            raise RemoteProtocolError(f"a text of {size} bytes is too long for its message")
        self._at += size
        return self._data[self._at - size:self._at]

    def text(self, most: int = 1 << 20) -> str:
        return show(self.string(most))

    def rest(self) -> bytes:
        found, self._at = self._data[self._at:], len(self._data)
        return found

    def end(self) -> None:
        if self._at != len(self._data):
            raise RemoteProtocolError("a message has more than its fields")


def show(data: bytes) -> str:
    """As text; what is no UTF-8 as backslashes and hex, so that nothing is lost."""
    return data.decode("utf-8", "backslashreplace")


def show_printable(text: str) -> str:
    """What a peer has said, for a terminal."""
    return "".join(one if one.isprintable() else " " for one in text)


class Request(msgspec.Struct, frozen=True):
    name: bytes
    wants_reply: bool
    rest: bytes


class Open(msgspec.Struct, frozen=True):
    kind: bytes
    sender: int
    window: int
    packet: int
    rest: bytes


def parse_open(message: bytes) -> Open:
    fields = Fields(message, 1)
    found = Open(fields.string(NAME), fields.number(), fields.number(), fields.number(), fields.rest())
    if len(found.rest) > REST:
        raise RemoteProtocolError("a channel whose opening does not end")
    return found


def parse_global(message: bytes) -> Request:
    fields = Fields(message, 1)
    return Request(fields.string(NAME), fields.flag(), fields.rest())


def parse_request(message: bytes) -> Request:
    fields = Fields(message, 5)
    return Request(fields.string(NAME), fields.flag(), fields.rest())


def parse_channel(message: bytes) -> int:
    """The channel that any message about one is for."""
    if len(message) < 5:
        raise RemoteProtocolError("a message ends within its channel's number")
    found: int = _U32.unpack_from(message, 1)[0]
    return found


def string(data: bytes) -> bytes:
    return _U32.pack(len(data)) + data


def render_global(request: Request) -> bytes:
    return b"".join((b"\x50", string(request.name), b"\1" if request.wants_reply else b"\0", request.rest))


def render_open(kind: bytes, sender: int, window: int, packet: int, rest: bytes) -> bytes:
    return b"".join((b"\x5a", string(kind), _U32.pack(sender), _U32.pack(window), _U32.pack(packet), rest))


def render_opened(recipient: int, sender: int, window: int, packet: int) -> bytes:
    return _OPENED.pack(OPEN_CONFIRMATION, recipient, sender, window, packet)


def render_refused(recipient: int, code: int, reason: str) -> bytes:
    return _THREE.pack(OPEN_FAILURE, recipient, code, len(text := reason.encode())) + text + string(b"en")


def render_adjust(recipient: int, amount: int) -> bytes:
    return _TWO.pack(WINDOW_ADJUST, recipient, amount)


def render_data(recipient: int, data: bytes) -> bytes:
    return _TWO.pack(DATA, recipient, len(data)) + data


def render_extended(recipient: int, kind: int, data: bytes) -> bytes:
    return _THREE.pack(EXTENDED_DATA, recipient, kind, len(data)) + data


def render_request(recipient: int, request: Request) -> bytes:
    return b"".join((_HEAD.pack(REQUEST, recipient), string(request.name), b"\1" if request.wants_reply else b"\0",
                     request.rest))


def render_bare(kind: int, recipient: int) -> bytes:
    """EOF, CLOSE, SUCCESS, FAILURE."""
    return _HEAD.pack(kind, recipient)
