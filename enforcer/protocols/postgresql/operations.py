"""Statements -> operations: what policy sees of a text, and whose data may come out of it.  Pure.

`analyse` reads the text with PostgreSQL's own grammar (libpg_query through pglast) and walks the parse tree: every
relation that is read or written anywhere in it (CTEs, subqueries, MERGE, RETURNING, EXPLAIN, PREPARE) becomes a
request, and so does every function that is not known to be harmless.  What is not understood is DDL on the database:
denied unless a policy names it.  Labels are lineage.py's.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec
from pglast.parser import ParseError, parse_sql_json, scan

from agent.contract.target import Target
from enforcer.protocols.postgresql import settings
from enforcer.protocols.postgresql.catalogue import SYSTEM, Catalogue, Relation
from enforcer.protocols.postgresql.functions import harmless, is_large_object
from enforcer.words.operations import Request

TEXT_LIMIT: Final = 1 << 20           # bytes of a text that is analysed
TREE_LIMIT: Final = 16 << 20          # bytes of a parse tree; reading one takes about a second
STATEMENTS_LIMIT: Final = 1000
NAME_LIMIT: Final = 64                # bytes of a name: NAMEDATALEN
BEGINNING: Final = 4096               # bytes that are recorded of a text that is too long
HIDDEN: Final = "'***'"

Node = dict[str, Any]


@dataclass(frozen=True)
class Meaning:
    """What names mean; any change of the fields gives another version."""

    database: str
    role: str
    schemas: tuple[str, ...]          # effective search path, pg_catalog and the temporary schema included
    catalogue: Catalogue | None
    version: int
    altered: bool = False             # DDL of this transaction, which the catalogue does not know: names may have moved


@dataclass(frozen=True)
class Statement:
    kind: str
    requests: tuple[Request, ...] = ()
    shows: tuple[str, ...] = ()       # labels that may be in its output, as bare columns
    blocked: tuple[str, ...] = ()     # labels whose way through it cannot be told: refused to who may not see them
    blocked_reason: str = ""
    barrier: bool = False             # may change what later text means
    alters_catalogue: bool = False
    writes: bool = False
    early: bool = False               # reading it may run a user's function
    copy: str = ""                    # "in" | "out"
    name: str = ""                    # of PREPARE, EXECUTE, DEALLOCATE, DECLARE, FETCH, CLOSE; "" is ALL
    inner: Analysis | None = None     # what PREPARE and DECLARE hold


@dataclass(frozen=True)
class Analysis:
    statements: tuple[Statement, ...]
    error: str = ""                   # why nothing of the text may be forwarded
    recorded: bytes = b""             # the text as recorded: what flows into labelled columns, and passwords, hidden
    hide_parameters: bool = False
    code: str = "42601"               # SQLSTATE of `error`
    hides: bool = False               # `recorded` was made by hiding, also where that left it as it was


def analyse(text: str, meaning: Meaning, target: Target, prepared: Mapping[str, Analysis]) -> Analysis:
    """`prepared` are the session's prepared statements, asked by name when an EXECUTE names one."""
    raw = text.encode()
    if len(raw) > TEXT_LIMIT:
        return _unread(text, target, f"a statement of {len(raw)} bytes is longer than {TEXT_LIMIT}", "54000")
    try:
        parsed = parse_sql_json(text)
        if len(parsed) > TREE_LIMIT:
            return _unread(text, target, "the statement has too many parts", "54001")
        tree = msgspec.json.decode(parsed)
    except ParseError as error:
        return _unread(text, target, str(error.args[0]), "42601")
    except (ValueError, RecursionError, msgspec.DecodeError):
        return _unread(text, target, "the statement is nested too deeply", "54001")
    nodes = [entry["stmt"] for entry in tree.get("stmts", ()) if entry.get("stmt")]
    if len(nodes) > STATEMENTS_LIMIT:
        reason = f"{len(nodes)} statements in one string; at most {STATEMENTS_LIMIT}"
        return _unread(text, target, reason, "54001")
    hidden: set[int] = set()
    try:
        readers, statements = _read(nodes, meaning, target, prepared, hidden)
    except RecursionError:
        return _unread(text, target, "the statement is nested too deeply", "54001")
    except Refused as refused:
        return _unread(text, target, str(refused), "0A000")
    every = any(reader.secret for reader in readers)
    parameters = every or any(reader.hides_parameters for reader in readers)
    hides = bool(hidden) or every
    recorded = hide(text, hidden, every) if hides else raw
    if not every and any(one.barrier or one.alters_catalogue for one in statements):
        shown = _PASSWORD.sub(rb"\1***", recorded)         # in settings, options, code: its rest tells what was done
        hides, recorded = hides or shown != recorded, shown
    return Analysis(statements, "", recorded, parameters, hides=hides)


def _read(
    nodes: list[Node], meaning: Meaning, target: Target, prepared: Mapping[str, Analysis], hidden: set[int]
) -> tuple[list[Reader], tuple[Statement, ...]]:
    """Each statement under the names that those before it in the string leave.  Raises Refused where that cannot be
    told: the server decides the whole string at once, before any of it has run."""
    readers, statements = [], []
    shifted = lost = False
    altered = meaning.altered
    made: set[str] = set()
    for node in nodes:
        reader = Reader(meaning, target, prepared, hidden, altered, made)
        statement = read(reader, node)
        if (lost and (reader.found.resolves or statement.kind in _ANYTHING)) or (
                shifted and statement.kind in _LATER):
            raise Refused("what names mean changes in the middle of the string: send the rest in a message of its own")
        shift = reader.found.shift
        lost |= shift is UNKNOWN or (shifted and statement.kind in _ENDS)
        shifted |= shift is not None
        altered |= statement.alters_catalogue or reader.found.doubtful
        if shift is not None and shift is not UNKNOWN:
            meaning, lost = replace(meaning, schemas=shift), False
        readers.append(reader)
        statements.append(statement)
    return readers, tuple(statements)


