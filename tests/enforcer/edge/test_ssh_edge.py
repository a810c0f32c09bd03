"""SSH through the Edge: OpenSSH's clients, a real sshd, and what is behind its tunnels."""
from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pump import TableGate
from sshhouse import ACCOUNT, Done, Server, Stage, make_key, play, run_server, runs

from agent.contract.credential import Credential
from agent.contract.target import ColumnLabel, ContentLabel, Target
from enforcer.words import events

PASSWORD = "correct horse battery staple"
TOKEN = "ghp_" + "Ab3d" * 9
MIB = 1 << 20


@pytest.fixture(scope="session")
def sshd() -> Iterator[Server]:
    with run_server() as server:
        yield server


@pytest.fixture
def stage(house, sshd: Server) -> Stage:
    return Stage(house, sshd)


async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.0 200 OK\r\n\r\nhello from http\n")
    writer.close()


# Commands

def test_a_command(stage: Stage) -> None:
    async def work() -> None:
        done = await stage.exec("id -un; cat; echo oops >&2; exit 7", stdin=b"hello\n")
        assert done == Done(7, b"deploy\nhello\n", "oops\n")
        await stage.until(stage.reasons)
        assert stage.results() == [("ok", "exit 7")]
        assert stage.reasons() == ["client closed"]
        (opened,) = stage.events(events.SessionOpened)
        assert opened["target"] == "ssh"

    play(stage, work)


def test_a_command_that_is_denied_says_why(stage: Stage) -> None:
    stage.gate = TableGate(deny={("ssh:exec", "reboot now")})

    async def work() -> None:
        done = await stage.exec("reboot now")
        assert done.code != 0
        assert "weir: permission denied: policy no forbids ssh:exec" in done.err
        assert (await stage.exec("echo goes on")).out == b"goes on\n"
        assert stage.results()[0] == ("denied", "")

    play(stage, work)


def test_secrets_of_a_command_are_stars(stage: Stage) -> None:
    stage.options = {"detectors": ("github-token",), "content_labels": (ContentLabel("secret.x", command="cat *x"),)}
    (stage.server.home / "x").write_text("s3cret 42\n")

    async def work() -> None:
        half = len(TOKEN) // 2
        done = await stage.exec(f"printf {TOKEN[:half]}; sleep 0.02; echo {TOKEN[half:]} >&1; echo {TOKEN} >&2")
        assert done.out.decode() + done.err == ("ghp_" + "*" * 36 + "\n") * 2
        assert (await stage.exec("cat ~/x")).out == b"****** **\n"
        assert b"s3cret" not in stage.blobs()
        noted = [one["value"] for one in stage.events(events.SessionNoted) if one["name"] == "masked"]
        assert noted == ["operation 2: secret.token.github", "operation 2: secret.x"]

    play(stage, work)


def test_a_password_at_a_terminal_is_nowhere(stage: Stage) -> None:
    """Weir's own terminal is asyncio's pipe, the server's is a real one."""
    async def work() -> None:
        process = await stage.begin("-tt", "127.0.0.1", "stty -echo; printf 'Password: '; read x; stty echo; "
                                    "echo; echo ${#x}; read y; echo got $y")
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdout.readuntil(b"Password: ")
        for one in "hunter2-s3cret":
            process.stdin.write(one.encode())
            await asyncio.sleep(0.005)
        process.stdin.write(b"\n")
        await process.stdout.readuntil(b"14\r\n")
        process.stdin.write(b"visible\n")
        out, _ = await process.communicate()
        assert b"got visible" in out
        assert process.returncode == 0
        await stage.until(stage.reasons)
        blobs = stage.blobs()
        assert b"hunter" not in blobs
        assert b"visible" in blobs
        assert b"**************" in blobs.replace(b"\n", b"")

    play(stage, work)


def test_variables(stage: Stage) -> None:
    stage.gate = TableGate(deny={("ssh:env", "WEIR_B")})

    async def work() -> None:
        done = await stage.exec("echo $WEIR_A:$WEIR_B", "-o", "SetEnv=WEIR_A=a WEIR_B=b")
        assert done.out == b"a:\n"

    play(stage, work)


# Files

