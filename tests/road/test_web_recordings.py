"""The page's recordings on the road: what a real crew did, through recorder, agent and page, to who may read it."""
from __future__ import annotations

import html
import json
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2
import pytest
from clients.test_clients import environment
from hostile import Hostile, serving
from lab.hosts import CREW, USER, wait_until
from lab.lab import Lab
from lab.oracle import read_events
from lab.page import PAGE, PORT, URL, Page, settings
from lab.weir import Installed, configure, weir

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def host(the_lab: Lab) -> Iterator[tuple[Installed, Hostile]]:
    with ExitStack() as stack:
        scratch = the_lab.scratch / "recordings-idp"
        scratch.mkdir()
        with CREW.entered():
            provider = stack.enter_context(serving(scratch))
        page = PAGE.format(url=URL, listen=f"127.0.0.1:{PORT}", more='auditors = ["ops"]')
        more = settings(provider, the_lab.scratch / "recordings-idp.pem") + page
        made = stack.enter_context(weir(the_lab, configure(the_lab, labels=True, payload="rows", more=more)))
        wait_until("the page", lambda: (made.status().get("web") or {}).get("error") == "", 30)  # type: ignore[attr-defined]
        yield made, provider


@pytest.fixture
def auditor(host: tuple[Installed, Hostile]) -> Iterator[Page]:
    with CREW.entered(), httpx2.Client(base_url=URL, timeout=30) as client:
        yield Page(host[1], client).log_in("oscar", "ops")


def psql(host: Installed, sql: str) -> None:
    host.crew("psql", "-X", "-A", "-t", "-w", "-c", sql, environment=environment(host.lab, "wrong"))


def words(page: Page, path: str) -> str:
    """What a person reads there."""
    answer = page.ask("GET", path)
    assert answer.status_code == 200, f"{path}: {answer.text}"
    return " ".join(html.unescape(re.sub("<[^>]*>", "", answer.text)).split())


def test_what_a_crew_did_is_replayed_and_stays_masked(host: tuple[Installed, Hostile], auditor: Page) -> None:
    made, _ = host
    with made.overseen():
        psql(made, "SELECT name, email FROM customers WHERE id = 1")
        psql(made, "SELECT rolname FROM pg_authid")
    made.settle()
    assert f"local:{USER}" in words(auditor, "/recordings")
    shown = ""
    for session in re.findall(r'href="/recordings/([^"?]+)"', auditor.ask("GET", "/recordings").text):
        shown += words(auditor, f"/recordings/{session}")
    assert "SELECT name, email FROM customers WHERE id = 1" in shown
    assert "Ada Lovelace | a***@***.example" in shown
    assert "ada@" not in shown
    assert "masked" in shown
    assert re.search(r"deny ?query SELECT rolname FROM pg_authid.*base:no-secrets-of-the-server", shown), shown


@pytest.mark.slow
def test_who_answers_sees_what_was_asked_before_and_auditors_what_goes_on(
    host: tuple[Installed, Hostile], auditor: Page,
) -> None:
    made, provider = host
    with CREW.entered(), httpx2.Client(base_url=URL, timeout=30) as client, made.overseen():
        carol = Page(provider, client).log_in("carol", "dba")
        for number, reason in ((-91, "never on Fridays"), (-92, "nor today")):
            thread = threading.Thread(target=psql, args=(made, f"DELETE FROM orders WHERE id = {number}"))
            thread.start()
            wait_until("a hold on the page", lambda: "/holds/" in carol.ask("GET", "/").text, 30)
            (ticket,) = set(re.findall(r'/holds/([a-z2-7]{8})', carol.ask("GET", "/").text))
            if number == -92:
                told = words(carol, f"/holds/{ticket}")
                assert "by corp:carol: never on Fridays" in told
                session = next(one["session"] for one in json.loads(made.weir(
                    "status", "--json", "--sessions").stdout)["sessions"] if one["state"] == "held")
                assert "DELETE FROM orders WHERE id = -92" in words(auditor, f"/sessions/{session}")
                assert carol.ask("GET", f"/recordings/{session}").status_code == 403
                with auditor.client.stream("GET", f"/events/sessions/{session}", headers={
                        "Cookie": "; ".join(f"{name}={value}" for name, value in auditor.cookies.items())}) as stream:
                    first = next(stream.iter_text())
                assert first.startswith("event: lines\nid: ")
            assert carol.answer(ticket, "deny", reason).status_code == 303
            thread.join(60)
    made.settle()
    assert "nor today" in words(auditor, "/history")


def test_reading_is_recorded(host: tuple[Installed, Hostile], auditor: Page) -> None:
    made, _ = host
    words(auditor, "/recordings")

    def noted() -> bool:
        made.settle()
        return any(b"corp:oscar" in one and b"through" in one for one in read_events(made.recording))

    wait_until("an event of the reader", noted, 30)
