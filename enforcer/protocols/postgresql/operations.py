"""Statements -> operations: what policy sees of a text, and whose data may come out of it.  Pure.

`analyse` reads the text with PostgreSQL's own grammar (libpg_query through pglast) and walks the parse tree: every
relation that is read or written anywhere in it (CTEs, subqueries, MERGE, RETURNING, EXPLAIN, PREPARE) becomes a
request, and so does every function that is not known to be harmless.  What is not understood is DDL on the database:
denied unless a policy names it.  Labels are lineage.py's.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pglast.parser import ParseError, parse_sql_json, scan

from agent.contract.target import Target
from enforcer.protocols.postgresql import settings
from enforcer.protocols.postgresql.catalogue import SYSTEM, Catalogue, Relation
from enforcer.protocols.postgresql.functions import harmless, is_large_object
from enforcer.words.operations import Request

TEXT_LIMIT: Final = 1 << 20           # bytes of a text that is analysed
STATEMENTS_LIMIT: Final = 1000
HIDDEN: Final = "'***'"
PINNED: Final = ("client_encoding", "standard_conforming_strings")

Node = dict[str, Any]


@dataclass(frozen=True)
class Meaning:
    """What names mean; any change of the fields gives another version."""

    database: str
    role: str
    schemas: tuple[str, ...]          # effective search path, pg_catalog and the temporary schema included
    catalogue: Catalogue | None
    version: int


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


def analyse(text: str, meaning: Meaning, target: Target, prepared: Mapping[str, Analysis]) -> Analysis:
    """`prepared` are the session's prepared statements, asked by name when an EXECUTE names one."""
    raw = text.encode()
    if len(raw) > TEXT_LIMIT:
        return Analysis((), f"a statement of {len(raw)} bytes is longer than {TEXT_LIMIT}", raw[:4096], True, "54000")
    try:
        tree = json.loads(parse_sql_json(text))
    except ParseError as error:
        return Analysis((), str(error.args[0]), raw)
    except (ValueError, RecursionError):
        return Analysis((), "the statement is nested too deeply", raw, code="54001")
    nodes = [entry["stmt"] for entry in tree.get("stmts", ()) if entry.get("stmt")]
    if len(nodes) > STATEMENTS_LIMIT:
        return Analysis((), f"{len(nodes)} statements in one string; at most {STATEMENTS_LIMIT}", raw, code="54001")
    hidden: set[int] = set()
    try:
        readers = [Reader(meaning, target, prepared, hidden) for _ in nodes]
        statements = tuple(reader.read(node) for reader, node in zip(readers, nodes, strict=True))
    except RecursionError:
        return Analysis((), "the statement is nested too deeply", raw, code="54001")
    except Refused as refused:
        return Analysis((), str(refused), raw, code="0A000")
    passwords = any(reader.secret for reader in readers)
    parameters = passwords or any(reader.hides_parameters for reader in readers)
    return Analysis(statements, "", hide(text, hidden, passwords) if hidden or passwords else raw, parameters)


class Refused(Exception):
    """A statement that is not forwarded whatever policy says: it changes how text is read."""


def hide(text: str, places: set[int], every: bool) -> bytes:
    """The text with the constants that begin at these byte offsets (or all string constants) replaced."""
    raw = text.encode()
    offsets = _byte_offsets(text)
    parts, kept = [], 0
    for token in scan(text):
        start, end = offsets(token.start), offsets(token.end + 1)
        if start in places or (every and token.name in ("SCONST", "USCONST", "BCONST", "XCONST")):
            parts += [raw[kept:start], HIDDEN.encode()]
            kept = end
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


def strings(nodes: list[Node]) -> list[str]:
    return [node["String"].get("sval", "") for node in nodes if "String" in node]


@dataclass
class Found:
    """What a statement does, collected on the way through its tree."""

    requests: dict[Request, None] = field(default_factory=dict)
    # RangeVar, relation, schema, name
    tables: list[tuple[Node, Relation | None, str, str]] = field(default_factory=list)
    unknown_functions: list[str] = field(default_factory=list)
    barrier: bool = False
    alters: bool = False
    writes: bool = False


