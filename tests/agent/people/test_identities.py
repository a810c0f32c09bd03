"""Logins as the agent keeps them, with an identity process that is broken, and people who would have another's."""
from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from agent.actions import Questions
from agent.channel import ChannelError
from agent.config import Config, parse_config
from agent.contract import control, messages
from agent.contract import identity as told
from agent.contract.locks import Lock, LockedOut
from agent.contract.people import People
from agent.control import Lately, Peer
from agent.people import identities
from agent.people.identities import Identities
from agent.people.identity_process import IdentityChannel
from agent.workload.owners import Start

CONFIG = """
[[provider]]
name = "corp"
issuer = "https://idp.lab.example"
client_id = "weir"
[provider.groups]
admins = "dba"
[[workload]]
name = "crew"
users = ["games"]
[[workload]]
name = "personal"
users = ["games"]
person = true
[[workload]]
name = "service"
users = ["games"]
identity = {provider = "corp", token_file = "/nowhere/token"}
"""
ADA, EVE, ROOT = (Peer(os.getpid(), uid, uid, ()) for uid in (5001, 5002, 0))


def config() -> Config:
    made, report = parse_config(CONFIG, "weir.toml")
    assert made is not None, report.problems
    return msgspec.structs.replace(made, groups={"all": ("weir:dba", "workload:crew"), "games": ("user:games",)})


class Enforcer:
    """Of its channel only the question: what ends."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str]] = []
        self.channel = self

    async def ask(self, make: Any, wanted: Any) -> Any:
        message = make(1)
        assert isinstance(message, messages.EndLogin)
        self.ended.append((message.login, message.reason))
        return messages.Done(1)


class Broken:
    """The identity process' end, in a test's hands."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    async def asked(self) -> Any:
        loop = asyncio.get_running_loop()
        head = await loop.sock_recv(self.sock, 4)
        return told.parse_from_agent(await loop.sock_recv(self.sock, struct.unpack("<I", head)[0]))

    def say(self, message: Any) -> None:
        self.sock.sendall(told.render_frame(message))

    def raw(self, body: bytes) -> None:
        self.sock.sendall(struct.pack("<I", len(body)) + body)


class Here:
    def __init__(self, agent: Any, channel: IdentityChannel, broken: Broken) -> None:
        self.agent, self.channel, self.broken = agent, channel, broken
        self.identities: Identities = agent.identities

    async def login(self, peer: Peer = ADA) -> str:
        """Begun, and not verified."""
        task = asyncio.ensure_future(self.identities.answer(control.Login("", 0), peer))
        begin = await self.broken.asked()
        assert (begin.provider, begin.how) == ("corp", "device")
        self.broken.say(told.Begun(begin.number, "", "https://idp.lab.example/device", "AB-CD", "", 600))
        begun = await task
        assert isinstance(begun, control.LoginBegun)
        assert (begun.error, begun.session, begun.user_code) == ("", begin.session, "AB-CD")
        return begun.session

    async def opened(self, peer: Peer = ADA, subject: str = "corp:ada") -> str:
        session = await self.login(peer)
        self.broken.say(told.Verified(session, subject, ("dba",), 1 << 33))
        answer = await self.identities.answer(control.AwaitLogin(session), peer)
        assert answer == control.LoginState()
        return session

    def events(self, name: str) -> list[dict[str, Any]]:
        return [detail for said, detail in self.agent.told if said == name]

    def start(self, workload: str = "crew", login: str = "") -> Start:
        return Start(7, workload, 5, "games", ("games",), "/cg", 1, login=login)


