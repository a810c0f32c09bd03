"""The web process as the agent's child, and the agent's end of its channel (agent/contract/web.py).

It parses what browsers send, and may be broken by it: what it asks is bounded, and what is no message ends it.
"""
from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar, get_args

import msgspec

from agent.channel import ChannelError
from agent.contract import web as messages
from agent.network.doors import close_all
from agent.processes import python_module
from agent.services import DRAIN, HANG, PING_EVERY, Service, Tell

LOG = logging.getLogger("weir.web")

ASK: Final = 10.0                     # seconds
AT_ONCE: Final = 256                  # questions being answered,
BYTES: Final = 8 << 20                # and what they hold; more wait unread
UNREAD: Final = 2 * messages.LIMIT    # bytes that it may leave unread
_QUESTIONS: Final = get_args(messages.Question)
Answer = Callable[[messages.Question], Awaitable[messages.Message]]
_Answer = TypeVar("_Answer", bound=messages.Message)


class WebChannel(asyncio.Protocol):
    """`answer` gives the answer to what the web process asks; it must not raise.  `closed` is set when it is gone."""

    def __init__(self, answer: Answer) -> None:
        self._answer_question = answer
        self.closed = asyncio.Event()
        self.reason = "its channel was closed"
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._number = self._unanswered = 0
        self._asked: dict[int, asyncio.Future[messages.Message]] = {}
        self._answering: dict[asyncio.Task[None], int] = {}      # bytes of its question

    @classmethod
    async def open(cls, sock: socket.socket, answer: Answer) -> WebChannel:
        _, channel = await asyncio.get_running_loop().create_unix_connection(lambda: cls(answer), sock=sock)
        return channel

    def close(self, reason: str = "") -> None:
        self.reason = reason or self.reason
        if self._transport is not None:
            self._transport.abort()
        self._gone()

    async def ask(
        self, make: Callable[[int], messages.Message], wanted: type[_Answer], seconds: float = ASK,
    ) -> _Answer:
        """Raises ChannelError where no answer of that kind comes in time."""
        if self._transport is None:
            raise ChannelError("the web process is not running")
        self._number += 1
        number = self._number
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self.send(make(number))
            async with asyncio.timeout(seconds):
                found = await future
        except TimeoutError:
            raise ChannelError(f"the web process did not answer within {seconds:.0f} seconds") from None
        except ValueError as reason:
            raise ChannelError(f"not for the web process: {reason}") from None
        finally:
            self._asked.pop(number, None)
        if not isinstance(found, wanted):
            self.close("it answered something else")
            raise ChannelError("the web process answered something else")
        return found

    def send(self, message: messages.Message) -> None:
        """Raises ValueError: it does not fit.  Who leaves too much unread has its channel closed."""
        if self._transport is None:
            return
        self._transport.write(messages.render_frame(message))
        if self._transport.get_write_buffer_size() > UNREAD:
            self.close("it does not read")

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            while len(self._buffer) >= 4 and not self.closed.is_set():
                size = messages.parse_length(bytes(self._buffer[:4]), messages.ASKED)
                if len(self._buffer) < 4 + size:
                    return
                body = bytes(self._buffer[4:4 + size])
                del self._buffer[:4 + size]
                self._received(messages.parse_from_web(body), size)
        except (ValueError, msgspec.MsgspecError) as reason:
            LOG.error("the web process sent what is no message (%s): it is ended", type(reason).__name__)
            self.close("it sent what is no message")

    def connection_lost(self, error: Exception | None) -> None:
        self._gone()

    def _gone(self) -> None:
        self._transport = None
        self._buffer.clear()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(ChannelError("the web process has ended"))
        for task in self._answering:
            task.cancel()
        self.closed.set()

    def _received(self, message: messages.FromWeb, size: int) -> None:
        if isinstance(message, _QUESTIONS):
            task = asyncio.get_running_loop().create_task(self._answer(message))
            self._answering[task] = size
            self._unanswered += size
            task.add_done_callback(self._answered)
            if self._enough() and self._transport is not None:
                self._transport.pause_reading()
        elif (future := self._asked.get(message.number)) and not future.done():
            future.set_result(message)

    async def _answer(self, question: messages.Question) -> None:
        self.send(await self._answer_question(question))

    def _enough(self) -> bool:
        return len(self._answering) >= AT_ONCE or self._unanswered >= BYTES

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._unanswered -= self._answering.pop(task, 0)
        if self._transport is not None and not self._enough() and not self._transport.is_reading():
            self._transport.resume_reading()
        if not task.cancelled() and task.exception() is not None:
            LOG.error("a question of the web process could not be answered: %s", type(task.exception()).__name__)
            self.close("what it asked could not be answered")


class WebProcess(Service):
    """`listen` opens its listeners, which stay open while it is started again: connections wait.  `lost` is called when
    it is no more."""

    name = "web"

    def __init__(
        self, user: str, cgroup: Path, tell: Tell, changed: Callable[[], None],
        listen: Callable[[], list[socket.socket]], configure: Callable[[int], messages.Configure], answer: Answer,
        lost: Callable[[], None],
    ) -> None:
        super().__init__(user, cgroup, tell, changed)
        self._listen, self._configure, self._answer, self._lost = listen, configure, answer, lost
        self._listeners: list[socket.socket] = []
        self._channel: WebChannel | None = None

    @property
    def channel(self) -> WebChannel:
        """Raises ChannelError where it is not running."""
        if self._channel is None:
            raise ChannelError("the web process is not running")
        return self._channel

    async def configure(self) -> str:
        """What is wrong, or empty.  Raises ChannelError."""
        return (await self.channel.ask(self._configure, messages.Done)).error

    async def stop(self) -> None:
        await super().stop()
        close_all(self._listeners)
        self._listeners = []

    async def _life(self) -> str:
        self._listeners = self._listeners or self._listen()
        ours, theirs = socket.socketpair()
        numbers = tuple(one.fileno() for one in self._listeners)
        try:
            with theirs:
                command = [*python_module("enforcer.web.app"), "--channel", str(theirs.fileno()), "--listeners",
                           ",".join(map(str, numbers))]
                await self._spawn(command, (theirs.fileno(), *numbers), dies_with_parent=True)
            self._channel = await WebChannel.open(ours, self._answer)
            return await self._serve(self._channel)
        finally:
            if self._channel is not None:
                self._channel.close()
                self._channel = None
            ours.close()
            self._lost()

    async def _serve(self, channel: WebChannel) -> str:
        assert self._process is not None
        ended = asyncio.get_running_loop().create_task(self._process.wait())
        try:
            if error := await self.configure():
                return f"its configuration: {error}"
            self._set(True, "")
            while not ended.done() and not channel.closed.is_set():
                await asyncio.wait({ended}, timeout=PING_EVERY)
                if not ended.done():
                    await channel.ask(messages.Ping, messages.Pong, HANG)
        except ChannelError as reason:
            await asyncio.wait({ended}, timeout=DRAIN if self._stopping else 0.5)
            return f"{channel.reason} ({self._ended()})" if ended.done() else f"{reason}; {channel.reason}"
        finally:
            ended.cancel()
        return channel.reason if channel.closed.is_set() else self._ended()
