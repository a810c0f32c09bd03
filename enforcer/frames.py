"""Edge: the end that a process beside the enforcer has of the agent's channel: frames of its contract."""
from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

import msgspec

LOG = logging.getLogger("weir.channel")
_LENGTH: Final = 4
UNREAD: Final = 8                     # of the contract's longest messages, that the agent may leave unread
ASK: Final = 60.0                     # seconds: a login asks its provider more than once
MOST: Final = 128                     # questions at a time
_Answer = TypeVar("_Answer", bound=msgspec.Struct)


class NoAnswer(Exception):
    """The agent does not answer, or not this."""


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


class Asking(Frames):
    """It also asks, within the contract's ASKED bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._number = 0
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._turn = asyncio.Semaphore(MOST)

    async def ask(self, question: msgspec.Struct, wanted: type[_Answer]) -> _Answer:
        """Whatever number it has, it is given its own.  Raises NoAnswer."""
        async with self._turn:
            if self._transport is None:
                raise NoAnswer("the agent does not answer")
            self._number += 1
            number = self._number
            future = self._asked[number] = asyncio.get_running_loop().create_future()
            try:
                frame = self.contract.render_frame(
                    msgspec.structs.replace(question, number=number), self.contract.ASKED)
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

    def connection_lost(self, error: Exception | None) -> None:
        for future in self._asked.values():
            if not future.done():
                future.set_exception(NoAnswer("the agent is gone"))
        super().connection_lost(error)

    def settle(self, message: Any) -> None:
        """What nobody waits for any more is no error."""
        if (future := self._asked.get(message.number)) is not None and not future.done():
            future.set_result(message)


async def connect(channel: Frames, descriptor: int) -> None:
    link = socket.socket(fileno=descriptor)
    await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=link)
