"""Requests x policies -> decisions: deny by default, holds, unmasking, the base policy, the schema and the model."""
from __future__ import annotations

import re
from importlib import resources

import pytest

from agent.contract.owner import Owner, Process
from enforcer.core.gate import CedarGate
from enforcer.policy.cedar import load_policies
from enforcer.policy.model import KINDS, PARENTS
from enforcer.words.decisions import DENY, HOLD, PERMIT
from enforcer.words.operations import Principal, Request

POLICIES = """
@id("connect") permit (principal in Group::"data", action == Action::"connect", resource in Target::"shop");
@id("read") permit (principal in Group::"data", action in Action::"sql:read", resource in Target::"shop");
@id("write") permit (principal in Group::"data", action in Action::"sql:write", resource in Target::"shop");
@id("delete-dba") @hold("approvers=dba, within=15m")
forbid (principal, action == Action::"sql:delete", resource == Table::"shop/shop/public/orders")
unless { context.approved };
@id("delete-lead") @hold("approvers=lead, reason=required")
forbid (principal, action == Action::"sql:delete", resource in Schema::"shop/shop/public")
unless { context.approved };
@id("truncate") @hold("approvers=dba") forbid (principal, action == Action::"sql:truncate", resource)
unless { context.approved };
@id("never") forbid (principal, action == Action::"sql:delete", resource == Table::"shop/shop/public/ledger");
@id("night") @hold("approvers=dba")
forbid (principal, action == Action::"sql:update", resource == Table::"shop/shop/public/orders")
unless { context.approved } when { principal in Group::"junior" };
@id("pii") permit (principal in Group::"privacy", action == Action::"unmask", resource in Label::"pii");
@id("one") permit (principal in Group::"support", action == Action::"unmask", resource == Label::"pii.email");
@id("crew") permit (principal in Workload::"crew", action == Action::"sql:call", resource in Schema::"shop/shop/api");
@id("tool") permit (principal, action == Action::"sql:do", resource) when { context.exe == "/usr/bin/tool" };
"""
PUBLIC = ("shop", "shop", "public")


def principal(*groups: str, workload: str = "", exe: str = "") -> Principal:
    process = Process(7, exe) if exe else None
    return Principal("local:u", groups, Owner(workload, 1, "u", "local:u", groups, process, "", 1, "h", 5, "mark"))


def table(action: str, name: str, schema: str = "public", target: str = "shop") -> Request:
    return Request(action, "Table", (target, "shop", schema, name))


@pytest.fixture(scope="module")
def gate() -> CedarGate:
    return CedarGate(load_policies({"f.cedar": POLICIES}))


