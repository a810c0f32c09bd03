"""Cancel keys, and the way of a cancel to a real server."""
from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from agent.contract.credential import Credential
from enforcer.edge.cancel import Cancels, Key
from enforcer.words import commands as words
from enforcer.words import events, inputs


def key(house, workload: str = "crew", uid: int = 1000, secret: bytes = b"real") -> Key:
    owner = house.owner(5432, workload=workload, uid=uid)
    return Key("S", owner, house.target(5432), Credential("u", "hunter2"), "127.0.0.1:5432", 7, secret)


def test_only_the_owner_and_only_at_the_same_target(house) -> None:
    cancels, mine = Cancels(), key(house)
    cancels.register(1, b"abcd", mine)
    owner = mine.owner
    assert cancels.find(1, b"abcd", owner, "orders") is mine
    assert "no session" in cancels.find(1, b"abce", owner, "orders")
    assert "no session" in cancels.find(2, b"abcd", owner, "orders")
    assert "another target" in cancels.find(1, b"abcd", owner, "elsewhere")
    assert "another workload" in cancels.find(1, b"abcd", house.owner(5432, workload="other"), "orders")
    assert "another workload" in cancels.find(1, b"abcd", house.owner(5432, uid=1001), "orders")


def test_two_sessions_with_one_process_number(house) -> None:
    cancels, one, two = Cancels(), key(house), key(house, secret=b"other")
    cancels.register(1, b"aaaa", one)
    cancels.register(1, b"bbbb", two)
    cancels.forget(1, b"aaaa")
    assert "no session" in cancels.find(1, b"aaaa", one.owner, "orders")
    assert cancels.find(1, b"bbbb", one.owner, "orders") is two
    cancels.forget(1, b"bbbb")
    cancels.forget(1, b"bbbb")


def test_a_key_shows_no_secret(house) -> None:
    assert "real" not in repr(key(house))
    assert "hunter2" not in repr(key(house))


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


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


STARTUP = b"\0\3\0\0user\0trusted\0database\0postgres\0\0"


async def backend_key(reader) -> tuple[int, bytes]:
    """Read up to ReadyForQuery; the server's own key."""
    found = (0, b"")
    while True:
        kind = await reader.readexactly(1)
        body = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big") - 4)
        if kind == b"K":
            found = (int.from_bytes(body[:4], "big"), body[4:])
        if kind == b"Z":
            return found


@pytest.mark.parametrize("mode", ["disable", "verify-ca"])
@pytest.mark.parametrize("asker", ["owner", "stranger"])
def test_the_real_backend_is_cancelled_for_its_owner_only(house, cluster, asker: str, mode: str) -> None:
    async def work() -> None:
        class Cancelling(house.relay):
            """The first connection is a session, those after it ask for a cancel."""

            def start(self) -> list:
                if len(house.layers) > 1:
                    return [words.CancelRequest(1, b"mine"), words.CloseConnection(words.CLIENT)]
                return super().start()

            def handle(self, event) -> list:
                found = super().handle(event)
                return [one for one in found if not isinstance(one, words.Registered)]

        port = await house.open(house.target(cluster.port, tls=mode, tls_ca=cluster.authority.pem))
        house.layer(Cancelling)
        house.asked.owner = house.owner(5432, "orders")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((len(STARTUP) + 4).to_bytes(4, "big") + STARTUP)
        process, secret = await backend_key(reader)
        [session] = house.edge.live.values()
        session._registered(words.Registered(1, b"mine", process, secret))
        writer.write(message(b"Q", b"select pg_sleep(20)\0"))
        state = f"select state from pg_stat_activity where pid = {process}"
        while cluster.admin(state) != "active":
            await asyncio.sleep(0.02)
        if asker == "stranger":
            house.asked.owner = house.owner(5432, "orders", workload="other")
        asking, closing = await asyncio.open_connection("127.0.0.1", port)
        assert await asking.read() == b""
        closing.close()
        if asker == "owner":
            await reader.readuntil(b"C57014\0")
        else:
            assert cluster.admin(state) == "active"
            cluster.admin(f"select pg_cancel_backend({process})")
        writer.close()

    run(house, work)
    found = [event for event in house.journal.events() if event[0] == events.INTENT and event[6] == "cancel"]
    assert [event[7] for event in found] == [1 if asker == "owner" else 2]


def test_a_held_operation_is_cancelled_without_the_server(house) -> None:
    async def work() -> None:
        from enforcer.words.decisions import HoldTerms

        class Held(house.relay):
            def start(self) -> list:
                if len(house.layers) > 1:
                    return [words.CancelRequest(1, b"mine"), words.CloseConnection(words.CLIENT)]
                self.state = "held"
                hold = words.Hold(1, (HoldTerms("r", ("dba",)),), "a", "t", (), (), b"")
                return [words.Registered(1, b"mine", 2, b"real"), hold]

            def handle(self, event) -> list:
                if isinstance(event, inputs.HoldAnswered):
                    return [words.SendData(words.CLIENT, event.state.encode())]
                return super().handle(event)

        port = await house.open(house.target(1, tls="disable"))
        house.layer(Held)
        house.asked.owner = house.owner(1, "orders")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while not house.edge.holds.views():
            await asyncio.sleep(0.01)
        asking, closing = await asyncio.open_connection("127.0.0.1", port)
        assert await asking.read() == b""
        closing.close()
        assert await reader.readexactly(9) == b"cancelled"
        writer.close()

    run(house, work)


def test_a_server_that_does_not_take_the_cancel_holds_nobody_up(house, monkeypatch: pytest.MonkeyPatch) -> None:
    from enforcer.edge import errands

    monkeypatch.setattr(errands, "CANCEL", 0.2)

    async def work() -> None:
        class Asking(house.relay):
            def start(self) -> list:
                return [words.CancelRequest(1, b"mine"), words.CloseConnection(words.CLIENT)]

        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = await house.open(house.target(1, tls="disable"))
            house.layer(Asking)
            owner = house.asked.owner = house.owner(1, "orders")
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            theirs = Key("S", owner, house.target(1, tls="disable"), None, address, 2, b"x")
            house.edge.cancels.register(1, b"mine", theirs)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
            writer.close()

    run(house, work)
