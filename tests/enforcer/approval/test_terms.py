"""What rules may ask for: number, never oneself, windows, escalation, break-glass, reuse; and attacks on each."""
from __future__ import annotations

import pytest
from desk import Desk

from enforcer.approval.machine import APPROVED, CANCELLED, DENIED, EXPIRED
from enforcer.approval.shelf import EACH
from enforcer.policy.holds import parse_hold
from enforcer.words.decisions import HoldTerms
from enforcer.words.inputs import HoldAnswered, HoldOpened


def terms(text: str = "", rule: str = "r") -> HoldTerms:
    return parse_hold(rule, f"approvers=dba, {text}")


# ---- number of approvers


def test_two_distinct_approvers() -> None:
    desk = Desk()
    ticket = desk.open(terms("count=2"))
    assert desk.approve(ticket) == ""
    assert desk.answers == []
    assert "another approver" in desk.approve(ticket)
    assert desk.holds.views()[0].assents == ("local:ann",)
    assert desk.approve(ticket, "local:bob") == ""
    assert desk.last == HoldAnswered(7, APPROVED, "local:bob", "fine", ticket)
    assert [(one.state, one.by, one.note) for one in desk.changes] == [
        ("pending", "", ""), ("pending", "local:ann", "assented"), ("approved", "local:bob", "")]


def test_one_no_is_enough_of_two() -> None:
    desk = Desk()
    ticket = desk.open(terms("count=2"))
    desk.approve(ticket)
    assert desk.holds.decide(ticket, False, "local:bob", ("dba",), "no") == ""
    assert desk.last.state == DENIED


def test_the_asker_is_none_of_the_two() -> None:
    desk = Desk()
    ticket = desk.open(terms("count=2"))
    desk.approve(ticket)
    assert "cannot answer" in desk.approve(ticket, "local:crew")
    assert desk.answers == []


def test_one_person_in_two_groups_counts_once_for_each_rule() -> None:
    desk = Desk()
    two = (terms("count=2", "a"), HoldTerms("b", ("security",)))
    ticket = desk.open(two)
    assert desk.holds.decide(ticket, True, "local:ann", ("dba", "security"), "x") == ""
    assert desk.answers == []
    assert desk.approve(ticket, "local:bob") == ""
    assert desk.last.state == APPROVED


# ---- hours


def test_outside_of_hours_it_is_denied_at_once() -> None:
    desk = Desk()
    answer = desk.ask(terms("when=tue 08:00-18:00 Europe/Berlin"))
    assert isinstance(answer, HoldAnswered)
    assert answer.state == DENIED
    assert "tue 08:00-18:00 Europe/Berlin" in answer.reason
    assert desk.holds.views() == ()
    assert [(one.state, one.note) for one in desk.changes] == [("denied", "outside of hours")]
    assert isinstance(desk.ask(terms("when=mon 08:00-18:00 UTC")), HoldOpened)


def test_every_rule_has_its_hours() -> None:
    both = (terms("", "a"), terms("when=sat 00:00-24:00 UTC", "b"))
    answer = Desk().ask(both)
    assert isinstance(answer, HoldAnswered)
    assert "of b" in answer.reason


# ---- escalation


def test_others_may_answer_after_the_delay() -> None:
    desk = Desk()
    ticket = desk.open(terms("within=1h, escalate=10m:managers"))
    assert "none of the groups" in desk.approve(ticket, "local:max", "managers")
    assert desk.holds.next_deadline() == 1_000 + 600 * 10**9
    desk.turn(599)
    assert "none of the groups" in desk.approve(ticket, "local:max", "managers")
    desk.turn(1)
    assert [(one.state, one.note, one.reason) for one in desk.changes][-1] == (
        "pending", "escalated", "managers may answer too")
    desk.turn(30)
    assert len(desk.changes) == 2
    assert desk.holds.views()[0].approvers == ("dba", "managers")
    assert desk.approve(ticket, "local:max", "managers") == ""
    assert desk.last.state == APPROVED


def test_the_first_group_may_still_answer() -> None:
    desk = Desk()
    ticket = desk.open(terms("within=1h, escalate=10m:managers"))
    desk.turn(601)
    assert desk.approve(ticket) == ""


# ---- break-glass


def test_the_asker_breaks_the_glass_alone_with_a_reason() -> None:
    desk = Desk()
    ticket = desk.open(terms("count=2, break-glass=oncall"))
    assert desk.holds.decide(ticket, True, "local:crew", ("oncall",), "", True) == "a reason is required"
    assert "not in the group" in desk.holds.decide(ticket, True, "local:crew", ("data",), "fire", True)
    assert "cannot answer" in desk.holds.decide(ticket, True, "local:crew", ("oncall",), "fire")
    assert desk.holds.decide(ticket, True, "local:crew", ("oncall",), "fire", True) == ""
    assert desk.last == HoldAnswered(7, APPROVED, "local:crew", "fire", ticket)
    assert (desk.changes[-1].note, desk.changes[-1].by, desk.changes[-1].reason) == (
        "break-glass", "local:crew", "fire")


