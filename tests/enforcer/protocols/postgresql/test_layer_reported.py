"""What a process reports goes with each of its operations, and policy that looks at it decides each time anew."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pump import SYNC, Pump, TableGate, bind, execute, parse, query, shape

from enforcer.approval.views import view_operation
from enforcer.core.gate import CedarGate, ReportingGate
from enforcer.policy.cedar import load_policies
from enforcer.words import events, inputs
from enforcer.words.decisions import DENY, HOLD, PERMIT
from enforcer.words.reported import Call, Calls

SQL = Call("shop", "Analyst", "t1", "sql")
CLEAN = Call("shop", "Cleaner", "t2", "clean")
DELETE = "DELETE FROM t WHERE id = -1"
POLICY = """
@id("all") permit (principal, action, resource);
@id("not-by") forbid (principal, action == Action::"sql:delete", resource)
  when { !context.reported.tools.contains("clean") };
@id("ask") @hold("approvers=dba") forbid (principal, action == Action::"sql:delete", resource)
  when { !context.reported.certain } unless { context.approved };
"""


class Reporting(Pump):
    def __init__(self, port: int, policy: str) -> None:
        cedar = CedarGate(load_policies({"f.cedar": policy}))
        super().__init__(port, "app", "shop", ReportingGate(cedar, lambda: self.calls))

    def intents(self) -> list[Any]:
        return [one for one in self.events(events.Intent) if one.actor == "crew"]  # type: ignore[attr-defined]

    def ask(self, data: bytes, *calls: Call) -> list[str]:
        self.calls = calls
        self.send(data)
        return shape(self.until_ready())


Open = Callable[..., Reporting]


@pytest.fixture
def weir(port: int) -> Iterator[Open]:
    opened: list[Reporting] = []

    def make(policy: str = POLICY) -> Reporting:
        opened.append(Reporting(port, policy))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def test_each_operation_says_what_its_process_said_then(weir: Open) -> None:
    session = weir('@id("all") permit (principal, action, resource);')
    said: list[Calls] = [(), (SQL,), (SQL, CLEAN), (CLEAN,), ()]
    for calls in said:
        assert session.ask(query("SELECT 1"), *calls)[-2:] == ["C SELECT 1", "Z I"]
    assert [one.reported for one in session.intents()] == said
    session.ask(parse("SELECT id FROM t WHERE id = 1", "s") + bind(name="s") + execute() + SYNC, SQL)
    assert [(one.verb, one.reported) for one in session.intents()[5:]] == [("execute", (SQL,))]
    assert not any(one.reported for one in session.events(events.Intent) if one.actor == "weir")  # type: ignore[attr-defined]


def test_the_same_text_is_decided_by_what_is_reported_now(weir: Open) -> None:
    session = weir()
    for calls, outcome in (((), DENY), ((CLEAN,), PERMIT), ((SQL,), DENY), ((CLEAN,), PERMIT), ((CLEAN,), PERMIT)):
        told = session.ask(query(DELETE), *calls)
        assert told[0] == ("C DELETE 0" if outcome == PERMIT else "E 42501")
        assert session.intents()[-1].decision == outcome
        assert session.intents()[-1].reported == calls


def test_a_portal_is_decided_again_when_it_runs(weir: Open) -> None:
    session = weir()
    session.calls = (CLEAN,)
    session.send(query("BEGIN"))
    session.until_ready()
    session.send(parse(DELETE, "s") + bind(name="s", portal="p") + SYNC)
    session.until_ready()
    assert session.ask(execute("p") + SYNC, SQL) == ["E 42501", "Z E"]
    [last] = [one for one in session.intents() if one.verb == "execute"]
    assert (last.decision, last.reported) == (DENY, (SQL,))


def test_one_of_several_is_held_and_the_approver_sees_which(weir: Open) -> None:
    session = weir()
    session.calls = (SQL, CLEAN)
    session.send(query(DELETE))
    [hold] = session.holds
    view = view_operation(session.context, hold, "T-1", "hold", "once", 1, 2)
    assert view.reported.startswith("one of 2 calls at once: tool sql of agent Analyst")
    assert session.intents()[-1].decision == HOLD
    session.tell(inputs.HoldAnswered(hold.operation, "approved", "local:dba", "", "T-1"))
    assert shape(session.until_ready())[-2:] == ["C DELETE 0", "Z I"]
    assert [one.reported for one in session.intents()] == [(SQL, CLEAN)] * 2


def test_a_report_that_changes_while_it_waits_is_decided_anew(weir: Open) -> None:
    """What was approved was what the report of then let through."""
    session = weir()
    session.calls = (SQL, CLEAN)
    session.send(query(DELETE))
    [hold] = session.holds
    session.calls = (SQL,)
    session.tell(inputs.HoldAnswered(hold.operation, "approved", "local:dba", "", "T-1"))
    assert shape(session.until_ready()) == ["E 42501", "Z I"]
    assert session.intents()[-1].decision == DENY


def test_without_reports_nothing_is_said(port: int) -> None:
    session = Pump(port, "app", "shop", TableGate())
    session.talk(query("SELECT 1"))
    assert [one.reported for one in session.events(events.Intent)] == [()] * len(session.events(events.Intent))  # type: ignore[attr-defined]
    session.close()
