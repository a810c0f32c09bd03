"""Edge: the notify process' end of the agent's channel, frames of agent.contract.notify."""
from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine
from typing import Any, Final

import msgspec

from agent.contract import notify as messages
from enforcer.notify.desk import Desk

LOG = logging.getLogger("weir.notify")
_LENGTH: Final = 4
UNREAD: Final = 8 * messages.LIMIT    # bytes that the agent may leave unread


class Channel(asyncio.Protocol):
    """`closed` is set when the agent is gone."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.desk = Desk(self._send)
        self._configuring = asyncio.Lock()
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
                self._received(messages.parse_from_agent(body))
        except (ValueError, msgspec.MsgspecError):
            LOG.error("the agent sent what is no message: the channel is closed")
            self.closed.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.closed.set()

    def _send(self, message: messages.Message) -> None:
        if self._transport is None:
            return
        self._transport.write(messages.render_frame(message))
        if self._transport.get_write_buffer_size() > UNREAD:
            LOG.error("the agent does not read: the channel is closed")
            self.closed.set()

    def _received(self, message: messages.FromAgent) -> None:
        if isinstance(message, messages.Ping):
            self._send(messages.Pong(message.number))
        elif isinstance(message, messages.Put):
            self.desk.put(message.notices)
            self._send(messages.Done(message.number))
        elif isinstance(message, messages.Answered):
            self.desk.answered(message)
        elif isinstance(message, messages.Configure):
            self._spawn(self._configure(message))
        elif isinstance(message, messages.Try):
            self._spawn(self._try(message))
        else:
            self._spawn(self._request(message))

    async def _configure(self, message: messages.Configure) -> None:
        async with self._configuring:
            self._send(messages.Done(message.number, (await self.desk.configure(message))[:1000]))

    async def _try(self, message: messages.Try) -> None:
        self._send(await self.desk.tried(message.number))

    async def _request(self, message: messages.SlackRequest) -> None:
        try:
            answer = await self.desk.request(message)
        except Exception as wrong:    # its text may hold what was posted
            LOG.error("a request of Slack's failed: %s", type(wrong).__name__)
            answer = messages.SlackAnswer(message.number, 500)
        self._send(answer)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            LOG.error("a question of the agent failed: %s", type(task.exception()).__name__)


async def open_channel(descriptor: int) -> Channel:
    link, channel = socket.socket(fileno=descriptor), Channel()
    await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=link)
    return channel
