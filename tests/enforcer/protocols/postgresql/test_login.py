"""Login, as conversations: RFC 7677's own example, and what a hostile server may try."""
from __future__ import annotations

import hashlib
import hmac
import struct
from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.credential import Credential
from enforcer.protocols.postgresql.login import Login, prepare_password
from enforcer.words.errors import AuthenticationError

CERTIFICATE = b"a certificate"


def request(kind: int, rest: bytes = b"") -> bytes:
    return struct.pack("!I", kind) + rest


def sasl(*mechanisms: str) -> bytes:
    return request(10, b"".join(name.encode() + b"\0" for name in mechanisms) + b"\0")


def login(tls: bool = True, certificate: bytes = CERTIFICATE, signature_hash: str = "sha256") -> Login:
    return Login(
        Credential("crew_svc", "pencil"), {"database": "shop"}, certificate, signature_hash, lambda n: b"\x01" * n, tls,
    )


def initial(message: bytes) -> tuple[str, bytes]:
    """(mechanism, client-first-message) of a SASLInitialResponse."""
    assert message[:1] == b"p"
    assert struct.unpack("!I", message[1:5])[0] == len(message) - 1
    name, rest = message[5:].split(b"\0", 1)
    assert struct.unpack("!I", rest[:4])[0] == len(rest) - 4
    return name.decode(), rest[4:]


class Server:
    """A SCRAM server of its own, from RFC 5802 3."""

    def __init__(self, password: bytes = b"pencil", iterations: int = 4096) -> None:
        self.salted = hashlib.pbkdf2_hmac("sha256", password, b"salt", iterations)
        self.iterations = iterations

    def first(self, client_first: bytes, extra: bytes = b"server") -> bytes:
        self.bare = client_first.split(b",", 2)[2]
        self.nonce = self.bare.split(b"r=")[1] + extra
        self.said = b"r=" + self.nonce + b",s=" + b64encode(b"salt") + b",i=" + str(self.iterations).encode()
        return request(11, self.said)

    def final(self, answer: bytes, header: bytes, binding: bytes) -> bytes:
        without, proof = answer[5:].rsplit(b",p=", 1)
        assert without == b"c=" + b64encode(header + binding) + b",r=" + self.nonce
        whole = b",".join((self.bare, self.said, without))
        client_key = hmac.digest(self.salted, b"Client Key", "sha256")
        signed = hmac.digest(hashlib.sha256(client_key).digest(), whole, "sha256")
        assert bytes(a ^ b for a, b in zip(client_key, signed, strict=True)) == b64decode(proof)
        server_key = hmac.digest(self.salted, b"Server Key", "sha256")
        return request(12, b"v=" + b64encode(hmac.digest(server_key, whole, "sha256")))


