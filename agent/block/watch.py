"""The watch: is the block as it should be, do Weir's own processes run; what is wrong is put right and recorded.

It looks when the kernel tells of a change (agent/block/changes.py), and once a second.  What was found is repaired at
once, and where both layers were hit, or marks are not handed on, everything in the slice stands still meanwhile
(cgroup.freeze): with one layer left, nothing gets out.  Who takes the block away again and again does not keep the
agent busy (agent/block/repairs.py).
"""
from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent import procfs
from agent.block.changes import Changes
from agent.block.repairs import Repairs

if TYPE_CHECKING:
    from agent.supervisor import Agent

LOG = logging.getLogger("weir.watch")

EVERY: Final = 1.0                    # seconds between looks where nobody tells of a change
SOON: Final = 0.05                    # seconds between a change and the look: what belongs together comes together
SHARE: Final = 5                      # looks take at most one part of so many, however often something changes; but
                                      # none waits longer than EVERY: who was stopped during one has not been busy
BESIDE: Final = 10.0                  # seconds between looks at what others have at the same places
SUSPENDED: Final = 3                  # seconds in a row after which a process that is stopped again is ended
PAUSED: Final = 5.0                   # seconds without a look that are said: the agent itself stood still


class Watch:
    """Of an agent; `look` and `processes` say what they find to its health."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._changed = asyncio.Event()
        self._changes = Changes(agent.kernel.watched(), self._changed.set)
        self._repairs = Repairs()
        self._looked, self._cost, self._beside_at = time.monotonic(), 0.0, 0.0
        self._frozen = False
        self._suspended: dict[str, int] = {}
        self.beside: tuple[str, ...] = ()      # programs of others at the same hooks
        self._mangling: tuple[str, ...] = ()

    def open(self) -> None:
        try:
            self._changes.open()
        except OSError as reason:
            LOG.warning("changes at the block are noticed once a second only: %s", reason)

    def close(self) -> None:
        self._changes.close()

    def also(self, paths: Iterable[Path]) -> None:
        """Changes of these are a reason to look, too."""
        self._changes.also(paths)

    async def wait(self) -> None:
        """Until there is reason to look."""
        with suppress(TimeoutError):
            async with asyncio.timeout(EVERY):
                await self._changed.wait()
        if self._changed.is_set():
            await asyncio.sleep(min(max(SOON, self._cost * SHARE), EVERY))
        self._changed.clear()

    # the block

    async def look(self) -> bool:
        """By the kernel's own word.  Whether something was put back, and all is as it should be."""
        agent = self._agent
        async with agent.looking:
            if agent.released:
                return False
            began = time.monotonic()
            self._say_pause(began)
            found = tuple(await asyncio.to_thread(self._problems))
            self._looked, self._cost = time.monotonic(), time.monotonic() - began
            if not found:
                agent.health.holes = self._standing(began)
                self._thaw()
                return False
            agent.health.holes = found
            if not self._repairs.may(found, began):
                self._freeze(found)
                return False
            left = tuple(await asyncio.to_thread(self._repair, found))
            self._repairs.done(began, not left)
            self._changes.again()
            if not left:
                self._thaw()
            agent.health.holes = (*left, *self._standing(began))
        self._tell(found, left)
        return not left

    def _tell(self, found: tuple[str, ...], left: tuple[str, ...]) -> None:
        if times := self._repairs.tell((*found, *left), time.monotonic()):
            self._agent.tell("degraded" if left else "repaired", {
                "found": "; ".join(found), "left": "; ".join(left), "times": times})
            LOG.warning("the block was not whole: %s; %s", "; ".join(found), "not repaired" if left else "repaired")

    def _standing(self, now: float) -> tuple[str, ...]:
        again = self._repairs.again(now)
        return (*self._mangling, *((again,) if again else ()))

    def _problems(self) -> list[str]:
        try:
            return self._agent.kernel.problems()
        except Exception as reason:   # whatever it is: what cannot be seen does not count as in place
            return [f"the block could not be looked at: {type(reason).__name__}: {reason}"]

    def _repair(self, found: tuple[str, ...]) -> list[str]:
        self._freeze(found)
        try:
            self._agent.kernel.repair()
            self._remark()
        except Exception as reason:
            LOG.error("the block could not be repaired: %s: %s", type(reason).__name__, reason)
        return self._problems()

    def _remark(self) -> None:
        if wrong := self._agent.kernel.remark(self._agent.owners.marked()):
            LOG.warning("%d processes had marks that were not their own", wrong)

    def _freeze(self, found: tuple[str, ...]) -> None:
        """Where both layers were hit; and where marks are not handed on, for whose a process is decides what it may."""
        rules = any(one.startswith("nftables") for one in found)
        both = rules and any(one.startswith(("hook", "map")) for one in found)
        if (both or any(one.startswith("hook newtask") for one in found)) and not self._frozen:
            try:
                self._agent.kernel.freeze(True)
                self._frozen = True
            except Exception as reason:
                LOG.error("the slice could not be frozen: %s", reason)

    def _thaw(self) -> None:
        """Also what an agent before this one left."""
        if self._frozen or self._agent.health.starting:
            try:
                self._agent.kernel.freeze(False)
                self._frozen = False
            except Exception as reason:
                LOG.error("the slice could not be thawed: %s", reason)

    def _say_pause(self, now: float) -> None:
        if now - self._looked > PAUSED and not self._agent.health.starting:
            self._agent.tell("watch.paused", {"seconds": round(now - self._looked)})

    async def look_beside(self) -> None:
        """At what others have at the same places."""
        now = time.monotonic()
        if now < self._beside_at:
            return
        self._beside_at = now + BESIDE
        before = (self._mangling, self.beside)
        try:
            found = await asyncio.to_thread(lambda: (self._agent.kernel.mangling(), self._agent.kernel.beside()))
        except Exception as reason:   # what is wrong with the block itself is said by `look`
            LOG.warning("other rules and programs could not be looked at: %s", reason)
            return
        self._mangling, self.beside = tuple(found[0]), tuple(found[1])
        if before != (self._mangling, self.beside):
            self._agent.tell("beside", {"rules": "; ".join(self._mangling), "programs": "; ".join(self.beside)})

    # Weir's own processes

    def processes(self, pids: dict[str, int]) -> None:
        """One that was stopped by a signal goes on; one that is stopped again and again is ended, and started anew."""
        stopped = [name for name, pid in pids.items() if pid and _state(pid) == "T"]
        for name in stopped:
            self._suspended[name] = self._suspended.get(name, 0) + 1
            often = self._suspended[name] > SUSPENDED
            with suppress(ProcessLookupError):
                os.kill(pids[name], signal.SIGKILL if often else signal.SIGCONT)
            self._agent.tell(f"{name}.suspended", {"pid": pids[name], "done": "killed" if often else "continued"})
        self._suspended = {name: self._suspended[name] for name in stopped}
        self._agent.health.suspended = tuple(stopped)


def _state(pid: int) -> str:
    """As proc(5) has it; empty where it is gone."""
    try:
        return procfs.stat_fields(pid)[0]
    except (OSError, IndexError):
        return ""
