"""Forwards, agents and X11: what each asks, what the server may open, and what it may not."""
from __future__ import annotations

import pytest
from pump import TableGate
from sshtalk import (
    NO,
    PACKET,
    WINDOW,
    YES,
    Talk,
    adjust,
    ask,
    ask_all,
    close,
    data,
    direct,
    eof,
    error,
    forward,
    forwarded,
    no,
    open_channel,
    opened,
    refused,
    string,
    u32,
    yes,
)

from enforcer.words import commands as words
from enforcer.words import events, inputs
from enforcer.words.commands import SERVER
from enforcer.words.decisions import DENY, HOLD, PERMIT
from enforcer.words.errors import RemoteProtocolError

DENIED = "weir: permission denied: policy no forbids"


def streamlocal(path: str, number: int = 7) -> bytes:
    return open_channel("direct-streamlocal@openssh.com", number, rest=string(path.encode()) + string(b"") + u32(0))


def streamed(path: str, number: int = 70) -> bytes:
    return open_channel("forwarded-streamlocal@openssh.com", number, rest=string(path.encode()) + string(b""))


# What a crew opens

def test_a_connection_through_the_server() -> None:
    talk = Talk()
    assert talk.crew(direct("db", 5432)) == ["> open direct-tcpip 0"]
    assert talk.server(opened(0)) == ["< opened 7 0"]
    assert talk.server(data(0, b"a")) == ["< data 7 a"]
    assert talk.crew(data(0, b"q")) == []               # it may begin something that has no business there
    assert talk.fire() == ["> data 70 q"]
    assert talk.server(eof(0)) == ["< eof 7"]
    assert talk.crew(eof(0), close(0)) == ["> eof 70", "< close 7", "> close 70"]
    assert talk.server(close(0)) == []
    assert talk.results() == [(1, "ok", "")]
    ended = {(one.stream, one.bytes, one.kept) for one in talk.events(events.StreamEnded)}  # type: ignore[attr-defined]
    assert ended == {("in", 1, 0), ("out", 1, 0)}
    assert talk.unasked() == []


def test_the_rest_of_an_open_goes_as_it_came() -> None:
    talk = Talk()
    asked = direct("db", 5432)
    talk.crew(asked)
    (sent,) = [one[1] for one in talk.log if isinstance(one, tuple)]
    assert sent.endswith(asked[-len(string(b"db") + u32(5432) + string(b"::1") + u32(4)):])


@pytest.mark.parametrize(("message", "denied"), [
    (direct("db", 5432), ("ssh:forward-local", "db 5432")),
    (direct("", 1), ("ssh:forward-local", "* 1")),
    (streamlocal("/run/x"), ("ssh:forward-stream", "/run/x")),
    (open_channel("tun@openssh.com", rest=u32(1, 0)), ("ssh:tun", "app")),
])
def test_denied(message: bytes, denied: tuple[str, str]) -> None:
    talk = Talk(TableGate(deny={denied}))
    (heard,) = talk.crew(message)
    assert heard.startswith(f"< refused 7 1 {DENIED} {denied[0]}")
    assert talk.intents()[0][1] == DENY
    assert talk.results() == [(1, "denied", "")]
    with pytest.raises(RemoteProtocolError):
        talk.crew(data(0, b"x"))


def test_held_connections_are_answered_in_any_order() -> None:
    talk = Talk(TableGate(hold={("ssh:forward-local", "a 1"), ("ssh:forward-local", "b 2")}))
    assert talk.crew(direct("a", 1, 7), direct("b", 2, 8), direct("c", 3, 9)) == ["> open direct-tcpip 2"]
    assert talk.answer("approved", 2) == ["> open direct-tcpip 1"]
    assert talk.answer("expired", 1) == [
        "< refused 7 1 weir: permission denied: nobody approved it in time (ticket T-1)"]
    assert talk.server(opened(1, 71), opened(2, 72)) == ["< opened 8 1", "< opened 9 2"]
    assert talk.intents() == [("forward-local", HOLD), ("forward-local", HOLD), ("forward-local", PERMIT),
                              ("forward-local", PERMIT)]


def test_an_answer_for_a_channel_that_was_not_asked_for_yet() -> None:
    talk = Talk(TableGate(hold={("ssh:forward-local", "a 1")}))
    talk.crew(direct("a", 1))
    for message in (opened(0), refused(0), data(0, b"x"), close(0)):
        with pytest.raises(RemoteProtocolError):
            talk.server(message)


def test_the_server_cannot_reach_it() -> None:
    talk = Talk()
    talk.crew(direct())
    assert talk.server(refused(0, 2, "Connection refused")) == ["< refused 7 2 Connection refused"]
    assert talk.results() == [(1, "error", "")]


