"""Pure: what a container of a workload is, by the cgroups that the container's runtime makes, and what it may do that
would lead round Weir.

A container belongs to the workload whose slice it was started in (podman and docker: --cgroup-parent).  Only root may
make a cgroup there, so its name needs no other proof, and no runtime has to be asked.
"""
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

CONTAINER: Final = "container"        # the kind of network that such a start has
SLICE, PLAIN = ".slice", ".containers"        # ends of the names of workloads' parts of the crews' slice
RUNTIMES: Final = ("libpod-", "docker-", "crio-", "cri-containerd-", "nerdctl-")      # cgroups' names begin so
_MONITORS: Final = re.compile(r"conmon|libpod-conmon-.*")     # podman's monitor, beside its container
# What comes before the container's own program; it has all rights, and gives them up before it executes that.
_STARTING: Final = re.compile(r"runc(:\[\d:[A-Z]+\])?|crun|\d|conmon|catatonit|exe")
_ESCAPED: Final = re.compile(r"\\x([0-9a-f]{2})")

# linux/capability.h, from 0 on.
_CAPABILITIES: Final = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE")
# What runtimes give by default and what stays among the container's own files and processes.
_HARMLESS: Final = frozenset((
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE",
    "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP", "SYS_NICE", "IPC_LOCK", "LEASE", "LINUX_IMMUTABLE", "WAKE_ALARM",
    "BLOCK_SUSPEND", "AUDIT_READ", "NET_BROADCAST"))
_SHARED: Final = {"net": "network", "pid": "process", "mnt": "mount", "ipc": "IPC"}


@dataclass(frozen=True)
class Mount:
    """A line of proc(5) mountinfo."""

    device: str                       # "MAJOR:MINOR"
    root: str                         # in that file system
    point: str
    kind: str                         # of file system
    writable: bool


@dataclass(frozen=True)
class Process:
    """As the host sees it."""

    pid: int
    name: str                         # comm
    uids: frozenset[int]              # real, effective, saved, of the file system
    capabilities: int                 # permitted, or what it could gain by executing something
    filtered: bool                    # by seccomp
    namespaces: dict[str, str]        # kind -> "kind:[number]"
    mounts: tuple[Mount, ...] = ()

    @property
    def starting(self) -> bool:
        return bool(_STARTING.fullmatch(self.name))


@dataclass(frozen=True)
class Container:
    workload: str
    cgroup: str                       # absolute path
    place: str                        # the same from the root of cgroup v2 on, as in mountinfo
    name: str
    processes: tuple[Process, ...]
    whole: bool = True                # these are all of them

    @property
    def shown(self) -> str:
        return f"container {self.name[:40]} of {self.workload}"


@dataclass(frozen=True)
class Door:
    """Something of the host's that no container may see, and where it lies."""

    name: str
    device: str
    path: str


def slice_of(runtime: str, workload: str, kind: str = SLICE) -> str:
    """The directory below the crews' slice in which a workload's containers are; as SLICE the name of systemd's unit,
    too, in which '-' leads down the tree: systemd.slice(5), systemd.unit(5).  `kind`: PLAIN where the runtime makes
    cgroups itself: podman takes no slice then."""
    return f"{runtime}-{workload.replace('-', chr(92) + 'x2d')}{kind}"


def workload_of(runtime: str, directory: str) -> str:
    """The other way round; empty: no such directory."""
    stem, dot, kind = directory.rpartition(".")
    if not stem.startswith(runtime + "-") or dot + kind not in (SLICE, PLAIN):
        return ""
    inner = stem[len(runtime) + 1:]
    return "" if "-" in inner else _ESCAPED.sub(lambda found: chr(int(found[1], 16)), inner)


def is_monitor(name: str) -> bool:
    """A cgroup of the runtime's own, which a container cannot get into."""
    return bool(_MONITORS.fullmatch(name))


def container_name(directory: str) -> str:
    return directory.removesuffix(".scope")


def capability_names(bits: int) -> tuple[str, ...]:
    return tuple(name for number, name in enumerate(_CAPABILITIES) if bits >> number & 1)


def weaknesses(process: Process, place: str, host: dict[str, str], doors: Sequence[Door]) -> Iterator[str]:
    """What would lead round Weir, or past one of its layers.  `place`: the container's cgroup; `host`: the host's
    namespaces."""
    yield from _rights(process)
    yield from (f"it is in the host's {_SHARED[kind]} namespace" for kind, number in process.namespaces.items()
                if kind in _SHARED and host.get(kind) == number)
    yield from exposures(process.mounts, doors, place)


def _rights(process: Process) -> Iterator[str]:
    found = [name for name in capability_names(process.capabilities) if name not in _HARMLESS]
    if len(found) > len(_CAPABILITIES) - len(_HARMLESS) - 4:
        yield "it is privileged: it has nearly every capability"
    elif found:
        yield f"it has {', '.join(sorted(found))}"
    if 0 in process.uids:
        yield "it runs as root of the host's user namespace"
    if not process.filtered:
        yield "no seccomp filter holds"


def exposures(mounts: Iterable[Mount], doors: Sequence[Door], place: str) -> Iterator[str]:
    """What of the host's shows in it.  `place`: its cgroup."""
    for mount in mounts:
        if mount.kind == "bpf":
            yield f"a BPF file system shows at {mount.point}"
        if mount.kind == "cgroup2" and mount.writable and not _holds(place, mount.root):
            yield f"it may write cgroups that are not its own at {mount.point}"
        yield from (f"{door.name} of the host shows at {mount.point}" for door in doors
                    if door.device == mount.device and _holds(mount.root, door.path))


def _holds(root: str, path: str) -> bool:
    return path == root or PurePosixPath(path).is_relative_to(root)


def parse_status(text: str) -> tuple[str, frozenset[int], int, bool]:
    """proc(5), status: name, uids, capabilities that it has or can gain, whether seccomp filters.  Raises ValueError:
    something is missing."""
    fields = dict(line.split(":\t", 1) for line in text.split("\n") if ":\t" in line)
    try:
        permitted, bound = int(fields["CapPrm"], 16) | int(fields["CapInh"], 16), int(fields["CapBnd"], 16)
        # With no_new_privs nothing that it executes gives it more than it has.
        gained = permitted if fields["NoNewPrivs"] == "1" else permitted | bound
        return (fields["Name"], frozenset(map(int, fields["Uid"].split())), gained, fields["Seccomp"] == "2")
    except KeyError as missing:
        raise ValueError(f"status without {missing}") from None


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """proc(5), mountinfo."""
    found = []
    for line in text.split("\n"):
        before, _, after = line.partition(" - ")
        words, rest = before.split(" "), after.split(" ")
        if len(words) >= 6 and len(rest) >= 3:
            writable = "rw" in words[5].split(",") and "rw" in rest[2].split(",")
            found.append(Mount(words[2], _plain(words[3]), _plain(words[4]), rest[0], writable))
    return tuple(found)


def _plain(path: str) -> str:
    """Spaces and the like are octal there."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def find_door(name: str, path: str, mounts: Sequence[Mount]) -> Door | None:
    """Where something of the host's lies; `path` without links, `mounts` the host's."""
    # Of several on one point the last one shows.
    holder = max((mount for mount in reversed(mounts) if _holds(mount.point, path)),
                 key=lambda mount: len(mount.point), default=None)
    if holder is None:
        return None
    below = path[len(holder.point.rstrip("/")):]
    return Door(name, holder.device, (holder.root.rstrip("/") + below) or "/")
