"""The page, as the agent has it: what the web process asks is answered here, for whom its secret says it is.

A login at the page is one of agent.identities' logins, of a browser in place of a uid; whatever ends those ends it, and
it ends when it was not used for `[web] idle`.  Who may see and answer what is settled here and by the enforcer: the web
process is taken at its word for nothing but that somebody's browser sent it this secret.
"""
from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from agent.channel import ChannelError
from agent.contract import control, messages
from agent.contract import web as asked
from agent.contract.control import ServiceView
from agent.contract.ledger import HISTORY, AskRecording
from agent.contract.messages import HoldView
from agent.credential.secrets import PEM_LIMIT, SecretError, read_secret
from agent.people.identity import Principal
from agent.people.posts import BACKCHANNEL, SAML
from agent.settings.identity_table import SamlEntry
from agent.status import said_of_nobody
from agent.web.listening import PAGE, Admission, open_page
from agent.web.listing import Listing
from agent.web.process import WebProcess
from agent.web.sessions import PageSessions

if TYPE_CHECKING:
    from agent.supervisor import Agent

LOG = logging.getLogger("weir.web")

BESIDE: Final = "web"                 # its cgroup
TELL: Final = 0.1                     # seconds in which changes are told as one
GONE: Final = "you are not logged in any more"
Came = Callable[[asked.Came], Awaitable[asked.Replied]]


class Links(Protocol):
    """Signed links: what one is for, and doing that."""

    async def look(self, token: str) -> asked.Link: ...
    async def answer(self, token: str, reason: str) -> str: ...       # why not, or ""