def _unread(text: str, target: Target, reason: str, code: str) -> Analysis:
    """Nothing of it is forwarded.  What might be a password, or a labelled value, is not recorded either."""
    if not target.labels and not _SECRETIVE.search(text):
        raw = text.encode()
        return Analysis((), reason, raw if len(raw) <= TEXT_LIMIT else raw[:BEGINNING], code=code)
    try:
        recorded = hide(text, set(), True) if len(text) <= TEXT_LIMIT else b"(not recorded: it is too long to be read)"
    except (ParseError, ValueError):
        recorded = b"(not recorded: it cannot be read, and may hold what must not be seen)"
    said, quoted, near = reason.partition(" at or near ")
    if quoted and near.strip('"').encode() not in recorded:        # the reason is recorded as well
        reason = said
    return Analysis((), reason, recorded, True, code)


class Refused(Exception):
    """A statement that is not forwarded whatever policy says: it changes how text is read."""


def hide(text: str, places: set[int], every: bool) -> bytes:
    """The text with the constants that begin at these byte offsets replaced; `every`: with all constants and comments,
    and what stands for a password without quotes or in the wrong ones."""
    raw = text.encode()
    offsets = _byte_offsets(text)
    parts, kept, negative = [], 0, -1
    before, bare = "", -1             # the token before; where a password without quotes has come to
    for token in scan(text):
        start, end = offsets(token.start), offsets(token.end + 1)
        if every and (start == bare or (before == "PASSWORD" and token.name in ("IDENT", "UIDENT"))):
            if start != bare:
                parts += [raw[kept:start], HIDDEN.encode()]
            kept = bare = end
            continue
        before = token.name
        if token.name == "ASCII_45" and start in places:       # a negative number begins with its sign
            negative = start
            continue
        if negative >= 0 or start in places or (every and token.name in _TELLING):
            parts += [raw[kept:negative if negative >= 0 else start], HIDDEN.encode()]
            kept, negative = end, -1
    return b"".join([*parts, raw[kept:]])


def _byte_offsets(text: str) -> Callable[[int], int]:
    if text.isascii():
        return lambda at: at
    sums = [0]
    for character in text:
        sums.append(sums[-1] + len(character.encode()))
    return lambda at: sums[min(at, len(text))]


def walk(node: Any) -> Iterator[tuple[str, Node]]:
    """Every (type, fields) below a node, itself included, in the tree's order."""
    stack = [node]
    while stack:
        top = stack.pop()
        if isinstance(top, list):
            stack += reversed(top)
        elif isinstance(top, dict):
            for name, below in reversed(top.items()):
                if name[:1].isupper() and isinstance(below, dict):
                    yield name, below
                stack.append(below)


def called(var: Node) -> str:
    """What a relation goes by in its statement."""
    return str(var.get("alias", {}).get("aliasname") or var.get("relname", ""))


def refuse_execute(query: Node) -> None:
    if "ExecuteStmt" in query:
        raise Refused("EXECUTE inside of EXPLAIN or CREATE TABLE AS is not carried by Weir: use the statement itself")


def strings(nodes: list[Node]) -> list[str]:
    return [node["String"].get("sval", "") for node in nodes if "String" in node]


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


def read(reader: Reader, node: Node) -> Statement:
    kind, fields = next(iter(node.items()))
    return _STATEMENTS.get(kind, read_unknown)(reader, kind, fields)


def look(reader: Reader, node: Any, scope: frozenset[str] = frozenset()) -> None:
    """Everything below that reads, writes or calls.  `scope`: names of CTEs that hide tables."""
    if isinstance(node, list):
        for one in node:
            look(reader, one, scope)
        return
    if not isinstance(node, dict):
        return
    for name, below in node.items():
        if isinstance(below, dict):
            if name in _NOTED:
                note(reader, name, below)
            special = _NODES.get(name)
            if special is not None:
                special(reader, below, scope)
            else:
                look(reader, below, scope)
        elif isinstance(below, list):
            look(reader, below, scope)


def _range_var(reader: Reader, var: Node, scope: frozenset[str]) -> None:
    if not var.get("schemaname") and var.get("relname") in scope:
        return
    reader.table("sql:select", var)


def _with(reader: Reader, fields: Node, scope: frozenset[str]) -> frozenset[str]:
    """Looks into the CTEs; gives the scope with their names.  A CTE that is not recursive does not see itself."""
    clause = fields.get("withClause")
    if not clause:
        return scope
    named = [cte["CommonTableExpr"] for cte in clause.get("ctes", ()) if "CommonTableExpr" in cte]
    if clause.get("recursive"):
        scope |= {cte.get("ctename", "") for cte in named}
    for cte in named:
        look(reader, cte.get("ctequery"), scope)
        scope |= {cte.get("ctename", "")}
    return scope


