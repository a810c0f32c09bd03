"""Owner numbers: what the kernel's mark on a task means.

Every start of a workload gets a number of its own; it is written to the task before its first instruction and inherited
by everything that it starts (probes).  The table is kept in RUN/owners.json, replaced by rename, so that an agent that
was killed and started again still knows whose the running tasks are.  Where the file is gone or damaged, nobody is
known: connections of older tasks are refused.  A number is never given twice while anything could still carry it.
"""
from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from agent.block import cgroups
from agent.workload.container import CONTAINER
from probes.abi import HIGHEST_OWNER, LOCAL_OWNER

HIGHEST: Final = HIGHEST_OWNER
ENDED: Final = 256                    # starts that are remembered after their end: their last connections may be open
FILE_LIMIT: Final = 64 << 20          # bytes


class Start(msgspec.Struct, frozen=True):
    """One start of a workload."""

    owner: int
    workload: str
    uid: int
    user: str
    unix_groups: tuple[str, ...]      # names of the user's Unix groups
    cgroup: str                       # absolute path of its own cgroup
    since: int                        # nanoseconds UTC
    pid: int = 0                      # of the sandbox, initial pid namespace; 0 until it runs
    command: str = ""                 # argv[0]; a unit's name
    caller: int = 0                   # pid of `weir run`
    root: bool = False                # uid 0 inside
    network: str = "host"             # PRIVATE or HOST of agent/workload/launch.py, or CONTAINER
    unit: str = ""                    # of systemd's, which started it
    login: str = ""                   # that it was started with: a session of agent/people/logins.py
    inode: int = 0                    # of a unit's cgroup: the next start has another


class _Kept(msgspec.Struct, frozen=True):
    next: int
    starts: tuple[Start, ...]


class Owners:
    def __init__(self, file: Path) -> None:
        self._file = file
        kept = _load(file)
        self._next = kept.next if kept else random.SystemRandom().randrange(1, 1 << 31)
        self._starts = {start.owner: start for start in kept.starts} if kept else {}
        self._ended: dict[int, Start] = {}
        self.elsewhere: Callable[[int], Start | None] = lambda number: None     # asked for a cgroup that nobody has yet

    def __iter__(self) -> Iterator[Start]:
        """Starts that have not ended."""
        return iter(tuple(self._starts.values()))

    def __len__(self) -> int:
        return len(self._starts)

    def draw(self) -> int:
        """A number that nothing carries, as far as the mark of its packets shows it.  Kept before it is used: a crash
        never gives it again.  Raises OSError."""
        number, running = self._next, {one & LOCAL_OWNER for one in self._starts}
        self._next = _after(number)
        while self._next in self._starts or (self._next & LOCAL_OWNER in running and len(running) < LOCAL_OWNER):
            self._next = _after(self._next)
        self._keep(self._starts)
        return number

    def put(self, start: Start) -> None:
        """A new start, or what is now known of one.  Raises OSError."""
        self._keep({**self._starts, start.owner: start})

    def end(self, owner: int) -> None:
        """Nothing of it runs any more.  Its last connections are still attributed for a while."""
        start = self._starts.pop(owner, None)
        if start is None:
            return
        self._ended[owner] = start
        while len(self._ended) > ENDED:
            del self._ended[next(iter(self._ended))]
        self._keep(self._starts)

    def find(self, owner: int) -> Start | None:
        return self._starts.get(owner) or self._ended.get(owner)

    def find_cgroup(self, number: int) -> Start | None:
        """By a cgroup's id, which is its directory's inode (kernfs): the start whose own it is or lies in."""
        for start in self:
            try:
                same = start.inode in (0, os.stat(start.cgroup).st_ino)
                if same and any(os.stat(path).st_ino == number for path, _, _ in os.walk(start.cgroup)):
                    return start
            except OSError:
                continue
        return self.elsewhere(number)

    def whose(self, owner: int, cgroup: int) -> Start | None:
        """Of a task with this mark; with none (0), in this cgroup."""
        return self.find(owner) if owner else self.find_cgroup(cgroup)

    def marked(self) -> dict[str, int]:
        """Cgroup -> number, of starts whose tasks have it as their mark: those of units and containers have none."""
        return {one.cgroup: one.owner for one in self if not one.unit and one.network != CONTAINER}

    def find_process(self, pid: int) -> Start | None:
        """By the cgroup that it is in, where its start has one of its own.  Raises OSError."""
        path = cgroups.path_of(pid)
        return next((start for start in self if start.cgroup.endswith(path)), None)

    def _keep(self, starts: dict[int, Start]) -> None:
        """Only what could be written is known: what could not would keep everything after it from being."""
        fresh = self._file.with_name(f".{self._file.name}.new")
        content = msgspec.json.encode(_Kept(self._next, tuple(starts.values())))
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(content)
        fresh.rename(self._file)
        self._starts = starts


def _after(number: int) -> int:
    return number + 1 if number < HIGHEST else 1


def _load(file: Path) -> _Kept | None:
    try:
        with open(file, "rb") as opened:
            kept = msgspec.json.decode(opened.read(FILE_LIMIT), type=_Kept)
    except (OSError, msgspec.MsgspecError):
        return None
    return kept if 0 < kept.next <= HIGHEST else None
