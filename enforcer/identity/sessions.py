"""Edge: login sessions and service identities, from their beginning at a provider until they end.

A session is a task that refreshes it; its tokens are that task's own variables, and go with it.  Whatever ends it is
told once.  What only might be wrong (the provider does not answer) ends it when its last token has expired.
"""
from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from agent.contract.identity import (
    CLIENT,
    CODE,
    DEVICE,
    FILE,
    SAML,
    Begin,
    Begun,
    Done,
    Ended,
    Finish,
    Forget,
    Leave,
    LoggedOut,
    Logout,
    Message,
    Provider,
    SamlLogout,
    SamlProvider,
    Verified,
)
from enforcer.identity.answers import DeviceCode, Refused, Tokens, parse_redirect
from enforcer.identity.claims import Identity
from enforcer.identity.logouts import NOBODY, Known, Logouts, parse_form
from enforcer.identity.logouts import Logout as Ending
from enforcer.identity.remote import Remote, Unreachable
from enforcer.identity.saml import remote as saml
from enforcer.identity.tokens import ACCESS, PERSON
from enforcer.words.errors import AuthenticationError

LOG = logging.getLogger("weir.identity")

MOST: Final = 4096                    # sessions
PENDING: Final = 600.0                # seconds in which a code must come back
BEFORE: Final = 10.0                  # seconds before it expires in which a token is refreshed at the latest
AGAIN: Final = 5.0                    # seconds between tries where a provider does not answer
# RFC 8252, 7.3: any port.  Each provider its own (RFC 9700, 4.4.2.2): what another one sends here is for nobody.
REDIRECT: Final = "http://127.0.0.1:{port}/callback/{provider}"


@dataclass(frozen=True)
class _Code:
    """A code flow that waits for its code.  Never printed."""

    remote: Remote
    state: str
    nonce: str
    verifier: str
    redirect: str

    def __repr__(self) -> str:
        return "_Code(...)"


