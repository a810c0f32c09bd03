"""What the agent keeps for the enforcer (tickets, elevations): asked in order, one at a time."""
from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

Done = Callable[[str], None]


class Keeper:
    """`ask(ticket, content)` gives what is wrong, or ""; with b"" the agent forgets the ticket."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ask: Callable[[str, bytes], Awaitable[str]]) -> None:
        self._loop, self._ask = loop, ask
        self._waiting: deque[tuple[str, bytes, Done]] = deque()
        self._working: asyncio.Task[None] | None = None
        self._failed = 0
        self._error = ""

    def keep(self, ticket: str, content: bytes, done: Done) -> None:
        self._waiting.append((ticket, content, done))
        if self._working is None or self._working.done():
            self._working = self._loop.create_task(self._work())

    async def _work(self) -> None:
        while self._waiting:
            ticket, content, done = self._waiting.popleft()
            error = await self._ask(ticket, content)
            if error:
                self._failed, self._error = self._failed + 1, error
            done(error)

    async def settled(self) -> str:
        """When all that was given until now is kept: "", or the last of what went wrong on the way."""
        before = self._failed
        while self._working is not None and not self._working.done():
            await asyncio.wait({self._working})
        return self._error if self._failed > before else ""
