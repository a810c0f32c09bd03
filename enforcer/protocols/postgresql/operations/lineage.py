"""Whose data may come out of a statement: the strict first cut.  Pure.

On a target with labels a labelled column may only be a bare output of the outermost SELECT (or RETURNING) over ordinary
tables: there RowDescription names table and column, and the value is masked.  Every other place where a labelled column
could be meant blocks the statement for whoever may not see that label.  A name is taken for a labelled column whenever
it could be one: by its last part, by a whole-row reference, by `*`.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from agent.contract.target import ColumnLabel
from enforcer.protocols.postgresql.catalogue import SYSTEM, Relation
from enforcer.protocols.postgresql.operations.literals import Literals, hide_literals
from enforcer.protocols.postgresql.operations.reader import Reader
from enforcer.protocols.postgresql.operations.tree import Node, called, walk

SYSTEM_COLUMNS: Final = frozenset(("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"))


@dataclass
class Traced:
    shows: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    reason: str = ""


@dataclass
class Scene:
    """What labelled things a statement's names may mean."""

    columns: dict[str, list[ColumnLabel]] = field(default_factory=dict)    # by column name
    rows: dict[str, list[ColumnLabel]] = field(default_factory=dict)       # by table name or alias: whole rows
    every: list[ColumnLabel] = field(default_factory=list)
    relations: dict[str, list[Relation]] = field(default_factory=dict)     # by table name or alias


def trace(reader: Reader, kind: str, fields: Node, outermost: bool) -> Traced:
    """`outermost`: its rows go to the client, described by RowDescription."""
    if not reader.target.labels:
        return Traced()
    scene = _scene(reader)
    if kind not in ("SelectStmt", "DropStmt"):
        Literals(reader).run(kind, fields)
    doubt = _doubt(reader, kind, fields)
    if doubt:
        everything = tuple(dict.fromkeys(label.label for label in reader.target.labels))
        return Traced(blocked=everything, reason=(
            f"{doubt}, and this target has labelled columns ({', '.join(everything)})"))
    if not scene.every and not reader.found.changed:
        return Traced()
    return Walk(reader, scene).run(kind, fields, outermost)


_NOT_TRACED: Final = {
    "CreateTrigStmt": "what a trigger does", "RuleStmt": "what a rule does",
    "CreateFunctionStmt": "what a function reads",
}


def _doubt(reader: Reader, kind: str, fields: Node) -> str:
    """Why the sources of a statement cannot be told at all, or ""."""
    found, catalogue = reader.found, reader.meaning.catalogue
    if found.unknown_functions:
        return f"what {', '.join(sorted(set(found.unknown_functions)))} reads cannot be told"
    if kind in _NOT_TRACED:
        return f"{_NOT_TRACED[kind]} cannot be told"
    if kind == "RenameStmt" and fields.get("renameType") == "OBJECT_SCHEMA":
        return "labels are known by the schema's name"
    for _, relation, schema, name in found.tables:
        if catalogue is None or (relation is None and schema not in SYSTEM):
            return f"relation {schema}.{name} is not known to Weir, so its sources cannot be told"
        if relation is not None and catalogue.is_opaque(relation):
            return f"what a function or a sample in {schema}.{name} reads cannot be told"
    return ""


def _scene(reader: Reader) -> Scene:
    scene, catalogue = Scene(), reader.meaning.catalogue
    for var, relation, _, name in reader.found.tables:
        if relation is None or catalogue is None:
            continue
        labels = list(catalogue.labelled_sources(relation).values())
        if not labels:
            continue
        scene.every += labels
        for column, label in relation.labels.items():
            scene.columns.setdefault(column, []).append(label)
        for one in {name, called(var)}:
            scene.rows.setdefault(one, []).extend(labels)
            scene.relations.setdefault(one, []).append(relation)
    return scene


