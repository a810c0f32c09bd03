"""Plans of held statements on a real server: what is shown, what is not and why, and that nothing is run or changed."""
from __future__ import annotations

from collections.abc import Iterator

import pytest
from pump import SYNC, Direct, Pump, TableGate, bind, execute, parse, query, shape

from agent.contract import messages
from agent.contract.credential import Credential
from agent.contract.messages import HoldView
from agent.contract.target import ColumnLabel
from enforcer.protocols.postgresql.plan import CALLS, LINES, plan_statements, read_plan, render_plan
from enforcer.words import inputs
from enforcer.words.commands import Explain, Hold

DATABASE = "plans"                    # in which nobody else makes functions
TABLES = """CREATE SCHEMA other; CREATE TABLE t (id int PRIMARY KEY, note text);
INSERT INTO t SELECT n, 'note ' || n FROM generate_series(1, 20) AS n; CREATE TABLE other.t (id int, note text);
CREATE TABLE people (id int PRIMARY KEY, name text, email text)"""
HELD = {("sql:delete", "t"), ("sql:update", "t"), ("sql:select", "t"), ("sql:insert", "t"), ("sql:call", "*"),
        ("sql:delete", "people")}


def held(port: int, *messages: bytes, before: tuple[str, ...] = (), labels: tuple[ColumnLabel, ...] = ()) -> Hold:
    session = Pump(port, "app", DATABASE, TableGate(hold=set()), labels=labels)
    try:
        for text in before:
            session.talk(query(text))
        session.context.gate.hold |= HELD  # type: ignore[attr-defined]
        session.context.gate.version += 1  # type: ignore[misc]
        session.on_hold = lambda hold: inputs.HoldAnswered(hold.operation, "denied", "local:dba", "no", "T-1")
        session.talk(*messages)
        return session.holds[0]
    finally:
        session.close()


def read(port: int, explain: Explain) -> tuple[str, int]:
    return read_plan(
        host="127.0.0.1", port=port, credential=Credential("app"), database=DATABASE, ssl_context=None, explain=explain)


def plan(port: int, *messages: bytes, **more: object) -> tuple[str, int]:
    hold = held(port, *messages, **more)  # type: ignore[arg-type]
    assert hold.explain is not None, hold.unexplained
    return read(port, hold.explain)


@pytest.fixture(scope="module", autouse=True)
def database(port: int) -> Iterator[None]:
    server = Direct(port, "postgres", "postgres")
    server.talk(query(f"CREATE DATABASE {DATABASE} OWNER app"))
    made = Direct(port, "app", DATABASE)
    made.talk(query(TABLES))
    made.close()
    yield
    server.talk(query(f"DROP DATABASE {DATABASE} WITH (FORCE)"))
    server.close()


@pytest.fixture
def owner(port: int) -> Iterator[Direct]:
    made = Direct(port, "app", DATABASE)
    yield made
    made.close()


def test_a_statement_and_the_rows_that_it_would_change(port: int, owner: Direct) -> None:
    owner.talk(query("ANALYZE t"))
    text, rows = plan(port, query("DELETE FROM t"))
    lines = text.split("\n")
    assert lines[0].startswith("Delete ModifyTable on t: about 0 rows")
    assert lines[1].startswith("  Seq Scan on t: about")
    assert rows == int(shape(owner.talk(query("SELECT count(*) FROM t")))[1][2:])
    assert plan(port, query("SELECT * FROM t WHERE id = 3"))[1] == 1


def test_with_parameters_as_the_client_gave_them(port: int) -> None:
    ask = parse("DELETE FROM t WHERE id = $1 OR note = $2") + bind("3", None) + execute() + SYNC
    text, rows = plan(port, ask)
    assert "Seq Scan on t" in text
    assert rows >= 0


def test_conditions_are_not_in_it(port: int) -> None:
    assert "zebra" not in plan(port, query("DELETE FROM t WHERE note = 'zebra'"))[0]


def test_names_are_the_session_s(port: int) -> None:
    text, _ = plan(port, query("SELECT * FROM t"), before=("SET search_path = other",))
    assert "Seq Scan on t" in text


@pytest.mark.parametrize(("ask", "before", "why"), [
    (query("SELECT no_one_knows(id) FROM t"), (), "calls what is not built in"),
    (query("DELETE FROM t; DELETE FROM t"), (), "only single"),
    (parse("DELETE FROM t WHERE id = $1") + bind("1", binary=True) + execute() + SYNC, (), ""),
    (query("EXECUTE d"), ("PREPARE d AS DELETE FROM t",), "only single"),
    (query("DELETE FROM t"), ("BEGIN", "CREATE TABLE fresh (id int)"), "only its own session knows"),
    (query("DELETE FROM t"), ("CREATE TEMP TABLE mine (id int)",), "only its own session knows"),
], ids=["a call", "two", "results in binary", "prepared", "DDL", "temporary"])
def test_why_there_is_none(port: int, ask: bytes, before: tuple[str, ...], why: str) -> None:
    hold = held(port, ask, before=before)
    assert (hold.explain is None) == bool(why)
    assert why in hold.unexplained


