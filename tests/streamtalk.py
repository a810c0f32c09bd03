"""A passage between a test's hands: exec and port-forward, over WebSocket and SPDY.

`Talk` has a Book, a gate that is a table, and peers of its own (`crew`, `server`) that speak the same protocols; what
Weir says is in `log`, in order, and read back as words ("> stdin ls", "< stdout x").  `cut`: every message comes in
pieces of so many bytes.
"""
from __future__ import annotations

from collections.abc import Callable

from pump import TableGate
from sshtalk import make_context

from agent.contract.target import Forward, Target
from enforcer.core.book import Book
from enforcer.core.desk import Ask
from enforcer.http.messages import Answer, Head, Headers
from enforcer.http.websocket import Close, Part, Ping, Pong, WebSocket
from enforcer.protocols.kubernetes.info import Info, Query
from enforcer.protocols.kubernetes.streams import make_passage
from enforcer.protocols.kubernetes.streams.offers import accept_of
from enforcer.protocols.kubernetes.streams.spdy import frames
from enforcer.protocols.kubernetes.streams.spdy.frames import Framer
from enforcer.words import commands as words
from enforcer.words import events, inputs
from enforcer.words.commands import CLIENT, SERVER
from enforcer.words.operations import Request

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
SUCCESS = b'{"metadata":{},"status":"Success"}'


def failure(code: int) -> bytes:
    return (b'{"metadata":{},"status":"Failure","message":"command terminated","reason":"NonZeroExitCode",'
            b'"details":{"causes":[{"reason":"ExitCode","message":"%d"}]}}' % code)


def make_info(subresource: str = "exec", name: str = "web-1") -> Info:
    return Info(True, f"/api/v1/namespaces/shop/pods/{name}/{subresource}", "create", "api", "", "v1", "shop", "pods",
                subresource, name, ("pods", name, subresource))


def upgrade_head(*protocols: bytes, spdy: bool = False) -> Head:
    if spdy:
        return Head("POST", b"/", ((b"upgrade", b"SPDY/3.1"), *((b"x-stream-protocol-version", one)
                                                                for one in protocols)))
    named = ((b"sec-websocket-protocol", b", ".join(protocols)),) if protocols else ()
    return Head("GET", b"/", ((b"upgrade", b"websocket"), (b"sec-websocket-key", KEY),
                              (b"sec-websocket-version", b"13"), *named))


def upgraded(protocol: bytes = b"", spdy: bool = False, more: Headers = ()) -> Answer:
    if spdy:
        named = ((b"x-stream-protocol-version", protocol),) if protocol else ()
        return Answer(101, b"", ((b"upgrade", b"SPDY/3.1"), *named, *more))
    named = ((b"sec-websocket-protocol", protocol),) if protocol else ()
    return Answer(101, b"", ((b"upgrade", b"websocket"), (b"sec-websocket-accept", accept_of(KEY)), *named, *more))


class Talk:
    """`account`: as in the recording.  `operation`: the number that the request was permitted as."""

    def __init__(
        self, info: Info, head: Head, answer: Answer, query: Query = (), gate: TableGate | None = None,
        masked: frozenset[str] = frozenset(), cut: int = 0, detectors: tuple[str, ...] = (),
        forwards: tuple[Forward, ...] = (),
    ) -> None:
        self.target = Target("t", "kubernetes", ("host",), 443, ("127.0.0.1",), payload="content", detectors=detectors,
                             forwards=forwards)
        self.clock, self.cut = 100.0, cut
        context = make_context(gate or TableGate(), self.target)
        self.log: list[tuple[int, bytes] | words.Command] = []
        self.timers: dict[str, float] = {}
        self.closed = ""
        self.book = self.desk = Book(context, self.say)
        self.operation = self.book.allow(Ask(info.subresource, b"asked", (), b""))
        self.passage = make_passage(info, query, head, answer, self, self.operation, masked, self.target)
        self._read = 0

    # Outlet

    def send(self, peer: int, data: bytes) -> None:
        assert data
        assert not self.closed
        self.log.append((peer, data))

    def close(self, reason: str) -> None:
        assert not self.closed
        self.closed = reason

    def say(self, command: words.Command) -> None:
        self.log.append(command)
        if isinstance(command, words.StartTimer):
            self.timers.pop(command.name, None)
            if command.seconds:
                self.timers[command.name] = command.seconds

    def now(self) -> float:
        return self.clock

    # What comes

    def hear(self, peer: int, *said: bytes) -> None:
        for message in said:
            step = self.cut or max(len(message), 1)
            for at in range(0, len(message), step):
                if not self.closed:
                    self.passage.receive(peer, message[at:at + step])

    def fire(self, after: float = 0.1) -> None:
        self.clock += after
        for name in list(self.timers):
            self.timers.pop(name, None)
            self.passage.handle(inputs.TimerFired(name))

    # What was said

    def sent(self, peer: int) -> bytes:
        """To this peer, since the last time."""
        new = [one[1] for one in self.log[self._read:] if isinstance(one, tuple) and one[0] == peer]
        return b"".join(new)

    def said(self, kind: type) -> list[object]:
        return [one for one in self.log if isinstance(one, kind)]

    def events(self, kind: type) -> list[object]:
        return [one.event for one in self.log if isinstance(one, words.Record) and isinstance(one.event, kind)]

    def results(self) -> list[tuple[int, str, str]]:
        return [(one.operation, one.status, one.tag) for one in self.events(events.Result)]  # type: ignore[attr-defined]

    def recorded(self, stream: str, number: int = 0) -> bytes:
        """Content of an operation's stream that was kept."""
        found = b""
        for one in self.log:
            if isinstance(one, words.Record) and isinstance(one.event, events.Streamed):
                if one.event.stream == stream and one.event.operation == (number or self.operation):
                    found += b"".join(content for _, _, content in one.blobs)
        return found

    def errors(self) -> list[bytes]:
        """Of results."""
        return [content for one in self.log if isinstance(one, words.Record) and isinstance(one.event, events.Result)
                for _, _, content in one.blobs]

    def notes(self) -> list[tuple[str, str]]:
        return [(one.name, one.value) for one in self.events(events.SessionNoted)]  # type: ignore[attr-defined]