@pytest.fixture
async def here() -> AsyncIterator[Here]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    told_: list[tuple[str, Any]] = []
    agent = SimpleNamespace(config=config(), enforcer=Enforcer(), told=told_, news=lambda: None, locks=LockedOut(),
                            tell=lambda name, detail, workload="": told_.append(
                                (name, detail | {"workload": workload})))
    agent.identities = Identities(agent)  # type: ignore[arg-type]
    agent.notifications = SimpleNamespace(answered=lambda *answer: None)
    channel = await IdentityChannel.open(ours, agent.identities._came)
    agent.identities.process = SimpleNamespace(channel=channel, up=True, error="", stop=None)
    agent.turn = asyncio.Event()
    agent.turn.set()
    agent.notifications = SimpleNamespace(answered=lambda *answer: None)
    yield Here(agent, channel, Broken(theirs))
    agent.identities.process = None
    await agent.identities.stop()
    channel.close()
    theirs.close()


async def test_a_login_and_whose_a_start_is(here: Here) -> None:
    session = await here.opened()
    who = here.identities.who_am_i(ADA)
    assert (who.subject, who.groups, who.provider) == ("corp:ada", ("all", "dba"), "corp")
    crew, personal = here.agent.config.workload("crew"), here.agent.config.workload("personal")
    assert here.identities.bind(crew, ADA) == here.identities.bind(personal, ADA) == (session, "")
    found = here.identities.principal(here.start(login=session))
    assert not isinstance(found, str)
    # The groups of the local user are not those of the person.
    assert (found.subject, found.groups, found.login) == ("corp:ada", ("all", "dba"), f"{session}.1")
    assert here.events("login.opened")[0]["subject"] == "corp:ada"


async def test_who_is_logged_in_is_elevated_as_the_login(here: Here) -> None:
    """`user` is who may not approve it either."""
    asked: list[messages.AskElevation] = []

    async def ask(make: Any, wanted: Any, seconds: float) -> Any:
        asked.append(make(1))
        return messages.ElevationAsked(1, "aaaaaaaa")

    here.agent.enforcer.ask = ask
    questions = Questions(here.agent)
    await questions.elevate(control.Elevate("orders", 60, "x"), ADA)
    await here.opened()
    await questions.elevate(control.Elevate("orders", 60, "x"), ADA)
    assert [(one.subject, one.user, one.groups) for one in asked] == [
        ("local:5001", "5001", ()), ("corp:ada", "5001", ("all", "dba"))]


async def test_nobody_has_anothers_login(here: Here) -> None:
    session = await here.login()
    for request in (control.AwaitLogin(session), control.FinishLogin(session, "code=x")):
        for peer in (EVE, ROOT):
            assert isinstance(await here.identities.answer(request, peer), control.Refused)
    here.broken.say(told.Verified(session, "corp:ada", (), 1 << 33))
    assert await here.identities.answer(control.AwaitLogin(session), ADA) == control.LoginState()
    for peer in (EVE, ROOT):
        assert await here.identities.answer(control.Logout(), peer) == control.LoggedOut("you are not logged in")
        assert here.identities.who_am_i(peer).provider == ""
        assert here.identities.bind(here.agent.config.workload("crew"), peer) == ("", "")
    assert here.identities.who_am_i(ADA).provider == "corp"


async def test_a_workload_that_needs_a_person_says_how(here: Here) -> None:
    personal = here.agent.config.workload("personal")
    assert "weir login" in here.identities.bind(personal, EVE)[1]
    assert "root is nobody in particular" in here.identities.bind(personal, ROOT)[1]
    assert "was started without a login" in str(here.identities.principal(here.start("personal")))
    root = await here.identities.answer(control.Login("", 0), ROOT)
    assert isinstance(root, control.LoginBegun)
    assert "root is nobody" in root.error


async def test_logging_out_ends_what_speaks_for_it(here: Here) -> None:
    session = await here.opened()
    assert await here.identities.answer(control.Logout(), ADA) == control.LoggedOut()
    forget = await here.broken.asked()
    assert forget == told.Forget(forget.number, session)
    here.broken.say(told.Done(forget.number))
    assert here.agent.enforcer.ended == [(f"{session}.1", "the login of corp:ada has ended: logged out")]
    assert "has ended" in str(here.identities.principal(here.start(login=session)))
    assert here.identities.who_am_i(ADA).provider == ""
    assert here.events("login.ended")[0]["reason"] == "logged out"
    # What comes late of it opens nothing.
    here.broken.say(told.Verified(session, "corp:ada", ("dba",), 1 << 33))
    here.broken.say(told.Ended(session, "late"))
    await settled(here)
    assert here.identities.who_am_i(ADA).provider == ""