def test_sftp_both_ways(stage: Stage, tmp_path: Path) -> None:
    stage.options = {"content_labels": (ContentLabel("secret.key", path="*/a.key"),)}
    stage.gate = TableGate(deny={("sftp:remove", "*")})
    content = os.urandom(300_000)
    (tmp_path / "up").write_bytes(content)
    (stage.server.home / "a.key").write_text("s3cret")

    async def work() -> None:
        commands = f"put {tmp_path}/up sent\nget sent {tmp_path}/down\nget a.key {tmp_path}/key\n-rm sent\nls\n"
        done = await stage.run("-b", "-", "127.0.0.1", program="sftp", stdin=commands.encode())
        assert done.code == 0, done.err
        assert (tmp_path / "down").read_bytes() == content
        assert (stage.server.home / "sent").read_bytes() == content
        assert (tmp_path / "key").read_bytes() == b"******"
        assert b"sent" in done.out
        assert "permission denied" in (done.err + done.out.decode()).lower()

    play(stage, work)


@pytest.mark.parametrize("legacy", [True, False], ids=["scp -O", "scp"])
def test_scp_both_ways(stage: Stage, tmp_path: Path, legacy: bool) -> None:
    stage.gate = TableGate(deny={("scp:write", str(stage.server.home / "forbidden")),
                                 ("sftp:write", str(stage.server.home / "forbidden"))})
    content, how = os.urandom(300_000), ["-O"] if legacy else []
    (tmp_path / "up").write_bytes(content)

    async def work() -> None:
        there = f"127.0.0.1:{stage.server.home}"
        assert await stage.run(*how, str(tmp_path / "up"), f"{there}/sent", program="scp") == Done(0, b"", "")
        done = await stage.run(*how, f"{there}/sent", str(tmp_path / "down"), program="scp")
        assert (done.code, (tmp_path / "down").read_bytes() == content) == (0, True)
        done = await stage.run(*how, str(tmp_path / "up"), f"{there}/forbidden", program="scp")
        assert done.code != 0
        assert not (stage.server.home / "forbidden").exists()
        assert "denied" in done.err.lower()
        wanted = "ssh:subsystem" if not legacy else "scp:write"
        assert any(wanted in str(one["requests"]) for one in stage.events(events.Intent))

    play(stage, work)


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def forwarding(stage: Stage, *options: str) -> asyncio.subprocess.Process:
    """A client without a command that is logged in."""
    process = await stage.begin("-N", *options, "127.0.0.1", stdin=subprocess.DEVNULL)
    await stage.until(lambda: stage.events(events.SessionOpened))
    return process


async def reached(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(10):
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)


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
        process.terminate()
        await process.wait()

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


@pytest.fixture
def people(stage: Stage, cluster) -> Stage:
    """A registered database on the server's loopback."""
    cluster.admin("create table if not exists people (name text, email text); truncate people; "
                  "insert into people values ('ada', 'ada@example.org'); grant all on people to scram")
    stage.logins["orders"] = Credential("scram", PASSWORD)
    stage.more["orders"] = Target(
        "orders", "postgresql", ("127.0.0.1",), cluster.port, ("127.0.0.1",), tls="disable",
        labels=(ColumnLabel("pii.email", "public", "people", "email"),))
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


def test_a_registered_database_through_it(people: Stage) -> None:
    stage = people
    stage.gate.deny = {("sql:delete", "*")}

    async def work() -> None:
        near = free_port()
        process = await forwarding(stage, "-L", f"{near}:localhost:{stage.database}")  # type: ignore[attr-defined]
        (await reached(near))[1].close()
        done = await psql(near, "select name, email from people")
        assert done.code == 0, done.err
        assert done.out.startswith(b"ada|")
        assert b"ada@example.org" not in done.out
        done = await psql(near, "delete from people")
        assert "forbids sql:delete" in done.err
        assert (await psql(near, "select count(*) from people")).out == b"1\n"
        opened = {one["session"]: one for one in stage.events(events.SessionOpened) if one["target"] == "orders"}
        through = {one["value"] for one in stage.events(events.SessionNoted) if one["name"] == "through"}
        (outer,) = (one["session"] for one in stage.events(events.SessionOpened) if one["target"] == "ssh")
        assert len([one for one in opened.values() if one["subject"] == "local:crew"]) >= 3
        assert through == {outer}
        process.terminate()
        await process.wait()

    play(stage, work)


