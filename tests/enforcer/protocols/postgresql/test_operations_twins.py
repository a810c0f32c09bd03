"""Two databases that differ in labelled values alone answer every text alike, byte for byte, however it is asked: so
nothing labelled can be read, and nothing of it guessed.  And: what analysis asks of policy is all that PostgreSQL's own
permission check asks of a role.
"""
from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pump import SYNC, Direct, Pump, TableGate, bind, execute, fields, parse, query, render

from agent.contract.credential import Credential
from agent.contract.target import ColumnLabel, Target
from enforcer.protocols.postgresql.catalogue import Catalogue, load_catalogue
from enforcer.protocols.postgresql.operations.analysis import analyse
from enforcer.protocols.postgresql.operations.words import Meaning

HERE = Path(__file__).parent
SQL = (HERE / "twins.sql").read_text()
ROWS = """
INSERT INTO people VALUES (1, 'Ada', '{0}', '1990-01-01', 2, {2}), (2, 'Bob', '{1}', NULL, NULL, {3}),
  (3, 'Cid', NULL, NULL, 1, NULL);
INSERT INTO cards VALUES (1, '{0}'), (2, '{1}');
INSERT INTO log VALUES (1, '{0}'), (2, '{1}');
INSERT INTO heir VALUES (1, '{0}', 1), (2, '{1}', 2);
INSERT INTO led VALUES (1, '{0}'), (2, '{1}');
INSERT INTO shaped VALUES (1, '{0}'), (2, '{1}');
REFRESH MATERIALIZED VIEW m_people;
ANALYZE people;
"""
VALUES = {"twin_a": ("ada@x", "bob@y", 41, 42), "twin_b": ("zoe@longer.example", "amy", 7, 7)}
LABELS = tuple(ColumnLabel(f"pii.{table}.{column}", "public", table, column, mask) for table, column, mask in (
    ("people", "email", "constant:hidden"), ("people", "age", "redact"), ("cards", "number", "redact"),
    ("log_1", "who", "redact"), ("heir", "hush", "redact"),
    ("led", "place", "redact"), ("shaped", "place", "redact")))
TEXTS = [line for line in (HERE / "twins.test").read_text("utf-8").splitlines() if line and line[0] != "#"]
TABLE = [line.rsplit("|", 3)[0].strip() for line in (HERE / "operations.table").read_text("utf-8").splitlines()
         if line.strip() and line[0] != "#" and "|" in line]


