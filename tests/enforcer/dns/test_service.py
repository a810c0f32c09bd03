"""The resolver over real sockets, with a real DNS server behind it and dnspython's client before it.  Where the agent
stands, a recorder of what it is told; attribution is the agent's (tests/agent, tests/road)."""
from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset
import pytest
import uvloop

from agent.contract.messages import NameAsked, NameRecorded
from agent.contract.names import unreachable
from agent.contract.target import Names
from enforcer.core.bucket import Bucket
from enforcer.dns import decision, server, service, upstream
from enforcer.dns.server import Server
from enforcer.dns.service import Service
from enforcer.dns.upstream import Unanswered

PATTERNS = ("db.example", "big.example", "meta.example", "*.cdn.example", "gone.example", "away.example", "lie.example",
            "slow.example", "stuck.example", *(f"stuck{number}.example" for number in range(400)))


class Upstream:
    """The server that Weir asks; `asked` holds every question as it came."""

    def __init__(self) -> None:
        self.asked: list[dns.message.Message] = []
        self.streams = 0

    def connection_made(self, transport) -> None:  # type: ignore[no-untyped-def]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        name = str(query.question[0].name)
        if name.startswith("stuck"):
            self.asked.append(query)
            return
        if name == "lie.example.":                 # everything but an answer, then an answer
            for wrong in self.lies(query):
                self.transport.sendto(wrong, addr)
        answer = self.answer(query)
        if name == "big.example." and len(answer.to_wire()) > 512:
            answer.answer.clear()
            answer.flags |= dns.flags.TC
        self.transport.sendto(answer.to_wire(), addr)

    def lies(self, query: dns.message.Message) -> list[bytes]:
        made = []
        for change in ("id", "name", "kind"):
            other = dns.message.make_query("lie.example." if change != "name" else "x.example.",
                                           "AAAA" if change == "kind" else query.question[0].rdtype)
            other.id = query.id ^ 1 if change == "id" else query.id
            response = dns.message.make_response(other)
            response.answer.append(dns.rrset.from_text(other.question[0].name, 60, "IN", "A", "192.0.2.66"))
            made.append(response.to_wire())
        return [*made, b"", b"\xff" * 40, query.to_wire()]

    def answer(self, query: dns.message.Message) -> dns.message.Message:
        self.asked.append(query)
        question = query.question[0]
        name, kind = str(question.name), dns.rdatatype.to_text(question.rdtype)
        response = dns.message.make_response(query)
        many = [f"192.0.2.{number}" for number in range(1, 33)]
        zone = {"db.example.": ["192.0.2.1"], "big.example.": many, "lie.example.": ["192.0.2.2"],
                "meta.example.": ["169.254.169.254", "127.0.0.1"]}
        if name.endswith(".cdn.example."):
            zone[name] = ["192.0.2.3"]
        if name.endswith((".net.", "alias.org.")):
            zone[name] = ["192.0.2.4"]
        if name == "away.example.":
            response.set_rcode(dns.rcode.SERVFAIL)
        elif name not in zone:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif kind == "A":
            if name == "alias.org.":
                response.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", "db.example."))
                zone["db.example."], name = zone[name], "db.example."
            response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", *zone[name]))
            response.answer.append(dns.rrset.from_text("beside.example.", 60, "IN", "A", "192.0.2.99"))
        return response

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.streams += 1
        size = struct.unpack("!H", await reader.readexactly(2))[0]
        answer = self.answer(dns.message.from_wire(await reader.readexactly(size))).to_wire()
        writer.write(struct.pack("!H", len(answer)) + answer)
        writer.close()


class Told:
    """Stands where the agent stands."""

    def __init__(self) -> None:
        self.said: list[NameAsked] = []
        self.who = ("crew", "")
        self.error = ""
        self.gate: asyncio.Event | None = None
        self.ports: dict[int, str] = {}        # of workloads other than `who`
        self.whose = 0                         # how often it was asked for one

    async def who_asks(self, netns: int, stream: bool, address: bytes, port: int) -> tuple[str, str]:
        assert netns > 0
        assert address == bytes(10) + b"\xff\xff\x7f\x00\x00\x01"
        self.whose += 1
        await asyncio.sleep(0.002)
        return (self.ports[port], "") if port in self.ports else self.who

    async def name_asked(self, asked: NameAsked) -> NameRecorded:
        if self.gate is not None:
            await self.gate.wait()
        self.said.append(asked)
        return NameRecorded(0, tuple(one for one in asked.addresses if not unreachable(one)), self.error)


