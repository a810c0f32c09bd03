"""The identity process as the agent's child, and the agent's end of its channel (agent/contract/identity.py).

It parses what providers say, and may be broken by it: what it sends is bounded, and what is no message, or no answer to
what was asked, ends it.  The credentials process (agent/credential/vault_process.py) is another of its kind.
"""
from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from agent.channel import Channel, ChannelError
from agent.contract import identity as messages
from agent.processes import python_module
from agent.services import DRAIN, HANG, PING_EVERY, Service, Tell

LOG = logging.getLogger("weir.identity")

ASK: Final = 40.0                     # seconds: configuration, keys and token, each of them another exchange
News = messages.Verified | messages.Ended


class IdentityChannel(Channel):
    """`news` takes what comes unasked; where it raises ValueError the channel is closed."""

    peer = "the identity process"
    limit = messages.LIMIT
    unread = 4 * messages.LIMIT
    patience = ASK

    def __init__(self, news: Callable[[News], None]) -> None:
        super().__init__()
        self._news = news

    @classmethod
    async def open(cls, sock: socket.socket, news: Callable[[News], None]) -> IdentityChannel:
        return await cls.connect(sock, news)

    def _parse(self, body: bytes) -> messages.FromIdentity:
        return messages.parse_from_identity(body)

    def _render(self, message: messages.Message) -> bytes:
        return messages.render_frame(message)

    def _received(self, message: messages.FromIdentity, size: int) -> None:
        if isinstance(message, News):
            self._news(message)
        else:
            self._settle(message)


class IdentityProcess(Service):
    """`ready` is awaited when it is configured, `lost` is called when it is no more."""

    name = "identities"
    module = "enforcer.identity.app"
    kind: type[Channel] = IdentityChannel

    def __init__(
        self, user: str, cgroup: Path, tell: Tell, changed: Callable[[], None],
        configure: Callable[[int], messages.Message], news: Callable[[News], None],
        ready: Callable[[], Awaitable[None]], lost: Callable[[str], None],
    ) -> None:
        super().__init__(user, cgroup, tell, changed)
        self._configure, self._news, self._ready, self._lost = configure, news, ready, lost
        self._channel: Channel | None = None

    @property
    def channel(self) -> Channel:
        """Raises ChannelError where it is not running."""
        if self._channel is None:
            raise ChannelError(f"{self.kind.peer} is not running")
        return self._channel

    async def configure(self) -> str:
        """What is wrong, or empty.  Raises ChannelError."""
        return (await self.channel.ask(self._configure, messages.Done)).error

    async def _life(self) -> str:
        ours, theirs = socket.socketpair()
        reason = ""
        try:
            with theirs:
                command = [*python_module(self.module), "--channel", str(theirs.fileno())]
                await self._spawn(command, (theirs.fileno(),), dies_with_parent=True)
            self._channel = await self._open(ours)
            reason = await self._serve(self._channel)
            return reason
        finally:
            if self._channel is not None:
                self._channel.close()
                self._channel = None
            ours.close()
            self._lost(reason or "ended")

    async def _open(self, ours: socket.socket) -> Channel:
        return await IdentityChannel.open(ours, self._news)

    async def _serve(self, channel: Channel) -> str:
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
