"""A server that has closed long before its client has read all, with TLS on both sides."""
from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from pathlib import Path

import pytest
from lab import certificates

from enforcer.protocols.postgresql import SSL_REQUEST

SIZES = [200_000, 3_000_000, 12_000_000]
SECONDS = 30


def send_and_close(
    listening: socket.socket, context: ssl.SSLContext, size: int, says: bool, gone: threading.Event,
) -> None:
    """`says`: with a close_notify before the end, as RFC 8446 6.1 wants it."""
    link, _ = listening.accept()
    with link:
        link.settimeout(SECONDS)
        assert link.recv(8) == SSL_REQUEST
        link.sendall(b"S")
        with context.wrap_socket(link, server_side=True) as secure:
            secure.sendall(bytes(size))
            if says:
                try:
                    secure.setblocking(False)
                    secure.unwrap()            # what it waits for then comes late
                except ssl.SSLWantReadError:
                    pass
    gone.set()


def read_late(port: int, context: ssl.SSLContext, gone: threading.Event) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        link.sendall(SSL_REQUEST)
        assert link.recv(1) == b"S"
        with context.wrap_socket(link, server_hostname="127.0.0.1", suppress_ragged_eofs=False) as secure:
            gone.wait(2)              # not for ever: a server waits until Weir has read most of much
            total, pause = 0, threading.Event()
            while data := secure.recv(64 << 10):
                total += len(data)
                pause.wait(0.001)
            return total


@pytest.mark.parametrize("says", [True, False], ids=["close_notify", "bare"])
@pytest.mark.parametrize("size", SIZES)
def test_all_of_it_arrives(house, tmp_path: Path, size: int, says: bool) -> None:
    async def work() -> None:
        weir, theirs = certificates.make_authority("Weir CA"), certificates.make_authority("Server CA")
        certificate, key = certificates.make_leaf(theirs, ("db.edge.example",), ())
        serves = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serves.load_cert_chain(certificates.write(tmp_path / "c", certificate),
                               certificates.write(tmp_path / "k", key, 0o600))
        shown, shown_key = certificates.make_leaf(weir, ("db.edge.example",), ("127.0.0.1",))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.settimeout(SECONDS)
            upstream, gone = listening.getsockname()[1], threading.Event()
            port = await house.open(house.target(
                upstream, tls="verify-full", tls_ca=theirs.pem, leaf_certificate=shown, leaf_key=shown_key))
            house.layer(house.tls_relay)
            house.asked.owner = house.owner(upstream, "orders")
            _, total = await asyncio.gather(
                asyncio.to_thread(send_and_close, listening, serves, size, says, gone),
                asyncio.to_thread(read_late, port, ssl.create_default_context(cadata=weir.pem), gone))
        assert total == size
        while house.edge.live:
            await asyncio.sleep(0.01)
        assert house.edge.counters.get("bugs", 0) == 0

    house.play(work, 60)
