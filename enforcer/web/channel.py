"""Edge: the web process' end of the agent's channel, frames of agent.contract.web."""
from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from agent.contract import web as messages

LOG = logging.getLogger("weir.web")

ASK: Final = 60.0                     # seconds: a login asks its provider more than once
MOST: Final = 128                     # questions at a time
_LENGTH: Final = 4
_Answer = TypeVar("_Answer", bound=messages.Message)
News = messages.Changed | messages.Over


class NoAnswer(Exception):
    """The agent does not answer, or not this."""


class Channel(asyncio.Protocol):
    """`configure` puts a Configure in force and gives what is wrong with it, or ""; `news` takes what comes unasked.
    `closed` is set when the agent is gone."""

    def __init__(self, configure: Callable[[messages.Configure], str], news: Callable[[News], None]) -> None:
        self._configure, self._news = configure, news
        self.closed = asyncio.Event()
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = bytearray()
        self._number = 0
        self._asked: dict[int, asyncio.Future[messages.Message]] = {}
        self._turn = asyncio.Semaphore(MOST)

    async def ask(self, question: messages.Question, wanted: type[_Answer]) -> _Answer:
        """Whatever number it has, it is given its own.  Raises NoAnswer."""
        async with self._turn:
            if self._transport is None:
                raise NoAnswer("the agent does not answer")
            self._number += 1
            number = self._number
            future = self._asked[number] = asyncio.get_running_loop().create_future()
            try:
                frame = messages.render_frame(msgspec.structs.replace(question, number=number), messages.ASKED)
                self._transport.write(frame)
                async with asyncio.timeout(ASK):
                    found = await future
            except (TimeoutError, ValueError):
                raise NoAnswer("the agent does not answer") from None
            finally:
                del self._asked[number]
        if not isinstance(found, wanted):
            raise NoAnswer("the agent answered something else")
        return found

    # asyncio.Protocol

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
        for future in self._asked.values():
            if not future.done():
                future.set_exception(NoAnswer("the agent is gone"))
        self.closed.set()

    def _send(self, message: messages.Message) -> None:
        if self._transport is not None:
            self._transport.write(messages.render_frame(message))

    def _received(self, message: messages.FromAgent) -> None:
        if isinstance(message, messages.Ping):
            self._send(messages.Pong(message.number))
        elif isinstance(message, messages.Configure):
            self._send(messages.Done(message.number, self._configure(message)[:1000]))
        elif isinstance(message, News):
            self._news(message)
        elif (future := self._asked.get(message.number)) is not None and not future.done():
            future.set_result(message)


async def open_channel(descriptor: int, channel: Channel) -> None:
    link = socket.socket(fileno=descriptor)
    await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=link)
