"""The connection protocol: global requests in order, channels that may and may not be, floods, and anything at all."""
from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
    env,
    eof,
    error,
    forward,
    forwarded,
    no,
    open_channel,
    opened,
    pty,
    refused,
    run,
    status,
    u32,
    yes,
)

from enforcer.protocols.ssh import mux
from enforcer.protocols.ssh.channels import replies
from enforcer.words import events, inputs
from enforcer.words.errors import RemoteProtocolError

# Global requests

def test_a_keepalive_goes_to_the_other_side_and_back() -> None:
    talk = Talk()
    assert talk.crew(ask_all("keepalive@openssh.com")) == ["> global keepalive@openssh.com ?"]
    assert talk.server(NO) == ["< no"]
    assert talk.server(ask_all("keepalive@openssh.com")) == ["< global keepalive@openssh.com ?"]
    assert talk.crew(NO) == ["> no"]
    assert talk.crew(ask_all("keepalive@openssh.com", reply=False)) == ["> global keepalive@openssh.com"]


def test_unknown_requests_are_refused_in_their_order() -> None:
    talk = Talk()
    assert talk.crew(ask_all("keepalive@openssh.com"), ask_all("what@example.com")) == [
        "> global keepalive@openssh.com ?"]
    assert talk.server(YES) == ["< yes", "< no"]
    assert talk.crew(ask_all("what@example.com", reply=False)) == []
    assert talk.server(ask_all("what@example.com")) == ["> no"]
    assert talk.crew(ask_all("hostkeys-prove-00@openssh.com")) == ["< no"]


def test_the_servers_other_host_keys_are_its_own() -> None:
    assert Talk().server(ask_all("hostkeys-00@openssh.com", b"keys", False)) == []
    assert Talk().server(ask_all("hostkeys-00@openssh.com", b"keys", True)) == ["> no"]


def test_no_more_sessions() -> None:
    talk = Talk()
    talk.running()
    assert talk.crew(ask_all("no-more-sessions@openssh.com", reply=False)) == [
        "> global no-more-sessions@openssh.com"]
    assert talk.crew(open_channel(number=8)) == ["< refused 8 1 weir: no more sessions were wanted"]
    assert talk.crew(direct(number=9)) == ["> open direct-tcpip 1"]


@pytest.mark.parametrize("message", [YES, NO])
def test_answers_to_nothing(message: bytes) -> None:
    for say in (Talk().crew, Talk().server):
        with pytest.raises(RemoteProtocolError):
            say(message)


def test_questions_without_answers_are_bounded() -> None:
    for say in (Talk().crew, Talk().server):
        with pytest.raises(RemoteProtocolError):
            for _ in range(replies.MOST + 1):
                say(ask_all("keepalive@openssh.com"))


# Channels

@pytest.mark.parametrize("kind", ["what@example.com", "forwarded-tcpip", "x11", "auth-agent@openssh.com", ""])
def test_channels_that_a_crew_does_not_open(kind: str) -> None:
    (heard,) = Talk().crew(open_channel(kind))
    assert heard.startswith("< refused 7 3 weir: channels of type")


@pytest.mark.parametrize("kind", ["session", "direct-tcpip", "tun@openssh.com", "what@example.com"])
def test_channels_that_a_server_does_not_open(kind: str) -> None:
    (heard,) = Talk().server(open_channel(kind, 70))
    assert heard.startswith("> refused 70 3 weir: channels of type")


def test_a_flood_of_channels() -> None:
    talk = Talk()
    heard = talk.crew(*(open_channel(number=index) for index in range(mux.MOST + 10)))
    assert heard[:mux.MOST] == [f"> open session {index}" for index in range(mux.MOST)]
    assert all(line.split()[3] == "4" for line in heard[mux.MOST:])
    assert talk.server(forwarded("h", 1))[0].startswith("> refused 70 4")
    assert talk.server(refused(3)) == ["< refused 3 2 no"]
    assert talk.crew(open_channel(number=5000)) == [f"> open session {mux.MOST}"]


def test_many_channels_have_small_windows() -> None:
    talk = Talk()
    for index in range(100):
        talk.crew(open_channel(number=index))
    granted = sum(half.granted for channel in talk.mux._channels.values() for half in channel.halves)
    assert granted < 64 << 20


def test_numbers_of_a_crew_may_be_used_again() -> None:
    talk = Talk()
    for weir in range(3):
        talk.crew(open_channel(number=7))
        talk.server(opened(weir, 70))
        talk.crew(run(weir))
        assert talk.server(yes(weir), close(weir))[-1] == "< close 7"
        talk.crew(close(weir))
    assert not talk.mux._channels


