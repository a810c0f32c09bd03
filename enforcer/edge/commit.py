"""Group commit: the journal is written once a pass of the loop, and what waits for it goes then.

Theory: events are counted as they are appended.  `flushed` and `synced` say up to which count they are in the kernel
and on the disk.  A session that asked for a barrier notes the count it needs; at the end of the pass one write moves
`flushed` and every waiting session is asked to let go what it may.  fdatasync runs in a thread, one at a time, and
takes all that was flushed before it began.

Pressure: where the recorder falls behind (three quarters of the journal's bound) clients are not read for a while; only
if that does not help is the journal called failed, and sessions end.
"""
from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

import msgspec

from enforcer.words.errors import RecordingError
from enforcer.words.events import Blob

LAZY: Final = 0.02                    # seconds that a result may wait for company
CHECK: Final = 0.25                   # seconds between looks at disk and backlog
PATIENCE: Final = 10.0                # seconds of pressure before the journal counts as failed



class Journal(Protocol):
    """What is wanted of enforcer.recording.journal.JournalWriter."""

    def append(self, event: msgspec.Struct, blobs: tuple[Blob, ...] = ()) -> None: ...
    def flush(self) -> None: ...
    def sync(self) -> None: ...
    def check(self) -> None: ...
    def backlog(self) -> int: ...
    def close(self) -> None: ...


class Waiting(Protocol):
    def committed(self) -> bool:
        """Let go what may go now; True where nothing waits any more."""
        ...


class GroupCommit:
    """`failed(reason)` is called once when the journal cannot be written, `pressed(on)` when clients must wait."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, journal: Journal, limit: int, failed: Callable[[str], None],
        pressed: Callable[[bool], None],
    ) -> None:
        self._loop, self._journal, self._limit = loop, journal, limit
        self._failed, self._pressed = failed, pressed
        self.appended = self.flushed = self.synced = self.syncs = 0
        self.sync_seconds = 0.0       # that fdatasync took in all
        self.failure = ""             # why nothing may be forwarded now
        self._scheduled = False
        self._lazy: asyncio.TimerHandle | None = None
        self._waiting: list[Waiting] = []
        self._unsynced: list[Waiting] = []
        self._wanted = 0              # count that somebody wants on the disk
        self._syncing = False
        self._syncer = ThreadPoolExecutor(1, "fdatasync")
        self._since: float | None = None
        self._timer = loop.call_later(CHECK, self._look)

    def append(self, event: msgspec.Struct, blobs: tuple[Blob, ...] = ()) -> int:
        """Gives the count that a barrier must wait for.  RecordingError where the event cannot be written at all."""
        self._journal.append(event, blobs)
        self.appended += 1
        if self._lazy is None:
            self._lazy = self._loop.call_later(LAZY, self._late)
        return self.appended

    def wait(self, waiting: Waiting, durable: bool) -> None:
        """`waiting.committed()` is called at the end of this pass, and again after fdatasync where `durable`."""
        self._waiting.append(waiting)
        if durable:
            self._wanted = self.appended
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._pass)

    def write_now(self) -> None:
        """Everything appended until now is in the journal.  RecordingError where it cannot be."""
        if self.failure or (self.appended > self.flushed and not self._write()):
            raise RecordingError(self.failure)

    def _late(self) -> None:
        self._lazy = None
        if self.appended > self.flushed and not self._scheduled:
            self._pass()

    def _pass(self) -> None:
        self._scheduled = False
        if self.failure or not self._write():
            return
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.committed():
                self._unsynced.append(one)
        if self._wanted > self.synced and not self._syncing:
            self._syncing = True
            self._loop.create_task(self._sync())

    def _write(self) -> bool:
        try:
            self._journal.flush()
        except RecordingError as error:
            self._fail(str(error))
            return False
        self.flushed = self.appended
        return True

    async def _sync(self) -> None:
        try:
            while min(self._wanted, self.flushed) > self.synced and not self.failure:
                reached, began = self.flushed, self._loop.time()
                await self._loop.run_in_executor(self._syncer, self._journal.sync)
                self.synced = reached
                self.syncs += 1
                self.sync_seconds += self._loop.time() - began
                waiting, self._unsynced = self._unsynced, []
                self._unsynced += [one for one in waiting if not one.committed()]
        except RecordingError as error:
            self._fail(str(error))
        finally:
            self._syncing = False

    def _fail(self, reason: str) -> None:
        if self.failure:
            return
        self.failure = reason or "the journal cannot be written"
        self._waiting, self._unsynced = [], []
        self._wanted = self.synced
        self._failed(self.failure)

    def _look(self) -> None:
        """Every CHECK seconds: is there room, does the recorder keep up, does a failed journal work again?"""
        self._timer = self._loop.call_later(CHECK, self._look)
        try:
            self._journal.check()
            self._press(self._journal.backlog())
            if self.failure and self._since is None:
                self._journal.flush()
                self._journal.sync()
                self.flushed = self.synced = self._wanted = self.appended
                self.failure = ""
        except RecordingError as error:
            self._fail(str(error))

    def _press(self, backlog: int) -> None:
        if self._since is None and backlog > self._limit * 3 // 4:
            self._since = self._loop.time()
            self._pressed(True)
        elif self._since is not None and backlog < self._limit // 2:
            self._since = None
            self._pressed(False)
        elif self._since is not None and self._loop.time() - self._since > PATIENCE:
            self._fail("the recorder does not keep up with the journal")

    def close(self) -> None:
        """Write what there is and close the file in order.  RecordingError where that fails."""
        self._timer.cancel()
        if self._lazy is not None:
            self._lazy.cancel()
        self._syncer.shutdown(wait=True)
        self._journal.flush()
        self._journal.close()
