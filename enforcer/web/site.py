"""The page's routes: a request in, a question to the agent, HTML out.  `Site.routes` is the one table of them.

Nothing is known here of anybody but what their browser sends: the secret of the cookie goes with each question, and
the agent says whose it is.  What changes anything is posted, by a page of ours (`guard.is_own`), with the token of
their forms.
"""
from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from agent.contract import web as asked
from agent.contract.messages import HoldView
from enforcer.recording.paged import HistoryPage, LinesPage, SessionsPage, TapePage
from enforcer.web import cookies, guard, pages
from enforcer.web.channel import NoAnswer
from enforcer.web.rates import ANSWER, LINK, LOGIN, REQUEST, Rates, who_is
from enforcer.web.shown import (
    APPROVE,
    DENY,
    GLASS,
    REASON,
    REVOKE,
    VERBS,
    Answering,
    HoldShown,
    Page,
    Paths,
    ProviderLink,
    Viewer,
    seen_of,
)
from enforcer.web.streams import Streams, events

LOG = logging.getLogger("weir.web")

FIELDS: Final = 16 << 10              # bytes of a form of ours
WANTED: Final = 256                   # logins under way that lead to a page of their own
LARGE: Final = 32                     # longer bodies, of who need not be logged in, at a time
READING: Final = 20.0                 # seconds in which a body must be there
WRITING: Final = 20.0                 # seconds in which a stream must take what it is sent
KEPT: Final = "private, max-age=31536000, immutable"    # of static files: their path changes with them
POLL: Final = 2.0                     # seconds between looks at what an open session does, where somebody watches that
TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
                ".woff2": "font/woff2", ".png": "image/png", ".ico": "image/x-icon"}
DID: Final = {APPROVE: "approved", DENY: "denied", GLASS: "let through: the glass is broken", REVOKE: "revoked",
              "kill": "ended", "logout": "you are logged out"}
_TICKET: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_PLACE: Final = re.compile(r"/(holds|sessions|recordings)(/[A-Za-z0-9]{1,64})?|/history")        # to come back to
_PROVIDER: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_HANDED_ON: Final = re.compile(rb"content-type|x-slack-[a-z-]{1,40}")
PATHS: Final = Paths(static=f"/static/{pages.VERSION}")
Ask = Callable[[asked.Question, type[Any]], Awaitable[Any]]
_Answer = TypeVar("_Answer", bound=asked.Message)
_Page = TypeVar("_Page", SessionsPage, LinesPage, HistoryPage, TapePage)


@dataclass(frozen=True)
class Seen:
    """Who asks."""

    secret: str
    person: asked.Person


class Refused(HTTPException):
    """Said to a person, as a page."""


