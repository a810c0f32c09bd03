"""What fails in one part of the agent's work, and what of the others."""
from __future__ import annotations

import asyncio
from collections.abc import Mapping

from agent.block.attribution import Origin
from agent.block.connects import connect_events
from agent.parts import Parts
from agent.status import BLOCK, DEGRADED, ENFORCING, Health
from agent.workload.owners import Start

CREW = Start(7, "crew", 5, "games", (), "/nowhere", 0)


def whole() -> Health:
    return Health(starting=False, holes=(), probe=(), enforcer="", recorder="", launcher="")


def test_a_part_that_fails_is_said_while_it_does_and_the_others_go_on() -> None:
    health, told, done = whole(), [], []
    parts = Parts(health.failing, lambda name, detail: told.append((name, detail["part"])))
    odd = [True]

    def work() -> None:
        if odd[0]:
            b"\xff".decode()

    async def other() -> None:
        done.append(True)

    async def tick() -> None:
        await parts.run("units", work)
        await parts.run("others", other)

    asyncio.run(tick())
    asyncio.run(tick())
    state, reasons = health.state()
    assert (state, len(reasons), len(done)) == (DEGRADED, 1, 2)
    assert reasons[0].startswith("units: UnicodeDecodeError: ")
    assert health.contained, "workloads are started: the block is whole"
    odd[0] = False
    asyncio.run(tick())
    assert health.state() == (ENFORCING, ())
    assert told == [("part.failed", "units"), ("part.mended", "units")]


def test_nothing_is_started_where_the_block_is_not_watched() -> None:
    health = whole()
    parts = Parts(health.failing, lambda name, detail: None)
    with parts.part(BLOCK):
        raise RuntimeError
    assert health.state()[0] == DEGRADED
    assert not health.contained


def test_what_is_wrong_may_be_any_text() -> None:
    told: list[Mapping[str, object]] = []
    failing: dict[str, str] = {}
    with Parts(failing, lambda name, detail: told.append(detail)).part("units"):
        raise OSError(2, "No such file", "/srv/\udcff" + "x" * 1000)
    assert "\\udcff" in failing["units"]
    assert len(failing["units"].encode()) < 1000


def test_a_connect_that_nobody_can_tell_whose_is_recorded_and_so_are_the_others() -> None:
    def whose(one: Origin) -> Start | None:
        if one.owner == 0:
            b"\xff".decode()
        return CREW if one.owner == 7 else None

    origins = [Origin(owner, 100 + owner, 1, owner + 1, 0, "192.0.2.4", 5432, "mark") for owner in (7, 0, 9)]
    events, untold = connect_events(origins, whose)
    assert [(one.workload, one.detail["cookie"], one.detail.get("untold")) for one in events] == [
        ("crew", "8", None), ("", "1", "UnicodeDecodeError"), ("", "a", None)]
    assert untold == 1
