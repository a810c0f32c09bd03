"""A crew's side of a port-forward: its connections, as pairs of streams in SPDY or of a WebSocket's channels.

Source: k8s.io/kubelet pkg/cri/streaming/portforward (httpstream.go, websocket.go).
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol

from enforcer.http.messages import Headers, value
from enforcer.http.websocket import NORMAL
from enforcer.protocols.kubernetes.info import Query
from enforcer.protocols.kubernetes.streams.channels import Channels
from enforcer.protocols.kubernetes.streams.offers import Spoken
from enforcer.protocols.kubernetes.streams.pipes import Pipe
from enforcer.protocols.kubernetes.streams.spdy.frames import (
    PROTOCOL_ERROR,
    REFUSED_STREAM,
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
from enforcer.protocols.kubernetes.streams.words import Asked, Over, Said
from enforcer.words.errors import RemoteProtocolError

PAIRS: Final = 256                    # connections at a time
REQUEST: Final = 64                   # bytes of what a client calls one: 64 KiB of it are a few bytes in SPDY
PORTS: Final = 64                     # of a WebSocket's channels
LAST_PORT: Final = 65535
STEP: Final = 2
_ERROR, _DATA = b"error", b"data"


class Near(Protocol):
    """The crew's end of one connection."""

    def data(self, data: bytes) -> None: ...

    def error(self, text: bytes) -> None: ...

    def end(self) -> None:
        """No more data."""
        ...

    def finish(self) -> None:
        """Nothing more at all: whatever the crew still says is for nobody."""
        ...


class Far(Protocol):
    """What is on the other end."""

    def said(self, data: bytes) -> None: ...

    def ended(self) -> None: ...

    def dropped(self) -> None: ...


Connect = Callable[[Near, int], Far]


class CrewSide(Protocol):
    def begin(self) -> None:
        """The crew knows that the protocol has changed."""
        ...

    def receive(self, data: bytes) -> bool:
        """Whether more can come.  Raises RemoteProtocolError."""
        ...

    def close(self) -> None: ...


# SPDY

class _Half:
    """Streams of one request, until both are there."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.streams: dict[bytes, int] = {}


class SpdyCrew:
    def __init__(
        self, pipe: Pipe, send: Callable[[bytes], None], connect: Connect, asked: Callable[[], None],
    ) -> None:
        """`asked`: the crew has, whether somebody is there."""
        self._pipe, self._send, self._connect, self._asked = pipe, send, connect, asked
        self._framer = Framer()
        self._halves: dict[bytes, _Half] = {}
        self._of: dict[int, tuple[bytes, Far | None]] = {}     # of each stream: its type, and where it leads
        self._seen = 0

    def begin(self) -> None: ...

    def receive(self, data: bytes) -> bool:
        for piece in self._pipe.receive(data):
            if isinstance(piece, Over):
                return False
            for frame in self._framer.receive(piece):
                if isinstance(frame, GoAway):
                    return False
                self._read(frame)
        if answers := self._pipe.answers():
            self._send(answers)
        return True

    def close(self) -> None:
        self.put(render_goaway(self._seen))
        if last := self._pipe.close():
            self._send(last)

    def put(self, data: bytes) -> None:
        self._send(self._pipe.put(data))

    def forget(self, stream: int) -> None:
        self._of.pop(stream, None)

    def _read(self, frame: Frame) -> None:
        if isinstance(frame, SynStream):
            self._begun(frame)
        elif isinstance(frame, Ping):
            if frame.number % STEP:            # its own: of Weir's there are none
                self.put(render_ping(frame.number))
                self._asked()
        elif not isinstance(frame, GoAway):
            self._on(frame)

    def _begun(self, frame: SynStream) -> None:
        if frame.stream % STEP == 0 or frame.stream <= self._seen:
            raise RemoteProtocolError("SPDY: a stream that its sender may not begin")
        self._seen = frame.stream
        kind, port = value(frame.headers, b"streamtype"), read_port(value(frame.headers, b"port"))
        fits = kind in (_ERROR, _DATA) and port and len(value(frame.headers, b"requestid")) <= REQUEST
        if not fits or len(self._of) >= STEP * PAIRS:
            self.put(render_reset(frame.stream, REFUSED_STREAM if fits else PROTOCOL_ERROR))
            return
        self._pair(_request(frame.stream, kind, frame.headers), kind, port, frame)

    def _pair(self, request: bytes, kind: bytes, port: int, frame: SynStream) -> None:
        half = self._halves.setdefault(request, _Half(port))
        if kind in half.streams or half.port != port:
            self.put(render_reset(frame.stream, PROTOCOL_ERROR))
            return
        half.streams[kind] = frame.stream
        self._of[frame.stream] = kind, None
        self.put(self._framer.syn_reply(frame.stream))
        if len(half.streams) == len((_ERROR, _DATA)):
            del self._halves[request]
            self._complete(half)
        if frame.last and kind == _DATA:
            self._ended(frame.stream)

    def _complete(self, half: _Half) -> None:
        error, data = half.streams[_ERROR], half.streams[_DATA]
        near = _Streams(self, error, data)
        far = self._connect(near, half.port)
        if not near.finished:
            self._of[error], self._of[data] = (_ERROR, far), (_DATA, far)

    def _on(self, frame: SynReply | Data | Reset | Nothing) -> None:
        if frame.stream > self._seen:
            raise RemoteProtocolError("SPDY: a frame of a stream that never began")
        kind, far = self._of.get(frame.stream, (b"", None))
        if not kind:
            return
        if isinstance(frame, Reset):
            self._dropped(frame.stream, kind, far)
        elif kind == _DATA:
            if isinstance(frame, Data) and frame.data:
                if far is None:
                    raise RemoteProtocolError("data of a connection that is not whole")
                far.said(frame.data)
            if frame.last:
                self._ended(frame.stream)

    def _ended(self, stream: int) -> None:
        _, far = self._of.get(stream, (b"", None))
        if far is not None:
            far.ended()

    def _dropped(self, stream: int, kind: bytes, far: Far | None) -> None:
        if far is None:
            for request, half in list(self._halves.items()):
                if stream in half.streams.values():
                    del self._halves[request]
                    for one in half.streams.values():
                        self.forget(one)
        elif kind == _DATA:
            far.dropped()


class _Streams:
    """Near, in SPDY."""

    def __init__(self, crew: SpdyCrew, error: int, data: int) -> None:
        self._crew, self._error, self._data = crew, error, data
        self._ended = self.finished = False

    def data(self, data: bytes) -> None:
        if not self._ended:
            self._crew.put(render_data(self._data, data))

    def error(self, text: bytes) -> None:
        if not self.finished:
            self._crew.put(render_data(self._error, text))

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            self._crew.put(render_data(self._data, b"", True))

    def finish(self) -> None:
        if not self.finished:
            self.finished = True
            self._crew.put(render_data(self._error, b"", True))
            self.end()
            self._crew.forget(self._error)
            self._crew.forget(self._data)


def _request(stream: int, kind: bytes, headers: Headers) -> bytes:
    """What both streams of a connection have in common; of clients that do not say it, the first one's number."""
    said = value(headers, b"requestid")
    return b"said " + said if said else b"first %d" % (stream if kind == _ERROR else stream - STEP)


