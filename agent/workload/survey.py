"""What runs below a workload's slice, as /proc and the cgroups show it.  Reads only; blocks.

Whatever is read of a process may be another's by the time it is used: only what a look and the next one agree on is
acted on, and a namespace is taken only from a process that still is in the cgroup afterwards.
"""
from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent import procfs
from agent.block import cgroups
from agent.workload.container import (
    RUNTIMES,
    Container,
    Door,
    Mount,
    Process,
    container_name,
    find_door,
    is_monitor,
    parse_mounts,
    parse_status,
    workload_of,
)

KINDS: Final = ("net", "pid", "mnt", "ipc")
MOST: Final = 4096                    # processes of a container that are looked at
# Who can be told there to start something outside, or knows Weir's secrets.
_CONTROLS: Final = (
    "/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock", "/run/crio/crio.sock",
    "/run/dbus/system_bus_socket", "/run/systemd/private", "/run/systemd/notify", "/etc/shadow")


class Survey:
    """`own`: paths of Weir's that nobody may see."""

    def __init__(self, slice_: Path, root: Path, runtime: str, own: Sequence[Path]) -> None:
        """`root`: of cgroup v2."""
        self._slice, self._root, self._runtime, self._own = slice_, root, runtime, tuple(own)

    def containers(self) -> tuple[Container, ...]:
        """Those in which a process runs."""
        return tuple(one for workload, path in self.places() if (one := self._container(workload, path)) is not None)

    def places(self) -> Iterator[tuple[str, Path]]:
        """(workload, cgroup) of each, also where it is empty yet."""
        for directory in self.slices():
            workload = workload_of(self._runtime, directory.name)
            yield from ((workload, path) for path in _directories(directory) if not is_monitor(path.name))

    def slices(self) -> Iterator[Path]:
        return (path for path in _directories(self._slice) if workload_of(self._runtime, path.name))

    def workload(self, number: int) -> str:
        """Whose part of the slice has this id: its containers have one turn.  Empty: nobody's.  Raises OSError."""
        return next((workload_of(self._runtime, path.name) for path in self.slices()
                     if cgroups.cgroup_id(path) == number), "")

    def strays(self) -> tuple[str, ...]:
        """Containers that were put into the crews' slice itself, and so are nobody's."""
        return tuple(path.name for path in _directories(self._slice) if path.name.startswith(RUNTIMES))

    def doors(self) -> tuple[Door, ...]:
        mounts = parse_mounts(procfs.read_shown("self", "mountinfo"))
        there = [Path(one) for one in _CONTROLS] + list(self._own)
        found = (find_door(str(path), str(path.resolve()), mounts) for path in there if path.exists())
        return tuple(one for one in found if one is not None)

    def neighbours(self, networks: Iterable[str], inside: Iterable[int]) -> tuple[tuple[int, str], ...]:
        """(pid, name) of who is in one of these network namespaces ("net:[NUMBER]") and is no process of a crew."""
        wanted, known, found = frozenset(networks), frozenset(inside), []
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()) if wanted else ():
            with suppress(OSError, ValueError):
                if pid not in known and os.readlink(f"/proc/{pid}/ns/net") in wanted and not self._is_inside(pid):
                    found.append((pid, procfs.read_shown(pid, "comm").strip()))
        return tuple(found)

    def is_in(self, pid: int, cgroup: str) -> bool:
        try:
            path = str(self._root) + cgroups.path_of(pid)
        except OSError:
            return False
        return path == cgroup or path.startswith(cgroup + "/")

    def _is_inside(self, pid: int) -> bool:
        return self.is_in(pid, str(self._slice))

    def _container(self, workload: str, path: Path) -> Container | None:
        processes: list[Process] = []
        mounts: dict[str, tuple[Mount, ...]] = {}
        there = cgroups.processes(path)
        for pid in there[:MOST]:
            with suppress(OSError, ValueError):       # it has ended
                processes.append(read_process(pid, mounts))
        if not processes:
            return None
        with suppress(OSError):
            return Container(workload, str(path), "/" + str(path.relative_to(self._root)), container_name(path.name),
                             tuple(processes), len(there) <= MOST)
        return None


def host_namespaces() -> dict[str, str]:
    """This process is in the host's; but systemd may have given it a mount namespace of its own."""
    found = _namespaces("self")
    with suppress(OSError):
        found["mnt"] = os.readlink("/proc/1/ns/mnt")
    return found


def read_process(pid: int, mounts: dict[str, tuple[Mount, ...]]) -> Process:
    """`mounts`: what is known of mount namespaces already.  Raises OSError, ValueError."""
    name, uids, capabilities, filtered = parse_status(procfs.read_shown(pid, "status"))
    namespaces = _namespaces(str(pid))
    seen = namespaces["mnt"]
    if seen not in mounts:
        mounts[seen] = parse_mounts(procfs.read_shown(pid, "mountinfo"))
        return Process(pid, name, uids, capabilities, filtered, namespaces, mounts[seen])
    return Process(pid, name, uids, capabilities, filtered, namespaces)


def _namespaces(pid: str) -> dict[str, str]:
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in KINDS}


def _directories(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            return [Path(one.path) for one in entries if one.is_dir(follow_symlinks=False)]
    except OSError:
        return []

