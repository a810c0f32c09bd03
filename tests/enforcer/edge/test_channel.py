"""The agent's channel: frames cut anywhere, garbage, time limits, lists that outgrow a frame."""
from __future__ import annotations

import asyncio
import socket

import pytest

from agent.contract import messages
from agent.contract.credential import Credential
from enforcer.edge import channel as channel_module
from enforcer.edge.channel import Channel, open_channel
from enforcer.edge.edge import Edge


class Agent:
    """The other end, in this loop."""

    def __init__(self) -> None:
        self.configured: list[messages.Configure] = []
        self.drained = False

    async def open(self) -> Channel:
        mine, theirs = socket.socketpair()
        self.channel = Channel(self.configure, self.drain)
        self.channel.edge = Edge(asyncio.get_running_loop(), self.channel)
        await open_channel(theirs.detach(), self.channel)
        self.reader, self.writer = await asyncio.open_unix_connection(sock=mine)
        return self.channel

    async def configure(self, message: messages.Configure) -> str:
        self.configured.append(message)
        return "weir.toml:3:1: no" if message.runtime == "wrong" else ""

    async def drain(self) -> None:
        self.drained = True

    async def say(self, message: messages.Message) -> None:
        self.writer.write(messages.render_frame(message))

    async def hear(self) -> messages.FromEnforcer:
        size = messages.parse_length(await self.reader.readexactly(4))
        return messages.parse_from_enforcer(await self.reader.readexactly(size))

    async def close(self) -> None:
        self.writer.close()
        await self.channel.closed.wait()


@pytest.fixture
async def agent():
    one = Agent()
    await one.open()
    yield one
    await one.close()


async def test_frames_byte_by_byte(agent: Agent) -> None:
    for byte in messages.render_frame(messages.Ping(1)) + messages.render_frame(messages.Ping(2)):
        agent.writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert [await agent.hear(), await agent.hear()] == [messages.Pong(1), messages.Pong(2)]


async def test_questions_and_answers(agent: Agent, house) -> None:
    asking = asyncio.create_task(agent.channel.whois(5, 7, bytes(16), 99, "10.0.0.1 5432"))
    asked = await agent.hear()
    assert asked == messages.Whois(1, 5, 7, bytes(16), 99, "10.0.0.1 5432")
    owner = house.owner(5432)
    await agent.say(messages.WhoisAnswer(999, owner))
    await agent.say(messages.WhoisAnswer(1, owner))
    assert await asking == owner
    asking = asyncio.create_task(agent.channel.credential("orders", "shop", "crew", ("data",)))
    assert await agent.hear() == messages.AskCredential(2, "orders", "shop", "crew", ("data",))
    await agent.say(messages.CredentialAnswer(2, Credential("svc", "x")))
    assert await asking == Credential("svc", "x")


async def test_no_owner_and_an_answer_of_the_wrong_kind(agent: Agent) -> None:
    asking = asyncio.create_task(agent.channel.whois(5, 7, bytes(16), 99, ""))
    await agent.hear()
    await agent.say(messages.WhoisAnswer(1, None, "not of a crew"))
    assert await asking == "not of a crew"
    asking = asyncio.create_task(agent.channel.whois(5, 7, bytes(16), 99, ""))
    await agent.hear()
    await agent.say(messages.CredentialAnswer(2, Credential("svc", "x")))
    assert await asking == "the agent does not answer"


async def test_no_answer_in_time(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "WHOIS", 0.05)
    assert await agent.channel.whois(5, 7, bytes(16), 99, "") == "the agent does not answer"


async def test_configure_and_drain(agent: Agent) -> None:
    right = messages.Configure(5, "weir", (), (), {}, "/nowhere", bytes(32))
    await agent.say(right)
    assert await agent.hear() == messages.Configured(5)
    await agent.say(messages.Configure(6, "wrong", (), (), {}, "/nowhere", bytes(32)))
    assert await agent.hear() == messages.Configured(6, "weir.toml:3:1: no")
    await agent.say(messages.ListHolds(7))
    assert await agent.hear() == messages.HoldsAnswer(7, ())
    await agent.say(messages.DecideHold(8, "t", True, "local:root", ()))
    assert "not configured" in (await agent.hear()).error
    await agent.say(messages.EndSession(9, "S", "why"))
    assert "no session S" in (await agent.hear()).error
    await agent.say(messages.AskStatistics(10))
    assert (await agent.hear()).values["sessions"] == 0
    await agent.say(messages.Drain(11))
    assert await agent.hear() == messages.Done(11)
    assert agent.drained
    await agent.channel.closed.wait()


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff\xff", b"\4\0\0\0abcd", b"\0\0\0\0", b"\1\0\0\0\xc0"])
async def test_garbage_closes_the_channel(agent: Agent, garbage: bytes) -> None:
    agent.writer.write(garbage)
    await agent.channel.closed.wait()
    assert await agent.channel.whois(5, 7, bytes(16), 99, "") == "the agent does not answer"


async def test_a_message_of_the_enforcers_own_is_none_of_the_agents(agent: Agent) -> None:
    await agent.say(messages.Pong(1))
    await agent.channel.closed.wait()


async def test_what_waits_for_a_dead_agent_is_told(agent: Agent) -> None:
    asking = asyncio.create_task(agent.channel.whois(5, 7, bytes(16), 99, ""))
    await agent.hear()
    agent.writer.close()
    assert await asking == "the agent does not answer"


def test_a_list_that_outgrows_a_frame_is_cut() -> None:
    view = messages.SessionView("s", 1, "x" * 100_000, "w", 1, "t", "d", 1, "idle")
    found = channel_module._fitting(lambda some: messages.SessionsAnswer(1, some), (view,) * 1000)
    assert 0 < len(found.sessions) < 100
