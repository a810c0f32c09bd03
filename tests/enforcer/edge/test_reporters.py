"""The socket at which crews report: whose a report is says the kernel; what is no report, or too much, ends it."""
from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import uvloop

from agent.contract.messages import REPORTS
from agent.contract.owner import Process
from enforcer.core.gate import CedarGate, ReportingGate
from enforcer.core.reports import LIMIT
from enforcer.edge import reporters as module
from enforcer.edge.edge import Configuration
from enforcer.edge.reporters import Reporters
from enforcer.policy.cedar import load_policies
from enforcer.words import events
from enforcer.words.reported import Call, nothing

CHILD = """
import socket, sys
one = socket.socket(socket.AF_UNIX)
one.connect(sys.argv[1])
one.sendall(bytes.fromhex(sys.argv[2]))
print("sent", flush=True)
sys.stdin.read()
"""


def frame(*tools: str) -> bytes:
    body = json.dumps({"calls": [["shop", "Analyst", "t1", tool] for tool in tools]}).encode()
    return struct.pack("<I", len(body)) + body


class Scene:
    """An edge whose agent says that every pid is a crew's process, started at pid * 1000."""

    def __init__(self, house) -> None:
        self.house, self.path = house, house.directory / "reports"
        self.links: list[socket.socket] = []
        self.tampered: dict[int, object] = {}

    async def open(self) -> None:
        await self.house.open()
        self.edge = self.house.edge
        self.house.asked.whois_local = self.whois_local
        self.reports = self.edge.reports = Reporters(self.edge)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(self.path))
            listening.listen(64)
            self.reports.listen(listening.detach())

    async def whois_local(self, target: str, pid: int, uid: int):
        assert target == REPORTS
        await asyncio.sleep(0)
        return self.tampered.get(pid, self.owner(pid))

    def owner(self, pid: int, started: int | None = None, workload: str = "crew"):
        owner = self.house.owner(0, workload=workload)
        return msgspec.structs.replace(
            owner, process=Process(pid, "/usr/bin/python3", "", (), pid * 1000 if started is None else started))

    def calls(self, pid: int = 0, started: int | None = None) -> list[str]:
        """As an operation of this process finds them."""
        self.edge.passes += 1
        return [one.tool for one in self.reports.of(self.owner(pid or os.getpid(), started))()]

    async def dial(self) -> socket.socket:
        link = socket.socket(socket.AF_UNIX)
        link.connect(str(self.path))
        self.links.append(link)
        await self.until(lambda: (os.getpid(), os.getpid() * 1000) in self.reports._known)
        return link

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():
            await asyncio.sleep(0.005)

    def refusals(self) -> list[str]:
        return [event[9] for event in self.house.journal.events() if event[0] == events.REFUSED]

    def run(self, work: Callable[[], Awaitable[None]]) -> None:
        async def limited() -> None:
            try:
                async with asyncio.timeout(60):
                    await self.open()
                    await work()
            finally:
                for link in self.links:
                    link.close()
                self.reports.end()
                assert not self.reports._known
                await self.house.close()

        uvloop.run(limited())


@pytest.fixture
def scene(house) -> Scene:
    return Scene(house)


def test_what_was_written_before_is_known_when_it_is_asked_for(scene: Scene) -> None:
    """The loop has not read it: a statement that came with it must not be earlier."""
    async def work() -> None:
        link = await scene.dial()
        assert scene.calls() == []
        for tools in (["a"], ["a", "b"], ["b"], []):
            link.sendall(frame(*tools))
            assert scene.calls() == tools
        link.sendall(frame("x") + frame("y") + frame("z")[:-1])
        assert scene.calls() == ["y"], "the last that is whole"

    scene.run(work)


def test_one_look_for_all_that_is_told_at_once(scene: Scene) -> None:
    """What is decided and what is recorded of it see the same."""
    async def work() -> None:
        link = await scene.dial()
        asked = scene.reports.of(scene.owner(os.getpid()))
        link.sendall(frame("a"))
        scene.edge.passes += 1
        assert asked()[0] == Call("shop", "Analyst", "t1", "a")
        link.sendall(frame("b"))
        assert asked()[0].tool == "a"
        scene.edge.passes += 1
        assert asked()[0].tool == "b"

    scene.run(work)


