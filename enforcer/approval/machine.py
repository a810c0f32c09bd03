"""The states of what waits for people, for every protocol.  Pure: a table.

Theory of operation.  Something is *asked*: by an operation whose connection waits for the answer (a *hold*), by one
that was refused with a ticket and may come again (a *ticket*), or by a person who wants more for a while (an
*elevation*).  All three begin pending and take the same steps:

    pending   --assent-->  approved     enough of those who may have said yes
    pending   --refuse-->  denied       one of them said no; one no is enough
    pending   --lapse-->   expired      nobody answered in time
    pending   --give up--> cancelled    the asker, its connection or the target is gone
    approved  --use-->     used         the operation goes: once, and what is used can never be used again
    approved  --lapse-->   expired      it was not used in time
    approved  --give up--> cancelled    revoked, or its connection ended before it went

What *stands* (an elevation, or an approval that its rule lets be reused) stays approved when it is used, and ends only
by time or by being given up.  Every other pair of state and happening is no step: whoever comes second is told so.
That is all of the exclusion there is: one thread takes the steps, so of two happenings at once one is first, and the
other is none.

What must be true before a step shows outside: a step is an event in the journal before anybody is told of it, and the
use is on the disk before the operation's bytes go.  What is kept over restarts (tickets, elevations) is with the agent
before an approver is told that an answer counts, and gone from there before the operation passes (decision 0024).
"""
from __future__ import annotations

from typing import Final

PENDING: Final = "pending"
APPROVED: Final = "approved"
DENIED: Final = "denied"
EXPIRED: Final = "expired"
CANCELLED: Final = "cancelled"
USED: Final = "used"
STATES: Final = (PENDING, APPROVED, DENIED, EXPIRED, CANCELLED, USED)

ASSENT: Final = "assent"
REFUSE: Final = "refuse"
LAPSE: Final = "lapse"
GIVE_UP: Final = "give up"
USE: Final = "use"
HAPPENINGS: Final = (ASSENT, REFUSE, LAPSE, GIVE_UP, USE)

STEPS: Final[dict[str, dict[str, str]]] = {
    PENDING: {ASSENT: APPROVED, REFUSE: DENIED, LAPSE: EXPIRED, GIVE_UP: CANCELLED},
    APPROVED: {USE: USED, LAPSE: EXPIRED, GIVE_UP: CANCELLED},
    DENIED: {},
    EXPIRED: {},
    CANCELLED: {},
    USED: {},
}
STANDING: Final[dict[str, dict[str, str]]] = {**STEPS, APPROVED: {**STEPS[APPROVED], USE: APPROVED}}


def step(state: str, happening: str, stands: bool = False) -> str | None:
    """The state after it, or None: no step."""
    return (STANDING if stands else STEPS)[state].get(happening)


def is_open(state: str) -> bool:
    """Whether anything can still happen to it."""
    return bool(STEPS[state])
