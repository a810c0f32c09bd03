"""What people do at the page: log in, see what waits for them, answer it, log out."""
from __future__ import annotations

import asyncio
import re
from typing import Any, Literal

import httpx2
import msgspec
import pytest
from webstage import HOLD, SESSION, Stage

from agent.contract import messages
from agent.contract import web as asked
from agent.contract.people import People
from enforcer.recording.paged import Line, LinesPage
from enforcer.web import site


async def test_a_login_and_an_approval(stage: Stage) -> None:
    browser = stage.browser()
    assert (await browser.get("/")).headers["location"] == "/login"
    await browser.log_in()
    page = await browser.get("/")
    assert "abcdefgh" in page.text
    assert "corp:ada" in page.text
    done = await browser.post("/holds/abcdefgh/approve", await browser.look_at() | {"reason": "seen it"})
    assert (done.status_code, done.headers["location"]) == (303, "/?did=approve")
    assert "approved" in (await browser.get("/?did=approve")).text
    (decided,) = stage.enforcer.those(messages.DecideHold)
    assert (decided.ticket, decided.approve, decided.approver, decided.groups, decided.reason, decided.break_glass) == (
        "abcdefgh", True, "corp:ada", ("dba",), "seen it", False)
    (told,) = stage.events("approval.answered")
    assert (told["by"], told["answer"], told["error"], told["way"][:4]) == ("corp:ada", "approve", "", "web ")
    (opened,) = stage.events("login.opened")
    assert (opened["subject"], opened["way"]) == ("corp:ada", "web")


async def test_the_other_answers(stage: Stage) -> None:
    browser = await stage.browser().log_in()
    assert (await browser.post("/holds/abcdefgh/deny", await browser.look_at() | {"reason": "no"})).status_code == 303
    assert (await browser.post("/holds/abcdefgh/break-glass", await browser.look_at() | {"reason": "x"})
            ).status_code == 303
    assert (await browser.post("/holds/abcdefgh/revoke", await browser.look_at())).status_code == 303
    denied, glass = stage.enforcer.those(messages.DecideHold)
    assert (denied.approve, denied.reason, glass.approve, glass.break_glass) == (False, "no", True, True)
    (revoked,) = stage.enforcer.those(messages.RevokeHold)
    assert (revoked.by, revoked.groups) == ("corp:ada", ("dba",))
    assert (await browser.post("/holds/abcdefgh/eat", await browser.look_at())).status_code == 404


async def test_why_an_answer_does_not_count_is_said(stage: Stage) -> None:
    browser = await stage.browser().log_in()
    stage.enforcer.error = "corp:ada asked for this & cannot answer it"
    said = await browser.post("/holds/abcdefgh/approve", await browser.look_at())
    assert said.status_code == 403
    assert "asked for this &amp; cannot answer it" in said.text


async def test_a_browser_that_sends_no_cookie_is_told(stage: Stage) -> None:
    browser = await stage.browser().log_in()
    fields = await browser.look_at()
    browser.cookies.clear()
    answer = await browser.post(f"/holds/{HOLD.ticket}/approve", fields)
    assert (answer.status_code, "sent no cookie" in answer.text) == (403, True)
    await browser.get("/login")
    csrf = browser.csrf()
    browser.cookies.clear()
    assert "sent no cookie" in (await browser.post("/login/corp", {"csrf": csrf})).text


async def test_an_address_that_leads_nowhere_is_said(stage: Stage) -> None:
    answer = await stage.browser().get("/nothing")
    assert (answer.status_code, "<h1>there is nothing here</h1>" in answer.text) == (404, True)


async def test_what_has_changed_since_it_was_seen_is_not_answered(stage: Stage) -> None:
    browser = await stage.browser().log_in()
    fields = await browser.look_at()
    stage.enforcer.holds = (msgspec.structs.replace(HOLD, text="DELETE FROM orders"),)
    assert (await browser.post("/holds/abcdefgh/approve", fields)).status_code == 409
    assert stage.enforcer.those(messages.DecideHold) == []
    assert (await browser.post("/holds/abcdefgh/deny", fields)).status_code == 303, "a no is a no to whatever it is"


async def test_a_login_leads_to_the_page_that_it_was_for(stage: Stage) -> None:
    browser = stage.browser()
    asked_for = await browser.get("/holds/abcdefgh")
    assert (asked_for.status_code, asked_for.headers["location"]) == (303, "/login?to=/holds/abcdefgh")
    page = await browser.get(asked_for.headers["location"])
    assert 'value="/holds/abcdefgh"' in page.text
    begun = await browser.post("/login/corp", {"csrf": browser.csrf(), "to": "/holds/abcdefgh"})
    back = await browser.get(browser.answered(begun.headers["refresh"].partition("url=")[2]))
    assert (back.status_code, back.headers["location"]) == (303, "/holds/abcdefgh")


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example/holds/x", "/holds/../logout", "/holds/a?b",
                                "/holds/x\r\nSet-Cookie: a=b", "/logout", "/holds/" + "a" * 100])