@pytest.mark.parametrize(("groups", "request_", "outcome", "rules"), [
    (("data",), Request("connect", "Database", ("shop", "shop")), PERMIT, ("connect",)),
    ((), Request("connect", "Database", ("shop", "shop")), DENY, ()),
    (("data",), Request("connect", "Database", ("other", "shop")), DENY, ()),
    (("data",), table("sql:select", "orders"), PERMIT, ("read",)),
    (("data",), table("sql:select", "orders", target="other"), DENY, ()),
    ((), table("sql:select", "orders"), DENY, ()),
    (("data",), table("sql:insert", "orders"), PERMIT, ("write",)),
    (("data",), table("sql:ddl", "orders"), DENY, ()),
    (("data",), table("sql:delete", "other"), HOLD, ("delete-lead",)),
    (("data",), table("sql:delete", "orders"), HOLD, ("delete-dba", "delete-lead")),
    (("data",), table("sql:delete", "ledger"), DENY, ("delete-lead", "never")),
    (("data",), table("sql:delete", "x", "audit"), PERMIT, ("write",)),
    ((), table("sql:delete", "orders"), DENY, ()),                       # held, but nothing would permit it
    (("data",), table("sql:truncate", "orders"), DENY, ()),
    (("data",), table("sql:update", "orders"), PERMIT, ("write",)),
    (("data", "junior"), table("sql:update", "orders"), HOLD, ("night",)),
    ((), Request("sql:transaction", "Database", ("any", "any")), PERMIT, ("base:transactions",)),
    ((), table("sql:select", "pg_class", "pg_catalog"), PERMIT, ("base:catalogue",)),
    (("data",), table("sql:select", "pg_authid", "pg_catalog"), DENY, ("base:no-secrets-of-the-server",)),
    (("data",), table("sql:select", "pg_stats", "pg_catalog"), DENY, ("base:no-secrets-of-the-server",)),
    ((), table("sql:select", "pg_stat_activity", "pg_catalog"), DENY, ()),
    ((), table("sql:update", "pg_class", "pg_catalog"), DENY, ()),
    ((), table("sql:select", "pg_class", "public"), DENY, ()),
    ((), table("sql:select", "tables", "information_schema"), PERMIT, ("base:information-schema",)),
    ((), Request("sql:set", "Setting", ("shop", "shop", "search_path")), PERMIT, ("base:settings",)),
    ((), Request("sql:set", "Setting", ("shop", "shop", "enable_indexscan")), DENY, ()),
    ((), Request("sql:set", "Setting", ("shop", "shop", "session_replication_role")), DENY, ()),
    (("data",), Request("sql:set-role", "Role", ("shop", "postgres")), DENY, ()),
    (("data",), Request("sql:call", "Function", (*PUBLIC, "f")), DENY, ()),
    # what is malformed is denied, whatever it says
    (("data",), Request("sql:nope", "Table", (*PUBLIC, "t")), DENY, ("unknown-resource",)),
    (("data",), Request("sql:select", "Nothing", (*PUBLIC, "t")), DENY, ("unknown-resource",)),
    (("data",), Request("sql:select", "Table", ("shop", "shop", "t")), DENY, ("unknown-resource",)),
    (("data",), Request("sql:select", "Table", (*PUBLIC, "t", "u")), DENY, ("unknown-resource",)),
    (("data",), Request("sql:select", "Table", ()), DENY, ("unknown-resource",)),
    (("data",), Request("sql:select", "Table", ("shop", "", "public", "t")), DENY, ("unknown-resource",)),
])
def test_one_request(
    gate: CedarGate, groups: tuple[str, ...], request_: Request, outcome: int, rules: tuple[str, ...]
) -> None:
    decision = gate.decide(principal(*groups), (request_,))
    assert decision.outcome == outcome
    assert decision.rules == rules
    assert (decision.reason != "") == (outcome == DENY)


def test_nothing_asked_is_denied(gate: CedarGate) -> None:
    assert gate.decide(principal("data"), ()).outcome == DENY


def test_every_hold_is_needed_and_a_plain_forbid_wins(gate: CedarGate) -> None:
    held = gate.decide(principal("data"), (table("sql:delete", "orders"),))
    assert [(terms.rule, terms.approvers, terms.within, terms.reason_required) for terms in held.holds] == [
        ("delete-dba", ("dba",), 900, False), ("delete-lead", ("lead",), 900, True)]
    for more, outcome in ((table("sql:delete", "ledger"), DENY), (table("sql:ddl", "x"), DENY),
                          (table("sql:select", "x"), HOLD)):
        for requests in ((table("sql:delete", "orders"), more), (more, table("sql:delete", "orders"))):
            assert gate.decide(principal("data"), requests).outcome == outcome
    both = gate.decide(principal("data", "junior"), (table("sql:delete", "orders"), table("sql:update", "orders")))
    assert [terms.rule for terms in both.holds] == ["delete-dba", "delete-lead", "night"]


def test_approval_opens_holds_and_nothing_else(gate: CedarGate) -> None:
    assert gate.decide(principal("data"), (table("sql:delete", "orders"),), (), True).outcome == PERMIT
    for request in (
            table("sql:delete", "ledger"), table("sql:ddl", "x"), table("sql:select", "pg_authid", "pg_catalog")):
        assert gate.decide(principal("data"), (request,), (), True).outcome == DENY
    assert gate.decide(principal(), (table("sql:delete", "orders"),), (), True).outcome == DENY


@pytest.mark.parametrize(("groups", "unmasked", "masked"), [
    ((), (), ("pii.email", "pii", "pii.a.b", "secret", "piitoo", "pii.")),
    (("privacy",), ("pii.email", "pii", "pii.a.b", "pii."), ("secret", "piitoo")),
    (("support",), ("pii.email",), ("pii", "pii.a.b", "secret", "piitoo", "pii.")),
])
def test_labels_are_a_hierarchy(
    gate: CedarGate, groups: tuple[str, ...], unmasked: tuple[str, ...], masked: tuple[str, ...]
) -> None:
    labels = ("pii.email", "pii", "pii.a.b", "secret", "piitoo", "pii.")
    decision = gate.decide(principal("data", *groups), (table("sql:select", "orders"),), labels)
    assert decision.outcome == PERMIT
    assert set(decision.unmasked) == set(unmasked)
    assert set(decision.masked) == set(masked)