def _select(reader: Reader, fields: Node, scope: frozenset[str]) -> None:
    scope = _with(reader, fields, scope)
    if "intoClause" in fields:
        into = fields["intoClause"]
        reader.found.alters = reader.found.barrier = reader.found.writes = True
        reader.change(into.get("rel", {}), True)
    for clause in fields.get("lockingClause", ()):
        _locked(reader, clause["LockingClause"], fields, scope)
    for side in ("larg", "rarg"):
        if side in fields:
            _select(reader, fields[side], scope)
    skipped = ("withClause", "intoClause", "lockingClause", "larg", "rarg")
    outer, reader.row = reader.row, _one_setting(fields)
    look(reader, {k: v for k, v in fields.items() if k not in skipped}, scope)
    reader.row = outer


def _locked(reader: Reader, clause: Node, select: Node, scope: frozenset[str]) -> None:
    """SELECT FOR UPDATE locks rows of what it names, or of all that it reads."""
    reader.found.writes = True
    named = {one["RangeVar"].get("relname") for one in clause.get("lockedRels", ()) if "RangeVar" in one}
    for kind, var in walk(select.get("fromClause", [])):
        alias = var.get("alias", {}).get("aliasname", var.get("relname"))
        if kind == "RangeVar" and (not named or alias in named) and (
                var.get("schemaname") or var.get("relname") not in scope):
            reader.table("sql:lock", var)


def _insert(reader: Reader, fields: Node, scope: frozenset[str]) -> None:
    scope = _with(reader, fields, scope)
    reader.table("sql:insert", fields["relation"])
    reader.found.writes = True
    conflict = fields.get("onConflictClause", {})
    if conflict.get("action") == "ONCONFLICT_UPDATE":
        reader.table("sql:update", fields["relation"])
        if conflict.get("whereClause") or any(kind == "ColumnRef" and strings(ref.get("fields", []))[:1] != [
                "excluded"] for kind, ref in walk(conflict.get("targetList", []))):
            reader.table("sql:select", fields["relation"])
    if "infer" in conflict:                    # asks whether such a row is there (INSERT, On conflict: privileges)
        reader.table("sql:select", fields["relation"])
    _returning(reader, fields)
    look(reader, [fields.get(k) for k in (
        "cols", "selectStmt", "onConflictClause", "returningList", "returningClause")], scope)


def _update(reader: Reader, fields: Node, scope: frozenset[str]) -> None:
    scope = _with(reader, fields, scope)
    reader.table("sql:update", fields["relation"])
    reader.found.writes = True
    if fields.get("whereClause") or any(kind == "ColumnRef" for kind, _ in walk(fields.get("targetList", []))):
        reader.table("sql:select", fields["relation"])
    _returning(reader, fields)
    look(reader, [fields.get(k) for k in (
        "targetList", "whereClause", "fromClause", "returningList", "returningClause")], scope)


def _delete(reader: Reader, fields: Node, scope: frozenset[str]) -> None:
    scope = _with(reader, fields, scope)
    reader.table("sql:delete", fields["relation"])
    reader.found.writes = True
    if fields.get("whereClause"):
        reader.table("sql:select", fields["relation"])
    _returning(reader, fields)
    look(reader, [fields.get(k) for k in (
        "usingClause", "whereClause", "returningList", "returningClause")], scope)


def _returning(reader: Reader, fields: Node) -> None:
    if fields.get("returningList") or fields.get("returningClause"):
        reader.table("sql:select", fields["relation"])


def _merge(reader: Reader, fields: Node, scope: frozenset[str]) -> None:
    scope = _with(reader, fields, scope)
    reader.table("sql:select", fields["relation"])
    reader.found.writes = True
    for when in fields.get("mergeWhenClauses", ()):
        action = _MERGE.get(when.get("MergeWhenClause", {}).get("commandType", ""))
        if action:
            reader.table(action, fields["relation"])
    parts = ("sourceRelation", "joinCondition", "mergeWhenClauses", "returningList")
    look(reader, [fields.get(k) for k in parts], scope)


def note(reader: Reader, kind: str, fields: Node) -> None:
    """Calls that look like one, and those that do not: operators, casts, attributes of rows."""
    if kind == "FuncCall":
        note_function(reader, strings(fields.get("funcname", [])), fields)
    elif kind in _OPERATORS or kind in ("CaseExpr", "JoinExpr"):
        for name in _operators(kind, fields):
            _note_operator(reader, name)
    elif kind in _TYPED:
        note_type(reader, strings(fields.get("typeName", {}).get("names", [])))
    elif kind == "ColumnRef":
        names = strings(fields.get("fields", []))
        reader.found.dotted += [(names[-2], names[-1])] if len(names) > 1 else []
    elif kind == "A_Indirection":
        reader.found.dotted += [("", name) for name in strings(fields.get("indirection", []))]
    elif kind in _JSON:
        _note_younger(reader, _JSON[kind] or str(fields.get("op", "")).removesuffix("_OP").lower())


def _note_younger(reader: Reader, name: str) -> None:
    """Syntax of PostgreSQL 16 and later that is an ordinary function's name to an older server."""
    own = own_function(reader, "", name)
    if own:
        reader.unsure(own, name)


def _note_operator(reader: Reader, name: list[str]) -> None:
    """A user's operator is a call of a user's function."""
    catalogue = reader.meaning.catalogue
    if catalogue is None or not catalogue.operators or not name:
        return
    schema, last = (name[-2] if len(name) > 1 else ""), name[-1]
    reader.found.resolves |= not schema and any(last == known for _, known in catalogue.operators)
    for place in (schema,) if schema else reader.meaning.schemas:
        if (place, last) in catalogue.operators:
            reader.unsure(place, last)


