"""May a text of the client go to the server?  Judged, recorded, held or refused in its place.

Theory.  A hold's answer belongs to the very message that was held, to its parameters, requests and holds.  A denial is
an Execute of a portal that cannot exist: the server itself fails at that place; its error is rewritten (answers.py).
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final, TypeVar

from msgspec import structs

from enforcer.hot.chain import make_digest
from enforcer.protocols.postgresql import errors, meaning, plan, shapes
from enforcer.protocols.postgresql.book import Operation, unpack_parameters
from enforcer.protocols.postgresql.errors import Denial
from enforcer.protocols.postgresql.expected import Definitions, E, Portal, S
from enforcer.protocols.postgresql.judge import ENDING, Names, Prepared, covers, is_free, only
from enforcer.protocols.postgresql.messages import DENIAL, NO_PORTAL, SYNC, Bind
from enforcer.protocols.postgresql.names import Wait
from enforcer.protocols.postgresql.state import State
from enforcer.protocols.postgresql.studied import Studied, Verdict
from enforcer.words import commands as words
from enforcer.words.decisions import DENY, HOLD, LASTING, PERMIT, WAIT, Decision

SHOWN_LIMIT: Final = 64 << 10         # characters of a statement as approvers see it
UNKNOWN: Final = Decision(DENY, ("unknown-name",))
UNSUPPORTED: Final = Decision(DENY, ("unsupported",))
RESERVED: Final = frozenset((NO_PORTAL, meaning.NAME))      # names that are Weir's own
MOVED: Final = Denial(
    errors.FEATURE_NOT_SUPPORTED, "what names mean changes in the middle of the string",
    hint="Send what follows the end of the transaction, or of the cursor's FETCH, in a message of its own.")
INEXACT: Final = "send the statement itself, outside of a transaction with DDL"
PATHS: Final = 8                      # search paths that a prepared statement's meanings are kept apart by
CONTROL: Final = frozenset(("begin", "commit", "rollback", "rollback_to", "savepoint", "release"))
T = TypeVar("T")


class Passage:
    """`approved` is the ticket under which the message at the head of the inbox goes on."""

    def __init__(self, state: State) -> None:
        self._state, self._names = state, state.names
        self.prepared = Names(state.judge, state.names.find_prepared)
        self._held_as: object = None           # what the answer of the hold is for
        self._let = 0                          # number of the held one that was approved and has not gone
        self.approved = ""

    def approve(self, ticket: str, held: int) -> None:
        self.approved, self._let = ticket, held

    def verdict(self, text: bytes) -> Verdict:
        verdict = self._state.judge.verdict(text, self.prepared)
        problem = _bad_names(verdict.studied) if verdict.studied.names else None
        if problem is not None:
            return structs.replace(verdict, decision=UNSUPPORTED, problem=problem)
        return self._own_names(verdict) if not verdict.studied.lasting else verdict

    def whole_string(self, verdict: Verdict) -> Verdict:
        """What the transaction has set ends with it: the rest of the string would mean something else then."""
        studied = verdict.studied
        if not (self._state.dirty and studied.ends):
            return verdict
        kinds = [one.kind for one in studied.analysis.statements]
        first = next((at for at, kind in enumerate(kinds) if kind in ENDING), len(kinds))
        if all(kind in CONTROL for kind in kinds[first:]):
            return verdict
        return structs.replace(verdict, decision=UNSUPPORTED, problem=MOVED)

    def judged_with(self, studied: Studied) -> list[tuple[Definitions, bytes, object]]:
        """The session's names that a text was judged with."""
        if studied.lasting:
            return []
        mine = self._names
        named = [(mine.statements if one.kind == "execute" else mine.portals, one.name.encode())
                 for one in studied.analysis.statements if one.kind in ("execute", "fetch")]
        return [(names, name, mine.find(names, name)) for names, name in named]

    def _own_names(self, verdict: Verdict) -> Verdict:
        """What runs or reads something that this session has named is judged with what it stands for."""
        studied = verdict.studied
        more: list[Studied] = []
        for statement in studied.analysis.statements:
            name = statement.name.encode()
            if statement.kind == "execute":
                prepared = self._names.find_prepared(statement.name)
                inner = self.prepared.get(statement.name)      # None too where its text cannot be read any more
                if prepared is None or inner is None:
                    return structs.replace(
                        verdict, decision=UNKNOWN, problem=replace(errors.no_statement(name), early=False))
                for one in inner.statements:
                    self.note(prepared, only(studied, one))
                more += self._kept(prepared, studied)
            if statement.kind == "fetch":
                portal = self._names.find(self._names.portals, name)
                if not isinstance(portal, Portal):
                    return structs.replace(verdict, decision=UNKNOWN, problem=Denial(
                        errors.NO_PORTAL, f'cursor "{statement.name}" does not exist'))
                more.append(portal.verdict.studied)
        if not more:
            return verdict
        if any(one.barrier for one in more) and len(studied.analysis.statements) > 1:
            return structs.replace(verdict, decision=UNSUPPORTED, problem=MOVED)
        return self._state.judge.decide(join_studied(studied, more), False)

    def note(self, prepared: Prepared, studied: Studied) -> None:
        """The server may look its names up now."""
        path = self._state.judge.meaning.schemas
        path = path if path in prepared.seen or len(prepared.seen) < PATHS else ()
        seen = prepared.seen.get(path, ())
        if studied.lasting and not any(covers(one, studied) for one in seen):
            prepared.seen[path] = (join_studied(seen[0], [studied]),) if seen else (studied,)

    def _kept(self, prepared: Prepared, studied: Studied) -> list[Studied]:
        """What it may still mean to the server besides."""
        seen = prepared.seen.get((), ()) + prepared.seen.get(self._state.judge.meaning.schemas, ())
        return [one for one in seen if not covers(studied, one)]

    def bound(self, prepared: Prepared, verdict: Verdict) -> Verdict:
        """Judged with all that the server may take the statement for."""
        more = self._kept(prepared, verdict.studied)
        if not more or verdict.problem is not None:
            return verdict
        return self._state.judge.decide(join_studied(verdict.studied, more), False)

    def admit(
        self, verb: str, verdict: Verdict, parameters: bytes, simple: bool, bind: Bind | None = None,
        types: tuple[int, ...] = (),
    ) -> str | None:
        """The ticket ("" for none needed) under which this may go, or None: it was refused in place.  Waits for
        approvers where policy holds it."""
        state = self._state
        refused, state.refused = state.refused, None
        ticket, self.approved = self.approved, ""
        if refused is not None:
            self.deny(refused, verb, simple, verdict)
            return None
        problem = verdict.problem
        if ticket and problem is None and self._held_as == _binding(verb, verdict, parameters):
            verdict = state.judge.decide(verdict.studied, True)
        decision = verdict.decision
        if decision.outcome == PERMIT:
            if ticket:
                state.book.records.append(words.UseHold(state.book.operations + 1, ticket, self._let))
                self._let = 0
            return ticket
        if decision.outcome == HOLD:
            self._hold(verb, verdict, parameters, bind, types)
            raise Wait("hold")
        self.deny(problem or errors.denied(decision, state.context.session, state.book.operations + 1), verb, simple,
                  verdict, parameters)
        return None

    def intent(self, verb: str, verdict: Verdict, parameters: bytes, ticket: str, decision: int = PERMIT) -> Operation:
        studied, found = verdict.studied, verdict.decision
        operation = self._state.book.intent(
            verb, decision, forwarded=studied.forwarded if decision == PERMIT else b"", text=studied.blob,
            parameters=parameters, requests=studied.named, rules=found.rules, masks=found.masked,
            reason=found.reason if decision == DENY else "", ticket=ticket, durable=studied.writes or bool(ticket),
        )
        operation.hides = studied.analysis.hides or studied.analysis.hide_parameters
        return operation

    def deny(
        self, denial: Denial, verb: str, simple: bool, verdict: Verdict | None = None, parameters: bytes = b""
    ) -> None:
        """Refused in place: the server itself fails there."""
        state = self._state
        if verdict is None:
            refused = state.book.intent(verb, DENY, reason=denial.message)
        else:
            refused = self.intent(verb, verdict, parameters, "", DENY)
        state.book.result(refused, "denied", "", denial.code, denial.message)
        expectation = state.expect(E)
        expectation.denial = denial
        expectation.operation = state.book.say("denial", b"Execute of a portal that cannot exist")
        state.up.add(DENIAL)
        if simple:
            state.expect(S)
            state.up.add(SYNC)
            state.end_batch()
        else:
            state.open, state.flushed = state.open + 1, False
            state.skip = True

    def _hold(
        self, verb: str, verdict: Verdict, parameters: bytes, bind: Bind | None, types: tuple[int, ...],
    ) -> None:
        state = self._state
        studied, decision = verdict.studied, verdict.decision
        if self._let:
            state.orders.append(words.ReturnHold(self._let))
            self._let = 0
        state.held = self.intent(verb, verdict, parameters, "", HOLD)
        self._held_as = _binding(verb, verdict, parameters)
        shown = studied.blob[2].decode("utf-8", "replace")
        values = unpack_parameters(parameters)
        state.orders.append(words.Hold(
            state.held.number, decision.holds, ", ".join(f"{action} {resource}" for action, resource in studied.named),
            shown[:SHOWN_LIMIT], tuple("NULL" if value is None else value for value in values), decision.rules,
            make_digest(state.context.forwarded_key, studied.forwarded + parameters), state.judge.meaning.database,
            *self._known_again(verdict, bind, types), *self._planned(studied, bind, types),
            shapes.asked(studied.requests), inexact=INEXACT,
        ))

    def _planned(
        self, studied: Studied, bind: Bind | None, types: tuple[int, ...],
    ) -> tuple[words.Explain | None, str]:
        """What approvers may see of how the server would do it, or why not."""
        state = self._state
        mean = state.judge.meaning
        reason = plan.why_not(studied, mean, bind, state.labelled)
        return (None, reason) if reason else (plan.make_explain(studied, mean, bind, types), "")

    def _known_again(self, verdict: Verdict, bind: Bind | None, types: tuple[int, ...]) -> tuple[bytes, bytes]:
        """By which it is known in another session, exact and by its shape; not where it stands for what only this
        session has."""
        studied, mean = verdict.studied, self._state.judge.meaning
        terms = verdict.decision.holds
        if not studied.lasting or mean.altered or not any(one.mode != WAIT or one.reuse in LASTING for one in terms):
            return b"", b""
        shaped = any(one.reuse in LASTING for one in terms) and is_free(studied)
        return (shapes.exact(studied.text, types, bind, mean),
                shapes.shape(studied.text, types, bind, mean) if shaped else b"")


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


def join_studied(studied: Studied, more: list[Studied]) -> Studied:
    """`studied` with what it stands for."""
    every = [studied, *more]
    return structs.replace(
        studied, requests=_union(one.requests for one in every), named=_union(one.named for one in every),
        shows=_union(one.shows for one in every), blocked=_union(one.blocked for one in every),
        writes=any(one.writes for one in every), barrier=any(one.barrier for one in every),
        reasons=_union(one.reasons for one in every),
    )


def _union(groups: Iterable[tuple[T, ...]]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(one for group in groups for one in group))
