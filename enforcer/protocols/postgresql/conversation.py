"""The session after login: what the client asks is judged, recorded and forwarded; what the server says is masked.

Theory.  Every forwarded message that is answered leaves an *expectation*; the server's messages settle expectations
in order.  Messages between two Syncs (or a simple Query alone) are a *batch*.

- An error of the extended protocol drops the expectations up to the batch's Sync and undoes what the batch had named
  and the server had not confirmed; while the batch has no Sync yet, what the client goes on sending is discarded, as
  the server would (55.2.3).
- A name that an earlier, unconfirmed batch defined is not used before the server has answered: the client's messages
  wait (`_Wait`).  Within a batch this is not needed: whoever uses a name fails with its definition.
- A hold's answer belongs to the very message that was held, to its parameters, requests and holds; when its batch fails
  meanwhile, the hold is cancelled.
- *Meaning barrier*: after a statement that may change what text means, the next one is judged only when the server
  has answered and Weir has asked what names mean now.
- A denial is an Execute of a portal that cannot exist: the server itself fails at that place; its error is rewritten.
- Records of one pass stand before its bytes; the edge keeps that order.

Sources: PostgreSQL 15 documentation 55.2 Message Flow, 55.7 Message Formats.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, TypeVar

from msgspec import structs

from enforcer.core.context import Context
from enforcer.hot.chain import make_digest
from enforcer.hot.rows import Mask, rewrite
from enforcer.hot.wire import Framing
from enforcer.policy.masks import make_mask
from enforcer.protocols.postgresql import errors, meaning
from enforcer.protocols.postgresql.book import Book, Operation, unpack_parameters
from enforcer.protocols.postgresql.catalogue import Catalogue
from enforcer.protocols.postgresql.errors import ABORTED, Denial
from enforcer.protocols.postgresql.expected import Definition, Definitions, Expectation, Portal
from enforcer.protocols.postgresql.judge import ENDING, Judge, Names, Prepared
from enforcer.protocols.postgresql.messages import (
    DENIAL,
    FLUSH,
    NO_PORTAL,
    SYNC,
    Field,
    parse_bind,
    parse_row_description,
    parse_strings,
    render_describe_portal,
    render_error,
)
from enforcer.protocols.postgresql.operations import Meaning, Statement
from enforcer.protocols.postgresql.outgoing import Outgoing
from enforcer.protocols.postgresql.parameters import render_parameters
from enforcer.protocols.postgresql.startup import pinned
from enforcer.protocols.postgresql.studied import Studied, Verdict
from enforcer.words import commands as words
from enforcer.words import inputs
from enforcer.words.commands import CLIENT, SERVER, Command, SendData
from enforcer.words.decisions import DENY, HOLD, PERMIT, Decision
from enforcer.words.errors import RemoteProtocolError

TEXT_LIMIT: Final = 16 << 20          # bytes of one Query or Parse
MESSAGE_LIMIT: Final = 64 << 20       # bytes of one Bind; of one masked row or other message of the server
INBOX_LIMIT: Final = 1 << 20          # bytes of the client that wait before it is not read any more
EXPECTED_LIMIT: Final = 4096          # messages that may be unanswered
OVERHEAD: Final = 128                 # bytes that a waiting message takes besides its own
NAMES_LIMIT: Final = 10_000           # prepared statements and portals of a session
NAME_LIMIT: Final = 63                # bytes: PostgreSQL cuts longer ones (NAMEDATALEN)
SHOWN_LIMIT: Final = 64 << 10         # characters of a statement as approvers see it
UNKNOWN: Final = Decision(DENY, ("unknown-name",))
UNSUPPORTED: Final = Decision(DENY, ("unsupported",))
DESCRIBED: Final = 64                 # descriptions of rows whose masks are remembered, each of at most
DESCRIPTION: Final = 4 << 10          # bytes
RESERVED: Final = frozenset((NO_PORTAL, meaning.NAME))      # names that are Weir's own
# Kinds whose names are looked up when they are bound, or that name nothing.
_BOUND: Final = frozenset((
    "select", "insert", "update", "delete", "merge", "begin", "commit", "rollback", "rollback_to", "savepoint",
    "release", "set", "reset", "show", "listen", "notify", "unlisten", "deallocate", "discard", "close"))
_CONTROL: Final = frozenset(("begin", "commit", "rollback", "rollback_to", "savepoint", "release"))
# Kinds that never have rows.
_SILENT: Final = _CONTROL | {"set", "reset", "listen", "notify", "unlisten", "prepare", "declare", "deallocate",
                             "discard", "close", "ddl", "copy", "lock", "truncate", "do"}
T = TypeVar("T")

_Q, _P, _B, _D, _E, _C, _S, _H, _X, _F = b"QPBDECSHXF"
_COPY_DATA: Final = 0x64


class _Wait(Exception):
    """The client's message waits, and those after it: "answers" | "meaning" | "catalogue" | "hold"."""


class Fatal(Exception):
    """The session ends with these words."""

    def __init__(self, denial: Denial) -> None:
        super().__init__(denial.message)
        self.denial = denial


