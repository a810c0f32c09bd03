"""Logins of people and identities of workloads: opened, kept, ended; the identity process says, this decides.

A login belongs to the uid that opened it, by the kernel's word.  Whatever ends it ends, in the enforcer, what speaks
for it; where its groups change, that ends too, so that a session's groups are those it was opened with.
"""
from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agent.channel import ChannelError
from agent.config import Config
from agent.contract import control, messages
from agent.contract import identity as told
from agent.contract.clock import uptime
from agent.contract.control import Answered, Message, Refused
from agent.contract.groups import groups_of
from agent.control import IdentityRequest, Lately, Peer
from agent.credential.secrets import PASSWORD_LIMIT, PEM_LIMIT, SecretError, read_secret
from agent.people.identity import Principal, local_principal
from agent.people.identity_process import IdentityProcess, News
from agent.people.locks import subjects_of
from agent.people.logins import Login, Logins, Violation
from agent.people.posts import Posts, shown
from agent.settings.host_table import Workload
from agent.settings.identity_table import ProviderEntry, SamlEntry
from agent.workload.owners import Start

if TYPE_CHECKING:
    from agent.supervisor import Agent

LOG = logging.getLogger("weir.identity")

PATIENCE: Final = 20.0                # seconds that an AwaitLogin waits
RETRY: Final = 10.0                   # seconds between tries to get a workload its identity
FORMS: Final = 4                      # with the identity process: many long ones unread would end it, and every login
BESIDE: Final = "identity"            # its cgroup
Mark = tuple[int, int, int]           # of a file: inode, size, nanoseconds of its last change


@dataclass
class _Service:
    """What is known of a workload's identity between the looks."""

    session: str = ""
    mark: Mark | None = None          # of the token file that was read last
    tried: float = 0.0
    error: str = ""                   # what was said last
    looking: bool = False             # its provider, or its file, is being asked


