"""The SSH transport and user authentication of both sides: asyncssh's, on a transport in memory.

What asyncssh writes comes out at `Transport`, what it is fed goes in by `feed`; messages of the connection protocol
(RFC 4254, from 80 on) come out at `Events.message` and are sent by `send`: asyncssh's own channels are not used.  Names
of asyncssh that begin with an underscore are those of the version in the lock file; tests/enforcer/protocols/ssh/
test_wire.py shows that they still mean the same.

Only this module imports asyncssh.
"""
from __future__ import annotations

import asyncio
import copy
import ipaddress
import logging
import os
import zlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from agent.contract.credential import Credential
from agent.contract.target import Target
from enforcer.protocols.ssh.libraries import found_by_name
from enforcer.protocols.ssh.messages import (
    CHANNEL_OPEN,
    DATA,
    EOF,
    EXTENDED_DATA,
    FIRST,
    GLOBAL_REQUEST,
    REQUEST,
    Fields,
    show_printable,
)
from enforcer.words.errors import AuthenticationError, ProtocolError

with found_by_name():
    import asyncssh
    from asyncssh import public_key

SLICE: Final = 33 << 10               # bytes that asyncssh is fed at a time: it copies what it has not read yet
FULL: Final = 256 << 10               # bytes that may wait while it looks at one message
BY_APPLICATION: Final = 11            # disconnect reasons, RFC 4253 11.1
PROTOCOL: Final = 2
VERSION: Final = "Weir"
IGNORE: Final = 2                     # RFC 4250 4.1.2
KEXINIT: Final = 20
EXCHANGES: Final = 100                # key exchanges that a peer may begin at once,
EXCHANGED: Final = 2.0                # and a second: one may cost a twentieth of it
UNPACKED: Final = 256 << 10           # bytes of a message that came compressed
LATE: Final = 256 << 10               # bytes that may wait for the end of a key exchange: then the other side waits,
MOST: Final = 96 << 20                # and its windows, and what has none, have an end
PLACE: Final = 200                    # bytes that a message takes besides its own
LIST: Final = 16 << 10                # bytes of a list of algorithms
PATIENCE: Final = 1.0                 # seconds that a client's list may take before Weir's own is sent
DECIDED: Final = frozenset((GLOBAL_REQUEST, CHANNEL_OPEN, REQUEST))      # messages that may cost a decision each
# What the other side wants said; whatever else there is answers what the peer itself has said.
ASKED: Final = frozenset((GLOBAL_REQUEST, CHANNEL_OPEN, REQUEST, DATA, EXTENDED_DATA, EOF))
TURNS: Final = 100                    # of the loop, in which what a peer has sent before it went is read
TURN: Final = 32                      # of them, or of 32 bytes of them, until others have their turn
METHODS: Final = ("none", "publickey", "password", "keyboard-interactive")
# AES-GCM first: it is what a processor does fastest, and asyncssh copies least for it.
CIPHERS: Final = (
    "aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr", "aes192-ctr",
    "aes256-ctr")
# That a crew may choose.  Not what costs Weir much at each exchange, all others' time (milliseconds; the rest 1 to 15):
# rsa2048-sha256 makes a key (hundreds), groups 17 and 18 (50), and a client may ask the group exchange for these.
EXCHANGES_OF_CREWS: Final = (
    "mlkem768x25519-sha256", "mlkem768nistp256-sha256", "mlkem1024nistp384-sha384", "curve25519-sha256",
    "curve25519-sha256@libssh.org", "curve448-sha512", "ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521",
    "diffie-hellman-group14-sha256", "diffie-hellman-group16-sha512", "diffie-hellman-group14-sha1")
COMPRESSION: Final = ("none", "zlib@openssh.com", "zlib")


class Events(Protocol):
    """Who is told, by either side."""

    def written(self, peer: int, data: bytes, answers: bool) -> None:
        """Bytes for this peer's socket; `answers`: what it has itself asked."""
        ...

    def message(self, peer: int, payload: bytes) -> None:
        """Of the connection protocol, first its number.  May raise ProtocolError: the peer is told, and it ends."""
        ...

    def admit(self, account: str, then: Callable[[str], None]) -> None:
        """The client has authenticated: may it in?  `then` is told why not, else ""."""
        ...

    def ready(self, peer: int) -> None:
        """Authentication is over and messages may be sent."""
        ...

    def over(self, peer: int, error: Exception | None) -> None:
        """The connection has ended: None where it said goodbye.  The last that is heard of it."""
        ...

    def full(self, peer: int, on: bool) -> None: ...

    def relieved(self, peer: int) -> None:
        """What waited to be sent has gone."""
        ...

    def broken(self, error: Exception) -> None:
        """A bug."""
        ...