def test_a_number_that_is_used_twice_at_a_time_is_the_crews_trouble() -> None:
    talk = Talk()
    talk.crew(open_channel(number=7), open_channel(number=7))
    assert talk.server(opened(0, 70), opened(1, 71)) == ["< opened 7 0", "< opened 7 1"]


def test_weirs_numbers_begin_again() -> None:
    talk = Talk()
    talk.mux._next = (1 << 32) - 1
    assert talk.crew(open_channel(number=1), open_channel(number=2), open_channel(number=3)) == [
        "> open session 4294967295", "> open session 0", "> open session 1"]
    talk.mux._next = (1 << 32) - 1
    assert talk.crew(open_channel(number=4)) == ["> open session 2"]


MESSAGES = [data, lambda weir, text: error(weir, text), lambda weir, text: adjust(weir, 1),
            lambda weir, text: eof(weir), lambda weir, text: close(weir), lambda weir, text: ask(weir, "exec"),
            lambda weir, text: yes(weir), lambda weir, text: no(weir), lambda weir, text: opened(weir),
            lambda weir, text: refused(weir)]


@pytest.mark.parametrize("make", MESSAGES)
@pytest.mark.parametrize("weir", [0, 1, (1 << 32) - 1])
def test_messages_for_channels_that_are_not_open(make: object, weir: int) -> None:
    for ready in (Talk(), Talk(TableGate(hold={("ssh:forward-local", "db 5432")}))):
        for say in (ready.crew, ready.server):
            with pytest.raises(RemoteProtocolError):
                say(make(weir, b"x"))  # type: ignore[operator]
    opening = Talk()
    opening.crew(open_channel())
    if weir or make not in MESSAGES[-2:]:
        for say in (opening.crew, opening.server):
            with pytest.raises(RemoteProtocolError):
                say(make(weir, b"x"))  # type: ignore[operator]


def test_only_who_is_asked_confirms() -> None:
    talk = Talk()
    talk.crew(open_channel())
    for message in (opened(0), refused(0)):
        with pytest.raises(RemoteProtocolError):
            talk.crew(message)
    talk.server(opened(0))
    for message in (opened(0), refused(0)):
        with pytest.raises(RemoteProtocolError):
            talk.server(message)


@pytest.mark.parametrize("kind", [83, 84, 89, 101, 110, 127, 128, 192, 255])
def test_types_that_nobody_knows(kind: int) -> None:
    for say in (Talk().crew, Talk().server):
        with pytest.raises(RemoteProtocolError):
            say(bytes((kind,)) + u32(0, 0))


def test_a_window_that_overflows() -> None:
    talk = Talk()
    talk.running()
    for say in (talk.crew, talk.server):
        with pytest.raises(RemoteProtocolError):
            say(adjust(0, (1 << 32) - 1))


def test_several_sessions_are_noted_once() -> None:
    talk = Talk()
    for weir in range(4):
        talk.crew(open_channel(number=weir))
    assert [one.name for one in talk.events(events.SessionNoted)] == ["shared"]  # type: ignore[attr-defined]


# Anything

