"""The agent's own journal: what happened on the host.  Framing and file names: agent/contract/journal.py.

One writer, append-only.  What could not be written whole is cut off again, and JournalError says that nothing was
recorded; the next attempt goes into another file, for the recorder may have read a part of it.
"""
from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from agent.contract.journal import END, HostEvent, render_host_event, render_record

HOST: Final = 20                      # enforcer/words/events.py
SEGMENT: Final = 16 << 20             # bytes after which the next file begins
VALUE: Final = 4096                   # characters of one detail
TAKEN: Final = "taken"
TAKEN_LIMIT: Final = 1 << 20          # bytes of the recorder's file


class JournalError(Exception):
    pass


class Journal:
    """`audit`: gid that may read the files."""

    def __init__(self, directory: Path, audit: int, *, writer: str = "agent", segment: int = SEGMENT) -> None:
        self._directory, self._audit, self._writer, self._segment = directory, audit, writer, segment
        self._instance = os.urandom(8).hex()
        self._number = 0
        self._fd = -1
        self._size = 0

    def record(self, name: str, workload: str = "", detail: Mapping[str, object] | None = None) -> None:
        """One event, written before this returns.  Raises JournalError."""
        self.record_all([make_event(name, workload, detail or {})])

    def record_all(self, events: Iterable[HostEvent]) -> None:
        """Several by one write.  Raises JournalError."""
        data = b"".join(map(render_host_event, events))
        if data:
            self._write(data)

    def sync(self) -> None:
        """To the disk.  Raises JournalError."""
        if self._fd >= 0:
            try:
                os.fdatasync(self._fd)
            except OSError as reason:
                raise JournalError(f"{self._directory}: {reason.strerror}") from reason

    def close(self) -> None:
        if self._fd < 0:
            return
        with suppress(JournalError):
            self._append(render_record(END, b""))
            self.sync()
        self._abandon()

    def _write(self, data: bytes) -> None:
        if self._fd >= 0 and self._size + len(data) > self._segment:
            self.close()
        if self._fd < 0:
            self._open()
        self._append(data)

    def _open(self) -> None:
        path = self._directory / f"{self._writer}-{self._instance}-{self._number}.journal"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._fd = os.open(path, flags, 0o640)
            os.fchown(self._fd, -1, self._audit)
            os.fchmod(self._fd, 0o640)
        except OSError as reason:
            self._abandon()
            raise JournalError(f"{path}: {reason.strerror}") from reason
        self._size = 0

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest):]
        except OSError as reason:
            with suppress(OSError):   # else the torn end stays, and the recorder says so
                os.ftruncate(self._fd, self._size)
            self._abandon()
            raise JournalError(f"{self._directory}: {reason.strerror}") from reason
        self._size += len(data)

    def _abandon(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._number += 1


def make_event(name: str, workload: str, detail: Mapping[str, object]) -> HostEvent:
    shown = {key: plain(str(value)) for key, value in detail.items()}
    return HostEvent(HOST, time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME), name, plain(workload), shown)


def plain(text: str) -> str:
    """Bounded, and without what UTF-8 cannot hold (file names and arguments may be any bytes)."""
    return text[:VALUE].encode(errors="backslashreplace").decode()


def read_taken(directory: Path) -> dict[str, int]:
    """How far the recorder is: bytes by file name.  Empty where it has not said."""
    try:
        with open(directory / TAKEN, "rb") as file:
            return msgspec.msgpack.decode(file.read(TAKEN_LIMIT), type=dict[str, int])
    except (OSError, ValueError):     # msgspec's own are ValueErrors, as is text that is no UTF-8
        return {}


def backlog(directory: Path, writer: str = "") -> int:
    """Bytes of journal that the recorder has not taken yet, of one writer or of all."""
    taken, waiting = read_taken(directory), 0
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(".journal") and entry.name.startswith(writer):
                with suppress(OSError):
                    waiting += max(0, entry.stat(follow_symlinks=False).st_size - taken.get(entry.name, 0))
    return waiting
