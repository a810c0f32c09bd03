"""Attacks on the session: names, races, holds, masks, hostile peers.  Against a real server where one can be.

Each test is a way by which something was, or could have been, run or shown that Weir judged as another.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import msgspec
import pytest
from pump import FLUSH, SYNC, Pump, TableGate, bind, close, describe, execute, parse, query, render, shape, split
from scripted import ASKED, LOGIN, PEOPLE, Scripted, open_intents, row

from agent.contract.journal import BODY_LIMIT
from agent.contract.target import ColumnLabel
from enforcer.protocols.postgresql import names
from enforcer.protocols.postgresql.layer import PostgresqlLayer
from enforcer.words import commands as words
from enforcer.words import events, inputs
from enforcer.words.commands import CLIENT, SERVER
from enforcer.words.errors import ProtocolError

LABELS = (ColumnLabel("pii.email", "public", "people", "email", "constant:hidden"),)
ADA = b"ada@x.example"
NO_SECRET = {("sql:select", "secret")}
Open = Callable[..., Pump]


@pytest.fixture
def weir(port: int) -> Iterator[Open]:
    """Opens sessions; closes them afterwards."""
    opened: list[Pump] = []

    def make(gate: TableGate | None = None, labels: tuple[ColumnLabel, ...] = (), **more: object) -> Pump:
        opened.append(Pump(port, "app", "shop", gate or TableGate(), labels=labels, **more))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def ask(session: Pump, *texts: str) -> list[str]:
    """The last one's answer."""
    got: list[str] = []
    for text in texts:
        got = shape(session.talk(query(text)))
    return got


