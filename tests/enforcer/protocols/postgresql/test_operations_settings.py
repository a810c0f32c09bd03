"""Settings, roles and names do not change behind Weir's back: every way round that a real server knows."""
from __future__ import annotations

from collections.abc import Iterator

import pytest
from pump import SYNC, Pump, TableGate, bind, execute, fields, parse, query, shape

GATE = {("sql:call", "*"), ("sql:set-role", "*"), ("sql:set", "role"), ("sql:admin", "*"), ("sql:do", "*")}
WAYS = [
    "SET ROLE postgres", "SET SESSION AUTHORIZATION postgres", "SELECT set_config('role', 'postgres', false)",
    "SELECT set_config(lower('ROLE'), 'postgres', false)", "SELECT set_config(E'\\x72ole', 'postgres', false)",
    "WITH x AS (SELECT set_config('role', 'postgres', false)) SELECT * FROM x",
    "INSERT INTO t VALUES (500, set_config('role', 'postgres', false))",
    "SELECT 1 FROM t WHERE set_config('role', 'postgres', false) IS NULL",
    "SELECT * FROM set_config('role', 'postgres', false)",
    "SELECT (SELECT set_config(o.name, 'postgres', false) FROM pg_settings WHERE name = 'work_mem') "
    "FROM (VALUES ('role')) o (name)",
    "UPDATE pg_settings SET setting = 'postgres' WHERE name = 'role'",
    "UPDATE pg_catalog.pg_settings SET setting = 'postgres' WHERE name = 'role'",
    "WITH x AS (UPDATE pg_settings SET setting = 'postgres' WHERE name = 'role' RETURNING 1) SELECT 1",
    "MERGE INTO pg_settings s USING t ON s.name = 'role' WHEN MATCHED THEN UPDATE SET setting = 'postgres'",
    "UPDATE settable SET setting = 'postgres' WHERE name = 'role'",
    "UPDATE settable2 SET setting = 'postgres' WHERE name = 'role'",
    "INSERT INTO settable VALUES ('role', 'x')",
    "ALTER ROLE app SET role = 'postgres'", "ALTER ROLE CURRENT_USER SET search_path = other",
    "ALTER DATABASE shop SET search_path = other", "DO $$ BEGIN SET ROLE postgres; END $$",
    "PREPARE weird AS SELECT set_config('role', 'postgres', false)",
    "DECLARE c CURSOR WITH HOLD FOR SELECT set_config('role', 'postgres', false)",
    "COPY (SELECT set_config('role', 'postgres', false)) TO STDOUT",
    "EXPLAIN ANALYZE SELECT set_config('role', 'postgres', false)",
    "CREATE TABLE n AS SELECT set_config('role', 'postgres', false)",
    "SELECT set_config('client_encoding', 'LATIN1', false)", "SET NAMES 'LATIN1'",
    "UPDATE pg_settings SET setting = 'off' WHERE name = 'standard_conforming_strings'",
]


@pytest.fixture(scope="module")
def pump(port: int) -> Iterator[Pump]:
    first = Pump(port, "postgres", "shop", TableGate())
    first.talk(query("CREATE VIEW settable AS SELECT name, setting FROM pg_settings"))
    first.talk(query("CREATE VIEW settable2 AS SELECT * FROM settable"))
    first.close()
    weir = Pump(port, "postgres", "shop", TableGate(deny=GATE))
    yield weir
    weir.close()
    last = Pump(port, "postgres", "shop", TableGate())
    last.talk(query("DROP VIEW settable2, settable"))
    last.close()


@pytest.mark.parametrize("text", WAYS)
@pytest.mark.parametrize("how", ["simple", "extended"])
def test_the_role_stays(pump: Pump, text: str, how: str) -> None:
    pump.to_server = b""
    got = pump.talk(query(text)) if how == "simple" else pump.talk(parse(text), bind(), execute(), SYNC)
    errors = [fields(body)["C"] for kind, body in got if kind == b"E"]
    assert errors, text
    assert errors[0] in ("42501", "0A000", "42601", "55000"), got
    assert how == "extended" or text.encode() not in pump.to_server


def test_a_view_of_the_settings_is_really_written_through(port: int) -> None:
    """The control: PostgreSQL carries an UPDATE of such a view to set_config."""
    weir = Pump(port, "postgres", "shop", TableGate())
    weir.talk(query("CREATE VIEW through AS SELECT name, setting FROM pg_settings"))
    weir.talk(query("UPDATE through SET setting = 'other' WHERE name = 'search_path'"))
    assert "D other" in shape(weir.talk(query("SHOW search_path")))
    assert weir.layer._conversation._state.judge.meaning.schemas == ("pg_catalog", "other")  # type: ignore[union-attr]
    weir.talk(query("DROP VIEW public.through"))
    weir.close()


