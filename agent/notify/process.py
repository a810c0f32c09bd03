"""The notify process as the agent's child, and the agent's end of its channel (agent/contract/notify.py).

It parses what Slack and webhooks' receivers say, and may be broken by it: what it sends is bounded, and what is no
message, or no answer to what was asked, ends it.
"""
from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from agent.beside import Beside
from agent.channel import Channel
from agent.contract import notify as messages
from agent.services import Tell

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


class NotifyProcess(Beside[NotifyChannel]):
    """`ready` is awaited when it is configured.  What is wrong with that does not end it."""

    name, module, contract, peer = "notify", "enforcer.notify.app", messages, NotifyChannel.peer

    def __init__(
        self, user: str, cgroup: Path, tell: Tell, changed: Callable[[], None],
        configure: Callable[[int], messages.Configure], news: Callable[[News], None],
        ready: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(user, cgroup, tell, changed, configure)
        self._news, self._ready = news, ready

    async def _open(self, ours: socket.socket) -> NotifyChannel:
        return await NotifyChannel.open(ours, self._news)

    def _configured(self, error: str) -> str:
        if error:
            LOG.error("what is told elsewhere: %s", error)
        return ""

    async def _began(self) -> None:
        await self._ready()
