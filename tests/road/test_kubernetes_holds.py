"""What is held of a cluster's requests: exec by both kubectls, and whoever goes away meanwhile."""
from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import pytest
from lab.hosts import wait_until
from lab.kube import KUBECTL, OLD_KUBECTL, SERVICE_USER, TARGET, KubeLab, kube_weir, overseen
from lab.weir import APPROVER, Installed

from enforcer.recording.read import open_recording
from enforcer.words import events

pytestmark = pytest.mark.lab

BOTH = pytest.mark.parametrize("kubectl", [KUBECTL, OLD_KUBECTL], ids=["of today", "1.20"])
POLICY = """
@id("prod-in") permit (principal in Group::"data", action == Action::"connect", resource in Target::"prod");
@id("prod") permit (principal in Group::"data", action in Action::"k8s", resource in Target::"prod");
@id("exec-needs-a-dba") @hold("approvers=dba, within=10m")
forbid (principal, action == Action::"k8s:exec", resource in Target::"prod") unless { context.approved };
@id("deletes-need-a-dba") @hold("approvers=dba, within=10m")
forbid (principal, action == Action::"k8s:delete", resource in Target::"prod") unless { context.approved };
"""
IDLE = 32                             # seconds: ReadHeaderTimeout of an API server


@pytest.fixture(scope="module")
def weir(the_kube: KubeLab) -> Iterator[Installed]:
    with kube_weir(the_kube, POLICY) as installed:
        yield installed


@pytest.fixture
def cluster(weir: Installed, the_kube: KubeLab) -> Iterator[Installed]:
    with overseen(the_kube, weir):
        yield weir


class Asking:
    """A crew's kubectl that is held."""

    def __init__(self, installed: Installed, *words: str) -> None:
        self.installed = installed
        self.process = subprocess.Popen(
            installed.crew_argv(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=installed.lab.home, env=installed.lab.client_environment())
        self.ticket = ""
        wait_until("the hold", self._held)

    def _held(self) -> bool:
        found = holds(self.installed)
        self.ticket = found[0] if found else ""
        return bool(found)

    def answer(self, verb: str, *words: str) -> None:
        done = self.installed.weir("approvals", verb, self.ticket, *words, user=APPROVER)
        assert done.returncode == 0, done.stderr

    def ended(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def holds(installed: Installed) -> list[str]:
    said = json.loads(installed.weir("approvals", "list", "--json", user=APPROVER).stdout)
    return [one["ticket"] for one in (said.get("holds", said) if isinstance(said, dict) else said)]


def asked(made: KubeLab, since: int, resource: str = "pods/exec") -> list[str]:
    """What the API server was asked of that, and began to answer."""
    return [one.uri for one in made.cluster.audited(SERVICE_USER, since=since, stage="") if one.resource == resource]


@BOTH
def test_an_exec_that_is_approved_runs(cluster: Installed, the_kube: KubeLab, kubectl: str) -> None:
    since = the_kube.cluster.mark()
    held = Asking(cluster, kubectl, "exec", "web", "--", "sh", "-c", "echo ran; exit 3")
    assert not asked(the_kube, since)
    held.answer("approve")
    code, out, err = held.ended()
    assert (code, out) == (3, "ran\n"), err
    assert asked(the_kube, since)


@BOTH
def test_an_exec_that_is_denied_is_said_with_reason_and_rule(
    cluster: Installed, the_kube: KubeLab, kubectl: str,
) -> None:
    since = the_kube.cluster.mark()
    held = Asking(cluster, kubectl, "exec", "web", "--", "true")
    held.answer("deny", "--reason", "not on a Friday")
    code, out, err = held.ended()
    assert (code, out) == (1, "")
    for word in ("weir: ", "not on a Friday", APPROVER):
        assert word in err, err
    assert not asked(the_kube, since)


@BOTH
def test_who_goes_while_it_is_held_takes_it_back(cluster: Installed, the_kube: KubeLab, kubectl: str) -> None:
    since = the_kube.cluster.mark()
    held = Asking(cluster, kubectl, "exec", "web", "--", "true")
    held.kill()
    wait_until("the hold's end", lambda: not holds(cluster))
    late = cluster.weir("approvals", "approve", held.ticket, user=APPROVER)
    assert late.returncode != 0
    cluster.settle()
    assert not asked(the_kube, since)


def test_the_enforcer_is_killed_while_it_is_held(weir: Installed, the_kube: KubeLab) -> None:
    since = the_kube.cluster.mark()
    held = Asking(weir, KUBECTL, "exec", "web", "--", "true")
    weir.kill("enforcer")
    code, _, err = held.ended()
    assert code != 0
    assert any(word in err.lower() for word in ("eof", "closed", "reset", "refused")), err
    weir.wait()
    late = weir.weir("approvals", "approve", held.ticket, user=APPROVER)
    assert late.returncode != 0
    assert not asked(the_kube, since)
    again = Asking(weir, KUBECTL, "exec", "web", "--", "echo", "ran")
    again.answer("approve")
    code, out, err = again.ended()
    assert (code, out) == (0, "ran\n"), err
    weir.settle()
    with open_recording(weir.recording) as reader:
        assert [one for one in reader.entries() if one.kind == events.GAP]


@pytest.mark.slow
@BOTH
def test_a_hold_outlasts_the_servers_patience(cluster: Installed, the_kube: KubeLab, kubectl: str) -> None:
    """An API server closes a connection on which nothing is asked for that long."""
    the_kube.cluster.kubectl("create", "configmap", "patient", "-n", "shop")
    for words in (("exec", "web", "--", "echo", "ran"), ("delete", "configmap", "patient")):
        held = Asking(cluster, kubectl, *words)
        time.sleep(IDLE + 3)
        held.answer("approve")
        code, out, err = held.ended()
        assert (code, "ran" in out or "deleted" in out) == (0, True), err
    cluster.settle()
    with open_recording(cluster.recording) as reader:
        sessions = {one.session for one in reader.sessions() if one.target == TARGET}
        notes = [one.event for one in reader.entries() if one.kind == events.SESSION_NOTED]
    assert [one for one in notes if one.name == "reconnected" and one.session in sessions]
