"""What the client asks: each message of it is judged, recorded, and forwarded or refused.

Theory.  After a statement that may change what text means (a *meaning barrier*), the next one is judged only when the
server has answered and Weir has asked what names mean now.  Messages between two Syncs (or a simple Query alone) are a
*batch*; while a batch that failed has no Sync yet, what the client goes on sending is discarded, as the server would.

Sources: PostgreSQL 15 documentation 55.2 Message Flow, 55.7 Message Formats.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Final

from enforcer.hot.chain import make_digest
from enforcer.protocols.postgresql import errors, meaning
from enforcer.protocols.postgresql.errors import Denial, Fatal
from enforcer.protocols.postgresql.expected import B, C, D, E, Expectation, P, Portal, Q, S
from enforcer.protocols.postgresql.judge import Prepared
from enforcer.protocols.postgresql.messages import (
    FLUSH,
    SYNC,
    parse_bind,
    parse_strings,
    parse_types,
    render_describe_portal,
)
from enforcer.protocols.postgresql.names import LIMIT as NAMES_LIMIT
from enforcer.protocols.postgresql.names import Wait
from enforcer.protocols.postgresql.operations.words import CASTING
from enforcer.protocols.postgresql.parameters import render_parameters
from enforcer.protocols.postgresql.passage import CONTROL, RESERVED, Passage
from enforcer.protocols.postgresql.settings import TIMEOUT
from enforcer.protocols.postgresql.state import State
from enforcer.protocols.postgresql.studied import Verdict
from enforcer.words import commands as words
from enforcer.words.decisions import HOLD
from enforcer.words.errors import RemoteProtocolError

TEXT_LIMIT: Final = 16 << 20          # bytes of one Query or Parse
EXPECTED_LIMIT: Final = 4096          # messages that may be unanswered
NAME_LIMIT: Final = 63                # bytes: PostgreSQL cuts longer ones (NAMEDATALEN)
# Kinds whose names are looked up when they are bound, or that name nothing.
_BOUND: Final = frozenset((
    "select", "insert", "update", "delete", "merge", "begin", "commit", "rollback", "rollback_to", "savepoint",
    "release", "set", "reset", "show", "listen", "notify", "unlisten", "deallocate", "discard", "close"))
# Kinds that never have rows.
_SILENT: Final = CONTROL | {"set", "reset", "listen", "notify", "unlisten", "prepare", "declare", "deallocate",
                            "discard", "close", "ddl", "copy", "lock", "truncate", "do"}
_TIMED: Final = ("sql:set", TIMEOUT)
H: Final = 0x48                       # Flush
X: Final = 0x58                       # Terminate
F: Final = 0x46                       # FunctionCall
_COPY_DATA: Final = 0x64


class Questions:
    def __init__(self, state: State, passage: Passage) -> None:
        self._state, self._names, self._passage = state, state.names, passage
        self._unbound: list[tuple[Expectation, Portal]] = []
        self.terminated = False                # the client said goodbye

    def settle(self) -> None:
        """At the end of a pass: a Bind that no Execute followed is on record as well."""
        for expectation, portal in self._unbound:
            if not portal.recorded:
                expectation.operation = self._passage.intent("bind", portal.verdict, portal.parameters, portal.ticket)
                portal.recorded = True
        self._unbound.clear()

    def ask(self, kind: int, whole: bytes, start: int, end: int, count: int) -> None:
        state = self._state
        if kind in b"dcf":
            self._copy(kind, whole, start, end, count)
        elif state.copying is not None and kind in b"SH":
            pass                               # ignored by the server during COPY (55.2.7)
        elif state.copying is not None and kind != X:
            raise RemoteProtocolError(f"unexpected message type {chr(kind)!r} during COPY from stdin")
        elif state.skip and kind not in b"SX":
            pass
        elif len(state.expected) > EXPECTED_LIMIT and kind not in b"HX":
            raise Wait("answers")
        else:
            ask = _MESSAGES.get(kind)
            if ask is None:
                raise RemoteProtocolError(f"invalid frontend message type {kind}")
            ask(self, whole, start, end)

    def _copy(self, kind: int, whole: bytes, start: int, end: int, count: int) -> None:
        state = self._state
        operation = state.copying
        if operation is None:
            return                             # after an error the server would ignore it (55.2.7)
        if kind == _COPY_DATA:
            state.book.deliver(operation, whole[start:end], count, operation.hides)
        else:
            state.copying = None
            head = state.expected[0]
            statements = head.verdict.studied.analysis.statements if head.verdict is not None else ()
            if head.kind == Q and any(one.copy == "in" for one in statements[head.index + 1:]):
                state.blocked = "copy"         # the string goes on with another one
        state.up.piece(whole, start, end)

    def _sync(self, whole: bytes, start: int, end: int) -> None:
        state = self._state
        state.skip = False
        state.expect(S)
        state.up.piece(whole, start, end)
        state.end_batch()

    def _client_flush(self, whole: bytes, start: int, end: int) -> None:
        self._state.up.piece(whole, start, end)

    def _terminate(self, whole: bytes, start: int, end: int) -> None:
        self.terminated = True
        self._state.up.piece(whole, start, end)

    def _function_call(self, whole: bytes, start: int, end: int) -> None:
        self._settle_open()
        self._ready()
        self._passage.deny(Denial(
            errors.FEATURE_NOT_SUPPORTED, "Weir does not carry FunctionCall messages",
            hint="Call the function in a SELECT statement."), "function", True)

    def _forward(self, whole: bytes, start: int, end: int) -> None:
        """A message of the extended protocol goes on; what was flushed before does not cover it."""
        state = self._state
        state.open, state.flushed = state.open + 1, False
        state.up.piece(whole, start, end)

    def _ready(self) -> None:
        """May text be judged now?  Else the message waits, and what it waits for is under way."""
        state = self._state
        if state.refused is not None:
            return
        if state.barriers:
            raise Wait("answers")
        if state.dirty and any(one.kind in b"SQ" for one in state.expected):
            raise Wait("answers")             # the transaction may end there, and what it set with it
        if state.catalogue_stale and state.status == "I":
            if state.expected:
                raise Wait("answers")
            state.catalogue_stale = False
            catalogue = state.judge.meaning.catalogue
            state.orders.append(words.LoadCatalogue(
                state.judge.meaning.database, catalogue.version if catalogue else 0))
            raise Wait("catalogue")
        if state.stale and state.status != "E":
            if state.expected:
                raise Wait("answers")
            self._ask_meaning()
            raise Wait("meaning")

    def _ask_meaning(self) -> None:
        state = self._state
        asked = state.book.say("meaning", meaning.ASK_TEXT, make_digest(state.context.forwarded_key, meaning.ASK_TEXT))
        for kind in b"PBECC":
            expectation = state.expect(kind)
            expectation.hidden = True
            if kind == E:
                expectation.operation = asked
        if state.open:
            state.up.add(meaning.ASK + FLUSH)
        else:
            state.up.add(meaning.ASK + SYNC)
            state.expect(S).hidden = True
        state.stale, state.said = False, b""

    def _ask_timeout(self, verdict: Verdict) -> None:
        """Before a hold, which statement_timeout ends, in a session that has set it: nothing else waits for it."""
        state = self._state
        known, state.timeout_known = state.timeout_known, False
        if known or not state.timed or verdict.decision.outcome != HOLD or state.status == "E":
            return
        if state.refused is not None or self._passage.approved:
            return
        if state.expected:
            raise Wait("answers")
        self._ask_meaning()
        state.timeout_known = True
        raise Wait("meaning")

    def _settle_open(self) -> None:
        """Before what is not of the extended protocol: an open batch has been answered."""
        if self._state.open and self._state.expected:
            raise Wait("answers")

    def _query(self, whole: bytes, start: int, end: int) -> None:
        state = self._state
        if end - start > TEXT_LIMIT:
            raise _too_long("Query", end - start)
        if whole.find(b"\0", start + 5, end) != end - 1:
            raise RemoteProtocolError("invalid message format: Query")
        self._settle_open()
        self._ready()
        text = whole[start + 5:end - 1]
        verdict = self._passage.whole_string(self._passage.verdict(text))
        self._ask_timeout(verdict)
        ticket = self._passage.admit("query", verdict, b"", True)
        if ticket is None:
            return
        operation = self._passage.intent("query", verdict, b"", ticket)
        expectation = state.expect(Q)
        expectation.operation, expectation.verdict = operation, verdict
        self._set_barrier(expectation, verdict)
        self._names.drop_unnamed()
        state.up.piece(whole, start, end)
        state.end_batch()
        if verdict.studied.copies_in:
            state.blocked = "copy"

    def _set_barrier(self, expectation: Expectation, verdict: Verdict) -> None:
        studied = verdict.studied
        self._state.timed = self._state.timed or _TIMED in studied.named
        if studied.barrier or studied.names or (self._state.dirty and studied.ends):
            expectation.barrier = True
            self._state.barriers += 1

    def _parse(self, whole: bytes, start: int, end: int) -> None:
        state = self._state
        if end - start > TEXT_LIMIT:
            raise _too_long("Parse", end - start)
        (name, text), at = parse_strings(whole[start + 5:end], 2)
        types = parse_types(whole[start + 5 + at:end])
        self._check_name(name)
        self._names.find(self._names.statements, name)
        if not self._knows("parse"):
            return
        verdict = state.judge.verdict(text, self._passage.prepared)
        if verdict.problem is not None:
            self._passage.deny(verdict.problem, "parse", False, verdict)
            return
        catalogue = state.judge.meaning.catalogue
        if catalogue is not None and not catalogue.cast_oids.isdisjoint(types):
            self._passage.deny(Denial(errors.FEATURE_NOT_SUPPORTED, CASTING), "parse", False, verdict)
            return
        if any(one.early for one in verdict.studied.analysis.statements) and (
                self._passage.admit("parse", verdict, b"", False) is None):
            return
        if len(self._names.statements) > NAMES_LIMIT:
            self._passage.deny(
                Denial(errors.LIMIT_EXCEEDED, "too many prepared statements in one session"), "parse", False)
            return
        prepared = Prepared(text, types=types)
        self._passage.note(prepared, verdict.studied)
        expectation = state.expect(P)
        expectation.definition = self._names.define(self._names.statements, name, prepared)
        self._forward(whole, start, end)

    def _knows(self, verb: str) -> bool:
        """Is it known what names mean?  Else the message waits, or was refused: the question failed."""
        self._ready()
        refused, self._state.refused = self._state.refused, None
        if refused is not None:
            self._passage.deny(refused, verb, False)
        return refused is None

    @staticmethod
    def _check_name(name: bytes) -> None:
        if len(name) > NAME_LIMIT:
            raise Fatal(Denial("42622", f"a name of {len(name)} bytes is longer than {NAME_LIMIT}"))
        if name in RESERVED:
            raise Fatal(Denial("42602", "this name is Weir's own"))

    def _bind(self, whole: bytes, start: int, end: int) -> None:
        bind = parse_bind(whole[start + 5:end])
        self._check_name(bind.portal)
        self._names.find(self._names.portals, bind.portal)
        prepared = self._names.find(self._names.statements, bind.statement)
        self._ready()
        if not isinstance(prepared, Prepared):
            self._passage.deny(errors.no_statement(bind.statement), "bind", False)
            return
        found = self._passage.verdict(prepared.text)
        verdict = self._passage.bound(prepared, found)
        parameters = render_parameters(bind, verdict)
        self._ask_timeout(verdict)
        ticket = self._passage.admit("bind", verdict, parameters, False, bind, prepared.types)
        if ticket is None:
            return
        if len(self._names.portals) > NAMES_LIMIT:
            self._passage.deny(Denial(errors.LIMIT_EXCEEDED, "too many portals in one session"), "bind", False)
            return
        portal = Portal(prepared, verdict, bind)
        portal.parameters, portal.names = parameters, self._passage.judged_with(verdict.studied)
        self._let(portal, ticket)
        self._passage.note(prepared, found.studied)
        expectation = self._state.expect(B)
        expectation.definition = self._names.define(self._names.portals, bind.portal, portal)
        self._unbound.append((expectation, portal))
        self._forward(whole, start, end)

    def _describe(self, whole: bytes, start: int, end: int) -> None:
        kind, name = _named(whole, start, end)
        found = self._names.find(self._names.portals if kind == b"P" else self._names.statements, name)
        if found is None:
            self._passage.deny(errors.no_portal(name) if kind == b"P" else errors.no_statement(name), "describe", False)
            return
        if isinstance(found, Prepared):        # described by what its names mean now
            if not self._knows("describe"):
                return
            self._passage.note(found, self._state.judge.study(found.text, self._passage.prepared))
        expectation = self._state.expect(D)
        if isinstance(found, Portal):
            expectation.portal, found.asked = found, (self._names.batch, found.verdict.gate)
        self._forward(whole, start, end)

    def _execute(self, whole: bytes, start: int, end: int) -> None:
        state = self._state
        (name,), at = parse_strings(whole[start + 5:end], 1)
        if at + 4 != end - start - 5:
            raise RemoteProtocolError("invalid message format: Execute")
        portal = self._names.find(self._names.portals, name)
        if state.barriers:
            raise Wait("answers")
        if not isinstance(portal, Portal):
            self._passage.deny(errors.no_portal(name), "execute", False)
            return
        if portal.bind is not None and not self._still_means(portal):
            self._passage.deny(Denial(
                errors.FEATURE_NOT_SUPPORTED, "what names mean has changed since the portal was bound",
                hint="Bind it again."), "execute", False, portal.verdict, portal.parameters)
            return
        if portal.ticket and not state.context.counts(portal.ticket):
            # Who approved it was locked out, or it was revoked, since it was bound: it is judged as if nobody had.
            portal.ticket, portal.holds = "", ()
            portal.verdict = state.judge.decide(portal.verdict.studied, False)
        elif portal.verdict.gate != state.context.gate.version:
            portal.verdict = state.judge.decide(portal.verdict.studied, False)
            if portal.verdict.decision.holds == portal.holds:
                self._let(portal, portal.ticket)
        verdict = portal.verdict
        self._ask_timeout(verdict)
        ticket = self._passage.admit("execute", verdict, portal.parameters, False)
        if ticket is None:
            return
        self._let(portal, ticket)
        verdict = portal.verdict
        operation = self._passage.intent("execute", verdict, portal.parameters, portal.ticket)
        portal.recorded = True
        studied = verdict.studied
        if state.labelled and self._unknown_rows(portal):
            state.up.add(render_describe_portal(name))
            hidden = state.expect(D)
            hidden.hidden, hidden.portal = True, portal
        expectation = state.expect(E)
        expectation.operation, expectation.verdict, expectation.portal = operation, verdict, portal
        self._set_barrier(expectation, verdict)
        self._forward(whole, start, end)
        if studied.copies_in:
            state.blocked = "copy"

    def _let(self, portal: Portal, ticket: str) -> None:
        """It was approved under these terms: when policies change and ask for others, it is asked anew."""
        if ticket:
            portal.ticket, portal.holds = ticket, portal.verdict.decision.holds
            portal.verdict = self._state.judge.decide(portal.verdict.studied, True)

    def _unknown_rows(self, portal: Portal) -> bool:
        """Must Weir ask what the rows are?  Not where the client has just done so: where its Describe fails, the
        server leaves the Execute of the same batch out as well.  What a cursor or a prepared statement of SQL gives
        may change on the way (FetchPortalTargetList looks its name up)."""
        verdict = portal.verdict
        if portal.masks is not None and portal.described == verdict.gate:
            return False
        if portal.by_sql:
            return True
        if portal.asked == (self._names.batch, verdict.gate) and verdict.studied.lasting:
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
        return portal.verdict.meaning == self._state.judge.meaning.version and all(
            self._names.find(names, name) is value for names, name, value in portal.names)

    def _close(self, whole: bytes, start: int, end: int) -> None:
        kind, name = _named(whole, start, end)
        names = self._names.portals if kind == b"P" else self._names.statements
        self._names.find(names, name)
        self._state.expect(C).definition = self._names.define(names, name, None)
        self._forward(whole, start, end)


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


_MESSAGES: Final[dict[int, Callable[[Questions, bytes, int, int], None]]] = {
    Q: Questions._query,
    P: Questions._parse,
    B: Questions._bind,
    D: Questions._describe,
    E: Questions._execute,
    C: Questions._close,
    S: Questions._sync,
    H: Questions._client_flush,
    X: Questions._terminate,
    F: Questions._function_call,
}
