"""When a rule lets anybody be asked.  Pure but for the system's time zones, which are read once a zone."""
from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from enforcer.words.decisions import Hours

_zones: Final[dict[str, ZoneInfo]] = {}


def is_within(hours: Hours, now: int) -> bool:
    """`now`: nanoseconds UTC.  Hours past midnight belong to the day that they began in."""
    zone = _zones.get(hours.zone)
    if zone is None:
        zone = _zones[hours.zone] = ZoneInfo(hours.zone)
    local = datetime.fromtimestamp(now // 1_000_000_000, zone)
    minute = local.hour * 60 + local.minute
    if hours.begin < hours.end:
        return local.weekday() in hours.days and hours.begin <= minute < hours.end
    if minute >= hours.begin:
        return local.weekday() in hours.days
    return minute < hours.end and (local - timedelta(days=1)).weekday() in hours.days