def test_the_end_of_the_way_is_the_databases_sessions_end(people: Stage, cluster) -> None:
    stage = people

    async def work() -> None:
        near = free_port()
        process = await forwarding(stage, "-L", f"{near}:localhost:{stage.database}")  # type: ignore[attr-defined]
        (await reached(near))[1].close()
        running = asyncio.ensure_future(psql(near, "select pg_sleep(60)"))
        await stage.until(lambda: busy(cluster, "select pg_sleep(60)"))
        stage.outer().end("killed: by a test")
        done = await running
        assert done.code == 2
        _, err = await process.communicate()
        assert b"killed: by a test" in err
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
        process.terminate()
        await process.wait()
        done = await stage.run("-N", "-R", "1:127.0.0.1:1", "127.0.0.1")
        assert (done.code, "remote port forwarding failed" in done.err) == (255, True)

    play(stage, work)


# Several in one connection

def test_a_master_and_those_behind_it(stage: Stage) -> None:
    async def work() -> None:
        master = await forwarding(stage, "-M")
        await stage.until(lambda: (stage.directory / "control").exists())
        found = await asyncio.gather(*(stage.exec(f"echo {number}") for number in range(5)))
        assert [one.out for one in found] == [b"%d\n" % number for number in range(5)]
        assert len(stage.events(events.SessionOpened)) == 1
        noted = [(one["name"], one["value"]) for one in stage.events(events.SessionNoted)]
        assert noted == [("shared", "several sessions in one connection")]
        master.terminate()
        await master.wait()

    play(stage, work)


def test_one_waits_for_people_and_the_others_go_on(stage: Stage) -> None:
    stage.gate = TableGate(hold={("ssh:exec", "echo held")})

    async def work() -> None:
        master = await forwarding(stage, "-M")
        await stage.until(lambda: (stage.directory / "control").exists())
        held = await stage.begin("127.0.0.1", "echo held")
        holds = stage.house.edge.holds
        await stage.until(lambda: holds.views())
        assert (await stage.exec("echo free")).out == b"free\n"
        assert holds.decide(holds.views()[0].ticket, True, "local:ann", ("dba",), "fine") == ""
        out, err = await held.communicate()
        assert (held.returncode, out) == (0, b"held\n")
        assert b"held for approval: ticket" in err
        again = await stage.begin("127.0.0.1", "echo held")
        await stage.until(lambda: holds.views())
        assert holds.decide(holds.views()[0].ticket, False, "local:ann", ("dba",), "not today") == ""
        out, err = await again.communicate()
        assert (again.returncode != 0, out, b"not today" in err) == (True, b"", True)
        master.terminate()
        await master.wait()

    play(stage, work)


def test_who_gives_up_while_it_is_held(stage: Stage) -> None:
    stage.gate = TableGate(hold={("ssh:exec", "echo held")})

    async def work() -> None:
        held = await stage.begin("127.0.0.1", "echo held")
        holds = stage.house.edge.holds
        await stage.until(lambda: holds.views())
        held.kill()
        await held.communicate()
        await stage.until(lambda: not holds.views() and not stage.house.edge.live)
        assert stage.intents() == ["exec"]

    play(stage, work)


def test_a_hundred_channels(stage: Stage) -> None:
    async def work() -> None:
        master = await forwarding(stage, "-M")
        await stage.until(lambda: (stage.directory / "control").exists())
        for _ in range(4):
            found = await asyncio.gather(*(stage.exec(f"echo {number}; sleep 0.2") for number in range(25)))
            assert [(one.code, one.out) for one in found] == [(0, b"%d\n" % number) for number in range(25)]
        assert stage.results() == [("ok", "exit 0")] * 100
        master.terminate()
        await master.wait()

    play(stage, work)


# The end

def test_a_kill_ends_what_runs_and_says_so(stage: Stage) -> None:
    async def work() -> None:
        process = await stage.begin("127.0.0.1", "exec sleep 4711.25")
        await stage.until(lambda: runs("sleep", "4711.25"))
        stage.outer().end("killed: by ann")
        _, err = await process.communicate()
        assert process.returncode == 255
        assert b"weir: killed: by ann" in err
        await stage.until(lambda: not runs("sleep", "4711.25"))
        assert stage.reasons() == ["killed: by ann"]

    play(stage, work)