async def test_and_to_no_other(stage: Stage, to: str) -> None:
    browser = stage.browser()
    page = await browser.get("/login?" + str(httpx2.QueryParams({"to": to})))
    assert 'name="to"' not in page.text
    begun = await browser.post("/login/corp", {"csrf": browser.csrf(), "to": to})
    back = await browser.get(browser.answered(begun.headers["refresh"].partition("url=")[2]))
    assert (back.status_code, back.headers["location"]) == (303, "/")


async def test_the_hold_that_is_looked_at_is_whole_however_much_waits(stage: Stage) -> None:
    stage.enforcer.whole = {HOLD.ticket: msgspec.structs.replace(HOLD, text="DELETE FROM orders WHERE whole")}
    stage.enforcer.holds = (msgspec.structs.replace(HOLD, text="DELETE... (cut here: much waits)"),)
    browser = await stage.browser().log_in()
    fields = await browser.look_at()
    listed, shown = [re.sub("<[^>]*>", "", (await browser.get(path)).text) for path in ("/", "/holds/abcdefgh")]
    assert ("much waits" in listed, "WHERE whole" in listed, "WHERE whole" in shown) == (True, False, True)
    stage.enforcer.holds = (msgspec.structs.replace(HOLD, text="DEL... (cut here: much waits)"),)
    assert (await browser.post("/holds/abcdefgh/approve", fields)).status_code == 303


async def test_an_answer_waits_while_one_configuration_takes_anothers_place(stage: Stage) -> None:
    """It is by the groups of the later one."""
    browser = await stage.browser().log_in("ada", ("dba", "ops"))
    fields = await browser.look_at()
    came = asyncio.Event()

    class Turn(asyncio.Event):
        async def wait(self) -> Literal[True]:
            came.set()
            return await super().wait()

    for path, wanted in (("/holds/abcdefgh/approve", messages.DecideHold), ("/sessions/s1/kill", messages.EndSession)):
        came.clear()
        stage.agent.turn = Turn()
        answer = asyncio.ensure_future(browser.post(path, fields | {"reason": "seen it"}))
        async with asyncio.timeout(5):
            await came.wait()
        assert (answer.done(), stage.enforcer.those(wanted)) == (False, [])
        stage.agent.turn.set()
        assert (await answer).status_code == 303
        assert len(stage.enforcer.those(wanted)) == 1


async def test_who_may_not_answer_it_does_not_see_it(stage: Stage) -> None:
    stranger = await stage.browser().log_in("bob", ("ops",))
    assert "abcdefgh" not in (await stranger.get("/")).text
    assert (await stranger.get("/holds/abcdefgh")).status_code == 404
    posted = await stranger.post("/holds/abcdefgh/approve", {"csrf": stranger.csrf(), "seen": "x"})
    assert posted.status_code == 404
    assert stage.enforcer.those(messages.DecideHold) == []
    asker = await stage.browser().log_in("eve", ())
    assert "abcdefgh" in (await asker.get("/")).text, "one's own is seen"


async def test_sessions_are_for_auditors_and_ended_by_operators(stage: Stage) -> None:
    dba = await stage.browser().log_in()
    assert (await dba.get("/sessions")).status_code == 403
    assert (await dba.get("/sessions/s1")).status_code == 403
    await dba.get("/")
    assert (await dba.post("/sessions/s1/kill", {"csrf": dba.csrf()})).status_code == 403
    auditor = await stage.browser().log_in("aud", ("audit",))
    page = await auditor.get("/sessions")
    assert page.status_code == 200
    assert SESSION.session in page.text
    assert (await auditor.post("/sessions/s1/kill", {"csrf": auditor.csrf()})).status_code == 403
    assert stage.enforcer.those(messages.EndSession) == []
    operator = await stage.browser().log_in("op", ("ops",))
    await operator.get("/sessions")
    done = await operator.post("/sessions/s1/kill", {"csrf": operator.csrf(), "reason": "too much"})
    assert (done.status_code, done.headers["location"]) == (303, "/sessions?did=kill")
    (ended,) = stage.enforcer.those(messages.EndSession)
    assert (ended.session, ended.reason) == ("s1", "killed by corp:op: too much")
    (event,) = stage.events("session.killed")
    assert event["by"] == "corp:op"
    assert event["way"].startswith("web ")


async def test_an_enforcer_that_is_away_is_said(stage: Stage) -> None:
    browser = await stage.browser().log_in()
    fields = await browser.look_at()
    stage.enforcer.away = True
    assert "the enforcer is not running" in (await browser.get("/")).text
    assert (await browser.post("/holds/abcdefgh/approve", fields)).status_code == 404


