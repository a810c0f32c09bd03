"""Texts of one shape mean the same: what the judge says of one by another's analysis is what it would say itself.

The texts are those of the analysis' own tables, with their constants varied.
"""
from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pglast.parser import ParseError, scan
from pump import KEY, TableGate

from agent.contract.owner import Owner
from agent.contract.target import ColumnLabel, Target
from enforcer.core.context import Context
from enforcer.protocols.postgresql.catalogue import make_catalogue
from enforcer.protocols.postgresql.judge import (
    SHAPED,
    Judge,
    change_numbers,
    is_free,
    make_shape,
    make_skeleton,
)
from enforcer.protocols.postgresql.operations.words import Meaning
from enforcer.protocols.postgresql.studied import Studied
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
    analysis = studied.analysis
    return (*(getattr(studied, name) for name in Studied.__struct_fields__ if name not in ("blob", "analysis")),
            studied.blob[2], *(getattr(analysis, name) for name in analysis.__dataclass_fields__ if name != "recorded"))


@pytest.mark.parametrize("labels", [(), LABELS], ids=["plain", "labels"])
def test_by_shape_is_as_by_itself(labels: tuple[ColumnLabel, ...]) -> None:
    shaped, alone = judge(labels), judge(labels)
    hits = 0
    for text in (one for line in corpus() for one in variations(line)):
        raw = text.encode()
        shape = make_shape(raw)
        hits += (shape, 1) in shaped._shapes and (raw, 1) not in shaped._shared
        for kept in (alone._shapes, alone._shared, alone._skeletons):
            kept.clear()
        assert told(shaped.study(raw, {})) == told(alone.study(raw, {})), text
    assert hits > 40                           # else this shows nothing


@pytest.mark.parametrize("labels", [(), LABELS], ids=["plain", "labels"])
def test_by_skeleton_is_as_by_itself(labels: tuple[ColumnLabel, ...]) -> None:
    """Every number of every plain text, also where it may not vary, is varied after the text itself was studied."""
    shaped, alone = judge(labels), judge(labels)
    hits = 0
    for text in dict.fromkeys((*corpus(), *PLAIN)):
        for one in variations(text):
            raw = one.encode()
            skeleton = make_skeleton(raw)
            hits += skeleton is not None and (skeleton, 1) in shaped._skeletons
            for kept in (alone._shapes, alone._shared, alone._skeletons):
                kept.clear()
            assert told(shaped.study(raw, {})) == told(alone.study(raw, {})), one
    assert hits > 50                           # else this shows nothing


PLAIN = (
    "SELECT id FROM t WHERE id = 1", "SELECT id FROM t WHERE id = -1 AND id < 5", "SELECT id FROM t LIMIT 1",
    "SELECT id, note FROM t WHERE id = 1 ORDER BY 1", "SELECT id, note FROM t GROUP BY 1, 2",
    "SELECT email FROM people WHERE id = 3", "SELECT id FROM t WHERE id = 1 LIMIT 1 OFFSET 2",
    "UPDATE t SET id = id + 1 WHERE id = 2", "DELETE FROM t WHERE id = 1", "INSERT INTO t (id) VALUES (1)",
    "INSERT INTO t (id) SELECT id + 1 FROM t WHERE id = 2", "SELECT count(*) FROM t WHERE id > 1",
    "SELECT id FROM t WHERE id IN (1, 2)", "SELECT id FROM t WHERE id BETWEEN 1 AND 2", "SELECT 1 + 1", "SELECT 1",
    "SELECT id FROM t WHERE id = 1;", "SELECT id FROM t WHERE id = 1; DELETE FROM t WHERE id = 1",
    "SELECT CURRENT_TIME(3) FROM t WHERE id = 1", "SELECT id FROM t FETCH FIRST 1 ROWS ONLY",
    "UPDATE people SET email = id + 1 WHERE id = 1", "SELECT id FROM people WHERE email = 1",
    "SELECT sum(id) FROM t WHERE id = 1", "SELECT id FROM t WHERE id = 1.5 AND id = 2",
    "SELECT a1 FROM t1 WHERE id = 1",
)