async def settled(here: Here) -> None:
    """What was said until now has been taken."""
    task = asyncio.ensure_future(here.channel.ask(told.Ping, told.Pong))
    ping = await here.broken.asked()
    here.broken.say(told.Pong(ping.number))
    await task


async def test_the_end_at_the_provider_ends_it_here(here: Here) -> None:
    session = await here.opened()
    here.broken.say(told.Ended(session, "the provider says invalid_grant\x1b[2J"))
    await settled(here)
    assert [login for login, _ in here.agent.enforcer.ended] == [f"{session}.1"]
    assert "\x1b" not in here.events("login.ended")[0]["reason"]


async def test_other_groups_end_what_was_opened_with_the_old_ones(here: Here) -> None:
    session = await here.opened()
    here.broken.say(told.Verified(session, "corp:ada", ("dba",), 1 << 33))
    await settled(here)
    assert here.agent.enforcer.ended == []
    here.broken.say(told.Verified(session, "corp:ada", (), 1 << 33))
    await settled(here)
    assert [login for login, _ in here.agent.enforcer.ended] == [f"{session}.1"]
    found = here.identities.principal(here.start(login=session))
    assert not isinstance(found, str)
    assert (found.groups, found.login) == (("all",), f"{session}.2")      # through workload:crew, not weir:dba


@pytest.mark.parametrize("message", [
    ("local:root", ()), ("other:ada", ()), ("corp:", ()), ("corp:ada", ("root",)), ("corp:ada\n", ())])
async def test_a_subject_that_is_not_its_own_ends_it(here: Here, message: tuple[str, tuple[str, ...]]) -> None:
    session = await here.login()
    here.broken.say(told.Verified(session, *message, 1 << 33))
    await asyncio.wait_for(here.channel.closed.wait(), 10)
    assert here.identities.who_am_i(ADA).provider == ""
    assert len(here.events("identities.violation")) == 1


@pytest.mark.parametrize("raw", [
    b"", b"\xc1", b"\x80" * 100, msgspec.msgpack.encode({"type": "Verified"}),
    msgspec.msgpack.encode({"type": "Configure", "number": 1, "providers": []}),
    msgspec.msgpack.encode({"type": "Verified", "session": 7, "subject": "corp:ada", "groups": [], "expires": 1}),
    msgspec.msgpack.encode({"type": "Verified", "session": "s", "subject": "corp:" + "a" * 400, "groups": [],
                            "expires": 1}),
    msgspec.msgpack.encode({"type": "Verified", "session": "s", "subject": "corp:ada", "groups": ["x"] * 300,
                            "expires": 1}),
    msgspec.msgpack.encode({"type": "Verified", "session": "s", "subject": "corp:ada", "groups": [],
                            "expires": -1}),
    msgspec.msgpack.encode({"type": "Ended", "session": "s", "reason": "r" * 2000}),
])
async def test_what_is_no_message_ends_it(here: Here, raw: bytes) -> None:
    session = await here.opened()
    here.broken.raw(raw)
    await asyncio.wait_for(here.channel.closed.wait(), 10)
    with pytest.raises(ChannelError):
        await here.channel.ask(told.Ping, told.Pong)
    here.identities._lost("ended")
    assert here.identities.who_am_i(ADA).provider == ""
    assert "has ended" in str(here.identities.principal(here.start(login=session)))


async def test_a_length_over_the_limit_takes_no_memory(here: Here) -> None:
    here.broken.sock.sendall(struct.pack("<I", told.LIMIT + 1))
    await asyncio.wait_for(here.channel.closed.wait(), 10)


