"""The agent is asked in order, one at a time; whoever waits is told of what went wrong, whatever it was."""
from __future__ import annotations

import asyncio

import pytest

from enforcer.edge.keeping import Keeper
from enforcer.words.errors import RecordingError


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
    settled = [asyncio.create_task(keeper.settled(ticket)) for ticket in "abc"]
    await asyncio.sleep(0)
    assert not any(one.done() for one in settled)
    go.set()
    assert await asyncio.gather(*settled) == ["", "broken", ""]
    assert seen == [("a", b"x"), ("b", b"x"), ("c", b"x")]
    assert done == [("a", ""), ("b", "broken"), ("c", "")]
    assert most == 1
    assert await keeper.settled("b") == ""


async def test_what_is_kept_in_answer_to_another_is_waited_for() -> None:
    async def ask(ticket: str, content: bytes) -> str:
        await asyncio.sleep(0)
        return "" if not content else "broken"

    keeper, done = Keeper(asyncio.get_running_loop(), ask), []

    def again(error: str) -> None:
        keeper.keep("first", b"", done.append)

    keeper.keep("first", b"x", again)
    assert await keeper.settled("first") == "broken"
    assert done == [""]


async def test_an_answer_does_not_wait_for_what_others_ask() -> None:
    """A crew whose tickets cannot be kept asks again and again: an approver was never told."""
    async def ask(ticket: str, content: bytes) -> str:
        await asyncio.sleep(0)
        return ""

    keeper = Keeper(asyncio.get_running_loop(), ask)

    def again(error: str) -> None:
        keeper.keep("crew", b"x", again)

    again("")
    keeper.keep("approver", b"x", lambda error: None)
    assert await asyncio.wait_for(keeper.settled("approver"), 5) == ""
    assert keeper._working is not None
    keeper._working.cancel()


@pytest.mark.parametrize("reason", [RecordingError("the disk is full"), KeyError("a bug")])
async def test_what_fails_leaves_nobody_waiting(reason: Exception) -> None:
    """An exception ended the work: the session waited for ever, and all that came after it."""
    async def ask(ticket: str, content: bytes) -> str:
        await asyncio.sleep(0)
        if ticket == "a":
            raise reason
        return ""

    def fails(error: str) -> None:
        raise reason

    keeper, done = Keeper(asyncio.get_running_loop(), ask), []
    keeper.keep("a", b"x", lambda error: done.append(("a", error)))
    keeper.keep("b", b"x", fails)
    keeper.keep("c", b"x", lambda error: done.append(("c", error)))
    said = await asyncio.wait_for(asyncio.gather(*map(keeper.settled, "abc")), 5)
    assert [ticket for ticket, _ in done] == ["a", "c"]
    assert "recorded: the disk is full" in said[0] or "could not be asked (KeyError)" in said[0]
    assert done[0] == ("a", said[0])
    assert type(reason).__name__ in said[1]
    assert said[2] == ""


async def test_what_is_kept_was_recorded_and_what_is_over_is_forgotten_in_any_case() -> None:
    """Killed in between, the next enforcer had an approval that no journal told of."""
    order: list[str] = []
    full = False

    async def ask(ticket: str, content: bytes) -> str:
        order.append(f"keep {ticket}" if content else f"forget {ticket}")
        return ""

    def write() -> None:
        if full:
            raise RecordingError("the disk is full")
        order.append("written")

    keeper, done = Keeper(asyncio.get_running_loop(), ask, write), []
    keeper.keep("a", b"x", done.append)
    await keeper.settled("a")
    full = True
    keeper.keep("b", b"x", done.append)
    await keeper.settled("b")
    keeper.keep("a", b"", done.append)
    await keeper.settled("a")
    assert order == ["written", "keep a", "forget a"]
    assert done == ["", "it cannot be recorded: the disk is full", ""]
