"""Leases by who uses them, and the credentials process as the agent's child: also one that lies."""
from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.channel import ChannelError
from agent.contract import vault as told
from agent.credential.secrets import SecretError
from agent.credential.vault_process import VaultChannel
from agent.credential.vaults import Leases, VaultDesk
from agent.settings.credential_table import CredentialRow
from agent.settings.vault_table import VaultEntry

ROW = CredentialRow("*", "*", "*", None, None, None, None, vault="safe", database_role="orders")


def test_leases() -> None:
    leases = Leases()
    handle = leases.handle(7)
    assert leases.handle(7) == handle
    assert leases.idle(handle)
    leases.used(handle)
    leases.used(handle)
    assert not leases.unused(handle)
    assert leases.unused(handle)
    assert not leases.unused(handle)  # the enforcer says it too often
    assert not leases.unused(99)
    assert leases.end(handle) == 7
    assert leases.handle(7) != handle # another one's, of another process


def test_nobody_uses_any() -> None:
    leases = Leases()
    first, second = leases.handle(1), leases.handle(2)
    leases.used(first)
    assert set(leases.nobody()) == {first, second}
    assert leases.idle(first)
    leases.clear()
    assert not leases.idle(first)


class Process:
    """Stands where the credentials process stands."""

    up = True

    def __init__(self) -> None:
        self.given = [told.Fetched(0, user="v-1", password="hunter2", expires=9, lease=5)]
        self.asked: list[Any] = []
        self.channel = self

    async def ask(self, make: Any, wanted: Any, seconds: float = 0.0) -> Any:
        message = make(1)
        self.asked.append(message)
        await asyncio.sleep(0)
        return self.given[0] if isinstance(message, told.Fetch) else told.Done(1)

    async def stop(self) -> None:
        pass

    def revoked(self) -> list[int]:
        return [one.lease for one in self.asked if isinstance(one, told.Revoke)]


@pytest.fixture
async def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VaultDesk:
    monkeypatch.setattr("agent.credential.vaults.LINGER", 0.05)
    secret = tmp_path / "secret"
    secret.write_text("hunter1")
    secret.chmod(0o600)
    entry = VaultEntry("safe", "https://x", None, None, "approle", None, None, "r", str(secret), None, None, None, None)
    events: list[Any] = []
    made = VaultDesk(tmp_path, lambda: SimpleNamespace(vaults=(entry,)),  # type: ignore[arg-type,return-value]
                     lambda name, detail: events.append((name, detail)), lambda: None)
    made.process = Process()          # type: ignore[assignment]
    made._up.set()
    made.events = events              # type: ignore[attr-defined]
    return made


async def test_given_back_after_the_last_session(desk: VaultDesk) -> None:
    process: Any = desk.process
    first = await desk.fetch("shop", ROW)
    desk.used(first)
    second = await desk.fetch("shop", ROW)
    desk.used(second)
    assert first.lease == second.lease
    desk.unused(first.lease)
    await asyncio.sleep(0.15)
    assert process.revoked() == []
    desk.unused(first.lease)
    await asyncio.sleep(0.15)
    assert process.revoked() == [5]
    events: Any = desk.events         # type: ignore[attr-defined]
    assert [name for name, _ in events] == ["lease.opened", "lease.ended"]
    assert events[0][1] == {"vault": "safe", "role": "orders", "target": "shop", "user": "v-1"}
    assert "hunter" not in str(events)


async def test_kept_for_who_comes_meanwhile(desk: VaultDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    process: Any = desk.process
    first = await desk.fetch("shop", ROW)
    desk.used(first)
    desk.unused(first.lease)
    gate = asyncio.Event()
    real = process.ask

    async def slow(make: Any, wanted: Any, seconds: float = 0.0) -> Any:
        await gate.wait()
        return await real(make, wanted)

    monkeypatch.setattr(process, "ask", slow)
    fetching = asyncio.create_task(desk.fetch("shop", ROW))
    await asyncio.sleep(0.15)
    assert desk.leases.idle(first.lease)      # not given back: what is fetched may be this very one
    gate.set()
    desk.used(await fetching)
    await asyncio.sleep(0.15)
    assert process.revoked() == []


async def test_whoever_waited_is_gone(desk: VaultDesk) -> None:
    process: Any = desk.process
    await desk.fetch("shop", ROW)
    await asyncio.sleep(0.15)
    assert process.revoked() == [5]


async def test_the_enforcer_is_gone(desk: VaultDesk) -> None:
    process: Any = desk.process
    desk.used(await desk.fetch("shop", ROW))
    desk.nobody()
    await asyncio.sleep(0.15)
    assert process.revoked() == [5]


async def test_one_that_is_being_started_is_waited_for(desk: VaultDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk._lost("killed")
    asking = asyncio.create_task(desk.fetch("shop", ROW))
    await asyncio.sleep(0.05)
    assert not asking.done()
    await desk._ready()
    assert (await asking).user == "v-1"


async def test_what_it_may_not_say(desk: VaultDesk) -> None:
    process: Any = desk.process
    process.given = [told.Fetched(1, user="", password="hunter2")]
    with pytest.raises(SecretError, match="gave none"):
        await desk.fetch("shop", ROW)
    process.given = [told.Fetched(1, error="evil\x1b[2J" + "x" * 900)]
    with pytest.raises(SecretError) as caught:
        await desk.fetch("shop", ROW)
    assert len(str(caught.value)) <= 400
    assert "\x1b" not in str(caught.value)
    assert [one for one in desk.hints() if one.startswith("target shop has no credential for some logins: evil?")]
    process.given = [told.Fetched(1, user="svc", password="hunter2")]
    assert (await desk.fetch("shop", ROW)).user == "svc"
    assert desk.hints() == ()
    desk.process = None
    with pytest.raises(SecretError, match="there is no vault"):
        await desk.fetch("shop", ROW)


@pytest.mark.parametrize("sent", [
    struct.pack("<I", 2 << 20), struct.pack("<I", 3) + b"abc",
    told.render_frame(told.Fetched(1, user="x" * 300)), told.render_frame(told.Fetched(1, lease=1 << 63)),
    told.render_frame(told.Fetched(1, error="x" * 2000)), told.render_frame(told.Pong(1)),
])
async def test_one_that_lies_is_ended(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    channel = await VaultChannel.connect(ours)
    with theirs:
        asking = asyncio.create_task(channel.ask(
            lambda number: told.Fetch(number, "safe", told.Material(b"hunter1"), told.Made("database", "x")),
            told.Fetched, 5))
        await asyncio.sleep(0.05)
        theirs.sendall(sent)
        with pytest.raises(ChannelError, match="the credentials process"):
            await asking
        assert channel.closed.is_set()