def test_extended_data_in_a_tunnel_is_data() -> None:
    """It has no place there (RFC 4254 7.2)."""
    talk = Talk()
    talk.crew(direct())
    talk.server(opened(0))
    assert talk.server(error(0, b"x")) == ["< data 7 x"]


def test_a_registered_target_is_the_edges() -> None:
    talk = Talk()
    talk.registered = {"db"}
    assert talk.crew(direct("db", 5432)) == ["< opened 7 0"]
    assert talk.crew(data(0, b"hello"), eof(0)) == []
    sent = [one for one in talk.log if isinstance(one, words.SendThrough | words.EndThrough)]
    assert sent == [words.SendThrough(0, 0, b"hello"), words.EndThrough(0, 0)]
    talk.mux.carried(inputs.ThroughData(0, 0, b"answer"))
    talk.mux.carried(inputs.ThroughEnded(0, 0))
    assert talk.heard() == ["< data 7 answer", "< eof 7", "< close 7"]
    talk.crew(close(0))
    talk.mux.carried(inputs.ThroughClosed(0, "done"))
    assert talk.results() == [(1, "ok", "")]
    assert not talk.mux._channels
    assert not talk.mux._directs


def test_the_server_has_no_part_in_what_is_the_edges() -> None:
    for message in (data(0, b"x"), eof(0), close(0), ask(0, "what"), opened(0), refused(0), yes(0)):
        talk = Talk()
        talk.registered = {"db"}
        talk.crew(direct("db", 5432))
        with pytest.raises(RemoteProtocolError):
            talk.server(message)
        assert not [one for one in talk.log if isinstance(one, tuple) and one[0] == SERVER]


def test_a_registered_target_that_is_not_read_keeps_nobody_waiting_without_end() -> None:
    talk = Talk()
    talk.registered = {"db"}
    talk.crew(direct("db", 5432, window=0))
    for _ in range(100):
        talk.mux.carried(inputs.ThroughData(0, 0, b"x" * PACKET))
        if [one for one in talk.log if isinstance(one, words.PauseThrough)]:
            break
    assert talk.mux._channels[0].crew.queued < 1 << 20
    talk.crew(adjust(0, WINDOW))
    assert [one for one in talk.log if isinstance(one, words.ResumeThrough)]


def test_requests_in_a_tunnel_are_nobodys() -> None:
    talk = Talk()
    talk.crew(direct())
    talk.server(opened(0))
    assert talk.crew(ask(0, "exec", string(b"ls"))) == ["< no 7"]
    assert talk.server(ask(0, "exit-status", u32(0))) == ["> no 70"]
    assert talk.unasked() == []


def test_a_tunnel_to_nobody_who_reads_is_bounded() -> None:
    talk = Talk()
    talk.crew(direct())
    talk.server(opened(0, window=0))
    with pytest.raises(RemoteProtocolError):
        for _ in range(1000):
            talk.crew(data(0, b"x" * PACKET))
    assert talk.mux._channels[0].server.queued <= WINDOW + PACKET


def test_a_tunnel_goes_on_as_its_reader_does() -> None:
    talk = Talk()
    talk.crew(direct())
    talk.server(opened(0, window=PACKET))
    granted = WINDOW
    for _ in range(300):
        for line in (*talk.crew(data(0, b"x" * PACKET)), *talk.server(adjust(0, PACKET))):
            granted += int(line.split()[-1]) if line.startswith("< adjust") else 0
    assert granted >= 300 * PACKET


# Remote forwards

def test_a_remote_forward_and_its_connections() -> None:
    talk = Talk()
    assert talk.crew(forward("localhost", 8080)) == ["> global tcpip-forward ?"]
    assert talk.server(YES) == ["< yes"]
    assert talk.server(forwarded("localhost", 8080)) == ["< open forwarded-tcpip 0"]
    assert talk.crew(opened(0, 7)) == ["> opened 70 0"]
    assert talk.server(data(0, b"in")) == ["< data 7 in"]
    assert talk.crew(data(0, b"out"), close(0)) == ["> data 70 out", "< close 7", "> close 70"]
    assert talk.intents() == [("forward-remote", PERMIT), ("forwarded", PERMIT)]
    assert talk.results() == [(1, "ok", ""), (2, "ok", "")]


def test_the_crew_refuses_a_connection() -> None:
    talk = Talk()
    talk.crew(forward("", 1))
    talk.server(YES)
    talk.server(forwarded("", 1))
    assert talk.crew(refused(0, 2, "no")) == ["> refused 70 2 no"]
    assert talk.results()[-1] == (2, "error", "")