def note_type(reader: Reader, name: list[str]) -> None:
    """A cast to such a type runs a user's function."""
    catalogue = reader.meaning.catalogue
    if catalogue is None or not catalogue.casts or not name:
        return
    schema, last = (name[-2] if len(name) > 1 else ""), name[-1]
    for place in (schema,) if schema else reader.meaning.schemas:
        if (place, last) in catalogue.casts:
            reader.found.early = True          # of a literal: as soon as it is parsed
            reader.unsure(place, last)


def note_attributes(reader: Reader) -> None:
    """`x.name` calls name(x) where x is a row without such a column: PostgreSQL 15 documentation 8.16.5."""
    catalogue = reader.meaning.catalogue
    dotted, reader.found.dotted = reader.found.dotted, []
    if catalogue is None or not catalogue.row_functions:
        return
    for qualifier, name in dotted:
        place = next((one for one in reader.meaning.schemas if (one, name) in catalogue.row_functions), "")
        if place and not _is_column(reader, qualifier, name):
            reader.unsure(place, name)


def _is_column(reader: Reader, qualifier: str, name: str) -> bool:
    """Of every relation of the statement that goes by this name."""
    meant = [relation for var, relation, _, _ in reader.found.tables if called(var) == qualifier]
    return bool(meant) and all(relation is not None and name in relation.columns for relation in meant)


def note_function(reader: Reader, name: list[str], fields: Node) -> None:
    schema, last = (name[-2] if len(name) > 1 else ""), name[-1] if name else ""
    if (schema, last) == ("pg_catalog", "json_object"):
        schema = ""                            # syntax since PostgreSQL 16; an ordinary name to an older server
    reader.found.resolves |= not schema
    own = own_function(reader, schema, last)
    if own:
        reader.unsure(own, last)
    elif schema not in ("", "pg_catalog", "information_schema"):
        reader.unsure(schema, last)
    elif last == "set_config":
        _note_set_config(reader, fields)
    elif last == "pg_notify":
        reader.ask("sql:notify")
    elif is_large_object(last):
        reader.ask("sql:large-object")
        reader.found.writes = True
    elif last not in harmless():
        reader.unsure("pg_catalog", last)
    reader.found.writes |= last == "nextval"


def own_function(reader: Reader, schema: str, name: str) -> str:
    """The schema of a user's function that this name may mean."""
    catalogue = reader.meaning.catalogue
    if name in reader.made and schema not in SYSTEM:
        return schema or next((one for one in reader.meaning.schemas if one not in SYSTEM), "public")
    if catalogue is None or not catalogue.functions:
        return ""
    places = (schema,) if schema else reader.meaning.schemas
    return next((place for place in places if (place, name) in catalogue.functions), "")


def _note_set_config(reader: Reader, fields: Node) -> None:
    arguments = fields.get("args", [])
    constant = [a.get("A_Const", {}).get("sval", {}).get("sval") for a in arguments[:2]]
    if reader.row and constant[:1] == [None] and is_bare(arguments[0], "name"):
        constant[0] = reader.row               # pg_dump's: set_config(name, ...) FROM pg_settings WHERE name = ...
    if len(constant) == 2 and constant[0] is not None:
        reader.setting(constant[0], constant[1] if constant[1] is not None else "?")
    else:
        reader.unsure("pg_catalog", "set_config")


def read_query(reader: Reader, kind: str, fields: Node) -> Statement:
    from enforcer.protocols.postgresql.lineage import trace

    look(reader, {kind: fields})
    note_attributes(reader)
    name = {"SelectStmt": "select", "InsertStmt": "insert", "UpdateStmt": "update", "DeleteStmt": "delete",
            "MergeStmt": "merge"}[kind]
    if not reader.found.requests:
        reader.ask("sql:transaction")          # SELECT 1: touches nothing
    traced = trace(reader, kind, fields, True)
    return reader.done(name, shows=traced.shows, blocked=traced.blocked, blocked_reason=traced.reason)


def read_transaction(reader: Reader, kind: str, fields: Node) -> Statement:
    reader.ask("sql:transaction")
    name = {"TRANS_STMT_BEGIN": "begin", "TRANS_STMT_START": "begin", "TRANS_STMT_COMMIT": "commit",
            "TRANS_STMT_ROLLBACK": "rollback", "TRANS_STMT_SAVEPOINT": "savepoint",
            "TRANS_STMT_RELEASE": "release", "TRANS_STMT_ROLLBACK_TO": "rollback_to"}.get(fields.get("kind", ""))
    if name is None:
        reader.ask("sql:admin")                # two-phase commit
        name = "commit"
    return reader.done(name)


def read_set(reader: Reader, kind: str, fields: Node) -> Statement:
    what, name = fields.get("kind", ""), fields.get("name", "").lower()
    if what == "VAR_RESET_ALL":
        reader.ask("sql:set", "Setting", "all")
        reader.found.barrier, reader.found.shift = True, UNKNOWN
    elif what == "VAR_SET_MULTI":
        if name == "transaction":
            reader.ask("sql:transaction")
        else:
            reader.ask("sql:set", "Setting", name.replace("transaction snapshot", "transaction_snapshot"))
        look(reader, fields.get("args"))
    else:
        arguments = fields.get("args", [])
        reader.setting(name, _values(arguments) if what == "VAR_SET_VALUE" else "")
        if what in ("VAR_RESET", "VAR_SET_DEFAULT") and settings.is_pinned(name):
            raise Refused(f"{name} is pinned: its default may differ")
        if name == "search_path" and what == "VAR_SET_VALUE":
            reader.found.shift = _path(reader, arguments)
            known = {one for one in reader.meaning.schemas if not one.startswith("pg_temp")}
            reader.found.doubtful = not known >= set(reader.found.shift)
    return reader.done("reset" if "RESET" in what else "set")


