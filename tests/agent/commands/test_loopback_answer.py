"""The loopback redirect: only this login's answer counts."""
from __future__ import annotations

import socket
import threading

import pytest

from agent.commands import loopback_answer
from agent.commands.loopback_answer import Listener, parse_callback, parse_posted
from agent.contract.identity import FORM

ASKED = "https://idp/?state=st&redirect_uri=http%3A%2F%2F127.0.0.1%3A4444%2Fcallback%2Fcorp"
RIGHT = b"GET /callback/corp?code=c&state=st HTTP/1.1\r\nHost: 127.0.0.1:4444\r\n\r\n"


def test_the_answer() -> None:
    assert parse_callback(RIGHT, 4444, "/callback/corp", "st") == "code=c&state=st"
    assert parse_callback(RIGHT.replace(b"code=c", b"error=access_denied"), 4444, "/callback/corp", "st")


@pytest.mark.parametrize(("old", "new"), [
    (b"GET", b"POST"), (b"/callback", b"/other"), (b"/callback/", b"//callback/"), (b"/corp", b"/other"),
    (b"/corp", b""),
    (b"/corp", b"/corp/"), (b"/corp", b"/corp/.."), (b"state=st", b"state=guess"),
    (b"&state=st", b""), (b"state=st", b"state=st&state=st"), (b"127.0.0.1:4444", b"evil.example"),
    (b"127.0.0.1:4444", b"localhost:4444"), (b"Host: 127.0.0.1:4444\r\n", b""), (b"code=c", b"code=c d"),
    (b"Host: 127.0.0.1:4444", b"Host: 127.0.0.1:4444\r\nHost: evil"), (b"HTTP/1.1", b"HTTP/2"),
    (b"GET /", b"GET http://evil.example/"), (b"code=c", b"code=" + b"c" * 9000), (b"code=c", b"code=\xff"),
])
def test_what_is_not_the_answer(old: bytes, new: bytes) -> None:
    assert old in RIGHT
    assert parse_callback(RIGHT.replace(old, new), 4444, "/callback/corp", "st") is None


