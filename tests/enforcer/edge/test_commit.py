"""Group commit: durable waits, the rest does not, and a disk that fails fdatasync stops what waits for it."""
from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import uvloop

from enforcer.edge import commit
from enforcer.words import commands as words


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


async def mixed(house, got: list[bytes]) -> tuple:
    """A relay whose lines that begin with "w" are durable."""
    async def server(reader, writer) -> None:
        while line := await reader.readline():
            got.append(line)
            writer.write(line)
        writer.close()

    class Mixed(house.relay):
        def forward(self, data: bytes) -> list:
            self.durable = data.startswith(b"w")
            return super().forward(data)

    upstream = await house.serve(server)
    port = await house.open(house.target(upstream, tls="disable"))
    house.layer(Mixed)
    house.asked.owner = house.owner(upstream, "orders")
    return await asyncio.open_connection("127.0.0.1", port), await asyncio.open_connection("127.0.0.1", port)


def test_a_read_does_not_wait_for_the_disk_that_a_write_of_another_session_waits_for(house) -> None:
    async def work() -> None:
        got: list[bytes] = []
        (one, writing), (two, reading) = await mixed(house, got)
        house.journal.slow = threading.Event()
        writing.write(b"write\n")
        await asyncio.sleep(0.1)
        for _ in range(3):
            reading.write(b"read\n")
            assert await two.readline() == b"read\n"
        assert got == [b"read\n"] * 3
        writing.write(b"after the write\n")       # not durable, but nothing overtakes in one session
        await asyncio.sleep(0.1)
        assert got == [b"read\n"] * 3
        house.journal.slow.set()
        assert await one.readline() == b"write\n"
        assert await one.readline() == b"after the write\n"
        writing.close()
        reading.close()

    run(house, work)


def test_what_came_while_a_sync_ran_waits_for_the_next(house) -> None:
    async def work() -> None:
        got: list[bytes] = []
        (one, first), (two, second) = await mixed(house, got)
        house.journal.slow = threading.Event()
        first.write(b"w1\n")
        await asyncio.sleep(0.1)
        second.write(b"w2\n")
        await asyncio.sleep(0.1)
        assert got == []
        house.journal.slow.set()
        assert (await one.readline(), await two.readline()) == (b"w1\n", b"w2\n")
        assert house.journal.syncs == 2
        first.close()
        second.close()

    run(house, work)


def test_a_sync_that_fails_lets_nothing_go(house) -> None:
    async def work() -> None:
        got: list[bytes] = []
        (one, writing), (_, other) = await mixed(house, got)
        house.journal.broken = True
        writing.write(b"write\n")
        assert b"cannot be recorded" in await one.read()
        assert got == []
        house.journal.broken = False
        writing.close()
        other.close()

    run(house, work)


def test_a_recorder_that_never_catches_up_ends_the_sessions(house, monkeypatch) -> None:
    monkeypatch.setattr(commit, "PATIENCE", 0.3)

    async def work() -> None:
        got: list[bytes] = []
        (one, writing), (_, other) = await mixed(house, got)
        house.journal.behind = 900
        assert b"does not keep up" in await one.read()
        house.journal.behind = 0
        writing.close()
        other.close()

    run(house, work)


def test_a_result_is_written_without_a_barrier_soon(house) -> None:
    async def work() -> None:
        class Telling(house.relay):
            def start(self) -> list:
                from enforcer.words import events

                closed = events.SessionClosed(events.SESSION_CLOSED, 1, 1, self.context.session, "r", 0, 0, 0)
                return [words.Record(closed)]

        port = await house.open(house.target(1, tls="disable"))
        house.layer(Telling)
        house.asked.owner = house.owner(1, "orders")
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        while not house.journal.events():
            await asyncio.sleep(0.01)
        writer.close()

    run(house, work)
