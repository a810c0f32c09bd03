"""Edge: the identity process' end of the agent's channel, frames of agent.contract.identity."""
from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable
from typing import Any, Final

import msgspec

from agent.contract import identity as messages
from enforcer.identity.sessions import Sessions

LOG = logging.getLogger("weir.identity")
_LENGTH: Final = 4


class Channel(asyncio.Protocol):
    """`closed` is set when the agent is gone."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self._sessions = Sessions(self._send)
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
        if self._transport is not None:
            self._transport.write(messages.render_frame(message))

    def _received(self, message: messages.FromAgent) -> None:
        if isinstance(message, messages.Ping):
            self._send(messages.Pong(message.number))
        elif isinstance(message, messages.Configure):
            wrong = self._sessions.configure(message.providers, message.saml)
            self._send(messages.Done(message.number, wrong[:1000]))
        elif isinstance(message, messages.Forget):
            self._send(self._sessions.forget(message))
        else:
            self._spawn(self._answer(message))

    async def _answer(self, message: messages.Begin | messages.Finish | messages.Logout) -> None:
        work: Any = {messages.Begin: self._sessions.begin, messages.Finish: self._sessions.finish,
                     messages.Logout: self._sessions.logout}[type(message)]
        try:
            answer = await work(message)
        except Exception as wrong:    # its text may hold what a provider said
            LOG.error("a question of the agent failed: %s", type(wrong).__name__)
            made = messages.Begun if isinstance(message, messages.Begin) else messages.Done
            answer = made(message.number, "the identity process could not do it")
        self._send(answer)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def open_channel(descriptor: int) -> Channel:
    link, channel = socket.socket(fileno=descriptor), Channel()
    await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=link)
    return channel
