"""Exec and attach, as conversations."""
from __future__ import annotations

import json
import random

import pytest
from streamtalk import (
    SUCCESS,
    TTY,
    SpdyPeer,
    Talk,
    WsPeer,
    failure,
    make_info,
    spdy_exec,
    upgrade_head,
    upgraded,
    ws_exec,
)

from enforcer.http.websocket import Close, Ping, Pong
from enforcer.policy.detectors import labels_of
from enforcer.protocols.kubernetes.streams.command import ALIVE, CLOSING, STATUS, wants
from enforcer.protocols.kubernetes.streams.spdy import frames
from enforcer.protocols.kubernetes.streams.spdy.frames import Data, GoAway, Reset, SynReply, SynStream
from enforcer.words import commands as words
from enforcer.words import events
from enforcer.words.commands import CLIENT, SERVER
from enforcer.words.errors import ProtocolError, RemoteProtocolError

JWT = (b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4ifQ."
       b"SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c")


# WebSocket

@pytest.mark.parametrize("cut", [0, 1, 3])
def test_a_command_over_websocket(cut: int) -> None:
    talk, crew, server = ws_exec(cut=cut)
    server.say(1)                              # it has begun
    crew.say(0, b"ls\n")
    server.say(1, b"a b\n")
    server.say(2, b"oops\n")
    server.say(3, failure(2))
    server.raw(server.socket.close(1000, ""))
    assert b"".join(server.heard()[:-1]).replace(b"\0", b"") == b"ls\n"        # type: ignore[arg-type]
    heard = crew.heard()
    assert heard[0] == b"\x01"
    assert heard[-1] == Close(1000, "")
    said = {channel: b"".join(one[1:] for one in heard[:-1] if one[0] == channel) for channel in (1, 2,
        3)}  # type: ignore
    assert said == {1: b"a b\n", 2: b"oops\n", 3: failure(2)}
    assert (talk.recorded("in"), talk.recorded("out"), talk.recorded("err")) == (b"ls\n", b"a b\n", b"oops\n")
    assert talk.results() == [(1, "ok", "exit 2")]
    assert not talk.closed                     # until the crew has read that
    crew.raw(crew.socket.close(1000, ""))
    assert talk.closed == "server closed"


@pytest.mark.parametrize("how", ["close", "gone", "garbage", "time", "stop"])
def test_a_crew_reads_to_the_end(how: str) -> None:
    """What it still sends would make a connection that is closed at once lose what is on its way to it."""
    talk, crew, server = ws_exec()
    server.say(3, SUCCESS)
    server.raw(server.socket.close(1000, ""))
    talk.passage.ended(SERVER)
    server.heard()
    crew.say(0, b"still typing")
    crew.say(1, b"nonsense")
    crew.raw(crew.socket.ping(b"x"))
    assert server.heard() == []
    assert not talk.closed
    if how == "close":
        crew.raw(crew.socket.close(1000, ""))
    elif how == "gone":
        talk.passage.ended(CLIENT)
    elif how == "garbage":
        crew.raw(b"\xff\xff")
    elif how == "time":
        assert talk.timers == {"streams": CLOSING}
        talk.fire(CLOSING)
    else:
        talk.passage.stop("killed")            # by whoever closes both
    assert talk.closed == ("" if how == "stop" else "server closed")
    talk.fire()
    talk.passage.ended(CLIENT)
    assert talk.results() == [(1, "ok", "exit 0")]
    assert talk.recorded("in") == b""


def test_what_is_typed_is_recorded_before_it_goes() -> None:
    talk, crew, _ = ws_exec()
    crew.say(0, b"ls\n")
    kinds = [type(one).__name__ if isinstance(one, words.Command) else "sent" for one in talk.log]
    assert kinds[-2:] == ["Record", "sent"]
    (record,) = [one for one in talk.log if isinstance(one, words.Record) and isinstance(one.event, events.Streamed)]
    assert record.barrier


