"""Sessions over real sockets: order, backpressure, TLS, failures."""
from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest
import uvloop
from lab import certificates

from enforcer.edge import session as session_module
from enforcer.protocols.postgresql import SSL_REQUEST
from enforcer.words import commands as words
from enforcer.words import events, inputs
from enforcer.words.errors import RemoteProtocolError

INTENTS = events.INTENT


def run(house, work: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        try:
            async with asyncio.timeout(60):
                await work()
                await settled(house.edge)
        finally:
            await house.close()

    uvloop.run(limited())


async def settled(edge) -> None:
    while edge.live or edge.arriving:
        await asyncio.sleep(0.01)


def psql(port: int, *, sslmode: str = "disable", root: Path | None = None, sql: str = "select 42"):
    settings = f"host=127.0.0.1 port={port} user=trusted dbname=postgres sslmode={sslmode} connect_timeout=10"
    if root:
        settings += f" sslrootcert={root}"
    return asyncio.create_subprocess_exec(
        "psql", "-X", "-A", "-t", settings, "-c", sql, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PGPASSWORD": "wrong"},
    )


async def connected(house) -> None:
    while not house.layers or not house.layers[0].connected:
        await asyncio.sleep(0.01)


async def output(starting) -> tuple[int, str, str]:
    process = await starting
    out, err = await process.communicate()
    return process.returncode or 0, out.decode().strip(), err.decode()


def test_psql_through_a_relay(house, cluster) -> None:
    async def work() -> None:
        port = await house.open(house.target(cluster.port, tls="disable"))
        house.layer(house.relay)
        house.asked.owner = house.owner(5432, "orders")
        assert await output(psql(port)) == (0, "42", "")
        await settled(house.edge)
        _, netns, address, _, redirected = house.asked.whois_calls[0]
        assert (netns > 0, address, redirected) == (True, b"\0" * 10 + b"\xff\xff\x7f\0\0\1", "")
        await house.close()
        assert [event[4] for event in house.journal.events() if event[0] == INTENTS]

    run(house, work)


@pytest.mark.parametrize("kind", ["relay", "durable"])
def test_no_byte_reaches_the_server_before_its_intent_is_in_the_journal(house, kind: str) -> None:
    async def work() -> None:
        seen: list[bool] = []

        async def server(reader, writer) -> None:
            while line := await reader.readline():
                operation = int(line)
                held = {(event[3], event[4]) for event in house.journal.events() if event[0] == INTENTS}
                seen.append(any(number >= operation for _, number in held))
                if kind == "durable":
                    seen.append(house.journal.syncs > 0)
                writer.write(line)
            writer.close()

        upstream = await house.serve(server)
        port = await house.open(house.target(upstream, tls="disable"))
        house.layer(getattr(house, kind))
        house.asked.owner = house.owner(upstream, "orders")

        async def client() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for number in range(1, 41):
                writer.write(b"%d\n" % number)
                assert await reader.readline() == b"%d\n" % number
            writer.close()

        await asyncio.gather(*(client() for _ in range(8)))
        await settled(house.edge)
        assert seen
        assert all(seen)

    run(house, work)


def test_one_write_serves_many_sessions(house) -> None:
    """Group commit: fewer syncs than durable operations."""
    async def work() -> None:
        async def server(reader, writer) -> None:
            while line := await reader.readline():
                writer.write(line)
            writer.close()

        upstream = await house.serve(server)
        port = await house.open(house.target(upstream, tls="disable"))
        house.layer(house.durable)
        house.asked.owner = house.owner(upstream, "orders")

        async def client() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(20):
                writer.write(b"x\n")
                await reader.readline()
            writer.close()

        await asyncio.gather(*(client() for _ in range(20)))
        await settled(house.edge)
        assert 0 < house.journal.syncs < 400

    run(house, work)


def test_a_pipeline_keeps_its_order_over_many_syncs(house) -> None:
    async def work() -> None:
        got = bytearray()
        done = asyncio.Event()

        async def server(reader, writer) -> None:
            while data := await reader.read(65536):
                got.extend(data)
            done.set()
            writer.close()

        upstream = await house.serve(server)
        port = await house.open(house.target(upstream, tls="disable"))
        house.layer(house.durable)
        house.asked.owner = house.owner(upstream, "orders")
        sent = os.urandom(3_000_000)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await connected(house)
        for at in range(0, len(sent), 10_007):
            writer.write(sent[at:at + 10_007])
            await writer.drain()
        writer.close()
        await done.wait()
        assert bytes(got) == sent

    run(house, work)


def test_a_full_disk_stops_everything_and_the_enforcer_recovers(house) -> None:
    async def work() -> None:
        got: list[bytes] = []

        async def server(reader, writer) -> None:
            while line := await reader.readline():
                got.append(line)
                writer.write(line)
            writer.close()

        upstream = await house.serve(server)
        port = await house.open(house.target(upstream, tls="disable"))
        house.layer(house.relay)
        house.asked.owner = house.owner(upstream, "orders")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"before\n")
        assert await reader.readline() == b"before\n"
        house.journal.full = True
        writer.write(b"never\n")
        assert b"cannot be recorded" in await reader.read()
        writer.close()
        await settled(house.edge)
        assert got == [b"before\n"]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        house.journal.full = False
        while house.edge.commit.failure:
            await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"after\n")
        assert await reader.readline() == b"after\n"
        writer.close()
        await settled(house.edge)

    run(house, work)