def both() -> tuple[socket.socket, socket.socket]:
    """Datagrams and streams on one port: a free one of streams, which other tests have many of, comes first."""
    while True:
        streams, datagrams = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            datagrams.bind(streams.getsockname())
        except OSError:
            streams.close()
            datagrams.close()
        else:
            return datagrams, streams


class Place:
    def __init__(self) -> None:
        self.told, self.upstream, self.counted = Told(), Upstream(), list[str]()
        self.locked = ""
        self.service = Service(self.told, time.monotonic, self.counted.append, locked=lambda workload: self.locked)
        self.server = Server(self.service)

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        place, streams = both()
        self.upstream_port = place.getsockname()[1]
        place.setblocking(False)
        self.upstream.connection_made(place)
        loop.add_reader(place, lambda: self.upstream.datagram_received(*place.recvfrom(4096)))
        self.behind = (place, await asyncio.start_server(self.upstream.stream, sock=streams))
        self.service.configure(Names(("127.0.0.1", self.upstream_port), PATTERNS))
        door, streams = both()
        self.port = door.getsockname()[1]
        await self.server.open((door.detach(), streams.detach()))

    async def ask(self, name: str, kind: str = "A", timeout: float = 10, **more: object) -> dns.message.Message:
        query = dns.message.make_query(name, kind, **more)  # type: ignore[arg-type]
        return await asyncio.to_thread(dns.query.udp, query, "127.0.0.1", timeout, self.port)


def run(work: Callable[[Place], Awaitable[None]]) -> Place:
    place = Place()

    async def limited() -> None:
        async with asyncio.timeout(60):
            await place.open()
            try:
                await work(place)
            finally:
                asyncio.get_running_loop().remove_reader(place.behind[0])
                for one in (place.server, *place.behind):
                    one.close()

    uvloop.run(limited())
    return place


def code(message: dns.message.Message) -> str:
    return dns.rcode.to_text(message.rcode())


def test_questions_that_waited_are_asked_again() -> None:
    """A datagram says by its port alone whose it is, and that may be somebody else's by now."""
    async def work(place: Place) -> None:
        door, streams = both()
        streams.close()
        asker, later = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), place.server.another()
        asker.settimeout(10)
        with asker:
            asker.connect(door.getsockname())
            for _ in range(20):
                asker.send(dns.message.make_query("gone.example", "A").to_wire())
            await later.open((door.detach(),))
            asker.send(dns.message.make_query("db.example", "A").to_wire())
            answer = dns.message.from_wire(await asyncio.to_thread(asker.recv, 4096))
            later.close()
        assert str(answer.question[0].name) == "db.example."

    assert [one.name for one in run(work).told.said] == ["db.example"]


def test_a_name_that_is_permitted() -> None:
    async def work(place: Place) -> None:
        answer = await place.ask("Db.Example", use_edns=0, options=[dns.edns.ECSOption("203.0.113.7", 24)])
        assert [str(one) for one in answer.answer] == ["Db.Example. 60 IN A 192.0.2.1"]
        assert code(await place.ask("db.example", "AAAA")) == "NOERROR"
        assert (await place.ask("db.example", "TXT")).answer == []
        assert code(await place.ask("gone.example")) == "NXDOMAIN"

    place = run(work)
    [first, *_] = place.upstream.asked
    assert (str(first.question[0].name), first.options) == ("db.example.", ())
    assert len(place.upstream.asked) == 3          # TXT never left
    assert [(one.name, one.kind, one.verdict, one.rcode, one.addresses, one.workload) for one in place.told.said] == [
        ("db.example", "A", "answered", "NOERROR", ("192.0.2.1",), "crew"),
        ("db.example", "AAAA", "answered", "NOERROR", (), "crew"),
        ("db.example", "TXT", "answered", "NOERROR", (), "crew"),
        ("gone.example", "A", "answered", "NXDOMAIN", (), "crew")]


