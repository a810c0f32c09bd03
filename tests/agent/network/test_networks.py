"""A network for each start: whole, or nothing of it is left."""
from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

import pytest
from standin.manager import Manager

from agent.channel import ChannelError
from agent.layout import cgroup_root
from agent.network.handover import Handover
from agent.network.netns import Namespace, inside
from agent.network.networks import MOST, Network, Networks, why_no_more
from agent.workload.launch import HOST, PRIVATE
from agent.workload.owners import Start
from probes.links import PlatformError

pytestmark = pytest.mark.kernel


@dataclass
class Kernel:
    """`agent.block.kernel.Kernel`, as far as it goes here."""

    there: dict[int, str] = field(default_factory=dict)
    doors: set[int] = field(default_factory=set)
    known: set[int] = field(default_factory=set)     # inodes of sockets of an agent before
    wrong: str = ""

    def contain(self, namespace: Namespace, name: str) -> None:
        if self.wrong:
            raise PlatformError(self.wrong)
        self.there[namespace.cookie] = name

    def know_doors(self, descriptors: Iterable[int]) -> None:
        self.doors.update(descriptors)

    def is_door(self, descriptor: int) -> bool:
        return os.fstat(descriptor).st_ino in self.known

    def let_go(self, cookie: int) -> None:
        self.there.pop(cookie, None)


@dataclass
class Enforcer:
    serves: list[int] = field(default_factory=list)
    wrong: str = ""

    async def give(self, network: Network) -> None:
        if self.wrong:
            raise ChannelError(self.wrong)
        self.serves.append(network.cookie)

    def withdraw(self, netns: int) -> None:
        self.serves = [one for one in self.serves if one != netns]


def descriptors() -> set[str]:
    return {os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if
            os.path.lexists(f"/proc/self/fd/{name}")}


@pytest.fixture
def made() -> Iterator[tuple[Networks, Kernel, Enforcer]]:
    kernel, enforcer = Kernel(), Enforcer()
    before = {one for one in descriptors() if one.startswith("net:")}
    handover = Handover()
    handover.begin("wt")
    networks = Networks(kernel, 15432, "127.53.53.53", enforcer.give, enforcer.withdraw, handover)
    yield networks, kernel, enforcer
    networks.close_all()
    assert {one for one in descriptors() if one.startswith("net:")} == before


async def test_open_and_close(made: tuple[Networks, Kernel, Enforcer]) -> None:
    networks, kernel, enforcer = made
    network = await networks.open(7, "crew, owner 7")
    assert kernel.there == {network.cookie: "crew, owner 7"}
    assert enforcer.serves == [network.cookie]
    assert [one.type for one in (*network.listeners, *network.dns)] == [
        socket.SOCK_STREAM, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_STREAM]
    networks.close(7)
    networks.close(7)
    assert (kernel.there, enforcer.serves, list(networks)) == ({}, [], [])
    assert network.listeners[0].fileno() == -1


@pytest.mark.parametrize("fails", ["kernel", "enforcer", "doors"])
async def test_what_fails_leaves_nothing(
    made: tuple[Networks, Kernel, Enforcer], monkeypatch: pytest.MonkeyPatch, fails: str,
) -> None:
    networks, kernel, enforcer = made
    before = descriptors()
    if fails == "kernel":
        kernel.wrong = "no rules"
    elif fails == "enforcer":
        enforcer.wrong = "no descriptors"
    else:
        def no(address: str, kept: object) -> list[socket.socket]:
            raise OSError("no door")

        monkeypatch.setattr("agent.network.handover.open_dns", no)
    with pytest.raises((OSError, PlatformError, ChannelError), match="no "):
        await networks.open(7, "crew, owner 7")
    assert (kernel.there, enforcer.serves, list(networks)) == ({}, [], [])
    assert descriptors() <= before


async def test_their_number_is_bounded(
    made: tuple[Networks, Kernel, Enforcer], monkeypatch: pytest.MonkeyPatch,
) -> None:
    networks, _, _ = made
    monkeypatch.setattr("agent.network.networks.MOST", 1)
    assert not why_no_more(len(networks.owners), 0)
    await networks.open(7, "crew, owner 7")
    assert why_no_more(len(networks.owners), 0) == "1 workloads have one, and no more can"


