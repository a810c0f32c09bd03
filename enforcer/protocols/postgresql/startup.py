"""From accept to the first ReadyForQuery: sans-I/O.

    first -> (tls ->) -> asked -> connecting -> (negotiating ->) -> login -> ready

Theory: the client says who it wants to be; Weir decides, dials, logs in with the real credential, learns what names
mean in this database, and only then answers the client, who is trusted by attribution.  Whatever comes from the client
meanwhile waits, up to a bound.

Sources: PostgreSQL 15 documentation 55.2.1 Start-up, 55.2.10 SSL Session Encryption, 55.7.
"""
from __future__ import annotations

import struct
from typing import Final

import msgspec

from agent.contract.credential import Credential
from enforcer.core.context import Context
from enforcer.core.sessions import session_opened
from enforcer.hot.chain import make_digest
from enforcer.hot.wire import Framing
from enforcer.protocols.postgresql import errors, settings
from enforcer.protocols.postgresql.book import Book, Operation
from enforcer.protocols.postgresql.catalogue import Catalogue
from enforcer.protocols.postgresql.errors import Denial
from enforcer.protocols.postgresql.login import Login as Exchange
from enforcer.protocols.postgresql.meaning import ASK, ASK_TEXT, parse_answer
from enforcer.protocols.postgresql.messages import (
    CANCEL_REQUEST,
    GSSENC_REQUEST,
    PROTOCOL_3,
    SSL_REQUEST,
    STARTUP_LIMIT,
    SYNC,
    parse_startup,
    render,
)
from enforcer.protocols.postgresql.operations.words import Meaning
from enforcer.words import commands as words
from enforcer.words import inputs
from enforcer.words.commands import CLIENT, SERVER, Command, Record, SendData, StartTls
from enforcer.words.decisions import PERMIT
from enforcer.words.errors import AuthenticationError, RemoteProtocolError
from enforcer.words.operations import Request

EARLY_LIMIT: Final = 64 << 10         # bytes that a client may send before it is answered
READ: Final = 1 << 20                 # bytes that may be under way when reading is paused
ANSWER_LIMIT: Final = 1 << 20         # bytes of one message of the server during login
RELAYED_LIMIT: Final = 64 << 10       # bytes of the server's parameters
KEY: Final = 4                        # bytes of Weir's own cancel secret, protocol 3.0
_HANDSHAKE_RECORD: Final = 0x16       # RFC 8446 5.1: a client that begins with TLS
_NO: Final = frozenset(("", "0", "off", "false", "no", "f", "n"))


class Refusal(Exception):
    """The connection ends here, with these last words; `rules` that decided."""

    def __init__(self, denial: Denial, rules: tuple[str, ...] = ()) -> None:
        super().__init__(denial.message)
        self.denial, self.rules = denial, rules


