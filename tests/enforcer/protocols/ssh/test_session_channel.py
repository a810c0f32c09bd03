"""A session's channel as a transcript.  "> " goes to the server, "< " to the crew."""
from __future__ import annotations

import itertools
import sys

import pytest
from pump import TableGate
from sshtalk import (
    PACKET,
    WINDOW,
    Talk,
    adjust,
    ask,
    close,
    data,
    env,
    eof,
    error,
    no,
    open_channel,
    opened,
    pty,
    refused,
    run,
    shape,
    status,
    string,
    u32,
    yes,
)

from enforcer.protocols.ssh.channels import session
from enforcer.protocols.ssh.messages import DATA, Fields
from enforcer.words import commands as words
from enforcer.words import events
from enforcer.words.commands import CLIENT, SERVER
from enforcer.words.decisions import DENY, HOLD, PERMIT
from enforcer.words.errors import RemoteProtocolError

EXEC = {("ssh:exec", "ls")}
CARD = b"seen\n4111 1111 11"


def started(talk: Talk, weir: int = 0) -> Talk:
    talk.crew(open_channel(number=7 + weir))
    talk.server(opened(weir, 70 + weir))
    return talk


# What goes

def test_a_command_from_beginning_to_end() -> None:
    talk = Talk()
    assert talk.crew(open_channel()) == ["> open session 0"]
    assert talk.server(opened(0)) == ["< opened 7 0"]
    assert talk.crew(run(0)) == ["> request 70 exec ?"]
    assert talk.server(yes(0)) == ["< yes 7"]
    assert talk.crew(data(0, b"in")) == ["> data 70 in"]
    assert talk.server(data(0, b"out"), error(0, b"err")) == ["< data 7 out", "< error 7 err"]
    assert talk.crew(eof(0)) == ["> eof 70"]
    assert talk.server(status(0, 3), eof(0), close(0)) == [
        "< request 7 exit-status", "< eof 7", "> close 70", "< close 7"]
    assert talk.crew(close(0)) == []
    assert talk.results() == [(1, "ok", "exit 3")]
    assert not talk.book.busy
    with pytest.raises(RemoteProtocolError):
        talk.crew(data(0, b"x"))


def test_everything_at_once() -> None:
    """As OpenSSH does: terminal, variables and command without waiting for answers; those come in order."""
    talk = started(Talk())
    assert talk.crew(pty(0), env(0, "LANG", "C"), run(0), data(0, b"x")) == [
        "> request 70 pty-req ?", "> request 70 env", "> request 70 exec ?", "> data 70 x"]
    assert talk.server(yes(0), yes(0)) == ["< yes 7", "< yes 7"]
    (intent,) = (one for one in talk.events(events.Intent))
    assert ("ssh:terminal", "app@t") in intent.requests  # type: ignore[attr-defined]
    assert talk.intents() == [("exec", PERMIT)]


def test_the_intent_stands_before_the_request_and_input_before_the_data() -> None:
    talk = started(Talk())
    talk.crew(run(0), data(0, b"secret"))
    kinds = [type(one.event).__name__ if isinstance(one, words.Record) else shape(one[1])
             for one in talk.log if isinstance(one, words.Record | tuple)]
    assert kinds[-4:] == ["Intent", "request 70 exec ?", "Streamed", "data 70 secret"]
    assert all(one.barrier for one in talk.log if isinstance(one, words.Record)
               and isinstance(one.event, events.Intent | events.Streamed))


@pytest.mark.parametrize(("name", "rest"), [
    ("window-change", u32(100, 40, 0, 0)), ("signal", string(b"INT")), ("break", u32(500)), ("eow@openssh.com", b""),
    ("keepalive@openssh.com", b""),
])
@pytest.mark.parametrize("reply", [True, False])
def test_what_passes_while_something_runs(name: str, rest: bytes, reply: bool) -> None:
    talk = Talk()
    talk.running()
    asked = " ?" if reply else ""
    assert talk.crew(ask(0, name, rest, reply)) == [f"> request 70 {name}{asked}"]
    if reply:
        assert talk.server(no(0)) == ["< no 7"]


