"""The least outer protocol that carries tunnels: frames of (number, kind, length), its layer, client and server.

It has no windows: who cannot take more stops reading the whole connection.
"""
from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from contextlib import suppress

from enforcer.words import commands as words
from enforcer.words import events, inputs
from enforcer.words.commands import CLIENT, SERVER
from enforcer.words.decisions import PERMIT

HEAD = struct.Struct("!iBI")
OPEN, OPENED, REFUSED, DATA, END, CLOSE, DIAL, CONNECTED, FAILED, CLOSED = range(10)


def frame(number: int, kind: int, data: bytes = b"") -> bytes:
    return HEAD.pack(number, kind, len(data)) + data


class Mux:
    """Each OPEN asks for a tunnel, each DIAL to the server is an intent behind a barrier."""

    state = "idle"

    def __init__(self, context) -> None:
        self.context, self.operations = context, 0
        self.buffers = [b"", b""]
        self.places: dict[int, bytes] = {}
        self.closed: list[tuple[int, str]] = []
        self.told: list[inputs.Input] = []        # but data
        self.deaf = False             # it does not heed ThroughFull
        self.mute = False             # it answers no ThroughDials

    def start(self) -> list:
        return [words.OpenConnection(), words.LoginDone()]

    def receive(self, peer: int, data: bytes) -> list:
        self.buffers[peer] += data
        commands: list = []
        while len(self.buffers[peer]) >= HEAD.size:
            number, kind, size = HEAD.unpack_from(self.buffers[peer])
            if len(self.buffers[peer]) < HEAD.size + size:
                break
            body = self.buffers[peer][HEAD.size:HEAD.size + size]
            self.buffers[peer] = self.buffers[peer][HEAD.size + size:]
            commands.append(self.frame(peer, number, kind, body))
        return commands

    def frame(self, peer: int, number: int, kind: int, body: bytes) -> words.Command:
        if kind == OPEN:
            self.places[number] = body
            host, _, port = body.rpartition(b" ")
            return words.OpenThrough(number, host.decode(), int(port))
        if kind == CONNECTED:
            return words.ThroughConnected(number, body.decode())
        if kind == FAILED:
            return words.ThroughFailed(number, body.decode())
        if kind == DATA:
            return words.SendThrough(number, peer, body)
        return words.EndThrough(number, peer) if kind == END else words.CloseThrough(number, peer, body.decode())

    def handle(self, event) -> list:
        if isinstance(event, inputs.ThroughData):
            return [words.SendData(event.peer, frame(event.number, DATA, event.data))]
        self.told.append(event)
        if isinstance(event, inputs.ThroughOpened):
            return [words.SendData(CLIENT, frame(event.number, OPENED, event.session.encode()))]
        if isinstance(event, inputs.ThroughRefused):
            return [words.SendData(CLIENT, frame(event.number, REFUSED, event.reason.encode()))]
        if isinstance(event, inputs.ThroughDials):
            return self.dial(event)
        if isinstance(event, inputs.ThroughFull) and not self.deaf:
            return [(words.PauseReading if event.on else words.ResumeReading)(event.peer)]
        if isinstance(event, inputs.ThroughEnded):
            return [words.SendData(event.peer, frame(event.number, CLOSE))]
        if isinstance(event, inputs.ThroughClosed):
            self.closed.append((event.number, event.reason))
            return [words.SendData(CLIENT, frame(event.number, CLOSED, event.reason.encode()))]
        if isinstance(event, inputs.ConnectionLost | inputs.Ended | inputs.RecordingFailed):
            return self.close(event.reason)
        return []

    def dial(self, event: inputs.ThroughDials) -> list:
        if self.mute:
            return []
        self.operations += 1
        intent = events.Intent(
            events.INTENT, 1, 1, self.context.session, self.operations, "crew", "dial", PERMIT, b"", b"", b"", (), (),
            (), "", "", False)
        return [words.Record(intent, (), True),
                words.SendData(SERVER, frame(event.number, DIAL, self.places[event.tunnel]))]

    def refuse(self, error: Exception) -> list:
        return self.close(str(error))

    def close(self, reason: str) -> list:
        return [words.CloseConnection(SERVER, reason), words.CloseConnection(CLIENT, reason)]


async def read_frames(reader: asyncio.StreamReader, take: Callable) -> None:
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            number, kind, size = HEAD.unpack(await reader.readexactly(HEAD.size))
            await take(number, kind, await reader.readexactly(size))