class Identities:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.logins = Logins()
        self.process: IdentityProcess | None = None
        self._outcomes: dict[str, asyncio.Future[str]] = {}    # of logins under way: "" or why not
        self._finishing: set[str] = set()     # of these an answer is with the identity process
        self._forms = asyncio.Semaphore(FORMS)
        self._services: dict[str, _Service] = {}
        self._lately = Lately()
        self.posts = Posts(lambda: agent.config, lambda: self.process, agent.tell)
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_end: Callable[[str], None] = lambda session: None      # called when one has ended

    # the process

    def configured(self) -> None:
        """At the start, and after each reload."""
        agent = self._agent
        if self.process is None and agent.config.logins:
            self.process = IdentityProcess(
                agent.config.runtime.identity_user, agent.own / BESIDE, agent.tell, agent.news, self._render,
                self._came, self._ready, self._lost)
            self.process.start()
        elif self.process is not None:
            self._spawn(self._reconfigure(self.process))

    async def _reconfigure(self, process: IdentityProcess) -> None:
        for login in self.logins:
            if reason := _unfit(login, self._agent.config):
                self._end(login.session, reason, forget=True)
        self.end_locked()             # who is whom may be known only now
        try:
            if error := await process.configure():
                LOG.error("identity providers: %s", error)
        except ChannelError:
            pass                      # the next one is configured with what is right then
        if not self._agent.config.logins and self.process is process:
            self.process = None
            await process.stop()

    async def stop(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        if self.process is not None:
            await self.process.stop()

    def _render(self, number: int) -> told.Configure:
        config, found, by_saml = self._agent.config, [], []
        for one in config.logins:
            roots = config.provider_roots.get(one.name, "")
            try:
                if isinstance(one, SamlEntry):
                    by_saml.append(render_saml(one, _key(one), roots, config.metadata.get(one.name, b"")))
                else:
                    found.append(render_provider(one, _secret(one), roots))
            except SecretError as wrong:
                LOG.error("provider %s cannot be used: %s", one.name, wrong)
                self._agent.tell("login.refused", {"provider": one.name, "reason": str(wrong)})
        return told.Configure(number, tuple(found), tuple(by_saml))

    async def _ready(self) -> None:
        for service in self._services.values():
            service.tried, service.mark = 0.0, None
        await self.look()

    def _lost(self, reason: str) -> None:
        """Its tokens are gone, and with them whatever they said."""
        for login in self.logins:
            self._end(login.session, f"Weir's identity process ended ({shown(reason)}): log in again")

    # what it says

    def _came(self, message: News) -> None:
        """Raises ValueError: it may not say that."""
        if isinstance(message, told.Ended):
            self._end(message.session, shown(message.reason))
            return
        try:
            found = self.logins.verify(message, int(time.time()), _uptime())
        except Violation as wrong:
            self._agent.tell("identities.violation", {"reason": str(wrong)})
            raise ValueError(str(wrong)) from None
        if found is not None:
            self._verified(*found)

    def end_locked(self) -> None:
        """Logins of people who are locked out."""
        for login in self.logins:
            if not login.workload and (why := self._locked(login)):
                self._end(login.session, why, forget=True)

    def _locked(self, login: Login) -> str:
        known = (login.subject,) if login.web else subjects_of(login.user, login.subject)
        return self._agent.locks.why(self.names(*known))

    def _verified(self, before: Login, after: Login) -> None:
        if not after.workload and (why := self._locked(after)):
            self._end(after.session, why, forget=True)
            return
        if not before.subject:
            self._tell("login.opened", after, groups=" ".join(after.groups), until=after.until)
            self._settle(after.session, "")
        elif after.turn != before.turn:
            self._tell("login.changed", after, groups=" ".join(after.groups), before=" ".join(before.groups))
            if not after.web:
                self._end_sessions(before.login, "what the identity provider says of you has changed: connect again")

    def _end(self, session: str, reason: str, forget: bool = False) -> None:
        login = self.logins.end(session)
        if login is None:
            return
        self._settle(session, reason)
        self.on_end(session)
        name = "login.ended" if login.subject else "login.refused"
        # Whoever reaches the page begins logins there, and its process as many as it likes, should it be broken.
        times = 1 if login.subject or not login.web else self._lately.again(("web", login.provider))
        if times:
            self._tell(name, login, reason=reason, **({"times": times} if times > 1 else {}))
        if login.subject and not login.web:   # nothing speaks for one of the page's
            self._end_sessions(login.login, f"the login of {login.subject} has ended: {reason}")
        if forget:
            self._spawn(self._forget(session))

    async def _forget(self, session: str) -> None:
        if self.process is not None:
            try:
                await self.process.channel.ask(lambda number: told.Forget(number, session), told.Done)
            except ChannelError:
                pass                  # then it has ended, and its tokens with it

    def _end_sessions(self, login: str, reason: str) -> None:
        self._spawn(self._tell_enforcer(login, reason))

    async def _tell_enforcer(self, login: str, reason: str) -> None:
        try:
            await self._agent.enforcer.channel.ask(
                lambda number: messages.EndLogin(number, login, reason), messages.Done)
        except ChannelError:
            pass                      # where none runs, no session does

    def _settle(self, session: str, outcome: str) -> None:
        """Whoever waits for it is told, for a while."""
        if (future := self._outcomes.get(session)) is not None and not future.done():
            future.set_result(outcome)
            asyncio.get_running_loop().call_later(PATIENCE, self._outcomes.pop, session, None)

    def _tell(self, name: str, login: Login, **more: object) -> None:
        detail: dict[str, object] = {"provider": login.provider, "login": login.session, **more}
        detail |= {key: value for key, value in (
            ("subject", login.subject), ("user", login.user), ("way", "web" if login.web else "")) if value}
        self._agent.tell(name, detail, login.workload)

    # whose a workload is

    def bind(self, workload: Workload, peer: Peer) -> tuple[str, str]:
        """For a start: the session of the caller's login, "" for none; and why it may not start, or ""."""
        if workload.identity is not None:
            return "", ""
        login = self.logins.of_uid(peer.uid)
        if login is None and workload.person:
            who = ("root is nobody in particular: log in as yourself (weir login), and start it as yourself"
                   if peer.uid == 0 else "log in first: weir login")
            return "", f"workload {workload.name} speaks for a person; {who}"
        return (login.session if login else ""), ""

    def principal(self, start: Start, config: Config | None = None) -> Principal | str:
        """Who an operation of it is by, or why nobody is; or would be, by another configuration."""
        config = config or self._agent.config
        workload = config.workload(start.workload)
        if workload is not None and workload.identity is not None:
            login = self.logins.of_workload(workload.name)
            if login is None or not login.subject:
                return f"workload {workload.name} has no identity now: {self._why(workload)}"
        elif start.login:
            login = self.logins.opened(start.login)
            if login is None:
                return "the login that it was started with has ended: weir login, and start it again"
        elif workload is not None and workload.person:
            return f"workload {workload.name} speaks for a person, and was started without a login"
        else:
            return local_principal(config.groups, start.user, start.unix_groups, start.workload)
        return _unfit(login, config) or self._of(login, config, start.workload)

    def barred(self, start: Start) -> str:
        """Why nobody is behind it, or they are locked out; "" where neither is."""
        who = self.principal(start)
        return who if isinstance(who, str) else self._agent.locks.why(
            subjects_of(start.user, who.subject), start.workload)

    def names(self, *known: str) -> tuple[str, ...]:
        """`known` first, then whatever else these people are called, here or at a provider: by [people], and by logins
        that are open: who speaks for one subject through two local users is one person."""
        links = (subjects_of(one.user, one.subject) for one in self.logins if one.uid >= 0 and one.subject)
        return self._agent.config.people.names(known, links)

    def _of(self, login: Login, config: Config, workload: str = "") -> Principal:
        groups = groups_of(config.groups, workload=workload, subject=login.subject, given=login.groups)
        return Principal(login.subject, groups, login.login)

    def _why(self, workload: Workload) -> str:
        service = self._services.get(workload.name)
        return (service.error if service else "") or "it was not verified yet"

    # asked by people

    async def answer(self, request: IdentityRequest, peer: Peer) -> Message:
        if isinstance(request, control.AskWhoAmI):
            return self.who_am_i(peer)
        if isinstance(request, control.Login):
            return await self._begin(request, peer)
        if isinstance(request, control.Logout):
            return await self._logout(peer)
        login = self.logins.find(request.session)
        if (login is None and request.session not in self._outcomes) or (login is not None and login.uid != peer.uid):
            return Refused("there is no such login of yours")
        if isinstance(request, control.FinishLogin):
            return await self._finish(request, login)
        return await self._await(request.session)

    def who_am_i(self, peer: Peer) -> control.WhoAmI:
        who, login = self.person(peer), self.logins.of_uid(peer.uid)
        if login is None:
            return control.WhoAmI(who.subject, who.groups)
        until = login.opened + login.longest
        if isinstance(self._agent.config.provider(login.provider), SamlEntry):
            until = min(until, login.expires)         # nothing makes it longer
        return control.WhoAmI(who.subject, who.groups, login.provider, login.opened * 1_000_000_000, until,
                              login.session)

    def person(self, peer: Peer) -> Principal:
        """Who asks: the login of the uid, else the local user."""
        config, login = self._agent.config, self.logins.of_uid(peer.uid)
        return self._of(login, config) if login else local_principal(config.groups, peer.user, peer.unix_groups)

    async def _begin(self, request: control.Login, peer: Peer) -> Message:
        provider = self._provider(request.provider)
        refusal = self._why_not(peer, request) or (provider if isinstance(provider, str) else
                                                   _no_way(provider, request.port))
        if refusal or isinstance(provider, str) or self.process is None:
            return control.LoginBegun(refusal or "the identity process is not running")
        if (other := self.logins.of_uid(peer.uid, pending=True)) is not None:
            self._end(other.session, "another login was begun", forget=True)
        login = Login(secrets.token_hex(8), provider.name, frozenset(provider.groups.values()), int(time.time()),
                      provider.max_session, peer.uid, peer.user, since=_uptime())
        self._outcomes[login.session] = asyncio.get_running_loop().create_future()
        how, port = _way(provider, request.port)
        begun = await self._ask_begin(self.process, login, how, port)
        if begun.error:
            self._outcomes.pop(login.session, None)
            return control.LoginBegun(shown(begun.error))
        return control.LoginBegun("", login.session, provider.name, begun.url, begun.user_code, begun.complete,
                                  begun.seconds, port)

    async def _ask_begin(
        self, process: IdentityProcess, login: Login, how: told.How, port: int = 0, redirect: str = "",
    ) -> told.Begun:
        """One that comes to nothing is none."""
        self.logins.add(login)
        try:
            begun = await process.channel.ask(
                lambda number: told.Begin(number, login.session, login.provider, how, port, redirect=redirect),
                told.Begun)
        except ChannelError as reason:
            begun = told.Begun(0, str(reason))
        if begun.error:
            self._end(login.session, shown(begun.error), forget=True)
        return begun

    def _provider(self, name: str) -> ProviderEntry | SamlEntry | str:
        providers = self._agent.config.logins
        if not name and len(providers) == 1:
            return providers[0]
        known = ", ".join(one.name for one in providers)
        if not known:
            return "nobody can log in: there is no [[provider]] or [[saml_provider]]"
        found = self._agent.config.provider(name)
        return found or (f"there is no provider {name!r}; there is: {known}" if name
                         else f"there are several providers: weir login --provider, one of {known}")

    def _why_not(self, peer: Peer, request: control.Login) -> str:
        if peer.uid == 0:
            return "root is nobody in particular: log in as yourself"
        if locked := self._agent.locks.why(subjects_of(peer.user)):
            return locked
        if (login := self.logins.of_uid(peer.uid)) is not None:
            return f"you are logged in as {login.subject}; weir logout comes first"
        if not 0 <= request.port < 1 << 16:
            return "there is no such port"
        # Each asks a provider: not as fast as somebody can type.
        return "" if self._lately.again(peer.uid) else "not so fast: once a second"

    async def _finish(self, request: control.FinishLogin, login: Login | None) -> Message:
        """One at a time of a login, and no more than its provider sends: what the identity process does not read soon
        enough would end it, and everybody's login with it."""
        if login is None:
            return Answered("no login waits for this answer")
        return Answered(await self._finish_by(login, request.query))

    async def _finish_by(self, login: Login, query: str) -> str:
        """What is wrong, or ""."""
        process = self.process
        if process is None or login.session in self._finishing:
            return "no login waits for this answer"
        saml = isinstance(self._agent.config.provider(login.provider), SamlEntry)
        if len(query.encode(errors="replace")) > (told.FORM if saml else told.QUERY):
            return "what came back is too long"
        self._finishing.add(login.session)
        try:
            async with self._forms if saml else nullcontext():
                done = await process.channel.ask(
                    lambda number: told.Finish(number, login.session, query), told.Done)
            error = shown(done.error)
        except ChannelError as reason:
            error = str(reason)
        finally:
            self._finishing.discard(login.session)
        if error:
            self._end(login.session, error, forget=True)
        return error

    # at the page

    async def begin_web(self, name: str, url: str) -> tuple[Login | None, told.Begun]:
        """A login of a browser at the page, whose address is `url`; where Begun says what is wrong there is none."""
        provider = self._agent.config.provider(name)
        if provider is None or self.process is None:
            return None, told.Begun(0, f"there is no provider {name!r}" if provider is None else
                                    "the identity process is not running")
        saml = isinstance(provider, SamlEntry)
        login = Login(secrets.token_hex(8), provider.name, frozenset(provider.groups.values()), int(time.time()),
                      provider.max_session, since=_uptime(), web=True)
        self._outcomes[login.session] = asyncio.get_running_loop().create_future()
        redirect = f"{url}/saml/{provider.name}/acs" if saml else f"{url}/login/{provider.name}/back"
        begun = await self._ask_begin(self.process, login, "saml" if saml else "code", 0, redirect)
        return (None if begun.error else login), begun

    async def finish_web(self, session: str, query: str) -> str:
        """What came back.  What is wrong, or "": it is open."""
        login = self.logins.find(session)
        if login is None or not login.web or login.subject:
            return "no login waits for this answer"
        outcome = self._outcomes.get(session)
        if error := await self._finish_by(login, query):
            return error
        if self.logins.opened(session) is not None:
            return ""
        return (outcome.result() if outcome is not None and outcome.done() else "") or "it has ended"

    def web_principal(self, session: str) -> Principal | None:
        """None: it has ended, or is not one of the page's."""
        login = self.logins.opened(session)
        return self._of(login, self._agent.config) if login is not None and login.web else None

    def end_web(self, session: str, reason: str) -> None:
        if (login := self.logins.find(session)) is not None and login.web:
            self._end(session, reason, forget=True)

    async def _await(self, session: str) -> Message:
        future = self._outcomes.get(session)
        if future is None:
            return control.LoginState()
        await asyncio.wait({future}, timeout=PATIENCE)
        if not future.done():
            return control.LoginState(waiting=True)
        self._outcomes.pop(session, None)
        return control.LoginState(error=future.result())

    async def _logout(self, peer: Peer) -> Message:
        """Here at once; where SAML's provider wants to be told it is by the person's browser, at the address that is
        given."""
        mine = [one for one in self.logins if one.uid == peer.uid and one.uid >= 0]
        for login in mine:
            self._end(login.session, "logged out", forget=not self._is_saml(login))
        places = [await self._leave(login.session) for login in mine if self._is_saml(login)]
        error = "" if any(one.subject for one in mine) else "you are not logged in"
        return control.LoggedOut(error, "" if error else next(filter(None, places), ""))

    def _is_saml(self, login: Login) -> bool:
        return isinstance(self._agent.config.provider(login.provider), SamlEntry)

    async def _leave(self, session: str) -> str:
        try:
            if self.process is None:
                return ""
            return (await self.process.channel.ask(lambda number: told.Leave(number, session), told.LoggedOut)).url
        except ChannelError:
            return ""

    # each second

    async def look(self) -> None:
        """Waits for no provider: the same watch looks at the block."""
        now = int(time.time())
        for login, reason in self.logins.overdue(now, _uptime()):
            self._end(login.session, reason, forget=True)
        for workload in self._agent.config.workloads:
            service = self._services.setdefault(workload.name, _Service()) if workload.identity is not None else None
            if service is not None and not service.looking and self.process is not None and self.process.up:
                service.looking = True
                self._spawn(self._look_at(workload, service))

    async def _look_at(self, workload: Workload, service: _Service) -> None:
        try:
            await self._find(workload, service)
        except Exception as reason:   # whatever it is: it is tried again, and the others go on
            LOG.error("workload %s: its identity could not be looked at: %s", workload.name, type(reason).__name__)
        finally:
            service.looking = False

    async def _find(self, workload: Workload, service: _Service) -> None:
        """Of a workload: its session, where there is none; its token file, where it has changed."""
        assert workload.identity is not None
        file = workload.identity.token_file
        mark = await asyncio.to_thread(_mark, file) if file else None
        there = self.logins.of_workload(workload.name) is not None
        fresh = file is not None and mark is not None and mark != service.mark
        late = time.monotonic() - service.tried >= RETRY
        if fresh or (not there and late):
            service.tried, service.mark = time.monotonic(), mark
            await self._present(workload, service, file)

    async def _present(self, workload: Workload, service: _Service, file: str | None) -> None:
        provider = self._agent.config.provider(workload.identity.provider) if workload.identity else None
        if provider is None or self.process is None:
            return
        login = self.logins.of_workload(workload.name)
        if login is None:
            login = Login(secrets.token_hex(8), provider.name, frozenset(provider.groups.values()), int(time.time()),
                          0, workload=workload.name, since=_uptime())
            self.logins.add(login)
        session, name = login.session, provider.name
        how: told.How = "file" if file else "client"
        try:
            token = await asyncio.to_thread(read_secret, file, told.TOKEN, "token_file") if file else b""
            begun = await self.process.channel.ask(
                lambda number: told.Begin(number, session, name, how, token=token), told.Begun)
            error = shown(begun.error)
        except (SecretError, ChannelError) as reason:
            error = str(reason)
        self._presented(workload, service, login, error)

    def _presented(self, workload: Workload, service: _Service, login: Login, error: str) -> None:
        """One that failed leaves what it was to come after until that ends."""
        before, service.error = service.error, error
        if not error:
            return
        if self.logins.opened(login.session) is None:
            self.logins.end(login.session)
            self._spawn(self._forget(login.session))      # it may come to something late
        if error != before:
            LOG.error("workload %s: its identity could not be verified: %s", workload.name, error)
            self._tell("login.refused", login, reason=error)

    def hints(self) -> tuple[str, ...]:
        """For the status."""
        process = self.process
        found = [] if process is None or process.up else [
            f"nobody can log in: the identity process is not up: {process.error}"]
        found += [f"workload {name} has no identity: {one.error}" for name, one in sorted(self._services.items())
                  if one.error and (workload := self._agent.config.workload(name)) is not None and workload.identity]
        return tuple(found)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)



