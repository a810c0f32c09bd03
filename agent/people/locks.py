"""Who and what is locked out: kept, told to the enforcer, asked before anything is started or answered.

A lock is on the disk before it is in force, and in force before it is said to be done.  The enforcer has the whole set
each time, with its configuration and at each change: one that starts knows it before its first connection, and one
that does not take it is ended, with whatever is open.
"""
from __future__ import annotations

import asyncio
import logging
import pwd
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from agent.channel import ChannelError
from agent.contract import control, messages
from agent.contract.clock import boot, uptime
from agent.contract.locks import KINDS, MOST, REASON, SUBJECT, TARGET, Lock, LockedOut, LockSet, is_over
from agent.contract.locks import LONGEST as LONGEST_NAME
from agent.people.identity import LOCAL, subject_of
from agent.people.lock_file import NAME, read_locks, write_locks

if TYPE_CHECKING:
    from agent.supervisor import Agent

LOG = logging.getLogger("weir.locks")

LONGEST: Final = 366 * 24 * 3600      # seconds
NANO: Final = 1_000_000_000
NONE: Final = -1                      # no enforcer was there: the next one has it from its beginning
UNTAKEN: Final = "none runs now, and what waits for people would be back with the next one"


class Locks:
    """Raises LayoutError: the file is not right."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._file = agent.config.state / NAME
        self._all = read_locks(self._file)
        self._found = LockedOut(self._all)
        self._serial = 1
        self._changing = asyncio.Lock()
        self._failing = ""
        # Which no enforcer has had, as far as is known: what it bars may wait yet.  `began` of the one that was there.
        self._untaken = dict.fromkeys(((one.kind, one.name) for one in self._all), NONE)

    def __iter__(self) -> Iterator[Lock]:
        return iter(self._all)

    def why(self, subjects: Iterable[str] = (), workload: str = "", target: str = "") -> str:
        """Why one of these is locked, by whichever of a person's names, "" where none is."""
        return self._found.why(self._agent.config.people.names(subjects), workload, target)

    def rendered(self) -> LockSet:
        """For the enforcer."""
        return LockSet(self._serial, self._all)

    async def lock(self, wanted: control.PutLock, by: str) -> control.LockDone:
        if wrong := self._why_not(wanted):
            return control.LockDone(wrong)
        async with self._changing:
            others = self._without(wanted.kind, wanted.name)
            if len(others) >= MOST:
                return control.LockDone(f"{MOST} locks are in force, which is the most")
            made = _make(wanted, by)
            if error := await self._keep((*others, made)):
                return control.LockDone(f"nothing is locked: {error}")
            self._tell("lock", made, by=by, reason=made.reason, seconds=wanted.seconds)
            enforcer = self._agent.enforcer
            self._untaken[made.kind, made.name] = enforcer.began if enforcer.up else NONE
            ended, note = await self._put_in_force()
            if not note:
                del self._untaken[made.kind, made.name]
        self._agent.identities.end_locked()
        return control.LockDone("", ended, tuple(one for one in (note, *self._notes(wanted)) if one))

    async def unlock(self, wanted: control.LiftLock, by: str) -> control.LockDone:
        async with self._changing:
            found = next((one for one in self._all if (one.kind, one.name) == (wanted.kind, wanted.name)), None)
            if found is None:
                return control.LockDone(f"{wanted.kind} {wanted.name[:REASON]} is not locked{self._instead(wanted)}")
            if not self._is_taken(found):
                return control.LockDone(f"it stays locked until an enforcer has had it: {UNTAKEN}")
            done = await self._lift([found], by, "")
        left = "" if done.error else self.why(self._others(wanted))
        return msgspec.structs.replace(done, notes=(*done.notes, f"it is locked still: {left}")) if left else done

    async def look(self) -> None:
        """Each second: what was locked for a while."""
        now, late, which = time.time_ns(), uptime(), boot()
        if not any(is_over(one, now, late, which) for one in self._all):
            return
        async with self._changing:
            over = [one for one in self._all if is_over(one, now, late, which) and self._is_taken(one)]
            if not over:
                return
            done = await self._lift(over, "", "its time is over")
        if done.error != self._failing:
            self._failing = done.error
            LOG.error("what is locked for a while: %s", done.error or "can be unlocked again")

    async def _lift(self, over: list[Lock], by: str, reason: str) -> control.LockDone:
        if error := await self._keep(tuple(one for one in self._all if one not in over)):
            return control.LockDone(f"it stays locked: {error}")
        for one in over:
            self._tell("unlock", one, by=by, reason=reason)
        _, note = await self._put_in_force()
        return control.LockDone("", 0, (note,) if note else ())

    def _is_taken(self, lock: Lock) -> bool:
        """Whether an enforcer has given up what waits, or was kept, for whom it locks."""
        key, enforcer = (lock.kind, lock.name), self._agent.enforcer
        if key in self._untaken and enforcer.up and enforcer.began != self._untaken[key]:
            del self._untaken[key]    # it began with it
        return key not in self._untaken

    async def _keep(self, locks: tuple[Lock, ...]) -> str:
        """On the disk, then here; what is wrong, or ""."""
        try:
            await asyncio.to_thread(write_locks, self._file, locks)
        except OSError as reason:
            return f"{self._file}: {reason.strerror}"
        self._all, self._found, self._serial = locks, LockedOut(locks), self._serial + 1
        return ""

    async def _put_in_force(self) -> tuple[int, str]:
        """How many sessions and flows ended, and what is to be said besides."""
        enforcer = self._agent.enforcer
        try:
            channel = enforcer.channel
        except ChannelError:
            return 0, "no enforcer runs now: nothing is open, and the next one begins with it"
        try:
            taken = await channel.ask(lambda number: messages.PutLocks(number, self.rendered()), messages.LocksTaken)
        except ChannelError as reason:
            LOG.error("the enforcer did not take the locks (%s): it is ended", reason)
            channel.close()
            return 0, f"the enforcer did not take it ({reason}) and is ended with all that is open; the next has it"
        return taken.ended, ""

    def _why_not(self, wanted: control.PutLock) -> str:
        """What is wrong with it: what is misspelt would lock nobody."""
        config, name = self._agent.config, wanted.name
        if wanted.kind not in KINDS:
            return f"{', '.join(KINDS)}: one of these"
        if not 0 <= wanted.seconds <= LONGEST:
            return f"a lock lasts {LONGEST // 86400} days at most, or until it is unlocked"
        if len(wanted.reason) > REASON or not wanted.reason.isprintable():
            return f"a reason is one line of at most {REASON} characters"
        if wanted.kind == SUBJECT:
            provider, _, rest = name.partition(":")
            known = (LOCAL, *(one.name for one in config.logins))
            right = bool(rest) and name.isprintable() and len(name) <= LONGEST_NAME and provider in known
            return "" if right else "a subject is " + " or ".join(f"{one}:NAME" for one in known)
        there = [one.name for one in (config.targets if wanted.kind == TARGET else config.workloads)]
        names = ", ".join(there) or "none"
        return "" if name in there else f"there is no {wanted.kind} {name[:REASON]!r}; there is: {names}"

    def _notes(self, wanted: control.PutLock) -> Iterator[str]:
        if others := self._others(wanted):
            yield f"locked with it, for they are the same person's ([people] of groups.toml): {', '.join(others)}"
        provider, _, user = wanted.name.partition(":")
        if wanted.kind != SUBJECT or provider != LOCAL:
            return
        try:
            pwd.getpwnam(user)
        except KeyError:
            yield f"this host has no user {user} now"

    def _others(self, wanted: control.PutLock | control.LiftLock) -> tuple[str, ...]:
        """Other names of the person that it names."""
        return self._agent.config.people.names([wanted.name])[1:] if wanted.kind == SUBJECT else ()

    def _instead(self, wanted: control.LiftLock) -> str:
        """Under which names it is."""
        named = {one.name for one in self._all if one.kind == SUBJECT}
        locked = [one for one in self._others(wanted) if one in named]
        return f", but {', '.join(locked)} is, which is the same person" if locked else ""

    def _without(self, kind: str, name: str) -> tuple[Lock, ...]:
        return tuple(one for one in self._all if (one.kind, one.name) != (kind, name))

    def _tell(self, name: str, lock: Lock, **more: object) -> None:
        self._agent.tell(name, {"what": lock.kind, "name": lock.name, **more})


def subjects_of(user: str, subject: str = "") -> tuple[str, ...]:
    """By which a local user is locked, and the subject that it speaks for."""
    return (subject_of(user), *((subject,) if subject else ()))


def _make(wanted: control.PutLock, by: str) -> Lock:
    now, late, span = time.time_ns(), uptime(), wanted.seconds * NANO
    ends = (now + span, late + span, boot()) if span else (0, 0, "")
    return Lock(wanted.kind, wanted.name, wanted.reason, by, now, *ends)  # type: ignore[arg-type]
