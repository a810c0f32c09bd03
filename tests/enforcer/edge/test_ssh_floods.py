"""SSH peers that ask for answer after answer, and read none: what is held for them is bounded, on both sides."""
from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import asyncssh
import psutil
import pytest
from asyncssh.packet import Boolean, String, UInt32
from pump import TableGate
from sshhouse import ACCOUNT, Server, Stage, make_key, play

from agent.contract.credential import Credential
from enforcer.edge import peer as peers
from enforcer.edge import session as sessions
from enforcer.edge.peer import UNREAD, UNREAD_ANSWERS
from enforcer.words import events
from enforcer.words.commands import CLIENT, SERVER

PASSWORD = "correct horse battery staple"
HIGH, OWN = 32 << 10, 128 << 10
PIECE = 100                           # messages at a time
ROOM = 16 << 10                       # bytes of sockets' own buffers, and of what waits at the flooder's
MANY = 150_000                        # messages: who may send so many may send on
SECONDS = 180
WHILE = 0.5                           # seconds without reading: it waits
SLACK = 512 << 10                     # bytes that answer what was read before reading stopped
TOO_MANY = "too many requests wait for their answer"   # keepalives, which go on to the other side
Send = Callable[[Any], None]          # one message, by asyncssh's connection


def asks(name: str, *rest: bytes) -> Send:
    """For an answer (RFC 4254 4)."""
    return lambda connection: connection.send_packet(80, String(name), Boolean(True), *rest)


def opens(kind: str, *rest: bytes) -> Send:
    """A channel, which is refused."""
    return lambda connection: connection.send_packet(
        90, String(kind), UInt32(7), UInt32(1 << 20), UInt32(1 << 15), *rest)


def asks_channel(connection: Any) -> None:
    """Number 0 is Weir's first channel."""
    connection.send_packet(98, UInt32(0), String("nobody@knows.it"), Boolean(True))


def unknown(connection: Any) -> None:
    """A message of the transport, which is answered by UNIMPLEMENTED (RFC 4253 11.4)."""
    connection.send_packet(9, String("x"))


def logs_in(connection: Any) -> None:
    connection.send_packet(50, String(ACCOUNT), String("ssh-connection"), String("nobody@knows.it"))


def challenges(connection: Any) -> None:
    """RFC 4256 3.2."""
    connection.send_packet(60, String(""), String(""), String(""), UInt32(1), String("Password: "), Boolean(False))


FORWARD = String("127.0.0.1"), UInt32(7)
OF_CREW = {
    "unknown": asks("nobody@knows.it"), "forward": asks("tcpip-forward", *FORWARD),
    "keepalive": asks("keepalive@openssh.com"), "open": opens("nobody@knows.it"), "channel": asks_channel,
    "transport": unknown}
SILENT: dict[str, Send] = {
    "ignore": lambda connection: connection.send_packet(2, String(b"x" * 100)),
    "debug": lambda connection: connection.send_packet(4, Boolean(True), String(b"x" * 100), String(b"en")),
    "window": lambda connection: connection.send_packet(93, UInt32(0), UInt32(1))}
OF_SERVER = {
    "unknown": asks("nobody@knows.it"), "hostkeys": asks("hostkeys-00@openssh.com"),
    "keepalive": asks("keepalive@openssh.com"), "open": opens("nobody@knows.it"),
    "forwarded": opens("forwarded-tcpip", *FORWARD, *FORWARD), "channel": asks_channel, "transport": unknown}


class Host(asyncssh.SSHServer):
    """That Weir logs in to; `seen` has its connections."""

    def __init__(self, seen: list[Any], challenge: bool) -> None:
        self._seen, self._challenge = seen, challenge

    def connection_made(self, conn: Any) -> None:
        self._seen.append(conn)

    def begin_auth(self, username: str) -> bool:
        return self._challenge

    def kbdint_auth_supported(self) -> bool:
        return True

    async def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        return "", "", "", [("Password: ", False)]

    async def validate_kbdint_response(self, username: str, responses: Any) -> bool:
        return await asyncio.get_running_loop().create_future()


