"""What the agent's core asks of the kernel side: agent/block/containment.py has it, with probes and nftables."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from agent.block.attribution import Bounded, Held
from agent.block.holdings import Foreign
from agent.block.hostends import Link
from agent.network.netns import Namespace


class Origin(Protocol):
    """One connect of a crew, as the kernel recorded it."""

    @property
    def owner(self) -> int: ...       # the task's mark; 0: known by its cgroup only
    @property
    def tgid(self) -> int: ...        # initial pid namespace; 0 where only the socket is known
    @property
    def cgroup(self) -> int: ...      # id of the cgroup
    @property
    def cookie(self) -> int: ...
    @property
    def when(self) -> int: ...        # CLOCK_MONOTONIC nanoseconds
    @property
    def destination(self) -> str: ...   # as text, v4-mapped as IPv4
    @property
    def port(self) -> int: ...
    @property
    def hook(self) -> str: ...
    @property
    def verdict(self) -> str: ...     # "redirected", "dns", "refused", "elsewhere"


class Kernel(Protocol):
    """`agent.block.containment.Containment`.  Everything may block; OSError and PlatformError come through."""

    @property
    def slice(self) -> Path: ...      # directory of the crews' slice
    @property
    def owners(self) -> Path: ...     # the pinned owner map
    @property
    def lsm(self) -> str: ...         # BPF LSM: which hooks are in place, and why not
    @property
    def ring_fd(self) -> int: ...     # readable when there is something to drain

    def install(self) -> None: ...
    def register(self, places: Iterable[tuple[str, int]]) -> None: ...
    def drain(self) -> list[Origin]: ...
    def bounded(self) -> list[Bounded]: ...    # what came out of turn since the last call
    def mark(self, pid: int, owner: int) -> None: ...
    def is_crew(self, pid: int) -> bool: ...
    def take(self, cookie: int) -> Origin | None: ...
    def by_redirect(self, netns: int, address: bytes, port: int) -> Origin | None: ...
    def asker(self, netns: int, stream: bool, address: bytes, port: int) -> int: ...    # cgroup id; 0: no crew's socket
    def contain(self, namespace: Namespace, name: str) -> None: ...     # put the rules into it, too
    def know_doors(self, descriptors: Iterable[int]) -> None: ...      # sockets of Weir's that crews are led to
    def is_door(self, descriptor: int) -> bool: ...        # whether it is one of these
    def let_go(self, cookie: int) -> None: ...
    def seal(self, ends: Iterable[Link]) -> None: ...      # nothing passes the host's ends of these links
    def tcp_sockets(self) -> list[Held]: ...
    def tcp_ends(self, port: int) -> list[Held]: ...       # of the host's and contained networks, with that local port
    def crew_cgroups(self) -> set[int]: ...                # ids of whatever is a crew's
    def foreign_sockets(self, end: str) -> list[Foreign]: ...
    def remark(self, starts: Mapping[str, int]) -> int: ...    # cgroup -> owner; how many marks were not their own
    def owner_of(self, pid: int) -> int: ...
    def task(self, pid: int) -> tuple[int, int] | None: ...     # owner and cgroup id of a crew's process
    def recall(self) -> None: ...      # which cgroups have joined, by what another agent keeps
    def problems(self) -> list[str]: ...
    def repair(self) -> None: ...
    def joined(self) -> tuple[Path, ...]: ...          # cgroups outside of the slice that count as in it
    def join(self, cgroup: Path, end: str) -> list[Foreign]: ...
    def leave(self, cgroup: Path) -> None: ...
    def freeze(self, on: bool) -> None: ...
    def watched(self) -> dict[Path, str]: ...
    def mangling(self) -> list[str]: ...
    def beside(self) -> list[str]: ...
    def release(self) -> None: ...
