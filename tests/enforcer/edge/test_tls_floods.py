"""Peers that do not read, and what is held for them: what TLS answers them is bounded, and so is who was left."""
from __future__ import annotations

import asyncio
import ctypes
import socket
import ssl
import threading
from pathlib import Path

import pytest
import uvloop
from lab import certificates

from enforcer.edge import peer as peers
from enforcer.edge.peer import HIGH, OWN, Peer
from enforcer.protocols.postgresql import SSL_REQUEST

SECONDS = 60
MANY = 1000                           # KeyUpdates at a time
RECORD = 27                           # bytes of one: 5 of header, 5 of message, 1 of type, 16 of tag
_UPDATE_REQUESTED = 1                 # SSL_KEY_UPDATE_REQUESTED, openssl/ssl.h
_SSL_AT = 3 * ctypes.sizeof(ctypes.c_void_p)           # in PySSLSocket: behind PyObject_HEAD and the socket


class Flooder:
    """A peer that asks for KeyUpdate after KeyUpdate (RFC 8446 4.6.3), and reads nothing, until it is cut off."""

    def __init__(self, link: socket.socket, context: ssl.SSLContext, server: bool) -> None:
        self._link, self._in, self._out = link, ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=server,
                                     server_hostname=None if server else "127.0.0.1")

    def shake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._link.sendall(self._out.read())
                self._in.write(self._link.recv(64 << 10))
        self._link.sendall(self._out.read())

    def flood(self) -> None:
        library = ctypes.CDLL("libssl.so.3")
        update, shake = library.SSL_key_update, library.SSL_do_handshake
        update.argtypes, shake.argtypes = [ctypes.c_void_p, ctypes.c_int], [ctypes.c_void_p]
        at = ctypes.c_void_p.from_address(id(self._tls._sslobj) + _SSL_AT).value      # type: ignore[attr-defined]
        with pytest.raises(OSError, match=r"reset|[Bb]roken"):
            while True:
                for _ in range(MANY):
                    assert update(at, _UPDATE_REQUESTED) == 1
                    shake(at)
                asked = self._out.read()
                assert len(asked) == MANY * RECORD
                self._link.sendall(asked)


def narrow(link: socket.socket) -> None:
    """What it does not read is soon Weir's to hold."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
    link.settimeout(SECONDS)


def serving(directory: Path, authority: certificates.Authority, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate, key = certificates.make_leaf(authority, (name,), ("127.0.0.1",))
    context.load_cert_chain(certificates.write(directory / "c", certificate),
                            certificates.write(directory / "k", key, 0o600))
    return context


def run(work) -> None:
    async def limited() -> None:
        async with asyncio.timeout(SECONDS):
            await work()

    uvloop.run(limited())


class Told:
    """Events of a Peer."""

    def __init__(self) -> None:
        self.reasons, self.over = [], asyncio.Event()

    def received(self, peer: int, data: bytes) -> None:
        raise AssertionError("nothing was said")

    def gone(self, peer: int, reason: str) -> None:
        self.reasons.append(reason)

    def lost(self) -> None:
        self.over.set()

    def full(self, peer: int, on: bool) -> None:
        pass


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "open"])
def test_answers_that_nobody_reads_end_it(tmp_path: Path, closed: bool) -> None:
    async def work() -> None:
        weir = certificates.make_authority("Weir CA")
        context, told, loop = serving(tmp_path, weir, "db.edge.example"), Told(), asyncio.get_running_loop()
        peer = Peer(told, 0)
        ours, theirs = socket.socketpair()
        with theirs:
            narrow(theirs)
            ours.setblocking(False)
            transport, _ = await loop.create_unix_connection(lambda: peer, sock=ours)
            peer.attach(transport)
            peer.starting(b"")
            flooder = Flooder(theirs, ssl.create_default_context(cadata=weir.pem), False)
            shaken = loop.run_in_executor(None, flooder.shake)
            peer.started(await loop.start_tls(
                transport, peer, context, server_side=True, ssl_shutdown_timeout=SECONDS))
            peer.open()
            await shaken
            if closed:
                peer.write(bytes(2 * HIGH))
                peer.close()
            await loop.run_in_executor(None, flooder.flood)
            await told.over.wait()
        assert told.reasons[0] == "it has TLS answer, and does not read"

    run(work)


def test_what_is_written_meanwhile_is_no_answer(tmp_path: Path) -> None:
    async def work() -> None:
        weir = certificates.make_authority("Weir CA")
        context, told, loop = serving(tmp_path, weir, "db.edge.example"), Told(), asyncio.get_running_loop()
        peer, read = Peer(told, 0), threading.Event()
        size = 4 * OWN

        def client(link: socket.socket) -> int:
            with ssl.create_default_context(cadata=weir.pem).wrap_socket(link, server_hostname="127.0.0.1") as secure:
                read.wait(SECONDS)
                total = 0
                while data := secure.recv(64 << 10):
                    total += len(data)
                return total

        ours, theirs = socket.socketpair()
        narrow(theirs)
        ours.setblocking(False)
        transport, _ = await loop.create_unix_connection(lambda: peer, sock=ours)
        peer.attach(transport)
        peer.starting(b"")
        reading = loop.run_in_executor(None, client, theirs)
        peer.started(await loop.start_tls(transport, peer, context, server_side=True, ssl_shutdown_timeout=SECONDS))
        peer.open()
        for _ in range(size // 64):
            peer.write(b"x" * 64)     # in small records, which have more of their own than of anybody's
        peer._look()
        peer.close()
        read.set()
        assert await reading == size
        await told.over.wait()

    run(work)


def test_one_that_was_left_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "LEFT", 0.01)

    async def work() -> None:
        peer = Peer(Told(), 1)
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: peer, sock=ours)
            peer.attach(transport)
            peer.write(bytes(8 << 20))
            assert peer.leave().transport is None
            while peer.transport is not None:
                await asyncio.sleep(0.01)

    run(work)


def test_a_server_that_has_tls_answer_ends_its_session(house, tmp_path: Path) -> None:
    def serve(listening: socket.socket, context: ssl.SSLContext) -> None:
        link, _ = listening.accept()
        with link:
            narrow(link)
            assert link.recv(8) == SSL_REQUEST
            link.sendall(b"S")
            flooder = Flooder(link, context, True)
            flooder.shake()
            flooder.flood()

    def dial(port: int, context: ssl.SSLContext) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as link:
            link.sendall(SSL_REQUEST)
            assert link.recv(1) == b"S"
            with context.wrap_socket(link, server_hostname="127.0.0.1") as secure:
                return secure.recv(1)

    async def work() -> None:
        weir, theirs = certificates.make_authority("Weir CA"), certificates.make_authority("Server CA")
        shown, shown_key = certificates.make_leaf(weir, ("db.edge.example",), ("127.0.0.1",))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
            listening.settimeout(SECONDS)
            upstream = listening.getsockname()[1]
            port = await house.open(house.target(
                upstream, tls="verify-full", tls_ca=theirs.pem, leaf_certificate=shown, leaf_key=shown_key))
            house.layer(house.tls_relay)
            house.asked.owner = house.owner(upstream, "orders")
            _, last = await asyncio.gather(
                asyncio.to_thread(serve, listening, serving(tmp_path, theirs, "db.edge.example")),
                asyncio.to_thread(dial, port, ssl.create_default_context(cadata=weir.pem)))
        assert last == b""
        while house.edge.live:
            await asyncio.sleep(0.01)
        await house.close()

    run(work)
