"""Kubernetes for tests that know nothing of HTTP: a conversation whose steps are bytes, ended by an exec.

How an answer is cut in chunks, and a stream in messages, depends on how they came: `client` and `to_server` have what
was said, as who hears it reads it.
"""
from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from httptalk import TARGET, Talk, request
from pump import TableGate
from streamtalk import KEY, SUCCESS

from enforcer.http.websocket import Part, WebSocket
from enforcer.protocols.kubernetes.layer import KubernetesLayer
from enforcer.protocols.kubernetes.streams.offers import accept_of
from enforcer.words import events, inputs
from enforcer.words.commands import CLIENT, SERVER, Record

PODS = "/api/v1/namespaces/shop/pods"
END = b"\r\n\r\n"
UPGRADE = b"upgrade: websocket"


def answered(body: object) -> bytes:
    raw = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(raw) + raw


def messages(client: bool, *said: bytes) -> bytes:
    """`client`: of the crew's."""
    socket = WebSocket(client)
    return b"".join(map(socket.message, said))


POD = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}}
SECRET = {"kind": "Secret", "apiVersion": "v1", "data": {"a": "eA=="}}
CREATE = request("POST", PODS, json.dumps(POD).encode(), "Content-Type: application/json")
DELETE = request("DELETE", f"{PODS}/web")
EXEC = request("GET", f"{PODS}/web/exec?command=ls&stdin=true&stdout=true", b"", "Connection: Upgrade",
               "Upgrade: websocket", f"Sec-WebSocket-Key: {KEY.decode()}", "Sec-WebSocket-Version: 13",
               "Sec-WebSocket-Protocol: v4.channel.k8s.io")
SWITCHED = (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n" % accept_of(KEY))

BOOK: list[tuple[str, bytes]] = [
    ("client", CREATE),
    ("server", answered(POD)),
    ("client", request("GET", "/api/v1/namespaces/shop/secrets/a")),
    ("server", answered(SECRET)),
    ("client", DELETE),
    ("server", answered({})),
    ("client", EXEC),
    ("server", SWITCHED + messages(False, b"\1out")),
    ("client", messages(True, b"\0in")),
    ("server", messages(False, b"\2err", b"\3" + SUCCESS)),
]
ASKED: list[list[tuple[str, bytes]]] = [[("client", one)] for one in (CREATE, DELETE, EXEC)]


def _answers(said: bytes) -> Iterator[object]:
    """Heads without what tells of the body's form, with bodies; behind 101 what each channel said."""
    while said:
        head, _, said = said.partition(END)
        yield [one for one in head.lower().split(b"\r\n") if not one.startswith((b"content-length", b"transfer-"))]
        if head.startswith(b"HTTP/1.1 101"):
            yield _channels(said, True)
            return
        body, said = _body(head.lower(), said)
        yield body


def _body(head: bytes, said: bytes) -> tuple[bytes, bytes]:
    if b"content-length: " in head:
        size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return said[:size], said[size:]
    body = b""
    while True:
        line, _, said = said.partition(b"\r\n")
        size = int(line, 16)
        body, said = body + said[:size], said[size + 2:]
        if not size:
            return body, said


def _channels(said: bytes, client: bool) -> dict[bytes, bytes]:
    found, channel = dict[bytes, bytes](), b""
    for part in WebSocket(client).receive(said):
        if isinstance(part, Part):
            channel = part.data[:1] if part.first else channel
            found[channel] = found.get(channel, b"") + part.data[part.first:]
    return found


class _Seen:
    """What the conformance tests look at."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.raw: dict[int, bytes] = {CLIENT: b"", SERVER: b""}

    @property
    def client(self) -> list[object]:
        return list(_answers(self.raw[CLIENT]))

    @property
    def to_server(self) -> bytes:
        """Requests, and what each channel said behind the upgrade."""
        before, upgrade, after = self.raw[SERVER].partition(UPGRADE)
        head, end, said = after.partition(END)
        return before + upgrade + head + end + b"".join(map(b":".join, sorted(_channels(said, False).items())))

    @property
    def hello(self) -> list[tuple[bytes, object]]:
        return [(b"opened", (one.upstream, one.client_tls)) for one in self.events(events.SessionOpened)]

    @property
    def records(self) -> list[Record]:
        return [one for one in self.talk.commands if isinstance(one, Record)]

    def events(self, kind: type) -> list[Any]:
        return [one.event for one in self.records if isinstance(one.event, kind)]

    def intents(self) -> list[events.Intent]:
        return [one for one in self.events(events.Intent) if one.actor == "crew"]


class KubernetesSession:
    def __init__(self, gate: TableGate, cut: int) -> None:
        self._cut = cut
        self.inner = _Seen(Talk(gate, make=KubernetesLayer, target=TARGET).open())

    def hear(self, who: str, data: bytes) -> None:
        talk = self.inner.talk
        tell = talk.say if who == "client" else talk.hear
        for at in range(0, len(data), self._cut):
            self._keep(tell(data[at:at + self._cut]))

    def _keep(self, said: list[tuple[int, bytes]]) -> None:
        for peer, data in said:
            self.inner.raw[peer] += data

    def lose(self) -> None:
        self._keep(self.inner.talk.tell(inputs.ConnectionLost(CLIENT)))
