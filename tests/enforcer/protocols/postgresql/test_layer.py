"""The layer against a real server: what policy permits is as without Weir, what it denies is as the server's own no.

Native: role `limited` asks for what it has no privilege for.  Weir: the owner asks, and policy denies it.
"""
from __future__ import annotations

from collections.abc import Callable

import pump
import pytest
from pump import (
    FLUSH,
    SYNC,
    Direct,
    Pump,
    TableGate,
    bind,
    close,
    describe,
    execute,
    fields,
    parse,
    query,
    shape,
)

from agent.contract.target import ColumnLabel
from enforcer.words import events, inputs

CUTS = [1, 3, 7, 64, 1 << 20]
SECRET = "SELECT * FROM secret"
READ = "SELECT id FROM t WHERE id < 3 ORDER BY id"

Step = tuple[list[bytes], int]

# name -> steps, each some messages and how many ReadyForQuery follow
DENIALS: dict[str, list[Step]] = {
    "simple": [([query(SECRET)], 1), ([query(READ)], 1)],
    "simple in a transaction": [
        ([query("BEGIN")], 1), ([query("UPDATE t SET note = 'x'")], 1), ([query(SECRET)], 1), ([query(READ)], 1),
        ([query("COMMIT")], 1), ([query("SELECT count(*) FROM t WHERE note = 'x'")], 1)],
    "savepoint": [
        ([query("BEGIN")], 1), ([query("UPDATE t SET note = 'y' WHERE id = 1")], 1), ([query("SAVEPOINT s")], 1),
        ([query(SECRET)], 1), ([query("ROLLBACK TO s")], 1), ([query("SELECT note FROM t WHERE id = 1")], 1),
        ([query("ROLLBACK")], 1)],
    "two simple at once": [([query(SECRET), query(READ)], 2)],
    "several statements": [([query(f"{SECRET}; {READ}")], 1)],
    "extended": [([parse(SECRET), bind(), describe("P"), execute(), SYNC], 1), ([query(READ)], 1)],
    "extended, prepared": [
        ([parse(SECRET, "s"), describe("S", "s"), SYNC], 1), ([bind(name="s"), execute(), SYNC], 1),
        ([bind(name="s"), execute(), SYNC], 1)],
    "pipeline, implicit transaction": [
        ([parse("UPDATE t SET note = 'z' WHERE id = 2"), bind(), execute(), parse(SECRET), bind(), execute(),
          parse(READ), bind(), execute(), SYNC], 1),
        ([query("SELECT note FROM t WHERE id = 2")], 1)],
    "pipeline, two syncs": [
        ([parse(SECRET), bind(), execute(), SYNC, parse(READ), bind(), execute(), SYNC], 2)],
    "flush": [([parse(READ), bind(), execute(), FLUSH, parse(SECRET), bind(), execute(), FLUSH, SYNC], 1)],
    "in an aborted transaction": [
        ([query("BEGIN")], 1), ([query("SELECT 1 / 0")], 1), ([query(SECRET)], 1), ([query("ROLLBACK")], 1)],
    "no such portal": [([execute("nothing"), SYNC], 1)],
    "no such statement": [([bind(name="nothing"), SYNC], 1)],
    "a name that failed": [
        ([parse("SELECT 1 FROM nowhere", "n"), SYNC], 1), ([bind(name="n"), execute(), SYNC], 1)],
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", DENIALS)
def test_a_denial_is_native(port: int, name: str, cut: int) -> None:
    direct = Direct(port, "limited", "shop")
    native = [shape(direct.talk(*messages, ready=ready)) for messages, ready in DENIALS[name]]
    direct.close()
    weir = Pump(port, "app", "shop", TableGate(deny={("sql:select", "secret")}), cut=cut)
    assert [shape(weir.talk(*messages, ready=ready)) for messages, ready in DENIALS[name]] == native
    weir.close()


PERMITTED: dict[str, list[Step]] = {
    "rows": [([query("SELECT * FROM t ORDER BY id")], 1)],
    "empty": [([query("")], 1), ([query(";")], 1), ([parse(""), bind(), execute(), SYNC], 1)],
    "several": [([query("SELECT 1; SELECT 2; SELECT 3")], 1)],
    "error": [([query("SELECT 1 / 0")], 1), ([query("SELECT 1; SELECT 1 / 0; SELECT 2")], 1)],
    "parameters": [([parse("SELECT note FROM t WHERE id = $1"), bind("4"), describe("P"), execute(), SYNC], 1)],
    "binary": [([parse("SELECT id FROM t WHERE id = $1"), bind("4", binary=True), execute(), SYNC], 1)],
    "suspended": [
        ([query("BEGIN")], 1), ([parse("SELECT id FROM t ORDER BY id"), bind(portal="p"), execute("p", 3), SYNC], 1),
        ([execute("p", 3), SYNC], 1), ([execute("p", 0), SYNC], 1), ([close("P", "p"), SYNC], 1),
        ([query("COMMIT")], 1)],
    "portal gone": [
        ([parse("SELECT 1"), bind(portal="p"), execute("p"), SYNC], 1), ([execute("p"), SYNC], 1)],
    "copy out": [([query("COPY t (id) TO STDOUT")], 1)],
    "copy in": [
        ([query("BEGIN; COPY t (id, note) FROM STDIN"), pump.render(b"d", b"900\tx\n"), pump.render(b"d", b"901\ty\n"),
          pump.render(b"c")], 1), ([query("SELECT count(*) FROM t")], 1), ([query("ROLLBACK")], 1)],
    "copy in, extended": [
        ([query("BEGIN")], 1), ([parse("COPY t (id, note) FROM STDIN"), bind(), execute(), SYNC,
                                 pump.render(b"d", b"900\tx\n"), pump.render(b"c"), SYNC], 1),
        ([query("ROLLBACK")], 1)],
    "copy in that fails": [
        ([query("COPY t (id, note) FROM STDIN"), pump.render(b"d", b"no number\tx\n"), pump.render(b"c")], 1),
        ([query("COPY t (id, note) FROM STDIN"), pump.render(b"f", b"changed my mind\0")], 1),
        ([query("SELECT 1")], 1)],
    "sql prepare": [
        ([query("PREPARE q(int) AS SELECT note FROM t WHERE id = $1")], 1), ([query("EXECUTE q(5)")], 1),
        ([bind("6", name="q"), execute(), SYNC], 1), ([query("DEALLOCATE q")], 1), ([query("EXECUTE q(5)")], 1)],
    "cursor": [
        ([query("BEGIN")], 1), ([query("DECLARE c CURSOR FOR SELECT id FROM t ORDER BY id")], 1),
        ([query("FETCH 2 FROM c")], 1), ([execute("c", 2), SYNC], 1), ([query("CLOSE c")], 1),
        ([query("FETCH 2 FROM c")], 1), ([query("ROLLBACK")], 1)],
    "search path": [
        ([query("SELECT note FROM t WHERE id = 77")], 1), ([query("SET search_path = other, public")], 1),
        ([query("SELECT note FROM t WHERE id = 77")], 1), ([query("RESET search_path")], 1)],
    "search path in a pipeline": [
        ([parse("SET search_path = other"), bind(), execute(), parse("SELECT note FROM t WHERE id = 77"), bind(),
          execute(), SYNC], 1), ([query("RESET ALL")], 1)],
    "notify": [([query("LISTEN a"), query("NOTIFY a, 'b'")], 2)],
    "large object": [([query("SELECT lo_unlink(lo_creat(-1))")], 1)],
    "statement used again": [
        ([parse("SELECT 1"), bind(), execute(), SYNC, parse("SELECT 2"), bind(), execute(), SYNC], 2),
        ([parse("SELECT 3", "s"), parse("SELECT 4", "s"), SYNC], 1), ([bind(name="s"), execute(), SYNC], 1)],
}


@pytest.mark.parametrize("cut", [1, 5, 1 << 20])
@pytest.mark.parametrize("name", PERMITTED)
def test_what_is_permitted_is_as_without_weir(port: int, name: str, cut: int) -> None:
    direct = Direct(port, "app", "shop")
    native = [direct.talk(*messages, ready=ready) for messages, ready in PERMITTED[name]]
    direct.close()
    weir = Pump(port, "app", "shop", TableGate(), cut=cut)
    ours = [weir.talk(*messages, ready=ready) for messages, ready in PERMITTED[name]]
    weir.close()
    assert [plain(step) for step in ours] == [plain(step) for step in native]


def plain(messages: list[pump.Message]) -> list[object]:
    """Without what may differ: a notification names the backend's process, an error the line of the server's source."""
    return [(kind, {k: v for k, v in fields(body).items() if k in "SCMDHP"}) if kind == b"E" else (kind, body)
            for kind, body in messages if kind != b"A"]


def test_nothing_reaches_the_server_before_permit(port: int) -> None:
    weir = Pump(port, "app", "shop", TableGate(deny={("sql:select", "secret"), ("sql:delete", "*")}))
    hidden = "WITH x AS (DELETE FROM t RETURNING 1) SELECT * FROM x"
    for text in (SECRET, "DELETE FROM t", f"SELECT 1; {SECRET}", hidden):
        weir.to_server = b""
        assert shape(weir.talk(query(text)))[0] == "E 42501"
        assert text.encode() not in weir.to_server
    weir.to_server = b""
    weir.talk(parse("DELETE FROM t"), bind(), describe("P"), execute(), SYNC)
    assert b"\0\0\0\0\0\0" not in weir.to_server.replace(pump.render(b"P", b"\0DELETE FROM t\0\0\0"), b"")
    weir.close()


def test_the_reason_is_told(port: int) -> None:
    weir = Pump(port, "app", "shop", TableGate(deny={("sql:select", "secret")}))
    error = fields(next(body for kind, body in weir.talk(query(SECRET)) if kind == b"E"))
    assert error["C"] == "42501"
    assert "forbids sql:select on" in error["M"]
    assert "no" in error["D"]
    assert "SESSION" in error["H"]
    weir.close()


def test_intents_stand_before_their_bytes(port: int) -> None:
    """Cut anywhere: in the commands of one pass a Record of the intent comes before the bytes."""
    weir = Pump(port, "app", "shop", TableGate())
    weir.talk(parse("SELECT note FROM t WHERE id = $1", "s"), bind("3", name="s"), execute(), SYNC)
    weir.talk(query("SELECT 1"))
    verbs = [(e.verb, e.decision) for e in weir.intents()]
    assert verbs == [("execute", 1), ("query", 1)]
    results = [e for e in weir.events(events.Result) if isinstance(e, events.Result)]
    crew = {e.operation for e in weir.intents()}
    assert [(r.status, r.rows, r.tag) for r in results if r.operation in crew] == [
        ("ok", 1, "SELECT 1"), ("ok", 1, "SELECT 1")]
    weir.close()


@pytest.mark.parametrize(("asked", "told"), [
    ([parse("SELECT note FROM t WHERE id = $1", "s"), bind("none", name="s"), execute()], [("error", "22P02")]),
    ([parse("SELECT no_such FROM t", "s"), bind(name="s"), execute()], [("error", "42703")]),
    ([parse("SELECT no_such FROM t", "s"), bind(name="s")], [("error", "42703")]),
    ([parse("SELECT 1 / (id - id) FROM t WHERE id = $1", "s"), bind("1", name="s"), execute()], [("error", "22012")]),
    ([parse("SELECT no_such FROM t", "s"), bind(name="fine"), execute()], [("skipped", "")]),
    ([bind("none", name="given"), execute(), bind("1", name="given"), execute()],
     [("error", "22P02"), ("skipped", "")]),
    ([bind("1", name="given"), execute(), bind("none", name="given"), execute()], [("ok", ""), ("error", "22P02")]),
])
def test_an_error_is_on_record_with_what_it_kept_from_running(
    port: int, asked: list[bytes], told: list[tuple[str, str]]) -> None:
    weir = Pump(port, "app", "shop", TableGate())
    weir.talk(parse("SELECT 1", "fine"), parse("SELECT note FROM t WHERE id = $1", "given"), SYNC)
    weir.talk(*asked, SYNC)
    crew = {e.operation for e in weir.intents()}
    results = [e for e in weir.events(events.Result) if isinstance(e, events.Result) and e.operation in crew]
    assert [(r.status, r.sqlstate) for r in results] == told
    assert all(r.error for r in results if r.status == "error")
    weir.close()


def test_a_bind_alone_has_an_intent(port: int) -> None:
    weir = Pump(port, "app", "shop", TableGate())
    weir.talk(parse("SELECT 1"), bind(), SYNC)
    assert [e.verb for e in weir.intents()] == ["bind"]
    weir.close()


def answer(state: str, by: str = "local:dba") -> Callable[[object], inputs.HoldAnswered]:
    return lambda hold: inputs.HoldAnswered(hold.operation, state, by, "because", "T-1")  # type: ignore[attr-defined]


@pytest.mark.parametrize(("state", "code"), [
    ("approved", "C DELETE 1"), ("denied", "E 42501"), ("expired", "E 42501"), ("cancelled", "E 57014")])
@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
def test_holds(port: int, state: str, code: str, extended: bool) -> None:
    weir = Pump(port, "app", "shop", TableGate(hold={("sql:delete", "t")}))
    weir.talk(query("BEGIN"))
    weir.on_hold = answer(state)  # type: ignore[assignment]
    text = "DELETE FROM t WHERE id = 9"
    ask = [parse(text), bind(), execute(), SYNC] if extended else [query(text)]
    got = weir.talk(*ask)
    assert code in shape(got)
    assert any(kind == b"N" and fields(body)["C"] == "01000" for kind, body in got)
    assert len(weir.holds) == 1
    assert weir.holds[0].action == "sql:delete public.t" or "sql:delete" in weir.holds[0].action
    weir.talk(query("ROLLBACK"))
    weir.close()


def test_what_comes_during_a_hold_waits_its_turn(port: int) -> None:
    weir = Pump(port, "app", "shop", TableGate(hold={("sql:delete", "t")}))
    weir.send(query("DELETE FROM t WHERE id = 20") + query("SELECT count(*) FROM t WHERE id = 20"))
    assert weir.layer.state == "held"
    weir.tell(inputs.HoldAnswered(weir.holds[0].operation, "approved", "local:dba", "", "T-1"))
    assert shape(weir.until_ready(2)) == ["C DELETE 1", "Z I", "T", "D 0", "C SELECT 1", "Z I"]
    weir.talk(query("INSERT INTO t VALUES (20, 'note 20')"))
    weir.close()


LABELS = (ColumnLabel("pii.email", "public", "people", "email", "constant:hidden"),)
PEOPLE = "SELECT id, email FROM people ORDER BY id"


@pytest.mark.parametrize("cut", CUTS)
def test_masks_in_every_protocol(port: int, cut: int) -> None:
    weir = Pump(port, "app", "shop", TableGate(), labels=LABELS, cut=cut)
    text = "SELECT id, email FROM people ORDER BY id"
    rows = ["D 1,hidden", "D 2,NULL"]

    def told(*messages: bytes) -> list[str]:
        return [line for line in shape(weir.talk(*messages)) if line.startswith(("D", "E"))]

    assert told(query(text)) == rows
    assert told(parse(text), bind(), execute(), SYNC) == rows
    assert told(parse(text), bind(), describe("P"), execute(), SYNC) == rows
    assert told(parse(text), bind(binary=True), execute(), SYNC)[0].endswith(",hidden")
    weir.talk(query("BEGIN"))
    weir.talk(query(f"DECLARE c CURSOR FOR {text}"))
    assert told(query("FETCH 1 FROM c")) == rows[:1]
    assert told(execute("c", 1), SYNC) == rows[1:]
    weir.talk(query("COMMIT"))
    weir.talk(query(f"PREPARE q AS {text}"))
    assert told(query("EXECUTE q")) == rows
    assert told(bind(name="q"), execute(), SYNC) == rows
    weir.close()


@pytest.mark.parametrize("text", [
    "SELECT upper(email) FROM people", "SELECT p FROM people p", "SELECT id FROM people WHERE email LIKE 'a%'",
    "COPY people TO STDOUT", "SELECT row_to_json(people) FROM people", "INSERT INTO big SELECT id, email FROM people",
    "SELECT id FROM people ORDER BY email", "CREATE TABLE copied AS SELECT * FROM people",
])
def test_what_cannot_be_told_is_refused(port: int, text: str) -> None:
    weir = Pump(port, "app", "shop", TableGate(), labels=LABELS)
    got = weir.talk(query(text))
    assert shape(got)[0] == "E 42501"
    assert "email" in fields(got[0][1])["M"]
    weir.close()


def test_a_huge_row_streams(port: int) -> None:
    """40 MB in one value pass in pieces: the layer never keeps more than a read."""
    weir = Pump(port, "app", "shop", TableGate())
    weir.send(query("SELECT repeat('x', 40000000) AS body"))
    total = 0
    while True:
        weir.step()
        total += len(weir.client)
        over = weir.client.endswith(pump.render(b"Z", b"I"))
        weir.client = b""
        assert weir.layer._conversation._answers.framing.waiting < 1 << 17  # type: ignore[union-attr]
        if over:
            break
    assert total > 40_000_000
    weir.close()


@pytest.mark.parametrize("garbage", [
    pump.render(b"?", b"x"), b"Q\0\0\0\3", b"Q\x7f\xff\xff\xff", pump.render(b"p", b"x\0"),
    pump.render(b"B", b"\0\0\0"),
    pump.render(b"E", b"x"), pump.render(b"D", b"X\0"), b"\x16\x03\x01\x02\x00\x01",
])
def test_garbage_ends_the_session(port: int, garbage: bytes) -> None:
    weir = Pump(port, "app", "shop", TableGate())
    weir.to_server = b""
    got = weir.talk(garbage)
    assert fields(got[-1][1])["S"] == "FATAL"
    assert weir.closed
    assert weir.to_server in (b"", pump.render(b"X"))
    assert any(isinstance(e, events.SessionClosed) for e in weir.events(events.SessionClosed))
    weir.close()


@pytest.mark.parametrize("name", [
    "SELECT pg_read_file('/etc/passwd')", "DO $$ BEGIN END $$", "COPY t TO PROGRAM 'id'", "SET ROLE postgres",
    "SET standard_conforming_strings = off", "SET client_encoding = 'LATIN1'", "SELECT * FROM pg_authid; SELEC",
])
def test_what_changes_how_text_is_read_does_not_pass(port: int, name: str) -> None:
    gate = TableGate(deny={("sql:call", "*"), ("sql:do", "*"), ("sql:copy-file", "*"), ("sql:set-role", "*")})
    weir = Pump(port, "app", "shop", gate)
    weir.to_server = b""
    assert shape(weir.talk(query(name)))[0].startswith("E ")
    assert name.encode() not in weir.to_server
    weir.close()


@pytest.mark.parametrize(("ask", "times"), [
    ((describe("P"),), 1), ((), 1), ((describe("S"),), 2), ((describe("P"), FLUSH), 1), ((describe("P", "other"),), 2),
])
def test_rows_are_described_once_where_the_client_has_asked(port: int, ask: tuple[bytes, ...], times: int) -> None:
    """Describes that the server gets for one Execute, the client's own and Weir's."""
    weir = Pump(port, "app", "shop", TableGate(), labels=LABELS)
    begun = len(weir.to_server)
    got = weir.talk(parse(PEOPLE), bind(), bind(portal="other"), *ask, execute(), SYNC)
    assert [line for line in shape(got) if line.startswith("D ")] == ["D 1,hidden", "D 2,NULL"]
    assert [kind for kind, _ in pump.split(weir.to_server[begun:])].count(b"D") == times
    weir.close()


def test_a_describe_of_a_batch_that_failed_tells_nothing(port: int) -> None:
    """Its portal is from before the savepoint, so it lives on: its rows are asked for when it is executed."""
    weir = Pump(port, "app", "shop", TableGate(), labels=LABELS)
    weir.talk(query("BEGIN"))
    weir.talk(parse(PEOPLE), bind(portal="p"), SYNC)
    weir.talk(query("SAVEPOINT s"))
    assert shape(weir.talk(execute("none"), describe("P", "p"), SYNC)) == ["E 34000", "Z E"]
    weir.talk(query("ROLLBACK TO s"))
    got = weir.talk(execute("p"), SYNC)
    assert [line for line in shape(got) if line.startswith("D ")] == ["D 1,hidden", "D 2,NULL"]
    weir.close()


def test_a_column_renamed_in_this_transaction_stays_masked(port: int) -> None:
    """The catalogue knows the column by its number; without a Describe of the client's Weir asks for itself."""
    weir = Pump(port, "app", "shop", TableGate(), labels=LABELS)
    weir.talk(query("BEGIN"))
    weir.talk(query("ALTER TABLE people RENAME COLUMN email TO nobody"))
    got = weir.talk(parse("SELECT id, nobody FROM people ORDER BY id"), bind(), execute(), SYNC)
    assert not [line for line in shape(got) if "ada@" in line]
    weir.talk(query("ROLLBACK"))
    weir.close()


def test_a_column_that_came_after_the_catalogue_is_not_shown(port: int) -> None:
    """Somebody else drops a labelled column and adds one of the same name: its number is not known, so it is NULL."""
    weir = Pump(port, "app", "shop", TableGate(), labels=(ColumnLabel("pii.note", "public", "reborn", "note"),))
    other = Direct(port, "app", "shop")
    other.talk(query("CREATE TABLE reborn (id int, note text)"))
    weir.close()
    weir = Pump(port, "app", "shop", TableGate(), labels=(ColumnLabel("pii.note", "public", "reborn", "note"),))
    other.talk(query("ALTER TABLE reborn DROP COLUMN note; ALTER TABLE reborn ADD COLUMN note text DEFAULT 'secret'"))
    other.talk(query("INSERT INTO reborn (id) VALUES (1)"))
    assert "D 1,NULL" in shape(weir.talk(query("SELECT id, note FROM reborn")))
    assert "D 1,[redacted]" in shape(weir.talk(query("SELECT id, note FROM reborn")))
    other.talk(query("DROP TABLE reborn"))
    other.close()
    weir.close()
