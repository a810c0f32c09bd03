"""Tickets and elevations: refused, kept, approved, passed once; over restarts, and where the agent is broken."""
from __future__ import annotations

import msgspec
import pytest
from desk import Desk
from msgspec import structs

from agent.contract.messages import TICKETS
from enforcer.approval.asked import KEPT_LIMIT, parse_asked, render_asked
from enforcer.approval.shelf import EACH
from enforcer.policy.holds import parse_hold
from enforcer.words.commands import Hold
from enforcer.words.decisions import HoldTerms
from enforcer.words.inputs import HoldAnswered

TICKET = parse_hold("r", "approvers=dba, mode=ticket, within=1h, valid=2h")


def refused(desk: Desk, session: str = "s1", **more: object) -> str:
    """The ticket that the refusal names."""
    assert desk.ask(TICKET, session, **more) is None
    assert desk.last.state == "ticket", desk.last
    return str(desk.last.ticket)


def test_refused_then_passed_once_in_whatever_session() -> None:
    desk = Desk()
    ticket = refused(desk)
    again = desk.ask(TICKET, "s2", 3)
    assert isinstance(again, HoldAnswered)
    assert (again.state, again.ticket) == ("ticket", ticket)
    assert desk.approve(ticket) == ""
    assert desk.ask(TICKET, "s3", 4) is None
    assert desk.answers[-1] == ("s3", HoldAnswered(4, "approved", "local:ann", "", ticket))
    assert desk.holds.use("s3", 5, ticket, 4)
    assert desk.states == ["pending", "approved", "used"]
    assert (desk.changes[-1].session, desk.changes[-1].operation) == ("s3", 5)
    assert refused(desk, "s4") != ticket


@pytest.mark.parametrize("other", [
    {"exact": b"other"}, {"database": "else"}, {"action": "sql:delete public.customers"}, {"subject": "local:eve"},
    {"target": "else"}, {"workload": "else"}, {"asked": b"other"},
], ids=lambda other: next(iter(other)))
def test_it_is_bound(other: dict[str, object]) -> None:
    desk = Desk()
    ticket = refused(desk)
    desk.approve(ticket)
    assert refused(desk, "s2", **other) != ticket


def test_two_at_once_one_passes() -> None:
    desk = Desk()
    ticket = refused(desk)
    desk.approve(ticket)
    desk.agent.slow = True
    assert desk.ask(TICKET, "s2") is None
    assert desk.ask(TICKET, "s3") is None
    desk.agent.go_on()
    states = {session: answer.state for session, answer in desk.answers[-2:]}
    assert states == {"s2": "approved", "s3": "ticket"}


def test_nothing_passes_before_the_agent_has_forgotten_it() -> None:
    desk = Desk()
    ticket = refused(desk)
    desk.approve(ticket)
    desk.agent.slow = True
    before = len(desk.answers)
    desk.ask(TICKET, "s2")
    assert len(desk.answers) == before
    assert ticket in desk.agent.kept
    desk.agent.go_on()
    assert desk.last.state == "approved"
    assert ticket not in desk.agent.kept


def test_what_cannot_be_marked_as_used_does_not_pass() -> None:
    desk = Desk()
    ticket = refused(desk)
    desk.approve(ticket)
    desk.agent.broken = "the disk is full"
    desk.ask(TICKET, "s2")
    assert desk.last.state == "denied"
    assert not desk.holds.use("s2", 8, ticket, 7)
    assert desk.states[-1] == "cancelled"


def test_what_cannot_be_kept_is_denied_and_counts_for_nothing() -> None:
    desk = Desk()
    desk.agent.broken = "the disk is full"
    desk.ask(TICKET)
    assert desk.last.state == "denied"
    assert "the disk is full" in desk.last.reason
    assert desk.holds.views() == ()


@pytest.mark.parametrize("approved", [False, True])
def test_over_a_restart(approved: bool) -> None:
    desk = Desk()
    ticket = refused(desk)
    if approved:
        desk.approve(ticket)
    desk.start()
    assert [view.ticket for view in desk.holds.views()] == [ticket]
    if not approved:
        assert desk.approve(ticket) == ""
    desk.ask(TICKET, "s2", 4)
    assert desk.last.state == "approved"
    assert desk.holds.use("s2", 5, ticket, 4)
    desk.start()
    assert desk.holds.views() == ()
    assert refused(desk, "s3") != ticket


