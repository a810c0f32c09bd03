"""Streams of exec and attach in SPDY: the crew opens each, with its type as a header."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from enforcer.http.messages import value
from enforcer.protocols.kubernetes.streams.spdy.frames import (
    CANCEL,
    LAST,
    Data,
    Frame,
    Framer,
    GoAway,
    Nothing,
    Ping,
    Reset,
    SynReply,
    SynStream,
    render_data,
    render_goaway,
    render_ping,
    render_reset,
)
from enforcer.protocols.kubernetes.streams.words import (
    NAMES,
    Accepted,
    Answered,
    Asked,
    Dropped,
    Ended,
    Opened,
    Over,
    Said,
    Word,
)
from enforcer.words.errors import RemoteProtocolError

TYPE: Final = b"streamtype"
STEP: Final = 2                       # between two streams of one side: a client's are odd (draft 3, 2.3.2)


class SpdyWire:
    """`client`: Weir's role.  A stream's number is each side's own."""

    def __init__(self, client: bool) -> None:
        self._framer, self._client = Framer(), client
        self._numbers: dict[int, int] = {}     # of each stream that is there
        self._streams: dict[int, int] = {}     # and back
        self._seen = -1 if client else 0       # the last number

    def receive(self, data: bytes) -> Iterator[Word]:
        for frame in self._framer.receive(data):
            yield from self._read(frame)

    def _read(self, frame: Frame) -> Iterator[Word]:
        if isinstance(frame, SynStream):
            yield self._opened(frame)
        elif isinstance(frame, Ping):          # the number says whose it is (2.6.5)
            yield (Answered if frame.number % STEP == self._client else Asked)(frame.number.to_bytes(4, "big"))
        elif isinstance(frame, GoAway):
            yield Over()
        elif (stream := self._known(frame.stream)) is not None:
            yield from self._on(stream, frame)

    def _opened(self, frame: SynStream) -> Opened:
        if self._client or frame.stream % STEP == 0 or frame.stream <= self._seen:
            raise RemoteProtocolError("SPDY: a stream that its sender may not begin")
        named = value(frame.headers, TYPE)
        if named not in NAMES or NAMES.index(named) in self._numbers:
            raise RemoteProtocolError("SPDY: a stream of a type that is unknown, or that there is already")
        self._seen = frame.stream
        self._add(NAMES.index(named), frame.stream)
        return Opened(NAMES.index(named), frame.last)

    def _add(self, stream: int, number: int) -> None:
        self._numbers[stream], self._streams[number] = number, stream

    def _known(self, number: int) -> int | None:
        """None: what is said on it is for nobody."""
        if number > self._seen:
            raise RemoteProtocolError("SPDY: a frame of a stream that never began")
        return self._streams.get(number)

    def _on(self, stream: int, frame: SynReply | Data | Reset | Nothing) -> Iterator[Word]:
        if isinstance(frame, SynReply):
            yield Accepted(stream)
        elif isinstance(frame, Reset):
            yield Dropped(stream, frame.status)
            return
        elif isinstance(frame, Data) and frame.data:
            yield Said(stream, frame.data)
        if frame.last:
            yield Ended(stream)

    # Writing

    def open(self, stream: int, last: bool) -> bytes:
        self._seen += STEP
        self._add(stream, self._seen)
        return self._framer.syn_stream(self._seen, ((TYPE, NAMES[stream]),), last)

    def accept(self, stream: int) -> bytes:
        return self._framer.syn_reply(self._numbers[stream]) if stream in self._numbers else b""

    def say(self, stream: int, data: bytes) -> bytes:
        return render_data(self._numbers[stream], data) if data and stream in self._numbers else b""

    def end(self, stream: int) -> bytes:
        return render_data(self._numbers[stream], b"", True) if stream in self._numbers else b""

    def drop(self, stream: int, status: int) -> bytes:
        return render_reset(self._numbers[stream], status or CANCEL) if stream in self._numbers else b""

    def ask(self, token: bytes) -> bytes:
        return render_ping(int.from_bytes(token, "big"))

    def answer(self, token: bytes) -> bytes:
        return render_ping(int.from_bytes(token, "big"))

    def close(self, code: int, reason: str) -> bytes:
        return render_goaway(min(max(self._seen, 0), LAST))
