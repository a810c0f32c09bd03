"""What is counted for the metrics."""
from __future__ import annotations

import msgspec
import pytest

from agent.contract.messages import TargetFigures
from enforcer.edge.tally import CLOSED, Tally
from enforcer.words.decisions import DENY, HOLD, PERMIT
from enforcer.words.events import HOLD as CHANGED
from enforcer.words.events import INTENT, HoldChanged, Intent

ASKED = HoldChanged(CHANGED, 1, 1, "s", 1, "abcdefgh", "pending", "", "", 9, b"")


def intent(decision: int, actor: str = "crew") -> Intent:
    return Intent(INTENT, 1, 1, "s", 1, actor, "query", decision, b"", b"", b"", (), (), (), "", "", False)


def test_operations_by_decision_and_none_of_weirs_own() -> None:
    one = Tally().of("orders")
    for decision in (PERMIT, PERMIT, PERMIT, DENY, HOLD, HOLD):
        one.decided(intent(decision))
    one.decided(intent(PERMIT, "weir"))
    assert one.figures("orders", 4) == TargetFigures("orders", 4, 0, 3, 1, 2, 0, 0, 0)


@pytest.mark.parametrize(("steps", "asked", "outcomes"), [
    ([("pending", ""), ("pending", "assented"), ("pending", "escalated"), ("approved", ""), ("used", "")], 1,
     {"approved": 1, "used": 1}),
    ([("pending", ""), ("expired", "")], 1, {"expired": 1}),
    ([("pending", ""), ("pending", "break-glass"), ("approved", "break-glass"), ("used", ""), ("used", "reused"),
      ("cancelled", "revoked")], 1, {"approved": 1, "used": 2, "cancelled": 1}),
    ([("denied", CLOSED)], 0, {"denied": 0}),
])
def test_what_becomes_of_what_people_are_asked(
    steps: list[tuple[str, str]], asked: int, outcomes: dict[str, int],
) -> None:
    tally = Tally()
    for state, note in steps:
        tally.hold_changed(msgspec.structs.replace(ASKED, state=state, note=note))
    assert (tally.asked, dict(tally.outcomes)) == (asked, outcomes)