def test_it_breaks_only_the_glass_of_its_own_rule() -> None:
    desk = Desk()
    ticket = desk.open((terms("break-glass=oncall", "a"), terms("", "b")))
    assert desk.holds.decide(ticket, True, "local:crew", ("oncall",), "fire", True) == ""
    assert desk.answers == []
    assert desk.approve(ticket) == ""
    assert desk.last.state == APPROVED


def test_there_is_no_glass_where_the_rule_has_none() -> None:
    desk = Desk()
    assert "no break-glass" in desk.holds.decide(desk.open(terms()), True, "local:crew", ("oncall", ""), "fire", True)


# ---- used once


def test_what_was_approved_is_used_once_and_by_its_session() -> None:
    desk = Desk()
    ticket = desk.open(terms())
    desk.approve(ticket)
    assert not desk.holds.use("s2", 8, ticket, 7)
    assert desk.holds.use("s1", 8, ticket, 7)
    assert not desk.holds.use("s1", 9, ticket, 7)
    assert desk.states == ["pending", "approved", "used"]
    assert (desk.changes[-1].operation, desk.changes[-1].session) == (8, "s1")


def test_nothing_is_used_before_it_is_approved_or_under_a_made_up_ticket() -> None:
    desk = Desk()
    ticket = desk.open(terms())
    assert not desk.holds.use("s1", 8, ticket, 7)
    assert not desk.holds.use("s1", 8, "aaaaaaaa", 7)
    assert desk.states == ["pending"]


def test_what_did_not_go_is_cancelled_once_that_is_said_and_by_the_end() -> None:
    desk = Desk()
    first = desk.open(terms())
    desk.approve(first)
    desk.holds.give_back("s1", 7)
    second = desk.open(terms(), operation=9)
    assert desk.states == ["pending", "approved", "cancelled", "pending"]
    desk.approve(second)
    desk.holds.end_session("s1", "gone")
    assert desk.states[-2:] == ["approved", "cancelled"]
    assert not desk.holds.use("s1", 9, second, 9)


def test_a_cancel_that_comes_after_the_approval_takes_nothing_back() -> None:
    desk = Desk()
    ticket = desk.open(terms())
    desk.approve(ticket)
    desk.holds.cancel_session("s1", "cancelled by the client")
    desk.holds.cancel("s1", 7, "too late")
    assert len(desk.answers) == 1
    assert desk.holds.use("s1", 8, ticket, 7)


def test_an_approval_that_comes_after_the_cancel_counts_for_nothing() -> None:
    desk = Desk()
    ticket = desk.open(terms())
    desk.holds.cancel_session("s1", "cancelled by the client")
    assert "no hold" in desk.approve(ticket)
    assert [answer.state for _, answer in desk.answers] == [CANCELLED]
    assert not desk.holds.use("s1", 8, ticket, 7)


def test_late_is_late_also_before_the_next_look() -> None:
    desk = Desk()
    ticket = desk.open(terms("within=10s"))
    desk.clock += 10 * 10**9
    assert "no hold" in desk.approve(ticket)
    desk.holds.expire()
    assert [answer.state for _, answer in desk.answers] == [EXPIRED]


# ---- reuse


def test_once_is_once() -> None:
    desk = Desk()
    ticket = desk.open(terms())
    desk.approve(ticket)
    desk.holds.use("s1", 8, ticket, 7)
    assert isinstance(desk.ask(terms(), operation=9), HoldOpened)


def granted(desk: Desk, rule: HoldTerms) -> str:
    ticket: str = desk.open(rule)
    desk.approve(ticket)
    assert desk.holds.use("s1", 8, ticket, 7)
    return ticket


def test_for_the_session_and_no_other() -> None:
    desk, rule = Desk(), terms("reuse=session")
    ticket = granted(desk, rule)
    assert desk.ask(rule, operation=9, exact=b"else", shape=b"else") == HoldAnswered(
        9, APPROVED, "local:ann", "", ticket)
    assert desk.holds.use("s1", 10, ticket, 9)
    assert (desk.changes[-1].state, desk.changes[-1].note, desk.changes[-1].operation) == ("used", "reused", 10)
    assert isinstance(desk.ask(rule, "s2"), HoldOpened)
    desk.holds.end_session("s1", "gone")
    assert isinstance(desk.ask(rule), HoldOpened)


@pytest.mark.parametrize("other", [
    {"shape": b"other"}, {"database": "else"}, {"action": "sql:delete public.customers"}, {"subject": "local:eve"},
    {"target": "else"}, {"workload": "else"},
], ids=lambda other: next(iter(other)))
def test_for_a_shape_bound_to_all_that_it_was_approved_for(other: dict[str, str]) -> None:
    desk, rule = Desk(), terms("reuse=shape:30m")
    ticket = granted(desk, rule)
    again = desk.ask(rule, "s2", exact=b"another constant")
    assert isinstance(again, HoldAnswered)
    assert (again.state, again.ticket) == (APPROVED, ticket)
    assert desk.holds.use("s2", 3, ticket, 7)
    assert isinstance(desk.ask(rule, "s3", **other), HoldOpened)


