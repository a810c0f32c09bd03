"""Windows, order and ends of one channel: pure.

Theory (RFC 4254 5.2).  Each side has a window of Weir's own: what it sends is taken up to that, and given back once it
was passed on to the other side, so nobody has to keep more than WINDOW for whoever does not read.  What is to be sent
waits in `Half.queue` for the window of its receiver; EOF and CLOSE wait behind it.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from enforcer.protocols.ssh import messages
from enforcer.protocols.ssh.messages import CLOSE, EOF
from enforcer.words.errors import RemoteProtocolError

WINDOW: Final = 2 << 20               # bytes: as OpenSSH has it
SMALL: Final = 128 << 10              # where a session has many channels
PACKET: Final = 32 << 10              # bytes of data in a message: RFC 4253 6.1
LEAST: Final = 256                    # that a peer must take at a time: a message for every byte costs Weir seconds
TAIL: Final = 4 << 10                 # bytes up to which what waits is joined
MANY: Final = 1024                    # pieces that wait, each with its place; then those of a stream go together
SHARE: Final = 64 << 10               # bytes of window that are given back at a time
MOST: Final = (1 << 32) - 1

Send = Callable[[int, bytes], None]   # (peer, message)


class Half:
    """One side of a channel, as Weir has it with that peer.  `number` is Weir's, `theirs` the peer's."""

    __slots__ = ("closed", "closing", "ended", "ending", "granted", "number", "owed", "packet", "peer", "queue",
                 "queued", "send", "sent_close", "sent_end", "theirs", "window")

    def __init__(self, peer: int, number: int, send: Send, granted: int = WINDOW) -> None:
        self.peer, self.number, self.send = peer, number, send
        self.theirs = self.window = self.packet = 0
        self.granted, self.owed = granted, 0
        self.queue: deque[tuple[int, bytes]] = deque()     # (type of extended data or 0, data)
        self.queued = 0
        self.ended = self.closed = False                   # what they have said
        self.ending = self.closing = False                 # what is to be said
        self.sent_end = self.sent_close = False

    def confirm(self, theirs: int, window: int, packet: int) -> None:
        """They have opened their end."""
        if packet < LEAST:
            raise RemoteProtocolError(f"a channel that takes {packet} bytes at a time")
        self.theirs, self.window, self.packet = theirs, window, min(packet, PACKET)

    def took(self, size: int) -> None:
        """They have sent so much."""
        if self.ended or self.closed:
            raise RemoteProtocolError("data after the end of a channel")
        if size > self.granted:
            raise RemoteProtocolError("more data than a channel's window has room for")
        self.granted -= size

    def adjust(self, amount: int) -> None:
        """They have room for so much more."""
        if self.window + amount > MOST:
            raise RemoteProtocolError("a channel's window of more than 2^32 - 1 bytes")
        self.window += amount
        self.pump()

    def put(self, data: bytes, kind: int = 0) -> None:
        """To be sent there."""
        if self.ending or self.closing or not data:
            return
        if not self.queue and len(data) <= self.window and len(data) <= self.packet:
            self.window -= len(data)
            self._emit(data, kind)
            return
        self.queued += len(data)
        self._keep(kind, data)
        self.pump()

    def _keep(self, kind: int, data: bytes) -> None:
        """Small pieces as one: a piece costs a hundred bytes besides its own.  Where there are many, `out` and `err` no
        longer keep their places between each other, which nobody promises (RFC 4254 5.2)."""
        queue = self.queue
        for place in (-1, -2) if len(queue) > MANY else (-1,):
            if -place <= len(queue) and queue[place][0] == kind and len(queue[place][1]) + len(data) <= TAIL:
                queue[place] = kind, queue[place][1] + data
                return
        queue.append((kind, data))

    def pump(self) -> None:
        """Send what there is room for."""
        while self.queue and self.window:
            kind, data = self.queue[0]
            size = min(self.window, self.packet)
            if size >= len(data):
                self.queue.popleft()
                piece = data
            else:
                piece = data[:size]
                self.queue[0] = kind, data[size:]
            self.window -= len(piece)
            self.queued -= len(piece)
            self._emit(piece, kind)
        if not self.queue:
            self._say_ends()

    def _emit(self, data: bytes, kind: int) -> None:
        if kind:
            self.send(self.peer, messages.render_extended(self.theirs, kind, data))
        else:
            self.send(self.peer, messages.render_data(self.theirs, data))

    def end(self) -> None:
        """EOF, behind what waits."""
        self.ending = True
        self.pump()

    def close(self) -> None:
        self.closing = True
        self.pump()

    def drop(self) -> None:
        """CLOSE at once: what waits is not sent."""
        self.forget()
        self.close()

    def forget(self) -> None:
        """What waits is not sent."""
        self.queue.clear()
        self.queued = 0

    def _say_ends(self) -> None:
        if self.ending and not self.sent_end and not self.sent_close:
            self.sent_end = True
            self.send(self.peer, messages.render_bare(EOF, self.theirs))
        if self.closing and not self.sent_close:
            self.sent_close = True
            self.send(self.peer, messages.render_bare(CLOSE, self.theirs))

    def give_back(self, size: int, now: bool) -> None:
        """So much of what they sent was passed on.  Not `now`: the other side is behind, they wait."""
        self.owed += size
        if now and self.owed >= SHARE and not self.closed and not self.sent_close:
            self.granted += self.owed
            amount, self.owed = self.owed, 0
            self.send(self.peer, messages.render_adjust(self.theirs, amount))

    @property
    def over(self) -> bool:
        return self.closed and self.sent_close
