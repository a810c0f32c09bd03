"""Several operations of one session held at once: each is answered, used, cancelled and given back alone."""
from __future__ import annotations

from itertools import permutations

import pytest
from desk import Desk

from enforcer.approval.granted import Granted
from enforcer.approval.holds import MOST
from enforcer.policy.holds import parse_hold
from enforcer.words.inputs import HoldAnswered, HoldOpened

RULE = parse_hold("r", "approvers=dba")
HELD = (4, 5, 6)


def test_many_of_one_session_and_none_of_another() -> None:
    granted = Granted()
    granted.give("s1", 4, "a")
    granted.give("s1", 5, "b")
    granted.give("s2", 4, "a")
    assert (granted.get("s1", 4), granted.get("s1", 6), granted.get("s3", 4)) == ("a", "", "")
    assert (granted.of("s1"), granted.tickets("s2"), granted.tickets(), len(granted)) == (
        (4, 5), {"a"}, {"a", "b"}, 3)
    assert (granted.take("s1", 4), granted.take("s1", 4)) == ("a", "")
    assert (granted.take("s1", 5), granted.take("s2", 4), len(granted)) == ("b", "a", 0)


@pytest.mark.parametrize("used", [*permutations(HELD)])
@pytest.mark.parametrize("answered", [*permutations(HELD)])
def test_answered_and_used_in_any_order(answered: tuple[int, ...], used: tuple[int, ...]) -> None:
    desk = Desk()
    tickets = {held: desk.open(RULE, operation=held) for held in HELD}
    for held in answered:
        assert desk.approve(tickets[held]) == ""
        assert desk.answers[-1] == ("s1", HoldAnswered(held, "approved", "local:ann", "fine", tickets[held]))
    for at, held in enumerate(used):
        assert desk.holds.use("s1", 10 + at, tickets[held], held)
        assert (desk.changes[-1].state, desk.changes[-1].operation) == ("used", 10 + at)
        assert not desk.holds.use("s1", 20, tickets[held], held)
    assert desk.states == ["pending"] * 3 + ["approved"] * 3 + ["used"] * 3
    assert desk.holds.views() == ()


def test_one_goes_under_its_own_ticket_only() -> None:
    desk = Desk()
    first, second = desk.open(RULE, operation=4), desk.open(RULE, operation=5)
    desk.approve(first)
    desk.approve(second)
    assert not desk.holds.use("s1", 10, first, 5)
    assert desk.changes[-1].state == "cancelled", "who goes under another's has lost its own"
    assert desk.changes[-1].ticket == second
    assert desk.holds.use("s1", 11, first, 4)


def test_one_is_cancelled_while_another_is_used() -> None:
    desk = Desk()
    first, second = desk.open(RULE, operation=4), desk.open(RULE, operation=5)
    desk.approve(second)
    desk.holds.cancel("s1", 4, "its channel was closed")
    assert desk.last == HoldAnswered(4, "cancelled", "", "its channel was closed", first)
    assert desk.holds.use("s1", 6, second, 5)
    assert "no hold" in desk.approve(first)


def test_one_that_is_denied_or_late_takes_no_other_with_it() -> None:
    desk = Desk()
    first, second = desk.open(RULE, operation=4), desk.open(parse_hold("r", "approvers=dba, within=10s"), operation=5)
    third = desk.open(RULE, operation=6)
    desk.holds.decide(first, False, "local:ann", ("dba",), "no")
    desk.turn(11)
    assert [(answer.operation, answer.state) for _, answer in desk.answers] == [(4, "denied"), (5, "expired")]
    assert [view.ticket for view in desk.holds.views()] == [third]
    assert "no hold" in desk.approve(second)
    assert desk.approve(third) == ""
    assert desk.holds.use("s1", 7, third, 6)


def test_what_is_given_back_never_goes_and_the_others_do() -> None:
    desk = Desk()
    first, second = desk.open(RULE, operation=4), desk.open(RULE, operation=5)
    desk.approve(first)
    desk.holds.give_back("s1", 5)
    assert desk.holds.is_waiting(second), "what waits is not given back"
    desk.holds.give_back("s1", 4)
    assert (desk.changes[-1].ticket, desk.changes[-1].state, desk.changes[-1].reason) == (
        first, "cancelled", "it did not go")
    assert not desk.holds.use("s1", 6, first, 4)
    desk.approve(second)
    assert desk.holds.use("s1", 6, second, 5)


def test_another_question_takes_nothing_back() -> None:
    desk = Desk()
    first = desk.open(RULE, operation=4)
    desk.approve(first)
    desk.open(RULE, operation=5)
    assert desk.holds.use("s1", 6, first, 4)