async def test_an_answer_of_another_kind_ends_it(here: Here) -> None:
    task = asyncio.ensure_future(here.identities.answer(control.Login("", 0), ADA))
    begin = await here.broken.asked()
    here.broken.say(told.Pong(begin.number))
    begun = await task
    assert isinstance(begun, control.LoginBegun)
    assert begun.error
    assert here.channel.closed.is_set()


async def test_what_was_not_asked_is_ignored(here: Here) -> None:
    for number in range(1000, 1100):
        here.broken.say(told.Begun(number, url="https://evil.example"))
        here.broken.say(told.Verified(f"forged{number}", "corp:root", ("dba",), 1 << 33))
    await settled(here)
    assert list(here.identities.logins) == []


async def test_its_death_ends_every_login(here: Here) -> None:
    ada, eve = await here.opened(), await here.opened(EVE, "corp:eve")
    here.identities._lost("killed by signal 9")
    await asyncio.sleep(0)
    assert {login for login, _ in here.agent.enforcer.ended} == {f"{ada}.1", f"{eve}.1"}
    assert "log in again" in here.agent.enforcer.ended[0][1]


async def test_one_login_at_a_time(here: Here) -> None:
    await here.opened()
    again = await here.identities.answer(control.Login("", 0), ADA)
    assert isinstance(again, control.LoginBegun)
    assert "you are logged in as corp:ada; weir logout comes first" in again.error


async def test_logins_are_not_begun_as_fast_as_somebody_can_ask(here: Here) -> None:
    await here.login()
    again = await here.identities.answer(control.Login("", 0), ADA)
    assert isinstance(again, control.LoginBegun)
    assert "not so fast" in again.error


async def test_a_provider_that_is_not_there(here: Here) -> None:
    begun = await here.identities.answer(control.Login("other", 0), ADA)
    assert isinstance(begun, control.LoginBegun)
    assert begun.error == "there is no provider 'other'; there is: corp"


def without_token_file(here: Here) -> None:
    """Its services ask the provider by their client's secret."""
    config = here.agent.config
    here.agent.config = msgspec.structs.replace(config, workloads=tuple(
        msgspec.structs.replace(one, identity=one.identity and msgspec.structs.replace(one.identity, token_file=None))
        for one in config.workloads))


async def test_a_slow_provider_holds_up_nothing_but_its_own(here: Here) -> None:
    """The watch that looks at it puts the block back, too."""
    without_token_file(here)
    async with asyncio.timeout(5):
        await here.identities.look()
        begin = await here.broken.asked()
        assert (begin.how, begin.provider) == ("client", "corp")
        await here.identities.look()
    assert "has no identity now" in str(here.identities.principal(here.start("service")))
    here.broken.say(told.Verified(begin.session, "corp:svc", (), 1 << 33))
    here.broken.say(told.Begun(begin.number))
    async with asyncio.timeout(5):
        while isinstance(who := here.identities.principal(here.start("service")), str):
            await asyncio.sleep(0.01)
    assert who.subject == "corp:svc"


async def test_what_a_service_s_provider_says_too_late_is_forgotten(here: Here) -> None:
    without_token_file(here)
    async with asyncio.timeout(5):
        await here.identities.look()
        begin = await here.broken.asked()
        here.broken.say(told.Begun(begin.number, "the provider does not answer"))
        forget = await here.broken.asked()
    assert (type(forget), forget.session) == (told.Forget, begin.session)


async def test_the_status_says_that_the_identity_process_is_not_up_and_why(here: Here) -> None:
    why = "the identity process did not answer within 40 seconds; its channel was closed"
    here.identities.process = SimpleNamespace(up=False, error=why)  # type: ignore[assignment]
    assert f"nobody can log in: the identity process is not up: {why}" in here.identities.hints()
    here.identities.process = SimpleNamespace(up=True, error="")    # type: ignore[assignment]
    assert not [hint for hint in here.identities.hints() if "nobody can log in" in hint]


