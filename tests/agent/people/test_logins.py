"""The table of logins: what the identity process says is held to what the agent knows."""
from __future__ import annotations

import pytest

from agent.contract.identity import Verified
from agent.people.logins import GRACE, PENDING, Login, Logins, Violation

NOW = 1_800_000_000
UP = 1000.0                           # seconds of CLOCK_BOOTTIME


def logins(**changed: object) -> Logins:
    whole = {"session": "s", "provider": "corp", "groups_given": frozenset({"dba", "data"}), "begun": NOW,
             "longest": 3600, "uid": 1000, "user": "ada", "since": UP} | changed
    made = Logins()
    made.add(Login(**whole))  # type: ignore[arg-type]
    return made


def verified(subject: str = "corp:ada", groups: tuple[str, ...] = ("dba",), session: str = "s") -> Verified:
    return Verified(session, subject, groups, NOW + 300)


def test_what_is_said_counts() -> None:
    made = logins()
    assert made.of_uid(1000) is None
    assert made.of_uid(1000, pending=True) is not None
    found = made.verify(verified(), NOW + 5, UP + 5)
    assert found is not None
    before, after = found
    assert (before.subject, after.subject, after.groups, after.opened) == ("", "corp:ada", ("dba",), NOW + 5)
    assert made.of_uid(1000) == after
    assert made.of_uid(1001) is None
    assert made.of_uid(-1) is None


@pytest.mark.parametrize("subject", ["local:root", "other:ada", "corp:", "corpx:ada", "ada", "Corp:ada", "corp:a\nb",
                                     "local:corp:ada", " corp:ada"])
def test_a_subject_outside_of_its_provider(subject: str) -> None:
    made = logins()
    with pytest.raises(Violation):
        made.verify(verified(subject), NOW, UP)
    assert made.of_uid(1000) is None


def test_groups_that_its_provider_does_not_give() -> None:
    with pytest.raises(Violation):
        logins().verify(verified(groups=("dba", "admins")), NOW, UP)


def test_another_subject_for_a_login() -> None:
    made = logins()
    made.verify(verified(), NOW, UP)
    with pytest.raises(Violation):
        made.verify(verified("corp:eve"), NOW, UP)
    assert made.of_uid(1000).subject == "corp:ada"  # type: ignore[union-attr]


def test_a_workloads_token_may_be_another_ones() -> None:
    made = logins(uid=-1, user="", workload="crew", longest=0)
    made.verify(verified(), NOW, UP)
    found = made.verify(verified("corp:svc2"), NOW, UP)
    assert found is not None
    assert (found[0].login, found[1].login) == ("s.1", "s.2")
    assert made.of_workload("crew") == found[1]


def test_a_session_that_nobody_began_is_none() -> None:
    made = logins()
    assert made.verify(verified(session="forged"), NOW, UP) is None
    assert len(list(made)) == 1


def test_other_groups_are_another_turn() -> None:
    made = logins()
    made.verify(verified(), NOW, UP)
    same = made.verify(verified(), NOW + 60, UP + 60)
    other = made.verify(verified(groups=("dba", "data")), NOW + 120, UP + 120)
    assert same is not None
    assert other is not None
    assert (same[1].turn, other[1].turn, other[1].groups) == (1, 2, ("data", "dba"))
    assert other[1].opened == NOW


def overdue(made: Logins, seconds: int, clock: int = 0) -> list[str]:
    """Why, this much later; `clock`: by how much somebody has set it meanwhile."""
    return [reason for _, reason in made.overdue(NOW + seconds + clock, UP + seconds)]


def test_how_long_it_lasts() -> None:
    made = logins()
    assert overdue(made, PENDING) == ["nobody confirmed it in time"]
    made.verify(verified(), NOW, UP)
    assert overdue(made, 300 + GRACE - 1) == []
    assert overdue(made, 300 + GRACE) == ["its token has expired"]
    made.verify(Verified("s", "corp:ada", ("dba",), NOW + 10**6), NOW + 100, UP + 100)
    assert overdue(made, 3599) == []
    assert overdue(made, 3600) == ["it has lasted as long as it may (max_session)"], "whatever is said later"


@pytest.mark.parametrize("clock", [-10**6, 10**6])
def test_a_clock_that_is_set_makes_none_longer(clock: int) -> None:
    made = logins()
    assert overdue(made, PENDING, clock)
    made.verify(Verified("s", "corp:ada", ("dba",), NOW + 10**8), NOW, UP)
    assert overdue(made, 3600, clock)
    workload = logins(uid=-1, workload="crew", longest=0)
    workload.verify(Verified("s", "corp:ada", ("dba",), NOW + 10**8), NOW, UP)
    assert overdue(workload, 3600, clock) == []


def test_an_end_is_for_good() -> None:
    made = logins()
    assert made.end("s") is not None
    assert made.end("s") is None
    assert made.verify(verified(), NOW, UP) is None
