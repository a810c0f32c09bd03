from __future__ import annotations

import asyncio
from typing import Any

from agent.channel import ChannelError
from agent.contract.messages import Changed, Done
from agent.watching import EVERYTHING, Watching


class Channel:
    def __init__(self) -> None:
        self.on: list[bool] = []
        self.news: Any = None

    async def ask(self, make: Any, wanted: Any) -> Done:
        self.on.append(make(1).on)
        return Done(1)


async def test_the_enforcer_speaks_while_somebody_listens() -> None:
    now: list[Channel] = []
    told: list[tuple[str, Changed]] = []

    def channel() -> Any:
        if not now:
            raise ChannelError("the enforcer is not running")
        return now[0]

    watching = Watching(channel)
    watching.began()
    watching.watch("notify", lambda changed: told.append(("notify", changed)))
    assert told == []                 # none runs yet
    first = Channel()
    now.append(first)
    watching.began()
    watching.began()                  # still the same
    await asyncio.sleep(0)
    assert (first.on, told) == ([True], [("notify", EVERYTHING)])
    watching.watch("page", lambda changed: told.append(("page", changed)))
    told.clear()
    first.news(Changed(holds=True))
    assert told == [("notify", Changed(holds=True)), ("page", Changed(holds=True))]
    watching.leave("page")
    await asyncio.sleep(0)
    assert first.on[-1] is True
    watching.leave("notify")
    await asyncio.sleep(0)
    assert first.on[-1] is False
    watching.watch("notify", lambda changed: told.append(("notify", changed)))
    told.clear()
    now[0] = second = Channel()       # it was started again
    watching.began()
    await asyncio.sleep(0)
    assert (second.on, told) == ([True], [("notify", EVERYTHING)])


async def test_who_changes_their_mind_all_the_time_is_not_passed_on() -> None:
    there = Channel()
    watching = Watching(lambda: there)  # type: ignore[arg-type, return-value]
    watching.began()
    for _ in range(1000):
        watching.watch("page", lambda changed: None)
        watching.leave("page")
    watching.watch("page", lambda changed: None)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(there.on) <= 2
    assert there.on[-1] is True
