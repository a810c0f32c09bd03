"""Weir's own login at the server, with the real credential: sans-I/O.

    startup_message -> AuthenticationXxx -> answer -> ... -> AuthenticationOk

Theory: a table of the authentication requests that may come in each state.  SCRAM is one chain whose end (the server's
signature) must be seen before AuthenticationOk counts; every other method is one question and one answer.

    state      10 SASL  11 continue  12 final  3 cleartext  5 md5   0 ok
    start      first    -            -         answered     answered done
    answered   -        -            -         -            -        done
    first      -        final sent   -         -            -        -
    final sent -        -            verified  -            -        -
    verified   -        -            -         -            -        done

Sources: PostgreSQL 15 documentation 55.3, 55.7; RFC 5802, RFC 7677, RFC 5929.  Errors never hold a secret.
"""
from __future__ import annotations

import hashlib
import hmac
import struct
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Final

from scramp.utils import ScramException, saslprep  # type: ignore[import-untyped]

from agent.contract.credential import Credential
from enforcer.words.errors import AuthenticationError

PLAIN: Final = "SCRAM-SHA-256"
PLUS: Final = "SCRAM-SHA-256-PLUS"
# RFC 7677 4: at least 4096; the upper bound keeps a hostile server from stopping the loop for over half a second.
ITERATIONS: Final = range(4096, 1_000_001)
NONCE: Final = 18                     # random bytes, as libpq
BODY_LIMIT: Final = 8192              # bytes of one authentication request
VERSION: Final = 3 << 16

_NAMES: Final = {
    2: "Kerberos 5", 6: "SCM", 7: "GSSAPI", 8: "GSSAPI continuation", 9: "SSPI",
}


def prepare_password(password: str) -> bytes:
    """SASLprep (RFC 4013) as PostgreSQL does it: ASCII as it is, and the raw bytes where preparation fails."""
    if password.isascii():
        return password.encode()
    try:
        prepared: str = saslprep(password)
    except ScramException:
        return password.encode()
    return (prepared or password).encode()


