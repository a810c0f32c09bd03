"""Edge: who Weir is at one Vault server: a token, got by the configured method, renewed as long as that lasts."""
from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from agent.contract.vault import APPROLE, CERT, JWT, KUBERNETES, TOKEN, Material, Server
from enforcer.credentials.answers import Grant, parse_grant, parse_own, parse_renewed, parse_token
from enforcer.credentials.clock import Life
from enforcer.credentials.remote import Away, Refused, Remote
from enforcer.words.errors import AuthenticationError

LOG = logging.getLogger("weir.credentials")
AGAIN: Final = 10                     # seconds
_OWN: Final = "auth/token/lookup-self"
_HINTS: Final = {
    APPROLE: "role_id, or what secret_id_file holds, is not right there any more",
    JWT: "role, or what jwt_file holds, is not right there any more",
    KUBERNETES: "role, or what jwt_file holds, is not right there any more",
    TOKEN: "what token_file holds is no token any more",
    CERT: "role, or what certificate_file holds, is not right there",
}


class Token:
    """`own`: Weir has logged in for it, so Weir ends it; it is nobody's else."""

    def __init__(self, grant: Grant, life: Life, own: bool) -> None:
        self.text, self.renewable, self.life, self.own = grant.token, grant.renewable, life, own

    def lasts(self) -> bool:
        """Whether a lease may begin by it, which ends when it does: one that cannot be made longer is not used up."""
        return self.life.fresh() and (self.renewable or self.life.half())

    def __repr__(self) -> str:
        return f"Token(left={self.life.left():.0f})"


class Tokens:
    """One that holds; `spawn` runs what goes on beside."""

    def __init__(self, remote: Remote, material: Material, spawn: Callable[[Any], object]) -> None:
        self._remote, self._spawn = remote, spawn
        self.material = material
        self._token: Token | None = None
        self._asking = asyncio.Lock()
        self._mine: list[Token] = []  # that Weir has to end
        self._tried = Life()          # of not logging in again because one was refused

    async def get(self) -> Token:
        """Raises AuthenticationError, Away."""
        async with self._asking:
            if self._token is None or not self._token.lasts():
                self._token = await self._login()
            return self._token

    def present(self, material: Material) -> None:
        """What the files hold now: a token counts at once, the rest at the next login."""
        if self._remote.server.auth == TOKEN and material.secret != self.material.secret:
            self._token = None
        self.material = material

    async def refused(self, token: Token) -> bool:
        """Whether it holds no more, so that another is to be tried.  A policy that does not permit something is
        nothing that a login helps against; nor is it tried again and again, where nobody may ask what holds."""
        if self._tried.left() > 0:
            return False
        try:
            await self._remote.ask("GET", _OWN, token.text)
        except Refused as answer:
            if answer.status != 403:
                return False
            token.life.end()
            token.renewable = False
            self._tried = Life()
            self._tried.set(AGAIN)
            return True
        except Away:
            return False
        return False

    async def close(self) -> None:
        """Those that Weir has logged in for are ended, and every lease by them.  Best effort."""
        mine, self._mine, self._token = self._mine, [], None
        for token in mine:
            if token.life.left() > 0:
                with suppress(AuthenticationError):
                    await self._remote.ask("POST", "auth/token/revoke-self", token.text)

    async def _login(self) -> Token:
        server, life = self._remote.server, Life()
        try:
            grant = await self._granted(server, self.material.secret)
        except Refused as wrong:
            raise Refused(f"{wrong}: {_HINTS[server.auth]}", wrong.status) from None
        except Away:
            raise
        except AuthenticationError as wrong:
            raise AuthenticationError(f"Vault {server.name}: {wrong}") from None
        life.set(grant.seconds)
        token = Token(grant, life, server.auth != TOKEN)
        if token.own:
            self._mine = [one for one in self._mine if one.life.left() > 0] + [token]
        if token.renewable:
            self._spawn(self._keep(token))
        return token

    async def _granted(self, server: Server, secret: bytes) -> Grant:
        if server.auth == TOKEN:
            text = parse_token(secret)
            return parse_own(await self._remote.ask("GET", _OWN, text), text)
        body = _body(server.auth, server.role, server.role_id, secret)
        return parse_grant(await self._remote.ask("POST", f"auth/{server.mount}/login", body=body))

    async def _keep(self, token: Token) -> None:
        """Until it cannot be made longer; then the next fetch logs in again."""
        while token.renewable and await token.life.due():
            began = Life()
            try:
                answer = await self._remote.ask("POST", "auth/token/renew-self", token.text, {})
                began.set(parse_renewed(answer, auth=True))
            except Away:
                continue
            except AuthenticationError as wrong:
                LOG.warning("%s: its token was not renewed", wrong)
                token.renewable = False
                return
            token.renewable = token.life.longer(began)


def _body(auth: str, role: str, role_id: str, secret: bytes) -> dict[str, str]:
    """Of .../login, by method."""
    if auth == CERT:
        return {"name": role} if role else {}
    try:
        text = secret.decode().strip()
    except UnicodeDecodeError:
        raise AuthenticationError("its secret is not UTF-8") from None
    return {"role_id": role_id, "secret_id": text} if auth == APPROLE else {"role": role, "jwt": text}
