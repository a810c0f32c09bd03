"""A login as a person has it: agent, identity process and command line as processes, a crew that is the login's.

What the provider says is a test's to choose (tests/hostile.py); test_provider.py has a real one.
"""
from __future__ import annotations

import ctypes
import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import signing
from hostile import Hostile, serving
from standin.host import CONFIG, Host

pytestmark = pytest.mark.kernel

GAMES = pwd.getpwnam("games").pw_uid
MORE = """
[[workload]]
name = "personal"
users = ["games"]
network = "host"
person = true
[[provider]]
name = "corp"
issuer = "{issuer}"
client_id = "weir"
ca = "{ca}"
refresh = "1s"
groups_claim = "realm_access.roles"
[provider.groups]
dba = "dba"
"""
CONNECT = """
import socket, sys
for line in iter(sys.stdin.readline, ""):
    try:
        with socket.create_connection(("192.0.2.4", 5432), 20) as one:
            print((one.makefile().readline() or "closed").strip(), flush=True)
    except OSError as reason:
        print(type(reason).__name__, flush=True)
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


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Hostile]]:
    scratch = tmp_path_factory.mktemp("idp")
    with ExitStack() as stack:
        host = Host(f"wl{os.getpid() % 10000}")
        stack.callback(host.close)
        subprocess.run(host.inside("ip", "link", "set", "lo", "up"), check=True)
        with on(host.holder.pid):
            provider = stack.enter_context(serving(scratch))
        ca = host.base / "etc" / "idp.pem"
        ca.write_text(provider.ca)
        host.write(CONFIG + MORE.replace("{issuer}", provider.issuer).replace("{ca}", str(ca)))
        provider.say("/device", {"device_code": "SECRET-device", "user_code": "AB-CD", "interval": 1, "expires_in": 600,
                                 "verification_uri": f"{provider.issuer}/go"})
        host.start()
        host.until(lambda: (host.status().get("identity") or {}).get("pid"), "identity process")
        yield host, provider


def tokens(provider: Hostile, **changed: Any) -> dict[str, Any]:
    now = int(time.time())
    whole = {"iss": provider.issuer, "exp": now + 300, "iat": now, "nonce": None} | changed
    return {"access_token": "SECRET-access", "refresh_token": "SECRET-refresh", "token_type": "Bearer",
            "id_token": signing.sign(signing.claims(**whole))}


def log_in(place: tuple[Host, Hostile]) -> dict[str, Any]:
    host, provider = place
    provider.say("/token", tokens(provider))
    done = host.weir("login", "--device", "--json", user=GAMES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"open {provider.issuer}/go" in done.stderr
    assert "AB-CD" in done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def start(host: Host, workload: str) -> subprocess.Popen[str]:
    """As the person would."""
    return subprocess.Popen(
        [sys.executable, "-m", "agent.cli", "--config", str(host.file), "run", "--workload", workload, "--",
         "/usr/bin/python3", "-c", CONNECT], env=host.environment, text=True, cwd="/", stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, user=GAMES, group=GAMES, extra_groups=[])


def whose(process: subprocess.Popen[str]) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def test_a_login_from_its_beginning_to_its_end(place: tuple[Host, Hostile]) -> None:
    host, _ = place
    refused = start(host, "personal")
    _, err = refused.communicate(timeout=60)
    assert (refused.returncode, "weir login" in err) == (125, True)
    assert host.weir("whoami", user=GAMES).returncode == 1
    who = log_in(place)
    assert (who["subject"], who["groups"], who["logged_in"]) == ("corp:7b1f", ["dba"], True)
    for other in (0, GAMES + 60000):
        assert host.weir("whoami", user=other).returncode == 1
        assert "not logged in" in host.weir("logout", user=other).stderr
    with start(host, "personal") as crew:
        owner = whose(crew)["owner"]
        assert (owner["subject"], owner["groups"], owner["user"]) == ("corp:7b1f", ["dba"], "games")
        assert host.weir("logout", user=GAMES).returncode == 0
        late = whose(crew)["owner"]
        assert (late["subject"], late["groups"], late["workload"]) == ("", [], "personal")
        assert "the login that it was started with has ended" in late["nobody"]
        crew.communicate()
    assert host.event("login.opened")["subject"] == "corp:7b1f"
    assert host.event("login.ended")["reason"] == "logged out"


def test_what_the_provider_takes_back_ends_here(place: tuple[Host, Hostile]) -> None:
    host, provider = place
    log_in(place)
    provider.say("/token", {"error": "invalid_grant", "error_description": "SECRET"}, 400)
    host.until(lambda: host.weir("whoami", user=GAMES).returncode == 1, "end of the login")
    host.until(lambda: any("invalid_grant" in one["reason"] for one in host.events("login.ended")), "its event")


def test_the_identity_process_has_nothing_and_keeps_everything(place: tuple[Host, Hostile]) -> None:
    host, _ = place
    log_in(place)
    pid = host.status()["identity"]["pid"]
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    assert lines["Uid"].split() == [str(pwd.getpwnam("weir-identity").pw_uid)] * 4
    assert {lines[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    look = subprocess.run(["cat", f"/proc/{pid}/environ"], user=GAMES, group=GAMES, extra_groups=[],
                          capture_output=True)
    assert (look.returncode != 0, look.stdout) == (True, b"")
    assert Path(f"/proc/{pid}/cmdline").read_bytes().count(b"SECRET") == 0
    for file in [one for one in host.base.rglob("*") if one.is_file() and "code" not in one.parts]:
        raw = file.read_bytes()
        assert b"SECRET" not in raw, file
        assert b"eyJhbGci" not in raw, file
    host.kill(pid)
    host.until(lambda: host.weir("whoami", user=GAMES).returncode == 1, "end of the login")
    host.until(lambda: (host.status().get("identity") or {}).get("pid") not in (0, None, pid), "another process")
    host.until(lambda: any("log in again" in one["reason"] for one in host.events("login.ended")), "its event")
    assert host.status()["state"] == "enforcing"


def test_an_agent_that_is_killed_leaves_no_login_and_no_process_that_has_one(place: tuple[Host, Hostile]) -> None:
    host, _ = place
    log_in(place)
    pid = host.status()["identity"]["pid"]
    with start(host, "personal") as crew:
        assert whose(crew)["owner"]["subject"] == "corp:7b1f"
        assert host.agent is not None
        host.agent.kill()
        host.agent.wait()
        host.start()
        host.until(lambda: not Path(f"/proc/{pid}").exists(), "its end with its agent, and that of its tokens")
        assert host.weir("whoami", user=GAMES).returncode == 1
        late = whose(crew)["owner"]
        assert (late["subject"], "has ended: weir login" in late["nobody"]) == ("", True)
        crew.communicate()
    host.until(lambda: (host.status().get("identity") or {}).get("pid"), "identity process")
    assert log_in(place)["logged_in"], "and the next one is as good"
