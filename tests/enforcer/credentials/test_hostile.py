"""A server that lies, stalls, redirects, sends too much: refused, in bounds, and without a word of it in any text."""
from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from hostile import Hostile, hostile
from lab import certificates
from vaulted import STORED

from agent.contract.vault import Fetch, Fetched, Made, Material, Server, Source
from enforcer.credentials import remote
from enforcer.credentials.vaults import Vaults

LOGIN = "/v1/auth/approle/login"
KV = "/v1/secret/data/crews/orders"
CREDS = "/v1/database/creds/orders"
LEASED: dict[str, Any] = {"lease_id": "database/creds/orders/x", "lease_duration": 60,
                          "data": {"username": "v-1", "password": "hunter2"}}


@pytest.fixture
def lying(hostile: Hostile) -> Hostile:
    hostile.say(LOGIN, {"auth": {"client_token": "s.hunter1", "lease_duration": 60, "renewable": True}})
    hostile.say(KV, {"data": {"data": {"username": "svc", "password": "hunter2"}}})
    hostile.say(CREDS, LEASED)
    return hostile


async def ask(lying: Hostile, source: Source = STORED, vaults: Vaults | None = None) -> Fetched:
    made = vaults or Vaults()
    made.configure([Server("safe", lying.issuer, lying.ca, "", "approle", "approle", "", "role")])
    found = await made.fetch(Fetch(7, "safe", Material(b"hunter0"), source))
    if vaults is None:
        await made.close()
    assert "hunter" not in found.error + repr(found)
    return found


async def test_what_is_right(lying: Hostile) -> None:
    assert (await ask(lying)).password == "hunter2"
    assert (await ask(lying, Made("database", "orders"))).user == "v-1"


def body(document: Any, status: int = 200, **headers: str) -> Callable[[], tuple[int, dict[str, str], bytes]]:
    raw = document if isinstance(document, bytes) else msgspec.json.encode(document)
    return lambda: (status, headers, raw)


@pytest.mark.parametrize("path", [LOGIN, KV])
@pytest.mark.parametrize(("answer", "said"), [
    (body(b"x" * (600 << 10)), "cannot be reached (TooLong)"),
    (body(gzip.compress(b"{}" * 1000), **{"Content-Encoding": "gzip"}), "cannot be reached (TooLong)"),
    (body(b"", 307, Location="https://169.254.169.254/latest"), "sends elsewhere (307)"),
    (body(b"<html>hunter3"), "what makes no sense"), (body(b"[" * 100_000), "what makes no sense"),
    (body(b"\xff\xfe"), "what makes no sense"), (body({}), "what makes no sense"), (body([]), "what makes no sense"),
    (body({"auth": {"client_token": 7}, "data": {"data": "hunter4"}}), "what makes no sense"),
    *((body({"errors": ["hunter5"]}, status), f"({status})") for status in (
        400, 404, 405, 412, 429, 472, 473, 500, 501, 502, 503)),
])
async def test_what_is_not_taken(lying: Hostile, path: str, answer: Any, said: str) -> None:
    lying.answers[path] = answer
    assert said in (await ask(lying)).error
    assert not [one for one in lying.asked if one.startswith("/latest")]


@pytest.mark.parametrize("token", ["", "a b", "x\r\nX-Evil: 1", "x" * 20_000, "é"])
async def test_a_token_that_is_none(lying: Hostile, token: str) -> None:
    lying.say(LOGIN, {"auth": {"client_token": token, "lease_duration": 60}})
    assert "its token is none" in (await ask(lying)).error
    assert lying.asked == [LOGIN]


@pytest.mark.parametrize("data", [
    {"password": "hunter2"}, {"username": "", "password": "hunter2"}, {"username": 7, "password": "hunter2"},
    {"username": "u" * 300, "password": "hunter2"}, {"username": "svc", "password": "x" * 5000},
    {"username": "svc", "password": "hunter\0"}, {"username": "svc", "password": ["hunter"]},
    {"username": "svc", "password": "\n"},
])
async def test_a_secret_that_is_none(lying: Hostile, data: dict[str, Any]) -> None:
    lying.say(KV, {"data": {"data": data}})
    assert (await ask(lying)).error.startswith("Vault safe, secret/crews/orders: it")


@pytest.mark.parametrize("changed", [
    {"lease_id": ""}, {"lease_id": "a b"}, {"lease_id": "x" * 2000}, {"lease_duration": 0}, {"lease_duration": -1},
    {"lease_duration": 1 << 50}, {"data": {"username": "v"}}, {"data": {"username": "v", "password": "\0"}},
    {"data": 7},
])
async def test_a_lease_that_is_none(lying: Hostile, changed: dict[str, Any]) -> None:
    lying.say(CREDS, LEASED | changed)
    found = await ask(lying, Made("database", "orders"))
    assert found.error
    assert found.lease == 0


