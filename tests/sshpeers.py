"""Real SSH peers in memory: asyncssh's client and server, and between them Weir's layer and a small edge.

Nothing here listens: what one end writes is handed to the other in a later pass of the loop, cut as the test wants it.
"""
from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import asyncssh
from asyncssh.connection import SSHClientConnection, SSHServerConnection
from pump import TableGate
from sshtalk import make_context

from agent.contract.credential import Credential
from agent.contract.target import Target
from enforcer.protocols.ssh.layer import SshLayer
from enforcer.words import commands as words
from enforcer.words import events, inputs
from enforcer.words.commands import CLIENT, SERVER, Command

PASSWORD = "correct horse"
WEIR_KEY = asyncssh.generate_private_key("ssh-ed25519")
SERVER_KEY = asyncssh.generate_private_key("ssh-ed25519")
USER_KEY = asyncssh.generate_private_key("ssh-ed25519")


def private(key: asyncssh.SSHKey, passphrase: str | None = None) -> str:
    return key.export_private_key("pkcs8-pem" if passphrase else "openssh", passphrase).decode()


def known(key: asyncssh.SSHKey, host: str = "host") -> str:
    return f"{host} {key.export_public_key().decode()}"


class Pipe(asyncio.Transport):
    """One way: to whoever reads the other end."""

    def __init__(self, deliver: Callable[[bytes], None], lost: Callable[[], None], cut: int = 0, seed: int = 0) -> None:
        super().__init__()
        self._deliver, self._lost, self._cut, self._chance = deliver, lost, cut, random.Random(seed)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[bytes] = deque()
        self._busy = self.closed = self.paused = False
        self.written = 0

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self.closed:
            self.written += len(data)
            self._waiting.extend(self._pieces(bytes(data)))
            self.go_on()

    def _pieces(self, data: bytes) -> list[bytes]:
        pieces = []
        while data:
            size = self._chance.randint(1, self._cut) if self._cut else len(data)
            pieces.append(data[:size])
            data = data[size:]
        return pieces

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        self.go_on()

    def go_on(self) -> None:
        if not self._busy and not self.paused and (self._waiting or self.closed):
            self._busy = True
            self._loop.call_soon(self._pass)

    def _pass(self) -> None:
        self._busy = False
        if self._waiting and not self.paused:
            self._deliver(self._waiting.popleft())
        elif self.closed and not self._waiting:
            self._lost()
            return
        self.go_on()

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.go_on()

    def abort(self) -> None:
        self.close()


class Client(asyncssh.SSHClient):
    def __init__(self) -> None:
        self.banners: list[str] = []

    def password_auth_requested(self) -> str | None:
        return "anything"


class Server(asyncssh.SSHServer):
    """One user, `app`, by password or key."""

    def begin_auth(self, username: str) -> bool:
        return username != "open"

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return username == "app" and password == PASSWORD

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return username == "app" and key == USER_KEY.convert_to_public()

    def connection_requested(self, *where: object) -> Any:
        return _Echo()

    def server_requested(self, host: str, port: int) -> bool:
        return False


class _Echo(asyncssh.SSHTCPSession[bytes]):
    def connection_made(self, chan: Any) -> None:
        self._chan = chan

    def data_received(self, data: bytes, datatype: object) -> None:
        self._chan.write(data)

    def eof_received(self) -> bool:
        return False