def rows(messages: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(body for kind, body in messages if kind == b"D")


def approve(session: Pump, state: str = "approved") -> None:
    session.tell(inputs.HoldAnswered(session.holds[-1].operation, state, "local:dba", "", "T-1"))


# ---- 1. what is judged is what runs


def test_an_approval_is_not_another_operations(weir: Open) -> None:
    """What was held is given up (its batch failed before it); the approval that comes then approves nothing else."""
    session = weir(TableGate(hold={("sql:delete", "t")}))
    session.send(parse("SELECT pg_sleep(0.2), 1 / 0") + bind() + execute() + FLUSH)
    session.send(parse("DELETE FROM t WHERE id = -1", "d") + bind(name="d", portal="d"))
    assert len(session.holds) == 1
    while b"22012" not in session.client:
        session.step()
    approve(session)
    session.send(SYNC)
    assert shape(session.until_ready())[-2:] == ["E 22012", "Z I"]
    session.send(query("DELETE FROM t"))
    assert len(session.holds) == 2
    assert b"DELETE FROM t\0" not in session.to_server
    approve(session, "denied")
    assert shape(session.until_ready()) == ["E 42501", "Z I"]


def test_a_hold_of_a_failed_batch_is_cancelled(weir: Open) -> None:
    session = weir(TableGate(hold={("sql:delete", "t")}))
    cancelled: list[words.Command] = []
    do = session.do

    def see(commands: list[words.Command]) -> None:
        cancelled.extend(c for c in commands if isinstance(c, words.CancelHold))
        do(commands)

    session.do = see  # type: ignore[method-assign]
    session.send(parse("SELECT pg_sleep(0.2), 1 / 0") + bind() + execute() + FLUSH)
    session.send(parse("DELETE FROM t WHERE id = -1", "d") + bind(name="d", portal="d") + execute("d") + SYNC)
    assert shape(session.until_ready())[-2:] == ["E 22012", "Z I"]
    assert len(cancelled) == 1
    assert ask(session, "SELECT 1") == ["T", "D 1", "C SELECT 1", "Z I"]


def test_a_denied_hold_refuses_nothing_else(weir: Open) -> None:
    session = weir(TableGate(hold={("sql:delete", "t")}))
    session.send(parse("SELECT pg_sleep(0.2), 1 / 0") + bind() + execute() + FLUSH)
    session.send(parse("DELETE FROM t WHERE id = -1", "d") + bind(name="d", portal="d"))
    while b"22012" not in session.client:
        session.step()
    approve(session, "denied")
    session.send(SYNC)
    session.until_ready()
    assert ask(session, "SELECT 1") == ["T", "D 1", "C SELECT 1", "Z I"]


def test_other_holds_than_those_that_were_asked_hold_again(weir: Open) -> None:
    """Policy changes while the approver thinks: the approval was asked of other people."""
    from enforcer.words.decisions import HOLD, Decision, HoldTerms

    class Gate(TableGate):
        approvers = "dev"

        def decide(self, *arguments: object, **more: object) -> Decision:  # type: ignore[override]
            found = super().decide(*arguments, **more)  # type: ignore[arg-type]
            if found.outcome != HOLD:
                return found
            return Decision(HOLD, (self.approvers,), holds=(HoldTerms(self.approvers, (self.approvers,)),))

    gate = Gate(hold={("sql:delete", "t")})
    session = weir(gate)
    session.send(query("DELETE FROM t WHERE id = -1"))
    gate.approvers, gate.version = "dba", 2
    approve(session)
    assert [hold.terms[0].rule for hold in session.holds] == ["dev", "dba"]
    assert b"DELETE" not in session.to_server
    approve(session)
    assert "C DELETE 0" in shape(session.until_ready())


def test_policy_that_denies_meanwhile_denies(weir: Open) -> None:
    gate = TableGate(hold={("sql:delete", "t")})
    session = weir(gate)
    session.send(query("DELETE FROM t WHERE id = -1"))
    gate.deny, gate.version = {("sql:delete", "t")}, 2
    approve(session)
    assert shape(session.until_ready()) == ["E 42501", "Z I"]
    assert b"DELETE" not in session.to_server


def test_set_local_ends_with_its_sync(weir: Open) -> None:
    """SET LOCAL in a pipeline lasts until the Sync: what is sent right behind it means what it meant before."""
    session = weir(TableGate(deny={("sql:select", "secret")}))
    ask(session, "CREATE TABLE IF NOT EXISTS other.secret (id int, key text)")
    session.send(parse("SET LOCAL search_path = other") + bind() + execute() + FLUSH)
    ran = bind(name="n", portal="n") + execute("n")
    session.send(parse("SELECT note FROM t WHERE id IN (1, 77)", "n") + ran + FLUSH)
    while b"the other t" not in session.client:
        session.step()
    requests = len(session.intents())
    session.send(SYNC + ran + SYNC)
    session.until_ready(2)
    named = [resource for intent in session.intents()[requests:] for _, resource in intent.requests]
    assert named
    assert set(named) == {"public.t"}


def test_what_a_roll_back_means_to_the_rest_of_its_string(weir: Open) -> None:
    session = weir(TableGate(deny={("sql:select", "secret")}))
    ask(session, "CREATE TABLE IF NOT EXISTS other.t (id int, note text)")
    gate = TableGate()
    gate.decide = _only(gate, "public.t")  # type: ignore[method-assign]
    session = weir(gate)
    assert ask(session, "SELECT note FROM t WHERE id = 1")[0] == "E 42501"
    for end in ("ROLLBACK", "COMMIT"):
        ask(session, "BEGIN", "SET LOCAL search_path = other", "SELECT note FROM t")
        got = ask(session, f"{end}; SELECT note FROM t WHERE id = 1")
        assert not any(line.startswith("D") for line in got), got
        ask(session, "ROLLBACK")
    ask(session, "BEGIN", "SAVEPOINT s", "SET search_path = other", "SELECT note FROM t")
    got = ask(session, "ROLLBACK TO s; SELECT note FROM t WHERE id = 1")
    assert not any(line.startswith("D") for line in got), got
    ask(session, "ROLLBACK")
    ask(session, "BEGIN", "SET LOCAL search_path = other", "SELECT note FROM t", "SELECT 1 / 0")
    got = ask(session, "ROLLBACK; SELECT note FROM t WHERE id = 1")
    assert not any(line.startswith("D") for line in got), got


def _only(gate: TableGate, forbidden: str) -> Callable[..., object]:
    """Denies one qualified table."""
    from enforcer.words.decisions import DENY, Decision

    plain = TableGate.decide

    def decide(principal: object, requests: object, *rest: object, **more: object) -> object:
        if any(request.resource == forbidden for request in requests):  # type: ignore[attr-defined]
            return Decision(DENY, ("no",), "no")
        return plain(gate, principal, requests, *rest, **more)  # type: ignore[arg-type]
    return decide


@pytest.mark.parametrize("text", [
    "COPY t TO STDOUT", "LOCK t", "EXPLAIN SELECT * FROM t", "DECLARE d CURSOR FOR SELECT * FROM t"])
def test_a_portal_of_a_utility_means_what_it_means_when_it_runs(weir: Open, text: str) -> None:
    """COPY, LOCK and their like look names up when they are executed, not when they are bound."""
    gate = TableGate()
    gate.decide = _only(gate, "other.t")  # type: ignore[method-assign]
    session = weir(gate)
    ask(session, "BEGIN")
    session.talk(parse(text, "u"), bind(name="u", portal="u"), SYNC)
    ask(session, "SET search_path = other")
    got = shape(session.talk(execute("u"), SYNC))
    assert got[0].startswith("E"), got
    ask(session, "ROLLBACK")


def test_a_portal_of_a_query_means_what_it_was_bound_to(weir: Open) -> None:
    session = weir()
    ask(session, "BEGIN")
    session.talk(parse("SELECT note FROM t WHERE id IN (1, 77)", "u"), bind(name="u", portal="u"), SYNC)
    ask(session, "SET search_path = other")
    assert shape(session.talk(execute("u"), SYNC)) == ["D note 1", "C SELECT 1", "Z T"]


def test_a_shadow_that_is_dropped_in_the_transaction(weir: Open) -> None:
    """Weir cannot see the transaction's DDL: the name may mean the next table along the path."""
    session = weir(TableGate())
    ask(session, "CREATE TEMP TABLE secret (id int, key text)")
    session.context.gate.deny = set()  # type: ignore[attr-defined]
    gate = session.context.gate
    gate.decide = _only(gate, "public.secret")  # type: ignore[method-assign,arg-type]
    gate.version = 2  # type: ignore[misc]
    assert ask(session, "SELECT key FROM secret") == ["T", "C SELECT 0", "Z I"]
    ask(session, "BEGIN", "DROP TABLE pg_temp.secret")
    got = ask(session, "SELECT key FROM secret")
    assert "D k1" not in got
    assert got[0] == "E 42501"


def test_a_question_that_fails_is_asked_again() -> None:
    """Weir's own question about names can be cancelled by the client (statement_timeout, a cancel request)."""
    session = Scripted()
    session.send(query("SET search_path = other"))
    session.hear(render(b"C", b"SET\0") + render(b"Z", b"I"))
    for _ in range(3):
        session.client = session.to_server = b""
        session.send(query("SELECT id FROM t"))
        assert b"weir_asks" in session.to_server
        session.hear(_error("57014") + render(b"Z", b"I"))
        session.hear(_error("34000") + render(b"Z", b"I"))
        assert shape(split(session.client)) == ["E 57014", "Z I"]
        assert b"SELECT id" not in session.to_server


def _error(code: str, severity: str = "ERROR", **more: str) -> bytes:
    told = {"S": severity, "V": severity, "C": code, "M": "words", **more}
    return render(b"E", b"".join(k.encode() + v.encode() + b"\0" for k, v in told.items()) + b"\0")


def test_a_cursor_of_a_text_that_also_prepares(weir: Open) -> None:
    """Executing the cursor's portal must not bring back what the text had prepared then."""
    session = weir(labels=LABELS)
    ask(session, "BEGIN", "PREPARE q AS SELECT 'x'; DECLARE c CURSOR FOR SELECT 2", "DEALLOCATE q",
        "PREPARE q AS SELECT email FROM people WHERE id = 1")
    session.talk(execute("c"), SYNC)
    got = session.talk(bind(name="q"), execute(), SYNC)
    assert ADA not in rows(got)
    assert "D hidden" in shape(got)


def test_a_portal_of_what_sql_prepared(weir: Open) -> None:
    session = weir(labels=LABELS)
    ask(session, "BEGIN", "PREPARE q AS SELECT 'x'")
    session.talk(bind(name="q", portal="p"), SYNC)
    ask(session, "DEALLOCATE q", "PREPARE q AS SELECT email FROM people WHERE id = 1")
    session.talk(execute("p"), SYNC)
    got = session.talk(bind(name="q"), execute(), SYNC)
    assert ADA not in rows(got)
    assert shape(got)[-1] in ("Z T", "Z E")


def test_a_name_prepared_twice_in_one_string(weir: Open) -> None:
    session = weir(labels=LABELS)
    ask(session, "PREPARE q AS SELECT name FROM people; DEALLOCATE q; PREPARE q AS SELECT email FROM people")
    assert ADA not in rows(session.talk(bind(name="q"), execute(), SYNC))


@pytest.mark.parametrize("name", ["weir: a portal that cannot exist", "weir_asks_what_names_mean"])
def test_weirs_own_names_are_nobodys(weir: Open, name: str) -> None:
    for way in ("bind", "parse", "declare", "prepare"):
        session = weir(TableGate(deny=NO_SECRET))
        ask(session, "BEGIN")
        session.to_server = b""
        if way == "bind":
            session.talk(parse("DELETE FROM t WHERE id = -1"), bind(portal=name), SYNC)
        elif way == "parse":
            session.talk(parse("SELECT 1", name), SYNC)
        elif way == "declare":
            ask(session, f'DECLARE "{name}" CURSOR FOR SELECT 1')
        else:
            ask(session, f'PREPARE "{name}" AS SELECT 1')
        assert b"DECLARE" not in session.to_server
        assert b"PREPARE" not in session.to_server
        if way == "bind":
            assert name.encode() + b"\0\0" not in session.to_server


@pytest.mark.parametrize("length", [63, 64, 200])
def test_long_names(weir: Open, length: int) -> None:
    session = weir(TableGate(deny=NO_SECRET))
    name = "n" * length
    got = session.talk(parse("SELECT 1", name), SYNC)
    if length > 63:
        assert session.closed
    else:
        assert shape(got) == ["1", "Z I"]
        assert shape(session.talk(bind(name=name), execute(), SYNC))[-2:] == ["C SELECT 1", "Z I"]
        assert ask(session, f"PREPARE {name}more AS SELECT 2")[0] == "E 42P05"
        assert ask(session, f"EXECUTE {name}") == ["T", "D 1", "C SELECT 1", "Z I"]


def test_names_after_an_error_are_as_before(weir: Open) -> None:
    """Parse skipped by the server after an error: the old statement stays."""
    session = weir(TableGate(deny={("sql:delete", "t")}))
    session.talk(parse("SELECT 'old'", "s"), SYNC)
    session.talk(parse("SELECT 1 / 0"), bind(), execute(), close("S", "s"), parse("SELECT 'new'", "s"), SYNC)
    assert "D old" in shape(session.talk(bind(name="s"), execute(), SYNC))
    session.talk(close("S", "s"), parse("SELECT 'new'", "s"), SYNC)
    assert "D new" in shape(session.talk(bind(name="s"), execute(), SYNC))
    session.talk(parse("SELECT 'third'", "s"), SYNC)
    assert "D new" in shape(session.talk(bind(name="s"), execute(), SYNC))


def test_pipelined_batches_with_errors_between(weir: Open) -> None:
    session = weir()
    got = shape(session.talk(
        parse("SELECT 'a'", "s"), SYNC,
        parse("SELECT 1 / 0", "e"), bind(name="e"), execute(), close("S", "s"), SYNC,
        bind(name="s"), execute(), SYNC,
        close("S", "s"), parse("SELECT 'b'", "s"), bind(name="s"), execute(), SYNC,
        query("DEALLOCATE s"), bind(name="s"), SYNC,
        parse("SELECT 'c'", "s"), bind(name="s"), execute(), SYNC, ready=7))
    assert [line for line in got if line[0] in "DEZ"] == [
        "Z I", "E 22012", "Z I", "D a", "Z I", "D b", "Z I", "Z I", "E 26000", "Z I", "D c", "Z I"]


def test_the_unnamed_statement_after_a_query(weir: Open) -> None:
    session = weir()
    session.talk(parse("SELECT 1"), SYNC)
    assert shape(session.talk(query("SELECT 2"), bind(), execute(), SYNC, ready=2))[-2:] == ["E 26000", "Z I"]


def test_deallocate_all_leaves_the_unnamed_statement(weir: Open) -> None:
    session = weir()
    session.talk(
        parse("SELECT 1", "n"), parse("DEALLOCATE ALL", "d"), bind(name="d"), parse("SELECT 3"), execute(), SYNC)
    assert shape(session.talk(bind(), execute(), SYNC)) == ["2", "D 3", "C SELECT 1", "Z I"]
    assert shape(session.talk(bind(name="n"), SYNC)) == ["E 26000", "Z I"]


def test_execute_with_row_limits_under_a_new_policy(weir: Open) -> None:
    gate = TableGate()
    session = weir(gate)
    ask(session, "BEGIN")
    text = "SELECT key FROM secret ORDER BY id"
    assert shape(session.talk(parse(text), bind(portal="p"), execute("p", 1), SYNC)) == [
        "1", "2", "D k1", "s", "Z T"]
    gate.deny, gate.version = {("sql:select", "secret")}, 2
    assert shape(session.talk(execute("p", 1), SYNC)) == ["E 42501", "Z E"]


def test_a_cursor_with_hold_is_judged_at_each_fetch(weir: Open) -> None:
    gate = TableGate()
    session = weir(gate)
    ask(session, "DECLARE c CURSOR WITH HOLD FOR SELECT key FROM secret ORDER BY id")
    assert ask(session, "FETCH 1 FROM c") == ["T", "D k1", "C FETCH 1", "Z I"]
    gate.deny, gate.version = {("sql:select", "secret")}, 2
    assert ask(session, "FETCH 1 FROM c")[0] == "E 42501"
    assert shape(session.talk(execute("c"), SYNC))[0] == "E 42501"


def test_two_copies_in_one_string(weir: Open) -> None:
    """A client that sends all its data at once: none of it is lost."""
    session = weir()
    ask(session, "BEGIN")
    copy = render(b"d", b"901\tx\n") + render(b"c")
    text = "COPY t (id, note) FROM STDIN; COPY big (id, body) FROM STDIN; SELECT 5"
    got = shape(session.talk(query(text), copy, copy))
    assert got == ["G", "C COPY 1", "G", "C COPY 1", "T", "D 5", "C SELECT 1", "Z T"]
    ask(session, "ROLLBACK")


BORN = (ColumnLabel("pii.email", "public", "people", "email"), ColumnLabel("pii.born", "public", "people", "born"))


@pytest.mark.parametrize("messages", [
    [query("INSERT INTO people (id, born) VALUES (91, '18151210 hush')")],
    [parse("INSERT INTO people (id, born) VALUES (91, $1::text::date)"), bind("18151210 hush"), execute(), SYNC],
    [query("COPY people (id, email) FROM STDIN"), render(b"d", b"91\thush\n"), render(b"f", b"no\0")],
    [query("COPY people (id, born) FROM STDIN"), render(b"d", b"91\thush\n"), render(b"c")],
    [query("COPY people FROM STDIN"), render(b"d", b"91\tx\thush\t\\N\n"), render(b"f", b"no\0")]])
def test_what_flows_into_a_labelled_column_is_in_no_blob(weir: Open, messages: list[bytes]) -> None:
    """Nor in what the server says of it, nor in the payload of a COPY."""
    session = weir(labels=BORN, payload="rows")
    session.talk(*messages)
    assert any(one.status == "error" and one.error for one in session.events(events.Result))
    assert not any(b"hush" in content for record in session.records for _, _, content in record.blobs)


def test_what_flows_into_no_labelled_column_is_recorded(weir: Open) -> None:
    session = weir(labels=BORN, payload="rows")
    session.talk(query("COPY people (id, name) FROM STDIN"), render(b"d", b"no number\tshown\n"), render(b"c"))
    contents = [content for record in session.records for _, _, content in record.blobs]
    assert render(b"d", b"no number\tshown\n") in contents
    assert any(b"no number" in one and b"invalid input" in one for one in contents)


def test_goodbye_during_copy(weir: Open) -> None:
    session = weir()
    session.send(query("COPY t (id, note) FROM STDIN"))
    while b"G" not in session.client:
        session.step()
    session.send(render(b"d", b"901\tx\n") + render(b"X"))
    assert not session.closed
    session.tell(inputs.ConnectionLost(CLIENT))
    other = weir()
    assert ask(other, "SELECT count(*) FROM t WHERE id = 901") == ["T", "D 0", "C SELECT 1", "Z I"]


def test_nothing_is_heard_after_goodbye(weir: Open) -> None:
    session = weir()
    session.to_server = b""
    session.send(render(b"X") + query("SELECT 1"))
    assert session.to_server == render(b"X")


@pytest.mark.parametrize("text", [b"SELECT 1\0DELETE FROM t\0", b"SELECT 1", b""])
def test_a_query_is_one_string(weir: Open, text: bytes) -> None:
    session = weir()
    session.to_server = b""
    session.send(render(b"Q", text))
    assert b"SELECT" not in session.to_server


# ---- 2. no labelled row unmasked


def told(session: Pump, *messages: bytes) -> list[str]:
    return [line for line in shape(session.talk(*messages)) if line[0] in "DE"]


def test_a_cursor_redeclared_between_bind_and_execute(weir: Open) -> None:
    """The portal of FETCH describes the cursor that was there when it was bound; its rows come from the one that is."""
    session = weir(labels=LABELS)
    ask(session, "BEGIN", "DECLARE c CURSOR FOR SELECT name FROM people WHERE id = 1")
    session.talk(parse("FETCH ALL FROM c", "f"), bind(name="f", portal="p"), describe("P", "p"), SYNC)
    ask(session, "CLOSE c", "DECLARE c CURSOR FOR SELECT email FROM people WHERE id = 1")
    got = session.talk(execute("p"), SYNC)
    assert ADA not in rows(got), shape(got)


def test_a_statement_prepared_anew_between_bind_and_execute(weir: Open) -> None:
    session = weir(labels=LABELS)
    ask(session, "BEGIN", "PREPARE q AS SELECT name FROM people WHERE id = 1")
    session.talk(parse("EXECUTE q", "f"), bind(name="f", portal="p"), describe("P", "p"), SYNC)
    ask(session, "DEALLOCATE q", "PREPARE q AS SELECT email FROM people WHERE id = 1")
    got = session.talk(execute("p"), SYNC)
    assert ADA not in rows(got), shape(got)


def test_a_portal_bound_before_labels_were_withdrawn(weir: Open) -> None:
    """Policy changes while a portal is suspended: what is asked for from then on is masked."""
    gate = TableGate(unmasked={"pii.email"})
    session = weir(gate, labels=LABELS)
    ask(session, "BEGIN")
    text = "SELECT email FROM people JOIN generate_series(1, 9) AS n ON true ORDER BY people.id"
    assert told(session, parse(text), bind(portal="p"), execute("p", 1), SYNC) == ["D ada@x.example"]
    gate.unmasked, gate.version = set(), 2
    assert told(session, execute("p", 1), SYNC) == ["D hidden"]
    assert told(session, execute("p", 1), execute("p", 1), SYNC) == ["D hidden", "D hidden"]


def test_a_table_made_anew_by_somebody_else(weir: Open) -> None:
    """Weir's catalogue is of before: the name is labelled, the number is not known."""
    owner = weir()
    owner.talk(query("DROP TABLE IF EXISTS anew"))
    owner.talk(query("CREATE TABLE anew (id int, email text); INSERT INTO anew VALUES (1, 'ada@x.example')"))
    session = weir(labels=(ColumnLabel("pii.email", "public", "anew", "email", "constant:hidden"),))
    read = "SELECT id, email FROM anew"
    anew = query("DROP TABLE anew; CREATE TABLE anew (id int, email text); "
                 "INSERT INTO anew VALUES (1, 'ada@x.example')")
    assert told(session, query(read)) == ["D 1,hidden"]
    owner.talk(anew)
    assert ADA not in rows(session.talk(query(read)))
    assert told(session, query(read)) == ["D 1,hidden"]
    owner.talk(anew)
    assert ADA not in rows(session.talk(parse(read), bind(), execute(), SYNC))
    assert told(session, parse(read), bind(), execute(), SYNC) == ["D 1,hidden"]
    owner.talk(query("DROP TABLE anew"))


def test_a_table_that_becomes_a_partition(weir: Open) -> None:
    owner = weir()
    owner.talk(query("CREATE TABLE whole (id int, email text) PARTITION BY LIST (id);"
                     "CREATE TABLE part PARTITION OF whole FOR VALUES IN (1);"
                     "INSERT INTO whole VALUES (1, 'ada@x.example')"))
    session = weir(labels=(ColumnLabel("pii.email", "public", "whole", "email", "constant:hidden"),))
    for text in ("SELECT email FROM whole", "SELECT email FROM part", "TABLE part", "SELECT * FROM ONLY part"):
        for messages in ([query(text)], [parse(text), bind(), execute(), SYNC],
                         [parse(text), bind(), describe("P"), execute(), SYNC]):
            assert ADA not in rows(session.talk(*messages))
    owner.talk(query("DROP TABLE whole"))


def test_rows_without_a_description_are_not_shown() -> None:
    for asked in (query("SELECT name FROM people"), parse("SELECT 1 AS x") + bind() + execute() + SYNC):
        session = Scripted(labels=LABELS)
        session.send(asked)
        if asked[:1] == b"P":
            session.hear(render(b"1") + render(b"2"))
            session.layer._conversation._state.expected.popleft()  # type: ignore[union-attr]  # as if not described
        session.hear(row(b"x"))
        assert session.closed
        assert b"D" not in [kind for kind, _ in split(session.client)]


COLUMN = PEOPLE.to_bytes(4, "big")
DESCRIBED = render(b"T", b"\0\2" + b"id\0" + COLUMN + b"\0\1\0\0\0\x17\0\4\xff\xff\xff\xff\0\0" +
                   b"email\0" + COLUMN + b"\0\3\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0")


@pytest.mark.parametrize("body", [
    b"\0\0", b"\0\1\0\0\0\1x", b"\0\3" + b"\0\0\0\1x" * 3, b"\0\2\0\0\0\1x\0\0\0\x09y", b"\0\2\0\0\0\1x\0\0\0\1yz",
    b"\0\2\0\0\0\1x\xff\xff\xff\xfe", b"", b"\0",
])
def test_rows_that_are_not_as_described(body: bytes) -> None:
    session = Scripted(labels=LABELS)
    session.send(query("SELECT id, email FROM people"))
    session.hear(DESCRIBED + render(b"D", body))
    assert session.closed
    assert not [kind for kind, _ in split(session.client) if kind == b"D"]


@pytest.mark.parametrize("cut", [1, 2, 11, 1000])
def test_a_masked_row_larger_than_a_read(weir: Open, cut: int) -> None:
    owner = weir()
    owner.talk(query("UPDATE people SET name = repeat('n', 5000) WHERE id = 1"))
    session = weir(labels=LABELS, cut=cut)
    try:
        for messages in ([query("SELECT name, email FROM people ORDER BY id")],
                         [parse("SELECT name, email FROM people ORDER BY id"), bind(), execute(), SYNC]):
            got = session.talk(*messages)
            assert ADA not in rows(got)
            assert len(rows(got)) > 5000
            assert "D Bob,NULL" in shape(got)
    finally:
        owner.talk(query("UPDATE people SET name = 'Ada' WHERE id = 1"))


def test_a_notice_of_a_hold_does_not_cut_a_row(weir: Open) -> None:
    """The ticket is told while a large row of an earlier statement is on its way."""
    session = weir(TableGate(hold={("sql:delete", "t")}), cut=1 << 12)
    session.send(parse("SELECT repeat('x', 3000000)") + bind() + execute() + SYNC)
    while len(session.client) < 10_000:
        session.step()
    session.send(query("DELETE FROM t WHERE id = -1"))
    approve(session)
    got = session.until_ready(2)
    assert [kind for kind, _ in got if kind not in b"N"] == [b"1", b"2", b"D", b"C", b"Z", b"C", b"Z"]
    assert len(rows(got)) > 3_000_000


# ---- 3. hostile server

BODIES = (b"", b"\0", b"I", b"x\0", b"\0\0", b"\0\0\0\0", b"\xff" * 9)
STATES: dict[str, tuple[bytes, bytes]] = {          # what the client sends, what the server has said
    "idle": (b"", b""),
    "query": (query("SELECT 1"), b""),
    "rows": (query("SELECT email FROM people"), DESCRIBED),
    "half a row": (query("SELECT email FROM people"), DESCRIBED + row(b"1", b"x")[:9]),
    "half a streamed row": (query("SELECT 1"), render(b"T", b"\0\0") + row(b"12345")[:9]),
    "extended": (parse("SELECT 1") + bind() + describe("P") + execute() + SYNC, b""),
    "bound": (parse("SELECT 1") + bind() + execute() + SYNC, render(b"1") + render(b"2")),
    "denied": (query("DELETE FROM people"), b""),
    "copy in": (query("COPY t FROM STDIN"), render(b"G", b"\0\0\1\0\0")),
    "copy out": (query("COPY t TO STDOUT"), render(b"H", b"\0\0\1\0\0")),
    "held": (query("DELETE FROM t"), b""),
    "asking": (query("SET search_path = other") + query("SELECT 1"), render(b"C", b"SET\0") + render(b"Z", b"I")),
}


@pytest.mark.parametrize("state", STATES)
def test_every_message_of_the_server_in_every_state(state: str) -> None:
    """It is answered in order or the session ends: no exception, no byte to anybody that the protocol does not know."""
    gate = TableGate(hold={("sql:delete", "t")}, deny={("sql:delete", "people")})
    asked, said = STATES[state]
    for kind in range(256):
        for body in BODIES:
            session = Scripted(gate, LABELS if DESCRIBED in said else ())
            session.send(asked)
            session.hear(said)
            session.hear(render(bytes([kind]), body))
            session.hear(render(b"Z", b"I"))
            for one, _ in split(session.client) if "half" not in state else []:
                assert one in (b"1", b"2", b"3", b"A", b"C", b"D", b"E", b"G", b"H", b"I", b"N", b"S", b"T", b"Z", b"c",
                               b"d", b"n", b"s", b"t")
            if kind in b"KRVWv" and "half" not in state:
                assert session.closed
            if session.closed:
                assert session.layer.receive(SERVER, query("x")) == []
                assert len(session.events(events.SessionClosed)) == 1
                assert not open_intents(session)


@pytest.mark.parametrize("length", [0, 3, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x40000001])
@pytest.mark.parametrize("kind", [b"D", b"T", b"E", b"Z", b"d"])
def test_lengths_that_lie(kind: bytes, length: int) -> None:
    session = Scripted()
    session.send(query("SELECT 1"))
    session.hear(kind + length.to_bytes(4, "big") + b"x" * 20)
    assert session.closed
    assert not open_intents(session)


def test_a_large_message_is_refused_before_it_is_kept() -> None:
    session = Scripted(labels=LABELS)
    session.send(query("SELECT id, email FROM people"))
    session.hear(DESCRIBED + b"D" + (65 << 20).to_bytes(4, "big") + b"\0\2")
    assert session.closed


@pytest.mark.parametrize("said", [
    b"client_encoding\0LATIN1\0", b"client_encoding\0SQL_ASCII\0", b"standard_conforming_strings\0off\0"])
def test_settings_that_change_how_text_is_read(said: bytes) -> None:
    session = Scripted()
    session.hear(render(b"S", said))
    assert session.closed
    assert session.to_server == render(b"X")


class _Login(Scripted):
    def step(self, seconds: float = 20) -> None:
        if self.left:
            self.hear(self.left.pop(0))
        else:
            self.tell(inputs.ConnectionLost(SERVER, "over"))


def login(*script: bytes, **more: object) -> Scripted:
    return type("Login", (_Login,), {"script": script})(**more)  # type: ignore[no-any-return]


AUTHENTICATED = render(b"R", b"\0\0\0\0")


@pytest.mark.parametrize("script", [
    (_error("28P01", "FATAL"),),
    (render(b"Z", b"I"),),
    (render(b"K", b"\0" * 8),),
    (render(b"v", b"\0" * 8),),
    (render(b"D", b"\0\0"),),
    (AUTHENTICATED, render(b"Z", b"T"), LOGIN[1]),
    (LOGIN[0] + render(b"Z", b"I"),),
    (LOGIN[0], LOGIN[1] + render(b"Z", b"I")),
    (LOGIN[0], LOGIN[1] + row(b"x")),
    (LOGIN[0], LOGIN[1] + b"N\0\0"),
    (LOGIN[0], LOGIN[1].replace(b"[", b"{")),
    (LOGIN[0], LOGIN[1].replace(row(ASKED), b"")),
    (LOGIN[0], _error("57014") + render(b"Z", b"I")),
    (LOGIN[0][:-6] + render(b"S", b"server_encoding\0LATIN1\0") + render(b"Z", b"I"), LOGIN[1]),
    (AUTHENTICATED + AUTHENTICATED + LOGIN[0], LOGIN[1]),
    (AUTHENTICATED + render(b"S", b"x\0" + b"y" * 1000 + b"\0") * 3000,),
    (b"\xff" * 20,),
    (b"HTTP/1.1 400 Bad Request\r\n\r\n",),
    (b"R\0\0",),
])
def test_a_login_that_is_not_one(script: tuple[bytes, ...]) -> None:
    session = login(*script)
    assert session.closed
    assert session.hello[-1][0] == b"E"
    assert b"Z" not in [kind for kind, _ in session.hello]
    assert len(session.events(events.Refused)) == 1
    assert not open_intents(session)


# ---- 4. hostile client


def fresh() -> PostgresqlLayer:
    """A layer that has heard nothing yet."""
    return PostgresqlLayer(Scripted().context)


def packet(code: int, body: bytes = b"") -> bytes:
    return (len(body) + 8).to_bytes(4, "big") + code.to_bytes(4, "big") + body


SSL, GSS, CANCEL, V3 = 80877103, 80877104, 80877102, 196608


@pytest.mark.parametrize("sent", [
    b"\0\0\0\0\0\3\0\0", b"\0\0\0\7\0\3\0\0", b"\xff\xff\xff\xff\0\3\0\0", b"\0\0\x27\x11\0\3\0\0",
    packet(0), packet(131072, b"user\0a\0\0"), packet(262144), packet(V3), packet(V3, b"user\0app"),
    packet(V3, b"user\0app\0"), packet(V3, b"user\0\xff\0\0"), packet(V3, b"database\0shop\0\0"),
    packet(V3, b"user\0\0\0"),
    packet(V3, b"user\0app\0replication\0database\0\0"), packet(V3, b"user\0app\0replication\0true\0\0"),
    packet(V3, b"user\0app\0role\0postgres\0\0"), packet(V3, b"user\0app\0client_encoding\0LATIN1\0\0"),
    packet(V3, b"user\0app\0Client_Encoding\0SJIS\0\0"),
    packet(V3, b"user\0app\0options\0-c standard_conforming_strings=off\0\0"),
    packet(V3, b"user\0app\0options\0-c role=postgres\0\0"),
    packet(V3, b"user\0app\0options\0-crole=postgres\0\0"),
    packet(V3, b"user\0app\0options\0--role=postgres\0\0"), packet(V3, b"user\0app\0options\0-d5\0\0"),
    packet(V3, b"user\0app\0options\0-c work_mem=1\\ -c role=postgres\0\0"),
    packet(V3, b"user\0app\0options\0-c work_mem=1\\\\ -c role=postgres\0\0"),
    packet(SSL, b"x"), packet(GSS, b"x"), packet(SSL) + packet(V3, b"user\0app\0\0"),
    packet(GSS) + packet(V3, b"user\0app\0\0"), packet(CANCEL), packet(CANCEL, b"\0\0\0\1\0\0\0\2") + b"x",
    packet(CANCEL, b"\0" * 300), b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 20, b"\xff" * 20,
])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "bytes"])
def test_startup_packets(sent: bytes, whole: bool) -> None:
    """Refused in the protocol's words; nothing is dialled."""
    layer = fresh()
    commands: list[words.Command] = []
    for data in [sent] if whole else [sent[at:at + 1] for at in range(len(sent))]:
        try:
            commands += layer.receive(CLIENT, data)
        except ProtocolError as error:
            commands += layer.refuse(error)
    kinds = {type(command) for command in commands}
    if not whole and sent[8:] and sent[4:8] in (packet(SSL)[4:], packet(GSS)[4:]) and sent[-1:] == b"\0":
        return                                 # in pieces: a startup packet after the answer "N", as it should be
    assert words.OpenConnection not in kinds
    assert words.Login not in kinds
    assert not any(isinstance(c, words.SendData) and c.peer == SERVER for c in commands)
    if whole:
        assert words.CloseConnection in kinds


