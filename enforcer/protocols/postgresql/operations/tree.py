"""Ways through a parse tree, as libpg_query's JSON has it: {type: fields}, fields that are not set left out."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Node = dict[str, Any]


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


def strings(nodes: list[Node]) -> list[str]:
    return [node["String"].get("sval", "") for node in nodes if "String" in node]


def is_bare(node: Node, name: str) -> bool:
    """This name alone: a qualifier might lead outside."""
    return strings(node.get("ColumnRef", {}).get("fields", [])) == [name]
