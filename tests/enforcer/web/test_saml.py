"""A login at the page by SAML: the answer comes from the provider's site without cookies, and opens nothing."""
from __future__ import annotations

import asyncio
import base64
import re
import time
import zlib
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
import saml_idp as idp
from lxml import etree
from webstage import Browser, Stage

from agent.contract import web as asked

CROSS = {"Origin": "null", "Sec_Fetch_Site": "cross-site"}


async def begin(browser: Browser) -> tuple[str, str]:
    """ID of the request, RelayState."""
    await browser.get("/login")
    begun = await browser.post("/login/adfs", {"csrf": browser.csrf()})
    assert begun.status_code == 200, begun.text
    found = dict(parse_qsl(urlsplit(begun.headers["refresh"].partition("url=")[2]).query))
    request = etree.fromstring(zlib.decompress(base64.b64decode(found["SAMLRequest"]), -15))
    assert request.get("AssertionConsumerServiceURL") == f"{browser.stage.url}/saml/adfs/acs"
    return request.get("ID"), found["RelayState"]


def answer(stage: Stage, request: str, relay: str, name: str = "_assertion", **changed: Any) -> bytes:
    now, place = int(time.time()), f"{stage.url}/saml/adfs/acs"
    until = f'SessionNotOnOrAfter="{idp.render_time(now + 7200)}"'
    inner = idp.assertion(now, name, **({
        "in_response_to": request, "recipient": place, "statement": f"<a:AuthnStatement {until}/>"} | changed))
    return idp.form(idp.response(idp.sign(inner), now, in_response_to=request, destination=place), relay).encode()


async def posted(browser: Browser, form: bytes) -> httpx2.Response:
    """As a provider's page has a browser do it: SameSite=Lax keeps cookies at home."""
    kept, browser.cookies = browser.cookies, {}
    try:
        return await browser.post("/saml/adfs/acs", form, **CROSS)
    finally:
        browser.cookies = kept


async def test_a_login(stage: Stage) -> None:
    browser = stage.browser()
    form = answer(stage, *await begin(browser))
    done = await posted(browser, form)
    assert (done.status_code, done.headers["location"]) == (303, "/saml/adfs/done"), done.text
    assert "set-cookie" not in done.headers, "whoever posts it has nothing by it"
    opened = await browser.get("/saml/adfs/done", Sec_Fetch_Site="cross-site")
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    page = await browser.get("/")
    assert "adfs:ada" in page.text
    assert "abcdefgh" in page.text
    assert (await posted(browser, form)).status_code == 403, "once"
    (told,) = stage.events("login.opened")
    assert (told["subject"], told["way"]) == ("adfs:ada", "web")


async def test_another_browser_has_nothing_by_it(stage: Stage) -> None:
    """Login CSRF, and a stolen address."""
    eve, victim = stage.browser(), stage.browser()
    form = answer(stage, *await begin(eve))
    await begin(victim)
    assert (await posted(victim, form)).status_code == 303
    assert (await victim.get("/saml/adfs/done", Sec_Fetch_Site="cross-site")).status_code == 403
    assert (await stage.browser().get("/saml/adfs/done")).status_code == 403
    assert "weir" not in victim.cookies
    assert (await eve.get("/saml/adfs/done")).status_code == 303, "it is eve's"


@pytest.mark.parametrize("changed", [
    {"recipient": "http://127.0.0.1:4444/acs/adfs"}, {"in_response_to": "_another"},
    {"audience": "<a:AudienceRestriction><a:Audience>urn:other</a:Audience></a:AudienceRestriction>"}], ids=str)
async def test_what_is_not_for_it_opens_nothing(stage: Stage, changed: dict[str, str]) -> None:
    browser = stage.browser()
    assert (await posted(browser, answer(stage, *await begin(browser), **changed))).status_code == 403
    assert (await browser.get("/saml/adfs/done")).status_code == 403


@pytest.mark.parametrize("form", [
    b"", b"RelayState=x", b"SAMLResponse=x", b"RelayState=x&RelayState=y", b"RelayState=%00", b"\xff",
    b"RelayState=" + b"A" * 43 + b"&SAMLResponse=x"], ids=range(7))
async def test_what_is_no_answer_is_none(stage: Stage, form: bytes) -> None:
    browser = stage.browser()
    await begin(browser)
    assert (await posted(browser, form)).status_code in (400, 403)
    assert re.search("log in again|no answer|malformed", browser.page)


async def test_a_provider_of_the_other_kind_is_none(stage: Stage) -> None:
    browser = stage.browser()
    _, relay = await begin(browser)
    assert (await browser.get(f"/login/adfs/back?code=c&state={relay}")).status_code == 403
    await browser.begin()
    assert (await browser.get("/saml/corp/done")).status_code == 403
    assert (await browser.post("/saml/corp/acs", b"RelayState=" + relay.encode(), **CROSS)).status_code == 403


async def test_many_long_answers_at_once_end_nobodys_login(stage: Stage) -> None:
    """Whoever reaches the page begins logins and posts: what the identity process leaves unread ends its channel."""
    ada = await stage.browser().log_in()
    relays = [(await begin(stage.browser()))[1] for _ in range(40)]
    said = await asyncio.gather(*(stage.web._answer(asked.FinishSaml(
        number, "adfs", relay, b"SAMLResponse=" + b"A" * 250_000)) for number, relay in enumerate(relays)))
    assert all(isinstance(one, asked.Answered) and one.error for one in said)
    assert not stage.identities.process.channel.closed.is_set()  # type: ignore[union-attr]
    assert (await ada.get("/")).status_code == 200
