"""A real sshd on loopback and OpenSSH's own clients, with the Edge between them: no agent, policy as a table."""
from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil
import uvloop
from pump import TableGate

from agent.contract.credential import Credential
from agent.contract.journal import BLOB, HEADER
from agent.contract.target import Target
from enforcer.edge.catalogue import Catalogues
from enforcer.edge.plans import Plans
from enforcer.words import events

ACCOUNT, NUMBER = "deploy", 61099
SALT = 16
SETTINGS = """
Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host
PidFile none
UsePAM no
UseDNS no
LogLevel ERROR
StrictModes no
MaxStartups 1000
MaxSessions 1000
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile {directory}/authorized
AllowStreamLocalForwarding yes
GatewayPorts no
PrintMotd no
PrintLastLog no
AcceptEnv LANG WEIR_*
Subsystem sftp internal-sftp
"""
# An account of its own: in a mount namespace, so that the machine's does not change; with its first process all end.
START = ("mount --bind {directory}/passwd /etc/passwd && mount -t tmpfs none /run && mkdir -m 755 /run/sshd && "
         "exec /usr/sbin/sshd -D -e -f {directory}/config")
CLIENT = """
Host *
  HostKeyAlias weir
  UserKnownHostsFile {directory}/known
  StrictHostKeyChecking yes
  User {account}
  IdentityFile none
  IdentityAgent none
  LogLevel {level}
  ControlPath {directory}/control
  ServerAliveInterval 0
  ConnectTimeout 20
  ExitOnForwardFailure yes
"""


@dataclass(frozen=True)
class Server:
    directory: Path
    port: int

    @property
    def key(self) -> str:
        return (self.directory / "user").read_text()

    @property
    def known(self) -> str:
        kind, key = (self.directory / "host.pub").read_text().split()[:2]
        return f"[127.0.0.1]:{self.port} {kind} {key}"

    @property
    def home(self) -> Path:
        return self.directory / "home"


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def run_server() -> Iterator[Server]:
    directory = Path(tempfile.mkdtemp(prefix="weir-sshd-"))
    directory.chmod(0o755)
    server = Server(directory, free_port())
    server.home.mkdir()
    os.chown(server.home, NUMBER, NUMBER)
    make_key(directory / "host")
    make_key(directory / "user")
    shutil.copy(directory / "user.pub", directory / "authorized")
    (directory / "config").write_text(SETTINGS.format(port=server.port, directory=directory))
    account = f"{ACCOUNT}:*:{NUMBER}:{NUMBER}::{server.home}:/bin/dash\n"
    (directory / "passwd").write_text(account + Path("/etc/passwd").read_text())
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "sh", "-c",
             START.format(directory=directory)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while not _listens(server.port):
            assert process.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield server
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(directory)


def runs(*argv: str) -> bool:
    """Somewhere on this machine."""
    for one in psutil.process_iter(["cmdline"]):
        if one.info["cmdline"] == list(argv):
            return True
    return False


@dataclass(frozen=True)
class Done:
    code: int
    out: bytes
    err: str


