"""The page on a stage: its process' own code at a real socket, the agent's and the identity process' own behind it, a
provider that answers with really signed tokens; the enforcer's place alone is a test's."""
from __future__ import annotations

import asyncio
import html
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import msgspec
import saml_idp as idp
import signing
from hostile import Hostile

from agent.actions import Questions
from agent.block import sockdiag
from agent.channel import ChannelError
from agent.config import Config, parse_config
from agent.contract import identity as told
from agent.contract import messages
from agent.contract import web as asked
from agent.contract.ledger import AskRecording, RecordingAnswer
from agent.contract.locks import Lock, LockedOut
from agent.contract.messages import HoldView, SessionView
from agent.people.identities import Identities
from agent.people.identity_process import IdentityChannel
from agent.watching import Watching
from agent.web.page import Web
from agent.web.process import WebChannel
from enforcer.identity.channel import open_channel as open_identity
from enforcer.recording.paged import (
    HistoryPage,
    Line,
    LinesPage,
    Past,
    RecordedSession,
    SessionsPage,
    TapePage,
    TapePiece,
)
from enforcer.web.app import Process
from enforcer.web.channel import open_channel as open_web

CONFIG = """
[web]
url = "{url}"
listen = "127.0.0.1:{port}"
idle = "10m"
operators = ["ops"]
auditors = ["audit"]
[[provider]]
name = "corp"
issuer = "{issuer}"
client_id = "weir"
groups_claim = "realm_access.roles"
[provider.groups]
dba = "dba"
ops = "ops"
audit = "audit"
[[saml_provider]]
name = "adfs"
issuer = "https://idp.lab.example/saml"
entity_id = "urn:weir:lab"
metadata = "/nowhere/adfs.xml"
[saml_provider.groups]
dba = "dba"
"""
HOLD = HoldView(
    "abcdefgh", 1, 1 << 62, "corp:eve", "crew", 77, "/usr/bin/python3", "orders", "shop", "sql:delete public.orders",
    "DELETE FROM orders WHERE id = 7", (), ("deletes",), ("dba",), False, "s1")
SESSION = SessionView("s1", 1, "corp:eve", "crew", 77, "orders", "shop", 3, "held")


class Enforcer:
    """Its channel: what is held, what is open, what was asked."""

    def __init__(self) -> None:
        self.holds: tuple[HoldView, ...] = (HOLD,)
        self.whole: dict[str, HoldView] = {}  # by ticket, what is cut in the list
        self.sessions: tuple[SessionView, ...] = (SESSION,)
        self.asked: list[Any] = []
        self.error = ""               # of an answer
        self.away = False
        self.began = 1
        self.news: Any = None

    @property
    def channel(self) -> Enforcer:
        if self.away:
            raise ChannelError("the enforcer is not running")
        return self

    async def ask(self, make: Any, wanted: Any, seconds: float = 0) -> Any:
        message = make(1)
        self.asked.append(message)
        return {
            messages.ListHolds: lambda: messages.HoldsAnswer(1, tuple(
                self.whole.get(one.ticket, one) for one in self.holds if one.ticket == message.ticket)
                if message.ticket else self.holds),
            messages.ListSessions: lambda: messages.SessionsAnswer(1, self.sessions),
            messages.DecideHold: lambda: messages.HoldDecided(1, self.error),
            messages.RevokeHold: lambda: messages.HoldDecided(1, self.error),
            messages.EndSession: lambda: messages.SessionEnded(1, SESSION),
        }.get(type(message), lambda: messages.Done(1))()

    def those(self, kind: type[Any]) -> list[Any]:
        return [one for one in self.asked if isinstance(one, kind)]