class Site:
    """`ask` asks the agent; `configuration` is replaced as a whole."""

    def __init__(self, ask: Ask, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._clock = ask, clock
        self.configuration = asked.Configure(0, "")
        self._rates = Rates()
        self._wanted: OrderedDict[str, str] = OrderedDict()    # by secret of a login under way, where it leads
        self._large = asyncio.Semaphore(LARGE)
        self._tasks: set[asyncio.Task[None]] = set()
        self.streams = Streams(self._watch)
        self._static = {path.name: path.read_bytes() for path in pages.FILES.iterdir() if path.suffix in TYPES}
        # Starlette's own handling of what was not foreseen prints it: here it is said by its type alone.
        self._starlette = Starlette(
            routes=self.routes(), exception_handlers={HTTPException: self._refused, Exception: self._broken})

    def routes(self) -> list[Route]:
        get, post = ["GET"], ["POST"]
        return [
            Route("/", self.approvals, methods=get),
            Route(PATHS.static + "/{name}", self.static, methods=get),
            Route("/login", self.login, methods=get),
            Route("/login/{provider}", self.begin, methods=post),
            Route("/login/{provider}/back", self.back, methods=get),
            Route("/saml/{provider}/acs", self.acs, methods=post),
            Route("/saml/{provider}/done", self.saml_done, methods=get),
            Route("/logout", self.logout, methods=post),
            Route("/holds/{ticket}", self.hold, methods=get),
            Route("/holds/{ticket}/{verb}", self.answer, methods=post),
            Route("/events/holds", self.events_holds, methods=get),
            Route("/events/sessions", self.events_sessions, methods=get),
            Route("/events/sessions/{session}", self.events_lines, methods=get),
            Route("/recordings", self.recordings, methods=get),
            Route("/recordings/{session}", self.replay, methods=get),
            Route("/recordings/{session}/tape/{operation:int}", self.tape, methods=get),
            Route("/history", self.history, methods=get),
            Route("/sessions", self.sessions, methods=get),
            Route("/sessions/{session}", self.session, methods=get),
            Route("/sessions/{session}/kill", self.kill, methods=post),
            Route("/answer/{token}", self.link, methods=get),
            Route("/answer/{token}", self.answer_link, methods=post),
            # Of other parts of the agent, which read it there: no session, no form of ours.
            Route("/slack/actions", self._handed("slack"), methods=post),
            Route("/backchannel/{name:path}", self._handed("backchannel"), methods=post),
            Route("/saml/{name:path}", self._handed("saml"), methods=["GET", "POST"]),
        ]

    # what every request goes through

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The application (ASGI 3)."""
        if scope["type"] != "http":
            return
        scope.setdefault("state", {})
        url, headers = self.configuration.url, scope["headers"]
        status, reason = guard.why_not(url, scope["method"], _size(scope), headers) if url else (503, "not yet")
        if not status and not self._rates.take(REQUEST, _address(scope), self._clock()):
            status, reason = 429, "too many requests"
        sender = self._with_headers(send, url)
        if status:
            await Response(f"{reason}\n", status, {"connection": "close"}, "text/plain")(scope, receive, sender)
            return
        try:
            await self._starlette(scope, receive, sender)
        except ClientDisconnect:
            pass
        except Exception as wrong:    # its text may hold what a browser sent
            LOG.error("a request could not be answered: %s", type(wrong).__name__)
            raise RuntimeError("see above") from None      # ends the connection

    def _with_headers(self, send: Any, url: str) -> Any:
        added = [(name.encode(), value.encode()) for name, value in guard.headers_of(url)]

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = list(message["headers"])
                there = {name for name, _ in own}
                message = {**message, "headers": own + [one for one in added if one[0] not in there]}
            await send(message)

        return sending

    async def _refused(self, request: Request, wrong: Exception) -> Response:
        assert isinstance(wrong, HTTPException)
        says = "there is nothing here" if wrong.status_code == 404 else "the page cannot do that"
        if isinstance(wrong, Refused):
            says = wrong.detail
        response = self._page_of_error(wrong.status_code, says)
        response.headers.update(wrong.headers or {})
        return response

    async def _broken(self, _: Request, __: Exception) -> Response:
        return self._page_of_error(500, "the page could not do it")

    def _page_of_error(self, status: int, says: str) -> Response:
        return _html(pages.render_error(self._page(None), status, says), status)

    def _page(self, seen: Seen | None, done: str = "", wrong: str = "", csrf: str = "") -> Page:
        person = seen.person if seen else None
        viewer = Viewer(csrf=csrf) if seen is None or person is None else Viewer(
            person.subject, person.groups, True, person.auditor, cookies.token_of(seen.secret), person.operator)
        return Page(viewer, PATHS, time.time_ns(), self.configuration.host, done, wrong)

    async def _asked(self, question: asked.Question, wanted: type[_Answer]) -> _Answer:
        """Raises Refused."""
        try:
            return await self._ask(question, wanted)  # type: ignore[no-any-return]
        except NoAnswer:
            raise Refused(503, "Weir's agent does not answer: try again in a moment") from None

    def _cookie(self, request: Request, kind: str) -> str:
        given = request.headers.getlist("cookie")
        found = cookies.parse_cookies(given[0]) if len(given) == 1 else {}
        return found.get(cookies.name_of(kind, self._secure), "")

    @property
    def _secure(self) -> bool:
        return self.configuration.url.startswith("https:")

    def _set(self, response: Response, kind: str, value: str) -> None:
        response.headers.append("set-cookie", cookies.render_cookie(kind, value, self._secure))

    async def _seen(self, request: Request, used: bool = True) -> Seen | None:
        secret = self._cookie(request, cookies.SESSION)
        if not secret:
            return None
        person = (await self._asked(asked.AskWho(0, secret, used), asked.Who)).person
        return Seen(secret, person) if person is not None else None

    async def _known(self, request: Request) -> Seen:
        """Raises Refused, and leads to the login."""
        seen = await self._seen(request)
        if seen is None:
            path = request.url.path if request.method == "GET" and _PLACE.fullmatch(request.url.path) else ""
            raise Refused(303, "log in first", {"location": f"{PATHS.login}?to={path}" if path else PATHS.login})
        return seen

    async def _form(self, request: Request, secret: str) -> dict[str, str]:
        """What a form of ours sends.  Raises Refused: it is none."""
        if not guard.is_own(self.configuration.url, request.scope["headers"]):
            raise Refused(403, "this was not sent by a page of Weir's")
        if not guard.is_form(request.scope["headers"]):
            raise Refused(415, "this is no form")
        fields = _fields(await _body(request, FIELDS))
        if not secret:
            raise Refused(403, "your browser sent no cookie of this page: permit it to, then log in again")
        if not cookies.is_token(secret, fields.get("csrf", "")):
            raise Refused(403, "this form is of another login: load the page again")
        return fields

    def _slowly(self, kind: str, key: str) -> None:
        """Raises Refused."""
        if not self._rates.take(kind, key, self._clock()):
            raise Refused(429, "not so fast: try again in a moment", {"retry-after": "10"})

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        content = self._static.get(name)
        if content is None:
            raise Refused(404, "there is nothing here")
        return Response(content, 200, {"cache-control": KEPT}, TYPES[Path(name).suffix])

    # logins

    async def login(self, request: Request) -> Response:
        visit = self._cookie(request, cookies.VISIT)
        fresh = visit or cookies.mint()
        links = [ProviderLink(one.name, f"{PATHS.login}/{one.name}") for one in self.configuration.ways]
        done = DID["logout"] if request.query_params.get("did") == "logout" else ""
        wrong = "" if links else "nobody can log in here: Weir has no identity provider"
        response = _html(pages.render_login(
            self._page(None, done, wrong, cookies.token_of(fresh)), links, _place(request.query_params.get("to", ""))))
        if not visit:
            self._set(response, cookies.VISIT, fresh)
        return response

    async def begin(self, request: Request) -> Response:
        fields = await self._form(request, self._cookie(request, cookies.VISIT))
        self._slowly(LOGIN, _address(request.scope))
        begun = await self._asked(asked.BeginLogin(0, _provider(request)), asked.Begun)
        if begun.error or not begun.url.startswith("https://"):
            raise Refused(502, f"the login could not be begun: {begun.error or 'its provider is nowhere'}")
        # Not by a redirect: `form-action 'self'` holds for where a form's answer leads, too.
        response = _html(pages.render_begun(self._page(None), _provider(request), begun.url))
        response.headers["refresh"] = f"0; url={begun.url}"
        self._set(response, cookies.LOGIN, begun.secret)
        if place := _place(fields.get("to", "")):
            self._wanted[begun.secret] = place
            while len(self._wanted) > WANTED:
                self._wanted.popitem(last=False)
        return response

    async def back(self, request: Request) -> Response:
        return await self._finish(request, request.url.query)

    async def acs(self, request: Request) -> Response:
        """By a page of the provider's, so without cookies; whose login it is, the next request says."""
        self._slowly(LOGIN, _address(request.scope))
        provider = _provider(request)
        async with self._large:
            form = await _body(request, asked.FORM)
        relay = _fields(form, 8).get("RelayState", "")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", relay):
            raise Refused(400, "this is no answer to a login of Weir's")
        done = await self._asked(asked.FinishSaml(0, provider, relay, form), asked.Answered)
        if done.error:
            raise Refused(403, f"you are not logged in: {done.error}")
        return _lead(f"/saml/{provider}/done")

    async def saml_done(self, request: Request) -> Response:
        return await self._finish(request, "")

    async def _finish(self, request: Request, query: str) -> Response:
        self._slowly(LOGIN, _address(request.scope))
        if len(query) > asked.QUERY:
            raise Refused(400, "what came back is too long")
        secret = self._cookie(request, cookies.LOGIN)
        if not secret:
            raise Refused(403, "no login of this browser is open any more: log in again, in one tab")
        opened = await self._asked(asked.FinishLogin(0, secret, _provider(request), query), asked.Opened)
        response = _lead(self._wanted.pop(secret, PATHS.approvals))
        if opened.error:
            response = self._page_of_error(403, f"you are not logged in: {opened.error}")
        else:
            self._set(response, cookies.SESSION, opened.secret)
        self._set(response, cookies.LOGIN, "")
        return response

    async def logout(self, request: Request) -> Response:
        secret = self._cookie(request, cookies.SESSION)
        await self._form(request, secret)
        await self._asked(asked.Logout(0, secret), asked.Answered)
        response = _lead(f"{PATHS.login}?did=logout")
        self._set(response, cookies.SESSION, "")
        response.headers["clear-site-data"] = '"cache", "storage"'
        return response

    # what waits

    async def approvals(self, request: Request) -> Response:
        seen = await self._known(request)
        found = await self._asked(asked.ListHolds(0, seen.secret), asked.Holds)
        done = DID.get(request.query_params.get("did", ""), "")
        return _html(pages.render_approvals(self._page(seen, done, found.error), found.holds))

    async def hold(self, request: Request) -> Response:
        seen = await self._known(request)
        found = await self._asked(asked.ListHolds(0, seen.secret, _ticket(request)), asked.Holds)
        return await self._shown(request, seen, found, found.error)

    async def _shown(self, request: Request, seen: Seen, found: asked.Holds, wrong: str, status: int = 200) -> Response:
        view = _of(found.holds, request.path_params["ticket"])
        if view is None:
            says = found.error or wrong or "nothing of this name waits for you any more"
            return _html(pages.render_error(self._page(seen), 404, says), 404)
        past = await self._recorded(seen, "history", HistoryPage, view.subject)
        shown = HoldShown(view, past)
        return _html(pages.render_hold(self._page(seen, wrong=wrong), shown, found.holds), status)

    async def answer(self, request: Request) -> Response:
        seen, fields, verb = *await self._posted(request), request.path_params["verb"]
        if verb not in VERBS:
            raise Refused(404, "there is nothing here")
        found = await self._asked(asked.ListHolds(0, seen.secret, _ticket(request)), asked.Holds)
        view, reason = _of(found.holds, request.path_params["ticket"]), fields.get("reason", "")
        if view is None:
            return await self._shown(request, seen, found, "", 404)
        if verb != DENY and seen_of(view) != fields.get("seen", ""):
            return await self._shown(request, seen, found, "it is not what you have seen any more: look again", 409)
        if len(reason) > REASON or not reason.isprintable():
            return await self._shown(request, seen, found, f"a reason is one line of at most {REASON} characters", 400)
        question = (asked.Revoke(0, seen.secret, view.ticket, reason) if verb == REVOKE else
                    asked.Decide(0, seen.secret, view.ticket, verb != DENY, reason, verb == GLASS))
        if error := (await self._asked(question, asked.Answered)).error:
            return await self._shown(request, seen, found, error, 403)
        return _lead(f"{PATHS.approvals}?did={verb}")

    async def _posted(self, request: Request) -> tuple[Seen, dict[str, str]]:
        """Raises Refused."""
        fields = await self._form(request, self._cookie(request, cookies.SESSION))
        seen = await self._known(request)
        self._slowly(ANSWER, seen.person.session)
        return seen, fields

    # sessions

    async def sessions(self, request: Request) -> Response:
        seen = await self._known(request)
        found = await self._asked(asked.ListSessions(0, seen.secret), asked.Sessions)
        if not (seen.person.auditor or seen.person.operator):
            raise Refused(403, found.error)
        done = DID.get(request.query_params.get("did", ""), "")
        return _html(pages.render_sessions(self._page(seen, done, found.error), found.sessions))

    async def session(self, request: Request) -> Response:
        seen = await self._known(request)
        found = await self._asked(asked.ListSessions(0, seen.secret), asked.Sessions)
        if found.error:
            raise Refused(403, found.error)
        name = request.path_params["session"]
        view = next((one for one in found.sessions if one.session == name), None)
        lines = await self._lines(seen, name, 0) if view and seen.person.auditor else LinesPage()
        return _html(pages.render_session(self._page(seen), view, lines))

    async def kill(self, request: Request) -> Response:
        seen, fields = await self._posted(request)
        session, reason = request.path_params["session"], fields.get("reason", "")
        if not _TICKET.fullmatch(session) or len(reason) > REASON or not reason.isprintable():
            raise Refused(400, f"a reason is one line of at most {REASON} characters")
        if error := (await self._asked(asked.Kill(0, seen.secret, session, reason), asked.Answered)).error:
            raise Refused(403, error)
        return _lead(f"{PATHS.sessions}?did=kill")

    # what is recorded

    async def _recorded(
        self, seen: Seen, what: Any, kind: type[_Page], name: str = "", at: int = 0, operation: int = 0,
    ) -> _Page:
        """A page of it, or one that says why there is none.  Raises Refused."""
        found = await self._asked(asked.AskRecorded(0, seen.secret, what, name[:300], at, operation), asked.Recorded)
        if found.error:
            return kind(wrong=found.error)
        try:
            return msgspec.msgpack.decode(found.content, type=kind)
        except msgspec.MsgspecError:
            return kind(wrong="the recorder answered what is no page")

    async def _lines(self, seen: Seen, session: str, after: int) -> LinesPage:
        return await self._recorded(seen, "lines", LinesPage, session, after)

    async def recordings(self, request: Request) -> Response:
        seen = await self._auditor(request)
        found = await self._recorded(seen, "sessions", SessionsPage, "", _number(request, "before"))
        return _html(pages.render_recordings(self._page(seen), found))

    async def replay(self, request: Request) -> Response:
        seen = await self._auditor(request)
        found = await self._lines(seen, request.path_params["session"], _number(request, "after"))
        return _html(pages.render_replay(self._page(seen), found))

    async def tape(self, request: Request) -> Response:
        """Pieces of an operation's streams, for the page's own player (static/tape.js).  Who watches what goes on does
        not use their login by it."""
        if guard.is_cross(request.scope["headers"]):
            raise Refused(403, "this was not asked by a page of Weir's")
        seen = await self._seen(request, used=not request.query_params.get("live"))
        if seen is None or not seen.person.auditor:
            raise Refused(403 if seen else 401, "this is for [web] auditors")
        session, operation = request.path_params["session"], min(request.path_params["operation"], (1 << 63) - 1)
        found = await self._recorded(seen, "tape", TapePage, session, _number(request, "after"), operation)
        return Response(pages.render_tape(found), media_type="application/json")

    async def history(self, request: Request) -> Response:
        seen = await self._auditor(request)
        found = await self._recorded(seen, "history", HistoryPage, "", _number(request, "before"))
        return _html(pages.render_history(self._page(seen), found))

    async def _auditor(self, request: Request) -> Seen:
        """Raises Refused."""
        seen = await self._known(request)
        if not seen.person.auditor:
            raise Refused(403, "this is for [web] auditors")
        return seen

    # as it happens

    async def events_holds(self, request: Request) -> Response:
        seen = await self._streaming(request)

        async def fresh() -> str | None:
            found = await self._ask(asked.ListHolds(0, seen.secret), asked.Holds)
            return pages.render_holds(self._page(seen, wrong=found.error), found.holds)

        return self._stream(request, seen, "holds", fresh)

    async def events_sessions(self, request: Request) -> Response:
        seen = await self._streaming(request)
        if not (seen.person.auditor or seen.person.operator):
            raise Refused(403, "this is for [web] auditors")

        async def fresh() -> str | None:
            found = await self._ask(asked.ListSessions(0, seen.secret), asked.Sessions)
            return pages.render_session_rows(self._page(seen, wrong=found.error), found.sessions)

        return self._stream(request, seen, "sessions", fresh)

    async def events_lines(self, request: Request) -> Response:
        """What is recorded of an open session since."""
        seen = await self._streaming(request)
        if not seen.person.auditor:
            raise Refused(403, "this is for [web] auditors")
        session, given = request.path_params["session"], request.headers.get("last-event-id", "")
        last = [int(given) if given.isdecimal() and len(given) < 19 else _number(request, "after")]

        async def fresh() -> str | None:
            found = await self._lines(seen, session, last[0])
            if found.lines and not found.wrong:
                last[0] = found.last
                return pages.render_lines(self._page(seen), found)
            return ""

        return self._stream(request, seen, "lines", fresh, lambda: last[0])

    async def _streaming(self, request: Request) -> Seen:
        if guard.is_cross(request.scope["headers"]):
            raise Refused(403, "this was not asked by a page of Weir's")
        seen = await self._seen(request, used=False)
        if seen is None:
            raise Refused(401, "you are not logged in")
        return seen

    def _stream(
        self, request: Request, seen: Seen, kind: str, fresh: Callable[[], Awaitable[str | None]],
        last: Callable[[], int] | None = None,
    ) -> Response:
        stream = self.streams.open(seen.person.session, kind)
        if stream is None:
            raise Refused(429, "too many pages are open", {"retry-after": "30"})
        request.scope["state"]["stream"] = True

        async def holds() -> bool:
            found = await self._ask(asked.AskWho(0, seen.secret, used=False), asked.Who)
            return found.person is not None

        async def body() -> Any:
            try:
                async for event in events(stream, fresh, holds, time.time_ns, last, POLL):
                    yield event
            except (NoAnswer, Refused):
                return
            finally:
                self.streams.close(stream)

        return Streaming(body(), media_type="text/event-stream")

    def _watch(self, on: bool) -> None:
        async def tell() -> None:
            with suppress(NoAnswer):
                await self._ask(asked.Watch(0, on), asked.Answered)

        task = asyncio.get_running_loop().create_task(tell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def news(self, message: asked.Changed | asked.Over) -> None:
        """Of the agent."""
        if isinstance(message, asked.Over):
            self.streams.over(message.session)
        else:
            self.streams.changed(message.holds, message.sessions)

    # signed links, and what is read elsewhere

    async def link(self, request: Request) -> Response:
        self._slowly(LINK, _address(request.scope))
        token, visit = request.path_params["token"], self._cookie(request, cookies.VISIT) or cookies.mint()
        found = await self._asked(asked.AskLink(0, token[:1024]), asked.Link)
        page = self._page(None, csrf=cookies.token_of(visit))
        shown = None if found.view is None else Answering(
            found.view, APPROVE if found.approve else DENY, found.by, f"/answer/{token}",
            (("csrf", page.viewer.csrf),), found.until)
        response = _html(pages.render_answer(page, shown), 200 if shown else 404)
        self._set(response, cookies.VISIT, visit)
        return response

    async def answer_link(self, request: Request) -> Response:
        fields = await self._form(request, self._cookie(request, cookies.VISIT))
        self._slowly(LINK, _address(request.scope))
        reason = fields.get("reason", "")
        if len(reason) > REASON or not reason.isprintable():
            raise Refused(400, f"a reason is one line of at most {REASON} characters")
        done = await self._asked(
            asked.AnswerLink(0, request.path_params["token"][:1024], reason), asked.Answered)
        if done.error:
            raise Refused(403, done.error)
        return _html(pages.render_answer(self._page(None), None, answered=True))

    def _handed(self, part: Any) -> Callable[[Request], Awaitable[Response]]:
        async def hand_on(request: Request) -> Response:
            self._slowly(part, _address(request.scope))
            name, query = request.path_params.get("name", ""), request.url.query
            headers = tuple((key.decode("latin-1"), value.decode("latin-1")) for key, value in
                            request.scope["headers"] if _HANDED_ON.fullmatch(key) and len(value) <= 4096)
            if len(name) > 256 or len(query) > asked.QUERY or len(headers) > asked.HEADERS:
                raise Refused(400, "this is too long")
            async with self._large:
                body = await _body(request, asked.FORM)
            method: Any = "POST" if request.method == "POST" else "GET"
            found = await self._asked(asked.Came(0, part, name, method, query, headers, body), asked.Replied)
            if found.location:
                known = _is_local(found.location) or found.location.startswith("https://")
                return _lead(found.location if known else PATHS.approvals)
            return Response(found.body, found.status, media_type=found.media)

        return hand_on


class Streaming(StreamingResponse):
    """Who does not read is let go."""

    async def stream_response(self, send: Any) -> None:
        async def sending(message: Any) -> None:
            async with asyncio.timeout(WRITING):
                await send(message)

        await super().stream_response(sending)


def _size(scope: Any) -> int:
    """Bytes of its head."""
    return len(scope["raw_path"]) + len(scope["query_string"]) + sum(
        len(name) + len(value) for name, value in scope["headers"])


def _html(text: str, status: int = 200) -> Response:
    return Response(text, status, media_type="text/html")


def _lead(path: str) -> Response:
    return RedirectResponse(path, 303)


def _is_local(path: str) -> bool:
    """Of this page, whatever a browser makes of it."""
    return re.fullmatch(r"/([A-Za-z0-9_.~?=&-][A-Za-z0-9_./~?=&-]*)?", path) is not None


def _place(path: str) -> str:
    """Of ours, where a login may lead; "" where it is none."""
    return path if _PLACE.fullmatch(path) else ""


def _ticket(request: Request) -> str:
    return str(request.path_params["ticket"])[:16]


def _of(holds: tuple[HoldView, ...], ticket: str) -> HoldView | None:
    return next((one for one in holds if one.ticket == ticket), None)


def _number(request: Request, name: str) -> int:
    """Of the query; 0 where it is none."""
    given = request.query_params.get(name, "")
    return int(given) if given.isdecimal() and len(given) < 19 else 0


def _provider(request: Request) -> str:
    name: str = request.path_params["provider"]
    if not _PROVIDER.fullmatch(name):
        raise Refused(404, "there is no such provider")
    return name


def _address(scope: Any) -> str:
    """Of the peer; "" for this machine's own, which speak for many."""
    client = scope.get("client")
    return who_is(str(client[0])) if client else ""


def _fields(body: bytes, most: int = 16) -> dict[str, str]:
    """Of a form; a name that stands twice makes it none.  Raises Refused."""
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=most,
                          errors="strict") if body else []
    except ValueError:
        raise Refused(400, "this form is malformed") from None
    if len(dict(pairs)) != len(pairs):
        raise Refused(400, "this form is malformed")
    return dict(pairs)


async def _body(request: Request, limit: int) -> bytes:
    """Raises Refused: it is longer, or slower than READING."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:12]) > limit:
        raise Refused(413, "this is too long", {"connection": "close"})
    found = bytearray()
    try:
        async with asyncio.timeout(READING):
            async for piece in request.stream():
                found += piece
                if len(found) > limit:
                    raise Refused(413, "this is too long", {"connection": "close"})
    except TimeoutError:
        raise Refused(408, "this took too long", {"connection": "close"}) from None
    return bytes(found)
