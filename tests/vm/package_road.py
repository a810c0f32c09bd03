"""Run inside the machine, as root, after package.py: a crew's way through the package's Weir to each kind of server,
and what systemd's journal, health and figures say of it.

The servers are the lab's, in network namespaces of this machine; names, targets and policies those of vagrant/etc.
"""
from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from lab import hosts
from lab.enrol import configure, give_home
from lab.hosts import BRIDGE, CREW, DB, KUBE, SSH, USER, Host, wait_until
from lab.serve import STATE as LAB
from lab.weir import APPROVER, AUDITOR, make_people

from vm.package import ETC, REPOSITORY, right, run, wait_enforcing

ROLES: dict[str, Host | None] = {"dns": None, "db": DB, "ssh": SSH, "kube": KUBE}      # None: this machine itself
TARGETS = {"db": "shop", "ssh": "build", "kube": "prod"}
LINK = "lab-crew"                     # this machine has the place of the crew's host in the lab's network
CLIENTS = Path("/usr/local/bin")      # in a crew's PATH
AS_CREW = ("weir", "run", "--workload", "crew", "--user", USER, "--")
PSQL = ("psql", "-X", "host=db.lab.example dbname=shop user=crew_svc password=wrong sslmode=verify-full sslrootcert="
        f"/home/{USER}/db-ca.pem", "-c")
DENIED = {"db": (*PSQL, "DROP TABLE orders"), "ssh": ("ssh", "ssh.lab.example", "cat", "/etc/passwd"),
          "kube": ("kubectl", "delete", "pod", "web")}
# What waits for a person, and what the server says once it may.
HELD = {"db": ((*PSQL, "DELETE FROM orders WHERE id = 1"), "DELETE"),
        "ssh": (("ssh", "-T", "ssh.lab.example"), "said-in-shell-42"),
        "kube": (("kubectl", "exec", "web", "--", "echo", "said-in-a-pod"), "said-in-a-pod")}
PATIENCE = {"WEIR_LAB_PATIENCE": "20", "PYTHONPATH": f"{REPOSITORY}/tests:{REPOSITORY}", "PYTHONDONTWRITEBYTECODE": "1"}


@contextmanager
def serving(role: str) -> Iterator[None]:
    command, host = [sys.executable, "-P", "-m", "lab.serve", role], ROLES[role]
    if host is not None:
        command = host.argv(command)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | PATIENCE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{role}: it answers\n"
            print(f"{role} answers", flush=True)
            yield
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def servers() -> Iterator[None]:
    assert os.geteuid() == 0, "run it as root, inside the machine"
    make_people()                     # before: who writes /etc/passwd anew takes the SSH server's own from over it
    with hosts.hosts(), ExitStack() as stack:
        hosts.ip("link set eth0 down", netns=CREW.netns)
        hosts.ip(f"link add p-{LINK} type veth peer name {LINK} netns {os.getpid()}",
                 f"link set p-{LINK} master lab up", netns=BRIDGE)
        hosts.ip(f"link set {LINK} up", f"address add {CREW.ipv4}/24 dev {LINK}",
                 f"address add {CREW.ipv6}/64 dev {LINK} nodad")
        for role in ROLES:
            stack.enter_context(serving(role))
        yield


