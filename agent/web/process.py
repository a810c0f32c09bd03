"""The web process as the agent's child, and the agent's end of its channel (agent/contract/web.py).

It parses what browsers send, and may be broken by it: what it asks is bounded, and what is no message ends it.
"""
from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import get_args

from agent.beside import Listening
from agent.channel import AnsweringChannel
from agent.contract import web as messages
from agent.services import Tell

Answer = Callable[[messages.Question], Awaitable[messages.Message]]


class WebChannel(AnsweringChannel):
    """What the web process may ask is in the contract; nothing of it counts without somebody's secret."""

    peer = "the web process"
    limit = messages.ASKED
    unread = 2 * messages.LIMIT
    at_once = 256
    most = 8 << 20
    questions = get_args(messages.Question)

    def send(self, message: messages.Message) -> None:
        """What it has not asked for.  Raises ValueError: it does not fit."""
        self._send(message)

    def _parse(self, body: bytes) -> messages.FromWeb:
        return messages.parse_from_web(body)

    def _render(self, message: messages.Message) -> bytes:
        return messages.render_frame(message)


class WebProcess(Listening[WebChannel]):
    """`lost` is called when it is no more."""

    name, module, contract, peer = "web", "enforcer.web.app", messages, WebChannel.peer

    def __init__(
        self, user: str, cgroup: Path, tell: Tell, changed: Callable[[], None],
        listen: Callable[[], list[socket.socket]], configure: Callable[[int], messages.Configure], answer: Answer,
        lost: Callable[[], None],
    ) -> None:
        super().__init__(user, cgroup, tell, changed, listen, configure)
        self._answer, self._lost = answer, lost

    async def _open(self, ours: socket.socket) -> WebChannel:
        return await WebChannel.connect(ours, self._answer)

    def _over(self, reason: str) -> None:
        self._lost()