def test_clients_wait_while_the_recorder_is_behind(house) -> None:
    async def work() -> None:
        got = asyncio.Event()

        async def server(reader, writer) -> None:
            await reader.readline()
            got.set()
            writer.close()

        upstream = await house.serve(server)
        port = await house.open(house.target(upstream, tls="disable"))
        house.layer(house.relay)
        house.asked.owner = house.owner(upstream, "orders")
        house.journal.behind = 900
        while not house.edge.pressed:
            await asyncio.sleep(0.02)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await connected(house)
        writer.write(b"later\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(got.wait()), 0.2)
        house.journal.behind = 0
        await got.wait()
        writer.close()
        await settled(house.edge)

    run(house, work)


def test_200_megabytes_to_a_slow_reader_in_bounded_memory(house) -> None:
    size, piece = 200 << 20, bytes(1 << 20)
    received = threading.Event()

    def source(listening: socket.socket) -> None:
        link, _ = listening.accept()
        with link:
            for _ in range(size // len(piece)):
                link.sendall(piece)

    def slow(port: int, peak: list[int]) -> None:
        with socket.create_connection(("127.0.0.1", port)) as link:
            total, process = 0, psutil.Process()
            while data := link.recv(1 << 18):
                total += len(data)
                if total % (16 << 20) < len(data):
                    peak.append(process.memory_info().rss)
                    received.wait(0.02)       # slower than the source
            peak.append(total)

    async def work() -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        upstream = listening.getsockname()[1]
        port = await house.open(house.target(upstream, tls="disable"))
        house.layer(house.relay)
        house.asked.owner = house.owner(upstream, "orders")
        peak: list[int] = []
        before = psutil.Process().memory_info().rss
        await asyncio.gather(asyncio.to_thread(source, listening), asyncio.to_thread(slow, port, peak))
        assert peak.pop() == size
        assert max(peak) - before < 24 << 20
        listening.close()

    run(house, work)


def leaf(house) -> tuple[certificates.Authority, dict[str, str]]:
    authority = certificates.make_authority("Weir CA")
    certificate, key = certificates.make_leaf(authority, ("db.edge.example",), ("127.0.0.1",))
    return authority, {"leaf_certificate": certificate, "leaf_key": key}


def test_psql_with_tls_on_both_sides_many_at_a_time(house, cluster, tmp_path: Path) -> None:
    async def work() -> None:
        authority, shown = leaf(house)
        root = certificates.write(tmp_path / "root.pem", authority.pem)
        target = house.target(cluster.port, tls="verify-ca", tls_ca=cluster.authority.pem, **shown)
        port = await house.open(target)
        house.layer(house.tls_relay)
        house.asked.owner = house.owner(5432, "orders")
        for _ in range(3):
            found = await asyncio.gather(*(output(psql(port, sslmode="verify-full", root=root)) for _ in range(15)))
            assert set(found) == {(0, "42", "")}
        await settled(house.edge)
        assert house.edge.counters.get("bugs", 0) == 0
        towards = [event for layer in house.layers for event in layer.started if event.peer == words.SERVER]
        assert {event.signature_hash for event in towards} == {"sha256"}
        assert all(event.version.startswith("TLSv1.3 ") and event.certificate for event in towards)

    run(house, work)


def test_a_bulk_read_with_tls_to_a_slow_reader_in_bounded_memory(house, cluster, tmp_path: Path) -> None:
    async def work() -> None:
        authority, shown = leaf(house)
        root = certificates.write(tmp_path / "root.pem", authority.pem)
        target = house.target(cluster.port, tls="verify-ca", tls_ca=cluster.authority.pem, **shown)
        port = await house.open(target)
        house.layer(house.tls_relay)
        house.asked.owner = house.owner(5432, "orders")
        sql = "copy (select repeat('x', 1023) from generate_series(1, 100000)) to stdout"
        process = await psql(port, sslmode="verify-full", root=root, sql=sql)
        me = psutil.Process()
        before, total, most = me.memory_info().rss, 0, 0
        while data := await process.stdout.read(1 << 16):
            if (total + len(data)) >> 22 != total >> 22:
                await asyncio.sleep(0.02)     # slower than the server
                most = max(most, me.memory_info().rss)
            total += len(data)
        assert total == 100_000 * 1024
        assert await process.wait() == 0
        assert most - before < 24 << 20

    run(house, work)


def test_startup_in_the_same_segment_as_the_end_of_the_handshake(house, cluster, tmp_path: Path) -> None:
    """A client need not wait for the layer: its first bytes come with its Finished."""
    async def work() -> None:
        authority, shown = leaf(house)
        port = await house.open(house.target(cluster.port, tls="verify-ca", tls_ca=cluster.authority.pem, **shown))
        house.layer(house.tls_relay)
        house.asked.owner = house.owner(5432, "orders")

        def client() -> bytes:
            context = ssl.create_default_context(cadata=authority.pem)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            channel = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
            with socket.create_connection(("127.0.0.1", port), timeout=20) as link:
                link.sendall(SSL_REQUEST)
                assert link.recv(1) == b"S"
                while True:
                    try:
                        channel.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        link.sendall(outgoing.read())
                        incoming.write(link.recv(65536))
                body = b"\0\3\0\0user\0trusted\0database\0postgres\0\0"
                channel.write((len(body) + 4).to_bytes(4, "big") + body)
                link.sendall(outgoing.read())                 # Finished and StartupMessage at once
                while True:
                    incoming.write(link.recv(65536))
                    try:
                        return channel.read(1)
                    except ssl.SSLWantReadError:
                        continue

        assert await asyncio.to_thread(client) == b"R"

    run(house, work)


@pytest.mark.parametrize("cut", [1, 5, 100, 1 << 20])
def test_a_client_that_begins_with_tls(house, cut: int) -> None:
    """What it sends is read before it is known whose it is: its handshake begins with that, however it is cut."""
    async def work() -> None:
        authority, shown = leaf(house)
        port = await house.open(house.target(5432, tls="disable", **shown))

        class First(house.relay):
            def start(self) -> list:
                return [words.StartTls(words.CLIENT, alpn="http/1.1")]

            def handle(self, event) -> list:
                return []

            def receive(self, peer: int, data: bytes) -> list:
                return [words.SendData(words.CLIENT, data.upper()), words.CloseConnection(words.CLIENT)]

        house.layer(First)
        house.asked.owner = house.owner(5432, "orders")

        def client() -> tuple[bytes, str | None]:
            context = ssl.create_default_context(cadata=authority.pem)
            context.set_alpn_protocols(["http/1.1"])
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            channel = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
            with socket.create_connection(("127.0.0.1", port), timeout=20) as link:
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while True:
                    try:
                        channel.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        sent = outgoing.read()
                        for at in range(0, len(sent), cut):
                            link.sendall(sent[at:at + cut])
                        incoming.write(link.recv(65536))
                channel.write(b"hello")
                link.sendall(outgoing.read())
                while True:
                    incoming.write(link.recv(65536))
                    try:
                        return channel.read(5), channel.selected_alpn_protocol()
                    except ssl.SSLWantReadError:
                        continue

        assert await asyncio.to_thread(client) == (b"HELLO", "http/1.1")
        assert house.edge.counters.get("bugs", 0) == 0

    run(house, work)


def test_one_that_begins_with_tls_and_does_not_know_the_ca_is_counted(house) -> None:
    async def work() -> None:
        _, shown = leaf(house)
        port = await house.open(house.target(5432, tls="disable", **shown))

        class First(house.relay):
            def start(self) -> list:
                return [words.StartTls(words.CLIENT, alpn="http/1.1")]

            def handle(self, event) -> list:
                return [words.CloseConnection(words.CLIENT)] if isinstance(event, inputs.ConnectionLost) else []

        house.layer(First)
        house.asked.owner = house.owner(5432, "orders")
        context = ssl.create_default_context(cadata=certificates.make_authority("another").pem)

        def client() -> None:
            with (socket.create_connection(("127.0.0.1", port), timeout=20) as link,
                  pytest.raises(ssl.SSLCertVerificationError)):
                context.wrap_socket(link, server_hostname="127.0.0.1")

        await asyncio.to_thread(client)
        await settled(house.edge)
        assert house.edge.counters["unknown_ca"] == house.edge.counters["unknown_ca:orders"] == 1

    run(house, work)


def test_what_begins_as_no_tls_is_closed(house) -> None:
    async def work() -> None:
        _, shown = leaf(house)
        port = await house.open(house.target(5432, tls="disable", **shown))

        class First(house.relay):
            def start(self) -> list:
                return [words.StartTls(words.CLIENT, alpn="http/1.1")]

            def receive(self, peer: int, data: bytes) -> list:
                raise AssertionError("plaintext reached the layer")

        house.layer(First)
        house.asked.owner = house.owner(5432, "orders")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
        try:
            assert b"HTTP" not in await reader.read()
        except ConnectionResetError:
            pass
        writer.transport.abort()
        await settled(house.edge)
        assert house.edge.counters.get("bugs", 0) == 0

    run(house, work)


def test_bytes_stuffed_behind_the_request_for_tls_are_fatal(house, cluster) -> None:
    async def work() -> None:
        _, shown = leaf(house)
        port = await house.open(house.target(cluster.port, tls="verify-ca", tls_ca=cluster.authority.pem, **shown))
        house.layer(house.tls_relay)
        house.asked.owner = house.owner(5432, "orders")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(SSL_REQUEST + b"\0\0\0\x08\0\3\0\0")
        assert await reader.read() == b"not an SSLRequest alone"
        writer.close()

    run(house, work)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(70000), b""])
