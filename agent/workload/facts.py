"""Facts about a process from /proc, bounded, and only while it is the process that the kernel saw."""
from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from agent.contract.owner import Process
from agent.journal import plain
from agent.workload.arguments import MASK, mask_arguments

ARGUMENTS: Final = 64
CHARACTERS: Final = 4096              # of all arguments
CMDLINE: Final = 1 << 16              # bytes that are read
HASHED: Final = 2 << 30               # bytes of an executable that is hashed
PATIENCE: Final = 2.0                 # seconds that an answer waits for a hash; it goes on and the next one has it
CACHED: Final = 4096                  # hashes
_PIECE: Final = 1 << 20
_TICK: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

Key = tuple[int, int, int, int]       # device, inode, size, ctime: a file that changes has another


class Hashes:
    """SHA-256 of executables, each hashed once, in a thread."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, str] = OrderedDict()
        self._running: dict[Key, asyncio.Future[str]] = {}
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="hash")

    async def of(self, fd: int) -> str:
        """Hex of an open file; empty where it is too long, cannot be read or takes too long.  Takes the descriptor."""
        try:
            status = os.fstat(fd)
        except OSError:
            status = None
        if status is None or not stat.S_ISREG(status.st_mode) or status.st_size > HASHED:
            os.close(fd)
            return ""
        key = (status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)
        if key in self._known:
            os.close(fd)
            self._known.move_to_end(key)
            return self._known[key]
        if key in self._running:
            os.close(fd)
        else:
            running = asyncio.get_running_loop().run_in_executor(self._threads, _hash, fd, key)
            self._running[key] = running
            running.add_done_callback(lambda done: self._done(key, done))
        await asyncio.wait([self._running[key]], timeout=PATIENCE)
        return self._known.get(key, "")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _done(self, key: Key, done: asyncio.Future[str]) -> None:
        self._running.pop(key, None)
        if not done.cancelled() and done.exception() is None and done.result():
            self._known[key] = done.result()
            while len(self._known) > CACHED:
                self._known.popitem(last=False)


def _hash(fd: int, key: Key) -> str:
    """Empty where the file changed meanwhile."""
    with open(fd, "rb", buffering=0) as file:
        whole = hashlib.sha256()
        left = key[2]
        while left > 0 and (piece := file.read(min(_PIECE, left))):
            whole.update(piece)
            left -= len(piece)
        status = os.fstat(fd)
    same = key == (status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns) and left == 0
    return whole.hexdigest() if same else ""


async def read_process(pid: int, when: int, hashes: Hashes, proc: Path = Path("/proc")) -> Process:
    """`when`: CLOCK_MONOTONIC nanoseconds at which the kernel saw this pid.  Where the process that has the pid now is
    a later one, nothing but the pid is said."""
    directory = proc / str(pid)
    started = read_started(directory)
    # The two clocks differ by the time suspended; starttime is cut down to a tick.
    if started == 0 or started - _TICK > when + _suspended():
        return Process(pid)
    exe, fd = _executable(directory)
    argv = parse_argv(_read(directory / "cmdline", CMDLINE))
    digest = await hashes.of(fd) if fd >= 0 else ""
    if read_started(directory) != started:
        # It ended while it was looked at: what was opened was its own, but what was read as text may be another's.
        return Process(pid, exe_sha256="", started=started)
    return Process(pid, exe, digest, argv, started)


def _suspended() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def read_started(directory: Path) -> int:
    """CLOCK_BOOTTIME nanoseconds, whole ticks (proc(5), stat, field 22); 0 where there is no such process."""
    fields = _read(directory / "stat", 4096).rpartition(b")")[2].split()
    return int(fields[19]) * _TICK if len(fields) > 19 and fields[19].isdigit() else 0


def parse_argv(cmdline: bytes) -> tuple[str, ...]:
    """proc(5), cmdline: secrets masked, then bounded, the last argument cut where it is too long."""
    arguments = [one.decode(errors="backslashreplace") for one in cmdline.removesuffix(b"\0").split(b"\0")]
    if len(cmdline) >= CMDLINE:       # cut off while it was read: where a secret in the last one ends is not known
        arguments[-1] = MASK
    found: list[str] = []
    left = CHARACTERS
    for argument in mask_arguments(arguments[:ARGUMENTS]) if cmdline else ():
        text = plain(argument)[:left]
        found.append(text)
        left -= len(text)
        if left <= 0:
            break
    return tuple(found)


def _executable(directory: Path) -> tuple[str, int]:
    """Its name in its own view, and a descriptor of the very file that runs (-1: none)."""
    try:
        name = os.readlink(directory / "exe")
        fd = os.open(directory / "exe", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return "", -1
    return plain(name), fd


def _read(path: Path, limit: int) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(limit)
    except OSError:
        return b""