def _unfit(login: Login, config: Config) -> str:
    """Why it is over with this configuration, or ""."""
    workload = config.workload(login.workload)
    wanted = workload.identity.provider if workload and workload.identity else ""
    provider = config.provider(login.provider)
    if (login.workload and wanted != login.provider) or provider is None:
        return "it is not configured any more"
    changed = not login.workload and provider.max_session != login.longest
    return "its provider's configuration has changed" if changed else ""


def render_provider(entry: ProviderEntry, secret: str, roots: str) -> told.Provider:
    return told.Provider(
        name=entry.name, issuer=entry.issuer, client_id=entry.client_id, client_secret=secret,
        audience=entry.audience or entry.client_id, algorithms=entry.algorithms, ca=roots, scopes=entry.scopes,
        subject_claim=entry.subject_claim, groups_claim=entry.groups_claim, groups=entry.groups,
        required=entry.required, refresh=entry.refresh,
        introspect=entry.introspect, hosts=entry.hosts)


def render_saml(entry: SamlEntry, key: str, roots: str, metadata: bytes) -> told.SamlProvider:
    return told.SamlProvider(
        name=entry.name, issuer=entry.issuer, entity_id=entry.entity_id, metadata=metadata,
        metadata_url=entry.metadata_url or "", ca=roots, key=key,
        subject_claim=entry.subject_attribute or told.NAME_ID, groups_claim=(entry.groups_attribute,),
        groups=entry.groups, required=entry.required)


def _way(provider: ProviderEntry | SamlEntry, port: int) -> tuple[told.How, int]:
    """How somebody logs in who listens at this port, and where the answer goes."""
    if isinstance(provider, SamlEntry):
        return "saml", provider.port or port
    return "code" if port else "device", port


def _no_way(provider: ProviderEntry | SamlEntry, port: int) -> str:
    if port or not isinstance(provider, SamlEntry):
        return ""
    return f"provider {provider.name} is SAML's, which needs a browser on this machine: leave --device out"


def _secret(provider: ProviderEntry) -> str:
    return _text(provider.client_secret_file, PASSWORD_LIMIT, "client_secret_file").rstrip("\r\n")


def _key(provider: SamlEntry) -> str:
    return _text(provider.key_file, PEM_LIMIT, "key_file")


def _text(file: str | None, limit: int, field: str) -> str:
    """Raises SecretError."""
    if file is None:
        return ""
    try:
        return read_secret(file, limit, field).decode()
    except UnicodeDecodeError:
        raise SecretError(f"{field} {file} is not UTF-8") from None


def _uptime() -> float:
    """Seconds."""
    return uptime() / 1e9


def _mark(file: str) -> Mark | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns

