"""Decisions: what policy says of an operation."""
from __future__ import annotations

from typing import Final

import msgspec

PERMIT: Final = 1
DENY: Final = 2
HOLD: Final = 3
NAMES: Final = {PERMIT: "permit", DENY: "deny", HOLD: "hold"}


class HoldTerms(msgspec.Struct, frozen=True):
    """What a hold asks for; from `@hold("approvers=dba, within=15m, reason=required")`."""

    rule: str
    approvers: tuple[str, ...]        # groups; any member of any of them
    within: int = 900                 # seconds
    reason_required: bool = False


class Decision(msgspec.Struct, frozen=True):
    outcome: int                      # PERMIT | DENY | HOLD
    rules: tuple[str, ...] = ()       # ids that decided
    reason: str = ""                  # one sentence for the client, set for DENY
    holds: tuple[HoldTerms, ...] = () # all must be satisfied
    unmasked: tuple[str, ...] = ()    # labels that this principal may see
    masked: tuple[str, ...] = ()      # labels that must be masked
