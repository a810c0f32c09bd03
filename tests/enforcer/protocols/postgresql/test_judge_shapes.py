"""Texts of one shape mean the same: what the judge says of one by another's analysis is what it would say itself.

The texts are those of the analysis' own tables, with their constants varied.
"""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pglast.parser import ParseError, scan
from pump import KEY, TableGate

from agent.contract.owner import Owner
from agent.contract.target import ColumnLabel, Target
from enforcer.core.context import Context
from enforcer.protocols.postgresql.catalogue import make_catalogue
from enforcer.protocols.postgresql.judge import SHAPED, Judge, Studied, is_free, make_shape
from enforcer.protocols.postgresql.operations import Meaning
from enforcer.words.operations import Principal

LABELS = (ColumnLabel("pii.email", "public", "people", "email"), ColumnLabel("secret", "public", "keys", "key"))
TABLES = {
    (20001, "public", "people", "r"): "id name email born domain", (20002, "public", "keys", "r"): "id key",
    (20003, "public", "t", "r"): "id note", (20004, "other", "t", "r"): "id note",
    (20005, "public", "secret", "r"): "id key", (20006, "public", "v_people", "v"): "id email",
    (20007, "public", "v_t", "v"): "id note", (13000, "pg_catalog", "pg_settings", "v"): "name setting",
    (1259, "pg_catalog", "pg_class", "r"): "",
}
HERE = Path(__file__).parent
OTHERS = {"ICONST": ("0", "7", "123456"), "FCONST": ("0.5", "1e9"), "SCONST": ("''", "'role'", "'***'", "'x'';--'")}


def judge(labels: tuple[ColumnLabel, ...] = LABELS) -> Judge:
    target = Target("db", "postgresql", ("h",), 5432, ("h",), labels=labels)
    owner = Owner("crew", 1, "u", "user:a", (), None, "", 0, "", 0, "mark")
    made = Judge(Context("s" * 26, Principal("user:a", (), owner), target, TableGate(), lambda: 0, lambda: 0,
                         os.urandom, KEY))
    columns = [(key[0], i + 1, name) for key, names in TABLES.items() for i, name in enumerate(names.split())]
    made.learn(Meaning("shop", "app", ("pg_catalog", "public"), make_catalogue(
        1, labels, list(TABLES), columns, [(20006, 20001), (20007, 20003)], [],
        [("public", "mine", False, False), ("public", "sum", False, False)], [("public", "@@@")], [], []), 1))
    return made


def corpus() -> list[str]:
    tables = [line.rsplit("|", 3)[0] for line in (HERE / "operations.table").read_text("utf-8").splitlines()]
    requests = [line for line in (HERE / "requests.test").read_text("utf-8").splitlines() if line[:1] != " "]
    leaks = [part for line in (HERE / "leaks.test").read_text("utf-8").splitlines() for part in line.split(";;")]
    found = dict.fromkeys(line.strip().removeprefix("*") for line in (*tables, *requests, *leaks))
    return [text for text in found if text and not text.startswith("#")]


def variations(text: str) -> Iterator[str]:
    """The text, and the text with one constant replaced by others of its type, wherever it stands."""
    yield text
    try:
        tokens = [token for token in scan(text) if token.name in OTHERS]
    except ParseError:
        return
    for token in tokens:
        for other in OTHERS[token.name]:
            yield text[:token.start] + other + text[token.end + 1:]


def told(studied: Studied) -> tuple[object, ...]:
    """Everything but the salt and what follows from it."""
    return (*(getattr(studied, name) for name in Studied.__slots__ if name != "blob"), studied.blob[2])


@pytest.mark.parametrize("labels", [(), LABELS], ids=["plain", "labels"])
def test_by_shape_is_as_by_itself(labels: tuple[ColumnLabel, ...]) -> None:
    shaped, alone = judge(labels), judge(labels)
    hits = 0
    for text in (one for line in corpus() for one in variations(line)):
        raw = text.encode()
        shape = make_shape(raw)
        hits += (shape, 1) in shaped._shapes and (raw, 1) not in shaped._shared
        alone._shapes.clear()
        alone._shared.clear()
        assert told(shaped.study(raw, {})) == told(alone.study(raw, {})), text
    assert hits > 40                           # else this shows nothing


def test_a_text_of_a_known_shape_is_recorded_as_itself() -> None:
    made = judge(())
    one, other = made.study(b"SELECT id FROM t WHERE id = 1", {}), made.study(b"SELECT id FROM t WHERE id = 2", {})
    assert len(made._shapes) == 1
    assert other.text == other.blob[2] == other.analysis.recorded == b"SELECT id FROM t WHERE id = 2"
    assert other.forwarded != one.forwarded
    assert other.blob[:2] != one.blob[:2]


@pytest.mark.parametrize("text", [
    # hidden constants, also where hiding leaves the text as it is
    "UPDATE people SET email = 'a' || 'b'", "UPDATE people SET email = '***' || '***'",
    "SELECT id FROM people WHERE email = 'x'", "SELECT id FROM people WHERE email = '***'",
    "UPDATE people SET email = $1 || 'x'", "INSERT INTO keys VALUES (1, '***' || '***')",
    # rules and functions that a constant may reach
    "UPDATE pg_settings SET setting = 'a' WHERE name = 'role'", "SELECT sum(id) FROM t WHERE id = 1",
    "SELECT id FROM t WHERE id @@@ 1", "SELECT id INTO u FROM t WHERE id = 1",
])
def test_no_text_lends_its_analysis_where_a_constant_matters(text: str) -> None:
    made = judge()
    assert not is_free(made.study(text.encode(), {}))
    assert not made._shapes


@pytest.mark.parametrize("text", [b"SELECT id FROM t WHERE note = '" + b"x" * SHAPED + b"'", b"SELECT '\xff' = 'a'",
                                  b"SELECT id FROM", b"", b" SELECT id FROM t", b"SET ROLE a"])
def test_what_has_no_shape(text: bytes) -> None:
    assert make_shape(text) is None


def test_another_meaning_has_other_shapes() -> None:
    made = judge(())
    before = made.study(b"SELECT id FROM t WHERE id = 1", {})
    made.learn(Meaning("shop", "app", ("pg_catalog", "other"), made.meaning.catalogue, 2))
    after = made.study(b"SELECT id FROM t WHERE id = 2", {})
    assert [one.resource for one in before.requests] == ["public.t"]
    assert [one.resource for one in after.requests] == ["other.t"]


def test_shapes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enforcer.protocols.postgresql.judge.SHARED", 10)
    made = judge(())
    for number in range(100):
        made.study(b"SELECT id FROM t_%d WHERE id = 1" % number, {})
    assert len(made._shapes) <= 10
    assert len(made._shared) <= 10
