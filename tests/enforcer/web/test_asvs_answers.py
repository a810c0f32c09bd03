"""OWASP ASVS 4.0.3, level 2, of the page: V7 (errors and what is recorded), V8 (data), V9 (TLS), V14 (configuration).
Tests are named by item.

    item          test                                    item          test
    7.1.1, 7.1.2  no secret is said anywhere              14.3.2        no debugging
    7.2.1, 7.2.2  logins, refusals and answers are told   14.3.3        no names or versions
    7.3.1         nothing of others in a line             14.4.1-14.4.7 headers
    7.4.1         an error says nothing                   14.5.1        methods (test_asvs_requests: 13.2.1)
    8.2.1, 8.2.3  kept nowhere, cleared at logout         14.5.2        Origin grants nothing
    9.1.2, 9.1.3  TLS                                     14.5.3        no CORS
    9.1.1         http for this machine alone (tests/agent/test_config_web.py)

Not of the page: 7.1.3, 7.1.4, 7.3.2 - 7.3.4 (the recording's), 8.1 (no caches of its own), 8.2.2 (it stores nothing in
a browser but cookies), 8.3 (what is kept is the recording's), 9.2 (it connects to nothing), 10 (no code comes from
elsewhere: 14.2.3), 14.1, 14.2 (the build's), 14.3.1 (7.4.1).
"""
from __future__ import annotations

import logging
import ssl
from typing import Any

import pytest
from hostile import Hostile
from lab import certificates
from webstage import Stage, staged

from enforcer.web import pages
from enforcer.web.app import context_of

PATHS = ["/login", "/", "/nowhere", "/holds/abcdefgh", "/events/holds", "/slack/actions", "/answer/x", "/static/none"]


async def test_7_1_1_7_1_2_no_secret_is_said_anywhere(
    stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    browser = stage.browser()
    back = browser.answered(await browser.begin())
    monkeypatch.setattr("enforcer.web.pages.render_approvals", broken)
    await browser.get(back)
    await browser.get("/")
    own = [one.getMessage() for one in caplog.records if not one.name.startswith(("http", "asyncio"))]
    said = "\n".join(own) + repr(stage.agent.told)
    assert "a request could not be answered: RuntimeError" in said, "what went wrong is said"
    assert "uvicorn" not in {one.name.partition(".")[0] for one in caplog.records}
    assert "SECRET" not in said
    state = back.partition("state=")[2]
    assert not [one for one in (*browser.cookies.values(), state) if one in said]


def broken(*_: Any) -> str:
    raise RuntimeError("SECRET of a crew's")


async def test_7_2_1_7_2_2_logins_and_answers_are_told(stage: Stage) -> None:
    browser = await stage.browser().log_in()
    stage.enforcer.error = "corp:ada is in none of the groups that may answer: sec"
    await browser.post("/holds/abcdefgh/approve", await browser.look_at())
    other = stage.browser()
    await other.get(other.answered(await other.begin(), aud="another"))
    assert [one["subject"] for one in stage.events("login.opened")] == ["corp:ada"]
    assert "the provider's token is not taken" in stage.events("login.refused")[0]["reason"]
    (answered,) = stage.events("approval.answered")
    assert answered["error"].startswith("corp:ada is in none")


async def test_7_3_1_what_others_send_is_one_line(stage: Stage) -> None:
    browser = stage.browser()
    await browser.begin()
    await browser.get("/login/corp/back?error=a%0Ab%1b[2J&state=x")
    assert all(str(value).isprintable() for detail in stage.events("login.refused") for value in detail.values())


async def test_7_4_1_14_3_2_an_error_says_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = await stage.browser().log_in()
    monkeypatch.setattr(pages, "render_approvals", broken)
    answer = await browser.get("/")
    assert answer.status_code == 500
    assert "SECRET" not in answer.text
    assert "Traceback" not in answer.text
    monkeypatch.undo()
    assert (await browser.get("/")).status_code == 200


async def test_8_2_1_nothing_is_kept_and_8_2_3_logout_clears(stage: Stage) -> None:
    browser = await stage.browser().log_in()
    for path in ("/", "/holds/abcdefgh", "/login", "/nowhere"):
        assert (await browser.get(path)).headers["cache-control"] == "no-store"
    await browser.get("/")
    done = await browser.post("/logout", {"csrf": browser.csrf()})
    assert done.headers["clear-site-data"] == '"cache", "storage"'


def test_9_1_2_9_1_3_tls_is_of_today() -> None:
    leaf, key = certificates.make_leaf(certificates.make_authority(), ("localhost",), ("127.0.0.1",))
    texts = [one.decode() if isinstance(one, bytes) else one for one in (leaf, key)]
    context = context_of(*texts)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    names = [one["name"] for one in context.get_ciphers()]
    assert names
    assert all(name.startswith(("TLS_", "ECDHE-")) and ("GCM" in name or "CHACHA20" in name) for name in names)
    with pytest.raises(ssl.SSLError):
        context_of(texts[0], "no key")


async def test_14_3_3_no_names_or_versions(stage: Stage) -> None:
    for path in PATHS:
        answer = await stage.browser().get(path)
        assert not {"server", "x-powered-by", "via"} & set(answer.headers)
        assert not [name for name in ("uvicorn", "starlette", "python", "jinja") if name in answer.text.lower()]


@pytest.mark.parametrize("path", PATHS)
async def test_14_4_every_answer_has_its_headers(stage: Stage, path: str) -> None:
    """14.4.1 type and charset, 14.4.3 CSP, 14.4.4 nosniff, 14.4.6 referrer, 14.4.7 frames."""
    headers = (await stage.browser().get(path)).headers
    assert headers["content-type"] in ("text/html; charset=utf-8", "text/plain; charset=utf-8") or (
        "content-type" not in headers and headers.get("location"))
    policy = {one.split()[0]: one.split()[1:] for one in headers["content-security-policy"].split("; ")}
    assert policy == {
        "default-src": ["'none'"], "script-src": ["'self'"], "style-src": ["'self'"], "img-src": ["'self'"],
        "connect-src": ["'self'"], "form-action": ["'self'"], "frame-ancestors": ["'none'"], "base-uri": ["'none'"]}
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]
    assert "strict-transport-security" not in headers, "there is no TLS here"


async def test_14_4_5_hsts_with_tls(hostile: Hostile) -> None:
    leaf, key = certificates.make_leaf(certificates.make_authority(), ("localhost",), ("127.0.0.1",))
    async with staged(hostile, *[one.decode() if isinstance(one, bytes) else one for one in (leaf, key)]) as stage:
        answer = await stage.browser().get("/login")
        assert answer.headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "localhost", "127.0.0.1:1", ""])
async def test_14_5_2_a_name_that_leads_here_is_not_enough(stage: Stage, host: str) -> None:
    """DNS rebinding."""
    answer = await stage.client.get("/login", headers={"Host": host})
    assert answer.status_code == 421
    assert "csrf" not in answer.text
    assert "pass on the Host that the browser sent" in answer.text      # what an operator with a proxy has to do
    assert stage.url not in answer.text, "whoever leads here need not know its name"


async def test_14_5_3_other_origins_read_nothing(stage: Stage) -> None:
    browser = await stage.browser().log_in()
    for origin in ("https://evil.example", "null", stage.url):
        answer = await browser.get("/", Origin=origin)
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert (await browser.get("/events/holds", Sec_Fetch_Site="cross-site")).status_code == 403
