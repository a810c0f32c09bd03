"""What the agent's core asks of the kernel side: agent/containment.py has it, with probes and nftables."""
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from agent.attribution import Held
from agent.holdings import Foreign


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
    """`agent.containment.Containment`.  Everything may block; OSError and PlatformError come through."""

    @property
    def slice(self) -> Path: ...      # directory of the crews' slice
    @property
    def owners(self) -> Path: ...     # the pinned owner map
    @property
    def ring_fd(self) -> int: ...     # readable when there is something to drain

    def install(self) -> None: ...
    def register(self, places: Iterable[tuple[str, int]]) -> None: ...
    def drain(self) -> list[Origin]: ...
    def mark(self, pid: int, owner: int) -> None: ...
    def is_crew(self, pid: int) -> bool: ...
    def take(self, netns: int, address: bytes, port: int) -> Origin | None: ...
    def by_redirect(self, netns: int, address: bytes, port: int) -> Origin | None: ...
    def tcp_sockets(self) -> list[Held]: ...
    def foreign_sockets(self, end: str) -> list[Foreign]: ...
    def owner_of(self, pid: int) -> int: ...
    def problems(self) -> list[str]: ...
    def repair(self) -> None: ...
    def release(self) -> None: ...