class Reader:
    """Reads one statement."""

    def __init__(self, meaning: Meaning, target: Target, prepared: Mapping[str, Analysis], hidden: set[int]) -> None:
        self.meaning, self.target, self.prepared, self.hidden = meaning, target, prepared, hidden
        self.found = Found()
        self.secret = False
        self.hides_parameters = False
        self._base = (target.name, meaning.database)
        self._row = ""                         # the one row of pg_settings that the SELECT around reads

    def read(self, node: Node) -> Statement:
        kind, fields = next(iter(node.items()))
        return _STATEMENTS.get(kind, Reader._unknown)(self, kind, fields)

    # ---- collecting

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
        for candidate in self.meaning.schemas:
            relation = catalogue.find(candidate, name) if catalogue else None
            if relation is not None:
                return candidate, name, relation
        if catalogue is None and name.startswith("pg_"):
            return "pg_catalog", name, None
        own = (s for s in self.meaning.schemas if s not in SYSTEM and not s.startswith("pg_"))
        return next(own, "public"), name, None

    def table(self, action: str, var: Node) -> None:
        schema, name, relation = self.resolve(var.get("schemaname", ""), var.get("relname", ""))
        self.ask(action, "Table", schema, name)
        self.found.tables.append((var, relation, schema, name))

    def look(self, node: Any, scope: frozenset[str] = frozenset()) -> None:
        """Everything below that reads, writes or calls.  `scope`: names of CTEs that hide tables."""
        if isinstance(node, list):
            for one in node:
                self.look(one, scope)
            return
        if not isinstance(node, dict):
            return
        for name, below in node.items():
            special = _NODES.get(name)
            if special is not None and isinstance(below, dict):
                special(self, below, scope)
            else:
                self.look(below, scope)

    def _range_var(self, var: Node, scope: frozenset[str]) -> None:
        if not var.get("schemaname") and var.get("relname") in scope:
            return
        self.table("sql:select", var)

    def _with(self, fields: Node, scope: frozenset[str]) -> frozenset[str]:
        """Looks into the CTEs; gives the scope with their names.  A CTE that is not recursive does not see itself."""
        clause = fields.get("withClause")
        if not clause:
            return scope
        named = [cte["CommonTableExpr"] for cte in clause.get("ctes", ()) if "CommonTableExpr" in cte]
        if clause.get("recursive"):
            scope |= {cte.get("ctename", "") for cte in named}
        for cte in named:
            self.look(cte.get("ctequery"), scope)
            scope |= {cte.get("ctename", "")}
        return scope

    def _select(self, fields: Node, scope: frozenset[str]) -> None:
        scope = self._with(fields, scope)
        if "intoClause" in fields:
            into = fields["intoClause"]
            self.found.alters = self.found.barrier = self.found.writes = True
            self._made(into.get("rel", {}))
        for clause in fields.get("lockingClause", ()):
            self._locked(clause["LockingClause"], fields, scope)
        for side in ("larg", "rarg"):
            if side in fields:
                self._select(fields[side], scope)
        skipped = ("withClause", "intoClause", "lockingClause", "larg", "rarg")
        outer, self._row = self._row, _one_setting(fields)
        self.look({k: v for k, v in fields.items() if k not in skipped}, scope)
        self._row = outer

    def _locked(self, clause: Node, select: Node, scope: frozenset[str]) -> None:
        """SELECT FOR UPDATE locks rows of what it names, or of all that it reads."""
        self.found.writes = True
        named = {one["RangeVar"].get("relname") for one in clause.get("lockedRels", ()) if "RangeVar" in one}
        for kind, var in walk(select.get("fromClause", [])):
            alias = var.get("alias", {}).get("aliasname", var.get("relname"))
            if kind == "RangeVar" and (not named or alias in named) and (
                    var.get("schemaname") or var.get("relname") not in scope):
                self.table("sql:lock", var)

    def _made(self, var: Node) -> None:
        schema, name, _ = self.resolve(var.get("schemaname", ""), var.get("relname", ""))
        self.ask("sql:ddl", "Table", schema, name)

    def _insert(self, fields: Node, scope: frozenset[str]) -> None:
        scope = self._with(fields, scope)
        self.table("sql:insert", fields["relation"])
        self.found.writes = True
        conflict = fields.get("onConflictClause", {})
        if conflict.get("action") == "ONCONFLICT_UPDATE":
            self.table("sql:update", fields["relation"])
        self._returning(fields)
        self.look([fields.get(k) for k in (
            "cols", "selectStmt", "onConflictClause", "returningList", "returningClause")], scope)

    def _update(self, fields: Node, scope: frozenset[str]) -> None:
        scope = self._with(fields, scope)
        self.table("sql:update", fields["relation"])
        self.found.writes = True
        if fields.get("whereClause"):
            self.table("sql:select", fields["relation"])
        self._returning(fields)
        self.look([fields.get(k) for k in (
            "targetList", "whereClause", "fromClause", "returningList", "returningClause")], scope)

    def _delete(self, fields: Node, scope: frozenset[str]) -> None:
        scope = self._with(fields, scope)
        self.table("sql:delete", fields["relation"])
        self.found.writes = True
        if fields.get("whereClause"):
            self.table("sql:select", fields["relation"])
        self._returning(fields)
        self.look([fields.get(k) for k in (
            "usingClause", "whereClause", "returningList", "returningClause")], scope)

    def _returning(self, fields: Node) -> None:
        if fields.get("returningList") or fields.get("returningClause"):
            self.table("sql:select", fields["relation"])

    def _merge(self, fields: Node, scope: frozenset[str]) -> None:
        scope = self._with(fields, scope)
        self.table("sql:select", fields["relation"])
        self.found.writes = True
        for when in fields.get("mergeWhenClauses", ()):
            action = _MERGE.get(when.get("MergeWhenClause", {}).get("commandType", ""))
            if action:
                self.table(action, fields["relation"])
        parts = ("sourceRelation", "joinCondition", "mergeWhenClauses", "returningList")
        self.look([fields.get(k) for k in parts], scope)

    def _call(self, fields: Node, scope: frozenset[str]) -> None:
        """A function: harmless, one with an action of its own, or asked for by name."""
        name = strings(fields.get("funcname", []))
        self._function(name, fields)
        self.look({k: v for k, v in fields.items() if k != "funcname"}, scope)

    def _function(self, name: list[str], fields: Node) -> None:
        schema, last = (name[-2] if len(name) > 1 else ""), name[-1] if name else ""
        own = self._own_function(schema, last)
        if own:
            self._unsure(own, last)
        elif schema not in ("", "pg_catalog", "information_schema"):
            self._unsure(schema, last)
        elif last == "set_config":
            self._set_config(fields)
        elif last == "pg_notify":
            self.ask("sql:notify")
        elif is_large_object(last):
            self.ask("sql:large-object")
            self.found.writes = True
        elif last not in harmless():
            self._unsure("pg_catalog", last)

    def _own_function(self, schema: str, name: str) -> str:
        """The schema of a user's function that this name may mean."""
        catalogue = self.meaning.catalogue
        if catalogue is None or not catalogue.functions:
            return ""
        places = (schema,) if schema else self.meaning.schemas
        return next((place for place in places if (place, name) in catalogue.functions), "")

    def _unsure(self, schema: str, name: str) -> None:
        self.ask("sql:call", "Function", schema, name)
        self.found.unknown_functions.append(name)
        self.found.barrier = self.found.writes = True

    def _set_config(self, fields: Node) -> None:
        arguments = fields.get("args", [])
        constant = [a.get("A_Const", {}).get("sval", {}).get("sval") for a in arguments[:2]]
        if self._row and constant[:1] == [None] and _column(arguments[0]) == "name":
            constant[0] = self._row            # pg_dump's: set_config(name, ...) FROM pg_settings WHERE name = ...
        self.found.barrier = True
        if len(constant) == 2 and constant[0] is not None:
            self.setting(constant[0], constant[1] if constant[1] is not None else "?")
        else:
            self._unsure("pg_catalog", "set_config")

    def setting(self, name: str, value: str) -> None:
        name = name.lower()
        reason = settings.pinned(name, value)
        if reason:
            raise Refused(reason)
        if name in ("role", "session_authorization"):
            self.ask("sql:set-role", "Role", value or "none")
        else:
            self.ask("sql:set", "Setting", name)

    # ---- statements

    def done(self, kind: str, **more: Any) -> Statement:
        found = self.found
        chosen: dict[str, Any] = {
            "requests": tuple(found.requests), "barrier": found.barrier, "alters_catalogue": found.alters,
            "writes": found.writes} | more
        return Statement(kind, **chosen)

    def _query(self, kind: str, fields: Node) -> Statement:
        from enforcer.protocols.postgresql.lineage import trace

        self.look({kind: fields})
        name = {"SelectStmt": "select", "InsertStmt": "insert", "UpdateStmt": "update", "DeleteStmt": "delete",
                "MergeStmt": "merge"}[kind]
        if not self.found.requests:
            self.ask("sql:transaction")        # SELECT 1: touches nothing
        traced = trace(self, kind, fields, True)
        return self.done(name, shows=traced.shows, blocked=traced.blocked, blocked_reason=traced.reason)

    def _transaction(self, kind: str, fields: Node) -> Statement:
        self.ask("sql:transaction")
        name = {"TRANS_STMT_BEGIN": "begin", "TRANS_STMT_START": "begin", "TRANS_STMT_COMMIT": "commit",
                "TRANS_STMT_ROLLBACK": "rollback", "TRANS_STMT_SAVEPOINT": "savepoint",
                "TRANS_STMT_RELEASE": "release", "TRANS_STMT_ROLLBACK_TO": "rollback_to"}.get(fields.get("kind", ""))
        if name is None:
            self.ask("sql:admin")              # two-phase commit
            name = "commit"
        return self.done(name)

    def _set(self, kind: str, fields: Node) -> Statement:
        what, name = fields.get("kind", ""), fields.get("name", "")
        if what == "VAR_RESET_ALL":
            self.ask("sql:set", "Setting", "all")
        elif what == "VAR_SET_MULTI":
            if name == "TRANSACTION":
                self.ask("sql:transaction")
            else:
                self.ask("sql:set", "Setting", name.lower())
        else:
            self.setting(name, _values(fields.get("args", [])) if what == "VAR_SET_VALUE" else "")
            if what in ("VAR_RESET", "VAR_SET_DEFAULT") and name.lower() in PINNED:
                raise Refused(f"{name} is pinned: its default may differ")
        return self.done("reset" if "RESET" in what else "set", barrier=True)

    def _show(self, kind: str, fields: Node) -> Statement:
        self.ask("sql:transaction")
        return self.done("show")

    def _prepare(self, kind: str, fields: Node) -> Statement:
        inner = self._inside(fields.get("query", {}))
        first = inner.statements[0]
        return self.done("prepare", name=fields.get("name", ""), inner=inner, shows=first.shows, blocked=first.blocked,
                         blocked_reason=first.blocked_reason)

    def _declare(self, kind: str, fields: Node) -> Statement:
        inner = self._inside(fields.get("query", {}))
        first = inner.statements[0]
        return self.done("declare", name=fields.get("portalname", ""), inner=inner, shows=first.shows,
                         blocked=first.blocked, blocked_reason=first.blocked_reason)

    def _inside(self, node: Node) -> Analysis:
        """What a statement holds, with its requests as this one's own."""
        reader = Reader(self.meaning, self.target, self.prepared, self.hidden)
        statement = reader.read(node)
        self.found.requests.update(dict.fromkeys(statement.requests))
        self.found.barrier |= statement.barrier
        self.found.alters |= statement.alters_catalogue
        self.found.writes |= statement.writes
        self.hides_parameters |= reader.hides_parameters
        self.secret |= reader.secret
        return Analysis((statement,))

    def _execute(self, kind: str, fields: Node) -> Statement:
        name = fields.get("name", "")
        self.look(fields.get("params"))
        self.ask("sql:transaction")
        try:
            inner = self.prepared[name]
        except KeyError:
            return self.done("execute", name=name)
        for statement in inner.statements:
            self.found.requests.update(dict.fromkeys(statement.requests))
            self.found.barrier |= statement.barrier
            self.found.alters |= statement.alters_catalogue
            self.found.writes |= statement.writes
        if inner.hide_parameters:
            self.secret = True
        first = inner.statements[0] if inner.statements else Statement("other")
        return self.done("execute", name=name, shows=first.shows, blocked=first.blocked,
                         blocked_reason=first.blocked_reason, copy=first.copy)

    def _named(self, kind: str, fields: Node) -> Statement:
        self.ask("sql:transaction")
        if kind == "DiscardStmt":
            return self.done("discard", barrier=True, alters_catalogue=True)
        name = {"DeallocateStmt": "deallocate", "FetchStmt": "fetch", "ClosePortalStmt": "close"}[kind]
        return self.done(name, name=fields.get("name" if kind == "DeallocateStmt" else "portalname", ""))

    def _copy(self, kind: str, fields: Node) -> Statement:
        from enforcer.protocols.postgresql.lineage import trace

        into = bool(fields.get("is_from"))
        if fields.get("is_program") or fields.get("filename"):
            self.ask("sql:copy-file")
            self.found.writes = True
        if "relation" in fields:
            self.table("sql:insert" if into else "sql:select", fields["relation"])
        self.look([fields.get("query"), fields.get("whereClause")])
        self.found.writes |= into
        traced = trace(self, kind, fields, False)
        way = "" if fields.get("filename") else "in" if into else "out"
        return self.done("copy", copy=way, blocked=traced.blocked, blocked_reason=traced.reason)

    def _explain(self, kind: str, fields: Node) -> Statement:
        inner = self._inside(fields.get("query", {})).statements[0]
        # Planning runs immutable functions; with ANALYZE the statement itself runs.
        return self.done("explain", blocked=inner.blocked, blocked_reason=inner.blocked_reason)

    def _notify(self, kind: str, fields: Node) -> Statement:
        name = {"ListenStmt": "listen", "UnlistenStmt": "unlisten", "NotifyStmt": "notify"}[kind]
        self.ask("sql:transaction" if name == "unlisten" else f"sql:{name}")
        return self.done(name)

    def _lock(self, kind: str, fields: Node) -> Statement:
        for one in fields.get("relations", ()):
            self.table("sql:lock", one["RangeVar"])
        return self.done("lock")

    def _truncate(self, kind: str, fields: Node) -> Statement:
        for one in fields.get("relations", ()):
            self.table("sql:truncate", one["RangeVar"])
        return self.done("truncate", writes=True)

    def _do(self, kind: str, fields: Node) -> Statement:
        self.ask("sql:do")
        return self._anything("do")

    def _procedure(self, kind: str, fields: Node) -> Statement:
        call = fields.get("funccall", {})
        name = strings(call.get("funcname", []))
        last, schema = (name[-1] if name else ""), name[-2] if len(name) > 1 else ""
        own = self._own_function(schema, last)
        self.ask("sql:call", "Function", own or schema or "public", last)
        self.look(call.get("args"))
        return self._anything("call")

    def _anything(self, kind: str) -> Statement:
        """It may do whatever its author could."""
        labels = tuple(dict.fromkeys(label.label for label in self.target.labels))
        return self.done(kind, barrier=True, alters_catalogue=True, writes=True, blocked=labels, blocked_reason=(
            f"what {kind.upper()} reads cannot be told, and this target has labelled columns: {', '.join(labels)}"
            if labels else ""))

    def _constraints(self, kind: str, fields: Node) -> Statement:
        self.ask("sql:transaction")
        return self.done("set")

    def _ddl(self, kind: str, fields: Node) -> Statement:
        """CREATE, ALTER, DROP of a relation."""
        from enforcer.protocols.postgresql.lineage import trace

        for var in _relations_of(fields):
            self._made(var)
        if kind == "DropStmt":
            self._dropped(fields)
        for part in ("query", "viewQuery"):
            self.look(fields.get(part))
        if kind == "ViewStmt":
            self._made(fields.get("view", {}))
            self.look(fields.get("query"))
        if not self.found.requests:
            self.ask("sql:ddl")
        for name, call in walk(fields):
            if name == "FuncCall" and kind not in ("CreateTableAsStmt", "ViewStmt"):
                self._function(strings(call.get("funcname", [])), call)
        traced = trace(self, kind, fields, False)
        return self.done("ddl", barrier=True, alters_catalogue=True, writes=True, blocked=traced.blocked,
                         blocked_reason=traced.reason)

    def _dropped(self, fields: Node) -> None:
        if fields.get("removeType") not in _DROPPED:
            return
        for one in fields.get("objects", ()):
            name = strings(one.get("List", {}).get("items", []))
            if name:
                schema, last, _ = self.resolve(name[-2] if len(name) > 1 else "", name[-1])
                self.ask("sql:ddl", "Table", schema, last)

    def _admin(self, kind: str, fields: Node) -> Statement:
        self.ask("sql:admin")
        self.secret = kind in ("CreateRoleStmt", "AlterRoleStmt", "CreateUserMappingStmt", "AlterUserMappingStmt",
                               "CreateSubscriptionStmt", "AlterSubscriptionStmt")
        return self.done("other", barrier=True, alters_catalogue=True, writes=True)

    def _unknown(self, kind: str, fields: Node) -> Statement:
        self.ask("sql:ddl")
        labels = tuple(dict.fromkeys(label.label for label in self.target.labels))
        return self.done("ddl", barrier=True, alters_catalogue=True, writes=True, blocked=labels, blocked_reason=(
            f"{kind.removesuffix('Stmt')} is not analysed on a target with labelled columns" if labels else ""))


