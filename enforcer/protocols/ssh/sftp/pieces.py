"""What is read or written through one handle, brought into the order of the file.

Clients ask for many pieces at once and servers may answer in another order, so what comes early waits: up to 4 MiB of a
handle and 16 MiB of a session.  What does not fit, or is read or written twice, ends the order: what waited and all
that follows is then taken as it passes, and the tag says "not in order": its hash is of the pieces in that order.  What
is written is recorded before it is sent, so nothing of it waits.
"""
from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Final

HANDLE_LIMIT: Final = 4 << 20
SESSION_LIMIT: Final = 16 << 20
PIECES_LIMIT: Final = 4096


class Room:
    """What the handles of a session may keep together."""

    __slots__ = ("left",)

    def __init__(self, left: int = SESSION_LIMIT) -> None:
        self.left = left


class Pieces:
    """One direction of one handle; `emit` gets its pieces in the order in which they are hashed."""

    __slots__ = ("_early", "_emit", "_hash", "_kept", "_next", "_room", "_waits", "begin", "ordered", "size")

    def __init__(self, room: Room, emit: Callable[[bytes], None], waits: bool = True) -> None:
        self._room, self._emit, self._hash, self._waits = room, emit, sha256(), waits
        self._early: dict[int, bytes] = {}
        self._next = self.begin = -1
        self._kept = self.size = 0
        self.ordered = True

    def start(self, offset: int) -> None:
        """The first piece is asked for there."""
        if self._next < 0:
            self._next = self.begin = offset

    def add(self, offset: int, data: bytes) -> None:
        self.start(offset)
        if offset == self._next or not self.ordered:
            self._pass(data)
            if self._early:
                self._follow()
        elif data:
            self._wait(offset, data)

    def append(self, data: bytes) -> None:
        """To where the file ends, whatever the offset says."""
        self.add(max(self._next, 0), data)

    def _pass(self, data: bytes) -> None:
        self._next += len(data)
        self.size += len(data)
        self._hash.update(data)
        self._emit(data)

    def _follow(self) -> None:
        while (data := self._early.pop(self._next, None)) is not None:
            self._free(len(data))
            self._pass(data)

    def _free(self, size: int) -> None:
        self._kept -= size
        self._room.left += size

    def _wait(self, offset: int, data: bytes) -> None:
        fits = self._kept + len(data) <= HANDLE_LIMIT and len(data) <= self._room.left
        twice = offset < self._next or offset in self._early
        if not self._waits or twice or not fits or len(self._early) >= PIECES_LIMIT:
            self._disorder()
            self._pass(data)
            return
        self._early[offset] = data
        self._kept += len(data)
        self._room.left -= len(data)

    def _disorder(self) -> None:
        self.ordered = False
        early, self._early = self._early, {}
        for data in early.values():
            self._free(len(data))
            self._pass(data)

    def end(self) -> None:
        """No more comes: what still waits has a hole before it."""
        if self._early:
            self._disorder()

    def tag(self, verb: str) -> str:
        """"read 123 bytes sha256=..."; "" where nothing was."""
        if not self.size:
            return ""
        start = f" from {self.begin}" if self.begin > 0 and self.ordered else ""
        order = "" if self.ordered else " not in order"
        return f"{verb} {self.size} bytes{start}{order} sha256={self._hash.hexdigest()}"
