"""Every kind of statement and who reads it; those that hold or run another (PREPARE, EXPLAIN, DO) are read here."""
from __future__ import annotations

from collections.abc import Callable
from typing import Final

from enforcer.protocols.postgresql.operations.calls import note_type, own_function
from enforcer.protocols.postgresql.operations.definitions import read_admin, read_ddl, read_unknown, read_vacuum
from enforcer.protocols.postgresql.operations.queries import look, read_copy, read_query, read_truncate
from enforcer.protocols.postgresql.operations.reader import UNKNOWN, Reader, refuse_execute
from enforcer.protocols.postgresql.operations.session import (
    read_constraints,
    read_lock,
    read_named,
    read_notify,
    read_set,
    read_show,
    read_transaction,
)
from enforcer.protocols.postgresql.operations.tree import Node, strings
from enforcer.protocols.postgresql.operations.words import CASTING, Analysis, Refused, Statement


def read(reader: Reader, node: Node) -> Statement:
    kind, fields = next(iter(node.items()))
    return _STATEMENTS.get(kind, read_unknown)(reader, kind, fields)


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
