"""Port-forward, as conversations."""
from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from pump import TableGate
from streamtalk import SpdyPeer, Talk, WsPeer, make_info, upgrade_head, upgraded

from agent.contract.target import Forward
from enforcer.http.websocket import Close, Ping, Pong
from enforcer.protocols.kubernetes.info import Query
from enforcer.protocols.kubernetes.streams.crews import PAIRS, read_port
from enforcer.protocols.kubernetes.streams.offers import TUNNEL
from enforcer.protocols.kubernetes.streams.pairs import fits
from enforcer.protocols.kubernetes.streams.restraint import ROOM
from enforcer.protocols.kubernetes.streams.spdy import frames
from enforcer.protocols.kubernetes.streams.spdy.frames import Data, GoAway, Reset, SynReply, SynStream
from enforcer.protocols.kubernetes.streams.uplinks import PINGS_AT_ONCE
from enforcer.words import commands as words
from enforcer.words import events, inputs
from enforcer.words.commands import CLIENT, SERVER
from enforcer.words.errors import ProtocolError, RemoteProtocolError

HTTP = b"GET / HTTP/1.1\r\nHost: localhost:8080\r\n\r\n"
POSTGRESQL = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"       # SSLRequest
DB = Forward("orders", "shop", "db-*", 5432)


def spdy(name: str = "web-1", **options: object) -> tuple[Talk, SpdyPeer, SpdyPeer]:
    talk = Talk(make_info("portforward", name), upgrade_head(b"portforward.k8s.io", spdy=True),
                upgraded(b"portforward.k8s.io", True), **options)  # type: ignore[arg-type]
    return talk, SpdyPeer(talk, CLIENT), SpdyPeer(talk, SERVER)


def tunnelled(name: str = "web-1", **options: object) -> tuple[Talk, SpdyPeer, SpdyPeer]:
    talk = Talk(make_info("portforward", name), upgrade_head(TUNNEL), upgraded(TUNNEL),
        **options)  # type: ignore[arg-type]
    return talk, SpdyPeer(talk, CLIENT, True), SpdyPeer(talk, SERVER, True)


def channels(ports: str = "8080,5432", name: str = "web-1", protocol: bytes = b"v4.channel.k8s.io", **options: object,
             ) -> tuple[Talk, WsPeer, SpdyPeer]:
    query: Query = (("ports", ports),)
    talk = Talk(make_info("portforward", name), upgrade_head(protocol), upgraded(b"portforward.k8s.io", True), query,
                **options)  # type: ignore[arg-type]
    return talk, WsPeer(talk, CLIENT), SpdyPeer(talk, SERVER)


def ask(crew: SpdyPeer, port: int = 8080, request: str = "0") -> tuple[int, int]:
    """As kubectl does: the error stream, which it says nothing on, then the other."""
    error = crew.open(streamtype="error", port=str(port), requestid=request)
    crew.data(error, b"", True)
    return error, crew.open(streamtype="data", port=str(port), requestid=request)


def accept(server: SpdyPeer) -> tuple[int, int]:
    """Both streams of the next connection, as the server sees them; it was asked for nothing else."""
    (first,) = server.heard()
    assert isinstance(first, SynStream)
    assert dict(first.headers)[b"streamtype"] == b"error"
    server.reply(first.stream)
    end, second = server.heard()
    assert end == Data(first.stream, b"", True)
    assert isinstance(second, SynStream)
    assert dict(second.headers)[b"streamtype"] == b"data"
    assert dict(second.headers)[b"requestid"] == dict(first.headers)[b"requestid"]
    server.reply(second.stream)
    return first.stream, second.stream


def text(heard: list[object], stream: int) -> bytes:
    return b"".join(one.data for one in heard if isinstance(one, Data) and one.stream == stream)


# As it is

