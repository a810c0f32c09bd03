"""The terms of a hold: `@hold("approvers=dba, count=2, within=15m, when=mon-fri 08:00-18:00 Europe/Berlin")`.

One table: a word, what reads its value, and what would be right.  Source of zones: the system's tz database.
"""
from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final
from zoneinfo import ZoneInfo

from enforcer.words.decisions import COMMAND, ONCE, SESSION, SHAPE, TICKET, WAIT, HoldTerms, Hours

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
APPROVERS: Final = 10                 # distinct ones at most
COMMAND_FOR: Final = 3600             # seconds that an approval stands for a command, where nothing else is said
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME: Final = re.compile(r"[1-9]\d{0,6}[smhd]")
_LONGEST: Final = 30 * 86400          # seconds: what waits longer is forgotten by everybody
_GROUP: Final = re.compile(r"[^\s,=:\"]{1,100}")
_ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9][A-Za-z0-9_+-]*){0,2}")
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)")


class HoldError(Exception):
    """`part` is what is wrong, as it was written; empty: something is not there."""

    def __init__(self, part: str, message: str) -> None:
        super().__init__(message)
        self.part = part


def parse_hold(rule: str, text: str) -> HoldTerms:
    found: dict[str, Any] = {}
    said: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, _, value = (word.strip() for word in part.partition("="))
        read = _WORDS.get(key)
        if read is None:
            raise HoldError(part, f'"{part}" is not one of {", ".join(right for _, right in _WORDS.values())}')
        if key in said:
            raise HoldError(part, f"{key} is said twice; once would be right")
        made = read[0](value)
        if made is None:
            raise HoldError(part, f'"{part}" cannot be read; {read[1]} would be right')
        said[key] = part
        found |= made
    if not found.get("approvers"):
        raise HoldError("", 'names nobody who may answer: @hold("approvers=dba") would be right')
    terms = HoldTerms(rule, **found)
    _check(terms, said)
    return terms


def _check(terms: HoldTerms, said: dict[str, str]) -> None:
    """What does not go together."""
    if terms.mode == TICKET and terms.reuse != ONCE:
        raise HoldError(said["reuse"], "a ticket lets its operation pass once: reuse= goes with mode=wait only")
    if terms.mode != TICKET and "valid" in said:
        raise HoldError(said["valid"], "valid= is how long an approved ticket may be used: mode=ticket goes with it")
    if terms.escalate_after and terms.escalate_after >= terms.within:
        raise HoldError(said["escalate"], f"escalates after {terms.escalate_after} s, when nobody may answer any more; "
                                          f"less than within= ({terms.within} s) would be right")


def _seconds(value: str) -> int:
    """0 where it is no time."""
    found = int(value[:-1]) * _UNITS[value[-1]] if _TIME.fullmatch(value) else 0
    return found if found <= _LONGEST else 0


def _time(field: str) -> Callable[[str], dict[str, Any] | None]:
    return lambda value: {field: seconds} if (seconds := _seconds(value)) else None


def _groups(value: str) -> tuple[str, ...]:
    """Empty where one is none."""
    words = tuple(dict.fromkeys(value.split()))
    return words if all(map(_GROUP.fullmatch, words)) else ()


def _approvers(value: str) -> dict[str, Any] | None:
    return {"approvers": groups} if (groups := _groups(value)) else None


def _count(value: str) -> dict[str, Any] | None:
    return {"count": int(value)} if re.fullmatch(r"[1-9]\d?", value) and int(value) <= APPROVERS else None


def _break_glass(value: str) -> dict[str, Any] | None:
    return {"break_glass": value} if _GROUP.fullmatch(value) else None


def _reuse(value: str) -> dict[str, Any] | None:
    kind, colon, time = value.partition(":")
    if kind in (SHAPE, COMMAND) and (seconds := _seconds(time)):
        return {"reuse": kind, "reuse_for": seconds}
    if value == COMMAND:
        return {"reuse": COMMAND, "reuse_for": COMMAND_FOR}
    return {"reuse": kind} if kind in (ONCE, SESSION) and not colon else None


def _escalate(value: str) -> dict[str, Any] | None:
    time, _, names = value.partition(":")
    seconds, groups = _seconds(time), _groups(names)
    return {"escalate_after": seconds, "escalate_to": groups} if seconds and groups else None


def _when(value: str) -> dict[str, Any] | None:
    *named, clock, zone = value.split() if len(value.split()) >= 3 else ("", "", "")
    days = [day for word in named for day in _days(word)]
    times = _CLOCK.fullmatch(clock)
    if not named or not all(map(_days, named)) or times is None or not _is_zone(zone):
        return None
    begin, end = (int(times[at]) * 60 + int(times[at + 1]) for at in (1, 3))
    if end > 24 * 60 or begin == end:
        return None
    return {"hours": Hours(tuple(sorted(set(days))), begin, end, zone, " ".join(value.split()))}


def _days(word: str) -> tuple[int, ...]:
    """Of "mon" or "mon-fri"; over the week's end too."""
    first, dash, last = word.lower().partition("-")
    if first not in DAYS or (dash and last not in DAYS):
        return ()
    begin = DAYS.index(first)
    count = (DAYS.index(last) - begin) % 7 if dash else 0
    return tuple((begin + day) % 7 for day in range(count + 1))


def _is_zone(name: str) -> bool:
    try:
        return bool(_ZONE.fullmatch(name)) and bool(ZoneInfo(name))
    except (OSError, ValueError):     # ZoneInfoNotFoundError is a KeyError
        return False
    except KeyError:
        return False


_WORDS: Final[dict[str, tuple[Callable[[str], dict[str, Any] | None], str]]] = {
    "approvers": (_approvers, "approvers=GROUP [GROUP ...]"),
    "count": (_count, f"count=2 (up to {APPROVERS})"),
    "within": (_time("within"), "within=15m (s, m, h or d, up to 30d)"),
    "reason": (lambda value: {"reason_required": value == "required"} if value in ("required", "optional") else None,
               "reason=required"),
    "mode": (lambda value: {"mode": value} if value in (WAIT, TICKET) else None, "mode=wait or mode=ticket"),
    "valid": (_time("valid"), "valid=1h (s, m, h or d, up to 30d)"),
    "reuse": (_reuse, "reuse=once, reuse=session, reuse=command, reuse=command:10m or reuse=shape:30m"),
    "when": (_when, "when=mon-fri 08:00-18:00 Europe/Berlin"),
    "break-glass": (_break_glass, "break-glass=GROUP"),
    "escalate": (_escalate, "escalate=10m:GROUP [GROUP ...]"),
}
