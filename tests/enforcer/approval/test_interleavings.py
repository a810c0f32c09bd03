"""Anything in any order: sessions ask and end, people answer, clocks turn, the agent is slow or broken, processes die.

Whatever happens, what passes was approved before, once; what was told as over never passes; who asks is answered."""
from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from desk import Desk

from agent.contract.owner import Process
from enforcer.approval.asked import ELEVATION
from enforcer.approval.machine import STEPS
from enforcer.policy.holds import parse_hold
from enforcer.words.inputs import HoldAnswered, HoldOpened

RULES = tuple(parse_hold(name, f"approvers=dba, within=1m, {text}") for name, text in (
    ("once", ""), ("two", "count=2"), ("ticket", "mode=ticket, valid=2m"), ("both", "mode=ticket, count=2"),
    ("shape", "reuse=shape:2m"), ("session", "reuse=session"), ("command", "reuse=command:2m"),
    ("glass", "break-glass=oncall, escalate=30s:managers")))
ASKED = parse_hold("e", "approvers=dba, within=1m")
SESSIONS = 4
PROCESSES = tuple(Process(pid, "/usr/bin/kubectl", "ab" * 32, ("kubectl",), 5) for pid in (7, 8))
PEOPLE = ("local:ann", "local:bob", "local:crew")


class Story:
    """One enforcer after another, and all that is true meanwhile."""

    def __init__(self, seed: int) -> None:
        self.dice, self.desk = random.Random(seed), Desk()
        self.waits: dict[str, set[int]] = {}   # session -> operations without an answer
        self.lets: dict[tuple[str, int], str] = {}     # (session, held) -> ticket that it was told to go under
        self.sessions = [f"s{number}" for number in range(SESSIONS)]
        self.number = 0
        self.passed: Counter[str] = Counter()
        self.lost: set[str] = set()            # tickets whose last step did not reach the agent
        self.answered = 0

    def step(self) -> None:
        self.dice.choice((
            self.ask, self.ask, self.ask, self.answer, self.answer, self.answer, self.go, self.go, self.turn,
            self.cancel, self.end, self.agent, self.agent, self.restart, self.revoke, self.elevate, self.late,
            self.give_back, self.run))()
        self.hear()

    def ask(self) -> None:
        session = self.dice.choice(self.sessions)
        self.number += 1
        self.waits.setdefault(session, set()).add(self.number)
        found = self.desk.ask(
            self.dice.choice(RULES), session, self.number, self.dice.choice((b"one", b"other")), b"shape",
            process=self.dice.choice(PROCESSES), covers="all of it")
        if isinstance(found, HoldAnswered):
            self.told(session, found)
        else:
            assert found is None or isinstance(found, HoldOpened)

    def run(self) -> None:
        """Commands begin and end."""
        self.desk.running = {(7, 5), self.dice.choice(((8, 5), (9, 5)))}

    def told(self, session: str, answer: HoldAnswered) -> None:
        assert answer.operation in self.waits[session], "it was answered already"
        self.waits[session].discard(answer.operation)
        if answer.state == "approved":
            self.lets[session, answer.operation] = answer.ticket

    def hear(self) -> None:
        more, self.answered = self.desk.answers[self.answered:], len(self.desk.answers)
        for session, answer in more:
            if session in self.sessions:
                self.told(session, answer)

    def tickets(self) -> list[str]:
        return [view.ticket for view in self.desk.holds.views()] or ["nothing"]

    def answer(self) -> None:
        group = self.dice.choice(("dba", "dba", "dba", "oncall", "managers", "data"))
        self.desk.holds.decide(self.dice.choice(self.tickets()), self.dice.random() < 0.8, self.dice.choice(PEOPLE),
                               (group,), "why", self.dice.random() < 0.1)

    def go(self) -> None:
        if self.lets:
            session, held = self.dice.choice(list(self.lets))
            ticket = self.lets.pop((session, held))
            self.number += 1
            if self.desk.holds.use(session, self.number, ticket, held):
                self.passed[ticket] += 1

    def give_back(self) -> None:
        """An operation that was let through and does not go, whatever else its session holds."""
        if self.lets:
            session, held = self.dice.choice(list(self.lets))
            ticket = self.lets.pop((session, held))
            self.desk.holds.give_back(session, held)
            assert not self.desk.holds.use(session, 1, ticket, held)

    def late(self) -> None:
        """Whoever goes under what it was not told to."""
        ticket = self.dice.choice([one.ticket for one in self.desk.changes] or ["nothing"])
        session = self.dice.choice(self.sessions)
        held = self.dice.choice([*(held for _, held in self.lets), self.number])
        if self.lets.get((session, held)) != ticket:
            assert not self.desk.holds.use(session, 1, ticket, held)
            self.lets.pop((session, held), None)       # what it had is taken back

    def turn(self) -> None:
        self.desk.turn(self.dice.choice((0.1, 5, 31, 61, 121)))

    def cancel(self) -> None:
        session = self.dice.choice(self.sessions)
        if waits := self.waits.get(session):
            self.desk.holds.cancel(session, self.dice.choice(sorted(waits)), "cancelled")

    def end(self) -> None:
        """What is said to it from here on reaches nobody: no other has its name."""
        session = self.dice.choice(self.sessions)
        self.number += 1
        self.sessions[self.sessions.index(session)] = f"later{self.number}"
        self.forget(session)
        self.desk.holds.end_session(session, "gone")

    def forget(self, session: str) -> None:
        self.waits.pop(session, None)
        for key in [key for key in self.lets if key[0] == session]:
            del self.lets[key]

    def agent(self) -> None:
        agent = self.desk.agent
        agent.slow = self.dice.random() < 0.3
        agent.broken = "the disk is broken" if self.dice.random() < 0.2 else ""
        if not agent.slow:
            agent.go_on()

    def restart(self) -> None:
        if self.dice.random() < 0.5:
            return
        self.lost |= {ticket for ticket, _, _ in self.desk.agent.waiting}
        self.desk.agent.waiting = []           # the agent has not read it, and nobody was told of it
        for session in tuple(self.sessions):
            self.forget(session)
            self.number += 1
            self.sessions[self.sessions.index(session)] = f"later{self.number}"
        self.desk.boot += self.dice.choice(("", "", "'"))
        self.desk.start()
        assert all(view.form != "hold" for view in self.desk.holds.views())

    def revoke(self) -> None:
        self.desk.holds.revoke(self.dice.choice(self.tickets()), self.dice.choice(PEOPLE), ("dba",), "over")

    def elevate(self) -> None:
        self.desk.holds.elevate("local:crew", "crew", "orders", 90, "x", self.dice.choice(((ASKED,), ())))


