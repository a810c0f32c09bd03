"""What a client is told while its statement is held, and how long its own timeout lets it wait.

A NOTICE with the ticket and the reason comes at once and again, less and less often and not without end: a client that
reads nothing is not sent more and more.  statement_timeout counts from when the hold begins; while the transaction is
open, the server's own idle_in_transaction_session_timeout goes on as well, and its end of the session ends the hold.

Source: PostgreSQL 15 documentation, 20.11.1 Statement Behavior.
"""
from __future__ import annotations

from typing import Final

from enforcer.protocols.postgresql.messages import render_error
from enforcer.protocols.postgresql.settings import TIMEOUT
from enforcer.protocols.postgresql.state import State
from enforcer.words import inputs
from enforcer.words.commands import CancelHold, StartTimer

FIRST: Final = 15.0                   # seconds to the second notice; doubled each time
SELDOM: Final = 300.0                 # seconds between two at most
NOTICES: Final = 100                  # of one hold
AGAIN: Final = "held"                 # a timer; the other is named TIMEOUT
TIMED_OUT: Final = "statement timeout"


class Waiting:
    def __init__(self) -> None:
        self._ticket = self._reason = ""
        self._pause, self._told = FIRST, 0

    def begin(self, state: State, event: inputs.HoldOpened) -> None:
        self._ticket, self._reason, self._pause, self._told = event.ticket, event.reason, FIRST, 0
        self._notice(state, "held for approval")
        if state.timeout > 0:
            state.orders.append(StartTimer(TIMEOUT, state.timeout / 1000))

    def fired(self, state: State, name: str) -> None:
        if state.held is None:
            return
        if name == AGAIN:
            self._notice(state, "still held for approval")
        elif name == TIMEOUT:
            state.orders.append(CancelHold(state.held.number, TIMED_OUT))

    def end(self, state: State) -> None:
        if self._ticket:
            state.orders += (StartTimer(AGAIN, 0), StartTimer(TIMEOUT, 0))
        self._ticket = ""

    def _notice(self, state: State, what: str) -> None:
        self._told += 1
        state.late += render_error(
            "NOTICE", "01000", f"{what}: ticket {self._ticket}", self._reason,
            f"An approver answers with: weir approvals approve {self._ticket} [--reason TEXT]", b"N")
        if self._told < NOTICES:
            state.orders.append(StartTimer(AGAIN, self._pause))
            self._pause = min(self._pause * 2, SELDOM)
