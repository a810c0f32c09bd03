"""The session after login: what the client asks is judged, recorded and forwarded; what the server says is masked.

Theory.  `questions.py` takes the client's messages, `answers.py` the server's; what both know is in `state.py`.  Here:
the bytes of a pass go in and out, records before bytes (the edge keeps that order), and messages of the client that
must wait stand in the inbox, bounded.  A hold whose batch fails meanwhile is cancelled.

Sources: PostgreSQL 15 documentation 55.2 Message Flow, 55.7 Message Formats.
"""
from __future__ import annotations

from collections import deque
from typing import Final

from enforcer.core.context import Context
from enforcer.hot.wire import Framing
from enforcer.protocols.postgresql import errors
from enforcer.protocols.postgresql.answers import Answers
from enforcer.protocols.postgresql.book import Book, Operation
from enforcer.protocols.postgresql.catalogue import Catalogue
from enforcer.protocols.postgresql.errors import Denial, Fatal
from enforcer.protocols.postgresql.messages import FLUSH
from enforcer.protocols.postgresql.names import Wait
from enforcer.protocols.postgresql.operations.words import Meaning
from enforcer.protocols.postgresql.passage import Passage
from enforcer.protocols.postgresql.questions import Questions
from enforcer.protocols.postgresql.state import State
from enforcer.protocols.postgresql.waiting import TIMED_OUT, Waiting
from enforcer.words import commands as words
from enforcer.words import inputs
from enforcer.words.commands import CLIENT, SERVER, Command, SendData
from enforcer.words.errors import RemoteProtocolError

MESSAGE_LIMIT: Final = 64 << 20       # bytes of one message of the client
INBOX_LIMIT: Final = 1 << 20          # bytes of the client that wait before it is not read any more
STOPPED: Final = "the end"            # what the inbox waits for when the session is about to end
OVERHEAD: Final = 128                 # bytes that a waiting message takes besides its own