def test_garbage_instead_of_a_handshake(house, cluster, garbage: bytes) -> None:
    async def work() -> None:
        _, shown = leaf(house)
        port = await house.open(house.target(cluster.port, tls="verify-ca", tls_ca=cluster.authority.pem, **shown))
        house.layer(house.tls_relay)
        house.asked.owner = house.owner(5432, "orders")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(SSL_REQUEST)
        assert await reader.readexactly(1) == b"S"
        if garbage:
            writer.write(garbage)
        else:
            writer.write_eof()
        try:
            await reader.read()
        except ConnectionResetError:
            assert garbage
        writer.close()
        await settled(house.edge)
        assert house.edge.counters.get("bugs", 0) == 0

    run(house, work)


def test_a_client_that_does_not_know_the_ca_is_counted_and_recorded(house, cluster, tmp_path: Path) -> None:
    async def work() -> None:
        _, shown = leaf(house)
        root = certificates.write(tmp_path / "root.pem", certificates.make_authority("another").pem)
        port = await house.open(house.target(cluster.port, tls="verify-ca", tls_ca=cluster.authority.pem, **shown))
        house.layer(house.tls_relay)
        house.asked.owner = house.owner(5432, "orders")
        code, _, error = await output(psql(port, sslmode="verify-full", root=root))
        assert code == 2
        assert "certificate verify failed" in error
        await settled(house.edge)
        assert house.edge.counters["unknown_ca"] == house.edge.counters["unknown_ca:orders"] == 1
        await house.close()
        refusals = [event for event in house.journal.events() if event[0] == events.REFUSED]
        assert "unknown CA" in refusals[0][9]

    run(house, work)


