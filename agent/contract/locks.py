"""What is locked out: subjects, workloads and targets, by name.  Pure; agent and enforcer look it up alike."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec

MOST: Final = 1024                    # locks at a time
REASON: Final = 200                   # characters
SUBJECT: Final = "subject"            # "local:USER" or "PROVIDER:NAME"
WORKLOAD: Final = "workload"
TARGET: Final = "target"
KINDS: Final = (SUBJECT, WORKLOAD, TARGET)

LONGEST: Final = 300                  # characters: no subject is longer (agent.contract.identity)
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST)]


class Lock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`until` and `deadline` are one time on two clocks: it is over when both say so (is_over)."""

    kind: Literal["subject", "workload", "target"]
    name: Name
    reason: Annotated[str, msgspec.Meta(max_length=REASON)]
    by: Name
    since: int                        # nanoseconds UTC
    until: int = 0                    # nanoseconds UTC; 0: until it is unlocked
    deadline: int = 0                 # CLOCK_BOOTTIME nanoseconds, of `boot` alone
    boot: str = ""                    # boot_id(5) of proc(5): random/boot_id


class LockSet(msgspec.Struct, frozen=True):
    """All of them, each time: `serial` counts the changes, so that an older set never takes a newer one's place."""

    serial: int = 0
    locks: tuple[Lock, ...] = ()


class LockedOut:
    """Looks them up."""

    def __init__(self, locks: Iterable[Lock] = ()) -> None:
        self._locks = {(one.kind, one.name): one for one in locks}

    def why(self, subjects: Iterable[str] = (), workload: str = "", target: str = "") -> str:
        """Why the first of these that is locked is, "" where none is."""
        asked = [(SUBJECT, one) for one in subjects] + [(WORKLOAD, workload), (TARGET, target)]
        found = next((self._locks[one] for one in asked if one in self._locks), None)
        return "" if found is None else render_lock(found)


def render_lock(lock: Lock) -> str:
    """As crews and people are told."""
    return f"{lock.kind} {lock.name} is locked" + (f": {lock.reason}" if lock.reason else "")


def is_over(lock: Lock, now: int, uptime: int, boot: str) -> bool:
    """By UTC and, since the same boot, by CLOCK_BOOTTIME: a clock that is set makes no lock shorter."""
    return bool(lock.until) and now >= lock.until and (lock.boot != boot or uptime >= lock.deadline)
