"""Holds: operations that wait for a person.  Pure: no clock, no socket; every change is given to `changed`.

States of one hold: pending -> approved -> used, or pending -> denied | expired | cancelled.  An answer is final: a
second one is told that it does not count.
"""
from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from agent.contract.messages import HoldView
from enforcer.core.context import Context
from enforcer.words.commands import Hold
from enforcer.words.decisions import HoldTerms
from enforcer.words.events import HOLD, HoldChanged
from enforcer.words.inputs import HoldAnswered

MOST: Final = 1000                    # holds at a time; one more is denied
TEXT: Final = 4000                    # characters of the statement that an approver is shown

Answer = Callable[[str, HoldAnswered], None]     # (session, answer)
Changed = Callable[[HoldChanged], None]


@dataclass(slots=True)
class _Open:
    view: HoldView
    terms: tuple[HoldTerms, ...]
    operation: int
    binding: bytes
    satisfied: dict[str, str] = field(default_factory=dict)     # rule -> approver


class Holds:
    """`now` gives nanoseconds UTC, `monotonic` CLOCK_BOOTTIME nanoseconds, `random` that many bytes."""

    def __init__(
        self, now: Callable[[], int], monotonic: Callable[[], int], random: Callable[[int], bytes], answer: Answer,
        changed: Changed,
    ) -> None:
        self._now, self._monotonic, self._random = now, monotonic, random
        self._answer, self._changed = answer, changed
        self._key = random(32)
        self._open: dict[str, _Open] = {}
        self._deadline: dict[str, int] = {}

    def open(self, context: Context, command: Hold) -> HoldView | None:
        """Register it; None where too many wait already (deny then)."""
        if len(self._open) >= MOST or not command.terms:
            return None
        ticket = base64.b32encode(self._random(5)).decode().lower()
        within = min(term.within for term in command.terms)
        view = self._view(context, command, ticket, within)
        binding = hmac.digest(self._key, _bound(context, command, ticket), "sha256")
        self._open[ticket] = _Open(view, command.terms, command.operation, binding)
        self._deadline[ticket] = self._monotonic() + within * 1_000_000_000
        self._tell(self._open[ticket], "pending", "", "")
        return view

    def decide(self, ticket: str, approve: bool, approver: str, groups: tuple[str, ...], reason: str) -> str:
        """An authenticated approver's answer.  Gives "" where it counts, else why it does not."""
        hold = self._open.get(ticket)
        if hold is None:
            return f"no hold {ticket} is pending"
        if approver == hold.view.subject:
            return f"{approver} asked for this operation and cannot answer it"
        mine = [term for term in hold.terms if set(term.approvers) & set(groups)]
        if not mine:
            return f"{approver} is in none of the groups that may answer: {', '.join(hold.view.approvers)}"
        if not reason and (not approve or any(term.reason_required for term in mine)):
            return "a reason is required"
        if not approve:
            self._finish(hold, "denied", approver, reason)
            return ""
        for term in mine:
            hold.satisfied.setdefault(term.rule, approver)
        if all(term.rule in hold.satisfied for term in hold.terms):
            self._finish(hold, "approved", approver, reason)
        return ""

    def cancel(self, session: str, operation: int, reason: str) -> None:
        for hold in [h for h in self._open.values() if h.view.session == session and h.operation == operation]:
            self._finish(hold, "cancelled", "", reason)

    def cancel_session(self, session: str, reason: str) -> None:
        for hold in [h for h in self._open.values() if h.view.session == session]:
            self._finish(hold, "cancelled", "", reason)

    def expire(self) -> None:
        """Deny what nobody answered in time; on the monotonic clock, so that a stepped clock changes nothing."""
        late = self._monotonic()
        for ticket in [t for t, deadline in self._deadline.items() if deadline <= late]:
            self._finish(self._open[ticket], "expired", "", "nobody answered in time")

    def next_deadline(self) -> int | None:
        """CLOCK_BOOTTIME nanoseconds of the next expiry."""
        return min(self._deadline.values(), default=None)

    def list(self) -> tuple[HoldView, ...]:
        return tuple(hold.view for hold in self._open.values())

    def _view(self, context: Context, command: Hold, ticket: str, within: int) -> HoldView:
        owner, now = context.principal.owner, self._now()
        process = owner.process
        return HoldView(
            ticket=ticket, since=now, until=now + within * 1_000_000_000, subject=context.principal.subject,
            workload=owner.workload, pid=process.pid if process else 0, exe=process.exe if process else "",
            target=context.target.name, database=command.database, action=command.action, text=command.text[:TEXT],
            parameters=command.parameters, rules=command.rules,
            approvers=tuple(dict.fromkeys(g for term in command.terms for g in term.approvers)),
            reason_required=any(term.reason_required for term in command.terms), session=context.session,
        )

    def _finish(self, hold: _Open, state: str, by: str, reason: str) -> None:
        del self._open[hold.view.ticket], self._deadline[hold.view.ticket]
        self._tell(hold, state, by, reason)
        self._answer(hold.view.session, HoldAnswered(hold.operation, state, by, reason, hold.view.ticket))

    def _tell(self, hold: _Open, state: str, by: str, reason: str) -> None:
        view = hold.view
        self._changed(HoldChanged(
            HOLD, self._now(), self._monotonic(), view.session, hold.operation, view.ticket, state, by, reason,
            view.until, hold.binding,
        ))


def _bound(context: Context, command: Hold, ticket: str) -> bytes:
    """What an approval is bound to: each part with its length, so that none can run into the next."""
    parts = (
        ticket, context.session, str(command.operation), context.target.name, command.database,
        context.principal.subject, context.principal.workload, command.action, *command.rules,
    )
    whole = blake2b(command.binding)
    for part in parts:
        raw = part.encode()
        whole.update(len(raw).to_bytes(8, "big") + raw)
    return whole.digest()