def test_sizes_and_signals_are_on_record() -> None:
    talk = started(Talk())
    talk.crew(pty(0), run(0), ask(0, "window-change", u32(100, 40, 0, 0), False))
    talk.crew(ask(0, "signal", string(b"INT"), False))
    noted = [(one.stream, one.bytes) for one in talk.events(events.Streamed)]  # type: ignore[attr-defined]
    assert noted == [("size", 5), ("size", 6), ("signal", 3)]


@pytest.mark.parametrize("name", ["xon-xoff", "eow@openssh.com", "keepalive@openssh.com"])
def test_what_a_server_may_ask(name: str) -> None:
    talk = Talk()
    talk.running()
    assert talk.server(ask(0, name, b"", True)) == [f"< request 7 {name} ?"]
    assert talk.crew(no(0)) == ["> no 70"]


def test_what_ended_by_a_signal() -> None:
    talk = Talk()
    talk.running()
    rest = string(b"TERM") + b"\0" + string(b"") + string(b"")
    assert talk.server(ask(0, "exit-signal", rest, False)) == ["< request 7 exit-signal"]
    talk.server(close(0))
    assert talk.results() == [(1, "ok", "signal TERM")]


def test_unknown_requests_are_answered_by_weir_and_in_order() -> None:
    talk = Talk()
    talk.running()
    assert talk.crew(ask(0, "signal", string(b"INT")), ask(0, "what@example.com")) == ["> request 70 signal ?"]
    assert talk.server(yes(0)) == ["< yes 7", "< no 7"]
    assert talk.crew(ask(0, "what@example.com", b"", False)) == []
    assert talk.server(ask(0, "what@example.com")) == ["> no 70"]
    assert talk.server(ask(0, "what@example.com", b"", False)) == []


@pytest.mark.parametrize("name", ["exec", "shell", "subsystem", "pty-req", "env", "x11-req"])
def test_a_second_command_is_refused(name: str) -> None:
    talk = Talk()
    talk.running()
    assert talk.crew(ask(0, name, string(b"x"))) == ["< no 7"]


def test_the_server_refuses_the_command() -> None:
    talk = started(Talk())
    talk.crew(run(0))
    assert talk.server(no(0)) == ["< no 7"]
    assert talk.results() == [(1, "error", "")]
    assert talk.crew(run(0)) == ["> request 70 exec ?"]
    talk.server(yes(0), close(0))
    assert talk.results() == [(1, "error", ""), (2, "ok", "")]


def test_a_command_without_an_answer_wanted() -> None:
    talk = started(Talk())
    assert talk.crew(run(0, reply=False)) == ["> request 70 exec ?"]
    assert talk.server(yes(0)) == []
    assert talk.results() == []


# Opening and ends

def test_the_server_refuses_the_channel() -> None:
    talk = Talk()
    talk.crew(open_channel())
    assert talk.server(refused(0, 4, "full")) == ["< refused 7 4 full"]
    with pytest.raises(RemoteProtocolError):
        talk.server(opened(0))


def test_half_closed_goes_on() -> None:
    talk = Talk()
    talk.running()
    assert talk.crew(eof(0)) == ["> eof 70"]
    assert talk.server(data(0, b"late")) == ["< data 7 late"]
    with pytest.raises(RemoteProtocolError):
        talk.crew(data(0, b"x"))


def test_the_servers_end_first() -> None:
    talk = Talk()
    talk.running()
    assert talk.server(eof(0)) == ["< eof 7"]
    assert talk.crew(data(0, b"x"), eof(0)) == ["> data 70 x", "> eof 70"]
    with pytest.raises(RemoteProtocolError):
        talk.server(data(0, b"x"))


def test_the_crew_closes_while_it_runs() -> None:
    talk = Talk()
    talk.running()
    assert talk.crew(close(0)) == ["< close 7", "> close 70"]
    assert talk.results() == [(1, "cancelled", "")]
    assert talk.server(data(0, b"x"), status(0), eof(0), close(0)) == []
    with pytest.raises(RemoteProtocolError):
        talk.server(close(0))


