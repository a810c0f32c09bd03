"""An HTTP layer between a test's hands: what the crew and the server say is bytes, and so is what Weir says.

`Plain` is the smallest service there is: whatever is asked is one request of policy's, and goes on as it is.
"""
from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pump import KEY, TableGate

from agent.contract.credential import Credential
from agent.contract.owner import Owner, Process
from agent.contract.target import Target
from enforcer.core.book import Book
from enforcer.core.context import Context
from enforcer.core.desk import Ask, Verdict
from enforcer.http.exchange import Unreadable, Way
from enforcer.http.layer import HttpLayer, connecting
from enforcer.http.messages import Answer, Head, value
from enforcer.http.passage import Outlet, Passage
from enforcer.words import commands as words
from enforcer.words import events, inputs
from enforcer.words.commands import CLIENT, SERVER
from enforcer.words.errors import ProtocolError
from enforcer.words.inputs import Input
from enforcer.words.operations import Principal, Request

OWNER = Owner("crew", 1000, "u", "local:u", ("data",), Process(7, "/bin/x"), "", 1, "127.0.0.1", 443, "mark")
TARGET = Target("prod", "kubernetes", ("kube.example",), 6443, ("10.0.0.1",))
CREDENTIAL = Credential("crewbot", token="tok")
HELLO = b"GET /hello HTTP/1.1\r\nHost: kube.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Shout:
    """A passage that says everything again, in capitals, to the other side."""

    def __init__(self, outlet: Outlet, number: int) -> None:
        self._outlet, self._number = outlet, number

    def receive(self, peer: int, data: bytes) -> None:
        self._outlet.send(1 - peer, data.upper())

    def ended(self, peer: int) -> None:
        self._outlet.desk.done(self._number, "ok")
        self._outlet.close("ended")

    def handle(self, event: Input) -> None:
        self._outlet.send(CLIENT, type(event).__name__.encode())

    def stop(self, reason: str) -> None:
        self._outlet.send(CLIENT, reason.encode())


class PlainExchange:
    most = 1000

    def __init__(self, book: Book, head: Head) -> None:
        self._book, self._head, self._number = book, head, 0
        self.changes = head.target == b"/loud"
        self._kept: list[bytes] = []
        self._then: Callable[[Verdict], None] = lambda verdict: None

    def ask(self, body: bytes, way: Way) -> None:
        head = self._head
        path = head.target.decode("latin-1")

        def then(verdict: Verdict) -> None:
            self._number = verdict.number
            if verdict.permitted:
                way.forward(head, body, value(head.headers, b"upgrade"))
            else:
                way.answer(Answer(403, b"Forbidden", ()), verdict.reason.encode())

        self._then = then
        asked = (Request("k8s:call", "Url", ("prod", path)),)
        self._book.ask(Ask("request", path.encode(), asked, path.encode()), then)

    def refuse(self, status: int, reason: str, way: Way) -> None:
        self._book.refuse(Ask("request", b"?", (), b""), "protocol", reason,
                          lambda verdict: way.answer(Answer(status, b"", ()), reason.encode()))

    def answered(self, answer: Answer) -> Answer:
        if (b"x-bad", b"1") in answer.headers:
            raise Unreadable("it cannot be read")
        return answer

    def piece(self, data: bytes) -> bytes:
        if b"\0" in data:
            raise Unreadable("it holds a zero")
        return data.upper() if self.changes else data

    def done(self) -> bytes:
        self._book.done(self._number, "ok")
        return b"!" if self.changes else b""

    def unanswered(self, reason: str) -> None:
        self._book.withdraw(self._then)
        self._book.done(self._number, "error", "", reason.encode())

    def lost(self, reason: str) -> None:
        self._book.withdraw(self._then)
        self._book.done(self._number, "cancelled", "", reason.encode())

    def upgrade(self, answer: Answer, outlet: Outlet) -> Passage:
        return Shout(outlet, self._number)


class Plain:
    def __init__(self, context: Context, book: Book) -> None:
        self._book = book

    def connect(self) -> tuple[Request, ...]:
        return connecting("prod")

    def begin(self, head: Head) -> PlainExchange:
        return PlainExchange(self._book, head)

    def explain(self, status: int, reason: str) -> tuple[Answer, bytes]:
        return Answer(status, b"No", ()), reason.encode()


@dataclass
class Talk:
    """`say` and `hear` give what goes to whom: [(CLIENT | SERVER, bytes)], joined where it is one after the other."""

    gate: TableGate = field(default_factory=TableGate)
    credential: Credential = CREDENTIAL
    make: Callable[[Context], HttpLayer] = lambda context: HttpLayer(context, "plain", Plain)
    target: Target = TARGET
    owner: Owner = OWNER
    time: int = 1_000_000_000
    ticks: int = 0                    # that the other clock is further
    commands: list[words.Command] = field(default_factory=list)
    recorded: list[Any] = field(default_factory=list)
    blobs: dict[bytes, bytes] = field(default_factory=dict)
    closed: bool = False

    def __post_init__(self) -> None:
        counter = itertools.count(1)
        context = Context("SESSION", Principal("local:u", ("data",), self.owner), self.target, self.gate,
                          lambda: self.time, lambda: next(counter) + self.ticks, os.urandom, KEY, shared={})
        self.layer = self.make(context)
        self.take(self.layer.start())

    def take(self, commands: list[words.Command]) -> list[tuple[int, bytes]]:
        said: list[tuple[int, bytes]] = []
        for command in commands:
            self.commands.append(command)
            if isinstance(command, words.SendData) and command.data:
                if said and said[-1][0] == command.peer:
                    said[-1] = (command.peer, said[-1][1] + command.data)
                else:
                    said.append((command.peer, command.data))
            elif isinstance(command, words.Record):
                self.recorded.append(command.event)
                self.blobs |= {digest: content for digest, _, content in command.blobs}
            elif isinstance(command, words.CloseConnection):
                self.closed = True
        return said

    def tell(self, event: Input) -> list[tuple[int, bytes]]:
        return self.take(self.layer.handle(event))

    def open(self) -> Talk:
        for event in (inputs.TlsStarted(CLIENT, "TLSv1.3 X"), inputs.CredentialReady(self.credential),
                      inputs.Connected("10.0.0.1:6443"), inputs.TlsStarted(SERVER, "TLSv1.3 Y")):
            self.tell(event)
        return self

    def _receive(self, peer: int, data: bytes) -> list[tuple[int, bytes]]:
        try:
            return self.take(self.layer.receive(peer, data))
        except ProtocolError as error:
            return self.take(self.layer.refuse(error))

    def say(self, data: bytes) -> list[tuple[int, bytes]]:
        return self._receive(CLIENT, data)

    def hear(self, data: bytes) -> list[tuple[int, bytes]]:
        return self._receive(SERVER, data)

    @property
    def results(self) -> list[str]:
        return [event.status for event in self.recorded if isinstance(event, events.Result)]

    @property
    def intents(self) -> list[events.Intent]:
        return [event for event in self.recorded if isinstance(event, events.Intent)]

    @property
    def texts(self) -> list[str]:
        """Of what was asked, as it is recorded."""
        return [self.blobs[one.text].decode() for one in self.intents]

    def of(self, kind: type[words.Command]) -> list[words.Command]:
        return [command for command in self.commands if isinstance(command, kind)]


def request(method: str = "GET", path: str = "/hello", body: bytes = b"", *fields: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: kube.example", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body
