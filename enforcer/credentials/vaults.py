"""Every [[vault]]: credentials from it, and the leases of those that it made, renewed until the agent gives them up.

A lease that was given before is given again, after Vault has said that it still holds; where Vault does not answer, as
long as it lasts.  What has no lease is read anew each time.
"""
from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final

from agent.contract import vault as messages
from agent.contract.vault import Fetched, Made, Material, Server, Signed, Source, Stored
from enforcer.credentials.answers import Leased, parse_leased, parse_renewed, parse_signed, parse_stored
from enforcer.credentials.clock import Life
from enforcer.credentials.remote import Away, Refused, Remote
from enforcer.credentials.tokens import Token, Tokens
from enforcer.words.errors import AuthenticationError

LOG = logging.getLogger("weir.credentials")

WHOLE: Final = 25.0                   # seconds for a fetch
CHECK: Final = 3.0                    # seconds in which it is said that a lease holds; then it is taken to
CHECKED: Final = 1.0                  # seconds for which that counts,
UNCHECKED: Final = 10.0               # and for which it is not asked again where no answer came
ENDING: Final = 8.0                   # seconds for giving everything back at the end
LEASES: Final = 1000


class Lease:
    def __init__(self, number: int, vault: Vault, token: Token, life: Life, made: Leased) -> None:
        self.number, self.vault, self.token, self.life, self.made = number, vault, token, life, made
        self.checked = 0.0            # of asyncio's clock: until then it need not be looked up
        self.renewing: asyncio.Task[None] | None = None

    def left(self) -> float:
        """Vault ends it with its token."""
        return min(self.life.left(), self.token.life.left())

    def fresh(self) -> bool:
        return self.life.fresh() and self.token.life.left() > 0

    def expires(self) -> int:
        return min(one for one in (self.life.expires(), self.token.life.expires() or self.life.expires()))