def test_what_is_stuffed_before_tls_is_fatal() -> None:
    """Also when it comes in a read of its own after the answer: none of it may count as encrypted (CVE-2021-23214)."""
    context = Scripted().context
    target = msgspec.structs.replace(context.target, leaf_certificate="-----")
    layer = PostgresqlLayer(replace(context, target=target))
    assert [type(c) for c in layer.receive(CLIENT, packet(SSL))] == [words.StartTls]
    with pytest.raises(ProtocolError):
        layer.receive(CLIENT, packet(V3, b"user\0app\0\0"))


def test_a_cancel_request_is_handed_on_and_nothing_else() -> None:
    layer = fresh()
    assert layer.receive(CLIENT, packet(CANCEL, b"\0\0\0\1\0\0\0\2")) == [words.CancelRequest(1, b"\0\0\0\2")]


def test_what_comes_before_the_answer_is_bounded() -> None:
    layer = fresh()
    layer.receive(CLIENT, packet(V3, b"user\0app\0database\0shop\0\0"))
    stopped = False
    with pytest.raises(ProtocolError):
        for _ in range(100):
            stopped |= any(isinstance(c, words.PauseReading) for c in layer.receive(CLIENT, b"x" * 65536))
    assert stopped


def held(session: Pump) -> int:
    """Roughly the bytes that a conversation keeps."""
    talk = session.layer._conversation
    assert talk is not None
    state, mine = talk._state, talk._state.names
    return sum((len(state.expected) * 200, len(mine._undo) * 200, len(mine.statements) * 400, len(mine.portals) * 400,
                sum(len(message) + 150 for _, message, _ in talk._inbox), talk._client.waiting,
                talk._answers.framing.waiting, len(state.book.open) * 300))


