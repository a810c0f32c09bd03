"""Catalogues: who shares a reading, and who needs one that began later."""
from __future__ import annotations

import asyncio
import threading

from agent.contract.credential import Credential
from enforcer.edge.catalogue import Catalogues
from enforcer.edge.edge import Edge

SECRET = Credential("u", "hunter2")


class Reading:
    """Blocking readings that the test lets go one by one; each gives its version."""

    def __init__(self) -> None:
        self.began: list[int] = []
        self.credentials: list[Credential] = []
        self.go = threading.Semaphore(0)

    def __call__(self, context, database, credential, version) -> object:
        self.began.append(version)
        self.credentials.append(credential)
        assert self.go.acquire(timeout=10)
        if database == "broken":
            raise KeyError("hunter2")
        return version


def prepared(house):
    edge = Edge(asyncio.get_running_loop(), house.asked)
    reading = Reading()

    class Context:
        target = house.target(5432)

    return Catalogues(edge, reading), reading, Context()


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_one_reading_for_all_who_want_any(house) -> None:
    catalogues, reading, context = prepared(house)
    asking = [asyncio.create_task(catalogues.load(context, "shop", SECRET, 0)) for _ in range(5)]
    await until(lambda: reading.began)
    reading.go.release()
    assert await asyncio.gather(*asking) == [(1, "")] * 5
    assert await catalogues.load(context, "shop", SECRET, 0) == (1, "")
    assert reading.began == [1]


async def test_who_found_it_wanting_gets_a_reading_that_began_later(house) -> None:
    catalogues, reading, context = prepared(house)
    first = asyncio.create_task(catalogues.load(context, "shop", SECRET, 0))
    await until(lambda: reading.began)
    wanting = [asyncio.create_task(catalogues.load(context, "shop", SECRET, 1)) for _ in range(3)]
    await asyncio.sleep(0)
    reading.go.release()
    assert await first == (1, "")
    await until(lambda: len(reading.began) == 2)
    again = asyncio.create_task(catalogues.load(context, "shop", SECRET, 1))
    await asyncio.sleep(0)
    reading.go.release()
    assert await asyncio.gather(*wanting) == [(2, "")] * 3
    await until(lambda: len(reading.began) == 3)
    reading.go.release()
    assert await again == (3, "")


async def test_a_failure_is_a_reason_without_the_errors_text(house, caplog) -> None:
    catalogues, reading, context = prepared(house)
    reading.go.release()
    found, reason = await catalogues.load(context, "broken", SECRET, 0)
    assert found is None
    assert "KeyError" in reason
    assert "hunter2" not in reason + caplog.text


async def test_a_changed_target_is_read_again(house) -> None:
    catalogues, reading, context = prepared(house)
    reading.go.release()
    await catalogues.load(context, "shop", SECRET, 0)
    context.target = house.target(5432, payload="rows")
    reading.go.release()
    assert await catalogues.load(context, "shop", SECRET, 0) == (2, "")


async def test_a_credential_of_its_own(house) -> None:
    catalogues, reading, context = prepared(house)
    context.target = house.target(5432, options={"catalogue_credential": "reader"})
    house.asked.login = Credential("reader", "x")
    reading.go.release()
    await catalogues.load(context, "shop", SECRET, 0)
    assert reading.credentials == [Credential("reader", "x")]


async def test_one_who_gives_up_does_not_stop_the_others(house) -> None:
    catalogues, reading, context = prepared(house)
    one = asyncio.create_task(catalogues.load(context, "shop", SECRET, 0))
    two = asyncio.create_task(catalogues.load(context, "shop", SECRET, 0))
    await until(lambda: reading.began)
    one.cancel()
    reading.go.release()
    assert await two == (1, "")