@pytest.mark.parametrize(("name", "kind"), [
    ("example.com", "A"), ("c2VjcmV0.evil.net", "A"), ("c2VjcmV0.evil.net", "TXT"), ("db.example", "ANY"),
    ("a" * 60 + ".cdn.example", "A"), ("x.y.z.w.cdn.example", "A"), (r"se\000cret.cdn.example", "A"), (".", "NS"),
])
def test_the_rest_is_refused_at_once_and_goes_nowhere(name: str, kind: str) -> None:
    async def work(place: Place) -> None:
        answer = await place.ask(name, kind)
        assert code(answer) == "REFUSED"
        assert not answer.answer

    place = run(work)
    assert not place.upstream.asked
    [said] = place.told.said
    assert (said.verdict, said.rcode, said.workload) == ("refused", "REFUSED", "crew")
    assert said.reason


def test_a_locked_workload_asks_for_targets_alone() -> None:
    async def work(place: Place) -> None:
        names = Names(("127.0.0.1", place.upstream_port), PATTERNS)
        place.service.configure(names, {"crew": "record"}, ("db.example",))
        place.locked = "workload crew is locked: leaked"
        for name in ("c2VjcmV0.evil.net", "x.cdn.example", "c2VjcmV0.db.example"):
            assert code(await place.ask(name)) == "REFUSED"
        assert (await place.ask("DB.example")).answer
        place.locked = ""
        assert code(await place.ask("gone.example")) == "NXDOMAIN"

    place = run(work)
    assert [one.reason for one in place.told.said if one.verdict == "refused"] == [
        "workload crew is locked: leaked"] * 3
    assert "evil.net" not in str([one.question for one in place.upstream.asked])


def test_so_does_one_whose_subject_is_locked_or_logged_out_also_on_a_stream_that_is_open() -> None:
    async def work(place: Place) -> None:
        place.service.configure(Names(("127.0.0.1", place.upstream_port), PATTERNS), hosts=("db.example",))
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)

        async def ask(name: str) -> str:
            query = dns.message.make_query(name, "A").to_wire()
            writer.write(struct.pack("!H", len(query)) + query)
            return code(dns.message.from_wire(
                await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))))

        assert await ask("x.cdn.example") == "NOERROR"
        place.told.who = ("crew", "the login that it was started with has ended")
        place.service.ask_anew()
        assert await ask("c2VjcmV0.cdn.example") == code(await place.ask("c2VjcmV0.cdn.example")) == "REFUSED"
        assert await ask("db.example") == "NOERROR"
        writer.close()

    place = run(work)
    assert [(one.workload, one.reason) for one in place.told.said if one.verdict == "refused"] == [
        ("crew", "the login that it was started with has ended")] * 2
    assert "c2VjcmV0" not in str([one.question for one in place.upstream.asked])


