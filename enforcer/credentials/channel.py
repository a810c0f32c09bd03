"""Edge: the credentials process' end of the agent's channel, frames of agent.contract.vault."""
from __future__ import annotations

import logging

from agent.contract import vault as messages
from enforcer.credentials.vaults import Vaults
from enforcer.frames import Frames, connect

LOG = logging.getLogger("weir.credentials")


class Channel(Frames):
    contract = messages

    def __init__(self) -> None:
        super().__init__()
        self.vaults = Vaults()

    def take(self, message: messages.FromAgent) -> None:
        if isinstance(message, messages.Ping):
            self.send(messages.Pong(message.number))
        elif isinstance(message, messages.Configure):
            self.send(messages.Done(message.number, self.vaults.configure(message.servers)))
        elif isinstance(message, messages.Revoke):
            self.vaults.revoke(message.lease)
            self.send(messages.Done(message.number))
        else:
            self.spawn(self._fetch(message))

    async def _fetch(self, message: messages.Fetch) -> None:
        try:
            answer = await self.vaults.fetch(message)
        except Exception as wrong:    # its text may hold what a server said
            LOG.error("a question of the agent failed: %s", type(wrong).__name__)
            answer = messages.Fetched(message.number, "the credentials process could not do it")
        self.send(answer)


async def open_channel(descriptor: int) -> Channel:
    channel = Channel()
    await connect(channel, descriptor)
    return channel
