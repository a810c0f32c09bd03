"""The agent's channel: frames cut anywhere, garbage, time limits, lists that outgrow a frame."""
from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace
from types import SimpleNamespace

import pytest
from msgspec.structs import replace as replace_struct

from agent.contract import control, messages
from agent.contract.credential import Credential
from agent.contract.locks import Lock, LockSet
from enforcer.approval.holds import Holds
from enforcer.edge import channel as channel_module
from enforcer.edge import clock
from enforcer.edge.channel import Channel, open_channel
from enforcer.edge.edge import Edge
from enforcer.edge.keeping import Keeper
from enforcer.policy.holds import parse_hold
from enforcer.words.commands import Hold
from enforcer.words.decisions import HOLD, Decision
from enforcer.words.events import REFUSED


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
    asking = asyncio.create_task(agent.channel.credential("web", "", "deploy", (), "local:ada:crew:" + "x" * 2000))
    asked = await agent.hear()
    assert asked.who == ("local:ada:crew:" + "x" * 2000)[:1000], "what an SSH server logs"
    await agent.say(messages.CredentialAnswer(3, Credential("deploy", key="x")))
    await asking


async def test_a_lease_is_given_up(agent: Agent) -> None:
    """By a session that ends, and where nobody waits for the credential any more."""
    leased = Credential("v-1", "hunter2", lease=7)
    agent.channel.unused(Credential("svc", "hunter2"))
    agent.channel.unused(leased)
    assert await agent.hear() == messages.CredentialUnused(0, 7)
    asking = asyncio.create_task(agent.channel.credential("orders", "shop", "app", ()))
    question = await agent.hear()
    asking.cancel()
    await asyncio.wait({asking})
    await agent.say(messages.CredentialAnswer(question.number, leased))
    assert await agent.hear() == messages.CredentialUnused(0, 7)


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