def test_the_last_ones_are_for_others() -> None:
    assert not why_no_more(MOST - MOST // 10 - 1, MOST - MOST // 10 - 1)
    assert "the last places are for others" in why_no_more(MOST - MOST // 10, MOST - MOST // 10)
    assert "the last places are for others" in why_no_more(MOST - 1, MOST // 2)
    assert not why_no_more(MOST - 1, MOST // 2 - 1)
    assert why_no_more(MOST, 0)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    path = Path(mkdtemp(prefix="wt-net-", dir=cgroup_root()))
    yield path
    path.rmdir()


def running(cgroup: Path, namespace: Namespace | None) -> int:
    """The pid of a process there that waits to be killed."""
    fd = namespace.descriptor() if namespace is not None else os.open("/proc/self/ns/net", os.O_RDONLY)
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", f"echo $$ >{cgroup}/cgroup.procs; exec nsenter --net=/proc/"
                                     f"{os.getpid()}/fd/{fd} -- sh -c 'echo here; exec sleep 600'"], os.environ,
                         file_actions=[(os.POSIX_SPAWN_DUP2, _pipe[1], 1)])
    assert os.read(_pipe[0], 5) == b"here\n"
    os.close(fd)
    return pid


_pipe = os.pipe()


async def test_what_an_earlier_agent_started(made: tuple[Networks, Kernel, Enforcer], cgroup: Path) -> None:
    networks, kernel, enforcer = made
    namespace = Namespace.make()
    start = Start(7, "crew", 5, "games", (), str(cgroup), 0, network=PRIVATE)
    assert await networks.recover([start]) == [], "nothing runs there"
    pid = running(cgroup, namespace)
    try:
        assert await networks.recover([Start(7, "crew", 5, "games", (), str(cgroup), 0, network=HOST)]) == []
        kernel.wrong = "no rules"
        assert await networks.recover([start]) == ["the network of crew, owner 7 could not be contained: no rules"]
        kernel.wrong = ""
        assert await networks.recover([start]) == []
        assert (list(kernel.there), enforcer.serves) == ([namespace.cookie], [namespace.cookie])
        assert await networks.recover([start]) == [], "once"
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        namespace.close()


async def test_its_doors_are_kept_over_a_restart(
    cgroup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever connects in it meanwhile waits; with the workload they go."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    kernel, enforcer = Kernel(), Enforcer()

    def agent(manager: Manager) -> tuple[Networks, Handover]:
        manager.heard()
        handover = Handover([(name, os.dup(fd)) for name, fd in manager.kept])
        handover.begin("wt")
        return Networks(kernel, 15432, "127.53.53.53", enforcer.give, enforcer.withdraw, handover), handover

    with Manager(tmp_path / "notify") as manager:
        first, _ = agent(manager)
        network = await first.open(7, "crew, owner 7")
        name, place = f"wt.{network.cookie}", network.namespace.descriptor()
        pid = running(cgroup, network.namespace)
        before = [os.fstat(one).st_ino for one in network.descriptors()]
        kernel.known = set(before)
        first.close_all()
        manager.until([name])
        client = inside(place, lambda: socket.create_connection(("127.0.0.1", 15432), 5))
        try:
            second, handover = agent(manager)
            assert await second.recover([Start(7, "crew", 5, "games", (), str(cgroup), 0, network=PRIVATE)]) == []
            handover.settle()
            [again] = second
            assert [os.fstat(one).st_ino for one in again.descriptors()] == before
            accepted, peer = again.listeners[0].accept()
            accepted.close()
            assert peer == client.getsockname()
            second.close(7)
            manager.until([])
            third, handover = agent(manager)
            handover.settle()
            third.close_all()
        finally:
            client.close()
            os.close(place)
            os.kill(pid, 9)
            os.waitpid(pid, 0)


async def test_who_is_in_the_hosts_network_yet(made: tuple[Networks, Kernel, Enforcer], cgroup: Path) -> None:
    """An agent was killed between fork and setns(2)."""
    networks, kernel, _ = made
    pid = running(cgroup, None)
    try:
        assert await networks.recover([Start(7, "crew", 5, "games", (), str(cgroup), 0, network=PRIVATE)]) == []
        assert kernel.there == {}
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
