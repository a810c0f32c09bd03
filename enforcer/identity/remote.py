"""Edge: one provider, spoken with by authlib: its configuration, its keys, its token endpoint."""
from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import httpx2
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from agent.contract.identity import Provider
from enforcer import https
from enforcer.identity.answers import DeviceCode, Refused, Tokens, parse_device, parse_tokens
from enforcer.identity.claims import Identity, identify
from enforcer.identity.logouts import Logout, parse_logout
from enforcer.identity.metadata import Metadata, auth_method, has_pkce, parse_metadata, place
from enforcer.identity.tokens import LOGOUT, Keys, UnknownKey, parse_keys, parse_once, verify
from enforcer.words.errors import AuthenticationError

LOG = logging.getLogger("weir.identity")

FRESH: Final = 3600.0                 # seconds that configuration and keys are taken as they are
AGAIN: Final = 10.0                   # seconds between two times that unknown keys are asked for
AT_ONCE: Final = 16                   # exchanges with one provider
DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_Found = TypeVar("_Found")


class Unreachable(AuthenticationError):
    """The provider does not answer: what holds goes on until its end."""


class Remote:
    def __init__(self, provider: Provider, monotonic: Callable[[], float] = time.monotonic,
                 now: Callable[[], float] = time.time) -> None:
        """Raises AuthenticationError: its roots are none."""
        self.provider = provider
        self._monotonic, self._now = monotonic, now
        self._metadata: tuple[float, Metadata] | None = None
        self._keys: tuple[float, Keys] | None = None
        self._asking = asyncio.Lock()
        self._turn = asyncio.Semaphore(AT_ONCE)
        try:
            self._context = https.trusted(provider.ca)
        except ssl.SSLError:
            raise AuthenticationError(f"the roots of provider {provider.name} cannot be read") from None

    # what it is

    async def metadata(self) -> Metadata:
        async with self._asking:
            if self._metadata is None or self._monotonic() - self._metadata[0] > FRESH:
                document = await self._get(place(self.provider.issuer))
                self._metadata = (self._monotonic(), parse_metadata(document, self.provider))
            return self._metadata[1]

    async def identify(self, token: str | bytes, kind: str, nonce: str = "") -> Identity:
        """Raises AuthenticationError, Unreachable."""
        return identify(self.provider, await self._verified(token, kind, nonce))

    async def logout(self, token: str) -> Logout:
        """Raises AuthenticationError, Unreachable."""
        return parse_logout(await self._verified(token, LOGOUT), self.provider.name, int(self._now()))

    async def _verified(self, token: str | bytes, kind: str, nonce: str = "") -> dict[str, Any]:
        """The claims.  A key that is not known may be a new one: the keys are asked for again, once in AGAIN seconds at
        most, however many such tokens come."""
        keys = await self._known(FRESH)
        try:
            return verify(token, keys, self.provider, int(self._now()), kind=kind, nonce=nonce)
        except UnknownKey:
            fresh = await self._known(AGAIN)
            if fresh is keys:
                raise
            return verify(token, fresh, self.provider, int(self._now()), kind=kind, nonce=nonce)

    async def _known(self, age: float) -> Keys:
        metadata = await self.metadata()
        async with self._asking:
            if self._keys is None or self._monotonic() - self._keys[0] > age:
                try:
                    self._keys = (self._monotonic(), parse_keys(await self._get(metadata.jwks_uri)))
                except Unreachable:
                    if self._keys is None or age == AGAIN:
                        raise
                    LOG.warning("provider %s: its keys could not be read again", self.provider.name)
            return self._keys[1]

    # what it is asked

    async def authorization_url(self, redirect: str, state: str, nonce: str, verifier: str) -> str:
        """RFC 6749, 4.1.1, with PKCE (RFC 7636) by S256, and nothing less."""
        metadata = await self.metadata()
        if metadata.authorization_endpoint is None or not has_pkce(metadata):
            raise AuthenticationError("the provider has no code flow with PKCE (S256); try --device")
        async with self._client(metadata, redirect_uri=redirect, code_challenge_method="S256") as client:
            url, _ = client.create_authorization_url(
                metadata.authorization_endpoint, state=state, nonce=nonce, code_verifier=verifier)
        return str(url)

    async def exchange(self, code: str, verifier: str, redirect: str) -> Tokens:
        return await self._token(grant_type="authorization_code", code=code, code_verifier=verifier,
                                 redirect_uri=redirect)

    async def device(self, verifier: str) -> DeviceCode:
        """RFC 8628, 3.1; with PKCE too, which some providers demand here, and others do not look at."""
        metadata = await self.metadata()
        if metadata.device_authorization_endpoint is None:
            raise AuthenticationError("the provider has no device flow")

        async def ask(client: Any) -> Any:
            answer = await client.post(
                metadata.device_authorization_endpoint, data={
                    "scope": self._scope, "code_challenge": create_s256_code_challenge(verifier),
                    "code_challenge_method": "S256"},
                auth=client.client_auth(auth_method(self.provider, metadata)), headers={"Accept": "application/json"})
            return _json(answer, (200, 400, 401, 403))

        return parse_device(await self._with(metadata, ask))

    async def poll(self, code: str, verifier: str) -> Tokens:
        """Raises Refused, also with authorization_pending and slow_down."""
        return await self._token(grant_type=DEVICE_GRANT, device_code=code, code_verifier=verifier)

    async def service(self) -> Tokens:
        """Client credentials (RFC 6749, 4.4)."""
        return await self._token(grant_type="client_credentials", scope=" ".join(self.provider.scopes) or None)

    async def refresh(self, token: str) -> Tokens:
        metadata = await self.metadata()
        return parse_tokens(await self._with(
            metadata, lambda client: client.refresh_token(metadata.token_endpoint, refresh_token=token)))

    async def check_active(self, token: str) -> None:
        """RFC 7662.  Raises AuthenticationError where it does not hold any more, or that cannot be told."""
        metadata = await self.metadata()
        if metadata.introspection_endpoint is None:
            raise AuthenticationError("the provider has no introspection endpoint; leave `introspect` out")

        async def ask(client: Any) -> Any:
            answer = await client.post(
                metadata.introspection_endpoint, data={"token": token, "token_type_hint": "access_token"},
                auth=client.client_auth(auth_method(self.provider, metadata)), headers={"Accept": "application/json"})
            if 400 <= answer.status_code < 500:
                raise AuthenticationError(f"the provider does not say whether it holds ({answer.status_code})")
            return _json(answer, (200,))

        found = await self._with(metadata, ask)
        if not isinstance(found, dict) or found.get("active") is not True:
            raise AuthenticationError("the provider says that it does not hold any more")

    async def revoke(self, token: str) -> None:
        """RFC 7009.  Raises AuthenticationError."""
        metadata = await self.metadata()
        if metadata.revocation_endpoint is not None:
            await self._with(metadata, lambda client: client.revoke_token(
                metadata.revocation_endpoint, token=token, token_type_hint="refresh_token"))      # noqa: S106

    # how

    async def _token(self, **fields: Any) -> Tokens:
        metadata = await self.metadata()
        given = {name: value for name, value in fields.items() if value is not None}
        return parse_tokens(await self._with(
            metadata, lambda client: client.fetch_token(metadata.token_endpoint, **given)))

    @property
    def _scope(self) -> str:
        return " ".join(dict.fromkeys(("openid", *self.provider.scopes)))

    def _client(self, metadata: Metadata, **more: Any) -> Any:
        method = auth_method(self.provider, metadata)
        return AsyncOAuth2Client(
            client_id=self.provider.client_id, client_secret=self.provider.client_secret or None,
            token_endpoint_auth_method=method, revocation_endpoint_auth_method=method, scope=self._scope, token={},
            **more, **https.options(self._context))

    async def _with(self, metadata: Metadata, ask: Callable[[Any], Awaitable[_Found]]) -> _Found:
        async with self._turn, _bounded(self.provider.name), self._client(metadata) as client:
            return await ask(client)

    async def _get(self, url: str) -> Any:
        async with self._turn, _bounded(self.provider.name), httpx2.AsyncClient(
                **https.options(self._context)) as client:
            return _json(await client.get(url, headers={"Accept": "application/json"}), (200,))


