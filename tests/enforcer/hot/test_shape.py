"""Which texts have one shape, which have several, and which have none."""
from __future__ import annotations

import json

import pytest
from pglast.parser import parse_sql_json

from enforcer.hot.shape import strip


def shape(text: str) -> str | None:
    tree = json.loads(parse_sql_json(text))
    return json.dumps(tree) if strip(tree) else None


@pytest.mark.parametrize(("one", "other"), [
    ("SELECT a FROM t WHERE id = 5", "select  a from t where id=/* x */ 123456"),
    ("SELECT a FROM t WHERE id = 0", "SELECT a FROM t WHERE id = -7"),
    ("SELECT a FROM t WHERE name = 'a'", "SELECT a FROM t WHERE name = $$it's \"b\"$$"),
    ("UPDATE t SET n = n + 5 WHERE id = 1", "UPDATE t SET n = n + 70000 WHERE id = 22"),
    ("DELETE FROM t WHERE id = 1 AND b < 1.5", "DELETE FROM t WHERE id = 2 AND b < 2.25"),
    ("INSERT INTO t VALUES (1 + 1)", "INSERT INTO t VALUES (2 + 3)"),
    ("SELECT count(*) FROM t WHERE id > 1", "SELECT count(*) FROM t WHERE id > 2"),
])
def test_one_shape(one: str, other: str) -> None:
    assert shape(one) is not None
    assert shape(one) == shape(other)


@pytest.mark.parametrize(("one", "other"), [
    ("SELECT a FROM t_20240101 WHERE id = 1", "SELECT a FROM t_20240102 WHERE id = 1"),
    ("SELECT a FROM t WHERE id = 1", 'SELECT "A" FROM t WHERE id = 1'),
    ("SELECT a FROM t WHERE id = 1", "SELECT a FROM s.t WHERE id = 1"),
    ("SELECT a FROM t WHERE id = 1", "SELECT a FROM t WHERE id = '1'"),
    ("SELECT a FROM t WHERE id = 1", "SELECT a FROM t WHERE id = 1.0"),
    ("SELECT a FROM t WHERE id = 1", "SELECT a FROM t WHERE id = NULL"),
    ("SELECT a FROM t WHERE id = 1", "SELECT a FROM t WHERE id = true"),
    ("SELECT a FROM t WHERE id = B'1'", "SELECT a FROM t WHERE id = '1'"),
    ("SELECT a FROM t WHERE id = 1", "SELECT a FROM t WHERE id <> 1"),
    ("SELECT a FROM t WHERE id = $1", "SELECT a FROM t WHERE id = $2"),
    ("SELECT a, b FROM t ORDER BY 1", "SELECT a, b FROM t ORDER BY 2"),
    ("SELECT a, b FROM t GROUP BY 1, 2", "SELECT a, b FROM t GROUP BY 2, 1"),
    ("SELECT a FROM t LIMIT 1", "SELECT a FROM t LIMIT 2"),
    ("SELECT a FROM t OFFSET 1", "SELECT a FROM t OFFSET 2"),
    ("SELECT 'a'", "SELECT 'b'"),
    ("SELECT a FROM t WHERE id IN (1, 2)", "SELECT a FROM t WHERE id IN (1, 3)"),
    ("SELECT a FROM t WHERE n LIKE 'a'", "SELECT a FROM t WHERE n LIKE 'b'"),
    ("SELECT a FROM t WHERE n BETWEEN 1 AND 2", "SELECT a FROM t WHERE n BETWEEN 1 AND 3"),
    ("INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)"),
    ("UPDATE t SET a = 'x'", "UPDATE t SET a = 'y'"),
    # a string that looks like a part of a tree
    ("SELECT 'x\",\"location\":1'", "SELECT 'x\",\"location\":2'"),
    ("SELECT a FROM \"location\" WHERE id = 1", "SELECT a FROM \"stmt_len\" WHERE id = 1"),
])
def test_other_shapes(one: str, other: str) -> None:
    assert shape(one) is not None
    assert shape(other) is not None
    assert shape(one) != shape(other)


@pytest.mark.parametrize("text", [
    "", "SELECT 1; SELECT 2", "SET role = 'a'", "SET ROLE a", "SELECT set_config('role', 'a', false)",
    "SELECT set_config(name, 'a', false) FROM pg_settings WHERE name = 'role'",
    "SELECT lo_import('/etc/passwd')", "SELECT lo_get(1 + 1)", "SELECT pg_catalog.count(a) FROM t", "SELECT f(1)",
    "SELECT 'a'::regclass", "SELECT CAST('a' AS text)", "WITH w AS (SELECT 1) SELECT * FROM w WHERE a = 1",
    "SELECT a FROM t FOR UPDATE", "COPY t TO STDOUT", "CREATE TABLE u (a int DEFAULT 1 + 1)", "DO 'x'", "CALL p(1 + 1)",
    "EXPLAIN SELECT a FROM t WHERE a = 1", "PREPARE p AS SELECT a FROM t WHERE a = 1", "EXECUTE p(1 + 1)",
    "DECLARE c CURSOR FOR SELECT a FROM t WHERE a = 1", "MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE",
    "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 1 + 1", "SELECT a FROM f(1 + 1)",
    "SELECT (t).a FROM t WHERE a = 1", "SELECT " + "- " * 200 + "a FROM t",
])
def test_no_shape(text: str) -> None:
    assert shape(text) is None


@pytest.mark.parametrize("tree", [None, [], {}, {"stmts": 1}, {"stmts": [1]}, {"stmts": [{}]}, {"stmts": [{"stmt": 1}]},
                                  {"stmts": [{"stmt": {"SelectStmt": {"Odd": {}}}}]}])
def test_what_is_no_tree_has_no_shape(tree: object) -> None:
    assert not strip(tree)