async def test_a_slow_one(lying: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote.Remote.ask, "__defaults__", ("", None, 0.3))
    lying.answers[KV] = lambda: (time.sleep(1.0), (200, {}, b"{}"))[1]
    began = time.monotonic()
    assert "did not answer within 0 s" in (await ask(lying)).error
    assert time.monotonic() - began < 0.9


async def test_a_lease_whose_renewal_lies(lying: Hostile) -> None:
    """It lasts as long as was said at first, and no loop comes of it."""
    vaults = Vaults()
    lying.say(CREDS, LEASED | {"lease_duration": 1})
    lying.say("/v1/sys/leases/renew", {"lease_duration": 0})
    try:
        first = await ask(lying, Made("database", "orders"), vaults)
        assert first.lease

        await asyncio.sleep(1.2)
        assert lying.asked.count("/v1/sys/leases/renew") == 1
        second = await ask(lying, Made("database", "orders"), vaults)
        assert second.lease != first.lease
    finally:
        await vaults.close()


LOOKUP, RENEW, REVOKE = (f"/v1/sys/leases/{one}" for one in ("lookup", "renew", "revoke"))
SELF, END = "/v1/auth/token/lookup-self", "/v1/auth/token/revoke-self"
MADE = Made("database", "orders")


@pytest.fixture
async def vaults(lying: Hostile) -> AsyncIterator[Vaults]:
    for path in (LOOKUP, REVOKE, SELF, END):
        lying.say(path, {})
    lying.say(RENEW, {"lease_duration": 60})
    made = Vaults()
    yield made
    await made.close()


async def until(lying: Hostile, path: str, count: int = 1) -> None:
    async with asyncio.timeout(5):
        while lying.asked.count(path) < count:
            await asyncio.sleep(0.01)


def as_if_unchecked(vaults: Vaults) -> None:
    for lease in vaults._leases.values():
        lease.checked = 0.0


async def test_one_lease_for_all_at_once(lying: Hostile, vaults: Vaults) -> None:
    found = await asyncio.gather(*(ask(lying, MADE, vaults) for _ in range(20)))
    assert len({one.lease for one in found}) == 1
    assert lying.asked.count(CREDS) == 1


@pytest.mark.parametrize(("status", "own", "again"), [
    (200, 200, False), (400, 200, True), (404, 200, True),
    (403, 200, False),                # it may not be asked
    (403, 403, True),                 # the token is gone, and every lease with it
    (503, 200, False), (500, 200, False),
])
async def test_whether_a_lease_holds(lying: Hostile, vaults: Vaults, status: int, own: int, again: bool) -> None:
    first = await ask(lying, MADE, vaults)
    as_if_unchecked(vaults)
    lying.say(LOOKUP, {}, status)
    lying.say(SELF, {}, own)
    second = await ask(lying, MADE, vaults)
    assert (second.lease != first.lease) is again
    assert lying.asked.count(LOOKUP) == 1
    assert lying.asked.count(LOGIN) == (2 if own == 403 else 1)


async def test_another_configuration_leaves_leases_alone(lying: Hostile, vaults: Vaults) -> None:
    first = await ask(lying, MADE, vaults)
    vaults.configure([Server("safe", lying.issuer, lying.ca, "", "approle", "approle", "", "other")])
    await asyncio.sleep(0.05)
    assert not {REVOKE, END} & set(lying.asked)
    vaults.revoke(first.lease)
    await until(lying, END)           # the last of its leases, and with it its token
    assert lying.asked.count(REVOKE) == 1
    vaults.revoke(first.lease)        # the agent says it twice
    vaults.revoke(99)


async def test_another_certificate_leaves_leases_alone(lying: Hostile, vaults: Vaults) -> None:
    first = await ask(lying, MADE, vaults)
    pem, key = certificates.make_leaf(certificates.make_authority(), ("weir",), ())
    found = await vaults.fetch(Fetch(8, "safe", Material(b"hunter0", pem, key), MADE))
    assert found.lease != first.lease
    await asyncio.sleep(1.2)
    assert END not in lying.asked
    vaults.revoke(first.lease)
    await until(lying, END)


async def test_given_back_at_the_end_within_bounds(lying: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enforcer.credentials.vaults.ENDING", 0.3)
    vaults = Vaults()
    await ask(lying, MADE, vaults)
    lying.answers[REVOKE] = lambda: (time.sleep(1.0), (200, {}, b"{}"))[1]
    began = time.monotonic()
    await vaults.close()
    assert time.monotonic() - began < 0.9
    assert REVOKE in lying.asked


async def test_no_more_than_there_is_room_for(lying: Hostile, vaults: Vaults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enforcer.credentials.vaults.LEASES", 1)
    await ask(lying, MADE, vaults)
    lying.say("/v1/database/creds/more", LEASED)
    assert "too many leases" in (await ask(lying, Made("database", "more"), vaults)).error
    assert "/v1/database/creds/more" not in lying.asked


__all__ = ["hostile"]
