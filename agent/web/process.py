"""The web process as the agent's child, and the agent's end of its channel (agent/contract/web.py).

It parses what browsers send, and may be broken by it: what it asks is bounded, and what is no message ends it.
"""
from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import get_args

from agent.channel import AnsweringChannel, ChannelError
from agent.contract import web as messages
from agent.network.doors import close_all
from agent.processes import python_module
from agent.services import DRAIN, HANG, PING_EVERY, Service, Tell

Answer = Callable[[messages.Question], Awaitable[messages.Message]]


class WebChannel(AnsweringChannel):
    """What the web process may ask is in the contract; nothing of it counts without somebody's secret."""

    peer = "the web process"
    limit = messages.ASKED
    unread = 2 * messages.LIMIT
    at_once = 256
    most = 8 << 20
    questions = get_args(messages.Question)

    @classmethod
    async def open(cls, sock: socket.socket, answer: Answer) -> WebChannel:
        return await cls.connect(sock, answer)

    def send(self, message: messages.Message) -> None:
        """What it has not asked for.  Raises ValueError: it does not fit."""
        self._send(message)

    def _parse(self, body: bytes) -> messages.FromWeb:
        return messages.parse_from_web(body)

    def _render(self, message: messages.Message) -> bytes:
        return messages.render_frame(message)


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
