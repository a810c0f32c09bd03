"""kubectl's own verbs through Weir, as people use them; what each of them asked is recorded as the server says it."""
from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from lab.kube import KUBECTL, KubeLab, kube_weir, overseen
from lab.weir import Inside, Installed

pytestmark = pytest.mark.lab

POLICY = """
@id("prod-in") permit (principal in Group::"data", action == Action::"connect", resource in Target::"prod");
@id("prod-read") permit (principal in Group::"data", action in Action::"k8s:read", resource in Target::"prod");
@id("prod-all") permit (principal in Group::"data", action, resource in Namespace::"prod/shop");
@id("prod-nodes") permit (principal in Group::"data", action in Action::"k8s:write", resource in Target::"prod")
when { resource.resource == "nodes" || resource.namespace == "default" };
@id("not-frozen")
forbid (principal, action in Action::"k8s:write", resource in Target::"prod") when { resource.name == "frozen" };
"""
MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tried"}, "data": {"a": "1"}}


@dataclass(frozen=True)
class Crew:
    """A crew's shell, with its kubectl."""

    inside: Inside

    def run(self, *words: str) -> tuple[int, str, str]:
        return self.inside.run_inside([KUBECTL, *words])

    def says(self, *words: str) -> str:
        """What it prints."""
        code, out, err = self.run(*words)
        assert code == 0, f"{words}: {out}{err}"
        return out

    def shell(self, script: str) -> str:
        code, out, err = self.inside.run_inside(["timeout", "28", "bash", "-ec", script.replace("kubectl", KUBECTL)])
        assert code == 0, f"{script}: {out}{err}"
        return out


@pytest.fixture(scope="module")
def broad(the_kube: KubeLab) -> Iterator[Installed]:
    with kube_weir(the_kube, POLICY) as installed:
        yield installed


@pytest.fixture(scope="module")
def shell(broad: Installed) -> Iterator[Crew]:
    with broad.inside() as inside:
        yield Crew(inside)


@pytest.fixture
def crew(broad: Installed, shell: Crew, the_kube: KubeLab) -> Iterator[Crew]:
    with overseen(the_kube, broad):
        yield shell


def test_writes(crew: Crew) -> None:
    crew.shell(f"""
        echo '{json.dumps(MAP)}' >tried.json; kubectl apply -f tried.json
        sed -i 's/"1"/"2"/' tried.json; kubectl diff -f tried.json >tried.diff || test $? = 1
        kubectl apply -f tried.json; kubectl apply --server-side --force-conflicts -f tried.json
        kubectl apply -f tried.json --dry-run=server
        kubectl label configmap tried x=y; kubectl annotate configmap tried p=q
        kubectl patch configmap tried -p '{{"data":{{"b":"strategic"}}}}'
        kubectl patch configmap tried --type merge -p '{{"data":{{"c":"merge"}}}}'
        kubectl patch configmap tried --type json -p '[{{"op":"add","path":"/data/d","value":"json"}}]'
        KUBE_EDITOR='sed -i s/merge/edited/' kubectl edit configmap tried
        kubectl get configmap tried -o json >now.json; sed -i s/edited/replaced/ now.json; kubectl replace -f now.json
        """)
    assert json.loads(crew.says("get", "configmap", "tried", "-o", "jsonpath={.data}")) == {
        "a": "2", "b": "strategic", "c": "replaced", "d": "json"}
    assert re.search(r"^\+ +a: ", crew.shell("cat tried.diff"), re.MULTILINE)
    crew.says("delete", "configmap", "tried")


def test_rollouts_and_scale(crew: Crew) -> None:
    crew.shell("""
        kubectl create deployment many --image=any --replicas=1; kubectl rollout status deployment/many
        kubectl scale deployment/many --replicas=2
        kubectl wait --for=jsonpath={.status.readyReplicas}=2 deployment/many --timeout=25s
        kubectl rollout restart deployment/many; kubectl rollout status deployment/many
        kubectl rollout history deployment/many; kubectl rollout undo deployment/many
        kubectl set image deployment/many any=other; kubectl autoscale deployment many --max=3
        kubectl expose deployment many --port=80; kubectl delete hpa/many service/many
        kubectl delete deployment many --cascade=foreground
        """)
    assert crew.says("get", "pods,replicasets", "-l", "app=many", "-o", "name") == ""


