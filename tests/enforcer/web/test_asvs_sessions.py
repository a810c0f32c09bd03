"""OWASP ASVS 4.0.3, level 2, of the page: V2 (logins), V3 (sessions), V4 (who may).  Tests are named by item.

    item          test                                         item          test
    2.2.1         logins are bounded                           3.7.1         an answer needs a session
    3.1.1         nothing in addresses                         4.1.1, 4.1.2  the agent says who it is
    3.2.1         another secret at each login                 4.1.3, 4.2.1  only what is one's own to see
    3.2.2, 3.2.4  its size and source                          4.1.5         fails closed
    3.2.3         kept in cookies alone                        4.2.2         forms of others (CSRF)
    3.3.1, 3.3.2  logout, idle time, longest time              4.3.2         no directories, no files of ours
    3.4.1 - 3.4.5 cookies

Not of the page: 2.1 - 2.8 but 2.2.1 (passwords and factors are the providers'), 2.9, 2.10 (it has no keys of its own),
3.3.3 (no password; `weir lock` ends what somebody has), 3.3.4 (not there: one ends one's own alone), 3.5 (no tokens
besides), 4.3.1 (who logs in with what is the providers'), 4.3.3 (approvals are the segregation).
"""
from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hostile import Hostile
from lab import certificates
from webstage import Browser, Stage, staged

from agent.contract import messages
from agent.contract import web as asked
from agent.contract.people import People
from agent.web.sessions import EACH, MOST, PENDING, PageSessions
from enforcer.web import cookies, pages
from enforcer.web.rates import LOGIN, Rates


def test_2_2_1_logins_of_one_address_are_bounded() -> None:
    rates = Rates()
    assert sum(rates.take(LOGIN, "192.0.2.1", 100.0) for _ in range(50)) == 10
    assert rates.take(LOGIN, "192.0.2.2", 100.0)
    assert not rates.take(LOGIN, "192.0.2.1", 101.0)
    assert rates.take(LOGIN, "192.0.2.1", 110.0)
    for number in range(10_000):
        rates.take(LOGIN, f"2001:db8::{number:x}", 110.0)
    assert len(rates._each[LOGIN]) <= 4096, "whoever has many addresses fills no memory"


async def test_2_2_1_logins_are_bounded_for_all(stage: Stage) -> None:
    browser = stage.browser()
    await browser.get("/login")
    fields = {"csrf": browser.csrf()}
    stage.process.site._clock = lambda: 100.0
    assert (await browser.post("/login/nobody-there", fields)).status_code == 502
    while stage.process.site._rates.take(LOGIN, "", 100.0):
        pass
    assert (await browser.post("/login/nobody-there", fields)).status_code == 429


async def test_3_1_1_no_secret_is_in_an_address(stage: Stage) -> None:
    browser = stage.browser()
    back = browser.answered(await browser.begin())
    seen: list[str] = []
    for path in (back, "/", "/holds/abcdefgh", "/sessions", "/login"):
        answer = await browser.get(path)
        seen += [answer.headers.get("location", ""), answer.headers.get("refresh", ""), answer.text]
    assert not [value for value in browser.cookies.values() if value in "".join(seen)]


async def test_3_2_1_each_login_makes_another_secret(stage: Stage) -> None:
    browser = stage.browser()
    browser.cookies["weir"] = "A" * 43
    await browser.log_in()
    first = browser.cookies["weir"]
    assert first != "A" * 43, "a session is never what somebody put into the browser"
    await browser.log_in()
    assert browser.cookies["weir"] != first


async def test_3_2_2_3_2_4_it_has_256_bits_of_the_systems_random(stage: Stage) -> None:
    drawn = {PageSessions().begin("x")[0] for _ in range(200)}
    assert len(drawn) == 200
    assert all(len(one) == asked.SECRET for one in drawn)
    assert Path("agent/web/sessions.py").read_text().count("secrets.token_urlsafe(BYTES)") == 1


