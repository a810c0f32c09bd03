"""The SSH connection protocol between a test's hands: what both sides say is a list, and so is what Weir says.

`Talk` is a `Mux` with a `Book` and a gate that is a table.  Messages are made by the short functions below and read
back as words ("data 7 ls"), so that a conversation reads like a transcript.  The crew's own numbers of channels begin
at 7, the server's at 70, Weir's at 0.
"""
from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Callable

from pump import KEY, TableGate

from agent.contract.owner import Owner, Process
from agent.contract.target import Target
from enforcer.core.book import Book
from enforcer.core.context import Context
from enforcer.protocols.ssh import messages
from enforcer.protocols.ssh.manner import SshManner
from enforcer.protocols.ssh.messages import Fields, Request, render_bare, render_request, string
from enforcer.protocols.ssh.mux import Mux
from enforcer.words import commands as words
from enforcer.words import events, inputs
from enforcer.words.commands import CLIENT, SERVER
from enforcer.words.decisions import PERMIT
from enforcer.words.operations import Principal

WINDOW, PACKET = 2 << 20, 32 << 10
OWNER = Owner("crew", 1000, "u", "local:u", ("data",), Process(7, "/bin/x"), "", 1, "127.0.0.1", 22, "mark")


def make_context(gate: TableGate, target: Target, **more: object) -> Context:
    counter = itertools.count(1)
    return Context("SESSION", Principal("local:u", ("data",), OWNER), target, gate, lambda: 0, lambda: next(counter),
                   os.urandom, KEY, shared={}, **more)  # type: ignore[arg-type]


# What is said

def u32(*numbers: int) -> bytes:
    return b"".join(struct.pack("!I", one) for one in numbers)


def open_channel(kind: str = "session", number: int = 7, window: int = WINDOW, packet: int = PACKET,
                 rest: bytes = b"") -> bytes:
    return messages.render_open(kind.encode(), number, window, packet, rest)


def opened(weir: int, number: int = 70, window: int = WINDOW, packet: int = PACKET) -> bytes:
    return messages.render_opened(weir, number, window, packet)


def refused(weir: int, code: int = 2, reason: str = "no") -> bytes:
    return messages.render_refused(weir, code, reason)


def ask(weir: int, name: str, rest: bytes = b"", reply: bool = True) -> bytes:
    return render_request(weir, Request(name.encode(), reply, rest))


def run(weir: int, line: str = "ls", reply: bool = True) -> bytes:
    return ask(weir, "exec", string(line.encode()), reply)


def env(weir: int, name: str, value: str, reply: bool = False) -> bytes:
    return ask(weir, "env", string(name.encode()) + string(value.encode()), reply)


def pty(weir: int, reply: bool = True) -> bytes:
    return ask(weir, "pty-req", string(b"xterm") + u32(80, 24, 0, 0) + string(b"\0"), reply)


def status(weir: int, code: int = 0) -> bytes:
    return ask(weir, "exit-status", u32(code), False)


def data(weir: int, text: bytes) -> bytes:
    return messages.render_data(weir, text)


def error(weir: int, text: bytes, kind: int = 1) -> bytes:
    return messages.render_extended(weir, kind, text)


def adjust(weir: int, amount: int) -> bytes:
    return messages.render_adjust(weir, amount)


def eof(weir: int) -> bytes:
    return render_bare(messages.EOF, weir)


def close(weir: int) -> bytes:
    return render_bare(messages.CLOSE, weir)


def yes(weir: int) -> bytes:
    return render_bare(messages.SUCCESS, weir)


def no(weir: int) -> bytes:
    return render_bare(messages.FAILURE, weir)


def ask_all(name: str, rest: bytes = b"", reply: bool = True) -> bytes:
    return messages.render_global(Request(name.encode(), reply, rest))


def forward(host: str, port: int, name: str = "tcpip-forward", reply: bool = True) -> bytes:
    return ask_all(name, string(host.encode()) + u32(port), reply)


YES, NO = bytes((messages.REQUEST_SUCCESS,)), bytes((messages.REQUEST_FAILURE,))


def direct(host: str = "db", port: int = 5432, number: int = 7, **more: int) -> bytes:
    rest = string(host.encode()) + u32(port) + string(b"::1") + u32(4)
    return open_channel("direct-tcpip", number, rest=rest, **more)


def forwarded(host: str, port: int, number: int = 70) -> bytes:
    return open_channel("forwarded-tcpip", number, rest=string(host.encode()) + u32(port) + string(b"::1") + u32(4))


# What is read

def shape(message: bytes) -> str:
    kind, fields = message[0], Fields(message, 1)
    if kind in (messages.GLOBAL_REQUEST,):
        return f"global {fields.text()}" + (" ?" if fields.flag() else "")
    if kind == messages.CHANNEL_OPEN:
        return f"open {fields.text()} {fields.number()}"
    if kind in _BARE:
        return " ".join((_BARE[kind], *([str(fields.number())] if kind > messages.CHANNEL_OPEN else [])))
    number = fields.number()
    if kind == messages.OPEN_CONFIRMATION:
        return f"opened {number} {fields.number()}"
    if kind == messages.OPEN_FAILURE:
        return f"refused {number} {fields.number()} {fields.text()}"
    if kind == messages.WINDOW_ADJUST:
        return f"adjust {number} {fields.number()}"
    if kind == messages.DATA:
        return f"data {number} {fields.text()}"
    if kind == messages.EXTENDED_DATA:
        return f"error{'' if (of := fields.number()) == 1 else of} {number} {fields.text()}"
    assert kind == messages.REQUEST, kind
    return f"request {number} {fields.text()}" + (" ?" if fields.flag() else "")


