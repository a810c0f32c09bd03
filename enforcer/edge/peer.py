"""One side of a session: its transport, why it is not read, and whether the layer knows that it is gone."""
from __future__ import annotations

import asyncio
from typing import Final, Protocol

from enforcer.edge import tls, upstream
from enforcer.words.commands import SERVER

HIGH: Final = 256 << 10               # bytes in a write buffer above which the other side is not read
LOW: Final = 64 << 10
OWN: Final = 1 << 20                  # bytes that TLS may add to it of its own, or a server by asking, and not read
LOOK: Final = 0.1                     # seconds between looks at that
LEFT: Final = 5.0                     # seconds in which one that was left may take what it has been sent

UNREAD_ANSWERS: Final = "it asks, and does not read what it is answered"

# Why a peer is not read now.
LAYER: Final = 1                      # the layer wants it
FULL: Final = 2                       # the other side's write buffer
STARTING: Final = 4                   # TLS is about to start: what comes is not plaintext
QUEUED: Final = 8                     # too much waits for the journal
PRESSED: Final = 16                   # the recorder is behind
LEAVING: Final = 64                   # it ends, once sessions through it have
UNREAD: Final = 32                    # its own write buffer: it asks, and does not read what it is answered


class Events(Protocol):
    """Who is told: a session."""

    def received(self, peer: int, data: bytes) -> None: ...

    def gone(self, peer: int, reason: str) -> None: ...

    def lost(self) -> None: ...

    def full(self, peer: int, on: bool) -> None: ...


class Nobody:
    """Of a connection that was left."""

    def received(self, peer: int, data: bytes) -> None:
        pass

    def gone(self, peer: int, reason: str) -> None:
        pass

    def lost(self) -> None:
        pass

    def full(self, peer: int, on: bool) -> None:
        pass


class Peer(asyncio.Protocol):
    """`early` collects what comes before the layer may see it: before `open`, and while TLS starts (a peer's first
    bytes may come in one segment with the end of its handshake).  A pass or two of the loop, so bounded by reads.
    `hello`: what a client that begins with TLS has sent before that: its handshake begins so.

    `_most`: TLS answers by itself (KeyUpdate, RFC 8446 4.6.3; alerts), and keeps what is not taken.  A server is read
    whether it reads or not, and a layer may have to answer it (SSH's requests).  While much waits for the peer, or it
    is being closed, that is looked at: answers, and what nobody has written, may grow by OWN."""

    __slots__ = ("_below", "_events", "_full", "_most", "_paused", "closing", "early", "hello", "number", "secure",
                 "told", "transport")

    def __init__(self, events: Events, number: int) -> None:
        self._events, self.number = events, number
        self.transport: asyncio.Transport | None = None       # None before it is there and after it is lost
        self.early: list[bytes] | None = []
        self.hello = b""
        self.closing = False          # nothing more is written
        self.told = False             # the layer knows that it is gone, or wanted it
        self.secure = False
        self._paused = self._most = 0
        self._full = False
        self._below: asyncio.Transport | None = None          # what is paused: the transport, or the one below TLS

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        if self.early is None:
            self._events.received(self.number, data)
        else:
            self.early.append(data)

    def eof_received(self) -> bool:
        self._events.gone(self.number, "")
        return not self.secure        # a plain stream may still be written to

    def connection_lost(self, error: Exception | None) -> None:
        if self.transport is not None:
            self.transport = None
            self._events.gone(self.number, "" if error is None else tls.explain(error))
            self._events.lost()

    def pause_writing(self) -> None:
        self._full = True
        self._bound()
        self._events.full(self.number, True)

    def resume_writing(self) -> None:
        self._full = False
        self._events.full(self.number, False)

    # What a session does with it

    def attach(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._below = self._below or transport
        transport.set_write_buffer_limits(HIGH, LOW)
        if self._paused and (below := self._readable()):
            below.pause_reading()

    def open(self) -> None:
        """From here on the layer sees what comes."""
        early, self.early = self.early, None
        if early:
            self._events.received(self.number, b"".join(early))

    def starting(self, first: bytes) -> None:
        """TLS begins, after `first`: uvloop would give a ClientHello that comes before its task runs as plaintext."""
        if first:
            self.write(first)         # what answers it is read in a later pass, and by then nothing is
        self.stop_reading(STARTING)
        self.early = []

    def started(self, transport: asyncio.Transport) -> None:
        """`transport`: TLS's.  Reading is paused below it: what uvloop's TLS holds while it is paused itself is lost
        when the connection ends."""
        self.secure = True
        self._paused &= ~STARTING
        self.attach(transport)

    def write(self, data: bytes, answers: bool = False) -> None:
        transport = self.transport
        # is_closing: uvloop raises where the peer reset it and connection_lost is still to come.  STARTING: plaintext
        # would end up between the records of a handshake.
        if transport is None or self.closing or self._paused & STARTING or transport.is_closing():
            return
        if self._most and not (answers and self.number == SERVER):
            self._most += len(data) + len(data) // 64 + 64     # and the records' own bytes
        transport.write(data)

    def stop_reading(self, why: int) -> None:
        before, self._paused = self._paused, self._paused | why
        if not before and (below := self._readable()):
            below.pause_reading()

    def go_on_reading(self, why: int) -> None:
        before, self._paused = self._paused, self._paused & ~why
        if before and not self._paused and (below := self._readable()):
            below.resume_reading()

    def stopped(self, why: int) -> bool:
        return bool(self._paused & why)

    def close(self) -> None:
        """Flush, then close."""
        self.told = True
        if self.transport is not None and not self.closing:
            if self._paused and self.secure and (below := self._readable()):
                below.resume_reading()         # TLS reads on for the other's last record
            self.closing = True
            self._bound()
            self.transport.close()

    def reset(self) -> None:
        """Close with RST: what was not sent is not, and whatever the other end answers fails."""
        self.told = self.closing = True
        if self.transport is not None:
            upstream.reset(self.transport)

    def leave(self) -> Peer:
        """It is closed, and another stands in its place."""
        another = Peer(self._events, self.number)
        another._paused = self._paused & FULL
        self._events = Nobody()
        self.close()
        asyncio.get_running_loop().call_later(LEFT, self.abort)        # no session ends it any more
        return another

    def abort(self) -> None:
        self.closing = True
        if self.transport is not None:
            self.transport.abort()
            if self._paused & STARTING:        # TLS has the transport, and says nothing of an end in the handshake
                self.transport = None

    def unread(self) -> None:
        """It asks, and leaves the answers."""
        self._events.gone(self.number, "it has TLS answer, and does not read" if self.secure else UNREAD_ANSWERS)
        self.abort()

    def _bound(self) -> None:
        if (self.secure or self.number == SERVER) and not self._most and self.transport is not None:
            self._most = self.transport.get_write_buffer_size() + OWN
            asyncio.get_running_loop().call_later(LOOK, self._look)

    def _look(self) -> None:
        if self.transport is None or not (self._full or self.closing):
            self._most = 0
        elif self.transport.get_write_buffer_size() > self._most:
            self.unread()
        else:
            asyncio.get_running_loop().call_later(LOOK, self._look)

    def _readable(self) -> asyncio.Transport | None:
        over = self.transport is None or self.closing or self.transport.is_closing()
        return None if over or self._below is None or self._below.is_closing() else self._below
