"""Explain: what an operation asks for, what each request is answered, and which policies say so.  Pure."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from enforcer.policy.cedar import PolicySet
from enforcer.policy.evaluation import combine, may_unmask, rule
from enforcer.words.decisions import NAMES, Decision
from enforcer.words.operations import Principal, Request
from enforcer.words.reported import Calls


@dataclass(frozen=True)
class Explained:
    action: str
    resource: str
    outcome: str                      # "permit" | "deny" | "hold"
    rules: tuple[str, ...]
    places: tuple[str, ...]           # FILE:LINE of each rule


def explain(
    policies: PolicySet, principal: Principal, requests: tuple[Request, ...], reported: Calls = (),
) -> Iterator[Explained]:
    by_name = {policy.name: f"{policy.file}:{policy.line}" for policy in policies.policies.values()}
    for request in requests:
        ruling = rule(policies, principal, request, False, reported=reported)
        yield Explained(request.action, request.resource, NAMES[ruling.outcome], ruling.rules,
                        tuple(by_name.get(name, "") for name in ruling.rules))


def decide(
    policies: PolicySet, principal: Principal, requests: tuple[Request, ...], labels: tuple[str, ...],
    reported: Calls = (),
) -> Decision:
    """The decision on the whole."""
    rulings = tuple(rule(policies, principal, request, False, reported=reported) for request in requests)
    return combine(requests, rulings, {
        label: may_unmask(policies, principal, label, reported=reported) for label in labels})
