"""People and services by a real identity provider: Keycloak, real flows, a real PostgreSQL session that ends with them.

Keycloak is started once for all of them (tests/lab/keycloak.py says what it costs), so they are slow.
"""
from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from clients.test_clients import environment
from lab.hosts import CREW, USER, wait_until
from lab.keycloak import HOME, Browser, Keycloak, keycloak, settings
from lab.lab import Lab
from lab.weir import AUDITOR, Installed, configure, weir

pytestmark = [pytest.mark.lab, pytest.mark.slow]

WORKLOADS = """
[[workload]]
name = "personal"
users = ["{user}"]
directories = ["~"]
person = true

[[workload]]
name = "service"
users = ["{user}"]
directories = ["~"]
identity = {{provider = "svc"}}

[[workload]]
name = "filed"
users = ["{user}"]
directories = ["~"]
identity = {{provider = "svc", token_file = "{token}"}}

[[provider]]
name = "svc"
issuer = "{issuer}"
client_id = "weir-svc"
client_secret_file = "{secret}"
audience = "weir-api"
ca = "{ca}"
refresh = "2s"
groups_claim = "realm_access.roles"
[provider.groups]
offline_access = "data"
"""


@pytest.fixture(scope="module")
def provider(the_lab: Lab) -> Iterator[Keycloak]:
    assert (HOME / "bin" / "kc.sh").exists(), "no Keycloak: sudo ./bootstrap test installs it"
    with keycloak(the_lab.scratch, the_lab.database.authority) as made:
        yield made


@pytest.fixture(scope="module")
def host(the_lab: Lab, provider: Keycloak) -> Iterator[Installed]:
    secret, token = the_lab.scratch / "svc-secret", the_lab.scratch / "svc.jwt"
    write(secret, provider.service_secret)
    more = settings(provider) + WORKLOADS.format(
        user=USER, token=token, issuer=provider.issuer, secret=secret, ca=provider.ca)
    with weir(the_lab, configure(the_lab, more=more)) as made:
        yield made


def write(file: Path, text: str) -> None:
    """As whoever rotates a token does: by rename."""
    fresh = file.with_name(f".{file.name}")
    fresh.touch(0o600)
    fresh.write_text(text)
    fresh.rename(file)


def person(host: Installed, *arguments: str) -> subprocess.Popen[str]:
    """A command of Weir's, as a local user would type it."""
    return subprocess.Popen(
        CREW.argv(["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--", *host.argv(*arguments)]),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE, text=True, cwd=host.lab.home,
        env=host.lab.client_environment(environment(host.lab, "wrong")))


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def whoami(host: Installed) -> tuple[int, dict[str, Any]]:
    done = host.weir("whoami", "--json", user=USER)
    return done.returncode, json.loads(done.stdout)


@contextmanager
def logged_in(host: Installed, provider: Keycloak, name: str = "ada", *options: str) -> Iterator[str]:
    """By --device, or on the loopback redirect.  Gives the last page of the browser."""
    with person(host, "login", "--provider", "corp", *options) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("open https://"), line + process.communicate(timeout=60)[1]
        page = Browser(provider, CREW).go(line.split()[1], name).text
        code, out, err = ended(process)
    assert code == 0, out + err
    try:
        yield page
    finally:
        host.weir("logout", user=USER)


def query(
    host: Installed, workload: str = "personal", sql: str = "SELECT count(*) FROM orders",
) -> tuple[int, str, str]:
    return ended(person(host, "run", "--workload", workload, "--", "psql", "-X", "-A", "-t", "-w", "-c", sql))


def events(host: Installed, name: str) -> list[dict[str, Any]]:
    host.settle()
    done = host.weir("search", name, "--json", "--recording", str(host.recording), user=AUDITOR)
    return list(json.loads(done.stdout or "[]"))


@contextmanager
def open_session(host: Installed, workload: str = "personal") -> Iterator[subprocess.Popen[str]]:
    """A psql that has asked one thing, and waits for its next line."""
    with person(host, "run", "--workload", workload, "--", "psql", "-X", "-A", "-t", "-w") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("SELECT 41 + 1;\n")
        process.stdin.flush()
        assert process.stdout.readline() == "42\n"
        yield process
        if process.poll() is None:
            process.kill()
        process.communicate()


