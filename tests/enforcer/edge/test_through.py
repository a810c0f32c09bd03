"""A registered database through another session: the real PostgreSQL layer, a real server, a mux in place of SSH."""
from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import psutil
import pytest
import uvloop
from lab import certificates
from mux import CLOSE, CONNECTED, DATA, DIAL, END, FAILED, Far, Mux, Near, frame

from agent.contract.locks import Lock, LockSet
from agent.contract.target import Target
from enforcer import protocols
from enforcer.edge import through, upstream
from enforcer.edge.catalogue import Catalogues
from enforcer.edge.plans import Plans
from enforcer.policy.holds import parse_hold
from enforcer.words import events, inputs
from enforcer.words.commands import CLIENT, SERVER, LeaveServer, OpenConnection
from enforcer.words.decisions import DENY, HOLD, PERMIT, Decision
from enforcer.words.errors import RemoteProtocolError

PLACE = "db.edge.example 5432"
RULE = parse_hold("people-decide", "approvers=dba")


class Rules:
    """Permits, but deletes and, unless approved, updates."""

    version = 1

    def decide(self, principal, requests, labels=(), approved=False) -> Decision:
        actions = {one.action for one in requests}
        if "sql:delete" in actions:
            return Decision(DENY, ("no-deletes",), "nothing is deleted here")
        if "sql:update" in actions and not approved:
            return Decision(HOLD, ("people-decide",), "", (RULE,))
        return Decision(PERMIT, ("all",), "", (), labels)


