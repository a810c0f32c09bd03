"""What the agent says of itself, and how often."""
from __future__ import annotations

import msgspec
from rich.console import Console

from agent.commands.screen import render_status
from agent.config import parse_config
from agent.contract.control import ServiceView, Status
from agent.network.resolve import Known, Places
from agent.status import DEGRADED, ENFORCING, OTHERWISE, Health, hints


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


def test_a_status_says_loudly_what_is_not_enforced() -> None:
    view = ServiceView(1, 1, 0)
    status = Status("enforcing", (), "weir", 1, 1, "x", True, (), view, view, 0, (), (), (), {}, ())
    shown = _shown(status)
    assert "crews reach targets through the enforcer, and nothing else" in shown
    shown = _shown(msgspec.structs.replace(status, modes={"crew": "record"}))
    assert "and nothing else" not in shown
    assert "egress: record for workload crew: NOT ENFORCED" in shown.splitlines()[1]


def _shown(status: Status) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(render_status(status))
    return captured.get()


def test_a_label_of_no_column_is_a_hint() -> None:
    """Else what was meant passes unmasked, and only the log says so."""
    config, report = parse_config("", "weir.toml")
    assert config is not None, report.problems
    [one] = [hint for hint in hints(config, Places((), (), Known()), {}, {"lost_labels": 1}, (), 0) if "label" in hint]
    assert one.startswith("1 [[target.label]] names a column that no database of the target has")
    assert not any("label" in hint for hint in hints(config, Places((), (), Known()), {}, {"lost_labels": 0}, (), 0))
