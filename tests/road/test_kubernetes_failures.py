"""What fails on a cluster's road: a full disk, and APIs whose own servers are away."""
from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab.hosts import RUNTIME, wait_until
from lab.kube import ALL, KUBECTL, OLD_KUBECTL, SERVICE_USER, KubeLab, kube_weir, kubectl, overseen
from lab.weir import Installed

pytestmark = pytest.mark.lab

BOTH = pytest.mark.parametrize("old", [False, True], ids=["of today", "1.20"])
STATE = Path("/var/lib") / RUNTIME
ROOM = 128 << 20                      # bytes of the disk that the recording is on
HELD = """
@id("deletes-need-a-dba") @hold("approvers=dba, within=5m")
forbid (principal, action == Action::"k8s:delete", resource in Target::"prod") unless { context.approved };
"""
GROUP = "away.example.com"
SERVICE = {
    "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": f"v1.{GROUP}"},
    "spec": {"group": GROUP, "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 10,
             "service": {"name": "away", "namespace": "shop"}, "insecureSkipTLSVerify": True}}
BACKEND = {
    "apiVersion": "v1", "kind": "Service", "metadata": {"name": "away", "namespace": "shop"},
    "spec": {"ports": [{"port": 443}], "selector": {"nobody": "has"}}}
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


# A full disk


@pytest.fixture(scope="module")
def small(the_kube: KubeLab) -> Iterator[Installed]:
    """With a disk of its own for what Weir keeps."""
    STATE.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=755", "tmpfs", str(STATE)], check=True)
    try:
        with kube_weir(the_kube, ALL + HELD) as installed:
            yield installed
    finally:
        subprocess.run(["umount", "-l", str(STATE)], check=True)
        if STATE.is_dir():
            STATE.rmdir()


@contextmanager
def full() -> Iterator[None]:
    """Nothing is free of the disk."""
    ballast = STATE / "ballast"
    try:
        disk = os.statvfs(STATE)
        with open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - (1 << 20))
        yield
    finally:
        ballast.unlink()


def running(installed: Installed, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        installed.crew_argv(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=installed.lab.home, env=installed.lab.client_environment())


@BOTH
def test_a_full_disk_forwards_nothing_and_says_so(small: Installed, the_kube: KubeLab, old: bool) -> None:
    program = OLD_KUBECTL if old else KUBECTL
    the_kube.cluster.kubectl("create", "configmap", "stays", "-n", "shop")
    try:
        held = running(small, program, "delete", "configmap", "stays")
        typed = running(small, program, "exec", "-i", "web", "--", "sh", "-c", "echo up; read line; echo $line")
        assert typed.stdin is not None
        assert typed.stdout is not None
        assert typed.stdout.readline() == "up\n"
        wait_until("the hold", lambda: b"ticket" in small.weir("approvals", "list", "--json").stdout.encode())
        since = the_kube.cluster.mark()
        with full():
            _, said = held.communicate(timeout=60)
            assert held.returncode == 1
            assert "nothing can be recorded, so nothing is forwarded" in said
            _, said = typed.communicate("typed\n", timeout=60)
            assert typed.returncode != 0
            assert "nothing can be recorded" in said
            done = kubectl(small, "get", "pods", old=old, timeout=60)
            assert done.returncode == 1
            assert not the_kube.cluster.audited(SERVICE_USER, since=since, stage="ResponseStarted")
            assert [one.resource for one in the_kube.cluster.audited(SERVICE_USER, since=since)] in ([], ["pods/exec"])
        wait_until("room again", lambda: kubectl(small, "get", "pods", old=old, timeout=60).returncode == 0, 60)
    finally:
        the_kube.cluster.kubectl("delete", "configmap", "stays", "-n", "shop")


# Aggregated APIs


@pytest.fixture(scope="module")
def broad(the_kube: KubeLab) -> Iterator[Installed]:
    with kube_weir(the_kube) as installed:
        yield installed


@pytest.fixture
def away(the_kube: KubeLab, broad: Installed) -> Iterator[Installed]:
    """An APIService whose server is none."""
    made = the_kube.cluster
    made.ask("POST", "/api/v1/namespaces/shop/services", BACKEND)
    made.ask("POST", "/apis/apiregistration.k8s.io/v1/apiservices", SERVICE)
    path = f"/apis/apiregistration.k8s.io/v1/apiservices/v1.{GROUP}"
    wait_until("it is known to be away", lambda: any(
        one["type"] == "Available" and one["status"] == "False"
        for one in made.ask("GET", path).get("status", {}).get("conditions", ())), 60)
    try:
        with overseen(the_kube, broad):
            yield broad
    finally:
        made.ask("DELETE", path)
        made.ask("DELETE", "/api/v1/namespaces/shop/services/away")


def curl(installed: Installed, made: KubeLab, path: str, *words: str) -> tuple[int, str]:
    """Status and body."""
    done = installed.crew("curl", "-sS", "--cacert", str(made.lab.home / ".kube/ca.pem"), "-w", "\n%{http_code}",
                          *words, made.cluster.url + path)
    assert done.returncode == 0, done.stderr
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def direct(made: KubeLab, path: str, *words: str) -> tuple[int, str]:
    done = made.control("curl", "-sSk", "-H", f"Authorization: Bearer {made.cluster.tokens[SERVICE_USER]}", "-w",
                        "\n%{http_code}", *words, made.cluster.url + path)
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


@pytest.mark.parametrize("path", [f"/apis/{GROUP}/v1", f"/apis/{GROUP}/v1/namespaces/shop/things"])
def test_an_api_whose_server_is_away_is_503_as_the_server_says_it(
    away: Installed, the_kube: KubeLab, path: str,
) -> None:
    found = curl(away, the_kube, path)
    assert found == direct(the_kube, path)
    assert found[0] == 503
    assert "weir" not in found[1]


@BOTH
def test_kubectl_goes_on_beside_an_api_that_is_away(away: Installed, the_kube: KubeLab, old: bool) -> None:
    """It says which one it could not ask, and shows the rest, as without Weir."""
    program = OLD_KUBECTL if old else KUBECTL
    done, native = kubectl(away, "api-resources", old=old), the_kube.control(program, "api-resources")
    assert (done.returncode, done.stderr) == (native.returncode, native.stderr)
    assert done.stdout == native.stdout
    assert GROUP in done.stderr
    assert "orders" in done.stdout
    assert kubectl(away, "get", "pod", "web", old=old).returncode == 0
    done, native = kubectl(away, "get", "things", old=old), the_kube.control(program, "get", "things")
    assert (done.returncode, done.stderr) == (native.returncode, native.stderr)


@pytest.mark.parametrize("path", ["/api", "/apis"])
def test_aggregated_discovery_is_as_the_server_has_it(away: Installed, the_kube: KubeLab, path: str) -> None:
    words = ("-H", f"Accept: {AGGREGATED}")
    found, native = curl(away, the_kube, path, *words), direct(the_kube, path, *words)
    assert found == native
    listed = json.loads(found[1])
    assert listed["kind"] == "APIGroupDiscoveryList"
    groups = {one["metadata"]["name"]: one["versions"] for one in listed["items"] if one["metadata"].get("name")}
    assert path == "/api" or (groups[GROUP][0]["freshness"], "shop.example.com" in groups) == ("Stale", True)
