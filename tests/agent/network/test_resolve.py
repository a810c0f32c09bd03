"""Names: TTL, change, failure, what is kept.  What DNS servers say is the enforcer's to read (tests/enforcer/dns)."""
from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.network import resolve
from agent.network.resolve import BELOW, KEEP, MOST, Known, Resolver, Unresolved, check_addresses


class Server:
    """Stands where the enforcer stands.  `zone`: addresses by name; None: it fails."""

    def __init__(self) -> None:
        self.zone: dict[str, list[str] | None] = {}
        self.asked: list[str] = []
        self.ttl = 60

    async def ask(self, name: str) -> tuple[tuple[str, ...], float]:
        self.asked.append(name)
        found = self.zone.get(name, ())
        if found is None:
            raise Unresolved("the resolver refused or failed")
        if name not in self.zone:
            raise Unresolved("there is no such name")
        return tuple(found), float(self.ttl)


@pytest.fixture
def server() -> Server:
    return Server()


class Watched:
    def __init__(self, server: Server, tmp_path: Path) -> None:
        self.changes = asyncio.Event()
        (tmp_path / "hosts").write_text("10.0.0.9 local.test\n")
        self.resolver = Resolver(server.ask, self.changes.set, str(tmp_path / "hosts"))


@pytest.fixture
async def watched(server: Server, tmp_path: Path) -> AsyncIterator[Watched]:
    one = Watched(server, tmp_path)
    yield one
    await one.resolver.close()


async def test_names_addresses_and_the_hosts_file(server: Server, watched: Watched) -> None:
    server.zone = {"db.test": ["192.0.2.1", "192.0.2.2", "2001:db8::1"]}
    await watched.resolver.set_names(["db.test", "192.0.2.7", "local.test", "localhost", "*.cdn.test"])
    known = watched.resolver.known
    assert sorted(known.addresses("db.test")) == ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
    assert known.addresses("db.test")[2] == "2001:db8::1"
    assert known.addresses("local.test") == ("10.0.0.9",)
    assert known.addresses("localhost") == ("127.0.0.1", "::1")
    assert set(server.asked) == {"db.test"}
    assert not watched.changes.is_set()
    assert watched.resolver.failures == {}


async def test_a_change_is_told_and_the_old_address_is_kept(
        server: Server, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "SHORTEST", 0.01)
    server.zone, server.ttl = {"db.test": ["192.0.2.1"]}, 0
    await watched.resolver.set_names(["db.test"])
    server.zone = {"db.test": ["192.0.2.2"]}
    await asyncio.wait_for(watched.changes.wait(), 10)
    assert watched.resolver.known.addresses("db.test") == ("192.0.2.2", "192.0.2.1")


@pytest.mark.parametrize(("zone", "wanted"), [
    ({}, "there is no such name"), ({"db.test": None}, "refused or failed"),
    ({"db.test": []}, "db.test leads to no address"),
])
async def test_failures_are_said_and_asked_again(
        server: Server, watched: Watched, zone: dict[str, list[str] | None], wanted: str,
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "AGAIN", 0.01)
    server.zone = zone
    await watched.resolver.set_names(["db.test"])
    assert wanted in watched.resolver.failures["db.test"]
    server.zone = {"db.test": ["192.0.2.1"]}
    await asyncio.wait_for(watched.changes.wait(), 10)
    assert watched.resolver.failures == {}
    assert watched.resolver.known.addresses("db.test") == ("192.0.2.1",)


async def test_what_was_known_stays_when_the_server_fails(
        server: Server, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "SHORTEST", 0.01)
    server.zone, server.ttl = {"db.test": ["192.0.2.1"]}, 0
    await watched.resolver.set_names(["db.test"])
    server.zone = {"db.test": None}
    while "db.test" not in watched.resolver.failures:
        await asyncio.sleep(0.01)
    assert watched.resolver.known.addresses("db.test") == ("192.0.2.1",)


async def test_names_that_are_no_more_are_forgotten(server: Server, watched: Watched) -> None:
    server.zone = {"a.test": ["192.0.2.1"], "b.test": ["192.0.2.2"]}
    await watched.resolver.set_names(["a.test", "b.test"])
    await watched.resolver.set_names(["b.test"])
    assert watched.resolver.known.addresses("a.test") == ()
    assert watched.resolver.known.addresses("b.test") == ("192.0.2.2",)


async def test_what_a_broken_enforcer_says_is_checked(server: Server, watched: Watched) -> None:
    server.zone = {"no.test": ["127.0.0.1"], "db.test": [
        "169.254.169.254", "127.0.0.1", "::1", "x", "192.0.2.1\n", "::ffff:169.254.1.1", "192.0.2.1"]}
    await watched.resolver.set_names(["db.test", "no.test"])
    assert watched.resolver.known.addresses("db.test") == ("192.0.2.1",)
    assert "no address that a name may lead to" in watched.resolver.failures["no.test"]
    assert len(check_addresses(f"2001:db8::{number:x}" for number in range(1000))) == MOST


# pure


def test_what_is_kept_and_for_how_long() -> None:
    known = Known()
    assert known.update("a", ["1", "2"], 0)
    assert not known.update("a", ["2", "1"], 10)
    assert known.update("a", ["3"], 20)
    assert known.addresses("a") == ("3", "1", "2") or known.addresses("a") == ("3", "2", "1")
    assert not known.update("a", ["3"], 10 + KEEP - 1)
    assert known.update("a", ["3"], 10 + KEEP + 1)
    assert known.addresses("a") == ("3",)


def test_a_name_with_ever_new_addresses_is_bounded() -> None:
    known = Known()
    for number in range(1000):
        known.update("a", [str(number)], number)
    assert len(known.addresses("a")) == MOST
    assert known.addresses("a")[0] == "999"
    known.update("a", map(str, range(5000)), 2000)
    assert len(known.addresses("a")) == MOST


def test_names_below_a_wildcard_are_bounded_and_forgotten() -> None:
    known = Known()
    known.update("db.test", ["1"], 0)
    for number in range(BELOW + 20):
        known.update(f"n{number}.cdn.test", ["2"], number)
        known.bound("*.cdn.test")
    assert len(known.below("*.cdn.test")) == BELOW
    assert "n0.cdn.test" not in known.below("*.cdn.test")
    assert known.drop(BELOW + 20 + KEEP, ["db.test"])
    assert known.below("*.cdn.test") == ()
    assert known.addresses("db.test") == ("1",)
    assert not known.drop(BELOW + 20 + KEEP, ["db.test"])
    known.update("a.cdn.test", ["2"], 1)
    known.forget_others(["*.cdn.test"])
    assert (known.addresses("a.cdn.test"), known.addresses("db.test")) == (("2",), ())


def test_what_the_enforcer_says_is_read_to_a_bound() -> None:
    """The agent does nothing else meanwhile."""
    many = [f"{10 + number % 90}.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(200_000)]
    before = time.process_time()
    assert check_addresses(["0" * 1_000_000, *many]) == tuple(many[:MOST])
    assert time.process_time() - before < 0.5
