"""The agent's door to its launcher, where the launcher does not come up."""
from __future__ import annotations

import asyncio
import os

import pytest

from agent.workload import launching
from agent.workload.launch import Ended
from agent.workload.launching import LauncherDoor

pytestmark = pytest.mark.kernel


async def test_a_launcher_that_cannot_start_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that lacks a library: it is told by `start`, not by `lost`, and can be started again."""
    lost: list[bool] = []
    door = LauncherDoor(lambda ended: None, lambda: lost.append(True))
    with monkeypatch.context() as broken:
        broken.setattr(launching, "_START", "import sys; sys.exit(1)")
        with pytest.raises(OSError, match="ended before it was ready"):
            await door.start()
    assert not lost
    await door.start()
    assert not lost
    os.kill(door.pid, 9)
    await door.ended()
    assert lost


async def test_a_launcher_that_says_nothing_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    door = LauncherDoor(lambda ended: None)
    monkeypatch.setattr(launching, "_START", "import os; os.read(3, 1)")      # ends when its channel does
    monkeypatch.setattr(launching, "_READY", 0.1)
    with pytest.raises(OSError, match="not ready within"):
        await door.start()


async def test_what_was_asked_of_a_launcher_that_dies_is_told_as_ended() -> None:
    ends: list[Ended] = []
    door = LauncherDoor(ends.append)
    await door.start()
    waiting: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    door._waiting[7] = waiting  # type: ignore[assignment]
    os.kill(door.pid, 9)
    await door.ended()
    assert [(one.number, one.code) for one in ends] == [(7, 125)]
    assert waiting.done()