@pytest.mark.parametrize("tty", [False, True])
def test_messages_of_one_byte_cost_as_one(tty: bool) -> None:
    talk, crew, server = ws_exec(query=TTY if tty else (("command", "sh"), ("stdin", "true")))
    crew.raw(b"".join(crew.socket.message(b"\0" + bytes((one,))) for one in b"ab\ncd\n" * 500)
             + crew.socket.message(b"\4{}") * 500 + crew.socket.message(b"\0e"))
    server.raw(server.socket.message(b"\1x") * 500 + server.socket.message(b"\2y") + server.socket.message(b"\1z"))
    assert server.heard() == [b"\0" + b"ab\ncd\n" * 500, b'\4{"Width":0,"Height":0}\n', b"\0e"]
    assert crew.heard() == [b"\1" + b"x" * 500, b"\2y", b"\1z"]
    assert len(talk.log) < 20
    talk.clock += ALIVE
    crew.raw(b"".join(crew.socket.ping(bytes((one,))) for one in b"abc"))
    assert server.heard() == [Ping(b"c")]


def test_what_stands_before_an_error_is_said() -> None:
    talk, crew, server = ws_exec()
    with pytest.raises(RemoteProtocolError):
        server.raw(server.socket.message(b"\1last") + server.socket.message(b"\1 words") + b"\xff\xff")
    assert crew.heard() == [b"\1last words"]
    assert talk.recorded("out") == b"last words"


def test_the_end_of_the_input_in_version_5() -> None:
    _, crew, server = ws_exec(b"v5.channel.k8s.io")
    crew.say(0, b"x")
    crew.say(255, b"\0")
    assert server.heard() == [b"\0x", b"\xff\0"]


def test_base64_stays_base64() -> None:
    talk, crew, server = ws_exec(b"v4.base64.channel.k8s.io")
    crew.text(b"0bHMK")
    server.text(b"1YQo=")
    assert (server.heard(), crew.heard()) == ([b"0bHMK"], [b"1YQo="])
    assert (talk.recorded("in"), talk.recorded("out")) == (b"ls\n", b"a\n")


def test_without_a_protocol_the_error_stream_is_a_text() -> None:
    for said, result in ((b"", (1, "ok", "")), (b"no such command", (1, "error", ""))):
        talk, _crew, server = ws_exec(b"")
        server.say(3, said)
        server.raw(server.socket.close(1000, ""))
        assert talk.results() == [result]


def test_pings_go_all_the_way() -> None:
    _, crew, server = ws_exec()
    crew.raw(crew.socket.ping(b"a"))
    assert server.heard() == [Ping(b"a")]
    assert crew.heard() == []
    server.raw(server.socket.pong(b"a") + server.socket.ping(b"b"))
    assert crew.heard() == [Pong(b"a"), Ping(b"b")]


def test_a_server_that_speaks_is_not_asked_whether_it_is_there() -> None:
    """It may have closed behind what Weir has yet to read: what it is sent then costs the crew that."""
    talk, crew, server = ws_exec()
    server.say(1, b"much")
    talk.clock += ALIVE / 2
    crew.raw(crew.socket.ping(b"a"))
    assert (crew.heard(), server.heard()) == ([b"\1much", Pong(b"a")], [])
    talk.clock += ALIVE
    crew.raw(crew.socket.ping(b"b"))
    assert (crew.heard(), server.heard()) == ([], [Ping(b"b")])
    talk, crew, server = spdy_exec()
    opened(talk, crew, server, "error", "stdin")
    server.heard()
    crew.heard()
    crew.raw(frames.render_ping(1))
    assert (crew.heard(), server.heard()) == ([frames.Ping(1)], [])


def test_what_was_not_asked_for_is_not_an_input() -> None:
    talk, crew, server = ws_exec(query=(("command", "ls"), ("stdout", "true")))
    crew.say(0, b"x")
    assert server.heard() == []
    assert talk.recorded("in") == b""


@pytest.mark.parametrize("channel", [1, 2, 3])
def test_a_client_says_nothing_on_what_it_hears(channel: int) -> None:
    _, crew, server = ws_exec()
    with pytest.raises(RemoteProtocolError):
        crew.say(channel, b"x")
    assert server.heard() == []