def read_port(text: bytes) -> int:
    """0: it is none."""
    port = int(text) if text.isdigit() and len(text) <= len(str(LAST_PORT)) else 0
    return port if port <= LAST_PORT else 0


# Channels: two for each port that the request names, and each port is one connection.

def read_ports(query: Query) -> Iterator[int]:
    """RemoteProtocolError for what is none."""
    for name, said in query:
        for one in said.split(",") if name == "ports" else ():
            port = read_port(one.encode())
            if not port:
                raise RemoteProtocolError("a port that is none")
            yield port


class ChannelCrew:
    def __init__(
        self, spoken: Spoken, query: Query, send: Callable[[bytes], None], connect: Connect, asked: Callable[[], None],
        over: Callable[[], None],
    ) -> None:
        """`asked`: as SpdyCrew's.  `over`: all its connections are."""
        self._send, self._connect, self._asked, self._over = send, connect, asked, over
        self._ports = tuple(read_ports(query))
        if not 0 < len(self._ports) <= PORTS:
            raise RemoteProtocolError(f"a port-forward of no port, or of more than {PORTS}")
        self._wire = Channels(spoken, False, 2 * len(self._ports))
        self._far: dict[int, Far] = {}
        self._begun, self._left = False, len(self._ports)

    def begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        for number, port in enumerate(self._ports):
            for channel in (2 * number, 2 * number + 1):
                self.say(channel, port.to_bytes(2, "little"))
        for number, port in enumerate(self._ports):
            self._far[2 * number] = self._connect(_Channel(self, 2 * number), port)

    def receive(self, data: bytes) -> bool:
        self.begin()
        for word in self._wire.receive(data):
            if isinstance(word, Over):
                return False
            if isinstance(word, Said) and word.data and word.stream in self._far:
                self._far[word.stream].said(word.data)
            elif isinstance(word, Asked):
                self._send(self._wire.answer(word.token))
                self._asked()
        return True

    def close(self) -> None:
        if last := self._wire.close(NORMAL, ""):
            self._send(last)

    def say(self, channel: int, data: bytes) -> None:
        if out := self._wire.say(channel, data):
            self._send(out)

    def finished(self) -> None:
        self._left -= 1
        if not self._left:
            self._over()


class _Channel:
    """Near, as two channels."""

    def __init__(self, crew: ChannelCrew, channel: int) -> None:
        self._crew, self._channel, self._finished = crew, channel, False

    def data(self, data: bytes) -> None:
        if not self._finished:
            self._crew.say(self._channel, data)

    def error(self, text: bytes) -> None:
        if not self._finished:
            self._crew.say(self._channel + 1, text)

    def end(self) -> None: ...

    def finish(self) -> None:
        if not self._finished:
            self._finished = True
            self._crew.finished()