def test_a_kill_reaches_what_runs_at_a_terminal(stage: Stage) -> None:
    async def work() -> None:
        process = await stage.begin("-tt", "127.0.0.1", "exec sleep 4712.25")
        await stage.until(lambda: runs("sleep", "4712.25"))
        stage.outer().end("killed: by ann")
        _, err = await process.communicate()
        assert b"weir: killed: by ann" in err
        await stage.until(lambda: not runs("sleep", "4712.25"))

    play(stage, work)


def test_ctrl_c_at_a_terminal(stage: Stage) -> None:
    async def work() -> None:
        process = await stage.begin("-tt", "127.0.0.1", "exec sleep 4712.5")
        assert process.stdin is not None
        await stage.until(lambda: runs("sleep", "4712.5"))
        process.stdin.write(b"\x03")
        await process.communicate()
        assert process.returncode == 255
        await stage.until(lambda: not runs("sleep", "4712.5"))
        assert stage.results() == [("ok", "signal INT")]

    play(stage, work)


def test_a_drain_where_nothing_runs(stage: Stage) -> None:
    async def work() -> None:
        process = await forwarding(stage, "-M")
        stage.outer().end("upgrading", True)
        _, err = await process.communicate()
        assert b"weir: upgrading" in err

    play(stage, work)


def test_a_kill_while_nothing_runs(stage: Stage) -> None:
    async def work() -> None:
        process = await forwarding(stage)
        stage.outer().end("killed: by ann")
        _, err = await process.communicate()
        assert b"weir: killed: by ann" in err

    play(stage, work)


def test_a_drain_lets_a_command_finish(stage: Stage) -> None:
    async def work() -> None:
        process = await stage.begin("127.0.0.1", "echo begun; sleep 1; echo done; exit 3")
        assert process.stdout is not None
        assert await process.stdout.readline() == b"begun\n"
        stage.outer().end("upgrading", True)
        out, err = await process.communicate()
        assert (process.returncode, out) == (3, b"done\n"), err
        await stage.until(stage.reasons)
        assert stage.results() == [("ok", "exit 3")]

    play(stage, work)


def test_nothing_is_recorded_and_nothing_goes_on(stage: Stage) -> None:
    async def work() -> None:
        process = await stage.begin("127.0.0.1", "cat; sleep 4711.5")
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"recorded\n")
        assert await process.stdout.readline() == b"recorded\n"
        stage.house.journal.full = True
        process.stdin.write(b"lost\n")
        out, err = await process.communicate()
        assert (process.returncode, out) == (255, b"")
        assert b"weir: nothing can be recorded, so nothing is forwarded" in err
        await stage.until(lambda: not stage.house.edge.live)
        stage.house.journal.full = False

    play(stage, work)


@pytest.mark.parametrize("side", ["client", "server"])
def test_either_side_is_killed(stage: Stage, side: str) -> None:
    async def work() -> None:
        process = await stage.begin("127.0.0.1", "echo $PPID; exec sleep 4711.75")
        assert process.stdout is not None
        await process.stdout.readline()
        await stage.until(lambda: runs("sleep", "4711.75"))
        if side == "client":
            process.kill()
        else:
            for one in psutil.process_iter(["cmdline"]):
                if (one.info["cmdline"] or [""])[0].startswith(f"sshd: {ACCOUNT}"):
                    one.kill()
        _, err = await process.communicate()
        await stage.until(stage.reasons)
        if side == "server":
            assert b"weir: target ssh: " in err
        assert stage.results() == [] or stage.results()[0][0] in ("cancelled", "error")
        for one in psutil.process_iter(["cmdline"]):
            if one.info["cmdline"] == ["sleep", "4711.75"]:
                one.kill()

    play(stage, work)


# Much

def test_much_both_ways(stage: Stage) -> None:
    size = 64 * MIB
    block = os.urandom(MIB)
    digest = hashlib.sha256(block * 64).hexdigest()

    async def work() -> None:
        process = await stage.begin("127.0.0.1", "cat")
        assert process.stdin is not None
        assert process.stdout is not None

        async def feed() -> None:
            for _ in range(64):
                process.stdin.write(block)
                await process.stdin.drain()
            process.stdin.close()

        feeding = asyncio.ensure_future(feed())
        found, total = hashlib.sha256(), 0
        while data := await process.stdout.read(MIB):
            found.update(data)
            total += len(data)
        await feeding
        assert await process.wait() == 0
        assert (total, found.hexdigest()) == (size, digest)
        await stage.until(lambda: stage.results() == [("ok", "exit 0")])
        ended = {one["stream"]: one["bytes"] for one in stage.events(events.StreamEnded)}
        assert ended == {"in": size, "out": size}
        assert stage.blobs().count(digest.encode()) == 2

    play(stage, work)