class Login:
    """`startup` are the client's permitted startup parameters, `database` among them; its `user` is not used.

    `certificate` is the server's in DER and `signature_hash` the hash of its signature ("sha256"; "" where it has none,
    as Ed25519): channel binding tls-server-end-point.  `random(n)` gives n unpredictable bytes.
    """

    def __init__(
        self, credential: Credential, startup: dict[str, str], certificate: bytes, signature_hash: str,
        random: Callable[[int], bytes], tls: bool,
    ) -> None:
        self._credential, self._startup, self._random, self._tls = credential, startup, random, tls
        self._certificate, self._hash = certificate, signature_hash
        self._state = "start"
        self._header = b""            # gs2 header, RFC 5802 7
        self._bare = b""              # client-first-message-bare
        self._nonce = b""
        self._signature = b""         # what the server must prove
        self.done = False

    def __repr__(self) -> str:
        return f"Login(user={self._credential.user!r}, state={self._state!r})"

    def startup_message(self) -> bytes:
        """StartupMessage of protocol 3.0 (55.7)."""
        wanted = {"user": self._credential.user, **{k: v for k, v in self._startup.items() if k != "user"}}
        if not self._credential.user:
            raise AuthenticationError("the credential names no user")
        if any("\0" in part for pair in wanted.items() for part in pair):
            raise AuthenticationError("a startup parameter holds a zero byte")
        body = b"".join(f"{name}\0{value}\0".encode() for name, value in wanted.items()) + b"\0"
        return struct.pack("!II", len(body) + 8, VERSION) + body

    def authentication(self, body: bytes) -> bytes:
        """Answer to the body of one AuthenticationXxx message ('R'), b"" where none is due."""
        if not 4 <= len(body) <= BODY_LIMIT:
            raise AuthenticationError("the server sent an authentication request of an impossible length")
        kind: int = struct.unpack_from("!I", body)[0]
        step = _STEPS.get((self._state, kind))
        if step is None:
            raise AuthenticationError(self._unexpected(kind))
        return step(self, body[4:])

    def _unexpected(self, kind: int) -> str:
        if self._state in ("first", "sent") and kind == 0:
            return "the server skipped the end of SCRAM: it has not proved that it knows the password"
        if self._state != "start":
            return f"the server sent authentication request {kind} out of order"
        return f"the server asks for {_NAMES.get(kind, f'authentication request {kind}')}, which Weir does not speak"

    def _ok(self, rest: bytes) -> bytes:
        self._state, self.done = "done", True
        return b""

    def _password(self) -> bytes:
        if not self._credential.password:
            raise AuthenticationError("the server asks for a password and the credential has none")
        if "\0" in self._credential.password:
            raise AuthenticationError("the credential's password holds a zero byte")
        return self._credential.password.encode()

    def _cleartext(self, rest: bytes) -> bytes:
        if not self._tls:
            raise AuthenticationError("the server asks for the password in clear text over a connection without TLS")
        self._state = "answered"
        return _password_message(self._password() + b"\0")

    def _md5(self, rest: bytes) -> bytes:
        if len(rest) != 4:
            raise AuthenticationError("the server sent a malformed md5 request")
        # 55.3: "md5" + md5(md5(password + user) + salt), inner digest in hexadecimal
        inner = _md5_hex(self._password() + self._credential.user.encode())
        self._state = "answered"
        return _password_message(b"md5" + _md5_hex(inner + rest) + b"\0")

    def _sasl(self, rest: bytes) -> bytes:
        offered = rest.split(b"\0")
        if len(offered) < 3 or offered[-2:] != [b"", b""]:
            raise AuthenticationError("the server sent a malformed list of SASL mechanisms")
        mechanism = self._choose(offered[:-2])
        self._password()
        self._nonce = b64encode(self._random(NONCE))
        self._bare = b"n=,r=" + self._nonce      # PostgreSQL takes the user from the startup message (55.3.1)
        first = self._header + self._bare
        self._state = "first"
        return _password_message(mechanism.encode() + b"\0" + struct.pack("!I", len(first)) + first)

    def _choose(self, offered: list[bytes]) -> str:
        """RFC 5802 6: PLUS whenever it can be, "y" where the server seems not to know it, else "n"."""
        bindable = self._tls and bool(self._certificate) and bool(self._hash)
        if PLUS.encode() in offered:
            if not self._tls:
                raise AuthenticationError("the server offers SCRAM-SHA-256-PLUS over a connection without TLS")
            if bindable:
                self._header = b"p=tls-server-end-point,,"
                return PLUS
        if PLAIN.encode() not in offered:
            raise AuthenticationError("the server offers no SASL mechanism that Weir speaks (SCRAM-SHA-256)")
        self._header = b"y,," if bindable else b"n,,"
        return PLAIN

    def _continue(self, rest: bytes) -> bytes:
        nonce, salt, iterations = _server_first(rest)
        # RFC 5802 5.1: the server's nonce begins with ours and adds to it
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise AuthenticationError("the server's SCRAM nonce does not extend Weir's")
        salted = hashlib.pbkdf2_hmac("sha256", prepare_password(self._credential.password), salt, iterations)
        without_proof = b"c=" + b64encode(self._header + self._binding()) + b",r=" + nonce
        said = b",".join((self._bare, rest, without_proof))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        proof = _xor(client_key, hmac.digest(hashlib.sha256(client_key).digest(), said, "sha256"))
        self._signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), said, "sha256")
        self._state = "sent"
        return _password_message(without_proof + b",p=" + b64encode(proof))

    def _binding(self) -> bytes:
        if not self._header.startswith(b"p="):
            return b""
        # RFC 5929 4.1: the hash of the certificate's signature, SHA-256 where that is MD5 or SHA-1
        name = "sha256" if self._hash in ("md5", "sha1") else self._hash
        try:
            return hashlib.new(name, self._certificate).digest()
        except ValueError:
            raise AuthenticationError(f"no channel binding for a certificate signed with {name}") from None

    def _final(self, rest: bytes) -> bytes:
        for attribute in rest.split(b","):
            if attribute.startswith(b"e="):
                raise AuthenticationError("the server refused Weir's SCRAM proof")
        shown = rest.split(b",")[0]
        if not shown.startswith(b"v=") or not hmac.compare_digest(_base64(shown[2:]), self._signature):
            raise AuthenticationError("the server could not prove that it knows the password (SCRAM signature)")
        self._state = "verified"
        return b""


_STEPS: Final[dict[tuple[str, int], Callable[[Login, bytes], bytes]]] = {
    ("start", 0): Login._ok,
    ("start", 3): Login._cleartext,
    ("start", 5): Login._md5,
    ("start", 10): Login._sasl,
    ("answered", 0): Login._ok,
    ("first", 11): Login._continue,
    ("sent", 12): Login._final,
    ("verified", 0): Login._ok,
}


def _server_first(message: bytes) -> tuple[bytes, bytes, int]:
    """(nonce, salt, iterations) of server-first-message; mandatory extensions (m=) are refused, RFC 5802 5.1."""
    parts = message.split(b",")
    if len(parts) < 3 or not (parts[0][:2], parts[1][:2], parts[2][:2]) == (b"r=", b"s=", b"i="):
        raise AuthenticationError("the server sent a malformed SCRAM message")
    digits = parts[2][2:]
    if not digits.isdigit() or len(digits) > 9 or int(digits) not in ITERATIONS:
        raise AuthenticationError(
            f"the server asks for a SCRAM iteration count outside {ITERATIONS.start} to {ITERATIONS.stop - 1}"
        )
    salt = _base64(parts[1][2:])
    if not salt or not _printable(parts[0][2:]):
        raise AuthenticationError("the server sent a malformed SCRAM message")
    return parts[0][2:], salt, int(digits)


def _printable(nonce: bytes) -> bool:
    return all(0x21 <= byte <= 0x7E for byte in nonce)     # RFC 5802 7, `printable` (a comma cannot be here)


def _base64(text: bytes) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise AuthenticationError("the server sent a malformed SCRAM message") from None


def _password_message(body: bytes) -> bytes:
    """PasswordMessage, SASLInitialResponse and SASLResponse are all 'p'."""
    return b"p" + struct.pack("!I", len(body) + 4) + body


def _md5_hex(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).hexdigest().encode()


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
