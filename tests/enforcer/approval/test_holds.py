"""Holds as transcripts: opened, answered once, bound, never by the asker."""
from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from agent.contract.owner import Owner
from agent.contract.target import Target
from enforcer.approval.holds import MOST, Holds
from enforcer.core.context import Context
from enforcer.words.commands import Hold
from enforcer.words.decisions import Decision, HoldTerms
from enforcer.words.events import HoldChanged
from enforcer.words.inputs import HoldAnswered
from enforcer.words.operations import Principal, Request

DBA = HoldTerms("deletes-need-a-dba", ("dba",), within=60, reason_required=True)


class NoGate:
    version = 1

    def decide(
        self, principal: Principal, requests: tuple[Request, ...], labels: tuple[str, ...] = (), approved: bool = False
    ) -> Decision:
        raise AssertionError("holds never ask policy")


@dataclass
class Desk:
    """Holds with a clock that the test turns."""

    clock: int = 1_000
    answers: list[tuple[str, HoldAnswered]] = field(default_factory=list)
    changes: list[HoldChanged] = field(default_factory=list)
    drawn: int = 0

    def __post_init__(self) -> None:
        self.holds = Holds(
            lambda: self.clock, lambda: self.clock, self.random,
            lambda session, answer: self.answers.append((session, answer)), self.changes.append,
        )

    def random(self, size: int) -> bytes:
        self.drawn += 1
        return self.drawn.to_bytes(size, "big")

    def context(self, subject: str = "local:crew", session: str = "s1") -> Context:
        owner = Owner("crew", 1000, "crew", subject, ("data",), None, "", 0, "10.0.0.1", 5432, "mark", "orders")
        target = Target("orders", "postgresql", ("db",), 5432, ("10.0.0.1",))
        return Context(
            session, Principal(subject, ("data",), owner), target, NoGate(), lambda: self.clock, lambda: self.clock,
            self.random, b"k" * 32,
        )

    def open(self, terms: tuple[HoldTerms, ...] = (DBA,), operation: int = 7, session: str = "s1") -> str:
        view = self.holds.open(self.context(session=session), hold(terms, operation))
        assert view is not None
        return view.ticket


def hold(terms: tuple[HoldTerms, ...], operation: int = 7, binding: bytes = b"digest") -> Hold:
    return Hold(operation, terms, "sql:delete public.orders", "delete from orders", (), ("a-rule",), binding)


def test_approved_once() -> None:
    desk = Desk()
    ticket = desk.open()
    assert desk.holds.decide(ticket, True, "local:ann", ("dba",), "quarter end") == ""
    assert desk.answers == [("s1", HoldAnswered(7, "approved", "local:ann", "quarter end", ticket))]
    assert "no hold" in desk.holds.decide(ticket, False, "local:bob", ("dba",), "no")
    assert [change.state for change in desk.changes] == ["pending", "approved"]


def test_the_asker_cannot_answer() -> None:
    desk = Desk()
    assert "cannot answer" in desk.holds.decide(desk.open(), True, "local:crew", ("dba",), "me")
    assert desk.answers == []


def test_only_the_named_group_answers() -> None:
    desk = Desk()
    assert "none of the groups" in desk.holds.decide(desk.open(), True, "local:ann", ("data", "ops"), "yes")
    assert desk.answers == []


@pytest.mark.parametrize("approve", [True, False])
def test_a_reason_is_asked_for(approve: bool) -> None:
    desk = Desk()
    assert desk.holds.decide(desk.open(), approve, "local:ann", ("dba",), "") == "a reason is required"
    assert desk.answers == []


def test_every_rule_must_be_satisfied() -> None:
    desk = Desk()
    ticket = desk.open((DBA, HoldTerms("big-ones-need-security", ("security",), within=60)))
    assert desk.holds.decide(ticket, True, "local:ann", ("dba",), "fine") == ""
    assert desk.answers == []
    assert desk.holds.decide(ticket, True, "local:eve", ("security",), "") == ""
    assert desk.answers[0][1].state == "approved"


def test_one_denial_ends_it() -> None:
    desk = Desk()
    ticket = desk.open((DBA, HoldTerms("other", ("security",))))
    assert desk.holds.decide(ticket, False, "local:ann", ("dba",), "not today") == ""
    assert desk.answers == [("s1", HoldAnswered(7, "denied", "local:ann", "not today", ticket))]


def test_expiry_is_a_denial_and_keeps_the_monotonic_clock() -> None:
    desk = Desk()
    ticket = desk.open()
    desk.clock += 59_000_000_000
    desk.holds.expire()
    assert desk.answers == []
    desk.clock += 1_000_000_000
    desk.holds.expire()
    assert desk.answers[0][1].state == "expired"
    assert "no hold" in desk.holds.decide(ticket, True, "local:ann", ("dba",), "late")


def test_the_shortest_term_counts() -> None:
    desk = Desk()
    desk.open((DBA, HoldTerms("other", ("security",), within=5)))
    assert desk.holds.next_deadline() == 1_000 + 5_000_000_000


def test_cancelled_with_its_session_only() -> None:
    desk = Desk()
    first, second = desk.open(session="s1"), desk.open(session="s2")
    desk.holds.cancel_session("s1", "client closed")
    assert [view.ticket for view in desk.holds.list()] == [second]
    assert desk.answers[0][1].state == "cancelled"
    assert first != second


def test_too_many_are_not_held() -> None:
    desk = Desk()
    for operation in range(MOST):
        desk.open(operation=operation)
    assert desk.holds.open(desk.context(), hold((DBA,))) is None


def test_no_terms_is_never_a_hold() -> None:
    assert Desk().holds.open(Desk().context(), hold(())) is None


def test_binding_differs_with_what_is_asked() -> None:
    bindings = set()
    for text in (b"one", b"two"):
        desk = Desk()
        desk.holds.open(desk.context(), hold((DBA,), binding=text))
        bindings.add(desk.changes[0].binding)
    assert len(bindings) == 2
