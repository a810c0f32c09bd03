"""Live control, end to end on a real PostgreSQL, whose own log and tables say what was done: sessions that are ended
while they are at something, and locks (test_live_kills.py has those that hold over whatever is killed)."""
from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from clients.test_clients import environment
from lab.hosts import USER, wait_until
from lab.lab import Lab
from lab.weir import APPROVER, AUDITOR, POLICY, Installed, configure, weir

pytestmark = pytest.mark.lab

MORE = """
@id("held") @hold("approvers=dba, within=2m")
forbid (principal, action == Action::"sql:delete", resource == Table::"shop/shop/public/scratch")
unless { context.approved };
@id("may-ask") permit (principal in Group::"data", action == Action::"elevate", resource == Target::"shop");
"""
SLOW = "INSERT INTO scratch (note) SELECT '{}' FROM pg_sleep(30)"      # which nobody waits for: it is ended


@pytest.fixture(scope="module")
def shared(the_lab: Lab) -> Iterator[Installed]:
    with weir(the_lab, configure(the_lab, policy=POLICY + MORE)) as made:
        yield made


@pytest.fixture
def installed(shared: Installed) -> Iterator[Installed]:
    with shared.overseen():
        yield shared
        unlock_all(shared)


def unlock_all(installed: Installed) -> None:
    for one in locks(installed):
        installed.weir("unlock", one["kind"], one["name"])


def locks(installed: Installed) -> list[dict[str, str]]:
    """None where the agent does not run."""
    done = installed.weir("lock", "--json")
    return list(json.loads(done.stdout)) if done.returncode == 0 else []


def psql(installed: Installed, *sql: str) -> subprocess.CompletedProcess[str]:
    words = [word for text in sql for word in ("-c", text)]
    return installed.crew("psql", "-X", "-A", "-t", "-w", *words, environment=environment(installed.lab, "wrong"))


@contextmanager
def asked(installed: Installed, *sql: str) -> Iterator[list[subprocess.CompletedProcess[str]]]:
    """In the background; the list has the answer at the block's end."""
    answers: list[subprocess.CompletedProcess[str]] = []
    thread = threading.Thread(target=lambda: answers.append(psql(installed, *sql)))
    thread.start()
    try:
        yield answers
    finally:
        thread.join(60)


def sessions(installed: Installed, state: str = "active") -> list[str]:
    done = installed.weir("status", "--sessions", "--json")
    return [one["session"] for one in json.loads(done.stdout).get("sessions", []) if one["state"] == state]


def one(installed: Installed, state: str = "active") -> str:
    wait_until(f"a session that is {state}", lambda: len(sessions(installed, state)) == 1, 30)
    return sessions(installed, state)[0]


def kept(installed: Installed, note: str) -> int:
    return int(installed.lab.database.admin(f"SELECT count(*) FROM scratch WHERE note = '{note}'"))