@pytest.mark.parametrize(("text", "skeleton"), [
    ("SELECT a FROM t WHERE id = 5", "SELECT a FROM t WHERE id = 0"),
    ("SELECT a FROM t_20240101 WHERE id=5+70000", "SELECT a FROM t_20240101 WHERE id=0+0"),
    ("select 123456789", "select 0"), ("select 1234567890", None), ("SELECT 1a, a1, 1.5, .5, 5., 1e5, 0x1F", None),
    ("SELECT 'a' = 5", None), ("SELECT \"a\" = 5", None), ("SELECT $1 = 5", None), ("SELECT 5 -- 6", None),
    ("SELECT 5 /* 6 */", None), ("SELECT $$6$$", None), ("SELECT \\5", None), ("SELECT ü = 5", None),
    ("SELECT a", None),    ("EXECUTE a(5)", None), ("SET x = 5", None), ("SELECT 5 & 6", None), ("SELECT 5::int", None),
])
def test_skeletons(text: str, skeleton: str | None) -> None:
    assert make_skeleton(text.encode()) == (None if skeleton is None else skeleton.encode())


@pytest.mark.parametrize("text", ["0", "7", "99999998", "99999999", "999999999", "000000000", "SELECT 1 + 2, a3, 4.5"])
def test_every_number_changes(text: str) -> None:
    changed = change_numbers(text.encode())
    assert make_skeleton(b"select " + changed) == make_skeleton(b"select " + text.encode())
    assert all(one != other for one, other in zip(
        (t for t in changed.split() if t.isdigit()), (t for t in text.encode().split() if t.isdigit()), strict=True))


@pytest.mark.parametrize("text", [
    "SELECT id FROM t LIMIT 1", "SELECT id, note FROM t WHERE id = 1 ORDER BY 1", "SELECT 1",
    "INSERT INTO t VALUES (1)", "SELECT id FROM t WHERE id = 1 LIMIT 5", "SELECT id FROM t WHERE id IN (1, 2)",
    "SELECT CURRENT_TIME(3) FROM t",
    "UPDATE people SET email = id + 1 WHERE id = 1",
])
def test_a_number_that_matters_leaves_no_skeleton(text: str) -> None:
    made = judge()
    made.study(text.encode(), {})
    assert not made._skeletons


def test_a_text_of_a_known_shape_is_recorded_as_itself() -> None:
    made = judge(())
    one, other = made.study(b"SELECT id FROM t WHERE id = 1", {}), made.study(b"SELECT id FROM t WHERE id = 2", {})
    assert len(made._shapes) == 1
    assert other.text == other.blob[2] == b"SELECT id FROM t WHERE id = 2"
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
    assert len(made._skeletons) <= 10
    assert len(made._shared) <= 10


# Where a number is more than a number: positions, type modifiers, parameters, parts of names, limits, junk behind it.
TEXTS = (
    "select {} from t where {}", "select id from t where id = {} and {}", "select {} from people where {}",
    "select id, {} from t {}", "select id from t where id in ({}, {})", "select id from t order by {} limit {}",
    "update t set note = {} where id = {}", "insert into t values ({}, {})", "delete from t where id = {} or {}",
    "select {} {} from t", "select count(*) from people where id > {} group by {}",
    "select id from t limit {} offset {}", "select id from people where id = {} and email = {}",
    "select note[{}] from t where id={}", "select id from t where id = {}{}", "select id from t where id = {}; {}",
    "select id, email from people order by {}", "select email, id from people where id > {} group by {}",
)
PARTS = tuple(
    "1|2|0|1.5|1e5|1 e5|0x1F|1_000|2147483648|1a|$1|t1|1::text|-1|- 1|1.|1 .5|.5|(1)|[1]|1,2|1 2|1*2|limit 1|"
    "order by 1|group by 1|fetch first 1 rows only|1 in (1,2)|id = 1 and 2 = 2|lo_get(1)|mine(1)|sum(1)|email = 1|"
    "id=1 for update|as c1|rows between 1 preceding and 2 following|1 between 0 and 3|case 1 when 2 then 3 end|"
    "array[1,2]|row(1,2)|1 union select 2|1 at time zone 2|id%1|1||2|coalesce(1,email)|"
    "generate_series(1,3)|cast(1 as varchar(3))|x1|1e|interval '1' second(2)|delete from t where id = 1|"
    "select email from people limit 1".split("|"))
NUMBERS = ("0", "1", "2", "3", "007", "42", "999999999", "1000000000", "2147483648")
CASES = 4000
SEED = 20261124


def test_a_judge_that_knows_more_says_the_same() -> None:
    chance, knowing, alike = random.Random(SEED), judge(), 0
    for _ in range(CASES):
        text = chance.choice(TEXTS).format(chance.choice(PARTS), chance.choice(PARTS))
        for _ in range(3):
            other = re.sub(r"\d+", lambda _: chance.choice(NUMBERS), text).encode()
            alike += make_skeleton(other) is not None
            assert told(knowing.study(other, {})) == told(judge().study(other, {})), other
    assert alike > CASES               # else this looks at nothing
