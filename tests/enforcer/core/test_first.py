"""The first bytes of flows: TLS by name, plain HTTP by host, proxies, SSH; whole, byte by byte and cut anywhere."""
from __future__ import annotations

import os
import ssl
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.core import first
from enforcer.core.first import MOST, PASS, PIECES, UNKNOWN, Beginning
from enforcer.core.hello import Malformed, Unfinished, server_name
from enforcer.protocols import spoken

NAME = "api.example"


def begin(*names: str) -> Beginning:
    return Beginning(names, "192.0.2.7", spoken)


def hello(name: str | None, alpn: int = 0) -> bytes:
    """OpenSSL's own; `alpn` makes it longer."""
    context = ssl.create_default_context()
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols([f"x{number:04d}" for number in range(alpn)])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def in_records(data: bytes, size: int) -> bytes:
    """The same handshake message in records of `size` bytes (RFC 8446 5.1); a thousand of them are taken, and
    OpenSSL 3.5's message, with a key of ML-KEM, is longer than that."""
    message = data[5:]
    return b"".join(b"\x16\x03\x01" + len(message[at:at + size]).to_bytes(2, "big") + message[at:at + size]
                    for at in range(0, len(message), size))


TABLE = [
    (hello(NAME), PASS), (hello("API.Example."[:-1]), PASS), (hello("other.example"), "TLS for 'other.example'"),
    (hello(None), "TLS without a server name"), (hello(f"x.{NAME}"), "TLS for"), (hello(f"evil-{NAME}"), "TLS for"),
    (in_records(hello(NAME), 2), PASS), (in_records(hello("other.example"), 7), "TLS for"),
    (hello(NAME, 900), PASS), (hello("other.example", 900), "TLS for"),
    (b"\x15\x03\x01\x00\x02\x01\x00" + hello("other.example"), "TLS that cannot be told"),
    (b"\x16\x03\x01\x00\x00" + hello("other.example"), "TLS that cannot be told"),
    (b"\x16\x02\x01" + hello("other.example")[3:], "TLS for 'other.example'"),        # Go's servers take it
    (b"\x16\x0f\x01" + hello(NAME)[3:], PASS), (b"\x16\x10\x01" + hello("other.example")[3:], PASS),
    (b"\x15\x02\x00\x00\x02\x01\x00" + hello("other.example"), "TLS that cannot be told"),
    (b"\x80\x2e\x01\x03\x01" + bytes(60), "TLS without a server name"),
    (b"GET / HTTP/1.1\r\nHost: api.example\r\n\r\n", PASS),
    (b"GET / HTTP/1.1\r\nhost:API.EXAMPLE.:8080\r\n\r\n", PASS),
    (b"POST /v1 HTTP/1.1\nAccept: */*\nHost: api.example\n\nbody", PASS),
    (b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n", "HTTP for 'other.example'"),
    (b"\r\n\r\nGET / HTTP/1.1\r\nHost: other.example\r\n\r\n", "HTTP for"),
    (b"GET\t/ HTTP/1.1\r\nHost: other.example\r\n\r\n", "HTTP for"),
    (b"GET / HTTP/1.1 \r\nHost: other.example\r\n\r\n", "HTTP for"),
    (b"FROB / HTTP/1.1\r\nHost: other.example\r\n\r\n", "HTTP for"),
    (b"GET / HTTP/1.1\r\nHost: api.example\r\nHost: other.example\r\n\r\n", "names no host, or several"),
    (b"GET / HTTP/1.1\r\nHost: api.example\r\nHost : other.example\r\n\r\n", "names no host, or several"),
    (b"GET / HTTP/1.1\r\nX: y\rHost: other.example\r\nHost: api.example\r\n\r\n", "cannot be told"),
    (b"GET / HTTP/1.0\r\n\r\n", "names no host, or several"),
    (b"GET http://other.example/ HTTP/1.1\r\nHost: api.example\r\n\r\n", "HTTP for 'other.example'"),
    (b"GET http://api.example/ HTTP/1.1\r\nHost: api.example\r\n\r\n", PASS),
    (b"GET http://api.example@other.example/ HTTP/1.1\r\nHost: api.example\r\n\r\n", "HTTP for 'other.example'"),
    (b"GET / HTTP/1.1\r\nHost: 192.0.2.7\r\n\r\n", "HTTP for"),
    (b"CONNECT other.example:22 HTTP/1.1\r\nHost: api.example\r\n\r\n", "CONNECT"),
    (b"connect api.example:443 HTTP/1.0\r\n\r\n", "CONNECT"),
    (b"GET / HTTP/1.1\r\nHost: api.example\r\n\r\nCONNECT other.example:22 HTTP/1.1\r\n\r\n", "proxy"),
    (b"GET / HTTP/1.1\r\nHost: api.example\r\n\r\nGET http://other.example/ HTTP/1.1\r\n\r\n", "proxy"),
    (b"\x05\x01\x00", "SOCKS"), (b"\x05\x01\x00\x05\x01\x00\x03\x04evil\x00\x16", "SOCKS"),
    (b"\x05\xff" + bytes(255), "SOCKS"), (b"\x04\x01\x00\x16\x7f\x00\x00\x01\x00", "SOCKS"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", "ssh in plaintext"), (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", "postgresql in plaintext"),
    (b"EHLO me\r\n", PASS), (b"\x00\x00\x00\x01\x02rest.", PASS), (b"\x04\x00\x00\x00\x05", PASS),
    (b"\x16\x00binary", PASS), (b"\x80\x01\x02\x03", PASS), (b"*1\r\n$4\r\nPING\r\n", PASS), (b"\x10\x20mqtt", PASS),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", PASS),
]


@pytest.mark.parametrize(("data", "wanted"), TABLE, ids=range(len(TABLE)))
def test_whole_byte_by_byte_and_cut_anywhere(data: bytes, wanted: str) -> None:
    ways = [[data], [data[at:at + 1] for at in range(len(data))]]
    ways += [[data[:at], data[at:]] for at in range(1, min(len(data), 400))]
    for pieces in ways:
        one, said = begin(NAME), UNKNOWN
        for piece in pieces:
            said = one.client(piece)
            if said:
                break
        assert (said == PASS) if wanted == PASS else (said is not UNKNOWN and wanted in said), (wanted, said)


@pytest.mark.parametrize(("data", "wanted"), [
    (hello(None), PASS), (hello("any.example"), PASS), (b"GET / HTTP/1.1\r\nHost: any.example\r\n\r\n", PASS),
    (b"GET / HTTP/1.0\r\n\r\n", PASS), (b"GET http://any.example/ HTTP/1.1\r\nHost: any.example\r\n\r\n", "HTTP for"),
    (b"CONNECT any.example:1 HTTP/1.1\r\n\r\n", "CONNECT"), (b"\x05\x01\x00", "SOCKS"), (b"SSH-2.0-x\r\n", "ssh"),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nCONNECT other.example:22 HTTP/1.1\r\n\r\n", "proxy"),
])
def test_an_address_that_is_listed(data: bytes, wanted: str) -> None:
    """It may be named anyhow, and is no proxy all the same."""
    said = begin().client(data)
    assert (said == PASS) if wanted == PASS else (said and wanted in said)


def test_a_proxy_asked_later_in_pieces() -> None:
    one = begin(NAME)
    assert one.client(b"GET / HTTP/1.1\r\nHost: api.example\r\n\r\n") == PASS
    assert one.client(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}CONNECT other.exam") == PASS
    assert "proxy" in one.client(b"ple:443 HTTP/1.1\r\n\r\n")  # type: ignore[operator]


def test_a_server_that_says_that_it_is_ssh() -> None:
    for pieces in ([b"SSH-2.0-x\r\n"], [b"SS", b"H-2.0"], [b"welcome\r\nS", b"SH-2.0-x\r\n"]):
        one = begin(NAME)
        assert "ssh" in [one.server(piece) for piece in pieces][-1]
    one = begin(NAME)
    assert one.server(b"220 hello\r\n") == PASS
    assert one.server(b"x" * 2000) == PASS
    assert one.server(b"\nSSH-2.0") == PASS       # no server does so late


@pytest.mark.parametrize(("data", "waits"), [
    (hello(NAME)[:40], True), (b"GET / HTTP/1.1\r\nHost: a", True), (b"\x05", True), (b"\x16", True),
    (b"ping", False), (b"FROB / HT", False), (b"\x00\x00", False),
])
def test_what_is_not_finished_in_time(data: bytes, waits: bool) -> None:
    one = begin(NAME)
    assert one.client(data) is UNKNOWN
    assert one.waits() == waits


def test_what_was_let_go_on_is_still_looked_at() -> None:
    one = begin(NAME)
    assert one.client(b"FROB / HT") is UNKNOWN
    assert not one.waits()
    assert one.client(b"TP/1.1\r\nHost: ") is UNKNOWN
    assert "HTTP for 'evil'" in one.client(b"evil\r\n\r\n")  # type: ignore[operator]


def test_a_beginning_that_never_ends() -> None:
    one = begin(NAME)
    head = b"GET / HTTP/1.1\r\n"
    said = one.client(head)
    while said is UNKNOWN and len(head) < 2 * MOST:
        head += b"X: " + b"y" * 1000 + b"\r\n"
        said = one.client(b"X: " + b"y" * 1000 + b"\r\n")
    assert "too long" in str(said)
    one = begin(NAME)
    said = one.client(b"\x16\x03\x01\x40\x00\x01\x00\xff\xff" + bytes((1 << 14) - 4))
    for _ in range(8):
        said = said if said else one.client(b"\x16\x03\x01\x40\x00" + bytes(1 << 14))
    assert said


def test_every_cut_of_a_hello_is_unfinished_and_every_change_is_bounded() -> None:
    data = hello(NAME)
    assert server_name(data) == NAME
    for at in range(len(data)):
        with pytest.raises(Unfinished):
            server_name(data[:at])
    for at in range(len(data)):
        for value in (0, 1, 0x7F, 0xFF, data[at] ^ 1):
            try:
                server_name(data[:at] + bytes([value]) + data[at + 1:])
            except (Unfinished, Malformed):
                continue


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.binary(max_size=60).map(lambda tail: b"\x16\x03\x01" + tail),
                 st.binary(max_size=60).map(lambda tail: b"GET / HTTP/1.1\r\n" + tail)))
