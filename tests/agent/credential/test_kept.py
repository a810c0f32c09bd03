"""Credentials that are fetched: by one for all who wait, and kept until shortly before they expire."""
from __future__ import annotations

import asyncio
import time

import pytest

from agent.contract.credential import Credential
from agent.credential import kept
from agent.credential.kept import Fetched, Kept, keep_until
from agent.credential.secrets import SecretError


class Source:
    """Gives a new credential each time it is let."""

    def __init__(self, until: float = 0.0) -> None:
        self.until, self.fetched, self.go = until, 0, asyncio.Event()
        self.go.set()

    async def __call__(self) -> Fetched:
        self.fetched += 1
        number = self.fetched
        await self.go.wait()
        return Fetched(Credential("u", f"hunter{number}"), self.until)


async def test_what_does_not_say_when_it_expires_is_never_kept() -> None:
    source, store = Source(), Kept()
    assert [(await store.get("a", source)).password for _ in range(2)] == ["hunter1", "hunter2"]


async def test_what_does_is_kept_until_then_and_for_its_mark() -> None:
    source, store = Source(time.monotonic() + 1000), Kept()
    assert [(await store.get("a", source, 1)).password for _ in range(2)] == ["hunter1", "hunter1"]
    assert (await store.get("a", source, 2)).password == "hunter2"
    assert (await store.get("b", source, 2)).password == "hunter3"
    store.forget(lambda key: key == "b")
    assert (await store.get("a", source, 2)).password == "hunter4"
    source.until = time.monotonic() - 1
    assert (await store.get("c", source)).password == "hunter5"
    assert (await store.get("c", source)).password == "hunter6"


async def test_who_asks_meanwhile_waits_for_the_same_one() -> None:
    source, store = Source(), Kept()
    source.go.clear()
    asking = [asyncio.create_task(store.get("a", source)) for _ in range(10)]
    other = asyncio.create_task(store.get("b", Source()))
    assert (await other).password == "hunter1"           # another row does not wait
    asking[0].cancel()                                   # who gives up takes nothing from the others
    source.go.set()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert source.fetched == 1
    assert {one.password for one in found[1:]} == {"hunter1"}  # type: ignore[union-attr]
    assert (await store.get("a", source)).password == "hunter2"


async def test_a_failure_is_everybodys_and_not_kept() -> None:
    store = Kept()

    async def fails() -> Fetched:
        await asyncio.sleep(0)
        raise SecretError("exit code 3")

    found = await asyncio.gather(*(store.get("a", fails) for _ in range(3)), return_exceptions=True)
    assert [str(one) for one in found] == ["exit code 3"] * 3
    assert (await store.get("a", Source())).password == "hunter1"


@pytest.mark.parametrize(("bound", "keys"), [("WAITING", "aaaa"), ("ALL", "abcd")])
async def test_so_many_may_wait(monkeypatch: pytest.MonkeyPatch, bound: str, keys: str) -> None:
    monkeypatch.setattr(kept, bound, 3)
    source, store = Source(), Kept()
    source.go.clear()
    asking = [asyncio.create_task(store.get(key, source)) for key in keys]
    with pytest.raises(SecretError, match="too many logins wait"):
        await asking[3]
    source.go.set()
    await asyncio.gather(*asking[:3])
    assert (await store.get("a", source)).password == f"hunter{len(set(keys[:3])) + 1}"


async def test_the_end_gives_up_what_is_fetched() -> None:
    source, store = Source(), Kept()
    source.go.clear()
    asking = asyncio.create_task(store.get("a", source))
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(asyncio.CancelledError):
        await asking


def test_kept_until_shortly_before() -> None:
    for life, wanted in ((100, 90), (10_000, 9_940)):
        assert keep_until(time.time() + life) - time.monotonic() == pytest.approx(wanted, abs=5)
    assert "hunter" not in repr(Fetched(Credential("u", "hunter2")))
