"""Pure: what the edge counts by target, for the metrics; and what becomes of what people are asked."""
from __future__ import annotations

from collections import Counter
from typing import Final

from agent.contract.messages import TargetFigures
from enforcer.words.decisions import DENY, PERMIT
from enforcer.words.events import HoldChanged, Intent

PENDING: Final = "pending"
CLOSED: Final = "outside of hours"    # the note where nobody was asked


class TargetTally:
    """Since the enforcer's start."""

    __slots__ = ("credential_failures", "denied", "distrusted", "held", "permitted", "sessions", "upstream_failures")

    def __init__(self) -> None:
        self.sessions = self.permitted = self.denied = self.held = 0
        self.credential_failures = self.upstream_failures = self.distrusted = 0

    def decided(self, intent: Intent) -> None:
        """What Weir sends itself is nobody's operation."""
        if intent.actor != "crew":
            return
        if intent.decision == PERMIT:
            self.permitted += 1
        elif intent.decision == DENY:
            self.denied += 1
        else:
            self.held += 1

    def figures(self, target: str, opened: int) -> TargetFigures:
        return TargetFigures(
            target, opened, self.sessions, self.permitted, self.denied, self.held, self.credential_failures,
            self.upstream_failures, self.distrusted)


class Tally:
    def __init__(self) -> None:
        self._targets: dict[str, TargetTally] = {}
        self.asked = 0                # holds, tickets and elevations
        self.outcomes: Counter[str] = Counter()

    def of(self, target: str) -> TargetTally:
        """Targets are the configuration's: of those that are no more, what was counted stays until the next start."""
        found = self._targets.get(target)
        if found is None:
            found = self._targets[target] = TargetTally()
        return found

    def hold_changed(self, event: HoldChanged) -> None:
        """What is said on the way has a note (a second approver, another group), and is no step."""
        if event.state != PENDING:
            self.outcomes[event.state] += event.note != CLOSED
        elif not event.note:
            self.asked += 1
