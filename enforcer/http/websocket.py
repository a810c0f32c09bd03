"""WebSocket on a connection that is upgraded already: frames both ways, pure (RFC 6455).

wsproto reads and writes the frames, and refuses what the RFC does: wrong masks, fragmented or long control frames,
reserved bits (no extension is ever agreed on), lengths that are not the shortest, text that is no UTF-8.  A message
comes in pieces as it arrives: nothing waits for its end, so its length need not be bounded.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from enforcer.words.errors import RemoteProtocolError

NORMAL: Final = 1000                  # RFC 6455 7.4.1
NO_CODE: Final = 1005                 # stands for a close that says none
REASON: Final = 123                   # bytes of a reason in a close frame (5.5)


@dataclass(frozen=True, slots=True)
class Part:
    """Of a message.  `first` and `last`: of its parts; both where it came whole."""

    data: bytes                       # of a text: its UTF-8, never with a letter cut in two
    text: bool
    first: bool
    last: bool


@dataclass(frozen=True, slots=True)
class Ping:
    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    code: int                         # NO_CODE where it says none
    reason: str = ""


Event = Part | Ping | Pong | Close


class WebSocket:
    """Weir's end of one connection; `client`: that is its role, so what it sends is masked (5.3)."""

    def __init__(self, client: bool) -> None:
        self._frames = FrameProtocol(client, [])
        self._inside = False          # a message has begun, and not ended
        self.closed = self.sent_close = False          # the peer has sent its close frame; we have sent ours

    def receive(self, data: bytes) -> Iterator[Event]:
        """RemoteProtocolError for what is no WebSocket.  What follows a close frame is nothing (5.5.1)."""
        if self.closed:
            return
        self._frames.receive_bytes(data)
        try:
            for frame in self._frames.received_frames():
                if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
                    yield self._part(frame.payload, frame.message_finished)
                else:
                    yield self._control(frame.opcode, frame.payload)
        except ParseFailed as error:
            self.closed = True
            raise RemoteProtocolError(f"WebSocket: {error}") from None

    def _part(self, payload: bytes | str | tuple[int, str], last: bool) -> Part:
        first, self._inside = not self._inside, not last
        if isinstance(payload, str):
            return Part(payload.encode(), True, first, last)
        assert isinstance(payload, bytes)
        return Part(payload, False, first, last)

    def _control(self, opcode: Opcode, payload: bytes | str | tuple[int, str]) -> Event:
        if isinstance(payload, tuple):
            self.closed = True
            return Close(int(payload[0]), payload[1] or "")
        assert isinstance(payload, bytes)
        return Ping(payload) if opcode is Opcode.PING else Pong(payload)

    def message(self, data: bytes, text: bool = False) -> bytes:
        """One of its own; `text`: `data` is UTF-8.  b"" behind our close frame, as all that follows it."""
        if self.sent_close:
            return b""
        return bytes(self._frames.send_data(data.decode() if text else data, True))

    def ping(self, payload: bytes = b"") -> bytes:
        return b"" if self.sent_close else bytes(self._frames.ping(payload))

    def pong(self, payload: bytes = b"") -> bytes:
        return b"" if self.sent_close else bytes(self._frames.pong(payload))

    def close(self, code: int = NORMAL, reason: str = "") -> bytes:
        """`reason` is cut to what fits in a frame."""
        if self.sent_close:
            return b""
        self.sent_close = True
        shown = reason.encode("utf-8", "replace")[:REASON].decode("utf-8", "ignore")
        return bytes(self._frames.close(None if code == NO_CODE else code, shown if code != NO_CODE else None))
