"""Nothing labelled comes out, whatever is asked: each text through the layer to a real server, by simple and extended
query, under a gate that permits every request.  Values of labelled columns are markers; no byte of them may arrive.
"""
from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pump import SYNC, Pump, TableGate, bind, describe, execute, fields, parse, query, values

from agent.contract.target import ColumnLabel

LABELS = (
    ColumnLabel("pii.email", "vault", "people", "email", "constant:***"),
    ColumnLabel("pii.salary", "vault", "people", "salary", "null"),
    ColumnLabel("secret", "vault", "keys", "secret", "constant:***"),
    ColumnLabel("pii.part", "vault", "parts_one", "mail", "constant:***"),
)
SETUP = """
CREATE SCHEMA vault AUTHORIZATION app;
SET ROLE app;
SET search_path = vault;
CREATE TABLE people (id int PRIMARY KEY, name text, email text NOT NULL CHECK (email <> 'never'), salary int,
  domain text GENERATED ALWAYS AS (lower(email)) STORED);
CREATE TABLE keys (id int, people_id int REFERENCES people, secret text);
CREATE TABLE plain (id int, email text, note text);
CREATE TABLE parts (id int, mail text) PARTITION BY LIST (id);
CREATE TABLE parts_one PARTITION OF parts FOR VALUES IN (1);
CREATE VIEW direct AS SELECT * FROM people;
CREATE VIEW deep AS SELECT id, upper(email) AS shout FROM direct;
CREATE FUNCTION evil(people) RETURNS text LANGUAGE sql STABLE AS 'SELECT $1.email';
CREATE FUNCTION all_mail() RETURNS SETOF text LANGUAGE sql STABLE AS 'SELECT email FROM vault.people';
CREATE VIEW through AS SELECT * FROM all_mail() AS m;
CREATE FUNCTION joined(int, int) RETURNS text LANGUAGE sql STABLE AS 'SELECT max(email) FROM vault.people';
CREATE OPERATOR @@@ (FUNCTION = joined, LEFTARG = int, RIGHTARG = int);
CREATE VIEW operated AS SELECT 1 @@@ 2 AS got;
CREATE TYPE mood AS (a text);
CREATE FUNCTION moody(int) RETURNS mood LANGUAGE sql STABLE AS 'SELECT ROW(max(email))::vault.mood FROM vault.people';
CREATE CAST (int AS mood) WITH FUNCTION moody(int);
CREATE VIEW sampled AS SELECT tablename, most_common_vals::text AS common, histogram_bounds::text FROM pg_stats;
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  RAISE NOTICE 'it was %', OLD.email USING HINT = OLD.email, TABLE = OLD.email;
  PERFORM pg_notify('told', OLD.email);
  IF NEW.name = 'boom' THEN
    RAISE EXCEPTION 'it was %', OLD.email USING HINT = OLD.email, COLUMN = OLD.email, CONSTRAINT = OLD.email,
      DATATYPE = OLD.email, SCHEMA = OLD.email, DETAIL = OLD.email;
  END IF;
  IF NEW.name = 'cast' THEN NEW.id := OLD.email; END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER told BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION tell();
INSERT INTO people VALUES (1, 'Ada', 'ZQMARKERA@x', 987651), (2, 'Bob', 'ZQMARKERB@x', 987652);
INSERT INTO keys VALUES (1, 1, 'ZQMARKERK');
INSERT INTO plain VALUES (1, 'plain@x', 'a note');
INSERT INTO parts VALUES (1, 'ZQMARKERP');
ANALYZE people;
"""
MARKERS = (b"zqmarker", b"98765")
LINES = Path(__file__).with_name("leaks.test").read_text("utf-8").splitlines()
TEXTS = [line for line in LINES if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def vault(port: int) -> int:
    subprocess.run(["psql", "-X", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-d", "shop", "-v",
                    "ON_ERROR_STOP=1", "-f", "-"], input=SETUP, text=True, check=True, stdout=subprocess.DEVNULL)
    return port


@pytest.fixture(scope="module")
def pump(vault: int) -> Iterator[Pump]:
    weir = Pump(vault, "app", "shop", TableGate(), LABELS)
    weir.talk(query("SET search_path = vault, public"))
    yield weir
    weir.close()


def delivered(weir: Pump, *messages: bytes) -> bytes:
    return b"\n".join(body for _, body in weir.talk(*messages)).lower()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("how", ["simple", "extended"])
def test_nothing_labelled_comes_out(pump: Pump, text: str, how: str) -> None:
    pump.talk(query("BEGIN"))
    got = b""
    for statement in text.split(" ;; "):
        if how == "simple":
            got += delivered(pump, query(statement))
        else:
            got += delivered(pump, parse(statement), bind(), execute(), SYNC)
        assert not pump.closed, pump.closed
    pump.talk(query("ROLLBACK"))
    assert not [marker for marker in MARKERS if marker in got], got


def test_what_a_trigger_says_is_not_heard(pump: Pump) -> None:
    """Neither in notices and errors, whose code stays, nor in notifications, whose channel stays."""
    before = len(pump.records)
    pump.talk(query("LISTEN told"))
    got = pump.talk(query("UPDATE people SET name = 'Ada' WHERE id = 1"))
    assert [fields(body)["C"] for kind, body in got if kind == b"N"] == ["00000"]
    assert [body[4:] for kind, body in got if kind == b"A"] == [b"told\0\0"]
    got += pump.talk(query("UPDATE people SET name = 'boom' WHERE id = 1"))
    assert [fields(body)["C"] for kind, body in got if kind == b"E"] == ["P0001"]
    assert not [marker for marker in MARKERS for _, body in got if marker in body.lower()]
    kept = b"".join(content for record in pump.records[before:] for *_, content in record.blobs).lower()
    assert not [marker for marker in MARKERS if marker in kept]
    assert "abc" in str(pump.talk(query("SELECT 'abc'::int")))       # the server's own words stay
    pump.talk(query("UNLISTEN *"))


SERVED = [line.rsplit(" | ", 1) for line in Path(__file__).with_name("served.test").read_text("utf-8").splitlines()
          if line and not line.startswith("#")]


def shown(value: bytes | None) -> str:
    return "-" if value is None else value.decode()


@pytest.mark.parametrize(("text", "rows"), SERVED)
@pytest.mark.parametrize("how", ["simple", "extended", "described"])
def test_what_is_served_is_masked_and_nothing_more(pump: Pump, text: str, rows: str, how: str) -> None:
    pump.talk(query("BEGIN"))
    messages = []
    for statement in text.split(" ;; "):
        if how == "simple":
            messages = pump.talk(query(statement))
        else:
            more = [describe("P")] if how == "described" else []
            messages = pump.talk(parse(statement), bind(), *more, execute(), SYNC)
    pump.talk(query("ROLLBACK"))
    pump.talk(query("DEALLOCATE ALL"))
    assert not [body for kind, body in messages if kind == b"E"]
    assert ";".join(",".join(map(shown, values(body))) for kind, body in messages if kind == b"D") == rows
