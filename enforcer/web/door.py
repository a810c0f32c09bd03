"""Edge: connections are taken here: whose they are is asked of the agent before a byte is read, TLS included.

Each is bounded in what it may send before it is heard, and in time: who sends its request byte by byte, or reads an
answer so, is let go.
"""
from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from agent.contract.web import Admit
from enforcer.web import guard
from enforcer.web.rates import CONNECT, Rates, who_is

LOG = logging.getLogger("weir.web")

MOST: Final = 512                     # connections,
EACH: Final = 64                      # of one address that is not this machine's
HANDSHAKE: Final = 10.0               # seconds
ASKING: Final = 15.0                  # seconds that a connection may take to send a request's head, or the next one
ANSWERING: Final = 75.0               # seconds that a request takes from its head on: a login asks its provider
TICK: Final = 1.0
_PEERPIDFD: Final = 77                # asm-generic/socket.h, since Linux 6.5

App = Callable[[Any, Any, Any], Awaitable[None]]
AdmitBy = Callable[[Admit], Awaitable[str]]        # why not, or ""


class Connection(H11Protocol):
    """`stream` in the request's state: its answer does not end."""

    since = began = 0.0
    _heard: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.access_log = False       # whatever handlers there are: addresses hold what providers send
        self.since = self.loop.time()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        self.since = self.loop.time()
        super().on_response_complete()
        self._look()

    def _look(self) -> None:
        if self.cycle is not self._heard:
            self._heard, self.began = self.cycle, self.loop.time()

    def is_late(self, now: float) -> bool:
        if self.cycle is None or self.cycle.response_complete:
            return now - self.since > ASKING
        return not self.cycle.scope["state"].get("stream") and now - self.began > ANSWERING


class Door:
    """`admit` asks the agent."""

    def __init__(self, app: App, admit: AdmitBy) -> None:
        self._config = uvicorn.Config(
            app, http="h11", ws="none", lifespan="off", access_log=False, server_header=False, date_header=False,
            proxy_headers=False, log_config=None, interface="asgi3", h11_max_incomplete_event_size=guard.HEAD,
            timeout_keep_alive=5)
        self._config.load()
        for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "starlette"):     # they say what browsers send
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._state = ServerState()
        self._admit = admit
        self.context: ssl.SSLContext | None = None
        self._addresses: Counter[str] = Counter()
        self._rates = Rates()
        self._taking: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None

    async def serve(self, listener: socket.socket) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as reason:  # of the connection, or there are no more descriptors
                LOG.warning("a connection could not be accepted: %s", reason.strerror)
                await asyncio.sleep(0.1)
                continue
            address = _address(connection)
            if (len(self._taking) + len(self._state.connections) >= MOST or self._addresses[address] >= EACH
                    or not self._rates.take(CONNECT, address, loop.time())):
                connection.close()
                continue
            if address:
                self._addresses[address] += 1
            task = loop.create_task(self._take(connection, address))
            self._taking.add(task)
            task.add_done_callback(self._taking.discard)
            if self._watching is None or self._watching.done():
                self._watching = loop.create_task(self._watch())

    async def _take(self, connection: socket.socket, address: str) -> None:
        try:
            connection.setblocking(False)
            if reason := await self._why_not(connection):
                LOG.info("a connection was refused: %s", reason)
                connection.close()
                self._gone(address)
                return
            context = self.context
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._made(address), connection, ssl=context,
                ssl_handshake_timeout=HANDSHAKE if context else None)
        except (OSError, TimeoutError):            # of TLS too
            connection.close()
            self._gone(address)

    def _made(self, address: str) -> Connection:
        door = self

        class Counted(Connection):
            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                door._gone(address)

        return Counted(self._config, self._state, {})

    def _gone(self, address: str) -> None:
        if address:
            self._addresses[address] -= 1
            if self._addresses[address] <= 0:
                del self._addresses[address]

    async def _why_not(self, connection: socket.socket) -> str:
        """Raises OSError."""
        if connection.family != socket.AF_UNIX:
            peer, own = connection.getpeername(), connection.getsockname()
            return await self._admit(Admit(0, 0, peer[0], peer[1], own[0], own[1]))
        pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if pid <= 0:
            return "its process cannot be seen"
        descriptor = -1
        with suppress(OSError):       # an older kernel has none to give
            descriptor = connection.getsockopt(socket.SOL_SOCKET, _PEERPIDFD)
        try:
            reason = await self._admit(Admit(0, pid))
            return reason or ("its process has ended" if _has_ended(descriptor, pid) else "")
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while self._state.connections or self._taking:
            await asyncio.sleep(TICK)
            for one in tuple(self._state.connections):
                if isinstance(one, Connection) and one.is_late(loop.time()):
                    one.transport.abort()

    def close(self) -> None:
        for task in tuple(self._taking):
            task.cancel()
        for one in tuple(self._state.connections):
            if one.transport is not None:
                one.transport.abort()


def _has_ended(descriptor: int, pid: int) -> bool:
    """Whether `pid` may be another's by now."""
    if descriptor < 0:
        return not os.path.exists(f"/proc/{pid}")
    ended = select.poll()
    ended.register(descriptor, select.POLLIN)
    return bool(ended.poll(0))


def _address(connection: socket.socket) -> str:
    """"" for this machine's own: whatever stands before the page there speaks for many."""
    if connection.family == socket.AF_UNIX:
        return ""
    try:
        return who_is(str(connection.getpeername()[0]))
    except OSError:
        return ""
