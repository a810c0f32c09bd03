"""Port-forward to a registered target, and what is watched, ended, held and replayed of a cluster's sessions."""
from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
from clients.test_clients import environment
from lab.hosts import DB, KUBE, wait_until
from lab.kube import KUBECTL, OLD_KUBECTL, TARGET, KubeLab, kube_weir, overseen
from lab.weir import APPROVER, AUDITOR, Installed

from enforcer.recording.read import open_recording

pytestmark = pytest.mark.lab

BOTH = pytest.mark.parametrize("kubectl", [KUBECTL, OLD_KUBECTL], ids=["of today", "1.20"])
POLICY = """
@id("prod-in") permit (principal in Group::"data", action == Action::"connect", resource in Target::"prod");
@id("prod") permit (principal in Group::"data", action in Action::"k8s", resource in Target::"prod");
@id("deletes-need-a-dba") @hold("approvers=dba, within=5m, reuse=command")
forbid (principal, action == Action::"k8s:delete", resource in Target::"prod")
when { resource.resource == "configmaps" } unless { context.approved };
"""
FORWARD = """
[[target.forward]]
target = "shop"
namespace = "shop"
pods = "web"
port = 5432
"""
# Over the forwarded port PORT; the name is the server's, the address is here.
PSQL = """
coproc {kubectl} port-forward pod/web :{port} 2>forward.err
read -t 20 line <&${{COPROC[0]}}; local=${{line##*127.0.0.1:}}
PGHOSTADDR=127.0.0.1 PGPORT=${{local%% *}} psql -X -A -t -w -c '{sql}'; code=$?
kill $COPROC_PID; wait; cat forward.err >&2; exit $code
"""


@pytest.fixture(scope="module")
def weir(the_kube: KubeLab) -> Iterator[Installed]:
    for port in (5432, 5433):
        the_kube.cluster.port(port, f"{DB.ipv4}:5432")
    with kube_weir(the_kube, POLICY, FORWARD, labels=True) as installed:
        yield installed


@pytest.fixture
def cluster(weir: Installed, the_kube: KubeLab) -> Iterator[Installed]:
    with overseen(the_kube, weir):
        yield weir


def psql(
    installed: Installed, kubectl: str, sql: str, port: int = 5432, **more: str,
) -> subprocess.CompletedProcess[str]:
    script = PSQL.format(kubectl=kubectl, port=port, sql=sql)
    return installed.crew("bash", "-c", script, environment=environment(installed.lab, "wrong", **more), timeout=60)


@BOTH
def test_a_registered_target_behind_a_pod_is_inspected(weir: Installed, kubectl: str) -> None:
    with weir.overseen(KUBE.ipv4):
        done = psql(weir, kubectl, "SELECT email, api_key FROM customers ORDER BY id LIMIT 1")
        assert done.returncode == 0, done.stderr
        assert "@" in done.stdout
        assert re.match(r"[^@]{0,2}\*+", done.stdout), done.stdout
        refused = psql(weir, kubectl, "DROP TABLE scratch")
        assert "no-ddl-by-crews" in refused.stderr
    with open_recording(weir.recording) as reader:
        last = [one for one in reader.sessions() if one.target == "shop"][-1]
    assert last.protocol == "postgresql"


@pytest.mark.parametrize("mode", ["disable", "require"])
def test_a_registered_protocol_elsewhere_is_ended(cluster: Installed, mode: str) -> None:
    since = len(cluster.lab.database.statements())
    done = psql(cluster, KUBECTL, "SELECT 1", 5433, PGSSLMODE=mode)
    assert done.returncode != 0
    assert "weir" in done.stderr
    assert len(cluster.lab.database.statements()) == since


def sessions(installed: Installed, *states: str) -> list[str]:
    done = installed.weir("status", "--sessions", "--json")
    return [one["session"] for one in json.loads(done.stdout).get("sessions", [])
            if one["target"] == TARGET and (not states or one["state"] in states)]


