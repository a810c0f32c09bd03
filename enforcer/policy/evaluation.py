"""Evaluation: requests x policies -> a decision.  Pure.

A request is held if every forbid that decides carries @hold and it would be permitted once approved; a plain forbid
wins.  Of an operation's requests any deny denies, any hold holds; all holds must be satisfied.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cedarpy

from enforcer.policy.cedar import PolicySet
from enforcer.policy.model import (
    PARENTS,
    Entity,
    action_entities,
    asked,
    fits,
    label_entities,
    principal_entities,
    principal_uid,
    resource_entities,
    resource_uid,
)
from enforcer.words.decisions import DENY, HOLD, PERMIT, Decision, HoldTerms
from enforcer.words.operations import Principal, Request
from enforcer.words.reported import Calls

_LONGEST: Final = 300                 # characters of a name in a sentence


@dataclass(frozen=True, slots=True)
class Ruling:
    """Of one request: outcome, the ids that decided, what a hold asks for."""

    outcome: int
    rules: tuple[str, ...]
    holds: tuple[HoldTerms, ...] = ()
    trouble: str = ""


def rule(
    policies: PolicySet, principal: Principal, request: Request, approved: bool, elevated: bool = False,
    reported: Calls = (),
) -> Ruling:
    if request.action not in PARENTS or not fits(request):
        return Ruling(DENY, ("unknown-resource",))
    entities = [*principal_entities(principal), *action_entities(request.action), *resource_entities(request)]
    ask = {"principal": principal_uid(principal), "action": {"type": "Action", "id": request.action},
           "resource": resource_uid(request)}
    return _rule(policies, principal, ask, entities, approved, elevated, reported)


def _rule(
    policies: PolicySet, principal: Principal, ask: dict[str, Any], entities: list[Entity], approved: bool,
    elevated: bool, reported: Calls,
) -> Ruling:
    context = asked(principal, approved, elevated, reported)
    result = cedarpy.is_authorized({**ask, "context": context}, policies.parsed, entities)
    reasons = [policies.policies[reason] for reason in result.diagnostics.reasons]
    names = tuple(sorted(policy.name for policy in reasons))
    if result.diagnostics.errors:
        return Ruling(DENY, names, trouble="a policy could not be evaluated")
    if result.allowed:
        return Ruling(PERMIT, names)
    holds = tuple(policy.hold for policy in reasons if policy.hold is not None)
    if approved or not reasons or len(holds) != len(reasons):
        return Ruling(DENY, names)
    if _rule(policies, principal, ask, entities, True, elevated, reported).outcome != PERMIT:
        return Ruling(DENY, ())
    return Ruling(HOLD, names, tuple(sorted(holds, key=lambda terms: terms.rule)))


def may_unmask(
    policies: PolicySet, principal: Principal, label: str, elevated: bool = False, reported: Calls = (),
) -> bool:
    ask = {"principal": principal_uid(principal), "action": {"type": "Action", "id": "unmask"},
           "resource": {"type": "Label", "id": label}}
    entities = [*principal_entities(principal), *label_entities(label)]
    return _rule(policies, principal, ask, entities, False, elevated, reported).outcome == PERMIT


def combine(requests: tuple[Request, ...], rulings: tuple[Ruling, ...], labels: dict[str, bool]) -> Decision:
    """`labels`: each of the operation's labels, and whether it may be seen."""
    for request, ruling in zip(requests, rulings, strict=True):
        if ruling.outcome == DENY:
            return Decision(DENY, ruling.rules, reason(request, ruling))
    unmasked = tuple(label for label, seen in labels.items() if seen)
    masked = tuple(label for label, seen in labels.items() if not seen)
    rules = tuple(dict.fromkeys(name for ruling in rulings for name in ruling.rules))
    holds = tuple(dict.fromkeys(terms for ruling in rulings for terms in ruling.holds))
    if holds:
        held = tuple(dict.fromkeys(n for ruling in rulings if ruling.outcome == HOLD for n in ruling.rules))
        return Decision(HOLD, held, "", holds, unmasked, masked)
    return Decision(PERMIT, rules, "", (), unmasked, masked)


def _shown(name: str) -> str:
    """In a sentence for terminals: of a long command line the beginning, nothing that a terminal obeys."""
    text = name if len(name) <= _LONGEST else name[:_LONGEST] + "..."
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def _because(request: Request) -> str:
    """Why a line cannot be told: whoever wrote it may write it otherwise."""
    why = dict(request.attributes).get("opaque", ())
    return f" ({_shown('; '.join(why))})" if why and isinstance(why, tuple) else ""


def reason(request: Request, ruling: Ruling) -> str:
    """One sentence that says what was asked and what said no."""
    what = f"{request.action} on {request.kind.lower()} {_shown(request.resource)}{_because(request)}"
    if ruling.trouble:
        return f"{what} is denied: {ruling.trouble}"
    if ruling.rules:
        return f'{what} is forbidden by policy "{", ".join(ruling.rules)}"'
    return f"{what} is denied: no policy permits it"
