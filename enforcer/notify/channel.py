"""Edge: the notify process' end of the agent's channel, frames of agent.contract.notify."""
from __future__ import annotations

import asyncio
import logging

from agent.contract import notify as messages
from enforcer.frames import Frames, connect
from enforcer.notify.desk import Desk

LOG = logging.getLogger("weir.notify")


class Channel(Frames):
    contract = messages

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk(self.send)
        self._configuring = asyncio.Lock()

    def take(self, message: messages.FromAgent) -> None:
        if isinstance(message, messages.Ping):
            self.send(messages.Pong(message.number))
        elif isinstance(message, messages.Put):
            self.desk.put(message.notices)
            self.send(messages.Done(message.number))
        elif isinstance(message, messages.Answered):
            self.desk.answered(message)
        elif isinstance(message, messages.Configure):
            self.spawn(self._configure(message))
        elif isinstance(message, messages.Try):
            self.spawn(self._try(message))
        else:
            self.spawn(self._request(message))

    async def _configure(self, message: messages.Configure) -> None:
        async with self._configuring:
            self.send(messages.Done(message.number, (await self.desk.configure(message))[:1000]))

    async def _try(self, message: messages.Try) -> None:
        self.send(await self.desk.tried(message.number))

    async def _request(self, message: messages.SlackRequest) -> None:
        try:
            answer = await self.desk.request(message)
        except Exception as wrong:    # its text may hold what was posted
            LOG.error("a request of Slack's failed: %s", type(wrong).__name__)
            answer = messages.SlackAnswer(message.number, 500)
        self.send(answer)


async def open_channel(descriptor: int) -> Channel:
    channel = Channel()
    await connect(channel, descriptor)
    return channel