async def test_a_service_without_its_identity_is_refused(here: Here) -> None:
    await here.identities.look()
    async with asyncio.timeout(20):
        while not here.identities.hints():
            await asyncio.sleep(0.01)
    said = str(here.identities.principal(here.start("service")))
    assert "has no identity now" in said
    assert "No such file" in said
    assert here.identities.bind(here.agent.config.workload("service"), ADA) == ("", "")
    assert any("service has no identity" in hint for hint in here.identities.hints())


@pytest.mark.parametrize(("changed", "said"), [
    ({"max_session": 3600}, "its provider's configuration has changed"), ({}, ""),
    ({"name": "other"}, "it is not configured any more")])
async def test_what_a_reload_changes(here: Here, changed: dict[str, Any], said: str) -> None:
    await here.opened()
    agent = here.agent
    agent.config = msgspec.structs.replace(agent.config, providers=tuple(
        msgspec.structs.replace(one, **changed) for one in agent.config.providers))
    process = here.identities.process = SimpleNamespace(  # type: ignore[assignment]
        channel=here.channel, up=True, configure=lambda: asyncio.sleep(0, ""))
    await here.identities._reconfigure(process)  # type: ignore[arg-type]
    assert [one["reason"] for one in here.events("login.ended")] == ([said] if said else [])
    assert bool(here.identities.who_am_i(ADA).provider) is not bool(said)


async def test_outcomes_of_logins_are_kept_for_a_while(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identities, "PATIENCE", 0.05)
    session = await here.login()
    here.broken.say(told.Ended(session, "access_denied"))
    assert await here.identities.answer(control.AwaitLogin(session), ADA) == control.LoginState(error="access_denied")
    session = await here.login(EVE)
    here.broken.say(told.Ended(session, "access_denied"))
    async with asyncio.timeout(20):
        while here.identities._outcomes:
            await asyncio.sleep(0.01)
    assert isinstance(await here.identities.answer(control.AwaitLogin(session), EVE), control.Refused)


async def test_max_session_ends_it(here: Here) -> None:
    session = await here.opened()
    login = here.identities.logins.find(session)
    assert login is not None
    here.identities.logins.add(msgspec.structs.replace(login, since=login.since - login.longest))
    await here.identities.look()
    assert here.events("login.ended")[0]["reason"] == "it has lasted as long as it may (max_session)"
    assert here.identities.who_am_i(ADA).provider == ""


async def test_a_login_by_saml(here: Here) -> None:
    """In a browser alone; where the provider must know the port, at that one."""
    more = CONFIG + ('[[saml_provider]]\nname = "adfs"\nissuer = "urn:idp"\nentity_id = "urn:weir"\n'
                     'metadata = "/etc/weir/adfs.xml"\nport = 15439\n')
    made, report = parse_config(more, "weir.toml")
    assert made is not None, report.problems
    here.agent.config = made
    several = await here.identities.answer(control.Login("", 4444), ADA)
    assert isinstance(several, control.LoginBegun)
    assert "one of corp, adfs" in several.error
    here.identities._lately = Lately()        # once a second
    refused = await here.identities.answer(control.Login("adfs", 0), ADA)
    assert isinstance(refused, control.LoginBegun)
    assert "leave --device out" in refused.error
    here.identities._lately = Lately()
    task = asyncio.ensure_future(here.identities.answer(control.Login("adfs", 4444), ADA))
    begin = await here.broken.asked()
    assert (begin.provider, begin.how, begin.port) == ("adfs", "saml", 15439)
    here.broken.say(told.Begun(begin.number, url="https://idp/sso?SAMLRequest=x&RelayState=y", seconds=600))
    begun = await task
    assert isinstance(begun, control.LoginBegun)
    assert (begun.error, begun.port) == ("", 15439)
    long = await here.identities.answer(control.FinishLogin(begun.session, "x" * (told.FORM + 1)), ADA)
    assert long == control.Answered("what came back is too long")
    finish = asyncio.ensure_future(here.identities.answer(control.FinishLogin(begun.session, "x" * 20_000), ADA))
    head = await asyncio.get_running_loop().sock_recv(here.broken.sock, 4)
    body = b""
    while len(body) < struct.unpack("<I", head)[0]:
        body += await asyncio.get_running_loop().sock_recv(here.broken.sock, 65536)
    asked = told.parse_from_agent(body)
    assert isinstance(asked, told.Finish)
    end = int(time.time()) + 600
    here.broken.say(told.Verified(begun.session, "adfs:ada", (), end))
    here.broken.say(told.Done(asked.number))
    assert await finish == control.Answered()
    who = here.identities.who_am_i(ADA)
    assert (who.subject, who.until) == ("adfs:ada", end)
    await _logged_out_there(here, begun.session)


