"""Edge: what disks and processes take, by the kernel's word.  Blocks."""
from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from agent import procfs

FILES: Final = 100_000                # that are looked at in the recording's directory
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_UTIME, _STIME, _RSS = 11, 12, 21     # of proc_pid_stat(5), from field 3 on


class Disk(msgspec.Struct, frozen=True):
    recording: int                    # bytes of its files
    files: int                        # those that hold events
    free: Mapping[str, int]           # bytes for others than root, by what lies there


class Usage(msgspec.Struct, frozen=True):
    memory: int                       # bytes
    seconds: float                    # of a processor
    descriptors: int


def look_at_disk(journal: Path, recordings: Path) -> Disk:
    size = files = 0
    with suppress(OSError), os.scandir(recordings) as entries:
        for entry, _ in zip(entries, range(FILES), strict=False):
            with suppress(OSError):   # it was closed meanwhile, and its log is gone
                size += entry.stat(follow_symlinks=False).st_size
                files += entry.name.endswith(".sqlite")
    free = {}
    for name, path in (("journal", journal), ("recording", recordings)):
        with suppress(OSError):
            found = os.statvfs(path)
            free[name] = found.f_bavail * found.f_frsize
    return Disk(size, files, free)


def look_at_processes(pids: Mapping[str, int]) -> dict[str, Usage]:
    """Of those that are there."""
    found = {}
    for name, pid in pids.items():
        with suppress(OSError, IndexError, ValueError):
            fields = procfs.stat_fields(pid)
            found[name] = Usage(
                int(fields[_RSS]) * _PAGE, (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS,
                len(os.listdir(f"/proc/{pid}/fd")))
    return found
