"""A crew's psql with credentials that a real OpenBao gives: stored ones, and users of PostgreSQL made for a lease."""
from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from clients.test_clients import environment
from lab.hosts import DB, RUNTIME, wait_until
from lab.lab import Lab
from lab.openbao import MISSING, OpenBao, binary, database, openbao
from lab.weir import Installed, configure, weir
from recorded import unpacked

pytestmark = [pytest.mark.lab, pytest.mark.skipif(not binary().exists(), reason=MISSING)]

MORE = """
[[target.credential]]
role = "stored"
vault = "safe"
path = "crews/orders"

[[target.credential]]
role = "leased"
vault = "safe"
database_role = "orders"

[[target.credential]]
role = "short"
vault = "safe"
database_role = "short"

[[target.credential]]
role = "static"
vault = "safe"
static_role = "standing"

[[vault]]
name = "safe"
address = "{address}"
ca = "{ca}"
role_id = "{role_id}"
secret_id_file = "{secret_id_file}"
"""
WHO = "SELECT current_user"


@dataclass
class Vaulted:
    weir: Installed
    bao: OpenBao
    secret_id: str

    def ask(self, role: str, sql: str = WHO) -> subprocess.CompletedProcess[str]:
        return self.weir.crew("psql", "-X", "-A", "-t", "-w", "-c", sql, environment=self.environment(role))

    def environment(self, role: str) -> dict[str, str]:
        return environment(self.weir.lab, "wrong", PGUSER=role)

    @contextmanager
    def session(self, role: str) -> Iterator[subprocess.Popen[str]]:
        """A crew's psql that stays."""
        process = subprocess.Popen(
            self.weir.crew_argv("psql", "-X", "-A", "-t", "-q", "-w"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, cwd=self.weir.lab.home,
            env=self.weir.lab.client_environment(self.environment(role)))
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def users(self, role: str) -> set[str]:
        """That exist at the server."""
        found = self.weir.lab.database.admin(f"SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-{role}-%'")
        return set(found.split())

    def process(self) -> psutil.Process:
        [found] = [one for one in psutil.Process(self.weir.process.pid).children(recursive=True)
                   if "enforcer.credentials.app" in " ".join(one.cmdline())]
        return found


def said(process: subprocess.Popen[str], sql: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{sql};\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


@pytest.fixture(scope="module")
def bao(the_lab: Lab) -> Iterator[OpenBao]:
    made = the_lab.database
    with openbao(the_lab.scratch, made.authority, DB) as server:
        made.admin("CREATE ROLE vault LOGIN SUPERUSER PASSWORD 'vault-own-hunter0'")
        made.admin("CREATE ROLE standing LOGIN PASSWORD 'x' IN ROLE reporting")
        database(server, f"{DB.ipv4}:5432/shop", "vault", "vault-own-hunter0", made.ca)
        server.role("orders")
        server.role("short", ttl="4s", most="10s")
        server.ask("POST", "database/static-roles/standing", {
            "db_name": "shop", "username": "standing", "rotation_period": "1h"})
        server.put("crews/orders", username="reporting", password=made.passwords["reporting"])
        server.ask("PUT", "sys/audit/file", {"type": "file", "options": {
            "file_path": str(server.audit), "log_raw": "true"}})
        yield server
        for role in ("orders", "short"):
            for lease in server.leases(role):
                server.ask("PUT", "sys/leases/revoke", {"lease_id": lease, "sync": True})
    for role in ("vault", "standing"):
        made.admin(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.fixture(scope="module")
def vaulted(the_lab: Lab, bao: OpenBao) -> Iterator[Vaulted]:
    file = the_lab.scratch / "secret-id"
    secret_id = bao.secret_id()
    file.write_text(secret_id)
    file.chmod(0o600)
    more = MORE.format(address=bao.base, ca=bao.ca, role_id=bao.role_ids["weir"], secret_id_file=file)
    with weir(the_lab, configure(the_lab, more=more)) as installed:
        yield Vaulted(installed, bao, secret_id)


def test_a_stored_credential(vaulted: Vaulted) -> None:
    done = vaulted.ask("stored")
    assert done.stdout == "reporting\n", done.stderr + vaulted.weir.tail()


def test_a_rotated_one_counts_at_the_next_login(vaulted: Vaulted) -> None:
    made, bao = vaulted.weir.lab.database, vaulted.bao
    made.admin("ALTER ROLE reporting PASSWORD 'kv-rotated-hunter2'")
    try:
        assert vaulted.ask("stored").returncode == 2
        bao.put("crews/orders", username="reporting", password="kv-rotated-hunter2")
        assert vaulted.ask("stored").stdout == "reporting\n"
    finally:
        made.admin(f"ALTER ROLE reporting PASSWORD '{made.passwords['reporting']}'")
        bao.put("crews/orders", username="reporting", password=made.passwords["reporting"])


@pytest.mark.slow
def test_a_static_role(vaulted: Vaulted) -> None:
    assert vaulted.ask("static").stdout == "standing\n", vaulted.weir.tail()
    vaulted.bao.ask("POST", "database/rotate-role/standing")
    assert vaulted.ask("static").stdout == "standing\n", vaulted.weir.tail()


def test_a_user_lives_as_long_as_sessions_use_it(vaulted: Vaulted) -> None:
    with vaulted.session("leased") as first:
        user = said(first, WHO)
        assert re.fullmatch(r"v-orders-\w{8}", user), vaulted.weir.tail()
        assert vaulted.ask("leased").stdout == f"{user}\n"                 # one for both
        assert vaulted.users("orders") == {user}
        time.sleep(3)                 # longer than a lease is kept for another session
        assert said(first, WHO) == user
        assert vaulted.users("orders") == {user}
    wait_until("the user is dropped", lambda: not vaulted.users("orders"), 20)
    assert vaulted.bao.leases("orders") == []
    second = vaulted.ask("leased").stdout.strip()
    assert second != user
    assert second.startswith("v-orders-")
    wait_until("the second is dropped", lambda: not vaulted.users("orders"), 20)


@pytest.mark.slow
def test_a_lease_is_renewed_and_after_its_longest_there_is_another_user(vaulted: Vaulted) -> None:
    """Of 4 seconds, 10 at most."""
    with vaulted.session("short") as first:
        user, began = said(first, WHO), time.monotonic()
        while time.monotonic() < began + 6.5:
            assert vaulted.ask("short").stdout.strip() == user, vaulted.weir.tail()
            time.sleep(0.5)
        assert said(first, "SELECT count(*) FROM products") == "4"         # it outlived what it was given
        while vaulted.ask("short").stdout.strip() == user:
            assert time.monotonic() < began + 12
            time.sleep(0.2)
    wait_until("both are dropped", lambda: not vaulted.users("short"), 20)


@pytest.mark.slow
def test_one_that_was_revoked_there(vaulted: Vaulted) -> None:
    with vaulted.session("leased") as first:
        user = said(first, WHO)
        [lease] = vaulted.bao.leases("orders")
        vaulted.bao.ask("PUT", "sys/leases/revoke", {"lease_id": lease, "sync": True})
        time.sleep(1.1)               # for which it counts that it was there
        other = vaulted.ask("leased").stdout.strip()
        assert other.startswith("v-orders-"), vaulted.weir.tail()
        assert other != user
        assert vaulted.users("orders") == {other}
    wait_until("the other is dropped", lambda: not vaulted.users("orders"), 20)


@pytest.mark.slow
def test_sealed_in_the_middle(vaulted: Vaulted) -> None:
    bao = vaulted.bao
    with vaulted.session("leased") as first:
        user = said(first, WHO)
        bao.seal()
        try:
            assert said(first, WHO) == user                                # goes on
            assert vaulted.ask("leased").stdout == f"{user}\n"             # as long as its lease does
            refused = vaulted.ask("stored")
            assert refused.returncode == 2
            assert "Vault safe is sealed, or down for maintenance (503) at secret/data/crews/orders" in refused.stderr
            assert "credential[2] of target shop" in refused.stderr
        finally:
            bao.open()
        wait_until("it gives again", lambda: vaulted.ask("stored").stdout == "reporting\n", 30)
    wait_until("the user is dropped", lambda: not vaulted.users("orders"), 20)


def test_restarted_in_the_middle(vaulted: Vaulted) -> None:
    bao = vaulted.bao
    with vaulted.session("leased") as first:
        user = said(first, WHO)
        bao.stop()
        assert vaulted.ask("leased").stdout == f"{user}\n"
        began = time.monotonic()
        assert "Vault safe cannot be reached" in vaulted.ask("stored").stderr
        assert time.monotonic() - began < 10
        bao.start()
        bao.open()
        wait_until("it gives again", lambda: vaulted.ask("stored").stdout == "reporting\n", 30)
        assert said(first, WHO) == user
    wait_until("the user is dropped", lambda: not vaulted.users("orders"), 20)


@pytest.mark.slow
def test_a_slow_one_holds_nothing_up(vaulted: Vaulted) -> None:
    """Stopped, so that it takes connections and does not answer."""
    process = psutil.Process(vaulted.bao.process.pid)
    process.suspend()
    try:
        waiting = subprocess.Popen(
            vaulted.weir.crew_argv("psql", "-X", "-w", "-c", WHO), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=vaulted.weir.lab.home, env=vaulted.weir.lab.client_environment(
                vaulted.environment("stored")))
        began = time.monotonic()
        while time.monotonic() < began + 3:
            asked = time.monotonic()
            assert vaulted.weir.status()["state"] == "enforcing"
            assert time.monotonic() - asked < 3
        assert vaulted.weir.crew("psql", "-X", "-A", "-t", "-w", "-c", WHO, environment=environment(
            vaulted.weir.lab, "wrong", PGUSER="other")).stdout == "crew_svc\n"
        _, error = waiting.communicate(timeout=40)
        assert "Vault safe did not answer within 10 s" in error
    finally:
        process.resume()


@pytest.mark.slow
def test_the_process_comes_back(vaulted: Vaulted) -> None:
    before = vaulted.process()
    before.kill()
    wait_until("another", lambda: any(
        one.pid != before.pid and "enforcer.credentials.app" in " ".join(one.cmdline())
        for one in psutil.Process(vaulted.weir.process.pid).children(recursive=True)), 20)
    wait_until("it gives", lambda: vaulted.ask("stored").stdout == "reporting\n", 20)


def given(bao: OpenBao) -> set[str]:
    """Every secret that the server has given to anybody, by its own audit log: it is told not to hide them."""
    found = set()
    for line in bao.audit.read_text().splitlines():
        answer = json.loads(line).get("response", {})
        data = answer.get("data") or {}
        found |= {data.get("password"), (data.get("data") or {}).get("password") if isinstance(
            data.get("data"), dict) else None, (answer.get("auth") or {}).get("client_token")}
    return found - {None, ""}


def test_none_of_it_is_seen(vaulted: Vaulted) -> None:
    """After what the tests before this one have done."""
    weir, bao = vaulted.weir, vaulted.bao
    weir.settle()
    made = given(bao)
    assert len(made) > 3              # users' passwords, tokens
    secrets = [*weir.lab.database.passwords.values(), "kv-rotated-hunter2", "vault-own-hunter0", vaulted.secret_id,
               "PRIVATE KEY", *made]
    places = [weir.log.read_bytes(), json.dumps(weir.status()).encode()]
    state = Path("/var/lib") / RUNTIME
    places += [path.read_bytes() for part in ("recording", "journal") for path in (state / part).rglob("*")
               if path.is_file() and path.name != "signing.key"]
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            places += [" ".join(process.cmdline()).encode(), Path(f"/proc/{process.pid}/environ").read_bytes()]
        except (psutil.Error, OSError):
            continue
    places += [text for file in (state / "recording").glob("*.sqlite*") for text in unpacked(file)]
    for known in (b"SELECT current_user", b"credential[2] of target shop", b"v-orders-"):
        assert [place for place in places if known in place], known        # it is looked where such things are
    for secret in secrets:
        assert not [place for place in places if secret.encode() in place], secret[:3]
    process = vaulted.process()
    assert process.username() == "weir-vault"
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    assert [line.split()[4] for line in limits.splitlines() if line.startswith("Max core")] == ["0"]
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert Path(f"/proc/{process.pid}/environ").stat().st_uid == 0         # not dumpable: nobody's but root's


@pytest.mark.slow
def test_a_crew_sees_none_of_it(vaulted: Vaulted) -> None:
    file = vaulted.weir.lab.scratch / "secret-id"
    seen = vaulted.weir.crew("sh", "-c", f"env; cat {file}; ls /proc; curl -sk -m 3 {vaulted.bao.base}/v1/sys/health")
    assert vaulted.secret_id not in seen.stdout + seen.stderr
    assert "initialized" not in seen.stdout


@pytest.mark.slow
def test_all_is_given_back_when_the_agent_stops(vaulted: Vaulted) -> None:
    """Nothing of Weir runs after it."""
    with vaulted.session("leased") as first:
        assert said(first, WHO).startswith("v-orders-")
        assert vaulted.users("orders")
        vaulted.weir.process.terminate()
        vaulted.weir.process.wait(60)
        wait_until("the user is dropped", lambda: not vaulted.users("orders"), 10)


@pytest.mark.slow
def test_all_is_given_back_when_the_agent_is_killed(vaulted: Vaulted) -> None:
    again = Vaulted(vaulted.weir.again(), vaulted.bao, vaulted.secret_id)
    again.weir.wait()
    with again.session("leased") as first:
        assert said(first, WHO).startswith("v-orders-")
        again.weir.process.kill()
        again.weir.process.wait(10)
        wait_until("the user is dropped", lambda: not again.users("orders"), 20)
    again.weir.again().wait()
