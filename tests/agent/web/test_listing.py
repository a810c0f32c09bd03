"""However many look, the enforcer is asked one thing at a time."""
from __future__ import annotations

import asyncio

import pytest

from agent.channel import ChannelError
from agent.web.listing import Listing


async def test_many_who_look_ask_once_and_nobody_is_told_what_was_before_they_asked() -> None:
    asked: list[asyncio.Future[int]] = []

    async def ask() -> int:
        asked.append(asyncio.get_running_loop().create_future())
        return await asked[-1]

    listing = Listing(ask)
    first = [asyncio.ensure_future(listing.get()) for _ in range(50)]
    while not asked:
        await asyncio.sleep(0)
    later = [asyncio.ensure_future(listing.get()) for _ in range(50)]
    await asyncio.sleep(0.01)
    assert len(asked) == 1            # one at a time
    asked[0].set_result(1)
    assert await asyncio.gather(*first) == [1] * 50
    later[0].cancel()                 # who leaves takes nobody along
    while len(asked) == 1:
        await asyncio.sleep(0.01)
    asked[1].set_result(2)
    assert await asyncio.gather(*later[1:]) == [2] * 49
    assert len(asked) == 2


async def test_the_enforcer_rests_and_one_that_is_away_is_said_to_be() -> None:
    asked: list[float] = []

    async def ask() -> int:
        asked.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.02)
        if len(asked) == 2:
            raise ChannelError("the enforcer is not running")
        return len(asked)

    listing = Listing(ask)
    assert await listing.get() == 1
    with pytest.raises(ChannelError):
        await listing.get()
    assert await listing.get() == 3
    assert asked[1] - asked[0] > 0.08         # a fifth of the time, at most
