"""What tells the same operation, or one of the same shape, in another session: for tickets and for approvals that last.

Exact: every byte of the text, the types and values of its parameters, and what its names mean.  Shape: without the
constants and parameters that a column is compared with, by `=`, in a WHERE of which every part must hold, of a
statement about one table: they choose which row, and neither how many nor whether the rest counts.  Every other
constant stays.  What the session has set besides (TimeZone, DateStyle) is in neither.
"""
from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

import msgspec
from pglast.parser import ParseError, parse_sql_json

from enforcer.hot.shape import POSITIONS, strip
from enforcer.protocols.postgresql.messages import Bind
from enforcer.protocols.postgresql.operations.words import Meaning
from enforcer.words.operations import Request

LONGEST: Final = 64 << 10             # bytes of a text that has a shape
_decode = msgspec.json.Decoder().decode
_encode = msgspec.msgpack.Encoder().encode


def exact(text: bytes, types: tuple[int, ...], bind: Bind | None, meaning: Meaning) -> bytes:
    given = (bind.values, bind.formats) if bind is not None else ((), ())
    return _digest("exact", text, types, given, _named(meaning))


def shape(text: bytes, types: tuple[int, ...], bind: Bind | None, meaning: Meaning) -> bytes:
    """b"" where it has none."""
    if len(text) > LONGEST:
        return b""
    try:
        parsed = parse_sql_json(text.decode())
        tree, gate = _decode(parsed), _decode(parsed)
    except (ParseError, ValueError, RecursionError, msgspec.DecodeError):
        return b""
    if not strip(gate):
        return b""
    free: set[int] = set()
    fixed: set[int] = set()
    for statement in tree["stmts"][0]["stmt"].values():
        if _is_of_one(statement):
            _free(statement.get("whereClause"), free)
    _number(tree, fixed)
    tree = _placeless(tree)
    values = bind.values if bind is not None else ()
    kept = [(at, value) for at, value in enumerate(values, 1) if at in fixed or at not in free]
    return _digest("shape", _encode(tree), types, (kept, bind.formats if bind is not None else ()), _named(meaning))


def asked(requests: tuple[Request, ...]) -> bytes:
    return _digest("asked", requests)


def _named(meaning: Meaning) -> tuple[str, str, tuple[str, ...]]:
    return meaning.database, meaning.role, meaning.schemas


def _is_of_one(statement: dict[str, Any]) -> bool:
    """Of one table: what a column of a joined one is compared with would say whether every row of it goes."""
    joined = [*statement.get("usingClause", ()), *statement.get("fromClause", ())]
    return not joined if "relation" in statement else len(joined) == 1 and "RangeVar" in joined[0]


def _free(condition: Any, free: set[int]) -> None:
    """Takes out what chooses a row; numbers of the parameters among it."""
    if not isinstance(condition, dict):
        return
    parts = condition.get("BoolExpr", {})
    if parts.get("boolop") == "AND_EXPR":
        for one in parts["args"]:
            _free(one, free)
    compared = condition.get("A_Expr", {})
    if compared.get("kind") != "AEXPR_OP" or [one["String"]["sval"] for one in compared["name"]] != ["="]:
        return
    for column, other in (("lexpr", "rexpr"), ("rexpr", "lexpr")):
        if "ColumnRef" in compared.get(column, {}):
            operand = compared.get(other, {})
            if "A_Const" in operand:
                operand["A_Const"] = sorted(operand["A_Const"].keys() - POSITIONS)
            elif "ParamRef" in operand:
                free.add(int(operand["ParamRef"].get("number", 0)))
                operand["Free"] = operand.pop("ParamRef")


def _number(node: object, found: set[int]) -> None:
    """Of parameters that are left."""
    if isinstance(node, list):
        for one in node:
            _number(one, found)
    elif isinstance(node, dict):
        for name, below in node.items():
            if name == "ParamRef":
                found.add(int(below.get("number", 0)))
            _number(below, found)


def _placeless(node: Any) -> Any:
    if isinstance(node, list):
        return [_placeless(one) for one in node]
    if isinstance(node, dict):
        return {name: _placeless(below) for name, below in node.items() if name not in POSITIONS}
    return node


def _digest(*parts: Any) -> bytes:
    return blake2b(_encode(parts), digest_size=32).digest()
