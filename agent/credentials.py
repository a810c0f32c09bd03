"""The credential for a login: from files and the unit's credentials, or from the row's helper."""
from __future__ import annotations

import asyncio
from collections.abc import Hashable
from pathlib import Path

from agent import rooted
from agent.config import Config, TargetEntry
from agent.contract.credential import Credential
from agent.credential_table import CredentialRow
from agent.helper import Helper
from agent.kept import Kept
from agent.secrets import SecretError, choose_row, read_row


class Credentials:
    """`cgroup`: where helpers run, a directory that it makes."""

    def __init__(self, cgroup: Path) -> None:
        self._kept, self._helper = Kept(), Helper(cgroup)
        self._config: Config | None = None

    async def find(
        self, config: Config, target: TargetEntry, database: str, role: str, groups: tuple[str, ...],
    ) -> Credential:
        """Raises SecretError."""
        self._take(config)
        row = choose_row(target, database, role, groups)
        if not row.exec:
            return await asyncio.to_thread(read_row, target, row)
        try:
            return await self._by_helper(target, row)
        except SecretError as reason:
            raise SecretError(f"credential[{target.credentials.index(row) + 1}] of target {target.name}: {reason}"
                              ) from None

    async def _by_helper(self, target: TargetEntry, row: CredentialRow) -> Credential:
        assert row.exec
        try:
            program, mark = await asyncio.to_thread(rooted.program, row.exec[0])
        except (rooted.NotRooted, OSError) as reason:
            raise SecretError(f"its helper {row.exec[0]}: {getattr(reason, 'strerror', None) or reason}") from None
        return await self._kept.get((target.name, row), lambda: self._helper.fetch(target.name, program, row), mark)

    def _take(self, config: Config) -> None:
        """Secrets of rows that are gone are forgotten."""
        if config is self._config:
            return
        self._config = config
        rows: set[Hashable] = {(target.name, row) for target in config.targets for row in target.credentials}
        self._kept.forget(rows.__contains__)

    async def close(self) -> None:
        await self._kept.close()