def test_killed_between_claim_and_use_it_does_not_pass_again() -> None:
    desk = Desk()
    ticket = refused(desk)
    desk.approve(ticket)
    desk.ask(TICKET, "s2")
    desk.start()
    assert refused(desk, "s3") != ticket


def test_holds_are_not_kept() -> None:
    desk = Desk()
    desk.open(HoldTerms("r", ("dba",)))
    desk.start()
    assert desk.holds.views() == ()


def test_its_times_go_on_over_a_restart_whichever_clock_is_first() -> None:
    desk = Desk()
    first = refused(desk)
    desk.clock += 3601 * 10**9        # the host's UTC clock was set back meanwhile
    desk.start()
    assert [(one.ticket, one.state) for one in desk.changes if one.state == "expired"] == [(first, "expired")]
    assert desk.agent.kept == {}


def reboot(desk: Desk, seconds: int) -> None:
    """That much later, as far as the clock that anybody may set says."""
    desk.boot += "'"
    desk.utc, desk.clock = desk.utc + seconds * 10**9, 5
    desk.start()


def test_in_another_boot_what_waits_goes_on_by_the_clock() -> None:
    desk = Desk()
    second = refused(desk)
    reboot(desk, 3601)
    assert (second, "expired") in [(one.ticket, one.state) for one in desk.changes]
    third = refused(desk)
    reboot(desk, 3000)
    assert [view.ticket for view in desk.holds.views()] == [third]
    desk.turn(599)
    assert [view.ticket for view in desk.holds.views()] == [third]
    desk.turn(1)
    assert desk.states[-1] == "expired"


def test_in_another_boot_nothing_goes_on_by_a_clock_that_is_behind() -> None:
    desk = Desk()
    first = refused(desk)
    desk.turn(60)
    refused(desk, exact=b"other")
    reboot(desk, -1)
    assert desk.holds.views() == ()
    assert desk.agent.kept == {}
    assert (first, "cancelled") in [(one.ticket, one.state) for one in desk.changes]


@pytest.mark.parametrize("boot", ["two", ""], ids=["another", "not known"])
def test_what_was_approved_ends_with_the_boot(boot: str) -> None:
    """Its monotonic clock is gone, and the other was set back to when it began: it was in force for ever."""
    desk = Desk()
    ticket = refused(desk)
    desk.approve(ticket)
    elevation, _ = desk.holds.elevate("local:ada", "ada", "orders", 3600, "x", (ASKED,))
    desk.approve(elevation)
    desk.boot, desk.clock = boot, 5
    desk.start()
    assert desk.holds.views() == ()
    assert desk.elevated == frozenset()
    assert desk.agent.kept == {}
    assert [one.reason for one in desk.changes[-2:]] == [
        "the host was started anew: how much of its time is over is not known"] * 2


def test_in_another_boot_others_may_answer_when_their_time_has_come_and_not_before() -> None:
    desk = Desk()
    rule = parse_hold("r", "approvers=dba, mode=ticket, within=1h, escalate=10m:managers")
    assert desk.ask(rule) is None
    ticket = desk.last.ticket
    desk.boot, desk.clock, desk.utc = "two", 3600 * 10**9, desk.utc + 60 * 10**9      # an hour of the other boot
    desk.start()
    desk.holds.expire()
    assert "none of the groups" in desk.approve(ticket, group="managers")
    desk.turn(540)
    assert desk.approve(ticket, group="managers") == ""


def test_an_approved_ticket_has_its_time() -> None:
    desk = Desk()
    ticket = refused(desk)
    desk.turn(3599)
    desk.approve(ticket)
    desk.turn(7199)
    assert [view.state for view in desk.holds.views()] == ["approved"]
    desk.turn(1)
    assert desk.states[-1] == "expired"
    assert refused(desk, "s2") != ticket


def test_what_was_kept_by_nobody_is_not_taken() -> None:
    desk = Desk()
    refused(desk)
    content = next(iter(desk.agent.kept.values()))
    assert parse_asked(content) is not None
    for wrong in (b"", b"\xc1", content[:-1], content + b"\0", msgspec.msgpack.encode({"view": 1})):
        assert parse_asked(wrong) is None
    desk.holds.restore({"aaaaaaaa": b"rubbish", desk.last.ticket: content})
    assert len(desk.holds.views()) == 1