def test_a_close_waits_for_what_the_crew_has_no_window_for() -> None:
    talk = Talk()
    talk.crew(open_channel(window=3))
    talk.server(opened(0))
    talk.crew(run(0))
    talk.server(yes(0))
    assert talk.server(data(0, b"abcdef"), status(0), eof(0), close(0)) == [
        "< data 7 abc", "< request 7 exit-status", "> close 70"]
    assert talk.crew(adjust(0, 3)) == ["< data 7 def", "< eof 7", "< close 7"]
    assert talk.crew(close(0)) == []


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
def test_closed_twice(peer: int) -> None:
    talk = Talk()
    talk.running()
    say = talk.crew if peer == CLIENT else talk.server
    say(close(0))
    for message in (close(0), eof(0), data(0, b"x"), ask(0, "keepalive@openssh.com")):
        with pytest.raises(RemoteProtocolError):
            say(message)


def test_nothing_is_answered_behind_a_close() -> None:
    """A request that crosses the close: whoever hears an answer on a channel that is gone ends the connection."""
    talk = Talk()
    talk.running()
    assert talk.server(close(0)) == ["> close 70", "< close 7"]
    assert talk.crew(ask(0, "signal", string(b"INT")), ask(0, "what@example.com"), close(0)) == []
    talk = Talk()
    talk.running()
    talk.crew(close(0))
    assert talk.server(ask(0, "keepalive@openssh.com"), ask(0, "what@example.com"), close(0)) == []


def test_a_client_sends_no_extended_data() -> None:
    talk = Talk()
    talk.running()
    with pytest.raises(RemoteProtocolError):
        talk.crew(error(0, b"x"))


@pytest.mark.parametrize("kind", [0, 2, 1 << 31])
def test_extended_data_of_no_known_type(kind: int) -> None:
    talk = Talk()
    talk.running()
    if kind:
        with pytest.raises(RemoteProtocolError):
            talk.server(error(0, b"x", kind))


def test_a_server_that_speaks_before_anything_runs() -> None:
    talk = started(Talk())
    with pytest.raises(RemoteProtocolError):
        talk.server(data(0, b"x"))


# Denied

def test_denied_says_why_before_the_failure() -> None:
    talk = started(Talk(TableGate(deny=EXEC)))
    heard = talk.crew(run(0))
    assert heard[0].startswith("< error 7 weir: permission denied: policy no forbids ssh:exec")
    assert heard[1:] == ["< request 7 keepalive@openssh.com ?"]
    assert talk.crew(no(0)) == ["< no 7"]
    assert talk.results() == [(1, "denied", "")]
    assert talk.intents() == [("exec", DENY)]
    assert talk.crew(close(0)) == ["< close 7", "> close 70"]
    assert talk.unasked() == []


def test_denied_and_the_client_does_not_answer() -> None:
    talk = started(Talk(TableGate(deny=EXEC)))
    talk.crew(run(0))
    assert talk.timers == {"channel 0": session.TOLD}
    assert talk.fire() == ["< no 7"]
    assert talk.crew(no(0)) == []          # late: to the question that it was an answer to
    assert talk.timers == {}


def test_denied_without_an_answer_wanted() -> None:
    talk = started(Talk(TableGate(deny=EXEC)))
    heard = talk.crew(run(0, reply=False))
    assert heard[1:] == ["< request 7 exit-status", "< close 7", "> close 70"]
    assert talk.server(close(0)) == []
    assert talk.crew(close(0)) == []


def test_what_comes_behind_a_denial_waits_for_it() -> None:
    """A tool that goes on in the same channel finds it in order."""
    talk = started(Talk(TableGate(deny=EXEC)))
    heard = talk.crew(run(0), ask(0, "what@example.com"), ask(0, "shell"))
    assert heard[1:] == ["< request 7 keepalive@openssh.com ?"]
    assert talk.crew(no(0)) == ["< no 7", "< no 7", "> request 70 shell ?"]
    assert talk.server(yes(0)) == ["< yes 7"]
    assert talk.intents() == [("exec", DENY), ("shell", PERMIT)]