class WsPeer:
    """A crew (`client`) or a server that speaks WebSocket with Weir."""

    def __init__(self, talk: Talk, peer: int) -> None:
        self._talk, self._peer, self.socket = talk, peer, WebSocket(peer == CLIENT)
        self._read = 0
        self._part = b""

    def say(self, channel: int, data: bytes = b"") -> None:
        self._talk.hear(self._peer, self.socket.message(bytes((channel,)) + data))

    def text(self, data: bytes) -> None:
        self._talk.hear(self._peer, self.socket.message(data, text=True))

    def raw(self, data: bytes) -> None:
        self._talk.hear(self._peer, data)

    def heard(self) -> list[object]:
        """Messages as bytes, Ping, Pong, Close."""
        found: list[object] = []
        log = self._talk.log
        for one in log[self._read:]:
            if isinstance(one, tuple) and one[0] == self._peer:
                for event in self.socket.receive(one[1]):
                    if not isinstance(event, Part):
                        found.append(event)
                        continue
                    self._part += event.data
                    if event.last:
                        found.append(self._part)
                        self._part = b""
        self._read = len(log)
        return found


class SpdyPeer:
    """One that speaks SPDY, bare or (`socket`) in WebSocket's messages."""

    def __init__(self, talk: Talk, peer: int, tunnel: bool = False) -> None:
        self._talk, self._peer = talk, peer
        self.framer, self.socket = Framer(), WebSocket(peer == CLIENT) if tunnel else None
        self._read = 0
        self._last = -1 if peer == CLIENT else 0

    def raw(self, data: bytes) -> None:
        self._talk.hear(self._peer, self.socket.message(data) if self.socket is not None else data)

    def open(self, **headers: str) -> int:
        self._last += 2
        named = tuple((name.encode(), value.encode()) for name, value in headers.items())
        self.raw(self.framer.syn_stream(self._last, named))
        return self._last

    def reply(self, stream: int) -> None:
        self.raw(self.framer.syn_reply(stream))

    def data(self, stream: int, data: bytes = b"", last: bool = False) -> None:
        self.raw(frames.render_data(stream, data, last))

    def reset(self, stream: int, status: int = frames.CANCEL) -> None:
        self.raw(frames.render_reset(stream, status))

    def heard(self) -> list[object]:
        found: list[object] = []
        log = self._talk.log
        for one in log[self._read:]:
            if isinstance(one, tuple) and one[0] == self._peer:
                found += self._frames(one[1])
        self._read = len(log)
        return found

    def _frames(self, data: bytes) -> list[object]:
        if self.socket is None:
            return list(self.framer.receive(data))
        found: list[object] = []
        for event in self.socket.receive(data):
            found += list(self.framer.receive(event.data)) if isinstance(event, Part) else [event]
        return found


def ws_exec(protocol: bytes = b"v4.channel.k8s.io", **options: object) -> tuple[Talk, WsPeer, WsPeer]:
    query = options.pop("query", (("command", "sh"), ("stdin", "true"), ("stdout", "true"), ("stderr", "true")))
    head = upgrade_head(protocol) if protocol else upgrade_head()
    talk = Talk(make_info("exec"), head, upgraded(protocol), query, **options)  # type: ignore[arg-type]
    return talk, WsPeer(talk, CLIENT), WsPeer(talk, SERVER)


def spdy_exec(protocol: bytes = b"v4.channel.k8s.io", **options: object) -> tuple[Talk, SpdyPeer, SpdyPeer]:
    query = options.pop("query", (("command", "sh"), ("stdin", "true"), ("stdout", "true"), ("stderr", "true")))
    head = upgrade_head(protocol, spdy=True) if protocol else upgrade_head(spdy=True)
    talk = Talk(make_info("exec"), head, upgraded(protocol, True), query, **options)  # type: ignore[arg-type]
    return talk, SpdyPeer(talk, CLIENT), SpdyPeer(talk, SERVER)


TTY: Query = (("command", "sh"), ("stdin", "true"), ("stdout", "true"), ("tty", "true"))
Events = Callable[[], None]
__all__ = ["Close", "Forward", "Ping", "Pong", "Request"]