@pytest.mark.parametrize("make", [spdy, tunnelled])
@pytest.mark.parametrize("cut", [0, 1, 7])
def test_a_connection(make: object, cut: int) -> None:
    talk, crew, server = make(cut=cut)  # type: ignore[operator]
    error, data = ask(crew)
    assert crew.heard() == [SynReply(error, False), SynReply(data, False)]
    there = accept(server)
    crew.data(data, HTTP)
    assert text(server.heard(), there[1]) == HTTP
    server.data(there[1], b"HTTP/1.1 200 OK\r\n\r\n")
    server.data(there[1], b"", True)
    server.data(there[0], b"", True)
    heard = crew.heard()
    assert text(heard, data) == b"HTTP/1.1 200 OK\r\n\r\n"
    assert text(heard, error) == b""
    assert {one.stream for one in heard if isinstance(one, Data) and one.last} == {error, data}
    crew.reset(data)                           # as kubectl ends it
    assert talk.results() == [(2, "ok", "")]
    assert talk.recorded("out", 2) == b""      # counted and hashed
    ended = [(one.stream, one.bytes, one.kept) for one in talk.events(events.StreamEnded)]  # type: ignore[attr-defined]
    assert ended == [("in", len(HTTP), 0), ("out", 19, 0)]
    crew.raw(frames.render_goaway(0))
    assert talk.results()[-1] == (1, "ok", "")
    assert talk.closed == "client closed"


def test_nothing_is_asked_of_the_server_before_the_connection_is_permitted() -> None:
    talk, crew, server = spdy(gate=TableGate(deny={("k8s:portforward", "web-1")}))
    error, data = ask(crew)
    heard = crew.heard()
    assert b"weir: permission denied: policy no forbids k8s:portforward" in text(heard, error)
    assert {one.stream for one in heard if isinstance(one, Data) and one.last} == {error, data}
    crew.data(data, HTTP)                      # is for nobody
    crew.reset(data)
    assert server.heard() == []
    assert talk.results() == [(2, "denied", "")]


def test_what_is_asked() -> None:
    talk, crew, _ = spdy()
    ask(crew, 9090)
    (_, intent) = talk.events(events.Intent)
    assert (intent.verb, intent.requests) == ("port-forward",
        (("k8s:portforward", "shop/pods/portforward/web-1"),))  # type: ignore[attr-defined]