def test_whatever_comes_is_told_or_waits(data: bytes) -> None:
    if data:
        one = begin(NAME)
        assert one.client(data) is UNKNOWN or one.told
        one.server(data)
        assert not (one.told and one.waits())


def test_two_server_names_are_none() -> None:
    data = bytearray(hello(NAME))
    name = NAME.encode()
    at = bytes(data).index(name) - 9           # extension 0: type, length, list's, kind, name's
    extension = bytes(data[at:at + 9 + len(name)])
    body = data[9:] + extension.replace(name, b"b" * len(name))
    extensions = body.index(extension) - 2 if body[body.index(extension) - 2:] else 0
    size = len(extension)
    where = _extensions(bytes(body))
    body[where:where + 2] = (int.from_bytes(body[where:where + 2], "big") + size).to_bytes(2, "big")
    message = b"\x01" + len(body).to_bytes(3, "big") + bytes(body)
    assert extensions
    with pytest.raises(Malformed, match="two server names"):
        server_name(b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message)


def _extensions(body: bytes) -> int:
    """Where their length stands."""
    at = 34
    at += 1 + body[at]
    at += 2 + int.from_bytes(body[at:at + 2], "big")
    return at + 1 + body[at]


def test_a_beginning_in_too_many_pieces_or_records() -> None:
    one, said = begin(NAME), UNKNOWN
    for _ in range(PIECES + 1):
        said = one.client(b"x" if said is UNKNOWN and one._pieces else b"GET ")
    assert "pieces" in str(said)
    assert "records" in str(begin(NAME).client(in_records(hello(NAME, 900), 1)))