def test_a_denied_variable_does_not_deny_the_command() -> None:
    talk = started(Talk(TableGate(deny={("ssh:env", "LD_PRELOAD")})))
    assert talk.crew(env(0, "LD_PRELOAD", "x", True), env(0, "LANG", "C"), run(0)) == [
        "< no 7", "> request 70 env", "> request 70 exec ?"]
    assert talk.intents() == [("env", DENY), ("exec", PERMIT)]


def test_a_denied_terminal() -> None:
    talk = started(Talk(TableGate(deny={("ssh:terminal", "app")})))
    assert talk.crew(pty(0), run(0)) == ["< no 7", "> request 70 exec ?"]


# Held

def test_held_and_approved() -> None:
    talk = started(Talk(TableGate(hold=EXEC)))
    assert talk.crew(run(0), data(0, b"in"), eof(0)) == []
    assert talk.book.held
    assert talk.answer("approved") == ["> request 70 exec ?", "> data 70 in", "> eof 70"]
    assert talk.server(yes(0)) == ["< yes 7"]
    assert talk.intents() == [("exec", HOLD), ("exec", PERMIT)]
    assert talk.results() == [(1, "ok", "approved by ann")]
    assert [one.held for one in talk.log if isinstance(one, words.UseHold)] == [1]
    assert talk.unasked() == []


def test_held_and_refused() -> None:
    talk = started(Talk(TableGate(hold=EXEC)))
    talk.crew(run(0), data(0, b"in"))
    heard = talk.answer("denied", reason="not today")
    assert heard == ["< error 7 weir: permission denied by ann: not today (ticket T-1)\r\n",
                     "< request 7 keepalive@openssh.com ?"]
    assert talk.crew(no(0)) == ["< no 7"]
    assert [one for one in talk.log if isinstance(one, tuple) and one[0] == SERVER and one[1][0] == DATA] == []


def test_who_is_held_is_told() -> None:
    talk = started(Talk(TableGate(hold=EXEC)))
    talk.crew(run(0))
    from enforcer.words import inputs

    talk.book.opened(inputs.HoldOpened(1, "T-1", "two people"))
    (line,) = talk.heard()
    assert line.startswith("< error 7 weir: held for approval: ticket T-1: two people")


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_held_on_several_channels_and_answered_in_any_order(order: tuple[int, ...]) -> None:
    talk = Talk(TableGate(hold=EXEC))
    for weir in range(3):
        started(talk, weir).crew(run(weir))
    for weir in order:
        assert talk.answer("approved", weir + 1) == [f"> request 7{weir} exec ?"]
        assert talk.server(yes(weir)) == [f"< yes {7 + weir}"]
    assert not talk.book.held


def test_closed_while_held_withdraws() -> None:
    talk = started(Talk(TableGate(hold=EXEC)))
    talk.crew(run(0), data(0, b"x"))
    assert talk.crew(close(0)) == ["< close 7", "> close 70"]
    assert [one.operation for one in talk.log if isinstance(one, words.CancelHold)] == [1]
    assert talk.results() == [(1, "cancelled", "")]
    assert talk.server(close(0)) == []
    assert not talk.book.held


def test_the_server_closes_while_held() -> None:
    talk = started(Talk(TableGate(hold=EXEC)))
    talk.crew(run(0))
    assert talk.server(close(0)) == ["> close 70", "< close 7"]
    assert not talk.book.held
    assert talk.crew(close(0)) == []
    assert talk.unasked() == []


def test_what_waits_behind_a_hold_keeps_its_order() -> None:
    talk = started(Talk(TableGate(hold=EXEC)))
    assert talk.crew(run(0), ask(0, "window-change", u32(1, 2, 3, 4), False), ask(0, "what@example.com")) == []
    assert talk.answer() == ["> request 70 exec ?", "> request 70 window-change"]
    assert talk.server(yes(0)) == ["< yes 7", "< no 7"]


def test_data_behind_a_held_agent_reaches_the_command() -> None:
    talk = started(Talk(TableGate(hold={("ssh:agent", "app")})))
    assert talk.crew(ask(0, "auth-agent-req@openssh.com"), run(0), data(0, b"in"), eof(0)) == []
    assert talk.answer() == [
        "> request 70 auth-agent-req@openssh.com ?", "> request 70 exec ?", "> data 70 in", "> eof 70"]
    assert talk.unasked() == []


