"""Logins by SAML from the request to the session: with a provider that signs, and one that lies."""
from __future__ import annotations

import asyncio
import base64
import socket
import subprocess
import sys
import time
import zlib
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
import saml_idp as idp
from hostile import Hostile, hostile
from lxml import etree

from agent.contract import identity as told
from enforcer.identity.saml import remote as module
from enforcer.identity.sessions import Sessions

__all__ = ["hostile"]


def metadata(**changed: Any) -> bytes:
    now = int(time.time())
    return idp.metadata(idp.certificate(idp.KEY, now - 60, now + 3600), **changed)


class Here:
    def __init__(self, **changed: Any) -> None:
        self.said: list[Any] = []
        self.sessions = Sessions(self.said.append)
        self.provider = idp.provider(**({"metadata": metadata()} | changed))
        assert self.sessions.configure((), (self.provider,)) == ""

    async def begin(self, session: str = "s1", port: int = 4444) -> tuple[str, str]:
        """ID of the request, RelayState."""
        begun = await self.sessions.begin(told.Begin(1, session, "corp", "saml", port))
        assert begun.error == ""
        found = dict(parse_qsl(urlsplit(begun.url).query))
        request = etree.fromstring(zlib.decompress(base64.b64decode(found["SAMLRequest"]), -15))
        assert request.get("AssertionConsumerServiceURL") == f"http://127.0.0.1:{port}/acs/corp"
        return request.get("ID"), found["RelayState"]

    async def finish(self, form: str, session: str = "s1") -> str:
        return (await self.sessions.finish(told.Finish(2, session, form))).error


def answer(request: str, relay: str, name: str = "_assertion", session: int | None = 7200, **changed: Any) -> str:
    now = int(time.time())
    until = f'SessionNotOnOrAfter="{idp.render_time(now + session)}"' if session is not None else ""
    inner = idp.assertion(now, name, in_response_to=request, statement=f"<a:AuthnStatement {until}/>", **changed)
    return idp.form(idp.response(idp.sign(inner), now, in_response_to=request), relay)


async def test_a_login() -> None:
    here, now = Here(), int(time.time())
    request, relay = await here.begin()
    assert len(request) == 41
    assert len(relay) >= 43
    assert len(relay) <= 80, "Bindings, 3.4.3"
    form = answer(request, relay)
    assert await here.finish(form) == ""
    [said] = here.said
    assert (said.session, said.subject, said.groups) == ("s1", "corp:ada", ("dba",))
    assert abs(said.expires - now - 7200) < 5
    assert await here.finish(form) == "no login waits for this answer"
    here.sessions.forget(told.Forget(3, "s1"))


async def test_it_ends_when_the_provider_says() -> None:
    here = Here()
    request, relay = await here.begin()
    assert await here.finish(answer(request, relay, session=2)) == ""
    async with asyncio.timeout(20):
        while len(here.said) < 2:
            await asyncio.sleep(0.05)
    assert here.said[1] == told.Ended("s1", "the provider's session has ended")


async def test_a_wrong_answer_uses_the_login_up() -> None:
    here = Here()
    request, relay = await here.begin()
    assert "another login" in await here.finish(answer(request, "guess"))
    assert await here.finish(answer(request, relay)) == "no login waits for this answer"
    assert here.said == []


async def test_two_logins_do_not_mix() -> None:
    """The answer to one, given to the other, with or without the other's RelayState; at another port."""
    here = Here()
    first, relay = await here.begin("s1")
    second, other = await here.begin("s2")
    third, last = await here.begin("s3", 5555)
    assert len({first, second, third, relay, other, last}) == 6
    assert "what came back is the answer to another login" in await here.finish(answer(first, relay), "s2")
    assert "taken: it is the answer to another login" in await here.finish(answer(second, relay), "s1")
    assert "another place" in await here.finish(answer(third, last), "s3")
    assert here.said == []


async def test_an_assertion_is_used_once() -> None:
    """Also where the provider signs the same one for two logins."""
    here = Here()
    for session, name, wrong in (("s1", "_a", ""), ("s2", "_a", "was used already"), ("s3", "_b", "")):
        request, relay = await here.begin(session)
        error = await here.finish(answer(request, relay, name), session)
        assert error.endswith(wrong)
        assert bool(error) == bool(wrong)
    for session in ("s1", "s3"):
        here.sessions.forget(told.Forget(3, session))


async def test_many_answers_at_once_keep_nobody_waiting_but_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent ends a process that does not answer it for some seconds, and with it everybody's login."""
    here = Here()
    begun = {f"s{number}": await here.begin(f"s{number}") for number in range(8)}
    forms = {session: answer("_x", relay) for session, (_, relay) in begun.items()}
    heard: list[str] = []
    real = module.open_response
    monkeypatch.setattr(module, "open_response", lambda *asked: heard.append("answer") or real(*asked))
    mine, theirs = socket.socketpair()
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()

    def ping() -> None:
        """What has come is heard, and the next comes at once."""
        theirs.recv(1)
        heard.append("ping")
        mine.send(b"x")

    loop.add_reader(theirs, ping)
    mine.send(b"x")
    try:
        await asyncio.gather(*(here.finish(form, session) for session, form in forms.items()))
    finally:
        loop.remove_reader(theirs)
        mine.close()
        theirs.close()
    assert heard.count("answer") == 8
    assert "answer answer" not in " ".join(heard)


