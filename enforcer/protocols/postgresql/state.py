"""What both directions of a conversation know of each other."""
from __future__ import annotations

from collections import deque

from enforcer.core.context import Context
from enforcer.protocols.postgresql import meaning
from enforcer.protocols.postgresql.book import Book, Operation
from enforcer.protocols.postgresql.errors import Denial
from enforcer.protocols.postgresql.expected import Expectation
from enforcer.protocols.postgresql.judge import Judge
from enforcer.protocols.postgresql.names import SessionNames
from enforcer.protocols.postgresql.operations.words import Meaning
from enforcer.protocols.postgresql.outgoing import Outgoing
from enforcer.words import commands as words
from enforcer.words.commands import Command


class State:
    def __init__(self, context: Context, book: Book, first: Meaning) -> None:
        self.context, self.book = context, book
        self.labelled = bool(context.target.labels)
        self.judge = Judge(context)
        self._shared: dict[object, object] = {} if context.shared is None else context.shared
        self.names = SessionNames()
        self.expected: deque[Expectation] = deque()
        self.status = "I"                      # of the transaction, as ReadyForQuery says: I | T | E
        self.open = 0                          # messages of this batch that the server has got
        self.flushed = False                   # and that it will answer without a Sync
        self.skip = False                      # until the client's Sync
        self.barriers = 0                      # forwarded, may change meaning, not answered
        self.stale = self.dirty = False        # meaning must be asked again; it changed inside this transaction
        self.catalogue_stale = self.catalogue_dirty = False
        self.said = b""                        # the row that answers what names mean
        self.copying: Operation | None = None
        self.blocked = ""                      # what the client's messages wait for
        self.held: Operation | None = None
        self.refused: Denial | None = None     # why the message at the head of the inbox does not go on
        self.up, self.down = Outgoing(), Outgoing()
        self.late = b""                        # a notice that waits for the end of a message to the client
        self.orders: list[Command] = []
        self.timeout = 0                       # milliseconds of statement_timeout
        self.timed = False                     # this session has set it: it is asked for before a hold
        self.timeout_known = False             # it was, for the message at the head of the inbox
        self.learn(first)

    def expect(self, kind: int) -> Expectation:
        expectation = Expectation(kind, self.names.batch)
        self.expected.append(expectation)
        return expectation

    def end_batch(self) -> None:
        self.names.batch += 1
        self.open = 0
        self.flushed = False

    def give_up(self, reason: str) -> None:
        """What is held will not be run."""
        if self.held is not None:
            self.orders.append(words.CancelHold(self.held.number, reason))
            self.book.result(self.held, "cancelled")
            self.held, self.blocked = None, ""

    def learn(self, found: Meaning) -> None:
        """What names mean from now on."""
        self.timeout = found.timeout
        self.judge.learn(meaning.intern_meaning(self._shared, found))

    def alter(self) -> None:
        """The catalogue changed in this transaction: nobody else shares what names mean until it is read anew."""
        self.judge.learn(meaning.alter_meaning(self._shared, self.judge.meaning))