def test_a_stream_that_was_begun_too_early_is_not_barred_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service has no identity yet; the stream outlives that.  Nobody has the agent asked at each question."""
    monkeypatch.setattr(service, "AGAIN", 0.3)

    async def work(place: Place) -> None:
        place.told.who = ("crew", "workload crew has no identity now")
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)

        async def ask(name: str) -> str:
            query = dns.message.make_query(name, "A").to_wire()
            writer.write(struct.pack("!H", len(query)) + query)
            return code(dns.message.from_wire(
                await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))))

        for _ in range(20):
            assert await ask("x.cdn.example") == "REFUSED"
        assert place.told.whose <= 3
        place.told.who = ("crew", "")
        async with asyncio.timeout(10):
            while await ask("x.cdn.example") != "NOERROR":
                await asyncio.sleep(0.05)
        writer.close()

    run(work)


def test_the_agent_knows_before_the_crew_does() -> None:
    async def work(place: Place) -> None:
        place.told.gate = asyncio.Event()
        asking = asyncio.create_task(place.ask("db.example"))
        while not place.upstream.asked:
            await asyncio.sleep(0.01)
        done, _ = await asyncio.wait({asking}, timeout=0.3)
        assert not done
        place.told.gate.set()
        assert (await asking).answer
        place.told.error = "the journal is full"
        assert code(await place.ask("db.example")) == "SERVFAIL"

    run(work)


def test_who_is_nobody_is_refused() -> None:
    async def work(place: Place) -> None:
        place.told.who = ("", "no socket of a workload")
        assert code(await place.ask("db.example")) == "REFUSED"

    place = run(work)
    assert not place.upstream.asked
    assert "not attributed" in place.told.said[0].reason


def test_addresses_that_no_name_leads_to() -> None:
    async def work(place: Place) -> None:
        answer = await place.ask("meta.example")
        assert code(answer) == "REFUSED"
        assert not answer.answer
        with pytest.raises(Unanswered, match="no address that a name may lead to"):
            await place.service.resolve("meta.example")

    assert set(run(work).told.said[0].addresses) == {"169.254.169.254", "127.0.0.1"}


def test_an_answer_that_does_not_fit_comes_by_tcp_on_both_sides() -> None:
    async def work(place: Place) -> None:
        cut = await place.ask("big.example")
        assert cut.flags & dns.flags.TC
        query = dns.message.make_query("big.example", "A")
        whole = await asyncio.to_thread(dns.query.tcp, query, "127.0.0.1", 10, place.port)
        assert len(whole.answer[0]) == 32
        large = await place.ask("big.example", use_edns=0, payload=4096)
        assert len(large.answer[0]) == 32

    assert run(work).upstream.streams == 3


def test_lies_are_not_heard() -> None:
    async def work(place: Place) -> None:
        answer = await place.ask("lie.example")
        assert [str(one) for one in answer.answer] == ["lie.example. 60 IN A 192.0.2.2"]

    run(work)


def test_a_server_that_is_away_or_fails() -> None:
    async def work(place: Place) -> None:
        assert code(await place.ask("away.example")) == "SERVFAIL"
        began = time.monotonic()
        assert code(await place.ask("stuck.example")) == "SERVFAIL"
        assert time.monotonic() - began < 4.5              # before a client gives up (resolv.conf(5): 5 s)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as none:
            none.bind(("127.0.0.1", 0))
            free = none.getsockname()[1]
        place.service.configure(Names(("127.0.0.1", free), PATTERNS))
        began = time.monotonic()
        assert code(await place.ask("db.example")) == "SERVFAIL"
        assert time.monotonic() - began < 1
        place.service.configure(Names(None, PATTERNS))
        assert code(await place.ask("db.example")) == "SERVFAIL"

    place = run(work)
    assert {one.verdict for one in place.told.said} == {"failed"}
    assert len({query.id for query in place.upstream.asked}) == len(place.upstream.asked)


def test_tunnelling_below_a_wildcard_dries_up() -> None:
    async def work(place: Place) -> None:
        codes = [code(await place.ask(f"chunk{number}.cdn.example")) for number in range(100)]
        assert decision.FRESH <= codes.count("NOERROR") <= decision.FRESH + 5
        assert codes[-1] == "REFUSED"

    place = run(work)
    assert len(place.upstream.asked) <= decision.FRESH + 5
    assert any("new names a minute" in one.reason for one in place.told.said)


def test_a_flood_is_counted_and_not_told_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(place: Place) -> None:
        monkeypatch.setattr(decision, "TOLD", 20)
        for _ in range(30):
            await asyncio.gather(*(place.ask(f"x{number}.evil.net") for number in range(10)))
        while not any(one.count > 1 for one in place.told.said):
            await asyncio.sleep(0.05)

    place = run(work)
    singles = [one for one in place.told.said if one.count == 1]
    assert len(singles) < 150
    assert sum(one.count for one in place.told.said) <= 300
    assert not place.upstream.asked


def test_garbage_over_both_ways_ends_nothing() -> None:
    async def work(place: Place) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            for size in range(0, 200, 3):
                one.sendto(b"\xff" * size, ("127.0.0.1", place.port))
                one.sendto(bytes(size), ("127.0.0.1", place.port))
            one.sendto(bytes(9000), ("127.0.0.1", place.port))
        for data in (b"", b"\0", b"\0\5hello", b"\xff\xff" + bytes(70000), b"\0\0\0\0"):
            reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
            writer.write(data)
            writer.write_eof()
            assert len(await reader.read()) in (0, 14)
            writer.close()
        assert (await place.ask("db.example")).answer

    run(work)


def test_streams_that_say_nothing_give_way_to_the_next() -> None:
    async def work(place: Place) -> None:
        streams = [await asyncio.open_connection("127.0.0.1", place.port) for _ in range(server.STREAMS)]
        assert code(await Stream(*streams[0]).ask("db.example")) == "NOERROR"
        streams += [await asyncio.open_connection("127.0.0.1", place.port) for _ in range(50)]
        for reader, _ in streams[1:51]:                   # those that were silent longest
            with suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), 5) == b""
        for one in (0, 51, -1):
            assert code(await Stream(*streams[one]).ask("db.example")) == "NOERROR"
        assert (await place.ask("db.example")).answer
        for _, writer in streams:
            writer.close()

    run(work)


def test_the_agents_own_names() -> None:
    async def work(place: Place) -> None:
        assert await place.service.resolve("db.example") == (("192.0.2.1",), 60)
        for name, wanted in (("gone.example", "no such name"), ("away.example", "refused or failed"),
                             ("stuck.example", "did not answer within")):
            with pytest.raises(Unanswered, match=wanted):
                await place.service.resolve(name)

    assert not run(work).told.said


@pytest.mark.parametrize("workload", ["crew", "strict"])
def test_other_names_where_the_mode_of_who_asks_lets_them_through(workload: str) -> None:
    async def work(place: Place) -> None:
        place.service.configure(place.service.names, {"crew": "record", "strict": "enforce"}, ("db.example",))
        place.told.who = (workload, "")
        answer = await place.ask("any.net")
        assert code(answer) == ("NOERROR" if workload == "crew" else "REFUSED")
        assert code(await place.ask("any.net", "ANY")) == "REFUSED"
        assert code(await place.ask("a.b.c.d.e.f.g.h.i.net")) == "REFUSED"
        assert (await place.ask("any.net", "TXT")).answer == []
        assert code(await place.ask("db.example")) == "NOERROR"

    place = run(work)
    asked = {str(one.question[0].name) for one in place.upstream.asked}
    assert asked == ({"any.net.", "db.example."} if workload == "crew" else {"db.example."})
    assert [one.verdict for one in place.told.said if one.name == "any.net"].count("refused") == (
        1 if workload == "crew" else 3)
    assert {one.workload for one in place.told.said} == {workload}


def test_nobody_s_question_is_refused_in_any_mode() -> None:
    async def work(place: Place) -> None:
        place.service.configure(place.service.names, {"crew": "record"})
        place.told.who = ("", "no socket of a workload")
        assert code(await place.ask("any.net")) == "REFUSED"

    assert not run(work).upstream.asked


def test_another_name_of_a_target_leads_to_the_target() -> None:
    """Its addresses are told as the target's before the crew has them, or it has none."""
    async def work(place: Place) -> None:
        place.service.configure(place.service.names, {"crew": "record"}, ("db.example",))
        assert len((await place.ask("alias.org")).answer) == 2
        assert [(one.name, one.addresses) for one in place.told.said] == [
            ("db.example", ("192.0.2.4",)), ("alias.org", ("192.0.2.4",))]
        place.told.error = "the journal is full"
        assert code(await place.ask("alias.org")) == "SERVFAIL"


