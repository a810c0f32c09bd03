"""The loopback redirect: only this login's answer counts."""
from __future__ import annotations

import socket
import threading

import pytest

from agent import loopback_answer
from agent.loopback_answer import Listener, parse_callback

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


def ask(port: int, raw: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as one:
        one.sendall(raw)
        one.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: one.recv(4096), b""))


def test_what_others_send_does_not_end_the_wait() -> None:
    with Listener() as listener:
        found: list[str | None] = []
        thread = threading.Thread(target=lambda: found.append(listener.wait(ASKED, 30)))
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
        thread = threading.Thread(target=lambda: found.append(listener.wait(ASKED, 60)))
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
        assert listener.wait(ASKED, 0.05) is None
        assert listener.wait("https://idp/", 30) is None, "without a state there is nothing to wait for"
