"""Clients as they are, through Weir: Python's, Helm, client-go with protobuf, curl; by a kubeconfig of Weir's own, and
as in a pod."""
from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.kube import KUBECTL, SHOUTING, TARGET, KubeLab, kube_weir, overseen, shouting
from lab.kubernetes import CLIENTGO, HELM
from lab.weir import Installed

pytestmark = pytest.mark.lab

CLIENTS = Path(__file__).resolve().parent.parent / "clients/kube"
PYTHON = Path(os.environ.get("WEIR_PREFIX", "/opt/weir")) / "clients/bin/python"
PROTOBUF = "application/vnd.kubernetes.protobuf"
POLICY = """
@id("prod-in") permit (principal in Group::"data", action == Action::"connect", resource in Target::"prod");
@id("prod-read") permit (principal in Group::"data", action in Action::"k8s:read", resource in Target::"prod");
@id("shop") permit (principal in Group::"data", action in Action::"k8s", resource in Namespace::"prod/shop");
@id("not-frozen")
forbid (principal, action in Action::"k8s:write", resource in Target::"prod") when { resource.name == "frozen" };
"""
HELM_SEES = """
@id("helm") permit (principal in Group::"data", action == Action::"unmask", resource in Label::"secret.helm");
"""


@pytest.fixture(scope="module")
def weir(the_kube: KubeLab) -> Iterator[Installed]:
    for name in ("chart", "using_kubernetes.py"):
        the_kube.lab.give(CLIENTS / name)
    with shouting(), kube_weir(the_kube, POLICY + HELM_SEES) as installed:
        yield installed


@pytest.fixture
def broad(weir: Installed, the_kube: KubeLab) -> Iterator[Installed]:
    with overseen(the_kube, weir):
        yield weir


def says(installed: Installed, *words: str | Path, told: str | None = None, **environment: str) -> str:
    done = installed.crew(*map(str, words), input=told, environment=environment, timeout=60)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def hidden(text: str, cluster_password: str) -> bool:
    return cluster_password not in text and base64.b64encode(cluster_password.encode()).decode() not in text


def test_python(broad: Installed, the_kube: KubeLab) -> None:
    assert json.loads(says(broad, PYTHON, the_kube.lab.home / "using_kubernetes.py")) == {
        "pods": ["web"], "secret": "Opaque", "exec": "err\nout\n", "shell": ["42\n", 3],
        "writes": [["ADDED", {"step": "1"}], ["MODIFIED", {"step": "2"}], ["DELETED", {"step": "2"}]],
        "dynamic": [["first", "Ada"]], "denied": [404, "Not Found"], "forward": "HELLO"}


def test_python_is_denied(broad: Installed) -> None:
    script = """
from kubernetes import client, config
config.load_kube_config()
try:
    client.CoreV1Api().patch_namespaced_config_map("frozen", "shop", {"data": {"a": "1"}})
except client.ApiException as error:
    print(error.status, error.reason, error.body)
"""
    assert "not-frozen" in says(broad, PYTHON, "-c", script)


def test_helm(broad: Installed) -> None:
    chart = "./chart"
    says(broad, HELM, "install", "one", chart)
    says(broad, HELM, "upgrade", "one", chart, "--set", "colour=blue")
    assert says(broad, KUBECTL, "get", "configmap", "one-settings", "-o", "jsonpath={.data.colour}") == "blue"
    says(broad, HELM, "rollback", "one", "1")
    assert [one["name"] for one in json.loads(says(broad, HELM, "list", "-o", "json"))] == ["one"]
    says(broad, HELM, "uninstall", "one")


def test_what_is_labelled_is_not_in_what_anybody_else_sees(broad: Installed, the_kube: KubeLab) -> None:
    assert hidden(says(broad, KUBECTL, "get", "secrets", "-o", "yaml"), the_kube.cluster.password)


