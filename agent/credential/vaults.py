"""Credentials that Vault gives: the credentials process asks for them, sessions that use their leases are counted here.

The agent reads the files that say there who Weir is, at use, and hands them on unread.  A lease is given back when no
session has used it for a moment, and with the agent's end; what of it a killed process leaves ends by Vault's clock.
"""
from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from agent.channel import ChannelError
from agent.config import Config
from agent.contract import vault as told
from agent.contract.credential import Credential
from agent.credential.secrets import PEM_LIMIT, SecretError, read_secret
from agent.credential.vault_process import VaultProcess
from agent.services import Tell
from agent.settings.credential_table import PASSWORD, TOKEN, USERNAME, CredentialRow
from agent.settings.vault_table import VaultEntry

LOG = logging.getLogger("weir.credentials")

BESIDE: Final = "vault"               # its cgroup
LINGER: Final = 2.0                   # seconds that a lease is kept for another session
ASK: Final = 30.0                     # seconds; the process itself gives up before
START: Final = 5.0                    # seconds that a login waits for a process that is being started
SHOWN: Final = 400                    # characters of a reason


class Leases:
    """By handle, which the enforcer knows, how many sessions use a lease.  Handles are never used again."""

    def __init__(self) -> None:
        self._handles = itertools.count(1)
        self._of: dict[int, int] = {}         # lease, as its process numbers it -> handle
        self._uses: dict[int, int] = {}

    def handle(self, lease: int) -> int:
        """Of a lease that was just given."""
        if lease not in self._of:
            self._of[lease] = next(self._handles)
            self._uses[self._of[lease]] = 0
        return self._of[lease]

    def used(self, handle: int) -> None:
        if handle in self._uses:
            self._uses[handle] += 1

    def unused(self, handle: int) -> bool:
        """Whether nobody uses it any more."""
        if self._uses.get(handle, 0) <= 0:
            return False
        self._uses[handle] -= 1
        return self._uses[handle] == 0

    def idle(self, handle: int) -> bool:
        return self._uses.get(handle) == 0

    def end(self, handle: int) -> int:
        """Its lease."""
        del self._uses[handle]
        [lease] = [lease for lease, one in self._of.items() if one == handle]
        del self._of[lease]
        return lease

    def nobody(self) -> tuple[int, ...]:
        """Every session is gone: all handles."""
        self._uses = dict.fromkeys(self._uses, 0)
        return tuple(self._uses)

    def clear(self) -> None:
        self._of.clear()
        self._uses.clear()


