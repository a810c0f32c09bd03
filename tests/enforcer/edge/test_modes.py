"""Flows in the modes shadow and record: nothing is held or ended, what was found is recorded before it goes on."""
from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import msgspec
import pytest
import uvloop

from agent.contract.target import RECORD, SHADOW, Egress
from enforcer.edge import flows, listener
from enforcer.edge.families import NAMES, Families
from enforcer.edge.flows import Flow
from enforcer.protocols.postgresql import SSL_REQUEST
from enforcer.words import events

HOST = b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n"


class Talk:
    """A server that remembers what it got and answers with it, behind an edge whose workload "crew" is in `mode`."""

    def __init__(self, house, mode: str) -> None:
        self.house, self.mode, self.got = house, mode, b""

    async def open(self, names: tuple[str, ...] = ("api.example",), entry: bool = True, **more) -> None:
        upstream = await self.house.serve(self._serve)
        self.port = await self.house.open(more.pop("target", None), Egress("model", (), (upstream,)))
        self.house.asked.owner = msgspec.structs.replace(
            self.house.owner(upstream, egress="model" if entry else ""), names=names if entry else (), **more)
        for one in getattr(self.house, "given", ()):
            self.house.edge.families.give(*one)
        self.turn(self.mode)
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)

    def turn(self, mode: str) -> None:
        edge = self.house.edge
        edge.configuration = replace(edge.configuration, modes={"crew": mode} if mode else {})
        for one in tuple(edge.live.values()):
            assert isinstance(one, Flow)
            one.reconsider()

    async def say(self, *pieces: bytes) -> bytes:
        """Each is answered before the next; what came back, b"" where it was ended."""
        back = b""
        for piece in pieces:
            self.writer.write(piece)
            try:
                back += await self.reader.readexactly(len(piece))
            except (ConnectionResetError, asyncio.IncompleteReadError):
                return b""
        return back

    async def _serve(self, reader, writer) -> None:
        try:
            while data := await reader.read(65536):
                self.got += data
                writer.write(data)
        except ConnectionResetError:
            pass
        writer.close()

    def notes(self) -> list[tuple[str, ...]]:
        """Mode, speaks, name, rule, reason."""
        return [tuple(one[4:9]) for one in self.house.journal.events() if one[0] == events.FLOW_NOTED]


