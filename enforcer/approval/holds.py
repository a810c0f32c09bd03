"""What waits for people: holds, tickets and elevations, in the steps of machine.py.  Pure: no clock, no socket.

Every step is given to `changed` (the journal) before anybody is told of it by `answer`.  What outlives this process
goes through `keep`, in order, and what waits for that is done when it says so: an operation of a ticket is answered
only after the agent has forgotten the ticket, so that it passes once however often this process is killed.  What is
over and could not be forgotten is tried again until it is.
"""
from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from msgspec import structs

from agent.contract.messages import HoldView
from enforcer.approval import answers, binding
from enforcer.approval.asked import ELEVATION, HOLD, KEPT, TICKET, Asked, parse_asked, render_kept
from enforcer.approval.granted import Granted
from enforcer.approval.hours import is_within
from enforcer.approval.machine import (
    APPROVED,
    ASSENT,
    CANCELLED,
    DENIED,
    EXPIRED,
    GIVE_UP,
    LAPSE,
    REFUSE,
    USE,
    USED,
    is_open,
    step,
)
from enforcer.approval.shelf import EACH, Shelf
from enforcer.approval.views import render_reason, view_elevation, view_operation
from enforcer.core.context import Context
from enforcer.words import decisions
from enforcer.words.commands import Hold
from enforcer.words.decisions import COMMAND, ONCE, HoldTerms
from enforcer.words.events import HOLD as CHANGED
from enforcer.words.events import HoldChanged
from enforcer.words.inputs import HoldAnswered, HoldOpened

DAY: Final = 86400                    # seconds that an elevation is in force at most,
LONGEST: Final = 30 * DAY             # and that anything else waits or may be used (policy/holds.py)
MOST: Final = 1000                    # holds at a time; one more is denied
NANO: Final = 1_000_000_000
REMEMBERED: Final = 1000              # tickets of one session that were used

Answer = Callable[[str, HoldAnswered], None]     # (session, answer)
Changed = Callable[[HoldChanged], None]
Keep = Callable[[str, bytes, Callable[[str], None]], None]     # (ticket, content; b"": forget it, done(what is wrong))
Elevated = Callable[[frozenset[tuple[str, str]]], None]        # (subject, target) that are elevated from now on