async def test_3_2_3_it_is_kept_in_cookies_alone_and_the_agent_has_its_hash(stage: Stage) -> None:
    browser = await stage.browser().log_in()
    secret = browser.cookies["weir"]
    assert secret not in repr(vars(stage.web.sessions)) + repr(stage.agent.told)
    assert secret not in browser.page
    assert "localStorage" not in (await browser.get("/")).text


async def test_3_3_1_logout_ends_it(stage: Stage) -> None:
    browser = await stage.browser().log_in()
    kept = dict(browser.cookies)
    done = await browser.post("/logout", {"csrf": browser.csrf()})
    assert (done.status_code, done.headers["location"]) == (303, "/login?did=logout")
    assert 'weir=""; HttpOnly; Max-Age=0' in done.headers["set-cookie"]
    browser.cookies = kept            # the back button, or a thief
    assert (await browser.get("/")).headers["location"] == "/login"
    assert stage.events("login.ended")[-1]["reason"] == "logged out"


async def test_3_3_2_idle_and_longest_time_end_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    browser, other = await stage.browser().log_in(), await stage.browser().log_in("bob")
    now = asked_uptime()
    monkeypatch.setattr("agent.web.page._uptime", lambda: now + 599)
    stage.web.look()
    assert (await browser.get("/")).status_code == 200
    assert (await stage.client.get("/events/sessions", headers={"Cookie": cookie(other)})).status_code == 403, (
        "a page that is open is no use of it")
    monkeypatch.setattr("agent.web.page._uptime", lambda: now + 601)
    stage.web.look()
    assert (await browser.get("/")).status_code == 200, "it was used meanwhile"
    assert (await other.get("/")).status_code == 303
    monkeypatch.setattr("agent.people.identities._uptime", lambda: now + 12 * 3600 + 1)
    await stage.identities.look()
    assert (await browser.get("/")).status_code == 303
    assert "max_session" in stage.events("login.ended")[-1]["reason"]


def asked_uptime() -> float:
    import time
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def cookie(browser: Browser) -> str:
    return "; ".join(f"{name}={value}" for name, value in browser.cookies.items())


async def test_3_4_cookies_with_tls(hostile: Hostile) -> None:
    """3.4.1 Secure, 3.4.2 HttpOnly, 3.4.3 SameSite, 3.4.4 __Host-, 3.4.5 of one path and no other host's."""
    authority = certificates.make_authority()
    leaf, key = certificates.make_leaf(authority, ("localhost",), ("127.0.0.1",))
    async with staged(hostile, leaf.decode() if isinstance(leaf, bytes) else leaf,
                      key.decode() if isinstance(key, bytes) else key) as stage:
        browser = stage.browser()
        page = await browser.get("/login")
        begun = await browser.post("/login/corp", {"csrf": browser.csrf()})
        done = await browser.get(browser.answered(begun.headers["refresh"].partition("url=")[2]))
        assert done.status_code == 303
        lines = [line for one in (page, begun, done) for line in one.headers.get_list("set-cookie")]
        assert {line.partition("=")[0] for line in lines} == {"__Host-weir", "__Host-weir-login", "__Host-weir-visit"}
        for line in lines:
            parts = set(line.split("; ")[1:])
            assert parts - {"Max-Age=0"} == {"HttpOnly", "Path=/", "SameSite=Lax", "Secure"}, line
        browser.cookies = {"weir": browser.cookies["__Host-weir"]}
        assert (await browser.get("/")).status_code == 303, "what another host could have set counts for nothing"


@pytest.mark.parametrize("header", ["weir={0}; weir={1}", "weir={1}; weir={0}", "weir={0}, weir={1}", "weir=\"{0}\"",
                                    "weir={0}{1}", "Weir={0}", "x" * 5000 + "; weir={0}"])
def test_3_4_what_stands_twice_or_otherwise_is_no_cookie(header: str) -> None:
    assert "weir" not in cookies.parse_cookies(header.format("A" * 43, "B" * 43))