def test_what_a_broken_enforcer_kept_is_none_for_ever() -> None:
    """Under another's name nothing that forgets it finds it; and in force for years it would outlive its mending."""
    desk = Desk()
    ticket, _ = desk.holds.elevate("local:ada", "ada", "orders", 3600, "x", ())
    kept = parse_asked(desk.agent.kept[ticket])
    assert kept is not None
    long = render_asked(structs.replace(kept, deadline=2**62, view=structs.replace(kept.view, until=2**62)))
    desk.agent.kept = {"zzzzzzzz": long}
    desk.start()
    assert desk.elevated == frozenset()
    desk.agent.kept = {ticket: long}
    desk.start()
    assert desk.elevated == {("local:ada", "orders")}
    desk.turn(86400)
    assert desk.elevated == frozenset()


def test_without_what_tells_it_again_there_is_no_ticket() -> None:
    answer = Desk().ask(TICKET, exact=b"", inexact="send it alone")
    assert isinstance(answer, HoldAnswered)
    assert answer.state == "denied"
    assert answer.reason.endswith("cannot be told outside of this session: send it alone")


def test_one_subject_cannot_take_every_place() -> None:
    desk = Desk()
    for number in range(EACH):
        refused(desk, exact=b"%d" % number)
    answer = desk.ask(TICKET, exact=b"one more")
    assert isinstance(answer, HoldAnswered)
    assert "the most" in answer.reason
    assert refused(desk, subject="local:other")


