"""What the enforcer lists, asked for once however many people look: their browsers' number and haste are no load of the
process that crews' connections go through."""
from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

REST: Final = 4                       # times as long as an answer took: what is long is asked for less often,
LONGEST: Final = 0.5                  # seconds at most

_Answer = TypeVar("_Answer")


class Listing(Generic[_Answer]):
    """One question at a time.  Who comes while it is under way is answered by the next: nothing is older than the
    question for it."""

    def __init__(self, ask: Callable[[], Awaitable[_Answer]]) -> None:
        self._ask = ask
        self._now: asyncio.Task[_Answer] | None = None
        self._next: asyncio.Task[_Answer] | None = None
        self._rested = 0.0            # seconds of the monotonic clock

    async def get(self) -> _Answer:
        """Raises what `ask` raises."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._run(self._now))
        return await asyncio.shield(self._next)

    async def _run(self, before: asyncio.Task[_Answer] | None) -> _Answer:
        if before is not None:
            await asyncio.wait({before})
        await asyncio.sleep(max(0.0, self._rested - time.monotonic()))
        self._now, self._next = self._next, None
        began = time.monotonic()
        try:
            return await self._ask()
        finally:
            now = time.monotonic()
            self._rested = now + min(LONGEST, REST * (now - began))