@pytest.mark.parametrize("message", [
    parse("SELECT 1"), parse("SELECT 1") + bind(), parse("SELECT 1") + bind() + execute(), SYNC, FLUSH,
    describe("S", "x"), close("S", "x"), close("P"), query("SELECT 1"), render(b"d", b"x"), render(b"c"),
], ids=["parse", "bind", "execute", "sync", "flush", "describe", "close", "close portal", "query", "copy", "copy done"])
def test_a_flood_that_is_never_answered_is_kept_in_bounds(message: bytes) -> None:
    """A million messages without an answer of the server, by a client that does not heed that it is not read."""
    session = Scripted()
    many = message * (65536 // len(message))
    for _ in range(20):
        session.send(many)
        if session.closed:
            break
    waiting = sum(len(m) for _, m, _ in session.layer._conversation._inbox)  # type: ignore[union-attr]
    # what it was told not to send is its reads; what the session itself keeps is bounded
    assert held(session) - waiting * 30 < 8 << 20


def test_a_million_statements_parsed_without_sync_are_kept_in_bounds(weir: Open) -> None:
    session = weir()
    for _ in range(20):
        session.send((parse("SELECT 1") * 1000) + FLUSH)
        while session.layer.state != "idle":
            session.step()
        session.client = b""
        assert held(session) < 8 << 20
    session.send(SYNC)
    session.until_ready()
    assert held(session) < 10_000


def test_names_that_are_closed_do_not_count(weir: Open) -> None:
    """asyncpg names each statement anew and closes it: a session lasts longer than the limit of names."""
    session = weir()
    session.send(b"".join(parse("SELECT 1", f"s{n}") + close("S", f"s{n}") for n in range(12_000)) + SYNC)
    assert b"E" not in [kind for kind, _ in session.until_ready()]
    assert held(session) < 10_000
    assert ask(session, "SELECT 1")[-2:] == ["C SELECT 1", "Z I"]


def test_ten_thousand_names(weir: Open) -> None:
    session = weir()
    session.send(b"".join(parse("SELECT 1", f"s{n}") for n in range(10_100)) + SYNC)
    assert shape(session.until_ready())[-2:] == ["E 54000", "Z I"]
    assert held(session) < 8 << 20


def test_names_of_sql_are_forgotten_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "LIMIT", 100)
    session = Scripted()
    for n in range(150):
        session.send(query(f"DECLARE c{n} CURSOR WITH HOLD FOR SELECT 1"))
        session.hear(render(b"C", b"DECLARE CURSOR\0") + render(b"Z", b"I"))
        session.client = session.to_server = b""
        session.records.clear()
    assert len(session.layer._conversation._state.names.portals) <= 100  # type: ignore[union-attr]
    session.send(query("FETCH 1 FROM c1"))
    assert b"FETCH" not in session.to_server