def _path(reader: Reader, arguments: list[Node]) -> tuple[str, ...]:
    """The effective search path of SET search_path = these: documentation 20.11.1.  Schemas without USAGE, and
    those that are not there, are passed over; pg_temp stands where it is named."""
    names = [one.get("A_Const", {}).get("sval", {}).get("sval", "") for one in arguments]
    if not all(0 < len(name.encode()) < NAME_LIMIT for name in names):
        return UNKNOWN                         # a longer one is cut
    names = [reader.meaning.role if name == "$user" else name for name in names]
    temporary = [one for one in reader.meaning.schemas if one.startswith("pg_temp_")]
    system = [] if "pg_catalog" in names else ["pg_catalog"]
    return tuple(dict.fromkeys([*temporary, *system, *names]))


def read_show(reader: Reader, kind: str, fields: Node) -> Statement:
    reader.ask("sql:transaction")
    return reader.done("show")


def _prepare(reader: Reader, kind: str, fields: Node) -> Statement:
    for one in fields.get("argtypes", ()):
        note_type(reader, strings(one.get("TypeName", {}).get("names", [])))
    if reader.found.early:
        raise Refused(CASTING)
    inner = _inside(reader, fields.get("query", {}))
    first = inner.statements[0]
    return reader.done("prepare", name=fields.get("name", ""), inner=inner, shows=first.shows, blocked=first.blocked,
                       blocked_reason=first.blocked_reason)


def _declare(reader: Reader, kind: str, fields: Node) -> Statement:
    inner = _inside(reader, fields.get("query", {}))
    first = inner.statements[0]
    return reader.done("declare", name=fields.get("portalname", ""), inner=inner, shows=first.shows,
                       blocked=first.blocked, blocked_reason=first.blocked_reason)


def _inside(reader: Reader, node: Node) -> Analysis:
    """What a statement holds, with its requests as this one's own."""
    within = Reader(reader.meaning, reader.target, reader.prepared, reader.hidden, reader.altered, reader.made)
    statement = read(within, node)
    reader.found.requests.update(dict.fromkeys(statement.requests))
    reader.found.tables += within.found.tables
    reader.found.barrier |= statement.barrier
    reader.found.alters |= statement.alters_catalogue
    reader.found.writes |= statement.writes
    reader.found.early |= statement.early
    reader.hides_parameters |= within.hides_parameters
    reader.secret |= within.secret
    reader.found.shift = reader.found.shift if within.found.shift is None else within.found.shift
    reader.found.resolves |= within.found.resolves
    return Analysis((statement,), hide_parameters=within.hides_parameters or within.secret)


def _execute(reader: Reader, kind: str, fields: Node) -> Statement:
    name = fields.get("name", "")
    look(reader, fields.get("params"))
    reader.ask("sql:transaction")
    try:
        inner = reader.prepared[name]
    except KeyError:
        return reader.done("execute", name=name)
    for statement in inner.statements:
        reader.found.requests.update(dict.fromkeys(statement.requests))
        reader.found.barrier |= statement.barrier
        reader.found.alters |= statement.alters_catalogue
        reader.found.writes |= statement.writes
        if statement.barrier:
            reader.found.shift = UNKNOWN
    if inner.hide_parameters:
        reader.secret = True
    first = inner.statements[0] if inner.statements else Statement("other")
    return reader.done("execute", name=name, shows=first.shows, blocked=first.blocked,
                       blocked_reason=first.blocked_reason, copy=first.copy)


def read_named(reader: Reader, kind: str, fields: Node) -> Statement:
    reader.ask("sql:transaction")
    if kind == "DiscardStmt":
        reader.found.shift = UNKNOWN
        return reader.done("discard", barrier=True, alters_catalogue=True)
    name = {"DeallocateStmt": "deallocate", "FetchStmt": "fetch", "ClosePortalStmt": "close"}[kind]
    return reader.done(name, name=fields.get("name" if kind == "DeallocateStmt" else "portalname", ""))


def read_copy(reader: Reader, kind: str, fields: Node) -> Statement:
    from enforcer.protocols.postgresql.lineage import trace

    into = bool(fields.get("is_from"))
    if fields.get("is_program") or fields.get("filename"):
        reader.ask("sql:copy-file")
        reader.found.writes = True
    if "relation" in fields:
        reader.table("sql:insert" if into else "sql:select", fields["relation"])
        if fields.get("whereClause"):
            reader.table("sql:select", fields["relation"])
    look(reader, [fields.get("query"), fields.get("whereClause")])
    note_attributes(reader)
    reader.found.writes |= into
    if not reader.found.requests:
        reader.ask("sql:transaction")          # COPY (SELECT 1): touches nothing
    traced = trace(reader, kind, fields, False)
    way = "" if fields.get("filename") else "in" if into else "out"
    return reader.done("copy", copy=way, blocked=traced.blocked, blocked_reason=traced.reason)


def _explain(reader: Reader, kind: str, fields: Node) -> Statement:
    refuse_execute(fields.get("query", {}))
    inner = _inside(reader, fields.get("query", {})).statements[0]
    # Planning runs immutable functions; with ANALYZE the statement itself runs.  A plan tells how wide the values
    # of a column are, and how many rows are in which partition.
    told = [relation.labels["tableoid"].label for _, relation, _, _ in reader.found.tables
            if relation is not None and "tableoid" in relation.labels]
    labels = tuple(dict.fromkeys((*inner.blocked, *inner.shows, *told)))
    return reader.done("explain", blocked=labels, blocked_reason=inner.blocked_reason or (
        f"a plan tells of labelled columns: {', '.join(labels)}" if labels else ""))