class Holds:
    """`now` gives nanoseconds UTC, `monotonic` CLOCK_BOOTTIME nanoseconds, `random` that many bytes; `key` is the
    HMAC's, the same after a restart; `boot` names the host's boot, "" where it is not known.  Without `keep` there are
    neither tickets nor elevations.  `is_there(pid, started)`: whether that process runs."""

    def __init__(
        self, now: Callable[[], int], monotonic: Callable[[], int], random: Callable[[int], bytes], answer: Answer,
        changed: Changed, keep: Keep | None = None, key: bytes = b"", elevated: Elevated = lambda pairs: None,
        boot: str = "", is_there: Callable[[int, int], bool] = lambda pid, started: False,
    ) -> None:
        self._now, self._monotonic, self._random = now, monotonic, random
        self._answer, self._changed, self._keep, self._elevated = answer, changed, keep, elevated
        self._key, self._boot, self._is_there = key or random(32), boot, is_there
        self.people = answers.NOBODY           # who is one person under several names
        self._shelf = Shelf()
        self._granted = Granted()
        self._asking: dict[str, set[int]] = {}                 # session -> its operations that wait for an answer
        self._used: dict[str, dict[str, Asked]] = {}           # session -> ticket -> what its operations went under
        self._claiming: set[str] = set()       # tickets that the agent has not forgotten yet, and whose operation waits

    # what sessions ask

    def open(self, context: Context, command: Hold) -> HoldOpened | HoldAnswered | None:
        """The hold, or its answer at once; None: the answer comes.  A session may hold many operations at once."""
        self._forget_granted(context.session, command.operation)
        self._asking.setdefault(context.session, set()).add(command.operation)
        opened = self._open(context, command)
        if isinstance(opened, HoldAnswered):
            self._answered(context.session, command.operation)
        return opened

    def _open(self, context: Context, command: Hold) -> HoldOpened | HoldAnswered | None:
        if not command.terms:
            return _refusal(command, "its rule names nobody who could be asked")
        if (shut := self._shut(command.terms)) is not None:
            return self._outside(context, command, *shut)
        if len(self._granted.of(context.session)) >= MOST:
            return _refusal(command, "too many operations were approved and did not go")
        reused = self._reused(context, command)
        if reused is not None:
            return reused
        if any(terms.mode == decisions.TICKET for terms in command.terms):
            return self._ticket(context, command)
        if self._shelf.holds() >= MOST:
            return _refusal(command, "too many operations are held")
        asked = self._put(self._make(context, command, HOLD))
        return HoldOpened(command.operation, asked.view.ticket, render_reason(asked))

    def _make(self, context: Context, command: Hold, form: str) -> Asked:
        ticket = self._draw()
        within = min(terms.within for terms in command.terms)
        now, since = self._now(), self._monotonic()
        kind, seconds, bound = self._reusable(context, command)
        process = context.principal.owner.process
        view = view_operation(context, command, ticket, form, (kind, seconds), now, now + within * NANO)
        bind = (binding.bind_ticket(self._key, context, command) if form == TICKET
                else binding.bind_hold(self._key, context, command, ticket))
        return Asked(
            view, command.terms, bind, since + within * NANO, since, command.operation, reuse=kind, bound=bound,
            boot=self._boot, behind=_behind(context.principal.owner.user), started=process.started if process else 0)

    def _reusable(self, context: Context, command: Hold) -> tuple[str, int, bytes]:
        """What an approval may be reused for, for how many seconds (0: without an end), and what that is bound to.
        What cannot be known again is let through once."""
        kind, seconds = _reuse(command.terms)
        bound = binding.bind_reuse(self._key, context, command, kind)
        return (kind, seconds, bound) if bound else (ONCE, 0, b"")

    def _shut(self, terms: Iterable[HoldTerms]) -> tuple[str, str] | None:
        """The first rule that lets nobody be asked now, and when it does."""
        return next(((one.rule, one.hours.text) for one in terms
                     if one.hours is not None and not is_within(one.hours, self._now())), None)

    def _outside(self, context: Context, command: Hold, rule: str, hours: str) -> HoldAnswered:
        asked = self._make(context, command, HOLD)
        reason = f"approvers of {rule} are asked {hours} only"
        self._tell(_moved(asked, DENIED), "", reason, "outside of hours")
        return HoldAnswered(command.operation, DENIED, "", reason, asked.view.ticket)

    def _reused(self, context: Context, command: Hold) -> HoldAnswered | None:
        """An approval that stands for this as well."""
        asked = self._shelf.reusable(self._reusable(context, command)[2])
        if asked is None or not asked.in_force or self._is_late(asked) or self._has_ended(asked):
            return None
        self._granted.give(context.session, command.operation, asked.view.ticket)
        return HoldAnswered(command.operation, APPROVED, asked.approver, "", asked.view.ticket)

    def _ticket(self, context: Context, command: Hold) -> HoldAnswered | None:
        bound = binding.bind_ticket(self._key, context, command)
        if not bound:
            return _refusal(command, "its rule gives tickets, and what it stands for cannot be told outside of this "
                                     f"session{': ' if command.inexact else ''}{command.inexact}")
        asked = self._shelf.ticket(bound)
        if asked is not None and asked.in_force and not self._is_late(asked):
            self._claim(context.session, command.operation, asked)
            return None
        if asked is not None and asked.waits:
            return HoldAnswered(command.operation, TICKET, "", render_reason(asked), asked.view.ticket)
        if full := self._full(context.principal.subject):
            return _refusal(command, full)
        session, number = context.session, command.operation
        self._put(made := self._make(context, command, TICKET), lambda error: self._say(session, HoldAnswered(
            number, DENIED if error else TICKET, "", error or render_reason(made), made.view.ticket)))
        return None

    def _claim(self, session: str, operation: int, asked: Asked) -> None:
        """Nobody else gets it from here on; the operation goes when the agent has forgotten it."""
        ticket = asked.view.ticket
        self._shelf.claim(asked)
        self._granted.give(session, operation, ticket)
        self._claiming.add(ticket)

        def done(error: str) -> None:
            self._claiming.discard(ticket)
            if error:
                self._end(asked, GIVE_UP, "", f"it could not be marked as used: {error}")
                self._say(session, HoldAnswered(operation, DENIED, "", "its ticket could not be marked as used",
                                                ticket))
            elif self._granted.get(session, operation) == ticket:
                self._say(session, HoldAnswered(operation, APPROVED, asked.approver, "", ticket))
            else:
                self._say(session, HoldAnswered(operation, DENIED, "", "its ticket was taken back", ticket))

        self._keep_as(ticket, b"", done)

    def use(self, session: str, operation: int, ticket: str, held: int) -> bool:
        """What was held as `held` goes as `operation`; False: it may not."""
        asked = self._shelf.get(ticket)
        if not ticket or self._granted.get(session, held) != ticket or ticket in self._claiming:
            self._forget_granted(session, held)
            return False
        self._granted.take(session, held)
        if asked is None:
            return False
        if asked.view.form == ELEVATION or step(asked.view.state, USE, asked.stands) is None:
            return False
        used = structs.replace(asked, operation=operation, view=structs.replace(asked.view, session=session))
        self._tell(_moved(used, USED), "", "", "reused" if asked.operation == 0 else "")
        mine = self._used.setdefault(session, {})
        mine[ticket] = asked
        while len(mine) > REMEMBERED:
            del mine[next(iter(mine))]
        if asked.stands:              # what comes next under it is told to be that
            self._shelf.put(structs.replace(asked, operation=0))
        else:
            self._shelf.drop(ticket)
        return True

    def counts(self, session: str, ticket: str) -> bool:
        """Whether what this session has used once is still a yes: nobody of it was locked out since, and it was not
        revoked.  Of what was used too long ago nobody remembers: it is asked anew."""
        return ticket in self._used.get(session, ()) or ticket in self._granted.tickets(session)

    def give_back(self, session: str, held: int) -> None:
        """What was let through does not go; of what waits nothing is cancelled."""
        self._forget_granted(session, held)

    def asks(self, session: str) -> bool:
        """Whether any operation of it waits for an answer."""
        return session in self._asking

    def cancel(self, session: str, operation: int, reason: str) -> None:
        for one in self._shelf.of(session):
            if one.waits and one.operation == operation:
                self._end(one, GIVE_UP, "", reason)

    def cancel_session(self, session: str, reason: str) -> None:
        """What it waits for."""
        for one in self._shelf.of(session):
            if one.waits:
                self._end(one, GIVE_UP, "", reason)

    def end_session(self, session: str, reason: str) -> None:
        """All that goes with it; approvals for a shape or a command stand on."""
        self._used.pop(session, None)
        for held in self._granted.of(session):
            self._forget_granted(session, held)
        for one in self._shelf.of(session):
            if one.waits or not one.outlives:
                self._end(one, GIVE_UP, "", reason)
        self._asking.pop(session, None)

    # what people ask and answer

    def elevate(
        self, subject: str, user: str, target: str, seconds: int, reason: str, terms: tuple[HoldTerms, ...],
    ) -> tuple[str, str]:
        """A person's request: (ticket, ""), or why not.  Without terms policy permits it: it is in force at once.
        `user`: the local one who asks."""
        if full := self._full(subject):
            return "", full
        if (shut := self._shut(terms)) is not None:
            return "", f"approvers are asked {shut[1]} only"
        if any(one.view.form == ELEVATION and (one.view.subject, one.view.target) == (subject, target)
               for one in self._shelf):
            return "", f"{subject} has asked for, or has, an elevation for {target} already"
        ticket, now, since = self._draw(), self._now(), self._monotonic()
        within = min((one.within for one in terms), default=1)
        view = view_elevation(ticket, subject, target, seconds, reason, terms, now, now + within * NANO)
        asked = self._put(Asked(
            view, terms, binding.bind_elevation(self._key, subject, target, seconds), since + within * NANO, since,
            seconds=seconds, boot=self._boot, behind=_behind(user)))
        if not terms and self._shelf.get(ticket) is not None:
            self._approve(asked, "", "policy permits it")
        return ("", "it could not be kept") if self._shelf.get(ticket) is None else (ticket, "")

    def decide(
        self, ticket: str, approve: bool, approver: str, groups: tuple[str, ...], reason: str, glass: bool = False,
        names: tuple[str, ...] = (),
    ) -> str:
        """An authenticated person's answer.  Gives "" where it counts, else why it does not.  `names`: other ones of
        theirs."""
        asked = self._shelf.get(ticket)
        if asked is None or not asked.waits or self._is_late(asked):
            return f"no hold {ticket} is pending"
        wrong = (answers.why_no_glass(asked, approver, groups, reason) if glass
                 else answers.why_not(asked, approve, approver, groups, reason, names, self.people))
        if wrong:
            return wrong
        if not approve and not glass:
            self._end(asked, REFUSE, approver, reason)
            return ""
        asked = answers.assented(asked, approver, groups, glass, names)
        note = "break-glass" if glass else ""
        if answers.is_enough(asked, self.people):
            self._approve(asked, approver, reason, note)
        else:
            self._change(asked, approver, reason, note or "assented")
        return "it could not be kept" if asked.view.form in KEPT and self._shelf.get(ticket) is None else ""

    def revoke(
        self, ticket: str, by: str, groups: tuple[str, ...], reason: str, names: tuple[str, ...] = (),
    ) -> str:
        """Of what stands or was asked without a connection: by who may answer it, or by the asker.  As `decide`."""
        asked = self._shelf.get(ticket)
        if asked is None or not is_open(asked.view.state):
            return f"nothing that {ticket} names is pending or in force"
        if not answers.is_asker(asked, (by, *names), self.people) and not set(answers.everybody(asked)) & set(groups):
            return f"{by} is in none of the groups that may revoke it: {', '.join(answers.everybody(asked))}"
        if asked.view.form == HOLD and not (asked.in_force and asked.stands):
            return f"{ticket} is a hold: deny it instead"
        if ticket in self._granted.tickets() and not asked.stands:
            return f"{ticket} is being used"
        self._end(asked, GIVE_UP, by, reason, "revoked")
        for mine in self._used.values():
            mine.pop(ticket, None)
        return ""

    def unrecorded(self, ticket: str) -> None:
        """What was answered is in no journal: it must not stand."""
        asked = self._shelf.get(ticket)
        if asked is not None:
            self._end(asked, GIVE_UP, "", "its answer could not be recorded")

    def lock_out(self, why: Callable[[tuple[str, ...], str, str], str]) -> None:
        """Give up, whatever its state, what somebody who is locked out asked for or said yes to, and what it is about
        where that is.  `why(subjects, workload, target)`: the reason, or ""."""
        for asked in self._shelf:
            if reason := why(*_of(asked)):
                self._end(asked, GIVE_UP, "", reason, "locked")
        for mine in self._used.values():
            for ticket in [ticket for ticket, asked in mine.items() if why(*_of(asked))]:
                del mine[ticket]

    def renew(self) -> None:
        """Policies are others: what was approved for a command was approved under those before."""
        for asked in self._shelf:
            if asked.in_force and asked.reuse == COMMAND:
                self._end(asked, GIVE_UP, "", "policies were changed")

    def rekey(self, key: bytes) -> None:
        """Another HMAC key: what was bound by the one before is over, but for holds that wait, whose connection is
        their binding."""
        if key == self._key:
            return
        self._key = key
        used = self._granted.tickets()
        for asked in self._shelf:
            if asked.stands or (asked.view.form in KEPT and asked.view.ticket not in used):
                self._end(asked, GIVE_UP, "", "the key that approvals are bound by was changed", "rekeyed")

    def views(self) -> tuple[HoldView, ...]:
        """What waits, then what is in force; the oldest first.  A hold that is let through once is neither."""
        return self._shelf.views()

    def view(self, ticket: str) -> tuple[HoldView, ...]:
        """Of these the one, if it is there."""
        return self._shelf.view(ticket)

    def waiting(self) -> int:
        return sum(one.waits for one in self._shelf)

    def oldest(self) -> int:
        """Since when the first of what waits does, nanoseconds UTC; 0: nothing waits."""
        return min((one.view.since for one in self._shelf if one.waits), default=0)

    def is_waiting(self, ticket: str) -> bool:
        asked = self._shelf.get(ticket)
        return asked is not None and asked.waits

    def planned(self, ticket: str, plan: str, rows: int) -> None:
        """How the target would do it."""
        asked = self._shelf.get(ticket)
        if asked is not None:
            self._shelf.put(structs.replace(asked, view=structs.replace(asked.view, plan=plan, rows=rows)))

    # time, and other lives

    def expire(self) -> None:
        """Deny what nobody answered in time, end what was in force for a while, escalate; on the monotonic clock, so
        that a stepped clock changes nothing.  What is over and could not be forgotten is tried again."""
        leaving, self._shelf.leaving = self._shelf.leaving, set()
        for ticket in leaving:
            self._forget(ticket)
        for asked in self._shelf:
            if self._is_late(asked):
                late = "nobody answered in time" if asked.waits else "its time is over"
                self._end(asked, LAPSE, "", late)
            elif asked.in_force and self._has_ended(asked):
                self._end(asked, GIVE_UP, "", "its command has ended")
            elif asked.waits:
                self._escalate(asked)

    def next_deadline(self) -> int | None:
        """CLOCK_BOOTTIME nanoseconds of the next expiry or escalation; past, where something is to be tried again."""
        return self._shelf.next_time()

    def restore(self, kept: Mapping[str, bytes]) -> None:
        """What the agent has kept over this process' end: in the same boot of the host the earlier of both clocks
        counts.  Of another boot only the clock that anybody may set is left: what was approved ends, and what waits
        goes on by it, where it is not behind what it said before.  What an enforcer before this one has kept that no
        enforcer would, or for longer than it could, is of one that was broken."""
        found = [asked for ticket, asked in ((ticket, parse_asked(content)) for ticket, content in kept.items())
                 if asked is not None and asked.view.ticket == ticket and asked.view.form in KEPT
                 and is_open(asked.view.state)]
        behind = self._now() < max((asked.at for asked in found), default=0)
        for asked in found:
            late, now = self._monotonic(), self._now()
            left, since = asked.view.until - now, late - (now - asked.view.since)
            same = bool(self._boot) and asked.boot == self._boot
            if same:
                left, since = min(left, asked.deadline - late), asked.since
            left = min(left, NANO * (DAY if asked.view.form == ELEVATION and asked.in_force else LONGEST))
            self._shelf.put(asked := structs.replace(asked, deadline=late + left, since=since, boot=self._boot))
            view = asked.view
            if view.form == ELEVATION and asked.binding != binding.bind_elevation(
                    self._key, view.subject, view.target, asked.seconds):
                self._end(asked, GIVE_UP, "", "the key that approvals are bound by was changed", "rekeyed")
            elif not same and (behind or asked.in_force):
                self._end(asked, GIVE_UP, "", "the host was started anew: how much of its time is over is not known")
        self.expire()
        self._tell_elevated()

    # steps

    def _put(self, asked: Asked, done: Callable[[str], None] = lambda error: None) -> Asked:
        self._change(asked, "", asked.view.reason, "", done)
        return asked

    def _change(
        self, asked: Asked, by: str, reason: str, note: str, done: Callable[[str], None] = lambda error: None
    ) -> None:
        """Something happened to it, and it is open.  Raises RecordingError: then nothing did."""
        ticket = asked.view.ticket
        asked = structs.replace(asked, at=self._now())
        self._tell(asked, by, reason, note)
        self._shelf.put(asked)
        if asked.view.form in KEPT:
            try:
                content = render_kept(asked)
            except ValueError as wrong:
                self._kept(ticket, str(wrong), done)
            else:
                self._keep_as(ticket, content, lambda error: self._kept(ticket, error, done))

    def _kept(self, ticket: str, error: str, done: Callable[[str], None]) -> None:
        """What could not be kept would be forgotten by a restart: it counts for nothing."""
        asked = self._shelf.get(ticket)
        if error and asked is not None:
            self._end(asked, GIVE_UP, "", f"it could not be kept: {error}")
        done(f"its ticket could not be kept: {error}" if error else "")

    def _approve(self, asked: Asked, by: str, reason: str, note: str = "") -> None:
        moved, ticket = _moved(asked, APPROVED), asked.view.ticket
        seconds = _seconds(asked)
        until, deadline = (0, 0) if not seconds else (self._now() + seconds * NANO, self._monotonic() + seconds * NANO)
        moved = structs.replace(moved, deadline=deadline, view=structs.replace(moved.view, until=until, escalates=0))
        assert step(asked.view.state, ASSENT) == APPROVED
        self._change(moved, by, reason, note)
        for one in self._shelf.surplus(asked.view.subject, (ticket, *self._granted.tickets())):
            self._end(one, GIVE_UP, "", f"{EACH} approvals stand for {asked.view.subject}, which is the most")
        if asked.view.form == HOLD:
            self._granted.give(asked.view.session, asked.operation, ticket)
            self._say(asked.view.session, HoldAnswered(asked.operation, APPROVED, by, reason, ticket))
            self._cover(moved)
        elif asked.view.form == ELEVATION:
            self._tell_elevated()

    def _cover(self, asked: Asked) -> None:
        """Of the same command and shape several may wait: one yes is for all of them."""
        if asked.reuse != COMMAND or self._has_ended(asked):
            return
        ticket = asked.view.ticket
        for one in self._shelf:
            if one.waits and one.view.form == HOLD and one.bound == asked.bound and not self._is_late(one):
                self._shelf.drop(one.view.ticket)
                self._tell(_moved(one, CANCELLED), "", f"ticket {ticket} covers it", "covered")
                self._granted.give(one.view.session, one.operation, ticket)
                self._say(one.view.session, HoldAnswered(one.operation, APPROVED, asked.approver, "", ticket))

    def _escalate(self, asked: Asked) -> None:
        late = self._monotonic()
        due = tuple(terms for terms in asked.terms if terms.escalate_after and terms.rule not in asked.escalated
                    and asked.since + terms.escalate_after * NANO <= late)
        if not due:
            return
        more = structs.replace(asked, escalated=(*asked.escalated, *(terms.rule for terms in due)))
        view = structs.replace(more.view, approvers=answers.everybody(more), escalates=0)
        groups = ", ".join(dict.fromkeys(group for terms in due for group in terms.escalate_to))
        self._change(structs.replace(more, view=view), "", f"{groups} may answer too", "escalated")

    def _end(self, asked: Asked, happening: str, by: str, reason: str, note: str = "") -> None:
        state = step(asked.view.state, happening, asked.stands)
        ticket = asked.view.ticket
        if state is None or self._shelf.get(ticket) is None:
            return
        held = asked.view.form == HOLD and asked.waits
        self._shelf.drop(ticket)
        if asked.view.form in KEPT:
            self._forget(ticket)
        if asked.view.form == ELEVATION:
            self._tell_elevated()
        self._tell(_moved(asked, state), by, reason, note)
        if held:
            self._say(asked.view.session, HoldAnswered(asked.operation, state, by, reason, ticket))

    def _tell(self, asked: Asked, by: str, reason: str, note: str) -> None:
        view = asked.view
        self._changed(HoldChanged(
            CHANGED, self._now(), self._monotonic(), view.session, asked.operation, view.ticket, view.state, by, reason,
            view.until, asked.binding, view.form, view.subject, view.target, view.action, note,
        ))

    # small things

    def _say(self, session: str, answer: HoldAnswered) -> None:
        self._answered(session, answer.operation)
        self._answer(session, answer)

    def _answered(self, session: str, operation: int) -> None:
        waits = self._asking.get(session, set())
        waits.discard(operation)
        if not waits:
            self._asking.pop(session, None)

    def _forget_granted(self, session: str, held: int) -> None:
        """What was let through and did not go."""
        asked = self._shelf.get(self._granted.take(session, held))
        if asked is not None and not asked.stands and asked.in_force:
            self._end(asked, GIVE_UP, "", "it did not go")

    def _is_late(self, asked: Asked) -> bool:
        return (bool(asked.deadline) and asked.deadline <= self._monotonic()
                and not self._shelf.is_claimed(asked))

    def _has_ended(self, asked: Asked) -> bool:
        """The process that it stands for."""
        return asked.reuse == COMMAND and not self._is_there(asked.view.pid, asked.started)

    def _full(self, subject: str) -> str:
        if self._keep is None:
            return "there is nothing that could keep a ticket"
        return self._shelf.full(subject)

    def _forget(self, ticket: str) -> None:
        """It is over: it must not be back after a restart."""
        self._keep_as(ticket, b"", lambda error: self._shelf.leaving.add(ticket) if error else None)

    def _keep_as(self, ticket: str, content: bytes, done: Callable[[str], None]) -> None:
        if self._keep is not None:
            self._keep(ticket, content, done)

    def _draw(self) -> str:
        while True:
            ticket = base64.b32encode(self._random(5)).decode().lower()
            if self._shelf.get(ticket) is None and ticket not in self._shelf.leaving:
                return ticket

    def _tell_elevated(self) -> None:
        self._elevated(self._shelf.elevated())


