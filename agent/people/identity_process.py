"""The identity process as the agent's child, and the agent's end of its channel (agent/contract/identity.py).

It parses what providers say, and may be broken by it: what it sends is bounded, and what is no message, or no answer to
what was asked, ends it.
"""
from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from agent.beside import Beside
from agent.channel import Channel
from agent.contract import identity as messages
from agent.services import Tell

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


class IdentityProcess(Beside[IdentityChannel]):
    """`ready` is awaited when it is configured, `lost` is called when it is no more."""

    name, module, contract, peer = "identities", "enforcer.identity.app", messages, IdentityChannel.peer

    def __init__(
        self, user: str, cgroup: Path, tell: Tell, changed: Callable[[], None],
        configure: Callable[[int], messages.Message], news: Callable[[News], None],
        ready: Callable[[], Awaitable[None]], lost: Callable[[str], None],
    ) -> None:
        super().__init__(user, cgroup, tell, changed, configure)
        self._news, self._ready, self._lost = news, ready, lost

    async def _open(self, ours: socket.socket) -> IdentityChannel:
        return await IdentityChannel.open(ours, self._news)

    async def _began(self) -> None:
        await self._ready()

    def _over(self, reason: str) -> None:
        self._lost(reason)
