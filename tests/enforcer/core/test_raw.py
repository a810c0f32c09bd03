"""Raw streams: what begins as a registered protocol or a proxy ends them, whole, byte by byte and cut anywhere."""
from __future__ import annotations

import pytest

from enforcer.core.first import BRIEF, HOLD
from enforcer.core.raw import Raw
from enforcer.protocols import spoken

SECRETS = b"\x05\x01\x00"
ENDS = [
    (b"SSH-2.0-OpenSSH_9.2\r\n", "ssh in plaintext"), (b"\0\0\0\x08\x04\xd2\x16\x2f", "postgresql in plaintext"),
    (SECRETS, "SOCKS"), (b"CONNECT x.example:1 HTTP/1.1\r\n\r\n", "CONNECT"),
    (b"GET http://other.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n", "HTTP for 'other.example'"),
]
PASSES = [b"GET / HTTP/1.1\r\nHost: any.example\r\n\r\nbody", b"\x16\x03\x01\x00\x05hello and more",
          b"\xff\xfe anything", b"*1\r\n$4\r\nPING\r\n"]


def cuts(data: bytes) -> list[list[bytes]]:
    return [[data], [data[at:at + 1] for at in range(len(data))],
            *([data[:at], data[at:]] for at in range(1, len(data)))]


def make() -> Raw:
    return Raw("there.example", spoken)


@pytest.mark.parametrize(("data", "reason"), ENDS)
def test_what_ends_it_lets_no_whole_beginning_through(data: bytes, reason: str) -> None:
    for pieces in cuts(data):
        one, went, why = make(), b"", ""
        for piece in pieces:
            passed, why = one.client(piece)
            went += passed
            if why:
                break
        assert why.startswith(reason), pieces
        assert went == b""
        assert one.rule
        assert one.wait == 0


@pytest.mark.parametrize("data", PASSES)
def test_what_passes_passes_as_it_came(data: bytes) -> None:
    for pieces in cuts(data):
        one = make()
        went = b"".join(one.client(piece)[0] for piece in pieces)
        assert one.no_more() == (data[len(went):], "")
        assert one.wait == 0


def test_what_is_not_told_goes_on_after_a_while() -> None:
    one = make()
    assert one.client(b"xy") == (b"", "")
    assert one.wait == BRIEF
    assert one.due() == (b"xy", "")
    assert one.wait == 0
    assert one.client(b"z") == (b"z", "")


def test_the_rest_is_judged_with_what_went() -> None:
    one = make()
    one.client(b"SS")
    assert one.due() == (b"SS", "")
    assert one.client(b"H-2.0-x\r\n")[1].startswith("ssh in plaintext")


def test_the_beginning_of_a_proxys_greeting_waits_longer_and_then_ends_it() -> None:
    one = make()
    assert one.client(b"\x05") == (b"", "")
    assert one.due() == (b"", "")
    assert one.wait == HOLD - BRIEF
    assert one.due() == (b"", "its beginning was not finished in time")
    one = make()
    one.client(b"CONNECT ")
    assert one.no_more() == (b"", "its beginning was not finished in time")


def test_a_server_that_speaks_first() -> None:
    for pieces in cuts(b"hello\r\nSSH-2.0-x\r\n"):
        one = make()
        assert [why for piece in pieces if (why := one.server(piece)[1])], pieces
    one = make()
    assert one.server(b"220 mail.example\r\n") == (b"220 mail.example\r\n", "")
    assert one.client(b"EHLO x\r\n") == (b"EHLO x\r\n", "")
    assert one.server(b"\nSSH-") == (b"\nSSH-", "")     # no server does so late
