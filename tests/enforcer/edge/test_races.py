"""Races of answers on a real PostgreSQL, whose own log counts: at once, exactly one outcome, and one execution at most.

The whole of the enforcer in this process (edge, layer, holds, journal), and the agent's own tickets on the disk; what
happens at once is started in a random order, with random pauses of a few milliseconds."""
from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
import random
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from pump import query, shape, split, startup

from agent.contract.credential import Credential
from agent.tickets import Tickets
from enforcer.approval.holds import Holds
from enforcer.edge import clock
from enforcer.edge.catalogue import Catalogues
from enforcer.edge.keeping import Keeper
from enforcer.policy.holds import parse_hold
from enforcer.words import events
from enforcer.words.decisions import HOLD, PERMIT, Decision

ROUNDS = 200 if "WEIR_RACES" in os.environ else 12
PAUSE = 0.004                         # seconds at most
NUMBERS = itertools.count(1)
ANSWERERS = ("local:ann", "local:bob")


class Rule:
    """Deletes are held."""

    version = 1

    def __init__(self) -> None:
        self.terms = parse_hold("r", "approvers=dba")

    def decide(self, principal, requests, labels=(), approved=False) -> Decision:
        held = not approved and any(one.action == "sql:delete" for one in requests)
        return Decision(HOLD, ("r",), holds=(self.terms,)) if held else Decision(PERMIT, ("yes",))