def sessions(host: Installed) -> list[dict[str, Any]]:
    return list(json.loads(host.weir("status", "--json", "--sessions").stdout)["sessions"])


def cut(process: subprocess.Popen[str]) -> str:
    """What psql says of a session that has been ended for it."""
    assert process.stdin is not None
    process.stdin.write("SELECT 1;\n")
    process.stdin.close()
    process.stdin = None
    return process.communicate(timeout=60)[1]


# people


def test_a_person_is_needed(host: Installed) -> None:
    code, _, err = query(host)
    assert code == 125
    assert "weir login" in err
    code, who = whoami(host)
    assert (code, who["logged_in"], who["subject"]) == (1, False, f"local:{USER}")


@pytest.mark.parametrize("options", [(), ("--device",)], ids=["code", "device"])
def test_a_login_is_who_the_crew_speaks_for(host: Installed, provider: Keycloak, options: tuple[str, ...]) -> None:
    with logged_in(host, provider, "ada", *options):
        code, who = whoami(host)
        assert (code, who["logged_in"], who["provider"]) == (0, True, "corp")
        assert who["subject"] == f"corp:{provider.user('ada')}"
        assert who["groups"] == ["data"]
        code, out, err = query(host)
        assert (code, out) == (0, "120\n"), err
        assert f"it speaks for {who['subject']}" in err
        host.settle()
        opened = json.loads(host.weir("sessions", "--json", "--recording", str(host.recording), user=AUDITOR).stdout)
        assert opened[-1]["subject"] == who["subject"]
    assert whoami(host)[0] == 1


def test_a_person_of_no_group_may_nothing(host: Installed, provider: Keycloak) -> None:
    with logged_in(host, provider, "grace"):
        code, _, err = query(host)
        assert code != 0
        assert "42501" in err or "not permitted" in err or "denied" in err.lower(), err


def test_logging_out_ends_a_live_session(host: Installed, provider: Keycloak) -> None:
    with logged_in(host, provider), open_session(host) as process:
        assert host.weir("logout", user=USER).returncode == 0
        wait_until("the session's end", lambda: not sessions(host), 20)
        assert "has ended: logged out" in cut(process)


def test_who_is_locked_out_at_the_provider_is_out_here(host: Installed, provider: Keycloak) -> None:
    with logged_in(host, provider), open_session(host) as process:
        provider.revoke("ada")
        wait_until("the login's end", lambda: whoami(host)[0] == 1, 60)
        wait_until("the session's end", lambda: not sessions(host), 20)
        assert "has ended: the provider says invalid_grant" in cut(process)


def test_a_refresh_reads_groups_again(host: Installed, provider: Keycloak) -> None:
    with logged_in(host, provider, "grace"):
        assert whoami(host)[1]["groups"] == []
        provider.join("grace", "data")
        try:
            wait_until("the group", lambda: whoami(host)[1]["groups"] == ["data"], 60)
            with open_session(host) as process:
                provider.join("grace", "data", leave=True)
                wait_until("its end", lambda: whoami(host)[1]["groups"] == [], 60)
                wait_until("the session's end", lambda: not sessions(host), 20)
                assert "has changed: connect again" in cut(process)
        finally:
            provider.join("grace", "data", leave=True)


def test_an_operation_that_runs_is_finished(host: Installed, provider: Keycloak) -> None:
    with logged_in(host, provider):
        process = person(host, "run", "--workload", "personal", "--", "psql", "-X", "-A", "-t", "-w", "-c",
                         "SELECT pg_sleep(3)", "-c", "SELECT 7")
        wait_until("it runs", lambda: any(one["state"] == "active" for one in sessions(host)), 30)
        host.weir("logout", user=USER)
        code, out, err = ended(process)
        assert (code != 0, "7" in out) == (True, False), out + err
        assert "has ended: logged out" in err


def test_nobody_has_anothers_login(host: Installed, provider: Keycloak) -> None:
    with logged_in(host, provider):
        for user in (AUDITOR, "nobody"):
            done = host.weir("whoami", "--json", user=user)
            assert (done.returncode, json.loads(done.stdout)["logged_in"]) == (1, False)
            done = host.weir("logout", user=user)
            assert (done.returncode, "you are not logged in" in done.stderr) == (1, True)
        root = host.crew("true", workload="personal")
        assert (root.returncode, "root is nobody in particular" in root.stderr) == (125, True)
        assert whoami(host)[0] == 0