def run(house, mode: str, work: Callable[[Talk], Awaitable[None]]) -> Talk:
    talk = Talk(house, mode)

    async def limited() -> None:
        try:
            async with asyncio.timeout(30):
                await work(talk)
                talk.writer.close()
                while house.edge.live or house.edge.arriving:
                    await asyncio.sleep(0.01)
        finally:
            await house.close()

    uvloop.run(limited())
    return talk


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback stands for a place outside, where no entry permits it."""
    monkeypatch.setattr(listener, "unreachable", lambda address: "")


@pytest.mark.parametrize(("pieces", "speaks", "name", "rule", "reason"), [
    ([HOST % b"evil.example"], "http", "evil.example", "name", "HTTP for"),
    ([HOST % b"evil.example" + b"GET / HTTP/1.1\r\n"], "http", "evil.example", "name", "HTTP for"),
    ([b"GET / HT", b"TP/1.1\r\nHost: ev", b"il.example\r\n\r\n"], "http", "evil.example", "name", "HTTP for"),
    ([b"CONNECT x:1 HTTP/1.1\r\n\r\n"], "proxy", "", "proxy", "CONNECT"), ([b"\5\1\0"], "socks", "", "proxy", "SOCKS"),
    ([b"\5", b"\1\0"], "socks", "", "proxy", "SOCKS"), ([b"SSH-2.0-x\r\n"], "ssh", "", "protocol", "ssh in"),
    ([SSL_REQUEST, b"more"], "postgresql", "", "protocol", "postgresql in plaintext"),
    ([SSL_REQUEST[:5], SSL_REQUEST[5:]], "postgresql", "", "protocol", "postgresql in plaintext"),
    ([HOST % b"api.example", b"CONNECT x:1 HTTP/1.1\r\n"], "proxy", "api.example", "proxy", "a proxy is no way round"),
    ([HOST % b"api.example"], "http", "api.example", "", ""), ([b"\x10\x20mqtt", b"more"], "", "", "", ""),
])
@pytest.mark.parametrize("mode", [SHADOW, RECORD])
def test_what_enforce_would_end_goes_on_and_is_noted(
        house, mode: str, pieces: list[bytes], speaks: str, name: str, rule: str, reason: str) -> None:
    async def work(talk: Talk) -> None:
        await talk.open()
        assert await talk.say(*pieces) == b"".join(pieces)

    talk = run(house, mode, work)
    assert talk.got == b"".join(pieces)
    first, *found = talk.notes()
    assert first == (mode, "", "", "", "")
    if not speaks:
        assert not found
        return
    last = found[-1]
    assert last[:3] == (mode, speaks, name)
    assert last[3] == (rule if mode == SHADOW else "")
    assert (reason in last[4]) if mode == SHADOW else not last[4]
    assert len(found) == len(set(found)) <= 2


@pytest.mark.parametrize("mode", [SHADOW, RECORD])
def test_an_address_that_nothing_permits(house, anywhere, mode: str) -> None:
    async def work(talk: Talk) -> None:
        await talk.open(entry=False)
        assert await talk.say(HOST % b"any.example")

    talk = run(house, mode, work)
    wrong = ("address", "no target and no egress entry has this address and port") if mode == SHADOW else ("", "")
    assert talk.notes() == [(mode, "", "", *wrong), (mode, "http", "any.example", "", "")]
    [opened] = [one for one in house.journal.events() if one[0] == events.FLOW_OPENED]
    assert opened[4] == ""
    assert not [one for one in house.journal.events() if one[0] == events.REFUSED]


@pytest.mark.parametrize("address", [
    "127.0.0.1", "127.53.53.53", "::1", "169.254.169.254", "fe80::a9fe:a9fe", "fd00:ec2::254", "fd00:ec2::23",
    "fd00:42::42", "100.100.100.200", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "0.0.0.0", "::", "224.0.0.251",
    "ff02::1", "255.255.255.255", "fe80::1%eth0", "nonsense"])
@pytest.mark.parametrize("mode", [SHADOW, RECORD])
def test_what_no_mode_lets_through(house, mode: str, address: str) -> None:
    async def work(talk: Talk) -> None:
        await talk.open(entry=False, destination=address)
        assert not await talk.say(b"hello")

    talk = run(house, mode, work)
    assert not talk.got
    [refused] = [one for one in house.journal.events() if one[0] == events.REFUSED]
    assert refused[9].endswith("no mode lets it through")


@pytest.mark.parametrize(("mode", "workload"), [("", "crew"), (RECORD, "another"), (RECORD, "")])
def test_whoever_has_no_mode_is_enforced(house, anywhere, mode: str, workload: str) -> None:
    async def work(talk: Talk) -> None:
        await talk.open(entry=False, workload=workload)
        assert not await talk.say(b"hello")

    talk = run(house, mode, work)
    assert not talk.got
    [refused] = [one for one in house.journal.events() if one[0] == events.REFUSED]
    assert refused[9] == "no target and no egress entry has this address and port"


def test_a_target_is_no_flow_whatever_the_agent_says(house, anywhere) -> None:
    async def work(talk: Talk) -> None:
        await talk.open(entry=False, target=house.target(0))
        port = house.asked.owner.port
        edge = house.edge
        edge.configuration = replace(edge.configuration, targets={"orders": house.target(port)})
        assert not await talk.say(b"hello")

    assert not run(house, RECORD, work).got


def test_nothing_waits(house, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "HOLD", 60.0)
    monkeypatch.setattr(flows, "BRIEF", 30.0)

    async def work(talk: Talk) -> None:
        await talk.open()
        for piece in (b"G", b"ET / HTTP/1.1\r\n", b"\x16"):
            assert await talk.say(piece) == piece

    run(house, SHADOW, work)


def test_what_was_not_finished_in_time_would_have_ended(house, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "HOLD", 0.3)

    async def work(talk: Talk) -> None:
        await talk.open()
        assert await talk.say(b"GET / HTTP/1.1\r\n")
        while len(talk.notes()) < 2:
            await asyncio.sleep(0.02)
        assert await talk.say(b"Host: api.example\r\n\r\n")

    talk = run(house, SHADOW, work)
    assert ("beginning", "its beginning was not finished in time") in {one[3:] for one in talk.notes()}
    assert any(one[2] == "api.example" for one in talk.notes())


def test_it_is_recorded_before_it_goes_on_or_it_does_not(house) -> None:
    async def work(talk: Talk) -> None:
        await talk.open()
        assert await talk.say(b"GET / HTTP/1.1\r\n")
        house.journal.full = True
        assert not await talk.say(b"Host: evil.example\r\n\r\n")
        house.journal.full = False

    assert run(house, SHADOW, work).got == b"GET / HTTP/1.1\r\n"


def test_what_only_the_mode_let_through_ends_with_it(house, anywhere) -> None:
    async def work(talk: Talk) -> None:
        await talk.open(entry=False)
        assert await talk.say(b"hello\n")
        talk.turn(SHADOW)
        assert await talk.say(b"hello\n")
        talk.turn("")
        assert not await talk.say(b"hello\n")

    run(house, RECORD, work)
    [closed] = [one for one in house.journal.events() if one[0] == events.FLOW_CLOSED]
    assert closed[6] == "egress is enforced now: no target and no egress entry has this address and port"


@pytest.mark.parametrize(("said", "stays"), [(HOST % b"api.example", True), (HOST % b"evil.example", False)])
def test_what_an_entry_permits_stays_where_it_was_right(house, said: bytes, stays: bool) -> None:
    async def work(talk: Talk) -> None:
        await talk.open()
        assert await talk.say(said)
        talk.turn("")
        assert bool(await talk.say(b"more")) == stays

    run(house, RECORD, work)


def test_what_is_not_told_yet_is_judged_as_enforced_from_then_on(house) -> None:
    async def work(talk: Talk) -> None:
        await talk.open()
        assert await talk.say(b"GET / HTTP/1.1\r\nHost: evil")
        talk.turn("")
        assert not await talk.say(b".example\r\n\r\n")

    assert run(house, RECORD, work).got == b"GET / HTTP/1.1\r\nHost: evil"


def test_the_other_family_is_tried_as_a_client_would(house, anywhere) -> None:
    async def work(talk: Talk) -> None:
        await talk.open(entry=False, destination="::1")
        assert await talk.say(b"hello\n")

    house.given = [("crew", "any.example", ("::1",)), ("crew", "any.example", ("127.0.0.1",))]
    assert run(house, RECORD, work).got == b"hello\n"


def test_addresses_that_belong_together() -> None:
    one = Families()
    one.give("crew", "a.example", ("fd77::1",))
    one.give("crew", "a.example", ("192.0.2.1", "192.0.2.2"))
    assert one.others("crew", "fd77::1") == ("192.0.2.1", "192.0.2.2")
    assert one.others("crew", "192.0.2.2") == ("fd77::1",)
    assert one.others("another", "fd77::1") == ()
    one.give("crew", "evil.example", ("fd77::1", "203.0.113.6"))
    assert one.others("crew", "fd77::1") == ()
    for number in range(3000):
        one.give("crew", f"n{number}.example", [f"10.0.{part}.{number % 256}" for part in range(100)])
    assert len(one._given) == NAMES
    assert one.others("crew", "192.0.2.2") == ()
