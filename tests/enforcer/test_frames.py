"""The end that processes beside the enforcer have of the agent's channel, with each one's own contract."""
from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest

from agent.contract import identity, notify, vault, web
from enforcer import frames
from enforcer.frames import Frames, connect


class End(Frames):
    def __init__(self, contract: Any) -> None:
        super().__init__()
        self.contract = contract
        self.taken: list[Any] = []

    def take(self, message: Any) -> None:
        self.taken.append(message)


async def pair(contract: Any) -> tuple[socket.socket, End]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    end = End(contract)
    await connect(end, theirs.detach())
    return ours, end


CONTRACTS = pytest.mark.parametrize("contract", [identity, notify, vault, web], ids=lambda one: one.__name__[15:])


@CONTRACTS
async def test_a_message_cut_anywhere_is_that_message(contract: Any) -> None:
    ours, end = await pair(contract)
    for byte in contract.render_frame(contract.Ping(7)) * 2:
        end.data_received(bytes([byte]))
    assert end.taken == [contract.Ping(7)] * 2
    with ours:
        end.connection_lost(None)
    assert end.closed.is_set()


@CONTRACTS
@pytest.mark.parametrize("over", [True, False])
async def test_what_is_no_message_closes_it(contract: Any, over: bool) -> None:
    ours, end = await pair(contract)
    with ours:
        end.data_received(struct.pack("<I", contract.LIMIT + 1) if over else struct.pack("<I", 3) + b"abc")
        assert end.closed.is_set()
        assert end.taken == []


@CONTRACTS
async def test_an_agent_that_does_not_read_takes_no_memory(
    contract: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frames, "UNREAD", 0)
    ours, end = await pair(contract)
    with ours:
        for number in range(1_000_000):
            end.send(contract.Pong(number))
            if end.closed.is_set():
                break
        assert 1 < number < 999_999


async def test_what_fails_says_its_kind_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> None:
        raise RuntimeError("SECRET")

    ours, end = await pair(identity)
    with ours:
        end.spawn(broken())
        task = next(iter(end._tasks))
        await asyncio.wait({task})
        await asyncio.sleep(0)        # its callback
    assert "RuntimeError" in caplog.text
    assert "SECRET" not in caplog.text
