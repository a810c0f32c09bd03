"""The resolver's sockets: datagrams and streams that the agent has opened and handed over (RFC 1035 4.2, RFC 7766)."""
from __future__ import annotations

import asyncio
import logging
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

from enforcer.dns.messages import QUESTION
from enforcer.dns.service import Asker, Service
from enforcer.edge.ends import netns_cookie, packed

LOG = logging.getLogger("weir.dns")

AT_ONCE: Final = 1024                 # questions that are being answered; more are not heard
WAITING: Final = 1 << 16              # datagrams: more than a receive buffer holds
A_PASS: Final = 64                    # datagrams that are read in one pass of the loop
STREAMS: Final = 128                  # connections at a time; another ends the one that has asked nothing for longest
IDLE: Final = 10.0                    # seconds that a connection may be silent
QUESTIONS: Final = 100                # on one connection

Answer = Callable[[bytes, Asker], Awaitable[bytes | None]]


class Server:
    """`open` takes the sockets; what is asked goes to the service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._answer: Answer = service.answer
        self._gone = service.gone
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams: OrderedDict[asyncio.StreamWriter, None] = OrderedDict()     # by when they asked last
        self._doors: list[asyncio.Server] = []
        self._datagrams: list[socket.socket] = []

    def another(self) -> Server:
        """For another network namespace, with bounds of its own."""
        return Server(self._service)

    async def open(self, descriptors: tuple[int, ...]) -> None:
        loop = asyncio.get_running_loop()
        for descriptor in descriptors:
            door = socket.socket(fileno=descriptor)
            netns = netns_cookie(door)
            if door.type == socket.SOCK_DGRAM:
                door.setblocking(False)
                _empty(door)
                self._datagrams.append(door)
                loop.add_reader(door, self._read, door, netns)
            else:
                self._doors.append(await asyncio.start_server(partial(self._stream, netns), sock=door, limit=QUESTION))

    def close(self) -> None:
        for datagrams in self._datagrams:
            asyncio.get_running_loop().remove_reader(datagrams)
            datagrams.close()
        self._datagrams.clear()
        for door in self._doors:
            door.close()
        for writer in tuple(self._streams):
            writer.transport.abort()
        for task in tuple(self._tasks):
            task.cancel()

    def _read(self, door: socket.socket, netns: int) -> None:
        """So many a pass of the loop; by a socket and a reader, for uvloop's datagram transports keep the loop from
        closing."""
        for _ in range(A_PASS):
            try:
                data, peer = door.recvfrom(QUESTION + 1)
            except BlockingIOError:
                return
            except OSError:
                continue              # what an earlier answer met: whoever asked is gone
            if len(self._tasks) < AT_ONCE:
                task = asyncio.get_running_loop().create_task(self._one(data, peer, netns, door))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _one(self, data: bytes, peer: tuple[str, int], netns: int, door: socket.socket) -> None:
        said = await self._said(data, Asker(netns, False, packed(peer[0]), peer[1]))
        if said is not None:
            with suppress(OSError):   # gone, or the buffer is full: it asks again
                door.sendto(said, peer)

    async def _stream(self, netns: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        if peer is None:
            writer.transport.abort()
            return
        while len(self._streams) >= STREAMS:
            silent, _ = self._streams.popitem(last=False)
            silent.transport.abort()
        self._streams[writer] = None
        asker = Asker(netns, True, packed(peer[0]), peer[1])
        try:
            await self._converse(reader, writer, asker)
        except (OSError, EOFError, TimeoutError):
            pass                      # it went away, or said nothing for too long
        finally:
            self._streams.pop(writer, None)
            self._gone(asker)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asker: Asker) -> None:
        """One question at a time: the next is read when the last one's answer is on its way."""
        for _ in range(QUESTIONS):
            async with asyncio.timeout(IDLE):
                size = int.from_bytes(await reader.readexactly(2), "big")
                if size > QUESTION:
                    return
                data = await reader.readexactly(size)
            if writer in self._streams:
                self._streams.move_to_end(writer)
            said = await self._said(data, asker)
            if said is None:
                return
            writer.write(len(said).to_bytes(2, "big") + said)
            async with asyncio.timeout(IDLE):
                await writer.drain()

    async def _said(self, data: bytes, asker: Asker) -> bytes | None:
        try:
            return await self._answer(data, asker)
        except Exception as error:    # a bug: nobody is answered by it, and nothing ends of it
            LOG.error("a question could not be answered: %s", type(error).__name__)
            return None


def _empty(door: socket.socket) -> None:
    """What waits is from a time of which nobody knows how long ago it was, before this enforcer or its agent: the port
    of who asked may be somebody else's by now, and who still waits asks again."""
    for _ in range(WAITING):
        try:
            door.recv(1)
        except BlockingIOError:       # there is nothing any more
            return
        except OSError:
            continue                  # what an earlier answer met
