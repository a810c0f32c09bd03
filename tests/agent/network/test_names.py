"""What the resolver tells the agent: checked again, recorded before it counts, refused where it is nobody's."""
from __future__ import annotations

import asyncio
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from agent.contract.journal import HEADER
from agent.contract.messages import AskerAnswer, NameAsked, WhoAsks
from agent.contract.names import covers, is_metadata, is_public, unreachable
from agent.journal import Journal
from agent.network.names import Askers, at_intervals, patterns
from agent.network.resolve import Known


class Told:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.known, self.changes = Known(), list[str]()
        self.journal = Journal(directory, 0)
        config: Any = SimpleNamespace(
            targets=[SimpleNamespace(hosts=("db.test", "192.0.2.4"))],
            egress=[SimpleNamespace(name="cdn", addresses=("*.cdn.test", "api.test"), private=False)],
            egress_modes={"lax": "record", "dim": "shadow"})
        assert patterns(config) == ("db.test", "*.cdn.test", "api.test")
        none: Any = None
        self.askers = Askers(none, none, self.journal, lambda: config, self.known, self.changes.append,
                              {"9.9.9.9"}.__contains__)

    def events(self) -> list[tuple[str, str, dict[str, str]]]:
        found = []
        for path in sorted(self.directory.glob("agent-*")):
            raw = path.read_bytes()
            while raw:
                _, size, _ = HEADER.unpack_from(raw)
                event = msgspec.msgpack.decode(raw[HEADER.size:HEADER.size + size])
                found.append((event[3], event[4], event[5]))
                raw = raw[HEADER.size + size:]
        return found


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


def asked(name: str, *addresses: str, verdict: str = "answered", **more: Any) -> NameAsked:
    return NameAsked(7, "crew", name, "A", verdict, addresses=addresses, **more)


async def test_an_answer_is_recorded_and_known(told: Told) -> None:
    said = told.askers.name_asked(asked("api.test", "192.0.2.1", "169.254.169.254", "rubbish", "192.0.2.1"))
    assert (said.number, said.addresses, said.error) == (7, ("192.0.2.1",), "")
    assert told.known.addresses("api.test") == ("192.0.2.1",)
    assert told.changes == ["api.test"]
    assert told.events() == [("dns.answered", "crew", {
        "name": "api.test", "type": "A", "rcode": "NOERROR", "addresses": "192.0.2.1",
        "withheld": "169.254.169.254 rubbish"})]
    told.askers.name_asked(asked("api.test", "192.0.2.1"))
    assert told.changes == ["api.test"]


@pytest.mark.parametrize("name", [
    "evil.test", "cdn.test", "x.api.test", "", "api.test.", "API.test", ".cdn.test", "a..cdn.test", "a b.cdn.test",
    "x" * 260 + ".cdn.test", "\N{FULLWIDTH LATIN SMALL LETTER A}.cdn.test",
])
async def test_a_name_that_is_not_permitted_is_not_taken(told: Told, name: str) -> None:
    said = told.askers.name_asked(asked(name, "192.0.2.1"))
    assert said.error
    assert not said.addresses
    assert told.known.addresses(name) == ()


@pytest.mark.parametrize("word", [
    asked("api.test", *(f"192.0.2.{number % 256}" for number in range(100_000))), asked("api.test", "1" * 1_000_000),
    asked("a" * 1_000_000, "192.0.2.1"),
])
async def test_an_enforcer_cannot_hold_the_agent_up_with_one_word(told: Told, word: NameAsked) -> None:
    assert told.askers.name_asked(word).error == "it is too long"
    assert told.events() == []


async def test_what_cannot_be_recorded_is_not_given(told: Told) -> None:
    told.askers._journal = Journal(told.directory / "gone", 0)
    said = told.askers.name_asked(asked("api.test", "192.0.2.1"))
    assert "cannot be recorded" in said.error
    assert told.known.addresses("api.test") == ()