_weir = st.integers(0, 4)
_text = st.binary(max_size=40)
_MESSAGE = st.one_of(
    st.builds(lambda n: open_channel(number=n), _weir),
    st.builds(lambda n, w, p: open_channel("session", n, w, p), _weir, st.sampled_from([0, 5, WINDOW]),
              st.sampled_from([256, PACKET])),
    st.builds(lambda n: direct(number=n), _weir), st.builds(opened, _weir), st.builds(refused, _weir),
    st.builds(run, _weir, st.just("ls"), st.booleans()), st.builds(pty, _weir, st.booleans()),
    st.builds(env, _weir, st.just("A"), st.just("b"), st.booleans()),
    st.builds(ask, _weir, st.sampled_from(
        ["shell", "signal", "window-change", "keepalive@openssh.com", "auth-agent-req@openssh.com", "x11-req", "break",
         "exit-status", "eow@openssh.com", "what"]), st.sampled_from([b"", u32(1, 2, 3, 4)]), st.booleans()),
    st.builds(status, _weir), st.builds(data, _weir, _text), st.builds(error, _weir, _text),
    st.builds(adjust, _weir, st.sampled_from([0, 1, 100, 1 << 20])), st.builds(eof, _weir), st.builds(close, _weir),
    st.builds(yes, _weir), st.builds(no, _weir), st.just(YES), st.just(NO), st.just(YES + u32(99)),
    st.builds(forward, st.just("h"), st.sampled_from([0, 1]), st.sampled_from(
        ["tcpip-forward", "cancel-tcpip-forward"]), st.booleans()),
    st.builds(forwarded, st.just("h"), st.sampled_from([0, 1, 99])),
    st.builds(ask_all, st.sampled_from(["keepalive@openssh.com", "no-more-sessions@openssh.com", "x"]), st.just(b""),
              st.booleans()),
    st.builds(open_channel, st.sampled_from(["x11", "auth-agent@openssh.com", "what"]), _weir),
    st.binary(min_size=1, max_size=30),
)
_STEP = st.one_of(
    st.tuples(st.sampled_from(["crew", "server", "server"]), _MESSAGE),
    st.tuples(st.just("answer"), st.sampled_from(["approved", "denied", "expired", "ticket"])),
    st.tuples(st.just("edge"), st.one_of(
        st.builds(inputs.ThroughData, _weir, st.integers(0, 1), _text),
        st.builds(inputs.ThroughFull, _weir, st.integers(0, 1), st.booleans()),
        st.builds(inputs.ThroughEnded, _weir, st.integers(0, 1)),
        st.builds(inputs.ThroughDials, st.integers(-2, 4), _weir),
        st.builds(inputs.ThroughClosed, _weir, st.just("done")))),
    st.tuples(st.just("fire"), st.just("")))
_PARTS = [("ssh:exec", "ls"), ("ssh:shell", "app"), ("ssh:forward-local", "db 5432"), ("ssh:env", "A"),
          ("ssh:forward-remote", "h 1"), ("ssh:agent", "app"), ("ssh:x11", "app"), ("ssh:terminal", "app")]


@settings(max_examples=600)
@given(st.sets(st.sampled_from(_PARTS), max_size=3), st.sets(st.sampled_from(_PARTS), max_size=3),
       st.booleans(), st.lists(_STEP, max_size=60))
def test_any_conversation(
    deny: set[tuple[str, str]], hold: set[tuple[str, str]], registered: bool, steps: list[tuple[str, object]],
) -> None:
    """Whoever says what: no exception but the protocol's, nothing to the server before its intent, nothing behind a
    close, and a result for each intent or none yet."""
    talk = Talk(TableGate(deny=deny, hold=hold))
    talk.registered = {"db"} if registered else set()
    try:
        for name, what in steps:
            if name == "answer":
                held = sorted(talk.book._held)
                if held:
                    talk.answer(str(what), held[len(held) // 2])
            elif name == "fire":
                talk.fire()
            elif name == "edge":
                assert isinstance(what, inputs.Input)
                talk.mux.carried(what)
            else:
                getattr(talk, name)(what)
    except RemoteProtocolError:
        pass
    if not registered:                # what the edge dials goes under its tunnel's intent
        assert talk.unasked() == []
    numbers = [one[0] for one in talk.results()]
    assert len(numbers) == len(set(numbers))
    assert set(numbers) <= {one.operation for one in talk.events(events.Intent)}  # type: ignore[attr-defined]
    _nothing_behind_a_close(talk)
    assert len(talk.mux._channels) <= mux.MOST


def _nothing_behind_a_close(talk: Talk) -> None:
    """By Weir's own numbers, since the peers may use theirs twice."""
    for channel in talk.mux._channels.values():
        for half in channel.halves:
            assert not half.sent_close or not half.queue
            assert half.queued == sum(len(piece) for _, piece in half.queue)
            assert 0 <= half.granted <= WINDOW
            assert 0 <= half.window < 1 << 32


@settings(max_examples=300)
@given(st.lists(st.tuples(st.booleans(), _MESSAGE), max_size=40))
def test_a_conversation_in_one_channel(steps: list[tuple[bool, bytes]]) -> None:
    """The same, past the opening: with numbers that cannot be mistaken nothing is said behind a close."""
    talk = Talk()
    talk.running()
    try:
        for from_crew, message in steps:
            (talk.crew if from_crew else talk.server)(message)
    except RemoteProtocolError:
        pass
    if talk.mux._next > 1:
        return
    for peer, theirs in ((0, 7), (1, 70)):
        said = [one[1][0] for one in talk.log if isinstance(one, tuple) and one[0] == peer and one[1][0] > 92
                and one[1][1:5] == u32(theirs)]
        assert 97 not in said[:-1]
