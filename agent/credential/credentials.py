"""The credential for a login: from files and the unit's credentials, a helper, Vault, by Weir's own authority."""
from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Mapping
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric import ed25519

from agent import rooted
from agent.config import Config
from agent.contract import vault as told
from agent.contract.credential import Credential
from agent.credential.client_authority import LIFE, STEM, AuthorityError, client_authority, issue
from agent.credential.helper import NONE, Helper, Parse, parse_output, parse_ssh
from agent.credential.kept import Fetched, Kept
from agent.credential.secrets import SecretError, choose_row, read_row
from agent.credential.vaults import VaultDesk, render_source
from agent.kubernetes.exec_credential import VARIABLES, parse_exec
from agent.kubernetes.login import TokenWrong
from agent.kubernetes.login import checked as checked_bearer
from agent.kubernetes.refreshing import refreshed
from agent.settings.credential_table import KUBERNETES, SSH, CredentialRow
from agent.settings.target_table import TargetEntry
from agent.ssh.keys import KeyWrong, render_private, render_public
from agent.ssh.login import checked
from agent.ssh.user_authority import is_account, issue_login, login_name, user_authority


class Credentials:
    """`cgroup`: where helpers run, a directory that it makes."""

    def __init__(self, cgroup: Path, vaults: VaultDesk | None = None) -> None:
        self._kept, self._helper, self._vaults = Kept(), Helper(cgroup), vaults
        self._config: Config | None = None

    async def find(
        self, config: Config, target: TargetEntry, database: str, role: str, groups: tuple[str, ...], who: str = "",
    ) -> Credential:
        """`who` is what an SSH server logs of the login.  Raises SecretError."""
        self._take(config)
        row = choose_row(target, database, role, groups)
        try:
            if target.protocol == SSH:
                return await self._by_ssh(config, target, row, role, who)
            if target.protocol == KUBERNETES:
                return await self._by_kubernetes(config, target, row)
            if row.exec:
                return await self._by_helper(target, row)
            if row.vault:
                return await self._by_vault(target, row)
            read = await asyncio.to_thread(read_row, row)
            return await self._issued(config, target, row, read) if row.certificate else read
        except SecretError as reason:
            raise SecretError(f"credential[{target.credentials.index(row) + 1}] of target {target.name}: {reason}"
                              ) from None

    async def _by_ssh(
        self, config: Config, target: TargetEntry, row: CredentialRow, account: str, who: str,
    ) -> Credential:
        """`account` is what the crew asks for, and counts where nothing else says one."""
        if row.exec:
            found = await self._by_helper(target, row, parse_ssh)
        elif row.ssh_role:
            found = await self._signed(target, row, row.user or account)
        elif row.vault:
            # Whatever account is asked for, it is the same secret.
            found = await self._by_vault(target, _unnamed(row))
        else:
            found = await asyncio.to_thread(read_row, row)
        found = msgspec.structs.replace(found, user=found.user or account)
        if row.certificate:
            return await asyncio.to_thread(_sign, config.state, target.name, found, who)
        try:
            return await asyncio.to_thread(checked, found, time.time())
        except KeyWrong as reason:
            raise SecretError(str(reason)) from None

    async def _signed(self, target: TargetEntry, row: CredentialRow, account: str) -> Credential:
        """By Vault, a key of this login alone."""
        vaults = self._vaults
        if vaults is None or "," in account or not is_account(account):
            raise SecretError("Vault signs for no such account")
        key = ed25519.Ed25519PrivateKey.generate()
        source = told.Signed(row.mount or "ssh", row.ssh_role or "", render_public(key.public_key()), account)

        async def fetch() -> Fetched:
            return Fetched(await vaults.fetch(target.name, row, source))

        made = await self._kept.get((target.name, row, source.public), fetch)
        return msgspec.structs.replace(made, key=render_private(key))

    async def _by_kubernetes(self, config: Config, target: TargetEntry, row: CredentialRow) -> Credential:
        if row.exec:
            found = await self._by_helper(target, row, parse_exec, VARIABLES)
        elif row.vault:
            found = await self._by_vault(target, _unnamed(row))
        elif row.issuer:
            user = config.runtime.vault_user
            return await self._kept.get((target.name, row), lambda: refreshed(self._helper, user, row))
        else:
            found = await asyncio.to_thread(read_row, row)
        if row.certificate:
            return await self._issued(config, target, row, found)
        try:
            return await asyncio.to_thread(checked_bearer, found, time.time())
        except TokenWrong as reason:
            raise SecretError(str(reason)) from None

    async def _by_helper(
        self, target: TargetEntry, row: CredentialRow, parse: Parse = parse_output, variables: Mapping[str, str] = NONE,
    ) -> Credential:
        assert row.exec
        try:
            program, mark = await asyncio.to_thread(rooted.program, row.exec[0])
        except (rooted.NotRooted, OSError) as reason:
            raise SecretError(f"its helper {row.exec[0]}: {getattr(reason, 'strerror', None) or reason}") from None
        return await self._kept.get(
            (target.name, row),
            lambda: self._helper.fetch(target.name, program, row, parse=parse, variables=variables), mark)

    async def _by_vault(self, target: TargetEntry, row: CredentialRow) -> Credential:
        """The agent keeps none of it: those that wait at the same moment share it."""
        vaults = self._vaults
        if vaults is None:
            raise SecretError("Vault is not spoken with here")

        async def fetch() -> Fetched:
            return Fetched(await vaults.fetch(target.name, row, render_source(row, target.protocol == KUBERNETES)))

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


def _unnamed(row: CredentialRow) -> CredentialRow:
    """The user may be said elsewhere: Vault is asked for one only where the row names its field."""
    return row if row.user or row.user_field else msgspec.structs.replace(row, user_field="")


def _mark(file: Path) -> tuple[int, int] | None:
    """What changes where the authority does."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _sign(state: Path, target: str, found: Credential, who: str) -> Credential:
    """For this login alone.  Raises SecretError."""
    try:
        certificate, key, end = issue_login(user_authority(state, target), found.user, login_name(who))
    except (AuthorityError, ValueError) as reason:
        raise SecretError(f"no certificate can be signed: {reason}") from None
    except OSError as reason:
        raise SecretError(f"no certificate can be signed: {reason.strerror}") from None
    return msgspec.structs.replace(found, certificate=certificate, key=key, expires=end)


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
