"""Containers of workloads while the agent runs: whose they are, their networks, what they may do.

Nobody tells the agent of a container: it sees the cgroup that the runtime makes below a workload's slice, and then the
processes in it, within a tenth of a second.  Until then what is in it is cut off: the probes know it by its cgroup, and
what they rewrite leads to a listener that is not there yet.

Order: whose it is; rules and doors in its network namespace; the host's ends of its links.  What fails is said, and
tried again at the next look.
"""
from __future__ import annotations

import asyncio
import logging
import os
import pwd
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from agent.block.hostends import Link, host_ends, others
from agent.channel import ChannelError
from agent.control import Peer
from agent.journal import plain
from agent.network.interfaces import links, number_of
from agent.network.netns import Namespace
from agent.network.networks import Network
from agent.settings.host_table import Workload
from agent.workload.container import CONTAINER, Container, Process, slice_of, weaknesses
from agent.workload.owners import Start
from agent.workload.survey import Survey, host_namespaces

if TYPE_CHECKING:
    from agent.supervisor import Agent

LOG = logging.getLogger("weir.containers")

AGAIN: Final = 1.0                    # seconds after which what was seen is no beginning any more


@dataclass(frozen=True)
class _Adopted:
    number: int                       # drawn from the owners': it is not a start's
    shown: str                        # the container in which it was seen first
    network: Network


@dataclass(frozen=True)
class _Wrong:
    where: str
    reason: str
    waits: bool = True                # it may be a beginning: said when it stands for AGAIN