def test_a_slow_reader_of_much_has_bounded_memory(stage: Stage) -> None:
    stage.options = {"detectors": ("github-token",), "payload_limit": 1 << 16}

    async def work() -> None:
        assert (await stage.exec("true")).code == 0
        process = psutil.Process()
        before, peak = process.memory_info().rss, 0
        reading = await stage.begin("127.0.0.1", "head -c 100000000 /dev/zero | tr '\\0' x")
        assert reading.stdout is not None
        await asyncio.sleep(1)
        peak, total = process.memory_info().rss, 0
        while data := await reading.stdout.read(1 << 18):
            total += len(data)
            peak = max(peak, process.memory_info().rss)
        assert total == 100_000_000
        assert peak - before < 48 * MIB

    play(stage, work)


def test_a_server_that_does_not_read_stops_the_client(stage: Stage) -> None:
    async def work() -> None:
        process = psutil.Process()
        before = process.memory_info().rss
        sending = await stage.begin("127.0.0.1", "sleep 1; wc -c")
        assert sending.stdin is not None

        async def feed() -> None:
            for _ in range(64):
                sending.stdin.write(bytes(MIB))
                await sending.stdin.drain()
            sending.stdin.close()

        feeding = asyncio.ensure_future(feed())
        await asyncio.sleep(0.7)
        assert not feeding.done()
        assert process.memory_info().rss - before < 48 * MIB
        await feeding
        out, _ = await sending.communicate()
        assert out.strip() == str(64 * MIB).encode()

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
        process.terminate()
        await process.wait()

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
        process.terminate()
        await process.wait()

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
        process.terminate()
        await process.wait()
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
        process.terminate()
        await process.wait()

    play(stage, work)


