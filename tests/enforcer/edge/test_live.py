"""Sessions that are ended and locked out while they are at something, on a real PostgreSQL: it says what was done."""
from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import uvloop

from agent.contract import messages
from agent.contract.locks import Lock, LockSet
from agent.contract.owner import Owner
from agent.contract.people import People
from agent.contract.target import Egress
from enforcer.approval.holds import Holds
from enforcer.edge import session as session_module
from enforcer.edge.catalogue import Catalogues
from enforcer.edge.edge import Configuration, Edge
from enforcer.words import events
from enforcer.words.decisions import HOLD, PERMIT, Decision, HoldTerms

WHY = "killed by local:root: enough"
DATABASE = "host=127.0.0.1 port={} user=u dbname=postgres sslmode={} connect_timeout=20"


class HoldsDeletes:
    version = 1

    def decide(self, principal: object, requests: Any, labels: Any = (), approved: bool = False) -> Decision:
        held = any(one.action == "sql:delete" for one in requests) and not approved
        return Decision(HOLD, ("r",), "", (HoldTerms("r", ("dba",)),)) if held else Decision(PERMIT)


def lock(kind: str, name: str, reason: str = "leaked") -> Lock:
    return Lock(kind, name, reason, "local:root", 1)  # type: ignore[arg-type]


def run(house: Any, work: Callable[[], Awaitable[None]], seconds: float = 60) -> None:
    async def limited() -> None:
        try:
            async with asyncio.timeout(seconds):
                await work()
                while house.edge.live or house.edge.arriving:
                    await asyncio.sleep(0.01)
        finally:
            await house.close()

    uvloop.run(limited())


@pytest.fixture(autouse=True)
def table(cluster: Any) -> Iterator[None]:
    cluster.admin("CREATE TABLE live (v int); GRANT ALL ON live TO scram; INSERT INTO live VALUES (0)")
    yield
    cluster.admin("DROP TABLE live")


async def opened(house: Any, cluster: Any, **more: Any) -> int:
    """Weir's own layer, towards the real server."""
    port: int = await house.open(house.target(cluster.port, **{"tls": "disable", **more}))
    house.edge.configuration = replace(house.edge.configuration, gate=HoldsDeletes())
    house.edge.catalogues = Catalogues(house.edge)
    house.asked.owner = house.owner(5432, "orders")
    return port


async def psql(port: int, *sql: str, feed: bool = False, sslmode: str = "disable") -> asyncio.subprocess.Process:
    words = [word for text in sql for word in ("-c", text)]
    return await asyncio.create_subprocess_exec(
        "psql", "-X", "-A", "-t", DATABASE.format(port, sslmode), *words, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, stdin=subprocess.PIPE if feed else subprocess.DEVNULL)