class Transport(asyncio.Transport):
    """What asyncssh takes for its socket."""

    def __init__(self, peer: int, events: Events) -> None:
        super().__init__()
        self._peer, self._events = peer, events
        self.closed = False
        self.answers = False          # what is written now

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self.closed:
            self._events.written(self._peer, bytes(data), self.answers)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


class _Channels(dict[int, Any]):
    """Of any number: asyncssh hands its messages to the connection itself."""

    def __init__(self, connection: object) -> None:
        super().__init__()
        self._connection = connection

    def __missing__(self, number: int) -> object:
        return self._connection


class _Unpacked:
    """Of a stream that is compressed: asyncssh's own would make a gigabyte of a megabyte."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj()

    def decompress(self, data: bytes) -> bytes | None:
        try:
            found = self._stream.decompress(data, UNPACKED + 1)
        except zlib.error:
            return None
        return None if len(found) > UNPACKED or self._stream.unconsumed_tail else found


class _Wire:
    """Before asyncssh's class, in both sides."""

    _peer: int
    _events: Events
    _waits: bool
    _late: int                        # bytes that wait for the end of a key exchange or the login
    _exchanges: float
    _exchanged: float
    _turn: int                        # requests, and their size, since others had theirs
    why: Exception | None             # what it ended by, before `over` is told: the loop does that in its next turn

    def _begin(self: Any, peer: int, events: Events) -> None:
        self._peer, self._events, self._waits, self.why = peer, events, False, None
        self._late, self._exchanges, self._exchanged, self._turn = 0, 0.0, self._loop.time(), 0
        self._channels: Any = _Channels(self)

    def open(self: Any) -> None:
        self.connection_made(Transport(self._peer, self._events))

    def feed(self: Any, data: bytes) -> None:
        self.data_received(data)
        if not self._waits and len(self._inpbuf) > FULL:
            self._waits = True
            self._events.full(self._peer, True)

    def _recv_data(self: Any) -> None:
        """In slices, also of what had to wait; after the end nothing."""
        came, self._inpbuf = self._inpbuf, b""
        for at in range(0, len(came), SLICE):
            if self._transport is None:
                break
            self._inpbuf += came[at:at + SLICE]
            super()._recv_data()  # type: ignore[misc]
        if self._waits and len(self._inpbuf) < FULL:
            self._waits = False
            self._events.full(self._peer, False)

    def process_packet(self: Any, kind: int, number: int, packet: Any) -> Any:
        if self._transport is None:            # what stood behind a goodbye
            return True
        if kind == KEXINIT:
            self._count_exchange()
        if kind < FIRST:
            return super().process_packet(kind, number, packet)  # type: ignore[misc]
        try:
            self._events.message(self._peer, packet.get_full_payload())
        except ProtocolError as error:
            raise asyncssh.ProtocolError(str(error)) from None
        except Exception as error:             # asyncssh would take it for the peer's
            self._events.broken(error)
            raise asyncssh.ProtocolError("internal error of Weir") from None
        return self._next_turn(len(packet.get_full_payload())) if kind in DECIDED else True

    def _next_turn(self: Any, size: int) -> Any:
        """Others have theirs between the requests of a peer that sends many at once."""
        self._turn += 1 + size // 32
        if self._turn < TURN:
            return True
        self._turn = 0
        return asyncio.sleep(0)                # nothing more is read until then

    def _count_exchange(self: Any) -> None:
        now = self._loop.time()
        self._exchanges = max(0.0, self._exchanges - (now - self._exchanged) * EXCHANGED) + 1
        self._exchanged = now
        if self._exchanges > EXCHANGES:
            raise asyncssh.ProtocolError("too many key exchanges")

    def send_newkeys(self: Any, k: bytes, h: bytes) -> None:
        super().send_newkeys(k, h)  # type: ignore[misc]
        if self._next_decompressor is not None:
            self._next_decompressor: Any = _Unpacked()

    def when_read(self: Any, then: Callable[[], None], turns: int = TURNS) -> None:
        """`then`, once what has come is read: asyncssh does that in turns of the loop.  No more than so many."""
        if turns and self._transport is not None and self._tasks:
            self._loop.call_soon(self.when_read, then, turns - 1)
            return
        try:
            then()
        except Exception as error:             # the loop would pass over it
            self._events.broken(error)

    @property
    def behind(self) -> bool:
        """More waits to be sent than should: until `relieved`."""
        return self._late > LATE

    def _delay(self: Any, size: int) -> None:
        """A peer may begin a key exchange and never end it."""
        self._late += size + PLACE
        if self._late > MOST and self._transport is not None:
            self._send_disconnect(BY_APPLICATION, "a key exchange that does not end", "en")
            self._force_close(asyncssh.ProtocolError("a key exchange that does not end"))

    def _send_deferred_packets(self: Any) -> None:
        super()._send_deferred_packets()  # type: ignore[misc]
        before, self._late = self._late, sum(
            PLACE + sum(map(len, given)) for _, given in self._deferred_packets)
        if before > LATE >= self._late:
            self._events.relieved(self._peer)

    def _force_close(self: Any, exc: Exception | None) -> None:
        self.why = self.why or exc
        super()._force_close(exc)  # type: ignore[misc]

    def _cleanup(self: Any, exc: Exception | None) -> None:
        super()._cleanup(exc)  # type: ignore[misc]
        for task in tuple(self._tasks):        # nobody waits for what it waits for
            task.cancel()

    def send_packet(self: Any, pkttype: int, *args: bytes, handler: Any = None) -> None:
        if self._transport is not None and pkttype != IGNORE:  # that stands before another
            self._transport.answers = pkttype not in ASKED
        super().send_packet(pkttype, *args, handler=handler)  # type: ignore[misc]

    def send(self: Any, payload: bytes) -> None:
        """As `send_packet`, without the empty message that it puts before each (against what CBC ciphers leak, which
        are not offered here), where nothing else is to be done."""
        if (not self._auth_complete or not self._kex_complete or self._compressor or not self._send_encryption
                or self._rekey_bytes_sent >= self._rekey_bytes or self._loop.time() >= self._rekey_time):
            self.send_packet(payload[0], payload[1:])
            if not self._auth_complete or not self._kex_complete:
                self._delay(len(payload))
            return
        pad = -(self._send_enchdrlen + len(payload)) % self._send_blocksize
        pad += self._send_blocksize if pad < 4 else 0
        size = 1 + len(payload) + pad
        sequence = self._send_seq
        packet, mac = self._send_encryption.encrypt_packet(
            sequence, size.to_bytes(4, "big"), b"".join((bytes((pad,)), payload, os.urandom(pad))))
        if self._transport is not None:
            self._transport.answers = payload[0] not in ASKED
        self._send(packet + mac)
        self._send_seq = (sequence + 1) & 0xFFFFFFFF
        self._rekey_bytes_sent += size

    def log_received_packet(self, *given: Any, **named: Any) -> None:
        """What is sent is nobody's to log."""

    def log_sent_packet(self, *given: Any, **named: Any) -> None: ...

    def describe(self: Any) -> str:
        """The algorithms, as a recording has them."""
        found = self.get_extra_info
        mac = "" if "gcm" in (cipher := found("send_cipher", "")) or "poly" in cipher else f" {found('send_mac', '')}"
        compressed = found("send_compression", "none")
        return f"SSH {cipher}{mac}" + ("" if compressed == "none" else f" {compressed}")

    def end(self: Any, code: int, reason: str) -> None:
        """Say goodbye."""
        if self._transport is not None:
            self._send_disconnect(code, reason, "en")
            self._force_close(None)

    def drop(self: Any) -> None:
        """The socket is lost."""
        if self._transport is not None:
            self._force_close(None)