class Stream:
    """One that asks, and reads the answers as it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, place: Place, workload: str = "greedy") -> Stream:
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        place.told.ports[writer.get_extra_info("sockname")[1]] = workload
        return cls(reader, writer)

    def send(self, name: str, times: int = 1) -> None:
        query = dns.message.make_query(name, "A").to_wire()
        self.writer.write((struct.pack("!H", len(query)) + query) * times)

    async def next(self) -> dns.message.Message:
        return dns.message.from_wire(await self.reader.readexactly(
            int.from_bytes(await self.reader.readexactly(2), "big")))

    async def ask(self, name: str) -> dns.message.Message:
        self.send(name)
        return await self.next()

    async def rest(self) -> int:
        """How many answers come until it ends."""
        number = 0
        with suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while True:
                await self.next()
                number += 1
        self.writer.close()
        return number


class Greedy:
    """A socket of another workload's, which asks and does not wait."""

    def __init__(self, place: Place, workload: str = "greedy") -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.connect(("127.0.0.1", place.port))
        place.told.ports[self.socket.getsockname()[1]] = workload

    async def ask(self, *names: str) -> None:
        for number, name in enumerate(names):
            self.socket.send(dns.message.make_query(name, "A").to_wire())
            if number % 50 == 49:
                await asyncio.sleep(0.01)      # the socket's buffer is not what is tried here

    def __enter__(self) -> Greedy:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def test_questions_that_nobody_answers_keep_no_other_workload_waiting() -> None:
    """So many of one workload's are open at a time; the others and the agent have their own places."""
    async def work(place: Place) -> None:
        with Greedy(place) as greedy:
            await greedy.ask(*(f"stuck{number}.example" for number in range(400)))
            while len(place.upstream.asked) < upstream.EACH:
                await asyncio.sleep(0.01)
            began = time.monotonic()
            assert code(await place.ask("db.example")) == "NOERROR"
            assert await place.service.resolve("db.example") == (("192.0.2.1",), 60)
            assert time.monotonic() - began < upstream.TRY

    place = run(work)
    assert len({query.question[0].name for query in place.upstream.asked}) <= upstream.EACH + 1
    assert any("of this workload are open" in one.reason for one in place.told.said)