@BOTH
def test_an_exec_is_watched_and_killed(cluster: Installed, kubectl: str) -> None:
    with subprocess.Popen(cluster.crew_argv(
            kubectl, "exec", "-i", "web", "--", "sh", "-c", "echo $$; read line; echo told $line; sleep 600"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cluster.lab.home,
            env=cluster.lab.client_environment()) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline().strip().isdecimal()
        name, = sessions(cluster, "active")      # kubectl of today asks for the pod first, on another connection
        watching = subprocess.Popen(
            ["setpriv", "--reuid", AUDITOR, "--regid", AUDITOR, "--init-groups", "--", *cluster.argv(
                "sessions", "watch", name, "--recording", str(cluster.recording))], stdout=subprocess.PIPE, text=True)
        time.sleep(2)                 # it has read what was: nothing outside of it says so
        process.stdin.write("something\n")
        process.stdin.flush()
        assert process.stdout.readline() == "told something\n"
        done = cluster.weir("sessions", "kill", name, "--reason", "runaway")
        assert done.returncode == 0, done.stderr
        _, err = process.communicate(timeout=20)
    assert process.returncode != 0
    assert "killed by local:root: runaway" in err
    shown, _ = watching.communicate(timeout=60)
    assert "told something" in shown
    assert "closed killed by local:root: runaway" in shown


@BOTH
def test_a_terminal_is_replayed(cluster: Installed, kubectl: str) -> None:
    waits = 'while [ "$(stty size)" = "0 0" ]; do :; done'           # the size follows the start
    inside = f"{kubectl} exec -it web -- sh -c '{waits}; stty size; echo in a terminal; exit 5'"
    done = cluster.crew("script", "-qec", f"stty rows 33 cols 101; {inside}", "/dev/null")
    assert (done.returncode, "in a terminal" in done.stdout) == (5, True), done.stdout + done.stderr
    cluster.settle()
    with open_recording(cluster.recording) as reader:
        name = [one for one in reader.sessions() if one.target == TARGET][-1].session
    where = ("--recording", str(cluster.recording))
    replayed = cluster.weir("replay", name, *where, user=AUDITOR)
    assert "in a terminal" in replayed.stdout
    assert "exit 5" in replayed.stdout
    cast = cluster.weir("export", "--format", "asciicast", "--session", name, "-o", "-", *where, user=AUDITOR)
    head, *events = map(json.loads, cast.stdout.splitlines())
    assert (head["version"], head["width"], head["height"]) == (2, 101, 33)
    assert "in a terminal" in "".join(text for _, kind, text in events if kind == "o")


def test_one_approval_for_a_command(cluster: Installed, the_kube: KubeLab) -> None:
    names = ("one", "two", "three")
    for name in names:
        the_kube.cluster.kubectl("create", "configmap", name, "-n", "shop")
    done: list[subprocess.CompletedProcess[str]] = []
    thread = threading.Thread(
        target=lambda: done.append(cluster.crew(KUBECTL, "delete", "configmaps", *names)))
    thread.start()
    tickets: list[str] = []
    while thread.is_alive():
        said = json.loads(cluster.weir("approvals", "list", "--json", user=APPROVER).stdout)
        for one in said.get("holds", said) if isinstance(said, dict) else said:
            if one["ticket"] not in tickets:
                tickets.append(one["ticket"])
                assert cluster.weir("approvals", "approve", one["ticket"], user=APPROVER).returncode == 0
        thread.join(0.1)
    assert done[0].returncode == 0, done[0].stderr
    assert done[0].stdout.count("deleted") == len(names)
    assert len(tickets) == 1


def test_a_connection_of_a_forward_that_is_denied(weir: Installed, the_kube: KubeLab) -> None:
    """It is opened, and each connection is asked about by its port."""
    policy = weir.config.parent / "policies/shop.cedar"
    text = policy.read_text()
    policy.write_text(text + """
@id("not-5433") forbid (principal, action == Action::"k8s:portforward", resource in Target::"prod")
when { resource.ports.contains("5433") };
""")
    assert weir.weir("reload").returncode == 0
    try:
        with overseen(the_kube, weir):
            for kubectl in (KUBECTL, OLD_KUBECTL):
                done = psql(weir, kubectl, "SELECT 1", 5433)
                assert done.returncode != 0
                assert "not-5433" in done.stderr
    finally:
        policy.write_text(text)
        assert weir.weir("reload").returncode == 0


LEAVES = """
import socket, ssl, sys
one = socket.create_connection((sys.argv[1], 6443))
how = sys.argv[2]
if how == "half":
    one.sendall(bytes.fromhex("1603010200010001fc0303"))
elif how == "hello":
    trust = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    said = trust.wrap_bio(incoming, outgoing, server_hostname=sys.argv[1])
    try: said.do_handshake()
    except ssl.SSLWantReadError: pass
    one.sendall(outgoing.read())
elif how == "secured":
    trust = ssl._create_unverified_context()
    one = trust.wrap_socket(one, server_hostname=sys.argv[1])
"""


@pytest.mark.parametrize("network", ["private", "host"])
@pytest.mark.parametrize("how", ["nothing", "half", "hello", "secured"])
def test_who_leaves_before_a_request_leaves_nothing(weir: Installed, how: str, network: str) -> None:
    script = f"for n in $(seq 8); do python3 -c '{LEAVES}' kube.lab.example {how} & done; wait"
    assert weir.crew("bash", "-c", script, network=network).returncode == 0
    wait_until("their sessions' end", lambda: not sessions(weir), 5)


def test_nothing_waits(weir: Installed) -> None:
    wait_until("the last session's end", lambda: not sessions(weir), 20)