def test_binary_parameters_and_labels_have_none(port: int) -> None:
    labels = (ColumnLabel("pii", "public", "people", "email"),)
    assert "labelled" in held(port, query("DELETE FROM t"), labels=labels).unexplained
    body = b"\0\0\0\1\0\1\0\1\0\0\0\4\0\0\0\1\0\0"
    binary = b"B" + (len(body) + 4).to_bytes(4, "big") + body
    assert "binary" in held(port, parse("DELETE FROM t WHERE id = $1") + binary + execute() + SYNC).unexplained


USERS = "CREATE FUNCTION public.mine(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1'"


@pytest.mark.parametrize(("make", "drop"), [
    ("CREATE INDEX mine_index ON t (public.mine(id))", "DROP INDEX mine_index"),
    ("CREATE VIEW mine_view AS SELECT public.mine(1) AS one FROM t", "DROP VIEW mine_view"),
    ("ALTER TABLE t ADD CONSTRAINT c CHECK (public.mine(id) <> 0)", "ALTER TABLE t DROP CONSTRAINT c"),
    ("ALTER TABLE t ALTER note SET DEFAULT public.mine(1)::text", "ALTER TABLE t ALTER note DROP DEFAULT"),
    ("CREATE POLICY mine_policy ON t USING (public.mine(id) > 0)", "DROP POLICY mine_policy ON t"),
    ("CREATE OPERATOR public.### (FUNCTION = public.mine, RIGHTARG = int)", "DROP OPERATOR public.### (NONE, int)"),
], ids=["index", "view", "check", "default", "policy", "operator"])
def test_planning_could_run_a_user_s_function(port: int, owner: Direct, make: str, drop: str) -> None:
    explain = Explain("DELETE FROM t", (), (), ("pg_catalog", "public"), "app")
    owner.talk(query(USERS))
    try:
        assert read(port, explain)[0] != CALLS
        assert not [line for line in shape(owner.talk(query(make))) if line.startswith("E ")]
        assert read(port, explain) == (CALLS, -1)
        owner.talk(query(drop))
    finally:
        owner.talk(query("DROP FUNCTION public.mine(int) CASCADE"))


def test_nothing_is_run(port: int, owner: Direct) -> None:
    before = shape(owner.talk(query("SELECT count(*) FROM t")))
    explain = Explain("DELETE FROM t; DELETE FROM t", (), (), ("pg_catalog", "public"), "app")
    with pytest.raises(Exception, match="multiple commands"):
        read(port, explain)
    read(port, Explain("DELETE FROM t", (), (), ("pg_catalog", "public"), "app"))
    assert shape(owner.talk(query("SELECT count(*) FROM t"))) == before


def test_names_cannot_leave_their_quotes() -> None:
    said = plan_statements(Explain("SELECT 1", (), (), ('a", "b', "c"), 'x"; DROP TABLE t; --'))
    assert 'SET LOCAL search_path = "a"", ""b", "c"' in said
    assert 'SET LOCAL ROLE "x""; DROP TABLE t; --"' in said


def test_a_plan_is_bounded() -> None:
    node = {"Node Type": "Append", "Plan Rows": 5, "Plans": [{"Node Type": "x" * 1000, "Plan Rows": 1}] * 1000}
    text, rows = render_plan([{"Plan": node}])
    assert len(text.split("\n")) == LINES + 1
    assert rows == 5


def test_what_a_broken_server_says_stays_within_bounds() -> None:
    """A number that no frame holds ended the enforcer when approvers asked; half a character hid what else waits."""
    text, rows = render_plan([{"Plan": {"Node Type": "Scan\ud800", "Plan Rows": 10**30}}])
    view = HoldView("t", 0, 0, "", "", 1, "", "", "", "", "", (), (), (), False, "", plan=text, rows=rows)
    frame = messages.render_frame(messages.HoldsAnswer(1, (view,)))
    assert messages.parse_from_enforcer(frame[4:]) == messages.HoldsAnswer(1, (view,))
    assert render_plan([{"Plan": {"Plan Rows": -10**30}}])[1] == -1


def test_text_is_read_as_it_was_judged_whatever_the_role_says(port: int, owner: Direct) -> None:
    """What stands within quotes by the standard is code where the role's setting is another."""
    hold = held(port, query(r"SELECT * FROM t WHERE note IN ('\', ' OR id = 3) --')"))
    assert hold.explain is not None
    owner.talk(query("ALTER ROLE app SET standard_conforming_strings = off"))
    try:
        assert "Seq Scan on t" in read(port, hold.explain)[0]
    finally:
        owner.talk(query("ALTER ROLE app RESET standard_conforming_strings"))


def test_what_weir_asks_first_runs_nobody_s_operator(port: int, owner: Direct) -> None:
    """One that fits better than the system's own was taken, as the login role and before anything was decided."""
    hold = held(port, query("DELETE FROM t"))
    assert hold.explain is not None
    owner.talk(query("""CREATE FUNCTION public.spy(oid, regclass) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
        'BEGIN RAISE EXCEPTION ''it ran''; END';
        CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = regclass, FUNCTION = public.spy)"""))
    try:
        assert read(port, hold.explain) == (CALLS, -1)
    finally:
        owner.talk(query("DROP FUNCTION public.spy(oid, regclass) CASCADE"))