def test_one_who_asks_as_fast_as_it_can_keeps_nobody_from_asking() -> None:
    async def work(place: Place) -> None:
        with Greedy(place) as greedy:
            asking = asyncio.create_task(greedy.ask(*["db.example", "x.evil.net"] * 700))
            for _ in range(10):
                assert code(await place.ask("db.example", timeout=3)) == "NOERROR"
            await asking
            assert code(await place.ask("db.example")) == "NOERROR"
            assert code(await place.ask("x.evil.net")) == "REFUSED"

    place = run(work)
    greedy = [one for one in place.told.said if one.workload == "greedy"]
    assert sum(one.verdict == "answered" for one in greedy) <= decision.CREW_BURST + 300
    refused = [one for one in place.told.said if one.workload == "crew" and one.verdict == "refused"]
    assert [one.name for one in refused] == ["x.evil.net"]


def test_streams_of_one_workload_take_nothing_of_the_others() -> None:
    """What is asked on a stream whose asker is known is its workload's turn, and no other's."""
    async def work(place: Place) -> None:
        place.service._asked = Bucket(10, 100)
        streams = [await Stream.open(place) for _ in range(20)]
        for one in streams:
            one.send("x.evil.net", server.QUESTIONS)
        answers = [asyncio.create_task(one.rest()) for one in streams]
        for _ in range(10):
            assert code(await place.ask("db.example", timeout=2)) == "NOERROR"
        assert sum(await asyncio.gather(*answers)) <= decision.CREW_BURST + 100
        assert code(await place.ask("db.example", timeout=2)) == "NOERROR"
        while not any(one.count > 1 for one in place.told.said):
            await asyncio.sleep(0.05)

    place = run(work)
    assert "dns_dropped" not in place.counted
    assert place.told.whose <= 20 + 11


def test_a_stream_of_nobody_s_is_asked_for_once() -> None:
    async def work(place: Place) -> None:
        place.told.who = ("", "no socket of a workload")
        stream = Stream(*await asyncio.open_connection("127.0.0.1", place.port))
        for _ in range(5):
            assert code(await stream.ask("db.example")) == "REFUSED"
        stream.writer.close()

    assert run(work).told.whose == 1


def test_below_a_wildcard_each_workload_has_its_own_names() -> None:
    async def work(place: Place) -> None:
        with Greedy(place) as greedy:
            await greedy.ask(*(f"n{number}.cdn.example" for number in range(200)))
            while not any("wildcard" in one.reason for one in place.told.said):
                await asyncio.sleep(0.01)
            assert code(await place.ask("mine.cdn.example")) == "NOERROR"

    run(work)


def test_equal_questions_are_one_upstream() -> None:
    async def work(place: Place) -> None:
        with Greedy(place) as greedy:
            await greedy.ask(*["stuck.example"] * 20)
            said = await asyncio.gather(*(place.ask("stuck.example") for _ in range(5)))
            assert {code(one) for one in said} == {"SERVFAIL"}

    assert len(run(work).upstream.asked) <= 2 * upstream.TRIES


def test_who_asks_is_asked_once_for_a_stream_and_for_what_comes_together() -> None:
    async def work(place: Place) -> None:
        query = dns.message.make_query("db.example", "A").to_wire()
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        for _ in range(5):
            writer.write(struct.pack("!H", len(query)) + query)
            await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        writer.close()
        assert place.told.whose == 1
        with Greedy(place) as together:
            await together.ask(*["db.example"] * 5)
            while len(place.told.said) < 10:
                await asyncio.sleep(0.01)
        assert place.told.whose < 6

    run(work)
