"""What an sshd executed is what the recording says: also where the enforcer is killed at any moment."""
from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from hashlib import sha256
from typing import Any

import asyncssh
import pytest
from cookbook import answers
from sshstage import ACCOUNT, Stage, stage

KILLS = int(os.environ.get("WEIR_SSH_KILLS", "3"))


@pytest.fixture
def on() -> Iterator[Stage]:
    with stage() as made:
        made.start_recorder()
        yield made


def recorded(stage: Stage, statement: str) -> list[tuple]:
    found = []
    for file in sorted(stage.recording.glob("*.sqlite")):
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
            found += db.execute(statement).fetchall()
    return found


async def work(stage: Stage, name: str, channels: int) -> None:
    """Commands and files in many channels of one connection, until it is cut off."""
    with suppress(OSError, asyncssh.Error, ExceptionGroup):
        async with connect(stage) as connection:
            async def commands(channel: int) -> None:
                for number in range(1000):
                    await connection.run(f": {name} {channel} {number}")

            async def files() -> None:
                async with connection.start_sftp_client() as sftp:
                    for number in range(1000):
                        async with sftp.open(f"{name}-{number}", "wb") as file:
                            await file.write(b"x" * 10)

            async with asyncio.TaskGroup() as group:
                for channel in range(channels):
                    group.create_task(commands(channel))
                group.create_task(files())


async def load(stage: Stage, name: str, connections: int = 3, channels: int = 6) -> None:
    await asyncio.gather(*(work(stage, f"{name}c{one}", channels) for one in range(connections)))


async def test_killed_at_any_moment(on: Stage) -> None:
    chance = random.Random(7)
    for number in range(KILLS):
        on.start_enforcer(approve=1, sync=chance.choice((0, 0.1)))
        before, working = len(on.executed()), asyncio.gather(load(on, f"k{number}"), load(on, f"held{number}", 1))
        async with asyncio.timeout(30):
            while len(on.executed()) == before:
                await asyncio.sleep(0.01)
        await asyncio.sleep(chance.uniform(0, 0.8))
        on.kill_enforcer()
        await working
    time.sleep(1)
    on.settle()
    executed, done = Counter(on.executed()), Counter(text for text, in recorded(
        on, "SELECT text FROM operations WHERE verb = 'exec' AND decision = 'permit'"))
    assert sum(executed.values()) > KILLS * 5
    assert not executed - done
    used = Counter(recorded(
        on, "SELECT o.text FROM operations o WHERE o.verb = 'exec' AND o.decision = 'permit' AND EXISTS "
        "(SELECT 1 FROM holds h WHERE h.ticket = o.ticket AND h.state = 'used' AND h.seq < o.seq)"))
    held = Counter((one,) for one in executed.elements() if "held" in one)
    assert held
    assert not held - used
    written = {one.name for one in on.files.iterdir() if "-" in one.name}
    opened = "\n".join(text for text, in recorded(on, "SELECT text FROM operations WHERE verb = 'open'"))
    assert not {one for one in written if one not in opened}
    assert not unanswered(on)


def unanswered(stage: Stage) -> list[tuple]:
    """Operations that have not exactly one result or gap; what was held may have none, its hold has an end."""
    told = Counter(recorded(stage, "SELECT session, operation FROM result"))
    for session, operations in recorded(stage, "SELECT session, value FROM gap, json_each(operations)"):
        told[session, operations] += 1
    return [(pair, told[pair]) for pair in recorded(
        stage, "SELECT session, operation FROM intent WHERE decision <> 3") if told[pair] != 1]


def streams(stage: Stage) -> dict[str, dict[str, tuple[int, int, str]]]:
    """Of each command: stream -> bytes, how many are kept, SHA-256."""
    found: dict[str, dict[str, tuple[int, int, str]]] = {}
    for text, stream, size, kept, digest in recorded(
            stage, "SELECT o.text, s.stream, s.bytes, s.kept, s.sha256 FROM streams s JOIN operations o "
            "ON o.session = s.session AND o.operation = s.operation"):
        found.setdefault(text, {})[stream] = size, kept, digest
    return found


