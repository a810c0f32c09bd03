"""requests.test: what policy sees of a text.  `python test_operations_requests.py < FILE` prints entries."""
from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from agent.contract.target import ColumnLabel, Target
from enforcer.protocols.postgresql.catalogue import Catalogue, make_catalogue
from enforcer.protocols.postgresql.operations.analysis import analyse
from enforcer.protocols.postgresql.operations.words import Analysis, Meaning, Statement
from enforcer.words.operations import Request

LABELS = (ColumnLabel("pii.email", "public", "people", "email"), ColumnLabel("secret", "public", "keys", "secret"))
RELATIONS = [
    (20001, "public", "people", "r"), (20002, "public", "keys", "r"), (20003, "public", "t", "r"),
    (20004, "other", "t", "r"), (20005, "public", "safe", "v"), (20006, "public", "view", "v"),
    (20007, "public", "calls", "v"), (20008, "other", "only", "r"), (20009, "public", "Odd Name", "r"),
    (20010, "public", "seq", "S"), (1259, "pg_catalog", "pg_class", "r"), (1260, "pg_catalog", "pg_authid", "r"),
    (12000, "information_schema", "tables", "v"), (13000, "pg_catalog", "pg_settings", "v"),
]
COLUMNS = {
    20001: "id name email", 20002: "id secret", 20003: "id note", 20004: "id note", 20005: "id note", 20006: "id email",
    20007: "a", 20008: "id", 20009: "id",
}
# schema, name, member of an extension, may be called with one row
FUNCTIONS = [
    ("public", "mine", False, False), ("other", "lower", False, False), ("public", "rowish", False, True),
    ("public", "dblink", True, False), ("public", "replace", True, False),
]
FILE = Path(__file__).with_name("requests.test")


def catalogue(labels: tuple[ColumnLabel, ...]) -> Catalogue:
    columns = [(oid, i + 1, name) for oid, names in COLUMNS.items() for i, name in enumerate(names.split())]
    return make_catalogue(
        1, labels, RELATIONS, columns, [(20005, 20003), (20006, 20001)], [], FUNCTIONS, [("public", "@@@")],
        [("public", "mood")], [(20007,)], [])


def read(text: str, prepared: dict[str, Analysis] | None = None) -> Analysis:
    labels = LABELS if text.startswith("*") else ()
    target = Target("db", "postgresql", ("h",), 5432, (), labels=labels)
    meaning = Meaning("shop", "app", ("pg_catalog", "public", "other"), catalogue(labels), 1)
    return analyse(text.removeprefix("*"), meaning, target, prepared or {})


def shown(request: Request) -> str:
    last = request.path[-1] if request.kind == "Role" else ".".join(request.path[2:])
    return f"{request.action} {last}".strip()


@pytest.mark.parametrize(("operator", "text"), [
    (">=", "SELECT id FROM t WHERE id BETWEEN 1 AND 2"), ("<", "SELECT id FROM t WHERE id NOT BETWEEN 1 AND 2"),
    ("<=", "SELECT id FROM t WHERE id BETWEEN SYMMETRIC 1 AND 2"), ("=", "SELECT CASE id WHEN 1 THEN 2 END FROM t"),
    ("=", "SELECT id FROM t WHERE id IN (SELECT 1)"), ("=", "SELECT id FROM t WHERE id NOT IN (SELECT 1)"),
    ("=", "SELECT id FROM t JOIN keys USING (id)"), ("=", "SELECT id FROM t NATURAL JOIN keys"),
    ("=", "SELECT NULLIF(id, 1) FROM t"), ("=", "SELECT id FROM t WHERE id IS DISTINCT FROM 1"),
    ("~~", "SELECT id FROM t WHERE note LIKE 'a'"), ("~", "SELECT id FROM t WHERE note SIMILAR TO 'a'"),
    ("=", "SELECT id FROM t WHERE (id, id) = (1, 2)"), ("=", "SELECT id FROM t WHERE id IN (1, 2)"),
])
def test_operators_that_are_not_named(operator: str, text: str) -> None:
    """A user's is called where the syntax means one of its name."""
    for known in (operator, "@@@"):
        mine = make_catalogue(1, (), RELATIONS, [], [], [], [], [("public", known)])
        found = analyse(text, Meaning("shop", "app", ("pg_catalog", "public"), mine, 1),
                        Target("db", "postgresql", ("h",), 5432, ()), {})
        called = any(request.action == "sql:call" for one in found.statements for request in one.requests)
        assert called == (known == operator)


def line(statement: Statement) -> str:
    parts = [f"{statement.kind}: {', '.join(map(shown, statement.requests))}"]
    parts += [f"{what} {' '.join(labels)}" for what, labels in (
        ("shows", statement.shows), ("blocked", statement.blocked)) if labels]
    flags = [name for name, given in (
        ("barrier", statement.barrier), ("alters", statement.alters_catalogue), ("writes", statement.writes)) if given]
    parts += [" ".join(flags)] if flags else []
    parts += [f"{what} {given}" for what, given in (("copy", statement.copy), ("name", statement.name)) if given]
    return " | ".join(parts)


