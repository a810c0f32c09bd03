"""How the server would do a held statement, for approvers: EXPLAIN on a connection of Weir's own.

Planning runs immutable functions, so a plan is asked for only where every function is built in: those that the
statement names, as its analysis says, and those that rules, policies, defaults, checks, indexes, operators and types of
the database may call, as its own catalogue says in the same transaction.  That transaction is read only, short, and
rolled back; the held one is not touched: EXPLAIN inside of it would take its locks and its snapshot, and could fail it.
So a plan is that of the database as everybody sees it, and there is none where the statement stands for what only its
own session knows.

What is shown is made here from the plan's nodes, without conditions: they may quote what must not be seen.

Source: PostgreSQL 15 documentation, EXPLAIN; 14.1 Using EXPLAIN.
"""
# ruff: noqa: S608 (what is put into the statement is a number of the catalogue's module)
from __future__ import annotations

from typing import Any, Final

import msgspec

from agent.contract.credential import Credential
from enforcer.protocols.postgresql.catalogue import FIRST_USER_OID
from enforcer.protocols.postgresql.connection import open_connection
from enforcer.protocols.postgresql.messages import Bind
from enforcer.protocols.postgresql.operations.words import Meaning
from enforcer.protocols.postgresql.studied import Studied
from enforcer.words.commands import Explain

SECONDS: Final = 2                    # that planning may take
ANSWER: Final = 8 << 20               # bytes that the server may say
LINES: Final = 40                     # of a plan
WIDE: Final = 200                     # characters of a line
TEXT: Final = 64 << 10                # characters of a statement that is explained
ROWS: Final = 1 << 62                 # what a server says beyond this is said by a broken one
_KINDS: Final = frozenset(("select", "insert", "update", "delete", "merge"))
_KNOWN: Final = frozenset(("sql:select", "sql:insert", "sql:update", "sql:delete"))
_OWN: Final = f"""
SELECT count(*)::int FROM pg_catalog.pg_depend d
WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.refobjid >= {FIRST_USER_OID}
  AND d.classid NOT IN ('pg_catalog.pg_trigger'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass,
    'pg_catalog.pg_event_trigger'::pg_catalog.regclass)
""".strip()
CALLS: Final = ("not shown: rules, defaults, indexes, operators or types of this database call functions that are not "
                "built in")


def why_not(studied: Studied, meaning: Meaning, bind: Bind | None, labelled: bool) -> str:
    """Why the plan of this is not asked for, "" where it may be."""
    statements = studied.analysis.statements
    if len(statements) != 1 or statements[0].kind not in _KINDS or not studied.lasting:
        return "not shown: only single SELECT, INSERT, UPDATE, DELETE and MERGE statements have a plan"
    if any(action not in _KNOWN for action, _ in studied.named):
        return "not shown: it calls what is not built in, and planning it could run that"
    if meaning.altered or any(schema.startswith("pg_temp") for schema in meaning.schemas):
        return "not shown: it may stand for what only its own session knows"
    if labelled:
        return "not shown on a target with labelled columns"
    if bind is not None and any(bind.formats):
        return "not shown: its parameters are binary"
    return "not shown: it is too long" if len(studied.text) > TEXT else ""


def make_explain(studied: Studied, meaning: Meaning, bind: Bind | None, types: tuple[int, ...]) -> Explain:
    values = tuple(None if value is None else value.decode("utf-8", "replace")
                   for value in (bind.values if bind is not None else ()))
    return Explain(studied.text.decode(), values, types, meaning.schemas, meaning.role)


def plan_statements(explain: Explain) -> tuple[str, ...]:
    """Everything that a reading sends, for the recording."""
    path = ", ".join(map(_quote, explain.schemas)) or "''"
    return ("START TRANSACTION READ ONLY", "SET LOCAL standard_conforming_strings = on",
            f"SET LOCAL statement_timeout = '{SECONDS}s'", f"SET LOCAL lock_timeout = '{SECONDS}s'",
            "SET LOCAL search_path = pg_catalog", _OWN, f"SET LOCAL ROLE {_quote(explain.role)}",
            f"SET LOCAL search_path = {path}", f"EXPLAIN (FORMAT JSON) {explain.text}", "ROLLBACK")


def read_plan(
    *, host: str, port: int, credential: Credential, database: str, ssl_context: object, explain: Explain,
    link: object = None,
) -> tuple[str, int]:
    """Blocks.  Raises what pg8000 raises."""
    *before, own, role, path, text, after = plan_statements(explain)
    connection = open_connection(host, port, credential, database, ssl_context, link, bytes_=ANSWER, rows=2)
    try:
        for one in before:
            connection.run(one)
        found = connection.run(own)
        if not found or found[0][0] != 0:
            return CALLS, -1
        connection.run(role)
        connection.run(path)
        oids = tuple(explain.types[at] if at < len(explain.types) else 0 for at in range(len(explain.values)))
        rows = connection.execute_unnamed(text, vals=explain.values, oids=oids).rows
        connection.run(after)
    finally:
        connection.close()
    document = rows[0][0]
    return render_plan(msgspec.json.decode(document) if isinstance(document, str) else document)


def render_plan(document: Any) -> tuple[str, int]:
    """A line a node; rows of what is read to be changed, or of the whole."""
    top = document[0]["Plan"]
    lines: list[str] = []
    _add(top, 0, lines)
    changed = top.get("Plans", [top])[0] if top.get("Node Type") == "ModifyTable" else top
    if len(lines) > LINES:
        lines = [*lines[:LINES], f"... ({len(lines) - LINES} more)"]
    said = "\n".join(lines).encode("utf-8", "replace").decode()
    return said, min(max(int(changed.get("Plan Rows", -1)), -1), ROWS)


def _add(node: dict[str, Any], depth: int, lines: list[str]) -> None:
    what = f"{node.get('Operation', '')} " if node.get("Node Type") == "ModifyTable" else ""
    name = node.get("Relation Name")
    on = f" on {node.get('Schema', '')}{'.' if node.get('Schema') else ''}{name}" if name else ""
    index = f" using {node['Index Name']}" if "Index Name" in node else ""
    said = f"{what}{node.get('Node Type', '?')}{index}{on}"
    cost = f"about {node.get('Plan Rows', '?')} rows, cost {node.get('Total Cost', '?')}"
    lines.append(f"{'  ' * min(depth, 20)}{said}: {cost}"[:WIDE])
    for below in node.get("Plans", ()):
        _add(below, depth + 1, lines)


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
