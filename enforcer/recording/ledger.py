"""The ledger: connects that the kernel saw x sessions, flows and refusals that were recorded.  Pure.

A connect is in the recording as the agent's host event "connect", with the socket's cookie and what the kernel did
with it.  What the kernel decided by itself (a DNS server, a refusal) is accounted for by that.  What it sent to the
listener is accounted for by the one event of a session, flow or refusal that has the same cookie, or by the agent's
word that it ended before it came there ("connects.ended").  What nobody accounts for the agent says, too
("connect.unaccounted"): the alarm.

Events come from several journals, so an account may come before its connect.  One socket may connect several times:
an account is the last one's, earlier ones had failed.  Everything is bounded; what is not followed is counted.
"""
from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

import msgspec

from agent.contract import ledger as words
from agent.contract.ledger import Alarm, Connect
from enforcer.words import events

KINDS: Final = frozenset((
    events.SESSION_OPENED, events.FLOW_OPENED, events.REFUSED, events.HOLD, events.HOST))
OPEN: Final = 100_000                 # sockets with connects that nobody accounts for yet
RECENT: Final = 100_000               # cookies that are remembered after, or before, they were seen
ALARMS: Final = 100
EACH: Final = 16                      # connects of one socket that are followed: of more, the oldest had failed
NOT_FOLLOWED: Final = "not followed"  # more open ones than OPEN, or without a cookie (an earlier build's)
AGAIN: Final = "connected again"      # the same socket: this one had failed
LOCAL: Final = "at a Unix socket"      # no hook sees those connects: there is nothing that they could be paired with
INSIDE: Final = "in a tunnel"          # of another session, which is the one that the kernel saw connect
BROKEN: Final = "break-glass"         # HoldChanged.note
STANDING: Final = (words.UNACCOUNTED, words.FOREIGN, words.ACKNOWLEDGED)      # alarms, and the end of them
BEGIN: Final = 10                     # who has seen an event before this has seen all
LEAD: Final = 50_000                  # events that an account may come before its connect
_WEIR: Final = "weir"                 # attribution of what Weir opened itself
_TUNNEL: Final = "tunnel"             # and of what goes through another session
_KINDS: Final = {events.SESSION_OPENED: "session", events.FLOW_OPENED: "flow", events.REFUSED: "refused"}
_DECIDED: Final = (words.REDIRECTED, words.ELSEWHERE)


