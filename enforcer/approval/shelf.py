"""All that is asked and open, and by what it is found.  Pure."""
from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from agent.contract.messages import TICKETS as MOST_KEPT
from agent.contract.messages import HoldView
from enforcer.approval.asked import ELEVATION, HOLD, KEPT, TICKET, Asked

EACH: Final = 32                      # tickets and elevations of one subject, and approvals of holds that stand
NANO: Final = 1_000_000_000


class Shelf:
    """Iterates over a copy."""

    def __init__(self) -> None:
        self._all: dict[str, Asked] = {}
        self._reusable: dict[bytes, str] = {}  # what may be reused -> ticket
        self._tickets: dict[bytes, str] = {}   # binding -> ticket
        self._claimed: set[str] = set()        # tickets whose operation is about to go
        self.leaving: set[str] = set()         # tickets that are over, and that the agent could not forget yet

    def __iter__(self) -> Iterator[Asked]:
        return iter(tuple(self._all.values()))

    def get(self, ticket: str) -> Asked | None:
        return self._all.get(ticket)

    def put(self, asked: Asked) -> None:
        ticket = asked.view.ticket
        self._all[ticket] = asked
        if asked.view.form == TICKET and ticket not in self._claimed:
            self._tickets[asked.binding] = ticket
        if asked.bound and asked.in_force:
            self._reusable[asked.bound] = ticket

    def claim(self, asked: Asked) -> None:
        """Nobody else finds it."""
        del self._tickets[asked.binding]
        self._claimed.add(asked.view.ticket)

    def drop(self, ticket: str) -> None:
        asked = self._all.pop(ticket)
        self._claimed.discard(ticket)
        for index, key in ((self._reusable, asked.bound), (self._tickets, asked.binding)):
            if index.get(key) == ticket:
                del index[key]

    def reusable(self, bound: bytes) -> Asked | None:
        return self._all.get(self._reusable.get(bound, "")) if bound else None

    def ticket(self, binding: bytes) -> Asked | None:
        return self._all.get(self._tickets.get(binding, ""))

    def is_claimed(self, asked: Asked) -> bool:
        return asked.view.ticket in self._claimed

    def of(self, session: str) -> list[Asked]:
        return [one for one in self._all.values() if one.view.form == HOLD and one.view.session == session]

    def holds(self) -> int:
        return sum(one.view.form == HOLD and one.waits for one in self._all.values())

    def full(self, subject: str) -> str:
        """Why no more can be kept for this one, "" where it can."""
        kept = [one for one in self._all.values() if one.view.form in KEPT]
        if sum(one.view.subject == subject for one in kept) >= EACH:
            return f"{EACH} tickets of {subject} are open, which is the most"
        full = len(kept) + len(self.leaving) >= MOST_KEPT
        return f"{MOST_KEPT} tickets are open, which is the most" if full else ""

    def surplus(self, subject: str, used: Collection[str]) -> list[Asked]:
        """Approvals of holds that stand for this one beyond EACH, but for those about to be used; what ends first comes
        first."""
        mine = [one for one in self._all.values()
                if one.view.form == HOLD and one.in_force and one.stands and one.view.subject == subject]
        idle = sorted((one for one in mine if one.view.ticket not in used), key=lambda one: one.deadline or one.since)
        return idle[:max(0, len(mine) - EACH)]

    def elevated(self) -> frozenset[tuple[str, str]]:
        """(subject, target)"""
        return frozenset((one.view.subject, one.view.target) for one in self._all.values()
                         if one.view.form == ELEVATION and one.in_force)

    def views(self) -> tuple[HoldView, ...]:
        """What waits, then what is in force; the oldest first.  A hold that is let through once is neither."""
        every = [one for one in self._all.values() if _is_shown(one)]
        return tuple(one.view for one in sorted(every, key=lambda one: (not one.waits, one.since)))

    def view(self, ticket: str) -> tuple[HoldView, ...]:
        one = self._all.get(ticket)
        return (one.view,) if one is not None and _is_shown(one) else ()

    def next_time(self) -> int | None:
        """CLOCK_BOOTTIME nanoseconds of the next lapse or escalation."""
        if self.leaving:
            return 0
        times = [one.deadline for one in self._all.values() if one.deadline]
        times += [one.since + terms.escalate_after * NANO for one in self._all.values() if one.waits
                  for terms in one.terms if terms.escalate_after and terms.rule not in one.escalated]
        return min(times, default=None)


def _is_shown(asked: Asked) -> bool:
    return asked.waits or asked.view.form != HOLD or asked.stands