async def test_who_asks_and_is_barred(told: Told) -> None:
    start: Any = SimpleNamespace(workload="crew")
    told.askers._start = lambda question: start  # type: ignore[method-assign]
    asking = WhoAsks(7, 1, True, bytes(16), 5)
    assert await told.askers.who_asks(asking) == AskerAnswer(7, "crew")
    told.askers._barred = lambda one: "locked" if one is start else ""
    assert await told.askers.who_asks(asking) == AskerAnswer(7, "crew", "locked")


async def test_refusals(told: Told) -> None:
    told.askers.name_asked(asked("evil.test", verdict="refused", rcode="REFUSED", reason="no such entry"))
    told.askers.name_asked(asked("", verdict="refused", rcode="", reason="99 more", count=99))
    assert told.askers.name_asked(asked("api.test", "192.0.2.1", verdict="made up")).error
    assert [(name, detail.get("count"), detail["reason"]) for name, _, detail in told.events()] == [
        ("dns.refused", None, "no such entry"), ("dns.refused", "99", "99 more")]
    assert told.known.addresses("api.test") == ()


async def test_a_name_below_a_wildcard_leads_to_nobody_inside(told: Told) -> None:
    said = told.askers.name_asked(asked("x.cdn.test", "10.0.0.1", "9.9.9.1"))
    assert said.addresses == ("9.9.9.1",)
    [(_, _, detail)] = told.events()
    assert (detail["addresses"], detail["withheld"]) == ("9.9.9.1", "10.0.0.1")
    assert detail["reason"] == "10.0.0.1 is not public, and [[egress]] cdn has no private = true"
    assert told.known.addresses("x.cdn.test") == ("9.9.9.1",)
    assert told.askers.name_asked(asked("x.cdn.test", "fd00::1")).addresses == ()
    assert told.askers.name_asked(asked("api.test", "10.0.0.1")).addresses == ("10.0.0.1",)


async def test_no_egress_entry_s_name_leads_to_the_host_itself(told: Told) -> None:
    for name in ("x.cdn.test", "api.test"):
        assert told.askers.name_asked(asked(name, "9.9.9.9")).addresses == ()
        assert told.askers.name_asked(asked(name, "::ffff:9.9.9.9")).addresses == ()
    assert {detail["reason"] for _, _, detail in told.events()} == {
        f"{one} is this host's own, and addresses of [[egress]] cdn does not list it"
        for one in ("9.9.9.9", ip_address("::ffff:9.9.9.9"))}          # which Python 3.13 writes otherwise than 3.11
    assert told.askers.name_asked(asked("db.test", "9.9.9.9")).addresses == ("9.9.9.9",), "a target is what it is"


@pytest.mark.parametrize(("workload", "more"), [("lax", {"mode": "record"}), ("dim", {
    "mode": "shadow", "would_refuse": "10.0.0.1 is not public, and [[egress]] cdn has no private = true"})])
async def test_a_mode_lets_names_lead_inside_and_says_so(told: Told, workload: str, more: dict[str, str]) -> None:
    word = msgspec.structs.replace(asked("x.cdn.test", "10.0.0.1", "9.9.9.1"), workload=workload)
    assert told.askers.name_asked(word).addresses == ("10.0.0.1", "9.9.9.1")
    [(_, _, detail)] = told.events()
    assert detail == {"name": "x.cdn.test", "type": "A", "rcode": "NOERROR", "addresses": "10.0.0.1 9.9.9.1", **more}
    assert told.known.addresses("x.cdn.test") == ("9.9.9.1",)


