"""Catalogues: what a target's database holds, read by a connection of Weir's own, kept, read again when found wanting.

A reading counts for a session that found its catalogue wanting only if it began after the session asked: an earlier one
may have missed what the session changed.  Readings of one database run one after another, and whoever asks while one
runs shares the next.
"""
from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from agent.contract.credential import Credential
from agent.contract.target import Target
from enforcer.core.context import Context
from enforcer.edge.edge import Edge

LOG = logging.getLogger("weir.catalogue")

MOST: Final = 256                     # catalogues kept
LIMIT: Final = 30.0                   # seconds that one reading may take

Answer = tuple[object, str]
Read = Callable[[Context, str, Credential, int], object]      # blocking: (context, database, credential, version)


@dataclass(frozen=True, slots=True)
class _Kept:
    target: Target
    catalogue: object


class Catalogues:
    """`read` runs in a thread and gives the protocol's own Catalogue; what it raises becomes a reason."""

    def __init__(self, edge: Edge, read: Read) -> None:
        self._edge, self._read = edge, read
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._running: dict[tuple[str, str], asyncio.Task[Answer]] = {}
        self._next: dict[tuple[str, str], asyncio.Task[Answer]] = {}
        self._threads = ThreadPoolExecutor(2, "catalogue")
        self._version = 0

    async def load(self, context: Context, database: str, credential: Credential, stale: int) -> Answer:
        """(catalogue, "") or (None, why not)."""
        key = (context.target.name, database)
        kept = self._kept.get(key)
        if not stale and kept is not None and kept.target == context.target:
            return kept.catalogue, ""
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = self._start(key, context, database, credential)
        elif stale:
            if key not in self._next:
                self._next[key] = asyncio.create_task(self._after(running, key, context, database, credential))
            running = self._next[key]
        return await asyncio.shield(running)

    def _start(
        self, key: tuple[str, str], context: Context, database: str, credential: Credential
    ) -> asyncio.Task[Answer]:
        task = asyncio.create_task(self._load(context, database, credential))
        task.add_done_callback(lambda done: self._forget(key, done))
        return task

    def _forget(self, key: tuple[str, str], done: asyncio.Task[Answer]) -> None:
        if self._running.get(key) is done:
            del self._running[key]

    async def _after(
        self, running: asyncio.Task[Answer], key: tuple[str, str], context: Context, database: str,
        credential: Credential,
    ) -> Answer:
        await asyncio.wait({running})
        del self._next[key]
        fresh = self._running[key] = self._start(key, context, database, credential)
        return await asyncio.shield(fresh)

    async def _load(self, context: Context, database: str, credential: Credential) -> Answer:
        wanted = context.target.options.get("catalogue_credential", "")
        if wanted:
            answer = await self._edge.asking.credential(context.target.name, database, wanted, ())
            if isinstance(answer, str):
                return None, answer
            credential = answer
        self._version += 1
        version = self._version
        try:
            async with asyncio.timeout(LIMIT):
                found = await self._edge.loop.run_in_executor(
                    self._threads, self._read, context, database, credential, version
                )
        except TimeoutError:
            return None, f"the catalogue of {database} could not be read within {LIMIT:.0f} seconds"
        except Exception as error:
            LOG.error("a catalogue of target %s could not be read: %s", context.target.name, type(error).__name__)
            return None, f"the catalogue of {database} could not be read: {type(error).__name__}"
        while len(self._kept) >= MOST:
            del self._kept[next(iter(self._kept))]
        self._kept[(context.target.name, database)] = _Kept(context.target, found)
        return found, ""

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
