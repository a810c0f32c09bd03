"""The identity process as the agent's child, and the agent's end of its channel (agent/contract/identity.py).

It parses what providers say, and may be broken by it: what it sends is bounded, and what is no message, or no answer to
what was asked, ends it.
"""
from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from agent.channel import ChannelError
from agent.contract import identity as messages
from agent.processes import python_module
from agent.services import DRAIN, HANG, PING_EVERY, Service, Tell

LOG = logging.getLogger("weir.identity")

ASK: Final = 40.0                     # seconds: configuration, keys and token, each of them another exchange
UNREAD: Final = 4 * messages.LIMIT    # bytes that it may leave unread
_Answer = TypeVar("_Answer", bound=messages.Message)
News = messages.Verified | messages.Ended


class IdentityChannel(asyncio.Protocol):
    """`news` takes what comes unasked; where it raises ValueError the channel is closed."""

    def __init__(self, news: Callable[[News], None]) -> None:
        self._news = news
        self.closed = asyncio.Event()
        self.reason = "its channel was closed"
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._number = 0
        self._asked: dict[int, asyncio.Future[messages.Message]] = {}

    @classmethod
    async def open(cls, sock: socket.socket, news: Callable[[News], None]) -> IdentityChannel:
        _, channel = await asyncio.get_running_loop().create_unix_connection(lambda: cls(news), sock=sock)
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
            raise ChannelError("the identity process is not running")
        self._number += 1
        number = self._number
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._transport.write(messages.render_frame(make(number)))
            if self._transport.get_write_buffer_size() > UNREAD:
                self.close("it does not read")
            async with asyncio.timeout(seconds):
                found = await future
        except TimeoutError:
            raise ChannelError(f"the identity process did not answer within {seconds:.0f} seconds") from None
        except ValueError as reason:
            raise ChannelError(f"not for the identity process: {reason}") from None
        finally:
            self._asked.pop(number, None)
        if not isinstance(found, wanted):
            self.close("it answered something else")
            raise ChannelError("the identity process answered something else")
        return found

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            while len(self._buffer) >= 4 and not self.closed.is_set():
                size = messages.parse_length(bytes(self._buffer[:4]))
                if len(self._buffer) < 4 + size:
                    return
                body = bytes(self._buffer[4:4 + size])
                del self._buffer[:4 + size]
                self._received(messages.parse_from_identity(body))
        except (ValueError, msgspec.MsgspecError) as reason:
            LOG.error("the identity process sent what is no message (%s): it is ended", type(reason).__name__)
            self.close("it sent what is no message")

    def connection_lost(self, error: Exception | None) -> None:
        self._gone()

    def _gone(self) -> None:
        self._transport = None
        self._buffer.clear()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(ChannelError("the identity process has ended"))
        self.closed.set()

    def _received(self, message: messages.FromIdentity) -> None:
        if isinstance(message, News):
            self._news(message)
        elif (future := self._asked.get(message.number)) and not future.done():
            future.set_result(message)


class IdentityProcess(Service):
    """`ready` is awaited when it is configured, `lost` is called when it is no more."""

    name = "identities"

    def __init__(
        self, user: str, cgroup: Path, tell: Tell, changed: Callable[[], None],
        configure: Callable[[int], messages.Configure], news: Callable[[News], None],
        ready: Callable[[], Awaitable[None]], lost: Callable[[str], None],
    ) -> None:
        super().__init__(user, cgroup, tell, changed)
        self._configure, self._news, self._ready, self._lost = configure, news, ready, lost
        self._channel: IdentityChannel | None = None

    @property
    def channel(self) -> IdentityChannel:
        """Raises ChannelError where it is not running."""
        if self._channel is None:
            raise ChannelError("the identity process is not running")
        return self._channel

    async def configure(self) -> str:
        """What is wrong, or empty.  Raises ChannelError."""
        return (await self.channel.ask(self._configure, messages.Done)).error

    async def _life(self) -> str:
        ours, theirs = socket.socketpair()
        reason = ""
        try:
            with theirs:
                command = [*python_module("enforcer.identity.app"), "--channel", str(theirs.fileno())]
                await self._spawn(command, (theirs.fileno(),), dies_with_parent=True)
            self._channel = await IdentityChannel.open(ours, self._news)
            reason = await self._serve(self._channel)
            return reason
        finally:
            if self._channel is not None:
                self._channel.close()
                self._channel = None
            ours.close()
            self._lost(reason or "ended")

    async def _serve(self, channel: IdentityChannel) -> str:
        assert self._process is not None
        ended = asyncio.get_running_loop().create_task(self._process.wait())
        try:
            if error := await self.configure():
                return f"its configuration: {error}"
            self._set(True, "")
            await self._ready()
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