@pytest.mark.parametrize(("address", "public"), [
    ("8.8.8.8", True), ("2606:4700::1", True), ("64:ff9b::808:808", True), ("10.0.0.1", False), ("172.16.0.1", False),
    ("192.168.0.1", False), ("100.64.0.1", False), ("198.18.0.1", False), ("192.0.2.1", False), ("fd77::3", False),
    ("fec0::1", False), ("64:ff9b::a00:1", False), ("64:ff9b:1::808:808", False), ("::ffff:10.0.0.1", False),
    ("2002:a00:1::1", False), ("169.254.0.1", False), ("::1", False),
])
def test_what_is_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(("address", "why"), [
    ("169.254.169.254", "metadata"), ("169.254.0.1", "metadata"), ("fe80::1", "metadata"),
    ("fd00:ec2::254", "metadata"), ("fd00:ec2::23", "metadata"), ("fd00:42::42", "metadata"),
    ("100.100.100.200", "metadata"), ("168.63.129.16", "metadata"), ("::ffff:169.254.169.254", "metadata"),
    ("64:ff9b::a9fe:a9fe", "metadata"), ("2002:a9fe:a9fe::1", "metadata"), ("::169.254.169.254", "metadata"),
    ("127.0.0.1", "loopback"), ("127.53.53.53", "loopback"), ("::1", "loopback"), ("::ffff:127.0.0.1", "loopback"),
    ("64:ff9b::7f00:1", "loopback"), ("0.0.0.0", "no host's"), ("0.1.2.3", "no host's"), ("::", "no host's"),
    ("224.0.0.251", "no host's"), ("ff02::fb", "no host's"), ("255.255.255.255", "no host's"),
    ("8.8.8.8", ""), ("10.0.0.1", ""), ("2606:4700::1", ""), ("fd77::3", ""), ("64:ff9b::808:808", ""),
])
def test_where_no_name_leads(address: str, why: str) -> None:
    assert unreachable(address) == why
    assert is_metadata(address) == (why == "metadata")


def test_patterns() -> None:
    assert covers("a.test", "a.test")
    assert not covers("a.test", "x.a.test")
    assert covers("*.a.test", "x.a.test")
    assert covers("*.a.test", "x.y.a.test")
    assert not covers("*.a.test", "a.test")
    assert not covers("*.a.test", ".a.test")
    assert not covers("*.a.test", "xa.test")
    with pytest.raises(ValueError):
        unreachable("fe80::1%eth0")


@pytest.mark.parametrize(("workload", "more"), [
    ("lax", {"mode": "record"}),
    ("dim", {"mode": "shadow", "would_refuse": "no target and no egress entry has this name"})])
async def test_a_mode_lets_other_names_through_and_says_so(told: Told, workload: str, more: dict[str, str]) -> None:
    word = msgspec.structs.replace(asked("evil.test", "192.0.2.1", "169.254.169.254"), workload=workload)
    assert told.askers.name_asked(word).addresses == ("192.0.2.1",)
    [(name, who, detail)] = told.events()
    assert (name, who) == ("dns.answered", workload)
    assert detail == {"name": "evil.test", "type": "A", "rcode": "NOERROR", "addresses": "192.0.2.1",
                      "withheld": "169.254.169.254", **more}
    assert told.known.addresses("evil.test") == ()          # nothing is permitted by it
    assert told.changes == []
    told.askers.name_asked(msgspec.structs.replace(asked("api.test", "192.0.2.1"), workload=workload))
    assert "mode" not in told.events()[1][2]
    for name in ("", "a b", "x" * 260 + ".test"):
        assert told.askers.name_asked(msgspec.structs.replace(asked(name, "192.0.2.1"), workload=workload)).error


async def test_names_that_keep_changing_are_taken_at_intervals() -> None:
    """Each change is in force, and many are one configuration."""
    asked, taken, changes = asyncio.Event(), list[int](), 0

    async def work() -> None:
        taken.append(changes)
        await asyncio.sleep(0.01)

    running = asyncio.create_task(at_intervals(asked, 0.2, work))
    for _ in range(50):
        changes += 1
        asked.set()
        await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        while taken[-1] != 50:
            await asyncio.sleep(0.01)
    assert taken[0] == 1, "the first at once"
    assert len(taken) <= 6
    running.cancel()
