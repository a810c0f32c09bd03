"""The page as people have it: agent, identity process and web process as processes, a browser's requests over real
sockets, and crews that would answer for themselves."""
from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import signing
from hostile import Hostile, serving
from lab import certificates
from standin.host import CGROUPS, CONFIG, Host
from standin.web import ask

pytestmark = pytest.mark.kernel

URL = "http://127.0.0.1:8443"
MORE = """
[[provider]]
name = "corp"
issuer = "{issuer}"
client_id = "weir"
ca = "{ca}"
groups_claim = "realm_access.roles"
[provider.groups]
dba = "dba"
[web]
url = "{url}"
idle = "1h"
"""
@contextmanager
def on(pid: int) -> Iterator[None]:
    """The calling thread in the network of that process."""
    with open("/proc/thread-self/ns/net") as before, open(f"/proc/{pid}/ns/net") as inside:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.setns(inside.fileno(), 0x40000000) == 0       # CLONE_NEWNET
        try:
            yield
        finally:
            assert libc.setns(before.fileno(), 0x40000000) == 0


class Place:
    def __init__(self, host: Host, provider: Hostile, ca: Path) -> None:
        self.host, self.provider, self.ca = host, provider, ca
        self.cookies: dict[str, str] = {}

    def configure(self, url: str, more: str = "") -> None:
        text = MORE.replace("{issuer}", self.provider.issuer).replace("{ca}", str(self.ca)).replace("{url}", url)
        self.host.write(CONFIG + text + more)

    @property
    def socket(self) -> str:
        return str(self.host.base / "run" / "web.sock")

    def ask(self, method: str, path: str, *headers: str, body: str = "", place: Any = None, user: int = 1000,
            cgroup: Path | None = None) -> tuple[str, str]:
        """Head and body of the answer, or what went wrong.  `cgroup`: that the process which asks is in."""
        head, text = ask(self.host, place or self.socket, method, path, "Host: 127.0.0.1:8443", *headers, body=body,
                         user=user, cgroup=cgroup)
        for name, value in re.findall(r"(?im)^set-cookie: ([^=]+)=([^;\r\n]*)", head):
            self.cookies |= {name: value.strip('"')}
        return head, text

    def visit(self, path: str, method: str = "GET", **fields: str) -> tuple[str, str]:
        """As a browser with its cookies."""
        cookies = "Cookie: " + "; ".join(f"{name}={value}" for name, value in self.cookies.items() if value)
        more = ["Origin: http://127.0.0.1:8443", "Content-Type: application/x-www-form-urlencoded"] * (method == "POST")
        return self.ask(method, path, cookies, *more, body=urlencode(fields))

    def log_in(self) -> None:
        self.cookies.clear()
        _, page = self.visit("/login")
        head, _ = self.visit("/login/corp", "POST", csrf=csrf(page))
        found = re.search(r"(?im)^refresh: 0; url=(\S+)", head)
        assert found, head
        query = {name: value[0] for name, value in parse_qs(urlsplit(found[1]).query).items()}
        assert query["redirect_uri"] == f"{URL}/login/corp/back"
        now = int(time.time())
        token = signing.sign(signing.claims(iss=self.provider.issuer, exp=now + 300, iat=now, nonce=query["nonce"]))
        self.provider.say("/token", {"access_token": "SECRET-access", "token_type": "Bearer", "id_token": token})
        head, page = self.visit(f"/login/corp/back?code=SECRET-code&state={query['state']}")
        assert head.startswith("HTTP/1.1 303"), head + page

    def web(self) -> dict[str, Any]:
        found: dict[str, Any] = self.host.status().get("web") or {}
        return found


