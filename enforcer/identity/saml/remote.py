"""Edge: one SAML provider: its metadata, and which of its assertions were used."""
from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa

from agent.contract.identity import SamlLogout, SamlProvider
from enforcer import https
from enforcer.identity.claims import Identity, identify
from enforcer.identity.logouts import Known, Logout
from enforcer.identity.remote import FRESH, Unreachable, get
from enforcer.identity.saml.answer import parse_form
from enforcer.identity.saml.assertion import Answer, Asked, read
from enforcer.identity.saml.envelope import Keys, open_response
from enforcer.identity.saml.keys import parse_key
from enforcer.identity.saml.logout import open_form, open_query, read_request, render_response
from enforcer.identity.saml.logout import render_request as ask_logout
from enforcer.identity.saml.metadata import Idp, parse_metadata
from enforcer.identity.saml.request import render_address, render_redirect
from enforcer.words.errors import AuthenticationError

LOG = logging.getLogger("weir.identity")

USED: Final = 10_000                  # assertions that are remembered: more than can be used in their time
PLACE: Final = "http://127.0.0.1:{port}/acs/{provider}"     # its own, as a redirect is


@dataclass(frozen=True)
class Login:
    """One that waits for its answer.  Never printed."""

    remote: SamlRemote
    asked: Asked
    relay: str
    key: rsa.RSAPrivateKey | None

    def __repr__(self) -> str:
        return "Login(...)"

    async def finish(self, form: str) -> Identity:
        """Raises AuthenticationError."""
        return await self.remote.identify(self, form)


class SamlRemote:
    def __init__(self, provider: SamlProvider, monotonic: Callable[[], float] = time.monotonic,
                 now: Callable[[], float] = time.time) -> None:
        """Raises AuthenticationError: its roots are none."""
        self.provider = provider
        self._monotonic, self._now = monotonic, now
        self._idp: tuple[float, Idp] | None = None
        self._asking, self._reading = asyncio.Lock(), asyncio.Lock()
        self._used: dict[str, int] = {}       # assertion -> seconds UTC until which it must be remembered
        try:
            self._context = https.trusted(provider.ca)
        except ssl.SSLError:
            raise AuthenticationError(f"the roots of provider {provider.name} cannot be read") from None

    async def begin(self, port: int, redirect: str = "") -> tuple[str, Login]:
        """Where the browser goes, and what waits for it; the answer comes to this port, or to `redirect`.  Raises
        AuthenticationError, Unreachable."""
        idp = await self._metadata()
        key = self._key()
        place = redirect or PLACE.format(port=port, provider=self.provider.name)
        asked = Asked(self.provider, f"_{secrets.token_hex(20)}", place)
        login = Login(self, asked, secrets.token_urlsafe(32), key)
        return render_address(asked, idp.address, login.relay, key, int(self._now())), login

    async def identify(self, login: Login, form: str) -> Identity:
        idp = await self._metadata()
        raw = parse_form(form, login.relay)
        async with self._reading:     # one in a pass of the loop: the agent, which asks meanwhile, is answered
            await asyncio.sleep(0)
            return self._identify(login, raw, idp, int(self._now()))

    def _identify(self, login: Login, raw: bytes, idp: Idp, now: int) -> Identity:
        try:
            answer = read(open_response(raw, Keys(idp.certificates, login.key), now), login.asked, now)
            found = identify(self.provider, answer.claims)
            found = replace(found, known=answer.known)
            self._use(answer, now)
        except AuthenticationError as wrong:
            raise AuthenticationError(f"the provider's answer is not taken: {wrong}") from None
        return found

    # logout

    async def logout(self, message: SamlLogout) -> tuple[Logout, str]:
        """What a provider asks for, and where the browser that brought it goes then ("": nowhere).  Raises
        AuthenticationError, Unreachable."""
        idp = await self._metadata()
        async with self._reading:
            await asyncio.sleep(0)
            now = int(self._now())
            try:
                asked = (open_query(message.query, idp.certificates, now) if message.query
                         else open_form(message.form, idp.certificates, now))
                found = read_request(asked.xml, self.provider, message.place, now)
            except AuthenticationError as wrong:
                raise AuthenticationError(f"the provider's request is not taken: {wrong}") from None
        if not idp.answers:
            return found, ""
        name = f"_{secrets.token_hex(20)}"
        return found, render_redirect(
            "SAMLResponse", render_response(self.provider, found.token, idp.answers, name, now), idp.answers,
            asked.relay, self._key())

    async def leave(self, known: Known) -> str:
        """Where somebody logs out at the provider, too; "": nowhere.  Raises AuthenticationError, Unreachable."""
        idp = await self._metadata()
        if not idp.logout or not known.name:
            return ""
        return render_redirect("SAMLRequest", ask_logout(
            self.provider, known, idp.logout, f"_{secrets.token_hex(20)}", int(self._now())), idp.logout, "",
            self._key())

    def _key(self) -> rsa.RSAPrivateKey | None:
        return parse_key(self.provider.key) if self.provider.key else None

    def _use(self, answer: Answer, now: int) -> None:
        """Once (Profiles, 4.1.4.5)."""
        self._used = {name: until for name, until in self._used.items() if until > now}
        if answer.assertion in self._used:
            raise AuthenticationError("its assertion was used already")
        if len(self._used) >= USED:
            raise AuthenticationError("too many logins at once")
        self._used[answer.assertion] = answer.until

    async def _metadata(self) -> Idp:
        """Read again after FRESH, where they have an address; what is known holds until then, and its `validUntil`."""
        async with self._asking:
            if self._idp is None or (self.provider.metadata_url and self._monotonic() - self._idp[0] > FRESH):
                try:
                    self._idp = (self._monotonic(), self._parsed(await self._read()))
                except Unreachable:
                    if self._idp is None:
                        raise
                    LOG.warning("provider %s: its metadata could not be read again", self.provider.name)
            idp = self._idp[1]
        if idp.until is not None and idp.until <= self._now():
            raise AuthenticationError(f"the metadata of provider {self.provider.name} has expired (validUntil)")
        return idp

    def _parsed(self, raw: bytes) -> Idp:
        try:
            return parse_metadata(raw, self.provider.issuer)
        except AuthenticationError as wrong:
            raise AuthenticationError(f"the metadata of provider {self.provider.name} {wrong}") from None

    async def _read(self) -> bytes:
        if not self.provider.metadata_url:
            return self.provider.metadata
        return await get(self.provider.name, self.provider.metadata_url, self._context)