class _Owner:
    """What asyncssh asks of its user, on both sides."""

    def __init__(self, peer: int, events: Events) -> None:
        self._peer, self._events = peer, events

    def connection_made(self, conn: object) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None:
        try:
            self._events.over(self._peer, exc)
        except Exception as error:             # asyncssh would pass over it
            self._events.broken(error)

    def debug_msg_received(self, msg: str, lang: str, always_display: bool) -> None: ...

    def auth_banner_received(self, msg: str, lang: str) -> None: ...


class _Crew(_Owner, asyncssh.SSHServer):
    """Whoever is attributed may in: what a client sends to prove who it is proves nothing here."""

    def __init__(self, peer: int, events: Events, methods: tuple[str, ...]) -> None:
        super().__init__(peer, events)
        self._methods = methods

    def begin_auth(self, username: str) -> bool:
        return "none" not in self._methods

    def public_key_auth_supported(self) -> bool:
        return "publickey" in self._methods

    def validate_public_key(self, username: str, key: object) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return "password" in self._methods

    def validate_password(self, username: str, password: str) -> bool:
        return True

    def kbdint_auth_supported(self) -> bool:
        return "keyboard-interactive" in self._methods

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> tuple[Any, ...]:
        return "", "", "", [("Password: ", False)]

    def validate_kbdint_response(self, username: str, responses: object) -> bool:
        return True

    def auth_completed(self) -> None:
        self._events.ready(self._peer)


