"""Plans of what waits: each target in its turn, and none in another's way."""
from __future__ import annotations

import asyncio
import dataclasses
import threading

import msgspec
import pytest
from desk import Desk

from agent.contract.credential import Credential
from enforcer import protocols
from enforcer.edge import plans
from enforcer.edge.plans import Plans
from enforcer.policy.holds import parse_hold
from enforcer.words.commands import Explain

RULE = parse_hold("r", "approvers=dba")
EXPLAIN = Explain("DELETE FROM t", (), (), ("public",), "app")


@pytest.fixture
async def asking(house, monkeypatch: pytest.MonkeyPatch):
    """Plans at a house, a list of what was asked, and an event without which `stuck` gives no answer."""
    await house.open(house.target(5432, tls="disable"))
    go, asked = threading.Event(), []

    def read(**words: object) -> tuple[str, int]:
        asked.append(words["database"])
        if words["database"] == "stuck":
            assert go.wait(20)
        return "a plan", 7

    entry = dataclasses.replace(protocols.find("postgresql"), read_plan=read)
    monkeypatch.setattr(protocols, "find", lambda name: entry)
    yield Plans(house.edge), asked, go
    go.set()
    await house.close()


async def test_a_target_that_lets_no_plan_end_keeps_no_other_waiting(asking, house, monkeypatch) -> None:
    made, asked, _ = asking
    desk = Desk()
    house.edge.holds = desk.holds
    monkeypatch.setattr(plans, "LIMIT", 0.2)
    first, second, third = (desk.open(RULE, session=f"s{number}") for number in range(3))
    context = house.edge.context(house.owner(5432, "orders"), house.target(5432, tls="disable"))
    other = dataclasses.replace(context, target=msgspec.structs.replace(context.target, name="other"))
    secret = Credential("svc", "hunter2")
    for ticket in (first, second):
        await made.add(context, "stuck", secret, EXPLAIN, ticket)
    await made.add(other, "shop", secret, EXPLAIN, third)
    shown = {view.ticket: view.plan for view in desk.holds.views()}
    assert [shown[ticket] for ticket in (first, second)] == ["not shown: the target did not say within 0 seconds"] * 2
    assert shown[third] == "a plan"
    assert asked == ["stuck", "shop"]


async def test_what_is_answered_meanwhile_is_not_asked_about(asking, house) -> None:
    made, asked, _ = asking
    desk = Desk()
    house.edge.holds = desk.holds
    ticket = desk.open(RULE)
    desk.approve(ticket)
    context = house.edge.context(house.owner(5432, "orders"), house.target(5432, tls="disable"))
    await asyncio.wait_for(made.add(context, "shop", Credential("svc"), EXPLAIN, ticket), 5)
    assert asked == []
