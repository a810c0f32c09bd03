"""OWASP ASVS 4.0.3, level 2, of the page: V5 (what comes), V11 (what is done how often), V12 (files), V13 (services).
Tests are named by item.

    item     test                                              item     test
    5.1.1    a field that stands twice                         11.1.6   what was seen is what is answered
    5.1.2    fields that nobody asked for                      12.1.1   long bodies, slow bodies
    5.1.3    what a field may hold                             12.3.1   paths (test_asvs_sessions: 4.3.2)
    5.1.5    where it leads                                    13.1.3   nothing secret in addresses (3.1.1)
    5.3.3    what crews wrote is shown, and does nothing       13.2.1   methods
    11.1.4   answers are bounded                               13.2.5   kinds of content (test_asvs_sessions: 4.2.2)

Not of the page: 5.2 but what 5.3.3 shows (no HTML, mail, templates, SVG or scripts of users), 5.3.4 - 5.3.10 (no SQL,
OS command, file, LDAP, XML or XPath is made of what comes), 5.4, 5.5 (memory is Python's; nothing is deserialized but
msgpack of the agent), 11.1.1 - 11.1.3, 11.1.5 (one step each), 12.1.2 - 12.2, 12.4 - 12.6 (no uploads, nothing is
fetched), 13.2.2, 13.2.3, 13.3, 13.4 (no JSON, SOAP or GraphQL).
"""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx2
import msgspec
import pytest
from webstage import HOLD, SESSION, Stage

from agent.contract import messages
from agent.contract import web as asked
from agent.web.sessions import PENDING
from enforcer.web import door, rates, site
from enforcer.web.rates import ANSWER, LOGIN, Rates, who_is
from enforcer.web.site import _is_local

NASTY = "<script>alert(1)</script>\"' onload=x&amp;{{7*7}}\x1b[2J\u202e"


async def test_5_1_1_a_field_that_stands_twice_makes_it_no_form(stage: Stage) -> None:
    browser = await stage.browser().log_in()
    fields = await browser.look_at()
    body = f"csrf={fields['csrf']}&seen={fields['seen']}&seen=x"
    assert (await browser.post("/holds/abcdefgh/approve", body.encode())).status_code == 400
    many = "&".join(f"f{number}=1" for number in range(100))
    assert (await browser.post("/holds/abcdefgh/approve", many.encode())).status_code == 400
    assert (await browser.post("/holds/abcdefgh/approve", b"\xff\xfe=1")).status_code == 400


async def test_5_1_2_what_nobody_asked_for_changes_nothing(stage: Stage) -> None:
    browser = await stage.browser().log_in()
    fields = await browser.look_at() | {"glass": "1", "approver": "corp:x", "ticket": "zzzzzzzz", "break_glass": "true"}
    assert (await browser.post("/holds/abcdefgh/approve", fields)).status_code == 303
    (decided,) = stage.enforcer.those(messages.DecideHold)
    assert (decided.ticket, decided.approver, decided.break_glass) == ("abcdefgh", "corp:ada", False)


@pytest.mark.parametrize("reason", ["x" * 201, "two\nlines", "\x1b[2J", "\0"], ids=["long", "lines", "escape", "nul"])
async def test_5_1_3_a_reason_is_one_line(stage: Stage, reason: str) -> None:
    browser = await stage.browser().log_in()
    assert (await browser.post("/holds/abcdefgh/approve", await browser.look_at() | {"reason": reason})
            ).status_code == 400
    assert stage.enforcer.those(messages.DecideHold) == []


@pytest.mark.parametrize("path", ["//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil.example",
                                  "javascript:alert(1)", "/ok\r\nSet-Cookie: x", "", "/\t/evil.example", "/@evil"])
def test_5_1_5_it_leads_nowhere_else(path: str) -> None:
    assert not _is_local(path)
    assert _is_local("/login?did=logout")


