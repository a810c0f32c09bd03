"""The enforcer's end of the journal: framed records, appended by one write a pass of the event loop.

Theory.  A file belongs to its writer as long as the writer holds its lock (flock); the kernel lets go when the writer
dies, which is how the recorder knows that nothing more comes.  So a file gets its name only after it is locked, and the
next file is there before END goes into the one before.

A write that fails is cut off, and the file is never written to again: the recorder may have read a part of it, and what
followed at the same place would be missed.  What was in that write is forgotten, so that it cannot appear later.

A blob is written once a file: each event's blobs lie before it in the same file.

Files are 0644 in a directory that only the recorder's user (its owner), the writer's group and root may enter: the
recorder is no member of the writer's group.
"""
from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec

from agent.contract.journal import BLOB, BODY_LIMIT, END, EVENT, HEADER, render_record
from enforcer.words.errors import RecordingError
from enforcer.words.events import Blob, render_event

SEGMENT: Final = 16 << 20             # bytes after which the next file begins
SALT: Final = 16                      # bytes
KNOWN: Final = 4096                   # digests of blobs that are remembered as written
RETIRED: Final = 8                    # files that wait for sync()
FRESH: Final = 0.05                   # seconds for which a backlog that was read holds
TAKEN: Final = "taken"
TAKEN_LIMIT: Final = 1 << 20          # bytes of the recorder's file
MODE: Final = 0o644
NAME: Final = re.compile(r"([a-z]{1,16}[0-9]{0,3})-([0-9a-f]{16})-([0-9]{1,9})\.journal")

_KIND_AND_SIZE: Final = struct.Struct("<BI")


