"""The agent is asked in order, one at a time; whoever waits is told of what went wrong."""
from __future__ import annotations

import asyncio

from enforcer.edge.keeping import Keeper


async def test_in_order_and_one_at_a_time() -> None:
    running, most, seen = 0, 0, []
    go = asyncio.Event()

    async def ask(ticket: str, content: bytes) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go.wait()
        seen.append((ticket, content))
        running -= 1
        return "broken" if ticket == "b" else ""

    keeper, done = Keeper(asyncio.get_running_loop(), ask), []
    for ticket in "abc":
        keeper.keep(ticket, b"x", lambda error, ticket=ticket: done.append((ticket, error)))  # type: ignore[misc]
    settled = asyncio.create_task(keeper.settled())
    await asyncio.sleep(0)
    assert not settled.done()
    go.set()
    assert await settled == "broken"
    assert seen == [("a", b"x"), ("b", b"x"), ("c", b"x")]
    assert done == [("a", ""), ("b", "broken"), ("c", "")]
    assert most == 1
    assert await keeper.settled() == ""


async def test_what_is_kept_in_answer_to_another_is_waited_for() -> None:
    async def ask(ticket: str, content: bytes) -> str:
        await asyncio.sleep(0)
        return ""

    keeper, done = Keeper(asyncio.get_running_loop(), ask), []

    def again(error: str) -> None:
        keeper.keep("second", b"", done.append)

    keeper.keep("first", b"", again)
    await keeper.settled()
    assert done == [""]
