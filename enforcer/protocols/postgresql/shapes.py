"""What tells the same operation, or one of the same shape, in another session: for tickets and for approvals that last.

Exact: every byte of the text, the types and values of its parameters, and what its names mean.  Shape: as hot/shape.py
takes it, without constants that are operands of operators; and without the values of parameters that stand in such
places and nowhere else.  What the session has set besides (TimeZone, DateStyle) is in neither.
"""
from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

import msgspec
from pglast.parser import ParseError, parse_sql_json

from enforcer.hot.shape import strip
from enforcer.protocols.postgresql.messages import Bind
from enforcer.protocols.postgresql.operations.words import Meaning

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
        tree = _decode(parse_sql_json(text.decode()))
    except (ParseError, ValueError, RecursionError, msgspec.DecodeError):
        return b""
    free: set[int] = set()
    fixed: set[int] = set()
    _sort(tree, free, fixed)
    if not strip(tree):
        return b""
    values = bind.values if bind is not None else ()
    kept = [(at, value) for at, value in enumerate(values, 1) if at in fixed or at not in free]
    return _digest("shape", _encode(tree), types, (kept, bind.formats if bind is not None else ()), _named(meaning))


def _named(meaning: Meaning) -> tuple[str, str, tuple[str, ...]]:
    return meaning.database, meaning.role, meaning.schemas


def _sort(node: object, free: set[int], fixed: set[int], operand: bool = False) -> None:
    """Numbers of parameters: which are operands of operators, and which stand elsewhere."""
    if isinstance(node, list):
        for one in node:
            _sort(one, free, fixed)
    elif isinstance(node, dict):
        for name, below in node.items():
            if name == "ParamRef":
                (free if operand else fixed).add(int(below.get("number", 0)))
            elif name == "A_Expr" and isinstance(below, dict) and below.get("kind") == "AEXPR_OP":
                for part, inner in below.items():
                    _sort(inner, free, fixed, part in ("lexpr", "rexpr"))
            else:
                _sort(below, free, fixed)


def _digest(*parts: Any) -> bytes:
    return blake2b(_encode(parts), digest_size=32).digest()