def test_a_port_of_the_servers_choice() -> None:
    talk = Talk()
    talk.crew(forward("", 0))
    (heard,) = [one for one in [talk.server(YES + u32(40000))]]
    assert heard == ["< yes"]
    (sent,) = [one[1] for one in talk.log[-1:] if isinstance(one, tuple)]
    assert sent == YES + u32(40000)
    assert talk.server(forwarded("", 40000)) == ["< open forwarded-tcpip 0"]
    assert talk.server(forwarded("", 0)) == ["> refused 70 1 nobody asked for that"]


def test_a_port_that_the_server_does_not_name() -> None:
    talk = Talk()
    talk.crew(forward("", 0))
    with pytest.raises(RemoteProtocolError):
        talk.server(YES)


def test_nothing_that_nobody_asked_for() -> None:
    talk = Talk()
    for message in (forwarded("localhost", 8080), streamed("/x"), open_channel("x11", 70, rest=string(b"h") + u32(1)),
                    open_channel("auth-agent@openssh.com", 70)):
        assert talk.server(message) == ["> refused 70 1 nobody asked for that"]
    assert talk.crew() == []


def test_another_address_or_port_than_was_asked_for() -> None:
    talk = Talk()
    talk.crew(forward("localhost", 8080))
    talk.server(YES)
    assert talk.server(forwarded("localhost", 8081), forwarded("", 8080)) == [
        "> refused 70 1 nobody asked for that"] * 2


def test_a_forward_that_the_server_refuses_expects_nothing() -> None:
    talk = Talk()
    talk.crew(forward("localhost", 8080))
    assert talk.server(NO) == ["< no"]
    assert talk.server(forwarded("localhost", 8080)) == ["> refused 70 1 nobody asked for that"]
    assert talk.results() == [(1, "error", "")]


@pytest.mark.parametrize("reply", [True, False])
def test_a_denied_forward(reply: bool) -> None:
    talk = Talk(TableGate(deny={("ssh:forward-remote", "localhost 8080")}))
    assert talk.crew(forward("localhost", 8080, reply=reply)) == (["< no"] if reply else [])
    assert talk.intents() == [("forward-remote", DENY)]
    assert talk.server(forwarded("localhost", 8080)) == ["> refused 70 1 nobody asked for that"]


def test_a_forward_without_an_answer_wanted() -> None:
    talk = Talk()
    assert talk.crew(forward("h", 1, reply=False)) == ["> global tcpip-forward ?"]
    assert talk.server(YES) == []
    assert talk.server(forwarded("h", 1)) == ["< open forwarded-tcpip 0"]


def test_a_forward_is_taken_back() -> None:
    talk = Talk()
    talk.crew(forward("h", 1))
    talk.server(YES)
    assert talk.crew(forward("h", 1, "cancel-tcpip-forward")) == ["> global cancel-tcpip-forward ?"]
    assert talk.server(forwarded("h", 1)) == ["> refused 70 1 nobody asked for that"]
    assert talk.server(YES) == ["< yes"]
    assert talk.intents() == [("forward-remote", PERMIT), ("forward-end", PERMIT)]
    assert talk.results() == [(1, "ok", ""), (2, "ok", "")]


def test_what_was_never_forwarded_is_not_taken_back_on_record() -> None:
    talk = Talk()
    assert talk.crew(forward("h", 1, "cancel-tcpip-forward")) == ["> global cancel-tcpip-forward ?"]
    assert talk.server(NO) == ["< no"]
    assert talk.intents() == []


def test_a_held_forward_keeps_the_order_of_answers() -> None:
    talk = Talk(TableGate(hold={("ssh:forward-remote", "h 1")}))
    assert talk.crew(forward("h", 1), ask_all("what@example.com"), forward("h", 2)) == ["> global tcpip-forward ?"]
    assert talk.server(YES) == []
    assert talk.answer("approved") == ["> global tcpip-forward ?"]
    assert talk.server(NO) == ["< no", "< no", "< yes"]
    assert talk.unasked() == []


def test_held_forwards_are_bounded() -> None:
    """Who wants no answer could ask people any number of questions."""
    talk = Talk(TableGate(hold={("ssh:forward-remote", "h 1")}))
    for _ in range(2000):
        talk.crew(forward("h", 1, reply=False))
    assert len(talk.holds) <= 64
    assert len(talk.book._held) == len(talk.holds)


def test_forwards_of_a_server_that_does_not_answer_are_bounded() -> None:
    talk = Talk()
    with pytest.raises(RemoteProtocolError):
        for port in range(10_000):
            talk.crew(forward("h", port, reply=False))


