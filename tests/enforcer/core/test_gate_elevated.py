"""`context.elevated`: for this subject, at this target, from now until it is taken back; nothing cached outlives it."""
from __future__ import annotations

from agent.contract.owner import Owner
from enforcer.core.gate import CedarGate
from enforcer.policy.cedar import load_policies
from enforcer.words.decisions import DENY, HOLD, PERMIT
from enforcer.words.operations import Principal, Request

POLICY = """
@id("more") permit (principal, action == Action::"sql:truncate", resource) when { context.elevated };
@id("sees") permit (principal, action == Action::"unmask", resource) when { context.elevated };
@id("reads") permit (principal, action == Action::"sql:select", resource);
@id("may-ask") permit (principal in Group::"data", action == Action::"elevate", resource == Target::"shop");
@id("ask") @hold("approvers=dba") forbid (principal, action == Action::"elevate", resource) unless { context.approved };
"""


def person(subject: str = "local:ada", groups: tuple[str, ...] = ("data",)) -> Principal:
    return Principal(subject, groups, Owner("", 0, "", subject, groups, None, "", 0, "", 0, "mark"))


def truncate(target: str = "shop") -> tuple[Request, ...]:
    return (Request("sql:truncate", "Table", (target, "shop", "public", "t")),)


def test_for_this_subject_and_target_and_no_longer_than_it_lasts() -> None:
    gate = CedarGate(load_policies({"f.cedar": POLICY}))
    assert gate.decide(person(), truncate()).outcome == DENY
    before = gate.version
    gate.elevate(frozenset({("local:ada", "shop")}))
    assert gate.version > before
    assert gate.decide(person(), truncate()).outcome == PERMIT
    assert gate.decide(person("local:eve"), truncate()).outcome == DENY
    assert gate.decide(person(), truncate("else")).outcome == DENY
    reads = (Request("sql:select", "Table", ("shop", "shop", "public", "t")),)
    assert gate.decide(person(), reads, ("pii",)).unmasked == ("pii",)
    gate.elevate(frozenset())
    assert gate.decide(person(), truncate()).outcome == DENY
    assert gate.decide(person(), reads, ("pii",)).masked == ("pii",)


def test_the_same_again_changes_nothing() -> None:
    gate = CedarGate(load_policies({"f.cedar": POLICY}))
    gate.elevate(frozenset({("local:ada", "shop")}))
    before = gate.version
    gate.elevate(frozenset({("local:ada", "shop")}))
    assert gate.version == before


def test_who_may_ask_is_policy() -> None:
    gate = CedarGate(load_policies({"f.cedar": POLICY}))
    asked = (Request("elevate", "Target", ("shop",)),)
    found = gate.decide(person(), asked)
    assert (found.outcome, found.holds[0].approvers) == (HOLD, ("dba",))
    assert gate.decide(person(groups=("others",)), asked).outcome == DENY
    assert gate.decide(person(), (Request("elevate", "Target", ("else",)),)).outcome == DENY
