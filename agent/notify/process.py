"""The notify process as the agent's child, and the agent's end of its channel (agent/contract/notify.py).

It parses what Slack and webhooks' receivers say, and may be broken by it: what it sends is bounded, and what is no
message, or no answer to what was asked, ends it.
"""
from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from agent.channel import Channel, ChannelError
from agent.contract import notify as messages
from agent.processes import python_module
from agent.services import DRAIN, HANG, PING_EVERY, Service, Tell

LOG = logging.getLogger("weir.notify")

ASK: Final = 20.0                     # seconds
News = messages.Answer | messages.Told | messages.GivenUp | messages.Trouble


class NotifyChannel(Channel):
    """`news` takes what comes unasked; where it raises ValueError the channel is closed."""

    peer = "the notify process"
    limit = messages.LIMIT
    unread = 8 * messages.LIMIT
    patience = ASK

    def __init__(self, news: Callable[[News], None]) -> None:
        super().__init__()
        self._news = news

    @classmethod
    async def open(cls, sock: socket.socket, news: Callable[[News], None]) -> NotifyChannel:
        return await cls.connect(sock, news)

    def send(self, message: messages.Message) -> None:
        """Raises ValueError: it does not fit."""
        self._send(message)

    def _parse(self, body: bytes) -> messages.FromNotify:
        return messages.parse_from_notify(body)

    def _render(self, message: messages.Message) -> bytes:
        return messages.render_frame(message)

    def _received(self, message: messages.FromNotify, size: int) -> None:
        if isinstance(message, News):
            self._news(message)
        else:
            self._settle(message)


class NotifyProcess(Service):
    """`ready` is awaited when it is configured."""

    name = "notify"

    def __init__(
        self, user: str, cgroup: Path, tell: Tell, changed: Callable[[], None],
        configure: Callable[[int], messages.Configure], news: Callable[[News], None],
        ready: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(user, cgroup, tell, changed)
        self._configure, self._news, self._ready = configure, news, ready
        self._channel: NotifyChannel | None = None

    @property
    def channel(self) -> NotifyChannel:
        """Raises ChannelError where it is not running."""
        if self._channel is None:
            raise ChannelError("the notify process is not running")
        return self._channel

    async def configure(self) -> str:
        """What is wrong, or empty.  Raises ChannelError."""
        return (await self.channel.ask(self._configure, messages.Done)).error

    async def _life(self) -> str:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                command = [*python_module("enforcer.notify.app"), "--channel", str(theirs.fileno())]
                await self._spawn(command, (theirs.fileno(),), dies_with_parent=True)
            self._channel = await NotifyChannel.open(ours, self._news)
            return await self._serve(self._channel)
        finally:
            if self._channel is not None:
                self._channel.close()
                self._channel = None
            ours.close()

    async def _serve(self, channel: NotifyChannel) -> str:
        assert self._process is not None
        ended = asyncio.get_running_loop().create_task(self._process.wait())
        try:
            if error := await self.configure():
                LOG.error("what is told elsewhere: %s", error)
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
