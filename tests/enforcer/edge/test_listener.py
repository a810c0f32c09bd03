"""Accepting: attribution first, bounded, and a reset for everybody else."""
from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from enforcer.edge import edge, listener
from enforcer.words import commands as words
from enforcer.words import events, inputs

ROOT = Path(__file__).resolve().parents[3]


def run(house, work: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        try:
            async with asyncio.timeout(30):
                await work()
                while house.edge.live or house.edge.arriving:
                    await asyncio.sleep(0.01)
        finally:
            await house.close()

    uvloop.run(limited())


def refusals(house) -> list[list]:
    return [event for event in house.journal.events() if event[0] == events.REFUSED]


async def is_reset(port: int, data: bytes = b"") -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        assert await reader.read() == b""
    except ConnectionResetError:
        return True
    finally:
        writer.close()
    return False


def test_dialled_by_hand(house) -> None:
    async def work() -> None:
        port = await house.open()
        assert await is_reset(port, b"hello")

    run(house, work)
    assert "not attributed: nobody knows it" in refusals(house)[0][9]


def test_many_that_nobody_knows_are_a_number(house) -> None:
    async def work() -> None:
        port = await house.open()
        for _ in range(10):
            await asyncio.gather(*(is_reset(port) for _ in range(20)))
        while house.edge.untold:
            await asyncio.sleep(0.05)
        house.asked.owner = house.owner(22)
        assert await is_reset(port)

    run(house, work)
    reasons = [event[9] for event in refusals(house)]
    assert len(reasons) < 150
    assert "no target and no egress" in reasons[-1], "a crew's own is told"
    told = [int(one.split()[0]) for one in reasons if one.endswith("more connections that were not attributed")]
    assert sum(told) + len(reasons) - len(told) - 1 == 200 == house.edge.counters["refused"] - 1


def test_neither_target_nor_egress(house) -> None:
    async def work() -> None:
        port = await house.open()
        house.asked.owner = house.owner(22)
        assert await is_reset(port)

    run(house, work)
    [refused] = refusals(house)
    assert (refused[3], refused[5], refused[6], refused[7]) == ("crew", 4711, "/usr/bin/psql", "127.0.0.1 22")


def test_a_target_that_is_not_configured(house) -> None:
    async def work() -> None:
        port = await house.open()
        house.asked.owner = house.owner(5432, "gone")
        assert await is_reset(port)

    run(house, work)


def test_before_there_is_a_configuration(house) -> None:
    async def work() -> None:
        port = await house.open()
        house.edge.configuration = None
        assert await is_reset(port)

    run(house, work)


def test_no_more_than_the_most(house) -> None:
    house.most = 3

    async def work() -> None:
        async def server(reader, writer) -> None:
            await reader.read()
            writer.close()

        upstream = await house.serve(server)
        port = await house.open(house.target(upstream, tls="disable"))
        house.layer(house.relay)
        house.asked.owner = house.owner(upstream, "orders")
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        while len(house.edge.live) < 3:
            await asyncio.sleep(0.01)
        assert await is_reset(port)
        for _, writer in held:
            writer.close()

    run(house, work)
    assert "which is the most" in refusals(house)[0][9]


def test_only_a_bounded_beginning_is_kept_and_all_of_it_arrives(house) -> None:
    async def work() -> None:
        got = bytearray()

        async def server(reader, writer) -> None:
            while data := await reader.read(65536):
                got.extend(data)
            writer.close()

        upstream = await house.serve(server)
        port = await house.open(house.target(upstream, tls="disable"))
        house.layer(house.relay)
        house.asked.owner = house.owner(upstream, "orders")
        house.asked.gate = asyncio.Event()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        sent = bytes(range(256)) * 65536
        writer.write(sent)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.3)
        house.asked.gate.set()
        await writer.drain()
        while len(got) < len(sent):
            await asyncio.sleep(0.01)
        assert bytes(got) == sent
        writer.close()

    run(house, work)


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_a_client_that_left_before_it_was_attributed(house, how: str) -> None:
    async def work() -> None:
        port = await house.open(house.target(1, tls="disable"))
        house.layer(house.relay)
        house.asked.owner = house.owner(1, "orders")
        house.asked.gate = asyncio.Event()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        while not house.asked.whois_calls:
            await asyncio.sleep(0.01)
        if how == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            before = len(os.listdir("/proc/self/fd"))
            writer.transport.abort()
            while len(os.listdir("/proc/self/fd")) > before - 2:      # both ends are closed
                await asyncio.sleep(0.01)
            assert house.edge.arriving == 1
        else:
            writer.close()
        house.asked.gate.set()

    run(house, work)
    if how == "reset":
        [refused] = refusals(house)
        assert (refused[9], refused[11]) == ("gone before it could be attributed", 99)


