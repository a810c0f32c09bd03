"""Edge: the end that a process beside the enforcer has of the agent's channel: frames of its contract."""
from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable
from typing import Any, Final

import msgspec

LOG = logging.getLogger("weir.channel")
_LENGTH: Final = 4
UNREAD: Final = 8                     # of the contract's longest messages, that the agent may leave unread


class Frames(asyncio.Protocol):
    """`closed` is set when the agent is gone."""

    contract: Any                     # its module

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = bytearray()
        self._tasks: set[asyncio.Future[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            while len(self._buffer) >= _LENGTH:
                size = self.contract.parse_length(bytes(self._buffer[:_LENGTH]))
                if len(self._buffer) < _LENGTH + size:
                    return
                body = bytes(self._buffer[_LENGTH:_LENGTH + size])
                del self._buffer[:_LENGTH + size]
                self.take(self.contract.parse_from_agent(body))
        except (ValueError, msgspec.MsgspecError):
            LOG.error("the agent sent what is no message: the channel is closed")
            self.closed.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.closed.set()

    def send(self, message: Any) -> None:
        if self._transport is None:
            return
        self._transport.write(self.contract.render_frame(message))
        if self._transport.get_write_buffer_size() > UNREAD * self.contract.LIMIT:
            LOG.error("the agent does not read: the channel is closed")
            self.closed.set()

    def take(self, message: Any) -> None:
        """Raises ValueError: it may not say that."""
        raise NotImplementedError

    def spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:      # its text may hold what somebody sent
            LOG.error("a question of the agent failed: %s", type(task.exception()).__name__)


async def connect(channel: Frames, descriptor: int) -> None:
    link = socket.socket(fileno=descriptor)
    await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=link)
