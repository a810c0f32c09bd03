"""Nobody answers what they asked for, and nobody is two approvers, by whichever of their names."""
from __future__ import annotations

import pytest
from desk import Desk

from agent.contract.locks import Lock, LockedOut
from agent.contract.people import People
from enforcer.words.decisions import HoldTerms

ONE = HoldTerms("deletes", ("dba",), within=60)
TWO = HoldTerms("two", ("dba",), within=60, count=2)
ADA = ("corp:ada", "local:crew", "local:ada-admin")


def desk(people: dict[str, tuple[str, ...]] | None = None) -> Desk:
    made = Desk()
    made.holds.people = People(people or {})
    return made


@pytest.mark.parametrize("approve", [True, False])
@pytest.mark.parametrize("subject", ["local:crew", "corp:ada"])
def test_who_asked_answers_under_no_other_name(subject: str, approve: bool) -> None:
    here = desk({"ada": ADA})
    ticket = here.open(ONE, subject=subject)
    said = here.holds.decide(ticket, approve, "local:ada-admin", ("dba",), "fine")
    assert said == f"local:ada-admin asked for this as {subject} and cannot answer it"
    assert here.holds.is_waiting(ticket)
    assert here.approve(ticket, "local:ann") == ""


def test_who_is_logged_in_as_the_subject_that_asked_cannot_answer() -> None:
    """Two local users, both logged in as one subject."""
    here = desk()
    ticket = here.open(ONE, subject="corp:ada")
    said = here.holds.decide(ticket, True, "local:other", ("dba",), "fine", names=("corp:ada",))
    assert said == "local:other asked for this as corp:ada and cannot answer it"
    assert here.holds.decide(ticket, True, "local:other", ("dba",), "fine", names=("corp:eve",)) == ""


def test_an_elevation_too() -> None:
    here = desk({"ada": ADA})
    ticket, _ = here.holds.elevate("corp:ada", "crew", "orders", 600, "", (ONE,))
    assert "cannot answer it" in here.approve(ticket, "local:ada-admin")
    assert here.elevated == frozenset()


def test_two_names_of_one_person_are_one_approver() -> None:
    here = desk({"ann": ("local:ann", "corp:ann")})
    ticket = here.open(TWO)
    assert here.approve(ticket, "local:ann") == ""
    said = here.approve(ticket, "corp:ann")
    assert said == "corp:ann has approved it already as local:ann: another approver is wanted"
    assert here.holds.is_waiting(ticket)
    assert here.approve(ticket, "local:bob") == ""
    assert not here.holds.is_waiting(ticket)


def test_one_login_of_two_local_users_is_one_approver() -> None:
    here = desk()
    ticket = here.open(TWO)
    assert here.holds.decide(ticket, True, "local:one", ("dba",), "", names=("corp:bob",)) == ""
    assert "approved it already as local:one" in here.holds.decide(
        ticket, True, "local:two", ("dba",), "", names=("corp:bob",))
    assert here.holds.is_waiting(ticket)


def test_what_is_known_only_later_counts() -> None:
    """Both have said yes to a ticket when groups.toml says that they are one; and that one of them asked."""
    three = HoldTerms("three", ("dba",), within=60, count=3)
    here = desk()
    ticket = here.open(three)
    assert here.approve(ticket, "local:ann") == here.approve(ticket, "local:ann2") == ""
    here.holds.people = People({"ann": ("local:ann", "local:ann2"), "crew": ("local:crew", "local:bob")})
    assert here.approve(ticket, "local:eve") == ""
    assert here.holds.is_waiting(ticket), "two people"
    assert "asked for this" in here.approve(ticket, "local:bob")
    assert here.approve(ticket, "local:joe") == ""
    assert not here.holds.is_waiting(ticket)


def test_a_yes_of_who_turns_out_to_be_the_asker_counts_no_more() -> None:
    here = desk()
    ticket = here.open(TWO)
    assert here.approve(ticket, "local:ann") == ""
    here.holds.people = People({"x": ("local:ann", "local:crew")})
    assert here.approve(ticket, "local:bob") == ""
    assert here.holds.is_waiting(ticket)


def test_a_restart_forgets_no_name() -> None:
    terms = HoldTerms("t", ("dba",), within=60, count=2, mode="ticket")
    here = desk()
    here.ask(terms)
    (view,) = here.holds.views()
    assert here.holds.decide(view.ticket, True, "local:one", ("dba",), "", names=("corp:bob",)) == ""
    here.start()
    assert "approved it already as local:one" in here.holds.decide(
        view.ticket, True, "local:two", ("dba",), "", names=("corp:bob",))


def test_a_lock_of_who_said_yes_under_another_name() -> None:
    here = desk()
    ticket = here.open(TWO)
    here.holds.decide(ticket, True, "local:one", ("dba",), "", names=("corp:bob",))
    here.holds.lock_out(LockedOut([Lock("subject", "corp:bob", "leaked", "local:root", 1)]).why)
    assert not here.holds.is_waiting(ticket)


def test_who_asked_takes_back_under_any_name() -> None:
    here = desk({"ada": ADA})
    ticket, _ = here.holds.elevate("corp:ada", "crew", "orders", 600, "", (ONE,))
    assert "none of the groups" in here.holds.revoke(ticket, "local:bob", (), "")
    assert here.holds.revoke(ticket, "local:ada-admin", (), "") == ""
