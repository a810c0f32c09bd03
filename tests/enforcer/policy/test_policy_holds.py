"""Terms of holds: each word, what it is read as, and what is said of one that is wrong."""
from __future__ import annotations

import pytest

from enforcer.policy.cedar import load_policies
from enforcer.policy.holds import HoldError, parse_hold
from enforcer.words.decisions import HoldTerms, Hours
from enforcer.words.errors import ConfigError

HELD = 'forbid (principal, action, resource) unless { context.approved };'


@pytest.mark.parametrize(("text", "more"), [
    ("", {}),
    ("count=2", {"count": 2}),
    ("mode=ticket", {"mode": "ticket"}),
    ("mode=ticket, valid=4h", {"mode": "ticket", "valid": 14400}),
    ("mode=wait, reuse=session", {"reuse": "session"}),
    ("reuse=shape:30m", {"reuse": "shape", "reuse_for": 1800}),
    ("reuse=command", {"reuse": "command", "reuse_for": 3600}),
    ("reuse=command:10m", {"reuse": "command", "reuse_for": 600}),
    ("reuse=once", {}),
    ("break-glass=oncall", {"break_glass": "oncall"}),
    ("within=1h, escalate=10m:managers cto", {
        "within": 3600, "escalate_after": 600, "escalate_to": ("managers", "cto")}),
    ("when=mon-fri 08:00-18:00 Europe/Berlin", {
        "hours": Hours((0, 1, 2, 3, 4), 480, 1080, "Europe/Berlin", "mon-fri 08:00-18:00 Europe/Berlin")}),
    ("when=sat-mon wed  22:00-06:00 UTC", {
        "hours": Hours((0, 2, 5, 6), 1320, 360, "UTC", "sat-mon wed 22:00-06:00 UTC")}),
    ("when=mon-sun 00:00-24:00 UTC", {"hours": Hours(tuple(range(7)), 0, 1440, "UTC", "mon-sun 00:00-24:00 UTC")}),
])
def test_terms(text: str, more: dict[str, object]) -> None:
    assert parse_hold("r", f"approvers=dba, {text}") == HoldTerms("r", ("dba",), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("part", "right"), [
    ("count=0", "count=2"), ("count=11", "count=2"), ("count=two", "count=2"), ("count=", "count=2"),
    ("within=31d", "within=15m"), ("within=-1m", "within=15m"), ("within=1.5h", "within=15m"),
    ("reason=yes", "reason=required"), ("mode=later", "mode=ticket"), ("valid=1h", "mode=ticket"),
    ("reuse=shape", "reuse=shape:30m"), ("reuse=shape:0m", "reuse=shape:30m"), ("reuse=session:1h", "reuse=session"),
    ("reuse=always", "reuse=once"), ("reuse=command:", "reuse=command:10m"), ("reuse=command:0s", "reuse=command:10m"),
    ("when=mon-fri 08:00-18:00", "Europe/Berlin"), ("when=08:00-18:00 UTC", "mon-fri"),
    ("when=mon-fri 08:00-18:00 Nowhere/Land", "Europe/Berlin"),
    ("when=mon-fri 08:00-18:00 ../../etc/passwd", "Europe/Berlin"),
    ("when=mon-fri 08:00-08:00 UTC", "08:00-18:00"), ("when=mon-fri 08:00-24:30 UTC", "08:00-18:00"),
    ("when=mon-fri 25:00-26:00 UTC", "08:00-18:00"), ("when=mo-fr 08:00-18:00 UTC", "mon-fri"),
    ("when=always", "mon-fri"), ("break-glass=", "break-glass=GROUP"), ("break-glass=a b", "break-glass=GROUP"),
    ("escalate=10m", "escalate=10m:GROUP"), ("escalate=:managers", "escalate=10m:GROUP"),
    ("escalate=15m:managers", "less than within="), ("approver=dba", "approvers=GROUP"),
    ("breakglass=x", "break-glass"),
])
def test_what_is_wrong_is_told_with_what_would_be_right(part: str, right: str) -> None:
    with pytest.raises(HoldError) as raised:
        parse_hold("r", f"approvers=dba, {part}, reason=optional" if "reason" not in part else f"approvers=dba, {part}")
    assert raised.value.part == part
    assert right in str(raised.value)


def test_ticket_and_reuse_do_not_go_together() -> None:
    with pytest.raises(HoldError, match="once"):
        parse_hold("r", "approvers=dba, mode=ticket, reuse=session")


def test_a_word_is_said_once() -> None:
    with pytest.raises(HoldError, match="said twice"):
        parse_hold("r", "approvers=dba, within=1h, within=7d")


def test_the_place_is_the_part_that_is_wrong() -> None:
    text = f'@id("a")\n@hold("approvers=dba,\n  count=none")\n{HELD}'
    with pytest.raises(ConfigError) as raised:
        load_policies({"f.cedar": "\n" + text})
    assert (raised.value.file, raised.value.line, raised.value.column) == ("f.cedar", 4, 3)


def test_who_answers_must_be_said_and_the_place_is_the_annotation() -> None:
    with pytest.raises(ConfigError) as raised:
        load_policies({"f.cedar": f'  @id("a")   @hold("count=2") {HELD}'})
    assert (raised.value.line, raised.value.column) == (1, 14)