async def test_5_3_3_what_crews_wrote_is_shown_and_does_nothing(stage: Stage) -> None:
    stage.enforcer.holds = (msgspec.structs.replace(
        HOLD, text=NASTY, exe=NASTY, action=NASTY, parameters=(NASTY,), reported=NASTY, plan=NASTY, database=NASTY,
        reason=NASTY, subject=NASTY, workload=NASTY),)
    stage.enforcer.sessions = (msgspec.structs.replace(SESSION, reported=NASTY, subject=NASTY, database=NASTY),)
    browser = await stage.browser().log_in("ada", ("dba", "audit"))
    pages = [(await browser.get(path)).text for path in ("/", "/holds/abcdefgh", "/sessions", "/sessions/s1")]
    async with stage.client.stream("GET", "/events/holds", headers={
            "Cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}) as answer:
        pages.append(await anext(answer.aiter_text()))
    for page in pages:
        assert "alert(1)" in page
        assert "<script>alert" not in page
        assert "onload=x&amp;amp;" in page or "&#34;&#39; onload" in page or "&quot;" in page
        assert "49" not in page.partition("{{7*7}}")[0][-20:]
        assert "\x1b" not in page
        assert "\u202e" not in page
    stage.enforcer.error = NASTY
    wrong = await browser.post("/holds/abcdefgh/approve", await browser.look_at())
    assert "<script>alert" not in wrong.text


async def test_11_1_4_answers_of_a_session_are_bounded(stage: Stage) -> None:
    browser, other = await stage.browser().log_in(), await stage.browser().log_in("bob", ("dba",))
    fields = await browser.look_at()
    stage.process.site._clock = lambda: 100.0
    count, (first, _) = 0, [one.login for one in stage.web.sessions]
    while stage.process.site._rates.take(ANSWER, first, 100.0):
        count += 1
    assert count == 30
    assert (await browser.post("/holds/abcdefgh/approve", fields)).status_code == 429
    assert (await other.post("/holds/abcdefgh/approve", await other.look_at())).status_code == 303, "others' are not"


def test_11_1_4_who_has_a_network_has_one_address() -> None:
    those = Rates()
    taken = [those.take(LOGIN, who_is(f"2001:db8::{number:x}"), 1.0) for number in range(200)]
    assert sum(taken) == 10
    assert those.take(LOGIN, who_is("2001:db8:0:1::1"), 1.0)      # there is room for others
    assert [who_is(one) for one in ("::1", "127.3.0.1", "::ffff:127.0.0.1", "", "::ffff:192.0.2.1", "192.0.2.1",
                                    "fe80::1%eth0")] == ["", "", "", "", "192.0.2.1", "192.0.2.1", "fe80::/64"]


async def test_11_1_4_a_flood_of_one_kind_keeps_nothing_else_out(stage: Stage) -> None:
    """Before a server of the operator's everybody has one address."""
    stage.process.site._clock = lambda: 100.0
    said = [(await stage.browser().post("/slack/actions", b"x")).status_code for _ in range(220)]
    assert said[-1] == 429
    assert (await stage.browser().post("/backchannel/corp", b"x")).status_code != 429
    assert (await stage.browser().get("/answer/abc")).status_code == 404


async def test_11_1_4_streams_are_bounded(stage: Stage) -> None:
    browser = await stage.browser().log_in()
    cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}
    opened = []
    try:
        for _ in range(6):
            one = stage.client.stream("GET", "/events/holds", headers=cookie)
            assert (await one.__aenter__()).status_code == 200
            opened.append(one)
        assert (await browser.get("/events/holds", Sec_Fetch_Site="same-origin")).status_code == 429
        assert (await browser.get("/")).status_code == 200
    finally:
        for one in opened:
            await one.__aexit__(None, None, None)
    async with asyncio.timeout(10):
        while len(stage.process.site.streams):
            await asyncio.sleep(0.01)


async def test_11_1_6_an_answer_is_to_what_was_seen(stage: Stage) -> None:
    browser = await stage.browser().log_in()
    fields = await browser.look_at()
    for changed in ({"text": "DROP TABLE orders"}, {"parameters": ("8",)}, {"subject": "corp:bob"},
                    {"state": "approved"}, {"target": "other"}, {"rows": 10_000_000}):
        stage.enforcer.holds = (msgspec.structs.replace(HOLD, **changed),)  # type: ignore[arg-type]
        assert (await browser.post("/holds/abcdefgh/approve", fields)).status_code == 409
    assert stage.enforcer.those(messages.DecideHold) == []


async def test_12_1_1_long_bodies_are_not_read(stage: Stage) -> None:
    browser = await stage.browser().log_in()
    fields = await browser.look_at() | {"reason": "x" * 20_000}
    assert (await browser.post("/holds/abcdefgh/approve", fields)).status_code == 413

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 4096

    with suppress(httpx2.TransportError):      # it is cut off while it still sends
        done = await stage.client.post("/slack/actions", content=endless(), headers={"Origin": stage.url})
        assert done.status_code == 413
    assert (await browser.get("/" + "x" * 20_000)).status_code == 431, "nor long heads"


async def test_12_1_1_who_is_slow_is_let_go(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "ASKING", 0.3)
    monkeypatch.setattr(door, "TICK", 0.1)
    monkeypatch.setattr(site, "READING", 0.3)
    host, port = "127.0.0.1", int(stage.url.rpartition(":")[2])
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(host, port)
        ended = asyncio.ensure_future(reader.read())
        while not ended.done():       # a request that never ends, byte by byte
            writer.write(b"GET / HTTP/1.1\r\n"[:1])
            await asyncio.sleep(0.05)
        writer.close()
        await asyncio.gather(ended, return_exceptions=True)
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(f"POST /slack/actions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 9\r\n\r\nx".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 408")
        writer.close()
    assert (await stage.browser().get("/login")).status_code == 200


async def test_12_1_1_connections_are_bounded(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MOST", 4)
    port = int(stage.url.rpartition(":")[2])
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
    await asyncio.sleep(0.2)
    gone = 0
    for reader, writer in opened:
        try:
            async with asyncio.timeout(0.2):
                gone += await reader.read(1) == b""
        except (TimeoutError, ConnectionError) as reason:
            gone += not isinstance(reason, TimeoutError)
        writer.close()
    assert gone >= 4


async def test_12_1_1_who_connects_again_and_again_does_not_keep_the_agent(
    stage: Stage, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It looks at each, beside crews' own connections."""
    monkeypatch.setitem(rates.RATES, rates.CONNECT, rates.Rate((1, 5), (1, 20)))
    monkeypatch.setattr(stage.process.door, "_rates", Rates())
    looked: list[object] = []

    async def admit(question: object) -> str:
        looked.append(question)
        return ""

    monkeypatch.setattr(stage.process.door, "_admit", admit)
    port = int(stage.url.rpartition(":")[2])
    for _ in range(100):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
    await asyncio.sleep(0.2)
    assert 20 <= len(looked) < 30


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
async def test_13_2_1_other_methods_are_refused(stage: Stage, method: str) -> None:
    assert (await stage.client.request(method, "/login")).status_code in (400, 405)
    for path in ("/", "/holds/abcdefgh", "/login", "/sessions"):
        assert (await stage.client.request("POST", path)).status_code == 405
    for path in ("/logout", "/holds/abcdefgh/approve", "/login/corp", "/sessions/s1/kill", "/slack/actions"):
        assert (await stage.client.request("GET", path)).status_code == 405


HEAD = b"POST /slack/actions HTTP/1.1\r\nHost: HOST\r\n"


@pytest.mark.parametrize("raw", [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200, b"\0" * 4096, b"GET / HTTP/9.9\r\n\r\n",
    b"GET /\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET http://evil.example/ HTTP/1.1\r\nHost: HOST\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: HOST\r\nHost: evil.example\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : HOST\r\n\r\n", b"GET / HTTP/1.1\r\nHost: HOST\r\nX: a\r\n folded\r\n\r\n",
    b"GET /a b HTTP/1.1\r\nHost: HOST\r\n\r\n", b"GET / HTTP/1.1\r\nHost: HOST\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", HEAD + b"Content-Length: -1\r\n\r\n",
    HEAD + b"Content-Length: 0x3\r\n\r\nabc", HEAD + b"Transfer-Encoding: gzip\r\n\r\nabc",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc", HEAD + b"Content-Length: 99999999999999999999\r\n\r\nabc",
], ids=range(18))
async def test_13_2_what_is_no_request_ends_a_connection_and_nothing_else(stage: Stage, raw: bytes) -> None:
    """What two servers could read in two ways is read in none."""
    host, port = "127.0.0.1", int(stage.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(raw.replace(b"HOST", f"{host}:{port}".encode()))
    writer.write_eof()
    async with asyncio.timeout(10):
        with suppress(ConnectionError):
            said = await reader.read()
            assert said[9:12] in (b"400", b"405", b"413", b"421", b"303", b"404", b""), said[:80]
    writer.close()
    assert (await stage.browser().get("/login")).status_code == 200


async def test_13_2_a_body_has_one_length(stage: Stage) -> None:
    """What stands before the page may go by the other one: the rest would be somebody else's request."""
    host, port = "127.0.0.1", int(stage.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection(host, port)
    first = (f"POST /logout HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n"
             "0\r\n\r\n")
    second = f"GET /login HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    writer.write((first + second).encode())
    async with asyncio.timeout(10):
        said = await reader.read()
    writer.close()
    assert [part[:3] for part in said.split(b"HTTP/1.1 ")[1:]] == [b"400"]


async def test_logins_that_come_to_nothing_fill_no_recording(stage: Stage) -> None:
    """A broken page begins as many as it likes."""
    for number in range(PENDING + 200):
        assert isinstance(await stage.web._answer(asked.BeginLogin(number, "corp")), asked.Begun)
    assert 1 <= len(stage.events("login.refused")) <= 20      # of 200, one a second


async def test_sessions_that_are_not_there_fill_no_recording(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = await stage.browser().log_in(roles=("ops",))
    secret = browser.cookies["weir"]
    monkeypatch.setattr(stage.enforcer, "ask", lambda make, wanted, seconds=0: _none(make(1)))
    for number in range(200):
        assert (await stage.web._answer(asked.Kill(number, secret, f"s{number}"))).error
    assert 1 <= len(stage.events("session.killed")) <= 20


async def _none(message: messages.Message) -> messages.SessionEnded:
    return messages.SessionEnded(1, None, "there is no such session")