async def test_who_is_locked_out_is_out(stage: Stage) -> None:
    browser = await stage.browser().log_in()
    stage.lock("corp:ada")
    assert (await browser.get("/")).headers["location"] == "/login"
    back = browser.answered(await browser.begin())
    assert "locked" in (await browser.get(back)).text


async def test_a_stream_tells_of_changes_and_ends_with_the_session(stage: Stage) -> None:
    browser = await stage.browser().log_in()
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    got: asyncio.Queue[str] = asyncio.Queue()

    async def read() -> None:
        async with stage.client.stream("GET", "/events/holds", headers={"Cookie": cookie}) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            async for piece in answer.aiter_text():
                got.put_nowait(piece)

    task = asyncio.ensure_future(read())
    async with asyncio.timeout(10):
        assert "abcdefgh" in await got.get()
        while not stage.enforcer.those(messages.WatchChanges):
            await asyncio.sleep(0.01)
        before = len(stage.enforcer.those(messages.ListHolds))
        await asyncio.sleep(1)
        assert len(stage.enforcer.those(messages.ListHolds)) == before, "nothing is asked where nothing changes"
        stage.enforcer.holds = (msgspec.structs.replace(HOLD, ticket="bbbbbbbb"),)
        for _ in range(50):
            stage.enforcer.news(messages.Changed(holds=True))
        assert "bbbbbbbb" in await got.get()
        await asyncio.sleep(1)
        assert len(stage.enforcer.those(messages.ListHolds)) <= before + 2, "many changes are told as one"
        stage.identities.end_web(next(iter(stage.web.sessions)).login, "over")
        await task
        while stage.enforcer.those(messages.WatchChanges)[-1].on:
            await asyncio.sleep(0.01)
    assert not len(stage.process.site.streams)


async def test_what_is_for_others_is_handed_on_unread(stage: Stage) -> None:
    came: list[Any] = []

    async def take(message: asked.Came) -> asked.Replied:
        came.append(message)
        return asked.Replied(0, 200, "application/json", b"{}")

    browser = stage.browser(**{"User-Agent": "Slackbot"})
    assert (await browser.post("/slack/actions", b"payload=1", Origin="")).status_code == 404, "nobody is there"
    stage.web.parts |= {"slack": take, "backchannel": take, "saml": take}
    done = await browser.post("/slack/actions", b"payload=%7B%7D", Origin="", Sec_Fetch_Site="",
                              X_Slack_Signature="v0=abc", X_Other="no", Cookie="weir=x")
    assert (done.status_code, done.text, done.headers["content-type"]) == (200, "{}", "application/json")
    assert (await browser.post("/backchannel/corp", b"logout_token=x", Origin="https://idp")).status_code == 200
    assert (await browser.get("/saml/corp/slo?SAMLRequest=x")).status_code == 200
    async def lead(message: asked.Came) -> asked.Replied:
        return asked.Replied(0, 303, location=message.query)

    stage.web.parts |= {"saml": lead}
    for where, led in (("https://idp.lab.example/slo?x=1", None), ("/login", None), ("//evil.example", "/"),
                       ("javascript:alert(1)", "/"), ("http://evil.example", "/")):
        assert (await browser.get(f"/saml/corp/slo?{where}")).headers["location"] == (led or where)
    slack, back, slo = came
    assert (slack.part, slack.method, slack.body) == ("slack", "POST", b"payload=%7B%7D")
    assert dict(slack.headers) == {"content-type": "application/x-www-form-urlencoded", "x-slack-signature": "v0=abc"}
    assert (back.part, back.name, slo.part, slo.name, slo.query) == (
        "backchannel", "corp", "saml", "corp/slo", "SAMLRequest=x")
    assert (await browser.post("/slack/actions", b"x" * (256 * 1024 + 1))).status_code == 413


async def test_a_logout_goes_on_to_its_provider(stage: Stage) -> None:
    """The octets of its query are what was signed: handed on as they came.  The agent says where it goes on."""
    came: list[Any] = []

    async def take(message: asked.Came) -> asked.Replied:
        came.append(message)
        return asked.Replied(0, 303, location="https://idp.lab.example/slo?SAMLResponse=x%2f")

    stage.web.parts["saml"] = take
    query = "SAMLRequest=a%2fb%2B&RelayState=%7e%41+x&SigAlg=http%3a%2f%2Fx&Signature=y%3D"
    done = await stage.browser().get(f"/saml/corp/logout?{query}", Sec_Fetch_Site="cross-site")
    assert (done.status_code, done.headers["location"]) == (303, "https://idp.lab.example/slo?SAMLResponse=x%2f")
    assert (came[0].name, came[0].query) == ("corp/logout", query)
    done = await stage.browser().post("/saml/corp/logout", b"SAMLRequest=x", Origin="null", Sec_Fetch_Site="cross-site")
    assert (done.status_code, came[1].body) == (303, b"SAMLRequest=x")


