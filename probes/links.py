"""What is pinned where, and what the kernel itself says of it.

Below Weir's own bpffs: `settings`, `owners`, ... are maps, `link_connect4`, ... are links.  Taking away a link's pin
detaches it, where nobody holds it open: the agent does.
"""
from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from probes import abi, libbpf

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TASK_EVENT: Final = "task/task_newtask"
ROOT, SLICE, TASKS, SECURITY = "root", "slice", "tasks", "security"
PLACES: Final = 4096                  # registered addresses and ports on loopback
TURNS: Final = 4096                   # workloads that are told apart by how fast they are


class PlatformError(RuntimeError):
    """What this kernel or host does not do, or does not hold any more; and what to do."""


@dataclass(frozen=True)
class Hook:
    """`name` is the program's, too; the kernel calls one of BPF LSM by what follows `lsm__`."""

    name: str
    program_type: int
    attach_type: int
    place: str                        # ROOT or SLICE: of the cgroups; TASKS: the tracepoint; SECURITY: BPF LSM


# In the order in which they are attached: what joins and undoes a rewrite is there before anything is rewritten.
HOOKS: Final = (
    Hook("newtask", libbpf.TRACEPOINT, -1, TASKS),
    Hook("sock_create", libbpf.CGROUP_SOCK, libbpf.CGROUP_INET_SOCK_CREATE, ROOT),
    Hook("sockops", libbpf.SOCK_OPS, libbpf.CGROUP_SOCK_OPS, ROOT),
    Hook("getpeername4", libbpf.CGROUP_SOCK_ADDR, libbpf.CGROUP_INET4_GETPEERNAME, ROOT),
    Hook("getpeername6", libbpf.CGROUP_SOCK_ADDR, libbpf.CGROUP_INET6_GETPEERNAME, ROOT),
    Hook("bind4", libbpf.CGROUP_SOCK_ADDR, libbpf.CGROUP_INET4_BIND, ROOT),
    Hook("bind6", libbpf.CGROUP_SOCK_ADDR, libbpf.CGROUP_INET6_BIND, ROOT),
    Hook("sendmsg4", libbpf.CGROUP_SOCK_ADDR, libbpf.CGROUP_UDP4_SENDMSG, ROOT),
    Hook("sendmsg6", libbpf.CGROUP_SOCK_ADDR, libbpf.CGROUP_UDP6_SENDMSG, ROOT),
    Hook("connect4", libbpf.CGROUP_SOCK_ADDR, libbpf.CGROUP_INET4_CONNECT, ROOT),
    Hook("connect6", libbpf.CGROUP_SOCK_ADDR, libbpf.CGROUP_INET6_CONNECT, ROOT),
    Hook("egress", libbpf.CGROUP_SKB, libbpf.CGROUP_INET_EGRESS, SLICE),
    Hook("ingress", libbpf.CGROUP_SKB, libbpf.CGROUP_INET_INGRESS, SLICE),
    Hook("setsockopt", libbpf.CGROUP_SOCKOPT, libbpf.CGROUP_SETSOCKOPT, SLICE),
)

# Where the kernel has BPF LSM.  `lsm__` tells bcc which of its hooks is meant.
LSM_HOOKS: Final = tuple(Hook(f"lsm__{name}", libbpf.LSM, libbpf.LSM_MAC, SECURITY) for name in (
    "socket_create", "unix_stream_connect", "unix_may_send", "ptrace_access_check", "bpf", "perf_event_open"))


@dataclass(frozen=True)
class Map:
    type: int
    key_size: int
    value_size: int
    entries: int


MAPS: Final[Mapping[str, Map]] = {
    "settings": Map(libbpf.ARRAY, 4, ctypes.sizeof(abi.Settings), 1),
    "joined": Map(libbpf.ARRAY, 4, ctypes.sizeof(abi.Joined), abi.JOINED),
    "owners": Map(libbpf.ARRAY, 4, 4, abi.PID_MAX),
    "connections": Map(libbpf.LRU_HASH, ctypes.sizeof(abi.Connection), ctypes.sizeof(abi.Origin), 65536),
    "accepted": Map(libbpf.LRU_HASH, 8, ctypes.sizeof(abi.Origin), 65536),
    "places": Map(libbpf.HASH, ctypes.sizeof(abi.Place), 1, PLACES),
    "turns": Map(libbpf.LRU_HASH, ctypes.sizeof(abi.Turn), 8, TURNS),
    "overs": Map(libbpf.LRU_HASH, ctypes.sizeof(abi.Turn), ctypes.sizeof(abi.Over), TURNS),
    "origins": Map(libbpf.SK_STORAGE, 4, ctypes.sizeof(abi.Origin), 0),
    "doors": Map(libbpf.SK_STORAGE, 4, 4, 0),
    "makers": Map(libbpf.SK_STORAGE, 4, ctypes.sizeof(abi.Maker), 0),
    "ring": Map(libbpf.RINGBUF, 0, 0, abi.RING_BYTES),
}


def place_of(hook: Hook, root: Path, slice_: Path) -> Path:
    return root if hook.place == ROOT else slice_