@pytest.mark.parametrize("path", ["/holds/abcdefgh/approve", "/holds/abcdefgh/revoke", "/sessions/s1/kill", "/logout"])
async def test_3_7_1_an_answer_needs_a_session_that_holds(stage: Stage, path: str) -> None:
    browser = await stage.browser().log_in("ada", ("dba", "ops"))
    fields = await browser.look_at()
    stage.identities.end_web(next(iter(stage.web.sessions)).login, "over")
    done = await browser.post(path, fields)
    assert done.headers.get("location", "").startswith("/login")
    assert not stage.enforcer.those(messages.DecideHold) + stage.enforcer.those(messages.EndSession)


BROKEN: tuple[tuple[Callable[[str], asked.Question], str], ...] = (
    (lambda secret: asked.Decide(1, secret, "abcdefgh", True), "Decide"),
    (lambda secret: asked.Revoke(1, secret, "abcdefgh"), "Revoke"),
    (lambda secret: asked.Kill(1, secret, "s1"), "Kill"),
    (lambda secret: asked.ListHolds(1, secret), "ListHolds"),
    (lambda secret: asked.ListSessions(1, secret), "ListSessions"))


@pytest.mark.parametrize("make", [make for make, _ in BROKEN], ids=[name for _, name in BROKEN])
async def test_4_1_1_4_1_2_a_broken_page_acts_for_nobody(stage: Stage, make: Callable[[str], asked.Question]) -> None:
    """Whatever the web process says: without the secret of somebody's cookie it is nobody."""
    await stage.browser().log_in("ada", ("dba", "ops", "audit"))
    held = next(iter(stage.web.sessions))
    for guess in ("", "A" * 43, held.login, next(iter(stage.web.sessions._open)).hex()[:43]):
        said: Any = await stage.web._answer(make(guess))
        assert "not logged in" in said.error
    assert not stage.enforcer.those(messages.DecideHold) + stage.enforcer.those(messages.EndSession)


async def test_4_1_1_groups_are_the_providers_and_the_rules(stage: Stage) -> None:
    """What a form adds changes nobody's subject or groups."""
    browser = await stage.browser().log_in("bob", ("audit", "root", "admin"))
    await browser.get("/")
    fields = {"csrf": browser.csrf(), "groups": "dba", "subject": "corp:ada", "seen": "x", "by": "corp:ada"}
    assert (await browser.post("/holds/abcdefgh/approve", fields)).status_code == 404
    assert (await browser.post("/sessions/s1/kill", fields)).status_code == 403
    who: Any = await stage.web._answer(asked.AskWho(1, browser.cookies["weir"]))
    assert (who.person.subject, who.person.groups, who.person.operator) == ("corp:bob", ("audit",), False)


async def test_4_1_3_4_2_1_others_things_look_like_none(stage: Stage) -> None:
    browser = await stage.browser().log_in("bob", ("ops",))
    others, none = await browser.get("/holds/abcdefgh"), await browser.get("/holds/zzzzzzzz")
    assert (others.status_code, none.status_code) == (404, 404)
    assert re.sub("[0-9a-f]{64}|[0-9]{19}", "", others.text) == re.sub("[0-9a-f]{64}|[0-9]{19}", "", none.text)


async def test_4_1_5_where_nobody_answers_nothing_is_done(stage: Stage) -> None:
    browser = await stage.browser().log_in()
    fields = await browser.look_at()
    stage.process.channel.connection_lost(None)
    for answer in (await browser.get("/"), await browser.post("/holds/abcdefgh/approve", fields)):
        assert answer.status_code == 503
        assert "agent does not answer" in answer.text


@pytest.mark.parametrize("headers", [
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": ""}, {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"}, {"Content_Type": "text/plain"}, {"Content_Type": "application/json"}], ids=str)
async def test_4_2_2_forms_of_others_do_nothing(stage: Stage, headers: dict[str, str]) -> None:
    browser = await stage.browser().log_in("ada", ("dba", "ops"))
    fields = await browser.look_at()
    for path in ("/holds/abcdefgh/approve", "/sessions/s1/kill", "/logout", "/login/corp"):
        assert (await browser.post(path, fields, **headers)).status_code in (403, 415)
    assert not stage.enforcer.those(messages.DecideHold) + stage.enforcer.those(messages.EndSession)
    assert (await browser.get("/")).status_code == 200