BODY = b"SAMLResponse=PHA%2BPC9wPg%3D%3D&RelayState=st"
POSTED = (b"POST /acs/corp HTTP/1.1\r\nHost: 127.0.0.1:4444\r\nOrigin: null\r\n"
          b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 45\r\n\r\n" + BODY)


def test_the_posted_answer() -> None:
    assert parse_posted(POSTED, 4444, "/acs/corp", "st") == BODY.decode()
    assert parse_posted(POSTED.replace(b"urlencoded", b"urlencoded; charset=UTF-8"), 4444, "/acs/corp", "st")
    assert parse_callback(POSTED, 4444, "/acs/corp", "st") is None
    assert parse_posted(RIGHT, 4444, "/acs/corp", "st") is None


@pytest.mark.parametrize(("old", "new"), [
    (b"POST", b"GET"), (b"/acs", b"/callback"), (b"/corp", b"/corp?x=1"), (b"/acs", b"http://evil.example/acs"),
    (b"/corp", b""), (b"/corp", b"/other"), (b"/corp", b"/corp/"),
    (b"127.0.0.1:4444", b"evil.example"), (b"127.0.0.1:4444", b"127.0.0.1"), (b"Host: 127.0.0.1:4444\r\n", b""),
    (b"Host: ", b"Host: evil\r\nHost: "), (b"RelayState=st", b"RelayState=xx"), (b"RelayState=st", b"Relaystate=st"),
    (b"SAMLResponse=PHA", b"RelayState=st&PH"), (b"Length: 45", b"Length: 44"), (b"Length: 45", b"Length: 46"),
    (b"Content-Length: 45\r\n", b""), (b"Length: 45", b"Length: 45\r\nContent-Length: 45"),
    (b"Length: 45", b"Length: +45"), (b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (b"application/x-www-form-urlencoded", b"text/plain"), (b"x-www-form-urlencoded", b"multipart/form-data"),
    (b"Content-Type: application/x-www-form-urlencoded\r\n", b""), (b"PHA%2B", b"PHA \xff\n"), (b"\r\n\r\n", b"\r\n")])
def test_what_is_not_the_posted_answer(old: bytes, new: bytes) -> None:
    assert old in POSTED
    assert parse_posted(POSTED.replace(old, new), 4444, "/acs/corp", "st") is None


def posted(body: bytes, port: int) -> bytes:
    return (POSTED.replace(b"4444", str(port).encode()).replace(b": 45", b": %d" % len(body)).replace(BODY, body))


def test_a_posted_answer_of_some_size() -> None:
    large = b"SAMLResponse=" + b"A" * (FORM - 27) + b"&RelayState=st"
    assert parse_posted(posted(large, 4444), 4444, "/acs/corp", "st") == large.decode()
    assert parse_posted(posted(b"x" + large, 4444), 4444, "/acs/corp", "st") is None
    with Listener() as listener:
        found: list[str | None] = []
        url = "https://idp/?SAMLRequest=x&state=other&RelayState=st"
        thread = threading.Thread(target=lambda: found.append(listener.wait(url, "corp", 30)))
        thread.start()
        port = listener.port
        for raw in (posted(BODY.replace(b"=st", b"=xx"), port), posted(b"x" + large, port), posted(BODY, port)[:-1],
                    RIGHT.replace(b"4444", str(port).encode()).replace(b"state=st", b"state=other")):
            assert not ask(port, raw).startswith(b"HTTP/1.1 200")
        answer = ask(port, posted(large, port))
        thread.join(30)
    assert found == [large.decode()]
    assert answer.startswith(b"HTTP/1.1 200")


def test_a_port_that_the_provider_must_know() -> None:
    with Listener() as one:
        with pytest.raises(OSError), Listener(one.port):
            pass
    with Listener(one.port) as again:
        assert again.port == one.port


def ask(port: int, raw: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as one:
        try:
            one.sendall(raw)
            one.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: one.recv(4096), b""))
        except OSError:
            return b""                # closed before it had read it all


def test_what_others_send_does_not_end_the_wait() -> None:
    with Listener() as listener:
        found: list[str | None] = []
        thread = threading.Thread(target=lambda: found.append(listener.wait(ASKED, "corp", 30)))
        thread.start()
        right = RIGHT.replace(b"4444", str(listener.port).encode())
        for raw in (b"", b"\xff" * 100, b"GET / HTTP/1.1\r\n\r\n", right.replace(b"state=st", b"state=guess"),
                    b"A" * 20_000):
            assert not ask(listener.port, raw).startswith(b"HTTP/1.1 200")
        answer = ask(listener.port, right)
        thread.join(30)
    assert found == ["code=c&state=st"]
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"default-src 'none'" in answer
    assert b"code=c" not in answer


def test_who_sends_slowly_does_not_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte at a time, each before it is given up, and never an end."""
    monkeypatch.setattr(loopback_answer, "PATIENCE", 0.3)
    with Listener() as listener:
        found: list[str | None] = []
        thread = threading.Thread(target=lambda: found.append(listener.wait(ASKED, "corp", 60)))
        thread.start()
        with socket.create_connection(("127.0.0.1", listener.port), 10) as slow:
            slow.settimeout(0.005)
            while not found:
                try:
                    slow.sendall(b"x")
                    if slow.recv(1) == b"":
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
                else:
                    break             # it was answered
        answer = ask(listener.port, RIGHT.replace(b"4444", str(listener.port).encode()))
        thread.join(60)
    assert answer.startswith(b"HTTP/1.1 200")


def test_nobody_comes() -> None:
    with Listener() as listener:
        assert listener.wait(ASKED, "corp", 0.05) is None
        assert listener.wait("https://idp/", "corp", 30) is None, "without a state there is nothing to wait for"
