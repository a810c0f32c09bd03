"""operations.table: statements, and what policy sees of them.  Each line is

    SQL | requests | labels shown | labels blocked

Requests are `action:resource` without "sql:", the resource of a Database left out; `!` and a SQLSTATE: nothing of the
text is forwarded.  Print a line as it is now: python test_operations.py "SELECT 1".
"""
from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agent.contract.target import ColumnLabel, Target
from enforcer.protocols.postgresql.catalogue import Catalogue, make_catalogue
from enforcer.protocols.postgresql.operations.analysis import analyse
from enforcer.protocols.postgresql.operations.words import Analysis, Meaning

LABELS = (
    ColumnLabel("pii.email", "public", "people", "email"),
    ColumnLabel("pii.card", "public", "cards", "number"),
    ColumnLabel("pii.log", "public", "log_1", "who"),
)
TABLES = {
    (20001, "public", "t", "r"): ("id", "note"), (20002, "public", "secret", "r"): ("id", "key"),
    (20003, "public", "people", "r"): ("id", "name", "email", "born", "domain"),
    (20004, "other", "t", "r"): ("id", "note"),
    (20005, "public", "big", "r"): ("id", "body"), (20006, "public", "cards", "p"): ("id", "number"),
    (20007, "public", "cards_1", "r"): ("id", "number"), (20008, "public", "v_people", "v"): ("id", "email"),
    (20009, "public", "v_t", "v"): ("id", "note"), (20010, "public", "m_people", "m"): ("id", "name"),
    (20011, "public", "v_v", "v"): ("id", "email"), (20012, "public", "log", "p"): ("id", "who"),
    (20013, "public", "log_1", "r"): ("id", "who"), (20014, "public", "seq", "S"): (),
    (20015, "public", "v_f", "v"): ("id",), (20016, "public", "ruled", "r"): ("id",),
    (20017, "pg_temp_3", "scratch", "r"): ("id",), (20018, "public", "Odd Name", "r"): ("id",),
    (1259, "pg_catalog", "pg_class", "r"): (), (13001, "pg_catalog", "pg_settings", "v"): (),
    (1260, "pg_catalog", "pg_authid", "r"): (), (13002, "information_schema", "tables", "v"): (),
}
SOURCES = [(20008, 20003), (20009, 20001), (20010, 20003), (20011, 20008), (20016, 20003)]
CHILDREN = [(20007, 20006), (20013, 20012)]
# schema, name, of an extension, takes one row
FUNCTIONS = [
    ("public", "f", False, False), ("public", "shout", False, True), ("public", "json_value", False, False),
    ("other", "lower", False, False), ("public", "sweep", False, False), ("public", "upper", True, False),
]
OPERATORS, CASTS, OPAQUE, GENERATED = [("public", "@@@")], [("public", "mood")], [(20015,)], [(20003, 5, 3)]
TABLE = Path(__file__).with_name("operations.table")


def catalogue(labels: tuple[ColumnLabel, ...] = LABELS) -> Catalogue:
    columns = [(key[0], i + 1, name) for key, names in TABLES.items() for i, name in enumerate(names)]
    return make_catalogue(
        1, labels, list(TABLES), columns, SOURCES, CHILDREN, FUNCTIONS, OPERATORS, CASTS, OPAQUE, GENERATED)


def read(
    text: str, labels: tuple[ColumnLabel, ...] = LABELS, schemas: tuple[str, ...] = ("pg_catalog", "public"),
    prepared: dict[str, Analysis] | None = None,
) -> Analysis:
    target = Target("s", "postgresql", ("h",), 5432, ("h",), labels=labels)
    return analyse(text, Meaning("d", "app", schemas, catalogue(labels), 1), target, prepared or {})


def told(analysis: Analysis) -> tuple[str, str, str]:
    if analysis.error:
        return f"!{analysis.code}", "", ""
    asked, shows, blocked = (dict.fromkeys(x) for x in (
        (f"{r.action.removeprefix('sql:')}:{'.'.join(r.path[1 if r.kind == 'Role' else 2:])}".rstrip(":")
         for s in analysis.statements for r in s.requests),
        (label for s in analysis.statements for label in s.shows),
        (label for s in analysis.statements for label in s.blocked)))
    all_of = {label.label for label in LABELS}
    return (" ".join(asked), "all" if set(shows) == all_of else " ".join(shows),
            "all" if set(blocked) == all_of else " ".join(blocked))


def lines() -> list[tuple[int, str, tuple[str, str, str]]]:
    found = []
    for number, line in enumerate(TABLE.read_text("utf-8").splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            text, *expected = (part.strip() for part in line.rsplit("|", 3))
            found.append((number, text, (expected[0], expected[1], expected[2])))
    return found


@pytest.mark.parametrize(("number", "text", "expected"), [pytest.param(*line, id=f"{line[0]}") for line in lines()])
def test_the_table(number: int, text: str, expected: tuple[str, str, str]) -> None:
    assert told(read(text)) == expected, f"{TABLE.name}:{number}: {text}"


if __name__ == "__main__":
    for argument in sys.argv[1:] or sys.stdin.read().splitlines():
        if not argument.strip() or argument.startswith("#"):
            print(argument)
        else:
            print(" | ".join((argument, *told(read(argument)))).rstrip())
