"""SSH through the Edge: OpenSSH's clients, a real sshd, and what is behind its tunnels."""
from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import shlex
import subprocess
from pathlib import Path

import psutil
import pytest
from pump import TableGate
from sshhouse import ACCOUNT, Done, Server, Stage, ended, forwarding, free_port, make_key, play, runs

from agent.contract.credential import Credential
from agent.contract.target import ContentLabel, Target
from enforcer.words import events

PASSWORD = "correct horse battery staple"
TOKEN = "ghp_" + "Ab3d" * 9
MIB = 1 << 20


@pytest.fixture
def stage(house, sshd: Server) -> Stage:
    return Stage(house, sshd)


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
        await ended(master)

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
        await ended(master)

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
        master.kill()                 # a SIGTERM just before it waits goes unnoticed: it has nothing more to hear
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
        assert b"KILL" in stage.blobs()
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


def test_a_kill_ends_all_that_runs(stage: Stage) -> None:
    async def work() -> None:
        master = await forwarding(stage, "-M")
        await stage.until(lambda: (stage.directory / "control").exists())
        running = [await stage.begin("127.0.0.1", f"exec sleep 4713.{number}") for number in range(1, 9)]
        await stage.until(lambda: all(runs("sleep", f"4713.{number}") for number in range(1, 9)))
        stage.outer().end("killed: by ann")
        for one in running:
            await one.communicate()
            assert one.returncode == 255
        _, err = await master.communicate()
        assert b"weir: killed: by ann" in err
        await stage.until(lambda: not any(runs("sleep", f"4713.{number}") for number in range(1, 9)))

    play(stage, work)


def test_a_server_that_is_cut_off_in_the_middle_of_files(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(bytes(64 * MIB))

    async def work() -> None:
        process = await stage.begin(str(tmp_path / "up"), f"127.0.0.1:{stage.server.home}/cut", program="scp")
        await stage.until(lambda: (stage.server.home / "cut").exists())
        stage.outer().end("killed: by ann")
        await process.communicate()        # scp may end its ssh before that says why
        assert process.returncode != 0
        told = [(one["status"], one["tag"]) for one in stage.events(events.Result)]
        assert len(told) >= 1
        opened = {one["operation"] for one in stage.events(events.Intent)}
        over = {one["operation"] for one in stage.events(events.Result)}
        gaps = {number for one in stage.events(events.Gap) for number in one["operations"]}  # type: ignore[attr-defined]
        assert opened == over | gaps

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

@pytest.mark.parametrize(("count", "options"), [(64, ()), (8, ("-C", "-o", "RekeyLimit=1M"))], ids=["plain", "keys"])
def test_much_both_ways(stage: Stage, count: int, options: tuple[str, ...]) -> None:
    """Also where it is compressed, and the keys are new all the time."""
    size = count * MIB
    block = os.urandom(MIB)
    digest = hashlib.sha256(block * count).hexdigest()

    async def work() -> None:
        process = await stage.begin(*options, "127.0.0.1", "cat")
        assert process.stdin is not None
        assert process.stdout is not None

        async def feed() -> None:
            for _ in range(count):
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
        assert "git:fetch" in str(stage.events(events.Intent)[-1]["requests"])
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
