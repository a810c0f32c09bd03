"""Aggregated APIs: one whose own server is away is as without Weir, and so is aggregated discovery."""
from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from lab.hosts import wait_until
from lab.kube import KUBECTL, OLD_KUBECTL, SERVICE_USER, KubeLab, kube_weir, kubectl, overseen
from lab.weir import Installed

pytestmark = pytest.mark.lab

BOTH = pytest.mark.parametrize("old", [False, True], ids=["of today", "1.20"])
GROUP = "away.example.com"
SERVICE = {
    "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": f"v1.{GROUP}"},
    "spec": {"group": GROUP, "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 10,
             "service": {"name": "away", "namespace": "shop"}, "insecureSkipTLSVerify": True}}
BACKEND = {
    "apiVersion": "v1", "kind": "Service", "metadata": {"name": "away", "namespace": "shop"},
    "spec": {"ports": [{"port": 443}], "selector": {"nobody": "has"}}}
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


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
        yield broad
    finally:
        made.ask("DELETE", path)
        made.ask("DELETE", "/api/v1/namespaces/shop/services/away")


def curl(installed: Installed, made: KubeLab, path: str, *words: str) -> tuple[int, str]:
    """Status and body."""
    with overseen(made, installed):
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
    with overseen(the_kube, away):
        done = kubectl(away, "api-resources", old=old)
    native = the_kube.control(program, "api-resources")
    assert (done.returncode, done.stderr) == (native.returncode, native.stderr)
    assert done.stdout == native.stdout
    assert (GROUP in done.stderr) == old       # of today it takes what aggregated discovery has, without a word
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