@pytest.mark.parametrize("content", ["application/json", PROTOBUF])
def test_client_go(broad: Installed, the_kube: KubeLab, content: str) -> None:
    def clientgo(*words: str, told: str | None = None, **more: str) -> str:
        return says(broad, CLIENTGO, "-content-type", content, *words, told=told, KUBECONFIG=config, **more)

    config = str(the_kube.config)
    created = json.loads(clientgo("create", "configmap", "typed", "a=b"))
    assert created["data"] == {"a": "b"}
    assert json.loads(clientgo("update", "configmap", "typed", "a=c"))["data"] == {"a": "c"}
    assert json.loads(clientgo("get", "configmap", "typed"))["data"] == {"a": "c"}
    assert "web" in [one["metadata"]["name"] for one in json.loads(clientgo("list", "pod"))["items"]]
    for words in (("get", "secret", "db"), ("list", "secret"), ("watch", "secret", "1")):
        assert hidden(clientgo(*words), the_kube.cluster.password)
    clientgo("delete", "configmap", "typed")
    clientgo("inform", "secret", "1", KUBE_FEATURE_WatchListClient="true")
    assert clientgo("exec", "web", "tr", "a-z", "A-Z", told="loud") == "LOUD"
    assert clientgo("forward", "web", str(SHOUTING), told="ported") == "PORTED"
    denied = broad.crew(str(CLIENTGO), "-content-type", content, "delete", "configmap", "frozen",
                        environment={"KUBECONFIG": config})
    assert "not-frozen" in denied.stderr


def test_curl(broad: Installed, the_kube: KubeLab) -> None:
    url = f"{the_kube.cluster.url}/api/v1/namespaces/shop"
    ca = ("--cacert", str(the_kube.lab.home / ".kube/ca.pem"), "-sS")
    assert json.loads(says(broad, "curl", *ca, f"{url}/pods"))["kind"] == "PodList"
    assert json.loads(says(broad, "curl", *ca, "--compressed", f"{url}/pods?limit=1"))["kind"] == "PodList"
    asked = ("-X", "DELETE", f"{url}/configmaps/frozen", "-w", "%{http_code}")
    assert '"code": 403' in (said := says(broad, "curl", *ca, *asked)) or '"code":403' in said
    assert "not-frozen" in said
    assert json.loads(says(broad, "curl", *ca, "-H", "Impersonate-User: admin", f"{url}/pods"))["code"] == 403


def test_a_kubeconfig_of_weirs(broad: Installed, the_kube: KubeLab) -> None:
    made = broad.weir("kubeconfig", TARGET, "--namespace", "shop")
    assert made.returncode == 0, made.stderr
    assert the_kube.cluster.tokens["crewbot"] not in made.stdout
    path = the_kube.lab.home / "made"
    path.write_text(made.stdout)
    path.chmod(0o644)
    assert "pod/web" in says(broad, KUBECTL, "--kubeconfig", path, "get", "pods", "-o", "name").split()


def test_as_in_a_pod(broad: Installed, the_kube: KubeLab) -> None:
    """client-go's and Python's own ways to be in a cluster; kubectl's, which is client-go's."""
    inside = {"KUBERNETES_SERVICE_HOST": the_kube.cluster.host.ipv4, "KUBERNETES_SERVICE_PORT": "6443",
              "KUBECONFIG": "/nowhere"}
    script = """
from kubernetes import client, config
config.load_incluster_config()
print([one.metadata.name for one in client.CoreV1Api().list_namespaced_pod("shop").items])
"""
    assert "web" in says(broad, PYTHON, "-c", script, **inside)
    assert "pod/web" in says(broad, KUBECTL, "-n", "shop", "get", "pods", "-o", "name", **inside).split()


def test_helm_without_the_right_to_see(the_kube: KubeLab, weir: Installed) -> None:
    """It is refused, and nothing is written as its mask."""
    says(weir, HELM, "install", "kept", "./chart")
    policy = weir.config.parent / "policies/shop.cedar"
    text = policy.read_text()
    policy.write_text(text.replace(HELM_SEES, ""))
    assert weir.weir("reload").returncode == 0
    try:
        release = the_kube.cluster.kubectl("get", "secret", "sh.helm.release.v1.kept.v1", "-n", "shop", "-o", "json")
        done = weir.crew(str(HELM), "upgrade", "kept", "./chart", "--set", "colour=red")
        assert done.returncode != 0
        after = the_kube.cluster.kubectl("get", "secret", "sh.helm.release.v1.kept.v1", "-n", "shop", "-o", "json")
        assert json.loads(after)["data"] == json.loads(release)["data"]
    finally:
        policy.write_text(text)
        assert weir.weir("reload").returncode == 0
    says(weir, HELM, "uninstall", "kept")
