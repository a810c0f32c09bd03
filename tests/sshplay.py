"""SSH for tests that know nothing of SSH: a conversation whose steps are bytes, with a loop of its own.

A step is messages of the connection protocol (RFC 4254), each behind its length (`said`).  Real peers encrypt them; and
what is cut, is cut in the ciphertext: of a message whose end is missing only so much of its packet is sent.
"""
from __future__ import annotations

import asyncio
import atexit
from collections.abc import Coroutine
from typing import Any

from pump import TableGate
from sshpeers import Bench
from sshtalk import close, data, direct, eof, open_channel, opened, run, status, u32, yes

from enforcer.words import events, inputs
from enforcer.words.commands import CLIENT, Command, Record

LONGEST = 200 << 10
_loops: list[asyncio.AbstractEventLoop] = []


def said(*messages: bytes) -> bytes:
    return b"".join(u32(len(one)) + one for one in messages)


BOOK: list[tuple[str, bytes]] = [
    ("client", said(open_channel(number=7))),
    ("server", said(opened(0, 70))),
    ("client", said(run(0, "ls"), data(0, b"in"), eof(0))),
    ("server", said(yes(0), data(0, b"out"), status(0), eof(0), close(0))),
    ("client", said(close(0), direct("db", 5432, 8))),
    ("server", said(opened(1, 71), data(1, b"x"))),
    ("client", said(data(1, b"y"), close(1))),
    ("server", said(close(1))),
]
ASKED: list[list[tuple[str, bytes]]] = [
    [*BOOK[:2], ("client", said(run(0, "ls")))],
    [("client", said(direct("db", 5432)))],
]


def _loop() -> asyncio.AbstractEventLoop:
    if not _loops:
        _loops.append(asyncio.new_event_loop())
        atexit.register(_loops[0].close)
    return _loops[0]


def _run(work: Coroutine[Any, Any, None]) -> None:
    _loop().run_until_complete(work)


class _All(dict[int, Any]):
    """Every channel's messages are for the connection."""

    def __init__(self, connection: object) -> None:
        super().__init__()
        self._connection = connection

    def __missing__(self, number: int) -> object:
        return self._connection


class _Seen:
    """What the conformance tests look at."""

    def __init__(self) -> None:
        self.client = self.to_server = b""     # messages that each heard
        self.hello: list[tuple[bytes, object]] = []
        self.log: list[Command] = []

    @property
    def records(self) -> list[Record]:
        return [one for one in self.log if isinstance(one, Record)]

    def events(self, kind: type) -> list[Any]:
        return [one.event for one in self.records if isinstance(one.event, kind)]

    def intents(self) -> list[events.Intent]:
        return [one for one in self.events(events.Intent) if one.actor == "crew"]


class SshSession:
    def __init__(self, gate: TableGate, cut: int) -> None:
        self.inner = _Seen()
        _run(self._login(gate, 0 if cut >= 1 << 20 else cut))

    async def _login(self, gate: TableGate, cut: int) -> None:
        self._bench = bench = Bench(gate, cut=cut)
        await bench.login()
        assert bench.server is not None
        self._catch(bench.client, "client")
        self._catch(bench.server, "to_server")
        self.inner.log = bench.log
        (opened_,) = bench.events(events.SessionOpened)
        self.inner.hello = [(b"opened", (opened_.role, opened_.upstream, opened_.application, opened_.client_tls))]
        await self._quiet()

    def _catch(self, peer: Any, name: str) -> None:
        before = peer.process_packet

        def process(kind: int, number: int, packet: Any) -> Any:
            if kind < 80:
                return before(kind, number, packet)
            setattr(self.inner, name, getattr(self.inner, name) + said(packet.get_full_payload()))
            return True

        peer.process_packet, peer._channels = process, _All(peer)

    def hear(self, who: str, data: bytes) -> None:
        _run(self._hear(who, data))

    async def _hear(self, who: str, data: bytes) -> None:
        at = 0
        while at < len(data):
            size = int.from_bytes(data[at:at + 4].ljust(4, b"\0"), "big")
            message = data[at + 4:at + 4 + size]
            self._send(who, message, size)
            at += 4 + size
        await self._quiet()

    def _send(self, who: str, message: bytes, size: int) -> None:
        bench = self._bench
        peer: Any = bench.client if who == "client" else bench.server
        pipe = bench.from_client if who == "client" else bench.from_server
        if size > LONGEST:
            pipe.write(message)                # no packet is that long: as it stands
        elif len(message) < size:
            pipe.pause()
            left = len(pipe._waiting)
            peer.send_packet(*_split(message.ljust(size, b"\0")))
            packet = b"".join(list(pipe._waiting)[left:])
            while len(pipe._waiting) > left:
                pipe._waiting.pop()
            pipe.write(packet[:len(packet) * len(message) // size])
            pipe.resume()
        elif message:
            peer.send_packet(*_split(message))

    async def _quiet(self) -> None:
        bench, still = self._bench, 0
        while still < 5:
            pipes = (bench.from_client, bench.to_client, bench.from_server, bench.to_server)
            busy = any(one is not None and (one._busy or (one._waiting and not one.paused)) for one in pipes)
            still = 0 if busy else still + 1
            await asyncio.sleep(0)

    def lose(self) -> None:
        _run(self._lose())

    async def _lose(self) -> None:
        self._bench.tell(inputs.ConnectionLost(CLIENT))
        await self._bench.end()


def _split(message: bytes) -> tuple[int, bytes]:
    return message[0], message[1:]
