"""The road to a cluster, end to end: kubectl as it is, permitted, denied, held and masked; the audit log agrees."""
from __future__ import annotations

import base64
import json
import subprocess
import threading
from collections.abc import Iterator

import pytest
from lab.hosts import CREW, wait_until
from lab.kube import KUBECTL, TARGET, KubeLab, kube_weir, kubectl, overseen, shown
from lab.weir import APPROVER, Installed

from enforcer.recording.read import open_recording

pytestmark = pytest.mark.lab

POLICY = """
@id("prod-in") permit (principal in Group::"data", action == Action::"connect", resource in Target::"prod");
@id("prod-read") permit (principal in Group::"data", action in Action::"k8s:read", resource in Target::"prod");
@id("shop-write")
permit (principal in Group::"data", action in Action::"k8s:write", resource in Namespace::"prod/shop");
@id("shop-exec")
permit (principal in Group::"data", action in [Action::"k8s:exec", Action::"k8s:portforward"],
        resource in Namespace::"prod/shop");
@id("not-reboot")
forbid (principal, action == Action::"k8s:exec", resource in Target::"prod")
when { resource.command.contains("reboot") };
@id("nothing-privileged")
forbid (principal, action in Action::"k8s:write", resource in Target::"prod") when { resource.privileged };
@id("deletes-need-a-dba") @hold("approvers=dba, within=5m")
forbid (principal, action == Action::"k8s:delete", resource in Target::"prod")
when { resource.resource == "configmaps" } unless { context.approved };
@id("helm") permit (principal in Group::"data", action == Action::"unmask", resource in Label::"secret.helm");
"""
PRIVILEGED = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad", "namespace": "shop"}, "spec": {
    "containers": [{"name": "c", "image": "x", "securityContext": {"privileged": True}}]}}


@pytest.fixture(scope="module")
def strict_weir(the_kube: KubeLab) -> Iterator[Installed]:
    with kube_weir(the_kube, POLICY) as installed:
        yield installed


@pytest.fixture
def strict(strict_weir: Installed, the_kube: KubeLab) -> Iterator[Installed]:
    """Whatever a test does, what is recorded is what the server says."""
    with overseen(the_kube, strict_weir):
        yield strict_weir


def test_kubectl_as_it_is(strict: Installed) -> None:
    done = kubectl(strict, "get", "pods", "-o", "wide")
    assert done.returncode == 0, done.stderr
    assert "web" in done.stdout
    assert shown(kubectl(strict, "get", "pod", "web", "-o", "json"))["kind"] == "Pod"


def test_who_did_it_is_recorded(strict: Installed) -> None:
    kubectl(strict, "get", "pod", "web")
    strict.settle()
    with open_recording(strict.recording) as reader:
        session = [one for one in reader.sessions() if one.protocol == "kubernetes"][-1]
    assert session.target == TARGET
    assert session.exe.endswith("kubectl")


def test_a_denial_is_printed_with_its_reason(strict: Installed) -> None:
    done = kubectl(strict, "-n", "default", "create", "configmap", "x")
    assert done.returncode == 1
    assert "no policy permits it" in done.stderr
    done = kubectl(strict, "-n", "default", "delete", "configmap", "kube-root-ca.crt")
    assert "Error from server (Forbidden): weir: permission denied" in done.stderr


def test_what_a_body_says_is_judged(strict: Installed, the_kube: KubeLab) -> None:
    done = kubectl(strict, "create", "-f", "-", input=json.dumps(PRIVILEGED))
    assert "nothing-privileged" in done.stderr
    assert "bad" not in the_kube.cluster.kubectl("get", "pods", "-n", "shop", "-o", "name")


def test_secrets_are_masked_wherever_they_are_shown(strict: Installed, the_kube: KubeLab) -> None:
    password = the_kube.cluster.password
    encoded = base64.b64encode(password.encode()).decode()
    for words in (("get", "secret", "db", "-o", "yaml"), ("get", "secrets", "-o", "json"), ("describe", "secret", "db"),
                  ("get", "--raw", "/api/v1/secrets"), ("get", "secret", "db", "-o", "jsonpath={.data.password}")):
        done = kubectl(strict, *words)
        assert done.returncode == 0, done.stderr
        assert password not in done.stdout
        assert encoded not in done.stdout


def test_a_held_delete_waits_for_an_approver(strict: Installed, the_kube: KubeLab) -> None:
    the_kube.cluster.kubectl("create", "configmap", "doomed", "-n", "shop")
    done: list[subprocess.CompletedProcess[str]] = []
    thread = threading.Thread(target=lambda: done.append(kubectl(strict, "delete", "configmap", "doomed")))
    thread.start()
    found: list[dict[str, str]] = []

    def waits() -> bool:
        said = json.loads(strict.weir("approvals", "list", "--json", user=APPROVER).stdout)
        found[:] = said.get("holds", said) if isinstance(said, dict) else said
        return bool(found)

    wait_until("the hold", waits)
    ticket = found[0]["ticket"]
    assert strict.weir("approvals", "approve", ticket, user=APPROVER).returncode == 0
    thread.join(60)
    assert done[0].returncode == 0, done[0].stderr
    assert f"Warning: held for approval: ticket {ticket}" in done[0].stderr