class Vaults:
    def __init__(self) -> None:
        self._vaults: dict[str, Vault] = {}
        self._leases: dict[int, Lease] = {}
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._giving: set[asyncio.Task[Any]] = set()           # of these, what gives something back

    def configure(self, servers: Sequence[Server]) -> str:
        """What is wrong, or empty.  One that has changed makes nothing more; its leases go on."""
        wanted = {one.name: one for one in servers}
        for name, vault in tuple(self._vaults.items()):
            if wanted.get(name) != vault.server:
                del self._vaults[name]
                vault.retired = True
                self._tidy(vault)
        for name, server in wanted.items():
            if name not in self._vaults:
                self._vaults[name] = Vault(server, self)
        return ""

    async def fetch(self, asked: messages.Fetch) -> Fetched:
        vault = self._vaults.get(asked.server)
        if vault is None:
            return Fetched(asked.number, f"there is no vault {asked.server}")
        try:
            async with asyncio.timeout(WHOLE):
                return await vault.fetch(asked)
        except TimeoutError:
            return Fetched(asked.number, f"Vault {asked.server} did not answer within {WHOLE:.0f} s")
        except AuthenticationError as wrong:
            return Fetched(asked.number, str(wrong)[:1000])

    def revoke(self, number: int) -> None:
        """From now on it is nobody's; Vault is told beside."""
        lease = self._leases.pop(number, None)
        if lease is not None:
            lease.vault.forget(lease)
            self._give(self._give_back(lease))

    async def _give_back(self, lease: Lease) -> None:
        await lease.vault.give_back(lease)
        self._tidy(lease.vault)

    def _tidy(self, vault: Vault) -> None:
        if vault.retired and not any(one.vault is vault for one in self._leases.values()):
            self._give(vault.close())

    def _give(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.spawn(work)
        self._giving.add(task)
        task.add_done_callback(self._giving.discard)

    def check_room(self) -> None:
        """Raises AuthenticationError: there are too many."""
        if len(self._leases) >= LEASES:
            raise AuthenticationError("too many leases are held")

    def add(self, vault: Vault, token: Token, life: Life, made: Leased) -> Lease:
        lease = Lease(next(self._numbers), vault, token, life, made)
        self._leases[lease.number] = lease
        return lease

    async def outlive(self, tokens: Tokens, leases: Sequence[Lease]) -> None:
        """Tokens of before end after the leases that were made by them."""
        while any(one.number in self._leases and one.left() > 0 for one in leases):
            await asyncio.sleep(1.0)
        await tokens.close()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (wrong := task.exception()) is not None:
            LOG.error("unexpected: %s", type(wrong).__name__)

    async def close(self) -> None:
        """Every lease is given back, and every token, as far as there is time."""
        for task in self._tasks - self._giving:
            task.cancel()
        vaults = {*self._vaults.values(), *(one.vault for one in self._leases.values())}
        with suppress(TimeoutError):
            async with asyncio.timeout(ENDING):
                await asyncio.gather(*(one.vault.give_back(one) for one in self._leases.values()), *self._giving)
                await asyncio.gather(*(vault.close() for vault in vaults))
        self._leases.clear()


class Vault:
    """One server, as long as its configuration stays."""

    def __init__(self, server: Server, all_of_them: Vaults) -> None:
        self.server, self._all, self.retired = server, all_of_them, False
        self._remote: Remote | None = None
        self._tokens: Tokens | None = None
        self._made: dict[Made, Lease] = {}
        self._turns: dict[Made, asyncio.Lock] = {}

    async def fetch(self, asked: messages.Fetch) -> Fetched:
        """Raises AuthenticationError."""
        remote, tokens = self._connect(asked.material)
        source = asked.source
        if isinstance(source, Made) and not source.static:
            async with self._turns.setdefault(source, asyncio.Lock()):
                lease = await self._held(remote, source) or await self._lease(remote, tokens, source)
            return Fetched(asked.number, "", lease.made.user, lease.made.password, expires=lease.expires(),
                           lease=lease.number)
        if isinstance(source, Signed):
            asked_for = {"public_key": source.public, "valid_principals": source.user, "cert_type": "user"}
            answer, _, _ = await self._read(remote, tokens, _path(source), asked_for)
            return Fetched(asked.number, "", source.user, certificate=parse_signed(answer))
        answer, life, _ = await self._read(remote, tokens, _path(source))
        if isinstance(source, Stored):
            parts = self._said(source, answer)
            return Fetched(asked.number, "", parts.user, parts.password, parts.certificate, parts.key, parts.token)
        made = parse_leased(answer, static=True)
        life.set(made.seconds)
        return Fetched(asked.number, "", made.user, made.password, expires=life.expires())

    def _said(self, source: Stored, answer: bytes) -> Any:
        try:
            return parse_stored(answer, source)
        except AuthenticationError as wrong:
            raise AuthenticationError(f"Vault {self.server.name}, {source.mount}/{source.path}: {wrong}") from None

    def _connect(self, material: Material) -> tuple[Remote, Tokens]:
        """Another certificate is another connection, and then another login."""
        if self._tokens is None or self._remote is None or (
                material.certificate, material.key) != (
                self._tokens.material.certificate, self._tokens.material.key):
            remote = Remote(self.server, material)
            if self._tokens is not None:
                self._all.spawn(self._all.outlive(self._tokens, tuple(self._made.values())))
                self._made = {}
            self._remote, self._tokens = remote, Tokens(remote, material, self._all.spawn)
        self._tokens.present(material)
        return self._remote, self._tokens

    async def _read(
        self, remote: Remote, tokens: Tokens, path: str, body: dict[str, Any] | None = None,
    ) -> tuple[bytes, Life, Token]:
        """With another token where the one that was there does not hold any more."""
        token = await tokens.get()
        life, method = Life(), "GET" if body is None else "POST"
        try:
            return await remote.ask(method, path, token.text, body), life, token
        except Refused as answer:
            if answer.status != 403 or not await tokens.refused(token):
                raise
        token = await tokens.get()
        life = Life()
        return await remote.ask(method, path, token.text, body), life, token

    # leases

    async def _held(self, remote: Remote, source: Made) -> Lease | None:
        """One that was given before and holds."""
        lease = self._made.get(source)
        if lease is None:
            return None
        if lease.fresh() and (await self._holds(remote, lease)):
            return lease
        self._made.pop(source, None)
        return None

    async def _holds(self, remote: Remote, lease: Lease) -> bool:
        now = asyncio.get_running_loop().time()
        if now < lease.checked:
            return True
        try:
            await remote.ask("POST", "sys/leases/lookup", lease.token.text, {"lease_id": lease.made.lease}, CHECK)
        except Away:
            lease.checked = now + UNCHECKED
            return True
        except Refused as answer:
            if answer.status == 403 and self._tokens is not None and not await self._tokens.refused(lease.token):
                lease.checked = now + UNCHECKED        # its policy does not permit to ask
                return True
            LOG.warning("vault %s: a lease of %s/%s does not hold any more", self.server.name, *_named(lease, self))
            return False
        lease.checked = now + CHECKED
        return True

    async def _lease(self, remote: Remote, tokens: Tokens, source: Made) -> Lease:
        self._all.check_room()
        answer, life, token = await self._read(remote, tokens, _path(source))
        made = parse_leased(answer, static=False)
        life.set(made.seconds)
        lease = self._made[source] = self._all.add(self, token, life, made)
        lease.checked = asyncio.get_running_loop().time() + CHECKED
        lease.renewing = self._all.spawn(self._keep(remote, lease))
        return lease

    async def _keep(self, remote: Remote, lease: Lease) -> None:
        """Until it cannot be made longer, or is given up."""
        while await lease.life.due():
            again = Life()
            try:
                answer = await remote.ask("POST", "sys/leases/renew", lease.token.text, {"lease_id": lease.made.lease})
                again.set(parse_renewed(answer, auth=False))
            except Away:
                continue
            except AuthenticationError as wrong:
                LOG.warning("%s: a lease was not renewed", wrong)
                return
            if not lease.life.longer(again):
                return

    def forget(self, lease: Lease) -> None:
        for source in [key for key, one in self._made.items() if one is lease]:
            del self._made[source]
        if lease.renewing is not None:
            lease.renewing.cancel()

    async def give_back(self, lease: Lease) -> None:
        """Best effort: what cannot be told ends by itself."""
        if self._remote is None or lease.left() <= 0:
            return
        try:
            await self._remote.ask("POST", "sys/leases/revoke", lease.token.text, {"lease_id": lease.made.lease})
        except AuthenticationError as wrong:
            LOG.warning("%s: a lease ends by itself, in %.0f s", wrong, lease.left())

    async def close(self) -> None:
        if self._tokens is not None:
            await self._tokens.close()


def _named(lease: Lease, vault: Vault) -> tuple[str, str]:
    found = next((key for key, one in vault._made.items() if one is lease), None)
    return (found.mount, found.role) if found else ("?", "?")


def _path(source: Source) -> str:
    if isinstance(source, Stored):
        return f"{source.mount}/data/{source.path}"
    if isinstance(source, Signed):
        return f"{source.mount}/sign/{source.role}"
    return f"{source.mount}/{'static-creds' if source.static else 'creds'}/{source.role}"