def read_notify(reader: Reader, kind: str, fields: Node) -> Statement:
    name = {"ListenStmt": "listen", "UnlistenStmt": "unlisten", "NotifyStmt": "notify"}[kind]
    reader.ask("sql:transaction" if name == "unlisten" else f"sql:{name}")
    return reader.done(name)


def read_lock(reader: Reader, kind: str, fields: Node) -> Statement:
    for one in fields.get("relations", ()):
        reader.table("sql:lock", one["RangeVar"])
    return reader.done("lock")


def read_truncate(reader: Reader, kind: str, fields: Node) -> Statement:
    for one in fields.get("relations", ()):
        reader.table("sql:truncate", one["RangeVar"])
    if fields.get("behavior") == "DROP_CASCADE":
        reader.ask("sql:truncate")             # whatever refers to it, however far
    return reader.done("truncate", writes=True)


def _do(reader: Reader, kind: str, fields: Node) -> Statement:
    reader.ask("sql:do")
    return _anything(reader, "do")


def _procedure(reader: Reader, kind: str, fields: Node) -> Statement:
    call = fields.get("funccall", {})
    name = strings(call.get("funcname", []))
    last, schema = (name[-1] if name else ""), name[-2] if len(name) > 1 else ""
    own = own_function(reader, schema, last)
    reader.ask("sql:call", "Function", own or schema or "public", last)
    look(reader, call.get("args"))
    return _anything(reader, "call")


def _anything(reader: Reader, kind: str) -> Statement:
    """It may do whatever its author could."""
    reader.found.shift = UNKNOWN
    reader.hides_parameters |= bool(reader.target.labels)
    reader.secret |= kind == "call" and bool(reader.target.labels)
    labels = tuple(dict.fromkeys(label.label for label in reader.target.labels))
    return reader.done(kind, barrier=True, alters_catalogue=True, writes=True, blocked=labels, blocked_reason=(
        f"what {kind.upper()} reads cannot be told, and this target has labelled columns: {', '.join(labels)}"
        if labels else ""))


def read_constraints(reader: Reader, kind: str, fields: Node) -> Statement:
    reader.ask("sql:transaction")
    return reader.done("set")


def read_ddl(reader: Reader, kind: str, fields: Node) -> Statement:
    """CREATE, ALTER, DROP of a relation."""
    from enforcer.protocols.postgresql.lineage import trace

    refuse_execute(fields.get("query", {}))
    for var in _relations_of(fields):
        reader.change(var, kind in _CREATES)
    if kind == "DropStmt":
        _dropped(reader, fields)
    _renamed(reader, kind, fields)
    _mentioned(reader, fields)
    if any("GrantStmt" in element for element in fields.get("schemaElts", [])):
        reader.ask("sql:admin")
    if kind == "CreateTrigStmt":
        note_function(reader, strings(fields.get("funcname", [])), fields)
    look(reader, {k: v for k, v in fields.items() if k != "inhRelations"})
    note_attributes(reader)
    cascades = fields.get("behavior") == "DROP_CASCADE" and kind == "DropStmt"
    if cascades or not any(request.action == "sql:ddl" for request in reader.found.requests):
        reader.ask("sql:ddl")
    # After these a name that is resolved here may be another thing's.
    if kind in ("RenameStmt", "AlterObjectSchemaStmt", "CreateSchemaStmt"):
        reader.found.shift = UNKNOWN
    _code(reader, kind, fields)
    if kind == "CreateFunctionStmt":
        reader.made.update(strings(fields.get("funcname", []))[-1:])
    traced = trace(reader, kind, fields, False)
    return reader.done("ddl", barrier=True, alters_catalogue=True, writes=True, blocked=traced.blocked,
                       blocked_reason=traced.reason)


def _code(reader: Reader, kind: str, fields: Node) -> None:
    """Until the transaction ends nobody can tell that a name means code that was made or renamed in it: so whoever
    makes it must be permitted to call it."""
    if kind == "CreateFunctionStmt":
        name = strings(fields.get("funcname", []))
        own = next((one for one in reader.meaning.schemas if one not in SYSTEM), "public")
        reader.ask("sql:call", "Function", name[-2] if len(name) > 1 else own, name[-1] if name else "")
    elif fields.get("renameType" if kind == "RenameStmt" else "objectType") in _CODE and kind in (
            "RenameStmt", "AlterObjectSchemaStmt"):
        reader.ask("sql:admin")


def _renamed(reader: Reader, kind: str, fields: Node) -> None:
    """A relation's new name is asked for as well: policies go by names."""
    var = fields.get("relation", {})
    if kind == "RenameStmt" and fields.get("renameType") in _DROPPED:
        for schema, _, _ in reader.places(var):
            reader.ask("sql:ddl", "Table", reader.shown(schema), fields.get("newname", ""))
    elif kind == "AlterObjectSchemaStmt" and var:
        reader.ask("sql:ddl", "Table", fields.get("newschema", ""), var.get("relname", ""))


def _mentioned(reader: Reader, fields: Node) -> None:
    """Tables that a definition refers to: parents, referenced tables, templates."""
    for kind, below in walk(fields):
        if kind == "Constraint" and "pktable" in below:
            reader.change(below["pktable"])
        elif kind == "TableLikeClause":
            reader.table("sql:select", below["relation"])
        elif kind == "PartitionCmd" and "name" in below:
            reader.change(below["name"])
    for one in fields.get("inhRelations", ()):
        reader.change(one["RangeVar"])
    for one in fields.get("cmds", ()):
        parent = one.get("AlterTableCmd", {}).get("def", {}).get("RangeVar")
        if parent:
            reader.change(parent)