class Conversation:
    def __init__(self, context: Context, book: Book, first: Meaning) -> None:
        self._context, self._book = context, book
        self._judge = Judge(context)
        self._shared: dict[object, object] = {} if context.shared is None else context.shared
        self._judge.learn(meaning.intern_meaning(self._shared, first))
        self._labelled = bool(context.target.labels)
        self._client, self._server = Framing(MESSAGE_LIMIT, b"d", b"QPBDECSHXFdcfp"), Framing(
            MESSAGE_LIMIT, b"Dd", bytes(_ANSWERS) + b"DVKRWv")
        self._expected: deque[Expectation] = deque()
        self._statements: Definitions = {}
        self._portals: Definitions = {}
        self._names = Names(self._judge, self._find_prepared)
        self._undo: list[Definition] = []
        self._transient: set[bytes] = set()    # names of portals that end with the transaction
        self._status = "I"                     # of the transaction, as ReadyForQuery says: I | T | E
        self._batch = 1
        self._open = 0                         # messages of this batch that the server has got
        self._skip = False                     # until the client's Sync
        self._barriers = 0                     # forwarded, may change meaning, not answered
        self._stale = self._dirty = False      # meaning must be asked again; it changed inside this transaction
        self._catalogue_stale = self._catalogue_dirty = False
        self._copying: Operation | None = None
        self._flushed = False
        self._inbox: deque[tuple[int, bytes, int]] = deque()
        self._inbox_bytes = 0
        self._blocked = ""
        self._paused = False
        self._unbound: list[tuple[Expectation, Portal]] = []
        self._up, self._down = Outgoing(), Outgoing()
        self._orders: list[Command] = []
        self._held: Operation | None = None
        self._held_as: object = None           # what the answer of the hold is for
        self._approved = ""                    # ticket under which the message at the head of the inbox goes on
        self._refused: Denial | None = None    # or the reason why it does not
        self._said = b""
        self._late = b""                       # a notice that waits for the end of a message to the client
        self._described: dict[tuple[bytes, int, tuple[str, ...]], list[Mask | None]] = {}
        self._last: Operation | None = None    # whose result came last: a deferred error at Sync is its
        self.bytes_in = self.bytes_out = 0
        self.terminated = False                # the client said goodbye

    @property
    def state(self) -> str:
        return "held" if self._held is not None else "active" if self._expected else "idle"

    # ---- in and out

    def receive(self, peer: int, data: bytes) -> list[Command]:
        if peer == CLIENT:
            self.bytes_in += len(data)
            self._from_client(data)
        else:
            self._from_server(data)
            self._go_on()
        return self._flush()

    def _flush(self) -> list[Command]:
        """Records first, then bytes."""
        for expectation, portal in self._unbound:
            if not portal.recorded:
                expectation.operation = self._intent("bind", portal.verdict, portal.parameters, portal.ticket)
                portal.recorded = True
        self._unbound.clear()
        commands = self._book.take()
        data = self._up.take()
        if data:
            commands.append(SendData(SERVER, data))
        if self._late and not self._server.owed:
            self._down.add(self._late)
            self._late = b""
        data = self._down.take()
        if data:
            self.bytes_out += len(data)
            commands.append(SendData(CLIENT, data))
        if self._orders:
            commands += self._orders
            self._orders = []
        return commands

    def _from_client(self, data: bytes) -> None:
        whole, places = self._client.feed(data)
        for i in range(0, len(places), 4):
            if self.terminated:
                return
            kind, start, end = places[i], places[i + 1], places[i + 2]
            if not self._blocked:
                try:
                    self._message(kind, whole, start, end, places[i + 3])
                    continue
                except _Wait as wait:
                    self._block(str(wait))
            self._stash(kind, whole[start:end], places[i + 3])
        if self._client.error:
            raise RemoteProtocolError(self._client.error)

    def _stash(self, kind: int, message: bytes, count: int) -> None:
        self._inbox.append((kind, message, count))
        self._inbox_bytes += len(message) + OVERHEAD
        if self._inbox_bytes > INBOX_LIMIT and not self._paused:
            self._paused = True
            self._orders.append(words.PauseReading(CLIENT))

    def _go_on(self) -> None:
        """What waited, as far as it may go now."""
        while not self._blocked or self._unblocked():
            self._blocked = ""
            if not self._inbox:
                if self._paused:
                    self._paused = False
                    self._orders.append(words.ResumeReading(CLIENT))
                return
            kind, message, count = self._inbox[0]
            try:
                self._message(kind, message, 0, len(message), count)
            except _Wait as wait:
                self._block(str(wait))
                continue
            self._approved, self._refused = "", None
            self._inbox.popleft()
            self._inbox_bytes -= len(message) + OVERHEAD

    def _unblocked(self) -> bool:
        if self._blocked in ("answers", "meaning"):
            return not self._expected
        if self._blocked == "copy":
            return self._copying is not None or not self._expected
        return False

    def _block(self, reason: str) -> None:
        self._blocked = reason
        if reason == "answers" and self._open and not self._flushed:
            self._flushed = True
            self._up.add(FLUSH)

    # ---- the client's messages

    def _message(self, kind: int, whole: bytes, start: int, end: int, count: int) -> None:
        if kind in b"dcf":
            self._copy(kind, whole, start, end, count)
        elif self._copying is not None and kind in b"SH":
            pass                               # ignored by the server during COPY (55.2.7)
        elif self._copying is not None and kind != _X:
            raise RemoteProtocolError(f"unexpected message type {chr(kind)!r} during COPY from stdin")
        elif self._skip and kind not in b"SX":
            pass
        elif len(self._expected) > EXPECTED_LIMIT and kind not in b"HX":
            raise _Wait("answers")
        else:
            ask = _MESSAGES.get(kind)
            if ask is None:
                raise RemoteProtocolError(f"invalid frontend message type {kind}")
            ask(self, whole, start, end)

    def _copy(self, kind: int, whole: bytes, start: int, end: int, count: int) -> None:
        operation = self._copying
        if operation is None:
            return                             # after an error the server would ignore it (55.2.7)
        if kind == _COPY_DATA:
            self._book.deliver(operation, whole[start:end], count)
        else:
            self._copying = None
            head = self._expected[0]
            statements = head.verdict.studied.analysis.statements if head.verdict is not None else ()
            if head.kind == _Q and any(one.copy == "in" for one in statements[head.index + 1:]):
                self._blocked = "copy"         # the string goes on with another one
        self._up.piece(whole, start, end)

    def _sync(self, whole: bytes, start: int, end: int) -> None:
        self._skip = False
        self._expect(_S)
        self._up.piece(whole, start, end)
        self._end_batch()

    def _end_batch(self) -> None:
        self._batch += 1
        self._open = 0
        self._flushed = False

    def _client_flush(self, whole: bytes, start: int, end: int) -> None:
        self._up.piece(whole, start, end)

    def _terminate(self, whole: bytes, start: int, end: int) -> None:
        self.terminated = True
        self._up.piece(whole, start, end)

    def _function_call(self, whole: bytes, start: int, end: int) -> None:
        self._settle_open()
        self._ready()
        self._deny(Denial(
            errors.FEATURE_NOT_SUPPORTED, "Weir does not carry FunctionCall messages",
            hint="Call the function in a SELECT statement."), "function", True)

    def _expect(self, kind: int) -> Expectation:
        expectation = Expectation(kind, self._batch)
        self._expected.append(expectation)
        return expectation

    def _forward(self, whole: bytes, start: int, end: int) -> None:
        """A message of the extended protocol goes on; what was flushed before does not cover it."""
        self._open, self._flushed = self._open + 1, False
        self._up.piece(whole, start, end)

    def _ready(self) -> None:
        """May text be judged now?  Else the message waits, and what it waits for is under way."""
        if self._refused is not None:
            return
        if self._barriers:
            raise _Wait("answers")
        if self._dirty and any(one.kind in b"SQ" for one in self._expected):
            raise _Wait("answers")             # the transaction may end there, and what it set with it
        if self._catalogue_stale and self._status == "I":
            if self._expected:
                raise _Wait("answers")
            self._catalogue_stale = False
            catalogue = self._judge.meaning.catalogue
            self._orders.append(words.LoadCatalogue(
                self._judge.meaning.database, catalogue.version if catalogue else 0))
            raise _Wait("catalogue")
        if self._stale and self._status != "E":
            if self._expected:
                raise _Wait("answers")
            self._ask_meaning()
            raise _Wait("meaning")

    def _ask_meaning(self) -> None:
        asked = self._book.say("meaning", meaning.ASK_TEXT, make_digest(self._context.forwarded_key, meaning.ASK_TEXT))
        for kind in b"PBECC":
            expectation = self._expect(kind)
            expectation.hidden = True
            if kind == _E:
                expectation.operation = asked
        if self._open:
            self._up.add(meaning.ASK + FLUSH)
        else:
            self._up.add(meaning.ASK + SYNC)
            self._expect(_S).hidden = True
        self._stale, self._said = False, b""

    def _settle_open(self) -> None:
        """Before what is not of the extended protocol: an open batch has been answered."""
        if self._open and self._expected:
            raise _Wait("answers")

    def _query(self, whole: bytes, start: int, end: int) -> None:
        if end - start > TEXT_LIMIT:
            raise _too_long("Query", end - start)
        if whole.find(b"\0", start + 5, end) != end - 1:
            raise RemoteProtocolError("invalid message format: Query")
        self._settle_open()
        self._ready()
        text = whole[start + 5:end - 1]
        verdict = self._whole_string(self._verdict(text))
        ticket = self._pass("query", verdict, b"", True)
        if ticket is None:
            return
        operation = self._intent("query", verdict, b"", ticket)
        expectation = self._expect(_Q)
        expectation.operation, expectation.verdict = operation, verdict
        self._set_barrier(expectation, verdict)
        # exec_simple_query drops the unnamed statement and portal
        self._statements.pop(b"", None)
        self._portals.pop(b"", None)
        self._up.piece(whole, start, end)
        self._end_batch()
        if verdict.studied.copies_in:
            self._blocked = "copy"

    # ---- judging

    def _verdict(self, text: bytes) -> Verdict:
        verdict = self._judge.verdict(text, self._names)
        problem = _bad_names(verdict.studied) if verdict.studied.names else None
        if problem is not None:
            return structs.replace(verdict, decision=UNSUPPORTED, problem=problem)
        return self._own_names(verdict) if not verdict.studied.lasting else verdict

    def _whole_string(self, verdict: Verdict) -> Verdict:
        """What the transaction has set ends with it: the rest of the string would mean something else then."""
        studied = verdict.studied
        if not (self._dirty and studied.ends):
            return verdict
        kinds = [one.kind for one in studied.analysis.statements]
        first = next((at for at, kind in enumerate(kinds) if kind in ENDING), len(kinds))
        if all(kind in _CONTROL for kind in kinds[first:]):
            return verdict
        return structs.replace(verdict, decision=UNSUPPORTED, problem=Denial(
            errors.FEATURE_NOT_SUPPORTED, "what names mean changes in the middle of the string",
            hint="Send what follows the end of the transaction in a message of its own."))

    def _judged_with(self, studied: Studied) -> list[tuple[Definitions, bytes, object]]:
        """The session's names that a text was judged with."""
        if studied.lasting:
            return []
        named = [(self._statements if one.kind == "execute" else self._portals, one.name.encode())
                 for one in studied.analysis.statements if one.kind in ("execute", "fetch")]
        return [(names, name, self._find(names, name)) for names, name in named]

    def _own_names(self, verdict: Verdict) -> Verdict:
        """What runs or reads something that this session has named is judged with what it stands for."""
        studied = verdict.studied
        more: list[Studied] = []
        for statement in studied.analysis.statements:
            name = statement.name.encode()
            if statement.kind == "execute" and self._find_prepared(statement.name) is None:
                return structs.replace(verdict, decision=UNKNOWN, problem=replace(_no_statement(name), early=False))
            if statement.kind == "fetch":
                portal = self._find(self._portals, name)
                if not isinstance(portal, Portal):
                    return structs.replace(verdict, decision=UNKNOWN, problem=Denial(
                        errors.NO_PORTAL, f'cursor "{statement.name}" does not exist'))
                more.append(portal.verdict.studied)
        if not more:
            return verdict
        return self._judge.decide(join_studied(studied, more), False)

    def _find_prepared(self, name: str) -> Prepared | None:
        found = self._find(self._statements, name.encode())
        return found if isinstance(found, Prepared) else None

    def _find(self, names: Definitions, name: bytes) -> Prepared | Portal | None:
        """What a name stands for.  Waits where an earlier batch defined it and the server has not answered."""
        definition = names.get(name)
        if definition is None:
            return None
        if not definition.confirmed and definition.batch != self._batch:
            raise _Wait("answers")
        return definition.value

    def _define(
        self, names: Definitions, name: bytes, value: Prepared | Portal | None, expectation: Expectation
    ) -> None:
        definition = Definition(value, self._batch, names, name)
        names[name] = definition
        expectation.definition = definition
        if len(self._undo) > 4 * EXPECTED_LIMIT:
            self._undo = [one for one in self._undo if not one.confirmed]
        self._undo.append(definition)

    def _undo_batch(self, batch: int) -> None:
        for definition in reversed(self._undo):
            names, name = definition.names, definition.name
            if definition.batch == batch and not definition.confirmed and names.get(name) is definition:
                if definition.previous is None:
                    del names[name]
                else:
                    names[name] = definition.previous
        self._undo = [one for one in self._undo if one.batch != batch]

    def _pass(self, verb: str, verdict: Verdict, parameters: bytes, simple: bool) -> str | None:
        """The ticket ("" for none needed) under which this may go, or None: it was refused in place.  Waits for
        approvers where policy holds it."""
        refused, self._refused = self._refused, None
        ticket, self._approved = self._approved, ""
        if refused is not None:
            self._deny(refused, verb, simple, verdict)
            return None
        problem = verdict.problem
        if ticket and problem is None and self._held_as == _binding(verb, verdict, parameters):
            verdict = self._judge.decide(verdict.studied, True)
        decision = verdict.decision
        if decision.outcome == PERMIT:
            return ticket
        if decision.outcome == HOLD:
            self._hold(verb, verdict, parameters)
            raise _Wait("hold")
        self._deny(problem or errors.denied(decision, self._context.session, self._book.operations + 1), verb, simple,
                   verdict, parameters)
        return None

    def _intent(self, verb: str, verdict: Verdict, parameters: bytes, ticket: str, decision: int = PERMIT) -> Operation:
        studied, found = verdict.studied, verdict.decision
        return self._book.intent(
            verb, decision, forwarded=studied.forwarded if decision == PERMIT else b"", text=studied.blob,
            parameters=parameters, requests=studied.named, rules=found.rules, masks=found.masked,
            reason=found.reason if decision == DENY else "", ticket=ticket, durable=studied.writes or bool(ticket),
        )

    def _deny(
        self, denial: Denial, verb: str, simple: bool, verdict: Verdict | None = None, parameters: bytes = b""
    ) -> None:
        """Refused in place: the server itself fails there."""
        if verdict is None:
            refused = self._book.intent(verb, DENY, reason=denial.message)
        else:
            refused = self._intent(verb, verdict, parameters, "", DENY)
        self._book.result(refused, "denied", "", denial.code, denial.message)
        expectation = self._expect(_E)
        expectation.denial = denial
        expectation.operation = self._book.say("denial", b"Execute of a portal that cannot exist")
        self._up.add(DENIAL)
        if simple:
            self._expect(_S)
            self._up.add(SYNC)
            self._end_batch()
        else:
            self._open, self._flushed = self._open + 1, False
            self._skip = True

    def _hold(self, verb: str, verdict: Verdict, parameters: bytes) -> None:
        studied, decision = verdict.studied, verdict.decision
        self._held = self._intent(verb, verdict, parameters, "", HOLD)
        self._held_as = _binding(verb, verdict, parameters)
        shown = studied.blob[2].decode("utf-8", "replace")
        values = unpack_parameters(parameters)
        self._orders.append(words.Hold(
            self._held.number, decision.holds, ", ".join(f"{action} {resource}" for action, resource in studied.named),
            shown[:SHOWN_LIMIT], tuple("NULL" if value is None else value for value in values), decision.rules,
            make_digest(self._context.forwarded_key, studied.forwarded + parameters), self._judge.meaning.database,
        ))

    def _set_barrier(self, expectation: Expectation, verdict: Verdict) -> None:
        studied = verdict.studied
        if studied.barrier or studied.names or (self._dirty and studied.ends):
            expectation.barrier = True
            self._barriers += 1

    # ---- the extended protocol

    def _parse(self, whole: bytes, start: int, end: int) -> None:
        if end - start > TEXT_LIMIT:
            raise _too_long("Parse", end - start)
        (name, text), _ = parse_strings(whole[start + 5:end], 2)
        self._check_name(name)
        self._find(self._statements, name)
        if self._barriers:
            raise _Wait("answers")
        verdict = self._judge.verdict(text, self._names)
        if verdict.problem is not None:
            self._deny(verdict.problem, "parse", False, verdict)
            return
        if len(self._statements) > NAMES_LIMIT:
            self._deny(Denial(errors.LIMIT_EXCEEDED, "too many prepared statements in one session"), "parse", False)
            return
        expectation = self._expect(_P)
        self._define(self._statements, name, Prepared(text), expectation)
        self._forward(whole, start, end)

    @staticmethod
    def _check_name(name: bytes) -> None:
        if len(name) > NAME_LIMIT:
            raise Fatal(Denial("42622", f"a name of {len(name)} bytes is longer than {NAME_LIMIT}"))
        if name in RESERVED:
            raise Fatal(Denial("42602", "this name is Weir's own"))

    def _bind(self, whole: bytes, start: int, end: int) -> None:
        bind = parse_bind(whole[start + 5:end])
        self._check_name(bind.portal)
        self._find(self._portals, bind.portal)
        prepared = self._find(self._statements, bind.statement)
        self._ready()
        if not isinstance(prepared, Prepared):
            self._deny(_no_statement(bind.statement), "bind", False)
            return
        verdict = self._verdict(prepared.text)
        parameters = render_parameters(bind, verdict)
        ticket = self._pass("bind", verdict, parameters, False)
        if ticket is None:
            return
        if len(self._portals) > NAMES_LIMIT:
            self._deny(Denial(errors.LIMIT_EXCEEDED, "too many portals in one session"), "bind", False)
            return
        portal = Portal(prepared, self._judge.decide(verdict.studied, True) if ticket else verdict, bind)
        self._transient.add(bind.portal)
        portal.parameters, portal.ticket, portal.names = parameters, ticket, self._judged_with(verdict.studied)
        expectation = self._expect(_B)
        self._define(self._portals, bind.portal, portal, expectation)
        self._unbound.append((expectation, portal))
        self._forward(whole, start, end)

    def _describe(self, whole: bytes, start: int, end: int) -> None:
        kind, name = _named(whole, start, end)
        found = self._find(self._portals if kind == b"P" else self._statements, name)
        if found is None:
            self._deny(_no_portal(name) if kind == b"P" else _no_statement(name), "describe", False)
            return
        expectation = self._expect(_D)
        if isinstance(found, Portal):
            expectation.portal, found.asked = found, (self._batch, found.verdict.gate)
        self._forward(whole, start, end)

    def _execute(self, whole: bytes, start: int, end: int) -> None:
        (name,), at = parse_strings(whole[start + 5:end], 1)
        if at + 4 != end - start - 5:
            raise RemoteProtocolError("invalid message format: Execute")
        portal = self._find(self._portals, name)
        if self._barriers:
            raise _Wait("answers")
        if not isinstance(portal, Portal):
            self._deny(_no_portal(name), "execute", False)
            return
        if portal.bind is not None and not self._still_means(portal):
            self._deny(Denial(errors.FEATURE_NOT_SUPPORTED, "what names mean has changed since the portal was bound",
                              hint="Bind it again."), "execute", False, portal.verdict, portal.parameters)
            return
        if portal.verdict.gate != self._context.gate.version:
            portal.verdict = self._judge.decide(portal.verdict.studied, bool(portal.ticket))
        verdict = portal.verdict
        ticket = self._pass("execute", verdict, portal.parameters, False)
        if ticket is None:
            return
        operation = self._intent("execute", verdict, portal.parameters, ticket or portal.ticket)
        portal.recorded = True
        studied = verdict.studied
        if self._labelled and self._unknown_rows(portal):
            self._up.add(render_describe_portal(name))
            hidden = self._expect(_D)
            hidden.hidden, hidden.portal = True, portal
        expectation = self._expect(_E)
        expectation.operation, expectation.verdict, expectation.portal = operation, verdict, portal
        self._set_barrier(expectation, verdict)
        self._forward(whole, start, end)
        if studied.copies_in:
            self._blocked = "copy"

    def _unknown_rows(self, portal: Portal) -> bool:
        """Must Weir ask what the rows are?  Not where the client has just done so: where its Describe fails, the
        server leaves the Execute of the same batch out as well.  What a cursor or a prepared statement of SQL gives
        may change on the way (FetchPortalTargetList looks its name up)."""
        verdict = portal.verdict
        if portal.masks is not None and portal.described == verdict.gate:
            return False
        if portal.by_sql:
            return True
        if portal.asked == (self._batch, verdict.gate) and verdict.studied.lasting:
            return False
        return any(one.kind not in _SILENT for one in verdict.studied.analysis.statements)

    def _still_means(self, portal: Portal) -> bool:
        """A utility statement looks its names up when it is executed."""
        studied = portal.verdict.studied
        for one in studied.analysis.statements:
            if one.kind not in _BOUND:
                break
        else:
            return True
        self._ready()
        return portal.verdict.meaning == self._judge.meaning.version and all(
            self._find(names, name) is value for names, name, value in portal.names)

    def _close(self, whole: bytes, start: int, end: int) -> None:
        kind, name = _named(whole, start, end)
        names = self._portals if kind == b"P" else self._statements
        self._find(names, name)
        self._define(names, name, None, self._expect(_C))
        self._forward(whole, start, end)

    # ---- the server's messages

    def _from_server(self, data: bytes) -> None:
        whole, places = self._server.feed(data)
        for i in range(0, len(places), 4):
            kind, start, end = places[i], places[i + 1], places[i + 2]
            if kind == 0x44:
                self._rows(whole, start, end, places[i + 3])
            else:
                say = _ANSWERS.get(kind)
                if say is None:
                    raise RemoteProtocolError(f"invalid backend message type {kind}")
                say(self, whole, start, end, places[i + 3])
        if self._server.error:
            raise RemoteProtocolError(f"the server: {self._server.error}")

    def _head(self, kinds: bytes, what: int) -> Expectation:
        if not self._expected or self._expected[0].kind not in kinds:
            raise RemoteProtocolError(f"the server sent {chr(what)!r} that nothing asked for")
        return self._expected[0]

    def _running(self, what: int) -> tuple[Expectation, Operation]:
        head = self._head(b"QE", what)
        if head.operation is None or head.denial is not None:
            raise RemoteProtocolError(f"the server sent {chr(what)!r} for what cannot be")
        return head, head.operation

    def _rows(self, whole: bytes, start: int, end: int, count: int) -> None:
        head, operation = self._running(0x44)
        if head.hidden:
            self._server_whole(whole, end)
            self._said = whole[start + 5:end]
            return
        masks = head.portal.masks if head.portal is not None else head.masks
        if masks is None and self._labelled:
            raise RemoteProtocolError("the server sent rows that it did not describe")
        if not masks:
            self._book.deliver(operation, whole[start:end], count)
            self._down.piece(whole, start, end)
            return
        if self._server_whole(whole, end):
            end, count = self._server.tail, count - 1
            if end <= start:
                return
        data = rewrite(whole, start, end, masks)
        if data is None:
            raise RemoteProtocolError("the server sent a malformed DataRow")
        self._book.deliver(operation, data, count)
        self._down.add(data)

    def _server_whole(self, whole: bytes, end: int) -> bool:
        """Rows are wanted whole from now on; True where the last one in `whole` was not and is taken back."""
        if self._server.owed and end == len(whole):
            self._server.give_back(whole)
            return True
        self._server.streamed = b"d"
        return False

    def _row_description(self, whole: bytes, start: int, end: int, count: int) -> None:
        head = self._head(b"QD", 0x54)
        if head.kind == _Q or head.portal is not None:
            verdict = head.verdict if head.portal is None else head.portal.verdict
            masks = self._masks(whole[start + 5:end], verdict) if self._labelled else []
            if head.portal is not None:
                head.portal.masks, head.portal.described = masks, head.portal.verdict.gate
            else:
                head.masks = masks
        if head.kind == _D:
            self._expected.popleft()
        if not head.hidden:
            self._down.piece(whole, start, end)

    def _masks(self, description: bytes, verdict: Verdict | None) -> list[Mask | None]:
        """For each column of a RowDescription what its values become; empty where all stay."""
        catalogue = self._judge.meaning.catalogue
        if catalogue is None or verdict is None:
            raise RemoteProtocolError("the sources of a result on a target with labels cannot be told")
        key = (description, catalogue.version, verdict.decision.unmasked)
        kept = self._described.get(key)
        if kept is not None:
            return kept
        masks, unknown = self._make_masks(parse_row_description(description), catalogue, verdict)
        if not unknown and len(description) <= DESCRIPTION:
            if len(self._described) >= DESCRIBED:
                self._described.clear()
            self._described[key] = masks
        return masks

    def _make_masks(
        self, fields: tuple[Field, ...], catalogue: Catalogue, verdict: Verdict
    ) -> tuple[list[Mask | None], bool]:
        """And whether a table is not known."""
        masks: list[Mask | None] = []
        unknown = False
        for field in fields:
            known, label = catalogue.column(field.table, field.attribute)
            if not known:
                unknown = True
                masks.append(_nothing)
                continue
            seen = label is None or label.label in verdict.decision.unmasked
            masks.append(None if seen or label is None else make_mask(label.mask, field.type, field.format))
        if unknown:
            self._catalogue_stale = True
            self._late += render_error(
                "WARNING", "01000", "values of a table that Weir does not know yet are shown as NULL",
                hint="It was made after Weir read the catalogue, which it does anew now: ask again.", kind=b"N")
        return masks if any(masks) else [], unknown

    def _no_data(self, whole: bytes, start: int, end: int, count: int) -> None:
        head = self._head(b"D", 0x6E)
        self._expected.popleft()
        if head.portal is not None:
            head.portal.masks, head.portal.described = [], head.portal.verdict.gate
        if not head.hidden:
            self._down.piece(whole, start, end)

    def _parameter_description(self, whole: bytes, start: int, end: int, count: int) -> None:
        self._head(b"D", 0x74)
        self._down.piece(whole, start, end)

    def _complete(self, whole: bytes, start: int, end: int, count: int) -> None:
        """ParseComplete, BindComplete, CloseComplete."""
        head = self._head({0x31: b"P", 0x32: b"B", 0x33: b"C"}[whole[start]], whole[start])
        self._expected.popleft()
        definition = head.definition
        if definition is not None:
            definition.confirmed, definition.previous = True, None
            if definition.value is None and definition.names.get(definition.name) is definition:
                del definition.names[definition.name]
        if head.operation is not None:
            self._book.result(head.operation, "ok")
        if not head.hidden:
            self._down.piece(whole, start, end)

    def _command_complete(self, whole: bytes, start: int, end: int, count: int) -> None:
        head, operation = self._running(0x43)
        if end - start < 6:
            raise RemoteProtocolError("the server sent a malformed CommandComplete")
        tag = whole[start + 5:end - 1].decode("utf-8", "replace")
        self._end_statement(head, operation, "ok", tag)
        if not head.hidden:
            self._down.piece(whole, start, end)

    def _empty(self, whole: bytes, start: int, end: int, count: int) -> None:
        head, operation = self._running(0x49)
        self._end_statement(head, operation, "ok", "")
        self._down.piece(whole, start, end)

    def _suspended(self, whole: bytes, start: int, end: int, count: int) -> None:
        head, operation = self._running(0x73)
        if head.kind != _E:
            raise RemoteProtocolError("the server suspended what is no portal")
        self._end_statement(head, operation, "suspended", "")
        self._down.piece(whole, start, end)

    def _end_statement(self, head: Expectation, operation: Operation, status: str, tag: str) -> None:
        self._copying = None
        if head.hidden:
            self._book.result(operation, "ok", tag)
            self._learn()
        else:
            statements = head.verdict.studied.analysis.statements if head.verdict is not None else ()
            last = head.kind == _E or head.index + 1 >= len(statements)
            self._book.result(operation, status, tag, last=last)
            before = head.portal is not None and head.portal.by_sql           # its text has run before
            if head.index < len(statements) and not before:
                self._effects(head, statements[head.index], tag)
            head.index += 1
            head.masks = None
            self._last = operation
        self._server.streamed = b"Dd"
        if head.kind == _E:
            self._expected.popleft()
            self._settled(head)

    def _settled(self, expectation: Expectation) -> None:
        if not expectation.barrier:
            return
        expectation.barrier = False
        self._barriers -= 1
        studied = expectation.verdict.studied if expectation.verdict is not None else None
        if studied is not None and (studied.barrier or studied.ends):
            self._stale = self._dirty = True
            if studied.alters:
                self._catalogue_dirty = True
                self._judge.learn(meaning.alter_meaning(self._shared, self._judge.meaning))

    def _effects(self, head: Expectation, statement: Statement, tag: str) -> None:
        """What a statement did to the names of this session."""
        name, verdict = statement.name.encode(), head.verdict
        if verdict is None:
            return
        prepared = Prepared(verdict.studied.text, statement.name)
        if statement.kind == "prepare":
            self._confirmed(self._statements, name, prepared, head.batch)
        elif statement.kind == "declare":
            self._confirmed(self._portals, name, Portal(prepared, verdict, None), head.batch)
        elif statement.kind in ("deallocate", "discard"):
            if name:
                self._statements.pop(name, None)
            elif tag in ("DISCARD ALL", "DEALLOCATE ALL"):
                for one in [one for one in self._statements if one]:
                    del self._statements[one]
            if tag == "DISCARD ALL":
                self._close_all(head.portal)
        elif statement.kind == "close":
            self._portals.pop(name, None) if name else self._close_all(head.portal)

    def _close_all(self, running: Portal | None) -> None:
        """All portals but the one that says so."""
        for name in [name for name, one in self._portals.items() if one.value is not running or running is None]:
            del self._portals[name]

    @staticmethod
    def _confirmed(names: Definitions, name: bytes, value: Prepared | Portal, batch: int) -> None:
        made = names[name] = Definition(value, batch, names, name)
        made.confirmed, made.previous = True, None
        while len(names) > NAMES_LIMIT:        # the oldest is forgotten: nobody may use it any more
            del names[next(iter(names))]

    def _learn(self) -> None:
        answer = meaning.parse_row(self._said)
        old = self._judge.meaning
        learned = meaning.intern_meaning(
            self._shared, Meaning(answer.database, answer.role, answer.schemas, old.catalogue, 0))
        self._judge.learn(meaning.alter_meaning(self._shared, learned) if self._catalogue_dirty else learned)
        there = answer.prepared or {}
        for name, definition in list(self._statements.items()):
            value = definition.value
            if name and definition.confirmed and isinstance(value, Prepared) and (
                    there.get(name.decode("utf-8", "replace")) != value.text.decode("utf-8", "replace")):
                del self._statements[name]     # somebody else's work, in a function: what it is now cannot be told

    def _copy_in(self, whole: bytes, start: int, end: int, count: int) -> None:
        self._copying = self._running(0x47)[1]
        self._down.piece(whole, start, end)

    def _copy_out(self, whole: bytes, start: int, end: int, count: int) -> None:
        self._running(0x48)
        self._down.piece(whole, start, end)

    def _copy_data(self, whole: bytes, start: int, end: int, count: int) -> None:
        self._book.deliver(self._running(0x64)[1], whole[start:end], count)
        self._down.piece(whole, start, end)

    def _copy_end(self, whole: bytes, start: int, end: int, count: int) -> None:
        self._running(0x63)
        self._down.piece(whole, start, end)

    def _aside(self, whole: bytes, start: int, end: int, count: int) -> None:
        """NoticeResponse, NotificationResponse, ParameterStatus: at any time (55.2.6)."""
        if whole[start] == 0x53:
            reason = pinned(whole[start + 5:end])
            if reason:
                raise Fatal(Denial(errors.FEATURE_NOT_SUPPORTED, reason))
        if whole[start] == 0x4E and self._labelled:
            self._down.add(errors.render_scrubbed(b"N", whole[start + 5:end]))
        else:
            self._down.piece(whole, start, end)

    def _failed(self, whole: bytes, start: int, end: int, count: int) -> None:
        body = whole[start + 5:end]
        code, severity, text = errors.told(body)
        head = self._expected[0] if self._expected else None
        if head is not None and head.denial is not None and code == errors.NO_PORTAL:
            aborted = self._status == "E" and not (head.denial.early or head.denial.code == errors.SYNTAX_ERROR)
            self._down.add((ABORTED if aborted else head.denial).render())
        elif head is not None and head.hidden and self._own_batch():
            self._refused = Denial(code, text)
        elif self._labelled:
            self._down.add(errors.render_scrubbed(b"E", body))
        else:
            self._down.piece(whole, start, end)
        if head is None or severity in ("FATAL", "PANIC"):
            return
        if head.hidden and head.portal is None:
            self._stale = True                 # the question was not answered: it is asked again
        self._server.streamed = b"Dd"
        if head.kind in b"QS":
            self._copying = None
            operation = head.operation if head.kind == _Q else self._last
            if operation is not None:
                self._book.result(operation, "error", "", code, text)
            head.index = len(head.verdict.studied.analysis.statements) if head.verdict is not None else 0
        else:
            self._drop_batch(head, code, text)

    def _own_batch(self) -> bool:
        """Is the batch at the head Weir's own question between two of the client's?"""
        return any(e.kind == _S and e.hidden for e in self._expected)

    def _drop_batch(self, head: Expectation, code: str, text: str) -> None:
        """An error of the extended protocol: nothing of its batch follows but the Sync's answer (55.2.3)."""
        batch, status = head.batch, "error"
        self._copying = None
        while self._expected and self._expected[0].kind != _S:
            gone = self._expected.popleft()
            if gone.operation is not None:
                self._book.result(gone.operation, status, "", code if status == "error" else "",
                                  text if status == "error" else "")
            self._settled(gone)
            status = "skipped"
        self._undo_batch(batch)
        if not self._expected:
            self._skip = True
            self._give_up("its batch failed")

    def _give_up(self, reason: str) -> None:
        """What is held will not be run."""
        if self._held is not None:
            self._orders.append(words.CancelHold(self._held.number, reason))
            self._book.result(self._held, "cancelled")
            self._held, self._blocked = None, ""

    def _ready_for_query(self, whole: bytes, start: int, end: int, count: int) -> None:
        head = self._head(b"QS", 0x5A)
        if end - start != 6 or whole[start + 5] not in b"ITE":
            raise RemoteProtocolError("the server sent a malformed ReadyForQuery")
        self._expected.popleft()
        self._status = chr(whole[start + 5])
        if head.kind == _Q:
            if head.operation is not None and head.operation.number in self._book.open:
                self._book.result(head.operation, "ok")
            self._settled(head)
        if self._undo:
            self._undo = [one for one in self._undo if one.batch > head.batch]
        if self._status == "I":
            self._transaction_over(head.batch)
        if not head.hidden:
            self._down.piece(whole, start, end)

    def _transaction_over(self, batch: int) -> None:
        for name in list(self._transient):
            definition = self._portals.get(name)
            if definition is None or (isinstance(definition.value, Portal) and definition.value.bind is None):
                self._transient.discard(name)
            elif definition.batch <= batch:
                del self._portals[name]
                self._transient.discard(name)
        if self._dirty:
            self._stale, self._dirty = True, False
        if self._catalogue_dirty:
            self._catalogue_stale, self._catalogue_dirty = True, False

    # ---- events

    def handle(self, event: inputs.Input) -> list[Command]:
        if isinstance(event, inputs.HoldOpened) and self._held is not None and self._held.number == event.operation:
            self._late += (render_error(
                "NOTICE", "01000", f"held for approval: ticket {event.ticket}",
                hint=f"An approver answers with: weir approvals approve {event.ticket}", kind=b"N"))
        elif isinstance(event, inputs.HoldAnswered) and self._held is not None and (
                self._held.number == event.operation):
            self._answered(self._held, event)
            self._held = None
            self._blocked = ""
            self._go_on()
        elif isinstance(event, inputs.CatalogueReady) and self._blocked == "catalogue":
            self._new_catalogue(event)
            self._blocked = ""
            self._go_on()
        return self._flush()

    def _answered(self, held: Operation, event: inputs.HoldAnswered) -> None:
        if event.state == "approved":
            self._approved = event.ticket
            self._book.result(held, "ok", f"approved by {event.by}")
            return
        if event.state == "cancelled":
            self._refused = Denial(errors.QUERY_CANCELED, "canceling statement due to user request")
        elif event.state == "expired":
            self._refused = Denial(errors.INSUFFICIENT_PRIVILEGE, "permission denied: nobody approved it in time",
                                   f"Ticket {event.ticket}.", "Ask an approver, then ask again.")
        else:
            by = f" by {event.by}" if event.by else ""
            why = f": {event.reason}" if event.reason else ""
            self._refused = Denial(errors.INSUFFICIENT_PRIVILEGE, f"permission denied{by}{why}",
                                   f"Ticket {event.ticket}.")
        self._book.result(held, "cancelled" if event.state == "cancelled" else "denied", "", self._refused.code,
                          self._refused.message)

    def _new_catalogue(self, event: inputs.CatalogueReady) -> None:
        if not isinstance(event.catalogue, Catalogue):
            raise Fatal(Denial(errors.IO_ERROR, event.reason or "the catalogue could not be read"))
        old = self._judge.meaning
        self._judge.learn(meaning.intern_meaning(
            self._shared, Meaning(old.database, old.role, old.schemas, event.catalogue, 0)))

    def abandon(self, reason: str) -> list[Command]:
        """A side is gone, or the session ends: what was held is given up, what was forwarded stays open."""
        self._give_up(reason)
        return [one for one in self._orders if isinstance(one, words.CancelHold)]