@pytest.mark.parametrize("letter", ["t", "é", "語", "\U0001F600"])
def test_what_is_too_long_to_be_kept_is_cut_for_people_only(letter: str) -> None:
    """Of names that take four bytes a letter it was too long all the same: the approver's yes ended the enforcer."""
    desk = Desk()
    rule = parse_hold("r", "approvers=dba, mode=ticket")
    context = desk.context(exe="/" + letter * (4000 // len(letter.encode())))
    command = Hold(1, (rule,), "sql:delete " + letter * 5000, letter * 20_000, (letter * 9000,) * 9, ("r",), b"d",
                   "shop", b"exact")
    assert desk.holds.open(context, command) is None
    assert desk.last.state == "ticket"
    assert max(map(len, desk.agent.kept.values())) <= KEPT_LIMIT
    assert desk.approve(desk.last.ticket) == ""
    desk.start()
    assert desk.holds.open(context, command) is None
    assert desk.last.state == "approved"


def test_what_is_too_long_even_then_is_no_ticket() -> None:
    desk = Desk()
    rules = tuple(parse_hold(f"rule {number} {'x' * 200}", "approvers=dba, mode=ticket") for number in range(100))
    assert desk.ask(rules) is None
    assert (desk.last.state, desk.holds.views()) == ("denied", ())
    assert "limit" in desk.last.reason


def test_a_session_that_ends_meanwhile_gets_nothing_and_the_ticket_is_gone() -> None:
    desk = Desk()
    ticket = refused(desk)
    desk.approve(ticket)
    desk.agent.slow = True
    desk.ask(TICKET, "s2")
    desk.holds.end_session("s2", "gone")
    desk.agent.go_on()
    assert desk.last.state == "denied"
    assert desk.states[-1] == "cancelled"
    assert not desk.holds.use("s2", 8, ticket, 7)


def test_nobody_goes_before_it_is_told_and_what_it_had_is_taken_back() -> None:
    """A protocol's mistake: the ticket was used while it was still kept, or stayed in force for ever."""
    desk = Desk()
    ticket = refused(desk)
    desk.approve(ticket)
    desk.agent.slow = True
    desk.ask(TICKET, "s2", 9)
    assert not desk.holds.use("s2", 10, ticket, 9)
    desk.agent.go_on()
    assert desk.answers[-1] == ("s2", HoldAnswered(9, "denied", "", "its ticket was taken back", ticket))
    assert (desk.states[-1], desk.holds.views(), desk.agent.kept) == ("cancelled", (), {})


@pytest.mark.parametrize("form", ["ticket", "elevation"])
def test_what_was_revoked_and_could_not_be_forgotten_is_tried_again(form: str) -> None:
    desk = Desk()
    if form == "ticket":
        ticket = refused(desk)
    else:
        ticket, _ = desk.holds.elevate("local:crew", "crew", "orders", 3600, "x", (ASKED,))
    desk.approve(ticket)
    desk.agent.broken = "the disk is broken"
    assert desk.holds.revoke(ticket, "local:ann", ("dba",), "over") == ""
    assert (desk.elevated, desk.holds.views()) == (frozenset(), ())
    assert ticket in desk.agent.kept
    desk.turn(1)
    assert ticket in desk.agent.kept
    desk.agent.broken = ""
    assert desk.holds.next_deadline() is not None
    desk.turn(1)
    assert desk.agent.kept == {}
    assert desk.holds.next_deadline() is None
    desk.start()
    assert desk.holds.views() == ()


def test_what_could_not_be_forgotten_takes_places() -> None:
    desk = Desk()
    for number in range(TICKETS):
        ticket = refused(desk, subject=f"local:{number}")
        desk.agent.broken = "the disk is broken"
        desk.holds.revoke(ticket, f"local:{number}", (), "")
        desk.agent.broken = ""
    answer = desk.ask(TICKET)
    assert isinstance(answer, HoldAnswered)
    assert "the most" in answer.reason
    desk.turn(1)
    refused(desk)


def test_a_ticket_is_revoked_by_its_asker_before_and_after_the_approval() -> None:
    desk = Desk()
    first = refused(desk)
    assert desk.holds.revoke(first, "local:crew", (), "not needed") == ""
    second = refused(desk)
    desk.approve(second)
    assert desk.holds.revoke(second, "local:crew", (), "not needed") == ""
    assert desk.agent.kept == {}
    assert refused(desk) not in (first, second)


# ---- elevations

ASKED = parse_hold("e", "approvers=dba, within=1h, reason=required")


def test_elevated_for_its_time() -> None:
    desk = Desk()
    ticket, error = desk.holds.elevate("local:ada", "ada", "orders", 3600, "quarter end", (ASKED,))
    assert not error
    assert desk.elevated == frozenset()
    view = desk.holds.views()[0]
    assert (view.form, view.subject, view.target, view.reason) == ("elevation", "local:ada", "orders", "quarter end")
    assert "cannot answer" in desk.approve(ticket, "local:ada")
    assert desk.approve(ticket) == ""
    assert desk.elevated == {("local:ada", "orders")}
    desk.turn(3599)
    assert desk.elevated
    desk.turn(1)
    assert desk.elevated == frozenset()
    assert desk.states == ["pending", "approved", "expired"]


def test_an_elevation_is_kept_and_revoked() -> None:
    desk = Desk()
    ticket, _ = desk.holds.elevate("local:ada", "ada", "orders", 3600, "x", (ASKED,))
    desk.approve(ticket)
    desk.turn(1800)
    desk.elevated = frozenset()
    desk.start()
    assert desk.elevated == {("local:ada", "orders")}
    assert "none of the groups" in desk.holds.revoke(ticket, "local:eve", ("data",), "")
    assert desk.holds.revoke(ticket, "local:bob", ("dba",), "over") == ""
    assert desk.elevated == frozenset()
    assert desk.agent.kept == {}


def test_who_asked_as_a_login_cannot_answer_as_the_local_user() -> None:
    """Nor after a restart; but may take it back."""
    desk = Desk()
    ticket, _ = desk.holds.elevate("corp:ada", "ada", "orders", 3600, "x", (ASKED,))
    desk.start()
    for approver in ("corp:ada", "local:ada"):
        assert "cannot answer" in desk.approve(ticket, approver)
    assert desk.elevated == frozenset()
    assert desk.approve(ticket) == ""
    assert desk.elevated == {("corp:ada", "orders")}
    assert desk.holds.revoke(ticket, "local:ada", (), "done") == ""
    assert desk.elevated == frozenset()


def test_policy_may_permit_it_without_asking() -> None:
    desk = Desk()
    desk.holds.elevate("local:ada", "ada", "orders", 60, "x", ())
    assert desk.elevated == {("local:ada", "orders")}
    assert desk.states == ["pending", "approved"]


def test_one_at_a_time_for_a_target() -> None:
    desk = Desk()
    desk.holds.elevate("local:ada", "ada", "orders", 60, "x", (ASKED,))
    assert "already" in desk.holds.elevate("local:ada", "ada", "orders", 60, "x", (ASKED,))[1]
    assert desk.holds.elevate("local:ada", "ada", "else", 60, "x", (ASKED,))[1] == ""


def test_an_elevation_lets_no_operation_through() -> None:
    desk = Desk()
    ticket, _ = desk.holds.elevate("local:crew", "crew", "orders", 60, "x", ())
    assert not desk.holds.use("s1", 1, ticket, 7)
