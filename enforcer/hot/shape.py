"""The shape of a statement: its parse tree without positions and without constants that are operands of operators.

Two texts of one shape differ in nothing that analysis looks at: `aid = 5` and `aid = 6`.  Every other constant stays:
LIMIT 1, ORDER BY 1, f('a'), 'a'::regclass, VALUES (1), t_20240101.  What is not listed here has no shape; so has a call
of anything but an aggregate, because set_config(name, ...) FROM pg_settings WHERE name = 'x' means what 'x' says.

The tree is parse_sql_json's (libpg_query), decoded.  This file runs compiled by mypyc and uncompiled alike.
"""
from __future__ import annotations

from typing import Final

DEPTH: Final = 100                    # of nodes; a deeper statement has no shape
POSITIONS: Final = frozenset((
    "location", "stmt_location", "stmt_len", "list_start", "list_end", "rexpr_list_start", "rexpr_list_end"))
TOP: Final = frozenset(("SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt"))
NODES: Final = TOP | frozenset((
    "A_ArrayExpr", "A_Const", "A_Expr", "A_Star", "BoolExpr", "CaseExpr", "CaseWhen", "CoalesceExpr", "ColumnRef",
    "FuncCall", "JoinExpr", "List", "NullTest", "ParamRef", "RangeSubselect", "RangeVar", "ResTarget", "SortBy",
    "SQLValueFunction", "String", "SubLink"))
AGGREGATES: Final = frozenset(("count", "sum", "min", "max", "avg"))


def strip(tree: object) -> bool:
    """Takes out of a decoded tree what makes no difference; False where it has no shape (then it is half stripped)."""
    if not isinstance(tree, dict):
        return False
    statements = tree.get("stmts")
    if not isinstance(statements, list) or len(statements) != 1:
        return False
    entry = statements[0]
    if not isinstance(entry, dict):
        return False
    top = entry.get("stmt")
    if not isinstance(top, dict) or len(top) != 1:
        return False
    for kind in top:
        if kind not in TOP:
            return False
    return _strip(tree, 0)


def _strip(node: object, depth: int) -> bool:
    if isinstance(node, list):
        for one in node:
            if not _strip(one, depth + 1):
                return False
        return True
    if not isinstance(node, dict):
        return True
    if depth > DEPTH:
        return False
    gone: list[str] = []
    for name, below in node.items():
        if name in POSITIONS:
            gone.append(name)
        elif isinstance(below, dict):
            if name[:1].isupper() and not _fits(name, below):
                return False
            if not _strip(below, depth + 1):
                return False
        elif isinstance(below, list) and not _strip(below, depth + 1):
            return False
    for name in gone:
        del node[name]
    return True


def _fits(kind: str, fields: dict[str, object]) -> bool:
    """May this node be there?  An operator's constants are replaced by their type on the way."""
    if kind == "A_Expr":
        if fields.get("kind") == "AEXPR_OP":
            _mark(fields.get("lexpr"))
            _mark(fields.get("rexpr"))
        return True
    if kind == "FuncCall":
        names = fields.get("funcname")
        return isinstance(names, list) and len(names) == 1 and _text(names[0]) in AGGREGATES
    return kind in NODES


def _mark(operand: object) -> None:
    if not isinstance(operand, dict):
        return
    constant = operand.get("A_Const")
    if not isinstance(constant, dict):
        return
    operand["A_Const"] = [name for name in constant if name not in POSITIONS]


def _text(name: object) -> str:
    if isinstance(name, dict):
        string = name.get("String")
        if isinstance(string, dict):
            value = string.get("sval")
            if isinstance(value, str):
                return value
    return ""
