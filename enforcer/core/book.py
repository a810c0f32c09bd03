"""The session's book: decisions, holds, operations and streams, as events.

Theory: an operation is numbered when its intent is written.  One that is held has an intent of its own, whose result is
what people said; what then goes has another.  Each stream of an operation is hashed as it passes; what is kept of it is
written piece by piece, the rest is in StreamEnded.
"""
from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b, sha256
from typing import Final

import msgspec

from enforcer.core.context import Context
from enforcer.core.desk import Ask, Verdict
from enforcer.hot.chain import make_digest
from enforcer.policy.detectors import labels_of
from enforcer.words import commands as words
from enforcer.words import events, inputs
from enforcer.words.commands import Command, Record
from enforcer.words.decisions import DENY, HOLD, PERMIT, Decision
from enforcer.words.operations import Request

SALT: Final = 16
NOTHING: Final = b""
SHOWN: Final = 64 << 10               # characters as approvers see them, who are told where more is cut
HELD: Final = 64                      # operations of a session that wait for people at a time
NOTES: Final = 10_000                 # sizes and signals of an operation that are recorded
FIRST: Final = 15.0                   # seconds until a client's user is told again that it is held; doubled each time
SELDOM: Final = 300.0                 # seconds between two at most
REMINDERS: Final = 100                # of one hold
AGAIN: Final = "held "                # name of its timer, before the operation's number
_pack = msgspec.msgpack.Encoder().encode


class Stream:
    """What passed of one stream."""

    __slots__ = ("bytes", "hash", "kept")

    def __init__(self) -> None:
        self.bytes = self.kept = 0
        self.hash = sha256()


class Operation:
    """One that was permitted, until its result."""

    __slots__ = ("began", "number", "streams")

    def __init__(self, number: int, began: int) -> None:
        self.number, self.began = number, began
        self.streams: dict[str, Stream] = {}


class _Held:
    __slots__ = ("ask", "line", "operation", "pause", "terms", "then", "told", "waits")

    def __init__(self, operation: Operation, ask: Ask, decision: Decision, then: Callable[[Verdict], None],
                 waits: Callable[[str], None]) -> None:
        self.operation, self.ask, self.terms, self.then, self.waits = operation, ask, decision.holds, then, waits
        self.line, self.pause, self.told = "", FIRST, 0


class Manner:
    """What of an operation is written down and shown, and what makes two alike.  A protocol says what is otherwise
    with its own."""

    def text(self, ask: Ask) -> bytes:
        return ask.text

    def shown(self, ask: Ask) -> str:
        """The text for approvers, who are told where more of it is cut."""
        return self.text(ask).decode("utf-8", "backslashreplace")

    def parameters(self, ask: Ask) -> tuple[str, ...]:
        return ask.parameters

    def reason(self, ask: Ask, reason: str) -> str:
        """Of a denial: it may quote what was asked."""
        return reason

    def named(self, request: Request) -> str:
        return request.resource

    def alike(self, ask: Ask) -> tuple[object, ...]:
        """What another operation has in common with it that an approval for the whole session stands for."""
        return ask.requests, ask.parameters, ask.exact


