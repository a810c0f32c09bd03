"""SSH through the Edge: tunnels of OpenSSH's clients, and what is behind them."""
from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from pathlib import Path

import psutil
import pytest
from pump import TableGate
from sshhouse import ACCOUNT, Done, Server, Stage, ended, forwarding, free_port, page, play, reached, runs

from agent.contract.credential import Credential
from agent.contract.target import ColumnLabel, Target
from enforcer.edge.through import WAY
from enforcer.words import events
from enforcer.words.commands import CLIENT

PASSWORD = "correct horse battery staple"
TOKEN = "ghp_" + "Ab3d" * 9
MIB = 1 << 20


@pytest.fixture
def stage(house, sshd: Server) -> Stage:
    return Stage(house, sshd)


@pytest.fixture
def people(stage: Stage, cluster) -> Stage:
    """A registered database on the server's loopback."""
    cluster.admin("create table if not exists ssh_people (name text, email text); truncate ssh_people; "
                  "insert into ssh_people values ('ada', 'ada@example.org'); grant all on ssh_people to scram")
    stage.logins["orders"] = Credential("scram", PASSWORD)
    stage.more["orders"] = Target(
        "orders", "postgresql", ("127.0.0.1",), cluster.port, ("127.0.0.1",), tls="disable",
        labels=(ColumnLabel("pii.email", "public", "ssh_people", "email"),))
    stage.database = cluster.port     # type: ignore[attr-defined]
    return stage


def busy(cluster, begins: str) -> bool:
    return cluster.admin(
        f"select count(*) from pg_stat_activity where query like '{begins}%' and state = 'active'") != "0"