def _dropped(reader: Reader, fields: Node) -> None:
    if fields.get("removeType") not in _DROPPED:
        return
    for one in fields.get("objects", ()):
        name = strings(one.get("List", {}).get("items", []))
        if name:
            reader.change({"schemaname": name[-2] if len(name) > 1 else "", "relname": name[-1]})


def read_vacuum(reader: Reader, kind: str, fields: Node) -> Statement:
    """VACUUM and ANALYZE, of tables or of the whole database."""
    for one in fields.get("rels", ()):
        var = one.get("VacuumRelation", {}).get("relation", {})
        for schema, name, _ in reader.places(var):
            reader.ask("sql:admin", "Table", reader.shown(schema), name)
    if not reader.found.requests:
        reader.ask("sql:admin")
    return reader.done("other", writes=True)


def read_admin(reader: Reader, kind: str, fields: Node) -> Statement:
    reader.ask("sql:admin")
    if kind in ("CreateExtensionStmt", "AlterExtensionStmt", "CreateCastStmt", "ImportForeignSchemaStmt"):
        reader.found.shift = UNKNOWN           # they make functions, operators and relations that are not known here
    reader.secret = kind in ("CreateRoleStmt", "AlterRoleStmt", "CreateUserMappingStmt", "AlterUserMappingStmt",
                             "CreateSubscriptionStmt", "AlterSubscriptionStmt", "CreateForeignServerStmt",
                             "AlterForeignServerStmt", "CreateFdwStmt", "AlterFdwStmt")
    return reader.done("other", barrier=True, alters_catalogue=True, writes=True)


def read_unknown(reader: Reader, kind: str, fields: Node) -> Statement:
    reader.ask("sql:ddl")
    look(reader, fields)
    if kind == "DefineStmt":
        reader.found.shift = UNKNOWN           # it may make an operator
        if fields.get("kind") in _CODE:
            reader.ask("sql:admin")
    labels = tuple(dict.fromkeys(label.label for label in reader.target.labels))
    return reader.done("ddl", barrier=True, alters_catalogue=True, writes=True, blocked=labels, blocked_reason=(
        f"{kind.removesuffix('Stmt')} is not analysed on a target with labelled columns" if labels else ""))


def _operators(kind: str, fields: Node) -> list[list[str]]:
    """Operators that a node calls, those that it does not name included (parse_expr.c, parse_clause.c)."""
    if "BETWEEN" in fields.get("kind", ""):
        return [["<"], ["<="], [">"], [">="]]
    named = strings(fields.get(_OPERATORS.get(kind, ""), []))
    equal = (
        (kind == "CaseExpr" and "arg" in fields) or (kind == "SubLink" and fields.get("subLinkType") == "ANY_SUBLINK")
        or (kind == "JoinExpr" and bool(fields.get("usingClause") or fields.get("isNatural"))))
    return [named] if named else [["="]] if equal else []


def is_bare(node: Node, name: str) -> bool:
    """This name alone: a qualifier might lead outside."""
    return strings(node.get("ColumnRef", {}).get("fields", [])) == [name]


def _one_setting(select: Node) -> str:
    """X, of SELECT ... FROM pg_settings WHERE name = X."""
    tables = [(one.get("RangeVar", {}).get("schemaname", "pg_catalog"), one.get("RangeVar", {}).get("relname"))
              for one in select.get("fromClause", [])]
    where = select.get("whereClause", {}).get("A_Expr", {})
    operator = strings(where.get("name", []))
    if tables != [("pg_catalog", "pg_settings")] or operator != ["="] or not is_bare(where.get("lexpr", {}), "name"):
        return ""
    return str(where.get("rexpr", {}).get("A_Const", {}).get("sval", {}).get("sval", ""))


def _values(arguments: list[Node]) -> str:
    found = []
    for argument in arguments:
        constant = argument.get("A_Const") or argument.get("TypeCast", {}).get("arg", {}).get("A_Const", {})
        for key in ("sval", "ival", "fval", "boolval"):
            if key in constant:
                found.append(str(constant[key].get(key, "")))
    return ",".join(found)


def _relations_of(fields: Node) -> list[Node]:
    """The relations that a DDL statement names as its object."""
    names = ("relation", "sequence", "rel", "view", "typevar")
    found = [fields[name] for name in names if isinstance(fields.get(name), dict)]
    into = fields.get("into", {})
    found += [into["rel"]] if "rel" in into else []
    return [one.get("RangeVar", one) for one in found if "relname" in one.get("RangeVar", one)]


CASTING: Final = "parameters of a type whose values run a function are not carried by Weir: use a cast"
UNKNOWN: Final[tuple[str, ...]] = ("?",)
_ANYTHING: Final = frozenset(("do", "call", "execute"))
_LATER: Final = frozenset(("prepare", "execute"))      # PREPARE's text is read again for each EXECUTE of it
_ENDS: Final = frozenset(("commit", "rollback", "rollback_to", "release"))
_TELLING: Final = frozenset((
    "SCONST", "USCONST", "BCONST", "XCONST", "ICONST", "FCONST", "SQL_COMMENT", "C_COMMENT"))
