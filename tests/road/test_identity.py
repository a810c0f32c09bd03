"""People and services by a real identity provider: Keycloak, real flows, a real PostgreSQL session that ends with them.

Keycloak is started once for all of them (tests/lab/keycloak.py says what it costs), so they are slow.
"""
from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import zstandard
from lab.hosts import CREW, RUNTIME, USER, wait_until
from lab.keycloak import HOME, Browser, Keycloak, keycloak
from lab.lab import Lab
from lab.people import PORT, PSQL, ended, logged_in, person, query, recorded, speaking, spoken_for, told, whoami, write
from lab.weir import AUDITOR, Installed

from agent.contract import control

pytestmark = [pytest.mark.lab, pytest.mark.slow]

ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as one:
    try:
        one.connect(sys.argv[1])
        one.sendall(bytes.fromhex(sys.argv[2]))
        print(one.recv(65536))
    except OSError as reason:
        print(type(reason).__name__)
"""
JWT = "eyJhbGciOi"                    # {"alg":  Keycloak's tokens begin with it


@pytest.fixture(scope="module")
def provider(the_lab: Lab) -> Iterator[Keycloak]:
    assert (HOME / "bin" / "kc.sh").exists(), "no Keycloak: sudo ./bootstrap test-all installs it"
    with keycloak(the_lab.scratch, the_lab.database.authority) as made:
        yield made


@pytest.fixture(scope="module")
def host(the_lab: Lab, provider: Keycloak) -> Iterator[Installed]:
    with speaking(the_lab, provider) as made:
        yield made


@contextmanager
def open_session(host: Installed, workload: str = "personal") -> Iterator[subprocess.Popen[str]]:
    """A psql that has asked one thing, and waits for its next line."""
    with person(host, "run", "--workload", workload, "--", *PSQL) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("SELECT 41 + 1;\n")
        process.stdin.flush()
        assert process.stdout.readline() == "42\n"
        yield process


def sessions(host: Installed) -> list[dict[str, Any]]:
    return list(json.loads(host.weir("status", "--json", "--sessions").stdout)["sessions"])


def cut(process: subprocess.Popen[str]) -> str:
    """What psql says of a session that has been ended for it."""
    return process.communicate("SELECT 1;\n", timeout=60)[1]


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
        assert spoken_for(host, who["subject"])[-1] == ["data"]
    assert whoami(host)[0] == 1
    opened = told(host, "login.opened", subject=who["subject"], provider="corp", user=USER, groups="data")
    told(host, "login.ended", subject=who["subject"], user=USER, login=opened["login"], reason="logged out")


def test_a_login_by_saml(host: Installed, provider: Keycloak) -> None:
    """Encrypted, its request signed, to the port that the provider knows; it ends by logout as any other."""
    with logged_in(host, provider, "ada", "--provider", "adfs") as page:
        assert "You may close this window" in page
        code, who = whoami(host)
        assert (code, who["provider"], who["subject"], who["groups"]) == (0, "adfs", "adfs:ada", ["data"])
        code, out, err = query(host)
        assert (code, out) == (0, "120\n"), err
        assert spoken_for(host, "adfs:ada")[-1] == ["data"]
        with open_session(host) as process:
            assert host.weir("logout", user=USER).returncode == 0
            assert "has ended: logged out" in cut(process)
    told(host, "login.opened", subject="adfs:ada", provider="adfs", user=USER, groups="data")


def test_saml_that_nobody_can_use(host: Installed, provider: Keycloak) -> None:
    """Without a browser here; where its port is taken; answers that nobody waits for."""
    with person(host, "login", "--provider", "adfs", "--device") as process:
        code, _, err = ended(process)
    assert code == 1
    assert "leave --device out" in err
    with CREW.entered(), socket.create_server(("127.0.0.1", PORT)):
        time.sleep(1.1)               # a login a second
        with person(host, "login", "--provider", "adfs") as process:
            code, _, err = ended(process)
    assert code == 1
    assert f"port {PORT} of this machine" in err
    assert whoami(host)[0] == 1


def test_metadata_is_checked_at_a_reload(host: Installed, provider: Keycloak) -> None:
    file = host.lab.scratch / "idp.xml"
    right = file.read_bytes()
    file.write_bytes(right.replace(b"entityID=", b"entityId="))
    try:
        done = host.weir("reload")
        assert done.returncode == 1
        assert f"{file}: names another entityID than `issuer`" in done.stdout + done.stderr
    finally:
        file.write_bytes(right)
    assert host.weir("reload").returncode == 0


def test_a_person_of_no_group_may_nothing(host: Installed, provider: Keycloak) -> None:
    with logged_in(host, provider, "grace"):
        code, _, err = query(host)
        assert code != 0
        assert "42501" in err or "not permitted" in err or "denied" in err.lower(), err


def test_logging_out_ends_a_live_session(host: Installed, provider: Keycloak) -> None:
    with logged_in(host, provider), open_session(host) as process:
        assert host.weir("logout", user=USER).returncode == 0
        wait_until("the session's end", lambda: not sessions(host), 20)
        said = cut(process)
        assert "FATAL:  57P01: " in said
        assert "has ended: logged out" in said


def test_what_goes_on_after_its_login_is_cut_off_and_told_why(host: Installed, provider: Keycloak) -> None:
    later = ("sh", "-c", 'echo up; read line; exec "$@"', "sh", *PSQL, "-c", "SELECT 1")
    with logged_in(host, provider), person(host, "run", "--workload", "personal", "--", *later) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        assert host.weir("logout", user=USER).returncode == 0
        out, err = process.communicate("\n", timeout=120)
        assert (process.returncode, out) == (2, ""), err
        assert "FATAL:  the login that it was started with has ended: weir login, and start it again" in err
    found = recorded(host, "SELECT workload, subject, reason FROM refused ORDER BY seq")
    assert found[-1][:2] == ("personal", "")
    assert "has ended: weir login" in found[-1][2]


def test_who_is_locked_out_at_the_provider_is_out_here(host: Installed, provider: Keycloak) -> None:
    with logged_in(host, provider), open_session(host) as process:
        provider.revoke("ada")
        wait_until("the login's end", lambda: whoami(host)[0] == 1, 60)
        wait_until("the session's end", lambda: not sessions(host), 20)
        said = cut(process)
        assert "FATAL:  57P01: " in said
        assert "has ended: the provider says invalid_grant" in said
    told(host, "login.ended", user=USER, reason="the provider says invalid_grant")


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
                said = cut(process)
                assert "FATAL:  57P01: " in said
                assert "has changed: connect again" in said
            assert spoken_for(host, whoami(host)[1]["subject"])[-1] == ["data"]
            told(host, "login.changed", user=USER, groups="", before="data")
        finally:
            provider.join("grace", "data", leave=True)


def test_an_operation_that_runs_is_finished(host: Installed, provider: Keycloak) -> None:
    two = ("-c", "SELECT 6 FROM pg_sleep(5)", "-c", "SELECT 7")
    with logged_in(host, provider), person(host, "run", "--workload", "personal", "--", *PSQL, *two) as process:
        wait_until("it runs", lambda: any(one["state"] == "active" for one in sessions(host)), 30)
        host.weir("logout", user=USER)
        code, out, err = ended(process)
        assert (code, out) == (2, "6\n"), out + err
        assert "FATAL:  57P01: " in err
        assert "has ended: logged out" in err


def test_nobody_has_anothers_login(host: Installed, provider: Keycloak) -> None:
    with logged_in(host, provider):
        for user in (AUDITOR, "games"):
            done = host.weir("whoami", "--json", user=user)
            assert (done.returncode, json.loads(done.stdout)["logged_in"]) == (1, False)
            done = host.weir("logout", user=user)
            assert (done.returncode, "you are not logged in" in done.stderr) == (1, True)
        root = host.crew("true", workload="personal")
        assert (root.returncode, "root is nobody in particular" in root.stderr) == (125, True)
        assert whoami(host)[0] == 0


def test_a_crew_cannot_ask(host: Installed, provider: Keycloak) -> None:
    """Neither sees nor ends the login that it speaks for, whose user it runs as."""
    def asking(message: control.Message) -> list[str]:
        return ["/usr/bin/python3", "-c", ASK, f"/run/{RUNTIME}/control.sock", control.render_frame(message).hex()]

    who = control.AskWhoAmI()
    with logged_in(host, provider):
        outside = subprocess.run(CREW.argv(["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--",
                                            *asking(who)]), capture_output=True, text=True)
        assert "corp:" in outside.stdout, outside.stderr
        for message in (who, control.Login("corp"), control.Logout()):
            for network in ("private", "host"):
                done = host.crew(*asking(message), network=network)
                assert done.stdout == "FileNotFoundError\n" or "a crew may not speak" in done.stdout, done
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
            look = subprocess.run(["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--", "sh", "-c",
                                   f"cat /proc/{pid}/{name} || ls -l /proc/{pid}/{name}/"], capture_output=True)
            assert look.returncode != 0, name
            assert look.stdout == b""
        host.settle()
        places = [host.log.read_bytes(), host.weir("status", "--json").stdout.encode(),
                  json.dumps(whoami(host)[1]).encode(), *written(host)]
    for said in (b"login.opened", b"SELECT count(*) FROM orders"):
        assert [one for one in places if said in one], said                # it is looked where such things are
    assert provider.service_token().startswith(JWT)
    for secret in (JWT, provider.service_secret, provider.passwords["ada"]):
        assert not [one for one in places if secret.encode() in one], secret[:3]


def written(host: Installed) -> Iterator[bytes]:
    """Recording and journal, also what they hold compressed."""
    for file in (path for place in (host.recording, host.recording.parent / "journal") for path in place.rglob("*")):
        if file.is_file() and file.name != "signing.key":
            yield file.read_bytes()
        if file.suffix == ".sqlite":
            yield from unpacked(file)


def unpacked(file: Path) -> Iterator[bytes]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as recording:
        tables = [name for (name,) in recording.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for value in (one for name in tables for row in recording.execute(f'SELECT * FROM "{name}"') for one in row):
            if isinstance(value, bytes) and value.startswith(zstandard.FRAME_HEADER):
                yield zstandard.ZstdDecompressor().decompress(value)


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
    subject = told(host, "login.opened", provider="svc")["subject"]
    assert subject.startswith("svc:")
    assert spoken_for(host, subject)[-1] == ["data"]


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