@pytest.mark.parametrize(
    ("mode", "names", "trusted", "reason"),
    [
        ("verify-full", ("db.edge.example",), True, ""),
        ("verify-full", ("other.example",), True, "certificate verification failed: Hostname mismatch"),
        ("verify-ca", ("other.example",), True, ""),
        ("verify-full", ("db.edge.example",), False, "`tls_ca` of the target names the file with its roots"),
        ("verify-ca", ("db.edge.example",), False, "certificate verification failed"),
    ],
)
def test_the_servers_certificate_is_verified(house, tmp_path: Path, mode, names, trusted, reason) -> None:
    async def work() -> None:
        authority = certificates.make_authority("Server CA")
        certificate, key = certificates.make_leaf(authority, names, ())
        certificates.write(tmp_path / "c", certificate)
        certificates.write(tmp_path / "k", key, 0o600)
        theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        theirs.load_cert_chain(tmp_path / "c", tmp_path / "k")

        async def server(reader, writer) -> None:
            assert await reader.readexactly(8) == SSL_REQUEST
            writer.write(b"S")
            try:
                await writer.start_tls(theirs)
                await reader.read()
            except (OSError, ssl.SSLError):
                pass
            writer.transport.abort()

        upstream = await house.serve(server)
        _, shown = leaf(house)
        roots = authority.pem if trusted else certificates.make_authority("Another").pem
        port = await house.open(house.target(upstream, tls=mode, tls_ca=roots, **shown))
        lost = asyncio.get_running_loop().create_future()

        class Watching(house.tls_relay):
            def handle(self, event) -> list:
                if isinstance(event, inputs.ConnectionLost | inputs.TlsStarted) and event.peer == words.SERVER:
                    if not lost.done():
                        lost.set_result(event)
                return super().handle(event)

        house.layer(Watching)
        house.asked.owner = house.owner(upstream, "orders")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(SSL_REQUEST)
        await reader.readexactly(1)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        await writer.start_tls(context)
        event = await lost
        assert reason in getattr(event, "reason", "")
        assert isinstance(event, inputs.ConnectionLost) == bool(reason)
        writer.transport.abort()
        await settled(house.edge)

    run(house, work)