def _of(asked: Asked) -> tuple[tuple[str, ...], str, str]:
    """Subjects, workload and target."""
    view, assents = asked.view, (name for one in asked.assents for name in (one.by, *one.names))
    return (view.subject, asked.behind, *assents), view.workload, view.target


def _moved(asked: Asked, state: str) -> Asked:
    assert state in (APPROVED, DENIED, EXPIRED, CANCELLED, USED)
    return structs.replace(asked, view=structs.replace(asked.view, state=state))


def _behind(user: str) -> str:
    return f"local:{user}"


def _refusal(command: Hold, reason: str) -> HoldAnswered:
    return HoldAnswered(command.operation, DENIED, "", reason, "")


def _reuse(terms: tuple[HoldTerms, ...]) -> tuple[str, int]:
    """What every rule allows, and for how many seconds."""
    kinds = {one.reuse for one in terms}
    return (kinds.pop(), min(one.reuse_for for one in terms)) if len(kinds) == 1 else (ONCE, 0)


def _seconds(asked: Asked) -> int:
    """How long it is in force; 0: as long as its session, or until it goes."""
    if asked.view.form == ELEVATION:
        return asked.seconds
    if asked.view.form == TICKET:
        return min(one.valid for one in asked.terms if one.mode == decisions.TICKET)
    return asked.view.reuse_for
