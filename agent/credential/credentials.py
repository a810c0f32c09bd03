"""The credential for a login: from files and the unit's credentials, a helper, Vault, by Weir's own authority."""
from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable
from pathlib import Path

import msgspec

from agent import rooted
from agent.config import Config
from agent.settings.target_table import TargetEntry
from agent.contract.credential import Credential
from agent.credential.client_authority import LIFE, STEM, AuthorityError, client_authority, issue
from agent.credential.helper import Helper
from agent.credential.kept import Fetched, Kept
from agent.credential.secrets import SecretError, choose_row, read_row
from agent.credential.vaults import VaultDesk
from agent.settings.credential_table import CredentialRow


class Credentials:
    """`cgroup`: where helpers run, a directory that it makes."""

    def __init__(self, cgroup: Path, vaults: VaultDesk | None = None) -> None:
        self._kept, self._helper, self._vaults = Kept(), Helper(cgroup), vaults
        self._config: Config | None = None

    async def find(
        self, config: Config, target: TargetEntry, database: str, role: str, groups: tuple[str, ...],
    ) -> Credential:
        """Raises SecretError."""
        self._take(config)
        row = choose_row(target, database, role, groups)
        try:
            if row.exec:
                return await self._by_helper(target, row)
            if row.vault:
                return await self._by_vault(target, row)
            read = await asyncio.to_thread(read_row, row)
            return await self._issued(config, target, row, read) if row.certificate else read
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

    async def _by_vault(self, target: TargetEntry, row: CredentialRow) -> Credential:
        """The agent keeps none of it: those that wait at the same moment share it."""
        vaults = self._vaults
        if vaults is None:
            raise SecretError("Vault is not spoken with here")

        async def fetch() -> Fetched:
            return Fetched(await vaults.fetch(target.name, row))

        found = await self._kept.get((target.name, row), fetch)
        vaults.used(found)
        return found

    async def _issued(
        self, config: Config, target: TargetEntry, row: CredentialRow, read: Credential,
    ) -> Credential:
        """`read` has the rest.  One is used for half of its life, so that logins at a time share it."""
        mark = await asyncio.to_thread(_mark, config.state / "ca" / target.name / f"{STEM}.pem")
        made = await self._kept.get(
            (target.name, row), lambda: asyncio.to_thread(_issue, config.state, target.name, read.user), mark)
        return msgspec.structs.replace(made, password=read.password)

    def _take(self, config: Config) -> None:
        """Secrets of rows that are gone are forgotten."""
        if config is self._config:
            return
        self._config = config
        rows: set[Hashable] = {(target.name, row) for target in config.targets for row in target.credentials}
        self._kept.forget(rows.__contains__)

    async def close(self) -> None:
        await self._kept.close()
        if self._vaults is not None:
            await self._vaults.close()


def _mark(file: Path) -> tuple[int, int] | None:
    """What changes where the authority does."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _issue(state: Path, target: str, user: str) -> Fetched:
    """Raises SecretError."""
    try:
        certificate, key, end = issue(client_authority(state, target), user)
    except (AuthorityError, ValueError) as reason:
        raise SecretError(f"no client certificate can be issued: {reason}") from None
    except OSError as reason:
        raise SecretError(f"no client certificate can be issued: {reason.strerror}") from None
    until = time.monotonic() + LIFE.total_seconds() / 2
    return Fetched(Credential(user, "", certificate, key, int(end.timestamp())), until)