class Startup:
    """Gives commands until `done`; then `meaning`, `early` (bytes of the client) and `opened` are there."""

    def __init__(self, context: Context, book: Book) -> None:
        self._context, self._book = context, book
        self.phase = "first"
        self.done = False
        self.opened = False           # on record
        self.early = b""
        self.meaning: Meaning | None = None
        self.status = b"I"
        self._client = bytearray()
        self._client_tls = self._server_tls = ""
        self._plain_refused = False
        self._wanted: dict[str, str] = {}
        self._database = self._role = ""
        self._options: list[str] = []
        self._minor = 0
        self._credential: Credential | None = None
        self._address = ""
        self._certificate, self._hash = b"", ""
        self._exchange: Exchange | None = None
        self._framing = Framing(ANSWER_LIMIT, b"", b"RENSKZDT123Cnv")
        self._relayed: list[bytes] = []
        self._backend = (0, b"")
        self._login: Operation | None = None
        self._asked: Operation | None = None
        self._said: bytes | None = None
        self._catalogue: Catalogue | None = None

    # The client

    def from_client(self, data: bytes) -> list[Command]:
        if self.phase == "tls":
            raise RemoteProtocolError("received unencrypted data after an encryption request")
        self._client += data
        if self.phase != "first":
            if len(self._client) <= EARLY_LIMIT:
                return []
            if len(self._client) > 2 * EARLY_LIMIT + READ:
                raise RemoteProtocolError("too much was sent before the login's answer")
            return [words.PauseReading(CLIENT)]
        if self._client[0] == _HANDSHAKE_RECORD and not self._client_tls:
            raise RemoteProtocolError("direct TLS is not spoken here: leave sslnegotiation at \"postgres\"")
        if len(self._client) < 8:
            return []
        length, code = struct.unpack_from("!II", self._client)
        if not 8 <= length <= STARTUP_LIMIT:
            raise RemoteProtocolError("invalid length of startup packet")
        if len(self._client) < length:
            return []
        body = bytes(self._client[8:length])
        del self._client[:length]
        return self._first(code, body)

    def _first(self, code: int, body: bytes) -> list[Command]:
        if code in (SSL_REQUEST, GSSENC_REQUEST):
            if self._client or body:
                # CVE-2021-23214: what was stuffed before encryption must not be read as if it came after.
                raise RemoteProtocolError("received unencrypted data after an encryption request")
            if self._client_tls or (self._plain_refused and code == SSL_REQUEST):
                raise RemoteProtocolError("encryption was asked for twice")
            return self._encrypt(code)
        if code == CANCEL_REQUEST:
            if not 8 <= len(body) <= 260 or self._client:
                raise RemoteProtocolError("invalid length of cancel request")
            self.phase = "cancel"
            return [words.CancelRequest(struct.unpack_from("!I", body)[0], body[4:])]
        if code >> 16 != PROTOCOL_3:
            raise Refusal(Denial(
                "0A000", f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}: server supports 3.0"))
        self._minor = code & 0xFFFF
        return self._startup(parse_startup(body))

    def _encrypt(self, code: int) -> list[Command]:
        if code == GSSENC_REQUEST:
            return [SendData(CLIENT, b"N")]
        # Over a Unix socket there is no TLS (fe-connect.c, and the server itself says so): it has no name to verify.
        if not self._context.target.leaf_certificate or self._context.principal.owner.local:
            self._plain_refused = True
            return [SendData(CLIENT, b"N")]
        self.phase = "tls"
        return [StartTls(CLIENT, b"S")]

    def _startup(self, wanted: dict[str, str]) -> list[Command]:
        context = self._context
        self._role = wanted.pop("user", "")
        if not self._role:
            raise Refusal(Denial(errors.INVALID_AUTHORIZATION, "no PostgreSQL user name specified in startup packet"))
        self._database = wanted.pop("database", "") or self._role
        if wanted.pop("replication", "").lower() not in _NO:
            raise Refusal(Denial(errors.FEATURE_NOT_SUPPORTED, "Weir does not carry replication connections"))
        self._options = [name for name in wanted if name.startswith("_pq_.")]
        for name, value in wanted.items():
            reason = "" if name.startswith("_pq_.") else settings.permitted(name, value)
            if reason:
                raise Refusal(Denial(errors.FEATURE_NOT_SUPPORTED, reason))
        self._wanted = {name: value for name, value in wanted.items() if not name.startswith("_pq_.")}
        if context.target.databases and self._database not in context.target.databases:
            raise Refusal(Denial(errors.INVALID_AUTHORIZATION,
                                 f'database "{self._database}" is not registered with target {context.target.name}'))
        self._decide()
        self.phase = "connecting"
        return [words.Login(self._database, self._role), words.OpenConnection()]

    def _decide(self) -> None:
        context = self._context
        request = Request("connect", "Database", (context.target.name, self._database))
        decision = context.gate.decide(context.principal, (request,))
        if decision.outcome != PERMIT:
            reason = decision.reason or f'connecting to database "{self._database}" is not permitted'
            raise Refusal(Denial(errors.INVALID_AUTHORIZATION, reason,
                                 f"Weir policy: {', '.join(decision.rules) or 'none permits it'}."), decision.rules)

    # Everything else

    def handle(self, event: inputs.Input) -> list[Command]:
        if isinstance(event, inputs.TlsStarted):
            return self._tls(event)
        if isinstance(event, inputs.CredentialReady):
            self._credential = event.credential
            return self._reach()
        if isinstance(event, inputs.Connected):
            self._address = event.address
            return self._reach()
        if isinstance(event, inputs.CredentialFailed):
            raise Refusal(Denial(errors.INVALID_AUTHORIZATION,
                                 f"no credential for {self._database} as {self._role}: {event.reason}"))
        if isinstance(event, inputs.ConnectFailed):
            raise Refusal(Denial(errors.CANNOT_CONNECT, f"target {self._context.target.name}: {event.reason}"))
        if isinstance(event, inputs.CatalogueReady):
            if not isinstance(event.catalogue, Catalogue):
                raise Refusal(Denial(errors.IO_ERROR, event.reason or "the catalogue could not be read"))
            self._catalogue = event.catalogue
            return self._finish()
        return []

    def _tls(self, event: inputs.TlsStarted) -> list[Command]:
        if event.peer == CLIENT:
            self._client_tls, self.phase = event.version, "first"
            return []
        self._server_tls, self._certificate, self._hash = event.version, event.certificate, event.signature_hash
        return self._log_in()

    def _reach(self) -> list[Command]:
        if self._credential is None or not self._address:
            return []
        if self._context.target.tls == "disable":
            return self._log_in()
        self.phase = "negotiating"
        return [SendData(SERVER, struct.pack("!II", 8, SSL_REQUEST))]

    def _log_in(self) -> list[Command]:
        assert self._credential is not None
        self.phase = "login"
        startup = {"database": self._database, **self._wanted, "client_encoding": "UTF8"}
        self._exchange = Exchange(
            self._credential, startup, self._certificate, self._hash, self._context.random, bool(self._server_tls))
        message = self._exchange.startup_message()
        self._login = self._book.say("login", f"{self._credential.user} at {self._database}".encode())
        return [*self._book.take(), SendData(SERVER, message)]

    # The server

    def from_server(self, data: bytes) -> list[Command]:
        if self.phase == "negotiating":
            return self._answered_tls(data)
        if self.phase != "login":
            raise RemoteProtocolError("the server spoke out of turn")
        whole, places = self._framing.feed(data)
        commands: list[Command] = []
        for i in range(0, len(places), 4):
            if places[i] == 0x5A and (i + 4 < len(places) or self._framing.waiting):
                raise RemoteProtocolError("the server spoke out of turn")
            body = whole[places[i + 1] + 5:places[i + 2]]
            commands += self._message(places[i], body)
        if self._framing.error:
            raise RemoteProtocolError(self._framing.error)
        return commands

    def _answered_tls(self, data: bytes) -> list[Command]:
        if data == b"S":
            self.phase = "tls upstream"
            return [StartTls(SERVER)]
        if data[:1] == b"S":
            raise RemoteProtocolError("the server sent unencrypted data after its answer to the TLS request")
        raise Refusal(Denial(errors.CANNOT_CONNECT, f"target {self._context.target.name} does not offer TLS",
                             "", 'Set tls = "disable" for the target only where the network is trusted.'))

    def _message(self, kind: int, body: bytes) -> list[Command]:
        exchange = self._exchange
        assert exchange is not None
        if kind == 0x52:                          # R: Authentication
            answer = exchange.authentication(body)
            return [SendData(SERVER, answer)] if answer else []
        if kind == 0x45:                          # E: ErrorResponse
            return self._failed(body)
        if kind == 0x4E:                          # N: NoticeResponse
            return []
        if not exchange.done:
            raise AuthenticationError(f"the server sent {chr(kind)!r} before its login was complete")
        return self._after_login(kind, body)

    def _after_login(self, kind: int, body: bytes) -> list[Command]:
        if kind == 0x53:                          # S: ParameterStatus
            reason = pinned(body)
            if reason:
                raise Refusal(Denial(errors.FEATURE_NOT_SUPPORTED, reason))
            self._relayed.append(render(b"S", body))
            if sum(map(len, self._relayed)) > RELAYED_LIMIT:
                raise RemoteProtocolError("the server has too many parameters")
        elif kind == 0x4B and len(body) >= 8:     # K: BackendKeyData
            self._backend = (struct.unpack_from("!I", body)[0], body[4:])
        elif kind == 0x5A:                        # Z: ReadyForQuery
            return self._ready(body)
        elif kind == 0x44 and self._asked is not None:
            self._said = body
        elif self._asked is None or kind not in b"12T3CnD":
            raise RemoteProtocolError(f"the server sent {chr(kind)!r} during login")
        return []

    def _ready(self, body: bytes) -> list[Command]:
        if self._asked is None:
            if body != b"I":
                raise RemoteProtocolError("the server begins in a transaction")
            # Before the first statement: what the server's log says of this backend must find its session.
            self._book.records.append(Record(self._opened()))
            self.opened = True
            self._asked = self._book.say("meaning", ASK_TEXT, make_digest(self._context.forwarded_key, ASK_TEXT))
            return [*self._book.take(), SendData(SERVER, ASK + SYNC),
                    words.LoadCatalogue(self._database, 0)]
        if body != b"I" or self._said is None:
            raise RemoteProtocolError("the server did not say what names mean")
        self._book.result(self._asked, "ok", "SELECT 1")
        self.phase = "learning"
        return self._finish()

    def _failed(self, body: bytes) -> list[Command]:
        code, _, text = errors.told(body)
        if self._login is not None:
            self._book.result(self._login, "error", "", code, text)
        raise Refusal(Denial(
            code or errors.INVALID_AUTHORIZATION, f"login at target {self._context.target.name}: {text}"))

    def _finish(self) -> list[Command]:
        if self._catalogue is None or self.phase != "learning":
            return []
        assert self._said is not None
        assert self._login is not None
        self.meaning = parse_answer(self._said, self._catalogue)
        self._book.result(self._login, "ok")
        self.done = True
        self.early = bytes(self._client)
        process, secret = struct.unpack("!I", self._context.random(4))[0] & 0x7FFFFFFF, self._context.random(KEY)
        hello = b"".join((
            self._negotiation(), render(b"R", bytes(4)), *self._relayed,
            render(b"K", struct.pack("!I", process) + secret), render(b"Z", b"I"),
        ))
        return [*self._book.take(), words.Registered(process, secret, *self._backend), SendData(CLIENT, hello),
                words.ResumeReading(CLIENT)]

    def _negotiation(self) -> bytes:
        """55.2.1: a newer minor version or unknown options are negotiated down to 3.0."""
        if not self._minor and not self._options:
            return b""
        names = b"".join(name.encode() + b"\0" for name in self._options)
        return render(b"v", struct.pack("!II", 0, len(self._options)) + names)

    def _opened(self) -> msgspec.Struct:
        user = self._credential.user if self._credential else ""
        return session_opened(
            self._context, "postgresql", self._role, upstream=f"{user}@{self._address} {self._server_tls}".rstrip(),
            client_tls=self._client_tls, application=self._wanted.get("application_name", "")[:256],
            database=self._database, backend=self._backend[0])


def pinned(body: bytes) -> str:
    """Why this ParameterStatus cannot be: statements are read as UTF8 with standard strings (meaning barrier)."""
    name, _, value = body.rstrip(b"\0").partition(b"\0")
    if name == b"client_encoding" and value.upper() != b"UTF8":
        return f"client_encoding is {value.decode('utf-8', 'replace')}: Weir reads statements as UTF8 only"
    if name == b"server_encoding" and value not in (b"UTF8", b"SQL_ASCII"):
        # Such a server cuts names at other places and folds other letters than Weir does.
        return f"the database's encoding is {value.decode('utf-8', 'replace')}: Weir reads names in UTF8 only"
    if name == b"standard_conforming_strings" and value != b"on":
        return "standard_conforming_strings is off: Weir reads statements with standard strings only"
    return ""