def running(installed: Installed) -> int:
    return int(installed.lab.database.admin(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'crew_svc' AND state <> 'idle'"))


def host_events(installed: Installed, *names: str) -> list[dict[str, str]]:
    installed.settle()
    done = installed.weir("export", "--format", "ndjson", "-o", "-", "--recording", str(installed.recording),
                          user=AUDITOR)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [one["detail"] | {"event": one["name"]} for one in found
            if one["type"] == "host_event" and one["name"] in names]


def test_kill_ends_what_runs_and_an_auditor_watches(installed: Installed) -> None:
    with asked(installed, SLOW.format("killed")) as answers:
        name = one(installed)
        watching = subprocess.Popen(
            ["setpriv", "--reuid", AUDITOR, "--regid", AUDITOR, "--init-groups", "--", *installed.argv(
                "sessions", "watch", name[:24], "--recording", str(installed.recording))],
            stdout=subprocess.PIPE, text=True)
        time.sleep(2)                 # it has read what was: nothing outside of it says so
        assert "only root" in installed.weir("sessions", "kill", name, user=AUDITOR).stderr
        assert "no session" in installed.weir("sessions", "kill", "0000").stderr
        done = installed.weir("sessions", "kill", name[:25], "--reason", "runaway")
        assert done.returncode == 0, done.stderr
        assert f"{name} has ended: local:{USER} through crew, shop/shop" in done.stdout
    why = "killed by local:root: runaway"
    assert f"FATAL:  terminating connection: {why}" in answers[0].stderr
    wait_until("the server", lambda: running(installed) == 0, 5)
    shown, _ = watching.communicate(timeout=60)
    assert "weir cancel" in shown
    assert f"closed {why}" in shown
    assert kept(installed, "killed") == 0
    [event] = [one for one in host_events(installed, "session.killed") if not one["error"]]
    assert (event["session"], event["by"], event["reason"]) == (name, "local:root", "runaway")


@pytest.mark.parametrize(("kind", "name"), [
    ("workload", "crew"), ("target", "shop"), ("subject", f"local:{USER}")])
def test_a_lock_ends_refuses_and_is_lifted(installed: Installed, kind: str, name: str) -> None:
    why, note = f"{kind} {name} is locked: leaked", f"locked {kind}"
    before = len(host_events(installed, "lock", "unlock"))
    with asked(installed, SLOW.format(note)) as answers:
        one(installed)
        done = installed.weir("lock", kind, name, "--reason", "leaked")
        assert (done.returncode, "1 of its sessions" in done.stdout) == (0, True), done.stdout + done.stderr
    assert why in answers[0].stderr
    refused = psql(installed, "SELECT 1")
    assert why in refused.stderr
    assert refused.returncode == (2 if kind == "target" else 125)
    assert f"{kind} {name}" in installed.weir("status").stdout
    if kind == "subject":
        asked_for = installed.weir("request", "shop", "--for", "1h", user=USER)
        assert why in asked_for.stderr
    assert installed.weir("unlock", kind, name).returncode == 0
    assert psql(installed, "SELECT 1").stdout == "1\n"
    assert kept(installed, note) == 0
    events = host_events(installed, "lock", "unlock")[before:]
    assert [(one["event"], one["what"], one["name"], one["by"]) for one in events] == [
        ("lock", kind, name, "local:root"), ("unlock", kind, name, "local:root")]


def test_what_is_held_is_given_up_and_a_locked_approver_answers_nothing(installed: Installed) -> None:
    psql(installed, "INSERT INTO scratch (note) VALUES ('held')")
    with asked(installed, "DELETE FROM scratch WHERE note = 'held'") as answers:
        one(installed, "held")
        [hold] = json.loads(installed.weir("approvals", "list", "--json", user=APPROVER).stdout)
        assert installed.weir("lock", "subject", f"local:{APPROVER}").returncode == 0
        refused = installed.weir("approvals", "approve", hold["ticket"], user=APPROVER)
        assert f"subject local:{APPROVER} is locked" in refused.stderr
        assert installed.weir("lock", "target", "shop").returncode == 0
        assert installed.weir("unlock", "subject", f"local:{APPROVER}").returncode == 0
        late = installed.weir("approvals", "approve", hold["ticket"], user=APPROVER)
        assert "no hold" in late.stderr
    assert "target shop is locked" in answers[0].stderr
    assert kept(installed, "held") == 1


@pytest.mark.slow
def test_for_a_while(installed: Installed) -> None:
    assert installed.weir("lock", "target", "shop", "--for", "6s").returncode == 0
    assert "target shop is locked" in psql(installed, "SELECT 1").stderr
    wait_until("its end", lambda: psql(installed, "SELECT 1").stdout == "1\n", 30)
    assert host_events(installed, "unlock")[-1]["reason"] == "its time is over"


@pytest.mark.slow
def test_forty_at_once(installed: Installed) -> None:
    count = 40 if "WEIR_RACES" in os.environ else 12
    environment_ = environment(installed.lab, "wrong")
    script = f"for i in $(seq {count}); do psql -X -w -c \"{SLOW.format('many')}\" & done; wait"
    answers: list[subprocess.CompletedProcess[str]] = []
    thread = threading.Thread(
        target=lambda: answers.append(installed.crew("sh", "-c", script, environment=environment_)))
    thread.start()
    wait_until("all", lambda: len(sessions(installed)) == count, 40)
    began = time.monotonic()
    done = installed.weir("lock", "workload", "crew")
    assert f"{count} of its sessions" in done.stdout, done.stdout + done.stderr
    thread.join(60)
    assert time.monotonic() - began < 5
    assert answers[0].stderr.count("workload crew is locked") == count
    wait_until("the server", lambda: running(installed) == 0, 5)
    assert kept(installed, "many") == 0


