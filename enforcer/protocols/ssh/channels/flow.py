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
        if not packet:
            raise RemoteProtocolError("a channel without room for a packet")
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
        if self.ending or self.closing:
            return
        if not self.queue and len(data) <= self.window and len(data) <= self.packet:
            self.window -= len(data)
            self._emit(data, kind)
            return
        self.queue.append((kind, data))
        self.queued += len(data)
        self.pump()

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
        self.queue.clear()
        self.queued = 0
        self.close()

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
