"""Readings of targets in threads: what blocks, and what a target may never let end.

A thread cannot be ended from outside, so a reading that was given up may go on: it keeps its place, which is one of few
that its target has, and nobody else waits for it, neither other targets nor the end of this process.
"""
from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

Found = TypeVar("Found")


class Readings:
    """`each`: how many of one target go on at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, each: int) -> None:
        self._loop, self._name, self._each = loop, name, each
        self._places: dict[str, asyncio.Semaphore] = {}

    async def read(self, target: str, work: Callable[[], Found]) -> Found:
        """Waits for a place first.  Raises what `work` raises."""
        places = self._places.setdefault(target, asyncio.Semaphore(self._each))
        await places.acquire()
        found: asyncio.Future[Found] = self._loop.create_future()

        def ended(settle: Callable[[], None]) -> None:
            places.release()
            if not found.done():
                settle()

        def run() -> None:
            try:
                result = work()
            except Exception as error:
                reason = error
                self._tell(lambda: ended(lambda: found.set_exception(reason)))
            else:
                self._tell(lambda: ended(lambda: found.set_result(result)))

        try:
            threading.Thread(target=run, name=self._name, daemon=True).start()
        except RuntimeError:
            places.release()
            raise
        return await found

    def _tell(self, done: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(done)
