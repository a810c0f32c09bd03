"""Credentials from a unit, a helper and Weir's own authority at a real PostgreSQL, and that none of them is seen."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from clients.test_clients import environment
from lab.hosts import RUNTIME, wait_until
from lab.lab import Lab
from lab.postgresql import Database
from lab.weir import Installed, configure, weir
from recorded import unpacked

pytestmark = pytest.mark.lab

HELPER = """#!/usr/bin/python3 -I
import json, sys
print("wrong-" + open({secret!r}).read(), file=sys.stderr)
print(json.dumps({{"user": "reporting", "password": open({secret!r}).read()}}))
"""
ROWS = """
[[target.credential]]
role = "by-unit"
user = "crew_svc"
password_credential = "shop"

[[target.credential]]
role = "by-helper"
exec = ["{place}/helper", "argument"]
exec_user = "games"
exec_timeout = "30s"

[[target.credential]]
role = "by-certificate"
user = "certified"
certificate = "issue"
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Where root alone decides: not below /tmp."""
    path = Path(f"/usr/local/libexec/weir-test-{os.getpid()}")
    path.mkdir(mode=0o755, parents=True)
    yield path
    shutil.rmtree(path)


def reload(database: Database) -> None:
    """Until the postmaster has: pg_reload_conf() only asks it."""
    before = database.admin("SELECT pg_conf_load_time()")
    database.admin("SELECT pg_reload_conf()")
    wait_until("the server's new files", lambda: database.admin("SELECT pg_conf_load_time()") != before, 20)


@pytest.fixture(scope="module")
def certified(the_lab: Lab) -> Iterator[None]:
    """A role that the server takes by a certificate of its ssl_ca_file, and by nothing else."""
    data, ca = the_lab.database.directory / "data", the_lab.database.ca
    hba, authorities = (data / "pg_hba.conf").read_text(), ca.read_text()
    (data / "pg_hba.conf").write_text(f"hostssl all certified all cert\nhost all certified all reject\n{hba}")
    the_lab.database.admin("CREATE ROLE certified LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO certified")
    reload(the_lab.database)
    yield
    (data / "pg_hba.conf").write_text(hba)
    ca.write_text(authorities)
    the_lab.database.admin("DROP OWNED BY certified; DROP ROLE certified")
    reload(the_lab.database)


@pytest.fixture(scope="module")
def running(the_lab: Lab, place: Path, certified: None) -> Iterator[Installed]:
    secret = place / "secret"
    secret.write_text(the_lab.database.passwords["reporting"])
    shutil.chown(secret, "games")
    secret.chmod(0o400)
    (place / "helper").write_text(HELPER.format(secret=str(secret)))
    (place / "helper").chmod(0o755)
    unit = the_lab.scratch / "unit"
    unit.mkdir(mode=0o700)
    (unit / "shop").write_text(the_lab.database.passwords["crew_svc"])
    (unit / "shop").chmod(0o400)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CREDENTIALS_DIRECTORY", str(unit))
        with weir(the_lab, configure(the_lab, more=ROWS.format(place=place))) as installed:
            yield installed


def ask(running: Installed, role: str, sql: str = "SELECT current_user") -> subprocess.CompletedProcess[str]:
    return running.crew("psql", "-X", "-A", "-t", "-w", "-c", sql,
                        environment=environment(running.lab, "wrong", PGUSER=role))


@pytest.mark.parametrize(("role", "user"), [("by-unit", "crew_svc"), ("by-helper", "reporting")])
def test_a_login(running: Installed, role: str, user: str) -> None:
    done = ask(running, role)
    assert done.stdout == f"{user}\n", done.stderr + running.tail()


def test_a_certificate_of_weirs_own(running: Installed) -> None:
    refused = ask(running, "by-certificate")
    assert refused.returncode == 2
    assert "PRIVATE" not in refused.stderr
    pem = running.weir("ca", "shop")
    assert pem.returncode == 0, pem.stderr
    ca = running.lab.database.ca
    ca.write_text(ca.read_text() + pem.stdout)
    reload(running.lab.database)
    done = ask(running, "by-certificate")
    assert done.stdout == "certified\n", done.stderr + running.tail()
    said = [row[13] for row in running.lab.database.log() if row[13].startswith("connection authenticated")]
    assert 'identity="CN=certified" method=cert' in said[-1]


def test_a_change_on_disk_counts_at_the_next_login(running: Installed, place: Path) -> None:
    database = running.lab.database
    database.admin("ALTER ROLE reporting PASSWORD 'changed-hunter5'")
    try:
        refused = ask(running, "by-helper")
        assert refused.returncode == 2
        (place / "secret").write_text("changed-hunter5")
        assert ask(running, "by-helper").stdout == "reporting\n"
        (place / "secret").unlink()
        failed = ask(running, "by-helper")
        assert "credential[3] of target shop: its helper" in failed.stderr
        assert "exit code 1" in failed.stderr
        assert "hunter5" not in failed.stderr + refused.stderr
    finally:
        database.admin(f"ALTER ROLE reporting PASSWORD '{database.passwords['reporting']}'")


def test_none_of_it_is_seen(running: Installed) -> None:
    """After what the tests before this one have done."""
    running.settle()
    secrets = [*running.lab.database.passwords.values(), "changed-hunter5", "PRIVATE KEY"]
    places = [running.log.read_bytes(), json.dumps(running.status()).encode()]
    state = Path("/var/lib") / RUNTIME
    places += [path.read_bytes() for part in ("recording", "journal") for path in (state / part).rglob("*")
               if path.is_file() and path.name != "signing.key"]
    for process in psutil.process_iter():
        try:
            places += [" ".join(process.cmdline()).encode(), Path(f"/proc/{process.pid}/environ").read_bytes()]
        except (psutil.Error, OSError):
            continue
    places += [text for file in (state / "recording").glob("*.sqlite*") for text in unpacked(file)]
    for said in (b"SELECT current_user", b"credential[3] of target shop"):
        assert [place for place in places if said in place], said          # it is looked where such things are
    for secret in secrets:
        assert not [place for place in places if secret.encode() in place], secret[:3]
    for pid in running.pids().values():
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert [line.split()[4] for line in limits.splitlines() if line.startswith("Max core")] == ["0"]


def test_a_crew_sees_neither_unit_nor_helper(running: Installed, place: Path) -> None:
    seen = running.crew("sh", "-c", f"env; ls /run/credentials {place}/secret; cat {running.lab.scratch}/unit/shop; "
                                    f"cat /var/lib/{RUNTIME}/ca/shop/client-ca.key")
    assert "CREDENTIALS_DIRECTORY" not in seen.stdout
    for secret in (*running.lab.database.passwords.values(), "PRIVATE KEY"):
        assert secret not in seen.stdout + seen.stderr
