"""The watch's pace, with a kernel in the test's hands."""
from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from agent.block import watch
from agent.block.watch import Watch
from agent.status import Health


class Kernel:
    """One look takes `seconds`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.found: list[str] = []
        self.repaired = 0

    def watched(self) -> dict[Any, str]:
        return {}

    def problems(self) -> list[str]:
        time.sleep(self.seconds)
        return self.found

    def repair(self) -> None:
        self.repaired += 1
        self.found = []

    def remark(self, starts: object) -> int:
        return 0

    def freeze(self, on: bool) -> None:
        pass


async def test_who_was_stopped_during_a_look_looks_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look had found nothing, and what was taken away while the agent stood still waits no longer than any other
    change does: not for a share of the time in which nothing was done."""
    monkeypatch.setattr(watch, "EVERY", 0.1)
    kernel = Kernel()
    agent: Any = SimpleNamespace(
        kernel=kernel, looking=asyncio.Lock(), released=False, health=Health(starting=False),
        owners=SimpleNamespace(marked=lambda: {}), tell=lambda name, detail, workload="": None)
    one = Watch(agent)
    kernel.seconds = 1.0              # SIGSTOP, then SIGCONT
    assert not await one.look()
    kernel.seconds, kernel.found = 0.0, ["hook connect4: is not attached to the cgroup"]
    one._changed.set()                # the kernel has told of it meanwhile
    began = time.monotonic()
    await one.wait()
    assert await one.look()
    assert kernel.repaired == 1
    assert time.monotonic() - began < 3.0, "it rested for a share of a look that it had slept through"