class Book:
    """The session's `Desk`.  `say` carries out a command, in order with everything else that is said."""

    def __init__(self, context: Context, say: Callable[[Command], None], manner: Manner | None = None) -> None:
        self.context, self._say, self._manner = context, say, manner or Manner()
        self.account = ""
        self.operations = 0
        self.bytes_in = self.bytes_out = 0     # of streams
        self._open: dict[int, Operation] = {}
        self._held: dict[int, _Held] = {}

    @property
    def target(self) -> str:
        return self.context.target.name

    @property
    def busy(self) -> bool:
        return bool(self._open)

    @property
    def held(self) -> bool:
        return bool(self._held)

    # Deciding

    def ask(self, ask: Ask, then: Callable[[Verdict], None], waits: Callable[[str], None] = lambda line: None) -> None:
        context = self.context
        decision = context.gate.decide(context.principal, ask.requests, ask.labels)
        if decision.outcome == PERMIT:
            then(Verdict(True, self._intend(ask, decision).number, "", decision.masked))
        elif decision.outcome == HOLD:
            self._hold(ask, decision, then, waits)
        else:
            self._deny(ask, decision, then)

    def permits(self, ask: Ask) -> Decision:
        """What policy says now; nothing is recorded."""
        return self.context.gate.decide(self.context.principal, ask.requests, ask.labels)

    def allow(self, ask: Ask) -> int:
        """It comes of what was permitted before.  Gives its number."""
        return self._intend(ask, Decision(PERMIT, ("permitted-before",))).number

    def _deny(self, ask: Ask, decision: Decision, then: Callable[[Verdict], None]) -> None:
        operation = self._intend(ask, decision)
        self._result(operation, "denied", "", self._manner.reason(ask, decision.reason).encode())
        then(Verdict(False, operation.number, f"permission denied: {decision.reason} (session "
                     f"{self.context.session}, operation {operation.number})"))

    def _hold(
        self, ask: Ask, decision: Decision, then: Callable[[Verdict], None], waits: Callable[[str], None],
    ) -> None:
        if len(self._held) >= HELD:
            self._deny(ask, Decision(DENY, decision.rules, f"{HELD} operations of this session are held"), then)
            return
        operation = self._intend(ask, decision)
        self._held[operation.number] = _Held(operation, ask, decision, then, waits)
        manner = self._manner
        named = ", ".join(f"{one.action} {manner.named(one)}" for one in ask.requests)
        told = (self.account, ask.verb, ask.exact, ask.parameters)
        self._say(words.Hold(
            operation.number, decision.holds, named[:SHOWN], manner.shown(ask)[:SHOWN], manner.parameters(ask),
            decision.rules, _digest(self.context.forwarded_key, "binding", told),
            exact=_digest(NOTHING, "exact", told), asked=_digest(NOTHING, "asked", *manner.alike(ask)),
            shape=ask.shape, account=self.account, covers=ask.covers))

    def withdraw(self, then: Callable[[Verdict], None]) -> None:
        for number, held in list(self._held.items()):
            if held.then is then:
                self._say(words.CancelHold(number, "nobody waits for it any more"))

    def opened(self, event: inputs.HoldOpened) -> None:
        held = self._held.get(event.operation)
        if held is not None:
            held.line = (f"held for approval: ticket {event.ticket}: {event.reason}; an approver answers with: "
                         f"weir approvals approve {event.ticket} [--reason TEXT]")
            self._remind(held)

    def fired(self, name: str) -> None:
        """A timer."""
        number = name.removeprefix(AGAIN)
        held = self._held.get(int(number)) if number.isdecimal() else None
        if held is not None:
            self._remind(held)

    def _remind(self, held: _Held) -> None:
        """Less and less often and not without end: who reads nothing is not sent more and more."""
        held.waits(f"still {held.line}" if held.told else held.line)
        held.told += 1
        if held.told < REMINDERS:
            self._say(words.StartTimer(f"{AGAIN}{held.operation.number}", held.pause))
            held.pause = min(held.pause * 2, SELDOM)

    def answered(self, event: inputs.HoldAnswered) -> None:
        held = self._held.pop(event.operation, None)
        if held is None:
            return
        self._say(words.StartTimer(f"{AGAIN}{event.operation}", 0))
        if event.state == "approved":
            self._result(held.operation, "ok", f"approved by {event.by}")
            self._approved(held, event.ticket)
            return
        reason = _refusal(event)
        self._result(held.operation, "cancelled" if event.state == "cancelled" else "denied", "", reason.encode())
        held.then(Verdict(False, held.operation.number, reason))

    def _approved(self, held: _Held, ticket: str) -> None:
        """Judged once more: policies may have changed while it waited."""
        context, ask = self.context, held.ask
        before = context.gate.decide(context.principal, ask.requests, ask.labels)
        decision = context.gate.decide(context.principal, ask.requests, ask.labels, approved=True)
        if before.outcome == HOLD and before.holds != held.terms:
            self._say(words.ReturnHold(held.operation.number))
            self._hold(ask, before, held.then, held.waits)
        elif decision.outcome != PERMIT:
            self._say(words.ReturnHold(held.operation.number))
            self._deny(ask, decision, held.then)
        else:
            self._say(words.UseHold(self.operations + 1, ticket, held.operation.number))
            operation = self._intend(ask, decision, ticket)
            held.then(Verdict(True, operation.number, "", decision.masked))

    # Writing

    def _intend(self, ask: Ask, decision: Decision, ticket: str = "") -> Operation:
        forwarded = make_digest(self.context.forwarded_key, ask.exact) if decision.outcome == PERMIT else NOTHING
        manner, parameters = self._manner, self._manner.parameters(ask)
        return self._write(
            ask.verb, decision.outcome, "crew", manner.text(ask),
            forwarded=forwarded, parameters=_pack(parameters) if parameters else NOTHING,
            requests=tuple((one.action, manner.named(one)) for one in ask.requests), rules=decision.rules,
            masks=decision.masked, reason=self._manner.reason(ask, decision.reason) if decision.outcome == DENY else "",
            ticket=ticket, durable=ask.writes or bool(ticket))

    def own(self, verb: str, text: bytes) -> int:
        return self._write(verb, PERMIT, "weir", text).number

    def _write(
        self, verb: str, decision: int, actor: str, text: bytes, *, forwarded: bytes = NOTHING,
        parameters: bytes = NOTHING, requests: tuple[tuple[str, str], ...] = (), rules: tuple[str, ...] = (),
        masks: tuple[str, ...] = (), reason: str = "", ticket: str = "", durable: bool = False,
    ) -> Operation:
        context = self.context
        self.operations += 1
        durable = (durable or context.durable == "all") and context.durable != "none"
        operation = Operation(self.operations, context.monotonic())
        spoken, given = self._blob(text), self._blob(parameters)
        self._say(Record(events.Intent(
            events.INTENT, context.now(), operation.began, context.session, operation.number, actor, verb, decision,
            forwarded, spoken[0], given[0], requests, rules, masks, reason, ticket, durable,
            context.reported() if actor == "crew" else (),
        ), tuple(one for one in (spoken, given) if one[0]), True, durable))
        if decision == PERMIT:
            self._open[operation.number] = operation
        return operation

    def _blob(self, content: bytes) -> events.Blob:
        if not content:
            return NOTHING, NOTHING, NOTHING
        salt = self.context.random(SALT)
        return make_digest(salt, content), salt, content

    def masked(self, requests: tuple[Request, ...]) -> frozenset[str]:
        """Labels of detectors that this operation's output may not show."""
        labels = labels_of(self.context.target.detectors)
        if not labels:
            return frozenset()
        decision = self.context.gate.decide(self.context.principal, requests, labels)    # as it was asked: it is known
        return frozenset(decision.masked if decision.outcome != DENY else labels)

    def refuse(self, ask: Ask, rule: str, reason: str, then: Callable[[Verdict], None]) -> None:
        """What policy permits, and what cannot be done as it wants it."""
        self._deny(ask, Decision(DENY, (rule,), reason), then)

    # Streams

    def piece(self, number: int, stream: str, data: bytes, keep: bool = True) -> None:
        operation = self._open.get(number)
        if operation is None or not data:
            return
        passed = operation.streams.get(stream)
        if passed is None:
            passed = operation.streams[stream] = Stream()
        passed.hash.update(data)
        if stream == "in":
            self.bytes_in += len(data)
        else:
            self.bytes_out += len(data)
        room = self.context.target.payload_limit - passed.kept if keep else 0
        if room > 0 and passed.kept == passed.bytes:
            self._keep(operation, stream, passed, data[:room])
        passed.bytes += len(data)

    def _keep(self, operation: Operation, stream: str, passed: Stream, data: bytes) -> None:
        for at in range(0, len(data), events.PIECE):
            content = data[at:at + events.PIECE]
            self._streamed(operation, stream, passed.kept, content, stream == "in")
            passed.kept += len(content)

    def typed(self, number: int, size: int) -> None:
        """At a terminal: so many bytes are on their way.  What of them may be recorded follows (`shown`)."""
        operation = self._open.get(number)
        if operation is None:
            return
        passed = operation.streams.setdefault("in", Stream())
        if passed.kept < self.context.target.payload_limit:
            self._streamed(operation, events.TYPED, passed.bytes, b"", True, size)
        passed.bytes += size
        self.bytes_in += size

    def shown(self, number: int, offset: int, content: bytes) -> None:
        """Of what was typed: with stars for what the terminal did not show, in the hash as well."""
        operation = self._open.get(number)
        if operation is None:
            return
        passed = operation.streams.setdefault("in", Stream())
        passed.hash.update(content)
        content = content[:max(0, self.context.target.payload_limit - passed.kept)]
        if content:
            passed.kept += len(content)
            self._streamed(operation, "in", offset, content, False)

    def note(self, number: int, stream: str, content: bytes) -> None:
        operation = self._open.get(number)
        if operation is None:
            return
        passed = operation.streams.setdefault(stream, Stream())
        passed.kept += 1
        if passed.kept <= NOTES:
            self._streamed(operation, stream, 0, content, True)

    def _streamed(
        self, operation: Operation, stream: str, offset: int, content: bytes, barrier: bool, size: int = 0,
    ) -> None:
        blob = self._blob(content)
        self._say(Record(events.Streamed(
            events.STREAMED, self.context.now(), self.context.monotonic(), self.context.session, operation.number,
            stream, offset, size or len(content), blob[0]), (blob,) if content else (), barrier))

    def done(self, number: int, status: str, tag: str = "", error: bytes = NOTHING) -> None:
        operation = self._open.pop(number, None)
        if operation is not None:
            self._result(operation, status, tag, error)

    def _result(self, operation: Operation, status: str, tag: str = "", error: bytes = NOTHING) -> None:
        context = self.context
        now, trouble = context.monotonic(), self._blob(error)
        delivered = self._end_streams(operation)
        self._say(Record(events.Result(
            events.RESULT, context.now(), now, context.session, operation.number, status, tag, "", 0, delivered,
            now - operation.began, NOTHING, NOTHING, (), trouble[0]), (trouble,) if trouble[0] else ()))

    def _end_streams(self, operation: Operation) -> int:
        """Gives the bytes that were delivered."""
        delivered = 0
        for name, stream in operation.streams.items():
            if name in ("in", "out", "err"):
                delivered += stream.bytes if name != "in" else 0
                self._end_stream(operation, name, stream)
        return delivered

    def _end_stream(self, operation: Operation, name: str, stream: Stream) -> None:
        blob = self._blob(stream.hash.hexdigest().encode()) if stream.bytes else (NOTHING, NOTHING, NOTHING)
        self._say(Record(events.StreamEnded(
            events.STREAM_ENDED, self.context.now(), self.context.monotonic(), self.context.session,
            operation.number, name, stream.bytes, stream.kept, blob[0]), (blob,) if blob[0] else ()))

    # The session

    def tell(self, name: str, value: str) -> None:
        self._say(Record(events.SessionNoted(
            events.SESSION_NOTED, self.context.now(), self.context.monotonic(), self.context.session, name, value)))

    def closed(self, reason: str) -> None:
        """Results of what is open will never be known, but what passed until now is; what is held is given up by the
        edge."""
        if self._open:
            for operation in self._open.values():
                self._end_streams(operation)
            self._say(Record(events.Gap(
                events.GAP, self.context.now(), self.context.monotonic(), self.context.session,
                tuple(sorted(self._open)), reason)))
            self._open.clear()
        self._say(Record(events.SessionClosed(
            events.SESSION_CLOSED, self.context.now(), self.context.monotonic(), self.context.session, reason,
            self.operations, self.bytes_in, self.bytes_out)))


def _refusal(event: inputs.HoldAnswered) -> str:
    if event.state == "ticket":
        return (f"permission denied until it is approved: ticket {event.ticket}: {event.reason}; ask the same again "
                "once it is: it passes once")
    if event.state == "expired":
        return f"permission denied: nobody approved it in time (ticket {event.ticket})"
    if event.state == "cancelled":
        return f"cancelled: {event.reason}"
    by, why = f" by {event.by}" if event.by else "", f": {event.reason}" if event.reason else ""
    return f"permission denied{by}{why} (ticket {event.ticket})"


def _digest(key: bytes, *told: object) -> bytes:
    return blake2b(_pack(told), digest_size=32, key=key).digest()