def _binding(verb: str, verdict: Verdict, parameters: bytes) -> object:
    """What an approval is bound to: the same text, parameters, requests, and terms under which it was asked."""
    studied = verdict.studied
    return verb, studied.forwarded, parameters, studied.named, verdict.decision.holds


def _bad_names(studied: Studied) -> Denial | None:
    """Of what prepares or declares: a name of Weir's own, or a name twice in a string."""
    made = [one.name for one in studied.analysis.statements if one.kind in ("prepare", "declare")]
    if any(name.encode() in RESERVED for name in made):
        return Denial("42602", "this name is Weir's own")
    if len(made) != len(set(made)):
        return Denial(errors.FEATURE_NOT_SUPPORTED, "Weir does not carry strings that prepare or declare a name twice")
    return None


def _nothing(value: bytes) -> None:
    """The mask of what is not known: NULL, in every type and format."""


def join_studied(studied: Studied, more: list[Studied]) -> Studied:
    """`studied` with what it stands for."""
    every = [studied, *more]
    return structs.replace(
        studied, requests=_union(one.requests for one in every), named=_union(one.named for one in every),
        shows=_union(one.shows for one in every), blocked=_union(one.blocked for one in every),
        writes=any(one.writes for one in every), reasons=_union(one.reasons for one in every),
    )


