"""What a statement calls: functions, and what calls one without looking like it.

Operators, casts, attributes of rows and newer syntax are calls of a user's function where the catalogue has such.
A function that is not known to be harmless becomes a request.
"""
from __future__ import annotations

from typing import Final

from enforcer.protocols.postgresql.catalogue import SYSTEM
from enforcer.protocols.postgresql.functions import harmless, is_large_object
from enforcer.protocols.postgresql.operations.reader import Reader
from enforcer.protocols.postgresql.operations.tree import Node, called, is_bare, strings

# Node types that name an operator, and in which field.
_OPERATORS: Final = {"A_Expr": "name", "SubLink": "operName", "SortBy": "useOp"}
_TYPED: Final = ("TypeCast", "ColumnDef", "RangeTableFuncCol", "XmlSerialize")
_JSON: Final = {
    "JsonArrayConstructor": "json_array", "JsonArrayQueryConstructor": "json_array", "JsonArrayAgg": "json_arrayagg",
    "JsonObjectConstructor": "json_object", "JsonObjectAgg": "json_objectagg", "JsonParseExpr": "json",
    "JsonScalarExpr": "json_scalar", "JsonSerializeExpr": "json_serialize", "JsonFuncExpr": "",
    "JsonTable": "json_table", "MergeSupportFunc": "merge_action",
}
NOTED: Final = frozenset((
    "CaseExpr", "JoinExpr", "FuncCall", "ColumnRef", "A_Indirection", *_OPERATORS, *_TYPED, *_JSON))


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


def _operators(kind: str, fields: Node) -> list[list[str]]:
    """Operators that a node calls, those that it does not name included (parse_expr.c, parse_clause.c)."""
    if "BETWEEN" in fields.get("kind", ""):
        return [["<"], ["<="], [">"], [">="]]
    named = strings(fields.get(_OPERATORS.get(kind, ""), []))
    equal = (
        (kind == "CaseExpr" and "arg" in fields) or (kind == "SubLink" and fields.get("subLinkType") == "ANY_SUBLINK")
        or (kind == "JoinExpr" and bool(fields.get("usingClause") or fields.get("isNatural"))))
    return [named] if named else [["="]] if equal else []