@pytest.mark.parametrize("channel", [0, 4])
def test_nor_a_server(channel: int) -> None:
    _, crew, server = ws_exec()
    with pytest.raises(RemoteProtocolError):
        server.say(channel, b"x")
    assert crew.heard() == []


def test_a_status_has_a_length() -> None:
    _, _, server = ws_exec()
    with pytest.raises(RemoteProtocolError):
        server.say(3, bytes(STATUS + 1))


# The end

def test_the_crew_goes() -> None:
    talk, _crew, server = ws_exec()
    talk.passage.ended(CLIENT)
    assert talk.results() == [(1, "cancelled", "")]
    assert talk.closed == "client closed"
    assert isinstance(server.heard()[-1], Close)
    talk.passage.ended(SERVER)                 # both may
    talk.passage.stop("late")
    talk.fire()
    assert len(talk.results()) == 1


def test_the_crew_goes_once_it_has_heard_all() -> None:
    talk, crew, server = ws_exec()
    server.say(3, SUCCESS)
    crew.raw(crew.socket.close(1000, ""))
    assert talk.results() == [(1, "ok", "exit 0")]


def test_the_server_is_lost() -> None:
    talk, crew, _ = ws_exec()
    talk.passage.ended(SERVER)
    assert talk.results() == [(1, "error", "")]
    assert talk.errors() == [b"the server did not say how it ended"]
    assert crew.heard() == [Close(1001, "")]


def test_an_operator_ends_it() -> None:
    talk, crew, server = ws_exec(query=TTY)
    crew.say(0, b"typed")
    talk.passage.stop("killed by ann")
    *_, status, close = crew.heard()
    assert isinstance(status, bytes)
    assert status[0] == 3
    assert close == Close(1000, "killed by ann")
    assert json.loads(status[1:])["message"] == "weir: killed by ann"
    assert talk.results() == [(1, "cancelled", "")]
    assert talk.errors() == [b"killed by ann"]
    assert talk.recorded("in") == b"*****"
    assert not talk.closed
    assert isinstance(server.heard()[-1], Close)


def test_a_protocol_error_is_told_as_well() -> None:
    talk, crew, server = ws_exec()
    with pytest.raises(RemoteProtocolError):
        crew.raw(b"\xff\xff\xff\xff")
    talk.passage.stop("protocol error")
    assert isinstance(crew.heard()[-1], Close)
    assert isinstance(server.heard()[-1], Close)


# A terminal

def test_sizes() -> None:
    talk, crew, server = ws_exec(query=TTY)
    crew.say(4, b'{"Width":80,"Hei')
    crew.say(4, b'ght":24}')
    crew.say(4, b'{"Height":1,"Width":1}{"Height":50,"Width":200}')      # what came with a later one was never seen
    assert server.heard() == [b'\x04{"Width":80,"Height":24}\n', b'\x04{"Width":200,"Height":50}\n']
    assert talk.recorded("size") == b"80x24200x50"


def test_a_recording_knows_a_terminal_whose_client_says_no_size() -> None:
    for say in (lambda crew, server: crew.say(0, b"l"), lambda crew, server: server.say(1, b"$ ")):
        talk, crew, server = ws_exec(query=TTY)
        say(crew, server)
        first = talk.events(events.Streamed)[0]
        assert (first.stream, talk.recorded("size")) == ("size", b"0x0")  # type: ignore[attr-defined]
        crew.say(4, b'{"Width":80,"Height":24}')
        assert talk.recorded("size") == b"0x080x24"
    talk, crew, server = ws_exec()
    server.say(1, b"x")
    assert talk.recorded("size") == b""


def test_what_is_typed_and_not_seen_is_stars() -> None:
    talk, crew, server = ws_exec(query=TTY)
    server.say(1, b"$ ")
    for key in b"su\r":
        crew.say(0, bytes((key,)))
        server.say(1, bytes((key,)) if key != 13 else b"\r\n")
    server.say(1, b"Password: ")
    crew.say(0, b"korrekt7Pferd\r")
    server.say(1, b"\r\n# ")
    talk.fire(3)
    server.say(3, SUCCESS)
    server.raw(server.socket.close(1000, ""))
    assert talk.recorded("in") == b"su\r*************\r"
    assert b"".join(server.heard()[:-1]).replace(b"\0", b"") == b"su\rkorrekt7Pferd\r"  # type: ignore[arg-type]
    assert talk.notes() == [("unseen",
        "operation 1: of what was typed, 13 bytes were not shown by its terminal and are "
                             "recorded as stars")]
    assert "korrekt" not in repr([one for one in talk.log if isinstance(one, words.Record)])