def test_a_client_that_left_while_it_was_not_read(house, monkeypatch: pytest.MonkeyPatch) -> None:
    """By now its address and port may be another's, and the answer about that one."""
    arrived: list[listener.Arrival] = []

    class Seen(listener.Arrival):
        def __init__(self, edge: edge.Edge) -> None:
            super().__init__(edge)
            arrived.append(self)

    async def work() -> None:
        monkeypatch.setattr(listener, "Arrival", Seen)
        port = await house.open(house.target(1, tls="disable"))
        house.layer(house.relay)
        house.asked.owner = house.owner(1, "orders")
        house.asked.gate = asyncio.Event()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(bytes(listener.EARLY + 1))
        while not arrived or arrived[0]._size <= listener.EARLY:
            await asyncio.sleep(0.01)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()
        while arrived[0]._is_there():
            await asyncio.sleep(0.01)
        house.asked.gate.set()

    run(house, work)
    [refused] = refusals(house)
    assert (refused[9], refused[11]) == ("gone before it could be attributed", 99)
    assert house.layers == []


def test_a_client_that_said_all_before_it_was_attributed(house) -> None:
    async def work() -> None:
        async def server(reader, writer) -> None:
            writer.write(await reader.read())
            writer.close()

        from agent.contract.target import Egress

        upstream = await house.serve(server)
        port = await house.open(egress=Egress("model", ("127.0.0.1",), (upstream,)))
        house.asked.owner = house.owner(upstream, egress="model")
        house.asked.gate = asyncio.Event()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"all of it")
        writer.write_eof()
        await asyncio.sleep(0.05)
        house.asked.gate.set()
        assert await reader.read() == b"all of it"
        writer.close()

    run(house, work)


def test_one_workload_does_not_take_every_place(house) -> None:
    """Who opens as many connections as it can, and holds them."""
    house.most = 20

    async def work() -> None:
        async def server(reader, writer) -> None:
            writer.write(b"here")
            await reader.read()
            writer.close()

        from agent.contract.target import Egress

        upstream = await house.serve(server)
        port = await house.open(egress=Egress("model", ("127.0.0.1",), (upstream,)))

        async def connect(workload: str) -> asyncio.StreamWriter | None:
            house.asked.owner = house.owner(upstream, egress="model", workload=workload)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                return writer if await reader.readexactly(4) == b"here" else None
            except (asyncio.IncompleteReadError, ConnectionResetError):
                writer.close()
                return None

        greedy = [await connect("greedy") for _ in range(25)]
        assert [one is not None for one in greedy] == [True] * 18 + [False] * 7
        others = [await connect("other"), await connect("another")]
        assert None not in others
        assert await connect("third") is None
        for one in (*greedy, *others):
            if one is not None:
                one.close()

    run(house, work)
    assert {event[9] for event in refusals(house)} == {
        "18 sessions of this workload are open, and the last places are for others",
        "20 sessions are open, which is the most"}


