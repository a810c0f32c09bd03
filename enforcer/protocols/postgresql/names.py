"""What a session has named: prepared statements and portals, also those that the server has not confirmed.

Theory.  A name that an earlier, unconfirmed batch defined is not used before the server has answered: the client's
message waits.  Within a batch this is not needed: whoever uses a name fails with its definition.  When a batch fails,
what it had named and the server had not confirmed is undone.

Source: PostgreSQL 15 documentation 55.2.3, PREPARE, DECLARE, DEALLOCATE, DISCARD.
"""
from __future__ import annotations

from typing import Final

from enforcer.protocols.postgresql.expected import Definition, Definitions, Portal
from enforcer.protocols.postgresql.judge import Prepared, only
from enforcer.protocols.postgresql.operations.words import Statement
from enforcer.protocols.postgresql.studied import Verdict

LIMIT: Final = 10_000                 # prepared statements, and portals, of a session
UNDO_LIMIT: Final = 16 << 10          # definitions; above it those that are confirmed are dropped


class Wait(Exception):
    """The client's message waits, and those after it: "answers" | "meaning" | "catalogue" | "hold"."""


class SessionNames:
    """`batch` is the number of the client's open batch."""

    def __init__(self) -> None:
        self.statements: Definitions = {}
        self.portals: Definitions = {}
        self.batch = 1
        self._undo: list[Definition] = []
        self._transient: set[bytes] = set()    # names of portals that end with the transaction

    def find(self, names: Definitions, name: bytes) -> Prepared | Portal | None:
        """What a name stands for.  Waits where an earlier batch defined it and the server has not answered."""
        definition = names.get(name)
        if definition is None:
            return None
        if not definition.confirmed and definition.batch != self.batch:
            raise Wait("answers")
        return definition.value

    def find_prepared(self, name: str) -> Prepared | None:
        found = self.find(self.statements, name.encode())
        return found if isinstance(found, Prepared) else None

    def define(self, names: Definitions, name: bytes, value: Prepared | Portal | None) -> Definition:
        """Of the open batch; to be confirmed.  None closes the name."""
        if names is self.portals and value is not None:
            self._transient.add(name)
        definition = names[name] = Definition(value, self.batch, names, name)
        if len(self._undo) > UNDO_LIMIT:
            self._undo = [one for one in self._undo if not one.confirmed]
        self._undo.append(definition)
        return definition

    @staticmethod
    def confirm(definition: Definition) -> None:
        definition.confirmed, definition.previous = True, None
        if definition.value is None and definition.names.get(definition.name) is definition:
            del definition.names[definition.name]

    def undo(self, batch: int) -> None:
        """It failed."""
        for definition in reversed(self._undo):
            names, name = definition.names, definition.name
            if definition.batch == batch and not definition.confirmed and names.get(name) is definition:
                if definition.previous is None:
                    del names[name]
                else:
                    names[name] = definition.previous
        self._undo = [one for one in self._undo if one.batch != batch]

    def settle(self, batch: int) -> None:
        """The server has answered everything up to this batch."""
        if self._undo:
            self._undo = [one for one in self._undo if one.batch > batch]

    def drop_unnamed(self) -> None:
        """As exec_simple_query does."""
        self.statements.pop(b"", None)
        self.portals.pop(b"", None)

    def end_transaction(self, batch: int) -> None:
        for name in list(self._transient):
            definition = self.portals.get(name)
            if definition is None or (isinstance(definition.value, Portal) and definition.value.bind is None):
                self._transient.discard(name)
            elif definition.batch <= batch:
                del self.portals[name]
                self._transient.discard(name)

    def apply_effects(
        self, statement: Statement, tag: str, verdict: Verdict, running: Portal | None, batch: int
    ) -> None:
        """What a statement of SQL did, which the server says is complete; `running` is the portal that it ran in."""
        name = statement.name.encode()
        prepared = Prepared(verdict.studied.text, statement.name)
        if statement.kind == "prepare":
            prepared.seen[()] = (only(verdict.studied, statement),)
            self._confirmed(self.statements, name, prepared, batch)
        elif statement.kind == "declare":
            self._confirmed(self.portals, name, Portal(prepared, verdict, None), batch)
        elif statement.kind in ("deallocate", "discard"):
            if name:
                self.statements.pop(name, None)
            elif tag in ("DISCARD ALL", "DEALLOCATE ALL"):
                for one in [one for one in self.statements if one]:
                    del self.statements[one]
            if tag == "DISCARD ALL":
                self._close_all(running)
        elif statement.kind == "close":
            self.portals.pop(name, None) if name else self._close_all(running)

    def _close_all(self, running: Portal | None) -> None:
        """All portals but the one that says so."""
        for name in [name for name, one in self.portals.items() if one.value is not running or running is None]:
            del self.portals[name]

    @staticmethod
    def _confirmed(names: Definitions, name: bytes, value: Prepared | Portal, batch: int) -> None:
        made = names[name] = Definition(value, batch, names, name)
        made.confirmed, made.previous = True, None
        while len(names) > LIMIT:              # the oldest is forgotten: nobody may use it any more
            del names[next(iter(names))]

    def keep_prepared(self, there: dict[str, str]) -> None:
        """`there` is what the server has prepared, text by name.  What has another text now is somebody else's work,
        in a function: what it is cannot be told."""
        for name, definition in list(self.statements.items()):
            value = definition.value
            if name and definition.confirmed and isinstance(value, Prepared) and (
                    there.get(name.decode("utf-8", "replace")) != value.text.decode("utf-8", "replace")):
                del self.statements[name]
