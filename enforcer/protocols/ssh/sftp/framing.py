"""Packets of a stream: a length of four bytes, then that many (draft-ietf-secsh-filexfer-02, 3)."""
from __future__ import annotations

from typing import Final

from enforcer.words.errors import RemoteProtocolError

LIMIT: Final = 256 * 1024             # OpenSSH's SFTP_MAX_MSG_LENGTH: of what the length counts
SHORTEST: Final = 5                   # type, and an id or a version
PREFIX: Final = 4


class Framing:
    """`feed` what came, then ask for `next` packets until there is none; a packet begins with its length."""

    __slots__ = ("_at", "_data", "_more", "_view")

    def __init__(self) -> None:
        self._data, self._at = b"", 0
        self._view = memoryview(b"")
        self._more = bytearray()              # what came after `_data`: joined once a packet needs it

    @property
    def waiting(self) -> int:
        """Bytes that were fed and not given out."""
        return len(self._data) - self._at + len(self._more)

    def feed(self, data: bytes) -> None:
        if self._at == len(self._data) and not self._more:
            self._data, self._at, self._view = data, 0, memoryview(data)
        else:
            self._more += data

    def next(self) -> memoryview | None:
        start = self._at
        if not self._has(PREFIX):
            return None
        start = self._at
        length = int.from_bytes(self._view[start:start + PREFIX], "big")
        if not SHORTEST <= length <= LIMIT:
            raise RemoteProtocolError(f"an SFTP packet has length {length}")
        if not self._has(PREFIX + length):
            return None
        start, self._at = self._at, self._at + PREFIX + length
        return self._view[start:self._at]

    def _has(self, size: int) -> bool:
        here = len(self._data) - self._at
        if here >= size:
            return True
        if here + len(self._more) < size:
            return False
        self._data, self._at = b"".join((self._view[self._at:], self._more)), 0
        self._view, self._more = memoryview(self._data), bytearray()
        return True
