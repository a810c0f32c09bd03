"""The pages on a loopback port: a real server, the policy of the product's own, what is on it is the test's to say."""
from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from agent.contract.messages import HoldView, SessionView
from enforcer.recording.paged import HistoryPage, LinesPage, SessionsPage, TapePage
from enforcer.web import pages
from enforcer.web.shown import POLICY, Answering, HoldShown, Page, Paths, ProviderLink, Viewer, seen_of

VIEWER = Viewer("keycloak:bob", ("dba", "oncall"), True, True, "csrf-token", True)
PATHS = Paths(static=f"/static/{pages.VERSION}")


@dataclass
class Stage:
    """What is shown; `posted` is what the browser sent.  Changing `holds` and `push()` is what the agent would do."""

    holds: list[HoldView] = field(default_factory=list)
    sessions: list[SessionView] = field(default_factory=list)
    lines: LinesPage = field(default_factory=LinesPage)
    came: LinesPage = field(default_factory=LinesPage)     # of the live session, since
    recordings: SessionsPage = field(default_factory=SessionsPage)
    history: HistoryPage = field(default_factory=HistoryPage)
    asked: Answering | None = None
    tape: Callable[[str, int, int], TapePage] = lambda session, operation, after: TapePage(wrong="none")
    fetched: int = 0                  # pages of tapes
    viewer: Viewer = VIEWER
    posted: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    streams: int = 0
    refusing: bool = False            # streams that are asked for anew
    port: int = 0
    _serial: int = 0
    _cuts: int = 0

    def push(self) -> None:
        self._serial += 1

    def cut(self) -> None:
        self._cuts += 1

    def page(self, request: Request) -> Page:
        query = request.query_params
        return Page(self.viewer, PATHS, now=time.time_ns(), host="crews-1", done=query.get("done", ""),
                    wrong=query.get("wrong", ""))

    def at(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    # what is served

    def approvals(self, request: Request) -> str:
        return pages.render_approvals(self.page(request), self.holds)

    def hold(self, request: Request) -> str:
        found = [one for one in self.holds if one.ticket == request.path_params["name"]]
        if not found:
            return pages.render_error(self.page(request), 404, "Nothing of this ticket waits or stands")
        session = next((one for one in self.sessions if one.session == found[0].session), None)
        return pages.render_hold(self.page(request), HoldShown(found[0], self.history, session), self.holds)

    async def answer(self, request: Request) -> Response:
        form = {name: str(value) for name, value in (await request.form()).items()}
        self.posted.append((request.url.path, form))
        ticket, verb = request.url.path.split("/")[-2:]
        now = [one for one in self.holds if one.ticket == ticket]
        if not now or form.get("seen") != seen_of(now[0]):
            return RedirectResponse(f"/holds/{ticket}?wrong=changed", 303)
        self.holds = [one for one in self.holds if one.ticket != ticket]
        self.push()
        return RedirectResponse(f"/?done={ticket}: {verb}", 303)

    def session(self, request: Request) -> str:
        found = [one for one in self.sessions if one.session == request.path_params["name"]]
        return pages.render_session(self.page(request), found[0] if found else None, self.lines)

    async def stream(self, request: Request) -> Response:
        if self.refusing:
            return Response(status_code=503)
        kind = request.path_params["kind"]
        self.streams += 1
        return StreamingResponse(self._events(kind, self.page(request)), media_type="text/event-stream")

    async def _events(self, kind: str, page: Page) -> AsyncIterator[str]:
        serial, cuts = -1, self._cuts
        while self._cuts == cuts:
            if self._serial != serial:
                serial = self._serial
                yield event(kind.partition("/")[0] if kind != "session" else "lines", self._said(kind, page))
            await asyncio.sleep(0.02)

    def _said(self, kind: str, page: Page) -> str:
        if kind == "holds":
            return pages.render_holds(page, self.holds)
        if kind == "sessions":
            return pages.render_session_rows(page, self.sessions)
        return pages.render_lines(page, self.came)

    def app(self) -> Starlette:
        def html(render: Callable[[Request], str]) -> Callable[[Request], Response]:
            return lambda request: HTMLResponse(render(request))

        def of(render: Callable[..., str], name: str) -> Callable[[Request], Response]:
            return html(lambda request: render(self.page(request), getattr(self, name)))

        app = Starlette(routes=[
            Route("/", html(self.approvals)), Route("/holds/{name}", html(self.hold)),
            Route("/holds/{name}/{verb}", self.answer, methods=["POST"]),
            Route("/sessions", of(pages.render_sessions, "sessions")),
            Route("/sessions/{name}", html(self.session)),
            Route("/recordings", of(pages.render_recordings, "recordings")),
            Route("/recordings/{name}", of(pages.render_replay, "lines")),
            Route("/recordings/{name}/tape/{operation:int}", self._tape),
            Route("/history", of(pages.render_history, "history")), Route("/answer", of(pages.render_answer, "asked")),
            Route("/login", html(lambda request: pages.render_login(
                Page(paths=PATHS), [ProviderLink(name, f"/login/{name}") for name in ("keycloak", "corp")]))),
            Route("/error", html(lambda request: pages.render_error(self.page(request), 403, "This is not yours"))),
            Route("/events/{kind}", self.stream),
            Route("/events/sessions/{name}", self._lines_stream),
            Mount(PATHS.static, StaticFiles(directory=pages.FILES)),
        ])
        app.add_middleware(Strict)
        return app

    def _tape(self, request: Request) -> Response:
        self.fetched += 1
        found = self.tape(request.path_params["name"], request.path_params["operation"],
                          int(request.query_params["after"]))
        return Response(pages.render_tape(found), media_type="application/json")

    async def _lines_stream(self, request: Request) -> Response:
        return StreamingResponse(self._events("session", self.page(request)), media_type="text/event-stream")


class Strict:
    """The headers of the product."""

    def __init__(self, app: object) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        async def with_headers(message) -> None:  # type: ignore[no-untyped-def]
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode()),
                                      (b"x-content-type-options", b"nosniff")]
            await send(message)

        await self.app(scope, receive, with_headers)


def event(name: str, data: str) -> str:
    return f"event: {name}\n" + "".join(f"data: {line}\n" for line in data.split("\n")) + "\n"


class Served:
    """The stage, in a thread of its own."""

    def __init__(self, stage: Stage) -> None:
        self._server = uvicorn.Server(uvicorn.Config(
            stage.app(), host="127.0.0.1", port=0, log_level="error", timeout_graceful_shutdown=1))
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        until = time.monotonic() + 10
        while not self._server.started and time.monotonic() < until:
            time.sleep(0.01)
        stage.port = self._server.servers[0].sockets[0].getsockname()[1]

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(5)