def map_pin(bpffs: Path, name: str) -> Path:
    return bpffs / name


def link_pin(bpffs: Path, name: str) -> Path:
    return bpffs / f"link_{name}"


def new_pin(bpffs: Path, name: str) -> Path:
    """Where a link is until it is renamed over another."""
    return bpffs / f"fresh_{name}"


def pins() -> list[str]:
    """Every name that may be pinned, links first."""
    names = [hook.name for hook in (*HOOKS, *LSM_HOOKS)]
    return [*(f"fresh_{name}" for name in names), *(f"link_{name}" for name in names), *MAPS]


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A pinned object.  Raises OSError."""
    fd = libbpf.obj_get(path)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def check_maps(bpffs: Path) -> None:
    """What is pinned may be used by programs of this build.  Raises PlatformError; OSError."""
    for name, expected in MAPS.items():
        path = map_pin(bpffs, name)
        if not path.exists():
            continue
        with opened(path) as fd:
            found = libbpf.map_info(fd)
        shape = Map(found.type, found.key_size, found.value_size, found.entries)
        if shape != expected:
            raise PlatformError(f"{path} was made by another build ({shape}, expected {expected}): end the crews and "
                                "run `weir release`, then start again")


def tags(bpffs: Path, hooks: Iterable[Hook] = HOOKS) -> dict[str, bytes]:
    """Hook -> digest of the program that its link runs.  Raises OSError."""
    found = {}
    for hook in hooks:
        with opened(link_pin(bpffs, hook.name)) as fd:
            found[hook.name] = libbpf.program_by_id(libbpf.link_info(fd).program).tag
    return found


def beside(root: Path, slice_: Path, bpffs: Path) -> list[str]:
    """Programs of others that may change an address where ours do; Weir's run before those that came later."""
    own, found = _own_maps(bpffs), []
    for hook in HOOKS:
        if hook.program_type == libbpf.CGROUP_SOCK_ADDR and not hook.name.startswith(("bind", "getpeername")):
            for cgroup in (root, slice_):
                with directory(cgroup) as target:
                    programs = map(libbpf.program_by_id, libbpf.prog_query(target, hook.attach_type))
                    found += [f"{one.name or one.id} at {hook.name} of {cgroup}" for one in programs
                              if own.isdisjoint(one.maps)]
    return found


def missing(
    bpffs: Path, root: Path, slice_: Path, expected_tags: Mapping[str, bytes] | None = None,
    hooks: Iterable[Hook] = HOOKS,
) -> list[str]:
    """Every one of `hooks` and every map that is not in place, by the kernel's own queries; empty: all of them are.
    `expected_tags`: what their programs are, where that is known."""
    found = []
    for name, expected in MAPS.items():
        try:
            with opened(map_pin(bpffs, name)) as fd:
                info = libbpf.map_info(fd)
        except OSError as reason:
            found.append(f"map {name}: {reason.strerror}")
            continue
        if Map(info.type, info.key_size, info.value_size, info.entries) != expected:
            found.append(f"map {name}: another build's")
    own = _own_maps(bpffs)
    for hook in hooks:
        try:
            why = _look(bpffs, hook, place_of(hook, root, slice_), own, (expected_tags or {}).get(hook.name, b""))
        except OSError as reason:
            why = str(reason.strerror)
        if why:
            found.append(f"hook {hook.name}: {why}")
    return found


def _own_maps(bpffs: Path) -> frozenset[int]:
    found = set()
    for name in MAPS:
        with suppress(OSError), opened(map_pin(bpffs, name)) as fd:
            found.add(libbpf.map_info(fd).id)
    return frozenset(found)


def _look(bpffs: Path, hook: Hook, cgroup: Path, own: frozenset[int], tag: bytes) -> str:
    """Why this hook does not hold; empty where it does.  `own`: ids of the pinned maps, which its program must use."""
    with opened(link_pin(bpffs, hook.name)) as fd:
        link = libbpf.link_info(fd)
    program = libbpf.program_by_id(link.program)
    if program.name != hook.name.removeprefix("lsm__")[:15] or program.type != hook.program_type:
        return f"runs the program {program.name}"
    if not program.maps or not own.issuperset(program.maps):
        return "runs a program with other maps"
    if tag and program.tag != tag:
        return "runs another program of that name"
    if hook.place == SECURITY:
        return "" if (link.type, link.attach_type) == (libbpf.LINK_TRACING, libbpf.LSM_MAC) else "is no LSM's link"
    if hook.place == TASKS:
        return "" if link.type == libbpf.LINK_PERF_EVENT else "is no tracepoint's link"
    if link.type != libbpf.LINK_CGROUP or link.attach_type != hook.attach_type:
        return "is another kind of link"
    if link.cgroup != cgroup.stat().st_ino:
        return "is not attached to the cgroup"
    with directory(cgroup) as target:
        attached = libbpf.prog_query(target, hook.attach_type)
    if link.program not in attached:
        return "is not among the cgroup's programs"
    ours = [number for number in attached if not own.isdisjoint(libbpf.program_by_id(number).maps)]
    return f"is attached {len(ours)} times" if len(ours) > 1 else ""