def psql(port: int, database: str, text: str) -> None:
    subprocess.run(["psql", "-X", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-d", database, "-v",
                    "ON_ERROR_STOP=1", "-f", "-"], input=text, text=True, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def twins(port: int) -> Iterator[int]:
    """Made from one template, so that oids are equal."""
    psql(port, "postgres", "CREATE DATABASE twin_a OWNER app")
    psql(port, "twin_a", f"SET ROLE app; {SQL}")
    psql(port, "postgres", "CREATE DATABASE twin_b OWNER app TEMPLATE twin_a; CREATE ROLE prober")
    for name, row in VALUES.items():
        psql(port, name, "SET ROLE app;" + ROWS.format(*row))
    yield port
    for name in VALUES:
        psql(port, "postgres", f"DROP DATABASE {name} WITH (FORCE)")
    psql(port, "postgres", "DROP ROLE prober")


@pytest.fixture(scope="module")
def pumps(twins: int) -> Iterator[list[Pump]]:
    made = [Pump(twins, "app", name, TableGate(), LABELS) for name in VALUES]
    yield made
    for weir in made:
        weir.close()


def answer(weir: Pump, text: str, how: str) -> list[tuple[bytes, bytes]]:
    """Each part of the text in its own message, in a transaction that is rolled back.  Without what differs anyhow: the
    database's name, numbers of transactions, places in the server's source, the number of the operation."""
    got: list[tuple[bytes, bytes]] = []
    weir.talk(query("BEGIN"))
    for part in text.split(" ;; "):
        messages = [query(part)] if how == "simple" else [parse(part), bind(binary=how == "binary"), execute(), SYNC]
        got += weir.talk(*messages)
        assert not weir.closed, weir.closed
    weir.talk(query("ROLLBACK"))
    return [(kind, str(sorted((k, v) for k, v in fields(body).items() if k not in "LRFH")).encode())
            if kind in b"EN" else (kind, re.sub(rb"twin_[ab]", b"twin", body)) for kind, body in got]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("how", ["simple", "extended", "binary"])
def test_twins_answer_alike(pumps: list[Pump], text: str, how: str) -> None:
    first, second = (answer(weir, text, how) for weir in pumps)
    assert first == second


@pytest.mark.parametrize("name", ["dom", "dom2", "_dom", "comp"])
def test_parameters_whose_type_runs_a_function(pumps: list[Pump], name: str) -> None:
    for weir in pumps:
        (_, (_, row), *_) = weir.talk(query(f"SELECT '{name}'::regtype::oid"))
        typed = render(b"P", b"\0SELECT $1\0\0\1" + int(row[6:]).to_bytes(4, "big"))
        got = weir.talk(typed, bind("{1}" if name[0] == "_" else "(1)" if name == "comp" else "1"), execute(), SYNC)
        assert [fields(body)["C"] for kind, body in got if kind == b"E"] == ["0A000"]


def test_twins_differ_without_weir(twins: int) -> None:
    """The control."""
    rows = []
    for name in VALUES:
        direct = Direct(twins, "app", name)
        rows.append(direct.talk(query("SELECT email FROM people")))
        direct.close()
    assert rows[0] != rows[1]


# ---- what is asked is all that PostgreSQL asks

PRIVILEGES = {"sql:select": "SELECT", "sql:insert": "INSERT", "sql:update": "UPDATE", "sql:delete": "DELETE",
              "sql:truncate": "TRUNCATE", "sql:lock": "UPDATE"}
# Owners' matters, or code whose own statements are not the text's.
OTHERWISE = ("sql:ddl", "sql:admin", "sql:do", "sql:copy-file", "sql:set-role", "sql:call")


@pytest.fixture(scope="module")
def known(twins: int) -> Catalogue:
    return load_catalogue(host="127.0.0.1", port=twins, credential=Credential("app"), database="twin_a",
                          ssl_context=None, labels=(), version=1)


@pytest.mark.parametrize("text", TABLE)
def test_policy_is_asked_for_all_that_postgresql_asks(twins: int, known: Catalogue, text: str) -> None:
    target = Target("s", "postgresql", ("h",), 5432, ("h",))
    found = analyse(text, Meaning("twin_a", "app", ("pg_catalog", "public"), known, 1), target, {})
    asked = [request for statement in found.statements for request in statement.requests]
    if found.error or any(request.action in OTHERWISE for request in asked):
        return
    direct = Direct(twins, "postgres", "twin_a")
    try:
        direct.talk(query("BEGIN"))
        for request in asked:
            if request.action in PRIVILEGES and request.kind == "Table":
                direct.talk(query("SAVEPOINT s"))
                schema, name = request.path[2:]
                direct.talk(query(f'GRANT {PRIVILEGES[request.action]} ON "{schema}"."{name}" TO prober'))
                direct.talk(query("ROLLBACK TO s" if direct_failed(direct) else "RELEASE s"))
        direct.talk(query("SET LOCAL ROLE prober"))
        # What COPY waits for comes at once; without COPY the server passes it over (55.2.7).
        told = [fields(body) for kind, body in direct.talk(query(text), render(b"f", b"\0")) if kind == b"E"]
        refused = [one["M"] for one in told if one["C"] == "42501" and "permission denied for table" in one["M"]]
        assert not refused, (refused, asked)
    finally:
        direct.close()


def direct_failed(direct: Direct) -> bool:
    return any(body == b"E" for kind, body in direct.talk(query("SELECT 1")) if kind == b"Z")
