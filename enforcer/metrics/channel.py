"""Edge: the metrics process' end of the agent's channel, frames of agent.contract.metrics."""
from __future__ import annotations

from collections.abc import Callable

from agent.contract import metrics as messages
from enforcer.frames import Asking


class Channel(Asking):
    """`configured` is called with each Configure.  `closed` is set when the agent is gone."""

    contract = messages

    def __init__(self, configured: Callable[[], None]) -> None:
        super().__init__()
        self._configured = configured

    def take(self, message: messages.FromAgent) -> None:
        if isinstance(message, messages.Ping):
            self.send(messages.Pong(message.number))
        elif isinstance(message, messages.Configure):
            self._configured()
            self.send(messages.Done(message.number))
        else:
            self.settle(message)
