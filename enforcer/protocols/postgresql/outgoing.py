"""What goes to a peer at the end of a pass."""
from __future__ import annotations


class Outgoing:
    """Bytes for one peer; neighbouring pieces of one buffer stay one piece, and a whole buffer itself."""

    __slots__ = ("_buffer", "_end", "_parts", "_start")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._buffer, self._start, self._end = b"", 0, 0

    def piece(self, buffer: bytes, start: int, end: int) -> None:
        if buffer is self._buffer and start == self._end:
            self._end = end
        else:
            self._close()
            self._buffer, self._start, self._end = buffer, start, end

    def add(self, data: bytes) -> None:
        self._close()
        self._parts.append(data)

    def _close(self) -> None:
        if self._end > self._start:
            self._parts.append(self._buffer[self._start:self._end])
        self._buffer, self._start, self._end = b"", 0, 0

    def take(self) -> bytes:
        self._close()
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)