def test_many_forwards() -> None:
    talk = Talk()
    refused = 0
    for port in range(1, 1000):
        talk.crew(forward("h", port))
        heard = talk.server(YES) if talk.mux._awaited[SERVER]._then else talk.heard()
        refused += heard != ["< yes"]
    assert refused
    assert talk.server(forwarded("h", 1)) == ["< open forwarded-tcpip 0"]


def test_sockets_of_the_server() -> None:
    talk = Talk()
    assert talk.crew(streamlocal("/run/x")) == ["> open direct-streamlocal@openssh.com 0"]
    talk.server(refused(0))
    asked = ask_all("streamlocal-forward@openssh.com", string(b"/run/y"))
    assert talk.crew(asked) == ["> global streamlocal-forward@openssh.com ?"]
    assert talk.server(YES, streamed("/run/y"), streamed("/run/z", 71)) == [
        "< yes", "< open forwarded-streamlocal@openssh.com 1", "> refused 71 1 nobody asked for that"]
    assert talk.crew(ask_all("cancel-streamlocal-forward@openssh.com", string(b"/run/y"))) == [
        "> global cancel-streamlocal-forward@openssh.com ?"]
    assert talk.server(streamed("/run/y", 72)) == ["> refused 72 1 nobody asked for that"]


# Agents and X11

@pytest.mark.parametrize(("name", "rest", "action", "kind"), [
    ("auth-agent-req@openssh.com", b"", "ssh:agent", "auth-agent@openssh.com"),
    ("x11-req", b"\0" + string(b"MIT") + string(b"00") + u32(0), "ssh:x11", "x11"),
])
def test_agents_and_displays_only_after_permit(name: str, rest: bytes, action: str, kind: str) -> None:
    theirs = open_channel(kind, 90, rest=string(b"h") + u32(1) if kind == "x11" else b"")
    talk = Talk(TableGate(deny={(action, "app")}))
    talk.crew(open_channel())
    talk.server(opened(0))
    heard = talk.crew(ask(0, name, rest))
    assert heard[0].startswith(f"< error 7 {DENIED} {action}")
    assert heard[1:] == ["< no 7"]
    assert talk.server(theirs) == ["> refused 90 1 nobody asked for that"]
    talk = Talk()
    talk.crew(open_channel())
    talk.server(opened(0))
    assert talk.crew(ask(0, name, rest)) == [f"> request 70 {name} ?"]
    assert talk.server(yes(0)) == ["< yes 7"]
    assert talk.server(theirs) == [f"< open {kind} 1"]
    assert talk.crew(opened(1, 8)) == ["> opened 90 1"]
    assert talk.unasked() == []


def test_an_agent_that_is_approved_after_its_channel_was_closed() -> None:
    talk = Talk(TableGate(hold={("ssh:agent", "app")}))
    talk.crew(open_channel())
    talk.server(opened(0))
    talk.crew(ask(0, "auth-agent-req@openssh.com"))
    channel = talk.mux._channels[0]
    channel.close(0)                   # the edge has the answer already, and tells it before the withdrawal
    talk.heard()
    assert talk.answer("approved") == []
    assert talk.server(open_channel("auth-agent@openssh.com", 90)) == ["> refused 90 1 nobody asked for that"]


def test_an_agent_that_the_server_refuses() -> None:
    talk = Talk()
    talk.crew(open_channel())
    talk.server(opened(0))
    talk.crew(ask(0, "auth-agent-req@openssh.com"))
    assert talk.server(no(0)) == ["< no 7"]


@pytest.mark.parametrize("message", [
    open_channel("direct-tcpip"), open_channel("direct-tcpip", rest=string(b"h")),
    open_channel("direct-streamlocal@openssh.com", rest=u32(9)), ask_all("tcpip-forward"),
    ask_all("tcpip-forward", u32(1 << 30)), ask_all("streamlocal-forward@openssh.com"),
    ask_all("cancel-tcpip-forward", string(b"h")), ask_all("tcpip-forward", string(b"h") + u32(1) + b"x"),
    ask_all("streamlocal-forward@openssh.com", string(b"/x") + b"x"), open_channel("direct-tcpip", rest=bytes(20_000)),
])
def test_fields_that_are_missing_or_too_many(message: bytes) -> None:
    talk = Talk()
    with pytest.raises(RemoteProtocolError):
        talk.crew(message)
    assert not talk.events(events.Intent)
    assert not [one for one in talk.log if isinstance(one, tuple) and one[0] == SERVER]
    assert not [one for one in talk.log if isinstance(one, words.Hold)]