@pytest.fixture(scope="module", autouse=True)
def weir(servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The package's, with these targets; what package.py has configured is there again afterwards."""
    before = tmp_path_factory.mktemp("before") / "weir"
    shutil.copytree(ETC, before)
    handed = {role: json.loads((LAB / role / "handout.json").read_text()) for role in TARGETS}
    configure(ETC, handed)
    with (ETC / "weir.toml").open("a") as file:
        file.write('\n[metrics]\nlisten = "unix"\n')
    give_home(Path(pwd.getpwnam(USER).pw_dir), handed)
    for source in (Path(os.environ["WEIR_PREFIX"], "kube/bin/kubectl"), REPOSITORY / "vagrant/crew"):
        shutil.copy(source, CLIENTS)
    right("weir", "check")
    right("systemctl", "restart", "weir-agent")
    wait_enforcing()
    yield
    shutil.rmtree(ETC)
    shutil.copytree(before, ETC)
    right("systemctl", "restart", "weir-agent")
    wait_enforcing()


def crew(*command: str, seconds: float = 600) -> subprocess.CompletedProcess[str]:
    return run(*AS_CREW, *command, seconds=seconds)


def as_user(name: str, *command: str) -> str:
    return right("runuser", "-u", name, "--", *command)


def sessions() -> dict[str, list[dict[str, object]]]:
    """That are on record, by target."""
    found: dict[str, list[dict[str, object]]] = {}
    for one in json.loads(as_user(AUDITOR, "weir", "sessions", "--json")):
        found.setdefault(one["target"], []).append(one)
    return found


def test_each_server_is_reached_and_its_secrets_are_not() -> None:
    done = crew("crew")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "--- kubectl" in said
    assert said.count("redacted") >= 2, said
    assert "REGION=eu-central-1" in said
    assert "AKIAIOSFODNN7EXAMPLE" not in said
    assert "db" in said.partition("--- kubectl")[2]


@pytest.mark.parametrize("role", DENIED)
def test_what_is_denied(role: str) -> None:
    done = crew(*DENIED[role])
    assert done.returncode != 0
    assert "weir" in (done.stdout + done.stderr).lower(), done.stdout + done.stderr
    assert "root:" not in done.stdout


@pytest.mark.parametrize("role", HELD)
def test_what_waits_for_a_person(role: str) -> None:
    command, answer = HELD[role]
    with subprocess.Popen([*AS_CREW, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, cwd="/") as process:
        try:
            def waiting() -> list[str]:
                assert process.poll() is None, process.stdout and process.stdout.read()
                return [one["ticket"] for one in json.loads(as_user(APPROVER, "weir", "approvals", "list", "--json"))
                        if one["state"] == "pending"]

            wait_until("it waits", waiting, 300)
            [ticket] = waiting()
            as_user(APPROVER, "weir", "approvals", "approve", ticket, "--reason", "it may go")
            said, _ = process.communicate("echo said-in-shell-$((6 * 7))\n", 600)
        finally:
            process.kill()
    assert answer in said, said


def test_it_is_on_record() -> None:
    wait_until("every target's", lambda: set(TARGETS.values()) <= set(sessions()), 60)
    assert as_user(AUDITOR, "weir", "verify")
    for target in TARGETS.values():
        assert {one["workload"] for one in sessions()[target]} - {"weir"} == {"crew"}      # it reads catalogues itself


def test_the_journal_of_systemd_has_it_by_fields() -> None:
    """docs/operator.md, "Watching Weir"."""
    right("journalctl", "--sync")
    lines = [json.loads(line) for line in right("journalctl", "--no-pager", "-o", "json", "WEIR_PART=weir.events",
                                                "_SYSTEMD_UNIT=weir-agent.service").splitlines()]
    assert {"enforcing", "launch", "exit"} <= {line["WEIR_EVENT"] for line in lines}
    assert {line["WEIR_WORKLOAD"] for line in lines if line["WEIR_EVENT"] == "launch"} == {"crew"}
    answered = [line["WEIR_TICKET"] for line in lines if line["WEIR_EVENT"] == "approval.answered"]
    assert len(answered) >= len(HELD)
    assert right("journalctl", "--no-pager", "-o", "cat", f"WEIR_TICKET={answered[-1]}")


def test_health_and_figures() -> None:
    assert run("weir", "health").returncode == 0
    top = json.loads(right("weir", "top", "--json"))
    assert top
    socket = ("curl", "-s", "-S", "-m", "60", "--unix-socket", "/run/weir/metrics.sock")
    assert right(*socket, "-o", "/dev/null", "-w", "%{http_code}", "http://localhost/healthz") == "200"
    figures = right(*socket, "http://localhost/metrics")
    for target in TARGETS.values():
        [count] = [line.rpartition(" ")[2] for line in figures.splitlines()
                   if line.startswith("weir_sessions_total") and f'target="{target}"' in line]
        assert float(count) > 0
    refused = crew(*socket, "http://localhost/metrics")
    assert "weir_sessions_total" not in refused.stdout, "a crew reads no figures"