async def until(what: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not what():
            await asyncio.sleep(0.02)


def one(house: Any, state: str) -> Any:
    return next((live for live in house.edge.live.values() if live.view().state == state), None)


def backends(cluster: Any) -> int:
    return int(cluster.admin("SELECT count(*) FROM pg_stat_activity WHERE usename = 'scram'"))


def rows(cluster: Any) -> str:
    return str(cluster.admin("SELECT string_agg(v::text, ',' ORDER BY v) FROM live"))


async def killed(house: Any, cluster: Any, process: asyncio.subprocess.Process | None, seconds: float = 3) -> None:
    """Of what is open: ended as it is by an operator, told, and the server is rid of it."""
    name = next(iter(house.edge.live))
    began = time.monotonic()
    house.edge.find(name[:20]).end(WHY)
    if process is not None:
        _, err = await process.communicate()
        assert f"terminating connection: {WHY}".encode() in err, err
        assert time.monotonic() - began < 2
    await until(lambda: backends(cluster) == 0, seconds)
    await until(lambda: not house.edge.live, 1)
    await asyncio.sleep(0.1)


@pytest.mark.parametrize("sslmode", ["disable", "require"])
def test_what_runs_is_cancelled_and_not_done(house: Any, cluster: Any, sslmode: str) -> None:
    async def work() -> None:
        leaf = {} if sslmode == "disable" else certificate(cluster)
        port = await opened(house, cluster, **leaf)
        process = await psql(port, "INSERT INTO live SELECT 7 FROM pg_sleep(4)", sslmode=sslmode)
        await until(lambda: one(house, "active") is not None)
        await until(lambda: cluster.admin(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO live%' AND state = 'active'") == "1")
        await killed(house, cluster, process)
        assert rows(cluster) == "0"

    run(house, work)
    found = house.journal.events()
    [mine] = [event[3] for event in found if event[0] == events.SESSION_CLOSED and event[4] == WHY]
    cancels = [event for event in found if event[0] == events.INTENT and event[6] == "cancel"]
    assert [(event[3], event[5]) for event in cancels] == [(mine, "weir")]
    assert any(event[0] == events.GAP and event[3] == mine for event in found), "its result is not known"


def certificate(cluster: Any) -> dict[str, str]:
    return {"leaf_certificate": (cluster.directory / "server.pem").read_text(),
            "leaf_key": (cluster.directory / "server.key").read_text()}


@pytest.mark.parametrize("tls", ["disable", "verify-ca"])
def test_what_was_sent_ahead_is_not_done(house: Any, cluster: Any, tls: str) -> None:
    """The server has them all, and would do one after the other."""
    async def work() -> None:
        port = await opened(house, cluster, tls=tls, tls_ca=cluster.authority.pem)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        body = b"\0\3\0\0user\0u\0database\0postgres\0\0"
        writer.write((len(body) + 4).to_bytes(4, "big") + body)
        for text in (b"SELECT pg_sleep(20)\0", *[b"INSERT INTO live VALUES (7)\0"] * 300):
            writer.write(b"Q" + (len(text) + 4).to_bytes(4, "big") + text)
        await until(lambda: bool(house.edge.live) and house.edge.commit.flushed > 300)
        await until(lambda: cluster.admin(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "1")
        await killed(house, cluster, None)
        assert rows(cluster) == "0"
        writer.close()

    run(house, work)


def test_in_a_transaction_nothing_stays(house: Any, cluster: Any) -> None:
    async def work() -> None:
        port = await opened(house, cluster)
        process = await psql(port, feed=True)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"BEGIN; INSERT INTO live VALUES (7); SELECT 'there';\n")
        while b"there" not in await process.stdout.readline():
            pass
        await killed(house, cluster, None)
        assert rows(cluster) == "0"
        process.kill()
        await process.communicate()

    run(house, work)


def test_in_a_copy_nothing_stays(house: Any, cluster: Any) -> None:
    async def work() -> None:
        port = await opened(house, cluster)
        process = await psql(port, "COPY live FROM STDIN", feed=True)
        assert process.stdin is not None
        process.stdin.write(b"7\n" * 50_000)
        await process.stdin.drain()
        await until(lambda: cluster.admin(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY%' AND state = 'active'") == "1")
        await killed(house, cluster, None)
        assert rows(cluster) == "0"
        process.kill()
        await process.communicate()

    run(house, work)


def test_who_does_not_read_is_ended_all_the_same(
    house: Any, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer fills every buffer; neither the client nor, through it, the server goes on."""
    monkeypatch.setattr(session_module, "GRACE", 1.0)

    async def work() -> None:
        port = await opened(house, cluster)
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.transport.pause_reading()
        body = b"\0\3\0\0user\0u\0database\0postgres\0\0"
        writer.write((len(body) + 4).to_bytes(4, "big") + body)
        text = b"SELECT repeat('x', 1000) FROM generate_series(1, 200000)\0"
        writer.write(b"Q" + (len(text) + 4).to_bytes(4, "big") + text)
        await until(lambda: one(house, "active") is not None)
        await asyncio.sleep(1)
        await killed(house, cluster, None)
        writer.transport.abort()

    run(house, work)


def test_a_hold_is_given_up_and_its_approval_runs_nothing(house: Any, cluster: Any) -> None:
    async def work() -> None:
        port = await opened(house, cluster)
        process = await psql(port, "DELETE FROM live")
        await until(lambda: one(house, "held") is not None)
        [view] = house.edge.holds.views()
        house.edge.lock(LockSet(1, (lock("target", "orders"),)))
        assert "pending" in house.edge.holds.decide(view.ticket, True, "local:dba", ("dba",), "yes")
        _, err = await process.communicate()
        assert b"terminating connection: target orders is locked: leaked" in err
        await until(lambda: backends(cluster) == 0)
        assert rows(cluster) == "0"

    run(house, work)
    states = [event[6] for event in house.journal.events() if event[0] == events.HOLD]
    assert states == ["pending", "cancelled"]


def test_what_was_approved_and_waits_for_the_disk_does_not_go(house: Any, cluster: Any) -> None:
    async def work() -> None:
        port = await opened(house, cluster)
        process = await psql(port, "DELETE FROM live")
        await until(lambda: one(house, "held") is not None)
        [view] = house.edge.holds.views()
        house.journal.slow = threading.Event()
        assert house.edge.holds.decide(view.ticket, True, "local:dba", ("dba",), "yes") == ""
        await until(lambda: bool(one(house, "active")))
        house.edge.lock(LockSet(1, (lock("workload", "crew"),)))
        house.journal.slow.set()
        _, err = await process.communicate()
        assert b"workload crew is locked: leaked" in err
        await until(lambda: backends(cluster) == 0)
        assert rows(cluster) == "0"

    run(house, work)


@pytest.mark.parametrize("phase", ["first", "tls", "startup"])
def test_during_login(house: Any, cluster: Any, phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "GRACE", 1.0)

    async def work() -> None:
        port = await opened(house, cluster, **certificate(cluster))
        if phase == "startup":        # the agent does not say which credential: Weir waits in the middle of it
            house.asked.credential = lambda *words: asyncio.Event().wait()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if phase == "tls":
            writer.write(b"\0\0\0\x08\x04\xd2\x16\x2f")
            assert await reader.readexactly(1) == b"S"
        elif phase == "startup":
            body = b"\0\3\0\0user\0u\0database\0postgres\0\0"
            writer.write((len(body) + 4).to_bytes(4, "big") + body)
        await until(lambda: bool(house.edge.live))
        await asyncio.sleep(0.1)
        house.edge.lock(LockSet(1, (lock("subject", "local:crew"),)))
        await until(lambda: not house.edge.live, 3)
        assert (b"subject local:crew is locked" in await reader.read()) is (phase != "tls")
        writer.close()

    run(house, work)
    assert backends(cluster) == 0


@pytest.mark.parametrize("sslmode", ["disable", "require"])
def test_whose_was_attributed_before_it_was_locked_is_told_so(house: Any, cluster: Any, sslmode: str) -> None:
    async def work() -> None:
        port = await opened(house, cluster, **certificate(cluster))
        house.asked.gate = asyncio.Event()
        process = await psql(port, "SELECT 1", sslmode=sslmode)
        await until(lambda: bool(house.asked.whois_calls))
        house.edge.lock(LockSet(1, (lock("workload", "crew"),)))
        house.asked.gate.set()
        out, err = await process.communicate()
        assert (process.returncode, out) == (2, b"")
        assert b"workload crew is locked: leaked" in err
        house.edge.lock(LockSet(2, ()))
        out, _ = await (await psql(port, "SELECT 1", sslmode=sslmode)).communicate()
        assert out == b"1\n"
        await until(lambda: not house.edge.live)
        assert house.asked.unused_calls == [house.asked.login]             # by the one that had it, once

    run(house, work)
    refused = [event for event in house.journal.events() if event[0] == events.REFUSED]
    assert [(event[9], event[10]) for event in refused] == [("workload crew is locked: leaked", ["locked"])]


def test_an_older_set_takes_no_newer_one_s_place(house: Any, cluster: Any) -> None:
    async def work() -> None:
        await opened(house, cluster)
        house.edge.lock(LockSet(5, (lock("workload", "crew"),)))
        assert house.edge.lock(LockSet(4, ())) == 0
        assert house.edge.barred(house.asked.owner) == ("locked", "workload crew is locked: leaked")

    run(house, work)


async def test_what_is_named_by_its_beginning() -> None:
    edge: Any = Edge(asyncio.get_running_loop(), None)  # type: ignore[arg-type]
    edge.live = {"01ABC": "one", "01ABD": "two", "02": "three", "02X": "four"}
    assert (edge.find("01ABC"), edge.find("01ABD"), edge.find("02")) == ("one", "two", "three")
    assert edge.find("01AB") == "2 sessions and flows are open whose name begins with '01AB'"
    assert edge.find("03") == "no session or flow is open whose name begins with '03'"
    edge.live = {"01ABC": "one"}
    assert edge.find("01") == "one"
    assert "1 sessions" in edge.find("")


async def test_who_is_locked_is_not_elevated_however_late_the_question_comes() -> None:
    edge: Any = Edge(asyncio.get_running_loop(), None)  # type: ignore[arg-type]
    edge.configuration = Configuration({"orders": None}, {}, None, b"", 1, "none")  # type: ignore[arg-type,dict-item]
    edge.holds = Holds(lambda: 1, lambda: 1, bytes, lambda session, event: None, lambda event: None)
    edge.lock(LockSet(1, (lock("subject", "local:ada"),)))
    asked = messages.AskElevation(1, "corp:ada", "ada", 5, (), "orders", 60)
    assert edge.elevate(asked) == ("", "subject local:ada is locked: leaked")


async def test_a_lock_that_comes_before_what_was_kept_is_back() -> None:
    """An enforcer that starts reads a lock that was put meanwhile before it has carried out its configuration."""
    kept: dict[str, bytes] = {}

    def keep(ticket: str, content: bytes, done: Callable[[str], None]) -> None:
        kept[ticket] = content
        done("")

    def holds() -> Holds:
        return Holds(lambda: 1, lambda: 1, bytes, lambda session, event: None, lambda event: None, keep, b"k" * 32,
                     boot="one")

    ticket, _ = holds().elevate("corp:ada", "ada", "orders", 600, "", ())
    assert kept[ticket]
    edge: Any = Edge(asyncio.get_running_loop(), None)  # type: ignore[arg-type]
    edge.lock(LockSet(2, (lock("subject", "corp:ada"),)))
    edge.holds = holds()
    edge.holds.restore(dict(kept))
    assert len(edge.holds.views()) == 1
    edge.lock(LockSet(1, ()))
    assert edge.holds.views() == ()
    assert kept[ticket] == b""
    assert edge.locks == 2


def test_a_flow_ends_and_none_is_opened(house: Any) -> None:
    async def work() -> None:
        async def server(reader: Any, writer: Any) -> None:
            writer.write(await reader.readexactly(5))

        upstream = await house.serve(server)
        port = await house.open(None, Egress("model", ("127.0.0.1",), (upstream,)))
        house.asked.owner = house.owner(upstream, egress="model")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        assert house.edge.lock(LockSet(1, (lock("subject", "local:crew"), lock("target", "model")))) == 1
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()

    run(house, work)
    why = "subject local:crew is locked: leaked"
    assert [event[6] for event in house.journal.events() if event[0] == events.FLOW_CLOSED] == [why]
    assert [event[9] for event in house.journal.events() if event[0] == events.REFUSED] == [why]


def test_a_hundred_at_once(house: Any, cluster: Any) -> None:
    """Half of them are at something."""
    house.most = 200

    async def work() -> None:
        port = await opened(house, cluster)
        quiet, busy = "SELECT 1", "INSERT INTO live SELECT 7 FROM pg_sleep(30)"

        async def client(text: str) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            body = b"\0\3\0\0user\0u\0database\0postgres\0\0"
            writer.write((len(body) + 4).to_bytes(4, "big") + body)
            asked = text.encode() + b"\0"
            writer.write(b"Q" + (len(asked) + 4).to_bytes(4, "big") + asked)
            answer = await reader.read(-1)
            writer.close()
            return answer

        asking = [asyncio.create_task(client(busy if number % 2 else quiet)) for number in range(100)]
        await until(lambda: sum(live.view().state == "active" for live in house.edge.live.values()) == 50
                    and sum(live.view().state == "idle" for live in house.edge.live.values()) == 50, 40)
        await until(lambda: cluster.admin(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "50")
        began = time.monotonic()
        assert house.edge.lock(LockSet(1, (lock("workload", "crew"),))) == 100
        took = time.monotonic() - began
        answers = await asyncio.gather(*asking)
        told = time.monotonic() - began
        assert all(b"workload crew is locked" in answer for answer in answers)
        await until(lambda: backends(cluster) == 0, 5)
        assert (took < 5, told < 10) == (True, True), (took, told)
        assert rows(cluster) == "0"

    run(house, work)




async def test_a_lock_is_of_a_person_whatever_name_is_used() -> None:
    edge: Any = Edge(asyncio.get_running_loop(), None)  # type: ignore[arg-type]
    edge.holds = Holds(lambda: 1, lambda: 1, bytes, lambda session, event: None, lambda event: None)
    owner = Owner("crew", 5, "ada", "corp:ada", (), None, "", 0, "", 0, "mark")
    edge.lock(LockSet(1, (lock("subject", "local:ada-admin"),)))
    assert edge.barred(owner) == ("", "")
    edge.know(People({"ada": ("local:ada-admin", "corp:ada")}))
    assert edge.barred(owner) == ("locked", "subject local:ada-admin is locked: leaked")
    assert edge.holds.people is edge.people