class Crew:
    """A client; `answer` is all that it was told after it asked."""

    async def open(self, port: int) -> Crew:
        self.port = port
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        self.writer.write(startup(user="trusted", database="postgres"))
        told = await self.heard()
        self.key = next((body for kind, body in told if kind == b"K"), b"")
        return self

    async def heard(self) -> list[tuple[bytes, bytes]]:
        """Until ReadyForQuery, or the end."""
        told = []
        try:
            while not told or told[-1][0] != b"Z":
                head = await self.reader.readexactly(5)
                body = await self.reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
                told += split(head + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.writer.close()
        return told

    def ask(self, text: str) -> None:
        self.writer.write(query(text))

    async def cancel(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(struct.pack("!II", 16, 80877102) + self.key)
        await reader.read()
        writer.close()
        await writer.wait_closed()


class Stage:
    """A house with everything, one client, and what the server says that it ran."""

    def __init__(self, house, cluster, state: Path) -> None:
        self.house, self.cluster, self.state = house, cluster, state
        self.dice = random.Random(7)
        self.late = 0

    async def open(self) -> None:
        house = self.house
        self.port = await house.open(house.target(self.cluster.port, tls="disable"))
        house.asked.owner = house.owner(self.cluster.port, "orders")
        house.asked.login = Credential("trusted")
        house.edge.configuration = dataclasses.replace(house.edge.configuration, gate=Rule())
        house.edge.catalogues = Catalogues(house.edge)
        house.edge.commit._limit = 1 << 30
        self.tickets = Tickets(self.state, lambda name, detail: None)
        self.begin()

    def begin(self) -> None:
        """An enforcer's life, as far as holds go."""
        edge = self.house.edge

        async def keep(ticket: str, content: bytes) -> str:
            return await asyncio.to_thread(self.tickets.keep, ticket, content)

        edge.keeper = Keeper(asyncio.get_running_loop(), keep, edge.commit.write_now)
        self.holds = edge.holds = Holds(
            clock.now, lambda: clock.monotonic() + self.late, os.urandom, edge.answer_hold, edge.hold_changed,
            edge.keeper.keep, b"k" * 32, boot=clock.boot())
        self.holds.restore(self.tickets.kept())

    async def die(self) -> None:
        """SIGKILL of the enforcer, as its clients and the agent see it."""
        for one in tuple(self.house.edge.live.values()):
            one.abort()
        edge = self.house.edge
        edge.holds = edge.keeper = None
        self.begin()

    def rule(self, text: str) -> None:
        self.house.edge.configuration.gate.terms = parse_hold("r", f"approvers=dba, {text}")

    def mark(self) -> str:
        return f"DELETE FROM races WHERE id = -{next(NUMBERS)}"

    async def pending(self) -> str:
        async with asyncio.timeout(20):
            while not any(view.state == "pending" for view in self.holds.views()):
                await asyncio.sleep(0.001)
        return next(view.ticket for view in self.holds.views() if view.state == "pending")

    async def at_once(self, *work: Callable[[], Awaitable[object]]) -> list[object]:
        async def after(one: Callable[[], Awaitable[object]]) -> object:
            await asyncio.sleep(self.dice.choice((0, 0, PAUSE * self.dice.random())))
            return await one()

        mixed = list(enumerate(work))
        self.dice.shuffle(mixed)
        found = await asyncio.gather(*(after(one) for _, one in mixed))
        return [said for _, said in sorted(zip((at for at, _ in mixed), found, strict=True), key=lambda one: one[0])]

    async def decide(self, ticket: str, approve: bool = True, by: str = ANSWERERS[0]) -> str:
        return self.holds.decide(ticket, approve, by, ("dba",), "why")

    async def expire(self) -> None:
        self.late += 3600 * 10**9
        self.holds.expire()

    def clear(self) -> None:
        """Tickets that nobody used take places."""
        for view in self.holds.views():
            self.holds.revoke(view.ticket, view.subject, (), "over")

    def executed(self, mark: str) -> int:
        log = (self.cluster.directory / "server.log").read_text(errors="replace").splitlines()
        return sum(line.endswith(f"statement: {mark}") for line in log)

    def states(self, ticket: str) -> list[str]:
        self.house.edge.commit.write_now()
        return [event[6] for event in self.house.journal.events() if event[0] == events.HOLD and event[5] == ticket]

    async def over(self, crew: Crew, mark: str, ticket: str) -> tuple[str, str]:
        """(last state, what the client was told); what both and the server say is the same."""
        told = await asyncio.wait_for(crew.heard(), 20)
        said = next((one for one in shape(told) if one.startswith(("C ", "E "))), "gone")
        crew.writer.close()
        states = self.states(ticket)
        assert states[0] == "pending"
        assert sum(one in ("used", "denied", "cancelled", "expired") for one in states) == 1, states
        assert self.executed(mark) <= (states[-1] == "used"), states
        if said.startswith("C "):
            assert states[-2:] == ["approved", "used"]
            assert self.executed(mark) == 1
        return states[-1], said


@pytest.fixture
async def stage(house, cluster, tmp_path: Path):
    cluster.admin("CREATE TABLE IF NOT EXISTS races (id bigint); GRANT ALL ON races TO trusted")
    one = Stage(house, cluster, tmp_path)
    await one.open()
    yield one
    await house.close()


async def held(stage: Stage) -> tuple[Crew, str, str]:
    mark = stage.mark()
    crew = await Crew().open(stage.port)
    crew.ask(mark)
    return crew, mark, await stage.pending()


async def test_two_approvers(stage: Stage) -> None:
    for _ in range(ROUNDS):
        crew, mark, ticket = await held(stage)
        said = await stage.at_once(*(partial(stage.decide, ticket, True, by) for by in ANSWERERS))
        assert sorted(map(bool, said)) == [False, True]
        assert await stage.over(crew, mark, ticket) == ("used", "C DELETE 0")


async def test_two_approvers_of_whom_both_are_wanted(stage: Stage) -> None:
    stage.rule("count=2")
    for _ in range(ROUNDS):
        crew, mark, ticket = await held(stage)
        work = [partial(stage.decide, ticket, True, by) for by in (*ANSWERERS, ANSWERERS[0])]
        assert sorted(map(bool, await stage.at_once(*work))) == [False, False, True]
        assert await stage.over(crew, mark, ticket) == ("used", "C DELETE 0")


async def test_an_approval_and_a_denial(stage: Stage) -> None:
    for _ in range(ROUNDS):
        crew, mark, ticket = await held(stage)
        yes, no = await stage.at_once(partial(stage.decide, ticket), partial(stage.decide, ticket, False, ANSWERERS[1]))
        assert bool(yes) != bool(no)
        last, said = await stage.over(crew, mark, ticket)
        assert (last, said) == (("denied", "E 42501") if yes else ("used", "C DELETE 0"))


async def test_an_approval_and_a_cancel(stage: Stage) -> None:
    found = set()
    for _ in range(ROUNDS):
        crew, mark, ticket = await held(stage)
        yes, _ = await stage.at_once(partial(stage.decide, ticket), crew.cancel)
        last, said = await stage.over(crew, mark, ticket)
        assert last == ("cancelled" if yes else "used")
        assert said in (("E 57014",) if yes else ("C DELETE 0", "E 57014"))      # it may reach what already runs
        found.add(last)
    assert found


async def test_an_approval_and_the_end_of_its_time(stage: Stage) -> None:
    for _ in range(ROUNDS):
        crew, mark, ticket = await held(stage)
        yes, _ = await stage.at_once(partial(stage.decide, ticket), stage.expire)
        last, said = await stage.over(crew, mark, ticket)
        assert (last, said) == (("expired", "E 42501") if yes else ("used", "C DELETE 0"))


async def test_an_approval_and_the_end_of_the_client(stage: Stage) -> None:
    for _ in range(ROUNDS):
        crew, mark, ticket = await held(stage)

        async def leave(crew: Crew = crew) -> None:
            crew.writer.transport.abort()

        await stage.at_once(partial(stage.decide, ticket), leave)
        async with asyncio.timeout(20):
            while stage.house.edge.live:
                await asyncio.sleep(0.001)
        states = stage.states(ticket)
        assert sum(one in ("used", "cancelled") for one in states) == 1
        assert stage.executed(mark) <= (states[-1] == "used")


async def test_an_approval_and_an_operator_who_ends_the_session(stage: Stage) -> None:
    for _ in range(ROUNDS):
        crew, mark, ticket = await held(stage)
        live = stage.house.edge.live[next(one.session for one in stage.holds.views() if one.ticket == ticket)]

        async def end(live=live) -> None:
            live.end("enough")

        await stage.at_once(partial(stage.decide, ticket), end)
        await stage.over(crew, mark, ticket)


# ---- tickets, and another life of the enforcer at every state


async def refused(stage: Stage, mark: str) -> str:
    crew = await Crew().open(stage.port)
    crew.ask(mark)
    told = await asyncio.wait_for(crew.heard(), 20)
    crew.writer.close()
    assert "E 42501" in shape(told)
    return next(body for kind, body in told if kind == b"E").decode().partition("ticket ")[2][:8]


async def say(stage: Stage, mark: str) -> str:
    crew = await Crew().open(stage.port)
    crew.ask(mark)
    told = await asyncio.wait_for(crew.heard(), 20)
    crew.writer.close()
    return next((one for one in shape(told) if one.startswith(("C ", "E "))), "gone")


async def approved(stage: Stage, mark: str) -> str:
    ticket = await refused(stage, mark)
    assert await stage.decide(ticket) == ""
    assert await stage.house.edge.keeper.settled(ticket) == ""
    return ticket


async def test_three_clients_with_one_ticket(stage: Stage) -> None:
    stage.rule("mode=ticket")
    for _ in range(ROUNDS):
        mark = stage.mark()
        ticket = await approved(stage, mark)
        said = await stage.at_once(*(partial(say, stage, mark) for _ in range(3)))
        assert sorted(said) == ["C DELETE 0", "E 42501", "E 42501"]
        assert stage.executed(mark) == 1
        assert stage.states(ticket) == ["pending", "approved", "used"]
        stage.clear()


async def test_a_ticket_that_is_used_and_revoked(stage: Stage) -> None:
    stage.rule("mode=ticket")

    async def revoke(ticket: str) -> str:
        return stage.holds.revoke(ticket, ANSWERERS[0], ("dba",), "over")

    for _ in range(ROUNDS):
        mark = stage.mark()
        ticket = await approved(stage, mark)
        said, wrong = await stage.at_once(partial(say, stage, mark), partial(revoke, ticket))
        assert stage.states(ticket) == ["pending", "approved", "used" if wrong else "cancelled"]
        assert (said, stage.executed(mark)) == (("C DELETE 0", 1) if wrong else ("E 42501", 0))
        stage.clear()


@pytest.mark.parametrize("again", [False, True], ids=["", "and again"])
async def test_a_ticket_over_the_enforcer_s_death_at_every_state(stage: Stage, again: bool) -> None:
    stage.rule("mode=ticket")

    async def die() -> None:
        await stage.die()
        if again:
            await stage.die()

    for _ in range(max(1, ROUNDS // 4)):
        mark = stage.mark()
        ticket = await refused(stage, mark)
        await die()                   # pending
        assert await refused(stage, mark) == ticket
        assert await stage.decide(ticket) == ""
        assert await stage.house.edge.keeper.settled(ticket) == ""
        await die()                   # approved
        assert await say(stage, mark) == "C DELETE 0"
        await die()                   # used
        assert await refused(stage, mark) != ticket
        assert stage.executed(mark) == 1
        stage.clear()


async def test_a_ticket_whose_use_and_the_enforcer_s_death_come_at_once(stage: Stage) -> None:
    stage.rule("mode=ticket")
    for _ in range(ROUNDS):
        mark = stage.mark()
        await approved(stage, mark)
        said, _ = await stage.at_once(partial(say, stage, mark), stage.die)
        again = await say(stage, mark)
        assert [said, again].count("C DELETE 0") <= 1
        assert stage.executed(mark) <= 1
        assert stage.executed(mark) >= [said, again].count("C DELETE 0")
        stage.clear()


async def test_a_hold_over_the_enforcer_s_death(stage: Stage) -> None:
    for _ in range(max(1, ROUNDS // 4)):
        crew, mark, ticket = await held(stage)
        await stage.at_once(partial(stage.decide, ticket), stage.die)
        await crew.heard()
        crew.writer.close()
        assert stage.holds.views() == ()
        assert await stage.decide(ticket) != ""
        assert stage.executed(mark) <= 1