class _Server(_Owner, asyncssh.SSHClient):
    def auth_completed(self) -> None:
        self._events.ready(self._peer)


class CrewWire(_Wire, asyncssh.SSHServerConnection):
    """The side of the crew: Weir is its server."""

    def __init__(self, peer: int, events: Events, options: asyncssh.SSHServerConnectionOptions,
                 methods: tuple[str, ...]) -> None:
        super().__init__(asyncio.get_running_loop(), options)
        self._begin(peer, events)
        self._protocol_factory = lambda: _Crew(peer, events, methods)
        # One of its own: a key remembers by which algorithm it signs next.
        self._server_host_keys = OrderedDict((name, copy.copy(key)) for name, key in self._server_host_keys.items())
        self._admission: asyncio.Future[str] | None = None
        self._admits = ""
        self._offer: asyncio.TimerHandle | None = None

    async def reload_config(self) -> None:
        """There is none."""

    def _send_kexinit(self) -> None:
        """The client's choice counts (RFC 4253 7.1), and OpenSSH's prefers what is slow here: its list comes first, and
        of what it has only the fast is offered."""
        if self._offer is None:
            self._offer = self._loop.call_later(PATIENCE, super()._send_kexinit)
        else:
            super()._send_kexinit()

    def process_packet(self, kind: int, number: int, packet: Any) -> Any:
        if kind == KEXINIT and self._offer is not None and not self._server_kexinit:
            self._offer.cancel()
            self._enc_algs = choose_ciphers(packet.get_full_payload(), list(self._enc_algs))
            super()._send_kexinit()
        return super().process_packet(kind, number, packet)

    def _cleanup(self, exc: Exception | None) -> None:
        if self._offer is not None:
            self._offer.cancel()
        super()._cleanup(exc)

    async def send_userauth_success(self) -> None:
        """By whatever method: only once the server has let Weir in."""
        if self._admission is None:
            self._admits = self._username
            self._admission = self._loop.create_future()
            self._events.admit(self._username, self._admitted)
        elif self._admits != self._username:
            raise asyncssh.ProtocolError("another user name after the login")
        reason = await asyncio.shield(self._admission)
        if self._transport is None:
            return
        if reason:
            self.end(BY_APPLICATION, reason)
            return
        await super().send_userauth_success()

    def _admitted(self, reason: str) -> None:
        if self._admission is not None and not self._admission.done():
            self._admission.set_result(reason)

    @property
    def distrusts(self) -> bool:
        """It has seen Weir's host key, and has not gone on."""
        return bool(self._session_id) and self._recv_encryption is None

    @property
    def client(self) -> str:
        """What it calls itself."""
        return show_printable(str(self.get_extra_info("client_version", ""))).removeprefix("SSH-2.0-")


