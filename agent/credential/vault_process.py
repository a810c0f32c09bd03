"""The credentials process as the agent's child (agent/contract/vault.py): what Vault says is parsed there."""
from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from agent.beside import Beside
from agent.channel import Channel
from agent.contract import vault as messages
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


class VaultProcess(Beside[VaultChannel]):
    """`ready` is awaited when it is configured, `lost` is called when it is no more."""

    name, module, contract, peer = "vaults", "enforcer.credentials.app", messages, VaultChannel.peer

    def __init__(
        self, user: str, cgroup: Path, tell: Tell, changed: Callable[[], None],
        configure: Callable[[int], messages.Message], ready: Callable[[], Awaitable[None]],
        lost: Callable[[str], None],
    ) -> None:
        super().__init__(user, cgroup, tell, changed, configure)
        self._ready, self._lost = ready, lost

    async def _open(self, ours: socket.socket) -> VaultChannel:
        return await VaultChannel.connect(ours)

    async def _began(self) -> None:
        await self._ready()

    def _over(self, reason: str) -> None:
        self._lost(reason)
