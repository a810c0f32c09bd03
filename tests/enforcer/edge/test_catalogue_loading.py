"""Catalogues: who shares a reading, and who needs one that began later."""
from __future__ import annotations

import asyncio
import dataclasses
import threading

import msgspec
import pytest

from agent.contract.credential import Credential
from enforcer import protocols
from enforcer.edge import catalogue
from enforcer.edge.catalogue import Catalogues
from enforcer.words import events

SECRET = Credential("u", "hunter2")


class Reading:
    """Blocking readings that the test lets go one by one; each gives its version."""

    def __init__(self) -> None:
        self.began: list[int] = []
        self.asked: list[dict[str, object]] = []
        self.go = threading.Semaphore(0)

    def __call__(self, **asked) -> object:
        self.began.append(asked["version"])
        self.asked.append(asked)
        assert self.go.acquire(timeout=10)
        if asked["database"] == "broken":
            raise KeyError("hunter2")
        return asked["version"]


@pytest.fixture
async def prepared(house, monkeypatch: pytest.MonkeyPatch):
    target = house.target(5432, tls="disable")
    await house.open(target)
    house.asked.owner = house.owner(5432, "orders")
    reading = Reading()
    found = protocols.find("postgresql")
    entry = dataclasses.replace(found, read_catalogue=reading)
    monkeypatch.setattr(protocols, "find", lambda name: entry)
    yield Catalogues(house.edge), reading, house.edge.context(house.asked.owner, target)
    await house.close()


def with_target(context, target):
    return dataclasses.replace(context, target=target)


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_one_reading_for_all_who_want_any(prepared) -> None:
    catalogues, reading, context = prepared
    asking = [asyncio.create_task(catalogues.load(context, "shop", SECRET, 0)) for _ in range(5)]
    await until(lambda: reading.began)
    reading.go.release()
    assert await asyncio.gather(*asking) == [(1, "")] * 5
    assert await catalogues.load(context, "shop", SECRET, 0) == (1, "")
    assert reading.began == [1]


async def test_labels_that_no_database_has_a_column_for(prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two databases each misses what only the other has; a misspelt one is missing in both."""
    catalogues, _reading, context = prepared

    class Read:
        def __init__(self, *warnings: str) -> None:
            self.warnings = warnings

    assert catalogues.lost_labels() == 0
    found = {"shop": Read("books.title", "misspelt"), "books": Read("shop.email", "misspelt")}
    entry = dataclasses.replace(protocols.find("postgresql"), read_catalogue=lambda **asked: found[asked["database"]])
    monkeypatch.setattr(protocols, "find", lambda name: entry)
    await catalogues.load(context, "shop", SECRET, 0)
    assert catalogues.lost_labels() == 2
    await catalogues.load(context, "books", SECRET, 0)
    assert catalogues.lost_labels() == 1
    catalogues._edge.catalogues = catalogues
    assert catalogues._edge.statistics()["lost_labels"] == 1
    catalogues._edge.catalogues = None


async def test_who_found_it_wanting_gets_a_reading_that_began_later(prepared) -> None:
    catalogues, reading, context = prepared
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


async def test_a_failure_is_a_reason_without_the_errors_text(prepared, caplog) -> None:
    catalogues, reading, context = prepared
    reading.go.release()
    found, reason = await catalogues.load(context, "broken", SECRET, 0)
    assert found is None
    assert "KeyError" in reason
    assert "hunter2" not in reason + caplog.text


async def test_a_changed_target_is_read_again(prepared, house) -> None:
    catalogues, reading, context = prepared
    reading.go.release()
    await catalogues.load(context, "shop", SECRET, 0)
    context = with_target(context, house.target(5432, tls="disable", payload="rows"))
    reading.go.release()
    assert await catalogues.load(context, "shop", SECRET, 0) == (2, "")


async def test_a_credential_of_its_own(prepared, house) -> None:
    catalogues, reading, context = prepared
    context = with_target(context, house.target(5432, tls="disable", options={"catalogue_credential": "reader"}))
    house.asked.login = Credential("reader", "x")
    reading.go.release()
    await catalogues.load(context, "shop", SECRET, 0)
    assert [asked["credential"] for asked in reading.asked] == [Credential("reader", "x")]


async def test_one_who_gives_up_does_not_stop_the_others(prepared) -> None:
    catalogues, reading, context = prepared
    one = asyncio.create_task(catalogues.load(context, "shop", SECRET, 0))
    two = asyncio.create_task(catalogues.load(context, "shop", SECRET, 0))
    await until(lambda: reading.began)
    one.cancel()
    reading.go.release()
    assert await two == (1, "")


async def test_it_is_recorded_before_it_begins_and_when_it_ended(prepared, house) -> None:
    catalogues, reading, context = prepared
    asking = asyncio.create_task(catalogues.load(context, "shop", SECRET, 0))
    await until(lambda: reading.began)
    texts = protocols.find("postgresql").catalogue_statements()
    assert [event[0] for event in house.journal.events()] == [events.SESSION_OPENED, *[events.INTENT] * len(texts)]
    reading.go.release()
    await asking
    house.edge.commit.write_now()
    opened, *rest, closed = house.journal.events()
    assert (opened[8], closed[0]) == ("weir", events.SESSION_CLOSED)
    assert {(intent[5], intent[6]) for intent in rest[:len(texts)]} == {("weir", "catalogue")}
    assert [result[5] for result in rest[len(texts):]] == ["ok"] * len(texts)
    assert reading.asked[0]["host"] == "127.0.0.1"


async def test_nothing_is_read_where_it_cannot_be_recorded(prepared, house) -> None:
    catalogues, reading, context = prepared
    house.journal.full = True
    found, reason = await catalogues.load(context, "shop", SECRET, 0)
    assert (found, "RecordingError" in reason, reading.began) == (None, True, [])
    house.journal.full = False


async def test_a_target_that_lets_no_reading_end_keeps_no_other_waiting(prepared, house, monkeypatch) -> None:
    """Two readings that went on for ever were all threads there were: no login to any target got further."""
    catalogues, reading, context = prepared
    monkeypatch.setattr(catalogue, "LIMIT", 0.2)
    for database in ("one", "two", "three"):
        found, reason = await catalogues.load(context, database, SECRET, 0)
        assert (found, "could not be read within" in reason) == (None, True)
    assert len(reading.began) == 2
    other = with_target(context, msgspec.structs.replace(context.target, name="other"))
    monkeypatch.setattr(catalogue, "LIMIT", 10)
    asking = asyncio.create_task(catalogues.load(other, "shop", SECRET, 0))
    await until(lambda: len(reading.began) == 3)
    for _ in range(3):
        reading.go.release()
    assert (await asking)[1] == ""
    reading.go.release()
    assert (await catalogues.load(context, "three", SECRET, 0))[1] == ""