async def test_recordings_are_for_auditors(stage: Stage) -> None:
    for who in (("dba",), ("ops",)):
        other = await stage.browser().log_in("bob", who)
        for path in ("/recordings", "/recordings/s0", "/history", "/events/sessions/s1", "/recordings/s0/tape/1"):
            assert (await other.get(path)).status_code == 403, path
        said: Any = await stage.web._answer(asked.AskRecorded(1, other.cookies["weir"], "sessions"))
        assert said.error == "this is for [web] auditors", "whatever the web process asks"
        said = await stage.web._answer(asked.AskRecorded(1, other.cookies["weir"], "history", "corp:zoe"))
        assert said.error == "this is for [web] auditors"
    assert stage.agent.recorder.asked == []
    auditor = await stage.browser().log_in("aud", ("audit",))
    assert "s0" in (await auditor.get("/recordings?before=9")).text
    assert "17" in (await auditor.get("/recordings/s0?after=3")).text
    assert "never on Fridays" in (await auditor.get("/history")).text
    assert [(one.what, one.by, one.name, one.at) for one in stage.agent.recorder.asked] == [
        ("sessions", "corp:aud", "", 9), ("lines", "corp:aud", "s0", 3), ("history", "corp:aud", "", 0)]
    found = await auditor.get("/recordings/s0/tape/7?after=2&live=1")
    assert found.headers["content-type"] == "application/json"
    assert found.headers["cache-control"] == "no-store"
    assert found.json() == {"terminal": True, "length": 5.0, "last": 4, "more": False, "ended": False, "wrong": "",
                            "pieces": [[1.0, "out", "/zxiPg=="], [0.000002, "err", None]]}
    question = stage.agent.recorder.asked[-1]
    assert (question.what, question.name, question.at, question.operation) == ("tape", "s0", 2, 7)
    assert (await auditor.get(f"/recordings/s0/tape/{'9' * 40}")).status_code == 200
    assert stage.agent.recorder.asked[-1].operation == (1 << 63) - 1
    assert (await auditor.get("/recordings/s0/tape/x")).status_code == 404
    assert (await auditor.get("/recordings/s0/tape/7", Sec_Fetch_Site="cross-site")).status_code == 403
    assert (await stage.browser().get("/recordings/s0/tape/7")).status_code == 401
    stage.agent.recorder.pages["sessions"] = {"no": "page"}
    stage.agent.recorder.pages["history"] = 7
    assert (await auditor.get("/recordings")).status_code == 200
    assert "no page" in (await auditor.get("/history")).text


async def test_who_may_answer_sees_what_the_asker_was_told_before(stage: Stage) -> None:
    browser = await stage.browser().log_in()
    assert "never on Fridays" in (await browser.get("/holds/abcdefgh")).text
    assert [(one.what, one.by, one.name) for one in stage.agent.recorder.asked] == [
        ("history", "corp:ada", "corp:eve")]


async def test_a_session_that_is_watched_goes_on(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "POLL", 0.1)
    auditor = await stage.browser().log_in("aud", ("audit",))
    assert "17" in (await auditor.get("/sessions/s1")).text
    cookie = f"weir={auditor.cookies['weir']}"
    async with asyncio.timeout(10), stage.client.stream(
            "GET", "/events/sessions/s1?after=3", headers={"Cookie": cookie}) as answer:
        pieces = answer.aiter_text()
        first = await anext(pieces)
        assert first.startswith("event: lines\nid: 7\n")
        stage.agent.recorder.pages["lines"] = LinesPage(
            lines=(Line(8, 1, "asked", 2, "permit", text="SELECT 18"),), last=8)
        second = await anext(pieces)
        assert second.startswith("event: lines\nid: 8\n")
        assert "18" in second
        stage.identities.end_web(next(iter(stage.web.sessions)).login, "over")
        assert "".join([piece async for piece in pieces]) == ""


async def test_one_person_has_all_their_names(stage: Stage) -> None:
    """What the enforcer compares with who asked is theirs to say, and what is locked is locked by each of them."""
    people = People({"ada": ("corp:ada", "local:ada", "adfs:lovelace")})
    stage.agent.config = msgspec.structs.replace(stage.agent.config, people=people)
    browser = await stage.browser().log_in()
    await browser.post("/holds/abcdefgh/approve", await browser.look_at())
    (decided,) = stage.enforcer.those(messages.DecideHold)
    assert (decided.approver, set(decided.names)) == ("corp:ada", {"local:ada", "adfs:lovelace"})
    stage.enforcer.holds = (msgspec.structs.replace(HOLD, subject="local:ada", approvers=("sec",)),)
    assert "abcdefgh" in (await browser.get("/")).text, "it is theirs"
