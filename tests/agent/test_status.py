"""What the agent says of itself, and how often."""
from __future__ import annotations

from agent.status import DEGRADED, ENFORCING, OTHERWISE, Health


def test_another_state_is_said_at_once_and_other_reasons_once_in_a_while() -> None:
    health = Health(starting=False, holes=(), probe=(), enforcer="", recorder="", launcher="")
    assert health.news(100.0) == (ENFORCING, ())
    assert health.news(100.1) is None
    health.holes = ("a rule is missing",)
    assert health.news(100.2) == (DEGRADED, ("a rule is missing",))
    health.holes = ("another is",)
    assert health.news(100.3) is None
    assert health.news(100.2 + OTHERWISE) == (DEGRADED, ("another is",))
    health.holes = ()
    assert health.news(100.3 + OTHERWISE) == (ENFORCING, ())
