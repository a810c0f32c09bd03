"""What a start is given, where many others have it already; what becomes of an answer of an approver's."""
from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from agent.actions import Launches, Questions
from agent.channel import ChannelError
from agent.contract import control, messages
from agent.contract.locks import LockedOut
from agent.control import Peer
from agent.network.networks import MOST


def settled() -> asyncio.Event:
    """No configuration takes another's place."""
    event = asyncio.Event()
    event.set()
    return event


def test_a_user_with_most_of_the_networks_leaves_the_last_to_others() -> None:
    users = dict.fromkeys(range(MOST - 10), 1001)
    agent: Any = SimpleNamespace(
        networks=SimpleNamespace(owners=(*users, 9999)),      # one that has ended just now
        owners=SimpleNamespace(find=lambda owner: SimpleNamespace(uid=users[owner]) if owner in users else None))
    assert f"{MOST - 10} of this user's" in Launches(agent)._full(1001)
    assert Launches(agent)._full(1002) == ""


class Silent:
    """An enforcer that does not run."""

    async def ask(self, *question: object) -> object:
        raise ChannelError("the enforcer is not running")


async def test_an_answer_that_reaches_nobody_is_told_and_recorded() -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    agent: Any = SimpleNamespace(
        enforcer=SimpleNamespace(channel=Silent()), config=SimpleNamespace(groups={}), locks=LockedOut(),
        turn=settled(), identities=SimpleNamespace(names=lambda *known: known),
        tell=lambda name, detail: told.append((name, detail)))
    answer = await Questions(agent).decide(control.Decide("abcdefgh", True, "looks right"), Peer(1, 0, 0, ()))
    assert answer == control.Answered("the enforcer is not running")
    assert told == [("approval.answered", {
        "ticket": "abcdefgh", "answer": "approve", "by": "local:root", "reason": "looks right",
        "error": "the enforcer is not running"})]


async def test_answers_that_do_not_count_fill_no_recording() -> None:
    """Everybody on the host may break a glass that is not there, under a new name each time."""
    asked: list[messages.Message] = []

    class Denying:
        async def ask(self, make: Any, *_: object) -> object:
            asked.append(make(1))
            return messages.HoldDecided(1, f"no hold {asked[-1].ticket} is pending")  # type: ignore[attr-defined]

    told: list[dict[str, Any]] = []
    agent: Any = SimpleNamespace(
        enforcer=SimpleNamespace(channel=Denying()), config=SimpleNamespace(groups={}), locks=LockedOut(),
        turn=settled(), identities=SimpleNamespace(names=lambda *known: known),
        tell=lambda name, detail: told.append(detail))
    questions, user = Questions(agent), Peer(1, 12345, 12345, ())
    for number in range(50):
        await questions.decide(control.BreakGlass(f"{number}" * 100_000, "x"), user)
    await questions.decide(control.Revoke("zzzzzzzz", "x"), user)
    assert [one["answer"] for one in told] == ["break-glass", "revoke"]
    assert max(len(messages.render_frame(one)) for one in asked) < 1000