@pytest.mark.parametrize("data", [
    b"GET" + b" " * 60_000 + b"\n", b"GET" + b" x" * 30_000 + b" \n", b"x" * 64 + b" \t" * 30_000 + b"HTTP/1\n",
    *(b"GET / HTTP/1.1\r\nHost: api.example\r\n\r\n" + one for one in (
        b"GET http://" + b"a" * 60_000, b"CONNECT " + b":1" * 30_000, b"CONNECT" + b" " * 60_000, b"A" * 60_000,
        b"CONNECT :" + b"1" * 60_000, b"GET " * 15_000, b"GET http://" * 5_000, b"A" * 30_000 + b" " * 30_000)),
])
def test_nothing_that_a_crew_says_takes_longer_than_its_length(data: bytes) -> None:
    """An expression that goes back over what it has passed takes minutes here, and the agent ends the enforcer."""
    before = time.process_time()
    begin(NAME).client(data)
    assert time.process_time() - before < 1


def test_a_long_beginning_in_small_pieces_is_not_looked_at_for_ever() -> None:
    one, before = begin(NAME), time.process_time()
    said, pieces = one.client(b"GET / HTTP/1.1\r\n"), 1
    while said is UNKNOWN:
        said, pieces = one.client(b"X: aaaaaaaa\n"), pieces + 1
    assert "pieces" in said
    assert pieces < PIECES / 2
    assert time.process_time() - before < 2


def test_random_bytes_hold_nobody_up() -> None:
    for _ in range(2000):
        begin(NAME).client(os.urandom(40))


@pytest.mark.parametrize(("data", "speaks", "name"), [
    (hello("any.example"), "tls", "any.example"), (hello(None), "tls", ""), (in_records(hello("a.example"), 3), "tls",
                                                                             "a.example"),
    (b"GET / HTTP/1.1\r\nHost: Any.Example:80\r\n\r\n", "http", "any.example"), (b"EHLO me\r\n", "", ""),
    (b"\x15\x03\x01\x00\x02\x01\x00" + hello("a.example"), "", ""), (b"\x16\x00binary", "", ""),
])
def test_what_it_is_where_anything_is_permitted(data: bytes, speaks: str, name: str) -> None:
    """As for an address that is listed: nothing is ended by it, and nothing would be."""
    for pieces in ([data], [data[at:at + 1] for at in range(len(data))]):
        one, said = Beginning((), "192.0.2.7", spoken, curious=True), UNKNOWN
        for piece in pieces:
            assert not (one.waits() and data[0] == 0x16)
            said = one.client(piece)
        assert (said, one.speaks, one.name, one.rule) == (PASS, speaks, name, "")


def test_what_is_looked_at_out_of_curiosity_alone_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first, "PIECES", 50)
    data = hello(NAME, 900)
    for curious in (True, False):
        one = Beginning(() if curious else (NAME,), "192.0.2.7", spoken, curious)
        said = next(said for at in range(60) if (said := one.client(data[at:at + 1])) is not UNKNOWN)
        assert (said == PASS) == curious