class VaultDesk:
    """`config` is looked at anew for each question."""

    def __init__(self, cgroup: Path, config: Callable[[], Config], tell: Tell, changed: Callable[[], None]) -> None:
        self._cgroup, self._config, self._tell, self._changed = cgroup, config, tell, changed
        self.process: VaultProcess | None = None
        self._up = asyncio.Event()
        self.leases = Leases()
        self._said: dict[int, dict[str, object]] = {}          # of each handle, for the recording
        self._fetching = 0
        self._failing: dict[tuple[str, CredentialRow], str] = {}       # what the last fetch said, by target and row
        self._tasks: set[asyncio.Task[None]] = set()

    def configured(self) -> None:
        """At the start, and after each reload."""
        config = self._config()
        self._failing.clear()
        if self.process is None and config.vaults:
            self.process = VaultProcess(
                config.runtime.vault_user, self._cgroup, self._tell, self._changed, self._render, self._ready,
                self._lost)
            self.process.start()
        elif self.process is not None:
            self._spawn(self._reconfigure(self.process))

    async def _reconfigure(self, process: VaultProcess) -> None:
        """Where no [[vault]] is left it runs until its leases are given back, and then idles."""
        try:
            if error := await process.configure():
                LOG.error("vaults: %s", _shown(error))
        except ChannelError:
            pass                      # the next one is configured with what is right then

    def _render(self, number: int) -> told.Configure:
        config = self._config()
        return told.Configure(number, tuple(
            render_server(one, config.vault_roots.get(one.name, "")) for one in config.vaults))

    async def _ready(self) -> None:
        self._up.set()

    def _lost(self, reason: str) -> None:
        """It gave its leases back, or Vault ends them: what sessions have goes on as long as that lasts."""
        self._up.clear()
        for handle in self.leases.nobody():
            self._ended(handle, "the credentials process ended")
        self.leases.clear()

    # what logins ask

    async def fetch(self, target: str, row: CredentialRow, source: told.Source | None = None) -> Credential:
        """`source`: where it is not the row's alone that says it.  Raises SecretError."""
        entry = next((one for one in self._config().vaults if one.name == row.vault), None)
        if entry is None or self.process is None:
            raise SecretError(f"there is no vault {row.vault}")
        self._fetching += 1
        try:
            material = await asyncio.to_thread(read_material, entry)
            with suppress(TimeoutError):
                async with asyncio.timeout(START):
                    await self._up.wait()
            found = await self.process.channel.ask(
                lambda number: told.Fetch(number, entry.name, material, source or render_source(row)),
                told.Fetched, ASK)
            given = self._taken(target, row, found)
        except (SecretError, ChannelError) as reason:
            self._failing[target, row] = str(reason)
            raise SecretError(str(reason)) from None
        else:
            self._failing.pop((target, row), None)
            return given
        finally:
            self._fetching -= 1

    def _taken(self, target: str, row: CredentialRow, found: told.Fetched) -> Credential:
        if found.error:
            raise SecretError(_shown(found.error))
        if not (found.user or row.user_field == "") or not (
                found.password or found.certificate or found.key or found.token):
            raise SecretError("the credentials process gave none")
        handle = self.leases.handle(found.lease) if found.lease else 0
        if handle and handle not in self._said:
            self._said[handle] = {"vault": row.vault or "", "role": row.database_role or "", "target": target,
                                  "user": found.user}
            self._tell("lease.opened", self._said[handle])
            self._later(handle)       # whoever waited for it may be gone
        return Credential(found.user, found.password, found.certificate, found.key, found.expires, handle, found.token)

    # who uses it

    def used(self, credential: Credential) -> None:
        """The enforcer is given it."""
        self.leases.used(credential.lease)

    def unused(self, handle: int) -> None:
        """As the enforcer says, which may be broken: then it harms itself."""
        if self.leases.unused(handle):
            self._later(handle)

    def nobody(self) -> None:
        """The enforcer is gone, and every session with it."""
        for handle in self.leases.nobody():
            self._later(handle)

    def _later(self, handle: int) -> None:
        asyncio.get_running_loop().call_later(LINGER, self._look, handle)

    def _look(self, handle: int) -> None:
        """What is being fetched may be given this lease."""
        if not self.leases.idle(handle) or self.process is None:
            return
        if self._fetching:
            self._later(handle)
            return
        lease = self.leases.end(handle)
        self._ended(handle, "nobody uses it")
        self._spawn(self._revoke(self.process, lease))

    def _ended(self, handle: int, reason: str) -> None:
        self._tell("lease.ended", self._said.pop(handle, {}) | {"reason": reason})

    async def _revoke(self, process: VaultProcess, lease: int) -> None:
        try:
            await process.channel.ask(lambda number: told.Revoke(number, lease), told.Done)
        except ChannelError:
            pass                      # then it has ended, and gave it back

    # for the status, and the end

    def hints(self) -> tuple[str, ...]:
        if self.process is not None and not self.process.up:
            return (f"no credentials from Vault: the credentials process is not up: {self.process.error}",)
        return tuple(f"target {target} has no credential for some logins: {error}"
                     for (target, _), error in self._failing.items())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        if self.process is not None:
            await self.process.stop()


def read_material(entry: VaultEntry) -> told.Material:
    """Raises SecretError."""
    if entry.secret_file is not None:
        name, file = entry.secret_file
        return told.Material(read_secret(file, told.SECRET, name))
    try:
        certificate, key = (read_secret(file or "", PEM_LIMIT, name).decode("ascii") for name, file in (
            ("certificate_file", entry.certificate_file), ("key_file", entry.key_file)))
    except UnicodeDecodeError:
        raise SecretError(f"certificate_file or key_file of vault {entry.name} is not PEM") from None
    return told.Material(certificate=certificate, key=key)


def render_server(entry: VaultEntry, roots: str) -> told.Server:
    return told.Server(
        entry.name, entry.address.rstrip("/"), roots, entry.namespace or "", entry.auth, entry.mount or entry.auth,
        entry.role or "", entry.role_id or "")


def render_source(row: CredentialRow, bearer: bool = False) -> told.Source:
    """`bearer`: of a cluster, which knows no passwords."""
    if row.path is None:
        return told.Made(row.mount or "database", row.database_role or row.static_role or "",
                         row.database_role is None)
    return told.Stored(
        row.mount or "secret", row.path, row.user or "", USERNAME if row.user_field is None else row.user_field,
        row.password_field or ("" if bearer else PASSWORD), row.certificate_field or "", row.key_field or "",
        row.token_field or (TOKEN if bearer and not row.key_field else ""))


def _shown(text: str) -> str:
    """What the process says, which may be broken: in errors of protocols, and on terminals."""
    return "".join(one if one.isprintable() else "?" for one in text)[:SHOWN]
