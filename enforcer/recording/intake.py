"""One journal file as the recorder reads it: whole records from a position on.

What lies there was written by a process that may have been broken into, or by one that died in the middle of a write.
Sizes are checked before memory is taken; a record that is not whole waits for the rest; one whose checksum is wrong
ends the file, since nothing after it can be trusted to begin where it seems to.
"""
from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec

from agent.contract.journal import BLOB, BODY_LIMIT, EVENT, HEADER
from enforcer.hot.chain import make_digest
from enforcer.recording.journal import NAME, SALT

CHUNK: Final = 1 << 20                # bytes of one read, unless one record is larger
LOCKING: Final = "enforcer"           # writers that hold a lock on the file that they write
MOST_BLOBS: Final = 300_000           # digests of one file that are remembered
UNCERTAIN: Final = 40                 # looks at a record whose checksum is wrong: a write may still be under way

Record = tuple[int, bytes, int]       # kind, body, position after it


class JournalFile:
    """`taken` is a position between two records.  Raises OSError; ValueError where this is no file of a journal."""

    def __init__(self, directory: Path, name: str, taken: int) -> None:
        found = NAME.fullmatch(name)
        if found is None:
            raise ValueError(f"{name} is no name of a journal file")
        self.name, self.path = name, directory / name
        self.writer, self.instance, self.number = found[1], found[2], int(found[3])
        self.key = f"{self.writer}-{self.instance}"
        self.taken = taken
        self.ended = False            # END was read, or nothing more will come
        self.error = ""               # why the rest cannot be read
        self.told = False             # that is in the recording
        self._doubts = 0
        self.blobs: dict[bytes, int] = {}      # digest -> id in the recording's current file
        self._earlier: dict[bytes, tuple[int, int]] | None = None if taken else {}
        self._fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        state = os.fstat(self._fd)
        if not stat.S_ISREG(state.st_mode):
            self.close()
            raise ValueError(f"{name} is not a regular file")
        self.owner = state.st_uid

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def modified(self) -> int:
        return os.fstat(self._fd).st_mtime_ns

    def records(self, limit: int) -> Iterator[Record]:
        """Whole records from `taken` on, about `limit` bytes of them.  The caller moves `taken`."""
        at, end = self.taken, min(self.size(), self.taken + limit)
        while at < end and not self.ended and not self.error:
            data = os.pread(self._fd, CHUNK, at)
            found = self._parse(data, at) or self._large(data, at)
            if not found:
                return
            yield from found
            at = found[-1][2]

    def _parse(self, data: bytes, base: int) -> list[Record]:
        """The whole records at its beginning: a list, since a generator's turn costs as much as a record's checksum."""
        found: list[Record] = []
        at, whole, header = 0, len(data), HEADER.size
        unpack, add = HEADER.unpack_from, found.append
        while at + header <= whole:
            kind, size, crc = unpack(data, at)
            begin = at + header
            after = begin + size
            if size > BODY_LIMIT:
                self._doubt(base + at, f"a record of {size} bytes")
                break
            if after > whole:
                break
            body = data[begin:after]
            if crc32(body, crc32(data[at:at + 5])) != crc:
                self._doubt(base + at, "a wrong checksum")
                break
            self._doubts = 0
            add((kind, body, base + after))
            at = after
        return found

    def _large(self, data: bytes, at: int) -> list[Record]:
        """The one record at `at` that did not fit a chunk; none where it is not whole or not right."""
        if self.error or len(data) < HEADER.size:
            return []
        _, size, _ = HEADER.unpack_from(data)
        whole = HEADER.size + size
        if size > BODY_LIMIT or whole <= CHUNK or self.size() < at + whole:
            return []
        return self._parse(os.pread(self._fd, whole, at), at)

    def _doubt(self, at: int, what: str) -> None:
        self._doubts += 1
        if self._doubts >= UNCERTAIN:
            self.error = f"{what} at byte {at}"

    def is_abandoned(self) -> bool:
        """The writer holds it no more.  Only of writers that lock.  What was written before is there to be read."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        return True

    def forget_blobs(self) -> None:
        """The recording began a new file: ids are of the old one."""
        self.blobs.clear()
        self._earlier = None

    def know_blob(self, digest: bytes, number: int) -> None:
        if len(self.blobs) >= MOST_BLOBS:
            self.forget_blobs()       # they are found again in the file
        self.blobs[digest] = number

    def find_blob(self, digest: bytes) -> bytes | None:
        """Salt and content of a blob that lies before `taken`, of which no id is known any more."""
        if self._earlier is None:
            self._earlier = dict(self._scan())
        place = self._earlier.get(digest)
        return None if place is None else os.pread(self._fd, place[1], place[0])

    def _scan(self) -> Iterator[tuple[bytes, tuple[int, int]]]:
        at, found = 0, 0
        while at < self.taken and found < MOST_BLOBS:
            head = os.pread(self._fd, HEADER.size, at)
            if len(head) < HEADER.size:
                return
            kind, size, _ = HEADER.unpack(head)
            if size > BODY_LIMIT:
                return
            if kind == BLOB and size >= SALT:
                body = os.pread(self._fd, size, at + HEADER.size)
                yield make_digest(body[:SALT], body[SALT:]), (at + HEADER.size, size)
                found += 1
            at += HEADER.size + size

    def first_monotonic(self) -> int:
        """Of the file's first event; 0 where there is none."""
        saved, self.taken = self.taken, 0
        try:
            record = next(self.records(CHUNK), None)
            return int(msgspec.msgpack.decode(record[1])[2]) if record and record[0] == EVENT else 0
        except (msgspec.MsgspecError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
            return 0
        finally:
            self.taken = saved

    def close(self) -> None:
        os.close(self._fd)