class Book:
    """`see` takes the events in the recording's order."""

    def __init__(self, forget: bool = True) -> None:
        """`forget`: an alarm that was acknowledged is none any more."""
        self._forget = forget
        self.counts: Counter[str] = Counter()
        self.alarms: deque[Alarm] = deque(maxlen=ALARMS)
        self.glass: deque[Alarm] = deque(maxlen=ALARMS)        # of people: they crowd out none of the others
        self._open: dict[int, list[Connect]] = {}
        self._early: dict[int, str] = {}       # accounts whose connect has not come yet
        self._done: dict[int, str] = {}        # cookies that were accounted for, and by what

    def __len__(self) -> int:
        return len(self._open)

    def see(self, seq: int, event: Any) -> None:
        """An event of KINDS."""
        if event.kind == events.HOST:
            if (known := _HOST.get(event.name)) is not None:
                known(self, seq, event)
        elif event.kind == events.HOLD:
            if event.note == BROKEN:
                self.glass.append(Alarm(seq, event.at, words.GLASS, "", {
                    "ticket": event.ticket, "by": event.by, "reason": event.reason, "subject": event.subject,
                    "target": event.target, "what": event.what, "session": event.session}))
        elif event.cookie:
            self._account(event.cookie, _KINDS[event.kind], getattr(event, "attribution", "redirect"))
        elif getattr(event, "attribution", "") == _TUNNEL:
            self.counts[f"{_KINDS[event.kind]} {INSIDE}"] += 1
        elif event.destination.startswith("/") and getattr(event, "attribution", "") != _WEIR:
            self.counts[f"{_KINDS[event.kind]} {LOCAL}"] += 1

    def open(self, before: int, most: int = words.MOST) -> tuple[Connect, ...]:
        """Recorded before that (CLOCK_BOOTTIME nanoseconds), the oldest first."""
        lines = (line for lines in self._open.values() for line in lines if line.monotonic < before)
        return tuple(islice(lines, most))

    def leave_out(self, before: int) -> None:
        """Connects of events before this one are not followed."""
        left = {cookie: [line for line in lines if line.seq >= before] for cookie, lines in self._open.items()}
        self._open = {cookie: lines for cookie, lines in left.items() if lines}

    def age(self) -> None:
        """What is open is of an earlier recorder, perhaps of an earlier boot: its clock says nothing any more."""
        self._open = {cookie: [msgspec.structs.replace(line, monotonic=0) for line in lines]
                      for cookie, lines in self._open.items()}

    # what is seen

    def _connect(self, seq: int, event: Any) -> None:
        detail = event.detail
        verdict, cookie = detail.get("verdict", ""), _number(detail.get("cookie", ""))
        if not verdict or not cookie:
            self.counts[NOT_FOLLOWED] += 1
        elif verdict not in _DECIDED:
            self.counts[f"{verdict} by the kernel" if verdict == "refused" else verdict] += 1
            self._failed(cookie, [one for one in self._open.get(cookie, []) if one.verdict == words.ELSEWHERE])
            _remember(self._done, cookie, verdict)
        elif (kind := self._early.pop(cookie, "")) or self._passed(cookie, verdict):
            self.counts[kind or self._done[cookie]] += 1
            _remember(self._done, cookie, kind or self._done[cookie])
        elif len(self._open) >= OPEN and cookie not in self._open:
            self.counts[NOT_FOLLOWED] += 1
        else:
            self._done.pop(cookie, None)
            self._open.setdefault(cookie, []).append(Connect(
                seq, event.at, event.monotonic, cookie, event.workload, _number(detail.get("pid", ""), 10),
                detail.get("destination", ""), verdict))
            if len(lines := self._open[cookie]) > EACH:
                rewritten = next((one for one in lines[:-1] if one.verdict != words.ELSEWHERE), lines[-1])
                self._failed(cookie, [one for one in lines if one is not rewritten])

    def _failed(self, cookie: int, left: list[Connect]) -> None:
        """The socket was connected anew, which it can be only after what is not `left` had ended."""
        if gone := len(self._open.get(cookie, [])) - len(left):
            self.counts[AGAIN] += gone
            if left:
                self._open[cookie] = left
            else:
                del self._open[cookie]

    def _passed(self, cookie: int, verdict: str) -> bool:
        """The kernel let this very connect through, and so it is connected elsewhere."""
        return verdict == words.ELSEWHERE and self._done.get(cookie, "refused") not in ("refused", *_KINDS.values())

    def _account(self, cookie: int, kind: str, attribution: str) -> None:
        lines = self._open.get(cookie)
        if lines is None:
            if cookie not in self._done:       # else a second event of the same connection
                _remember(self._early, cookie, kind)
            return
        # Who is connected past the rewrite is the enforcer's only by the firewall's redirect.
        left = [one for one in lines if one.verdict == words.ELSEWHERE and attribution != "redirect"]
        if len(left) == len(lines):
            return
        self.counts[kind] += 1
        self._close(cookie, left, kind, len(lines) - len(left) - 1)

    def _close(self, cookie: int, left: list[Connect], how: str, again: int) -> None:
        if again > 0:
            self.counts[AGAIN] += again
        if left:
            self._open[cookie] = left
        else:
            del self._open[cookie]
            _remember(self._done, cookie, how)

    def _ended(self, seq: int, event: Any) -> None:
        until, how = _number(event.detail.get("until", ""), 10), event.detail.get("how", "ended")
        for cookie in map(_number, event.detail.get("cookies", "").split()):
            lines = self._open.get(cookie, [])
            left = [one for one in lines if one.seq > until]
            if len(left) < len(lines):
                self.counts[how] += 1
                self._close(cookie, left, how, len(lines) - len(left) - 1)

    def _unaccounted(self, seq: int, event: Any) -> None:
        cookie, number = _number(event.detail.get("cookie", "")), _number(event.detail.get("connect", ""), 10)
        lines = self._open.get(cookie, [])
        left = [one for one in lines if one.seq > number]
        if len(left) < len(lines):
            self._close(cookie, left, event.name, len(lines) - len(left) - 1)
        self._alarm(seq, event)

    def _alarm(self, seq: int, event: Any) -> None:
        self.counts["unaccounted" if event.name == words.UNACCOUNTED else "foreign sockets"] += 1
        self.alarms.append(Alarm(seq, event.at, event.name, event.workload, event.detail))

    def _acknowledged(self, seq: int, event: Any) -> None:
        if self._forget:
            self.alarms.clear()
            self.glass.clear()


_HOST: Final = {
    words.CONNECT: Book._connect, words.ENDED: Book._ended, words.UNACCOUNTED: Book._unaccounted,
    words.FOREIGN: Book._alarm, words.ACKNOWLEDGED: Book._acknowledged,
}


def resume(seen: Iterable[tuple[int, Any]]) -> Book:
    """As `reconcile`, of a recording's end, after older alarms: what was open is open again.  A connect among the first
    is left out where it is open: events come from several journals, so its account may lie before what is seen."""
    book, first, last = Book(), 0, 0
    for seq, event in seen:
        if not first and getattr(event, "name", "") not in STANDING and getattr(event, "note", "") != BROKEN:
            first = seq
        last = seq
        book.see(seq, event)
    if first > BEGIN:
        book.leave_out(first + min(LEAD, (last - first) // 4))
    book.age()
    book.counts.clear()
    return book


def reconcile(seen: Iterable[tuple[int, Any]]) -> Book:
    """`seen`: (seq, event) of KINDS, in order."""
    book = Book()
    for seq, event in seen:
        book.see(seq, event)
    return book


def _number(text: str, base: int = 16) -> int:
    """0 where it is none."""
    try:
        return int(text, base)
    except ValueError:
        return 0


def _remember(known: dict[int, str], cookie: int, what: str) -> None:
    known.pop(cookie, None)
    while len(known) >= RECENT:
        del known[next(iter(known))]
    known[cookie] = what