class Recorder:
    """What it is asked, and says."""

    def __init__(self) -> None:
        self.asked: list[AskRecording] = []
        self.pages: dict[str, Any] = {
            "sessions": SessionsPage((RecordedSession(1, "s0", 1, 2, "corp:eve", "crew", 7, "/bin/x", "postgresql",
                                                      "orders", "shop", "app", 3, 0, 1),)),
            "lines": LinesPage(lines=(Line(7, 1, "asked", 1, "permit", text="SELECT 17"),), last=7),
            "tape": TapePage(True, 5 * 10**6, (
                TapePiece(3, 10**6, "out", b"\xff<b>"), TapePiece(4, 2, "err", None)), 4),
            "history": HistoryPage((Past(1, "sql:delete", "orders", "denied", "corp:dan", "never on Fridays"),))}

    async def page(self, question: AskRecording) -> RecordingAnswer:
        self.asked.append(question)
        found = self.pages[question.what]
        if question.what == "lines" and question.at >= found.last:
            found = LinesPage(last=question.at)
        return RecordingAnswer(1, msgspec.msgpack.encode(found))


class Kernel:
    """What it says of who connects."""

    def __init__(self) -> None:
        self.crew = False

    def is_crew(self, pid: int) -> bool:
        return self.crew

    def tcp_ends(self, port: int) -> list[Any]:
        return sockdiag.tcp_sockets(port)

    def crew_cgroups(self) -> set[int]:
        return {one.cgroup for one in self.tcp_ends(0)} if self.crew else set()


class Stage:
    """`client`: a browser's requests, without its cookies; `url`: the page's."""

    def __init__(self, provider: Hostile, url: str, agent: Any, process: Process, client: httpx2.AsyncClient) -> None:
        self.provider, self.url, self.agent, self.process, self.client = provider, url, agent, process, client
        self.web: Web = agent.web
        self.identities: Identities = agent.identities
        self.enforcer: Enforcer = agent.enforcer
        self.now = int(time.time())

    def browser(self, **headers: str) -> Browser:
        return Browser(self, headers)

    def lock(self, subject: str) -> None:
        self.agent.locks = LockedOut((Lock("subject", subject, "", "local:root", 1),))
        self.identities.end_locked()

    def events(self, name: str) -> list[dict[str, Any]]:
        return [detail for said, detail in self.agent.told if said == name]