class Conversation:
    def __init__(self, context: Context, book: Book, first: Meaning) -> None:
        self._state = State(context, book, first)
        self._passage = Passage(self._state)
        self._questions, self._answers = Questions(self._state, self._passage), Answers(self._state)
        self._client = Framing(MESSAGE_LIMIT, b"d", b"QPBDECSHXFdcfp")
        self._inbox: deque[tuple[int, bytes, int]] = deque()
        self._inbox_bytes = 0
        self._waiting = Waiting()
        self._paused = False
        self._stopped = False         # nothing new is asked: what runs is finished
        self.bytes_in = self.bytes_out = 0

    @property
    def state(self) -> str:
        return "held" if self._state.held is not None else "active" if self._state.expected else "idle"

    @property
    def runs(self) -> bool:
        """The server has yet to answer something."""
        return bool(self._state.expected)

    @property
    def terminated(self) -> bool:
        """The client said goodbye."""
        return self._questions.terminated

    # ---- in and out

    def receive(self, peer: int, data: bytes) -> list[Command]:
        if peer == CLIENT:
            self.bytes_in += len(data)
            self._from_client(data)
        else:
            self._answers.take(data)
            self._go_on()
        return self._flush()

    def _flush(self) -> list[Command]:
        """Records first, then bytes."""
        state = self._state
        self._questions.settle()
        commands = state.book.take()
        data = state.up.take()
        if data:
            commands.append(SendData(SERVER, data))
        if state.late and not self._answers.framing.owed:
            state.down.add(state.late)
            state.late = b""
        data = state.down.take()
        if data:
            self.bytes_out += len(data)
            commands.append(SendData(CLIENT, data))
        if state.orders:
            commands += state.orders
            state.orders = []
        return commands

    def _from_client(self, data: bytes) -> None:
        whole, places = self._client.feed(data)
        for i in range(0, len(places), 4):
            if self._questions.terminated:
                return
            kind, start, end = places[i], places[i + 1], places[i + 2]
            if not self._state.blocked:
                try:
                    self._ask(kind, whole, start, end, places[i + 3])
                    continue
                except Wait as wait:
                    self._block(str(wait))
            self._stash(kind, whole[start:end], places[i + 3])
        if self._client.error:
            raise RemoteProtocolError(self._client.error)

    def _ask(self, kind: int, whole: bytes, start: int, end: int, count: int) -> None:
        if self._stopped and not self._finishes(kind):
            raise Wait(STOPPED)
        self._questions.ask(kind, whole, start, end, count)

    def _finishes(self, kind: int) -> bool:
        """It only ends what the server has begun: data and end of a COPY, the Sync of an open batch, goodbye."""
        return kind in b"dcfX" or (kind in b"SH" and self._state.open > 0)

    def stop(self, reason: str) -> list[Command]:
        """What is held is given up, and what waits in the inbox stays there, but for what ends a COPY."""
        self._stopped = True
        self._state.give_up(reason)
        if self._inbox and self._state.blocked != "copy":
            self._block(STOPPED)
        return self._flush()

    def _stash(self, kind: int, message: bytes, count: int) -> None:
        self._inbox.append((kind, message, count))
        self._inbox_bytes += len(message) + OVERHEAD
        if self._inbox_bytes > INBOX_LIMIT and not self._paused:
            self._paused = True
            self._state.orders.append(words.PauseReading(CLIENT))

    def _go_on(self) -> None:
        """What waited, as far as it may go now."""
        state = self._state
        while not state.blocked or self._unblocked():
            state.blocked = ""
            if not self._inbox:
                if self._paused:
                    self._paused = False
                    state.orders.append(words.ResumeReading(CLIENT))
                return
            kind, message, count = self._inbox[0]
            try:
                self._ask(kind, message, 0, len(message), count)
            except Wait as wait:
                self._block(str(wait))
                continue
            self._passage.approved, state.refused = "", None
            self._inbox.popleft()
            self._inbox_bytes -= len(message) + OVERHEAD

    def _unblocked(self) -> bool:
        state = self._state
        if state.blocked in ("answers", "meaning"):
            return not state.expected
        if state.blocked == "copy":
            return state.copying is not None or not state.expected
        return False

    def _block(self, reason: str) -> None:
        state = self._state
        state.blocked = reason
        if reason in ("answers", STOPPED) and state.open and not state.flushed:
            state.flushed = True
            state.up.add(FLUSH)

    # ---- events

    def handle(self, event: inputs.Input) -> list[Command]:
        state = self._state
        if isinstance(event, inputs.HoldOpened) and state.held is not None and state.held.number == event.operation:
            self._waiting.begin(state, event)
        elif isinstance(event, inputs.TimerFired):
            self._waiting.fired(state, event.name)
        elif isinstance(event, inputs.HoldAnswered) and state.held is not None and state.held.number == event.operation:
            self._answered(state.held, event)
            state.held = None
            state.blocked = ""
            self._go_on()
        elif isinstance(event, inputs.CatalogueReady) and state.blocked == "catalogue":
            self._new_catalogue(event)
            state.blocked = ""
            self._go_on()
        return self._flush()

    def _answered(self, held: Operation, event: inputs.HoldAnswered) -> None:
        state = self._state
        self._waiting.end(state)
        if event.state == "approved":
            self._passage.approve(event.ticket, held.number)
            state.book.result(held, "ok", f"approved by {event.by}")
            return
        if event.state == "cancelled":
            why = "statement timeout" if event.reason == TIMED_OUT else "user request"
            state.refused = Denial(errors.QUERY_CANCELED, f"canceling statement due to {why}")
        elif event.state == "ticket":
            state.refused = Denial(
                errors.INSUFFICIENT_PRIVILEGE, f"permission denied until it is approved: ticket {event.ticket}",
                event.reason, "Send the same statement with the same parameters again once it is approved: it passes "
                f"once.  An approver answers with: weir approvals approve {event.ticket} [--reason TEXT]")
        elif event.state == "expired":
            state.refused = Denial(errors.INSUFFICIENT_PRIVILEGE, "permission denied: nobody approved it in time",
                                   f"Ticket {event.ticket}.", "Ask an approver, then ask again.")
        else:
            by = f" by {event.by}" if event.by else ""
            why = f": {event.reason}" if event.reason else ""
            state.refused = Denial(errors.INSUFFICIENT_PRIVILEGE, f"permission denied{by}{why}",
                                   f"Ticket {event.ticket}.")
        state.book.result(held, "cancelled" if event.state == "cancelled" else "denied", "", state.refused.code,
                          state.refused.message)

    def _new_catalogue(self, event: inputs.CatalogueReady) -> None:
        if not isinstance(event.catalogue, Catalogue):
            raise Fatal(Denial(errors.IO_ERROR, event.reason or "the catalogue could not be read"))
        old = self._state.judge.meaning
        self._state.learn(Meaning(
            old.database, old.role, old.schemas, event.catalogue, 0, timeout=self._state.timeout))

    def abandon(self, reason: str) -> list[Command]:
        """A side is gone, or the session ends: what was held is given up, what was forwarded stays open."""
        self._state.give_up(reason)
        return [one for one in self._state.orders if isinstance(one, words.CancelHold)]