async def test_an_answer_that_comes_too_late_is_accounted_for(
    agent: Agent, house, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The agent stood still: the connection was refused as nobody's, and its ledger would miss it."""
    monkeypatch.setattr(channel_module, "WHOIS", 0.05)
    recorded = []
    agent.channel.edge.commit = SimpleNamespace(failure="", append=recorded.append)
    owner = replace_struct(house.owner(5432), cookie=77)
    assert await agent.channel.whois(5, 7, bytes(16), 99, "") == "the agent does not answer"
    assert await agent.channel.whois_local("orders", 9, 1000) == "the agent does not answer"
    await agent.say(messages.WhoisAnswer(1, owner))
    await agent.say(messages.WhoisAnswer(2, replace_struct(owner, cookie=0, local=True)))
    await agent.say(messages.WhoisAnswer(3, None, "no connect of a crew has led to it"))
    await agent.say(messages.Ping(4))
    while await agent.hear() != messages.Pong(4):
        pass
    [one] = recorded
    assert (one.kind, one.cookie, one.workload, one.destination) == (
        REFUSED, 77, owner.workload, f"{owner.destination} {owner.port}")
    assert "too late" in one.reason


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
    assert "no session or flow" in (await agent.hear()).error
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


# ---- what people answer


class Desk(Agent):
    """With holds, a journal in a file, and tickets that are kept here."""

    async def open_with(self, house) -> None:
        self.channel.edge = edge = house.edge
        self.kept: dict[str, bytes] = {}
        self.broken = ""

        async def keep(ticket: str, content: bytes) -> str:
            if not self.broken:
                self.kept[ticket] = content
            return self.broken

        edge.keeper = Keeper(asyncio.get_running_loop(), keep)
        edge.holds = Holds(
            clock.now, clock.monotonic, os.urandom, edge.answer_hold, edge.hold_changed, edge.keeper.keep, b"k" * 32,
            self.elevate)
        self.elevated: frozenset[tuple[str, str]] = frozenset()
        edge.configuration.gate.decide = lambda *_: Decision(HOLD, ("r",), holds=(parse_hold("r", "approvers=dba"),))

    def elevate(self, pairs: frozenset[tuple[str, str]]) -> None:
        self.elevated = pairs

    async def ask(self, message: messages.Message) -> messages.FromEnforcer:
        await self.say(message)
        return await asyncio.wait_for(self.hear(), 5)

    async def request(self) -> str:
        found = await self.ask(messages.AskElevation(1, "local:ada", "ada", 1000, ("data",), "orders", 3600, "why"))
        assert (found.error, found.number) == ("", 1)
        return found.ticket

    async def approve(self, ticket: str) -> str:
        return (await self.ask(messages.DecideHold(2, ticket, True, "local:ann", ("dba",), "fine"))).error


@pytest.fixture
async def desk(house):
    await house.open(house.target(5432))
    one = Desk()
    await one.open()
    await one.open_with(house)
    yield one
    await one.close()
    house.journal.full = False
    await house.close()


async def test_an_answer_is_in_the_journal_before_it_is_told(desk: Desk, house) -> None:
    ticket = await desk.request()
    assert await desk.approve(ticket) == ""
    assert [event[6] for event in house.journal.events() if ticket in event][-1] == "approved"
    assert desk.elevated == {("local:ada", "orders")}


async def test_an_answer_that_cannot_be_recorded_counts_for_nothing(desk: Desk, house) -> None:
    """The disk is full, and nobody has noticed yet: the elevation stood, and was in no journal."""
    ticket = await desk.request()
    house.journal.full = True
    assert "cannot be recorded" in await desk.approve(ticket)
    assert desk.elevated == frozenset()
    assert house.edge.holds.views() == ()
    assert house.edge.commit.failure


async def test_while_nothing_can_be_recorded_only_what_ends_is_taken(desk: Desk, house) -> None:
    ticket = await desk.request()
    assert await desk.approve(ticket) == ""
    house.edge.commit._fail("the disk is full")
    assert "the disk is full" in await desk.approve(ticket)
    asked = await desk.ask(messages.AskElevation(3, "local:bob", "bob", 1001, ("data",), "orders", 60, "why"))
    assert "the disk is full" in asked.error
    await desk.ask(messages.RevokeHold(4, ticket, "local:ada", (), "over"))
    assert desk.elevated == frozenset()
    assert await desk.ask(messages.Ping(5)) == messages.Pong(5)


async def test_a_lock_that_comes_with_an_answer_is_in_force_before_it(desk: Desk, house) -> None:
    """The agent had let it through: what the locked one said yes to was looked for before there was a yes."""
    ticket = await desk.request()
    locks = LockSet(1, (Lock("subject", "local:ann", "leaked", "local:root", 1),))
    said = [messages.DecideHold(2, ticket, True, "local:ann", ("dba",), "fine"), messages.PutLocks(3, locks),
            messages.RevokeHold(4, ticket, "local:ann", ("dba",), "fine")]
    desk.writer.write(b"".join(map(messages.render_frame, said)))
    heard = {one.number: one for one in [await asyncio.wait_for(desk.hear(), 5) for _ in said]}
    assert heard[3] == messages.LocksTaken(3, 0)
    assert heard[2].error == heard[4].error == "subject local:ann is locked: leaked"
    assert desk.elevated == frozenset()
    assert house.edge.holds.is_waiting(ticket)


async def test_a_revocation_that_is_not_on_the_disk_yet_says_so(desk: Desk, house) -> None:
    ticket = await desk.request()
    await desk.approve(ticket)
    desk.broken = "the disk is broken"
    said = (await desk.ask(messages.RevokeHold(4, ticket, "local:ada", (), "over"))).error
    assert "it is ended, but not on the disk yet" in said
    assert desk.elevated == frozenset()
    desk.broken = ""
    house.edge.holds.expire()
    await house.edge.keeper.settled(ticket)
    assert desk.kept[ticket] == b""


async def test_much_that_one_crew_asks_hides_nothing_of_others(desk: Desk, house) -> None:
    """A list that outgrew its frame lost its newer half: a crew that came first was all that approvers saw."""
    holds, context = house.edge.holds, house.edge.context(house.owner(5432), house.target(5432))
    terms = (parse_hold("r", "approvers=dba"),)
    for number in range(900):
        holds.open(replace(context, session=f"s{number}"), Hold(
            1, terms, "語" * 4000, "語" * 4000, ("語" * 400,) * 10, ("r",), b"d", "shop"))
    holds.open(replace(context, session="mine"), Hold(1, terms, "sql:delete t", "DELETE FROM t", ("1",), ("r",), b"d"))
    views = (await desk.ask(messages.ListHolds(7))).holds
    assert len(views) == 901
    assert (views[-1].session, views[-1].text, views[-1].parameters) == ("mine", "DELETE FROM t", ("1",))
    assert views[0].text.endswith("... (cut here: much waits)")
    assert len(control.render_frame(control.Approvals(views))) < control.LIMIT
    (whole,) = (await desk.ask(messages.ListHolds(8, views[0].ticket))).holds
    assert whole.text == "語" * 4000
    assert (await desk.ask(messages.ListHolds(9, "aaaaaaa2"))).holds == ()
