"""Pure: the live view of what goes on: which sessions, in what order, how fast, and what a key does.

Rates are what has come since the picture before; the first one has none.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.text import Text

from agent.commands.keyboard import DOWN, ENTER, PAGE, PAGE_UP, UP
from agent.commands.screen import COLOURS, place, safe
from agent.contract.control import Status
from agent.contract.messages import HoldView, SessionView
from agent.contract.said import span

REASONS: Final = 3                    # why it is not enforcing,
HOLDS: Final = 5                      # and holds, that are shown at most
WIDEST: Final = 32                    # characters of a cell
SMALL: Final = 8                      # lines: below that there is no room for holds
_MOVES: Final = {UP: -1, "k": -1, DOWN: 1, "j": 1}
_KEYS: Final = "up, down: choose   s: sort   t: target   enter: watch it   h: holds   q: leave"
_COUNTED: Final = (("sessions_total", "sessions/s"), ("flows_total", "flows/s"), ("refused", "refused/s"),
                   ("dns_questions", "names/s"), ("events", "events/s"))
HEAD: Final = ("SESSION", "WHO", "WORKLOAD", "PID", "WHERE", "OPS", "OPS/S", "STATE", "SINCE")
SPARED: Final = ("PID", "OPS/S", "OPS", "WORKLOAD")    # left out in this order where the terminal is too narrow


class Snapshot(msgspec.Struct, frozen=True):
    """`sessions`, `holds` None: `why_*` says why they are not shown."""

    at: int                           # nanoseconds UTC
    status: Status
    sessions: tuple[SessionView, ...] | None = None
    holds: tuple[HoldView, ...] | None = None
    why_no_sessions: str = ""
    why_no_holds: str = ""


class Top:
    """`take` what there is, `press` a key, `draw`.  `opens`: what the screen is to show instead: a session's name, or
    HOLDS_BOARD."""

    def __init__(self) -> None:
        self.over = False
        self.opens = ""
        self._now: Snapshot | None = None
        self._rates: dict[str, float] = {}             # of the counters, a second,
        self._busy: dict[str, float] = {}              # and of operations, by session
        self._sort = 0
        self._target = ""             # empty: all
        self._chosen = ""
        self._first = 0               # row that is drawn first
        self._rows = 1

    def take(self, snapshot: Snapshot) -> None:
        before, self._now = self._now, snapshot
        seconds = (snapshot.at - before.at) / 1e9 if before is not None else 0
        if before is None or seconds <= 0 or before.status.enforcer.since != snapshot.status.enforcer.since:
            self._rates, self._busy = {}, {}           # another enforcer counts from 0 again
            return
        self._rates = _rates(before.status.statistics, snapshot.status.statistics, seconds)
        self._busy = _rates({one.session: one.operations for one in before.sessions or ()},
                            {one.session: one.operations for one in snapshot.sessions or ()}, seconds)

    # keys

    def press(self, key: str) -> None:
        if key == "q":
            self.over = True
        elif key == "s":
            self._sort = (self._sort + 1) % len(SORTS)
        elif key == "t":
            self._next_target()
        elif key == "h":
            self.opens = HOLDS_BOARD
        elif key == ENTER and self._current():
            self.opens = self._chosen
        elif key in _MOVES:
            self._move(_MOVES[key])
        elif key in (PAGE, " "):
            self._move(self._rows)
        elif key == PAGE_UP:
            self._move(-self._rows)

    def _next_target(self) -> None:
        names = ["", *sorted({one.name for one in self._now.status.targets} if self._now else ())]
        self._target = names[(names.index(self._target) + 1) % len(names)] if self._target in names else ""

    def _move(self, step: int) -> None:
        names = [one.session for one in self._listed()]
        if names:
            at = names.index(self._chosen) + step if self._chosen in names else 0
            self._chosen = names[max(0, min(at, len(names) - 1))]

    def _current(self) -> bool:
        return any(one.session == self._chosen for one in self._listed())

    def _listed(self) -> list[SessionView]:
        found = (self._now.sessions if self._now else None) or ()
        return sorted((one for one in found if self._target in ("", one.target)), key=self._key())

    def _key(self) -> Callable[[SessionView], Any]:
        how = SORTS[self._sort][1]
        return lambda one: (how(one, self._busy.get(one.session, 0.0)), one.since, one.session)

    # the picture

    def draw(self, console: Console, width: int, height: int) -> Text:
        """`height` lines of at most `width` cells."""
        if self._now is None:
            return Text()
        head, tail = self._head(self._now), self._tail(self._now, height)
        room = max(1, height - len(head) - len(tail) - 2)
        self._rows = max(1, room - 1)
        body = self._body(self._now, room, width)
        blank = [Text()] * (room - len(body))
        whole = [*head, *body, *blank, *tail, self._status(), Text(_KEYS, style="dim")]
        for line in whole:
            line.truncate(width, overflow="ellipsis")
        return Text("\n").join(whole[:height])

    def _head(self, now: Snapshot) -> list[Text]:
        status, values = now.status, now.status.statistics
        counts = ", ".join(f"{values.get(name, 0)} {name}" for name in ("sessions", "flows", "holds"))
        lines = [Text.assemble((status.state, COLOURS.get(status.state, "bold")),
                               f"  {counts if values else 'the enforcer does not say'}, "
                               f"{len(status.workloads)} workloads, {status.lag >> 10} KiB of journal waiting")]
        lines += [Text(f"  because {safe(reason)}", style="yellow") for reason in status.reasons[:REASONS]]
        lines.append(Text("  ".join(f"{self._rates.get(name, 0.0):.1f} {shown}" for name, shown in _COUNTED)))
        return lines

    def _body(self, now: Snapshot, room: int, width: int) -> list[Text]:
        if now.sessions is None:
            return [Text(f"sessions are not shown: {safe(now.why_no_sessions)}", style="yellow")]
        listed = self._listed()
        if not listed:
            return [Text(f"no session is open{f' with {self._target}' if self._target else ''}")]
        names = [one.session for one in listed]
        at = names.index(self._chosen) if self._chosen in names else 0
        self._first = max(at - self._rows + 1, min(self._first, at, max(0, len(listed) - self._rows)))
        some = listed[self._first:self._first + self._rows]
        rows = _fitting([HEAD, *(tuple(map(_cut, self._row(now, one))) for one in some)], width)
        widths = _widths(rows)
        return [Text("  ".join(f"{cell:{size}}" for cell, size in zip(row, widths, strict=True)).rstrip(),
                     "bold" if row is rows[0] else "reverse" if row[0] == safe(self._chosen) else "")
                for row in rows]

    def _row(self, now: Snapshot, one: SessionView) -> tuple[str, ...]:
        return (safe(one.session), safe(one.subject), safe(one.workload), str(one.pid), place(one),
                str(one.operations), f"{self._busy.get(one.session, 0.0):.1f}", safe(one.state),
                span(max(0, now.at - one.since)))

    def _tail(self, now: Snapshot, height: int) -> list[Text]:
        if height < SMALL:
            return []
        if now.holds is None:
            return [Text(f"holds are not shown: {safe(now.why_no_holds)}", style="yellow")]
        waiting = sorted((one for one in now.holds if one.state == "pending"), key=lambda one: one.since)
        shown = waiting[:min(HOLDS, max(1, height // 6))]
        lines = [Text(f"held {span(max(0, now.at - one.since))}: {safe(one.ticket)}  {safe(one.subject)}  "
                      f"{safe(one.target)}  {safe(one.action)}", style="bold yellow") for one in shown]
        more = len(waiting) - len(shown)
        return [*lines, *([Text(f"and {more} more wait for people")] if more else [])]

    def _status(self) -> Text:
        return Text(f"by {SORTS[self._sort][0]}" + (f", target {safe(self._target)} alone" if self._target else ""))


def _cut(cell: str) -> str:
    """A name that somebody made long does not push what stands behind it from the screen, in every row."""
    return cell if len(cell) <= WIDEST else f"{cell[:WIDEST - 1]}…"


def _widths(rows: Sequence[tuple[str, ...]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _fitting(rows: Sequence[tuple[str, ...]], width: int) -> list[tuple[str, ...]]:
    """Without the columns that matter least, so that those at the end, what a session is at, are seen."""
    found = list(rows)
    for spared in SPARED:
        if sum(widths := _widths(found)) + 2 * (len(widths) - 1) <= width:
            break
        at = found[0].index(spared)
        found = [row[:at] + row[at + 1:] for row in found]
    return found


def _rates(before: Mapping[str, int], now: Mapping[str, int], seconds: float) -> dict[str, float]:
    return {name: max(0, value - before.get(name, 0)) / seconds for name, value in now.items()}


HOLDS_BOARD: Final = "h"              # no session has this name
SORTS: Final[tuple[tuple[str, Callable[[SessionView, float], Any]], ...]] = (
    ("age, the newest first", lambda one, rate: -one.since),
    ("operations a second", lambda one, rate: -rate),
    ("operations", lambda one, rate: -one.operations),
    ("target", lambda one, rate: one.target),
    ("who", lambda one, rate: one.subject),
)
