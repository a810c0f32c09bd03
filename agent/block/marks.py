"""Which mark a task should have, where the hook that hands marks on (probes, newtask) was away for a while.

Every slot of the owner map then holds what the number's former holder had, for tasks that were born meanwhile: a
process of the host counts as a crew's, a crew's as another crew's.  Tasks in a workload's cgroup are that workload's:
they cannot leave it.  Elsewhere, whoever was born before keeps what it has, and whoever was born since has what its
parent has: a child of a crew's process that somebody took out of the slice is a crew's, and everybody else is not.
So it is with units and containers, whose tasks have no mark: systemd and container runtimes have none to hand on.
"""
from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from agent import procfs
from agent.workload.container import PLAIN, SLICE

_UNMARKED: Final = (".service", ".scope", SLICE, PLAIN)        # how the names of such cgroups end
TICK: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")        # nanoseconds


@dataclass(frozen=True)
class Task:
    pid: int
    parent: int
    began: int                        # CLOCK_BOOTTIME nanoseconds, rounded down to a tick
    mark: int
    owner: int | None                 # of the workload whose cgroup it is in; 0: of none; None: elsewhere, or unmarked


def corrections(tasks: Iterable[Task], since: int) -> dict[int, int]:
    """Pid -> mark, of those that have another.  `since`: CLOCK_BOOTTIME nanoseconds."""
    every = {one.pid: one for one in tasks}
    marks = {pid: one.mark for pid, one in every.items()}
    for one in sorted(every.values(), key=lambda one: (one.began, one.pid)):       # parents before their children
        if one.owner:
            marks[one.pid] = one.owner
        elif one.owner is None and one.began + TICK > since:
            marks[one.pid] = marks.get(one.parent, 0)
    return {pid: mark for pid, mark in marks.items() if mark != every[pid].mark}


def is_marked(path: str) -> bool:
    """Whether tasks of this cgroup have a mark: `path` from the slice on.  The launcher's have, NAME-NUMBER."""
    return not path.partition("/")[0].endswith(_UNMARKED)


def parent_and_began(pid: int) -> tuple[int, int]:
    """proc(5), /proc/PID/stat: ppid, starttime.  Raises OSError."""
    words = procfs.stat_fields(pid)
    return int(words[1]), int(words[19]) * TICK
