"""Changes are told while somebody watches, many as one."""
from __future__ import annotations

import asyncio

import pytest

from agent.contract.messages import Changed
from enforcer.edge import changes
from enforcer.edge.changes import Changes


async def test_many_are_told_as_one_and_none_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "EVERY", 0.02)
    told: list[object] = []
    made = Changes(told.append)
    made.holds()
    await asyncio.sleep(0.05)
    assert told == [], "nobody watches"
    made.watch(True)
    for _ in range(1000):
        made.holds()
    made.sessions()
    await asyncio.sleep(0.05)
    assert told == [Changed(holds=True, sessions=True)]
    made.sessions()
    await asyncio.sleep(0.05)
    assert told[1:] == [Changed(sessions=True)]
    made.holds()
    made.watch(False)
    await asyncio.sleep(0.05)
    assert len(told) == 2