class Containers:
    def __init__(self, agent: Agent, root: Path) -> None:
        """`root`: of cgroup v2."""
        config = agent.config
        self._agent = agent
        self._survey = Survey(
            agent.kernel.slice, root, config.runtime.name,
            (config.control, agent.kernel.owners, config.state, config.directory))
        self._networks: dict[str, _Adopted] = {}       # by "net:[NUMBER]"
        self._sealed: tuple[Link, ...] | None = None
        self._since: dict[tuple[str, str], float] = {}         # (container, what is wrong) -> since when
        self._said: frozenset[tuple[str, str]] = frozenset()

    async def look(self) -> None:
        try:
            await self._look()
        except Exception as reason:   # whatever it is: what cannot be seen does not count as contained
            self._tell([_Wrong("containers", f"could not be looked at: {type(reason).__name__}: {reason}")])
        self._agent.watch.also(self._watched())

    async def _look(self) -> None:
        found = await asyncio.to_thread(self._survey.containers)
        if not found and not self._networks and not self._since and self._sealed == ():
            return                    # nor was there anything a moment ago
        wrong: list[_Wrong] = []
        for container in found:
            wrong += await self._contain(container)
        self._end(found)
        wrong += await self._seal()
        wrong += await asyncio.to_thread(lambda: list(self._examine(found)))
        self._tell(wrong)

    def _watched(self) -> Iterator[Path]:
        """What tells of a container that starts or ends."""
        yield self._agent.kernel.slice
        yield from self._survey.slices()
        yield from (path / "cgroup.events" for _, path in self._survey.places())

    def workload(self, number: int) -> str:
        """Of a cgroup in which a workload's containers lie, by its id; empty: of another."""
        with suppress(OSError):
            return self._survey.workload(number)
        return ""

    def hints(self) -> tuple[str, ...]:
        return tuple(f"container {name} lies in the crews' slice and in no workload's: it is cut off; its cgroup "
                     f"parent is {slice_of(self._agent.config.runtime.name, 'WORKLOAD')}" for name in
                     self._survey.strays())

    # whose

    async def _contain(self, container: Container) -> list[_Wrong]:
        """What is wrong with it.  Rules and doors are there for whoever it is; one that is nobody's is refused."""
        wrong = await self._contain_networks(container)
        workload = self._agent.config.workload(container.workload)
        user = _user(workload, container.processes) if workload else None
        if workload is None:
            wrong.append(_Wrong(container.shown, "there is no such workload: it is cut off", False))
        elif user is None:
            wrong.append(_Wrong(container.shown, "its uid is not that of one of the workload's users: it is cut off"))
        else:
            self._register(container, user)
        return wrong

    def _register(self, container: Container, user: pwd.struct_passwd) -> None:
        uid = min((uid for one in container.processes if not one.starting for uid in one.uids), default=user.pw_uid)
        before = next((one for one in self._agent.owners if one.cgroup == container.cgroup), None)
        if before is not None:
            if before.uid != uid:
                self._agent.owners.put(msgspec.structs.replace(before, uid=uid))
            return
        pid, owner = container.processes[0].pid, self._agent.owners.draw()
        groups = Peer(0, 0, user.pw_gid, tuple(os.getgrouplist(user.pw_name, user.pw_gid))).unix_groups
        self._agent.owners.put(Start(owner, container.workload, uid, user.pw_name, groups, container.cgroup,
                                     time.time_ns(), pid, container.name, network=CONTAINER))
        self._agent.tell("container.started", {
            "owner": owner, "container": container.name, "user": user.pw_name, "pid": pid,
            "cgroup": container.cgroup}, container.workload)

    def _end(self, found: Sequence[Container]) -> None:
        there = {one.cgroup for one in found}
        for start in self._agent.owners:
            if start.network == CONTAINER and start.cgroup not in there:
                self._agent.owners.end(start.owner)
                self._agent.tell("container.ended", {"owner": start.owner, "container": start.command}, start.workload)
        used = {process.namespaces["net"] for one in found for process in one.processes}
        for key in self._networks.keys() - used:
            self._agent.networks.close(self._networks.pop(key).number)

    # networks

    async def _contain_networks(self, container: Container) -> list[_Wrong]:
        wrong, own = [], host_namespaces()["net"]
        first = {process.namespaces["net"]: process.pid for process in reversed(container.processes)}
        for key, pid in first.items():
            if key == own or key in self._networks:
                continue
            try:
                await self._adopt(container, key, pid)
            except (OSError, RuntimeError, ValueError, ChannelError) as reason:
                wrong.append(_Wrong(container.shown,
                                    f"its network is not contained, and it is cut off: {reason}", False))
        return wrong

    async def _adopt(self, container: Container, key: str, pid: int) -> None:
        """The namespace is whose cgroup is the container's while it is held."""
        namespace = await asyncio.to_thread(Namespace.of, pid)
        try:
            if not self._survey.is_in(pid, container.cgroup) or _key(namespace) != key:
                namespace.close()
                return                # it has ended, or gone on: the next look sees it
            if all(one.loopback for one in await asyncio.to_thread(lambda: namespace.call(links))):
                await asyncio.to_thread(namespace.furnish)
        except BaseException:
            namespace.close()
            raise
        number = self._agent.owners.draw()
        network = await self._agent.networks.adopt(number, container.shown, namespace)
        self._networks[key] = _Adopted(number, container.shown, network)

    async def _seal(self) -> list[_Wrong]:
        """The host's ends of what leads into them."""
        try:
            ends, wrong = await asyncio.to_thread(self._ends)
            if ends != self._sealed:
                await asyncio.to_thread(self._agent.kernel.seal, ends)
                self._sealed = ends
        except (OSError, RuntimeError, ValueError) as reason:
            return [_Wrong("containers", f"the host's ends of their links could not be closed: {reason}")]
        return wrong

    def _ends(self) -> tuple[tuple[Link, ...], list[_Wrong]]:
        host = links() if self._networks or self._sealed else ()
        # One that was closed stays so: whoever may change the container's network may move the other end elsewhere.
        there = {(one.index, one.name) for one in host}
        ends = {one.index: one for one in self._sealed or () if (one.index, one.name) in there}
        wrong: list[_Wrong] = []
        for one in tuple(self._networks.values()):
            fd = one.network.namespace.descriptor()
            try:
                mine = host_ends(host, number_of(fd))
            finally:
                os.close(fd)
            ends |= {link.index: link for link in mine}
            wrong += [_Wrong(one.shown, f"its interface {link.name} ({link.kind or 'hardware'}) has no end that could "
                             "be closed on the host", False)
                      for link in others(one.network.namespace.call(links), mine)]
        return tuple(ends[index] for index in sorted(ends)), wrong

    # what they may do

    def _examine(self, found: Sequence[Container]) -> Iterator[_Wrong]:
        """What a runtime does while it begins is not said at once: it must stand for a while."""
        host, doors = host_namespaces(), self._survey.doors() if found else ()
        inside: list[int] = []
        for container in found:
            inside += [process.pid for process in container.processes]
            for process in container.processes:
                yield from (_Wrong(container.shown, reason, process.starting)
                            for reason in weaknesses(process, container.place, host, doors))
            if not container.whole:
                yield _Wrong(container.shown, "it has so many processes that not all can be looked at", False)
        for key in self._networks:
            inside_it = {one.workload for one in found for process in one.processes if process.namespaces["net"] == key}
            if len(inside_it) > 1:
                yield _Wrong("a container's network", f"it is shared by workloads {', '.join(sorted(inside_it))}")
        for pid, name in self._survey.neighbours(self._networks, inside):
            yield _Wrong("a container's network", f"process {pid} ({plain(name)}) is in it, and is no crew's")

    def _tell(self, wrong: Sequence[_Wrong]) -> None:
        now = time.monotonic()
        early = {(one.where, one.reason) for one in wrong if not one.waits}
        self._since = {(one.where, one.reason): self._since.get((one.where, one.reason), now) for one in wrong}
        standing = frozenset(one for one, since in self._since.items() if one in early or now - since >= AGAIN)
        for where, reason in sorted(standing - self._said):
            self._agent.tell("container.degraded", {"container": where, "reason": reason})
            LOG.warning("%s: %s", where, reason)
        self._said = standing
        self._agent.health.containers = tuple(f"{where}: {reason}" for where, reason in sorted(standing))


def _user(workload: Workload, processes: Iterable[Process]) -> pwd.struct_passwd | None:
    """Who it is for policies: the workload's one user; of several the one whose uid it has."""
    accounts = []
    for name in workload.users:
        with suppress(KeyError):
            accounts.append(pwd.getpwnam(name))
    if len(workload.users) == 1:
        return accounts[0] if accounts else None
    uids: frozenset[int] = frozenset().union(*(one.uids for one in processes))
    return next((one for one in accounts if uids == {one.pw_uid}), None)


def _key(namespace: Namespace) -> str:
    fd = namespace.descriptor()
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
