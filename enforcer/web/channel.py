"""Edge: the web process' end of the agent's channel, frames of agent.contract.web."""
from __future__ import annotations

from collections.abc import Callable

from agent.contract import web as messages
from enforcer.frames import Asking, connect
from enforcer.frames import NoAnswer as NoAnswer

News = messages.Changed | messages.Over


class Channel(Asking):
    """`configure` puts a Configure in force and gives what is wrong with it, or ""; `news` takes what comes unasked.
    `closed` is set when the agent is gone."""

    contract = messages

    def __init__(self, configure: Callable[[messages.Configure], str], news: Callable[[News], None]) -> None:
        super().__init__()
        self._configure, self._news = configure, news

    def take(self, message: messages.FromAgent) -> None:
        if isinstance(message, messages.Ping):
            self.send(messages.Pong(message.number))
        elif isinstance(message, messages.Configure):
            self.send(messages.Done(message.number, self._configure(message)[:1000]))
        elif isinstance(message, News):
            self._news(message)
        else:
            self.settle(message)


async def open_channel(descriptor: int, channel: Channel) -> None:
    await connect(channel, descriptor)
