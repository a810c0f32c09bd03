"""The crews' slice in cgroup v2, unified (/sys/fs/cgroup) and hybrid (/sys/fs/cgroup/unified) layouts."""
from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent import procfs
from agent.layout import cgroup_root

NFT_BASE: Final = Path("/sys/fs/cgroup")      # nft's paths are relative to it, whatever is mounted there


@dataclass(frozen=True)
class Slice:
    path: Path
    root: Path                        # of cgroup v2

    @property
    def level(self) -> int:
        """Depth below the root."""
        return len(self.path.relative_to(self.root).parts)

    @property
    def nft_path(self) -> str:
        return str(self.path.relative_to(NFT_BASE))

    @property
    def name(self) -> str:
        """As /proc/PID/cgroup has it."""
        return f"/{self.path.relative_to(self.root)}"


def find_slice(name: str) -> Slice:
    """Whether it is there or not.  Raises LayoutError without cgroup v2."""
    root = cgroup_root()
    return Slice(root / f"{name}.slice", root)


def cgroup_id(path: Path) -> int:
    """What the kernel calls it: its directory's inode.  Raises OSError."""
    return path.stat().st_ino


def below(path: Path) -> Iterator[Path]:
    """Itself and every cgroup in it, the deepest first."""
    for directory, _, _ in os.walk(path, topdown=False):
        yield Path(directory)


def populated(path: Path) -> bool:
    """Whether a process is in it or below.  A slice that is not there holds none."""
    try:
        return "populated 1" in (path / "cgroup.events").read_text()
    except FileNotFoundError:
        return False


def processes(path: Path) -> list[int]:
    """Pids in it and below, at one moment."""
    found: list[int] = []
    for one in below(path):
        with contextlib.suppress(FileNotFoundError):
            found += map(int, (one / "cgroup.procs").read_text().split())
    return found


def kill(path: Path) -> None:
    """Everything in it and below; not waited for.  cgroup.kill since Linux 5.14."""
    try:
        (path / "cgroup.kill").write_text("1")
    except FileNotFoundError:
        for pid in processes(path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def remove(path: Path) -> None:
    """With the cgroups in it.  Raises OSError (EBUSY) where a process is in one: nothing that holds it goes away."""
    for one in below(path):
        one.rmdir()


def path_of(pid: int) -> str:
    """As /proc/PID/cgroup has it.  Raises OSError."""
    for line in procfs.read_lines(pid, "cgroup"):
        if line.startswith("0::"):
            return line[3:]
    raise OSError(f"process {pid} is in no cgroup of version 2")


def is_inside(slice_: Slice, path: str) -> bool:
    """`path` as `path_of` gives it."""
    return path == slice_.name or path.startswith(slice_.name + "/")