class Browser:
    """It has cookies, and says where a request comes from."""

    def __init__(self, stage: Stage, headers: dict[str, str]) -> None:
        self.stage, self.headers = stage, headers
        self.cookies: dict[str, str] = {}
        self.page = ""

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self._send("GET", path, b"", {"Sec-Fetch-Site": "none", **headers})

    async def post(self, path: str, fields: dict[str, str] | bytes, **headers: str) -> httpx2.Response:
        body = fields if isinstance(fields, bytes) else str(httpx2.QueryParams(fields)).encode()
        return await self._send("POST", path, body, {
            "Content-Type": "application/x-www-form-urlencoded", "Origin": self.stage.url,
            "Sec-Fetch-Site": "same-origin", **headers})

    async def _send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> httpx2.Response:
        sent = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        cookie = {"Cookie": sent} if sent else {}
        self.stage.client.cookies.clear()
        answer = await self.stage.client.request(
            method, path, content=body, headers={**cookie, **self.headers, **{
                name.replace("_", "-"): value for name, value in headers.items() if value}})
        for line in answer.headers.get_list("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies.pop(name, None)
            if value.strip('"'):
                self.cookies[name] = value
        self.page = answer.text
        return answer

    def csrf(self) -> str:
        found = re.search(r'name="?csrf"? value="?([0-9a-f]{64})', self.page)
        assert found, self.page
        return found[1]

    async def begin(self) -> str:
        """Where the provider has it come back to, with its code."""
        assert (await self.get("/login")).status_code == 200
        begun = await self.post("/login/corp", {"csrf": self.csrf()})
        assert begun.status_code == 200, begun.text
        return begun.headers["refresh"].partition("url=")[2]

    def answered(self, url: str, sub: str = "ada", roles: tuple[str, ...] = ("dba",), **changed: Any) -> str:
        """By the provider: the path it sends the browser to."""
        query = {name: value[0] for name, value in parse_qs(urlsplit(url).query).items()}
        provider, now = self.stage.provider, int(time.time())
        whole = {"iss": provider.issuer, "sub": sub, "exp": now + 300, "iat": now, "nonce": query["nonce"],
                 "realm_access": {"roles": list(roles)}} | changed
        provider.say("/token", {"access_token": "a", "token_type": "Bearer", "id_token": signing.sign(
            signing.claims(**whole))})
        where = urlsplit(query["redirect_uri"])
        assert f"{where.scheme}://{where.netloc}" == self.stage.url
        return f"{where.path}?code=c&state={query['state']}"

    async def log_in(self, sub: str = "ada", roles: tuple[str, ...] = ("dba",)) -> Browser:
        back = self.answered(await self.begin(), sub, roles)
        done = await self.get(back, Sec_Fetch_Site="cross-site")
        assert (done.status_code, done.headers.get("location")) == (303, "/"), html.unescape(done.text)
        assert (await self.get("/")).status_code == 200
        return self

    async def look_at(self, ticket: str = HOLD.ticket) -> dict[str, str]:
        """The fields of its forms."""
        page = await self.get(f"/holds/{ticket}")
        assert page.status_code == 200, page.text
        seen = re.search(r'name="?seen"? value="?([0-9a-f]+)', page.text)
        assert seen
        return {"csrf": self.csrf(), "seen": seen[1]}


def config_of(provider: Hostile, url: str, port: int) -> Config:
    made, report = parse_config(CONFIG.format(url=url, port=port, issuer=provider.issuer), "weir.toml")
    assert made is not None, report.problems
    now = int(time.time())
    signs = idp.metadata(idp.certificate(idp.KEY, now - 60, now + 3600), sso=f"{provider.issuer}/sso")
    return msgspec.structs.replace(made, provider_roots={"corp": provider.ca}, metadata={"adfs": signs})


@asynccontextmanager
async def staged(
    provider: Hostile, certificate: str = "", key: str = "", host: str = "127.0.0.1",
) -> AsyncIterator[Stage]:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    url = f"{'https' if key else 'http'}://{host}:{port}"
    told_: list[tuple[str, Any]] = []
    agent: Any = SimpleNamespace(
        config=config_of(provider, url, port), enforcer=Enforcer(), recorder=Recorder(), told=told_,
        news=lambda: None, locks=LockedOut(),
        kernel=Kernel(), own=Path("/nowhere"), has_address=lambda address: False,
        tell=lambda name, detail, workload="": told_.append((name, detail | {"workload": workload})))
    agent.identities = Identities(agent)
    agent.web, agent.questions = Web(agent), Questions(agent)
    agent.notifications = SimpleNamespace(answered=lambda *answer: None)
    agent.turn = asyncio.Event()
    agent.turn.set()
    agent.watching = Watching(lambda: agent.enforcer.channel)
    agent.watching.began()
    ours, theirs = socket.socketpair()
    identity = await open_identity(theirs.detach())
    channel = await IdentityChannel.open(ours, agent.identities._came)
    agent.identities.process = SimpleNamespace(channel=channel, up=True, error="", stop=None)
    done = await channel.ask(agent.identities._render, told.Done)
    assert done.error == ""
    process = Process()
    process._listeners = (listener,)
    mine, its = socket.socketpair()
    web = await WebChannel.connect(mine, agent.web._answer)
    agent.web.process = SimpleNamespace(channel=web, up=True, error="", stop=None)
    await open_web(its.detach(), process.channel)
    render = agent.web._render
    assert (await web.ask(lambda number: msgspec.structs.replace(
        render(number), certificate=certificate, key=key), asked.Done)).error == ""
    async with httpx2.AsyncClient(base_url=f"{'https' if key else 'http'}://127.0.0.1:{port}", verify=False,
                                  timeout=20) as client:
        client.headers["host"] = f"{host}:{port}"
        try:
            yield Stage(provider, url, agent, process, client)
        finally:
            for task in process._serving:
                task.cancel()
            process.door.close()
            await asyncio.gather(*process._serving, return_exceptions=True)
            agent.identities.process = agent.web.process = None
            await agent.identities.stop()
            await agent.web.stop()
            for one in (web, channel):
                one.close()
            for session in list(identity._sessions._tasks):
                identity._sessions._stop(session)
            await asyncio.sleep(0.01)
            listener.close()