def test_much_into_a_database(people: Stage, cluster) -> None:
    stage = people
    cluster.admin("create table if not exists taken (a text); truncate taken; grant all on taken to scram")

    async def work() -> None:
        near = free_port()
        process = await forwarding(stage, "-L", f"{near}:localhost:{stage.database}")  # type: ignore[attr-defined]
        (await reached(near))[1].close()
        loading = await asyncio.create_subprocess_exec(
            "psql", "-X", "-q", f"host=127.0.0.1 port={near} user=crew dbname=postgres sslmode=disable", "-c",
            "copy taken from stdin", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        _, err = await loading.communicate((b"y" * 1023 + b"\n") * 20_000)
        assert (loading.returncode, err) == (0, b"")
        assert cluster.admin("select count(*), max(length(a)) from taken") == "20000|1023"
        process.terminate()
        await process.wait()

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
        process.terminate()
        await process.wait()

    play(stage, work)


def test_a_client_that_is_killed_with_tunnels(people: Stage) -> None:
    stage = people

    async def work() -> None:
        near = free_port()
        process = await forwarding(stage, "-L", f"{near}:localhost:{stage.database}")  # type: ignore[attr-defined]
        (await reached(near))[1].close()
        running = asyncio.ensure_future(psql(near, "select pg_sleep(60)"))
        await asyncio.sleep(0.3)
        process.kill()
        await process.wait()
        assert (await running).code == 2

    play(stage, work)


# What policies say of transfers

def test_rsync_and_git(stage: Stage, tmp_path: Path) -> None:
    """Through as they are; denied where a label is on what they may hold."""
    content = TOKEN.encode() + os.urandom(100_000)
    (tmp_path / "up").write_bytes(content)
    subprocess.run(["git", "init", "-q", "--bare", str(stage.server.home / "a.git")], check=True)
    subprocess.run(["chown", "-R", "61099:61099", str(stage.server.home / "a.git")], check=True)
    shell = f"ssh -F {tmp_path}/ssh_config -p"

    async def work() -> None:
        env = {**os.environ, "GIT_SSH_COMMAND": f"{shell} {stage.port}"}

        async def call(*argv: str) -> int:
            done = await asyncio.create_subprocess_exec(*argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            await done.communicate()
            return done.returncode or 0

        there = f"127.0.0.1:{stage.server.home}"
        assert await call("git", "clone", "-q", f"{there}/a.git", str(tmp_path / "a")) == 0
        assert stage.intents() == ["exec"]
        assert [one["requests"] for one in stage.events(events.Intent) if one["actor"] == "crew"][0][0][0] == "git:fetch"
        assert await call("rsync", "-e", f"{shell} {stage.port}", str(tmp_path / "up"), f"{there}/sent") == 0
        assert (stage.server.home / "sent").read_bytes() == content
        assert await call("rsync", "-e", f"{shell} {stage.port}", f"{there}/sent", str(tmp_path / "down")) == 0
        assert (tmp_path / "down").read_bytes() == content
        edge = stage.house.edge
        labelled = dataclasses.replace(edge.configuration, targets={"ssh": Target(
            "ssh", "ssh", ("127.0.0.1",), stage.server.port, ("127.0.0.1",), host_keys=stage.target().host_keys,
            known_hosts=stage.server.known,
            content_labels=(ContentLabel("secret.key", path=f"{stage.server.home}/*"),))})
        edge.put_in_force(labelled)
        assert await call("git", "clone", "-q", f"{there}/a.git", str(tmp_path / "b")) != 0
        assert await call("rsync", "-e", f"{shell} {stage.port}", f"{there}/sent", str(tmp_path / "again")) != 0
        assert not (tmp_path / "again").exists()
        assert stage.intents() == ["exec"] * 5
        assert stage.results()[-2:] == [("denied", "")] * 2

    play(stage, work)


# Logins that fail

def other_key(directory: Path) -> str:
    return make_key(directory / "other").read_text()


@pytest.mark.parametrize("why", ["host key", "no credential", "credential", "unreachable", "known hosts", "connect"])
def test_logins_that_fail(stage: Stage, tmp_path: Path, why: str) -> None:
    said = {"host key": "weir: login at target ssh: its host key is not the one that is known",
            "no credential": "weir: no credential for deploy: the vault is sealed",
            "credential": "weir: login at target ssh: it refuses the credential",
            "unreachable": "weir: target ssh: ",
            "known hosts": "weir: target ssh has no known host keys",
            "connect": "weir: permission denied: policy no forbids connect"}[why]
    if why == "host key":
        other = make_key(tmp_path / "stranger").with_suffix(".pub").read_text().split()
        stage.options = {"known_hosts": f"[127.0.0.1]:{stage.server.port} {other[0]} {other[1]}"}
    elif why == "no credential":
        stage.logins["ssh"] = "the vault is sealed"
    elif why == "credential":
        stage.logins["ssh"] = Credential(ACCOUNT, key=other_key(tmp_path))
    elif why == "known hosts":
        stage.options = {"known_hosts": ""}
    elif why == "connect":
        stage.gate = TableGate(deny={("connect", ACCOUNT)})
    else:
        stage.server = dataclasses.replace(stage.server, port=free_port())

    async def work() -> None:
        done = await stage.exec("echo never")
        assert (done.code, done.out) == (255, b"")
        assert said in done.err, done.err
        await stage.until(lambda: not stage.house.edge.live)
        (refused,) = stage.events(events.Refused)
        assert refused["reason"]
        assert not stage.events(events.SessionOpened)
        assert not stage.events(events.SessionClosed)

    play(stage, work)


def test_a_client_that_does_not_know_weirs_key(stage: Stage) -> None:
    async def work() -> None:
        (stage.directory / "known").write_text("")
        done = await stage.exec("echo never")
        assert (done.code, "Host key verification failed" in done.err) == (255, True)
        await stage.until(lambda: not stage.house.edge.live)
        (refused,) = stage.events(events.Refused)
        assert refused["reason"] == "the client does not trust Weir's host key"
        assert stage.house.edge.counters["unknown_host_key"] == 1

    play(stage, work)


def test_a_client_that_only_looks_at_the_key(stage: Stage) -> None:
    """ssh-keyscan and scanners."""
    async def work() -> None:
        done = await asyncio.create_subprocess_exec(
            *shlex.split(f"ssh-keyscan -t ed25519 -p {stage.port} 127.0.0.1"), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)
        out, _ = await done.communicate()
        assert b"ssh-ed25519" in out
        await stage.until(lambda: not stage.house.edge.live)
        assert len(stage.events(events.Refused)) <= 1

    play(stage, work)
