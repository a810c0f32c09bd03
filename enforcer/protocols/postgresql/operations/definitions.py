"""DDL and administration: CREATE, ALTER, DROP of relations and code, roles, grants, VACUUM."""
from __future__ import annotations

from typing import Final

from enforcer.protocols.postgresql.catalogue import SYSTEM
from enforcer.protocols.postgresql.operations.calls import note_attributes, note_function
from enforcer.protocols.postgresql.operations.lineage import trace
from enforcer.protocols.postgresql.operations.queries import look
from enforcer.protocols.postgresql.operations.reader import UNKNOWN, Reader, refuse_execute
from enforcer.protocols.postgresql.operations.tree import Node, strings, walk
from enforcer.protocols.postgresql.operations.words import Statement

_CODE: Final = frozenset((
    "OBJECT_FUNCTION", "OBJECT_PROCEDURE", "OBJECT_ROUTINE", "OBJECT_AGGREGATE", "OBJECT_OPERATOR", "OBJECT_TYPE"))
_CREATES: Final = frozenset(("CreateStmt", "ViewStmt", "CreateTableAsStmt", "CreateSeqStmt"))
_DROPPED: Final = frozenset((
    "OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_SEQUENCE", "OBJECT_INDEX", "OBJECT_FOREIGN_TABLE"))


def read_ddl(reader: Reader, kind: str, fields: Node) -> Statement:
    """CREATE, ALTER, DROP of a relation."""
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


def _relations_of(fields: Node) -> list[Node]:
    """The relations that a DDL statement names as its object."""
    names = ("relation", "sequence", "rel", "view", "typevar")
    found = [fields[name] for name in names if isinstance(fields.get(name), dict)]
    into = fields.get("into", {})
    found += [into["rel"]] if "rel" in into else []
    return [one.get("RangeVar", one) for one in found if "relname" in one.get("RangeVar", one)]
