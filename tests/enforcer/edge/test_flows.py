"""Egress: opaque streams, both ways, recorded."""
from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import Awaitable, Callable

import msgspec
import pytest
import uvloop

from agent.contract.target import Egress
from enforcer.edge import flows
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
            while not house.edge.live:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0)
            writer.write(SSL_REQUEST[cut:] + b"more")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        assert not got                    # not even its first byte

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


def by_name(house, upstream: int, *names: str, listed: bool = False) -> None:
    house.asked.owner = msgspec.structs.replace(house.owner(upstream, egress="model"), names=names, listed=listed)


def talk(house, first: list[bytes], names: tuple[str, ...] = ("api.example",), listed: bool = False,
         end: bool = False) -> tuple[bytes, bytes]:
    """What the server got and what the client did; the pieces go out one after the other."""
    got: list[bytes] = []
    back: list[bytes] = []

    async def work() -> None:
        async def server(reader, writer) -> None:
            try:
                while data := await reader.read(65536):
                    got.append(data)
                    writer.write(data)
            except ConnectionResetError:
                pass
            writer.close()

        upstream = await house.serve(server)
        port = await start(house, upstream, addresses=())
        by_name(house, upstream, *names, listed=listed)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for piece in first:
            writer.write(piece)
            await asyncio.sleep(0.02)
        if end:
            writer.write_eof()
        try:
            back.append(await reader.read() if end else await reader.read(65536))
        except ConnectionResetError:
            pass
        writer.close()

    run(house, work)
    return b"".join(got), b"".join(back)


def test_a_host_that_agrees_and_one_that_does_not(house, monkeypatch) -> None:
    right = b"GET / HTTP/1.1\r\nHost: api.example\r\n\r\n"
    assert talk(house, [right[:9], right[9:30], right[30:]]) == (right, right)
    [closed] = of_kind(house, events.FLOW_CLOSED)
    assert closed[4] == len(right)


@pytest.mark.parametrize("pieces", [
    [b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"], [b"GET / HTTP/1.1\r\nHost: ev", b"il.example\r\n\r\n"],
    [b"\x05", b"\x01\x00"], [b"CONN", b"ECT x:1 HTTP/1.1\r\n\r\n"], [b"SS", b"H-2.0-x\r\n"],
])
def test_what_is_not_right_never_reaches_the_server(house, pieces: list[bytes]) -> None:
    assert talk(house, pieces) == (b"", b"")
    [closed] = of_kind(house, events.FLOW_CLOSED)
    assert closed[4] == 0
    assert closed[6] not in ("", "client closed", "server closed")


def test_an_address_that_is_listed_may_be_named_anyhow(house) -> None:
    said = b"GET / HTTP/1.1\r\nHost: any.example\r\n\r\n"
    assert talk(house, [said], listed=True) == (said, said)


@pytest.mark.parametrize(("first", "wanted"), [(b"ping", b"ping"), (b"\x16\x03\x01", b"")])
def test_what_waits_too_long(house, monkeypatch, first: bytes, wanted: bytes) -> None:
    monkeypatch.setattr(flows, "HOLD", 0.1)
    assert talk(house, [first]) == (wanted, wanted)
    assert bool(wanted) == ("not finished in time" not in of_kind(house, events.FLOW_CLOSED)[0][6])


@pytest.mark.parametrize("first", [b"G", b"ping", b"\0", b"\x80", b"EHLO me", b"\r\n"])
def test_too_little_to_be_anything_waits_briefly_only(house, monkeypatch, first: bytes) -> None:
    monkeypatch.setattr(flows, "HOLD", 60.0)
    assert talk(house, [first]) == (first, first)


@pytest.mark.parametrize("rest", [b"ET / HTTP/1.1\r\nHost: ", b"ET http://evil.example/ HTTP/1.1\r\n", b"ET "])
def test_what_followed_a_brief_wait_waits_where_it_could_be_something(house, monkeypatch, rest: bytes) -> None:
    """Only the first piece came too late to be held with the others."""
    monkeypatch.setattr(flows, "BRIEF", 0.001)
    monkeypatch.setattr(flows, "HOLD", 0.2)
    assert talk(house, [b"G", rest]) in ((b"G", b""), (b"G", b"G"))
    assert "not finished in time" in of_kind(house, events.FLOW_CLOSED)[0][6]


@pytest.mark.parametrize(("first", "wanted"), [(b"ping", b"ping"), (b"\x16\x03\x01", b"")])
def test_who_has_nothing_more_to_say_is_not_waited_for(house, first: bytes, wanted: bytes) -> None:
    assert talk(house, [first], end=True) == (wanted, wanted)