async def _logged_out_there(here: Here, session: str) -> None:
    """What came for single logout counts where the identity process says so; who logs out is shown where to, too."""
    place = "https://weir/saml/adfs/logout"
    came = asyncio.ensure_future(here.identities.posts.saml_logout("adfs", place, "SAMLRequest=x", b""))
    asked = await here.broken.asked()
    assert asked == told.SamlLogout(asked.number, "adfs", place, "SAMLRequest=x", b"")
    here.broken.say(told.LoggedOut(asked.number, "", "https://idp/slo?SAMLResponse=x"))
    assert await came == (303, "https://idp/slo?SAMLResponse=x")
    came = asyncio.ensure_future(here.identities.posts.saml_logout("adfs", place, "", b"SAMLRequest=x"))
    here.broken.say(told.LoggedOut((await here.broken.asked()).number, "it is not taken", "https://evil"))
    assert await came == (400, "it is not taken")
    assert (await here.identities.posts.saml_logout("corp", place, "", b""))[0] == 404, "that one is none of SAML's"
    assert (await here.identities.posts.backchannel("adfs", b"x"))[0] == 404
    assert (await here.identities.posts.saml_logout("adfs", place, "x" * (told.LOGOUT + 1), b""))[0] == 413
    leaving = asyncio.ensure_future(here.identities.answer(control.Logout(), ADA))
    asked = await here.broken.asked()
    assert asked == told.Leave(asked.number, session)
    assert here.identities.who_am_i(ADA).provider == "", "here it has ended already"
    here.broken.say(told.LoggedOut(asked.number, "", "https://idp/slo?SAMLRequest=x"))
    assert await leaving == control.LoggedOut("", "https://idp/slo?SAMLRequest=x")


async def test_who_is_barred(here: Here) -> None:
    """Whose names lead to targets alone."""
    session = await here.opened()
    start = here.start(login=session)
    assert here.identities.barred(start) == ""
    for name in ("corp:ada", "local:games"):
        here.agent.locks = LockedOut([Lock("subject", name, "leaked", "local:root", 1)])
        assert here.identities.barred(start) == f"subject {name} is locked: leaked"
    here.agent.locks = LockedOut([Lock("workload", "crew", "", "local:root", 1)])
    assert here.identities.barred(start) == "workload crew is locked"
    here.agent.locks = LockedOut()
    await here.identities.answer(control.Logout(), ADA)
    assert "has ended" in here.identities.barred(start)
    assert "has no identity now" in here.identities.barred(here.start("service"))


@pytest.mark.parametrize("query", ["\U0001f600" * 250_000, "x" * told.FORM, "code=x&state=y"])
async def test_nobody_floods_the_identity_process(here: Here, query: str) -> None:
    """What it has not read after four megabytes ends it, and with it everybody's login."""
    await here.opened(EVE, "corp:eve")
    session = await here.login()
    asked = [asyncio.ensure_future(here.identities.answer(control.FinishLogin(session, query), ADA)) for _ in range(16)]
    await asyncio.sleep(0.05)
    assert not here.channel.closed.is_set()
    assert sum(task.done() for task in asked) >= 15
    assert here.identities.who_am_i(EVE).subject == "corp:eve"
    if len(query) < told.QUERY:
        finish = await here.broken.asked()
        here.broken.say(told.Done(finish.number, "no"))
    assert {(await task).error for task in asked} <= {
        "what came back is too long", "no login waits for this answer", "no"}


