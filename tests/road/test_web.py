"""The page on the road: a real PostgreSQL's statement that waits, people who log in as a browser does and answer it,
crews that would answer for themselves.  What was executed is the server's log's to say."""
from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx2
import pytest
from clients.test_clients import environment
from hostile import Hostile, serving
from lab import certificates
from lab.hosts import CREW, RUNTIME, USER, wait_until
from lab.lab import Lab
from lab.oracle import read_events
from lab.page import PAGE, PORT, URL, Page, field, settings
from lab.weir import AUDITOR, Installed, configure, weir

from agent.layout import cgroup_root

pytestmark = pytest.mark.lab

TLS = 8444
EGRESS = f"""
[[egress]]
name = "page"
addresses = ["{CREW.ipv4}"]
ports = [{TLS}]
"""
CONNECT = """
import json, socket, sys
said = {}
for place in json.loads(sys.argv[1]):
    try:
        if isinstance(place, str):
            one = socket.socket(socket.AF_UNIX); one.connect(place)
        else:
            one = socket.create_connection(place, 5)
        one.settimeout(5)
        one.sendall(b"GET /login HTTP/1.1\\r\\nHost: 127.0.0.1:8443\\r\\nConnection: close\\r\\n\\r\\n")
        said[str(place)] = one.recv(100).decode(errors="replace") or "closed"
    except OSError as reason:
        said[str(place)] = type(reason).__name__
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def host(the_lab: Lab) -> Iterator[tuple[Installed, Hostile]]:
    with ExitStack() as stack:
        scratch = the_lab.scratch / "web-idp"
        scratch.mkdir()
        with CREW.entered():
            provider = stack.enter_context(serving(scratch))
        config = configure(the_lab, more=EGRESS + settings(provider, the_lab.scratch / "web-idp.pem") + PAGE.format(
            url=URL, listen=f"127.0.0.1:{PORT}", more=""))
        made = stack.enter_context(weir(the_lab, config))
        wait_until("the page", lambda: (made.status().get("web") or {}).get("error") == "", 30)  # type: ignore[attr-defined]
        yield made, provider


@pytest.fixture
def page(host: tuple[Installed, Hostile]) -> Iterator[Page]:
    with CREW.entered(), httpx2.Client(base_url=URL, timeout=30) as client:
        yield Page(host[1], client)


@contextmanager
def held(host: Installed, page: Page, sql: str) -> Iterator[tuple[str, list[subprocess.CompletedProcess[str]]]]:
    """The ticket of a statement that waits; its outcome at the end."""
    said: list[subprocess.CompletedProcess[str]] = []
    thread = threading.Thread(target=lambda: said.append(host.crew(
        "psql", "-X", "-A", "-t", "-w", "-c", sql, environment=environment(host.lab, "wrong"))))
    thread.start()
    try:
        tickets: list[str] = []

        def waits() -> bool:
            tickets[:] = re.findall(r'href="?/holds/([a-z2-7]{8})', page.ask("GET", "/").text)
            return bool(tickets)

        wait_until("a hold on the page", waits, 30)
        yield tickets[0], said
    finally:
        thread.join(60)


def refusals(host: Installed) -> int:
    """By the page, in the recording."""
    host.settle()
    return sum(b"web.refused" in one for one in read_events(host.recording))


def executed(host: Installed, text: str) -> int:
    return sum(text in one.message and "EXPLAIN" not in one.message and not one.error
               for one in host.lab.database.statements())


def test_it_is_approved_and_denied_at_the_page(host: tuple[Installed, Hostile], page: Page) -> None:
    made, _ = host
    page.log_in("carol", "dba")
    with made.overseen():
        with held(made, page, "DELETE FROM orders WHERE id = -71") as (ticket, said):
            shown = page.ask("GET", f"/holds/{ticket}").text
            assert "-71" in re.sub("<[^>]*>", "", shown)
            assert f"local:{USER}" in shown
            assert executed(made, "id = -71") == 0
            assert page.answer(ticket, "approve", "fine").status_code == 303
        assert (said[0].returncode, said[0].stdout) == (0, "DELETE 0\n")
        assert executed(made, "id = -71") == 1
        with held(made, page, "DELETE FROM orders WHERE id = -72") as (other, said):
            assert page.answer(other, "deny", "not today").status_code == 303
        assert said[0].returncode != 0
        assert "not today" in said[0].stderr
        assert executed(made, "id = -72") == 0
    told = json.loads(made.weir("approvals", "history", "--json", user=AUDITOR).stdout)
    steps = {one["ticket"]: [(step["state"], step["by"], step["reason"]) for step in one["steps"]] for one in told}
    assert ("approved", "corp:carol", "fine") in steps[ticket]
    assert ("denied", "corp:carol", "not today") in steps[other]


def test_who_is_in_no_group_of_its_rule_neither_sees_nor_answers(host: tuple[Installed, Hostile], page: Page) -> None:
    made, provider = host
    page.log_in("carol", "dba")
    with CREW.entered(), httpx2.Client(base_url=URL, timeout=30) as client, made.overseen():
        other = Page(provider, client).log_in("oscar", "ops")
        with held(made, page, "DELETE FROM orders WHERE id = -73") as (ticket, _):
            assert ticket not in other.ask("GET", "/").text
            assert other.ask("GET", f"/holds/{ticket}").status_code == 404
            csrf = field("csrf", other.ask("GET", "/").text)
            assert other.ask("POST", f"/holds/{ticket}/approve", csrf=csrf, seen="x").status_code == 404
            # An operator ends the session that asked, and with it what waits.
            session = next(one["session"] for one in json.loads(made.weir(
                "status", "--json", "--sessions").stdout)["sessions"] if one["state"] == "held")
            done = other.ask("POST", f"/sessions/{session}/kill", csrf=csrf, reason="enough")
            assert done.status_code == 303, done.text
        wait_until("the end of it", lambda: ticket not in page.ask("GET", "/").text, 10)
    assert executed(made, "id = -73") == 0


def test_a_page_that_is_open_is_told(host: tuple[Installed, Hostile], page: Page) -> None:
    made, _ = host
    page.log_in("carol", "dba")
    heard: list[tuple[float, str]] = []

    def listen() -> None:
        with CREW.entered(), httpx2.Client(base_url=URL, timeout=60) as client, client.stream(
                "GET", "/events/holds", headers={"Cookie": f"weir={page.cookies['weir']}"}) as answer:
            for piece in answer.iter_text():
                heard.append((time.monotonic(), piece))

    listening = threading.Thread(target=listen, daemon=True)
    listening.start()
    wait_until("the list", lambda: heard, 10)
    with held(made, page, "DELETE FROM orders WHERE id = -74") as (ticket, _):
        wait_until("word of it", lambda: any(ticket in text for _, text in heard), 5)
        page.answer(ticket, "deny", "no")
        wait_until("its end", lambda: ticket not in heard[-1][1], 5)
    page.ask("POST", "/logout", csrf=field("csrf", page.ask("GET", "/").text))
    listening.join(10)
    assert not listening.is_alive(), "it ends with the session"


@pytest.mark.parametrize("network", ["host", "private"])
def test_a_crew_reaches_no_page(host: tuple[Installed, Hostile], network: str) -> None:
    made, _ = host
    place = f"/run/{RUNTIME}/web.sock"
    asked = json.dumps([["127.0.0.1", PORT], [CREW.ipv4, PORT], place])
    said = json.loads(made.crew("/usr/bin/python3", "-c", CONNECT, asked, network=network).stdout)
    assert not [one for one in said.values() if "HTTP" in one], said
    assert set(said.values()) <= {
        "ConnectionRefusedError", "ConnectionResetError", "PermissionError", "FileNotFoundError", "closed"}, said
    assert refusals(made) == 0, "it did not come that far"


def test_nor_through_the_enforcer_nor_by_a_socket(host: tuple[Installed, Hostile]) -> None:
    """Where somebody permits it as egress; and at the Unix socket, for a crew's process that could see it."""
    made, _ = host
    text = made.config.read_text()
    authority = certificates.make_authority()
    leaf, key = certificates.make_leaf(authority, ("page.lab.example",), (CREW.ipv4,))
    pem = certificates.write(made.config.parent / "web.pem", leaf, 0o644)
    secret = certificates.write(made.config.parent / "web.key", key, 0o600)
    head = text.partition("\n[web]")[0]
    made.config.write_text(head + PAGE.format(
        url=f"https://page.lab.example:{TLS}", listen=f"{CREW.ipv4}:{TLS}",
        more=f'tls_certificate = "{pem}"\ntls_key = "{secret}"'))
    assert made.weir("reload").returncode == 0
    asked = json.dumps([[CREW.ipv4, TLS]])

    def by_hand() -> str:
        done = CREW.run(["/usr/bin/python3", "-c", CONNECT, asked], capture_output=True, text=True)
        return str(json.loads(done.stdout)[str([CREW.ipv4, TLS])])

    wait_until("the page with TLS", lambda: by_hand() != "ConnectionRefusedError", 20)
    for network in ("host", "private"):
        said = json.loads(made.crew("/usr/bin/python3", "-c", CONNECT, asked, network=network).stdout)
        assert said[str([CREW.ipv4, TLS])] in ("closed", "ConnectionResetError"), said
    made.config.write_text(head + PAGE.format(url=URL, listen="unix", more=""))
    assert made.weir("reload").returncode == 0
    place = f"/run/{RUNTIME}/web.sock"
    asked = json.dumps([place])

    def at_the_socket(*before: str) -> str:
        done = CREW.run([*before, "/usr/bin/python3", "-c", CONNECT, asked], capture_output=True, text=True)
        return str(json.loads(done.stdout)[place])

    wait_until("the page's socket", lambda: at_the_socket().startswith("HTTP/1.1 200"), 20)
    crews = cgroup_root() / f"{RUNTIME}.slice"
    inside = crews / "test-web"
    inside.mkdir()
    try:
        move = ["/bin/sh", "-c", f'echo 0 > {inside}/cgroup.procs; exec "$@"', "sh"]
        assert at_the_socket(*move) in ("closed", "ConnectionResetError", "BrokenPipeError")
    finally:
        wait_until("its end", lambda: not (inside / "cgroup.procs").read_text(), 10)
        inside.rmdir()
    assert refusals(made) >= 2
    made.config.write_text(text)
    assert made.weir("reload").returncode == 0