class Crew(asyncssh.SSHClient):
    """Is asked for a password, and takes its time."""

    def __init__(self, seen: list[Any]) -> None:
        self._seen = seen

    def connection_made(self, conn: Any) -> None:
        self._seen.append(conn)

    async def password_auth_requested(self) -> str:
        return await asyncio.get_running_loop().create_future()


async def cat(process: Any) -> None:
    with suppress(asyncssh.Error):
        process.stdout.write(await process.stdin.read())
        process.exit(0)


def narrow() -> socket.socket:
    """What is not read there is soon Weir's to hold."""
    link = socket.socket()
    for which in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        link.setsockopt(socket.SOL_SOCKET, which, ROOM)
    link.bind(("127.0.0.1", 0))
    link.setblocking(False)
    return link


class Field(Stage):
    """Its server is asyncssh's, in this loop, and so is whoever floods."""

    def __init__(self, house: Any, challenge: bool = False) -> None:
        self.links: list[Any] = []    # of the server
        self._challenge = challenge
        for name in ("host", "user"):
            make_key(house.directory / name)
        super().__init__(house, Server(house.directory, 0))
        self.logins["ssh"] = Credential(ACCOUNT, password=PASSWORD)

    async def start(self) -> None:
        listening = await asyncssh.listen(
            sock=narrow(), server_host_keys=[str(self.directory / "host")], process_factory=cat, encoding=None,
            server_factory=lambda: Host(self.links, self._challenge))
        self.house.servers.append(listening)
        self.server = Server(self.directory, listening.sockets[0].getsockname()[1])
        await super().start()

    async def connect(self, **options: Any) -> Any:
        link = narrow()
        await asyncio.get_running_loop().sock_connect(link, ("127.0.0.1", self.port))
        return await asyncssh.connect(sock=link, username=ACCOUNT, known_hosts=None, config=None, client_keys=None,
                                      agent_path=None, **options)

    async def login(self) -> tuple[Any, Any]:
        """The crew's end and the server's, with one channel."""
        client = await self.connect()
        await client.create_process(encoding=None)
        return client, self.links[0]


class Sink(asyncio.Protocol):
    """Takes what is left."""


class Flood:
    """`connection` sends and does not read.  `held`: bytes that Weir has for each side, at most."""

    def __init__(self, field: Field, connection: Any) -> None:
        self.connection, self.sent, self.held = connection, 0, [0, 0]
        (self.session,) = field.house.edge.live.values()
        self.link = connection._transport
        for peer in self.session.peers:
            if peer.transport is not None:
                peer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)

    async def run(self, send: Send) -> None:
        """Until its session is over, or has not read any more for a while."""
        loop = asyncio.get_running_loop()
        self.link.pause_reading()
        unread = 0.0                  # since when
        while not self.session.peers[SERVER].closing and (not unread or loop.time() - unread < WHILE):
            assert self.sent < MANY, f"it may send without an end, and Weir holds {self.held}"
            if self.link.get_write_buffer_size() < ROOM and not self.link.is_closing():
                for _ in range(PIECE):
                    send(self.connection)
                self.sent += PIECE
            await asyncio.sleep(0)
            for number, peer in enumerate(self.session.peers):
                if peer.transport is not None:
                    self.held[number] = max(self.held[number], peer.transport.get_write_buffer_size())
            unread = (unread or loop.time()) if self.session.peers[CLIENT].stopped(UNREAD) else 0.0

    def read(self) -> None:
        """What has been left, and no more is said."""
        self.link.set_protocol(Sink())
        self.link.resume_reading()