CODE = [
    ["CREATE FUNCTION lower(int) RETURNS text LANGUAGE sql AS 'SELECT key FROM secret LIMIT 1'", "SELECT lower(1)"],
    ["CREATE FUNCTION key(t) RETURNS text LANGUAGE sql AS 'SELECT key FROM secret LIMIT 1'",
     "SELECT t.key FROM t LIMIT 1"],
    ["CREATE OPERATOR === (FUNCTION = told, LEFTARG = int, RIGHTARG = int)", "SELECT 1 === 2"],
    ["CREATE AGGREGATE max(int, int) (sfunc = told3, stype = text)", "SELECT max(1, 2)"],
    ["ALTER FUNCTION told(int, int) RENAME TO lower", "SELECT lower(1, 2)"],
    ["ALTER FUNCTION other.abs(text) SET SCHEMA public", "SELECT abs('x'::text)"],
    ["CREATE DOMAIN lie AS text DEFAULT told(1, 2)", "CREATE TABLE n (a lie)",
     "INSERT INTO n DEFAULT VALUES RETURNING *"],
    ["CREATE TABLE n (a text DEFAULT told(1, 2))", "INSERT INTO n DEFAULT VALUES RETURNING *"],
    ["CREATE TABLE n (a text)", "ALTER TABLE n ALTER a SET DEFAULT told(1, 2)",
     "INSERT INTO n DEFAULT VALUES RETURNING *"],
    ["CREATE TABLE n (a int, b text GENERATED ALWAYS AS (told(a, 1)) STORED)", "INSERT INTO n VALUES (1) RETURNING *"],
    ["CREATE VIEW n AS SELECT told(1, 2) AS a", "SELECT * FROM n"],
    ["CREATE RULE r AS ON INSERT TO t DO INSTEAD SELECT key FROM secret", "INSERT INTO t VALUES (1)"],
    ["CREATE RULE r AS ON INSERT TO t DO INSTEAD SELECT told(1, 2)", "INSERT INTO t VALUES (1)"],
    ["CREATE TABLE n () INHERITS (secret)", "INSERT INTO n VALUES (9, 'x')"],
    ["CREATE TABLE up (id int, key text)", "ALTER TABLE secret INHERIT up", "SELECT key FROM up"],
    ["ALTER TABLE secret RENAME TO n", "SELECT key FROM n"],
    ["ALTER TABLE secret SET SCHEMA other", "SELECT key FROM other.secret"],
    ["CREATE VIEW n AS SELECT key FROM secret", "SELECT * FROM n"],
    ["CREATE MATERIALIZED VIEW n AS SELECT key FROM secret", "SELECT * FROM n"],
    ["CREATE TABLE n AS SELECT key FROM secret", "SELECT * FROM n"],
    ["CREATE SCHEMA n CREATE VIEW v AS SELECT key FROM secret", "SELECT * FROM n.v"],
    ["CREATE FUNCTION n() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT key FROM secret; END", "SELECT n()"],
    ["PREPARE n AS SELECT key FROM secret", "EXECUTE n"],
    ["DECLARE n CURSOR FOR SELECT key FROM secret", "FETCH n"],
    ["CREATE INDEX ON t (told(id, 1))"],
    ["CREATE POLICY n ON t USING (told(1, 2) IS NULL)"],
]


@pytest.fixture(scope="module")
def crew(port: int) -> Iterator[Pump]:
    """All is permitted but the table `secret`, and to call anything."""
    owner = Pump(port, "app", "shop", TableGate())
    for name in ("told(int, int)", "told3(text, int, int)", "other.abs(text)"):
        owner.talk(query(
            f"CREATE FUNCTION {name} RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT key FROM secret LIMIT 1'"))
    gate = TableGate(deny={(action, "secret") for action in ("sql:select", "sql:ddl", "sql:insert", "sql:lock")} | {
        ("sql:call", "*"), ("sql:admin", "*")})
    weir = Pump(port, "app", "shop", gate)
    yield weir
    weir.close()
    for name in ("told(int, int)", "told3(text, int, int)", "other.abs(text)"):
        owner.talk(query(f"DROP FUNCTION {name}"))
    owner.close()


@pytest.mark.parametrize("texts", CODE, ids=lambda texts: texts[0][:60])
@pytest.mark.parametrize("how", ["in a transaction", "one string"])
def test_code_of_ones_own_reads_nothing_that_is_forbidden(crew: Pump, texts: list[str], how: str) -> None:
    """What a transaction made is not in the catalogue that Weir reads, and must not be a way round all the same."""
    crew.talk(query("BEGIN"))
    parts = ["; ".join(texts)] if how == "one string" else texts
    got = [message for text in parts for message in crew.talk(query(text))]
    crew.talk(query("ROLLBACK"))
    errors = [fields(body)["C"] for kind, body in got if kind == b"E"]
    assert errors
    assert errors[0] in ("42501", "0A000", "26000", "34000")
    assert not any(b"k1" in body for kind, body in got if kind == b"D")


@pytest.mark.parametrize("texts", CODE[:12], ids=lambda texts: texts[0][:60])
def test_the_same_without_weir_reads_it(port: int, crew: Pump, texts: list[str]) -> None:
    """The control."""
    weir = Pump(port, "app", "shop", TableGate())
    weir.talk(query("BEGIN"))
    got = [message for text in texts for message in weir.talk(query(text))]
    weir.talk(query("ROLLBACK"))
    weir.close()
    assert any(b"k1" in body for kind, body in got if kind == b"D"), shape(got)
