"""Logins at the page in a real browser, from the link to the page and back: redirects, refreshes, forms of other sites,
cookies are as browsers have them.  The provider is a test's, on another site (https, where the page is http)."""
from __future__ import annotations

import base64
import time
import zlib
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import saml_idp as idp
import signing
from browser.test_site import context, hostile, stage
from lxml import etree
from playwright.async_api import BrowserContext, Page, expect
from webstage import Stage

__all__ = ["context", "hostile", "stage"]


@pytest.fixture
async def page(context: BrowserContext) -> Page:
    made = await context.new_page()
    made.wrong = []  # type: ignore[attr-defined]
    made.on("console", lambda one: made.wrong.append(one.text) if one.type == "error" else None)  # type: ignore[attr-defined]
    return made


def asked(stage: Stage, place: str) -> dict[str, str]:
    """What the browser came to the provider with, the last time."""
    path = [one for one in stage.provider.asked if one.startswith(place)][-1]
    return dict(parse_qsl(urlsplit(path).query))


def by_oidc(stage: Stage) -> None:
    def authorize() -> tuple[int, dict[str, str], bytes]:
        query, now = asked(stage, "/authorize"), int(time.time())
        stage.provider.say("/token", {"access_token": "a", "token_type": "Bearer", "id_token": signing.sign(
            signing.claims(iss=stage.provider.issuer, sub="ada", exp=now + 300, iat=now, nonce=query["nonce"],
                           realm_access={"roles": ["dba"]}))})
        return 302, {"Location": f"{query['redirect_uri']}?code=c&state={query['state']}"}, b""

    stage.provider.answers["/authorize"] = authorize


def by_saml(stage: Stage) -> None:
    def sso() -> tuple[int, dict[str, str], bytes]:
        query, now, place = asked(stage, "/sso"), int(time.time()), f"{stage.url}/saml/adfs/acs"
        request = etree.fromstring(zlib.decompress(base64.b64decode(query["SAMLRequest"]), -15)).get("ID")
        until = f'SessionNotOnOrAfter="{idp.render_time(now + 7200)}"'
        inner = idp.sign(idp.assertion(now, in_response_to=request, recipient=place,
                                       statement=f"<a:AuthnStatement {until}/>"))
        form = dict(parse_qsl(idp.form(idp.response(inner, now, in_response_to=request, destination=place),
                                       query["RelayState"])))
        fields = "".join(f'<input type="hidden" name="{name}" value="{value}">' for name, value in form.items())
        return 200, {"Content-Type": "text/html"}, (
            f'<form method="post" action="{place}">{fields}</form><script>document.forms[0].submit()</script>').encode()

    stage.provider.answers["/sso"] = sso


async def log_in(page: Page, stage: Stage, name: str) -> None:
    await page.goto(f"{stage.url}/")
    await expect(page).to_have_url(f"{stage.url}/login")
    await page.get_by_role("button", name=name).click()
    await page.wait_for_url(f"{stage.url}/")


@pytest.mark.parametrize(("name", "ready"), [
    pytest.param("corp", by_oidc, id="oidc"), pytest.param("adfs", by_saml, id="saml", marks=pytest.mark.slow)])
async def test_a_login(page: Page, stage: Stage, name: str, ready: Any) -> None:
    ready(stage)
    await log_in(page, stage, name)
    await expect(page.get_by_text(f"{name}:ada")).to_be_visible()
    await expect(page.get_by_role("link", name="abcdefgh")).to_be_visible()
    kept = {one["name"]: one for one in await page.context.cookies(stage.url)}
    assert set(kept) == {"weir", "weir-visit"}, "what the login was bound by is spent"
    assert kept["weir"]["httpOnly"]
    assert await page.evaluate("document.cookie") == ""
    assert await page.evaluate("Object.keys(localStorage).concat(Object.keys(sessionStorage)).length") == 0
    assert page.wrong == []  # type: ignore[attr-defined]
    await page.get_by_role("button", name="Log out").click()
    await page.wait_for_url(f"{stage.url}/login?did=logout")
    await page.goto(f"{stage.url}/")
    await expect(page).to_have_url(f"{stage.url}/login")
    await page.go_back()
    await expect(page.get_by_text("abcdefgh")).to_have_count(0)


async def test_another_sites_form_does_nothing(page: Page, stage: Stage) -> None:
    by_oidc(stage)
    await log_in(page, stage, "corp")
    csrf = await page.locator("input[name=csrf]").first.get_attribute("value")
    form = (f'<form method="post" action="{stage.url}/holds/abcdefgh/approve">'
            f'<input name="csrf" value="{csrf}"></form><script>document.forms[0].submit()</script>')
    stage.provider.answers["/evil"] = lambda: (200, {"Content-Type": "text/html"}, form.encode())
    await page.goto(f"{stage.provider.issuer}/evil")
    await expect(page.get_by_text("not sent by a page of Weir's")).to_be_visible()
    frame = f'<iframe src="{stage.url}/"></iframe>'
    stage.provider.answers["/frame"] = lambda: (200, {"Content-Type": "text/html"}, frame.encode())
    await page.goto(f"{stage.provider.issuer}/frame")
    assert "abcdefgh" not in await page.frames[-1].content()
