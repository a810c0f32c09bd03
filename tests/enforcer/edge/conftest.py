"""A real PostgreSQL 15 on loopback for the edge's tests: TLS, one role for each way of logging in."""
from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import uvloop
from lab import certificates
from sshhouse import Server, run_server

from agent.contract.credential import Credential
from agent.contract.journal import BLOB, EVENT, HEADER, render_record
from agent.contract.owner import Owner, Process
from agent.contract.target import Egress, Target
from enforcer import protocols
from enforcer.approval.holds import Holds
from enforcer.edge import clock
from enforcer.edge.commit import GroupCommit
from enforcer.edge.edge import Configuration, Edge
from enforcer.edge.listener import listen, listen_local
from enforcer.protocols.postgresql import SSL_REQUEST
from enforcer.words import commands as words
from enforcer.words import events, inputs
from enforcer.words.decisions import PERMIT, Decision
from enforcer.words.errors import RecordingError, RemoteProtocolError
from enforcer.words.events import render_event

BIN = Path("/usr/lib/postgresql/15/bin")
PASSWORD = "correct horse battery staple"
PREPARED = "pass­word Ⅸ"    # SASLprep: a soft hyphen goes, a Roman nine becomes IX
RAW = "raw بx"               # prohibited by SASLprep (mixed directions): PostgreSQL takes the bytes

ROLES = f"""
SET password_encryption = 'scram-sha-256';
CREATE ROLE scram LOGIN PASSWORD '{PASSWORD}';
CREATE ROLE prepared LOGIN PASSWORD '{PREPARED}';
CREATE ROLE raw LOGIN PASSWORD '{RAW}';
CREATE ROLE plain LOGIN PASSWORD '{PASSWORD}';
CREATE ROLE cert LOGIN;
CREATE ROLE trusted LOGIN;
CREATE ROLE nobody LOGIN PASSWORD '{PASSWORD}';
SET password_encryption = 'md5';
CREATE ROLE md5 LOGIN PASSWORD '{PASSWORD}';
"""
HBA = """
local all postgres trust
host all trusted all trust
host all plain all password
host all md5 all md5
hostssl all cert all cert
host all nobody all ident
host all all all scram-sha-256
"""
SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{directory}'
max_connections = 200
fsync = off
ssl = on
ssl_cert_file = '{directory}/server.pem'
ssl_key_file = '{directory}/server.key'
ssl_ca_file = '{directory}/ca.pem'
log_destination = stderr
log_statement = all
client_encoding = utf8
"""


@dataclass(frozen=True)
class Cluster:
    directory: Path
    port: int
    authority: certificates.Authority

    def admin(self, sql: str) -> str:
        """As superuser by the Unix socket, unaligned."""
        done = subprocess.run(
            ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", str(self.directory), "-p", str(self.port),
             "-U", "postgres", "-d", "postgres", "-c", sql],
            check=True, capture_output=True, text=True, env={**os.environ, "PGCLIENTENCODING": "UTF8"},
        )
        return done.stdout.strip()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def as_postgres(*argv: str) -> list[str]:
    return ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", *argv]


def write_tls(directory: Path, authority: certificates.Authority) -> None:
    certificate, key = certificates.make_leaf(authority, ("db.edge.example",), ("127.0.0.1",))
    certificates.write(directory / "server.pem", certificate)
    certificates.write(directory / "server.key", key, 0o600)
    certificates.write(directory / "ca.pem", authority.pem)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    directory = Path(tempfile.mkdtemp(prefix="weir-edge-"))
    owner = pwd.getpwnam("postgres")
    authority = certificates.make_authority("Edge CA")
    write_tls(directory, authority)
    for path in (directory, *directory.iterdir()):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    data, port = directory / "data", free_port()
    subprocess.run(
        as_postgres(str(BIN / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync",
                    "--locale", "C.UTF-8"),
        check=True, capture_output=True, cwd="/",
    )
    with (data / "postgresql.conf").open("a") as settings:
        settings.write(SETTINGS.format(port=port, directory=directory))
    (data / "pg_hba.conf").write_text(HBA)
    control = as_postgres(str(BIN / "pg_ctl"), "-D", str(data), "-l", str(directory / "server.log"), "-w", "-t", "60")
    subprocess.run([*control, "start"], check=True, stdout=subprocess.DEVNULL, cwd="/")
    try:
        started = Cluster(directory, port, authority)
        started.admin(ROLES)
        yield started
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL, cwd="/")
        shutil.rmtree(directory)


# A house for the edge without agent and policy: real sockets, a real journal file, layers that only relay.


class FileJournal:
    """The journal's framing in one file; `full` puts a full disk under it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.full = False
        self.behind = 0
        self.syncs = 0
        self.broken = False           # fdatasync fails
        self.slow: threading.Event | None = None
        self._pending: list[bytes] = []
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append(self, event, blobs=()) -> None:
        for _, salt, content in blobs:
            self._pending.append(render_record(BLOB, salt + content))
        self._pending.append(render_record(EVENT, render_event(event)))

    def flush(self) -> None:
        data, self._pending = b"".join(self._pending), []
        if not data:
            return
        if self.full:
            with open("/dev/full", "wb", buffering=0) as device:
                try:
                    device.write(data)
                except OSError as error:
                    raise RecordingError(f"journal: {error.strerror}") from None
        os.write(self._file, data)

    def sync(self) -> None:
        if self.slow is not None:
            assert self.slow.wait(20)
        if self.full or self.broken:
            raise RecordingError("journal: disk full")
        os.fdatasync(self._file)
        self.syncs += 1

    def check(self) -> None:
        if self.full:
            raise RecordingError("journal: disk full")

    def backlog(self) -> int:
        return self.behind

    def close(self) -> None:
        self.flush()
        os.close(self._file)

    def events(self) -> list[list]:
        raw, found = self.path.read_bytes(), []
        while raw:
            kind, size, _ = HEADER.unpack_from(raw)
            if kind == EVENT:
                found.append(msgspec.msgpack.decode(raw[HEADER.size:HEADER.size + size]))
            raw = raw[HEADER.size + size:]
        return found


