"""Pure: the table of login sessions and service identities, as the agent keeps it.

A session is a person's, opened by one uid, or a workload's.  What the identity process says of one is held to the
bounds that the agent knows by itself: the session's own provider, the groups that its configuration gives, and time.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from agent.contract.identity import Verified

PENDING: Final = 1000                 # seconds in which a login must come to something
GRACE: Final = 5                      # seconds after its token's end in which the identity process says so itself


class Violation(Exception):
    """The identity process says what it may not say."""


class Login(msgspec.Struct, frozen=True):
    session: str
    provider: str
    groups_given: frozenset[str]      # that the provider's configuration has
    begun: int                        # seconds UTC
    longest: int                      # seconds that it may last; 0: as long as it is verified anew
    uid: int = -1                     # who opened it, by the kernel's word; -1: a workload's
    user: str = ""
    workload: str = ""
    subject: str = ""                 # "": not verified yet
    groups: tuple[str, ...] = ()
    opened: int = 0                   # seconds UTC
    expires: int = 0                  # seconds UTC, if it is not verified anew
    since: float = 0.0                # seconds of CLOCK_BOOTTIME: of `begun`, then of `opened`; nobody sets it back
    turn: int = 1                     # counts the subjects and groups that it had
    web: bool = False                 # at the page: of a browser, and no uid's

    @property
    def login(self) -> str:
        """What its sessions at targets carry."""
        return f"{self.session}.{self.turn}"

    @property
    def until(self) -> int:
        """Seconds UTC at which it ends, whatever else is said."""
        if not self.subject:
            return self.begun + PENDING
        return min(self.expires + GRACE, self.opened + self.longest) if self.longest else self.expires + GRACE


class Logins:
    def __init__(self) -> None:
        self._all: dict[str, Login] = {}

    def __iter__(self) -> Iterator[Login]:
        return iter(tuple(self._all.values()))

    def add(self, login: Login) -> None:
        self._all[login.session] = login

    def find(self, session: str) -> Login | None:
        return self._all.get(session)

    def end(self, session: str) -> Login | None:
        """Forgotten; what it was."""
        return self._all.pop(session, None)

    def opened(self, session: str) -> Login | None:
        """Where it is verified."""
        one = self._all.get(session)
        return one if one is not None and one.subject else None

    def of_uid(self, uid: int, pending: bool = False) -> Login | None:
        return next((one for one in self if one.uid == uid and uid >= 0 and bool(one.subject) != pending), None)

    def of_workload(self, name: str) -> Login | None:
        """Verified or not."""
        return next((one for one in self if name and one.workload == name), None)

    def overdue(self, now: int, uptime: float) -> list[tuple[Login, str]]:
        """And why.  `uptime`: CLOCK_BOOTTIME; a clock that steps back makes no login longer."""
        return [(one, reason) for one in self if (reason := _overdue(one, now, uptime))]

    def verify(self, message: Verified, now: int, uptime: float) -> tuple[Login, Login] | None:
        """What it was and what it is now; None where there is no such session (it may just have ended).  Raises
        Violation."""
        before = self._all.get(message.session)
        if before is None:
            return None
        name = message.subject.removeprefix(f"{before.provider}:")
        if name == message.subject or not name or not name.isprintable():
            raise Violation(f"a subject that is none of provider {before.provider}'s")
        if not before.groups_given.issuperset(message.groups):
            raise Violation(f"groups that provider {before.provider} does not give")
        if before.subject and not before.workload and before.subject != message.subject:
            raise Violation("another subject for a login that is open")
        groups = tuple(sorted(set(message.groups)))
        changed = bool(before.subject) and (before.subject, before.groups) != (message.subject, groups)
        after = msgspec.structs.replace(
            before, subject=message.subject, groups=groups, expires=message.expires, opened=before.opened or now,
            since=before.since if before.opened else uptime, turn=before.turn + changed)
        self._all[message.session] = after
        return before, after


def _overdue(login: Login, now: int, uptime: float) -> str:
    lasted = max(uptime - login.since, now - (login.opened or login.begun))
    if not login.subject:
        return "nobody confirmed it in time" if lasted >= PENDING else ""
    if login.longest and lasted >= login.longest:
        return "it has lasted as long as it may (max_session)"
    return "its token has expired" if login.expires + GRACE <= now else ""
