"""Connections to ports of a pod, as Weir opens them at the server: in SPDY, two streams each.

Source: k8s.io/client-go tools/portforward (handleConnection), k8s.io/kubelet pkg/cri/streaming/portforward.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from enforcer.core.bucket import Bucket
from enforcer.protocols.kubernetes.streams.pipes import Pipe
from enforcer.protocols.kubernetes.streams.spdy.frames import (
    CANCEL,
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
from enforcer.protocols.kubernetes.streams.words import Over
from enforcer.words.errors import RemoteProtocolError

STEP: Final = 2
ASKED: Final = 1                      # the number of Weir's own pings
PINGS, PINGS_AT_ONCE = 10.0, 100.0    # of a server's that are answered a second: it need not read the answers


class Owner(Protocol):
    """Whose connection it is."""

    def linked(self) -> None:
        """It may be written to."""
        ...

    def heard(self, data: bytes) -> None: ...

    def failed(self, text: bytes) -> None:
        """A piece of why it did."""
        ...

    def no_more(self) -> None:
        """Nothing more is heard."""
        ...

    def unlinked(self) -> None:
        """It is gone, and not of the owner's will."""
        ...


class Uplink:
    def __init__(self, uplinks: Uplinks, port: int, owner: Owner) -> None:
        self._to, self._port, self._owner = uplinks, port, owner
        self._request = uplinks.request()
        self._error, self._data = uplinks.open(self, self._headers(b"error")), 0
        self._open = [True, False]    # for the server's words: the error stream, the data stream
        self.linked = self._gone = self._ended = False

    def _headers(self, kind: bytes) -> tuple[tuple[bytes, bytes], ...]:
        return ((b"streamtype", kind), (b"port", b"%d" % self._port), (b"requestid", b"%d" % self._request))

    def send(self, data: bytes) -> None:
        if self.linked and not self._ended and data:
            self._to.put(render_data(self._data, data))

    def end(self) -> None:
        if self.linked and not self._ended:
            self._ended = True
            self._to.put(render_data(self._data, b"", True))

    def drop(self) -> None:
        """The owner wants nothing more of it, and is told nothing more."""
        if not self._gone:
            self._gone = True
            for stream in filter(None, (self._data, self._error)):
                self._to.put(render_reset(stream, CANCEL))
                self._to.forget(stream)

    # What the server says

    def accepted(self, stream: int) -> None:
        """One after the other, as clients ask for them."""
        if stream == self._error and not self._data:
            self._to.put(render_data(self._error, b"", True))
            self._data, self._open[1] = self._to.open(self, self._headers(b"data")), True
        elif stream == self._data and not self.linked:
            self.linked = True
            self._owner.linked()

    def said(self, stream: int, data: bytes) -> None:
        if stream == self._error:
            self._owner.failed(data)
        elif not self.linked:
            raise RemoteProtocolError("data on a stream that was not accepted")
        else:
            self._owner.heard(data)

    def ended(self, stream: int) -> None:
        self._open[stream == self._data] = False
        if stream == self._data and not self._gone:
            self._owner.no_more()
        if not self._gone and not (self._open[0] or self._open[1]):
            self.drop()
            self._owner.unlinked()

    def dropped(self, stream: int) -> None:
        """With the stream for data all is over, and with the other before it."""
        self._to.forget(stream)
        if stream == self._data or not self.linked:
            self._open = [False, False]
        self.ended(stream)


class Uplinks:
    """All of one connection to the server."""

    def __init__(self, pipe: Pipe, send: Callable[[bytes], None], now: Callable[[], float]) -> None:
        self._pipe, self._send, self._now = pipe, send, now
        self._pings = Bucket(PINGS, PINGS_AT_ONCE)
        self._framer = Framer()
        self._of: dict[int, Uplink] = {}
        self._last, self._requests = -1, -1

    def dial(self, port: int, owner: Owner) -> Uplink:
        return Uplink(self, port, owner)

    def receive(self, data: bytes) -> bool:
        """Whether more can come.  Raises RemoteProtocolError."""
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

    def ask(self) -> None:
        """The crew has: what stands between may end connections that are idle.  Whatever the answer is, none waits."""
        self.put(render_ping(ASKED))

    def close(self) -> None:
        self.put(render_goaway(0))
        if last := self._pipe.close():
            self._send(last)

    # For an Uplink

    def request(self) -> int:
        self._requests += 1
        return self._requests

    def open(self, uplink: Uplink, headers: tuple[tuple[bytes, bytes], ...]) -> int:
        self._last += STEP
        self._of[self._last] = uplink
        self.put(self._framer.syn_stream(self._last, headers))
        return self._last

    def put(self, data: bytes) -> None:
        self._send(self._pipe.put(data))

    def forget(self, stream: int) -> None:
        self._of.pop(stream, None)

    def _read(self, frame: Frame) -> None:
        if isinstance(frame, SynStream):
            raise RemoteProtocolError("SPDY: a server begins no streams here")
        if isinstance(frame, Ping):
            if frame.number % STEP == 0 and self._pings.take(self._now()):         # its own
                self.put(render_ping(frame.number))
        elif not isinstance(frame, GoAway):
            self._on(frame)

    def _on(self, frame: SynReply | Data | Reset | Nothing) -> None:
        if frame.stream > self._last:
            raise RemoteProtocolError("SPDY: a frame of a stream that never began")
        uplink = self._of.get(frame.stream)
        if uplink is None:
            return
        if isinstance(frame, Reset):
            uplink.dropped(frame.stream)
            return
        if isinstance(frame, SynReply):
            uplink.accepted(frame.stream)
        elif isinstance(frame, Data) and frame.data:
            uplink.said(frame.stream, frame.data)
        if frame.last:
            uplink.ended(frame.stream)