def test_what_the_identity_process_is_told_of_files(tmp_path: Path) -> None:
    """A key that cannot be read takes out its own provider, and no other."""
    key = tmp_path / "key.pem"
    key.write_text("KEY")
    key.chmod(0o600)
    one = ('[[saml_provider]]\nname = "{}"\nissuer = "urn:idp"\nentity_id = "urn:weir"\nmetadata = "/x"\n'
           'key_file = "{}"\n')
    made, report = parse_config(CONFIG + one.format("adfs", key) + one.format("lost", tmp_path / "no"), "weir.toml")
    assert made is not None, report.problems
    said: list[Any] = []
    agent = SimpleNamespace(config=msgspec.structs.replace(made, metadata={"adfs": b"<x/>"}),
                            tell=lambda name, detail: said.append((name, detail["provider"])))
    told_ = Identities(agent)._render(1)  # type: ignore[arg-type]
    assert [one.name for one in told_.providers] == ["corp"]
    assert [(one.name, one.key, one.metadata) for one in told_.saml] == [("adfs", "KEY", b"<x/>")]
    assert said == [("login.refused", "lost")]


@pytest.mark.parametrize("name", ["corp:ada", "local:5001"])
async def test_who_is_locked_is_logged_out_and_cannot_log_in(here: Here, name: str) -> None:
    session, eve = await here.opened(), await here.opened(EVE, "corp:eve")
    here.agent.locks = LockedOut([Lock("subject", name, "leaked", "local:root", 1)])
    why = f"subject {name} is locked: leaked"
    here.identities.end_locked()
    assert (await here.broken.asked()).session == session, "its tokens are forgotten"
    assert [one.session for one in here.identities.logins] == [eve]
    assert (here.events("login.ended")[-1]["reason"], here.events("login.ended")[-1]["login"]) == (why, session)
    if name == "local:5001":          # by the local user nobody is even asked
        begun = await here.identities.answer(control.Login("", 0), ADA)
        assert begun == control.LoginBegun(why)
        return
    here.identities._lately = Lately()         # a second later
    session = await here.login()
    here.broken.say(told.Verified(session, "corp:ada", ("dba",), 1 << 33))
    assert await here.identities.answer(control.AwaitLogin(session), ADA) == control.LoginState(error=why)
    assert [one.session for one in here.identities.logins] == [eve]


async def test_who_answers_is_everybody_that_they_are(here: Here) -> None:
    """The local user, the subject that it is logged in as, other local users of that subject, and what groups.toml
    says."""
    asked: list[Any] = []

    async def ask(make: Any, wanted: Any, seconds: float = 0) -> Any:
        asked.append(make(1))
        return messages.HoldDecided(1) if wanted is messages.HoldDecided else messages.Done(1)

    here.agent.enforcer.ask = ask
    questions = Questions(here.agent)

    async def names(peer: Peer) -> set[str]:
        await questions.decide(control.Decide("aaaaaaaa", True, "x"), peer)
        assert asked[-1].approver == f"local:{peer.user}"
        return set(asked[-1].names)

    assert await names(EVE) == set()
    await here.opened(ADA, "corp:ada")
    assert (await names(ADA), await names(EVE)) == ({"corp:ada"}, set())
    session = await here.opened(EVE, "corp:ada")
    assert (await names(ADA), await names(EVE)) == ({"corp:ada", "local:5002"}, {"corp:ada", "local:5001"})
    here.agent.config = msgspec.structs.replace(here.agent.config, people=People({"x": ("corp:ada", "local:root")}))
    assert await names(ROOT) == {"corp:ada", "local:5001", "local:5002"}
    await questions.decide(control.Revoke("aaaaaaaa", "x"), ROOT)
    assert set(asked[-1].names) == {"corp:ada", "local:5001", "local:5002"}
    here.identities._end(session, "logged out")
    assert await names(EVE) == set()