def csrf(page: str) -> str:
    found = re.search(r'name="?csrf"? value="?([0-9a-f]{64})', page)
    assert found, page
    return found[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    scratch = tmp_path_factory.mktemp("idp")
    with ExitStack() as stack:
        host = Host(f"wp{os.getpid() % 10000}")
        stack.callback(host.close)
        subprocess.run(host.inside("ip", "link", "set", "lo", "up"), check=True)
        with on(host.holder.pid):
            provider = stack.enter_context(serving(scratch))
        ca = host.base / "etc" / "idp.pem"
        ca.write_text(provider.ca)
        made = Place(host, provider, ca)
        made.configure(URL)
        host.start()
        host.until(lambda: made.web().get("error") == "" and Path(made.socket).exists(), "page")
        yield made


def test_a_person_logs_in_and_answers(place: Place) -> None:
    status = place.host.status()
    assert status["page"] == URL
    assert status["web"]["pid"]
    assert f"page       {URL}, pid " in place.host.weir("status").stdout
    process = Path("/proc", str(status["web"]["pid"]), "status").read_text()
    assert re.search(r"(?m)^CapEff:\s0+$", process)
    assert re.search(r"(?m)^NoNewPrivs:\s1$", process)
    place.log_in()
    _, page = place.visit("/")
    assert "abc123" in page
    _, page = place.visit("/holds/abc123")
    seen = re.search(r'name="?seen"? value="?([0-9a-f]+)', page)
    assert seen
    head, page = place.visit("/holds/abc123/approve", "POST", csrf=csrf(page), seen=seen[1], reason="fine")
    assert head.startswith("HTTP/1.1 303"), head + page
    told = place.host.event("approval.answered")
    assert (told["by"], told["answer"], told["error"]) == ("corp:7b1f", "approve", "")
    assert told["way"].startswith("web ")
    said = (place.host.base / "log").read_text() + json.dumps(place.host.events())
    assert "SECRET" not in said
    assert all(value not in said for value in place.cookies.values() if value)


def test_a_provider_says_that_somebody_has_logged_out(place: Place) -> None:
    """Back-channel: what is posted goes unread to the identity process, and the login of the browser is no more."""
    place.log_in()
    head, _ = place.visit("/")
    assert head.startswith("HTTP/1.1 200"), head
    now = int(time.time())
    claims = {"iss": place.provider.issuer, "aud": "weir", "iat": now, "exp": now + 120, "jti": f"j{time.time_ns()}",
              "sub": "7b1f", "events": {"http://schemas.openid.net/event/backchannel-logout": {}}}
    kind = "Content-Type: application/x-www-form-urlencoded"
    right, wrong = signing.sign(claims, typ="logout+jwt"), signing.sign(claims, signing.STRANGE)
    for token, status in ((wrong, "400"), (right, "200")):
        head, said = place.ask("POST", "/backchannel/corp", kind, body=urlencode({"logout_token": token}))
        assert head.startswith(f"HTTP/1.1 {status}"), head + said
        assert "cache-control: no-store" in head.lower()
        head, _ = place.visit("/")
        assert head.startswith("HTTP/1.1 200" if status == "400" else "HTTP/1.1 303"), head
    head, _ = place.ask("POST", "/backchannel/other", kind, body="logout_token=x")
    assert head.startswith("HTTP/1.1 404"), head
    head, _ = place.ask("GET", "/backchannel/corp")
    assert head.startswith("HTTP/1.1 405"), head
    place.host.until(lambda: time.time() >= now + 1, "the next second: who logs in before it does so before the logout")


def test_a_crew_is_refused_whatever_its_uid(place: Place) -> None:
    crews = place.host.slice / "test"
    crews.mkdir(exist_ok=True)
    own = CGROUPS / f"{place.host.name}.weir" / "enforcer"
    assert place.ask("GET", "/login")[0].startswith("HTTP/1.1 200")
    for user in (1000, 0, 5):
        assert place.ask("GET", "/login", cgroup=crews, user=user)[0] in ("ConnectionResetError", "BrokenPipeError", "")
    assert place.ask("GET", "/login", cgroup=own)[0] in ("ConnectionResetError", "BrokenPipeError", ""), (
        "what crews have the enforcer connect to")
    place.host.until(lambda: len(place.host.events("web.refused")) > 1, "refusals")
    assert {one["reason"] for one in place.host.events("web.refused")} == {
        "a crew may not speak to Weir's page", "what Weir's own processes connect for others ends here"}
    crews.rmdir()


def test_who_is_logged_in_stays_so_when_the_process_dies(place: Place) -> None:
    place.log_in()
    before = place.web()
    os.kill(before["pid"], signal.SIGKILL)
    place.host.until(
        lambda: (now := place.web()).get("error") == "" and now["pid"] not in (0, before["pid"]), "another")
    assert place.visit("/")[0].startswith("HTTP/1.1 200")
    assert place.web()["restarts"] == before["restarts"] + 1
    os.kill((place.host.status()["identity"])["pid"], signal.SIGKILL)
    place.host.until(lambda: place.visit("/")[0].startswith("HTTP/1.1 303"), "end of what that process had")


def test_it_ends_with_the_agent_and_comes_with_the_next(place: Place) -> None:
    before = place.web()["pid"]
    assert place.host.agent is not None
    place.host.agent.kill()
    place.host.agent.wait()
    place.host.agent = None
    place.host.until(lambda: not Path("/proc", str(before)).exists(), "end of the page")
    assert place.ask("GET", "/login")[0] == "ConnectionRefusedError"
    place.host.start()
    place.host.until(lambda: place.ask("GET", "/login")[0].startswith("HTTP/1.1 200"), "page of the next one")
    assert place.visit("/")[0].startswith("HTTP/1.1 303"), "logins ended with the agent"


def test_a_reload_moves_it(place: Place) -> None:
    """To TCP, where crews and Weir's own are refused by their socket; then to TLS; then away."""
    place.configure(URL, 'listen = "127.0.0.1:8443"\n')
    assert place.host.weir("reload").returncode == 0
    tcp = ("127.0.0.1", 8443)
    place.host.until(lambda: place.ask("GET", "/login", place=tcp)[0].startswith("HTTP/1.1 200"), "page on TCP")
    assert not Path(place.socket).exists()
    own = CGROUPS / f"{place.host.name}.weir" / "enforcer"
    assert place.ask("GET", "/login", place=tcp, cgroup=own)[0] in ("ConnectionResetError", "BrokenPipeError", "")
    authority = certificates.make_authority()
    leaf, key = certificates.make_leaf(authority, ("page.lab.example",), ("192.0.2.1",))
    etc = place.host.base / "etc"
    certificates.write(etc / "web.pem", leaf, 0o644)
    certificates.write(etc / "web.key", key, 0o600)
    place.configure("https://page.lab.example:8443", f'listen = "192.0.2.1:8443"\ntls_certificate = "{etc}/web.pem"\n'
                    f'tls_key = "{etc}/web.key"\n')
    assert place.host.weir("reload").returncode == 0
    context = ssl.create_default_context(cadata=authority.pem)

    def over_tls() -> bytes:
        try:
            with on(place.host.holder.pid):
                plain = socket.create_connection(("192.0.2.1", 8443), 5)
            with plain, context.wrap_socket(plain, server_hostname="page.lab.example") as one:
                one.sendall(b"GET /login HTTP/1.1\r\nHost: page.lab.example:8443\r\nConnection: close\r\n\r\n")
                return one.recv(4096)
        except OSError:
            return b""

    found = place.host.until(over_tls, "page with TLS").decode()
    assert found.startswith("HTTP/1.1 200")
    assert "__Host-weir-visit=" in found
    assert "strict-transport-security" in found
    (etc / "web.key").chmod(0o644)
    refused = place.host.weir("reload")
    assert refused.returncode == 1
    assert "web.tls_key" in refused.stderr
    place.host.write(CONFIG)
    assert place.host.weir("reload").returncode == 0
    place.host.until(lambda: not place.host.status().get("web"), "no page")
