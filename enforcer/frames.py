"""Edge: the end that a process beside the enforcer has of the agent's channel: frames of agent.contract.identity."""
from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable
from typing import Final

import msgspec

from agent.contract import identity as messages

LOG = logging.getLogger("weir.channel")
_LENGTH: Final = 4


class Frames(asyncio.Protocol):
    """`closed` is set when the agent is gone."""

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
                size = messages.parse_length(bytes(self._buffer[:_LENGTH]))
                if len(self._buffer) < _LENGTH + size:
                    return
                body = bytes(self._buffer[_LENGTH:_LENGTH + size])
                del self._buffer[:_LENGTH + size]
                self.take(body)
        except (ValueError, msgspec.MsgspecError):
            LOG.error("the agent sent what is no message: the channel is closed")
            self.closed.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.closed.set()

    def send(self, message: messages.Message) -> None:
        if self._transport is not None:
            self._transport.write(messages.render_frame(message))

    def take(self, body: bytes) -> None:
        """Of one frame.  Raises ValueError, MsgspecError: it is no message."""
        raise NotImplementedError

    def spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def connect(channel: Frames, descriptor: int) -> None:
    link = socket.socket(fileno=descriptor)
    await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=link)
