"""Names over a real DNS server on loopback: TTL, change, failure, what is kept."""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from agent import resolve
from agent.resolve import KEEP, MOST, Known, Resolver


class Server(asyncio.DatagramProtocol):
    """`zone`: addresses by name; None: SERVFAIL; a name that is not there: NXDOMAIN."""

    def __init__(self) -> None:
        self.zone: dict[str, list[str] | None] = {}
        self.asked: list[str] = []
        self.ttl = 60
        self.silent = False

    def connection_made(self, transport) -> None:  # type: ignore[no-untyped-def]
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = str(question.name).rstrip(".")
        self.asked.append(name)
        if self.silent:
            return
        answer = dns.message.make_response(query)
        found = self.zone.get(name, ())
        if found is None:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif name not in self.zone:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        else:
            kind = "AAAA" if question.rdtype == dns.rdatatype.AAAA else "A"
            mine = [one for one in found if (":" in one) == (kind == "AAAA")]
            if mine:
                answer.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", kind, *mine))
        self.transport.sendto(answer.to_wire(), address)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(Server, ("127.0.0.1", 0))
    yield server
    transport.close()


class Watched:
    def __init__(self, server: Server, tmp_path: Path) -> None:
        self.changes = asyncio.Event()
        (tmp_path / "hosts").write_text("10.0.0.9 local.test\n")
        self.resolver = Resolver(
            ("127.0.0.1", server.transport.get_extra_info("sockname")[1]), self.changes.set, str(tmp_path / "hosts"))


@pytest.fixture
async def watched(server: Server, tmp_path: Path) -> AsyncIterator[Watched]:
    one = Watched(server, tmp_path)
    yield one
    await one.resolver.close()


async def test_names_addresses_and_the_hosts_file(server: Server, watched: Watched) -> None:
    server.zone = {"db.test": ["192.0.2.1", "192.0.2.2", "2001:db8::1"]}
    await watched.resolver.set_names(["db.test", "192.0.2.7", "local.test", "localhost"])
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
    ({"db.test": []}, "db.test has no address"),
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


async def test_a_silent_server(server: Server, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "TIMEOUT", 0.2)
    server.silent = True
    await watched.resolver.set_names(["db.test"])
    assert "did not answer within" in watched.resolver.failures["db.test"]


async def test_names_that_are_no_more_are_forgotten(server: Server, watched: Watched) -> None:
    server.zone = {"a.test": ["192.0.2.1"], "b.test": ["192.0.2.2"]}
    await watched.resolver.set_names(["a.test", "b.test"])
    await watched.resolver.set_names(["b.test"])
    assert watched.resolver.known.addresses("a.test") == ()
    assert watched.resolver.known.addresses("b.test") == ("192.0.2.2",)


async def test_no_resolver(tmp_path: Path) -> None:
    one = Resolver(None, lambda: None, str(tmp_path / "none"))
    await one.set_names(["db.test"])
    assert "set [dns] resolver" in one.failures["db.test"]
    await one.close()


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
