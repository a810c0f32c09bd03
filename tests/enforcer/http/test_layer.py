"""Conversations over HTTP: what the crew says, what the server is told, what comes back."""
from __future__ import annotations

from collections.abc import Iterator

import pytest
from httptalk import HELLO, OK, TARGET, Talk, request
from msgspec.structs import replace
from pump import TableGate

from agent.contract.credential import Credential
from enforcer.http.layer import TURN
from enforcer.http.turns import TIMER
from enforcer.words import commands as words
from enforcer.words import events, inputs
from enforcer.words.commands import CLIENT, SERVER

SENT = b"GET /hello HTTP/1.1\r\nhost: kube.example:6443\r\nauthorization: Bearer tok\r\n\r\n"


def test_a_request_goes_on_as_it_was_read_with_the_real_credential() -> None:
    talk = Talk().open()
    assert talk.say(HELLO) == [(SERVER, SENT)]
    assert talk.hear(OK) == [(CLIENT, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")]
    assert talk.results == ["ok"]
    assert not talk.closed


def test_what_is_sent_stands_behind_what_is_recorded() -> None:
    talk = Talk().open()
    talk.say(HELLO)
    intent = next(at for at, one in enumerate(talk.commands)
                  if isinstance(one, words.Record) and isinstance(one.event, events.Intent))
    sent = next(at for at, one in enumerate(talk.commands) if isinstance(one, words.SendData) and one.peer == SERVER)
    assert intent < sent
    assert talk.commands[intent].barrier


def test_one_session_many_requests_cut_anywhere() -> None:
    for at in range(1, len(HELLO)):
        talk = Talk().open()
        assert talk.say(HELLO[:at]) + talk.say(HELLO[at:]) == [(SERVER, SENT)]
        half = len(OK) // 2
        said = b"".join(data for _, data in talk.hear(OK[:half]) + talk.hear(OK[half:]))
        assert said.endswith(b"\r\n\r\nhi")
        assert talk.say(HELLO) == [(SERVER, SENT)]


def test_what_comes_before_the_server_is_there_waits() -> None:
    talk = Talk()
    talk.tell(inputs.TlsStarted(CLIENT, "TLSv1.3 X"))
    assert talk.say(HELLO) == []
    talk.tell(inputs.CredentialReady(talk.credential))
    talk.tell(inputs.Connected("10.0.0.1:6443"))
    assert talk.tell(inputs.TlsStarted(SERVER, "TLSv1.3 Y")) == [(SERVER, SENT)]


def test_pipelined_requests_are_taken_one_by_one() -> None:
    talk = Talk().open()
    assert talk.say(HELLO * 3) == [(SERVER, SENT)]
    assert talk.of(words.PauseReading) == [words.PauseReading(CLIENT)]
    assert [peer for peer, _ in talk.hear(OK)] == [CLIENT, SERVER]
    assert [peer for peer, _ in talk.hear(OK)] == [CLIENT, SERVER]
    assert talk.of(words.ResumeReading) == [words.ResumeReading(CLIENT)]
    assert [peer for peer, _ in talk.hear(OK)] == [CLIENT]


def turns(talk: Talk) -> Iterator[int]:
    """Answers by Weir itself, a turn each."""
    while talk.of(words.StartTimer):
        talk.commands.clear()
        yield sum(said.count(b"HTTP/1.1 403 ") for _, said in talk.tell(inputs.TimerFired(TIMER)))


def test_thousands_of_denied_requests_in_one_read_leave_others_their_turn() -> None:
    talk = Talk(TableGate(deny={("k8s:call", "*")})).open()
    [(peer, said)] = talk.say(HELLO * 3000)
    assert peer == CLIENT
    assert said.count(b"HTTP/1.1 403 ") == TURN
    assert talk.of(words.PauseReading) == [words.PauseReading(CLIENT)]
    assert talk.say(HELLO) == []
    found = list(turns(talk))
    assert sum(found) == 3001 - TURN
    assert max(found) == TURN
    assert talk.of(words.ResumeReading) == [words.ResumeReading(CLIENT)]
    assert talk.results == ["denied"] * 3001


def test_a_request_that_goes_on_is_no_end_of_a_turn() -> None:
    talk = Talk(TableGate(deny={("k8s:call", "/no")})).open()
    said = talk.say(request(path="/no") * (TURN - 1) + HELLO * 3)
    assert [peer for peer, _ in said] == [CLIENT, SERVER]
    for _ in range(2):
        assert [peer for peer, _ in talk.hear(OK)] == [CLIENT, SERVER]
    assert [peer for peer, _ in talk.hear(OK)] == [CLIENT]


def test_a_denial_is_an_answer_and_the_connection_stays() -> None:
    talk = Talk(TableGate(deny={("k8s:call", "/no")})).open()
    [(peer, said)] = talk.say(request(path="/no"))
    assert peer == CLIENT
    assert said.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"policy no forbids" in said
    assert talk.say(HELLO) == [(SERVER, SENT)]


def test_a_held_request_waits_and_goes_once_approved() -> None:
    talk = Talk(TableGate(hold={("k8s:call", "/hello")})).open()
    assert talk.say(HELLO) == []
    assert talk.layer.state == "held"
    talk.tell(inputs.HoldOpened(1, "T1"))
    assert talk.tell(inputs.HoldAnswered(1, "approved", "ada", "", "T1")) == [(SERVER, SENT)]


def test_who_goes_while_it_is_held_withdraws_it() -> None:
    talk = Talk(TableGate(hold={("k8s:call", "/hello")})).open()
    talk.say(HELLO)
    talk.tell(inputs.ConnectionLost(CLIENT))
    assert [one.operation for one in talk.of(words.CancelHold)] == [1]
    assert talk.closed


def test_what_policy_lets_nobody_connect_to_says_so_to_each_request() -> None:
    talk = Talk(TableGate(deny={("connect", "prod")}))
    talk.tell(inputs.TlsStarted(CLIENT, "TLSv1.3 X"))
    [(peer, said)] = talk.say(HELLO)
    assert peer == CLIENT
    assert b" 403 " in said
    assert b"connection: close" in said
    assert talk.closed
    assert [type(event) for event in talk.recorded] == [events.Refused]


@pytest.mark.parametrize("event", [
    inputs.CredentialFailed("no row"), inputs.ConnectFailed("refused"), inputs.ConnectionLost(SERVER, "verify failed"),
])
def test_a_server_that_cannot_be_reached_is_503_with_why(event: inputs.Input) -> None:
    talk = Talk()
    talk.tell(inputs.TlsStarted(CLIENT, "TLSv1.3 X"))
    talk.tell(event)
    [(_, said)] = talk.say(HELLO)
    assert b" 503 " in said
    assert event.reason.encode() in said
    assert [type(one) for one in talk.recorded] == [events.Refused]


def test_an_expired_credential_is_fetched_anew() -> None:
    talk = Talk(credential=Credential("bot", token="old", expires=100)).open()
    talk.time = 200 * 10**9
    assert talk.say(HELLO) == []
    said = talk.tell(inputs.CredentialReady(Credential("bot", token="new", expires=900)))
    assert b"authorization: Bearer new\r\n" in said[0][1]
    talk.hear(OK)
    assert b"Bearer new" in talk.say(HELLO)[0][1]


def test_a_credential_that_comes_expired_is_503() -> None:
    talk = Talk(credential=Credential("bot", token="old", expires=100)).open()
    talk.time = 200 * 10**9
    talk.say(HELLO)
    [(peer, said)] = talk.tell(inputs.CredentialReady(talk.credential))
    assert peer == CLIENT
    assert b" 503 " in said
    assert talk.closed


def test_a_body_is_whole_before_anything_is_asked() -> None:
    talk = Talk().open()
    assert talk.say(request("POST", "/x", b"0123456789")[:-1]) == []
    assert not talk.layer.operations
    [(peer, said)] = talk.say(b"9")
    assert peer == SERVER
    assert said.endswith(b"content-length: 10\r\n\r\n0123456789")


def test_chunks_become_a_length() -> None:
    talk = Talk().open()
    chunks = b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n"
    [(_, said)] = talk.say(request("POST", "/x", b"", "Transfer-Encoding: chunked") + chunks)
    assert said.endswith(b"content-length: 5\r\n\r\nabcde")
    assert b"chunked" not in said
    assert b"railer" not in said


def test_a_client_that_waits_is_told_to_go_on() -> None:
    talk = Talk().open()
    [(peer, said)] = talk.say(request("POST", "/x", b"", "Content-Length: 2", "Expect: 100-continue"))
    assert (peer, said) == (CLIENT, b"HTTP/1.1 100 Continue\r\n\r\n")
    [(_, said)] = talk.say(b"ab")
    assert b"xpect" not in said


@pytest.mark.parametrize(("raw", "status"), [
    (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
    (b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", 505),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX Y: 1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400),
    (b"GET  /a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001, 413),
    (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 300 + b"\r\n", 431),
    (b"GET /" + b"x" * (70 << 10), 431),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * (70 << 10) + b"\r\n\r\n", 431),
    (b"GET /" + b"x" * (70 << 10) + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
    (b"\x16\x03\x01\x02\x00\x01", 400),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
])
def test_what_is_no_request_is_answered_and_nothing_of_it_goes_on(raw: bytes, status: int) -> None:
    talk = Talk().open()
    said = talk.say(raw)
    if not said:                               # it may still become one
        said = talk.say(b"\r\n\r\n")
    assert [peer for peer, _ in said] == [CLIENT]
    assert said[0][1].startswith(b"HTTP/1.1 %d " % status)
    assert talk.closed
    assert talk.results == ["denied"]


def test_a_body_in_thousands_of_pieces_is_refused() -> None:
    talk = Talk(target=TARGET).open()
    said = talk.say(request("POST", "/x", b"", "Transfer-Encoding: chunked") + b"0001\r\na\r\n" * 2000)
    assert said[0][1].startswith(b"HTTP/1.1 400 ") or said[0][1].startswith(b"HTTP/1.1 413 ")
    assert talk.closed


def test_an_answer_of_unknown_length_flows_in_chunks() -> None:
    talk = Talk().open()
    talk.say(HELLO)
    assert talk.hear(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nAlt-Svc: h3\r\n\r\n")[0][1].endswith(
        b"Transfer-Encoding: chunked\r\n\r\n")
    assert talk.hear(b"3\r\nabc\r\n") == [(CLIENT, b"3\r\nabc\r\n")]
    assert talk.hear(b"0\r\n\r\n") == [(CLIENT, b"0\r\n\r\n")]
    assert talk.say(HELLO) == [(SERVER, SENT)]


def test_an_answer_that_is_changed_has_no_length() -> None:
    talk = Talk().open()
    talk.say(request(path="/loud"))
    said = b"".join(data for _, data in talk.hear(OK))
    assert b"content-length" not in said
    assert said.endswith(b"\r\n2\r\nHI\r\n1\r\n!\r\n0\r\n\r\n")


def test_an_answer_that_cannot_be_read_is_not_shown() -> None:
    talk = Talk().open()
    talk.say(HELLO)
    [(peer, said)] = talk.hear(b"HTTP/1.1 200 OK\r\nX-Bad: 1\r\nContent-Length: 2\r\n\r\nhi")
    assert peer == CLIENT
    assert b" 502 " in said
    assert b"it cannot be read" in said
    assert b"hi" not in said.split()
    assert talk.closed
    assert talk.results == ["cancelled"]


def test_an_answer_that_turns_out_unreadable_is_cut() -> None:
    talk = Talk().open()
    talk.say(HELLO)
    talk.hear(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    assert talk.hear(b"1\r\n\0\r\n0\r\n\r\n") == []
    assert talk.closed


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
])
def test_a_server_that_closes_closes_both(answer: bytes) -> None:
    talk = Talk().open()
    talk.say(HELLO)
    assert b"connection: close" in b"".join(data for _, data in talk.hear(answer))
    assert talk.closed


def test_an_answer_up_to_the_end_of_the_connection() -> None:
    talk = Talk().open()
    talk.say(HELLO)
    talk.hear(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi")
    assert talk.tell(inputs.ConnectionLost(SERVER)) == [(CLIENT, b"0\r\n\r\n")]
    assert talk.results == ["ok"]
    assert talk.closed


def test_a_server_that_goes_without_an_answer_is_not_explained() -> None:
    """A client asks again on another connection, as without Weir."""
    talk = Talk().open()
    talk.say(HELLO)
    assert talk.tell(inputs.ConnectionLost(SERVER)) == []
    assert talk.results == ["error"]
    assert talk.closed


def test_a_server_that_breaks_off_is_no_end() -> None:
    talk = Talk().open()
    talk.say(HELLO)
    talk.hear(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi")
    with pytest.raises(Exception, match="peer closed"):
        talk.tell(inputs.ConnectionLost(SERVER))


@pytest.mark.parametrize("raw", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b"\0" * 40 + b"\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
])
def test_a_hostile_server_is_502(raw: bytes) -> None:
    talk = Talk().open()
    talk.say(HELLO)
    said = talk.hear(raw)
    assert said[0][0] == CLIENT
    assert said[0][1].startswith(b"HTTP/1.1 502 ")
    assert talk.closed


def test_a_server_that_answers_nothing_that_was_asked() -> None:
    talk = Talk().open()
    assert talk.hear(OK) == []
    assert talk.closed


def test_head_has_no_body() -> None:
    talk = Talk().open()
    talk.say(request("HEAD"))
    [(_, said)] = talk.hear(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
    assert said.endswith(b"content-length: 20\r\n\r\n")
    assert talk.results == ["ok"]


def test_head_that_is_denied_has_none_either() -> None:
    talk = Talk(TableGate(deny={("k8s:call", "/hello")})).open()
    [(_, said)] = talk.say(request("HEAD"))
    assert said.endswith(b"\r\n\r\n")


def test_another_protocol_is_a_passage() -> None:
    talk = Talk().open()
    [(_, said)] = talk.say(request("GET", "/x", b"", "Connection: Upgrade", "Upgrade: loud/1"))
    assert b"connection: Upgrade\r\nupgrade: loud/1\r\n" in said
    said = talk.hear(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: loud/1\r\n\r\nearly")
    assert said[0][1].startswith(b"HTTP/1.1 101 ")
    assert said[0][1].endswith(b"EARLY")
    assert talk.say(b"more") == [(SERVER, b"MORE")]
    assert talk.tell(inputs.TimerFired("t")) == [(CLIENT, b"TimerFired")]
    assert talk.tell(inputs.Ended("killed")) == [(CLIENT, b"killed")]
    assert talk.closed


def test_an_upgrade_that_the_server_does_not_take_is_an_answer() -> None:
    talk = Talk().open()
    talk.say(request("GET", "/x", b"", "Connection: Upgrade", "Upgrade: loud/1"))
    assert talk.hear(b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n")[0][1].startswith(b"HTTP/1.1 400 ")
    assert talk.say(HELLO) == [(SERVER, SENT)]


def test_killed_while_it_waits_for_the_answer() -> None:
    talk = Talk().open()
    talk.say(HELLO)
    [(peer, said)] = talk.tell(inputs.Ended("killed by ada"))
    assert peer == CLIENT
    assert b" 503 " in said
    assert b"killed by ada" in said
    assert talk.closed


def test_ended_once_what_runs_has_finished() -> None:
    talk = Talk().open()
    talk.say(HELLO)
    talk.tell(inputs.Ended("drained", True))
    assert not talk.closed
    talk.hear(OK)
    assert talk.closed


def test_nothing_is_forwarded_once_nothing_can_be_recorded() -> None:
    talk = Talk().open()
    talk.say(HELLO)
    [(_, said)] = talk.tell(inputs.RecordingFailed("disk full"))
    assert b" 503 " in said
    assert talk.closed


def test_an_ipv6_host_is_named_in_brackets() -> None:
    talk = Talk(target=replace(TARGET, hosts=("fd77::7",), port=443)).open()
    assert b"\r\nhost: [fd77::7]\r\n" in talk.say(HELLO)[0][1]


def test_what_is_no_http_is_not_quoted() -> None:
    talk = Talk().open()
    [(_, said)] = talk.say(b"GET /hello HTTP/1.1\r\nHost: a\r\nAuthorization Bearer hunter22\r\n\r\n")
    assert b"illegal header line" in said
    talk = Talk().open()
    talk.say(HELLO)
    [(_, answered)] = talk.hear(b"password: hunter22\r\n\r\n")
    assert b"illegal status line" in answered
    assert b"hunter22" not in said + answered
    assert "hunter22" not in str(talk.blobs)