class JournalWriter:
    """One writer's files in `directory`.  `limit`: bytes that may wait for the recorder; `reserve`: bytes that stay
    free on the file system; `clock` gives monotonic seconds.  Everything but sync() belongs to one thread."""

    def __init__(
        self, directory: Path, writer: str, instance: str, *, limit: int, reserve: int, segment: int = SEGMENT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory, self._writer, self._instance = directory, writer, instance
        self._limit, self._reserve, self._segment, self._clock = limit, reserve, segment, clock
        self._number = 0
        self._size = 0                # of the current file
        self._pending: list[bytes] = []
        self._known: set[bytes] = set()
        self._lock = threading.Lock() # over the three that follow
        self._fd = -1
        self._retired: list[int] = []
        self._unnamed = False         # the directory's entry is not on the disk
        self._suspect = False         # fdatasync failed: what the kernel holds of this file may be lost
        self._backlog = (-FRESH, 0)
        if not NAME.fullmatch(self._name()):
            raise RecordingError(f"{self._name()} is no name of a journal file")
        self._open()

    def append(self, event: msgspec.Struct, blobs: tuple[Blob, ...] = ()) -> None:
        """Into memory only.  RecordingError where a record is over the journal's limit: nothing of it is kept.

        A blob's digest is its caller's word: the recorder, who trusts no writer, makes it again."""
        if self._suspect and self._fd >= 0 and not self._pending:
            self._rotate()            # before anything is appended that names blobs of this file
        body = render_event(event)
        if len(body) > BODY_LIMIT:
            raise RecordingError(f"an event of {len(body)} bytes, limit {BODY_LIMIT}")
        if blobs:
            self._append_blobs(blobs)
        head = _KIND_AND_SIZE.pack(EVENT, len(body))
        self._pending += (HEADER.pack(EVENT, len(body), crc32(body, crc32(head))), body)

    def _append_blobs(self, blobs: tuple[Blob, ...]) -> None:
        for _, salt, content in blobs:
            if len(salt) != SALT or len(content) > BODY_LIMIT - SALT:
                raise RecordingError(f"a blob of {len(content)} bytes with {len(salt)} bytes of salt")
        for digest, salt, content in blobs:
            if digest in self._known:
                continue
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known.add(digest)
            self._pending.append(render_record(BLOB, salt + content))

    def flush(self) -> None:
        """Everything appended is with the kernel at return.  RecordingError: none of it is, and none will be."""
        if not self._pending:
            return
        data = b"".join(self._pending)
        self._pending.clear()
        if self._fd < 0:
            self._known.clear()       # should it fail, what is in `data` is not written
            self._open()
        elif self._suspect:
            number = self._number
            self._rotate()
            if self._number != number:             # a sync failed after append(): blobs may lie in the file before
                raise RecordingError(f"{self._directory}: a file could not be synced, another was begun")
        self._write(data)
        if self._size > self._segment:
            self._rotate()

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                written = os.write(self._fd, rest)
                if not written:
                    raise OSError(errno.EIO, "nothing was written")
                rest = rest[written:]
        except OSError as reason:
            self._abandon()
            raise RecordingError(f"{self._directory / self._name(-1)}: {reason.strerror}") from reason
        self._size += len(data)

    def _abandon(self) -> None:
        """Cut off what a failed write left; this file is not written to again."""
        with self._lock:
            fd, self._fd = self._fd, -1
        self._known.clear()
        self._number += 1
        try:
            os.ftruncate(fd, self._size)
        except OSError:               # the torn end stays, the recorder says so
            pass
        finally:
            self._retire(fd)

    def _rotate(self) -> None:
        """The next file first, then END: at each moment one file shows that the writer lives."""
        before = self._fd
        self._number += 1
        try:
            self._open()
        except RecordingError:        # go on in the old one; the next flush tries again
            self._number -= 1
            return
        try:
            os.write(before, render_record(END, b""))
        except OSError:
            pass                      # a file without END and without lock counts as ended as well
        self._retire(before)

    def _retire(self, fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)
        with self._lock:
            self._retired.append(fd)
            full = len(self._retired) > RETIRED
        if full:
            self.sync()

    def _open(self) -> None:
        """A new file: made under another name, locked, then named.  The blobs of the one before are not in it."""
        path = self._directory / self._name()
        fresh = self._directory / f".{path.name}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = -1
        try:
            fd = os.open(fresh, flags, MODE)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(fd, MODE)
            os.link(fresh, path)      # unlike rename, this replaces nothing
            os.unlink(fresh)
        except OSError as reason:
            if fd >= 0:
                fresh.unlink(missing_ok=True)
                os.close(fd)
            raise RecordingError(f"{path}: {reason.strerror}") from reason
        with self._lock:
            self._fd, self._size, self._unnamed, self._suspect = fd, 0, True, False
        self._known.clear()

    def _name(self, offset: int = 0) -> str:
        return f"{self._writer}-{self._instance}-{self._number + offset}.journal"

    def sync(self) -> None:
        """Everything flushed before this call is on the disk when it returns; any thread.  Raises RecordingError."""
        with self._lock:
            retired, self._retired = self._retired, []
            current, unnamed = self._fd, self._unnamed
            kept = os.dup(current) if current >= 0 else -1     # the other thread may close its own meanwhile
            self._unnamed = False
        try:
            for fd in (*retired, *(() if kept < 0 else (kept,))):
                os.fdatasync(fd)
            if unnamed:
                _sync_directory(self._directory)
        except OSError as reason:
            with self._lock:
                self._unnamed, self._suspect = self._unnamed or unnamed, True
            raise RecordingError(f"{self._directory}: {reason.strerror}") from reason
        finally:
            for fd in (*retired, *(() if kept < 0 else (kept,))):
                os.close(fd)

    def backlog(self) -> int:
        """Bytes of this writer's files, of earlier instances too, that the recorder has not taken."""
        at, known = self._backlog
        now = self._clock()
        if now - at < FRESH:
            return known
        self._backlog = (now, count_backlog(self._directory, f"{self._writer}-"))
        return self._backlog[1]

    def check(self) -> None:
        """RecordingError where the recorder is too far behind or the disk is nearly full."""
        waiting = self.backlog()
        if waiting > self._limit:
            raise RecordingError(f"{waiting} bytes of journal wait for the recorder, limit {self._limit}")
        try:
            disk = os.statvfs(self._directory)
        except OSError as reason:
            raise RecordingError(f"{self._directory}: {reason.strerror}") from reason
        free = disk.f_bavail * disk.f_frsize
        if free < self._reserve:
            raise RecordingError(f"{self._directory}: {free} bytes free, reserve {self._reserve}")

    def close(self) -> None:
        """What is pending is not written: flush first.  Raises RecordingError where END or the sync fails."""
        if self._fd >= 0:
            self._write(render_record(END, b""))
            self.sync()
            with self._lock:
                fd, self._fd = self._fd, -1
            os.close(fd)
        else:
            self.sync()


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_taken(directory: Path) -> dict[str, int]:
    """How far the recorder is: bytes by file name.  Empty where it has not said: then everything waits."""
    try:
        with open(directory / TAKEN, "rb") as file:
            return msgspec.msgpack.decode(file.read(TAKEN_LIMIT), type=dict[str, int])
    except (OSError, ValueError):     # msgspec's own are ValueErrors, as is text that is no UTF-8
        return {}


def count_backlog(directory: Path, prefix: str) -> int:
    """Bytes of the files whose names begin so that were not taken.  RecordingError where the directory is gone."""
    taken, waiting = read_taken(directory), 0
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(prefix) and NAME.fullmatch(entry.name)]
    except OSError as reason:
        raise RecordingError(f"{directory}: {reason.strerror}") from reason
    for name in names:
        try:
            waiting += max(0, os.lstat(directory / name).st_size - taken.get(name, 0))
        except OSError:               # taken and deleted just now
            continue
    return waiting