async def test_who_is_locked_under_another_name_answers_nothing(here: Here) -> None:
    await here.opened(ADA, "corp:ada")
    here.agent.locks = LockedOut([Lock("subject", "corp:ada", "leaked", "local:root", 1)])
    answer = await Questions(here.agent).decide(control.Decide("aaaaaaaa", True, "x"), ADA)
    assert answer == control.Answered("subject corp:ada is locked: leaked")


async def test_what_a_provider_posts(here: Here) -> None:
    """Read by the identity process; it ends sessions here, and each time that somebody may have sent it is bounded."""
    session = await here.opened()
    posting = asyncio.ensure_future(here.identities.posts.backchannel("corp", b"logout_token=x"))
    asked = await here.broken.asked()
    assert (asked.provider, asked.body) == ("corp", b"logout_token=x")
    here.broken.say(told.Ended(session, "its session at the provider has ended"))
    here.broken.say(told.Done(asked.number))
    assert await posting == (200, "")
    assert here.identities.who_am_i(ADA).subject == "local:5001"
    assert here.events("login.ended")[-1]["reason"] == "its session at the provider has ended"
    assert here.agent.enforcer.ended[-1][0] == f"{session}.1"
    assert here.events("logout.received") == [{"provider": "corp", "workload": ""}]


async def test_what_anybody_posts_is_bounded(here: Here) -> None:
    assert await here.identities.posts.backchannel("nobody", b"x") == (404, "there is no such provider")
    assert await here.identities.posts.backchannel("corp", b"x" * (told.LOGOUT + 1)) == (413, "it is too long")
    posts = [asyncio.ensure_future(here.identities.posts.backchannel("corp", b"x")) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sum(one.done() and one.result() == (503, "too many at once") for one in posts) == 16
    for _ in range(4):
        here.broken.say(told.Done((await here.broken.asked()).number, "it is not taken: \x1b[2J"))
    said = [await one for one in posts]
    assert said.count((400, "it is not taken: ?[2J")) == 4
    assert len(here.events("logout.received")) == 1, "what anybody may send fills no recording"
    here.identities.process = None
    assert (await here.identities.posts.backchannel("corp", b"x"))[0] == 404


@pytest.mark.parametrize(("part", "name", "method", "query", "body", "status"), [
    ("backchannel", "corp", "GET", "", b"", 405), ("backchannel", "corp/x", "POST", "", b"x", 404),
    ("backchannel", "nobody", "POST", "", b"x", 404), ("saml", "corp", "GET", "x", b"", 404),
    ("saml", "corp/acs", "POST", "", b"x", 404), ("slack", "corp", "POST", "", b"x", 404),
    ("saml", "adfs/logout", "POST", "x=y", b"x", 400), ("saml", "adfs/logout", "POST", "", b"", 400),
    ("saml", "adfs/logout", "GET", "SAMLResponse=x", b"", 200),
    ("saml", "adfs/logout", "POST", "", b"SAMLResponse=x", 200),
    ("saml", "corp/logout", "GET", "SAMLRequest=x", b"", 404),
])
async def test_paths_of_the_page(
    here: Here, part: str, name: str, method: str, query: str, body: bytes, status: int,
) -> None:
    """Nothing of these reaches the identity process."""
    found = await here.identities.posts.came(part, name, method, query, body, "https://weir")
    assert found[0] == status
    assert found[2] == ""
    with pytest.raises(BlockingIOError):
        here.broken.sock.recv(1)


async def test_what_comes_at_the_page(here: Here) -> None:
    posting = asyncio.ensure_future(here.identities.posts.came("backchannel", "corp", "POST", "", b"x", "https://weir"))
    here.broken.say(told.Done((await here.broken.asked()).number))
    assert await posting == (200, "", "")
