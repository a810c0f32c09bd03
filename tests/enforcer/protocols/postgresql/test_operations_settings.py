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
    assert weir.layer._conversation._judge.meaning.schemas == ("pg_catalog", "other")  # type: ignore[union-attr]
    weir.talk(query("DROP VIEW public.through"))
    weir.close()