@pytest.mark.parametrize(
    ("tls", "certificate", "signature_hash", "offered", "mechanism", "header", "binding"),
    [
        (True, CERTIFICATE, "sha256", ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"), "SCRAM-SHA-256-PLUS",
         b"p=tls-server-end-point,,", hashlib.sha256(CERTIFICATE).digest()),
        (True, CERTIFICATE, "sha1", ("SCRAM-SHA-256-PLUS",), "SCRAM-SHA-256-PLUS",
         b"p=tls-server-end-point,,", hashlib.sha256(CERTIFICATE).digest()),
        (True, CERTIFICATE, "sha512", ("SCRAM-SHA-256-PLUS",), "SCRAM-SHA-256-PLUS",
         b"p=tls-server-end-point,,", hashlib.sha512(CERTIFICATE).digest()),
        (True, CERTIFICATE, "sha256", ("SCRAM-SHA-256",), "SCRAM-SHA-256", b"y,,", b""),
        (True, CERTIFICATE, "", ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"), "SCRAM-SHA-256", b"n,,", b""),
        (False, b"", "", ("SCRAM-SHA-256",), "SCRAM-SHA-256", b"n,,", b""),
    ],
)
def test_scram(tls, certificate, signature_hash, offered, mechanism, header, binding) -> None:
    mine, server = login(tls, certificate, signature_hash), Server()
    name, first = initial(mine.authentication(sasl(*offered)))
    assert (name, first.startswith(header)) == (mechanism, True)
    answer = mine.authentication(server.first(first))
    assert mine.authentication(server.final(answer, header, binding)) == b""
    assert not mine.done
    assert mine.authentication(request(0)) == b""
    assert mine.done


def test_startup_message_carries_the_real_user_and_not_the_crews() -> None:
    mine = Login(Credential("svc", "x"), {"user": "crew", "database": "d"}, b"", "", bytes, False)
    assert mine.startup_message() == struct.pack("!II", 32 - 3, 196608) + b"user\0svc\0database\0d\0\0"[:21]


def test_a_zero_byte_in_a_parameter_is_refused() -> None:
    with pytest.raises(AuthenticationError):
        Login(Credential("svc", "x"), {"database": "d\0options\0-c x"}, b"", "", bytes, False).startup_message()


def test_md5_as_the_documentation_says() -> None:
    def digest(data: bytes) -> bytes:
        return hashlib.md5(data, usedforsecurity=False).hexdigest().encode()

    answer = login().authentication(request(5, b"salt"))
    assert answer[5:] == b"md5" + digest(digest(b"pencilcrew_svc") + b"salt") + b"\0"


@pytest.mark.parametrize("kind", [1, 2, 4, 6, 7, 8, 9, 11, 12, 13, 4_000_000_000])
def test_what_weir_does_not_speak_is_refused_by_name(kind: int) -> None:
    with pytest.raises(AuthenticationError):
        login().authentication(request(kind, b"x"))


def test_ok_in_the_middle_of_scram_is_no_login() -> None:
    mine, server = login(), Server()
    _, first = initial(mine.authentication(sasl("SCRAM-SHA-256")))
    with pytest.raises(AuthenticationError, match="has not proved"):
        mine.authentication(request(0))
    mine.authentication(server.first(first))
    with pytest.raises(AuthenticationError, match="has not proved"):
        mine.authentication(request(0))
    assert not mine.done


def test_a_server_that_does_not_know_the_password_is_found_out() -> None:
    mine, server = login(), Server()
    _, first = initial(mine.authentication(sasl("SCRAM-SHA-256")))
    mine.authentication(server.first(first))
    with pytest.raises(AuthenticationError, match="could not prove"):
        mine.authentication(request(12, b"v=" + b64encode(bytes(32))))


@pytest.mark.parametrize(
    "said",
    [
        b"r=other,s=c2FsdA==,i=4096", b"r=%b,s=c2FsdA==,i=4096", b"r=%bx,s=c2FsdA==,i=4095",
        b"r=%bx,s=c2FsdA==,i=1000001", b"r=%bx,s=c2FsdA==,i=99999999999999999999", b"r=%bx,s=c2FsdA==,i=-4096",
        b"r=%bx,s=,i=4096", b"r=%bx,s=!,i=4096", b"m=x,r=%bx,s=c2FsdA==,i=4096", b"r=%bx", b"",
        b"r=%b\x01,s=c2FsdA==,i=4096", b"r=%bx,s=c2FsdA==,i=",
    ],
)
def test_malformed_server_first(said: bytes) -> None:
    mine = login()
    nonce = initial(mine.authentication(sasl("SCRAM-SHA-256")))[1].split(b"r=")[1]
    with pytest.raises(AuthenticationError):
        mine.authentication(request(11, said.replace(b"%b", nonce)))


def test_plus_without_tls_and_unknown_mechanisms() -> None:
    with pytest.raises(AuthenticationError, match="without TLS"):
        login(tls=False).authentication(sasl("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"))
    with pytest.raises(AuthenticationError, match="no SASL"):
        login().authentication(sasl("OAUTHBEARER"))


def test_a_second_request_after_the_first_is_out_of_order() -> None:
    mine = login()
    mine.authentication(request(5, b"salt"))
    with pytest.raises(AuthenticationError, match="out of order"):
        mine.authentication(request(3))
    done = login()
    done.authentication(request(0))
    with pytest.raises(AuthenticationError):
        done.authentication(request(0))


@pytest.mark.parametrize(
    ("password", "prepared"),
    [("pencil", b"pencil"), ("a\x01b", b"a\x01b"), ("I­X", b"IX"), ("Ⅸ", b"IX"), ("a b", b"a b"),
     ("raw بx", "raw بx".encode()), ("­", "­".encode())],
)
def test_saslprep_as_postgresql(password: str, prepared: bytes) -> None:
    assert prepare_password(password) == prepared


@given(st.lists(st.tuples(st.sampled_from([0, 3, 5, 10, 11, 12, 7]), st.binary(max_size=64)), max_size=4))
def test_garbage_gives_authentication_errors_only(requests: list[tuple[int, bytes]]) -> None:
    mine = login(tls=False)
    try:
        for kind, rest in requests:
            mine.authentication(request(kind, rest))
    except AuthenticationError as error:
        said = str(error)
    else:
        said = ""
    assert "pencil" not in said


def test_nothing_secret_is_shown() -> None:
    assert "pencil" not in repr(login())