def test_a_crew_cannot_ask(host: Installed, provider: Keycloak) -> None:
    program = host.argv()
    with logged_in(host, provider):
        for words in (["login", "--device"], ["logout"], ["whoami"]):
            for network in ("private", "host"):
                done = host.crew(*program, *words, network=network)
                assert done.returncode != 0
        assert whoami(host)[0] == 0


# what holds tokens


def identity_process(host: Installed) -> int:
    return int(json.loads(host.weir("status", "--json").stdout)["identity"]["pid"])


def test_tokens_are_nowhere(host: Installed, provider: Keycloak) -> None:
    """Not in log, status, recording; not for the crew's user in files or /proc; its process is nobody's else."""
    with logged_in(host, provider):
        assert query(host)[0] == 0
        pid = identity_process(host)
        status = Path(f"/proc/{pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        for name in ("environ", "mem", "maps", "fd"):
            done = host.weir("--version", user=USER)
            assert done.returncode == 0
            look = subprocess.run(["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--", "sh", "-c",
                                   f"cat /proc/{pid}/{name} || ls -l /proc/{pid}/{name}/"], capture_output=True)
            assert look.returncode != 0, name
            assert look.stdout == b""
        host.settle()
        for file in [host.log, *host.recording.iterdir(), *(host.recording.parent / "journal").iterdir()]:
            raw = file.read_bytes()
            assert b"eyJ" not in raw, file            # how every JWT begins
            assert provider.service_secret.encode() not in raw, file
        said = host.weir("status", "--json").stdout + json.dumps(whoami(host)[1])
        assert "eyJ" not in said


def test_the_death_of_its_process_ends_logins(host: Installed, provider: Keycloak) -> None:
    with logged_in(host, provider), open_session(host) as process:
        os.kill(identity_process(host), 9)
        wait_until("the login's end", lambda: whoami(host)[0] == 1, 30)
        wait_until("the session's end", lambda: not sessions(host), 20)
        assert "log in again" in cut(process)
    wait_until("another one", lambda: identity_process(host) > 0, 60)
    assert host.status()["state"] == "enforcing"


# services


def test_a_service_by_client_credentials(host: Installed, provider: Keycloak) -> None:
    def works() -> bool:
        return query(host, "service")[0] == 0

    wait_until("its identity", works, 60)
    host.settle()
    opened = json.loads(host.weir("sessions", "--json", "--recording", str(host.recording), user=AUDITOR).stdout)
    assert opened[-1]["subject"].startswith("svc:")
    assert opened[-1]["workload"] == "service"


def test_a_service_by_a_file_that_rotates(host: Installed, provider: Keycloak) -> None:
    token = host.lab.scratch / "svc.jwt"
    code, _, err = query(host, "filed")
    assert code != 0
    assert "its connections are refused: workload filed has no identity now" in err
    write(token, provider.service_token("elsewhere"))      # signed by the same provider, for somebody else
    wait_until("the refusal", lambda: "another audience" in host.weir("status", "--json").stdout, 60)
    assert query(host, "filed")[0] != 0
    write(token, provider.service_token())
    wait_until("its identity", lambda: query(host, "filed")[0] == 0, 60)


def test_everything_is_recorded(host: Installed, provider: Keycloak) -> None:
    with logged_in(host, provider):
        pass
    names = {name for name in ("login.opened", "login.ended", "login.refused", "login.changed")
             if events(host, name)}
    assert names >= {"login.opened", "login.ended"}


def test_a_login_for_a_program(host: Installed, provider: Keycloak) -> None:
    """With --json the address is on standard error, and who it is on standard output."""
    with person(host, "login", "--provider", "corp", "--json") as process:
        assert process.stderr is not None
        url = process.stderr.readline().split()[1]
        answer = threading.Thread(target=lambda: Browser(provider, CREW).go(url, "ada"))
        answer.start()
        code, out, err = ended(process)
        answer.join(60)
    try:
        assert (code, json.loads(out)["logged_in"]) == (0, True), err
    finally:
        host.weir("logout", user=USER)
    assert time.time() < json.loads(out)["until"]
