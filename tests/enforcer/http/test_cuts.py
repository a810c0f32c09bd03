"""The server goes at each step of an exchange, and between any two bytes of what it says."""
from __future__ import annotations

import pytest
from httptalk import OK, Talk, request
from pump import TableGate

from agent.contract.credential import Credential
from enforcer.http.layer import LATEST, WHOLE
from enforcer.words import commands as words
from enforcer.words import events, inputs
from enforcer.words.commands import CLIENT, SERVER, Record, SendData
from enforcer.words.errors import RemoteProtocolError

HELD = TableGate(hold={("k8s:call", "/x")})
WRITE = request("POST", "/x", b"0123456789")
OTHER = request("POST", "/y", b"abc")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n3\r\nall\r\n0\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\n\r\nhi all"
STEPS = (
    inputs.CredentialReady(Credential("crewbot", token="tok")), inputs.Connected("10.0.0.2:6443"),
    inputs.TlsStarted(SERVER, "TLSv1.3 Z"))


def sent(talk: Talk, what: bytes = b"0123456789") -> int:
    """How often."""
    return sum(what in one.data for one in talk.commands if isinstance(one, SendData) and one.peer == SERVER)


def order(talk: Talk) -> list[str]:
    """Intents, what went to the server, and results, as they came."""
    found = []
    for one in talk.commands:
        if isinstance(one, SendData) and one.peer == SERVER:
            found.append("sent")
        elif isinstance(one, Record) and isinstance(one.event, events.Intent | events.Result):
            found.append(type(one.event).__name__)
    return found


@pytest.mark.parametrize("answer", [OK, CHUNKED, ENDLESS], ids=["length", "chunks", "until it closes"])
def test_what_has_gone_is_never_sent_again(answer: bytes) -> None:
    """Cut at every byte of the answer; what is whole may be followed by others."""
    for cut in range(len(answer) + 1):
        talk = Talk().open()
        assert talk.say(WRITE)[0][0] == SERVER
        heard = talk.hear(answer[:cut]) if cut else []
        try:
            talk.tell(inputs.ConnectionLost(SERVER, "reset"))
        except RemoteProtocolError as error:           # what the edge does with it
            talk.take(talk.layer.refuse(error))
        assert talk.closed
        assert talk.say(OTHER) == []
        assert (sent(talk), sent(talk, b"abc")) == (1, 0)
        assert len(talk.of(words.OpenConnection)) == 1
        assert order(talk) == ["Intent", "sent", "Result"]
        whole = cut == len(answer) and answer is not ENDLESS
        read = answer is ENDLESS and cut >= answer.index(b"\r\n\r\n") + 4
        assert (talk.results == ["ok"]) == (whole or read), cut
        assert all(peer == CLIENT for peer, _ in heard)


@pytest.mark.parametrize("cut", range(len(WRITE) + 1))
def test_one_that_comes_while_the_server_goes_is_sent_once_and_whole(cut: int) -> None:
    """Between two bytes of the request, each time another connection stands; whatever the last one said, late."""
    talk = Talk(HELD).open()
    talk.say(WRITE[:cut])
    talk.tell(inputs.ConnectionLost(SERVER))
    if talk.closed:
        assert b"\r\n\r\n" not in WRITE[:cut], "nobody had asked anything yet"
        assert sent(talk) == 0
        return
    if cut < len(WRITE):
        talk.say(WRITE[cut:])
    assert talk.layer.state == "held"
    assert talk.say(OTHER) == [], "one after the other"
    assert talk.tell(inputs.HoldAnswered(1, "approved", "ada", "", "T1")) == []
    for step in STEPS:
        assert sent(talk) == 0
        said = talk.tell(step)
    assert [peer for peer, _ in said] == [SERVER]
    assert said[0][1].endswith(b"0123456789")
    talk.hear(OK)
    assert (sent(talk), sent(talk, b"abc")) == (1, 1), "and the answer is the first one's"
    assert order(talk) == ["Intent", "Result", "Intent", "sent", "Result", "Intent", "sent"]
    assert len(talk.of(words.UseHold)) == 1


@pytest.mark.parametrize("lost", range(len(STEPS) + 1))
@pytest.mark.parametrize("peer", [CLIENT, SERVER])
def test_either_goes_while_there_is_no_connection_yet(lost: int, peer: int) -> None:
    """After each step of the way in; nothing goes twice, and nothing afterwards."""
    talk = Talk(HELD).open()
    talk.say(WRITE)
    talk.tell(inputs.ConnectionLost(SERVER))
    talk.tell(inputs.HoldAnswered(1, "approved", "ada", "", "T1"))
    for step in STEPS[:lost]:
        talk.tell(step)
    went = sent(talk)
    assert went == (lost == len(STEPS))
    talk.tell(inputs.ConnectionLost(peer, "reset"))
    assert talk.closed
    assert talk.results[-1:] in (["error"], ["cancelled"])
    for step in STEPS:
        assert talk.tell(step) == []
    assert sent(talk) == went
    assert len(talk.of(words.UseHold)) == 1


@pytest.mark.parametrize("event", [inputs.Ended("killed"), inputs.RecordingFailed("disk full")])
@pytest.mark.parametrize("step", range(len(STEPS)))
def test_who_is_ended_on_the_way_in_sends_nothing(event: inputs.Input, step: int) -> None:
    talk = Talk(HELD).open()
    talk.say(WRITE)
    talk.tell(inputs.ConnectionLost(SERVER))
    talk.tell(inputs.HoldAnswered(1, "approved", "ada", "", "T1"))
    for one in STEPS[:step]:
        talk.tell(one)
    [(peer, said)] = talk.tell(event)
    assert (peer, b" 503 " in said) == (CLIENT, True)
    for one in STEPS:
        talk.tell(one)
    assert sent(talk) == 0


def test_what_does_not_come_whole_once_the_server_has_gone_is_not_waited_for() -> None:
    talk = Talk().open()
    talk.say(WRITE[:-1])
    talk.tell(inputs.ConnectionLost(SERVER))
    assert words.StartTimer(WHOLE, LATEST) in talk.commands
    [(peer, said)] = talk.tell(inputs.TimerFired(WHOLE))
    assert (peer, b" 408 " in said, talk.closed, sent(talk)) == (CLIENT, True, True, 0)


def test_what_does_is_not_hurried_any_more_and_neither_is_what_follows() -> None:
    talk = Talk().open()
    talk.say(WRITE[:-1])
    talk.tell(inputs.ConnectionLost(SERVER))
    talk.say(WRITE[-1:])
    assert words.StartTimer(WHOLE, 0) in talk.commands
    for step in STEPS:
        talk.tell(step)
    talk.hear(OK)
    talk.say(OTHER[:-1])
    assert talk.tell(inputs.TimerFired(WHOLE)) == []
    assert talk.say(OTHER[-1:])[0][0] == SERVER