async def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "USED", 1)
    now = float(int(time.time()))
    clock = [now]
    remote = module.SamlRemote(idp.provider(metadata=metadata()), now=lambda: clock[0])

    async def login(name: str) -> None:
        url, login = await remote.begin(4444)
        relay = dict(parse_qsl(urlsplit(url).query))["RelayState"]
        await login.finish(answer(login.asked.request, relay, name))

    await login("_a")
    with pytest.raises(module.AuthenticationError, match="too many logins"):
        await login("_b")
    clock[0] = now + 400             # nobody takes _a any more
    with pytest.raises(module.AuthenticationError, match="has expired"):
        await login("_b")
    monkeypatch.setattr(time, "time", lambda: now + 400)
    await login("_c")


@pytest.mark.parametrize(("form", "said"), [
    ("", "malformed"), ("SAMLResponse", "malformed"), ("SAMLResponse=%%%", "malformed"),
    ("SAMLResponse=QQ==&SAMLResponse=QQ==", "malformed"), ("RelayState=x", "malformed"),
    ("SAMLResponse=Q&RelayState=x", "malformed"), ("x=1&" * 9 + "SAMLResponse=QQ==", "malformed"),
    ("SAMLResponse=QQ==", "another login"), ("SAMLResponse=" + "A" * told.FORM, "too long")],
    ids=lambda one: str(one)[:40])
async def test_forms_that_are_none(form: str, said: str) -> None:
    here = Here()
    await here.begin()
    assert said in await here.finish(form)


async def test_ways_that_are_not_its_own(hostile: Hostile) -> None:
    here = Here()
    for how in ("code", "device", "client", "file"):
        begun = await here.sessions.begin(told.Begin(1, "s1", "corp", how, 1))  # type: ignore[arg-type]
        assert "a browser's login alone" in begun.error
    here.sessions.configure((hostile.provider(),))
    assert "none of SAML's" in (await here.sessions.begin(told.Begin(1, "s1", "corp", "saml", 1))).error


@pytest.mark.parametrize(("changed", "said"), [
    ({"metadata": b"<x/>"}, "the metadata of provider corp is not one EntityDescriptor"),
    ({"metadata": metadata(more='validUntil="2020-01-01T00:00:00Z"')}, "has expired (validUntil)"),
    ({"key": "x"}, "no private key")])
async def test_what_nobody_can_log_in_with(changed: dict[str, Any], said: str) -> None:
    here = Here(**changed)
    assert said in (await here.sessions.begin(told.Begin(1, "s1", "corp", "saml", 1))).error


async def test_metadata_from_an_address(hostile: Hostile) -> None:
    hostile.answers["/metadata"] = lambda: (200, {}, metadata())
    clock = [0.0]
    provider = idp.provider(metadata=b"", metadata_url=f"{hostile.issuer}/metadata", ca=hostile.ca)
    remote = module.SamlRemote(provider, monotonic=lambda: clock[0])
    for _ in range(2):
        await remote.begin(4444)
    assert hostile.asked == ["/metadata"], "not each time"
    clock[0] = module.FRESH + 1
    hostile.answers["/metadata"] = lambda: (200, {}, metadata(sso="https://idp.lab.example/new"))
    assert (await remote.begin(4444))[0].startswith("https://idp.lab.example/new?")
    clock[0] *= 3
    hostile.answers["/metadata"] = lambda: (503, {}, b"")
    assert (await remote.begin(4444))[0].startswith("https://idp.lab.example/new?"), "what is known holds"
    hostile.answers["/metadata"] = lambda: (200, {}, metadata(entity="https://evil.example"))
    with pytest.raises(module.AuthenticationError, match="another entityID"):
        await remote.begin(4444)


@pytest.mark.parametrize(("status", "body"), [(404, b""), (302, b""), (200, b"x" * (600 << 10)), (200, b"<x/>")])
async def test_an_address_without_metadata(hostile: Hostile, status: int, body: bytes) -> None:
    hostile.answers["/metadata"] = lambda: (status, {"Location": "/other"}, body)
    here = Here(metadata=b"", metadata_url=f"{hostile.issuer}/metadata", ca=hostile.ca)
    begun = await here.sessions.begin(told.Begin(1, "s1", "corp", "saml", 1))
    assert "cannot be reached" in begun.error or "is not one EntityDescriptor" in begun.error


async def test_nothing_of_a_login_is_printed() -> None:
    here = Here()
    request, relay = await here.begin()
    shown = repr(here.sessions._waiting["s1"])
    assert request not in shown
    assert relay not in shown
    assert "PRIVATE" not in repr(here.provider)
    name = "<a:NameID>SECRET-name</a:NameID>"
    for wrong in (answer(request, relay, name_id=name, audience=""), urlencode({"x": "SECRET"})):
        assert "SECRET" not in await here.finish(wrong)
        await here.begin()


def test_nothing_is_there_that_runs_xmlsec1() -> None:
    """Of pysaml2 only what reads and writes elements."""
    code = "import sys, enforcer.identity.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"saml2.saml", "signxml.verifier"} <= set(done.stdout.split())
    assert not {"saml2.sigver", "saml2.client", "requests", "OpenSSL", "xmlschema"} & set(done.stdout.split())
