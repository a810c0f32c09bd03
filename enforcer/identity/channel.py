"""Edge: the identity process' end of the agent's channel, frames of agent.contract.identity."""
from __future__ import annotations

import logging
from typing import Any

from agent.contract import identity as messages
from enforcer.frames import Frames, connect
from enforcer.identity.sessions import Sessions

LOG = logging.getLogger("weir.identity")
Work = messages.Begin | messages.Finish | messages.Logout | messages.SamlLogout | messages.Leave


class Channel(Frames):
    contract = messages

    def __init__(self) -> None:
        super().__init__()
        self._sessions = Sessions(self.send)

    def take(self, message: messages.FromAgent) -> None:
        if isinstance(message, messages.Ping):
            self.send(messages.Pong(message.number))
        elif isinstance(message, messages.Configure):
            wrong = self._sessions.configure(message.providers, message.saml)
            self.send(messages.Done(message.number, wrong[:1000]))
        elif isinstance(message, messages.Forget):
            self.send(self._sessions.forget(message))
        else:
            self.spawn(self._answer(message))

    async def _answer(self, message: Work) -> None:
        work: Any = {messages.Begin: self._sessions.begin, messages.Finish: self._sessions.finish,
                     messages.Logout: self._sessions.logout, messages.SamlLogout: self._sessions.saml_logout,
                     messages.Leave: self._sessions.leave}[type(message)]
        try:
            answer = await work(message)
        except Exception as wrong:    # its text may hold what a provider said
            LOG.error("a question of the agent failed: %s", type(wrong).__name__)
            made: Any = {messages.Begin: messages.Begun, messages.SamlLogout: messages.LoggedOut,
                         messages.Leave: messages.LoggedOut}.get(type(message), messages.Done)
            answer = made(message.number, "the identity process could not do it")
        self.send(answer)


async def open_channel(descriptor: int) -> Channel:
    channel = Channel()
    await connect(channel, descriptor)
    return channel
