"""The agent's end of the enforcer's channel: frames of agent/contract/messages.py over a socket pair.

What the enforcer may ask is the table in `_received`, and that is the privilege boundary: whose is this connection,
the credential for a target that is configured, and that a ticket be kept.  Anything else, what is malformed or longer
than it needs to be, and answers that are not read, end the channel and with it the enforcer.
"""
from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import msgspec

from agent.contract import messages

LOG = logging.getLogger("weir.channel")

AT_ONCE: Final = 1024                 # questions being answered,
BYTES: Final = 1 << 20                # and what they hold; more wait unread
UNREAD: Final = 2 * messages.LIMIT    # bytes that the enforcer may leave unread: two of the longest messages
ASK: Final = 10.0                     # seconds

Question = (messages.Whois | messages.WhoisLocal | messages.AskCredential | messages.WhoAsks | messages.NameAsked
            | messages.KeepTicket)
_QUESTIONS: Final = (
    messages.Whois, messages.WhoisLocal, messages.AskCredential, messages.WhoAsks, messages.NameAsked,
    messages.KeepTicket)
Answer = Callable[[Question], Awaitable[messages.Message]]
_Answer = TypeVar("_Answer", bound=messages.Message)


class ChannelError(Exception):
    """The enforcer does not answer, or is not there."""


class EnforcerChannel(asyncio.Protocol):
    """`answer` gives the answer to what the enforcer asks; it must not raise.  `closed` is set when it is gone."""

    def __init__(self, answer: Answer) -> None:
        self._answer_question = answer
        self.closed = asyncio.Event()
        self._unanswered = 0          # their sum
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._number = 0
        self._asked: dict[int, asyncio.Future[messages.Message]] = {}
        self._answering: dict[asyncio.Task[None], int] = {}      # bytes of its question

    @classmethod
    async def open(cls, sock: socket.socket, answer: Answer) -> EnforcerChannel:
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(lambda: cls(answer), sock=sock)
        return channel

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._gone()

    async def ask(
        self, make: Callable[[int], messages.Message], wanted: type[_Answer], seconds: float = ASK,
    ) -> _Answer:
        """`make(number)` is sent; raises ChannelError where no answer of that kind comes in time."""
        if self._transport is None or self.closed.is_set():
            raise ChannelError("the enforcer is not running")
        self._number += 1
        number = self._number
        future: asyncio.Future[messages.Message] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        try:
            self._send(make(number))
            async with asyncio.timeout(seconds):
                found = await future
        except TimeoutError:
            raise ChannelError(f"the enforcer did not answer within {seconds:.0f} seconds") from None
        except ValueError as reason:
            raise ChannelError(f"not for the enforcer: {reason}") from None
        finally:
            self._asked.pop(number, None)
        if not isinstance(found, wanted):
            self.close()
            raise ChannelError("the enforcer answered something else")
        return found

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            while len(self._buffer) >= 4:
                size = messages.parse_length(bytes(self._buffer[:4]))
                if len(self._buffer) < 4 + size:
                    return
                body = bytes(self._buffer[4:4 + size])
                del self._buffer[:4 + size]
                self._received(messages.parse_from_enforcer(body), size)
        except (ValueError, msgspec.MsgspecError) as reason:
            LOG.error("the enforcer sent what is no message (%s): its channel is closed", type(reason).__name__)
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._gone()

    def _gone(self) -> None:
        self._transport = None
        self._buffer.clear()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(ChannelError("the enforcer has ended"))
        for task in self._answering:
            task.cancel()
        self.closed.set()

    def _received(self, message: messages.FromEnforcer, size: int) -> None:
        if isinstance(message, _QUESTIONS):
            task = asyncio.get_running_loop().create_task(self._answer(message))
            self._answering[task] = size
            self._unanswered += size
            task.add_done_callback(self._answered)
            if self._enough() and self._transport is not None:
                self._transport.pause_reading()
        elif (future := self._asked.get(message.number)) and not future.done():
            future.set_result(message)

    async def _answer(self, question: Question) -> None:
        self._send(await self._answer_question(question))

    def _send(self, message: messages.Message) -> None:
        """Raises ValueError: it does not fit.  Who leaves too much unread has its channel closed."""
        if self._transport is None:
            return
        self._transport.write(messages.render_frame(message))
        if self._transport.get_write_buffer_size() > UNREAD:
            LOG.error("the enforcer does not read what it is answered: its channel is closed")
            self.close()

    def _enough(self) -> bool:
        return len(self._answering) >= AT_ONCE or self._unanswered >= BYTES

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._unanswered -= self._answering.pop(task, 0)
        if self._transport is not None and not self._enough() and not self._transport.is_reading():
            self._transport.resume_reading()
        if not task.cancelled() and task.exception() is not None:
            LOG.error("a question of the enforcer could not be answered: %s", type(task.exception()).__name__)
            self.close()