def test_tickets_of_two_operations_of_one_session() -> None:
    desk, rule = Desk(), parse_hold("r", "approvers=dba, mode=ticket")
    tickets = {}
    for held, exact in ((4, b"one"), (5, b"other")):
        desk.ask(rule, operation=held, exact=exact)
        tickets[held] = desk.last.ticket
        desk.approve(tickets[held])
    desk.agent.slow = True
    desk.ask(rule, operation=6, exact=b"one")
    desk.ask(rule, operation=7, exact=b"other")
    assert desk.holds.asks("s1")
    assert not desk.holds.use("s1", 8, tickets[4], 6), "the agent has not forgotten it yet"
    desk.agent.go_on()
    assert [(answer.operation, answer.state) for _, answer in desk.answers[-2:]] == [(6, "denied"), (7, "approved")]
    assert desk.holds.use("s1", 8, tickets[5], 7)
    assert not desk.holds.asks("s1")


def test_one_ticket_lets_one_of_two_through() -> None:
    desk, rule = Desk(), parse_hold("r", "approvers=dba, mode=ticket")
    desk.ask(rule, operation=4)
    ticket = desk.last.ticket
    desk.approve(ticket)
    desk.ask(rule, operation=5)
    assert desk.last == HoldAnswered(5, "approved", "local:ann", "", ticket)
    desk.ask(rule, operation=6)
    assert desk.last.state == "ticket"
    assert desk.last.ticket != ticket
    assert not desk.holds.use("s1", 8, ticket, 6)
    assert desk.holds.use("s1", 8, ticket, 5)


@pytest.mark.parametrize("reuse", ["session", "shape:30m"])
def test_what_stands_lets_several_through_at_once(reuse: str) -> None:
    desk, rule = Desk(), parse_hold("r", f"approvers=dba, reuse={reuse}")
    ticket = desk.open(rule, operation=4)
    other = desk.open(rule, operation=5)
    desk.approve(ticket)
    for held in (6, 7, 8):
        assert desk.ask(rule, operation=held) == HoldAnswered(held, "approved", "local:ann", "", ticket)
    desk.holds.give_back("s1", 7)
    assert desk.holds.use("s1", 9, ticket, 8)
    assert desk.holds.use("s1", 10, ticket, 4)
    assert not desk.holds.use("s1", 11, ticket, 7)
    assert desk.holds.use("s1", 11, ticket, 6)
    assert not desk.holds.use("s1", 12, ticket, 6)
    assert desk.holds.is_waiting(other), "it was asked before the answer, and has its own"


def test_the_end_of_the_session_ends_all_of_it_and_of_no_other() -> None:
    desk = Desk()
    first, second = desk.open(RULE, operation=4), desk.open(RULE, operation=5)
    elsewhere = desk.open(RULE, session="s2", operation=4)
    desk.approve(first)
    desk.approve(elsewhere)
    desk.holds.end_session("s1", "gone")
    assert [(one.ticket, one.state) for one in desk.changes[-2:]] == [(first, "cancelled"), (second, "cancelled")]
    assert not desk.holds.use("s1", 6, first, 4)
    assert not desk.holds.asks("s1")
    assert desk.holds.use("s2", 6, elsewhere, 4)


def test_a_session_asks_until_its_last_answer() -> None:
    desk = Desk()
    assert not desk.holds.asks("s1")
    first, second = desk.open(RULE, operation=4), desk.open(RULE, operation=5)
    desk.approve(first)
    assert desk.holds.asks("s1")
    desk.holds.decide(second, False, "local:ann", ("dba",), "no")
    assert not desk.holds.asks("s1")
    assert isinstance(desk.ask((), operation=6), HoldAnswered)
    assert not desk.holds.asks("s1")
    desk.open(RULE, operation=7)
    desk.open(RULE, operation=8)
    desk.holds.cancel_session("s1", "cancelled by the client")
    assert [answer.state for _, answer in desk.answers[-2:]] == ["cancelled", "cancelled"]
    assert not desk.holds.asks("s1")


def test_a_layer_that_never_lets_go_is_refused_in_the_end() -> None:
    desk, rule = Desk(), parse_hold("r", "approvers=dba, reuse=session")
    desk.approve(desk.open(rule, operation=1))
    for held in range(2, MOST + 1):
        assert isinstance(desk.ask(rule, operation=held), HoldAnswered)
    full = desk.ask(rule, operation=MOST + 1)
    assert isinstance(full, HoldAnswered)
    assert (full.state, full.reason) == ("denied", "too many operations were approved and did not go")
    assert isinstance(desk.ask(rule, "s2"), HoldOpened)