def test_a_process_speaks_for_itself_alone(scene: Scene) -> None:
    async def work() -> None:
        link = await scene.dial()
        link.sendall(frame("mine"))
        with subprocess.Popen([sys.executable, "-c", CHILD, str(scene.path), frame("theirs").hex()],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            await scene.until(lambda: (child.pid, child.pid * 1000) in scene.reports._known)
            assert child.stdout is not None
            child.stdout.readline()
            assert (scene.calls(), scene.calls(child.pid)) == (["mine"], ["theirs"])
            assert scene.calls(child.pid, 5) == [], "a later process of the same number"
            assert scene.calls(child.pid + 100_000) == []
            child.kill()
        await scene.until(lambda: (child.pid, child.pid * 1000) not in scene.reports._known)
        assert (scene.calls(), scene.calls(child.pid)) == (["mine"], [])

    scene.run(work)


def test_which_process_it_was_is_not_known(scene: Scene) -> None:
    async def work() -> None:
        link = await scene.dial()
        link.sendall(frame("a"))
        assert scene.reports.of(scene.owner(os.getpid(), 0)) is nothing
        assert scene.reports.of(scene.house.owner(1)) is nothing
        redirected = msgspec.structs.replace(scene.house.owner(1), process=None)
        assert scene.reports.of(redirected) is nothing

    scene.run(work)


@pytest.mark.parametrize(("said", "reason"), [
    ("process 1 is no crew's", "not attributed: process 1 is no crew's"), (None, "has ended"), (0, "has ended"),
])
def test_who_is_nobody_reports_nothing(scene: Scene, said: object, reason: str) -> None:
    async def work() -> None:
        owner = scene.owner(os.getpid(), 0)
        scene.tampered[os.getpid()] = said if isinstance(said, str) else (
            owner if said == 0 else msgspec.structs.replace(owner, process=None))
        link = socket.socket(socket.AF_UNIX)
        scene.links.append(link)
        link.connect(str(scene.path))
        link.sendall(frame("a"))
        await scene.until(lambda: bool(scene.refusals()))
        assert scene.calls() == []
        assert not scene.reports._open

    scene.run(work)
    assert reason in scene.refusals()[0]


BAD = {
    "no JSON": struct.pack("<I", 3) + b"abc", "too long": struct.pack("<I", LIMIT + 1),
    "too many calls": frame(*"abcdefghijklmnopq"), "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "nothing but zeros": bytes(200_000), "many small ones": frame() * 9000,
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_is_no_report_ends_it_and_is_recorded_once(scene: Scene, data: bytes) -> None:
    async def work() -> None:
        link = await scene.dial()
        link.sendall(frame("a"))
        assert scene.calls() == ["a"]
        link.setblocking(False)
        with pytest.raises(OSError):
            for _ in range(10_000):
                try:
                    link.send(data)
                except BlockingIOError:
                    await asyncio.sleep(0.001)
                scene.calls()
        assert scene.calls() == []
        assert not scene.reports._open
        await asyncio.sleep(0.05)

    scene.run(work)
    assert len(scene.refusals()) == 1


def test_processes_of_one_uid_share_what_they_may_say(scene: Scene) -> None:
    async def work() -> None:
        pids = iter(range(101, 141))

        async def next_one(target: str, pid: int, uid: int):
            return scene.owner(next(pids))

        scene.house.asked.whois_local = next_one
        data = frame(*("x" * 100 for _ in range(16))) * 30
        for pid in range(101, 141):
            link = socket.socket(socket.AF_UNIX)
            scene.links.append(link)
            link.connect(str(scene.path))
            await scene.until(lambda pid=pid: (pid, pid * 1000) in scene.reports._known)
            for _ in range(5):
                link.sendall(data)
                scene.calls(pid)
                if (pid, pid * 1000) not in scene.reports._known:
                    return
        pytest.fail("all of it was read")

    scene.run(work)
    assert scene.refusals() == ["more reports than a listener has to make"]


def test_it_may_say_so_again(scene: Scene) -> None:
    """A crew's process whose connection was ended reports by its next one."""
    async def work() -> None:
        (await scene.dial()).sendall(bytes(2000) + b"x" * 8)
        await scene.until(lambda: not scene.reports._known)
        (await scene.dial()).sendall(frame("a"))
        assert scene.calls() == ["a"]

    scene.run(work)


def test_a_second_connection_takes_the_place_of_the_first(scene: Scene) -> None:
    async def work() -> None:
        first = await scene.dial()
        first.sendall(frame("old"))
        assert scene.calls() == ["old"]
        known = scene.reports._known[os.getpid(), os.getpid() * 1000]
        second = await scene.dial()
        await scene.until(lambda: scene.reports._known[os.getpid(), os.getpid() * 1000] is not known)
        assert scene.calls() == []
        second.sendall(frame("new"))
        assert scene.calls() == ["new"]
        assert first.recv(1) == b""
        assert list(scene.reports._open.values()) == [1]

    scene.run(work)


def test_who_connects_again_and_again_is_turned_away(scene: Scene) -> None:
    """Attribution costs the agent something; what is told of it is bounded too."""
    async def work() -> None:
        asked = 0
        for _ in range(400):
            with socket.socket(socket.AF_UNIX) as link:
                link.connect(str(scene.path))
                await asyncio.sleep(0)
            asked += 1
        await scene.until(lambda: not scene.reports._open)
        assert asked == 400

    scene.run(work)
    assert 0 < len(scene.refusals()) <= 25


def test_half_open_connections_are_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EACH", 5)

    async def work() -> None:
        never = asyncio.Event()

        async def silent(target: str, pid: int, uid: int):
            await never.wait()
            return "later"

        scene.house.asked.whois_local = silent
        for _ in range(20):
            link = socket.socket(socket.AF_UNIX)
            link.connect(str(scene.path))
            scene.links.append(link)
        await asyncio.sleep(0.2)
        assert scene.reports._open == {os.getuid(): 5}
        never.set()
        await scene.until(lambda: not scene.reports._open)

    scene.run(work)


@pytest.mark.parametrize("seed", range(8))
def test_any_interleaving_of_reports_and_questions(scene: Scene, seed: int) -> None:
    """Each process' operations find what that process had written before, wherever it was cut, and nobody else's."""
    chance = random.Random(seed)

    async def work() -> None:
        pids = iter(range(101, 105))

        async def next_one(target: str, pid: int, uid: int):
            return scene.owner(next(pids))

        scene.house.asked.whois_local = next_one
        links, said, rest = {}, {pid: [] for pid in range(101, 105)}, dict.fromkeys(range(101, 105), b"")
        for pid in said:
            links[pid] = link = socket.socket(socket.AF_UNIX)
            scene.links.append(link)
            link.connect(str(scene.path))
            await scene.until(lambda pid=pid: (pid, pid * 1000) in scene.reports._known)
        for number in range(300):
            pid = chance.choice(list(said))
            if chance.random() < 0.6:
                links[pid].sendall(rest[pid])
                said[pid] = chance.choice((said[pid][1:], [*said[pid][-14:], f"{pid} {number}"], []))
                whole = frame(*said[pid])
                cut = chance.choice((0, 0, chance.randrange(len(whole))))
                links[pid].sendall(whole[:len(whole) - cut])
                rest[pid] = whole[len(whole) - cut:]
            elif rest[pid]:
                links[pid].sendall(rest[pid])
                rest[pid] = b""
            if chance.random() < 0.3:
                await asyncio.sleep(0)
            for other in said:
                if not rest[other]:
                    assert scene.calls(other) == said[other]

    scene.run(work)


def test_sessions_get_a_gate_that_looks_at_it(scene: Scene) -> None:
    async def work() -> None:
        link = await scene.dial()
        cedar = CedarGate(load_policies({"f": '@id("a") permit (principal, action, resource) when '
                                              '{ context.reported.tool == "a" };'}))
        scene.edge.configuration = Configuration({}, {}, cedar, bytes(32), 10, "writes")
        context = scene.edge.context(scene.owner(os.getpid()), scene.house.target(1))
        assert isinstance(context.gate, ReportingGate)
        before = context.gate.version
        link.sendall(frame("a"))
        scene.edge.passes += 1
        assert context.gate.version > before
        assert context.reported() == (Call("shop", "Analyst", "t1", "a"),)
        other = scene.edge.context(scene.owner(os.getpid(), 0), scene.house.target(1))
        assert other.gate is cedar

    scene.run(work)


def test_what_a_look_costs_where_nothing_new_is_said(scene: Scene) -> None:
    """Microseconds: it is on the way of each statement of a crew that reports."""
    async def work() -> None:
        await scene.dial()
        asked = scene.reports.of(scene.owner(os.getpid()))
        began = time.perf_counter()
        for _ in range(2000):
            scene.edge.passes += 1
            asked()
        assert (time.perf_counter() - began) / 2000 < 0.001

    scene.run(work)


def test_end_to_end_of_a_door(scene: Scene, tmp_path: Path) -> None:
    """It ends with connections that nobody has answered for yet."""
    async def work() -> None:
        scene.house.asked.gate = asyncio.Event()
        link = socket.socket(socket.AF_UNIX)
        link.connect(str(scene.path))
        scene.links.append(link)
        await asyncio.sleep(0.02)
        scene.reports.end()
        await asyncio.sleep(0.02)
        with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
            late.connect(str(scene.path))

    scene.run(work)
