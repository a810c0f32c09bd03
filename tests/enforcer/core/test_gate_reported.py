"""`context.reported`: one call by name, several as candidates; nothing decided under another report is kept."""
from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.contract.owner import Owner
from enforcer.core import gate as gates
from enforcer.core.gate import CedarGate, ReportingGate
from enforcer.policy.cedar import load_policies
from enforcer.policy.cli import policy
from enforcer.words.decisions import DENY, HOLD, PERMIT
from enforcer.words.operations import Principal, Request
from enforcer.words.reported import Call, Calls

SQL = Call("shop", "Analyst", "t1", "sql")
CLEAN = Call("shop", "Cleaner", "t2", "clean")
POLICY = """
@id("reads") permit (principal, action == Action::"sql:select", resource);
@id("sees") permit (principal, action == Action::"unmask", resource) when { context.reported.agent == "Analyst" };
@id("cleans") permit (principal, action == Action::"sql:delete", resource);
@id("not-by") forbid (principal, action == Action::"sql:delete", resource)
  unless { context.reported.certain && context.reported.tool == "clean" };
@id("asks") @hold("approvers=dba") forbid (principal, action == Action::"sql:select", resource)
  when { context.reported.tools.contains("clean") } unless { context.approved };
"""
OTHER = '@id("reads") permit (principal, action, resource) when { context.exe == "" };'
ME = Principal("local:ada", (), Owner("w", 0, "", "local:ada", (), None, "", 0, "", 0, "mark"))


def ask(action: str) -> tuple[Request, ...]:
    return (Request(action, "Table", ("shop", "shop", "public", "t")),)


class Process:
    """Says what it is told to."""

    def __init__(self, policy: str = POLICY) -> None:
        self.calls: Calls = ()
        self.asked = 0
        self.cedar = CedarGate(load_policies({"f.cedar": policy}))
        self.gate = ReportingGate(self.cedar, self.report)

    def report(self) -> Calls:
        self.asked += 1
        return self.calls

    def outcome(self, action: str) -> int:
        return self.gate.decide(ME, ask(action)).outcome


@pytest.mark.parametrize(("calls", "selects", "deletes", "shown"), [
    ((), PERMIT, DENY, False), ((SQL,), PERMIT, DENY, True), ((CLEAN,), HOLD, PERMIT, False),
    ((SQL, CLEAN), HOLD, DENY, False), ((SQL, SQL), PERMIT, DENY, False),
], ids=["nothing", "one", "another", "two", "the same twice"])
def test_one_is_certain_and_of_several_each_may_be_meant(
    calls: Calls, selects: int, deletes: int, shown: bool,
) -> None:
    process = Process()
    process.calls = calls
    for _ in range(2):                # as kept
        assert (process.outcome("sql:select"), process.outcome("sql:delete")) == (selects, deletes)
    found = process.gate.decide(ME, ask("sql:select"), ("pii",), True)
    assert found.unmasked == (("pii",) if shown else ())


def test_the_version_changes_with_the_report() -> None:
    process = Process()
    seen = [process.gate.version]
    for calls in ((SQL,), (SQL, CLEAN), (CLEAN,), ()):
        process.calls = calls
        assert process.gate.version not in seen
        assert process.gate.version == process.gate.version
        seen.append(process.gate.version)
    process.cedar.replace(load_policies({"f.cedar": POLICY}))
    assert process.gate.version not in seen


def test_nobody_is_asked_where_no_policy_looks_at_it() -> None:
    process = Process(OTHER)
    before = process.gate.version
    process.calls = (SQL,)
    assert process.outcome("sql:select") == PERMIT
    assert (process.gate.version, process.asked) == (before, 0)
    process.cedar.replace(load_policies({"f.cedar": POLICY}))
    assert process.gate.version > before
    assert process.asked


@pytest.mark.parametrize(("text", "reads"), [
    ('when { context.reported.certain }', True), ('unless { context["reported"].tool like "a*" }', True),
    ('when { context has reported }', True), ('when { !(context.approved || context.reported.tool == "x") }', True),
    ('when { [context] == [context] }', True), ('when { context.workload == "reported" }', False), ('', False),
])
def test_which_policies_look_at_it(text: str, reads: bool) -> None:
    policies = load_policies({"f.cedar": f'@id("a") permit (principal, action == Action::"connect", resource) {text};'})
    assert policies.reads_reports is reads


def test_what_a_crew_makes_up_is_not_kept_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "CACHE", 10)
    process = Process()
    for number in range(50):
        process.calls = tuple(Call("", "", "", f"{number} {n}") for n in range(number % 3))
        process.outcome("sql:delete")
        assert len(process.cedar._rulings) <= 10
        assert all(len(key[0][-1]) <= 1 for key in process.cedar._rulings)


@pytest.mark.parametrize(("reported", "said"), [
    ((), "deny"), (("clean",), "permit"), (("sql",), "deny"), (("clean/Cleaner/t2/shop", "sql"), "deny"),
    (("x/Cleaner",), "permit"),
])
def test_explain_says_what_a_report_would_change(tmp_path: Path, reported: tuple[str, ...], said: str) -> None:
    (tmp_path / "p.cedar").write_text('@id("all") permit (principal, action, resource);' + POLICY.replace(
        'context.reported.tool == "clean" }', '[context.reported.tool, context.reported.agent].containsAny(["clean", '
        '"Cleaner"]) }'))
    done = CliRunner().invoke(policy, [
        "explain", "--policies", str(tmp_path), "--subject", "local:ada", "--target", "shop", "--database", "shop",
        *(word for one in reported for word in ("--reported", one)), "DELETE FROM t"])
    assert done.output.splitlines()[-1].partition(":")[0] == said, done.output
    assert done.exit_code == (0 if said == "permit" else 1)