def test_a_held_operation_is_masked_too(gate: CedarGate) -> None:
    decision = gate.decide(principal("data", "support"), (table("sql:delete", "orders"),), ("pii.email", "secret"))
    assert (decision.outcome, decision.unmasked, decision.masked) == (HOLD, ("pii.email",), ("secret",))


def test_unmasking_by_a_policy_for_everything_about_sql_is_not_given() -> None:
    gate = CedarGate(load_policies({"f.cedar": '@id("all") permit (principal, action in Action::"sql", resource);'}))
    assert gate.decide(principal(), (table("sql:select", "t"),), ("pii",)).masked == ("pii",)


def test_a_permissive_policy_does_not_open_the_servers_secrets() -> None:
    gate = CedarGate(load_policies({"f.cedar": '@id("all") permit (principal, action, resource);'}))
    for name in ("pg_authid", "pg_shadow", "pg_statistic", "pg_stats", "pg_user_mapping"):
        assert gate.decide(principal(), (table("sql:select", name, "pg_catalog"),)).outcome == DENY
    assert gate.decide(principal(), (table("sql:ddl", "t"),)).outcome == PERMIT


def test_workload_and_program(gate: CedarGate) -> None:
    call = (Request("sql:call", "Function", ("shop", "shop", "api", "f")),)
    assert gate.decide(principal(workload="crew"), call).outcome == PERMIT
    assert gate.decide(principal(workload="other"), call).outcome == DENY
    assert gate.decide(principal(), call).outcome == DENY
    do = (Request("sql:do", "Database", ("shop", "shop")),)
    assert gate.decide(principal(exe="/usr/bin/tool"), do).outcome == PERMIT
    assert gate.decide(principal(exe="/usr/bin/other"), do).outcome == DENY
    assert gate.decide(principal(), do).outcome == DENY


def test_names_cannot_forge_paths(gate: CedarGate) -> None:
    """A slash or a percent sign in a name does not lead elsewhere."""
    for path in (("shop", "shop", "public/orders", "x"), ("shop/shop", "public", "a", "orders"),
                 ("shop", "shop", "public", "orders/x"), ("shop", "shop", "public", "%6frders")):
        ruling = gate.decide(principal("data"), (Request("sql:delete", "Table", path),))
        assert "delete-dba" not in ruling.rules
    odd = CedarGate(load_policies({"f.cedar":
        '@id("odd") permit (principal, action, resource == Table::"shop/shop/public/a%2Fb%25");'}))
    assert odd.decide(principal(), (Request("sql:select", "Table", (*PUBLIC, "a/b%")),)).outcome == PERMIT
    assert odd.decide(principal(), (Request("sql:select", "Table", (*PUBLIC, "a%2Fb%25")),)).outcome == DENY


def test_replaced_policies_hold_at_once() -> None:
    gate = CedarGate(load_policies({"f.cedar": '@id("all") permit (principal, action, resource);'}))
    before = gate.version
    assert gate.decide(principal(), (table("sql:select", "t"),), ("pii",)).unmasked == ("pii",)
    gate.replace(load_policies({}))
    assert gate.version > before
    assert gate.decide(principal(), (table("sql:select", "t"),), ("pii",)).outcome == DENY


def test_decisions_are_kept_apart_by_who_asks(gate: CedarGate) -> None:
    """Groups, workload, program and approval are part of what a decision is kept under."""
    request = (table("sql:delete", "orders"),)
    for _ in range(2):
        assert gate.decide(principal("data"), request).outcome == HOLD
        assert gate.decide(principal(), request).outcome == DENY
        assert gate.decide(principal("data"), request, (), True).outcome == PERMIT


def test_the_schema_says_what_the_model_says() -> None:
    text = re.sub(r"//[^\n]*", "", resources.files("enforcer.policy").joinpath("weir.cedarschema").read_text())
    groups: dict[str, tuple[str, ...]] = {}
    for match in re.finditer(r"action\s+([^;]*?)(?:\s+in\s+\[([^]]*)\])?\s*(?:appliesTo\s*\{[^}]*\})?\s*;", text):
        for name in re.findall(r'"([^"]+)"', match[1]):
            assert name not in groups
            groups[name] = tuple(sorted(re.findall(r'"([^"]+)"', match[2] or "")))
    assert groups == {action: tuple(sorted(parents)) for action, parents in PARENTS.items()}
    entities = set(re.findall(r"entity\s+(\w+)", text))
    assert entities == KINDS | {"User", "Group", "Workload", "Label"}