def _union(groups: Iterable[tuple[T, ...]]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(one for group in groups for one in group))


def _named(whole: bytes, start: int, end: int) -> tuple[bytes, bytes]:
    """Describe and Close: b"S" or b"P", and the name."""
    if end - start < 7:                        # mypyc's slices must not end before they begin
        raise RemoteProtocolError("invalid message format: Describe or Close")
    kind = whole[start + 5:start + 6]
    (name,), at = parse_strings(whole[start + 6:end], 1)
    if kind not in (b"S", b"P") or at != end - start - 6:
        raise RemoteProtocolError("invalid message format: Describe or Close")
    return kind, name


def _too_long(what: str, size: int) -> Fatal:
    return Fatal(Denial(errors.LIMIT_EXCEEDED, f"{what} of {size} bytes is longer than {TEXT_LIMIT}"))


def _no_statement(name: bytes) -> Denial:
    shown = name.decode("utf-8", "replace")
    return Denial(errors.NO_STATEMENT, f'prepared statement "{shown}" does not exist' if name else
                  "unnamed prepared statement does not exist", early=True)


def _no_portal(name: bytes) -> Denial:
    return Denial(errors.NO_PORTAL, f'portal "{name.decode("utf-8", "replace")}" does not exist', early=True)


_MESSAGES: Final[dict[int, Callable[[Conversation, bytes, int, int], None]]] = {
    _Q: Conversation._query,
    _P: Conversation._parse,
    _B: Conversation._bind,
    _D: Conversation._describe,
    _E: Conversation._execute,
    _C: Conversation._close,
    _S: Conversation._sync,
    _H: Conversation._client_flush,
    _X: Conversation._terminate,
    _F: Conversation._function_call,
}
_ANSWERS: Final[dict[int, Callable[[Conversation, bytes, int, int, int], None]]] = {
    0x31: Conversation._complete,              # 1 ParseComplete
    0x32: Conversation._complete,              # 2 BindComplete
    0x33: Conversation._complete,              # 3 CloseComplete
    0x41: Conversation._aside,                 # A NotificationResponse
    0x43: Conversation._command_complete,      # C
    0x45: Conversation._failed,                # E ErrorResponse
    0x47: Conversation._copy_in,               # G CopyInResponse
    0x48: Conversation._copy_out,              # H CopyOutResponse
    0x49: Conversation._empty,                 # I EmptyQueryResponse
    0x4E: Conversation._aside,                 # N NoticeResponse
    0x53: Conversation._aside,                 # S ParameterStatus
    0x54: Conversation._row_description,       # T
    0x5A: Conversation._ready_for_query,       # Z
    0x63: Conversation._copy_end,              # c CopyDone
    0x64: Conversation._copy_data,             # d CopyData
    0x6E: Conversation._no_data,               # n
    0x73: Conversation._suspended,             # s PortalSuspended
    0x74: Conversation._parameter_description, # t
}