def _column(node: Node) -> str:
    names = strings(node.get("ColumnRef", {}).get("fields", []))
    return names[-1] if names else ""


def _one_setting(select: Node) -> str:
    """X, of SELECT ... FROM pg_settings WHERE name = X."""
    tables = [one.get("RangeVar", {}).get("relname") for one in select.get("fromClause", [])]
    where = select.get("whereClause", {}).get("A_Expr", {})
    operator = strings(where.get("name", []))
    if tables != ["pg_settings"] or operator != ["="] or _column(where.get("lexpr", {})) != "name":
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


_MERGE: Final = {"CMD_INSERT": "sql:insert", "CMD_UPDATE": "sql:update", "CMD_DELETE": "sql:delete"}
_DROPPED: Final = frozenset((
    "OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_SEQUENCE", "OBJECT_INDEX", "OBJECT_FOREIGN_TABLE"))
_NODES: Final[dict[str, Callable[[Reader, Node, frozenset[str]], None]]] = {
    "RangeVar": Reader._range_var, "SelectStmt": Reader._select, "InsertStmt": Reader._insert,
    "UpdateStmt": Reader._update, "DeleteStmt": Reader._delete, "MergeStmt": Reader._merge, "FuncCall": Reader._call,
}
_STATEMENTS: Final[dict[str, Callable[[Reader, str, Node], Statement]]] = {
    **dict.fromkeys(("SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"), Reader._query),
    "TransactionStmt": Reader._transaction, "VariableSetStmt": Reader._set, "VariableShowStmt": Reader._show,
    "PrepareStmt": Reader._prepare, "ExecuteStmt": Reader._execute, "DeclareCursorStmt": Reader._declare,
    **dict.fromkeys(("DeallocateStmt", "FetchStmt", "ClosePortalStmt", "DiscardStmt"), Reader._named),
    "CopyStmt": Reader._copy, "ExplainStmt": Reader._explain, "LockStmt": Reader._lock,
    **dict.fromkeys(("ListenStmt", "UnlistenStmt", "NotifyStmt"), Reader._notify),
    "TruncateStmt": Reader._truncate, "DoStmt": Reader._do, "CallStmt": Reader._procedure,
    "ConstraintsSetStmt": Reader._constraints,
    **dict.fromkeys((
        "CreateStmt", "AlterTableStmt", "DropStmt", "IndexStmt", "ViewStmt", "CreateTableAsStmt", "CreateSeqStmt",
        "AlterSeqStmt", "RenameStmt", "RefreshMatViewStmt", "CreateSchemaStmt", "AlterObjectSchemaStmt", "RuleStmt",
        "CreateTrigStmt", "CommentStmt", "CreateForeignTableStmt", "AlterOwnerStmt", "CreateFunctionStmt"),
        Reader._ddl),
    **dict.fromkeys((
        "GrantStmt", "GrantRoleStmt", "CreateRoleStmt", "AlterRoleStmt", "AlterRoleSetStmt", "DropRoleStmt",
        "AlterSystemStmt", "VacuumStmt", "ClusterStmt", "ReindexStmt", "CheckPointStmt", "LoadStmt", "CreatedbStmt",
        "DropdbStmt", "AlterDatabaseStmt", "AlterDatabaseSetStmt", "CreateUserMappingStmt", "AlterUserMappingStmt",
        "DropUserMappingStmt", "CreateSubscriptionStmt", "AlterSubscriptionStmt", "DropSubscriptionStmt",
        "CreatePublicationStmt", "AlterPublicationStmt", "CreateTableSpaceStmt", "DropTableSpaceStmt",
        "AlterDefaultPrivilegesStmt", "ReassignOwnedStmt", "DropOwnedStmt"), Reader._admin),
}