class Web:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.process: WebProcess | None = None
        self.sessions = PageSessions()
        self.parts: dict[str, Came] = {BACKCHANNEL: self._of_provider, SAML: self._of_provider}    # what takes Came
        self.links: Links | None = None       # whose signed links are answered here
        self._place: object = None            # what its listener was opened with
        self._watching = False
        self._changed = asked.Changed()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        self._held = Listing(lambda: agent.enforcer.channel.ask(messages.ListHolds, messages.HoldsAnswer))
        self._opened = Listing(lambda: agent.enforcer.channel.ask(messages.ListSessions, messages.SessionsAnswer))
        agent.identities.on_end = self._login_ended
        self._answers: dict[type[Any], Callable[[Any], Awaitable[asked.Message]]] = {
            asked.Admit: Admission(agent, BESIDE, PAGE).admit, asked.BeginLogin: self._begin,
            asked.FinishLogin: self._finish, asked.FinishSaml: self._finish_saml, asked.AskWho: self._who,
            asked.ListHolds: self._holds,
            asked.ListSessions: self._sessions, asked.AskRecorded: self._recorded,
            asked.Decide: self._decide, asked.Revoke: self._decide,
            asked.Kill: self._kill, asked.Logout: self._logout, asked.Watch: self._watch, asked.Came: self._came,
            asked.AskLink: self._link, asked.AnswerLink: self._answer_link,
        }

    # the process

    def configured(self) -> None:
        """At the start, and after each reload."""
        self._spawn(self._configured())

    async def _configured(self) -> None:
        config = self._agent.config.web
        place = (config.listen, bool(config.tls_key)) if config.url else None
        async with self._turn:
            if self.process is not None and place != self._place:
                process, self.process = self.process, None
                await process.stop()
                self._agent.config.web_socket.unlink(missing_ok=True)
            self._place = place
            if place is not None and self.process is None:
                self.process = WebProcess(
                    self._agent.config.runtime.web_user, self._agent.own / BESIDE, self._agent.tell, self._agent.news,
                    self._listen, self._render, self._answer, self._lost)
                self.process.start()
            elif self.process is not None:
                await self._reconfigure(self.process)

    async def _reconfigure(self, process: WebProcess) -> None:
        try:
            if error := await process.configure():
                LOG.error("the page: %s", error)
        except (ChannelError, OSError) as reason:      # the next one is configured with what is right then
            LOG.warning("the page could not be configured: %s", reason)

    async def stop(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self.process is not None:
            await self.process.stop()
            self._agent.config.web_socket.unlink(missing_ok=True)

    def _listen(self) -> list[Any]:
        config = self._agent.config
        return list(open_page(config.web.listen, config.web_socket))

    def _render(self, number: int) -> asked.Configure:
        """Raises OSError: its certificate cannot be read."""
        config = self._agent.config
        ways = tuple(asked.Way(one.name, isinstance(one, SamlEntry)) for one in config.logins)
        certificate, key = "", ""
        if config.web.tls_key and config.web.tls_certificate:
            try:
                key = read_secret(config.web.tls_key, PEM_LIMIT, "tls_key").decode()
                with open(config.web.tls_certificate, "rb") as opened:
                    certificate = opened.read(PEM_LIMIT).decode()
            except (SecretError, UnicodeDecodeError) as reason:
                raise OSError(f"[web]: {reason}") from None
        return asked.Configure(number, config.web.url or "", ways, certificate, key, os.uname().nodename)

    def _lost(self) -> None:
        """Nobody looks any more.  Who is logged in stays so: their secrets are in their browsers, their hashes here."""
        if self._watching:
            self._watching = False
            self._agent.watching.leave(BESIDE)

    def view(self) -> ServiceView | None:
        return self.process.view() if self.process is not None else None

    def hints(self) -> tuple[str, ...]:
        """For the status."""
        config, found = self._agent.config, []
        if self.process is not None and not self.process.up:
            found.append(f"the page {config.web.url} cannot be reached: its process is not up: {self.process.error}")
        if config.web.url and not config.logins:
            found.append(said_of_nobody(config.web.url))
        return tuple(found)

    # questions

    async def _answer(self, question: asked.Question) -> asked.Message:
        return await self._answers[type(question)](question)

    # logins

    async def _begin(self, question: asked.BeginLogin) -> asked.Begun:
        identities = self._agent.identities
        login, begun = await identities.begin_web(question.provider, self._agent.config.web.url or "")
        if login is None:
            return asked.Begun(question.number, begun.error)
        secret, out = self.sessions.begin(login.session, begun.relay)
        for one in out:
            identities.end_web(one, "too many logins were begun at once")
        return asked.Begun(question.number, "", secret, begun.url)

    async def _finish(self, question: asked.FinishLogin) -> asked.Opened:
        """By the browser that began it, and no other."""
        session = self.sessions.pending(question.secret)
        login = self._agent.identities.logins.find(session)
        if login is None or login.provider != question.provider:
            return asked.Opened(question.number, "no login of this browser waits for an answer: log in again")
        if not login.subject:
            if isinstance(self._agent.config.provider(login.provider), SamlEntry):
                return asked.Opened(question.number, "its provider has not answered")
            if error := await self._agent.identities.finish_web(session, question.query):
                return asked.Opened(question.number, error)
        opened = self._agent.identities.logins.opened(session)
        if opened is None or not self.sessions.pending(question.secret):
            return asked.Opened(question.number, "it has ended meanwhile: log in again")
        secret, out = self.sessions.open(question.secret, opened.subject, _uptime())
        for one in out:
            self._agent.identities.end_web(one, "too many logins of one person at the page")
        return asked.Opened(question.number, "", secret, max(0, self._until(session) - int(time.time())))

    async def _finish_saml(self, question: asked.FinishSaml) -> asked.Answered:
        session = self.sessions.of_relay(question.relay)
        login = self._agent.identities.logins.find(session)
        if login is None or login.provider != question.provider or not question.form.isascii():
            return asked.Answered(question.number, "no login waits for this answer: log in again")
        self.sessions.answered(question.relay)
        return asked.Answered(
            question.number, await self._agent.identities.finish_web(session, question.form.decode()))

    def _until(self, session: str) -> int:
        """Seconds UTC at which it ends at the latest."""
        login = self._agent.identities.logins.opened(session)
        if login is None:
            return 0
        until = login.opened + login.longest
        saml = isinstance(self._agent.config.provider(login.provider), SamlEntry)
        return min(until, login.expires) if saml else until

    def _login_ended(self, session: str) -> None:
        self.sessions.end(session)
        self._send(asked.Over(session))

    async def _logout(self, question: asked.Logout) -> asked.Answered:
        if (held := self.sessions.find(question.secret)) is not None:
            self._agent.identities.end_web(held.login, "logged out")
        return asked.Answered(question.number)

    def look(self) -> None:
        """Each second."""
        for session in self.sessions.idle(_uptime(), self._agent.config.web.idle):
            self._agent.identities.end_web(session, "nobody has used it")

    # what people see and do

    def _behind(self, secret: str) -> tuple[str, Principal] | None:
        """Whose it is, and the name of its session."""
        held = self.sessions.find(secret)
        who = self._agent.identities.web_principal(held.login) if held is not None else None
        return None if held is None or who is None else (held.login, who)

    def _is(self, who: Principal, what: str) -> bool:
        return not set(getattr(self._agent.config.web, what)).isdisjoint(who.groups)

    async def _who(self, question: asked.AskWho) -> asked.Who:
        found = self._behind(question.secret)
        if found is None:
            return asked.Who(question.number)
        if question.used:
            self.sessions.use(question.secret, _uptime())
        session, who = found
        return asked.Who(question.number, asked.Person(
            session, who.subject, who.groups, self._until(session), self._is(who, "operators"),
            self._is(who, "auditors")))

    async def _holds(self, question: asked.ListHolds) -> asked.Holds:
        found = self._behind(question.secret)
        if found is None:
            return asked.Holds(question.number, error=GONE)
        try:
            answer = await self._held.get()
            whole = await self._whole(question.ticket)
        except ChannelError as reason:
            return asked.Holds(question.number, error=str(reason))
        names = self._agent.identities.names(found[1].subject)
        seen = tuple(whole.get(one.ticket, one) for one in answer.holds if is_for(one, names, found[1].groups))
        return asked.Holds(question.number, seen)

    async def _whole(self, ticket: str) -> dict[str, HoldView]:
        """The hold that somebody looks at is not cut because much else waits."""
        if not ticket:
            return {}
        answer = await self._agent.enforcer.channel.ask(
            lambda number: messages.ListHolds(number, ticket), messages.HoldsAnswer)
        return {one.ticket: one for one in answer.holds}

    async def _sessions(self, question: asked.ListSessions) -> asked.Sessions:
        found = self._behind(question.secret)
        if found is None or not (self._is(found[1], "auditors") or self._is(found[1], "operators")):
            return asked.Sessions(question.number, error=GONE if found is None else "this is for [web] auditors")
        try:
            answer = await self._opened.get()
        except ChannelError as reason:
            return asked.Sessions(question.number, error=str(reason))
        return _fitting(asked.Sessions(question.number, answer.sessions))

    async def _recorded(self, question: asked.AskRecorded) -> asked.Recorded:
        found = self._behind(question.secret)
        if found is None:
            return asked.Recorded(question.number, error=GONE)
        _, who = found
        if not self._is(who, "auditors"):
            past = question.what == HISTORY and question.name
            holds = await self._holds(asked.ListHolds(0, question.secret)) if past else asked.Holds(0)
            if not any(one.subject == question.name for one in holds.holds):
                return asked.Recorded(question.number, error="this is for [web] auditors")
        answer = await self._agent.recorder.page(
            AskRecording(0, question.what, who.subject, question.name, question.at, question.operation))
        return asked.Recorded(question.number, answer.content, answer.wrong)

    async def _decide(self, question: asked.Decide | asked.Revoke) -> asked.Answered:
        await self._agent.turn.wait()
        found = self._behind(question.secret)
        if found is None:
            return asked.Answered(question.number, GONE)
        session, who = found
        if locked := self._agent.locks.why(self._agent.identities.names(who.subject)):
            return asked.Answered(question.number, locked)
        self.sessions.use(question.secret, _uptime())
        error = await self._agent.questions.answer(_wanted(question), who.subject, who.groups, f"web {session}")
        return asked.Answered(question.number, error)

    async def _kill(self, question: asked.Kill) -> asked.Answered:
        await self._agent.turn.wait()
        found = self._behind(question.secret)
        if found is None:
            return asked.Answered(question.number, GONE)
        session, who = found
        if not self._is(who, "operators"):
            return asked.Answered(question.number, "this is for [web] operators")
        if locked := self._agent.locks.why(self._agent.identities.names(who.subject)):
            return asked.Answered(question.number, locked)
        self.sessions.use(question.secret, _uptime())
        killed = await self._agent.questions.end_session(
            control.KillSession(question.session, question.reason), who.subject, f"web {session}")
        return asked.Answered(question.number, killed.error)

    async def _link(self, question: asked.AskLink) -> asked.Link:
        found = await self.links.look(question.token) if self.links is not None else asked.Link(0)
        return msgspec.structs.replace(found, number=question.number)

    async def _answer_link(self, question: asked.AnswerLink) -> asked.Answered:
        return asked.Answered(question.number, await self.links.answer(question.token, question.reason)
                              if self.links is not None else "there are no such links")

    async def _of_provider(self, question: asked.Came) -> asked.Replied:
        """What a provider sends by itself: that somebody has logged out there."""
        status, said, away = await self._agent.identities.posts.came(
            question.part, question.name, question.method, question.query, question.body,
            self._agent.config.web.url or "")
        return asked.Replied(question.number, status, body=f"{said}\n".encode() if said else b"", location=away)

    async def _came(self, question: asked.Came) -> asked.Replied:
        part = self.parts.get(question.part)
        if part is None:
            return asked.Replied(question.number, 404, body=b"there is nothing here\n")
        try:
            found = await part(question)
        except Exception as reason:   # whatever it is: what came is anybody's, and ends nothing
            LOG.error("what came for %s could not be answered: %s", question.part, type(reason).__name__)
            return asked.Replied(question.number, 500, body=b"it could not be answered\n")
        return msgspec.structs.replace(found, number=question.number)

    # changes

    async def _watch(self, question: asked.Watch) -> asked.Answered:
        self._watching = question.on
        if question.on:
            self._agent.watching.watch(BESIDE, self.enforcer_says)
        else:
            self._agent.watching.leave(BESIDE)
        return asked.Answered(question.number)

    def enforcer_says(self, message: messages.Changed) -> None:
        self._tell(asked.Changed(message.holds, message.sessions))

    def enforcer_changed(self) -> None:
        """It has come or gone."""
        self._tell(asked.Changed(True, True))

    def _tell(self, changed: asked.Changed) -> None:
        if not self._watching:
            return
        self._changed = asked.Changed(
            self._changed.holds or changed.holds, self._changed.sessions or changed.sessions)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TELL, self._say)

    def _say(self) -> None:
        said, self._changed, self._timer = self._changed, asked.Changed(), None
        self._send(said)

    def _send(self, message: asked.Message) -> None:
        if self.process is not None:
            with suppress(ChannelError):
                self.process.channel.send(message)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def is_for(view: HoldView, names: tuple[str, ...], groups: tuple[str, ...]) -> bool:
    """Who may answer it, and who has asked for it by any name, see it; nobody else learns what others do."""
    return view.subject in names or not {*view.approvers, *view.break_glass}.isdisjoint(groups)


def _wanted(question: asked.Decide | asked.Revoke) -> control.Decide | control.BreakGlass | control.Revoke:
    if isinstance(question, asked.Revoke):
        return control.Revoke(question.ticket, question.reason)
    if question.glass:
        return control.BreakGlass(question.ticket, question.reason)
    return control.Decide(question.ticket, question.approve, question.reason)


def _fitting(answer: asked.Sessions) -> asked.Sessions:
    """A list whose texts come from crews may outgrow a frame: then the oldest of it."""
    while True:
        try:
            asked.render_frame(answer)
        except ValueError:
            answer = msgspec.structs.replace(answer, sessions=answer.sessions[:len(answer.sessions) // 2])
        else:
            return answer


def _uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
