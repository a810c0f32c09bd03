"""A layer between a test's hands and a real PostgreSQL: a synchronous edge, small enough to read.

`Pump` carries commands out over real sockets; `talk` sends raw messages and gives what the client gets, as a list of
(kind, body).  `Direct` is the same without Weir: the native behaviour.
"""
from __future__ import annotations

import itertools
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from agent.contract.credential import Credential
from agent.contract.owner import Owner, Process
from agent.contract.target import Target
from enforcer.core.context import Context
from enforcer.core.gate import Gate
from enforcer.protocols.postgresql.catalogue import load_catalogue
from enforcer.protocols.postgresql.layer import PostgresqlLayer
from enforcer.words import commands as words
from enforcer.words import events, inputs
from enforcer.words.commands import CLIENT, SERVER, Command
from enforcer.words.decisions import DENY, HOLD, PERMIT, Decision, HoldTerms
from enforcer.words.errors import ProtocolError
from enforcer.words.operations import Principal, Request
from enforcer.words.reported import Calls

Message = tuple[bytes, bytes]
KEY = b"k" * 32


@dataclass
class TableGate:
    """Policy as two sets of (action, last part of the resource); "*" is every one."""

    deny: set[tuple[str, str]] = field(default_factory=set)
    hold: set[tuple[str, str]] = field(default_factory=set)
    unmasked: set[str] = field(default_factory=set)
    version: int = 1

    def decide(
        self, principal: Principal, requests: tuple[Request, ...], labels: tuple[str, ...] = (), approved: bool = False,
    ) -> Decision:
        seen = tuple(label for label in labels if label in self.unmasked)
        masked = tuple(label for label in labels if label not in self.unmasked)
        for request in requests:
            pair = (request.action, request.path[-1])
            if pair in self.deny or (request.action, "*") in self.deny:
                return Decision(DENY, ("no",), f"policy no forbids {request.action} on {request.resource}")
        for request in requests:
            if (request.action, request.path[-1]) in self.hold and not approved:
                return Decision(HOLD, ("ask",), holds=(HoldTerms("ask", ("dba",)),), masked=masked, unmasked=seen)
        return Decision(PERMIT, ("yes",), unmasked=seen, masked=masked)