class ServerWire(_Wire, asyncssh.SSHClientConnection):
    """The side of the target: Weir is its client."""

    def __init__(self, peer: int, events: Events, options: asyncssh.SSHClientConnectionOptions) -> None:
        super().__init__(asyncio.get_running_loop(), options)
        self._begin(peer, events)
        self._protocol_factory = lambda: _Server(peer, events)

    def set_address(self, address: str) -> None:
        """That was dialled: known_hosts may have it in place of the name.  Through another session a name may have
        been dialled: it is no address, and asyncssh takes none for one."""
        with suppress(ValueError):
            self._peer_addr = str(ipaddress.ip_address(address.partition("%")[0]))

    @property
    def server(self) -> str:
        return show_printable(str(self.get_extra_info("server_version", ""))).removeprefix("SSH-2.0-")


def choose_ciphers(kexinit: bytes, ours: list[bytes]) -> list[bytes]:
    """Of a client's KEXINIT: what is fast and it has, in both directions; else all of ours."""
    fields = Fields(kexinit, 17)               # the number, and a cookie of 16 bytes
    _, _, out, back = (set(fields.string(LIST).split(b",")) for _ in range(4))
    fast = [name for name in ours if b"gcm" in name and name in out and name in back]
    return fast or ours


def quiet() -> None:
    """What asyncssh logs may be a peer's, and looking through a key of Weir's own takes a tenth of a second."""
    logging.getLogger("asyncssh").setLevel(logging.CRITICAL)
    asyncssh.set_default_skip_rsa_key_validation(True)


def crew_options(target: Target) -> asyncssh.SSHServerConnectionOptions:
    """For every session with this target."""
    quiet()
    return asyncssh.SSHServerConnectionOptions(
        config=None, server_host_keys=[asyncssh.import_private_key(key) for key in target.host_keys],
        server_version=VERSION, kex_algs=EXCHANGES_OF_CREWS, encryption_algs=CIPHERS, compression_algs=COMPRESSION,
        login_timeout=0, keepalive_interval=0, gss_host=None, host_based_auth=False)


def methods(target: Target) -> tuple[str, ...]:
    """By which crews may authenticate."""
    return tuple(target.options["authentication"].split(",")) if "authentication" in target.options else METHODS


def server_options(target: Target, credential: Credential) -> asyncssh.SSHClientConnectionOptions:
    """AuthenticationError where the credential or the known keys cannot be read; its text holds no secret."""
    try:
        known = asyncssh.import_known_hosts(target.known_hosts)
    except ValueError:
        raise AuthenticationError("the target's known host keys are not in the format of known_hosts") from None
    options = asyncssh.SSHClientConnectionOptions(
        config=None, known_hosts=known, host=target.hosts[0],
        port=target.port, username=credential.user, password=credential.password or None, client_keys=None,
        client_version=VERSION, encryption_algs=CIPHERS, compression_algs=COMPRESSION, login_timeout=0,
        keepalive_interval=0, gss_host=None, agent_path=None,
        # Known host keys count alone: not what a directory of the user's may hold for X.509.
        x509_trusted_certs=[], x509_trusted_cert_paths=[])
    options.client_keys = _keys(credential)
    options.agent_path = credential.agent or None
    return options


def _keys(credential: Credential) -> list[Any]:
    if not credential.key:
        return []
    try:
        key = asyncssh.import_private_key(credential.key)
        certificate = asyncssh.import_certificate(credential.certificate) if credential.certificate else None
        return list(public_key.load_keypairs([(key, certificate)] if certificate else [key]))
    except (ValueError, asyncssh.KeyImportError):
        raise AuthenticationError("the credential's key or certificate is not one of OpenSSH's formats") from None


_SAID: Final[tuple[tuple[type[Exception], str], ...]] = (
    (asyncssh.HostKeyNotVerifiable, "its host key is not the one that is known"),
    (asyncssh.KeyExchangeFailed, "no algorithm is common to both"),
    (asyncssh.PermissionDenied, "it refuses the credential"),
    (asyncssh.ProtocolNotSupported, "it does not speak SSH 2"),
)


def explain(error: Exception | None) -> str:
    """Why a connection ended, in a few words; "" where it was closed in order."""
    if error is None:
        return ""
    for kind, said in _SAID:
        if isinstance(error, kind):
            return f"{said} ({show_printable(str(error)[:300])})"
    if isinstance(error, asyncssh.DisconnectError | asyncssh.Error):
        return show_printable(str(error)[:300])
    return type(error).__name__

