"""What a database holds, as far as analysis needs it: relations with their columns, views' sources, functions, labels.

Read through a connection of Weir's own (pg8000), in one read-only transaction, with bounds.  Source: PostgreSQL 15
documentation, 53 System Catalogs.
"""
from __future__ import annotations

import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import pg8000.native  # type: ignore[import-untyped]

from agent.contract.credential import Credential
from agent.contract.target import ColumnLabel

RELATIONS: Final = 100_000            # more than that cannot be analysed
COLUMNS: Final = 1_000_000
FUNCTIONS: Final = 200_000
SYSTEM: Final = frozenset(("pg_catalog", "information_schema"))
FIRST_USER_OID: Final = 16384         # FirstNormalObjectId, access/transam.h
TIMEOUT: Final = 20                   # seconds for each answer

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
_FUNCTIONS = """
SELECT DISTINCT n.nspname::text, p.proname::text
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') LIMIT {limit}
"""


BEFORE: Final = ("SET search_path = pg_catalog", "START TRANSACTION READ ONLY ISOLATION LEVEL REPEATABLE READ")
QUERIES: Final = tuple((text.strip().format(limit=limit + 1, first=FIRST_USER_OID), limit) for text, limit in (
    (_RELATIONS, RELATIONS), (_COLUMNS, COLUMNS), (_SOURCES, COLUMNS), (_CHILDREN, RELATIONS), (_FUNCTIONS, FUNCTIONS)))
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
    sources: frozenset[int] = frozenset()                      # of a view: relations that it reads

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

    def column(self, table_oid: int, attribute: int) -> tuple[bool, ColumnLabel | None]:
        """(known, label) of what RowDescription names: 0 is no column of a table."""
        if table_oid == 0 or table_oid < FIRST_USER_OID:
            return True, None
        return table_oid in self.by_oid, self.by_column.get((table_oid, attribute))

    def find(self, schema: str, name: str) -> Relation | None:
        return self.relations.get((schema, name))

    def labelled_sources(self, relation: Relation, seen: frozenset[int] = frozenset()) -> dict[str, ColumnLabel]:
        """Labels of a relation, and of everything that a view reads, however deep."""
        found = dict(relation.labels)
        for oid in relation.sources - seen:
            source = self.by_oid.get(oid)
            if source is not None:
                below = self.labelled_sources(source, seen | relation.sources | {relation.oid})
                found.update({f"{source.name}.{name}": label for name, label in below.items()})
        return found


def load_catalogue(
    *, host: str, port: int, credential: Credential, database: str, ssl_context: object,
    labels: tuple[ColumnLabel, ...], version: int,
) -> Catalogue:
    """Blocks.  `ssl_context` None: a target without TLS.  Raises what pg8000 raises, ValueError where it is too big."""
    context: Any = ssl_context if isinstance(ssl_context, ssl.SSLContext) else False
    connection = pg8000.native.Connection(
        credential.user, host=host, port=port, database=database, password=credential.password or None,
        ssl_context=context, timeout=TIMEOUT, application_name="weir",
    )
    try:
        for text in BEFORE:
            connection.run(text)
        rows = [_ask(connection, text, limit) for text, limit in QUERIES]
        connection.run(AFTER)
    finally:
        connection.close()
    return make_catalogue(version, labels, *rows)


def _ask(connection: pg8000.native.Connection, text: str, limit: int) -> list[Any]:
    rows = list(connection.run(text))
    if len(rows) > limit:
        raise ValueError(f"the catalogue has more than {limit} rows where it may have that many")
    return rows


def make_catalogue(
    version: int, labels: tuple[ColumnLabel, ...], relations: Iterable[Any], columns: Iterable[Any],
    sources: Iterable[Any], children: Iterable[Any], functions: Iterable[Any],
) -> Catalogue:
    """Pure: from the rows of the queries above."""
    named: dict[int, dict[str, int]] = {}
    for oid, number, name in columns:
        named.setdefault(oid, {})[name] = number
    read: dict[int, set[int]] = {}
    for view, source in sources:
        read.setdefault(view, set()).add(source)
    wanted: dict[tuple[str, str], dict[str, ColumnLabel]] = {}
    for label in labels:
        wanted.setdefault((label.schema, label.table), {})[label.column] = label
    rows = list(relations)
    labelled = _inherit({oid: wanted.get((schema, name), {}) for oid, schema, name, _ in rows}, children)
    made = [
        Relation(oid, schema, name, kind, named.get(oid, {}), labelled.get(oid, {}), frozenset(read.get(oid, ())))
        for oid, schema, name, kind in rows
    ]
    by_oid = {relation.oid: relation for relation in made}
    by_column = {
        (relation.oid, relation.columns[column]): label
        for relation in made for column, label in relation.labels.items() if column in relation.columns
    }
    present = {(relation.schema, relation.name): relation for relation in made}
    missing = tuple(
        f"label {label.label}: there is no column {label.schema}.{label.table}.{label.column}" for label in labels
        if label.column not in getattr(present.get((label.schema, label.table)), "columns", {})
    )
    return Catalogue(version, present, frozenset(map(tuple, functions)), by_oid, by_column, missing)


def _inherit(labels: dict[int, dict[str, ColumnLabel]], children: Iterable[Any]) -> dict[int, dict[str, ColumnLabel]]:
    """A partition or an inheriting table has its parent's labels."""
    parents: dict[int, list[int]] = {}
    for child, parent in children:
        parents.setdefault(child, []).append(parent)

    def of(oid: int, depth: int) -> dict[str, ColumnLabel]:
        found = dict(labels.get(oid, {}))
        for parent in parents.get(oid, ()) if depth < 32 else ():
            found = of(parent, depth + 1) | found
        return found

    return {oid: of(oid, 0) if oid in parents else own for oid, own in labels.items()}