@pytest.fixture
def field(house: Any, monkeypatch: pytest.MonkeyPatch) -> Field:
    """Less is held than elsewhere: it is reached sooner."""
    monkeypatch.setattr(peers, "HIGH", HIGH)
    monkeypatch.setattr(peers, "LOW", HIGH // 4)
    monkeypatch.setattr(peers, "OWN", OWN)
    made = Field(house)
    made.gate = TableGate(deny={("ssh:forward-remote", "*")})
    return made


@pytest.mark.parametrize("kind", OF_CREW)
def test_a_crew_that_reads_no_answer_waits(field: Field, kind: str) -> None:
    async def work() -> None:
        client, _ = await field.login()
        flood = Flood(field, client)
        await flood.run(OF_CREW[kind])
        assert max(flood.held) < HIGH + SLACK
        flood.read()
        await field.until(lambda: field.reasons() or not flood.session.peers[CLIENT].stopped(UNREAD))
        assert field.reasons() in ([], [f"client lost: {TOO_MANY}"] if kind == "keepalive" else [])
        client.abort()

    play(field, work, SECONDS)


@pytest.mark.parametrize("kind", OF_SERVER)
def test_a_server_that_reads_no_answer_ends_its_session(field: Field, kind: str) -> None:
    async def work() -> None:
        client, server = await field.login()
        flood = Flood(field, server)
        await flood.run(OF_SERVER[kind])
        await field.until(field.reasons)
        assert max(flood.held) < HIGH + OWN + SLACK
        why = field.reasons()[0]
        assert why in (f"server lost: {UNREAD_ANSWERS}", *([f"server lost: {TOO_MANY}"] if kind == "keepalive" else []))
        server.abort()
        client.abort()

    play(field, work, SECONDS)


def test_a_server_that_asks_while_the_journal_is_behind(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is answered stands behind what a crew has said, which waits for the disk."""
    monkeypatch.setattr(sessions, "OWN", OWN)

    async def work() -> None:
        client, server = await field.login()
        flood = Flood(field, server)
        field.house.journal.slow = slow = threading.Event()
        running = asyncio.ensure_future(client.run("touch x"))
        await field.until(lambda: flood.session._later)
        await flood.run(OF_SERVER["unknown"])
        assert OWN < flood.session._later_answers < peers.OWN + SLACK
        slow.set()
        await field.until(field.reasons)
        assert field.reasons() == [f"server lost: {UNREAD_ANSWERS}"]
        server.abort()
        client.abort()
        await asyncio.gather(running, return_exceptions=True)

    play(field, work, SECONDS)


def test_a_crew_that_logs_in_again_and_again_waits(field: Field) -> None:
    field.options = {"options": {"authentication": "password"}}

    async def work() -> None:
        ends: list[Any] = []
        trying = asyncio.ensure_future(field.connect(client_factory=lambda: Crew(ends)))
        await field.until(lambda: ends and ends[0]._auth)
        flood = Flood(field, ends[0])
        await flood.run(logs_in)
        assert max(flood.held) < HIGH + SLACK
        ends[0].abort()
        await asyncio.gather(trying, return_exceptions=True)

    play(field, work, SECONDS)


def test_a_server_that_challenges_again_and_again(house: Any) -> None:
    """A credential is given once: there is no second answer."""
    field = Field(house, challenge=True)

    async def work() -> None:
        trying = asyncio.ensure_future(field.connect())
        await field.until(lambda: field.links and field.links[0]._auth)
        flood = Flood(field, field.links[0])
        await flood.run(challenges)
        assert max(flood.held) < HIGH
        (refused,) = field.events(events.Refused)
        assert "it refuses the credential" in str(refused["reason"])
        field.links[0].abort()
        await asyncio.gather(trying, return_exceptions=True)

    play(field, work, SECONDS)


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
@pytest.mark.parametrize("kind", SILENT)
def test_what_is_not_answered_leaves_nothing(field: Field, peer: int, kind: str) -> None:
    async def work() -> None:
        ends = await field.login()
        flood, process = Flood(field, ends[peer]), psutil.Process()
        before = process.memory_info().rss
        for _ in range(MANY // 40):
            SILENT[kind](ends[peer])
            if flood.link.get_write_buffer_size() > ROOM:
                await field.until(lambda: not flood.link.get_write_buffer_size())
        assert process.memory_info().rss - before < 8 << 20
        assert field.house.edge.live
        for one in ends:
            one.abort()

    play(field, work, SECONDS)
