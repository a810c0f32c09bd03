"""What the agent keeps for the enforcer (tickets, elevations): asked in order, one at a time.

Whoever waits for it is told, whatever goes wrong: an answer that never comes would leave a session waiting.
"""
from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from enforcer.words.errors import RecordingError

LOG = logging.getLogger("weir.keeping")

Done = Callable[[str], None]


@dataclass(slots=True)
class _Open:
    """What is asked about one ticket and not done."""

    count: int = 0
    error: str = ""
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Keeper:
    """`ask(ticket, content)` gives what is wrong, or ""; with b"" the agent forgets the ticket.  `write` brings to the
    journal what was recorded until now, or raises RecordingError: what outlives this process was recorded."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, ask: Callable[[str, bytes], Awaitable[str]],
        write: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop, self._ask, self._write = loop, ask, write
        self._waiting: deque[tuple[str, bytes, Done]] = deque()
        self._working: asyncio.Task[None] | None = None
        self._open: dict[str, _Open] = {}

    def keep(self, ticket: str, content: bytes, done: Done) -> None:
        self._waiting.append((ticket, content, done))
        self._open.setdefault(ticket, _Open()).count += 1
        if self._working is None or self._working.done():
            self._working = self._loop.create_task(self._work())

    async def _work(self) -> None:
        while self._waiting:
            ticket, content, done = self._waiting.popleft()
            error = await self._answer(ticket, content)
            try:
                done(error)
            except Exception as reason:      # what could not be recorded has ended the sessions (Edge.hold_changed)
                LOG.error("what follows on a ticket failed: %s", type(reason).__name__)
                error = error or f"what follows on it failed ({type(reason).__name__})"
            self._close(ticket, error)

    async def _answer(self, ticket: str, content: bytes) -> str:
        try:
            if content:
                self._write()
            return await self._ask(ticket, content)
        except RecordingError as reason:
            return f"it cannot be recorded: {reason}"
        except Exception as reason:
            LOG.error("the agent could not be asked about a ticket: %s", type(reason).__name__)
            return f"the agent could not be asked ({type(reason).__name__})"

    def _close(self, ticket: str, error: str) -> None:
        one = self._open[ticket]
        one.count -= 1
        one.error = error or one.error
        if not one.count:
            del self._open[ticket]
            one.done.set()

    async def settled(self, ticket: str) -> str:
        """When all that was given of this ticket, and what followed on it, is kept: "", or the last of what went wrong
        on the way.  What others wait for is not waited for."""
        one = self._open.get(ticket)
        if one is None:
            return ""
        await one.done.wait()
        return one.error
