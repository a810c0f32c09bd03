"""Unix sockets: of targets, where crews connect; and of databases, where Weir does."""
from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable

import msgspec
import pytest
import uvloop

from enforcer.edge import caller as callers
from enforcer.words import events

CONNECT = """
import os, socket, sys, time
one = socket.socket(socket.AF_UNIX)
one.connect(sys.argv[1])
print("connected", flush=True)
sys.stdin.read()
"""


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


def owner(house):
    return msgspec.structs.replace(
        house.owner(5432, "orders"), local=True, destination="/run/p/a", cookie=0)


async def echo(reader, writer) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


async def at_a_socket(house, answer) -> str:
    path = str(house.directory / "real")
    house.servers.append(await asyncio.start_unix_server(answer, path))
    return path


async def said(path, data: bytes, size: int = 1 << 20) -> bytes:
    """So many bytes of the answer, or up to its end."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(data)
        return await reader.readexactly(size)
    except asyncio.IncompleteReadError as end:
        return end.partial
    except ConnectionResetError:
        return b"reset"
    finally:
        writer.close()


def test_both_sides_are_unix_sockets(house) -> None:
    async def work() -> None:
        real = await at_a_socket(house, echo)
        house.layer(house.relay)
        path = await house.open_local(house.target(1, tls="disable", socket=real))
        house.asked.owner = owner(house)
        assert await said(path, b"hello" * 50000, 250000) == b"hello" * 50000
        assert house.asked.local_calls == [("orders", os.getpid(), os.getuid())]
        assert house.asked.whois_calls == []

    run(house, work)


def test_the_database_is_not_there(house) -> None:
    async def work() -> None:
        house.layer(house.relay)
        path = await house.open_local(house.target(1, tls="disable", socket=str(house.directory / "none")))
        house.asked.owner = owner(house)
        assert b"No such file" in await said(path, b"hello")

    run(house, work)


def test_who_is_nobody_is_reset(house) -> None:
    async def work() -> None:
        path = await house.open_local(house.target(1, tls="disable"))
        assert await said(path, b"hello") in (b"reset", b"")

    run(house, work)
    [refused] = refusals(house)
    assert (refused[7], refused[9]) == ("the socket of target orders", "not attributed: nobody knows it")


@pytest.mark.parametrize("before", [True, False], ids=["before it is asked", "while the agent looks"])
def test_a_process_that_has_ended_is_nobody(house, monkeypatch, before: bool) -> None:
    """Its number may be another's by now."""
    async def work() -> None:
        house.asked.owner = owner(house)
        house.asked.gate = asyncio.Event()
        path = await house.open_local(house.target(1, tls="disable"))
        with subprocess.Popen([sys.executable, "-c", CONNECT, str(path)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            if before:                # the listener is not served meanwhile: this thread waits
                process.stdout.readline()
                process.send_signal(signal.SIGKILL)
                process.wait()
            while not before and not house.asked.local_calls:
                await asyncio.sleep(0.01)
            process.kill()
            process.wait()
        house.asked.gate.set()
        while not house.journal.path.stat().st_size:
            await asyncio.sleep(0.01)

    run(house, work)
    assert "has ended" in refusals(house)[0][9]


def test_a_kernel_without_pidfds_of_peers(house, monkeypatch) -> None:
    """Linux before 6.5: by the number, opened as soon as it is accepted."""
    monkeypatch.setattr(callers, "_PEERPIDFD", 9999)       # ENOPROTOOPT

    async def work() -> None:
        real = await at_a_socket(house, echo)
        house.layer(house.relay)
        path = await house.open_local(house.target(1, tls="disable", socket=real))
        house.asked.owner = owner(house)
        assert await said(path, b"hello", 5) == b"hello"

    run(house, work)
