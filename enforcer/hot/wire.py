"""PostgreSQL framing, both directions: bytes in, the places of whole messages out; nothing is copied.

The same file runs as it is and compiled by mypyc.  Source: PostgreSQL 15 documentation, 55.2 Message Flow, 55.7 Message
Formats: one byte kind, four bytes big-endian length that counts itself, body.
"""
from __future__ import annotations

from typing import Final

HEADER: Final = 5
SIZE_LIMIT: Final = 0x40000000        # 1 GiB: PostgreSQL's own MaxAllocSize


class Framing:
    """Cuts one direction of a stream into messages.

    `feed(data)` gives `(whole, places)`: a buffer and the flat list kind, start, end, count, kind, start, ... of what
    is in it.  Neighbours of a kind in `merged` are one place, `count` messages long.  A message of a kind in `streamed`
    that is longer than what is there is given in pieces: its place ends at the end of the buffer and counts it, `tail`
    is where it begins, `owed` says how many bytes follow, and the next `feed` begins with a place of kind `owing` and
    count 0 that holds them.  Any other message is gathered up to `limit` bytes.  `error` is set, and nothing more is
    given, once the peer breaks a rule: a kind that is not in `kinds` is one.
    """

    def __init__(self, limit: int, streamed: bytes, kinds: bytes) -> None:
        self.limit: int = limit
        self.kinds: bytes = kinds
        self.streamed: bytes = streamed
        self.merged: bytes = streamed
        self.tail: int = 0
        self.owed: int = 0
        self.owing: int = 0
        self.error: str = ""
        self._kept: bytearray = bytearray()    # one growing buffer: a list of tiny pieces would take many times as much
        self._have: int = 0
        self._need: int = HEADER

    @property
    def waiting(self) -> int:
        """Bytes kept of a message that is not whole."""
        return self._have

    def give_back(self, data: bytes) -> None:
        """Gather the message at `tail` whole after all; no more of its kind are streamed."""
        start: int = self.tail
        self.streamed = bytes([kind for kind in self.streamed if kind != self.owing])
        self._need = self.owed + len(data) - start
        if self._need > self.limit:
            self.error = f"a message of kind {self.owing} is longer than {self.limit} bytes"
        self.owed = 0
        self._kept = bytearray(data[start:])
        self._have = len(data) - start

    def feed(self, data: bytes) -> tuple[bytes, list[int]]:
        places: list[int] = []
        if self.error:
            return data, places
        if self._have > 0:
            self._kept += data
            self._have += len(data)
            if self._have < self._need:
                return b"", places
            data = bytes(self._kept)
            self._kept = bytearray()
            self._have = 0
        self._need = HEADER
        at: int = 0
        size: int = len(data)
        last: int = -1
        streamed: bytes = self.streamed
        merged: bytes = self.merged
        kinds: bytes = self.kinds
        if self.owed > 0:
            at = self.owed if self.owed < size else size
            self.owed -= at
            places.append(self.owing)
            places.append(0)
            places.append(at)
            places.append(0)
        while size - at >= HEADER:
            kind: int = data[at]
            length: int = (data[at + 1] << 24) | (data[at + 2] << 16) | (data[at + 3] << 8) | data[at + 4]
            if kind not in kinds:
                self.error = f"invalid message type {kind}"
                return data, places
            if length < 4 or length > SIZE_LIMIT:
                self.error = f"a message of kind {kind} has length {length}"
                return data, places
            end: int = at + 1 + length
            flows: bool = kind in streamed
            if end > size:
                if not flows:
                    self._need = 1 + length
                    break
                self.owed = end - size
                self.owing = kind
                self.tail = at
                end = size
            if not flows and 1 + length > self.limit:
                break
            if kind == last:
                places[-2] = end
                places[-1] += 1
            else:
                places.append(kind)
                places.append(at)
                places.append(end)
                places.append(1)
                last = kind if kind in merged else -1
            at = end
        if self._need > self.limit or (size - at >= HEADER and self._need == HEADER):
            self.error = f"a message of kind {data[at]} is longer than {self.limit} bytes"
        elif at < size:
            self._kept = bytearray(data[at:])
            self._have = size - at
        return data, places
