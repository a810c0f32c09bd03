"""What peers of a passage say, in pieces: whatever a byte costs, everybody else has their turn in between.

A passage may be sent a message in every few bytes, and a read of the edge's holds a quarter of a megabyte.  So a read
goes to the passage piece by piece, in small ones where they take long; once that has taken TURN, the rest waits for a
timer, its peer is not read, and that it has gone is told behind it.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Final

from enforcer.http.passage import Passage
from enforcer.words.commands import CLIENT, SERVER, Command, PauseReading, ResumeReading, StartTimer

PIECE: Final = 32 << 10               # bytes at most
SMALL: Final = 2 << 10
TURN: Final = 0.01                    # seconds
SOON: Final = 0.001                   # until the next turn, and a part of what the last one took:
REST: Final = 4
TIMER: Final = "turn"


class Turns:
    """`now`: seconds, of a clock that goes on evenly.  `over`: nothing more is said to the passage."""

    def __init__(
        self, passage: Passage, say: Callable[[Command], None], now: Callable[[], float], over: Callable[[], bool],
    ) -> None:
        self._passage, self._say, self._now, self._over = passage, say, now, over
        self._left = [bytearray(), bytearray()]        # of each peer
        self._gone = [False, False]
        self._wanted, self._paused = [False, False], [False, False]    # not read: the passage wants that; it is so
        self._sizes = [4 * SMALL, 4 * SMALL]   # of each peer's next piece
        self._waits = False

    def receive(self, peer: int, data: bytes) -> None:
        waits = bool(self._left[peer])
        self._left[peer] += data
        if not waits:
            self._go(peer)

    def ended(self, peer: int) -> None:
        self._gone[peer] = True
        if not self._left[peer]:
            self._passage.ended(peer)

    def fired(self) -> None:
        self._waits = False
        for peer in (CLIENT, SERVER):
            if self._left[peer] and not self._over():
                self._go(peer)

    def restrain(self, command: PauseReading | ResumeReading) -> None:
        """The passage's own wish."""
        self._wanted[command.peer] = isinstance(command, PauseReading)
        self._settle(command.peer)

    def _go(self, peer: int) -> None:
        left, took = self._left[peer], 0.0
        while left and not self._over() and took < TURN:
            took += self._give(peer, left)
        if self._over():
            return
        self._settle(peer)
        if left and not self._waits:
            self._waits = True
            self._say(StartTimer(TIMER, max(SOON, took / REST)))
        elif not left and self._gone[peer]:
            self._passage.ended(peer)

    def _give(self, peer: int, left: bytearray) -> float:
        """One piece; the seconds that it took."""
        size, began = self._sizes[peer], self._now()
        piece = bytes(left[:size])
        del left[:size]
        self._passage.receive(peer, piece)
        took = self._now() - began
        if took > TURN / 2:
            self._sizes[peer] = max(size // 2, SMALL)
        elif len(piece) == size:
            self._sizes[peer] = min(2 * size, PIECE)
        return took

    def _settle(self, peer: int) -> None:
        stop = self._wanted[peer] or bool(self._left[peer])
        if stop != self._paused[peer]:
            self._paused[peer] = stop
            self._say(PauseReading(peer) if stop else ResumeReading(peer))