def test_who_asks_and_does_not_read_in_bounded_memory(house) -> None:
    """What Weir itself answers: no server is there whose silence would stop it."""
    class Answering(house.relay):
        def start(self) -> list:
            return []

        def receive(self, peer: int, data: bytes) -> list:
            return [words.SendData(words.CLIENT, data)]

    def ask(port: int) -> int:
        sent, received, piece = 0, 0, bytes(1 << 18)
        with socket.create_connection(("127.0.0.1", port)) as link:
            link.settimeout(1)
            try:
                while sent < 200 << 20:
                    sent += link.send(piece)
            except TimeoutError:
                pass
            grown = psutil.Process().memory_info().rss
            link.settimeout(10)
            while received < sent:
                received += len(link.recv(1 << 20))
            link.sendall(b"x")
            assert link.recv(1) == b"x"
        assert received == sent < 200 << 20
        return grown

    async def work() -> None:
        port = await house.open(house.target(1, tls="disable"))
        house.layer(Answering)
        house.asked.owner = house.owner(1, "orders")
        before = psutil.Process().memory_info().rss
        assert await asyncio.to_thread(ask, port) - before < 24 << 20

    run(house, work)


def test_slowloris(house, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "LOGIN", 0.2)

    async def work() -> None:
        class Mute(house.relay):
            def start(self) -> list:
                return []

            def receive(self, peer: int, data: bytes) -> list:
                return []

        port = await house.open(house.target(1, tls="disable"))
        house.layer(Mute)
        house.asked.owner = house.owner(1, "orders")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\0")
        assert b"login took more than" in await reader.read()
        writer.close()

    run(house, work)


def test_last_words_that_are_not_read_do_not_keep_a_session(house, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "GRACE", 0.2)

    async def work() -> None:
        class Talking(house.relay):
            def start(self) -> list:
                return []

            def last_words(self, text: str) -> list:
                return [words.SendData(words.CLIENT, bytes(30 << 20)), *super().last_words(text)]

        port = await house.open(house.target(1, tls="disable"))
        house.layer(Talking)
        house.asked.owner = house.owner(1, "orders")
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        while not house.edge.live:
            await asyncio.sleep(0.01)
        next(iter(house.edge.live.values())).end("enough")
        await settled(house.edge)
        writer.transport.abort()

    run(house, work)


