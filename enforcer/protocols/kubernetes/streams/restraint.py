"""How much waits of what a side has sent: it is not read while that is too much."""
from __future__ import annotations

from collections.abc import Callable
from typing import Final

from enforcer.words.commands import Command, PauseReading, ResumeReading

ROOM: Final = 256 << 10               # bytes of one side that wait, in all


class Restraint:
    def __init__(self, say: Callable[[Command], None]) -> None:
        self._say = say
        self._waiting, self._paused = [0, 0], [False, False]

    def change(self, peer: int, size: int) -> None:
        """So many bytes more wait, or (below 0) less."""
        self._waiting[peer] += size
        stop = self._waiting[peer] > (ROOM // 2 if self._paused[peer] else ROOM)
        if stop != self._paused[peer]:
            self._paused[peer] = stop
            self._say(PauseReading(peer) if stop else ResumeReading(peer))


class Waiting:
    """Bytes of one stream of a side that cannot go on yet."""

    def __init__(self, restraint: Restraint, peer: int) -> None:
        self._restraint, self._peer = restraint, peer
        self._kept, self._told = bytearray(), 0

    def add(self, data: bytes) -> None:
        self._kept += data

    def take(self) -> bytes:
        data, self._kept = bytes(self._kept), bytearray()
        return data

    def settle(self) -> None:
        """After what could go has gone."""
        if len(self._kept) != self._told:
            more, self._told = len(self._kept) - self._told, len(self._kept)
            self._restraint.change(self._peer, more)
