"""Networks of their own: of which start of a workload, with what in them, and the enforcer's part of it.

Order: the namespace; the rules; the doors, which are sockets made inside; the enforcer takes them; only then is
anything started there.  What fails on the way undoes what was done, and nothing is started.  A namespace lives as long
as somebody holds it: the workload's processes, this process, the enforcer and the service manager by the sockets.  So
it outlives an agent that is killed, with its rules, and the next agent finds it by the processes; the doors are those
that the manager has kept, or new ones.

A namespace that Weir has not made (a container's) is contained the same way: `adopt`.
"""
from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Final, Protocol

from agent.network.doors import close_all
from agent.network.handover import Handover
from agent.network.netns import Namespace, current_cookie
from agent.workload.launch import PRIVATE
from agent.workload.owners import Start

LOG = logging.getLogger("weir.networks")

MOST: Final = 256                     # of workloads; each takes the kernel half a megabyte, the agent five descriptors


class Kernel(Protocol):
    """Of agent.block.kernel.Kernel."""

    def contain(self, namespace: Namespace, name: str) -> None: ...
    def know_doors(self, descriptors: Iterable[int]) -> None: ...
    def is_door(self, descriptor: int) -> bool: ...
    def let_go(self, cookie: int) -> None: ...


@dataclass(frozen=True)
class Network:
    """A contained namespace and what was opened in it."""

    namespace: Namespace
    listeners: tuple[socket, ...]
    dns: tuple[socket, ...]

    @property
    def cookie(self) -> int:
        return self.namespace.cookie

    def descriptors(self) -> list[int]:
        return [one.fileno() for one in (*self.listeners, *self.dns)]

    def close(self) -> None:
        close_all((*self.listeners, *self.dns))
        self.namespace.close()


class Networks:
    """By owner number.  `give` has the running enforcer take one, where one runs; `withdraw` has it let one go."""

    def __init__(
        self, kernel: Kernel, port: int, resolver: str, give: Callable[[Network], Awaitable[None]],
        withdraw: Callable[[int], None], handover: Handover,
    ) -> None:
        self._handover = handover
        self._kernel, self._port, self._resolver = kernel, port, resolver
        self._give, self._withdraw = give, withdraw
        self._there: dict[int, Network] = {}
        self._own = current_cookie()

    def __iter__(self) -> Iterator[Network]:
        return iter(tuple(self._there.values()))

    @property
    def owners(self) -> tuple[int, ...]:
        return tuple(self._there)

    async def open(self, owner: int, name: str) -> Network:
        """A new one.  Raises OSError, PlatformError, ChannelError: there is none then."""
        return await self.adopt(owner, name, await asyncio.to_thread(Namespace.make))

    async def adopt(self, owner: int, name: str, namespace: Namespace) -> Network:
        """Whoever made it; it is closed with the network, or here where it cannot be contained.  Raises as `open`."""
        network = await asyncio.to_thread(self._prepare, name, namespace)
        self._there[owner] = network
        try:
            await self._give(network)
        except BaseException:
            self.close(owner)
            raise
        return network

    def close(self, owner: int) -> None:
        """Nothing of that start runs any more."""
        if network := self._there.pop(owner, None):
            self._withdraw(network.cookie)
            self._kernel.let_go(network.cookie)
            self._handover.drop(network.cookie)
            network.close()

    def close_all(self) -> None:
        """Only what this process holds open: the rules stay."""
        for network in self:
            network.close()
        self._there.clear()

    async def recover(self, starts: Iterable[Start]) -> list[str]:
        """What starts of an earlier agent have; why one cannot be contained."""
        wrong = []
        for start in starts:
            if start.network != PRIVATE or start.owner in self._there:
                continue
            name = label(start.workload, start.owner)
            try:
                if namespace := await asyncio.to_thread(self._search, start):
                    await self.adopt(start.owner, name, namespace)
                    LOG.info("the network of %s is contained again", name)
            except Exception as reason:        # whatever it is, it is not contained
                wrong.append(f"the network of {name} could not be contained: {reason}")
        return wrong

    def _prepare(self, name: str, namespace: Namespace) -> Network:
        try:
            self._kernel.contain(namespace, name)
        except BaseException:
            namespace.close()
            raise
        try:
            listeners, dns = namespace.call(
                lambda: self._handover.open_doors(namespace.cookie, self._port, self._resolver, self._kernel))
            return Network(namespace, tuple(listeners), tuple(dns))
        except BaseException:
            self._kernel.let_go(namespace.cookie)
            namespace.close()
            raise

    def _search(self, start: Start) -> Namespace | None:
        """By the processes in its cgroup; None where there are none, or none has left the host's yet."""
        for pid in _processes(start.cgroup):
            try:
                namespace = Namespace.of(pid)
            except OSError:
                continue              # it has ended
            if namespace.cookie != self._own and pid in _processes(start.cgroup):     # its number still is its own
                return namespace
            namespace.close()
        return None


def why_no_more(there: int, own: int) -> str:
    """Why no workload is given another, where there are so many and its user has `own` of them; "" where it is.  The
    last tenth is for users with less than half: none keeps every other one from starting anything."""
    if there >= MOST:
        return f"{MOST} workloads have one, and no more can"
    if MOST - there <= MOST // 10 and own * 2 >= MOST:
        return f"{own} of this user's workloads have one, and the last places are for others"
    return ""


def label(workload: str, owner: int) -> str:
    return f"{workload}, owner {owner}"


def own_descriptor() -> int:
    """Of the host's namespace, in which this process is; the caller's to close."""
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _processes(cgroup: str) -> list[int]:
    try:
        return [int(pid) for path, _, _ in os.walk(cgroup) for pid in Path(path, "cgroup.procs").read_text().split()]
    except OSError:
        return []


