"""The credentials process as the agent's child (agent/contract/vault.py): what Vault says is parsed there."""
from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from agent.channel import Channel
from agent.contract import vault as messages
from agent.people.identity_process import IdentityProcess, News
from agent.services import Tell


class VaultChannel(Channel):
    """It says nothing unasked."""

    peer = "the credentials process"
    limit = messages.LIMIT
    unread = 4 * messages.LIMIT

    def _parse(self, body: bytes) -> messages.FromVault:
        return messages.parse_from_vault(body)

    def _render(self, message: messages.Message) -> bytes:
        return messages.render_frame(message)


class VaultProcess(IdentityProcess):
    name = "vaults"
    module = "enforcer.credentials.app"
    kind = VaultChannel

    def __init__(
        self, user: str, cgroup: Path, tell: Tell, changed: Callable[[], None],
        configure: Callable[[int], messages.Message], ready: Callable[[], Awaitable[None]],
        lost: Callable[[str], None],
    ) -> None:
        super().__init__(user, cgroup, tell, changed, configure, _nothing, ready, lost)

    async def _open(self, ours: socket.socket) -> Channel:
        return await VaultChannel.connect(ours)


def _nothing(news: News) -> None:
    raise ValueError("it says nothing unasked")