def test_a_bind_of_64_mib_in_small_pieces() -> None:
    import tracemalloc

    session = Scripted()
    session.send(render(b"B", b"")[:1] + (64 << 20).to_bytes(4, "big"))
    tracemalloc.start()
    try:
        for n in range(200_000):
            session.layer.receive(CLIENT, n.to_bytes(3, "big"))
        now, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now < 2 << 20
    session.send(b"x" * (64 << 20))
    assert session.closed


def test_a_bind_of_more_than_that() -> None:
    session = Scripted()
    session.send(b"B" + ((64 << 20) + 10).to_bytes(4, "big"))
    assert session.closed


def test_parameters_are_recorded_within_the_journals_limit(weir: Open) -> None:
    session = weir()
    values = ["v" * 60_000] * 150
    text = "SELECT " + " + ".join(f"length(${n + 1}::text)" for n in range(len(values)))
    got = session.talk(parse(text), bind(*values), execute(), SYNC)
    assert "C SELECT 1" in shape(got)
    assert max(len(content) for record in session.records for *_, content in record.blobs) < BODY_LIMIT // 6


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 13])
def test_half_a_message_at_the_end(cut: int) -> None:
    session = Scripted()
    session.send(query("SELECT 1")[:cut])
    session.tell(inputs.ConnectionLost(CLIENT))
    assert session.to_server == render(b"X")
    assert not open_intents(session)
