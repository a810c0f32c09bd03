"""Statements on the session itself: settings, transactions, prepared names and cursors, locks, notifications."""
from __future__ import annotations

from typing import Final

from enforcer.protocols.postgresql import settings
from enforcer.protocols.postgresql.operations.queries import look
from enforcer.protocols.postgresql.operations.reader import UNKNOWN, Reader
from enforcer.protocols.postgresql.operations.tree import Node
from enforcer.protocols.postgresql.operations.words import Refused, Statement

NAME_LIMIT: Final = 64                # bytes of a name: NAMEDATALEN


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


def read_named(reader: Reader, kind: str, fields: Node) -> Statement:
    reader.ask("sql:transaction")
    if kind == "DiscardStmt":
        reader.found.shift = UNKNOWN
        return reader.done("discard", barrier=True, alters_catalogue=True)
    name = {"DeallocateStmt": "deallocate", "FetchStmt": "fetch", "ClosePortalStmt": "close"}[kind]
    return reader.done(name, name=fields.get("name" if kind == "DeallocateStmt" else "portalname", ""))


def read_notify(reader: Reader, kind: str, fields: Node) -> Statement:
    name = {"ListenStmt": "listen", "UnlistenStmt": "unlisten", "NotifyStmt": "notify"}[kind]
    reader.ask("sql:transaction" if name == "unlisten" else f"sql:{name}")
    return reader.done(name)


def read_lock(reader: Reader, kind: str, fields: Node) -> Statement:
    for one in fields.get("relations", ()):
        reader.table("sql:lock", one["RangeVar"])
    return reader.done("lock")


def read_constraints(reader: Reader, kind: str, fields: Node) -> Statement:
    reader.ask("sql:transaction")
    return reader.done("set")


def _values(arguments: list[Node]) -> str:
    found = []
    for argument in arguments:
        constant = argument.get("A_Const") or argument.get("TypeCast", {}).get("arg", {}).get("A_Const", {})
        for key in ("sval", "ival", "fval", "boolval"):
            if key in constant:
                found.append(str(constant[key].get(key, "")))
    return ",".join(found)