async def psql(port: int, sql: str) -> Done:
    process = await asyncio.create_subprocess_exec(
        "psql", "-X", "-A", "-t", "-q", f"host=127.0.0.1 port={port} user=crew dbname=postgres sslmode=disable", "-c",
        sql, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PGPASSWORD": "wrong"})
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    return Done(process.returncode or 0, out, err.decode())


def without_session(server: Server) -> psutil.Process:
    """The server's process for the one connection that has only tunnels."""
    (listening,) = [one for one in psutil.process_iter(["cmdline"])
                    if f"{server.directory}/config" in " ".join(one.info["cmdline"] or ()) and one.name() == "sshd"]
    (found,) = [one for one in listening.children(recursive=True)
                if "".join(one.cmdline()).strip() == f"sshd: {ACCOUNT}"]
    return found


# Tunnels

def test_a_raw_server_behind_it(stage: Stage) -> None:
    async def work() -> None:
        port = await stage.house.serve(page)
        done = await stage.run("-W", f"localhost:{port}", "127.0.0.1", stdin=b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert done.out.endswith(b"hello from http\n")
        assert stage.intents() == ["forward-local"]
        assert stage.results() == [("ok", "")]

    play(stage, work)


def test_what_has_no_business_in_a_tunnel_ends_it(stage: Stage) -> None:
    async def work() -> None:
        heard = []

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.read())
            writer.close()

        port = await stage.house.serve(listen)
        done = await stage.run("-W", f"127.0.0.1:{port}", "127.0.0.1", stdin=b"\x05\x01\x00")
        assert done.out == b""
        await stage.until(lambda: heard == [b""])
        assert stage.results() == [("denied", "")]

    play(stage, work)


def test_a_denied_tunnel(stage: Stage) -> None:
    stage.gate, stage.level = TableGate(deny={("ssh:forward-local", "*")}), "INFO"

    async def work() -> None:
        done = await stage.run("-W", "localhost:1", "127.0.0.1")
        assert done.code == 255
        assert "forbids ssh:forward-local" in done.err

    play(stage, work)


def test_nobody_listens_there(stage: Stage) -> None:
    stage.level = "INFO"

    async def work() -> None:
        done = await stage.run("-W", "127.0.0.1:1", "127.0.0.1")
        assert (done.code, "Connection refused" in done.err) == (255, True)
        assert stage.results() == [("error", "")]

    play(stage, work)


def test_a_local_forward_to_http(stage: Stage) -> None:
    async def work() -> None:
        port, near = await stage.house.serve(page), free_port()
        process = await forwarding(stage, "-L", f"{near}:localhost:{port}")
        for _ in range(3):
            reader, writer = await reached(near)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            assert (await reader.read()).endswith(b"hello from http\n")
            writer.close()
        await stage.until(lambda: stage.results() == [("ok", "")] * 3)
        await ended(process)

    play(stage, work)


def test_the_server_itself_through_itself(stage: Stage) -> None:
    """`ssh -J`: the inner session is a target's like any."""
    stage.gate = TableGate(deny={("ssh:exec", "reboot now")})

    async def work() -> None:
        done = await stage.run("-J", f"127.0.0.1:{stage.port}", "127.0.0.1", "echo deep", to=stage.server.port)
        assert (done.code, done.out) == (0, b"deep\n"), done.err
        done = await stage.run("-J", f"127.0.0.1:{stage.port}", "127.0.0.1", "reboot now", to=stage.server.port)
        assert "forbids ssh:exec" in done.err
        await stage.until(lambda: len(stage.reasons()) == 4)
        through = {one["session"]: one["value"] for one in stage.events(events.SessionNoted)
                   if one["name"] == "through"}
        assert len(through) == 2
        assert set(through.values()).isdisjoint(through)
        told = [one["value"] for one in stage.events(events.SessionNoted) if one["name"] == "tunnel"]
        assert [one.split(", session ")[1] for one in map(str, told)] == list(through)
        assert stage.intents().count("forward-local") == 2

    play(stage, work)


def test_a_registered_database_through_it(people: Stage) -> None:
    stage = people
    stage.gate.deny = {("sql:delete", "*")}

    async def work() -> None:
        near = free_port()
        process = await forwarding(stage, "-L", f"{near}:localhost:{stage.database}")  # type: ignore[attr-defined]
        (await reached(near))[1].close()
        done = await psql(near, "select name, email from ssh_people")
        assert done.code == 0, done.err
        assert done.out.startswith(b"ada|")
        assert b"ada@example.org" not in done.out
        done = await psql(near, "delete from ssh_people")
        assert "forbids sql:delete" in done.err
        assert (await psql(near, "select count(*) from ssh_people")).out == b"1\n"
        opened = {one["session"]: one for one in stage.events(events.SessionOpened) if one["target"] == "orders"}
        through = {one["value"] for one in stage.events(events.SessionNoted) if one["name"] == "through"}
        (outer,) = (one["session"] for one in stage.events(events.SessionOpened) if one["target"] == "ssh")
        assert len([one for one in opened.values() if one["subject"] == "local:crew"]) >= 3
        assert through == {outer}
        await ended(process)

    play(stage, work)


@pytest.mark.parametrize("which", ["inner", "outer"])
def test_a_kill_ends_what_runs_behind_a_jump(stage: Stage, which: str) -> None:
    seconds = {"inner": "4714.25", "outer": "4714.5"}[which]

    async def work() -> None:
        process = await stage.begin("-J", f"127.0.0.1:{stage.port}", "127.0.0.1", f"exec sleep {seconds}",
                                    to=stage.server.port)
        await stage.until(lambda: runs("sleep", seconds))
        sessions = list(stage.house.edge.live.values())
        assert len(sessions) == 2
        sessions[which == "inner"].end("killed: by ann")
        _, err = await process.communicate()
        assert process.returncode == 255
        assert b"killed: by ann" in err
        await stage.until(lambda: not runs("sleep", seconds), 3)

    play(stage, work)


def test_a_kill_has_its_way_through_a_server_that_is_slow(stage: Stage) -> None:
    """Its client has said goodbye long before."""
    async def work() -> None:
        process = await stage.begin("-J", f"127.0.0.1:{stage.port}", "127.0.0.1", "exec sleep 4714.75",
                                    to=stage.server.port)
        await stage.until(lambda: runs("sleep", "4714.75"))
        outer, inner = stage.house.edge.live.values()
        slow = without_session(stage.server)
        slow.suspend()
        try:
            inner.end("killed: by ann")
            await process.communicate()
            await stage.until(lambda: outer.peers[CLIENT].told)       # it said goodbye, or has just gone
            await asyncio.sleep(2 * WAY)          # for longer than words need that nobody confirms
            assert list(stage.house.edge.live.values()) == [outer]
        finally:
            slow.resume()
        await stage.until(lambda: not runs("sleep", "4714.75"))
        await stage.until(lambda: not stage.house.edge.live)
        # The client of the outer one is ended by its own, with what it has not read: that may reset its connection.
        assert stage.reasons()[0] == "killed: by ann"
        assert stage.reasons()[1:] in (["client closed"], ["client lost: connection reset"])

    play(stage, work)


def test_files_behind_a_jump(stage: Stage, tmp_path: Path) -> None:
    content = os.urandom(3 * MIB)
    (tmp_path / "up").write_bytes(content)

    async def work() -> None:
        there = f"127.0.0.1:{stage.server.home}/jumped"
        for argv in ((str(tmp_path / "up"), there), (there, str(tmp_path / "down"))):
            done = await stage.run("-J", f"127.0.0.1:{stage.port}", *argv, program="scp", to=stage.server.port)
            assert done.code == 0, done.err
        assert (tmp_path / "down").read_bytes() == content

    play(stage, work)


def test_a_registered_protocol_in_a_tunnel_to_nobody(stage: Stage, cluster) -> None:
    """A database that is not registered, in plaintext: what it is asked would be on no record."""
    async def work() -> None:
        near = free_port()
        process = await forwarding(stage, "-L", f"{near}:localhost:{cluster.port}")
        assert (await psql(near, "select 1")).code == 2
        await stage.until(lambda: ("denied", "") in stage.results())
        await ended(process)

    play(stage, work)


def test_the_end_of_the_way_is_the_databases_sessions_end(people: Stage, cluster) -> None:
    stage = people

    async def work() -> None:
        near = free_port()
        process = await forwarding(stage, "-L", f"{near}:localhost:{stage.database}")  # type: ignore[attr-defined]
        (await reached(near))[1].close()
        running = asyncio.ensure_future(psql(near, "select pg_sleep(71)"))
        await stage.until(lambda: busy(cluster, "select pg_sleep(71)"))
        stage.outer().end("killed: by a test")
        done = await running
        assert done.code == 2
        _, err = await process.communicate()
        assert b"killed: by a test" in err
        await stage.until(lambda: not busy(cluster, "select pg_sleep(71)"))
        reasons = [str(one) for one in stage.reasons()]
        assert any("which it goes through, ends: killed" in one for one in reasons), reasons

    play(stage, work)


def test_a_drain_waits_for_what_is_in_a_tunnel(people: Stage, cluster) -> None:
    stage = people

    async def work() -> None:
        near = free_port()
        process = await forwarding(stage, "-L", f"{near}:localhost:{stage.database}")  # type: ignore[attr-defined]
        (await reached(near))[1].close()
        running = asyncio.ensure_future(psql(near, "select pg_sleep(1), 'done'"))
        await stage.until(lambda: busy(cluster, "select pg_sleep(1), ''done''"))
        stage.outer().end("upgrading", True)
        assert (await running).out == b"|done\n"
        _, err = await process.communicate()
        assert b"upgrading" in err

    play(stage, work)


def test_a_remote_forward(stage: Stage) -> None:
    stage.gate = TableGate(deny={("ssh:forward-remote", "localhost 1")})

    async def work() -> None:
        here, there = await stage.house.serve(page), free_port()
        process = await forwarding(stage, "-R", f"{there}:127.0.0.1:{here}")
        reader, writer = await reached(there)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert (await reader.read()).endswith(b"hello from http\n")
        writer.close()
        await stage.until(lambda: stage.intents() == ["forward-remote", "forwarded"])
        await ended(process)
        done = await stage.run("-N", "-R", "1:127.0.0.1:1", "127.0.0.1")
        assert (done.code, "remote port forwarding failed" in done.err) == (255, True)

    play(stage, work)


# More tunnels

async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads to the end, then answers."""
    writer.write((await reader.read()).upper())
    writer.close()


def test_half_closed_goes_on(stage: Stage) -> None:
    async def work() -> None:
        near, port = free_port(), await stage.house.serve(upper)
        process = await forwarding(stage, "-L", f"{near}:localhost:{port}")
        reader, writer = await reached(near)
        writer.write(b"some words")
        writer.write_eof()
        assert await reader.read() == b"SOME WORDS"
        writer.close()
        await ended(process)

    play(stage, work)


def test_one_that_is_half_closed_before_it_is_told_what_it_is(stage: Stage) -> None:
    """Its few bytes may begin anything; there will be no more."""
    async def work() -> None:
        near, port = free_port(), await stage.house.serve(upper)
        process = await forwarding(stage, "-L", f"{near}:localhost:{port}")
        for said in (b"S", b"", b"\x00", b"GE"):
            reader, writer = await reached(near)
            if said:
                writer.write(said)
            writer.write_eof()
            async with asyncio.timeout(10):
                assert await reader.read() in (said.upper(), b"")
            writer.close()
        await ended(process)

    play(stage, work)


def test_sockets_by_name_and_by_socks(stage: Stage) -> None:
    async def work() -> None:
        path = stage.server.home / "listening"
        server = await asyncio.start_unix_server(page, path)
        path.chmod(0o777)
        port = await stage.house.serve(page)
        near, socks = free_port(), free_port()
        process = await forwarding(stage, "-L", f"{near}:{path}", "-D", str(socks))
        reader, writer = await reached(near)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert (await reader.read()).endswith(b"hello from http\n")
        writer.close()
        reader, writer = await reached(socks)
        writer.write(b"\x05\x01\x00")
        assert await reader.readexactly(2) == b"\x05\x00"
        writer.write(b"\x05\x01\x00\x01" + socket.inet_aton("127.0.0.1") + port.to_bytes(2, "big"))
        assert (await reader.readexactly(10))[:2] == b"\x05\x00"
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert (await reader.read()).endswith(b"hello from http\n")
        writer.close()
        assert stage.intents() == ["forward-stream", "forward-local"]
        await ended(process)
        server.close()

    play(stage, work)


def test_much_of_a_database_to_a_slow_reader(people: Stage) -> None:
    """Between it and the database stand two sessions, and neither keeps much."""
    stage = people

    async def work() -> None:
        near = free_port()
        process = await forwarding(stage, "-L", f"{near}:localhost:{stage.database}")  # type: ignore[attr-defined]
        (await reached(near))[1].close()
        assert (await psql(near, "select 1")).out == b"1\n"
        here = psutil.Process()
        before, peak, found = here.memory_info().rss, 0, 0
        reading = await asyncio.create_subprocess_exec(
            "psql", "-X", "-q", f"host=127.0.0.1 port={near} user=crew dbname=postgres sslmode=disable", "-c",
            "copy (select repeat('x', 1023) from generate_series(1, 50000)) to stdout", stdout=subprocess.PIPE)
        assert reading.stdout is not None
        await asyncio.sleep(1)
        peak = here.memory_info().rss
        while data := await reading.stdout.read(1 << 18):
            found += len(data)
            peak = max(peak, here.memory_info().rss)
        assert found == 50_000 << 10
        assert await reading.wait() == 0
        assert peak - before < 48 * MIB
        await ended(process)

    play(stage, work)


def test_much_into_a_database(people: Stage, cluster) -> None:
    stage = people
    cluster.admin("create table if not exists ssh_taken (a text); truncate ssh_taken; grant all on ssh_taken to scram")

    async def work() -> None:
        near = free_port()
        process = await forwarding(stage, "-L", f"{near}:localhost:{stage.database}")  # type: ignore[attr-defined]
        (await reached(near))[1].close()
        loading = await asyncio.create_subprocess_exec(
            "psql", "-X", "-q", f"host=127.0.0.1 port={near} user=crew dbname=postgres sslmode=disable", "-c",
            "copy ssh_taken from stdin", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        _, err = await loading.communicate((b"y" * 1023 + b"\n") * 20_000)
        assert (loading.returncode, err) == (0, b"")
        assert cluster.admin("select count(*), max(length(a)) from ssh_taken") == "20000|1023"
        await ended(process)

    play(stage, work)


def test_a_database_that_is_not_there(stage: Stage) -> None:
    nowhere = free_port()
    stage.logins["orders"] = Credential("scram", PASSWORD)
    stage.more["orders"] = Target("orders", "postgresql", ("127.0.0.1",), nowhere, ("127.0.0.1",), tls="disable")

    async def work() -> None:
        near = free_port()
        process = await forwarding(stage, "-L", f"{near}:localhost:{nowhere}")
        done = await psql(near, "select 1")
        assert (done.code, "refused" in done.err) == (2, True), done.err
        await ended(process)

    play(stage, work)


def test_a_client_that_is_killed_with_tunnels(people: Stage, cluster) -> None:
    stage = people

    async def work() -> None:
        near = free_port()
        process = await forwarding(stage, "-L", f"{near}:localhost:{stage.database}")  # type: ignore[attr-defined]
        (await reached(near))[1].close()
        running = asyncio.ensure_future(psql(near, "select pg_sleep(72)"))
        await stage.until(lambda: busy(cluster, "select pg_sleep(72)"))
        process.kill()
        await process.wait()
        assert (await running).code == 2
        cluster.admin("select pg_terminate_backend(pid) from pg_stat_activity where query = 'select pg_sleep(72)'")

    play(stage, work)