class Ends:
    """The streams at one end of the frames, by number."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.streams: dict[int, asyncio.StreamWriter] = {}
        self.tasks: set[asyncio.Task] = set()

    def pump(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.streams[number] = writer
        task = asyncio.ensure_future(self._pump(number, reader))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _pump(self, number: int, reader: asyncio.StreamReader) -> None:
        lost = b""
        try:
            while data := await reader.read(1 << 16):
                self.writer.write(frame(number, DATA, data))
                await self.writer.drain()
        except ConnectionError:
            lost = b"connection reset"
        if not self.writer.is_closing():
            self.writer.write(frame(number, CLOSE, lost) if lost else frame(number, END))

    async def data(self, number: int, body: bytes) -> None:
        if (writer := self.streams.get(number)) is not None:
            writer.write(body)
            with suppress(ConnectionError):
                await writer.drain()

    def end(self, number: int) -> None:
        if number in self.streams:
            self.streams[number].write_eof()

    def close(self, number: int) -> None:
        if (writer := self.streams.pop(number, None)) is not None:
            writer.close()

    def abort(self) -> None:
        """As kill -9 does: of all streams, and of the frames'."""
        for writer in (*self.streams.values(), self.writer):
            writer.transport.abort()
        for task in tuple(self.tasks):
            task.cancel()


class Far:
    """The server; `leads` says where a place is."""

    def __init__(self, leads: dict[str, int]) -> None:
        self.leads, self.ends = leads, []
        self.dialled: list[tuple[int, str]] = []
        self.seen: Callable[[int, bytes], None] = lambda number, data: None       # before it goes on
        self.held: set[int] = set()   # kinds of frames that are not answered
        self.port = 0

    async def start(self, house) -> None:
        self.port = await house.serve(self.serve)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = Ends(writer)
        self.ends.append(ends)
        dialling: set[asyncio.Task] = set()

        async def take(number: int, kind: int, body: bytes) -> None:
            if kind == DIAL:
                task = asyncio.ensure_future(self.dial(ends, number, body.decode()))
                dialling.add(task)
                task.add_done_callback(dialling.discard)
            elif kind == DATA:
                self.seen(number, body)
                await ends.data(number, body)
            elif kind == END:
                ends.end(number)
            elif kind == CLOSE:
                ends.close(number)

        await read_frames(reader, take)
        ends.abort()

    async def dial(self, ends: Ends, number: int, place: str) -> None:
        self.dialled.append((number, place))
        if DIAL in self.held:
            return
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.leads[place])
        except (OSError, KeyError):
            ends.writer.write(frame(number, FAILED, b"connection refused"))
            return
        ends.writer.write(frame(number, CONNECTED))
        ends.pump(number, reader, writer)


class Near:
    """The client: `listen` gives a local port for a place, as `ssh -L` does."""

    def __init__(self) -> None:
        self.last, self.sessions, self.refused, self.closed = 0, {}, {}, {}
        self.answers: dict[int, asyncio.Future[bool]] = {}
        self.servers: list[asyncio.Server] = []

    async def connect(self, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        self.ends = Ends(writer)
        self.reading = asyncio.ensure_future(self.read(reader))

    async def read(self, reader: asyncio.StreamReader) -> None:
        await read_frames(reader, self.take)
        self.abort()

    async def take(self, number: int, kind: int, body: bytes) -> None:
        if kind in (OPENED, REFUSED):
            (self.sessions if kind == OPENED else self.refused)[number] = body.decode()
            self.answers[number].set_result(kind == OPENED)
        elif kind == DATA:
            await self.ends.data(number, body)
        elif kind == CLOSE:
            self.ends.close(number)
        elif kind == CLOSED:
            self.closed[number] = body.decode()

    async def open(self, place: str) -> tuple[int, bool]:
        self.last += 1
        number, self.answers[self.last] = self.last, asyncio.get_running_loop().create_future()
        self.ends.writer.write(frame(number, OPEN, place.encode()))
        return number, await self.answers[number]

    async def listen(self, place: str) -> int:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            number, opened = await self.open(place)
            if opened:
                self.ends.pump(number, reader, writer)
            else:
                writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    def abort(self) -> None:
        self.ends.abort()
        for server in self.servers:
            server.close()