def test_without_a_terminal_a_password_to_sudo_is_stars() -> None:
    talk, crew, server = ws_exec(query=(("command", "sudo"), ("command", "-S"), ("command", "id"), ("stdin", "1")))
    crew.say(0, b"S3CRET\nmore")
    assert talk.recorded("in") == b"******\nmore"
    assert server.heard() == [b"\0S3CRET\nmore"]


@pytest.mark.parametrize(("said", "is_said"), [
    ("true", True), ("1", True), ("false", False), ("False", False), ("0", False), ("", True), ("yes", True)])
def test_a_boolean_as_servers_read_it(said: str, is_said: bool) -> None:
    assert wants((("tty", said), ("tty", "other")), "tty") is is_said
    assert not wants((), "tty")
    assert not wants((("tty", "FAL\u017fE"),), "tty")


# Masks

def test_masks_wherever_the_output_is_cut() -> None:
    (label,) = labels_of(("jwt",))
    for seed in range(20):
        cuts = random.Random(seed)
        talk, crew, server = ws_exec(detectors=("jwt",), masked=frozenset((label,)))
        text = b"token " + JWT + b" end\n"
        while text:
            size = cuts.randint(1, 40)
            server.say(1, text[:size])
            text = text[size:]
        server.say(3, SUCCESS)
        server.raw(server.socket.close(1000, ""))
        out = b"".join(one[1:] for one in crew.heard() if isinstance(one, bytes) and one[0] == 1)
        assert JWT[40:] not in out
        assert out.startswith(b"token ")
        assert out.endswith(b" end\n")
        assert talk.recorded("out") == out
        assert talk.notes() == [("masked", f"operation 1: {label}")]


def test_what_is_held_back_goes_after_a_moment() -> None:
    talk, crew, server = ws_exec(detectors=("jwt",), masked=frozenset(labels_of(("jwt",))))
    server.say(1, b"eyJhbGciOiJIUzI1NiI")
    assert crew.heard() == [b"\x01eyJ"]
    assert talk.timers
    talk.fire()
    assert b"".join(one[1:] for one in crew.heard()) == b"*" * 16        # type: ignore[index]


# SPDY

def opened(talk: Talk, crew: SpdyPeer, server: SpdyPeer, *kinds: str) -> dict[str, int]:
    found = {}
    for kind in kinds:
        number = crew.open(streamtype=kind)
        (syn,) = server.heard()
        assert isinstance(syn, SynStream)
        assert syn.headers == ((b"streamtype", kind.encode()),)
        assert crew.heard() == []              # not before the server has accepted it
        server.reply(syn.stream)
        assert crew.heard() == [SynReply(number, False)]
        found[kind] = number
    return found


@pytest.mark.parametrize("cut", [0, 1, 5])
def test_a_command_over_spdy(cut: int) -> None:
    talk, crew, server = spdy_exec(cut=cut)
    of = opened(talk, crew, server, "error", "stdin", "stdout", "stderr", "resize")
    crew.data(of["stdin"], b"ls\n")
    crew.data(of["resize"], b'{"Width":80,"Height":24}')
    crew.data(of["stdin"], b"", True)
    heard = [one for one in server.heard() if isinstance(one, Data)]
    assert b"".join(one.data for one in heard if one.stream == of["stdin"]) == b"ls\n"
    assert heard[-1].last
    server.data(of["stdout"], b"a\n")
    server.data(of["stderr"], b"b\n", True)
    server.data(of["stdout"], b"", True)
    server.data(of["error"], failure(7), True)
    server.raw(frames.render_goaway(0))
    said = [one for one in crew.heard() if isinstance(one, Data)]
    assert b"".join(one.data for one in said if one.stream == of["stdout"]) == b"a\n"
    assert b"".join(one.data for one in said if one.stream == of["error"]) == failure(7)
    assert {one.stream for one in said if one.last} == {of["stdout"], of["stderr"], of["error"]}
    assert (talk.recorded("in"), talk.recorded("out"), talk.recorded("err")) == (b"ls\n", b"a\n", b"b\n")
    assert talk.recorded("size") == b"80x24"
    assert talk.results() == [(1, "ok", "exit 7")]


