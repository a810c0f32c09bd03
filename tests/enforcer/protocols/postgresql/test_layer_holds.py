"""Holds on a real server: what the client is told, how long its own timeout lets it wait, what tells it again."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pump import FLUSH, SYNC, Pump, TableGate, bind, describe, execute, fields, parse, query, shape, split

from enforcer.policy.holds import parse_hold
from enforcer.protocols.postgresql import shapes
from enforcer.protocols.postgresql.passage import INEXACT
from enforcer.protocols.postgresql.waiting import NOTICES, TIMED_OUT
from enforcer.words import commands as words
from enforcer.words import inputs
from enforcer.words.decisions import HOLD, PERMIT, Decision
from enforcer.words.operations import Request

DELETE = "DELETE FROM t WHERE id = -1"
ORDERED = (words.Hold, words.StartTimer, words.CancelHold, words.ReturnHold, words.UseHold)


class Rule(TableGate):
    """Deletes of t are held by this rule."""

    def __init__(self, text: str = "") -> None:
        super().__init__(hold={("sql:delete", "t"), ("sql:delete", "*")})
        self.terms = parse_hold("ask", f"approvers=dba, {text}")

    def decide(self, *arguments: object, **more: object) -> Decision:  # type: ignore[override]
        found = super().decide(*arguments, **more)  # type: ignore[arg-type]
        return Decision(HOLD, ("ask",), holds=(self.terms,)) if found.outcome == HOLD else found


class Session(Pump):
    """Remembers what is ordered besides bytes."""

    def do(self, commands: list[words.Command]) -> None:
        self.ordered = [*getattr(self, "ordered", []), *(
            one for one in commands if isinstance(one, ORDERED))]
        super().do(commands)

    def timers(self) -> dict[str, float]:
        return {one.name: one.seconds for one in self.ordered if isinstance(one, words.StartTimer)}

    def answer(self, state: str, reason: str = "") -> None:
        self.tell(inputs.HoldAnswered(self.holds[-1].operation, state, "local:dba", reason, "T-1"))


Open = Callable[..., Session]


@pytest.fixture
def weir(port: int) -> Iterator[Open]:
    opened: list[Session] = []

    def make(rule: str = "", **more: object) -> Session:
        opened.append(Session(port, "app", "shop", Rule(rule), **more))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def notices(session: Session) -> list[dict[str, str]]:
    return [fields(body) for kind, body in split(session.client) if kind == b"N"]


def test_the_notice_names_ticket_and_reason_and_comes_again(weir: Open) -> None:
    session = weir()
    session.send(query(DELETE))
    session.tell(inputs.TimerFired("held"))
    told = notices(session)
    assert [one["M"] for one in told] == ["held for approval: ticket T-1", "still held for approval: ticket T-1"]
    assert all("approvals approve T-1" in one["H"] for one in told)
    session.answer("approved")
    assert shape(session.until_ready())[-2:] == ["C DELETE 0", "Z I"]
    assert session.timers() == {"held": 0, "statement_timeout": 0}
    session.tell(inputs.TimerFired("held"))
    assert session.client == b""


def test_notices_come_less_and_less_and_end(weir: Open) -> None:
    session = weir()
    session.send(query(DELETE))
    pauses = []
    for _ in range(NOTICES + 20):
        pauses.append(session.timers()["held"])
        session.tell(inputs.TimerFired("held"))
    assert pauses[:6] == [15, 30, 60, 120, 240, 300]
    assert sum(isinstance(one, words.StartTimer) and one.name == "held" for one in session.ordered) == NOTICES - 1


@pytest.mark.parametrize(("said", "seconds"), [
    (["SET statement_timeout = '1500ms'"], 1.5), (["SET statement_timeout = '2min'"], 120.0),
    (["SET statement_timeout = 0"], None), (["SELECT set_config('statement_timeout', '3s', false)"], 3.0),
    (["SET statement_timeout = '5s'", "RESET statement_timeout"], None),
    (["SET statement_timeout = '5s'", "BEGIN", "SET LOCAL statement_timeout = '7s'"], 7.0),
    (["SET statement_timeout = '5s'", "BEGIN", "SET LOCAL statement_timeout = '7s'", "COMMIT"], 5.0),
    (["BEGIN", "SET statement_timeout = '7s'", "ROLLBACK"], None),
])
def test_the_session_s_own_timeout_is_known(weir: Open, said: list[str], seconds: float | None) -> None:
    session = weir()
    for text in said:
        session.talk(query(text))
    session.send(query(DELETE))
    while not session.holds:
        session.step()
    assert session.timers().get("statement_timeout") == seconds


def test_of_the_startup_packet_too(port: int) -> None:
    class Timed(Session):
        def send(self, data: bytes) -> None:
            if not getattr(self, "hello", None) and b"user\0" in data:
                body = data[8:-1] + b"statement_timeout\x004s\0\0"
                data = (len(body) + 8).to_bytes(4, "big") + data[4:8] + body
            super().send(data)

    session = Timed(port, "app", "shop", Rule())
    session.send(query(DELETE))
    assert session.timers()["statement_timeout"] == 4.0
    session.close()


@pytest.mark.parametrize("extended", [False, True])
def test_statement_timeout_is_57014_and_the_transaction_fails(weir: Open, extended: bool) -> None:
    session = weir()
    session.talk(query("SET statement_timeout = '30s'"))
    session.talk(query("BEGIN"))
    session.send(parse(DELETE) + bind() + execute() + SYNC if extended else query(DELETE))
    while not session.holds:
        session.step()
    session.tell(inputs.TimerFired("statement_timeout"))
    cancel = session.ordered[-1]
    assert isinstance(cancel, words.CancelHold)
    assert (cancel.operation, cancel.reason) == (session.holds[-1].operation, TIMED_OUT)
    session.answer("cancelled", cancel.reason)
    got = session.until_ready()
    error = next(fields(body) for kind, body in got if kind == b"E")
    assert (error["C"], error["M"]) == ("57014", "canceling statement due to statement timeout")
    assert shape(got)[-1] == "Z E"
    assert shape(session.talk(query("ROLLBACK"))) == ["C ROLLBACK", "Z I"]
    assert b"DELETE" not in session.to_server.replace(parse(DELETE), b"")


def test_what_was_approved_is_used_before_its_bytes(weir: Open) -> None:
    session = weir()
    order: list[str] = []
    do = Session.do

    def see(commands: list[words.Command]) -> None:
        for one in commands:
            if isinstance(one, words.UseHold):
                order.append(f"use {one.ticket}")
            elif isinstance(one, words.Record) and getattr(one.event, "ticket", ""):
                order.append(f"intent {one.event.operation} durable {one.durable}")  # type: ignore[attr-defined]
            elif isinstance(one, words.SendData) and one.peer == words.SERVER and b"DELETE" in one.data:
                order.append("bytes")
        do(session, commands)

    session.do = see  # type: ignore[method-assign]
    session.send(query(DELETE))
    session.answer("approved")
    session.until_ready()
    number = session.intents()[-1].operation
    assert order == ["use T-1", f"intent {number} durable True", "bytes"]
    use = next(one for one in session.ordered if isinstance(one, words.UseHold))
    assert (use.operation, use.held) == (number, session.holds[0].operation)


def test_what_was_approved_under_other_terms_is_given_back_before_it_is_asked_anew(weir: Open) -> None:
    session = weir()
    session.send(query(DELETE))
    while not session.holds:
        session.step()
    session.context.gate.terms = parse_hold("ask", "approvers=dba, count=2")  # type: ignore[attr-defined]
    session.context.gate.version += 1  # type: ignore[misc]
    session.answer("approved")
    assert len(session.holds) == 2
    first, second = session.holds
    session.answer("approved")
    assert "C DELETE 0" in shape(session.until_ready())
    orders = [one for one in session.ordered if isinstance(one, words.ReturnHold | words.Hold | words.UseHold)]
    assert orders[:3] == [first, words.ReturnHold(first.operation), second]
    assert isinstance(orders[3], words.UseHold)
    assert (orders[3].held, len(orders)) == (second.operation, 4)


@pytest.mark.parametrize("rule", ["", "count=2"], ids=["as it was", "another"])
def test_what_was_bound_under_an_approval_is_asked_anew_where_rules_ask_for_more(weir: Open, rule: str) -> None:
    """A portal that was bound passed under whatever rule came after."""
    session = weir()
    session.send(parse(DELETE) + bind(portal="p") + describe("P", "p") + FLUSH)
    session.answer("approved")
    while b"n" not in [kind for kind, _ in split(session.client)]:
        session.step()
    session.context.gate.terms = parse_hold("ask", f"approvers=dba, {rule}")  # type: ignore[attr-defined]
    session.context.gate.version += 1  # type: ignore[misc]
    session.send(execute("p") + SYNC)
    if rule:
        assert len(session.holds) == 2
        assert session.holds[1].terms[0].count == 2
        session.answer("approved")
    assert "C DELETE 0" in shape(session.until_ready())
    assert [one.decision for one in session.intents() if one.verb == "execute"] == [HOLD, PERMIT][not rule:]
    assert len([one for one in session.ordered if isinstance(one, words.UseHold)]) == (2 if rule else 1)


def test_what_was_bound_under_an_approval_that_counts_no_more_is_asked_anew(weir: Open) -> None:
    """Who approved it was locked out since, or it was revoked."""
    session = weir()
    session.send(parse(DELETE) + bind(portal="p") + describe("P", "p") + FLUSH)
    session.answer("approved")
    while b"n" not in [kind for kind, _ in split(session.client)]:
        session.step()
    session.counting.clear()
    session.send(execute("p") + SYNC)
    assert len(session.holds) == 2
    session.answer("denied", "no")
    assert "E" in " ".join(shape(session.until_ready()))
    assert b"E" not in [kind for kind, _ in split(session.to_server)][-1:], "it was not executed"


@pytest.mark.parametrize("state", ["denied", "expired", "cancelled", "ticket"])
def test_nothing_is_used_of_what_was_not_approved(weir: Open, state: str) -> None:
    session = weir()
    session.send(query(DELETE))
    session.answer(state, "policy ask wants an approval by dba")
    got = session.until_ready()
    assert not [one for one in session.ordered if isinstance(one, words.UseHold)]
    assert b"DELETE" not in session.to_server
    error = next(fields(body) for kind, body in got if kind == b"E")
    assert error["C"] == ("57014" if state == "cancelled" else "42501")
    if state == "ticket":
        assert error["M"] == "permission denied until it is approved: ticket T-1"
        assert "passes once" in error["H"]


# ---- what tells an operation again


def asked(session: Session, *messages: bytes) -> words.Hold:
    """The hold that these lead to, denied."""
    before = len(session.holds)
    session.send(b"".join(messages))
    while len(session.holds) == before:
        session.step()
    hold = session.holds[-1]
    session.answer("denied", "no")
    session.until_ready()
    return hold


def bound(text: str, *values: str | None, **more: object) -> bytes:
    return parse(text) + bind(*values, **more) + execute() + SYNC  # type: ignore[arg-type]


WHERE = "DELETE FROM t WHERE id = $1::int AND id < 0"


def test_what_approvers_and_the_client_are_told_besides(weir: Open) -> None:
    hold = asked(weir("mode=ticket"), query(DELETE))
    assert (hold.account, hold.inexact, hold.covers) == ("", INEXACT, "")


def test_exact_is_the_same_in_another_session(weir: Open) -> None:
    first, second = weir("mode=ticket"), weir("mode=ticket")
    for message in (query(DELETE), bound(DELETE), bound(WHERE, "-1")):
        one, other = asked(first, message), asked(second, message)
        assert one.exact == other.exact
        assert len(one.exact) == 32
    assert asked(first, query(DELETE)).exact == asked(first, bound(DELETE)).exact


def test_exact_differs_with_all_that_may_make_it_another(weir: Open) -> None:
    session = weir("mode=ticket")
    found = [asked(session, query(DELETE)).exact]
    found += [asked(session, query(text)).exact for text in (DELETE + " ", "DELETE FROM t WHERE id = -2")]
    found += [asked(session, bound(WHERE, *values)).exact for values in (("-1",), ("-2",), (None,))]
    typed = parse(WHERE)[:-2] + b"\0\1\0\0\0\x17"
    typed = typed[:1] + (len(typed) - 1).to_bytes(4, "big") + typed[5:]
    found.append(asked(session, typed + bind("-1") + execute() + SYNC).exact)
    session.talk(query("SET search_path = public, other"))
    found.append(asked(session, query(DELETE)).exact)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("said", [
    ["PREPARE d AS DELETE FROM t WHERE id = -1", "EXECUTE d"],
    ["BEGIN", "CREATE TABLE fresh (id int)", DELETE],
], ids=["prepared", "uncommitted DDL"])
def test_what_only_this_session_knows_cannot_be_told_again(weir: Open, said: list[str]) -> None:
    session = weir("mode=ticket")
    for text in said[:-1]:
        session.on_hold = lambda hold: inputs.HoldAnswered(hold.operation, "approved", "local:dba", "", "T-1")
        session.talk(query(text))
    session.on_hold = lambda hold: None
    assert asked(session, query(said[-1])).exact == b""


def test_values_that_are_not_recorded_are_told_from_each_other(port: int) -> None:
    """Two passwords look the same in the recording; an approval of one is none of the other."""
    from agent.contract.target import ColumnLabel

    class Writes(Rule):
        def __init__(self) -> None:
            super().__init__("mode=ticket")
            self.hold = {("sql:insert", "people")}

    session = Session(port, "app", "shop", Writes(), labels=(ColumnLabel("pii", "public", "people", "email"),))
    text = "INSERT INTO people (id, email) VALUES ($1::int, $2)"
    one, other = (asked(session, bound(text, "-9", value)) for value in ("a@x.example", "b@x.example"))
    assert one.parameters == other.parameters == ("***", "***")
    assert one.exact != other.exact
    session.close()


def test_shapes(weir: Open) -> None:
    session = weir("reuse=shape:30m")
    first = asked(session, query("DELETE FROM t WHERE id = -1")).shape
    assert len(first) == 32
    assert asked(session, query("delete from t where id = -77")).shape == first
    others = [asked(session, query(text)).shape for text in (
        "DELETE FROM t WHERE id < -1", "DELETE FROM t WHERE note = 'x'", "DELETE FROM t",
        "DELETE FROM t WHERE id = -1 OR true", "DELETE FROM t WHERE id IN (-1)",
        "DELETE FROM t WHERE id = (SELECT -1)")]
    assert first not in others
    assert len({*filter(None, others)}) == len([*filter(None, others)])


@pytest.mark.parametrize(("one", "other"), [
    ("id < 5", "id < 99999999"), ("id = 5 AND 1 = 2", "id = 5 AND 1 = 1"), ("false OR 1 = 2", "false OR 1 = 1"),
    ("id = 5 OR id = 6", "id = 5 OR id = 7"), ("NOT id = 5", "NOT id = 6"), ("id <> 5", "id <> 6"),
    ("id + 0 = 5", "id + 1 = 5"), ("id = 5 + 1", "id = 5 + 2"),
    ("id IN (SELECT 0 + 1)", "id IN (SELECT 0 + 2)"), ("id IN (SELECT id FROM t LIMIT 1 + 0)",
                                                         "id IN (SELECT id FROM t LIMIT 1 + 9)"),
])
def test_what_decides_how_many_rows_is_of_the_shape(weir: Open, one: str, other: str) -> None:
    """An approval of what changes nothing is none of what empties the table."""
    session = weir("reuse=shape:30m")
    first, second = (asked(session, query(f"DELETE FROM t WHERE {text}")) for text in (one, other))
    assert first.exact != second.exact
    assert first.shape != second.shape or not first.shape
    bind_one, bind_other = (asked(session, bound("DELETE FROM t WHERE id < $1", value)) for value in ("-5", "5"))
    assert bind_one.shape != bind_other.shape


@pytest.mark.parametrize("text", [
    "DELETE FROM t USING other.t AS o WHERE o.id = {}", "DELETE FROM t USING (SELECT 1 AS id) AS o WHERE o.id = {}",
    "WITH gone AS (DELETE FROM t RETURNING id) SELECT g.id FROM gone AS g, other.t AS o WHERE o.id = {}",
])
def test_what_a_joined_table_is_compared_with_is_of_the_shape(weir: Open, text: str) -> None:
    """No row of it, and nothing goes; one, and every row does."""
    session = weir("reuse=shape:30m")
    first, second = (asked(session, query(text.format(number))) for number in (-5, 5))
    assert first.exact != second.exact
    assert first.shape != second.shape or not first.shape


def test_what_is_asked_of_what_is_told_from_what_only_reads_the_same(weir: Open) -> None:
    path = ("shop", "shop", "public")
    one = shapes.asked((Request("sql:delete", "Table", (*path, "a.b")),))
    assert one != shapes.asked((Request("sql:delete", "Table", (*path[:2], "public.a", "b")),))
    pair = tuple(Request("sql:delete", "Table", (*path, name)) for name in ("a", "b"))
    assert shapes.asked(pair) != shapes.asked((Request("sql:delete", "Table", (*path, "a, sql:delete public.b")),))
    session = weir()
    first, second = asked(session, query(DELETE)), asked(session, query("DELETE FROM other.t WHERE id = -1"))
    assert first.asked == asked(session, query("DELETE FROM t WHERE id = -2")).asked
    assert first.asked != second.asked


def test_a_command_is_asked_by_the_same_shapes(weir: Open) -> None:
    """And what it is asked of belongs to them: there are no words for all that they cover."""
    first, second = (asked(weir(f"reuse={reuse}"), query(DELETE)) for reuse in ("shape:30m", "command"))
    assert (first.exact, first.shape, first.asked) == (second.exact, second.shape, second.asked)
    assert first.shape != b""
    assert second.covers == ""


def test_what_chooses_a_row_is_not(weir: Open) -> None:
    session = weir("reuse=shape:30m")
    first, second = (asked(session, query(f"DELETE FROM t WHERE {one} AND note = {two} AND id > -9")) for one, two in (
        ("id = -5", "'a'"), ("id = -6", "'b'")))
    assert first.shape == second.shape != b""


def test_parameters_of_a_shape_are_free_only_as_operands(weir: Open) -> None:
    session = weir("reuse=shape:30m")
    free = "DELETE FROM t WHERE id = $1 AND id < 0"
    assert asked(session, bound(free, "-1")).shape == asked(session, bound(free, "-2")).shape != b""
    fixed = "DELETE FROM t WHERE id IN ($1, $2) AND id < 0"
    assert asked(session, bound(fixed, "-1", "-2")).shape != asked(session, bound(fixed, "-1", "-3")).shape
    both = "DELETE FROM t WHERE id = $1 AND id IN ($1) AND id < 0"
    assert asked(session, bound(both, "-1")).shape != asked(session, bound(both, "-2")).shape


def test_a_call_has_no_shape_but_its_text(weir: Open) -> None:
    session = weir("reuse=shape:30m")
    hold = asked(session, query("DELETE FROM t WHERE id = -1 AND note = lower('X')"))
    assert hold.shape == b""
    assert len(hold.exact) == 32


def test_nothing_is_worked_out_where_no_rule_asks_for_it(weir: Open) -> None:
    hold = asked(weir(), query(DELETE))
    assert (hold.exact, hold.shape) == (b"", b"")