class Asked:
    """Stands where the agent stands: says that every connection is `owner`'s."""

    def __init__(self) -> None:
        self.owner: Owner | str = "nobody knows it"
        self.login: Credential | str = Credential("scram", PASSWORD)
        self.whois_calls: list[tuple[int, int, bytes, int, str]] = []
        self.local_calls: list[tuple[str, int, int]] = []
        self.unused_calls: list[Credential] = []
        self.who: list[str] = []      # whose logins they were
        self.gate: asyncio.Event | None = None

    async def whois(self, cookie: int, netns: int, address: bytes, port: int, redirected: str) -> Owner | str:
        self.whois_calls.append((cookie, netns, address, port, redirected))
        if self.gate is not None:
            await self.gate.wait()
        return self.owner

    async def whois_local(self, target: str, pid: int, uid: int) -> Owner | str:
        self.local_calls.append((target, pid, uid))
        if self.gate is not None:
            await self.gate.wait()
        return self.owner

    async def credential(
        self, target: str, database: str, role: str, groups: tuple[str, ...], who: str = "",
    ) -> Credential | str:
        self.who.append(who)
        return self.login

    def unused(self, credential: Credential) -> None:
        self.unused_calls.append(credential)


class Anything:
    """A gate that permits."""

    version = 1

    def decide(self, principal, requests, labels=(), approved=False) -> Decision:
        return Decision(PERMIT)


class Relay:
    """The least that a layer can be: each piece from the client is an intent and goes on, answers come back."""

    durable = False

    def __init__(self, context) -> None:
        self.context, self.operations, self.state = context, 0, "login"
        self.connected, self.early = False, []

    def start(self) -> list:
        return [words.OpenConnection()]

    def receive(self, peer: int, data: bytes) -> list:
        if peer == words.SERVER:
            return [words.SendData(words.CLIENT, data)]
        if not self.connected:
            self.early.append(data)
            return []
        return self.forward(data)

    def forward(self, data: bytes) -> list:
        self.operations += 1
        event = intent(self.context.session, self.operations, self.durable)
        return [words.Record(event, (), True, self.durable), words.SendData(words.SERVER, data)]

    def handle(self, event) -> list:
        if isinstance(event, inputs.Connected):
            self.connected, self.state = True, "idle"
            early, self.early = b"".join(self.early), []
            return [words.Registered(1, b"mine", 2, b"real"), *(self.forward(early) if early else [])]
        if isinstance(event, inputs.ConnectFailed):
            return [words.SendData(words.CLIENT, event.reason.encode()), words.CloseConnection(words.CLIENT)]
        if isinstance(event, inputs.ConnectionLost):
            return [words.CloseConnection(1 - event.peer), words.CloseConnection(event.peer)]
        if isinstance(event, inputs.Ended | inputs.RecordingFailed):
            return self.last_words(event.reason)
        return []

    def refuse(self, error: Exception) -> list:
        return self.last_words(str(error))

    def last_words(self, text: str) -> list:
        return [
            words.SendData(words.CLIENT, text.encode()), words.CloseConnection(words.SERVER),
            words.CloseConnection(words.CLIENT),
        ]


class DurableRelay(Relay):
    durable = True