class Stage:
    """A mux through Weir to `far`, at which the database is."""

    def __init__(self, house, cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        self.house, self.cluster, self.near = house, cluster, Near()
        self.far = Far({PLACE: cluster.port, "localhost 5432": cluster.port})
        self.layers: list[Mux] = []
        self.more: dict[str, Target] = {}
        real = protocols.find

        def make(context) -> Mux:
            self.layers.append(Mux(context))
            return self.layers[-1]

        entry = protocols.Protocol("mux", make, lambda first: False)
        monkeypatch.setattr(protocols, "find", lambda name: entry if name == "mux" else real(name))

    async def start(self, port: int = 5432, addresses: tuple[str, ...] = ("192.0.2.9",), **more) -> None:
        await self.far.start(self.house)
        orders = msgspec.structs.replace(self.house.target(port, **{"tls": "disable", **more}), addresses=addresses)
        bastion = Target("bastion", "mux", ("bastion.example",), self.far.port, ("127.0.0.1",))
        port = await self.house.open(bastion)
        edge = self.house.edge
        edge.configuration = dataclasses.replace(
            edge.configuration, gate=Rules(), targets={"bastion": bastion, "orders": orders, **self.more})
        edge.catalogues, edge.plans = Catalogues(edge), Plans(edge)
        self.house.asked.owner = self.house.owner(self.far.port, "bastion")
        await self.near.connect(port)

    async def psql(self, *sql: str, options: str = "sslmode=disable", place: str = PLACE) -> tuple[int, str, str]:
        process = await self.begin(*sql, options=options, place=place)
        out, err = await process.communicate()
        return process.returncode or 0, out.decode().strip(), err.decode().strip()

    async def begin(self, *sql: str, options: str = "sslmode=disable", place: str = PLACE):
        port = await self.near.listen(place)
        said = (word for one in sql for word in ("-c", one))
        return await asyncio.create_subprocess_exec(
            "psql", "-X", "-A", "-t", "-q",
            f"host=127.0.0.1 port={port} user=crew dbname=postgres connect_timeout=20 {options}",
            *said, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PGPASSWORD": "wrong"})

    def inner(self):
        return next(one for one in self.house.edge.live.values() if one.owner.target == "orders")

    def outer(self):
        return next(one for one in self.house.edge.live.values() if one.owner.target == "bastion")

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await asyncio.sleep(0.005)

    def busy(self, begins: str) -> bool:
        return self.cluster.admin(
            f"select count(*) from pg_stat_activity where query like '{begins}%' and state = 'active'") != "0"

    def events(self, kind: int, late: bool = True) -> list[list]:
        """`late`: also what nothing waits for."""
        if late and not self.house.edge.commit.failure:
            self.house.edge.commit.write_now()
        return [event for event in self.house.journal.events() if event[0] == kind]

    async def over(self) -> None:
        """No session is left, no line, no task of the pairs'."""
        self.near.abort()
        await self.until(lambda: not self.house.edge.live and not self.house.edge.arriving)


@pytest.fixture
def stage(house, cluster, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(house, cluster, monkeypatch)


def play(stage: Stage, work: Callable[[], Awaitable[None]], **more) -> None:
    """Leaves no descriptor behind."""
    async def limited() -> None:
        before = 0
        try:
            async with asyncio.timeout(90):
                before = psutil.Process().num_fds()
                await stage.start(**more)
                await work()
                await stage.over()
                for ends in stage.far.ends:
                    ends.abort()
        finally:
            stage.near.abort()
            await stage.house.close()
        await asyncio.sleep(0.05)
        gc.collect()                  # what a thread's exception holds
        assert psutil.Process().num_fds() <= before
        assert stage.house.edge.counters.get("bugs", 0) == 0

    uvloop.run(limited())


def test_queries_of_several_sessions(stage: Stage) -> None:
    async def work() -> None:
        found = await asyncio.gather(*(stage.psql(f"select {number}", "select 'b'") for number in range(12)))
        assert found == [(0, f"{number}\nb", "") for number in range(12)]
        await stage.until(lambda: len(stage.near.closed) == 12)
        assert set(stage.near.closed.values()) == {"client closed"}
        opened = {event[3]: event for event in stage.events(events.SESSION_OPENED) if event[5] == "orders"}
        crew = [event for event in opened.values() if event[8] == "local:crew"]
        assert {event[3] for event in crew} == set(stage.near.sessions.values())
        assert {(event[4], event[10], event[17], event[18], event[19]) for event in crew} == {
            ("postgresql", "crew", 0, "db.edge.example 5432", "tunnel")}
        assert {event[21].split("@")[1] for event in crew} == {"db.edge.example:5432"}
        outer = stage.layers[0].context.session
        noted = {event[3]: event[4:] for event in stage.events(events.SESSION_NOTED)}
        assert noted == {key: ["through", outer] for key in opened}       # Weir's own reading as well

    play(stage, work)


@pytest.mark.parametrize("durable", ["writes", "all"])
def test_no_statement_reaches_the_outer_server_before_its_intent_is_in_the_journal(stage: Stage, durable: str) -> None:
    async def work() -> None:
        edge = stage.house.edge
        edge.configuration = dataclasses.replace(edge.configuration, durable=durable)
        counts: dict[str, int] = {}
        seen: list[bool] = []

        def look(number: int, data: bytes) -> None:
            if number < 0 or data[:1] != b"Q" or b"select 'own'" not in data:
                return
            session = stage.near.sessions[number]
            counts[session] = counts.get(session, 0) + 1
            recorded = [event for event in stage.events(events.INTENT, False)
                        if event[3] == session and event[6] == "query"]
            seen.append(len(recorded) >= counts[session])
            seen.append(durable == "writes" or stage.house.journal.syncs > 0)
            seen.append(any(event[6] == "dial" for event in stage.events(events.INTENT, False)))

        stage.far.seen = look
        await asyncio.gather(*(stage.psql(*["select 'own'"] * 8) for _ in range(4)))
        assert len(seen) == 96
        assert all(seen)

    play(stage, work)


def test_a_denial_is_the_databases_own_error(stage: Stage) -> None:
    async def work() -> None:
        code, out, err = await stage.psql("delete from pg_class", "select 'goes on'")
        assert (code, out) == (0, "goes on")
        assert "ERROR" in err
        assert "nothing is deleted here" in err

    play(stage, work)


def test_a_hold_waits_and_its_plan_is_asked_for_through_the_tunnel(stage: Stage) -> None:
    stage.cluster.admin("create table if not exists held (a int); grant all on held to scram; delete from held; "
                        "insert into held values (1)")

    async def work() -> None:
        process = await stage.begin("update held set a = a + 1 returning a")
        holds = stage.house.edge.holds
        await stage.until(lambda: holds.views() and holds.views()[0].plan not in ("", "being asked for"))
        assert "Update ModifyTable on held" in holds.views()[0].plan
        assert min(number for number, _ in stage.far.dialled) <= -2         # catalogue, plan
        assert holds.decide(holds.views()[0].ticket, True, "local:ann", ("dba",), "fine") == ""
        out, _ = await process.communicate()
        assert out.split() == [b"2"]

    play(stage, work)


def leaf() -> tuple[certificates.Authority, dict[str, str]]:
    authority = certificates.make_authority("Weir CA")
    certificate, key = certificates.make_leaf(authority, ("db.edge.example",), ("127.0.0.1",))
    return authority, {"leaf_certificate": certificate, "leaf_key": key}


def test_tls_inside_is_verified_by_the_targets_name(stage: Stage, tmp_path: Path) -> None:
    authority, shown = leaf()
    root = certificates.write(tmp_path / "root.pem", authority.pem)

    async def work() -> None:
        found = await asyncio.gather(*(
            stage.psql("select 42", options=f"sslmode=verify-full sslrootcert={root}") for _ in range(5)))
        assert set(found) == {(0, "42", "")}
        opened = next(event for event in stage.events(events.SESSION_OPENED) if event[8] == "local:crew")
        assert opened[20].startswith("TLSv1.3")
        assert "TLSv1.3" in opened[21]

    play(stage, work, tls="verify-full", tls_ca=stage.cluster.authority.pem, **shown)


def test_another_servers_certificate_is_not_taken(stage: Stage) -> None:
    authority, shown = leaf()

    async def work() -> None:
        code, _, err = await stage.psql("select 42", options="sslmode=require")
        assert (code, "the server closed the connection" in err) == (2, True)
        refused = [event[9] for event in stage.events(events.REFUSED)]
        assert any("certificate verification failed" in reason for reason in refused)

    play(stage, work, tls="verify-full", tls_ca=authority.pem, **shown)


@pytest.mark.parametrize("place", ["elsewhere.example 5432", "db.edge.example 5433", "localhost 5432"])
def test_what_is_not_registered_is_the_outer_layers_to_decide(stage: Stage, place: str) -> None:
    async def work() -> None:
        number, opened = await stage.near.open(place)
        assert (opened, stage.near.refused[number]) == (False, "")
        assert stage.far.dialled == []

    play(stage, work)


def test_full_draining_and_too_deep_are_refused_with_the_reason(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        edge = stage.house.edge
        edge.configuration = dataclasses.replace(edge.configuration, max_sessions=1)
        number, opened = await stage.near.open(PLACE)
        assert (opened, stage.near.refused[number]) == (False, "1 sessions are open, which is the most")
        edge.configuration = dataclasses.replace(edge.configuration, max_sessions=50)
        edge.draining = True
        number, _ = await stage.near.open(PLACE)
        assert stage.near.refused[number] == "the enforcer is stopping"
        edge.draining = False
        monkeypatch.setattr(through, "DEEPEST", 0)
        number, _ = await stage.near.open(PLACE)
        assert stage.near.refused[number] == "there are too many tunnels inside of each other"
        monkeypatch.setattr(through, "DEEPEST", 4)
        assert await stage.psql("select 1") == (0, "1", "")
        assert stage.house.edge.live.keys() == {stage.layers[0].context.session}

    play(stage, work)


def test_a_server_that_is_not_there_is_the_databases_own_error(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        stage.far.leads = {}
        code, _, err = await stage.psql("select 1")
        assert (code, "connection refused" in err) == (2, True)
        monkeypatch.setattr(upstream, "TIMEOUT", 0.2)
        stage.far.held.add(DIAL)
        code, _, err = await stage.psql("select 1")
        assert (code, "no answer within" in err) == (2, True)
        ended = [event for event in stage.layers[0].told if isinstance(event, inputs.ThroughEnded)]
        assert inputs.ThroughEnded(2, 1) in ended

    play(stage, work)


def test_a_cancel_goes_through_the_tunnel(stage: Stage) -> None:
    async def work() -> None:
        process = await stage.begin("select pg_sleep(60)")
        await stage.until(lambda: stage.busy("select pg_sleep(60)"))
        process.send_signal(2)
        _, err = await process.communicate()
        assert b"canceling statement due to user request" in err

    play(stage, work)


def test_who_is_ended_from_outside_closes_the_tunnel_and_stops_its_server(stage: Stage) -> None:
    async def work() -> None:
        process = await stage.begin("select pg_sleep(61)")
        await stage.until(lambda: stage.busy("select pg_sleep(61)"))
        stage.inner().end("killed: by a test")
        _, err = await process.communicate()
        assert b"terminating connection: killed: by a test" in err
        await stage.until(lambda: stage.near.closed == {1: "killed: by a test"})
        await stage.until(lambda: not stage.busy("select pg_sleep(61)"))
        assert await stage.psql("select 'the outer one lives'") == (0, "the outer one lives", "")

    play(stage, work)


@pytest.mark.parametrize("how", ["ended", "client", "server", "recording"])
def test_the_outer_sessions_end_is_the_inner_ones(stage: Stage, how: str) -> None:
    async def work() -> None:
        sleep = f"select pg_sleep(62), '{how}'"
        process = await stage.begin(sleep)
        await stage.until(lambda: stage.busy(sleep.replace("'", "''")))
        inner, outer = stage.inner(), stage.outer()
        if how == "ended":
            outer.end("locked out")
        elif how == "recording":
            outer.recording_failed("no disk")
        elif how == "client":
            stage.near.abort()
        else:
            stage.far.ends[0].abort()
        assert await process.wait() == 2
        await stage.until(lambda: not stage.house.edge.live)
        assert inner.finished
        closed = {event[3]: event[4] for event in stage.events(events.SESSION_CLOSED)}
        assert f"session {outer.name}, which it goes through" in closed[inner.name]
        assert {"ended": "locked out", "recording": "no disk"}.get(how, how) in closed[inner.name]

    play(stage, work)


def test_what_runs_is_cancelled_from_here_where_the_way_is_gone(stage: Stage) -> None:
    async def work() -> None:
        place = f"db.edge.example {stage.cluster.port}"
        stage.far.leads[place] = stage.cluster.port
        process = await stage.begin("select pg_sleep(64)", place=place)
        await stage.until(lambda: stage.busy("select pg_sleep(64)"))
        stage.outer().end("locked out")
        await process.communicate()
        await stage.until(lambda: not stage.busy("select pg_sleep(64)"))

    play(stage, work, port=stage.cluster.port, addresses=("127.0.0.1",))


def test_tunnels_inside_of_each_other(stage: Stage) -> None:
    """As `ssh -J`: another mux through the first one, and the database through that."""
    async def work() -> None:
        inner, port = Near(), await stage.near.listen("second.example 7")
        await inner.connect(port)
        outermost, stage.near = stage.near, inner
        assert await stage.psql("select 'deep'") == (0, "deep", "")
        inner.abort()
        stage.near = outermost
        notes = {event[3]: event[5] for event in stage.events(events.SESSION_NOTED)}
        first, second = (layer.context.session for layer in stage.layers)
        assert notes[inner.sessions[1]] == second
        assert outermost.sessions == {1: second}
        assert first not in notes

    stage.far.leads["second.example 7"] = 0
    stage.more["second"] = Target("second", "mux", ("second.example",), 7, ("192.0.2.8",))
    start = stage.far.start

    async def both(house) -> None:
        await start(house)
        stage.far.leads["second.example 7"] = stage.far.port

    stage.far.start = both        # type: ignore[method-assign]
    play(stage, work)


def test_loopback_is_the_outer_servers_own(stage: Stage) -> None:
    """`-L 5433:localhost:5432`: the database on the very host that is asked."""
    async def work() -> None:
        assert await stage.psql("select 'there'", place="localhost 5432") == (0, "there", "")
        assert await stage.psql("select 'there'", place="127.1 5432") == (0, "there", "")

    stage.far.leads["127.1 5432"] = stage.cluster.port
    stage.more["there"] = Target("there", "postgresql", ("bastion.example",), 5432, ("192.0.2.7",), tls="disable")
    play(stage, work)


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("after", range(22))
def test_either_side_may_be_lost_at_every_step(stage: Stage, side: str, after: int) -> None:
    """After so many frames of the whole conversation the mux is cut, as by kill -9; nothing of it stays."""
    async def work() -> None:
        left = after

        def count(*_: object) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                stage.near.ends.abort() if side == "client" else [ends.abort() for ends in stage.far.ends]

        stage.far.seen = count
        take = stage.near.take

        async def counted(number: int, kind: int, body: bytes) -> None:
            count()
            await take(number, kind, body)

        stage.near.take = counted          # type: ignore[method-assign]
        process = await stage.begin("select 1", "select 2", "select 3")
        async with asyncio.timeout(20):
            await process.communicate()
        stage.near.abort()
        await stage.until(lambda: not stage.house.edge.live)
        await stage.until(lambda: {event[3] for event in stage.events(events.SESSION_OPENED)} == {
            event[3] for event in stage.events(events.SESSION_CLOSED)})       # Weir's own reading as well

    play(stage, work)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_slow_reader_of_much_has_bounded_memory(stage: Stage, tls: bool) -> None:
    size = 100_000
    options = "sslmode=require" if tls else "sslmode=disable"
    more = {"tls": "verify-full", "tls_ca": stage.cluster.authority.pem, **leaf()[1]} if tls else {}

    async def work() -> None:
        assert await stage.psql("select 1", options=options) == (0, "1", "")
        process = psutil.Process()
        before, peak, total = process.memory_info().rss, 0, 0
        reading = await stage.begin(
            f"copy (select repeat('x', 1023) from generate_series(1, {size})) to stdout", options=options)
        await asyncio.sleep(1)        # it reads nothing at all: everything between stands still
        while data := await reading.stdout.read(1 << 18):
            total += len(data)
            if total % (8 << 20) < len(data):
                await asyncio.sleep(0.01)
            peak = max(peak, process.memory_info().rss)
        assert total == size * 1024
        assert peak - before < 48 << 20

    play(stage, work, **more)


def test_the_crews_process_is_killed(stage: Stage) -> None:
    """Its own stream is lost, with a reset where something was under way; the others go on."""
    async def work() -> None:
        process = await stage.begin("select repeat('x', 1000) from generate_series(1, 200000)")
        other = await stage.begin("select pg_sleep(1), 'lives'")
        await process.stdout.read(1 << 16)
        process.kill()
        await process.communicate()
        await stage.until(lambda: 1 in stage.near.closed)
        out, _ = await other.communicate()
        assert out.strip() == b"|lives"
        assert stage.outer().name == stage.layers[0].context.session

    play(stage, work)


def test_the_backend_is_killed(stage: Stage) -> None:
    async def work() -> None:
        process = await stage.begin("select pg_sleep(65)")
        await stage.until(lambda: stage.busy("select pg_sleep(65)"))
        stage.cluster.admin("select pg_terminate_backend(pid) from pg_stat_activity where query like '%sleep(65)' "
                            "and state = 'active' and pid <> pg_backend_pid()")
        _, err = await process.communicate()
        assert b"terminating connection" in err
        await stage.until(lambda: 1 in stage.near.closed)
        assert await stage.psql("select 'goes on'") == (0, "goes on", "")

    play(stage, work)


def test_whom_the_outer_side_loses_is_recorded_with_its_reason(stage: Stage) -> None:
    async def work() -> None:
        process = await stage.begin("select pg_sleep(66)")
        await stage.until(lambda: stage.busy("select pg_sleep(66)"))
        inner = stage.inner()
        stage.near.ends.writer.write(frame(1, CLOSE, b"the channel was reset"))
        await stage.until(lambda: inner.finished)
        closed = {event[3]: event[4] for event in stage.events(events.SESSION_CLOSED)}
        assert closed[inner.name] == "client lost: the channel was reset"
        await stage.until(lambda: 1 in stage.near.closed)
        stage.near.ends.close(1)
        await process.wait()

    play(stage, work)


def test_a_server_that_takes_its_word_back(stage: Stage) -> None:
    """Connected, and then not; and answers that nobody has asked for."""
    async def work() -> None:
        process = await stage.begin("select pg_sleep(68)")
        await stage.until(lambda: stage.busy("select pg_sleep(68)"))
        inner, server = stage.inner(), stage.far.ends[0].writer
        for number in (1, 7, -1, -9):
            server.write(frame(number, CONNECTED))
        server.write(frame(7, FAILED, b"never") + frame(7, DATA, b"x") + frame(-9, END) + frame(7, CLOSE))
        server.write(frame(1, FAILED, b"after all"))
        _, err = await process.communicate()
        assert b"the server closed the connection" in err
        closed = {event[3]: event[4] for event in stage.events(events.SESSION_CLOSED)}
        assert closed[inner.name] == "server lost: after all"
        stage.far.ends[0].close(1)

    play(stage, work)


def test_a_lock_on_the_inner_target_ends_it_alone(stage: Stage) -> None:
    async def work() -> None:
        process = await stage.begin("select pg_sleep(67)")
        await stage.until(lambda: stage.busy("select pg_sleep(67)"))
        locked = Lock("target", "orders", "by a test", "local:ann", 1)
        assert stage.house.edge.lock(LockSet(1, (locked,))) == 1
        _, err = await process.communicate()
        assert b"locked" in err
        code, _, err = await stage.psql("select 1")
        assert (code, "locked" in err) == (2, True)
        assert stage.outer().name == stage.layers[0].context.session

    play(stage, work)


def test_what_is_configured_otherwise_meanwhile_is_not_opened(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    attach = through.attach

    async def renewing(*words):
        edge = stage.house.edge
        targets = edge.configuration.targets
        renewed = {**targets, "orders": msgspec.structs.replace(targets["orders"], payload="rows")}
        edge.put_in_force(dataclasses.replace(edge.configuration, targets=renewed))
        return await attach(*words)

    async def work() -> None:
        monkeypatch.setattr(through, "attach", renewing)
        number, opened = await stage.near.open(PLACE)
        assert (opened, stage.near.refused.get(number)) == (False, "the configuration has changed: connect again")

    play(stage, work)


def test_a_server_that_does_not_read_stops_the_client(stage: Stage) -> None:
    """Up the tunnel, likewise: what the session does not take, its outer layer is told of."""
    async def work() -> None:
        stage.cluster.admin("create table if not exists taken (a text); grant all on taken to scram")
        assert await stage.psql("select 1") == (0, "1", "")
        process = psutil.Process()
        before = process.memory_info().rss
        go = asyncio.Event()
        blocked = stage.far.ends
        passed = blocked[0].data

        async def wait(number: int, body: bytes) -> None:
            if number > 0 and len(body) > 1000:
                await go.wait()
            await passed(number, body)

        blocked[0].data = wait        # type: ignore[method-assign]
        port = await stage.near.listen(PLACE)
        loading = await asyncio.create_subprocess_exec(
            "psql", "-X", "-q", f"host=127.0.0.1 port={port} user=crew dbname=postgres sslmode=disable",
            "-c", "copy taken from stdin", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        line = b"y" * 1023 + b"\n"

        async def feed() -> None:
            for _ in range(64):
                loading.stdin.write(line * 1024)
                await loading.stdin.drain()
            loading.stdin.close()

        feeding = asyncio.ensure_future(feed())
        await stage.until(lambda: any(
            isinstance(event, inputs.ThroughFull) and event.on for event in stage.layers[0].told))
        await asyncio.sleep(0.5)
        assert not feeding.done()
        assert process.memory_info().rss - before < 48 << 20
        go.set()
        await feeding
        _, err = await loading.communicate()
        assert (loading.returncode, err) == (0, b"")
        assert stage.cluster.admin("select count(*) from taken") == str(64 * 1024)

    play(stage, work)


def test_a_layer_that_does_not_stop_is_ended(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(through, "MOST", 1 << 20)

    async def work() -> None:
        number, opened = await stage.near.open(PLACE)
        assert opened
        stage.layers[0].deaf = True
        inner = stage.inner()
        inner.peers[0].stop_reading(1)
        for _ in range(64):
            stage.near.ends.writer.write(frame(number, DATA, bytes(1 << 16)))
        await stage.until(lambda: inner.finished)
        assert stage.house.edge.counters.pop("bugs") == 1

    play(stage, work)


def test_half_closed_streams_say_so(stage: Stage) -> None:
    """The client's end reaches the session, whose answer still comes back: here its own error's."""
    async def work() -> None:
        number, opened = await stage.near.open(PLACE)
        assert opened
        stage.near.ends.writer.write(frame(number, DATA, b"\0\0\0\x08\x04\xd2\x16") + frame(number, END))
        await stage.until(lambda: number in stage.near.closed)
        again, opened = await stage.near.open(PLACE)
        said: list[bytes] = []

        async def data(number: int, body: bytes) -> None:
            said.append(body)

        stage.near.ends.data = data        # type: ignore[method-assign]
        stage.near.ends.writer.write(frame(again, DATA, b"\0\0\0\x09GET / HTTP") + frame(again, END))
        await stage.until(lambda: again in stage.near.closed)
        assert b"".join(said)[:1] == b"E"

    play(stage, work)


def test_a_number_that_is_taken_is_the_layers_fault(stage: Stage) -> None:
    async def work() -> None:
        await stage.near.open(PLACE)
        stage.near.last = 0
        stage.near.ends.writer.write(frame(1, 0, PLACE.encode()))
        await stage.until(lambda: not stage.house.edge.live)
        assert stage.house.edge.counters.pop("bugs") == 1

    play(stage, work)


def test_a_catalogue_without_tls_is_no_other_sessions(stage: Stage) -> None:
    """Who is at a tunnel's end is not known without TLS: what it says of columns must not count elsewhere."""
    async def work() -> None:
        assert await stage.psql("select 1") == (0, "1", "")
        assert {key[2] for key in stage.house.edge.catalogues._kept} == {stage.layers[0].context.session}

    play(stage, work)


def test_the_reason_of_an_error_of_the_outer_layer(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        process = await stage.begin("select pg_sleep(63)")
        await stage.until(lambda: stage.busy("select pg_sleep(63)"))
        inner = stage.inner()

        def broken(*_: object) -> list:
            raise RemoteProtocolError("a frame that is none")

        monkeypatch.setattr(stage.layers[0], "frame", broken)
        stage.near.ends.writer.write(frame(9, DATA, b"x"))
        assert await process.wait() == 2
        await stage.until(lambda: not stage.house.edge.live)
        closed = {event[3]: event[4] for event in stage.events(events.SESSION_CLOSED)}
        assert "a frame that is none" in closed[inner.name]

    play(stage, work)


def test_a_session_through_another_outlives_connections_to_its_server(
    stage: Stage, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the outer server says late of a connection that was left is not said of the one in its place."""
    layers: list[Leaving] = []
    before = protocols.find

    class Leaving(stage.house.relay):  # type: ignore[name-defined]
        """LEAVE: to another connection; a server that closes is left, too."""

        lost = 0

        def receive(self, peer: int, data: bytes) -> list:
            if peer == CLIENT and data.startswith(b"leave"):
                self.connected, self.early = False, []
                return [LeaveServer(), OpenConnection()]
            return super().receive(peer, data)  # type: ignore[no-any-return]

        def handle(self, event: inputs.Input) -> list:
            if isinstance(event, inputs.ConnectionLost) and event.peer == SERVER:
                self.lost, self.connected = self.lost + 1, False
                return [LeaveServer(), OpenConnection()]
            return super().handle(event)  # type: ignore[no-any-return]

    def make(context) -> Leaving:
        layers.append(Leaving(context))
        return layers[-1]

    found = before("postgresql")
    entry = protocols.Protocol("postgresql", make, found.speaks, found.tls_request, found.render_cancel)
    monkeypatch.setattr(protocols, "find", lambda name: entry if name == "postgresql" else before(name))

    async def work() -> None:
        ends: list[bytes] = []

        async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while (line := await reader.readline()) and line != b"close\n":
                writer.write(line)
            ends.append(line)
            writer.close()

        stage.far.leads[PLACE] = await stage.house.serve(server)
        reader, writer = await asyncio.open_connection("127.0.0.1", await stage.near.listen(PLACE))
        for number, how in enumerate((b"leave\n", b"close\n", b"leave\n", b"close\n")):
            writer.write(b"%d\n" % number)
            assert await reader.readline() == b"%d\n" % number
            writer.write(how)
            await stage.until(lambda: len(ends) > number and layers[0].connected)      # noqa: B023
            stage.far.ends[-1].writer.write(frame(stage.far.dialled[number][0], CLOSE))      # late
        writer.write(b"last\n")
        assert await reader.readline() == b"last\n"
        assert layers[0].lost == 2
        assert len(stage.far.dialled) == 5
        writer.close()

    play(stage, work)
