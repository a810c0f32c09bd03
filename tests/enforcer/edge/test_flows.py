"""Egress: opaque streams, both ways, recorded."""
from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from agent.contract.target import Egress
from enforcer.protocols.postgresql import SSL_REQUEST
from enforcer.words import events


def run(house, work: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        try:
            async with asyncio.timeout(60):
                await work()
                while house.edge.live or house.edge.arriving:
                    await asyncio.sleep(0.01)
        finally:
            await house.close()

    uvloop.run(limited())


async def start(house, upstream: int, **egress) -> int:
    wanted = {"addresses": ("127.0.0.1",), "ports": (upstream,), **egress}
    port = await house.open(egress=Egress("model", **wanted))
    house.asked.owner = house.owner(upstream, egress="model")
    return port


def of_kind(house, kind: int) -> list[list]:
    return [event for event in house.journal.events() if event[0] == kind]


async def echo(reader, writer) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b"end")
    writer.close()


def test_bytes_half_close_and_events(house) -> None:
    async def work() -> None:
        seen: list[int] = []

        async def server(reader, writer) -> None:
            seen.append(len(of_kind(house, events.FLOW_OPENED)))
            await echo(reader, writer)

        port = await start(house, await house.serve(server))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        data = os.urandom(8 << 20)

        async def send() -> None:
            writer.write(data)
            writer.write_eof()
            await writer.drain()

        _, got = await asyncio.gather(send(), reader.read())
        assert hashlib.sha256(got).digest() == hashlib.sha256(data + b"end").digest()
        assert seen == [1]                # recorded before it was dialled
        writer.close()

    run(house, work)
    [opened], [closed] = of_kind(house, events.FLOW_OPENED), of_kind(house, events.FLOW_CLOSED)
    assert opened[3] == closed[3]
    assert (opened[4], opened[6], opened[7]) == ("model", "crew", 4711)
    assert closed[4:6] == [8 << 20, (8 << 20) + 3]


def test_the_server_speaks_first_and_closes_first(house) -> None:
    async def work() -> None:
        async def server(reader, writer) -> None:
            writer.write(b"220 hello")
            writer.write_eof()
            assert await reader.read() == b"QUIT"
            writer.close()

        port = await start(house, await house.serve(server))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b"220 hello"
        writer.write(b"QUIT")
        writer.close()

    run(house, work)


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_registered_protocol_in_plaintext_ends_the_flow(house, cut: int) -> None:
    async def work() -> None:
        got: list[bytes] = []

        async def server(reader, writer) -> None:
            try:
                while data := await reader.read(100):
                    got.append(data)
            except ConnectionResetError:
                pass
            writer.close()

        port = await start(house, await house.serve(server))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(SSL_REQUEST[:cut])
        if cut < 8:
            while b"".join(got) != SSL_REQUEST[:cut]:
                await asyncio.sleep(0.01)
            writer.write(SSL_REQUEST[cut:] + b"more")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        assert b"".join(got) == SSL_REQUEST[:cut % 8]

    run(house, work)
    assert "postgresql in plaintext" in of_kind(house, events.FLOW_CLOSED)[0][6]


@pytest.mark.parametrize("egress", [{"addresses": ("10.0.0.1",)}, {"ports": (1,)}])
def test_what_the_entry_does_not_permit(house, egress: dict[str, object]) -> None:
    async def work() -> None:
        port = await start(house, await house.serve(echo), **egress)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()

    run(house, work)
    assert "does not permit" in of_kind(house, events.REFUSED)[0][9]
    assert not of_kind(house, events.FLOW_OPENED)


def test_nothing_is_dialled_where_it_cannot_be_recorded(house) -> None:
    async def work() -> None:
        dialled: list[int] = []

        async def server(reader, writer) -> None:
            dialled.append(1)
            writer.close()

        port = await start(house, await house.serve(server))
        house.journal.full = True
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        assert not dialled
        house.journal.full = False

    run(house, work)


def test_a_server_that_is_not_there(house) -> None:
    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            upstream = closed.getsockname()[1]
        port = await start(house, upstream)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(bytes(200_000))
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()

    run(house, work)
    assert "refused" in of_kind(house, events.FLOW_CLOSED)[0][6]


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_goes_through(house, who: str) -> None:
    async def work() -> None:
        linger = (socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        lost = asyncio.Event()

        async def server(reader, writer) -> None:
            await reader.readline()
            if who == "server":
                writer.get_extra_info("socket").setsockopt(*linger)
                writer.transport.abort()
                return
            writer.write(b"go\n")
            with pytest.raises(ConnectionResetError):
                await reader.read()
            lost.set()
            writer.close()

        port = await start(house, await house.serve(server))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x\n")
        if who == "server":
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
            return
        await reader.readline()
        writer.get_extra_info("socket").setsockopt(*linger)
        writer.transport.abort()
        await lost.wait()

    run(house, work)


def test_ending_a_flow(house) -> None:
    async def work() -> None:
        port = await start(house, await house.serve(echo))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        [flow] = house.edge.live.values()
        assert flow.view().state == "flow"
        flow.end("an operator ended it")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()

    run(house, work)
    assert of_kind(house, events.FLOW_CLOSED)[0][6] == "an operator ended it"