def test_what_arrives_takes_no_sessions_place(house, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows yet whose it is; more than can be asked for at once is reset."""
    house.most = 5
    monkeypatch.setattr(edge, "ARRIVING", 8)

    async def work() -> None:
        port = await house.open()
        house.asked.gate = asyncio.Event()
        links = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
        while len(house.asked.whois_calls) < 8:
            await asyncio.sleep(0.01)
        assert await is_reset(port)
        house.asked.gate.set()
        for _, writer in links:
            writer.close()

    run(house, work)
    assert refusals(house)[0][9] == "too many connections arrive at once"
    assert len(refusals(house)) == 9


def test_a_drain_refuses(house) -> None:
    async def work() -> None:
        port = await house.open()
        house.edge.draining = True
        assert await is_reset(port)
        house.edge.draining = False

    run(house, work)


def test_packed_addresses() -> None:
    assert listener.packed("10.1.2.3") == b"\0" * 10 + b"\xff\xff\x0a\1\2\3"
    assert listener.packed("::1") == b"\0" * 15 + b"\1"
    assert listener.packed("fe80::1%lo") == b"\xfe\x80" + b"\0" * 13 + b"\1"


def test_the_backlog_is_not_shortened(house) -> None:
    """An inherited socket keeps room for what waits over a restart."""
    async def work() -> None:
        port = await house.open()
        shown = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], check=True, capture_output=True, text=True).stdout
        assert int(shown.split()[2]) == listener.BACKLOG

    run(house, work)


REDIRECT = """
table inet weir_edge_test {
  chain output {
    type nat hook output priority -100
    ip daddr 192.0.2.7 tcp dport 5432 redirect to :15432
    ip6 daddr 2001:db8::7 tcp dport 5432 redirect to :15432
  }
}
"""
ASKED = """
import socket, sys
sys.path.insert(0, sys.argv[1])
from enforcer.edge.ends import original_destination
for family, here, there in ((socket.AF_INET, "0.0.0.0", "192.0.2.7"), (socket.AF_INET6, "::1", "2001:db8::7")):
    with socket.create_server((here, 15432), family=family) as listening:
        for address, port in ((there, 5432), ("127.0.0.1" if family == socket.AF_INET else "::1", 15432)):
            with socket.socket(family) as client:
                client.connect((address, port))
                accepted, _ = listening.accept()
                with accepted:
                    print(original_destination(accepted) or "-")
"""


@pytest.mark.kernel
def test_what_came_by_a_redirect_says_where_it_wanted_to_go() -> None:
    script = """
        ip link set lo up; ip addr add 192.0.2.7/32 dev lo; ip -6 addr add 2001:db8::7/128 dev lo
        nft -f - && exec "$@"
    """
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script, "sh", sys.executable, "-c", ASKED, str(ROOT)],
        input=REDIRECT, capture_output=True, text=True, check=False,
    )
    assert done.stdout.split("\n")[:4] == ["192.0.2.7 5432", "-", "2001:db8::7 5432", "-"], done.stderr


def test_hold_answers_reach_the_session_and_are_recorded_first(house) -> None:
    async def work() -> None:
        got = asyncio.Event()

        async def server(reader, writer) -> None:
            assert await reader.readline() == b"delete\n"
            found = [event[6] for event in house.journal.events() if event[0] == events.HOLD]
            assert found == ["pending", "approved"]
            assert house.journal.syncs
            got.set()
            await reader.read()
            writer.close()

        class Holding(house.relay):
            def receive(self, peer: int, data: bytes) -> list:
                self.state = "held"
                return [words.Hold(1, (TERMS,), "sql:delete t", "delete", (), ("r",), b"x", "shop")]

            def handle(self, event) -> list:
                if isinstance(event, inputs.HoldOpened):
                    return [words.SendData(words.CLIENT, event.ticket.encode() + b"\n")]
                if isinstance(event, inputs.HoldAnswered) and event.state == "approved":
                    return [words.SendData(words.SERVER, b"delete\n")]
                return super().handle(event)

        from enforcer.words.decisions import HoldTerms

        TERMS = HoldTerms("r", ("dba",))
        upstream = await house.serve(server)
        port = await house.open(house.target(upstream, tls="disable"))
        house.layer(Holding)
        house.asked.owner = house.owner(upstream, "orders")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while not house.layers or not house.layers[0].connected:
            await asyncio.sleep(0.01)
        writer.write(b"delete from t\n")
        ticket = (await reader.readline()).strip().decode()
        assert house.edge.holds.decide(ticket, True, "local:root", ("dba",), "fine") == ""
        await got.wait()
        writer.close()

    run(house, work)


def test_a_session_that_ends_cancels_its_holds(house) -> None:
    async def work() -> None:
        from enforcer.words.decisions import HoldTerms

        class Holding(house.relay):
            def start(self) -> list:
                return [words.Hold(1, (HoldTerms("r", ("dba",)),), "a", "t", (), (), b"")]

        port = await house.open(house.target(1, tls="disable"))
        house.layer(Holding)
        house.asked.owner = house.owner(1, "orders")
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        while not house.edge.holds.views():
            await asyncio.sleep(0.01)
        writer.close()
        while house.edge.live:
            await asyncio.sleep(0.01)
        assert house.edge.holds.views() == ()

    run(house, work)
