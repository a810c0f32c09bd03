"""The metrics process as the agent's child, and the agent's end of its channel (agent/contract/metrics.py).

It parses what whoever asks sends, and may be broken by it: what it asks is bounded, and what is no message ends it.
"""
from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import get_args

import msgspec

from agent.beside import Listening
from agent.channel import AnsweringChannel
from agent.contract import metrics as messages
from agent.services import Tell

Answer = Callable[[messages.Question], Awaitable[msgspec.Struct]]


class MetricsChannel(AnsweringChannel):
    """What the metrics process may ask is in the contract; all of the answers may be read by whoever is let in."""

    peer = "the metrics process"
    limit = messages.ASKED
    unread = 2 * messages.LIMIT
    at_once = 64
    most = 64 * messages.ASKED
    questions = get_args(messages.Question)

    def _parse(self, body: bytes) -> messages.FromMetrics:
        return messages.parse_from_metrics(body)

    def _render(self, message: msgspec.Struct) -> bytes:
        return messages.render_frame(message)


class MetricsProcess(Listening[MetricsChannel]):
    name, module, contract, peer = "metrics", "enforcer.metrics.app", messages, MetricsChannel.peer

    def __init__(
        self, user: str, cgroup: Path, tell: Tell, changed: Callable[[], None],
        listen: Callable[[], list[socket.socket]], answer: Answer,
    ) -> None:
        super().__init__(user, cgroup, tell, changed, listen, messages.Configure)
        self._answer = answer

    async def _open(self, ours: socket.socket) -> MetricsChannel:
        return await MetricsChannel.connect(ours, self._answer)