def test_what_reads(crew: Crew) -> None:
    assert "KIND:       Pod" in crew.says("explain", "pod.spec")
    assert re.search(r"^orders +ord +shop.example.com/v1 ", crew.says("api-resources"), re.MULTILINE)
    assert "shop.example.com/v1" in crew.says("api-versions")
    assert "Server Version: v1.34" in crew.says("version")
    assert json.loads(crew.says("auth", "whoami", "-o", "json"))["status"]["userInfo"]["username"] == "crewbot"
    assert crew.says("auth", "can-i", "create", "pods/exec") == "yes\n"
    assert "Name:" in crew.says("describe", "pod", "web")
    assert "web" in crew.says("get", "pods", "--all-namespaces")
    assert "web" in crew.says("get", "pods", "-n", "shop", "--chunk-size=1")
    assert "first" in crew.says("get", "ord")
    assert "/healthz" in crew.says("get", "--raw", "/")
    crew.says("cluster-info")
    crew.says("get", "events")


def test_a_pod_from_its_beginning_to_its_end(crew: Crew) -> None:
    crew.shell("""
        kubectl run shortly --image=any -- sh -c 'echo begun; sleep 600'
        kubectl wait --for=condition=Ready pod/shortly --timeout=20s
        kubectl logs shortly | grep begun; kubectl exec shortly -- true
        """)
    mirrored(crew, "debug -i shortly --image=any -c look --profile=general -- cat")
    crew.says("delete", "pod", "shortly", "--grace-period=0", "--force")


def test_attach(crew: Crew) -> None:
    mirrored(crew, "attach -i web")


def mirrored(crew: Crew, words: str) -> None:
    """A program that says again what it is told, and does not end."""
    crew.shell(f"""
        coproc kubectl {words}; echo told >&${{COPROC[1]}}
        until [ "$line" = told ]; do read -t 20 line <&${{COPROC[0]}}; done; kill $COPROC_PID
        """)


def test_a_pod_is_evicted_and_a_node_drained(crew: Crew) -> None:
    crew.shell("""
        kubectl create deployment goes --image=any; kubectl rollout status deployment/goes
        kubectl cordon node; kubectl drain node --pod-selector=app=goes --timeout=25s; kubectl uncordon node
        kubectl taint node node a=b:PreferNoSchedule; kubectl taint node node a-
        kubectl delete deployment goes
        """)


def test_a_created_token_is_not_shown(crew: Crew, broad: Installed) -> None:
    code, out, err = crew.run("create", "token", "crewbot")
    assert "eyJ" not in out + err
    assert code == 0


def test_a_proxy(crew: Crew) -> None:
    assert "PodList" in crew.shell("""
        coproc kubectl proxy --port=8765; read -t 20 line <&${COPROC[0]}
        curl -s http://127.0.0.1:8765/api/v1/namespaces/shop/pods; kill $COPROC_PID
        """)


@pytest.mark.parametrize("words", [
    ("apply", "--server-side", "-f", "frozen.json"), ("label", "configmap/frozen", "a=b"),
    ("delete", "configmap", "frozen"), ("patch", "configmap", "frozen", "-p", '{"data":{"x":"1"}}'),
    ("replace", "-f", "frozen.json")], ids=lambda one: str(one[0]))
def test_denied_writes(crew: Crew, the_kube: KubeLab, words: tuple[str, ...]) -> None:
    frozen = json.dumps(MAP).replace("tried", "frozen")
    (the_kube.lab.home / "frozen.json").write_text(frozen)
    the_kube.cluster.kubectl("apply", "-n", "shop", "-f", "-", input=frozen)
    since = the_kube.cluster.mark()
    code, _, err = crew.run(*words)
    assert code == 1
    assert "not-frozen" in err
    assert not [one for one in the_kube.cluster.audited("crewbot", since=since) if one.verb not in ("get", "list")]
