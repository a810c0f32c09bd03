"""Holds as transcripts: opened, answered once, bound, never by the asker."""
from __future__ import annotations

import pytest
from desk import Desk

from agent.contract import control
from agent.contract.messages import HoldView
from enforcer.approval.holds import MOST
from enforcer.approval.views import REPORTED, fit
from enforcer.edge.channel import LISTED
from enforcer.words.commands import Hold
from enforcer.words.decisions import HoldTerms
from enforcer.words.inputs import HoldAnswered

DBA = HoldTerms("deletes-need-a-dba", ("dba",), within=60, reason_required=True)


def opened(desk: Desk, terms: tuple[HoldTerms, ...] = (DBA,), operation: int = 7, session: str = "s1") -> str:
    return desk.open(terms, operation=operation, session=session)


def hold(terms: tuple[HoldTerms, ...], operation: int = 7, binding: bytes = b"digest") -> Hold:
    return Hold(operation, terms, "sql:delete public.orders", "delete from orders", (), ("a-rule",), binding)


def test_approved_once() -> None:
    desk = Desk()
    ticket = opened(desk)
    assert desk.holds.decide(ticket, True, "local:ann", ("dba",), "quarter end") == ""
    assert desk.answers == [("s1", HoldAnswered(7, "approved", "local:ann", "quarter end", ticket))]
    assert "no hold" in desk.holds.decide(ticket, False, "local:bob", ("dba",), "no")
    assert [change.state for change in desk.changes] == ["pending", "approved"]


def test_the_asker_cannot_answer() -> None:
    desk = Desk()
    assert "cannot answer" in desk.holds.decide(opened(desk), True, "local:crew", ("dba",), "me")
    assert desk.answers == []


def test_only_the_named_group_answers() -> None:
    desk = Desk()
    assert "none of the groups" in desk.holds.decide(opened(desk), True, "local:ann", ("data", "ops"), "yes")
    assert desk.answers == []


@pytest.mark.parametrize("approve", [True, False])
def test_a_reason_is_asked_for(approve: bool) -> None:
    desk = Desk()
    assert desk.holds.decide(opened(desk), approve, "local:ann", ("dba",), "") == "a reason is required"
    assert desk.answers == []


def test_every_rule_must_be_satisfied() -> None:
    desk = Desk()
    ticket = opened(desk, (DBA, HoldTerms("big-ones-need-security", ("security",), within=60)))
    assert desk.holds.decide(ticket, True, "local:ann", ("dba",), "fine") == ""
    assert desk.answers == []
    assert desk.holds.decide(ticket, True, "local:eve", ("security",), "") == ""
    assert desk.answers[0][1].state == "approved"


def test_one_denial_ends_it() -> None:
    desk = Desk()
    ticket = opened(desk, (DBA, HoldTerms("other", ("security",))))
    assert desk.holds.decide(ticket, False, "local:ann", ("dba",), "not today") == ""
    assert desk.answers == [("s1", HoldAnswered(7, "denied", "local:ann", "not today", ticket))]


def test_expiry_is_a_denial_and_keeps_the_monotonic_clock() -> None:
    desk = Desk()
    ticket = opened(desk)
    desk.clock += 59_000_000_000
    desk.holds.expire()
    assert desk.answers == []
    desk.clock += 1_000_000_000
    desk.holds.expire()
    assert desk.answers[0][1].state == "expired"
    assert "no hold" in desk.holds.decide(ticket, True, "local:ann", ("dba",), "late")


def test_the_shortest_term_counts() -> None:
    desk = Desk()
    opened(desk, (DBA, HoldTerms("other", ("security",), within=5)))
    assert desk.holds.next_deadline() == 1_000 + 5_000_000_000


def test_cancelled_with_its_session_only() -> None:
    desk = Desk()
    first, second = opened(desk, session="s1"), opened(desk, session="s2")
    desk.holds.cancel_session("s1", "client closed")
    assert [view.ticket for view in desk.holds.views()] == [second]
    assert desk.answers[0][1].state == "cancelled"
    assert first != second


def test_too_many_are_not_held() -> None:
    desk = Desk()
    for operation in range(MOST):
        opened(desk, operation=operation)
    full = desk.holds.open(desk.context(), hold((DBA,), MOST))
    assert isinstance(full, HoldAnswered)
    assert (full.state, full.reason) == ("denied", "too many operations are held")


def test_no_terms_is_never_a_hold() -> None:
    answer = Desk().holds.open(Desk().context(), hold(()))
    assert isinstance(answer, HoldAnswered)
    assert answer.state == "denied"


def test_binding_differs_with_what_is_asked() -> None:
    bindings = set()
    for text in (b"one", b"two"):
        desk = Desk()
        desk.holds.open(desk.context(), hold((DBA,), binding=text))
        bindings.add(desk.changes[0].binding)
    assert len(bindings) == 2


def test_many_empty_parameters_are_not_all_kept() -> None:
    desk = Desk()
    desk.holds.open(desk.context(), Hold(1, (DBA,), "a", "t", ("",) * 65535, ("r",), b"d"))
    shown = desk.holds.views()[0].parameters
    assert len(shown) <= 101
    assert shown[-1] == "... (65435 more)"


def test_the_local_user_behind_a_login_cannot_answer() -> None:
    """Who asks as a provider's subject, and would answer as the local user that started the crew."""
    desk = Desk()
    ticket = desk.open(DBA, subject="corp:ada")
    for approver in ("corp:ada", "local:crew"):
        for answer in (True, False):
            assert "cannot answer" in desk.holds.decide(ticket, answer, approver, ("dba",), "me")
    assert desk.answers == []
    assert desk.approve(ticket, "local:other") == ""


def test_what_crews_report_hides_nobodys_operation() -> None:
    """All that may wait and stand, with texts as long as crews like, goes into one answer of the agent's."""
    long = "\U0001f600" * 4000
    view = HoldView(
        "abcdefgh", 1, 2, f"corp:{long[:250]}", "crew", 1, long, "orders", "shop", long, long, (long[:500],) * 8,
        ("rule",), ("dba",), False, "0" * 26, plan=long, reported=long[:REPORTED])
    shown = fit((view,) * 1200, LISTED)
    assert len(shown) == 1200
    assert len(control.render_frame(control.Approvals(shown))) < control.LIMIT
    assert {one.subject for one in shown} == {view.subject}
    assert fit((view,), LISTED)[0].reported == view.reported