async def process(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """What the server runs: `cat` gives back, `zeros N` writes so many, `exit N` ends so, `wait` waits."""
    words_ = (process.command or "shell").split()
    try:
        if words_[0] == "cat":
            while data := await process.stdin.read(1 << 16):
                process.stdout.write(data)
                await process.stdout.drain()
        elif words_[0] == "zeros":
            for _ in range(int(words_[1]) >> 15):
                process.stdout.write(bytes(1 << 15))
                await process.stdout.drain()
        elif words_[0] == "wait":
            await process.stdin.read()
        else:
            process.stdout.write(f"ran {process.command} as {process.get_extra_info('username')}\n".encode())
            process.stderr.write(b"to err\n")
        process.exit(int(words_[1]) if words_[0] == "exit" else 0)
    except asyncssh.BreakReceived:
        process.exit(1)


def client_options(**given: Any) -> asyncssh.SSHClientConnectionOptions:
    wanted = {"known_hosts": None, "username": "app", "host": "host", "client_keys": None, "agent_path": None,
              "config": None, "client_factory": Client, **given}
    return asyncssh.SSHClientConnectionOptions(**wanted)


def server_options(**given: Any) -> asyncssh.SSHServerConnectionOptions:
    wanted = {"server_host_keys": [SERVER_KEY], "server_factory": Server, "process_factory": process, "encoding": None,
              "config": None, **given}
    return asyncssh.SSHServerConnectionOptions(**wanted)


def make_client(options: asyncssh.SSHClientConnectionOptions) -> SSHClientConnection:
    loop = asyncio.get_running_loop()
    options.waiter = loop.create_future()
    return SSHClientConnection(loop, options, wait="auth")


def make_server(options: asyncssh.SSHServerConnectionOptions) -> SSHServerConnection:
    loop = asyncio.get_running_loop()
    options.waiter = loop.create_future()
    return SSHServerConnection(loop, options, wait=None)


class Bench:
    """Weir's layer between two peers.  `cut`: no piece is longer.  `hold`: what people say, or None for later."""

    def __init__(
        self, gate: TableGate | None = None, *, cut: int = 0, seed: int = 0, credential: Credential | str | None = None,
        client: dict[str, Any] | None = None, server: dict[str, Any] | None = None, dial: str = "", **target: Any,
    ) -> None:
        given = {"host_keys": (private(WEIR_KEY),), "known_hosts": known(SERVER_KEY), **target}
        self.target = Target("t", "ssh", ("host",), 22, ("127.0.0.1",), **given)
        self.log: list[Command] = []
        self.context = make_context(gate or TableGate(), self.target, push=self._carry)
        self.layer = SshLayer(self.context)
        self.credential = Credential("app", password=PASSWORD) if credential is None else credential
        self.dial = dial
        self.holds: list[words.Hold] = []
        self.on_hold: Callable[[words.Hold], str | None] = lambda hold: None
        self.paused = [False, False]
        self.closed = asyncio.Event()
        self.failed: Exception | None = None
        self._work: deque[Command] = deque()
        self._running = self.over = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._options = server_options(**(server or {}))
        self.server: SSHServerConnection | None = None
        self._shape = {"cut": cut, "seed": seed}
        self.client_options = client_options(**(client or {}))
        self.client = make_client(self.client_options)
        self.from_client = Pipe(lambda data: self.receive(CLIENT, data), lambda: self._gone(CLIENT), **self._shape)
        self.to_client = Pipe(self.client.data_received, self.client.connection_lost, **self._shape)
        self.from_server = Pipe(lambda data: self.receive(SERVER, data), lambda: self._gone(SERVER), **self._shape)
        self.to_server: Pipe | None = None
        self._carry(self.layer.start())
        self.client.connection_made(self.from_client)

    async def login(self) -> asyncssh.SSHClientConnection:
        await asyncio.wait_for(self.client_options.waiter, 20)
        return self.client

    # The edge

    def receive(self, peer: int, data: bytes) -> None:
        if self.over:
            return
        try:
            self._carry(self.layer.receive(peer, data))
        except Exception as error:
            self.failed, self.over = error, True
            self._carry(self.layer.refuse(error))

    def tell(self, event: inputs.Input) -> None:
        if not self.over:
            self._carry(self.layer.handle(event))

    def _gone(self, peer: int) -> None:
        self.tell(inputs.ConnectionLost(peer))

    def _carry(self, given: list[Command]) -> None:
        self._work.extend(given)
        if self._running:
            return
        self._running = True
        try:
            while self._work:
                self._do(self._work.popleft())
        finally:
            self._running = False

    def _do(self, command: Command) -> None:
        self.log.append(command)
        if isinstance(command, words.SendData):
            pipe = self.to_client if command.peer == CLIENT else self.to_server
            if pipe is not None:
                pipe.write(command.data)
        elif isinstance(command, words.Login):
            self.tell(inputs.CredentialFailed(self.credential) if isinstance(self.credential, str)
                      else inputs.CredentialReady(self.credential))
        elif isinstance(command, words.OpenConnection):
            self._dial()
        elif isinstance(command, words.Hold):
            self.holds.append(command)
            self.tell(inputs.HoldOpened(command.operation, "T-1", "people"))
            state = self.on_hold(command)
            if state:
                self.answer(state, command.operation)
        elif isinstance(command, words.CancelHold):
            self.answer("cancelled", command.operation)
        elif isinstance(command, words.OpenThrough):
            self.tell(inputs.ThroughRefused(command.number, ""))
        elif isinstance(command, words.CloseConnection):
            self._close(command.peer)
        elif isinstance(command, words.PauseReading | words.ResumeReading):
            self._stop(command.peer, isinstance(command, words.PauseReading))
        elif isinstance(command, words.StartTimer):
            self._timer(command)

    def _dial(self) -> None:
        if self.dial:
            self.tell(inputs.ConnectFailed(self.dial))
            return
        self.server = make_server(self._options)
        self.to_server = Pipe(self.server.data_received, self.server.connection_lost, **self._shape)
        self.server.connection_made(self.from_server)
        self.tell(inputs.Connected("127.0.0.1:22"))

    def _close(self, peer: int) -> None:
        pipe = self.to_client if peer == CLIENT else self.to_server
        if pipe is not None:
            pipe.close()
        if peer == CLIENT:
            self.closed.set()

    def _stop(self, peer: int, on: bool) -> None:
        self.paused[peer] = on
        pipe = self.from_client if peer == CLIENT else self.from_server
        (pipe.pause if on else pipe.resume)()

    def _timer(self, command: words.StartTimer) -> None:
        running = self._timers.pop(command.name, None)
        if running is not None:
            running.cancel()
        if command.seconds:
            self._timers[command.name] = asyncio.get_running_loop().call_later(
                min(command.seconds, 0.05), lambda: self.tell(inputs.TimerFired(command.name)))

    def answer(self, state: str, operation: int = 0) -> None:
        self.tell(inputs.HoldAnswered(operation or self.holds[-1].operation, state, "ann", "so it is", "T-1"))

    async def end(self) -> None:
        """Everything closed, and no task left behind."""
        self.client.abort()
        await asyncio.wait_for(self.closed.wait(), 10)
        if self.server is not None:
            self.server.abort()
        for timer in self._timers.values():
            timer.cancel()
        for _ in range(100):
            await asyncio.sleep(0)
        waiter = self.client_options.waiter
        assert waiter.cancelled() or waiter.done()
        waiter.cancelled() or waiter.exception()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    # What was recorded

    def events(self, kind: type) -> list[Any]:
        return [one.event for one in self.log if isinstance(one, words.Record) and isinstance(one.event, kind)]

    def intents(self) -> list[tuple[str, int]]:
        return [(one.verb, one.decision) for one in self.events(events.Intent) if one.actor == "crew"]

    def results(self) -> list[tuple[int, str, str]]:
        return [(one.operation, one.status, one.tag) for one in self.events(events.Result)]

    def ends(self) -> tuple[int, int, int]:
        """How often SessionOpened, SessionClosed, Refused."""
        return tuple(len(self.events(kind)) for kind in (  # type: ignore[return-value]
            events.SessionOpened, events.SessionClosed, events.Refused))
