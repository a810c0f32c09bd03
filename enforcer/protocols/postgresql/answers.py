"""What the server answers: settled against what was asked, masked, recorded and passed on.

Theory.  Every forwarded message that is answered leaves an *expectation*; the server's messages settle expectations in
order.  An error of the extended protocol drops the expectations up to the batch's Sync and undoes what the batch had
named and the server had not confirmed (55.2.3).

Sources: PostgreSQL 15 documentation 55.2 Message Flow, 55.7 Message Formats.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Final

from enforcer.hot.rows import Mask, rewrite
from enforcer.hot.wire import Framing
from enforcer.protocols.postgresql import errors, meaning
from enforcer.protocols.postgresql.book import Operation
from enforcer.protocols.postgresql.errors import ABORTED, Denial, Fatal
from enforcer.protocols.postgresql.expected import D, E, Expectation, Q, S, failed_with
from enforcer.protocols.postgresql.messages import render, render_error
from enforcer.protocols.postgresql.operations.words import Meaning
from enforcer.protocols.postgresql.row_masks import RowMasks
from enforcer.protocols.postgresql.settings import parse_time
from enforcer.protocols.postgresql.startup import pinned
from enforcer.protocols.postgresql.state import State
from enforcer.protocols.postgresql.studied import Verdict
from enforcer.words.errors import RemoteProtocolError

MESSAGE_LIMIT: Final = 64 << 20       # bytes of one masked row or other message of the server that is wanted whole


class Answers:
    def __init__(self, state: State) -> None:
        self._state, self._names = state, state.names
        self.framing = Framing(MESSAGE_LIMIT, b"Dd", bytes(_ANSWERS) + b"DVKRWv")
        self._described = RowMasks()
        self._last: Operation | None = None    # whose result came last: a deferred error at Sync is its

    def take(self, data: bytes) -> None:
        whole, places = self.framing.feed(data)
        for i in range(0, len(places), 4):
            kind, start, end = places[i], places[i + 1], places[i + 2]
            if kind == 0x44:
                self._rows(whole, start, end, places[i + 3])
            else:
                say = _ANSWERS.get(kind)
                if say is None:
                    raise RemoteProtocolError(f"invalid backend message type {kind}")
                say(self, whole, start, end, places[i + 3])
        if self.framing.error:
            raise RemoteProtocolError(f"the server: {self.framing.error}")

    def _head(self, kinds: bytes, what: int) -> Expectation:
        state = self._state
        if not state.expected or state.expected[0].kind not in kinds:
            raise RemoteProtocolError(f"the server sent {chr(what)!r} that nothing asked for")
        return state.expected[0]

    def _running(self, what: int) -> tuple[Expectation, Operation]:
        head = self._head(b"QE", what)
        if head.operation is None or head.denial is not None:
            raise RemoteProtocolError(f"the server sent {chr(what)!r} for what cannot be")
        return head, head.operation

    def _rows(self, whole: bytes, start: int, end: int, count: int) -> None:
        state = self._state
        head, operation = self._running(0x44)
        if head.hidden:
            self._server_whole(whole, end)
            state.said = whole[start + 5:end]
            return
        masks = head.portal.masks if head.portal is not None else head.masks
        if masks is None and state.labelled:
            raise RemoteProtocolError("the server sent rows that it did not describe")
        if not masks:
            state.book.deliver(operation, whole[start:end], count)
            state.down.piece(whole, start, end)
            return
        if self._server_whole(whole, end):
            end, count = self.framing.tail, count - 1
            if end <= start:
                return
        data = rewrite(whole, start, end, masks)
        if data is None:
            raise RemoteProtocolError("the server sent a malformed DataRow")
        state.book.deliver(operation, data, count)
        state.down.add(data)

    def _server_whole(self, whole: bytes, end: int) -> bool:
        """Rows are wanted whole from now on; True where the last one in `whole` was not and is taken back."""
        if self.framing.owed and end == len(whole):
            self.framing.give_back(whole)
            return True
        self.framing.streamed = b"d"
        return False

    def _row_description(self, whole: bytes, start: int, end: int, count: int) -> None:
        state = self._state
        head = self._head(b"QD", 0x54)
        if head.kind == Q or head.portal is not None:
            verdict = head.verdict if head.portal is None else head.portal.verdict
            masks = self._masks(whole[start + 5:end], verdict) if state.labelled else []
            if head.portal is not None:
                head.portal.masks, head.portal.described = masks, head.portal.verdict.gate
            else:
                head.masks = masks
        if head.kind == D:
            state.expected.popleft()
        if not head.hidden:
            state.down.piece(whole, start, end)

    def _masks(self, description: bytes, verdict: Verdict | None) -> list[Mask | None]:
        """For each column of a RowDescription what its values become; empty where all stay."""
        state = self._state
        catalogue = state.judge.meaning.catalogue
        if catalogue is None or verdict is None:
            raise RemoteProtocolError("the sources of a result on a target with labels cannot be told")
        masks, unknown = self._described.find(description, catalogue, verdict)
        if unknown:
            state.catalogue_stale = True
            state.late += render_error(
                "WARNING", "01000", "values of a table that Weir does not know yet are shown as NULL",
                hint="It was made after Weir read the catalogue, which it does anew now: ask again.", kind=b"N")
        return masks

    def _no_data(self, whole: bytes, start: int, end: int, count: int) -> None:
        head = self._head(b"D", 0x6E)
        self._state.expected.popleft()
        if head.portal is not None:
            head.portal.masks, head.portal.described = [], head.portal.verdict.gate
        if not head.hidden:
            self._state.down.piece(whole, start, end)

    def _parameter_description(self, whole: bytes, start: int, end: int, count: int) -> None:
        self._head(b"D", 0x74)
        self._state.down.piece(whole, start, end)

    def _complete(self, whole: bytes, start: int, end: int, count: int) -> None:
        """ParseComplete, BindComplete, CloseComplete."""
        state = self._state
        head = self._head({0x31: b"P", 0x32: b"B", 0x33: b"C"}[whole[start]], whole[start])
        state.expected.popleft()
        if head.definition is not None:
            self._names.confirm(head.definition)
        if head.operation is not None:
            state.book.result(head.operation, "ok")
        if not head.hidden:
            state.down.piece(whole, start, end)

    def _command_complete(self, whole: bytes, start: int, end: int, count: int) -> None:
        head, operation = self._running(0x43)
        if end - start < 6:
            raise RemoteProtocolError("the server sent a malformed CommandComplete")
        tag = whole[start + 5:end - 1].decode("utf-8", "replace")
        self._end_statement(head, operation, "ok", tag)
        if not head.hidden:
            self._state.down.piece(whole, start, end)

    def _empty(self, whole: bytes, start: int, end: int, count: int) -> None:
        head, operation = self._running(0x49)
        self._end_statement(head, operation, "ok", "")
        self._state.down.piece(whole, start, end)

    def _suspended(self, whole: bytes, start: int, end: int, count: int) -> None:
        head, operation = self._running(0x73)
        if head.kind != E:
            raise RemoteProtocolError("the server suspended what is no portal")
        self._end_statement(head, operation, "suspended", "")
        self._state.down.piece(whole, start, end)

    def _end_statement(self, head: Expectation, operation: Operation, status: str, tag: str) -> None:
        state = self._state
        state.copying = None
        if head.hidden:
            state.book.result(operation, "ok", tag)
            self._learn()
        else:
            statements = head.verdict.studied.analysis.statements if head.verdict is not None else ()
            last = head.kind == E or head.index + 1 >= len(statements)
            state.book.result(operation, status, tag, last=last)
            before = head.portal is not None and head.portal.by_sql           # its text has run before
            if head.index < len(statements) and head.verdict is not None and not before:
                self._names.apply_effects(statements[head.index], tag, head.verdict, head.portal, head.batch)
            head.index += 1
            head.masks = None
            self._last = operation
        self.framing.streamed = b"Dd"
        if head.kind == E:
            state.expected.popleft()
            self._settled(head)

    def _settled(self, expectation: Expectation) -> None:
        state = self._state
        if not expectation.barrier:
            return
        expectation.barrier = False
        state.barriers -= 1
        studied = expectation.verdict.studied if expectation.verdict is not None else None
        if studied is not None and (studied.barrier or studied.ends):
            state.stale = state.dirty = True
            if studied.alters:
                state.catalogue_dirty = True
                state.alter()

    def _learn(self) -> None:
        """What Weir has asked: what names mean now, and what is prepared."""
        state = self._state
        answer, old = meaning.parse_row(state.said), state.judge.meaning
        state.learn(Meaning(answer.database, answer.role, answer.schemas, old.catalogue, 0,
                            timeout=parse_time(answer.timeout)))
        if state.catalogue_dirty:
            state.alter()
        self._names.keep_prepared(answer.prepared or {})

    def _copy_in(self, whole: bytes, start: int, end: int, count: int) -> None:
        self._state.copying = self._running(0x47)[1]
        self._state.down.piece(whole, start, end)

    def _copy_out(self, whole: bytes, start: int, end: int, count: int) -> None:
        self._running(0x48)
        self._state.down.piece(whole, start, end)

    def _copy_data(self, whole: bytes, start: int, end: int, count: int) -> None:
        self._state.book.deliver(self._running(0x64)[1], whole[start:end], count)
        self._state.down.piece(whole, start, end)

    def _copy_end(self, whole: bytes, start: int, end: int, count: int) -> None:
        self._running(0x63)
        self._state.down.piece(whole, start, end)

    def _aside(self, whole: bytes, start: int, end: int, count: int) -> None:
        """NoticeResponse, NotificationResponse, ParameterStatus: at any time (55.2.6)."""
        state = self._state
        if whole[start] == 0x53:
            reason = pinned(whole[start + 5:end])
            if reason:
                raise Fatal(Denial(errors.FEATURE_NOT_SUPPORTED, reason))
        if whole[start] == 0x4E and state.labelled:
            state.down.add(errors.render_scrubbed(b"N", whole[start + 5:end]))
        elif whole[start] == 0x41 and state.labelled:
            state.down.add(errors.render_unsaid(whole[start + 5:end]))
        else:
            state.down.piece(whole, start, end)

    def _failed(self, whole: bytes, start: int, end: int, count: int) -> None:
        state = self._state
        body = errors.scrub(whole[start + 5:end]) if state.labelled else whole[start + 5:end]
        code, severity, text = errors.told(body)
        head = state.expected[0] if state.expected else None
        if head is not None and head.denial is not None and code == errors.NO_PORTAL:
            aborted = state.status == "E" and not (head.denial.early or head.denial.code == errors.SYNTAX_ERROR)
            state.down.add((ABORTED if aborted else head.denial).render())
        elif head is not None and head.hidden and self._own_batch():
            state.refused = Denial(code, text)
        elif state.labelled:
            state.down.add(render(b"E", body))
        else:
            state.down.piece(whole, start, end)
        if head is None or severity in ("FATAL", "PANIC"):
            return
        if head.hidden and head.portal is None:
            state.stale = True                 # the question was not answered: it is asked again
        self.framing.streamed = b"Dd"
        if head.kind in b"QS":
            state.copying = None
            operation = head.operation if head.kind == Q else self._last
            if operation is not None:
                state.book.result(operation, "error", "", code, text)
            head.index = len(head.verdict.studied.analysis.statements) if head.verdict is not None else 0
        else:
            self._drop_batch(head, code, text)

    def _own_batch(self) -> bool:
        """Is the batch at the head Weir's own question between two of the client's?"""
        return any(e.kind == S and e.hidden for e in self._state.expected)

    def _drop_batch(self, head: Expectation, code: str, text: str) -> None:
        """An error of the extended protocol: nothing of its batch follows but the Sync's answer (55.2.3)."""
        state = self._state
        batch, told = head.batch, False
        state.copying = None
        while state.expected and state.expected[0].kind != S:
            gone = state.expected.popleft()
            if gone.operation is not None:
                failed = not told and failed_with(head, gone)
                told |= failed
                state.book.result(gone.operation, "error" if failed else "skipped", "", code if failed else "",
                                  text if failed else "")
            self._settled(gone)
        self._names.undo(batch)
        if not state.expected:
            state.skip = True
            state.give_up("its batch failed")

    def _ready_for_query(self, whole: bytes, start: int, end: int, count: int) -> None:
        state = self._state
        head = self._head(b"QS", 0x5A)
        if end - start != 6 or whole[start + 5] not in b"ITE":
            raise RemoteProtocolError("the server sent a malformed ReadyForQuery")
        state.expected.popleft()
        state.status = chr(whole[start + 5])
        if head.kind == Q:
            if head.operation is not None and head.operation.number in state.book.open:
                state.book.result(head.operation, "ok")
            self._settled(head)
        self._names.settle(head.batch)
        if state.status == "I":
            self._transaction_over(head.batch)
        if not head.hidden:
            state.down.piece(whole, start, end)

    def _transaction_over(self, batch: int) -> None:
        state = self._state
        self._names.end_transaction(batch)
        if state.dirty:
            state.stale, state.dirty = True, False
        if state.catalogue_dirty:
            state.catalogue_stale, state.catalogue_dirty = True, False


_ANSWERS: Final[dict[int, Callable[[Answers, bytes, int, int, int], None]]] = {
    0x31: Answers._complete,              # 1 ParseComplete
    0x32: Answers._complete,              # 2 BindComplete
    0x33: Answers._complete,              # 3 CloseComplete
    0x41: Answers._aside,                 # A NotificationResponse
    0x43: Answers._command_complete,      # C
    0x45: Answers._failed,                # E ErrorResponse
    0x47: Answers._copy_in,               # G CopyInResponse
    0x48: Answers._copy_out,              # H CopyOutResponse
    0x49: Answers._empty,                 # I EmptyQueryResponse
    0x4E: Answers._aside,                 # N NoticeResponse
    0x53: Answers._aside,                 # S ParameterStatus
    0x54: Answers._row_description,       # T
    0x5A: Answers._ready_for_query,       # Z
    0x63: Answers._copy_end,              # c CopyDone
    0x64: Answers._copy_data,             # d CopyData
    0x6E: Answers._no_data,               # n
    0x73: Answers._suspended,             # s PortalSuspended
    0x74: Answers._parameter_description, # t
}