def lines(text: str) -> list[str]:
    analysis = read(text)
    found = [f"error {analysis.code} {analysis.error}"] if analysis.error else []
    found += map(line, analysis.statements)
    if analysis.recorded != text.removeprefix("*").encode():
        found.append(f"recorded {analysis.recorded.decode()}")
    return found + (["hides parameters"] if analysis.hide_parameters else [])


def entries() -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for each in FILE.read_text("utf-8").splitlines():
        if each.startswith("    "):
            found[-1][1].append(each.strip())
        elif each and not each.startswith("#"):
            found.append((each, []))
    return found


@pytest.mark.parametrize(("text", "expected"), entries())
def test_requests(text: str, expected: list[str]) -> None:
    assert lines(text) == expected


def test_every_blocked_statement_says_why() -> None:
    for text, _ in entries():
        for statement in read(text).statements:
            assert bool(statement.blocked) == bool(statement.blocked_reason), text
            assert "\n" not in statement.blocked_reason


def test_an_execute_is_what_it_stands_for() -> None:
    for definition, call, blocked in (
        ("*PREPARE p AS SELECT email FROM people", "*EXECUTE p", ()),
        ("*PREPARE p AS SELECT upper(email) FROM people", "*EXECUTE p", ("pii.email",)),
    ):
        inner = read(definition).statements[0].inner
        assert inner is not None
        statement = read(call, {"p": inner}).statements[0]
        assert Request("sql:select", "Table", ("db", "shop", "public", "people")) in statement.requests
        assert (statement.blocked, statement.kind, statement.name) == (blocked, "execute", "p")


def test_what_an_execute_writes_into_a_labelled_column_is_hidden() -> None:
    inner = read("*PREPARE p AS INSERT INTO people (id, email) VALUES ($1, $2)").statements[0].inner
    assert inner is not None
    analysis = read("*EXECUTE p (-12345, 'ada@x')", {"p": inner})
    assert b"ada" not in analysis.recorded
    assert b"12345" not in analysis.recorded
    assert analysis.hide_parameters


@pytest.mark.parametrize("text", [
    "SELECT " + "(" * 300_000 + "1", "SELECT 1" + "+1" * 300_000, "SELECT " + "NOT " * 100_000 + "true",
    "SELECT * FROM " + "(SELECT * FROM " * 20_000 + "t", "SELECT 1" + "::int" * 200_000,
    "SELECT " + "f(" * 100_000 + ")" * 100_000, "SELECT * FROM t" + " JOIN t ON true" * 50_000,
    "SELECT 1" + " UNION SELECT 1" * 50_000, "SELECT 1" + ",1" * 450_000, "SELECT '" + "x" * (1 << 20) + "'",
    "SELECT 1;" * 1001, "SELECT '" + "ä" * 600_000 + "'",
])
def test_what_is_too_big_or_too_deep_is_refused(text: str) -> None:
    analysis = read(text)
    assert analysis.error
    assert not analysis.statements
    assert len(analysis.recorded) <= 3 << 19       # hiding a short constant makes a text a little longer


def test_a_long_insert_is_read() -> None:
    row = "(1, 'some text of a usual length')"
    analysis = read("INSERT INTO t VALUES " + ", ".join([row] * 20_000))
    assert not analysis.error
    asked = [shown(request) for request in analysis.statements[0].requests]
    assert asked == ["sql:insert public.t", "sql:insert other.t"]


WORDS = some.lists(some.sampled_from([
    "SELECT", "*", "email", "people", "p", ".", ",", "FROM", "(", ")", "WHERE", "=", "'x'", "JOIN", "ON", "true", "AS",
    "WITH", "x", "ORDER BY", "1", "UNION", "UPDATE", "SET", "INSERT INTO", "VALUES", "RETURNING", "id", "count",
    "LATERAL", "TABLESAMPLE", "USING", "DELETE FROM", "COPY", "TO STDOUT", "EXPLAIN", "PREPARE", ";", "::text", "$1",
]), max_size=25)


@settings(max_examples=400, deadline=None)
@given(WORDS)
def test_any_words_are_read_or_refused(words: list[str]) -> None:
    text = " ".join(words)
    analysis = read("*" + text)
    assert bool(analysis.error) != bool(analysis.statements) or not text.replace(";", "").strip()


@settings(max_examples=200, deadline=None)
@given(some.text(some.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=40))
def test_a_literal_for_a_labelled_column_is_never_recorded(value: str) -> None:
    quoted = "'" + value.replace("'", "''") + "'"
    analysis = read(f"*INSERT INTO people (name, email) VALUES ('ü', {quoted}), ('ok', {quoted})")
    assert analysis.recorded.decode() == "INSERT INTO people (name, email) VALUES ('ü', '***'), ('ok', '***')"


if __name__ == "__main__":
    for given_text in sys.stdin.read().splitlines():
        print(given_text)
        if given_text and not given_text.startswith("#"):
            print("".join(f"    {each}\n" for each in lines(given_text)), end="")