def test_what_runs_may_finish_but_not_for_ever(house, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "FINISH", 0.3)
    seen = []

    async def work() -> None:
        class Busy(house.relay):
            def start(self) -> list:
                return []

            def handle(self, event) -> list:
                seen.append(event)
                return [] if event.finish else super().handle(event)

        port = await house.open(house.target(1, tls="disable"))
        house.layer(Busy)
        house.asked.owner = house.owner(1, "orders")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while not house.edge.live:
            await asyncio.sleep(0.01)
        one = next(iter(house.edge.live.values()))
        one.end("logged out", True)
        one.end("logged out", True)           # again: it is waited for all the same
        assert len(seen) == 1
        assert await reader.read() == b"logged out"
        writer.close()
        assert [event.finish for event in seen] == [True, False]

    run(house, work)


@pytest.mark.parametrize("how", ["reset", "closed"])
def test_a_server_that_goes_ends_the_session(house, how: str) -> None:
    async def work() -> None:
        async def server(reader, writer) -> None:
            await reader.readline()
            link = writer.get_extra_info("socket")
            if how == "reset":
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()

        upstream = await house.serve(server)
        port = await house.open(house.target(upstream, tls="disable"))
        house.layer(house.relay)
        house.asked.owner = house.owner(upstream, "orders")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x\n")
        assert await reader.read() == b""
        writer.close()
        await settled(house.edge)

    run(house, work)


def test_a_server_that_is_not_there_is_told_at_once(house) -> None:
    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            upstream = closed.getsockname()[1]
        port = await house.open(house.target(upstream, tls="disable"))
        house.layer(house.relay)
        house.asked.owner = house.owner(upstream, "orders")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert b"Connection refused" in await reader.read()
        writer.close()

    run(house, work)