class TlsRelay(Relay):
    """PostgreSQL's way into TLS on both sides, then a relay."""

    def __init__(self, context) -> None:
        super().__init__(context)
        self.head, self.server_tls, self.started = b"", "", []

    def start(self) -> list:
        return []

    def receive(self, peer: int, data: bytes) -> list:
        if peer == words.SERVER and not self.connected:
            if data != b"S":
                raise RemoteProtocolError("more than one byte before TLS")
            return [words.StartTls(words.SERVER)]
        if peer == words.CLIENT and not self.started:
            if data != SSL_REQUEST:
                raise RemoteProtocolError("not an SSLRequest alone")
            return [words.StartTls(words.CLIENT, b"S", "postgresql")]
        return super().receive(peer, data)

    def handle(self, event) -> list:
        if isinstance(event, inputs.TlsStarted):
            self.started.append(event)
            if event.peer == words.CLIENT:
                return [words.Login("postgres", "crew")]
            return super().handle(inputs.Connected(""))
        if isinstance(event, inputs.CredentialReady):
            return [words.OpenConnection()]
        if isinstance(event, inputs.Connected):
            return [words.SendData(words.SERVER, SSL_REQUEST)]
        return super().handle(event)


def intent(session: str, operation: int, durable: bool = False) -> events.Intent:
    return events.Intent(
        events.INTENT, 1, 1, session, operation, "crew", "query", PERMIT, b"", b"", b"", (), (), (), "", "", durable,
    )


class House:
    """An Edge with one target and one egress entry, listening on loopback."""

    relay, durable, tls_relay = Relay, DurableRelay, TlsRelay

    def __init__(self, directory: Path, monkeypatch) -> None:
        self.directory, self._monkeypatch = directory, monkeypatch
        self.journal = FileJournal(directory / "events")
        self.asked = Asked()
        self.layers: list = []
        self.most = 50
        self.servers: list[asyncio.Server] = []
        self.edge: Edge | None = None

    def owner(self, port: int, target: str = "", egress: str = "", workload: str = "crew", uid: int = 1000) -> Owner:
        return Owner(
            workload, uid, "crew", "local:crew", ("data",), Process(4711, "/usr/bin/psql", "", ("psql",)), "/crew", 99,
            "127.0.0.1", port, "mark", target, egress,
        )

    def target(self, port: int, **more) -> Target:
        return Target("orders", "postgresql", ("db.edge.example",), port, ("127.0.0.1",), **more)

    def layer(self, made) -> None:
        def make(context):
            self.layers.append(made(context))
            return self.layers[-1]

        found = protocols.find("postgresql")
        entry = protocols.Protocol("postgresql", make, found.speaks, found.tls_request, found.render_cancel)
        self._monkeypatch.setattr(protocols, "find", lambda name: entry)

    def play(self, work: Callable[[], Awaitable[None]], seconds: float) -> None:
        """In a loop of its own, and closed behind it."""
        async def limited() -> None:
            try:
                async with asyncio.timeout(seconds):
                    await work()
            finally:
                await self.close()

        uvloop.run(limited())

    async def open(self, target: Target | None = None, egress: Egress | None = None) -> int:
        """Gives the port."""
        loop = asyncio.get_running_loop()
        self.edge = Edge(loop, self.asked)
        self.edge.configuration = Configuration(
            {target.name: target} if target else {}, {egress.name: egress} if egress else {}, Anything(), bytes(32),
            self.most, "writes",
        )
        self.edge.commit = GroupCommit(loop, self.journal, 1000, self.edge.recording_failed, self.edge.press)
        self.edge.holds = Holds(clock.now, clock.monotonic, os.urandom, self.edge.answer_hold, self.edge.hold_changed)
        listening = socket.create_server(("127.0.0.1", 0))
        found = await listen(self.edge, (listening.detach(),))
        self.servers += found
        return int(found[0].sockets[0].getsockname()[1])

    async def open_local(self, target: Target) -> Path:
        """As `open`, at a Unix socket of the target's."""
        await self.open(target)
        path = self.directory / "socket"
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen()
        self.servers += await listen_local(self.edge, {target.name: listening.detach()})
        return path

    async def serve(self, answer) -> int:
        """A server on loopback; gives its port."""
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        self.servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        for server in self.servers:
            server.close()
        if self.edge is None or self.edge.draining:
            return
        self.edge.draining = True
        for one in tuple(self.edge.live.values()):
            one.end("the test is over")
        while self.edge.live:
            await asyncio.wait_for(self.edge.idle.wait(), 20)
        self.edge.commit.close()


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    return House(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def sshd() -> Iterator[Server]:
    with run_server() as server:
        yield server
