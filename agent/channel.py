"""The agent's ends of its channels to processes of Weir's: frames of a contract over a socket pair.

Whoever is at the other end reads untrusted bytes and may be broken by them: what it sends is bounded before memory is
taken, what is malformed or of another kind than was asked for ends the channel and with it the process, and so does
leaving unread what it is sent.  `Channel` asks; `AnsweringChannel` is asked as well, and what may be asked is a table:
that is the privilege boundary.
"""
from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final, Protocol, Self, TypeVar

import msgspec

from agent.contract import frames, messages

LOG = logging.getLogger("weir.channel")

ASK: Final = 10.0                     # seconds

_Answer = TypeVar("_Answer", bound=msgspec.Struct)


class ChannelError(Exception):
    """The process at the other end does not answer, or is not there."""


class SilenceError(ChannelError):
    """It is there, and has not answered in time."""


class Numbered(Protocol):
    """A message that answers a question, or asks one."""

    @property
    def number(self) -> int: ...


class Channel(asyncio.Protocol):
    """`closed` is set when it is gone, and `reason` says why.  A kind has a name, a contract and its bounds."""

    peer: ClassVar[str]               # as errors have it: "the enforcer"
    limit: ClassVar[int]              # bytes of a frame's body
    unread: ClassVar[int]             # bytes that the other end may leave unread
    patience: ClassVar[float] = ASK   # seconds that an answer may take

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.reason = "its channel was closed"
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._number = 0
        self._asked: dict[int, asyncio.Future[Any]] = {}

    # a kind says these

    def _parse(self, body: bytes) -> Any:
        """A message.  Raises ValueError, msgspec.MsgspecError."""
        raise NotImplementedError

    def _render(self, message: Any) -> bytes:
        """One frame.  Raises ValueError: it does not fit."""
        raise NotImplementedError

    def _received(self, message: Any, size: int) -> None:
        """`size`: bytes of its body.  Raises ValueError: the other end may not say that.  What answers a question goes
        to `_settle`."""
        self._settle(message)

    # asking

    @classmethod
    async def connect(cls, sock: socket.socket, *arguments: Any) -> Self:
        """Over this end of a pair; `arguments` are the kind's own."""
        _, channel = await asyncio.get_running_loop().create_unix_connection(lambda: cls(*arguments), sock=sock)
        return channel

    def close(self, reason: str = "") -> None:
        self.reason = reason or self.reason
        if self._transport is not None:
            self._transport.abort()
        self._gone()

    async def ask(
        self, make: Callable[[int], msgspec.Struct], wanted: type[_Answer], seconds: float | None = None,
    ) -> _Answer:
        """`make(number)` is sent; raises SilenceError where no answer comes in time, ChannelError where none can."""
        if self._transport is None or self.closed.is_set():
            raise ChannelError(f"{self.peer} is not running")
        seconds = self.patience if seconds is None else seconds
        self._number += 1
        number = self._number
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(make(number))
            async with asyncio.timeout(seconds):
                found = await future
        except TimeoutError:
            raise SilenceError(f"{self.peer} did not answer within {seconds:.0f} seconds") from None
        except ValueError as reason:
            raise ChannelError(f"not for {self.peer}: {reason}") from None
        finally:
            self._asked.pop(number, None)
        if not isinstance(found, wanted):
            self.close("it answered something else")
            raise ChannelError(f"{self.peer} answered something else")
        return found

    def _settle(self, message: Numbered) -> None:
        """What nobody waits for any more is no error."""
        if (future := self._asked.get(message.number)) and not future.done():
            future.set_result(message)

    def _send(self, message: msgspec.Struct) -> None:
        """Raises ValueError: it does not fit.  Who leaves too much unread has its channel closed."""
        if self._transport is None:
            return
        self._transport.write(self._render(message))
        if self._transport.get_write_buffer_size() > self.unread:
            LOG.error("%s does not read what it is sent: its channel is closed", self.peer)
            self.close("it does not read")

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._take()

    def _enough(self) -> bool:
        """Whether what has come waits."""
        return False

    def _take(self) -> None:
        head = frames.HEADER.size
        try:
            while len(self._buffer) >= head and not self.closed.is_set() and not self._enough():
                size = frames.parse_length(bytes(self._buffer[:head]), self.limit)
                if len(self._buffer) < head + size:
                    return
                body = bytes(self._buffer[head:head + size])
                del self._buffer[:head + size]
                self._received(self._parse(body), size)
        except (ValueError, msgspec.MsgspecError) as reason:
            LOG.error("%s sent what is no message (%s): its channel is closed", self.peer, type(reason).__name__)
            self.close("it sent what is no message")

    def connection_lost(self, error: Exception | None) -> None:
        self._gone()

    def _gone(self) -> None:
        self._transport = None
        self._buffer.clear()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(ChannelError(f"{self.peer} has ended"))
        self.closed.set()