@pytest.mark.parametrize("rule", [terms("reuse=shape:30m, count=2"), terms("reuse=shape:30m", "other"),
                                  terms("reuse=shape:31m")], ids=["terms", "rule", "time"])
def test_another_rule_or_other_terms_are_asked_anew(rule: HoldTerms) -> None:
    desk = Desk()
    granted(desk, terms("reuse=shape:30m"))
    assert isinstance(desk.ask(rule, "s2"), HoldOpened)


def test_a_shape_stands_for_its_time_and_over_its_session() -> None:
    desk, rule = Desk(), terms("reuse=shape:30m")
    ticket = granted(desk, rule)
    desk.holds.end_session("s1", "gone")
    desk.turn(1799)
    assert isinstance(desk.ask(rule, "s2"), HoldAnswered)
    desk.turn(1)
    assert isinstance(desk.ask(rule, "s3"), HoldOpened)
    assert ("expired", ticket) in [(one.state, one.ticket) for one in desk.changes]


def test_without_a_shape_it_is_the_exact_text() -> None:
    desk, rule = Desk(), terms("reuse=shape:30m")
    ticket = desk.open(rule, shape=b"")
    desk.approve(ticket)
    assert isinstance(desk.ask(rule, "s2", shape=b""), HoldAnswered)
    assert isinstance(desk.ask(rule, "s3", shape=b"", exact=b"other"), HoldOpened)


def test_what_cannot_be_known_again_is_never_reused() -> None:
    desk, rule = Desk(), terms("reuse=shape:30m")
    desk.approve(desk.open(rule, shape=b"", exact=b""))
    assert isinstance(desk.ask(rule, "s2", shape=b"", exact=b""), HoldOpened)


def test_it_is_asked_anew_where_one_rule_wants_that() -> None:
    desk = Desk()
    both = (terms("reuse=session", "a"), terms("", "b"))
    ticket = desk.open(both)
    desk.approve(ticket)
    desk.holds.use("s1", 8, ticket, 7)
    assert isinstance(desk.ask(both, operation=9), HoldOpened)


def test_what_stands_can_be_revoked_by_who_may_answer() -> None:
    desk, rule = Desk(), terms("reuse=shape:30m")
    ticket = granted(desk, rule)
    assert [view.state for view in desk.holds.views()] == ["approved"]
    assert "none of the groups" in desk.holds.revoke(ticket, "local:eve", ("data",), "")
    assert desk.holds.revoke(ticket, "local:bob", ("dba",), "enough") == ""
    assert (desk.changes[-1].state, desk.changes[-1].by, desk.changes[-1].note) == (
        "cancelled", "local:bob", "revoked")
    assert isinstance(desk.ask(rule, "s2"), HoldOpened)
    assert "nothing" in desk.holds.revoke(ticket, "local:bob", ("dba",), "")


def test_a_hold_is_denied_and_not_revoked() -> None:
    desk = Desk()
    ticket = desk.open(terms())
    assert "deny it instead" in desk.holds.revoke(ticket, "local:bob", ("dba",), "")
    desk.approve(ticket)
    assert "deny it instead" in desk.holds.revoke(ticket, "local:bob", ("dba",), "")


def test_long_texts_are_cut_and_say_so() -> None:
    from enforcer.approval.views import TEXT, cut

    assert cut("x" * TEXT, TEXT) == "x" * TEXT
    assert cut("x" * (TEXT + 1), TEXT).endswith(f"({TEXT + 1} characters in all, cut here)")


def test_no_more_than_so_many_approvals_stand_for_one() -> None:
    """Each took its place for as long as its rule says, without end: what ends first gives way."""
    desk = Desk()
    rule = parse_hold("r", "approvers=dba, reuse=shape:30d")
    for number in range(EACH):
        ticket = desk.open(rule, shape=b"%d" % number, session=f"s{number}")
        desk.approve(ticket)
        assert desk.holds.use(f"s{number}", 8, ticket, 7)
        desk.turn(1)
    assert desk.approve(desk.open(rule, subject="local:other", session="other")) == ""
    assert len(desk.holds.views()) == EACH + 1
    ticket = desk.open(rule, shape=b"one more", session="more")
    assert desk.approve(ticket) == ""
    assert len(desk.holds.views()) == EACH + 1
    ended = [one for one in desk.changes if one.state == "cancelled"]
    assert [one.reason for one in ended] == [f"{EACH} approvals stand for local:crew, which is the most"]
    assert ended[0].session == "s0"
    assert desk.holds.use("more", 8, ticket, 7)