class Sessions:
    """`tell` takes Verified and Ended."""

    def __init__(self, tell: Callable[[Message], None], now: Callable[[], float] = time.time) -> None:
        self._tell, self._now = tell, now
        self._remotes: dict[str, Remote | saml.SamlRemote] = {}
        self._waiting: dict[str, _Code | saml.Login] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._of: dict[str, str] = {}         # session -> provider
        self._revoking: set[asyncio.Task[None]] = set()
        self._refresh_tokens: dict[str, str] = {}
        self._known: dict[str, Known] = {}    # session of a person -> as its provider knows it
        self._logouts = Logouts()

    def configure(self, providers: tuple[Provider, ...], by_saml: tuple[SamlProvider, ...] = ()) -> str:
        """What is wrong, or "".  Sessions of a provider that is not as it was end."""
        try:
            fresh = {one.name: self._remote(one) for one in providers} | {
                one.name: self._remote(one) for one in by_saml}
        except AuthenticationError as wrong:
            return str(wrong)
        changed = {name for name, one in self._remotes.items() if fresh.get(name) is not one}
        self._remotes = fresh
        for session in [session for session, provider in self._of.items() if provider in changed]:
            self._drop(session)
            self._tell(Ended(session, "its provider's configuration has changed"))
        return ""

    def _remote(self, provider: Provider | SamlProvider) -> Remote | saml.SamlRemote:
        known = self._remotes.get(provider.name)
        if known is not None and known.provider == provider:
            return known
        if isinstance(provider, SamlProvider):
            return saml.SamlRemote(provider, now=self._now)
        return Remote(provider, now=self._now)

    async def begin(self, message: Begin) -> Begun:
        remote = self._remotes.get(message.provider)
        if remote is None:
            return Begun(message.number, f"there is no provider {message.provider}")
        if len(self._of) >= MOST and message.session not in self._of:
            return Begun(message.number, f"{MOST} sessions are open, which is the most")
        self._of[message.session] = message.provider
        try:
            return await self._begin(message, remote)
        except AuthenticationError as wrong:
            if message.session not in self._tasks:
                self._of.pop(message.session, None)
            return Begun(message.number, str(wrong))

    async def _begin(self, message: Begin, remote: Remote | saml.SamlRemote) -> Begun:
        if isinstance(remote, saml.SamlRemote):
            if message.how != SAML:
                raise AuthenticationError(f"provider {message.provider} is SAML's, which knows a browser's login alone")
            return await self._begin_saml(message, remote)
        if message.how == SAML:
            raise AuthenticationError(f"provider {message.provider} is none of SAML's")
        begin = {CODE: self._begin_code, DEVICE: self._begin_device, CLIENT: self._begin_client,
                 FILE: self._begin_file}[message.how]
        return await begin(message, remote)

    async def _begin_saml(self, message: Begin, remote: saml.SamlRemote) -> Begun:
        url, login = await remote.begin(message.port, message.redirect)
        self._start(message.session, lambda: self._give_up(message.session))
        self._waiting[message.session] = login
        return Begun(message.number, url=url, seconds=int(PENDING), relay=login.relay)

    async def _begin_code(self, message: Begin, remote: Remote) -> Begun:
        code = _Code(remote, secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48),
                     message.redirect or REDIRECT.format(port=message.port, provider=message.provider))
        url = await remote.authorization_url(code.redirect, code.state, code.nonce, code.verifier)
        self._start(message.session, lambda: self._give_up(message.session))
        self._waiting[message.session] = code
        return Begun(message.number, url=url, seconds=int(PENDING))

    async def _give_up(self, session: str) -> None:
        await asyncio.sleep(PENDING)
        self._waiting.pop(session, None)
        self._end(session, f"nobody came back within {PENDING / 60:.0f} minutes")

    async def _begin_device(self, message: Begin, remote: Remote) -> Begun:
        verifier = secrets.token_urlsafe(48)
        device = await remote.device(verifier)
        self._start(message.session, lambda: self._poll(message.session, remote, device, verifier))
        return Begun(message.number, url=device.verification_uri, user_code=device.user_code,
                     complete=device.verification_uri_complete or "", seconds=device.expires_in)

    async def _poll(self, session: str, remote: Remote, device: DeviceCode, verifier: str) -> None:
        """RFC 8628, 3.4 and 3.5."""
        interval, until = float(device.interval), self._now() + device.expires_in
        while self._now() < until:
            await asyncio.sleep(interval)
            try:
                tokens = await remote.poll(device.device_code, verifier)
            except Unreachable:
                interval *= 2         # 3.5: exponential backoff
            except Refused as wrong:
                if wrong.error not in ("authorization_pending", "slow_down"):
                    raise
                interval += 5 if wrong.error == "slow_down" else 0
            else:
                if tokens.refresh_token is not None:
                    self._refresh_tokens[session] = tokens.refresh_token
                await self._person(session, remote, tokens, await self._identify(remote, tokens, PERSON))
                return
        raise AuthenticationError("nobody confirmed the code in time")

    async def finish(self, message: Finish) -> Done:
        """Once: whatever comes of it, what waited for it is gone."""
        waiting = self._waiting.pop(message.session, None)
        if waiting is None:
            return Done(message.number, "no login waits for this answer")
        self._stop(message.session)
        if isinstance(waiting, saml.Login):
            return await self._finish_saml(message, waiting)
        return await self._finish_code(message, waiting)

    async def _finish_saml(self, message: Finish, login: saml.Login) -> Done:
        """There is nothing to refresh: it lasts as long as the provider says, and `max_session`."""
        try:
            found = self._admitted(message.session, await login.finish(message.query))
            self._start(message.session, lambda: self._to_the_end(found, "the provider's session has ended"))
        except AuthenticationError as wrong:
            self._drop(message.session)
            return Done(message.number, str(wrong))
        self._tell(_verified(message.session, found))
        return Done(message.number)

    async def _finish_code(self, message: Finish, code: _Code) -> Done:
        tokens: Tokens | None = None
        try:
            metadata = await code.remote.metadata()
            given = parse_redirect(message.query, code.state, code.remote.provider.issuer, metadata)
            tokens = await code.remote.exchange(given, code.verifier, code.redirect)
            found = self._admitted(message.session, await self._identify(code.remote, tokens, PERSON, code.nonce))
            self._start(message.session, lambda: self._person(message.session, code.remote, tokens, found, told=True))
        except AuthenticationError as wrong:
            self._drop(message.session)
            self._give_back(code.remote, tokens.refresh_token if tokens else None)
            return Done(message.number, str(wrong))
        self._tell(_verified(message.session, found))
        return Done(message.number)

    async def _begin_client(self, message: Begin, remote: Remote) -> Begun:
        found = await self._identify(remote, await remote.service(), ACCESS)
        self._start(message.session, lambda: self._service(message.session, remote, found))
        self._tell(_verified(message.session, found))
        return Begun(message.number)

    async def _begin_file(self, message: Begin, remote: Remote) -> Begun:
        token = message.token.strip()
        found = await remote.identify(token, ACCESS)
        if remote.provider.introspect:
            await remote.check_active(token.decode())
        self._start(message.session, lambda: self._until(found, remote, token.decode()))
        self._tell(_verified(message.session, found))
        return Begun(message.number)

    # as long as it lasts

    async def _person(
        self, session: str, remote: Remote, tokens: Tokens, found: Identity, told: bool = False,
    ) -> None:
        if not told:
            self._tell(_verified(session, self._admitted(session, found)))
        refresh = tokens.refresh_token
        if refresh is None:
            await self._until(found, remote, tokens.access_token)
            return
        subject, wait = found.subject, _rest(remote, found, self._now())
        self._refresh_tokens[session] = refresh
        while True:
            await asyncio.sleep(wait)
            try:
                tokens = await remote.refresh(refresh)
                refresh = self._refresh_tokens[session] = tokens.refresh_token or refresh
                found = await self._identify(remote, tokens, PERSON)
            except Unreachable as wrong:
                wait = self._again(found, wrong)
                continue
            if found.subject != subject:              # Core 1.0, 12.2
                raise AuthenticationError("the provider answered with another subject")
            self._tell(_verified(session, self._admitted(session, found)))
            wait = _rest(remote, found, self._now())

    async def _service(self, session: str, remote: Remote, found: Identity) -> None:
        wait = _rest(remote, found, self._now())
        while True:
            await asyncio.sleep(wait)
            try:
                found = await self._identify(remote, await remote.service(), ACCESS)
            except Unreachable as wrong:
                wait = self._again(found, wrong)
                continue
            self._tell(_verified(session, found))
            wait = _rest(remote, found, self._now())

    async def _until(self, found: Identity, remote: Remote, token: str) -> None:
        """One that is not refreshed: to its end, or to when the provider says that it holds no more."""
        every = remote.provider.refresh
        while remote.provider.introspect and found.expires - self._now() > every:
            await asyncio.sleep(every)
            try:
                await remote.check_active(token)
            except Unreachable:
                pass                  # what holds goes on until its end
        await self._to_the_end(found, "its token has expired")

    async def _to_the_end(self, found: Identity, reason: str) -> None:
        await asyncio.sleep(max(0.0, found.expires - self._now()))
        raise AuthenticationError(reason)

    def _again(self, found: Identity, wrong: Unreachable) -> float:
        """What holds goes on until its end: seconds until the provider is asked again."""
        left = found.expires - self._now()
        if left <= 0:
            raise AuthenticationError(f"its token has expired, and {wrong}") from None
        return min(AGAIN, left)

    async def _identify(self, remote: Remote, tokens: Tokens, kind: str, nonce: str = "") -> Identity:
        """Of a person by the ID token, of a service by its access token."""
        token = tokens.id_token if kind == PERSON else tokens.access_token
        if token is None:
            raise AuthenticationError("the provider gave no ID token")
        try:
            return await remote.identify(token, kind, nonce)
        except Unreachable:
            raise
        except Refused:
            raise
        except AuthenticationError as wrong:
            raise AuthenticationError(f"the provider's token is not taken: {wrong}") from None

    def _admitted(self, session: str, found: Identity) -> Identity:
        """A person's, from now on known as its provider knows it.  Raises AuthenticationError: that has ended it
        meanwhile."""
        self._logouts.check(self._of.get(session, ""), found.known, int(self._now()))
        self._known[session] = found.known
        return found

    # ends

    async def logout(self, message: Logout) -> Done:
        """Back-Channel Logout 1.0, 2.5 to 2.8: what a provider posts.  Each session that it ends is told first."""
        remote = self._remotes.get(message.provider)
        if not isinstance(remote, Remote):
            return Done(message.number, f"provider {message.provider} has no back-channel")
        try:
            found = await remote.logout(parse_form(message.body))
            self._logouts.take(found, int(self._now()))
        except Unreachable as wrong:
            return Done(message.number, str(wrong))
        except AuthenticationError as wrong:
            return Done(message.number, f"it is not taken: {wrong}")
        self._end_all(found)
        return Done(message.number)

    async def saml_logout(self, message: SamlLogout) -> LoggedOut:
        """SAML's, by whichever binding."""
        remote = self._remotes.get(message.provider)
        if not isinstance(remote, saml.SamlRemote):
            return LoggedOut(message.number, f"provider {message.provider} has no single logout")
        try:
            found, url = await remote.logout(message)
            self._logouts.take(found, int(self._now()))
        except AuthenticationError as wrong:
            return LoggedOut(message.number, str(wrong))
        self._end_all(found)
        return LoggedOut(message.number, "", url)

    def _end_all(self, logout: Ending) -> None:
        for session in [one for one, known in self._known.items() if logout.ends(self._of.get(one, ""), known)]:
            self._end(session, "its session at the provider has ended")

    async def leave(self, message: Leave) -> LoggedOut:
        """It is over here whatever comes of it."""
        remote = self._remotes.get(self._of.get(message.session, ""))
        known = self._known.get(message.session, NOBODY)
        self._let_go(message.session)
        url = ""
        if isinstance(remote, saml.SamlRemote):
            try:
                url = await remote.leave(known)
            except AuthenticationError as wrong:
                LOG.warning("where to log out at the provider, too, is not known: %s", wrong)
        return LoggedOut(message.number, "", url)

    def forget(self, message: Forget) -> Done:
        self._let_go(message.session)
        return Done(message.number)

    def _let_go(self, session: str) -> None:
        remote, token = self._remotes.get(self._of.get(session, "")), self._refresh_tokens.get(session)
        self._drop(session)
        if isinstance(remote, Remote):
            self._give_back(remote, token)

    def _give_back(self, remote: Remote, token: str | None) -> None:
        if token is not None:
            task = asyncio.get_running_loop().create_task(_revoke(remote, token))
            self._revoking.add(task)
            task.add_done_callback(self._revoking.discard)

    def _drop(self, session: str) -> None:
        self._waiting.pop(session, None)
        self._refresh_tokens.pop(session, None)
        self._of.pop(session, None)
        self._known.pop(session, None)
        self._stop(session)

    def _stop(self, session: str) -> None:
        if (task := self._tasks.pop(session, None)) is not None:
            task.cancel()

    def _start(self, session: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Raises AuthenticationError where it was ended while its provider was asked."""
        if session not in self._of:
            raise AuthenticationError("it was ended meanwhile")
        self._stop(session)
        self._tasks[session] = asyncio.get_running_loop().create_task(self._live(session, work))

    async def _live(self, session: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except AuthenticationError as wrong:
            self._end(session, str(wrong))
        except Exception as wrong:    # nobody foresaw it: the session is over, and its text is nobody's business
            LOG.error("a session failed: %s", type(wrong).__name__)
            self._end(session, "the identity process could not go on with it")

    def _end(self, session: str, reason: str) -> None:
        if self._tasks.get(session) is asyncio.current_task():
            del self._tasks[session]          # it is this one, which ends by itself
        self._let_go(session)
        self._tell(Ended(session, reason[:1000]))


def _verified(session: str, found: Identity) -> Verified:
    return Verified(session, found.subject, found.groups, found.expires)


def _rest(remote: Remote, found: Identity, now: float) -> float:
    """Seconds until it is refreshed: never none, whatever the provider's tokens say."""
    left = found.expires - now
    return max(1.0, min(remote.provider.refresh, left - BEFORE, left * 3 / 4))


async def _revoke(remote: Remote, token: str) -> None:
    try:
        await remote.revoke(token)
    except AuthenticationError as wrong:
        LOG.warning("a login that has ended could not be revoked: %s", wrong)
