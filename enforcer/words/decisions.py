"""Decisions: what policy says of an operation."""
from __future__ import annotations

from typing import Final

import msgspec

PERMIT: Final = 1
DENY: Final = 2
HOLD: Final = 3
NAMES: Final = {PERMIT: "permit", DENY: "deny", HOLD: "hold"}

WAIT: Final = "wait"                  # modes: the connection waits,
TICKET: Final = "ticket"              # or is refused with a ticket
ONCE: Final = "once"                  # reuse: for this operation,
SESSION: Final = "session"            # the same things in this session,
COMMAND: Final = "command"            # operations of the same shape by the same running process,
SHAPE: Final = "shape"                # or operations of the same shape by anybody of the workload
LASTING: Final = (COMMAND, SHAPE)     # for other sessions, too


class Hours(msgspec.Struct, frozen=True):
    """When a rule lets anybody be asked: these days, from `begin` up to `end`, in a named time zone."""

    days: tuple[int, ...]             # 0 is Monday
    begin: int                        # minutes after midnight
    end: int                          # not after `begin`: of the day after
    zone: str                         # "Europe/Berlin"
    text: str                         # as it was written


class HoldTerms(msgspec.Struct, frozen=True):
    """What a hold asks for; from `@hold("approvers=dba, within=15m, reason=required")` (docs/policy.md, Holds)."""

    rule: str
    approvers: tuple[str, ...]        # groups; any member of any of them
    within: int = 900                 # seconds
    reason_required: bool = False
    count: int = 1                    # distinct approvers
    mode: str = WAIT
    valid: int = 3600                 # seconds in which an approved ticket may be used
    reuse: str = ONCE
    reuse_for: int = 0                # seconds, of SHAPE and COMMAND
    hours: Hours | None = None        # outside of them: denied at once
    break_glass: str = ""             # group whose member may let it through alone
    escalate_after: int = 0           # seconds, 0: never
    escalate_to: tuple[str, ...] = () # groups that may answer too from then on


class Decision(msgspec.Struct, frozen=True):
    outcome: int                      # PERMIT | DENY | HOLD
    rules: tuple[str, ...] = ()       # ids that decided
    reason: str = ""                  # one sentence for the client, set for DENY
    holds: tuple[HoldTerms, ...] = () # all must be satisfied
    unmasked: tuple[str, ...] = ()    # labels that this principal may see
    masked: tuple[str, ...] = ()      # labels that must be masked
