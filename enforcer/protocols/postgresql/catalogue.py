"""What a database holds, as far as analysis needs it: relations with their columns, views' sources, functions, labels.

Read through a connection of Weir's own (pg8000), in one read-only transaction, with bounds.  Source: PostgreSQL 15
documentation, 53 System Catalogs.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from agent.contract.credential import Credential
from agent.contract.target import ColumnLabel
from enforcer.protocols.postgresql.connection import Connection, open_connection
from enforcer.protocols.postgresql.functions import harmless

RELATIONS: Final = 100_000            # more than that cannot be analysed
COLUMNS: Final = 1_000_000
FUNCTIONS: Final = 200_000
SYSTEM: Final = frozenset(("pg_catalog", "information_schema"))
FIRST_USER_OID: Final = 16384         # FirstNormalObjectId, access/transam.h
# They hold samples of everybody's rows (documentation 53.51, 54.27).
SAMPLES: Final = frozenset(("pg_catalog", name) for name in (
    "pg_statistic", "pg_stats", "pg_statistic_ext_data", "pg_stats_ext", "pg_stats_ext_exprs"))
TABLEOID: Final = -6                  # attribute number, access/sysattr.h

_RELATIONS = """
SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f', 'S') AND n.nspname <> 'pg_toast' LIMIT {limit}
"""
_COLUMNS = """
SELECT a.attrelid::bigint, a.attnum::int, a.attname::text
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'v', 'm', 'p', 'f')
  AND a.attrelid >= {first} LIMIT {limit}
"""
_SOURCES = """
SELECT r.ev_class::bigint, d.refobjid::bigint
FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_depend d ON d.objid = r.oid
WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
  AND d.refobjid <> r.ev_class AND r.ev_class >= {first} GROUP BY 1, 2 LIMIT {limit}
"""
_CHILDREN = "SELECT inhrelid::bigint, inhparent::bigint FROM pg_catalog.pg_inherits LIMIT {limit}"
# Of an extension: what shares a built-in's name (citext, hstore) is taken for it; the rest are functions like any.
_MEMBER = "EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = %s AND e.objid = %s AND e.deptype = 'e')"
# `row`: may be called with one composite value, so `t.name` may mean `name(t)` (documentation 4.2.6, 8.16.5).
_FUNCTIONS = """
SELECT n.nspname::text, p.proname::text, bool_and({function_member}),
  bool_or(p.pronargs >= 1 AND p.pronargs - p.pronargdefaults <= 1 AND t.typtype IN ('c', 'p', 'd'))
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  LEFT JOIN pg_catalog.pg_type t ON t.oid = p.proargtypes[0]
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') GROUP BY 1, 2 LIMIT {limit}
"""
_OPERATORS = """
SELECT DISTINCT n.nspname::text, o.oprname::text
FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
WHERE o.oid >= {first} AND NOT {operator_member} LIMIT {limit}
"""
# Types to which a cast runs a user's function: casts, domains with such a check, and what is made of such types.
_CASTS = """
WITH RECURSIVE parts (made, part) AS (
  SELECT t.oid, t.typbasetype FROM pg_catalog.pg_type t WHERE t.typbasetype >= {first}
  UNION ALL SELECT t.oid, t.typelem FROM pg_catalog.pg_type t WHERE t.typelem >= {first}
  UNION ALL SELECT r.rngtypid, r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngsubtype >= {first}
  UNION ALL SELECT r.rngmultitypid, r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngsubtype >= {first}
  UNION ALL SELECT c.reltype, a.atttypid FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
  WHERE a.atttypid >= {first} AND NOT a.attisdropped AND c.reltype <> 0
), called AS (
  SELECT t.oid FROM pg_catalog.pg_cast c JOIN pg_catalog.pg_type t ON t.oid = c.casttarget
  WHERE c.castfunc >= {first} AND t.oid >= {first} AND NOT {cast_member}
  UNION
  SELECT k.contypid FROM pg_catalog.pg_constraint k
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_constraint'::regclass AND d.objid = k.oid
  WHERE k.contypid <> 0 AND d.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass)
    AND d.refobjid >= {first} AND NOT {called_member}
  UNION
  SELECT parts.made FROM called JOIN parts ON parts.part = called.oid
)
SELECT DISTINCT n.nspname::text, t.typname::text, t.oid::bigint FROM called e JOIN pg_catalog.pg_type t ON t.oid = e.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace LIMIT {limit}
"""
# Rules (views have one) that call somebody's own function or operator, or one that takes SQL.
_OPAQUE = """
SELECT DISTINCT r.ev_class::bigint
FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_depend d
  ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
  LEFT JOIN pg_catalog.pg_proc p ON d.refclassid = 'pg_catalog.pg_proc'::regclass AND p.oid = d.refobjid