async def get(name: str, url: str, context: ssl.SSLContext) -> bytes:
    """What provider `name` has there.  Raises AuthenticationError, Unreachable."""
    async with _bounded(name), httpx2.AsyncClient(**https.options(context)) as client:
        return _right(await client.get(url), (200,)).content


class _bounded:                       # read as a word
    """A time for it all, and one kind of exception for whatever may go wrong: nothing of it is for a log."""

    def __init__(self, name: str) -> None:
        self._name, self._time = name, asyncio.timeout(https.SECONDS)

    async def __aenter__(self) -> None:
        await self._time.__aenter__()

    async def __aexit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        try:
            await self._time.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise Unreachable(f"provider {self._name} did not answer within {https.SECONDS:.0f} s") from None
        if isinstance(error, AuthlibBaseError):
            raise Refused(error.error) from None
        if isinstance(error, httpx2.HTTPError | httpx2.InvalidURL | OSError):
            raise Unreachable(f"provider {self._name} cannot be reached ({_kind(error)})") from None
        if isinstance(error, ValueError | TypeError | RecursionError | KeyError | AttributeError | LookupError):
            raise AuthenticationError(f"provider {self._name} answered what makes no sense") from None


def _kind(error: BaseException) -> str:
    """A certificate that is not trusted is worth a word of its own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def _json(answer: Any, right: tuple[int, ...]) -> Any:
    return parse_once(_right(answer, right).content)


def _right(answer: httpx2.Response, right: tuple[int, ...]) -> httpx2.Response:
    if answer.status_code not in right:
        raise httpx2.HTTPStatusError(f"status {answer.status_code}", request=answer.request, response=answer)
    return answer
