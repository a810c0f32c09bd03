"""How long a process of Weir's may take to come up: longer where those before ran out of their time."""
from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent import services
from agent.channel import SilenceError

USUAL = 0.05                          # seconds


class Slow(services.Service):
    """Its first answer takes as long as it is told; then it is up until it is ended."""

    name = "slow"

    def __init__(self, place: Path, takes: float) -> None:
        self.said: list[str] = []
        self.changed = asyncio.Event()
        super().__init__("nobody", place, lambda name, detail: self.said.append(str(detail["reason"])),
                         self.changed.set)
        self.takes, self.end = takes, asyncio.Event()

    async def _life(self) -> str:
        await self._begin(self._answer, USUAL)
        self._set(True, "")
        await self.end.wait()
        self.end.clear()
        return "it was ended"

    async def _answer(self, seconds: float) -> str:
        try:
            async with asyncio.timeout(seconds):
                await asyncio.sleep(self.takes)
        except TimeoutError:
            raise SilenceError(f"not within {seconds:g}") from None
        return ""

    async def until_up(self) -> None:
        while not self.up:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 20)


def test_a_busy_host_is_given_more_time_each_time(tmp_path: Path) -> None:
    async def go() -> list[str]:
        service = Slow(tmp_path, takes=5 * USUAL)
        service.start()
        await service.until_up()
        await service.stop()
        return service.said

    assert asyncio.run(go()) == ["not within 0.05", "not within 0.1", "not within 0.2"]


def test_it_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "LONGEST_WAIT", 0.1)

    async def go() -> list[str]:
        service = Slow(tmp_path, takes=60)
        service.start()
        while len(service.said) < 6:
            await asyncio.sleep(0.05)
        await service.stop()
        return service.said

    assert asyncio.run(go())[3:6] == ["not within 0.4"] * 3


@pytest.mark.parametrize("proven", [True, False])
def test_who_was_up_for_long_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proven: bool) -> None:
    monkeypatch.setattr(services, "PROVEN", 0.0 if proven else 60.0)

    async def go() -> list[str]:
        service = Slow(tmp_path, takes=3 * USUAL)
        service.start()
        await service.until_up()
        service.end.set()
        while len(service.said) < 3:
            await asyncio.sleep(0.02)
        await service.until_up()
        await asyncio.sleep(0.3)
        await service.stop()
        return service.said

    before = ["not within 0.05", "not within 0.1", "it was ended"]
    assert asyncio.run(go()) == (before + before[:2] if proven else before)