def check(story: Story) -> None:
    """What the recording says of each ticket is a path of the machine, and what passed is in it."""
    standing = {one.ticket for one in story.desk.changes if one.form == ELEVATION}
    states: dict[str, list[str]] = {}
    rules: dict[str, int] = Counter()
    for one in story.desk.changes:
        states.setdefault(one.ticket, []).append(one.state)
        rules[one.ticket] += one.state == "used"
    for ticket, path in states.items():
        if ticket in story.lost:
            continue
        for before, after in pairwise(path):
            assert before == after == "pending" or after in STEPS[before].values() or (
                before == after == "used") or (before == "used" and after in STEPS["approved"].values()), path
        assert rules[ticket] == story.passed[ticket]
        if story.passed[ticket]:
            assert path.index("approved") < path.index("used")
            assert ticket not in standing


@pytest.mark.parametrize("seed", range(200))
def test_anything_in_any_order(seed: int) -> None:
    story = Story(seed)
    for _ in range(120):
        story.step()
    check(story)
    once = {one.ticket for one in story.desk.changes if one.form == "ticket"}
    assert all(story.passed[ticket] <= 1 for ticket in once)
    story.desk.agent.slow, story.desk.agent.broken = False, ""
    story.desk.agent.go_on()
    story.desk.turn(100_000)
    story.desk.turn(1)
    story.hear()
    assert not any(story.waits.values())
    assert not any(story.desk.holds.asks(session) for session in story.sessions)
    assert story.desk.elevated == frozenset()
    assert set(story.desk.agent.kept) <= story.desk.agent.over
    for session in story.sessions:
        story.desk.holds.end_session(session, "gone")
    assert story.desk.holds.views() == ()
    assert len(story.desk.holds._granted) == 0