class Stage:
    """`house`: of the edge's conftest.  What each test changes, it changes before `play`."""

    def __init__(self, house, server: Server) -> None:  # type: ignore[no-untyped-def]
        self.house, self.server, self.gate = house, server, TableGate()
        self.logins: dict[str, Credential | str] = {"ssh": Credential(ACCOUNT, key=server.key)}
        self.more: dict[str, Target] = {}
        self.options: dict[str, object] = {}
        self.directory: Path = house.directory
        self.port = 0
        self.level = "ERROR"
        house.asked.credential = self._credential

    async def _credential(self, target: str, database: str, role: str, groups: tuple[str, ...],
                          who: str = "") -> Credential | str:
        return self.logins[target]

    def target(self) -> Target:
        given = {"host_keys": ((self.directory / "weir").read_text(),), "known_hosts": self.server.known,
                 "payload": "content", **self.options}
        return Target("ssh", "ssh", ("127.0.0.1",), self.server.port, ("127.0.0.1",), **given)  # type: ignore[arg-type]

    async def start(self) -> None:
        make_key(self.directory / "weir")
        kind, key = (self.directory / "weir.pub").read_text().split()[:2]
        (self.directory / "known").write_text(f"weir {kind} {key}\n")
        (self.directory / "ssh_config").write_text(CLIENT.format(
            directory=self.directory, account=ACCOUNT, level=self.level))
        target = self.target()
        self.port = await self.house.open(target)
        edge = self.house.edge
        edge.configuration = dataclasses.replace(
            edge.configuration, gate=self.gate, targets={"ssh": target, **self.more})
        edge.catalogues, edge.plans = Catalogues(edge), Plans(edge)
        self.house.asked.owner = self.house.owner(self.server.port, "ssh")

    # Clients

    async def begin(
        self, *argv: str, program: str = "ssh", stdin: int = subprocess.PIPE, to: int = 0,
    ) -> asyncio.subprocess.Process:
        """`argv` as behind the port: options before the host.  `to`: another port."""
        port = ("-p" if program == "ssh" else "-P", str(to or self.port))
        return await asyncio.create_subprocess_exec(
            program, "-F", str(self.directory / "ssh_config"), *port, *argv, stdin=stdin,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    async def run(self, *argv: str, program: str = "ssh", stdin: bytes = b"", limit: float = 30, to: int = 0) -> Done:
        process = await self.begin(*argv, program=program, to=to)
        try:
            async with asyncio.timeout(limit):
                out, err = await process.communicate(stdin)
        except TimeoutError:
            process.kill()
            out, err = await process.communicate()
            raise AssertionError(f"{program} {argv} hangs: {out[-500:]!r} {err[-500:]!r}") from None
        return Done(process.returncode or 0, out, err.decode())

    async def exec(self, line: str, *options: str, stdin: bytes = b"") -> Done:
        return await self.run(*options, "127.0.0.1", line, stdin=stdin)

    async def until(self, condition: Callable[[], object], limit: float = 15) -> None:
        async with asyncio.timeout(limit):
            while not condition():
                await asyncio.sleep(0.01)

    # What was recorded

    def _flushed(self) -> None:
        if not self.house.edge.commit.failure:
            self.house.edge.commit.write_now()

    def events(self, kind: type) -> list[dict[str, object]]:
        self._flushed()
        fields, number = [one.name for one in msgspec.structs.fields(kind)], _KINDS[kind]
        return [dict(zip(fields, event, strict=False)) for event in self.house.journal.events() if event[0] == number]

    def blobs(self) -> bytes:
        """The content of all that is on record."""
        self._flushed()
        raw, found = self.house.journal.path.read_bytes(), []
        while raw:
            kind, size, _ = HEADER.unpack_from(raw)
            if kind == BLOB:
                found.append(raw[HEADER.size + SALT:HEADER.size + size])
            raw = raw[HEADER.size + size:]
        return b"\n".join(found)

    def intents(self) -> list[str]:
        return [str(one["verb"]) for one in self.events(events.Intent) if one["actor"] == "crew"]

    def results(self) -> list[tuple[object, object]]:
        """(status, tag) of what crews did."""
        own = {(one["session"], one["operation"]) for one in self.events(events.Intent) if one["actor"] != "crew"}
        return [(one["status"], one["tag"]) for one in self.events(events.Result)
                if (one["session"], one["operation"]) not in own]

    def reasons(self) -> list[object]:
        """Of sessions that are closed."""
        return [one["reason"] for one in self.events(events.SessionClosed)]

    def outer(self):  # type: ignore[no-untyped-def]
        return next(one for one in self.house.edge.live.values() if one.owner.target == "ssh")


_KINDS = {
    events.Intent: events.INTENT, events.Result: events.RESULT, events.SessionOpened: events.SESSION_OPENED,
    events.SessionClosed: events.SESSION_CLOSED, events.SessionNoted: events.SESSION_NOTED,
    events.Refused: events.REFUSED, events.Gap: events.GAP, events.Streamed: events.STREAMED,
    events.StreamEnded: events.STREAM_ENDED}


def play(stage: Stage, work: Callable[[], Awaitable[None]], limit: float = 60) -> None:
    """Leaves no session, no descriptor and no bug behind; each session that was opened was closed once."""
    async def limited() -> None:
        before = 0
        try:
            async with asyncio.timeout(limit):
                before = psutil.Process().num_fds()
                await stage.start()
                await work()
                await stage.until(lambda: not stage.house.edge.live and not stage.house.edge.arriving)
        finally:
            await stage.house.close()
        await asyncio.sleep(0.05)
        gc.collect()
        assert psutil.Process().num_fds() <= before + 1
        assert stage.house.edge.counters.get("bugs", 0) == 0
        opened = [one["session"] for one in stage.events(events.SessionOpened)]
        closed = [one["session"] for one in stage.events(events.SessionClosed)]
        if not stage.house.edge.commit.failure:
            assert sorted(opened) == sorted(closed)        # type: ignore[type-var]

    uvloop.run(limited())


# Tunnels

async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.0 200 OK\r\n\r\nhello from http\n")
    writer.close()


async def forwarding(stage: Stage, *options: str) -> asyncio.subprocess.Process:
    """A client without a command that is logged in."""
    process = await stage.begin("-N", *options, "127.0.0.1", stdin=subprocess.DEVNULL)
    await stage.until(lambda: stage.events(events.SessionOpened))
    return process


async def ended(process: asyncio.subprocess.Process) -> None:
    """A client that is told to end.  One that is told between its look for a signal and its poll misses it."""
    while process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(1):
                await process.wait()
        except TimeoutError:
            continue


async def reached(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(10):
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
