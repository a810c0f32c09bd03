"""What somebody who is locked out asked for, or said yes to, is given up, whatever its state; nothing else is."""
from __future__ import annotations

import pytest
from desk import Desk

from agent.contract.locks import Lock, LockedOut
from enforcer.words.decisions import SESSION, SHAPE, HoldTerms
from enforcer.words.decisions import TICKET as TICKETS
from enforcer.words.inputs import HoldAnswered

DBA = HoldTerms("deletes", ("dba",), within=60)
TWO = HoldTerms("two", ("dba",), within=60, count=2)


def out(kind: str, name: str) -> LockedOut:
    return LockedOut([Lock(kind, name, "leaked", "local:root", 1)])  # type: ignore[arg-type]


LOCKS = pytest.mark.parametrize(("kind", "name"), [
    ("subject", "corp:ada"), ("subject", "local:crew"), ("workload", "crew"), ("target", "orders")])


@LOCKS
def test_what_waits(kind: str, name: str) -> None:
    desk = Desk()
    ticket = desk.open(DBA, subject="corp:ada")
    desk.holds.lock_out(out(kind, name).why)
    assert [(change.state, change.reason, change.note) for change in desk.changes[1:]] == [
        ("cancelled", f"{kind} {name} is locked: leaked", "locked")]
    assert desk.approve(ticket) == f"no hold {ticket} is pending"
    assert [answer.state for _, answer in desk.answers] == ["cancelled"]


@LOCKS
@pytest.mark.parametrize("reuse", [SESSION, SHAPE])
def test_what_stands(kind: str, name: str, reuse: str) -> None:
    desk = Desk()
    terms = HoldTerms("r", ("dba",), within=60, reuse=reuse, reuse_for=600 if reuse == SHAPE else 0)
    ticket = desk.open(terms, subject="corp:ada")
    assert desk.approve(ticket) == ""
    assert desk.holds.use("s1", 7, ticket, 7)
    desk.holds.lock_out(out(kind, name).why)
    assert desk.holds.views() == ()
    assert desk.open(terms, operation=8, subject="corp:ada") != ticket, "it is asked for anew"


@LOCKS
def test_tickets_and_elevations_are_forgotten(kind: str, name: str) -> None:
    desk = Desk()
    desk.ask(HoldTerms("t", ("dba",), mode=TICKETS), subject="corp:ada")
    ticket, _ = desk.holds.elevate("corp:ada", "crew", "orders", 600, "", (DBA,))
    assert desk.approve(ticket) == ""
    assert desk.elevated == {("corp:ada", "orders")}
    desk.holds.lock_out(out(kind, name).why)
    left = 0 if kind != "workload" else 1          # an elevation is a person's, through whatever it acts
    assert (len(desk.agent.kept), len(desk.elevated)) == (left, left)
    assert len(desk.start().views()) == left


def test_what_was_approved_and_did_not_go_yet() -> None:
    desk = Desk()
    ticket = desk.open(DBA, subject="corp:ada")
    assert desk.approve(ticket) == ""
    desk.holds.lock_out(out("target", "orders").why)
    assert not desk.holds.use("s1", 7, ticket, 7)


def test_a_ticket_that_is_just_being_used() -> None:
    desk = Desk()
    terms = HoldTerms("t", ("dba",), mode=TICKETS)
    desk.ask(terms, subject="corp:ada")
    [view] = desk.holds.views()
    assert desk.approve(view.ticket) == ""
    desk.agent.slow = True
    assert desk.ask(terms, operation=8, subject="corp:ada") is None
    desk.holds.lock_out(out("subject", "corp:ada").why)
    desk.agent.go_on()
    assert not desk.holds.use("s1", 8, view.ticket, 7)


def test_a_yes_of_who_is_locked_does_not_count() -> None:
    desk = Desk()
    ticket = desk.open(TWO)
    assert desk.approve(ticket, "local:eve") == ""
    desk.holds.lock_out(out("subject", "local:eve").why)
    assert desk.approve(ticket, "local:ann") == f"no hold {ticket} is pending"


def test_others_keep_theirs() -> None:
    desk = Desk()
    ticket = desk.open(DBA)
    for kind, name in (("subject", "orders"), ("subject", "corp:ada"), ("workload", "orders"), ("target", "crew")):
        desk.holds.lock_out(out(kind, name).why)
    assert desk.approve(ticket) == ""
    assert desk.answers == [("s1", HoldAnswered(7, "approved", "local:ann", "fine", ticket))]


def test_what_was_used_counts_until_somebody_of_it_is_out() -> None:
    """What was bound under it asks again when it is executed."""
    desk = Desk()
    ticket = desk.open(DBA)
    assert desk.approve(ticket, by="local:ann") == ""
    assert desk.holds.counts("s1", ticket), "it is about to be used"
    assert desk.holds.use("s1", 7, ticket, 7)
    assert desk.holds.counts("s1", ticket)
    assert not desk.holds.counts("s2", ticket)
    desk.holds.lock_out(out("subject", "local:bob").why)
    assert desk.holds.counts("s1", ticket)
    desk.holds.lock_out(out("subject", "local:ann").why)
    assert not desk.holds.counts("s1", ticket)


def test_what_was_used_counts_until_it_is_revoked() -> None:
    desk = Desk()
    ticket = desk.open(HoldTerms("r", ("dba",), within=60, reuse=SESSION))
    assert desk.approve(ticket) == ""
    assert desk.holds.use("s1", 7, ticket, 7)
    assert desk.holds.counts("s1", ticket)
    assert desk.holds.revoke(ticket, "local:ann", ("dba",), "") == ""
    assert not desk.holds.counts("s1", ticket)


def test_another_key() -> None:
    """What stands or waits without a connection is over; a hold's connection is its binding."""
    desk = Desk()
    waits = desk.open(DBA)
    stands = desk.open(HoldTerms("r", ("dba",), within=60, reuse=SESSION), session="s2")
    assert desk.approve(stands) == ""
    assert desk.holds.use("s2", 7, stands, 7)
    desk.ask(HoldTerms("t", ("dba",), mode=TICKETS), session="s3")
    ticket, _ = desk.holds.elevate("corp:ada", "crew", "orders", 600, "", (DBA,))
    assert desk.approve(ticket) == ""
    desk.holds.rekey(b"another key of thirty-two bytes!")
    assert [one.ticket for one in desk.holds.views()] == [waits]
    assert (desk.agent.kept, desk.elevated) == ({}, frozenset())
    assert {change.note for change in desk.changes[-3:]} == {"rekeyed"}
    assert desk.approve(waits) == ""
    assert desk.holds.use("s1", 7, waits, 7)
