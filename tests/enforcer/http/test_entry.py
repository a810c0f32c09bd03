"""The way to the server, and another one where it ends before a request has gone."""
from __future__ import annotations

import pytest
from httptalk import HELLO, OK, Talk, request
from pump import TableGate

from agent.contract.credential import Credential
from enforcer.http.entry import AGAIN
from enforcer.words import commands as words
from enforcer.words import events, inputs
from enforcer.words.commands import CLIENT, SERVER

SECOND = 10**9
HELD = TableGate(hold={("k8s:call", "/hello")})
FIRST = Credential("bot", certificate="first", key="k", expires=100)
NEXT = Credential("bot", certificate="next", key="k", expires=900)
UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"


def approved(talk: Talk) -> list[tuple[int, bytes]]:
    return talk.tell(inputs.HoldAnswered(1, "approved", "ada", "", "T1"))


def back(talk: Talk, credential: Credential | None = None) -> list[tuple[int, bytes]]:
    """Another connection, step by step; what is said once it stands."""
    if credential is not None:
        assert talk.tell(inputs.CredentialReady(credential)) == []
    assert isinstance(talk.commands[-1], words.OpenConnection)
    assert talk.tell(inputs.Connected("10.0.0.2:6443")) == []
    assert talk.commands[-1] == words.StartTls(SERVER, alpn="http/1.1")
    return talk.tell(inputs.TlsStarted(SERVER, "TLSv1.3 Z"))


def test_a_server_that_closes_while_a_request_is_held_is_asked_on_another_connection() -> None:
    talk = Talk(HELD).open()
    talk.say(HELLO)
    talk.tell(inputs.HoldOpened(1, "T1"))
    assert talk.tell(inputs.ConnectionLost(SERVER)) == []
    assert talk.commands[-1] == words.LeaveServer()
    assert talk.layer.state == "held"
    assert approved(talk) == []
    [(peer, said)] = back(talk, talk.credential)
    assert (peer, said.startswith(b"GET /hello "), b"Bearer tok" in said) == (SERVER, True, True)
    assert [(one.name, one.value) for one in talk.recorded if isinstance(one, events.SessionNoted)] == [
        ("reconnected", "crewbot@10.0.0.2:6443 TLSv1.3 Z")]
    assert talk.hear(OK)[0][1].endswith(b"hi")
    assert talk.say(HELLO.replace(b"hello", b"other"))[0][0] == SERVER
    assert not talk.closed


def test_so_is_one_that_closes_while_a_body_comes() -> None:
    talk = Talk().open()
    asked = request("POST", "/x", b"0123456789")
    assert talk.say(asked[:-1]) == []
    talk.tell(inputs.ConnectionLost(SERVER))
    assert talk.say(asked[-1:]) == []
    assert back(talk, talk.credential)[0][1].endswith(b"0123456789")


def test_one_that_is_denied_needs_no_other() -> None:
    talk = Talk(HELD).open()
    talk.say(HELLO)
    talk.tell(inputs.ConnectionLost(SERVER))
    [(peer, said)] = talk.tell(inputs.HoldAnswered(1, "denied", "ada", "no", "T1"))
    assert (peer, b" 403 " in said) == (CLIENT, True)
    assert not talk.of(words.OpenConnection)[1:]
    assert talk.say(HELLO.replace(b"hello", b"other")) == []
    assert back(talk, talk.credential)[0][0] == SERVER


def test_a_server_that_closes_between_requests_closes_both() -> None:
    talk = Talk().open()
    talk.tell(inputs.ConnectionLost(SERVER))
    assert talk.closed


@pytest.mark.parametrize("event", [
    inputs.CredentialFailed("no row"), inputs.ConnectFailed("refused"), inputs.ConnectionLost(SERVER, "verify failed"),
])
def test_where_there_is_no_other_that_is_said(event: inputs.Input) -> None:
    talk = Talk(HELD).open()
    talk.say(HELLO)
    talk.tell(inputs.ConnectionLost(SERVER))
    approved(talk)
    [(peer, said)] = talk.tell(event)
    assert (peer, b" 503 " in said, event.reason.encode() in said) == (CLIENT, True, True)
    assert talk.results[-1] == "error"
    assert talk.closed


def test_a_certificate_that_expires_is_another_connection() -> None:
    talk = Talk(credential=FIRST).open()
    talk.say(HELLO)
    talk.hear(OK)
    talk.time = 200 * SECOND
    assert talk.say(HELLO) == []
    [(peer, said)] = back(talk, NEXT)
    assert (peer, b"authorization" in said) == (SERVER, False)
    assert [type(one) for one in talk.commands if isinstance(one, words.LeaveServer | words.OpenConnection)] == [
        words.OpenConnection, words.LeaveServer, words.OpenConnection]
    assert not talk.closed


def test_one_that_expires_soon_is_renewed_before() -> None:
    talk = Talk(credential=Credential("bot", token="old", expires=100)).open()
    talk.time = 98 * SECOND
    assert talk.say(HELLO) == []
    assert b"Bearer new" in talk.tell(inputs.CredentialReady(Credential("bot", token="new", expires=900)))[0][1]


def test_one_that_expires_soon_goes_where_there_is_no_other_yet() -> None:
    talk = Talk(credential=Credential("bot", token="old", expires=100)).open()
    talk.time = 98 * SECOND
    talk.say(HELLO)
    assert b"Bearer old" in talk.tell(inputs.CredentialReady(talk.credential))[0][1]


def test_a_token_that_the_server_does_not_take_is_asked_for_anew() -> None:
    """By the next request, on the same connection: the file may hold another one by now."""
    talk = Talk().open()
    talk.say(HELLO)
    assert b" 401 " in talk.hear(UNAUTHORIZED)[0][1]
    assert talk.say(HELLO) == []
    assert b"Bearer new" in talk.tell(inputs.CredentialReady(Credential("crewbot", token="new")))[0][1]
    talk.hear(OK)
    assert b"Bearer new" in talk.say(HELLO)[0][1]


def test_who_is_answered_401_again_and_again_does_not_ask_for_credentials_with_each_request() -> None:
    """A crew that has a pod answer so, through the API server, would have as many issued as it likes."""
    talk = Talk().open()
    for number in range(20):
        said = talk.say(HELLO)
        if not said:
            assert number in (1, 11), "after the first 401, and after one that comes AGAIN later"
            said = talk.tell(inputs.CredentialReady(talk.credential))
        assert said[0][0] == SERVER
        if number == 10:
            talk.ticks += AGAIN
        assert b" 401 " in talk.hear(UNAUTHORIZED)[0][1]
    assert len(talk.of(words.Login)) == 3


def test_the_server_goes_while_a_credential_is_on_its_way() -> None:
    talk = Talk(credential=Credential("bot", token="old", expires=100)).open()
    talk.time = 200 * SECOND
    talk.say(HELLO)
    talk.tell(inputs.ConnectionLost(SERVER))
    assert b"Bearer new" in back(talk, Credential("bot", token="new", expires=900))[0][1]
    assert len(talk.of(words.Login)) == 2