class AnsweringChannel(Channel):
    """Questions are answered each by a task of its own, so many at a time as there is room for; more wait unread."""

    questions: ClassVar[tuple[type[msgspec.Struct], ...]]     # the table of what may be asked
    at_once: ClassVar[int]            # questions being answered,
    most: ClassVar[int]               # and what they hold, bytes

    def __init__(self, answer: Callable[[Any], Awaitable[msgspec.Struct]]) -> None:
        """`answer` gives the answer to what is asked; it must not raise."""
        super().__init__()
        self._answer_question = answer
        self._unanswered = 0          # bytes of what is being answered
        self._writable = asyncio.Event()      # what was answered before is read
        self._writable.set()
        self._answering: dict[asyncio.Task[None], int] = {}      # bytes of its question

    def _received(self, message: Any, size: int) -> None:
        if not isinstance(message, self.questions):
            self._settle(message)
            return
        task = asyncio.get_running_loop().create_task(self._answer(message))
        self._answering[task] = size
        self._unanswered += size
        task.add_done_callback(self._answered)
        if self._enough() and self._transport is not None:
            self._transport.pause_reading()

    async def _answer(self, question: msgspec.Struct) -> None:
        answer = await self._answer_question(question)
        while not self._writable.is_set():    # one at a time: they may be long, and asked for all at once
            await self._writable.wait()
        self._send(answer)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self._transport is not None
        self._transport.set_write_buffer_limits(self.unread // 2)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _enough(self) -> bool:
        return len(self._answering) >= self.at_once or self._unanswered >= self.most

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._unanswered -= self._answering.pop(task, 0)
        if self._transport is not None and not self._enough() and not self._transport.is_reading():
            self._transport.resume_reading()
            self._take()              # what had come with the last one
        if not task.cancelled() and task.exception() is not None:
            LOG.error("a question of %s could not be answered: %s", self.peer, type(task.exception()).__name__)
            self.close("its question could not be answered")

    def _gone(self) -> None:
        super()._gone()
        for task in self._answering:
            task.cancel()


Question = (messages.Whois | messages.WhoisLocal | messages.AskCredential | messages.WhoAsks | messages.NameAsked
            | messages.KeepTicket)
Answer = Callable[[Question], Awaitable[messages.Message]]


class EnforcerChannel(AnsweringChannel):
    """What the enforcer may ask: whose is this connection, the credential for a target that is configured, and that a
    name be recorded and a ticket be kept.  And it says which credential is not used any more (`unused` is told its
    lease, and must not raise)."""

    peer = "the enforcer"
    limit = messages.LIMIT
    unread = 2 * messages.LIMIT       # two of the longest messages
    at_once = 1024
    most = 1 << 20
    questions = (messages.Whois, messages.WhoisLocal, messages.AskCredential, messages.WhoAsks, messages.NameAsked,
                 messages.KeepTicket)

    def __init__(self, answer: Answer, unused: Callable[[int], None] = lambda lease: None) -> None:
        super().__init__(answer)
        self._unused = unused
        self.news: Callable[[messages.Changed], None] = lambda message: None      # takes what comes unasked

    @classmethod
    async def open(
        cls, sock: socket.socket, answer: Answer, unused: Callable[[int], None] = lambda lease: None,
    ) -> EnforcerChannel:
        return await cls.connect(sock, answer, unused)

    def _received(self, message: messages.FromEnforcer, size: int) -> None:
        if isinstance(message, messages.CredentialUnused):
            self._unused(message.lease)
        elif isinstance(message, messages.Changed):
            self.news(message)
        else:
            super()._received(message, size)

    def _parse(self, body: bytes) -> messages.FromEnforcer:
        return messages.parse_from_enforcer(body)

    def _render(self, message: messages.Message) -> bytes:
        return messages.render_frame(message)
