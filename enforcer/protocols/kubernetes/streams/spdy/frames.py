"""SPDY/3 frames as values, both ways (draft 3, 2.2 and 2.6).

Data comes in pieces as it arrives; a control frame is whole before it is read, and bounded.  Where the Go library that
clusters use reads on although a frame is longer than what it holds, or knows it not, this refuses it.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final

from enforcer.http.messages import Headers
from enforcer.protocols.kubernetes.streams.spdy.blocks import BLOCK, Blocks
from enforcer.words.errors import RemoteProtocolError

VERSION: Final = 3
SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FIN: Final = 1
UNIDIRECTIONAL: Final = 2
CONTROL: Final = BLOCK + 16           # bytes of a control frame's payload
PIECE: Final = 64 << 10               # bytes of a data frame that Weir writes
LAST: Final = 0x7FFFFFFF              # stream
# Of RST_STREAM.
PROTOCOL_ERROR, REFUSED_STREAM, CANCEL, INTERNAL_ERROR = 1, 3, 5, 6
_HEAD: Final = Struct("!II")
_NUMBER: Final = Struct("!I")
_PAIR: Final = Struct("!II")
_SYN: Final = Struct("!IIBB")


@dataclass(frozen=True, slots=True)
class SynStream:
    stream: int
    headers: Headers
    last: bool                        # its sender says nothing more on it


@dataclass(frozen=True, slots=True)
class SynReply:
    stream: int
    last: bool


@dataclass(frozen=True, slots=True)
class Data:
    stream: int
    data: bytes
    last: bool


@dataclass(frozen=True, slots=True)
class Reset:
    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Ping:
    number: int


@dataclass(frozen=True, slots=True)
class GoAway:
    last: int                         # stream of the receiver's that was taken


@dataclass(frozen=True, slots=True)
class Nothing:
    """What changes nothing where there are no windows: SETTINGS, WINDOW_UPDATE, HEADERS of a stream."""

    stream: int
    last: bool = False


Frame = SynStream | SynReply | Data | Reset | Ping | GoAway | Nothing


class Framer:
    """One end of a connection."""

    def __init__(self) -> None:
        self._blocks = Blocks()
        self._kept = bytearray()
        self._stream = self._left = 0          # of a data frame that is being read: its stream, what is to come
        self._last = False

    def receive(self, data: bytes) -> Iterator[Frame]:
        """RemoteProtocolError for what is no SPDY/3."""
        self._kept += data
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> Frame | None:
        if self._left:
            return self._piece()
        if len(self._kept) < _HEAD.size:
            return None
        first, second = _HEAD.unpack_from(self._kept)
        flags, size = second >> 24, second & 0xFFFFFF
        if first >> 31:
            return self._control(first >> 16 & 0x7FFF, first & 0xFFFF, flags, size)
        return self._begin(first, flags, size)

    def _begin(self, stream: int, flags: int, size: int) -> Frame | None:
        if not stream or flags & ~FIN:
            raise RemoteProtocolError("SPDY: data of no stream, or with flags that nobody knows")
        del self._kept[:_HEAD.size]
        self._stream, self._left, self._last = stream, size, bool(flags & FIN)
        return self._piece() if size else Data(stream, b"", self._last)

    def _piece(self) -> Frame | None:
        if not self._kept:
            return None
        piece = bytes(self._kept[:self._left])
        del self._kept[:self._left]
        self._left -= len(piece)
        return Data(self._stream, piece, self._last and not self._left)

    def _control(self, version: int, kind: int, flags: int, size: int) -> Frame | None:
        read = _READ.get(kind)
        if version != VERSION or read is None:
            raise RemoteProtocolError(f"SPDY: a control frame of type {kind}, version {version}")
        if size > CONTROL:
            raise RemoteProtocolError(f"SPDY: a control frame of more than {CONTROL} bytes")
        if len(self._kept) < _HEAD.size + size:
            return None
        payload = bytes(self._kept[_HEAD.size:_HEAD.size + size])
        del self._kept[:_HEAD.size + size]
        return read(self._blocks, flags, payload)

    # Writing

    def syn_stream(self, stream: int, headers: Headers, last: bool = False) -> bytes:
        payload = _SYN.pack(stream, 0, 0, 0) + self._blocks.write(headers)
        return _control(SYN_STREAM, FIN if last else 0, payload)

    def syn_reply(self, stream: int) -> bytes:
        return _control(SYN_REPLY, 0, _NUMBER.pack(stream) + self._blocks.write(()))


def render_data(stream: int, data: bytes, last: bool = False) -> bytes:
    out = []
    for at in range(0, max(len(data), 1), PIECE):
        piece = data[at:at + PIECE]
        flags = FIN if last and at + PIECE >= len(data) else 0
        out.append(_HEAD.pack(stream, flags << 24 | len(piece)) + piece)
    return b"".join(out)


def render_reset(stream: int, status: int) -> bytes:
    return _control(RST_STREAM, 0, _PAIR.pack(stream, status))


def render_ping(number: int) -> bytes:
    return _control(PING, 0, _NUMBER.pack(number))


def render_goaway(last: int) -> bytes:
    return _control(GOAWAY, 0, _PAIR.pack(last, 0))


def _control(kind: int, flags: int, payload: bytes) -> bytes:
    return _HEAD.pack(1 << 31 | VERSION << 16 | kind, flags << 24 | len(payload)) + payload


# Reading

def _read_syn_stream(blocks: Blocks, flags: int, payload: bytes) -> Frame:
    if len(payload) < _SYN.size or flags & ~(FIN | UNIDIRECTIONAL):
        raise RemoteProtocolError("SPDY: a stream's beginning that is too short, or with unknown flags")
    stream, beside, _, _ = _SYN.unpack_from(payload)
    headers = blocks.read(payload[_SYN.size:])
    if flags & UNIDIRECTIONAL or beside:
        raise RemoteProtocolError("SPDY: a stream in one direction, or beside another")
    return SynStream(_stream(stream), headers, bool(flags & FIN))


def _read_headers(payload: bytes, blocks: Blocks, flags: int) -> int:
    if len(payload) < _NUMBER.size or flags & ~FIN:
        raise RemoteProtocolError("SPDY: headers that are too short, or with unknown flags")
    blocks.read(payload[_NUMBER.size:])        # the next block cannot be inflated without this one
    return _stream(_NUMBER.unpack_from(payload)[0])


def _read_syn_reply(blocks: Blocks, flags: int, payload: bytes) -> Frame:
    return SynReply(_read_headers(payload, blocks, flags), bool(flags & FIN))


def _read_more(blocks: Blocks, flags: int, payload: bytes) -> Frame:
    return Nothing(_read_headers(payload, blocks, flags), bool(flags & FIN))


def _read_reset(blocks: Blocks, flags: int, payload: bytes) -> Frame:
    stream, status = _pair(payload, flags)
    if not status:
        raise RemoteProtocolError("SPDY: a reset without a reason")
    return Reset(_stream(stream), status)


def _read_settings(blocks: Blocks, flags: int, payload: bytes) -> Frame:
    if len(payload) < 4 or len(payload) != 4 + 8 * _NUMBER.unpack_from(payload)[0] or flags & ~FIN:
        raise RemoteProtocolError("SPDY: settings of another length than they say")
    return Nothing(0)


def _read_ping(blocks: Blocks, flags: int, payload: bytes) -> Frame:
    number = _NUMBER.unpack(payload)[0] if len(payload) == _NUMBER.size and not flags else 0
    if not number:
        raise RemoteProtocolError("SPDY: a ping of another length, with flags or without a number")
    return Ping(number)


def _read_goaway(blocks: Blocks, flags: int, payload: bytes) -> Frame:
    return GoAway(_pair(payload, flags)[0] & LAST)


def _read_window(blocks: Blocks, flags: int, payload: bytes) -> Frame:
    return Nothing(_pair(payload, flags)[0] & LAST)


def _pair(payload: bytes, flags: int) -> tuple[int, int]:
    if len(payload) != _PAIR.size or flags:
        raise RemoteProtocolError("SPDY: a control frame of another length than its type has, or with flags")
    first, second = _PAIR.unpack(payload)
    return first, second


def _stream(number: int) -> int:
    if not 0 < number <= LAST:
        raise RemoteProtocolError("SPDY: a frame of no stream")
    return number


_READ: Final[dict[int, Callable[[Blocks, int, bytes], Frame]]] = {
    SYN_STREAM: _read_syn_stream, SYN_REPLY: _read_syn_reply, RST_STREAM: _read_reset, SETTINGS: _read_settings,
    PING: _read_ping, GOAWAY: _read_goaway, HEADERS: _read_more, WINDOW_UPDATE: _read_window,
}