def test_one_that_is_held_waits_and_its_client_is_not_read_without_end() -> None:
    talk, crew, server = spdy(gate=TableGate(hold={("k8s:portforward", "web-1")}))
    _, data = ask(crew)
    crew.data(data, HTTP)
    assert server.heard() == []
    for _ in range(8):
        crew.data(data, bytes(ROOM // 8))
    assert talk.said(words.PauseReading) == [words.PauseReading(CLIENT)]
    (hold,) = talk.said(words.Hold)
    talk.book.answered(inputs.HoldAnswered(hold.operation, "approved", "ann", "", "T-1"))  # type: ignore[attr-defined]
    there = accept(server)
    assert text(server.heard(), there[1]) == HTTP + bytes(ROOM)
    assert talk.said(words.ResumeReading) == [words.ResumeReading(CLIENT)]


def test_one_that_is_held_and_given_up() -> None:
    talk, crew, server = spdy(gate=TableGate(hold={("k8s:portforward", "web-1")}))
    _, data = ask(crew)
    crew.reset(data)
    (cancel,) = talk.said(words.CancelHold)
    talk.book.answered(inputs.HoldAnswered(cancel.operation, "cancelled", "", "", ""))  # type: ignore[attr-defined]
    assert server.heard() == []
    assert talk.results() == [(2, "cancelled", "")]


def test_approved_as_it_is_given_up() -> None:
    talk, crew, server = spdy(gate=TableGate(hold={("k8s:portforward", "web-1")}))
    _, data = ask(crew)
    crew.reset(data)
    talk.book.answered(inputs.HoldAnswered(2, "approved", "ann", "", "T-1"))
    assert server.heard() == []
    assert talk.results()[-1] == (3, "cancelled", "")


def test_what_the_server_says_of_it() -> None:
    talk, crew, server = spdy()
    error, _data = ask(crew)
    there = accept(server)
    server.data(there[0], b"error forwarding port 8080: connection refused")
    server.reset(there[1])
    server.reset(there[0])
    heard = crew.heard()
    assert text(heard, error) == b"error forwarding port 8080: connection refused"
    assert talk.results() == [(2, "error", "")]
    assert talk.errors() == [b"error forwarding port 8080: connection refused"]


def test_the_server_takes_no_stream() -> None:
    talk, crew, server = spdy()
    error, data = ask(crew)
    (first,) = server.heard()
    server.reset(first.stream)  # type: ignore[attr-defined]
    assert talk.results() == [(2, "ok", "")]
    assert {one.stream for one in crew.heard() if isinstance(one, Data) and one.last} == {error, data}


def test_many_at_a_time() -> None:
    talk, crew, server = spdy()
    of = []
    for number in range(5):
        mine = ask(crew, 8080 + number, str(number))
        of.append((mine, accept(server)))
    crew.heard()
    for (_, data), (_, there) in of:
        crew.data(data, b"\r\n%d" % data)
        server.data(there, b"re %d" % there)
        talk.fire()
    heard, got = crew.heard(), server.heard()
    for (_, data), (_, there) in of:
        assert text(heard, data) == b"re %d" % there
        assert text(got, there) == b"\r\n%d" % data
    talk.passage.ended(SERVER)
    assert sorted(talk.results()) == [(1, "ok", ""), *((number, "ok", "") for number in range(2, 7))]


def test_an_old_client_that_does_not_number_them() -> None:
    _talk, crew, server = spdy()
    error = crew.open(streamtype="error", port="80")
    data = crew.open(streamtype="data", port="80")
    assert crew.heard() == [SynReply(error, False), SynReply(data, False)]
    accept(server)


def test_the_end_of_one_side() -> None:
    _talk, crew, server = spdy()
    _, data = ask(crew)
    there = accept(server)
    crew.data(data, HTTP, True)
    assert server.heard() == [Data(there[1], HTTP, False), Data(there[1], b"", True)]
    server.data(there[1], b"late", False)
    assert text(crew.heard(), data) == b"late"


# What has no business there

def test_a_registered_protocol_does_not_pass_uninspected() -> None:
    talk, crew, server = spdy()
    error, data = ask(crew, 5432)
    there = accept(server)
    crew.data(data, POSTGRESQL)
    assert text(server.heard(), there[1]) == b""
    assert b"weir: " in text(crew.heard(), error)
    assert talk.results() == [(2, "denied", "")]
    crew.data(data, b"more")
    assert [one for one in server.heard() if isinstance(one, Data)] == []


def test_few_bytes_wait_only_a_moment() -> None:
    talk, crew, server = spdy()
    _, data = ask(crew)
    there = accept(server)
    crew.data(data, b"hi")
    assert text(server.heard(), there[1]) == b""
    assert talk.timers
    for _ in range(3):
        talk.fire(10)
    assert text(server.heard(), there[1]) == b"hi"


# Through a registered target

def through(**options: object) -> tuple[Talk, SpdyPeer, SpdyPeer, int, int]:
    talk, crew, server = spdy("db-0", forwards=(DB,), **options)
    error, data = ask(crew, 5432)
    assert talk.said(words.OpenThrough) == [words.OpenThrough(0, "db-0", 5432, "orders")]
    crew.heard()
    return talk, crew, server, error, data


def test_a_target_behind_a_port() -> None:
    talk, crew, server, error, data = through()
    crew.data(data, POSTGRESQL)
    assert talk.said(words.SendThrough) == []
    assert server.heard() == []
    talk.passage.handle(inputs.ThroughOpened(0, "orders", "INNER"))
    assert talk.said(words.SendThrough) == [words.SendThrough(0, CLIENT, POSTGRESQL)]
    assert ("tunnel", "operation 2: target orders, session INNER") in talk.notes()
    talk.passage.handle(inputs.ThroughDials(7, 0))
    there = accept(server)
    assert talk.said(words.ThroughConnected) == [words.ThroughConnected(7)]
    talk.passage.handle(inputs.ThroughData(7, SERVER, b"startup"))
    assert text(server.heard(), there[1]) == b"startup"
    server.data(there[1], b"S")
    assert talk.said(words.SendThrough)[-1] == words.SendThrough(7, SERVER, b"S")
    talk.passage.handle(inputs.ThroughData(0, CLIENT, b"N"))
    assert text(crew.heard(), data) == b"N"
    crew.data(data, b"", True)
    assert talk.said(words.EndThrough) == [words.EndThrough(0, CLIENT)]
    talk.passage.handle(inputs.ThroughEnded(7, SERVER))
    assert [type(one) for one in server.heard()] == [Reset, Reset]
    talk.passage.handle(inputs.ThroughEnded(0, CLIENT))
    talk.passage.handle(inputs.ThroughClosed(0, ""))
    assert {one.stream for one in crew.heard() if isinstance(one, Data) and one.last} == {error, data}
    assert talk.results() == [(2, "ok", "")]
    ended = [(one.stream, one.bytes) for one in talk.events(events.StreamEnded)]  # type: ignore[attr-defined]
    assert ended == [("in", 8), ("out", 1)]


def test_a_target_is_never_passed_by() -> None:
    """Also where the edge does not know it any more."""
    for reason in ("", "it is closed"):
        talk, crew, server, error, data = through()
        crew.data(data, HTTP)
        talk.passage.handle(inputs.ThroughRefused(0, reason))
        assert (reason or "no target").encode() in text(crew.heard(), error)
        assert server.heard() == []
        assert talk.results() == [(2, "error", "")]


def test_a_connection_that_the_server_does_not_open() -> None:
    talk, _crew, server, _, _ = through()
    talk.passage.handle(inputs.ThroughOpened(0, "orders", "INNER"))
    talk.passage.handle(inputs.ThroughDials(-1, 0))
    (first,) = server.heard()
    server.data(first.stream, b"no such pod")  # type: ignore[attr-defined]
    server.reset(first.stream)  # type: ignore[attr-defined]
    assert talk.said(words.ThroughFailed) == [words.ThroughFailed(-1, "no such pod")]
    assert talk.results() == [(3, "error", "")]            # Weir's own, on record
    talk.passage.handle(inputs.ThroughDials(5, 9))
    assert talk.said(words.ThroughFailed)[-1] == words.ThroughFailed(5, "it is gone, or too many connections are open")


def test_the_server_ends_a_line() -> None:
    talk, _, server, _, _ = through()
    talk.passage.handle(inputs.ThroughOpened(0, "orders", "INNER"))
    talk.passage.handle(inputs.ThroughDials(7, 0))
    there = accept(server)
    server.data(there[1], b"", True)
    assert talk.said(words.EndThrough) == [words.EndThrough(7, SERVER)]
    server.data(there[0], b"lost connection", True)
    assert talk.said(words.CloseThrough) == [words.CloseThrough(7, SERVER, "lost connection")]


def test_a_line_that_is_full_stops_its_side() -> None:
    talk, crew, server, _, data = through()
    talk.passage.handle(inputs.ThroughOpened(0, "orders", "INNER"))
    talk.passage.handle(inputs.ThroughDials(7, 0))
    there = accept(server)
    for peer, one, stream, number in ((CLIENT, crew, data, 0), (SERVER, server, there[1], 7)):
        talk.passage.handle(inputs.ThroughFull(number, peer, True))
        before = len(talk.said(words.SendThrough))
        for _ in range(9):
            one.data(stream, bytes(ROOM // 8))
        assert len(talk.said(words.SendThrough)) == before
        assert talk.said(words.PauseReading)[-1] == words.PauseReading(peer)
        talk.passage.handle(inputs.ThroughFull(number, peer, False))
        new = talk.said(words.SendThrough)[before:]
        assert sum(len(one.data) for one in new) == ROOM // 8 * 9  # type: ignore[attr-defined]
        assert talk.said(words.ResumeReading)[-1] == words.ResumeReading(peer)


def test_the_crew_gives_a_tunnel_up() -> None:
    talk, crew, _, _, data = through()
    crew.reset(data)
    assert talk.said(words.CloseThrough) == [words.CloseThrough(0, CLIENT)]
    for late in (inputs.ThroughOpened(0, "orders", "INNER"), inputs.ThroughDials(7, 0),
                 inputs.ThroughData(0, CLIENT, b"x"),
                 inputs.ThroughFull(0, CLIENT, True), inputs.ThroughEnded(0, CLIENT), inputs.ThroughClosed(0, "")):
        talk.passage.handle(late)
    assert talk.results() == [(2, "ok", "")]


def test_all_of_it_ends_with_the_server() -> None:
    talk, _, _server, _, _ = through()
    talk.passage.handle(inputs.ThroughOpened(0, "orders", "INNER"))
    talk.passage.handle(inputs.ThroughDials(7, 0))
    talk.passage.ended(SERVER)
    assert talk.said(words.ThroughFailed) == [words.ThroughFailed(7, "server closed")]
    assert talk.said(words.CloseThrough) == [words.CloseThrough(0, CLIENT, "server closed")]


@pytest.mark.parametrize(("pods", "name", "port", "fit"), [
    ("db-*", "db-0", 5432, True), ("db-*", "db", 5432, False), ("*", "x", 5432, True), ("db-0", "db-0", 5432, True),
    ("db-0", "db-01", 5432, False), ("db-*", "db-0", 5433, False), ("d*b*0", "dxbx0", 5432, True),
    ("db.0", "dbx0", 5432, False),
    ("db-*", "adb-0", 5432, False), ("db-[0-9]", "db-1", 5432, False)])
def test_which_pods(pods: str, name: str, port: int, fit: bool) -> None:
    forward = Forward("orders", "shop", pods, 5432)
    assert fits(forward, make_info("portforward", name), port) is fit
    assert not fits(Forward("orders", "other", pods, 5432), make_info("portforward", name), port)


# A WebSocket's channels

@pytest.mark.parametrize("cut", [0, 1])
def test_ports_as_channels(cut: int) -> None:
    talk, crew, server = channels(cut=cut)
    assert crew.heard() == []                  # the 101 is still to be sent
    talk.fire(0.001)
    assert crew.heard() == [bytes((channel,)) + port.to_bytes(2, "little")
                            for channel, port in ((0, 8080), (1, 8080), (2, 5432), (3, 5432))]
    first, second = server.heard()
    assert [dict(one.headers)[b"port"] for one in (first, second)] == [b"8080", b"5432"]  # type: ignore[attr-defined]
    server.reply(first.stream)  # type: ignore[attr-defined]
    _, syn = server.heard()
    server.reply(syn.stream)  # type: ignore[attr-defined]
    crew.say(0, HTTP)
    crew.say(1, b"is for nobody")
    assert text(server.heard(), syn.stream) == HTTP  # type: ignore[attr-defined]
    server.data(syn.stream, b"hello")  # type: ignore[attr-defined]
    assert b"".join(one[1:] for one in crew.heard()) == b"hello"  # type: ignore[index]
    crew.raw(crew.socket.ping(b"p"))
    assert crew.heard() == [Pong(b"p")]


def test_a_port_that_is_denied() -> None:
    gate = TableGate(deny={("k8s:portforward", "*")})
    talk, crew, server = channels("80", gate=gate)
    talk.fire(0.001)
    *_, told, close = crew.heard()
    assert told[0] == 1
    assert b"weir: permission denied" in told
    assert close == Close(1000, "")
    assert talk.closed == "all its connections are over"
    assert [type(one) for one in server.heard()] == [GoAway]
    assert talk.results() == [(2, "denied", ""), (1, "ok", "")]


def test_a_target_behind_a_channel() -> None:
    talk, crew, server = channels("5432", "db-0", b"v4.base64.channel.k8s.io", forwards=(DB,))
    crew.text(b"0AAAACATSFi8=")                # before the timer
    talk.passage.handle(inputs.ThroughOpened(0, "orders", "INNER"))
    assert talk.said(words.SendThrough) == [words.SendThrough(0, CLIENT, POSTGRESQL)]
    for line in (-1, 7):                       # as many connections as it takes
        talk.passage.handle(inputs.ThroughDials(line, 0))
        accept(server)


@pytest.mark.parametrize("ports", ["", "0", "65536", "x", "80,", ",".join(["80"] * 65), "-1", "٣"])
def test_ports_that_are_none(ports: str) -> None:
    with pytest.raises(RemoteProtocolError):
        channels(ports)


@pytest.mark.parametrize(("said", "port"), [(b"80", 80), (b"65535", 65535), (b"65536", 0), (b"", 0), (b"0", 0),
                                            (b"+1", 0), (b"1" * 500, 0), (b"80\x0081", 0)])
def test_a_port(said: bytes, port: int) -> None:
    assert read_port(said) == port


# Hostile ones

@pytest.mark.parametrize("headers", [
    {"streamtype": "data", "port": "0"}, {"streamtype": "data"}, {"streamtype": "stdin", "port": "80"}, {"port": "80"},
    {"streamtype": "data", "port": "80\x0081"}, {"streamtype": "data\0error", "port": "80"}])
def test_streams_that_are_none_are_reset(headers: dict[str, str]) -> None:
    _, crew, server = spdy()
    number = crew.open(**headers)
    (reset,) = crew.heard()
    assert isinstance(reset, Reset)
    assert reset.stream == number
    assert server.heard() == []


def test_two_of_a_kind_and_two_ports() -> None:
    _, crew, server = spdy()
    crew.open(streamtype="error", port="80", requestid="1")
    crew.open(streamtype="error", port="80", requestid="1")
    crew.open(streamtype="data", port="81", requestid="1")
    assert [type(one) for one in crew.heard()] == [SynReply, Reset, Reset]
    assert server.heard() == []


def test_there_are_not_more_than_so_many() -> None:
    _, crew, _ = spdy()
    for number in range(PAIRS):
        ask(crew, 80, str(number))
    crew.heard()
    crew.open(streamtype="error", port="80", requestid="last")
    assert [type(one) for one in crew.heard()] == [Reset]
    _talk, crew, _ = spdy()
    for number in range(2 * PAIRS + 10):       # halves
        crew.open(streamtype="error", port="80", requestid=str(number))
    assert sum(isinstance(one, Reset) for one in crew.heard()) == 10


def test_half_a_connection() -> None:
    _, crew, server = spdy()
    data = crew.open(streamtype="data", port="80", requestid="1")
    with pytest.raises(RemoteProtocolError):
        crew.data(data, b"x")
    _, crew, server = spdy()
    first = crew.open(streamtype="error", port="80", requestid="1")
    crew.reset(first)
    crew.open(streamtype="data", port="80", requestid="1")
    assert server.heard() == []


def test_streams_of_the_wrong_side() -> None:
    for peer, number in ((CLIENT, 2), (SERVER, 2)):
        _, *peers = spdy()
        with pytest.raises(RemoteProtocolError):
            peers[peer].raw(peers[peer].framer.syn_stream(number, ((b"streamtype", b"data"), (b"port", b"80"))))
    _, _, server = spdy()
    with pytest.raises(RemoteProtocolError):
        server.data(1, b"x")


def test_a_server_that_pings_and_does_not_read_is_not_answered_for_ever() -> None:
    _, _, server = spdy()
    server.raw(frames.render_ping(2) * 10_000)
    assert len(server.heard()) <= PINGS_AT_ONCE


def test_pings_are_answered() -> None:
    _, crew, server = spdy()
    crew.raw(frames.render_ping(1))
    server.raw(frames.render_ping(2) + frames.render_ping(1))
    assert crew.heard() == [frames.Ping(1)]
    assert server.heard() == [frames.Ping(1), frames.Ping(2)]          # Weir's own: idle connections are ended
    _, crew, server = tunnelled()
    assert crew.socket is not None
    crew._talk.hear(CLIENT, crew.socket.ping(b"x"))
    assert crew.heard() == [Pong(b"x")]
    assert server.heard() == []
    with pytest.raises(RemoteProtocolError):
        crew._talk.hear(CLIENT, crew.socket.message(b"text", True))
    assert Ping(b"x") != Pong(b"x")


def test_an_operator_ends_it() -> None:
    talk, crew, server = spdy()
    error, _ = ask(crew)
    accept(server)
    talk.passage.stop("killed by ann")
    assert text(crew.heard(), error) == b"weir: killed by ann"
    assert sorted(talk.results()) == [(1, "cancelled", ""), (2, "cancelled", "")]
    assert not talk.closed
    talk.passage.ended(CLIENT)
    talk.passage.handle(inputs.TimerFired("forward 0"))


def test_garbage_is_a_protocol_error() -> None:
    for seed in range(300):
        source = random.Random(seed)
        talk, *_ = (spdy, tunnelled, channels)[seed % 3]()
        try:
            for _ in range(5):
                talk.hear(source.randint(0, 1), source.randbytes(source.randint(1, 30)))
        except ProtocolError:
            talk.passage.stop("garbage")


def moves(
    talk: Talk, crew: SpdyPeer, server: SpdyPeer, source: random.Random, mine: list[int], theirs: list[int],
) -> tuple[Callable[[], object], ...]:
    """What may happen, one each."""
    def one(of: list[int]) -> int:
        return source.choice(of)

    def accepted() -> None:
        for frame in server.heard():
            if isinstance(frame, SynStream):
                server.reply(frame.stream)
                theirs.append(frame.stream)

    numbers, peers, maybe = list(range(10)), [CLIENT, SERVER], [True, False]
    handle = talk.passage.handle
    return (
        lambda: crew.data(one(mine), b"GET / HTTP/1.1\r\n\r\n", bool(source.choice(maybe))),
        lambda: crew.reset(one(mine)),
        accepted,
        lambda: theirs and server.data(one(theirs), b"x", bool(source.choice(maybe))),
        lambda: theirs and server.reset(one(theirs)),
        lambda: handle(inputs.ThroughOpened(one(numbers), "orders", "I")),
        lambda: handle(inputs.ThroughDials(one(numbers), one(numbers))),
        lambda: handle(inputs.ThroughData(one(numbers), one(peers), b"x")),
        lambda: handle(inputs.ThroughFull(one(numbers), one(peers), bool(source.choice(maybe)))),
        lambda: handle(inputs.ThroughEnded(one(numbers), one(peers))),
        lambda: handle(inputs.ThroughClosed(one(numbers), "")),
        talk.fire,
    )


def test_any_order_of_what_may_come() -> None:
    """Whatever crew, server and edge do: every connection has one result, and nothing is raised."""
    for seed in range(200):
        source = random.Random(seed)
        talk, crew, server = spdy("db-0", forwards=(DB,))
        mine = [stream for number in range(3) for stream in ask(crew, source.choice((5432, 80)), str(number))]
        may = moves(talk, crew, server, source, mine, [])
        for _ in range(60):
            source.choice(may)()
        talk.passage.stop("over")
        numbers = [one for one, _, _ in talk.results()]
        asked = [one.operation for one in talk.events(events.Intent)]  # type: ignore[attr-defined]
        assert sorted(numbers) == sorted(asked) == sorted(set(numbers))


def test_what_a_connection_is_called_is_short() -> None:
    """In SPDY 64 KiB of a name are some bytes, and hundreds of them would be kept."""
    talk, crew, server = spdy()
    error, data = ask(crew, request="x" * 64)
    assert crew.heard() == [SynReply(error, False), SynReply(data, False)]
    accept(server)
    error, data = ask(crew, request="x" * 65)
    assert crew.heard() == [Reset(error, frames.PROTOCOL_ERROR), Reset(data, frames.PROTOCOL_ERROR)]
    assert server.heard() == []
    assert talk.results() == []
