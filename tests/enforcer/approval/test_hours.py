"""Time windows in named zones, over midnight, and over the change to summer time."""
from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from enforcer.approval.hours import is_within
from enforcer.policy.holds import parse_hold

NANO = 1_000_000_000


def within(when: str, local: str, zone: str) -> bool:
    hours = parse_hold("r", f"approvers=dba, when={when}").hours
    assert hours is not None
    return is_within(hours, int(datetime.fromisoformat(local).replace(tzinfo=ZoneInfo(zone)).timestamp()) * NANO)


@pytest.mark.parametrize(("when", "local", "zone", "open_"), [
    ("mon-fri 08:00-18:00 Europe/Berlin", "2026-01-05 08:00", "Europe/Berlin", True),
    ("mon-fri 08:00-18:00 Europe/Berlin", "2026-01-05 07:59", "Europe/Berlin", False),
    ("mon-fri 08:00-18:00 Europe/Berlin", "2026-01-05 17:59", "Europe/Berlin", True),
    ("mon-fri 08:00-18:00 Europe/Berlin", "2026-01-05 18:00", "Europe/Berlin", False),
    ("mon-fri 08:00-18:00 Europe/Berlin", "2026-01-10 12:00", "Europe/Berlin", False),
    ("mon-fri 08:00-18:00 Europe/Berlin", "2026-01-05 07:30", "UTC", True),
    ("mon-fri 08:00-18:00 Europe/Berlin", "2026-07-06 06:30", "UTC", True),
    ("mon-fri 08:00-18:00 Europe/Berlin", "2026-01-05 06:30", "UTC", False),
    ("fri 22:00-06:00 UTC", "2026-01-09 23:00", "UTC", True),
    ("fri 22:00-06:00 UTC", "2026-01-10 05:59", "UTC", True),
    ("fri 22:00-06:00 UTC", "2026-01-10 06:00", "UTC", False),
    ("fri 22:00-06:00 UTC", "2026-01-09 05:00", "UTC", False),
    ("mon-sun 00:00-24:00 UTC", "2026-01-11 23:59", "UTC", True),
    ("mon 09:00-17:00 America/New_York", "2026-01-06 03:00", "Asia/Tokyo", True),
])
def test_windows(when: str, local: str, zone: str, open_: bool) -> None:
    assert within(when, local, zone) is open_
