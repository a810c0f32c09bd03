"""How often the block is repaired, and what else could undo it: pure."""
from __future__ import annotations

import pytest

from agent.block.beside import find_mangling
from agent.block.repairs import LONGEST, MOST, OFTEN, QUIET, Repairs

RULES, HOOK = ("nftables: weir lacks 'counter drop'",), ("hook connect4: is not attached to the cgroup",)


def test_rules_come_back_each_time_and_probes_after_longer_and_longer() -> None:
    repairs, now, attempts = Repairs(), 100.0, []
    while now < 220.0:                # somebody detaches them twice a second
        if repairs.may(HOOK, now):
            attempts.append(now)
            repairs.done(now)
        else:
            assert repairs.may(RULES, now)
        now += 0.5
    assert OFTEN < len(attempts) < 20
    assert attempts[-1] - attempts[-2] >= LONGEST
    assert "again and again" in repairs.again(attempts[-1])


def test_after_a_quiet_minute_it_is_as_before() -> None:
    repairs = Repairs()
    for number in range(OFTEN + 2):
        repairs.done(100.0 + number)
    assert repairs.again(107.0)
    assert not repairs.may(HOOK, 107.0)
    assert not repairs.again(200.0)
    repairs.done(200.0)
    assert repairs.may(HOOK, 200.5)


def test_what_cannot_be_repaired_is_tried_at_longer_intervals_and_is_nobodys_doing() -> None:
    repairs, now, attempts = Repairs(), 100.0, []
    while now < 220.0:
        if repairs.may(HOOK, now):
            attempts.append(now)
            repairs.done(now, whole=False)
        now += 1.0
    assert 5 < len(attempts) < 12
    assert not repairs.again(now)


def test_the_same_finding_is_recorded_once_in_a_while_with_its_count() -> None:
    repairs = Repairs()
    assert repairs.tell(RULES, 100.0) == 1
    assert [repairs.tell(RULES, 100.1 + number) for number in range(3)] == [0, 0, 0]
    assert repairs.tell(HOOK, 104.0) == 4, "another finding is told at once, with what was not told before"
    assert repairs.tell(HOOK, 104.0 + QUIET) == 1


def test_findings_that_differ_each_time_are_bounded_as_well() -> None:
    repairs = Repairs()
    told = [repairs.tell((f"nftables: weir lacks rule {number}",), 100.0 + number / 10) for number in range(300)]
    assert sum(count > 0 for count in told) <= 3 * MOST
    assert sum(told) + repairs._untold == 300, "none is forgotten"


LISTING = """
table inet weir {
	chain filter_output {
		type filter hook output priority 10; policy accept;
		ip daddr set 10.0.0.1
	}
}
table ip other {
	chain out {
		type {kind} hook {hook} priority {priority}; policy accept;
		{rule}
	}
}
"""


@pytest.mark.parametrize(("kind", "hook", "priority", "rule", "wrong"), [
    ("filter", "output", 10, "ip daddr set 10.0.0.1", True),
    ("route", "output", 1, "tcp dport set 80", True),
    ("route", "output", 1, "@th,16,16 set 80", True),
    ("filter", "postrouting", 0, "dup to 10.0.0.1", True),
    ("filter", "postrouting", 0, "queue num 1", True),
    ("filter", "output", -10, "ip daddr set 10.0.0.1", False),         # before our check, which sees what it is then
    ("nat", "output", -150, "dnat to 10.0.0.1", False),
    ("nat", "postrouting", 100, "masquerade", False),
    ("filter", "output", 10, "ip ttl set 64", False),
    ("filter", "output", 10, "accept", False),
    ("filter", "output", -300, "notrack", False),                      # then there is no redirect, and it is dropped
])
def test_what_changes_packets_behind_the_check(kind: str, hook: str, priority: int, rule: str, wrong: bool) -> None:
    text = LISTING.replace("{kind}", kind).replace("{hook}", hook).replace("{priority}", str(priority)).replace(
        "{rule}", rule)
    found = find_mangling(text, "weir")
    assert found == ([f"nftables: table ip other changes packets after Weir's check: '{rule}'"] if wrong else [])