def test_a_held_terminal_holds_the_command() -> None:
    talk = started(Talk(TableGate(hold={("ssh:terminal", "app")})))
    talk.crew(pty(0), run(0))
    assert talk.intents() == [("exec", HOLD)]
    assert talk.answer() == ["> request 70 exec ?"]


# Bounds

def test_requests_behind_a_hold_are_bounded() -> None:
    talk = started(Talk(TableGate(hold=EXEC)))
    talk.crew(run(0))
    with pytest.raises(RemoteProtocolError):
        for _ in range(10_000):
            talk.crew(ask(0, "keepalive@openssh.com", b"", False))


def test_data_behind_a_hold_is_bounded() -> None:
    """By the window: and empty messages take nothing."""
    talk = started(Talk(TableGate(hold=EXEC)))
    talk.crew(run(0))
    for _ in range(10_000):
        talk.crew(data(0, b""))
    with pytest.raises(RemoteProtocolError):
        for _ in range(WINDOW // PACKET + 1):
            assert talk.crew(data(0, b"x" * PACKET)) == []
    channel = talk.mux._channels[0]
    assert isinstance(channel, session.SessionChannel)
    assert len(channel._kept) <= WINDOW


def test_tiny_data_behind_a_hold_takes_no_more_than_its_window() -> None:
    talk = started(Talk(TableGate(hold=EXEC)))
    talk.crew(run(0))
    for _ in range(20_000):
        talk.crew(data(0, b"x"))
    channel = talk.mux._channels[0]
    assert isinstance(channel, session.SessionChannel)
    assert sys.getsizeof(channel._kept) < 40_000
    heard = talk.answer()
    assert sum(len(one) - len("> data 70 ") for one in heard[1:]) == 20_000


def test_answers_that_the_server_never_gives_are_bounded() -> None:
    talk = Talk()
    talk.running()
    with pytest.raises(RemoteProtocolError):
        for _ in range(10_000):
            talk.crew(ask(0, "keepalive@openssh.com"))


def test_terminals_asked_for_again_and_again_while_that_is_held() -> None:
    talk = started(Talk(TableGate(hold={("ssh:terminal", "app")})))
    for _ in range(1000):
        talk.crew(pty(0, False))
    channel = talk.mux._channels[0]
    assert isinstance(channel, session.SessionChannel)
    assert len(channel._carried) == 1


def test_a_reader_without_a_window_bounds_what_is_kept() -> None:
    """The server may send until its window is used up, and gets none back."""
    talk = Talk()
    talk.crew(open_channel(window=0))
    talk.server(opened(0))
    talk.crew(run(0))
    talk.server(yes(0))
    sent = 0
    with pytest.raises(RemoteProtocolError):
        for _ in range(1000):
            assert talk.server(data(0, b"x" * PACKET)) in ([], ["> adjust 70 65536"], ["> adjust 70 131072"])
            sent += PACKET
    assert talk.mux._channels[0].crew.queued == sent <= WINDOW + (512 << 10)


def test_windows_come_back_as_the_other_side_reads() -> None:
    talk = Talk()
    talk.crew(open_channel(window=WINDOW))
    talk.server(opened(0))
    talk.crew(run(0))
    talk.server(yes(0))
    granted, heard = WINDOW, 0
    for _ in range(500):
        for line in talk.server(data(0, b"x" * PACKET)):
            if line.startswith("> adjust 70"):
                granted += int(line.split()[-1])
            elif line.startswith("< data"):
                heard += len(line) - len("< data 7 ")
        if heard > WINDOW // 2:
            talk.crew(adjust(0, heard))
            heard = 0
    assert granted >= 500 * PACKET


def test_many_variables() -> None:
    talk = started(Talk())
    for index in range(200):
        talk.crew(env(0, f"V{index}", "x"))
    sent = [one for one in talk.log if isinstance(one, tuple) and one[0] == SERVER and b"env" in one[1]]
    assert len(sent) == session.VARIABLES


def test_a_command_that_is_too_long() -> None:
    talk = started(Talk())
    with pytest.raises(RemoteProtocolError):
        talk.crew(run(0, "x" * (session.LONGEST + 1)))


@pytest.mark.parametrize("name", ["exec", "subsystem", "pty-req", "env", "window-change", "signal"])
def test_requests_that_lack_their_fields(name: str) -> None:
    for rest in (b"", b"\0", b"\0\0\0\x09x", b"\xff\xff\xff\xff"):
        talk = started(Talk())
        with pytest.raises(RemoteProtocolError):
            talk.crew(ask(0, name, rest))
        assert talk.unasked() == []


def test_variables_have_an_end() -> None:
    talk = started(Talk())
    for index in range(50):
        talk.crew(env(0, f"V{index}", "x" * 30_000))
    channel = talk.mux._channels[0]
    assert isinstance(channel, session.SessionChannel)
    assert sum(map(len, channel._variables)) <= session.VALUES


def test_long_requests_behind_a_hold_are_bounded() -> None:
    talk = started(Talk(TableGate(hold=EXEC)))
    talk.crew(run(0))
    with pytest.raises(RemoteProtocolError):
        for _ in range(10):
            talk.crew(ask(0, "signal", bytes(200_000), False))


def test_who_reads_nothing_is_not_told_without_end() -> None:
    talk = Talk(TableGate(deny={("ssh:agent", "app")}))
    talk.crew(open_channel(window=0))
    talk.server(opened(0))
    for _ in range(3000):
        talk.crew(ask(0, "auth-agent-req@openssh.com", b"", False))
    assert talk.mux._channels[0].crew.queued < session.UNREAD + 1000


def test_the_end_of_the_session_kills_what_runs() -> None:
    talk = Talk()
    talk.running()
    talk.mux.kill()
    assert talk.heard() == ["> request 70 signal"]
    (sent,) = [one[1] for one in talk.log[-1:] if isinstance(one, tuple)]
    assert Fields(sent[5:]).string() == b"signal"


# The connection is lost

def test_what_passed_until_then_is_told_by_its_size_and_hash() -> None:
    talk = Talk(payload_limit=4)
    talk.running()
    talk.crew(data(0, b"0123456789"))
    talk.server(data(0, b"a" * 100))
    talk.mux.lost()
    talk.book.closed("client closed")
    ended = {one.stream: (one.bytes, one.kept) for one in talk.events(events.StreamEnded)}
    assert ended == {"in": (10, 4), "out": (100, 4)}
    kinds = [type(one.event) for one in talk.log if isinstance(one, words.Record)]
    assert kinds[-4:] == [events.StreamEnded, events.StreamEnded, events.Gap, events.SessionClosed]
    assert talk.heard() == []


def test_what_was_typed_last_is_told_as_far_as_it_was_seen() -> None:
    talk = started(Talk())
    talk.crew(pty(0), ask(0, "shell"))
    talk.server(yes(0), yes(0))
    talk.crew(data(0, b"ls"))
    talk.server(data(0, b"ls"))
    talk.crew(data(0, b"rm x"))
    talk.mux.lost()
    talk.book.closed("client closed")
    shown = b"".join(one.blobs[0][2] for one in talk.log if isinstance(one, words.Record) and one.blobs
                     and isinstance(one.event, events.Streamed) and one.event.stream == "in")
    assert shown == b"ls****"
    (ended,) = [one for one in talk.events(events.StreamEnded) if one.stream == "in"]
    assert (ended.bytes, ended.kept) == (6, 6)
    assert [(one.name, one.value) for one in talk.events(events.SessionNoted)] == [
        ("unseen", "operation 1: of what was typed, 4 bytes were not shown by its terminal and are recorded as stars")]


def test_what_was_held_back_for_a_mask_is_not_said_to_be_delivered() -> None:
    talk = Talk(detectors=("card-number",))
    talk.running()
    talk.server(data(0, CARD))
    said = sum(len(one[1]) - 9 for one in talk.log if isinstance(one, tuple) and one[0] == CLIENT and one[1][0] == DATA)
    talk.mux.lost()
    talk.book.closed("client closed")
    assert sum(one.bytes for one in talk.events(events.StreamEnded) if one.stream == "out") == said < len(CARD)
