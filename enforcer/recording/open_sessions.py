"""Which sessions are open, and which of their operations have no result yet: what a gap event must say.  Pure."""
from __future__ import annotations

from typing import Any, Final

from enforcer.words import events
from enforcer.words.decisions import PERMIT

MOST: Final = 100_000                 # sessions of one writer; what is beyond is not followed
MOST_OPERATIONS: Final = 100_000      # of one session
MOST_HOLDS: Final = 1000


class OpenSessions:
    """By writer ("enforcer0-INSTANCE") and session.  `opened` and `closed` say what has changed since `take()`."""

    def __init__(self) -> None:
        self.writers: dict[str, dict[str, set[int]]] = {}
        self.opened: list[tuple[str, str]] = []        # (session, writer)
        self.closed: list[str] = []
        self._holds: dict[str, dict[str, Any]] = {}    # session -> ticket -> its last event

    def put(self, writer: str, session: str, operations: set[int]) -> None:
        self.writers.setdefault(writer, {})[session] = operations

    def see(self, writer: str, kind: int, event: Any) -> None:
        """An event of this writer was recorded."""
        if kind == events.INTENT:
            if event.decision == PERMIT or event.forwarded:
                sessions = self.writers.get(writer)
                operations = sessions.get(event.session) if sessions else None
                if operations is None:
                    operations = self._open(writer, event.session)
                if len(operations) < MOST_OPERATIONS:
                    operations.add(event.operation)
        elif kind == events.RESULT:
            self._of(writer, event.session).discard(event.operation)
        elif kind == events.SESSION_OPENED:
            if event.session not in self.writers.get(writer, ()):
                self._open(writer, event.session)
        elif kind == events.SESSION_CLOSED:
            self._holds.pop(event.session, None)
            if self.writers.get(writer, {}).pop(event.session, None) is not None:
                self.closed.append(event.session)
        elif kind == events.HOLD:
            self.see_hold(event)
        elif kind == events.GAP:
            self._of(writer, event.session).difference_update(event.operations)

    def see_hold(self, event: Any) -> None:
        """Of a connection: whoever held it is gone, and so is what it waited for."""
        if event.form != "hold" or not event.session:
            return
        mine = self._holds.get(event.session)
        if event.state in ("pending", "approved"):
            if mine is None and len(self._holds) < MOST:
                mine = self._holds[event.session] = {}
            if mine is not None and (len(mine) < MOST_HOLDS or event.ticket in mine):
                mine[event.ticket] = event
        elif mine is not None:
            mine.pop(event.ticket, None)
            if not mine:
                del self._holds[event.session]

    def take_holds(self, session: str) -> list[Any]:
        """Open ones of a session that is over."""
        return list(self._holds.pop(session, {}).values())

    def unanswered(self, writer: str, session: str) -> tuple[int, ...]:
        """Operations of a session that is about to be closed.  0 is a cancel's, which has none."""
        return tuple(sorted(self._of(writer, session) - {0}))

    def _of(self, writer: str, session: str) -> set[int]:
        return self.writers.get(writer, {}).get(session) or set()

    def _open(self, writer: str, session: str) -> set[int]:
        sessions = self.writers.setdefault(writer, {})
        operations: set[int] = set()
        if len(sessions) < MOST:
            sessions[session] = operations
            self.opened.append((session, writer))
        return operations

    def end(self, writer: str) -> list[tuple[str, tuple[int, ...]]]:
        """The writer is gone: its sessions and their open operations, no longer followed."""
        ended = self.writers.pop(writer, {})
        self.closed += ended
        return [(session, tuple(sorted(operations))) for session, operations in ended.items()]

    def take(self) -> tuple[list[tuple[str, str]], list[str]]:
        changed = self.opened, self.closed
        self.opened, self.closed = [], []
        return changed

    def operations(self) -> list[tuple[str, int]]:
        return [(session, number) for sessions in self.writers.values() for session, numbers in sessions.items()
                for number in numbers]