async def test_sizes_and_hashes_are_those_of_what_passed(on: Stage) -> None:
    """In many channels at once, beyond the limit, and of a client that goes in the middle."""
    chance = random.Random(3)
    on.start_enforcer(limit=10_000)
    sent = {f"cat > in{n}; cat in{n}; cat in{n} in{n} >&2": chance.randbytes(chance.choice((1, 9_999, 10_001, 300_000)))
            for n in range(24)}
    heard: dict[str, tuple[bytes, bytes]] = {}

    async def run(connection: asyncssh.SSHClientConnection, line: str) -> None:
        done = await connection.run(line, input=sent[line], encoding=None)
        heard[line] = done.stdout, done.stderr

    async with connect(on) as connection:
        await asyncio.gather(*(run(connection, line) for line in sent))
    async with connect(on) as connection:
        process = await connection.create_process("cat > gone; sleep 60", encoding=None)
        process.stdin.write(b"g" * 50_000)
        async with asyncio.timeout(20):
            while (on.files / "gone").stat().st_size < 50_000 if (on.files / "gone").exists() else True:
                await asyncio.sleep(0.02)
        connection.abort()
    await asyncio.sleep(1)
    on.stop_enforcer()
    on.settle()
    found = streams(on)
    for line, data in sent.items():
        for stream, content in zip(("in", "out", "err"), (data, *heard[line]), strict=True):
            assert len(content) == len(data) * (2 if stream == "err" else 1)
            if content:
                assert found[line][stream] == (len(content), min(len(content), 10_000), sha256(content).hexdigest())
    assert found["cat > gone; sleep 60"]["in"] == (50_000, 10_000, sha256(b"g" * 50_000).hexdigest())
    pieces = recorded(on, "SELECT session, operation, stream, sum(bytes) FROM streamed WHERE content IS NOT NULL AND "
                      "stream IN ('in', 'out', 'err') GROUP BY 1, 2, 3")
    kept = recorded(on, "SELECT session, operation, stream, kept FROM stream_ended WHERE kept > 0")
    assert sorted(pieces) == sorted(kept)
    assert not unanswered(on)


def told(stage: Stage, question: str) -> list[tuple]:
    """What docs/auditor.md answers."""
    return answers(stage.recording.glob("*.sqlite"), question, "Questions about SSH")