async def test_4_2_2_a_forms_token_is_of_one_session(stage: Stage) -> None:
    browser, other = await stage.browser().log_in(), await stage.browser().log_in("eve", ())
    fields = await browser.look_at()
    await other.get("/")
    for token in (other.csrf(), "", "0" * 64, fields["csrf"].upper(), fields["csrf"][:-1]):
        assert (await browser.post("/holds/abcdefgh/approve", fields | {"csrf": token})).status_code == 403
    assert stage.enforcer.those(messages.DecideHold) == []
    assert (await browser.post("/holds/abcdefgh/approve", fields)).status_code == 303


async def test_4_2_2_nobody_is_logged_in_as_another(stage: Stage) -> None:
    """Login CSRF: the answer to a login that another browser has begun, or none, is not taken, nor used up."""
    eve, victim, ada = stage.browser(), stage.browser(), stage.browser()
    back = eve.answered(await eve.begin(), "eve")
    assert (await victim.get(back, Sec_Fetch_Site="cross-site")).status_code == 403
    await ada.begin()
    assert (await ada.get(back, Sec_Fetch_Site="cross-site")).status_code == 403, "of another state"
    assert "weir" not in victim.cookies.keys() | ada.cookies.keys()
    assert (await eve.get(back)).status_code == 303
    assert (await eve.get(back)).status_code == 403, "once"


@pytest.mark.parametrize("wrong", [{"nonce": "another"}, {"aud": "another"}, {"iss": "https://evil.example"},
                                   {"exp": 1}], ids=str)
async def test_4_2_2_what_the_provider_did_not_say_for_it_is_no_login(stage: Stage, wrong: dict[str, Any]) -> None:
    browser = stage.browser()
    back = browser.answered(await browser.begin(), **wrong)
    assert (await browser.get(back)).status_code == 403
    assert "weir" not in browser.cookies


@pytest.mark.parametrize("path", [
    "/static/", f"/static/{pages.VERSION}/..%2fapp.py", f"/static/{pages.VERSION}", "/static/%2e%2e/app.py",
    "/static/../app.py", "/.git/config", "/static/app.py",
    "/static//etc/passwd", "/static/.", "/docs", "/openapi.json", "/server-status", "/metrics"])
async def test_4_3_2_there_are_no_directories_and_no_other_files(stage: Stage, path: str) -> None:
    assert (await stage.browser().get(path)).status_code in (303, 404)


def test_sessions_are_bounded_and_the_oldest_goes() -> None:
    table = PageSessions()
    for number in range(PENDING + 10):
        secret, out = table.begin(f"p{number}")
        assert out == ([f"p{number - PENDING}"] if number >= PENDING else [])
    assert table.pending(secret) == f"p{number}"
    for number in range(EACH + 2):
        pending, _ = table.begin(f"a{number}")
        _, out = table.open(pending, "corp:ada", float(number))
        assert out == ([f"a{number - EACH}"] if number >= EACH else []), "one person's"
    for number in range(MOST):
        pending, _ = table.begin(f"l{number}")
        table.open(pending, f"corp:{number}", 100.0 + number)
    assert len(table) == MOST


async def test_3_3_3_who_is_locked_by_another_name_is_logged_out(stage: Stage) -> None:
    """Also where [people] says only after the lock that it is one person."""
    browser = await stage.browser().log_in()
    stage.lock("local:ada-admin")
    assert (await browser.get("/")).status_code == 200
    stage.agent.config = msgspec.structs.replace(
        stage.agent.config, people=People({"ada": ("local:ada-admin", "corp:ada")}))
    stage.identities.end_locked()
    assert (await browser.get("/")).status_code == 303