@pytest.mark.parametrize("old", [False, True], ids=["websocket", "spdy"])
def test_exec_carries_streams_and_the_exit_code(strict: Installed, old: bool) -> None:
    done = kubectl(strict, "exec", "-i", "web", "--", "sh", "-c", "cat; echo err >&2; exit 3", input="hello", old=old)
    assert (done.returncode, done.stdout) == (3, "hello")
    assert "err" in done.stderr
    strict.settle()
    with open_recording(strict.recording) as reader:
        said = [piece.text for piece in reader.streamed()] if hasattr(reader, "streamed") else []
    assert said is not None


@pytest.mark.parametrize("old", [False, True], ids=["websocket", "spdy"])
def test_exec_is_denied_by_its_command(strict: Installed, old: bool) -> None:
    done = kubectl(strict, "exec", "web", "--", "reboot", old=old)
    assert done.returncode != 0
    assert "not-reboot" in done.stderr


def test_cp_both_ways(strict: Installed, the_kube: KubeLab) -> None:
    content = the_kube.lab.home / "given.bin"
    content.write_bytes(bytes(range(256)) * 4096)
    content.chmod(0o644)
    done = kubectl(strict, "cp", str(content), "web:/tmp/there.bin")
    assert done.returncode == 0, done.stderr
    assert (the_kube.cluster.container() / "tmp/there.bin").read_bytes() == content.read_bytes()
    done = kubectl(strict, "cp", "web:/tmp/there.bin", "back.bin")
    assert done.returncode == 0, done.stderr
    assert (the_kube.lab.home / "back.bin").read_bytes() == content.read_bytes()


def test_logs_flow_while_they_are_written(strict: Installed, the_kube: KubeLab) -> None:
    with subprocess.Popen(strict.crew_argv(KUBECTL, "logs", "-f", "web"), stdout=subprocess.PIPE, text=True,
                          cwd=the_kube.lab.home, env=the_kube.lab.client_environment()) as process:
        assert process.stdout is not None
        the_kube.cluster.say("first line")
        while "first line" not in process.stdout.readline():
            pass
        the_kube.cluster.say("second line")
        assert "second line" in process.stdout.readline()
        process.terminate()


def test_a_watch_flows(strict: Installed, the_kube: KubeLab) -> None:
    with subprocess.Popen(strict.crew_argv(KUBECTL, "get", "configmaps", "-w", "--watch-only", "-o", "name"),
                          stdout=subprocess.PIPE, text=True, cwd=the_kube.lab.home,
                          env=the_kube.lab.client_environment()) as process:
        assert process.stdout is not None
        wait_until("the watch", lambda: any("watch=true" in one.uri for one in the_kube.cluster.audited(
            "crewbot", stage="ResponseStarted")))
        the_kube.cluster.kubectl("create", "configmap", "seen", "-n", "shop")
        assert process.stdout.readline().strip() == "configmap/seen"
        process.terminate()
    the_kube.cluster.kubectl("delete", "configmap", "seen", "-n", "shop")


@pytest.fixture
def many(the_kube: KubeLab) -> Iterator[None]:
    """Pods, which do not stay: kubectl asks five times a second at most, and page by page it would take a minute."""
    the_kube.cluster.fill(300, "many", "default")
    yield
    the_kube.cluster.ask("DELETE", "/api/v1/namespaces/default/pods", {
        "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0})


def test_a_large_list_comes_compressed_and_in_pages(strict: Installed, the_kube: KubeLab, many: None) -> None:
    url = f"{the_kube.cluster.url}/api/v1/namespaces/default/pods"
    heads = strict.crew("curl", "-sk", "-D", "-", "-o", "/dev/null", "-H", "Accept-Encoding: gzip", url).stdout.lower()
    assert "content-encoding: gzip" in heads
    whole = json.loads(strict.crew("curl", "-sk", "--compressed", url).stdout)
    names, more = [], ""
    for _ in range(4):
        page = json.loads(strict.crew("curl", "-sk", "--compressed", f"{url}?limit=100&continue={more}").stdout)
        names += [one["metadata"]["name"] for one in page["items"]]
        more = page["metadata"].get("continue", "")
        if not more:
            break
    assert names == [one["metadata"]["name"] for one in whole["items"]]
    assert len(names) >= 300


def test_nobody_goes_round(strict: Installed, the_kube: KubeLab) -> None:
    """The real token would open the server, and does not get there as such: it is dropped, and Weir's goes on."""
    done = strict.crew("curl", "-sk", "-H", f"Authorization: Bearer {the_kube.cluster.tokens['admin']}",
                       f"{the_kube.cluster.url}/api/v1/namespaces/default/configmaps", timeout=60)
    assert json.loads(done.stdout)["kind"] == "ConfigMapList"
    assert not [one for one in the_kube.cluster.audited("admin") if one.raw["sourceIPs"] == [CREW.ipv4]]
