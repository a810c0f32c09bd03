"""What the edge counts for the metrics, with sessions over real sockets."""
from __future__ import annotations

import asyncio
import socket

from enforcer.words import commands as words
from enforcer.words import inputs

from .test_session import run, settled


async def _line(port: int, text: bytes = b"x\n") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    try:
        return await reader.readline()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def test_a_session_and_its_operations(house) -> None:
    async def work() -> None:
        async def server(reader, writer) -> None:
            while line := await reader.readline():
                writer.write(line)
            writer.close()

        upstream = await house.serve(server)
        port = await house.open(house.target(upstream, tls="disable"))
        house.layer(house.durable)
        house.asked.owner = house.owner(upstream, "orders")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(3):
            writer.write(b"x\n")
            assert await reader.readline() == b"x\n", number
        values, [orders] = house.edge.figures()
        assert (orders.target, orders.open, orders.sessions, orders.permitted, orders.denied) == ("orders", 1, 1, 3, 0)
        assert values["syncs"] > 0
        assert values["sync_microseconds"] > 0
        assert values["events"] >= 3
        assert not [name for name in values if ":" in name], "they are no target's"
        writer.close()
        await settled(house.edge)
        _, [orders] = house.edge.figures()
        assert (orders.open, orders.sessions) == (0, 1)

    run(house, work)


def test_a_target_that_is_away(house) -> None:
    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            away = taken.getsockname()[1]
        port = await house.open(house.target(away, tls="disable"))
        house.layer(house.relay)
        house.asked.owner = house.owner(away, "orders")
        assert await _line(port)
        await settled(house.edge)
        [orders] = house.edge.figures()[1]
        assert (orders.upstream_failures, orders.credential_failures) == (1, 0)

    run(house, work)


def test_a_login_without_a_credential(house) -> None:
    class Login(house.relay):
        def start(self) -> list:
            return [words.Login("shop", "svc")]

        def handle(self, event) -> list:
            failed = isinstance(event, inputs.CredentialFailed)
            return self.last_words(event.reason + "\n") if failed else super().handle(event)

    async def work() -> None:
        port = await house.open(house.target(1, tls="disable"))
        house.layer(Login)
        house.asked.owner, house.asked.login = house.owner(1, "orders"), "no file"
        assert await _line(port) == b"no file\n"
        await settled(house.edge)
        [orders] = house.edge.figures()[1]
        assert (orders.upstream_failures, orders.credential_failures) == (0, 1)

    run(house, work)


def test_whose_a_refused_connection_was(house) -> None:
    async def work() -> None:
        port = await house.open(house.target(1, tls="disable"))
        assert await _line(port) == b""
        house.asked.owner = house.owner(2, "gone")
        assert await _line(port) == b""
        await settled(house.edge)
        values, _ = house.edge.figures()
        assert (values["refused"], values["refused_nobody"]) == (2, 1)

    run(house, work)