def test_a_layers_bug_ends_the_session_without_its_text_in_the_log(house, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        class Buggy(house.relay):
            def receive(self, peer: int, data: bytes) -> list:
                raise KeyError(data)

            def refuse(self, error: Exception) -> list:
                raise KeyError("again")

        port = await house.open(house.target(1, tls="disable"))
        house.layer(Buggy)
        house.asked.owner = house.owner(1, "orders")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hunter2")
        assert await reader.read() == b""
        writer.close()
        await settled(house.edge)
        assert house.edge.counters["bugs"] == 2
        assert "KeyError" in caplog.text
        assert "hunter2" not in caplog.text

    run(house, work)


def test_commands_after_an_event_come_after_those_before_it(house) -> None:
    """A hold is answered at once where too many wait: what the layer says to that comes last."""
    async def work() -> None:
        class Holding(house.relay):
            def start(self) -> list:
                hold = words.Hold(1, (), "sql:delete t", "delete", (), (), b"")
                return [hold, words.SendData(words.CLIENT, b"1"), words.SendData(words.CLIENT, b"2")]

            def handle(self, event) -> list:
                if isinstance(event, inputs.HoldAnswered):
                    return [words.SendData(words.CLIENT, b"3" + event.state.encode())]
                return super().handle(event)

        port = await house.open(house.target(1, tls="disable"))
        house.layer(Holding)
        house.asked.owner = house.owner(1, "orders")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.readexactly(9) == b"123denied"
        writer.close()

    run(house, work)


def test_timers_replace_and_stop(house) -> None:
    async def work() -> None:
        class Timed(house.relay):
            def start(self) -> list:
                return [
                    words.StartTimer("a", 0.01), words.StartTimer("a", 30), words.StartTimer("b", 0.01),
                    words.StartTimer("b", 0), words.StartTimer("c", 0.02),
                ]

            def handle(self, event) -> list:
                if isinstance(event, inputs.TimerFired):
                    return [words.SendData(words.CLIENT, event.name.encode()), words.CloseConnection(words.CLIENT)]
                return super().handle(event)

        port = await house.open(house.target(1, tls="disable"))
        house.layer(Timed)
        house.asked.owner = house.owner(1, "orders")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b"c"
        writer.close()

    run(house, work)


def test_protocol_errors_give_the_layers_last_words(house) -> None:
    async def work() -> None:
        class Strict(house.relay):
            def receive(self, peer: int, data: bytes) -> list:
                raise RemoteProtocolError("no such message")

        port = await house.open(house.target(1, tls="disable"))
        house.layer(Strict)
        house.asked.owner = house.owner(1, "orders")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x")
        assert await reader.read() == b"no such message"
        writer.close()
        await settled(house.edge)
        assert house.edge.counters.get("bugs", 0) == 0

    run(house, work)


def test_what_a_relay_carries_is_what_was_sent(house) -> None:
    async def work() -> None:
        async def server(reader, writer) -> None:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()

        upstream = await house.serve(server)
        port = await house.open(house.target(upstream, tls="disable"))
        house.layer(house.relay)
        house.asked.owner = house.owner(upstream, "orders")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        sent, got, data = hashlib.sha256(), hashlib.sha256(), os.urandom(1 << 20)

        async def send() -> None:
            for _ in range(32):
                sent.update(data)
                writer.write(data)
                await writer.drain()

        async def receive() -> None:
            left = 32 << 20
            while left:
                piece = await reader.read(1 << 18)
                got.update(piece)
                left -= len(piece)

        await asyncio.gather(send(), receive())
        assert sent.digest() == got.digest()
        writer.close()
        await settled(house.edge)

    run(house, work)


def test_a_session_outlives_connections_to_its_server(house, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server closes after each line; none of the ends counts, also where it comes late."""
    monkeypatch.setattr(session_module, "LINGER", 0.05)
    heard: list[inputs.Input] = []

    class Leaving(house.relay):
        def handle(self, event) -> list:
            heard.append(event)
            if isinstance(event, inputs.ConnectionLost) and event.peer == words.SERVER:
                self.connected = False
                return [words.LeaveServer()]
            if isinstance(event, inputs.Connected) and len(heard) > 1:
                self.connected = True
                early, self.early = b"".join(self.early), []
                return self.forward(early)
            return super().handle(event)

        def receive(self, peer: int, data: bytes) -> list:
            opens = peer == words.CLIENT and not self.connected and not self.early and heard
            return [*super().receive(peer, data), *([words.OpenConnection()] if opens else [])]

    async def work() -> None:
        connections = 0

        async def server(reader, writer) -> None:
            nonlocal connections
            connections += 1
            writer.write(await reader.readline())
            writer.close()

        upstream = await house.serve(server)
        port = await house.open(house.target(upstream, tls="disable"))
        house.layer(Leaving)
        house.asked.owner = house.owner(upstream, "orders")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await connected(house)
        for number in range(5):
            writer.write(b"%d\n" % number)
            assert await reader.readline() == b"%d\n" % number
            while sum(isinstance(one, inputs.ConnectionLost) for one in heard) <= number:
                await asyncio.sleep(0.01)
            await asyncio.sleep(2 * session_module.LINGER)
        writer.close()
        await settled(house.edge)
        assert connections == 5
        lost = [one.peer for one in heard if isinstance(one, inputs.ConnectionLost)]
        assert lost == [words.SERVER] * 5 + [words.CLIENT]
        assert house.edge.counters.get("bugs", 0) == 0

    run(house, work)


def test_who_leaves_a_server_that_stands_is_told_nothing_of_its_end(house) -> None:
    heard: list[inputs.Input] = []

    class Leaving(house.relay):
        def handle(self, event) -> list:
            heard.append(event)
            return super().handle(event)

        def receive(self, peer: int, data: bytes) -> list:
            if peer == words.CLIENT and data == b"leave\n":
                return [words.LeaveServer(), words.OpenConnection()]
            return super().receive(peer, data)

    async def work() -> None:
        ends: list[bytes] = []

        async def server(reader, writer) -> None:
            while line := await reader.readline():
                writer.write(line)
            ends.append(line)
            writer.close()

        upstream = await house.serve(server)
        port = await house.open(house.target(upstream, tls="disable"))
        house.layer(Leaving)
        house.asked.owner = house.owner(upstream, "orders")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await connected(house)
        writer.write(b"leave\n")
        while sum(isinstance(one, inputs.Connected) for one in heard) < 2 or not ends:
            await asyncio.sleep(0.01)
        writer.write(b"again\n")
        assert await reader.readline() == b"again\n"
        assert not [one for one in heard if isinstance(one, inputs.ConnectionLost)]
        writer.close()
        await settled(house.edge)

    run(house, work)