_BARE = {messages.REQUEST_SUCCESS: "yes", messages.REQUEST_FAILURE: "no", messages.EOF: "eof", messages.CLOSE: "close",
         messages.SUCCESS: "yes", messages.FAILURE: "no"}


class Talk:
    """`crew` and `server` say something and give what both sides hear, in order, as ("crew" | "server", words)."""

    def __init__(self, gate: TableGate | None = None, **options: object) -> None:
        self.target = Target("t", "ssh", ("host",), 22, ("127.0.0.1",), **options)  # type: ignore[arg-type]
        self.context = make_context(gate or TableGate(), self.target)
        self.log: list[tuple[int, bytes] | words.Command] = []     # all that Weir says, in its order
        self.holds: list[words.Hold] = []
        self.timers: dict[str, float] = {}
        self.registered: set[str] = set()      # hosts of tunnels that the edge takes
        self._later: list[Callable[[], None]] = []         # what the edge answers, once all that was said is done
        self._read = 0
        self.book = Book(self.context, self._say, SshManner())
        self.book.account = "app"
        self.mux = Mux(self.book, self._send, self._say)

    def _send(self, peer: int, message: bytes) -> None:
        self.log.append((peer, message))

    def _say(self, command: words.Command) -> None:
        self.log.append(command)
        if isinstance(command, words.Hold):
            self.holds.append(command)
        elif isinstance(command, words.StartTimer):
            self.timers.pop(command.name, None)
            if command.seconds:
                self.timers[command.name] = command.seconds
        elif isinstance(command, words.CancelHold):
            self._later.append(lambda: self.book.answered(
                inputs.HoldAnswered(command.operation, "cancelled", "", command.reason, "")))
        elif isinstance(command, words.OpenThrough):
            self._later.append(lambda: self.mux.carried(self._through(command)))

    def crew(self, *said: bytes) -> list[str]:
        return self._hear(CLIENT, said)

    def server(self, *said: bytes) -> list[str]:
        return self._hear(SERVER, said)

    def _hear(self, peer: int, said: tuple[bytes, ...]) -> list[str]:
        for message in said:
            self.mux.message(peer, message)
        return self._settled()

    def _through(self, command: words.OpenThrough) -> inputs.Input:
        if command.host in self.registered:
            return inputs.ThroughOpened(command.number, command.host, "INNER")
        return inputs.ThroughRefused(command.number, "")

    def _settled(self) -> list[str]:
        while self._later:
            self._later.pop(0)()
        return self.heard()

    def heard(self) -> list[str]:
        """Messages since the last time, as words: "> " to the server, "< " to the crew."""
        new, self._read = self.log[self._read:], len(self.log)
        return [("< ", "> ")[one[0]] + shape(one[1]) for one in new if isinstance(one, tuple)]

    def answer(self, state: str = "approved", operation: int = 0, ticket: str = "T-1", reason: str = "") -> list[str]:
        number = operation or self.holds[-1].operation
        self.book.answered(inputs.HoldAnswered(number, state, "ann", reason, ticket))
        return self._settled()

    def fire(self) -> list[str]:
        """Every timer that runs."""
        for name in list(self.timers):
            self.timers.pop(name)
            self.book.fired(name)
            self.mux.fired(name)
        return self.heard()

    def events(self, kind: type) -> list[object]:
        return [one.event for one in self.log if isinstance(one, words.Record) and isinstance(one.event, kind)]

    def results(self) -> list[tuple[int, str, str]]:
        return [(one.operation, one.status, one.tag) for one in self.events(events.Result)]  # type: ignore[attr-defined]

    def intents(self) -> list[tuple[str, int]]:
        return [(one.verb, one.decision) for one in self.events(events.Intent)]  # type: ignore[attr-defined]

    def running(self, weir: int = 0, line: str = "ls") -> None:
        """A session's channel in which a command runs: the crew's 7 + `weir`, the server's 70 + `weir`."""
        self.crew(open_channel(number=7 + weir))
        self.server(opened(weir, 70 + weir))
        self.crew(run(weir, line))
        self.server(yes(weir))

    def unasked(self) -> list[str]:
        """What went to the server without a permitted intent before it: must be nothing."""
        allowed: dict[str, int] = {}
        wrong = []
        for one in self.log:
            if isinstance(one, words.Record) and isinstance(one.event, events.Intent) and one.event.decision == PERMIT:
                allowed[one.event.verb] = allowed.get(one.event.verb, 0) + 1
            elif isinstance(one, tuple) and one[0] == SERVER:
                verb = _verb(one[1])
                if verb and allowed.get(verb, 0) < 1:
                    wrong.append(shape(one[1]))
                elif verb:
                    allowed[verb] -= 1
        return wrong


def _verb(message: bytes) -> str:
    """Of the recording, for a message that only a permitted operation sends."""
    told = shape(message).split()
    if told[0] == "request":
        return {"exec": "exec", "shell": "shell", "subsystem": "subsystem", "auth-agent-req@openssh.com": "agent",
                "x11-req": "x11"}.get(told[2], "")
    if told[0] == "global":
        return {"tcpip-forward": "forward-remote", "streamlocal-forward@openssh.com": "forward-remote"}.get(told[1], "")
    if told[0] == "open":
        return {"direct-tcpip": "forward-local", "direct-streamlocal@openssh.com": "forward-stream",
                "tun@openssh.com": "tun"}.get(told[1], "")
    return ""
