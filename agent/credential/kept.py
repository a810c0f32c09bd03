"""Credentials that cost something to get: fetched once for all who ask at that moment, kept until they expire."""
from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Final

from agent.contract.credential import Credential
from agent.credential.secrets import SecretError

WAITING: Final = 256                  # who may wait for the same one,
ALL: Final = 768                      # and for any: the enforcer has other questions, too (agent/channel.py)
MARGIN: Final = 60.0                  # seconds before it expires, or a tenth of its life where that is less


@dataclass(frozen=True)
class Fetched:
    credential: Credential
    until: float = 0.0                # time.monotonic; 0: used by those who waited for it, and never again

    def __repr__(self) -> str:
        return f"Fetched({self.credential!r})"


Fetch = Callable[[], Coroutine[Any, Any, Fetched]]


def keep_until(expires: float) -> float:
    """time.monotonic until which what expires at `expires` (Unix seconds) is used: shortly before."""
    left = expires - time.time()
    return time.monotonic() + left - min(MARGIN, left / 10)


class Kept:
    """By key, one fetch at a time.  What was fetched under another `mark` counts no more."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[object, Fetched]] = {}
        self._running: dict[Hashable, asyncio.Task[Fetched]] = {}
        self._waiting: dict[Hashable, int] = {}

    async def get(self, key: Hashable, fetch: Fetch, mark: object = None) -> Credential:
        """Raises what `fetch` raises, for everybody who waits; SecretError where too many do."""
        known, found = self._kept.get(key, (None, None))
        fresh = found is not None and time.monotonic() < found.until and found.credential.lasts(time.time())
        if found is not None and fresh and known == mark:
            return found.credential
        if self._waiting.get(key, 0) >= WAITING or sum(self._waiting.values()) >= ALL:
            raise SecretError("too many logins wait for a credential already")
        self._waiting[key] = self._waiting.get(key, 0) + 1
        try:
            return (await asyncio.shield(self._running.get(key) or self._start(key, fetch, mark))).credential
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]

    def _start(self, key: Hashable, fetch: Fetch, mark: object) -> asyncio.Task[Fetched]:
        self._kept.pop(key, None)

        def done(task: asyncio.Task[Fetched]) -> None:
            if self._running.get(key) is task:
                del self._running[key]
                if not task.cancelled() and task.exception() is None and task.result().until:
                    self._kept[key] = mark, task.result()

        task = self._running[key] = asyncio.get_running_loop().create_task(fetch())
        task.add_done_callback(done)
        return task

    def forget(self, stays: Callable[[Hashable], bool]) -> None:
        """All but what `stays`: the configuration has changed."""
        for key in [one for one in self._kept if not stays(one)]:
            del self._kept[key]

    async def close(self) -> None:
        """What is being fetched is given up."""
        running = tuple(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._kept.clear()
