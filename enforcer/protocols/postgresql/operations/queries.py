"""What reads and writes rows: SELECT, INSERT, UPDATE, DELETE, MERGE, COPY, TRUNCATE.

`look` goes into everything below a node of any statement; the names of CTEs hide tables on the way.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from enforcer.protocols.postgresql.operations.calls import NOTED, note, note_attributes
from enforcer.protocols.postgresql.operations.lineage import trace
from enforcer.protocols.postgresql.operations.reader import Reader
from enforcer.protocols.postgresql.operations.tree import Node, is_bare, strings, walk
from enforcer.protocols.postgresql.operations.words import Statement

_MERGE: Final = {"CMD_INSERT": "sql:insert", "CMD_UPDATE": "sql:update", "CMD_DELETE": "sql:delete"}


def read_query(reader: Reader, kind: str, fields: Node) -> Statement:
    look(reader, {kind: fields})
    note_attributes(reader)
    name = {"SelectStmt": "select", "InsertStmt": "insert", "UpdateStmt": "update", "DeleteStmt": "delete",
            "MergeStmt": "merge"}[kind]
    if not reader.found.requests:
        reader.ask("sql:transaction")          # SELECT 1: touches nothing
    traced = trace(reader, kind, fields, True)
    return reader.done(name, shows=traced.shows, blocked=traced.blocked, blocked_reason=traced.reason)


def read_copy(reader: Reader, kind: str, fields: Node) -> Statement:
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


def read_truncate(reader: Reader, kind: str, fields: Node) -> Statement:
    for one in fields.get("relations", ()):
        reader.table("sql:truncate", one["RangeVar"])
    if fields.get("behavior") == "DROP_CASCADE":
        reader.ask("sql:truncate")             # whatever refers to it, however far
    return reader.done("truncate", writes=True)


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
            if name in NOTED:
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


def _one_setting(select: Node) -> str:
    """X, of SELECT ... FROM pg_settings WHERE name = X."""
    tables = [(one.get("RangeVar", {}).get("schemaname", "pg_catalog"), one.get("RangeVar", {}).get("relname"))
              for one in select.get("fromClause", [])]
    where = select.get("whereClause", {}).get("A_Expr", {})
    operator = strings(where.get("name", []))
    if tables != [("pg_catalog", "pg_settings")] or operator != ["="] or not is_bare(where.get("lexpr", {}), "name"):
        return ""
    return str(where.get("rexpr", {}).get("A_Const", {}).get("sval", {}).get("sval", ""))


_NODES: Final[dict[str, Callable[[Reader, Node, frozenset[str]], None]]] = {
    "RangeVar": _range_var, "SelectStmt": _select, "InsertStmt": _insert,
    "UpdateStmt": _update, "DeleteStmt": _delete, "MergeStmt": _merge,
}