WHERE d.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass) AND d.refobjid >= {first}
  AND (p.proname ~ '^(dblink|crosstab|connectby|xpath_table)'
    OR NOT {called_member})
UNION
SELECT r.ev_class::bigint FROM pg_catalog.pg_rewrite r
WHERE r.ev_class >= {first} AND r.ev_action::text ~ (
  SELECT ':funcid (' || pg_catalog.string_agg(p.oid::text, '|') || ') ' FROM pg_catalog.pg_proc p
  WHERE p.oid < {first} AND p.proname ~ '(_to_xml|^ts_stat$|^ts_rewrite$|^pg_read_|^currtid)')
LIMIT {limit}
"""
_GENERATED = """
SELECT g.adrelid::bigint, g.adnum::int, d.refobjsubid::int
FROM pg_catalog.pg_attrdef g JOIN pg_catalog.pg_attribute a ON a.attrelid = g.adrelid AND a.attnum = g.adnum
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = g.oid
    AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = g.adrelid AND d.refobjsubid <> g.adnum
WHERE a.attgenerated <> '' AND d.refobjsubid > 0 LIMIT {limit}
"""
# What tables are partitioned by; 0 is an expression.
_KEYS = """
SELECT p.partrelid::bigint, k::int
FROM pg_catalog.pg_partitioned_table p, pg_catalog.unnest(p.partattrs) AS k LIMIT {limit}
"""

_MEMBERS: Final = {
    "function_member": _MEMBER % ("'pg_catalog.pg_proc'::regclass", "p.oid"),
    "operator_member": _MEMBER % ("'pg_catalog.pg_operator'::regclass", "o.oid"),
    "cast_member": _MEMBER % ("'pg_catalog.pg_cast'::regclass", "c.oid"),
    "called_member": _MEMBER % ("d.refclassid", "d.refobjid"),
}
BEFORE: Final = ("SET search_path = pg_catalog", "START TRANSACTION READ ONLY ISOLATION LEVEL REPEATABLE READ")
_BOUNDS: Final = (
    (_RELATIONS, RELATIONS), (_COLUMNS, COLUMNS), (_SOURCES, COLUMNS), (_CHILDREN, RELATIONS), (_FUNCTIONS, FUNCTIONS),
    (_OPERATORS, FUNCTIONS), (_CASTS, FUNCTIONS), (_OPAQUE, RELATIONS), (_GENERATED, COLUMNS),
    (_KEYS, COLUMNS),
)
QUERIES: Final = tuple(
    (text.strip().format(limit=limit + 1, first=FIRST_USER_OID, **_MEMBERS), limit) for text, limit in _BOUNDS)
AFTER: Final = "ROLLBACK"


def statements() -> tuple[str, ...]:
    """Everything that a reading sends, for the recording."""
    return (*BEFORE, *(text for text, _ in QUERIES), AFTER)


@dataclass(frozen=True, slots=True)
class Relation:
    oid: int
    schema: str
    name: str
    kind: str                         # pg_class.relkind
    columns: dict[str, int] = field(default_factory=dict)      # name -> attribute number
    labels: dict[str, ColumnLabel] = field(default_factory=dict)
    sources: frozenset[int] = frozenset()                      # what a view, or a table's rules, read or write
    opaque: bool = False                                       # samples of rows, or its rules call what cannot be told

    told: bool = False                                         # being in it tells the value of a labelled column

    @property
    def is_view(self) -> bool:
        return self.kind in ("v", "m")


@dataclass(frozen=True)
class Catalogue:
    version: int
    relations: dict[tuple[str, str], Relation]
    functions: frozenset[tuple[str, str]] = frozenset()
    by_oid: dict[int, Relation] = field(default_factory=dict, repr=False)
    by_column: dict[tuple[int, int], ColumnLabel] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    operators: frozenset[tuple[str, str]] = frozenset()        # of users: they call functions
    casts: frozenset[tuple[str, str]] = frozenset()            # types that a user's function casts to
    row_functions: frozenset[tuple[str, str]] = frozenset()    # that may be called as `row.function`
    cast_oids: frozenset[int] = frozenset()                    # of `casts`

    def column(self, table_oid: int, attribute: int) -> tuple[bool, ColumnLabel | None]:
        """(known, label) of what RowDescription names: 0 is no column of a table."""
        if table_oid < FIRST_USER_OID:
            return True, None
        relation = self.by_oid.get(table_oid)
        known = relation is not None and (attribute <= 0 or attribute in relation.columns.values())
        return known, self.by_column.get((table_oid, attribute))

    def find(self, schema: str, name: str) -> Relation | None:
        return self.relations.get((schema, name))

    def labelled_sources(self, relation: Relation) -> dict[str, ColumnLabel]:
        """Labels of a relation, and of everything that a view or a rule reads, however deep."""
        found = dict(relation.labels)
        for source in self._sources(relation):
            found.update({f"{source.name}.{name}": label for name, label in source.labels.items()})
        return found

    def is_opaque(self, relation: Relation) -> bool:
        """It, or a view that it reads, samples rows or calls a function whose sources cannot be told."""
        return relation.opaque or any(source.opaque for source in self._sources(relation))

    def reads(self, relation: Relation, schema: str, name: str) -> bool:
        """A view, however deep, or a relation with rules."""
        return any((source.schema, source.name) == (schema, name) for source in self._sources(relation))

    def _sources(self, relation: Relation) -> list[Relation]:
        if not relation.sources:
            return []
        seen, waiting = {relation.oid}, list(relation.sources)
        found = []
        while waiting:
            oid = waiting.pop()
            source = self.by_oid.get(oid)
            if oid not in seen and source is not None:
                seen.add(oid)
                found.append(source)
                waiting += source.sources
        return found


def load_catalogue(
    *, host: str, port: int, credential: Credential, database: str, ssl_context: object,
    labels: tuple[ColumnLabel, ...], version: int, link: object = None,
) -> Catalogue:
    """Blocks.  `ssl_context` None: a target without TLS.  Raises what pg8000 raises, ValueError where it is too big."""
    connection = open_connection(host, port, credential, database, ssl_context, link)
    try:
        for text in BEFORE:
            connection.run(text)
        rows = [_ask(connection, text, limit) for text, limit in QUERIES]
        connection.run(AFTER)
    finally:
        connection.close()
    return make_catalogue(version, labels, *rows)


def _ask(connection: Connection, text: str, limit: int) -> list[Any]:
    rows = list(connection.run(text))
    if len(rows) > limit:
        raise ValueError(f"the catalogue has more than {limit} rows where it may have that many")
    return rows


def make_catalogue(
    version: int, labels: tuple[ColumnLabel, ...], relations: Iterable[Any], columns: Iterable[Any],
    sources: Iterable[Any], children: Iterable[Any], functions: Iterable[Any], operators: Iterable[Any] = (),
    casts: Iterable[Any] = (), opaque: Iterable[Any] = (), generated: Iterable[Any] = (), keys: Iterable[Any] = (),
) -> Catalogue:
    """Pure: from the rows of the queries above."""
    rows, named = list(relations), _columns(columns)
    read: dict[int, set[int]] = {}
    for view, source in sources:
        read.setdefault(view, set()).add(source)
    links = list(children)
    labelled = _labels(labels, rows, named, links, list(generated))
    told = _tell(labelled, named, links, keys)
    hidden = {oid for (oid,) in opaque}
    made = [
        Relation(oid, schema, name, kind, named.get(oid, {}), labelled.get(oid, {}), frozenset(read.get(oid, ())),
                 oid in hidden or (schema, name) in SAMPLES, oid in told)
        for oid, schema, name, kind in rows
    ]
    by_column = {
        (relation.oid, relation.columns.get(column, TABLEOID)): label
        for relation in made for column, label in relation.labels.items()
        if column in relation.columns or column == "tableoid"
    }
    present = {(relation.schema, relation.name): relation for relation in made}
    missing = tuple(
        f"label {label.label}: there is no column {label.schema}.{label.table}.{label.column}" for label in labels
        if label.column not in getattr(present.get((label.schema, label.table)), "columns", {})
    )
    cast = list(casts)
    own = [(schema, name, row) for schema, name, member, row in functions if not member or name not in harmless()]
    return Catalogue(
        version, present, frozenset((schema, name) for schema, name, _ in own), {one.oid: one for one in made},
        by_column, missing, frozenset(map(tuple, operators)), frozenset((one[0], one[1]) for one in cast),
        frozenset((schema, name) for schema, name, row in own if row),
        frozenset(oid for one in cast for oid in one[2:]),
    )


def _columns(rows: Iterable[Any]) -> dict[int, dict[str, int]]:
    named: dict[int, dict[str, int]] = {}
    for oid, number, name in rows:
        named.setdefault(oid, {})[name] = number
    return named


_Labels = dict[int, dict[str, ColumnLabel]]


def _labels(
    labels: tuple[ColumnLabel, ...], rows: list[Any], named: dict[int, dict[str, int]], children: list[Any],
    generated: list[Any],
) -> _Labels:
    """By relation and column.  Rows of a child are seen through its parent, and a parent's label is its children's; a
    generated column has the labels of what it is made from."""
    wanted: dict[tuple[str, str], dict[str, ColumnLabel]] = {}
    for label in labels:
        wanted.setdefault((label.schema, label.table), {})[label.column] = label
    found: _Labels = {oid: dict(wanted.get((schema, name), {})) for oid, schema, name, _ in rows}
    if not wanted:
        return found
    names = {oid: {number: name for name, number in columns.items()} for oid, columns in named.items()}
    links = [(a, b) for child, parent in children for a, b in ((child, parent), (parent, child)) if a in found]
    changed = True
    while changed:                            # each pass adds a label or is the last
        changed = False
        for source, target in links:
            changed |= _add(found, target, {c: v for c, v in found[source].items() if c in named.get(target, {})})
        for oid, made, source in generated:
            known = names.get(oid, {})
            origin = found.get(oid, {}).get(known.get(source, ""))
            if origin is not None and made in known:
                changed |= _add(found, oid, {known[made]: origin})
    return found


def _tell(found: _Labels, named: dict[int, dict[str, int]], children: list[Any], keys: Iterable[Any]) -> set[int]:
    """Partitions by a labelled column: whose rows are in which of them is labelled as well (`tableoid`)."""
    names = {oid: {number: name for name, number in columns.items()} for oid, columns in named.items()}
    told: dict[int, ColumnLabel] = {}
    for oid, key in keys:
        mine = found.get(oid, {})
        label = mine.get(names.get(oid, {}).get(key, "")) if key else next(iter(mine.values()), None)
        if label is not None:
            told[oid] = mine["tableoid"] = label
    partitions: set[int] = set()
    waiting = list(told)
    while waiting:
        parent = waiting.pop()
        for child in (child for child, above in children if above == parent and child not in partitions):
            partitions.add(child)
            found.get(child, {}).setdefault("tableoid", found[parent]["tableoid"])
            waiting.append(child)
    return partitions


def _add(found: _Labels, oid: int, more: dict[str, ColumnLabel]) -> bool:
    mine = found.get(oid)
    fresh = {} if mine is None else {column: label for column, label in more.items() if column not in mine}
    if mine is not None:
        mine.update(fresh)
    return bool(fresh)
