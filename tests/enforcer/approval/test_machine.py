"""The table: every pair of state and happening is a step or is none, and nothing leads out of an end."""
from __future__ import annotations

import itertools

import pytest

from enforcer.approval.machine import APPROVED, HAPPENINGS, PENDING, STANDING, STATES, STEPS, USE, is_open, step

EXPECTED = {
    ("pending", "assent"): "approved", ("pending", "refuse"): "denied", ("pending", "lapse"): "expired",
    ("pending", "give up"): "cancelled", ("approved", "use"): "used", ("approved", "lapse"): "expired",
    ("approved", "give up"): "cancelled",
}


@pytest.mark.parametrize(("state", "happening"), tuple(itertools.product(STATES, HAPPENINGS)))
def test_every_pair(state: str, happening: str) -> None:
    assert step(state, happening) == EXPECTED.get((state, happening))
    standing = APPROVED if (state, happening) == (APPROVED, USE) else EXPECTED.get((state, happening))
    assert step(state, happening, stands=True) == standing


def test_the_tables_know_every_state_and_nothing_else() -> None:
    for table in (STEPS, STANDING):
        assert set(table) == set(STATES)
        assert {after for row in table.values() for after in row.values()} <= set(STATES)
        assert {happening for row in table.values() for happening in row} <= set(HAPPENINGS)


def test_an_end_is_an_end() -> None:
    assert [state for state in STATES if is_open(state)] == [PENDING, APPROVED]
    reached, way = {PENDING}, [PENDING]
    while way:
        way = [after for state in way for after in STEPS[state].values() if after not in reached]
        reached.update(way)
    assert reached == set(STATES)
