"""What is asked of approvers: one frozen struct, which is also what the agent keeps of tickets and elevations."""
from __future__ import annotations

from typing import Final

import msgspec
from msgspec import structs

from agent.contract.messages import KEPT as KEPT_LIMIT
from agent.contract.messages import HoldView
from enforcer.approval.machine import APPROVED, PENDING
from enforcer.words.decisions import LASTING, ONCE, HoldTerms

HOLD: Final = "hold"                  # forms: its connection waits,
TICKET: Final = "ticket"              # it was refused with a ticket,
ELEVATION: Final = "elevation"        # or a person asked for more for a while
KEPT: Final = (TICKET, ELEVATION)     # over restarts


class Assent(msgspec.Struct, frozen=True):
    rule: str
    by: str
    glass: bool = False               # by break-glass: alone is enough
    names: tuple[str, ...] = ()       # whatever else this person is called


class Asked(msgspec.Struct, frozen=True):
    """`view` is what approvers see, and holds the ticket, the state and the times in UTC; `deadline` (CLOCK_BOOTTIME
    nanoseconds, 0: none) is when the state lapses."""

    view: HoldView
    terms: tuple[HoldTerms, ...]
    binding: bytes
    deadline: int
    since: int = 0                    # CLOCK_BOOTTIME nanoseconds
    operation: int = 0
    assents: tuple[Assent, ...] = ()
    escalated: tuple[str, ...] = ()   # rules whose delay is over
    seconds: int = 0                  # of an elevation
    reuse: str = ONCE
    bound: bytes = b""                # of what may be reused
    boot: str = ""                    # of the host, that `deadline` and `since` count from; "": not known
    at: int = 0                       # nanoseconds UTC of the last change
    behind: str = ""                  # the local user that the asker speaks through
    started: int = 0                  # CLOCK_BOOTTIME nanoseconds, of the process `view.pid`; 0: not known

    @property
    def stands(self) -> bool:
        return self.view.form == ELEVATION or self.reuse != ONCE

    @property
    def outlives(self) -> bool:
        """Whether it may stand for other sessions than the one that asked."""
        return self.view.form == ELEVATION or self.reuse in LASTING

    @property
    def approver(self) -> str:
        """Whose yes was the last; empty: nobody's."""
        return self.assents[-1].by if self.assents else ""

    @property
    def waits(self) -> bool:
        return self.view.state == PENDING

    @property
    def in_force(self) -> bool:
        return self.view.state == APPROVED


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Asked)


def render_asked(asked: Asked) -> bytes:
    """Raises ValueError: too much to be kept."""
    found = _encoder.encode(asked)
    if len(found) > KEPT_LIMIT:
        raise ValueError(f"{len(found)} bytes, limit {KEPT_LIMIT}")
    return found


def render_kept(asked: Asked) -> bytes:
    """The same; what people read is cut where it is too long: a crew chooses its texts, its names and its program."""
    try:
        return render_asked(asked)
    except ValueError:
        view = asked.view
        return render_asked(structs.replace(asked, view=structs.replace(
            view, parameters=("(too long to be kept)",), text=_cut(view.text, 1000), action=_cut(view.action, 500),
            exe=_cut(view.exe, 250), reason=_cut(view.reason, 250), plan=_cut(view.plan, 100))))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}... (too long to be kept)"


def parse_asked(content: bytes) -> Asked | None:
    """None where it is none: of another build, or not ours."""
    try:
        return _decoder.decode(content)
    except (msgspec.MsgspecError, ValueError):
        return None