def test_each_ping_is_answered_by_who_was_asked() -> None:
    _, crew, server = spdy_exec()
    crew.raw(frames.render_ping(1))
    assert server.heard() == [frames.Ping(1)]
    assert crew.heard() == []
    server.raw(frames.render_ping(1) + frames.render_ping(2))
    assert crew.heard() == [frames.Ping(1), frames.Ping(2)]
    crew.raw(frames.render_ping(2))
    assert server.heard() == [frames.Ping(2)]


def test_a_stream_that_is_reset() -> None:
    talk, crew, server = spdy_exec()
    of = opened(talk, crew, server, "error", "stdin")
    crew.reset(of["stdin"])
    assert server.heard() == [Reset(of["stdin"], frames.CANCEL)]
    crew.raw(frames.render_goaway(0))
    assert server.heard() == [GoAway(3)]
    assert talk.results() == [(1, "cancelled", "")]


def test_versions_without_a_status() -> None:
    talk, crew, server = spdy_exec(b"v3.channel.k8s.io")
    of = opened(talk, crew, server, "error", "stdout")
    server.data(of["error"], b"error executing command", True)
    talk.passage.ended(SERVER)
    assert talk.results() == [(1, "error", "")]
    assert talk.errors() == [b"error executing command"]
    talk, crew, server = spdy_exec(b"")
    of = opened(talk, crew, server, "error", "stdout")
    talk.passage.stop("killed")
    assert crew.heard() == [Data(of["error"], b"weir: killed", False), Data(of["error"], b"", True), GoAway(3)]


@pytest.mark.parametrize("headers", [
    {"streamtype": "other"}, {}, {"streamtype": "stdin\0stdout"}, {"type": "stdin"},
        {"streamtype": "data", "port": "80"}])
def test_streams_of_no_type(headers: dict[str, str]) -> None:
    _, crew, server = spdy_exec()
    with pytest.raises(RemoteProtocolError):
        crew.open(**headers)
    assert server.heard() == []


def test_streams_that_nobody_may_begin() -> None:
    for peer, number in ((CLIENT, 2), (SERVER, 2), (SERVER, 1)):
        _, *peers = spdy_exec()
        one = peers[peer]
        with pytest.raises(RemoteProtocolError):
            one.raw(one.framer.syn_stream(number, ((b"streamtype", b"stdin"),)))
    _, crew, _ = spdy_exec()
    crew.open(streamtype="stdin")
    with pytest.raises(RemoteProtocolError):
        crew.open(streamtype="stdin")
    _, crew, _ = spdy_exec()
    with pytest.raises(RemoteProtocolError):
        crew.data(5, b"x")


def test_garbage_is_a_protocol_error() -> None:
    for seed in range(300):
        source = random.Random(seed)
        talk, _crew, _server = (ws_exec, spdy_exec)[seed % 2]()
        try:
            for _ in range(5):
                talk.hear(source.randint(0, 1), source.randbytes(source.randint(1, 30)))
        except ProtocolError:
            talk.passage.stop("garbage")
        assert len(talk.results()) <= 1


def test_attach_is_the_same() -> None:
    talk = Talk(make_info("attach"), upgrade_head(b"v4.channel.k8s.io"), upgraded(b"v4.channel.k8s.io"), TTY)
    crew, server = WsPeer(talk, CLIENT), WsPeer(talk, SERVER)
    server.say(1, b"boot\n")
    assert crew.heard() == [b"\x01boot\n"]
    assert talk.recorded("out") == b"boot\n"