async def test_an_auditors_questions_are_answered(on: Stage) -> None:
    on.start_enforcer(limit=1000)
    async with connect(on) as connection:
        await connection.run("sudo -n /bin/echo one | tr o 0 > out.txt")
        await connection.run("mysql -pS3CRET")
        with suppress(asyncssh.ChannelOpenError):
            await connection.run("cat denied.txt")
        await connection.run("head -c 5000 /dev/zero")
        async with connection.start_sftp_client() as sftp:
            async with sftp.open("put", "wb") as file:
                await file.write(b"content")
            await sftp.rename("put", "put2")
        with suppress(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", 1)
        terminal = await connection.create_process("sh", term_type="xterm")
        terminal.stdin.write("stty -echo\n")
        await asyncio.sleep(2.5)
        terminal.stdin.write("touch unseen\n")
        await asyncio.sleep(2.5)
        terminal.stdin.write("exit\n")
        await terminal.wait()
        await connection.create_process("sleep 60")
        await asyncio.sleep(0.5)
        connection.abort()
    await asyncio.sleep(1)
    on.stop_enforcer()
    on.settle()
    ran = told(on, "Who ran")
    assert ("local:crew", "crew", "truth@box", "exec", "mysql -p***") in [row[1:6] for row in ran]
    commands = [row[4] for row in told(on, "Which programs")]
    assert {"/bin/echo one", "tr o 0", "mysql -p***", "sleep 60"} <= set(commands)
    files = {(row[3], row[4].rpartition("/")[2]) for row in told(on, "Which files")}
    assert {("ssh:exec-write", "out.txt"), ("sftp:write", "put"), ("sftp:rename", "put2")} <= files
    assert sha256(b"content").hexdigest() in str(told(on, "Which files"))
    [denied] = [row for row in told(on, "What was denied") if row[4] == "cat denied.txt"]
    assert denied[5] == "it says denied"
    assert [row[1] for row in told(on, "Which connections had")] == ["local:crew"]
    assert ("forward-local", "127.0.0.1 1", "error") in [row[2:] for row in told(on, "Where did tunnels")]
    unseen = told(on, "What does the recording not show")
    assert [row[3:] for row in unseen if row[2] == "out" and len(row) == 5] == [(5000, 1000)]
    [note] = [row[2] for row in unseen if len(row) == 3]
    assert f"{len('touch unseen') + len('exit')} bytes were not shown" in note
    assert any("client" in str(row[3]) for row in unseen if len(row) == 4)
    recording = [one.read_bytes() for one in on.recording.glob("*.sqlite")]
    assert not any(b"S3CRET" in one for one in recording)
    assert (on.files / "unseen").exists()


def connect(stage: Stage) -> Any:
    return asyncssh.connect("127.0.0.1", stage.port, username=ACCOUNT, known_hosts=None, config=None, client_keys=None,
                            agent_path=None)


async def test_files_that_a_client_left_open(on: Stage) -> None:
    on.start_enforcer()
    async with connect(on) as connection:
        sftp = await connection.start_sftp_client()
        file = await sftp.open("left", "wb")
        await file.write(b"half of it")
        connection.abort()
    await asyncio.sleep(1)
    on.stop_enforcer()
    on.settle()
    [(status, tag)] = recorded(on, "SELECT status, tag FROM operations WHERE verb = 'open'")
    assert (status, tag) == ("ok", f"wrote 10 bytes sha256={sha256(b'half of it').hexdigest()}; left open")
    assert not unanswered(on)


async def test_nothing_is_executed_before_the_disk_has_it(on: Stage) -> None:
    """Commands and what changes files are durable; also behind requests that went ahead in other channels."""
    on.start_enforcer(sync=1.5)
    async with connect(on) as connection:
        sftp = await asyncio.wait_for(connection.start_sftp_client(), 20)
        began = time.monotonic()
        running = [asyncio.ensure_future(connection.run(f": {n}")) for n in range(5)]
        making = asyncio.ensure_future(sftp.mkdir("made"))
        await asyncio.sleep(0.8)
        early = [one for one in on.executed() if one.startswith(":")], (on.files / "made").exists()
        await asyncio.wait_for(asyncio.gather(*running, making), 30)
        assert early == ([], False)
        assert time.monotonic() - began > 1.4
    assert (on.files / "made").exists()


async def test_a_full_disk_at_any_moment(on: Stage) -> None:
    """Nothing more is executed than is recorded, and work goes on once there is room."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(on.journal)], check=True)
    try:
        chance = random.Random(11)
        on.start_enforcer()
        for number in range(4):
            before, working = len(on.executed()), asyncio.ensure_future(load(on, f"f{number}", connections=2))
            async with asyncio.timeout(30):
                while len(on.executed()) == before:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(chance.uniform(0, 0.5))
            full = on.journal / "ballast"
            with suppress(OSError), full.open("wb") as file:
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            await asyncio.wait_for(working, 60)
            executed = len(on.executed())
            with suppress(asyncssh.Error, OSError):
                async with asyncio.timeout(5), connect(on) as connection:
                    await connection.run(": too late")
            assert ": too late" not in on.executed()[executed:]
            full.unlink()
            await asyncio.sleep(1)
        async with connect(on) as connection:
            await asyncio.wait_for(connection.run(": at last"), 20)
        on.stop_enforcer()
        on.settle()
    finally:
        subprocess.run(["umount", "-l", str(on.journal)], check=True)
    executed, done = Counter(on.executed()), Counter(text for text, in recorded(
        on, "SELECT text FROM operations WHERE verb = 'exec' AND decision = 'permit'"))
    assert executed[": at last"] == 1
    assert not executed - done
    assert not unanswered(on)