# PASSWORD 'x', password=x, my.password = "x", PASSWORD ''x'' within a string, PASSWORD $$x$$, //user:x@host.
_PASSWORD: Final = re.compile(
    rb"""(passw(?:or)?d"?\s*(?::?=\s*|to\s+)?(?:e|u&)?|://[^\s/:@']{0,100}:(?=[^\s/@']{1,200}@))"""
    rb"""(?:''[^']*''|'(?:[^'\\]|\\.|'')*'|"[^"]*"|\$\w{0,20}\$[^$]*\$\w{0,20}\$|(?<=[=:])[^\s'";,@]+)""",
    re.IGNORECASE | re.DOTALL)
_SECRETIVE: Final = re.compile(r"passw|secret|connection|options|identified", re.IGNORECASE)
# Node types that name an operator, and in which field.
_OPERATORS: Final = {"A_Expr": "name", "SubLink": "operName", "SortBy": "useOp"}
_CODE: Final = frozenset((
    "OBJECT_FUNCTION", "OBJECT_PROCEDURE", "OBJECT_ROUTINE", "OBJECT_AGGREGATE", "OBJECT_OPERATOR", "OBJECT_TYPE"))
_CREATES: Final = frozenset(("CreateStmt", "ViewStmt", "CreateTableAsStmt", "CreateSeqStmt"))
_TYPED: Final = ("TypeCast", "ColumnDef", "RangeTableFuncCol", "XmlSerialize")
_JSON: Final = {
    "JsonArrayConstructor": "json_array", "JsonArrayQueryConstructor": "json_array", "JsonArrayAgg": "json_arrayagg",
    "JsonObjectConstructor": "json_object", "JsonObjectAgg": "json_objectagg", "JsonParseExpr": "json",
    "JsonScalarExpr": "json_scalar", "JsonSerializeExpr": "json_serialize", "JsonFuncExpr": "",
    "JsonTable": "json_table", "MergeSupportFunc": "merge_action",
}
_NOTED: Final = frozenset((
    "CaseExpr", "JoinExpr", "FuncCall", "ColumnRef", "A_Indirection", *_OPERATORS, *_TYPED, *_JSON))
_MERGE: Final = {"CMD_INSERT": "sql:insert", "CMD_UPDATE": "sql:update", "CMD_DELETE": "sql:delete"}
_DROPPED: Final = frozenset((
    "OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_SEQUENCE", "OBJECT_INDEX", "OBJECT_FOREIGN_TABLE"))
_NODES: Final[dict[str, Callable[[Reader, Node, frozenset[str]], None]]] = {
    "RangeVar": _range_var, "SelectStmt": _select, "InsertStmt": _insert,
    "UpdateStmt": _update, "DeleteStmt": _delete, "MergeStmt": _merge,
}
_STATEMENTS: Final[dict[str, Callable[[Reader, str, Node], Statement]]] = {
    **dict.fromkeys(("SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"), read_query),
    "TransactionStmt": read_transaction, "VariableSetStmt": read_set, "VariableShowStmt": read_show,
    "PrepareStmt": _prepare, "ExecuteStmt": _execute, "DeclareCursorStmt": _declare,
    **dict.fromkeys(("DeallocateStmt", "FetchStmt", "ClosePortalStmt", "DiscardStmt"), read_named),
    "CopyStmt": read_copy, "ExplainStmt": _explain, "LockStmt": read_lock,
    **dict.fromkeys(("ListenStmt", "UnlistenStmt", "NotifyStmt"), read_notify),
    "TruncateStmt": read_truncate, "DoStmt": _do, "CallStmt": _procedure,
    "ConstraintsSetStmt": read_constraints, "VacuumStmt": read_vacuum,
    **dict.fromkeys((
        "CreateStmt", "AlterTableStmt", "DropStmt", "IndexStmt", "ViewStmt", "CreateTableAsStmt", "CreateSeqStmt",
        "AlterSeqStmt", "RenameStmt", "RefreshMatViewStmt", "CreateSchemaStmt", "AlterObjectSchemaStmt", "RuleStmt",
        "CreateTrigStmt", "CommentStmt", "CreateForeignTableStmt", "AlterOwnerStmt", "CreateFunctionStmt"),
        read_ddl),
    **dict.fromkeys((
        "GrantStmt", "GrantRoleStmt", "CreateRoleStmt", "AlterRoleStmt", "AlterRoleSetStmt", "DropRoleStmt",
        "AlterSystemStmt", "ClusterStmt", "ReindexStmt", "CheckPointStmt", "LoadStmt", "CreatedbStmt",
        "DropdbStmt", "AlterDatabaseStmt", "AlterDatabaseSetStmt", "CreateUserMappingStmt", "AlterUserMappingStmt",
        "DropUserMappingStmt", "CreateSubscriptionStmt", "AlterSubscriptionStmt", "DropSubscriptionStmt",
        "CreatePublicationStmt", "AlterPublicationStmt", "CreateTableSpaceStmt", "DropTableSpaceStmt",
        "AlterDefaultPrivilegesStmt", "ReassignOwnedStmt", "DropOwnedStmt", "CreateExtensionStmt", "AlterExtensionStmt",
        "AlterExtensionContentsStmt", "CreateFdwStmt", "AlterFdwStmt", "CreateForeignServerStmt",
        "AlterForeignServerStmt", "ImportForeignSchemaStmt", "CreatePLangStmt", "SecLabelStmt", "CreateEventTrigStmt",
        "AlterEventTrigStmt", "CreateAmStmt", "CreateCastStmt", "CreateTransformStmt", "CreatePolicyStmt",
        "AlterPolicyStmt"), read_admin),
}