class Walk:
    def __init__(self, reader: Reader, scene: Scene) -> None:
        self._reader, self._scene = reader, scene
        self._shows: dict[str, None] = {}
        self._blocked: dict[str, None] = {}
        self._reason = ""
        self._blocks = 0                       # how often something was blocked

    def run(self, kind: str, fields: Node, outermost: bool) -> Traced:
        for var, relation, schema, name in self._reader.found.tables:
            self._relation(var, relation, schema, name)
        if kind not in ("DropStmt", "CommentStmt"):
            for relation, schema, name in self._reader.found.changed:
                if relation is not None and relation.labels:
                    self.block(relation.labels.values(), f"table {schema}.{name} would be defined anew")
        self._name_joins(kind, fields)
        self._conflicts(kind, fields)
        if any(name == "CurrentOfExpr" for name, _ in walk({kind: fields})):
            self.block(self._scene.every, "the cursor's rows may come in its order")
        if kind == "SelectStmt" and outermost:
            self._select(fields)
        elif kind in ("InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"):
            self._change(kind, fields, outermost)
        elif kind == "CopyStmt":
            self._copy(fields)
        else:
            self._inside(fields)
        return Traced(tuple(self._shows), tuple(self._blocked), self._reason)

    def _name_joins(self, kind: str, fields: Node) -> None:
        """A join's alias is a row of everything in it; OLD and NEW are rows of the table (RETURNING, PostgreSQL 18)."""
        names = {"old", "new"}
        for name, below in walk({kind: fields}):
            if name == "JoinExpr":
                names |= {below.get(alias, {}).get("aliasname", "") for alias in ("alias", "join_using_alias")}
            elif name == "ReturningOption":
                names.add(below.get("value", ""))
        for name in names - {""}:
            self._scene.rows.setdefault(name, []).extend(self._scene.every)

    def _conflicts(self, kind: str, fields: Node) -> None:
        """ON CONFLICT tells whether a value is there already."""
        for name, below in walk({kind: fields}):
            if name != "InsertStmt" or "onConflictClause" not in below:
                continue
            columns = [entry.get("ResTarget", {}).get("name", "") for entry in below.get("cols", [])]
            named = [entry.get("IndexElem", {}).get("name", "")
                     for entry in below["onConflictClause"].get("infer", {}).get("indexElems", [])]
            for relation in (one[1] for one in self._reader.found.tables if one[0] is below["relation"]):
                labels = {} if relation is None else relation.labels
                chosen = named if named and all(named) else columns or labels
                self.block([label for column, label in labels.items() if column in chosen], "ON CONFLICT looks for it")

    def block(self, labels: Iterable[ColumnLabel], why: str) -> None:
        for label in labels:
            self._blocks += 1
            self._blocked[label.label] = None
            self._reason = self._reason or (
                f"column {label.schema}.{label.table}.{label.column} is labelled {label.label} and {why}; it may only "
                "be selected as it is, as a column of its own")

    def _relation(self, var: Node, relation: Relation | None, schema: str, name: str) -> None:
        catalogue = self._reader.meaning.catalogue
        if relation is None or catalogue is None:
            return
        labels = catalogue.labelled_sources(relation)
        if labels and (relation.is_view or relation.sources):
            self.block(labels.values(), f"{schema}.{name} reads it in a way that cannot be told")
        elif relation.told:
            self.block(labels.values(), f"{schema}.{name} holds the rows of some of its values")
        elif labels and var.get("alias", {}).get("colnames"):
            self.block(labels.values(), "its table's columns are renamed")

    # ---- where a labelled column may stand

    def _select(self, fields: Node) -> None:
        """The outermost SELECT: bare columns of its own tables pass."""
        if fields.get("op", "SETOP_NONE") != "SETOP_NONE" or fields.get("intoClause"):
            self._inside(fields)
            return
        self._inside([v for k, v in fields.items() if k not in ("targetList", "sortClause", "groupClause")])
        aliases = self._outputs(fields.get("targetList", []))
        own = [label for label in self._scene.every if label.label in self._shows]
        if own and "distinctClause" in fields:
            self.block(own, "DISTINCT compares it")
        for clause in ("sortClause", "groupClause"):
            self._ordered(fields.get(clause, []), fields.get("targetList", []), aliases, own)

    def _ordered(
        self, clause: list[Node], targets: list[Node], aliases: dict[str, list[ColumnLabel]], own: list[ColumnLabel]
    ) -> None:
        """ORDER BY and GROUP BY name outputs by alias and by number too."""
        for entry in clause:
            node = entry.get("SortBy", {}).get("node", entry)
            number = node.get("A_Const", {}).get("ival")
            names = _names(node.get("ColumnRef", {}))
            if "GroupingSet" in node and own:
                self.block(own, "the rows may be grouped by it")
            if number is not None:
                target = targets[number.get("ival", 0) - 1:number.get("ival", 0)]
                if own and (not target or _has_star(targets)):
                    self.block(own, "it may be what the rows are ordered by")
                for one in target:
                    self._inside(one)
            elif len(names) == 1 and names[0] in aliases:
                self.block(aliases[names[0]], "the rows are ordered by it")
            else:
                self._inside(node)

    def _may_be(self, names: list[str]) -> bool:
        """A column of a labelled table, as far as its qualifier tells.  Subqueries give nothing labelled on."""
        return len(names) == 1 or names[-2] in self._scene.rows

    def _is_attribute(self, names: list[str]) -> bool:
        """`x.name` of a labelled row that has no such column is a call: name(x)."""
        if len(names) < 2 or names[-2] not in self._scene.rows or names[-1] in SYSTEM_COLUMNS:
            return False
        relations = self._scene.relations.get(names[-2])
        if relations:
            return not all(names[-1] in relation.columns for relation in relations)
        return not any(
            relation is not None and names[-1] in relation.columns for _, relation, _, _ in self._reader.found.tables)

    def _outputs(self, targets: list[Node]) -> dict[str, list[ColumnLabel]]:
        """Bare columns are shown; labelled outputs by the name that they are given."""
        aliases: dict[str, list[ColumnLabel]] = {}
        for entry in targets:
            target = entry.get("ResTarget", {})
            reference = target.get("val", {}).get("ColumnRef")
            if reference is None:
                self._inside(target.get("val"))
                continue
            names, star = _names(reference), _is_star(reference)
            if star:
                labels = self._scene.rows.get(names[-1], []) if names else self._scene.every
            elif self._is_attribute(names):
                self.block(self._scene.rows[names[-2]], f"{names[-2]}.{names[-1]} may take its whole row")
                continue
            elif names and names[-1] in self._scene.columns:
                labels = self._scene.columns[names[-1]] if self._may_be(names) else []
                aliases.setdefault(target.get("name") or names[-1], []).extend(labels)
            elif len(names) >= 1 and names[-1] in self._scene.rows:
                self.block(self._scene.rows[names[-1]], "the whole row is asked for as one value")
                continue
            else:
                continue
            for label in labels:
                self._shows[label.label] = None
                if star:
                    aliases.setdefault(label.column, []).append(label)
        return aliases

    def _own_tables(self, clause: Any) -> dict[str, None]:
        """Names of the tables whose columns `*` stands for, in order: not those of subqueries, which are looked at
        themselves."""
        found: dict[str, None] = {}
        for entry in clause if isinstance(clause, list) else [clause]:
            entry = entry.get("RangeTableSample", {}).get("relation", entry)
            if "RangeVar" in entry:
                var = entry["RangeVar"]
                found[var.get("alias", {}).get("aliasname", var.get("relname", ""))] = None
            elif "JoinExpr" in entry:
                join = entry["JoinExpr"]
                found |= self._own_tables([join.get("larg", {}), join.get("rarg", {})])
        return found

    def _change(self, kind: str, fields: Node, outermost: bool) -> None:
        """INSERT, UPDATE, DELETE, MERGE: values may flow in, and come back by RETURNING as bare columns."""
        returned = fields.get("returningList") or fields.get("returningClause", {}).get("exprs", [])
        skipped = ("returningList", "returningClause", "relation")
        self._inside([v for k, v in fields.items() if k not in skipped])
        if outermost:
            self._outputs(returned)
        else:
            self._inside(returned)

    def _copy(self, fields: Node) -> None:
        if "relation" in fields and not fields.get("is_from"):
            chosen = {one["String"].get("sval", "") for one in fields.get("attlist", []) if "String" in one}
            for _, relation, _, _ in self._reader.found.tables:
                if relation is not None:
                    self.block([label for column, label in relation.labels.items() if not chosen or column in chosen],
                               "COPY would give it out unmasked")
        self._inside([fields.get("query"), fields.get("whereClause")])

    def _inside(self, node: Any) -> None:
        """A place where no labelled column may stand."""
        if isinstance(node, list):
            for one in node:
                self._inside(one)
        elif isinstance(node, dict):
            for name, below in node.items():
                if name == "ColumnRef":
                    self._reference(below)
                elif name == "JoinExpr":
                    self._join(below)
                elif name == "SelectStmt" or (name in ("larg", "rarg") and "targetList" in below):
                    self._sub_select(below)
                elif name == "A_Expr":
                    self._expression(below)
                else:
                    self._inside(below)

    def _expression(self, fields: Node) -> None:
        before = self._blocks
        self._inside([fields.get("lexpr"), fields.get("rexpr")])
        if self._blocks > before:
            hide_literals(self._reader, fields)     # what it is compared with tells of it

    def _sub_select(self, fields: Node) -> None:
        """Its `*` stands for its own tables' columns."""
        tables = self._own_tables(fields.get("fromClause", []))
        for entry in fields.get("targetList", []):
            reference = entry.get("ResTarget", {}).get("val", {}).get("ColumnRef")
            if reference is not None and _is_star(reference):
                for name in _names(reference)[-1:] or tables:
                    self.block(self._scene.rows.get(name, []), "a subquery or another statement takes it")
            else:
                self._inside(entry)
        self._inside({k: v for k, v in fields.items() if k != "targetList"})

    def _join(self, fields: Node) -> None:
        sides = self._own_tables([fields.get("larg", {}), fields.get("rarg", {})])
        labels = [label for name in sides for label in self._scene.rows.get(name, [])]
        if labels and (fields.get("isNatural") or fields.get("alias", {}).get("colnames")):
            self.block(labels, "a natural or renaming join may use it")
        using = [one["String"].get("sval", "") for one in fields.get("usingClause", []) if "String" in one]
        for column in using:
            self.block(self._scene.columns.get(column, []), "the tables are joined by it")
        alias = fields.get("alias", {}).get("aliasname")
        if alias and labels:
            self._scene.rows.setdefault(alias, []).extend(labels)
        self._inside([fields.get(k) for k in ("larg", "rarg", "quals")])

    def _reference(self, reference: Node) -> None:
        names = _names(reference)
        if _is_star(reference):
            for name in names[-1:] or list(self._scene.rows):
                self.block(self._scene.rows.get(name, []), "it is used inside of an expression")
        elif self._is_attribute(names):
            self.block(self._scene.rows[names[-2]], f"{names[-2]}.{names[-1]} may take its whole row")
        elif names and names[-1] in self._scene.columns and self._may_be(names):
            self.block(self._scene.columns[names[-1]], "it is used in a condition or an expression")
        elif names and names[-1] in self._scene.rows:
            self.block(self._scene.rows[names[-1]], "its whole row is used as a value")


def _names(reference: Node) -> list[str]:
    return [part["String"].get("sval", "") for part in reference.get("fields", []) if "String" in part]


def _is_star(reference: Node) -> bool:
    return any("A_Star" in part for part in reference.get("fields", []))


def _has_star(targets: list[Node]) -> bool:
    return any(_is_star(entry.get("ResTarget", {}).get("val", {}).get("ColumnRef", {})) for entry in targets)
