"""What all that read a statement share: what its names mean, what it asks for, what was found in it."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agent.contract.target import Target
from enforcer.protocols.postgresql import settings
from enforcer.protocols.postgresql.catalogue import SYSTEM, Relation
from enforcer.protocols.postgresql.operations.tree import Node
from enforcer.protocols.postgresql.operations.words import Analysis, Meaning, Refused, Statement
from enforcer.words.operations import Request

UNKNOWN: Final[tuple[str, ...]] = ("?",)


@dataclass
class Found:
    """What a statement does, collected on the way through its tree."""

    requests: dict[Request, None] = field(default_factory=dict)
    # RangeVar, relation, schema, name
    tables: list[tuple[Node, Relation | None, str, str]] = field(default_factory=list)
    changed: list[tuple[Relation | None, str, str]] = field(default_factory=list)        # what DDL names as its object
    unknown_functions: list[str] = field(default_factory=list)
    dotted: list[tuple[str, str]] = field(default_factory=list)     # (x, name) of x.name: a column, or name(x)
    shift: tuple[str, ...] | None = None       # the search path that it leaves; UNKNOWN where that cannot be told
    doubtful: bool = False                     # of that path's schemas some may not be looked into, or in another place
    resolves: bool = False                     # holds a name without a schema: the search path says what it means
    barrier: bool = False
    alters: bool = False
    writes: bool = False
    early: bool = False


class Reader:
    """One statement that is read: what its names mean, and what has been found in it."""

    def __init__(self, meaning: Meaning, target: Target, prepared: Mapping[str, Analysis], hidden: set[int],
                 altered: bool = False, made: set[str] | None = None) -> None:
        self.altered = altered                 # DDL before it in the same string: names may have moved along the path
        self.made = set() if made is None else made      # functions that were created before it in the same string
        self.meaning, self.target, self.prepared, self.hidden = meaning, target, prepared, hidden
        self.found = Found()
        self.secret = False
        self.hides_parameters = False
        self._base = (target.name, meaning.database)
        self.row = ""                          # the one row of pg_settings that the SELECT around reads

    def ask(self, action: str, kind: str = "Database", *path: str) -> None:
        base: tuple[str, ...] = self._base if kind != "Role" else (self.target.name,)
        self.found.requests[Request(action, kind, base + path)] = None

    def resolve(self, schema: str, name: str) -> tuple[str, str, Relation | None]:
        """(schema, name, relation) of a relation's name under the search path."""
        catalogue = self.meaning.catalogue
        if schema:
            if schema == "pg_temp":
                schema = next((s for s in self.meaning.schemas if s.startswith("pg_temp_")), schema)
            return schema, name, catalogue.find(schema, name) if catalogue else None
        self.found.resolves = True
        for candidate in self.meaning.schemas:
            relation = catalogue.find(candidate, name) if catalogue else None
            if relation is not None:
                return candidate, name, relation
        if catalogue is None and name.startswith("pg_"):
            return "pg_catalog", name, None
        return self._own_schema(), name, None

    def _own_schema(self) -> str:
        return next((s for s in self.meaning.schemas if s not in SYSTEM and not s.startswith("pg_")), "public")

    def shown(self, schema: str) -> str:
        """As policies name it: the session's own temporary schema has a number that they cannot know."""
        return "pg_temp" if schema.startswith("pg_temp_") and schema in self.meaning.schemas else schema

    def places(self, var: Node) -> list[tuple[str, str, Relation | None]]:
        """What a name means, and what it means once that is gone: another session may drop it between the decision and
        the server's look (RangeVarGetRelid looks again after a wait for a lock).  Nobody else drops the temporary."""
        first, name, relation = self.resolve(var.get("schemaname", ""), var.get("relname", ""))
        found = [(first, name, relation)]
        if var.get("schemaname") or self.meaning.catalogue is None or (self._stays(first) and not self.altered):
            return found
        for schema in self.meaning.schemas:
            other = self.meaning.catalogue.find(schema, name) if schema != first else None
            if other is not None:
                found.append((schema, name, other))
        return found

    @staticmethod
    def _stays(schema: str) -> bool:
        return schema in SYSTEM or schema.startswith("pg_temp")

    def table(self, action: str, var: Node) -> None:
        for schema, name, relation in self.places(var):
            self.ask(action, "Table", self.shown(schema), name)
            self.found.tables.append((var, relation, schema, name))
            if action != "sql:select" and self._is_settings(schema, name, relation):
                self.unsure("pg_catalog", "set_config")       # its rule calls it: documentation 54.24

    def _is_settings(self, schema: str, name: str, relation: Relation | None) -> bool:
        """pg_settings, or a view through which it can be written."""
        if relation is None or self.meaning.catalogue is None or not relation.sources:
            return (schema, name) == ("pg_catalog", "pg_settings")
        return self.meaning.catalogue.reads(relation, "pg_catalog", "pg_settings")

    def change(self, var: Node, new: bool = False) -> None:
        """`new`: it is made where the path begins, whatever else has its name."""
        if var.get("relpersistence") == "t" and not var.get("schemaname"):
            var = var | {"schemaname": "pg_temp"}
        places = self.places(var)
        if new and not var.get("schemaname"):
            places.append((self._own_schema(), var.get("relname", ""), None))
        for schema, name, relation in places:
            self.ask("sql:ddl", "Table", self.shown(schema), name)
            self.found.changed.append((relation, schema, name))

    def unsure(self, schema: str, name: str) -> None:
        self.ask("sql:call", "Function", schema, name)
        self.found.unknown_functions.append(name)
        self.found.barrier = self.found.writes = True
        self.found.shift = UNKNOWN

    def setting(self, name: str, value: str) -> None:
        name = name.lower()
        if settings.has_meaning(name):
            self.found.barrier, self.found.shift = True, UNKNOWN
        reason = settings.pinned(name, value)
        if reason:
            raise Refused(reason)
        if name in ("role", "session_authorization"):
            self.ask("sql:set-role", "Role", value or "none")
        else:
            self.ask("sql:set", "Setting", name)

    def done(self, kind: str, **more: Any) -> Statement:
        found = self.found
        chosen: dict[str, Any] = {
            "requests": tuple(found.requests), "barrier": found.barrier, "alters_catalogue": found.alters,
            "writes": found.writes, "early": found.early} | more
        return Statement(kind, **chosen)


def refuse_execute(query: Node) -> None:
    if "ExecuteStmt" in query:
        raise Refused("EXECUTE inside of EXPLAIN or CREATE TABLE AS is not carried by Weir: use the statement itself")
