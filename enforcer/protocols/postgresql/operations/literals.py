"""Which constants, parameters and data flow into labelled columns: they are not recorded."""
from __future__ import annotations

from typing import Any

from enforcer.protocols.postgresql.catalogue import Relation
from enforcer.protocols.postgresql.operations.reader import Reader
from enforcer.protocols.postgresql.operations.tree import Node, walk


class Literals:
    """Constants, parameters and data of COPY that flow into labelled columns, anywhere in a statement, are not
    recorded."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def run(self, kind: str, fields: Node) -> None:
        for name, below in walk({kind: fields}):
            if name in ("InsertStmt", "UpdateStmt", "MergeStmt"):
                self._statement(name, below)
        if kind == "CopyStmt" and fields.get("is_from"):
            self._copied(fields)

    def _statement(self, kind: str, fields: Node) -> None:
        found = [one[1] for one in self._reader.found.tables if one[0] is fields["relation"]]
        for oid in dict.fromkeys(relation.oid if relation else 0 for relation in found) or (0,):
            self._into(kind, fields, oid)

    def _into(self, kind: str, fields: Node, oid: int) -> None:
        catalogue = self._reader.meaning.catalogue
        relation = None if catalogue is None else catalogue.by_oid.get(oid)
        if relation is None or catalogue is None:
            hide_literals(self._reader, fields)
        elif relation.is_view or catalogue.is_opaque(relation):
            if catalogue.labelled_sources(relation) or catalogue.is_opaque(relation):
                hide_literals(self._reader, fields)
        elif relation.labels:
            self._columns(kind, fields, relation)

    def _copied(self, fields: Node) -> None:
        relation = next((one[1] for one in self._reader.found.tables if one[0] is fields["relation"]), None)
        named = {one["String"].get("sval", "") for one in fields.get("attlist", [])}
        if relation is None or relation.is_view or (set(relation.labels) & named if named else relation.labels):
            self._reader.hides_parameters = True

    def _columns(self, kind: str, fields: Node, relation: Relation) -> None:
        for entry in [*fields.get("targetList", []), *fields.get("onConflictClause", {}).get("targetList", [])]:
            if entry.get("ResTarget", {}).get("name") in relation.labels:
                hide_literals(self._reader, entry)
        if kind == "InsertStmt":
            self._inserted(fields, relation)
        if kind == "MergeStmt":
            hide_literals(self._reader, fields)

    def _inserted(self, fields: Node, relation: Relation) -> None:
        columns = [entry.get("ResTarget", {}).get("name", "") for entry in fields.get("cols", [])]
        columns = columns or [name for name, _ in sorted(relation.columns.items(), key=lambda one: one[1])]
        select = fields.get("selectStmt", {}).get("SelectStmt", {})
        for row in select.get("valuesLists", []):
            for column, value in zip(columns, row.get("List", {}).get("items", []), strict=False):
                if column in relation.labels:
                    hide_literals(self._reader, value)
        if not select.get("valuesLists") and set(columns) & set(relation.labels):
            hide_literals(self._reader, select)     # which constant comes to which column is not traced


def hide_literals(reader: Reader, node: Any) -> None:
    for kind, fields in walk(node):
        if kind == "A_Const":
            reader.hidden.add(fields.get("location", 0))
        elif kind == "ParamRef":
            reader.hides_parameters = True
