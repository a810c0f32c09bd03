"""What an sshd executed is what the recording says: also where the enforcer is killed at any moment."""
from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress

import asyncssh
import pytest
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
        async with asyncssh.connect("127.0.0.1", stage.port, username=ACCOUNT, known_hosts=None, config=None,
                                    client_keys=None, agent_path=None) as connection:
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
        on.start_enforcer()
        before, working = len(on.executed()), asyncio.ensure_future(load(on, f"k{number}"))
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
    written = {one.name for one in on.files.iterdir() if "-" in one.name}
    opened = "\n".join(text for text, in recorded(on, "SELECT text FROM operations WHERE verb = 'open'"))
    assert not {one for one in written if one not in opened}
    assert not unanswered(on)


def unanswered(stage: Stage) -> list[tuple]:
    """Permitted operations that have not exactly one result or gap."""
    told = Counter(recorded(stage, "SELECT session, operation FROM result"))
    for session, operations in recorded(stage, "SELECT session, value FROM gap, json_each(operations)"):
        told[session, operations] += 1
    return [(pair, told[pair]) for pair in recorded(
        stage, "SELECT session, operation FROM intent") if told[pair] != 1]