def render(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def query(text: str) -> bytes:
    return render(b"Q", text.encode() + b"\0")


def parse(text: str, name: str = "") -> bytes:
    return render(b"P", name.encode() + b"\0" + text.encode() + b"\0\0\0")


def bind(*values: str | None, portal: str = "", name: str = "", binary: bool = False) -> bytes:
    body = portal.encode() + b"\0" + name.encode() + b"\0\0\0" + struct.pack("!H", len(values))
    for value in values:
        body += b"\xff\xff\xff\xff" if value is None else struct.pack("!I", len(value.encode())) + value.encode()
    return render(b"B", body + (b"\0\1\0\1" if binary else b"\0\0"))


def describe(kind: str, name: str = "") -> bytes:
    return render(b"D", kind.encode() + name.encode() + b"\0")


def execute(portal: str = "", rows: int = 0) -> bytes:
    return render(b"E", portal.encode() + b"\0" + struct.pack("!I", rows))


def close(kind: str, name: str = "") -> bytes:
    return render(b"C", kind.encode() + name.encode() + b"\0")


SYNC, FLUSH = render(b"S"), render(b"H")


def startup(**parameters: str) -> bytes:
    body = b"".join(f"{k}\0{v}\0".encode() for k, v in parameters.items()) + b"\0"
    return struct.pack("!II", len(body) + 8, 196608) + body


def split(data: bytes) -> list[Message]:
    """Whole messages."""
    found, at = [], 0
    while at < len(data):
        size = struct.unpack_from("!I", data, at + 1)[0]
        found.append((data[at:at + 1], data[at + 5:at + 1 + size]))
        at += 1 + size
    return found


def fields(body: bytes) -> dict[str, str]:
    return {chr(piece[0]): piece[1:].decode() for piece in body.split(b"\0") if piece}


def shape(messages: Iterable[Message]) -> list[str]:
    """For reading: kind, and what matters of it."""
    told = []
    for kind, body in messages:
        if kind == b"E":
            told.append(f"E {fields(body)['C']}")
        elif kind == b"C":
            told.append(f"C {body[:-1].decode()}")
        elif kind == b"Z":
            told.append(f"Z {body.decode()}")
        elif kind == b"D":
            told.append("D " + ",".join("NULL" if v is None else v.decode("utf-8", "replace") for v in values(body)))
        elif kind not in (b"N", b"S"):
            told.append(kind.decode())
    return told


def values(body: bytes) -> list[bytes | None]:
    count, at, found = struct.unpack_from("!H", body)[0], 2, []
    for _ in range(count):
        size = struct.unpack_from("!i", body, at)[0]
        found.append(None if size < 0 else body[at + 4:at + 4 + size])
        at += 4 + max(size, 0)
    return found


class Wire:
    """A connection to the real server."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))

    def ready(self, seconds: float) -> bool:
        return bool(select.select([self.socket], [], [], seconds)[0])


class Direct:
    """The native conversation."""

    def __init__(self, port: int, user: str, database: str) -> None:
        self.wire = Wire(port)
        self.wire.socket.sendall(startup(user=user, database=database))
        self.rest = b""
        self.until_ready()

    def until_ready(self, count: int = 1) -> list[Message]:
        got: list[Message] = []
        while sum(kind == b"Z" for kind, _ in got) < count:
            self.rest += self._more()
            whole = _whole(self.rest)
            got += split(self.rest[:whole])
            self.rest = self.rest[whole:]
        return got

    def _more(self) -> bytes:
        assert self.wire.ready(20), "the server is silent"
        data = self.wire.socket.recv(1 << 16)
        assert data, "the server closed"
        return data

    def talk(self, *messages: bytes, ready: int = 1) -> list[Message]:
        self.wire.socket.sendall(b"".join(messages))
        return self.until_ready(ready)

    def close(self) -> None:
        self.wire.socket.close()


def _whole(data: bytes) -> int:
    at = 0
    while len(data) - at >= 5:
        size = struct.unpack_from("!I", data, at + 1)[0]
        if at + 1 + size > len(data):
            break
        at += 1 + size
    return at


class Pump:
    """Weir's layer, logged in; `cut` says how many bytes a read gives at most (chunk invariance)."""

    calls: Calls = ()                 # that the process reports

    def __init__(
        self, port: int, user: str, database: str, gate: Gate, labels: tuple[object, ...] = (), cut: int = 1 << 20,
        **options: object,
    ) -> None:
        self.port, self.user, self.cut = port, user, cut
        self.target = Target("t", "postgresql", ("127.0.0.1",), port, ("127.0.0.1",), tls="disable",
                             labels=labels, **options)  # type: ignore[arg-type]
        owner = Owner("crew", 1000, "u", "local:u", ("data",), Process(7, "/bin/x"), "", 1, "127.0.0.1", port, "mark")
        counter = itertools.count(1)
        self.context = Context(
            "SESSION", Principal("local:u", ("data",), owner), self.target, gate, time.time_ns,
            lambda: next(counter), os.urandom, KEY, shared={}, counts=lambda ticket: ticket in self.counting,
            reported=lambda: self.calls)
        self.counting = {"T-1", "T"}           # tickets whose approval is still one
        self.layer = PostgresqlLayer(self.context)
        self.records: list[words.Record] = []
        self.client = b""
        self.to_server = b""
        self.wire: Wire | None = None
        self.holds: list[words.Hold] = []
        self.closed = ""
        self.on_hold: Callable[[words.Hold], inputs.HoldAnswered | None] = lambda hold: None
        self.do(self.layer.start())
        self.send(startup(user=user, database=database))
        self.hello = self.until_ready()

    def send(self, data: bytes) -> None:
        for at in range(0, len(data), self.cut):
            self.receive(CLIENT, data[at:at + self.cut])

    def receive(self, peer: int, data: bytes) -> None:
        try:
            self.do(self.layer.receive(peer, data))
        except ProtocolError as error:
            self.do(self.layer.refuse(error))

    def tell(self, event: inputs.Input) -> None:
        self.do(self.layer.handle(event))

    def do(self, commands: list[Command]) -> None:
        """A later command's event is told only after the earlier commands are carried out."""
        for command in commands:
            if isinstance(command, words.SendData):
                self._send(command)
            elif isinstance(command, words.Record):
                self.records.append(command)
            elif isinstance(command, words.OpenConnection):
                self.wire = Wire(self.port)
                self.tell(inputs.Connected(f"127.0.0.1:{self.port}"))
            elif isinstance(command, words.Login):
                self.tell(inputs.CredentialReady(Credential(self.user)))
            elif isinstance(command, words.LoadCatalogue):
                self.tell(inputs.CatalogueReady(command.database, self.catalogue(command.database, command.stale + 1)))
            elif isinstance(command, words.CloseConnection):
                self.closed = self.closed or command.reason
            elif isinstance(command, words.Hold):
                self.holds.append(command)
                self.tell(inputs.HoldOpened(command.operation, "T-1"))
                answer = self.on_hold(command)
                if answer is not None:
                    self.tell(answer)

    def _send(self, command: words.SendData) -> None:
        if command.peer == CLIENT:
            self.client += command.data
        else:
            self.to_server += command.data
            if self.wire is not None:
                self.wire.socket.sendall(command.data)

    def catalogue(self, database: str, version: int) -> object:
        return load_catalogue(
            host="127.0.0.1", port=self.port, credential=Credential(self.user), database=database, ssl_context=None,
            labels=self.target.labels, version=version)

    def until_ready(self, count: int = 1) -> list[Message]:
        """Everything up to the `count`-th ReadyForQuery, or to the end of the session."""
        while True:
            whole = _whole(self.client)
            messages = split(self.client[:whole])
            if sum(kind == b"Z" for kind, _ in messages) >= count or self.closed:
                self.client = self.client[whole:]
                return messages
            self.step()

    def step(self, seconds: float = 20) -> None:
        assert self.wire is not None
        assert self.wire.ready(seconds), f"silence; the client has {shape(split(self.client[:_whole(self.client)]))}"
        self.receive(SERVER, self.wire.socket.recv(min(self.cut, 1 << 16)))

    def talk(self, *messages: bytes, ready: int = 1) -> list[Message]:
        self.send(b"".join(messages))
        return self.until_ready(ready)

    def events(self, kind: type) -> list[object]:
        return [record.event for record in self.records if isinstance(record.event, kind)]

    def intents(self, actor: str = "crew") -> list[events.Intent]:
        return [e for e in self.events(events.Intent) if isinstance(e, events.Intent) and e.actor == actor]

    def close(self) -> None:
        if self.wire is not None:
            self.wire.socket.close()
