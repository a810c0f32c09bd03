"""The lab's Kubernetes is a real one: unmodified clients work against it without Weir, and its audit log names what
they asked.  What the tests of Weir say of clusters rests on this."""
from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from lab import hosts
from lab.hosts import KUBE
from lab.kube import SHOUTING as PORT
from lab.kube import KubeLab, shouting
from lab.kubernetes import (
    CLIENTGO,
    DEBIAN_KUBECTL,
    HELM,
    KUBECTL,
    MISSING,
    NAME,
    REQUESTINFO,
    Cluster,
    cluster,
    kubeconfig,
)
from lab.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.skipif(not KUBECTL.exists(), reason=MISSING)]

CLIENTS = Path(__file__).resolve().parent.parent / "clients"
PYTHON = Path(os.environ.get("WEIR_PREFIX", "/opt/weir")) / "clients/bin/python"
PROTOBUF = "application/vnd.kubernetes.protobuf"
BOTH = pytest.mark.parametrize("kubectl", [KUBECTL, DEBIAN_KUBECTL], ids=["of today", "1.20"])


@pytest.fixture(scope="module")
def kube(the_kube: KubeLab) -> Iterator[Cluster]:
    """With a server behind port 7777 of its pods, which says again what it was told in upper case."""
    with shouting():
        yield the_kube.cluster


@contextmanager
def running(kube: Cluster, *command: str | Path, user: str = "admin") -> Iterator[subprocess.Popen[str]]:
    """A client that stays, on the cluster's host."""
    process = subprocess.Popen(
        kube.host.argv([str(word) for word in command]), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, env=kube.environment(user), cwd=kube.place)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str], expected: str) -> str:
    """The next one with that in it; what came before is told where there is none."""
    seen = []
    out: IO[str] = process.stdout  # type: ignore[assignment]
    while read := out.readline():
        seen.append(read)
        if expected in read:
            return read
    raise AssertionError(f"no {expected!r} in {seen}")


def tell(process: subprocess.Popen[str], word: str) -> None:
    """It says again what it is told."""
    told: IO[str] = process.stdin  # type: ignore[assignment]
    told.write(word + "\n")
    told.flush()
    line(process, word)


def audited(kube: Cluster, since: int, user: str = "admin") -> list[tuple[str, str, str, int]]:
    """(verb, resource, name, status) of each request about an object, in order."""
    return [(one.verb, one.resource, one.name, one.status) for one in kube.audited(user, since=since) if one.resource]


@BOTH
def test_kubectl_writes_and_reads(kube: Cluster, kubectl: Path) -> None:
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tried"}, "data": {"a": "1"}}
    since = kube.mark()
    for verb, value in (("create", "1"), ("apply", "2")):
        manifest["data"] = {"a": value}
        kube.run([kubectl, verb, "--save-config", "-f", "-"] if verb == "create" else [kubectl, verb, "-f", "-"],
                 input=json.dumps(manifest))
    assert kube.run([kubectl, "get", "configmap", "tried", "-o", "jsonpath={.data.a}"]).stdout == "2"
    kube.run([kubectl, "label", "configmap", "tried", "x=y"])
    kube.run([kubectl, "delete", "configmap", "tried"])
    about = [one for one in audited(kube, since) if one[2] == "tried"]
    assert [verb for verb, *_ in about if verb != "get"][:4] == ["create", "patch", "patch", "delete"]
    assert {resource for _, resource, *_ in about} == {"configmaps"}
    assert {status for verb, *_, status in about if verb != "get"} == {200, 201}


@BOTH
def test_lists_of_every_kind(kube: Cluster, kubectl: Path) -> None:
    since = kube.mark()
    said = kube.run([kubectl, "get", "pods,deployments,services,orders.shop.example.com,nodes"]).stdout
    assert re.search(r"^pod/web +1/1 +Running", said, re.MULTILINE)
    assert "deployment.apps/api" in said
    assert re.search(r"^order.shop.example.com/first +Ada", said, re.MULTILINE)
    listed = {one.resource for one in kube.audited("admin", since=since) if one.verb == "list"}
    assert listed == {"pods", "deployments", "services", "orders", "nodes"}


@pytest.mark.parametrize(("kubectl", "verb"), [(KUBECTL, "get"), (DEBIAN_KUBECTL, "create")], ids=["WebSocket", "SPDY"])
def test_exec(kube: Cluster, kubectl: Path, verb: str) -> None:
    """A WebSocket begins with GET; SPDY's kubectl asks by POST."""
    since = kube.mark()
    done = kube.run([kubectl, "exec", "-i", "web", "--", "sh", "-c", "cat; echo err >&2; exit 3"], input="told",
                    check=False)
    assert (done.returncode, done.stdout) == (3, "told")
    assert done.stderr.startswith("err\n")
    event, = [one for one in kube.audited("admin", since=since) if one.resource == "pods/exec"]
    assert (event.verb, event.name, event.status) == (verb, "web", 101)
    assert "command=sh&command=-c&command=cat%3B+echo+err" in event.uri


@BOTH
def test_exec_in_a_terminal(kube: Cluster, kubectl: Path) -> None:
    # The size follows the start, as with every kubelet.
    waits = 'while [ "$(stty size)" = "0 0" ]; do :; done'
    inside = f"{kubectl} exec -it web -- sh -c '{waits}; stty size; test -t 0 && echo terminal; exit 5'"
    done = kube.run(["script", "-qec", f"stty rows 33 cols 101; {inside}", "/dev/null"], check=False)
    assert done.returncode == 5
    assert "terminal" in done.stdout
    assert "33 101" in done.stdout


@BOTH
def test_cp_both_ways(kube: Cluster, kubectl: Path) -> None:
    data = os.urandom(300_000)
    (kube.place / "sent").write_bytes(data)
    since = kube.mark()
    kube.run([kubectl, "cp", "sent", "shop/web:/tmp/taken"])
    assert (kube.container() / "tmp/taken").read_bytes() == data
    kube.run([kubectl, "cp", "shop/web:/tmp/taken", "back"])
    assert (kube.place / "back").read_bytes() == data
    assert [one.resource for one in kube.audited("admin", since=since)].count("pods/exec") >= 2


@BOTH
def test_port_forward(kube: Cluster, kubectl: Path) -> None:
    since = kube.mark()
    with running(kube, kubectl, "port-forward", "pod/web", f":{PORT}") as process:
        local = int(re.search(r"127\.0\.0\.1:(\d+)", line(process, "Forwarding from"))[1])  # type: ignore[index]
        for _ in range(2):            # two connections in one stream's connection
            with kube.host.entered(), socket.create_connection(("127.0.0.1", local)) as connection:
                connection.sendall(b"hello")
                assert connection.recv(100) == b"HELLO"
    started = [one.resource for one in kube.audited("admin", since=since, stage="")]
    assert "pods/portforward" in started


@BOTH
def test_logs_follow(kube: Cluster, kubectl: Path) -> None:
    kube.say("before")
    with running(kube, kubectl, "logs", "-f", "web", "--tail=1") as process:
        line(process, "before")
        kube.say("after")
        line(process, "after")
    assert "after" in kube.kubectl("logs", "web", "--tail=1", "--timestamps")


@BOTH
def test_attach(kube: Cluster, kubectl: Path) -> None:
    with running(kube, kubectl, "attach", "-i", "web") as process:
        tell(process, "typed")
    assert "typed" in kube.kubectl("logs", "web", "--tail=2")


def test_pods_live_and_end(kube: Cluster) -> None:
    said = kube.run([KUBECTL, "run", "once", "--image=any", "-i", "--rm", "--restart=Never", "--", "cat"],
                    input="fed\n")
    assert said.stdout.startswith("fed\n")
    kube.kubectl("run", "fails", "--image=any", "--restart=Never", "--", "sh", "-c", "echo said; exit 4")
    kube.kubectl("wait", "--for=jsonpath={.status.phase}=Failed", "pod/fails", "--timeout=60s")
    assert kube.kubectl("logs", "fails") == "said\n"
    assert kube.kubectl(
        "get", "pod", "fails", "-o", "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}") == "4"
    kube.kubectl("delete", "pod", "fails")
    with pytest.raises(RuntimeError, match="NotFound"):
        kube.kubectl("get", "pod", "fails")


def test_controllers(kube: Cluster) -> None:
    kube.kubectl("create", "deployment", "many", "--image=any", "--replicas=2")
    for words in (("status",), ("restart",), ("status",), ("undo",), ("status",)):
        kube.kubectl("rollout", words[0], "deployment/many")
    assert kube.kubectl("get", "deployment", "many", "-o", "jsonpath={.status.readyReplicas}") == "2"
    kube.kubectl("delete", "deployment", "many", "--cascade=foreground")
    assert kube.kubectl("get", "pods,replicasets", "-l", "app=many", "-o", "name") == ""
    kube.kubectl("create", "job", "once-only", "--image=any", "--", "echo", "worked")
    kube.kubectl("wait", "--for=condition=Complete", "job/once-only", "--timeout=60s")
    assert kube.kubectl("logs", "job/once-only") == "worked\n"
    kube.kubectl("delete", "job", "once-only")
    kube.kubectl("create", "namespace", "short")
    kube.kubectl("delete", "namespace", "short", "--timeout=60s")


def test_debug(kube: Cluster) -> None:
    kube.kubectl("run", "ill", "--image=any", "--", "sleep", "infinity")
    kube.wait_for_pod("ill")
    command = ("debug", "-i", "ill", "--image=any", "-c", "look", "--profile=general", "--", "cat")
    with running(kube, KUBECTL, *command) as process:
        tell(process, "looked")
    kube.kubectl("delete", "pod", "ill", "--grace-period=0", "--force")


def test_it_says_what_the_python_client_did(kube: Cluster) -> None:
    since = kube.mark()
    done = kube.run([PYTHON, CLIENTS / "kube/using_kubernetes.py"], user="crewbot")
    assert json.loads(done.stdout) == {
        "pods": ["web"], "secret": "Opaque", "exec": "err\nout\n", "shell": ["42\n", 3],
        "writes": [["ADDED", {"step": "1"}], ["MODIFIED", {"step": "2"}], ["DELETED", {"step": "2"}]],
        "dynamic": [["first", "Ada"]], "denied": [404, "Not Found"], "forward": "HELLO"}
    about = audited(kube, since, "crewbot")
    for request in [("list", "pods", "", 200), ("get", "secrets", "db", 200), ("get", "secrets", "absent", 404),
                    ("create", "configmaps", "made-by-python", 201), ("patch", "configmaps", "made-by-python", 200),
                    ("delete", "configmaps", "made-by-python", 200), ("get", "pods/exec", "web", 101),
                    ("get", "pods/portforward", "web", 101), ("list", "orders", "", 200)]:
        assert request in about


def test_helm(kube: Cluster) -> None:
    chart = CLIENTS / "kube/chart"
    since = kube.mark()
    kube.run([HELM, "install", "one", chart])
    kube.run([HELM, "upgrade", "one", chart, "--set", "colour=blue"])
    assert kube.kubectl("get", "configmap", "one-settings", "-o", "jsonpath={.data.colour}") == "blue"
    kube.run([HELM, "rollback", "one", "1"])
    assert [one["revision"] for one in json.loads(kube.run([HELM, "history", "one", "-o", "json"]).stdout)] == [1, 2, 3]
    kube.run([HELM, "uninstall", "one"])
    about = audited(kube, since)
    assert ("create", "secrets", "sh.helm.release.v1.one.v1", 201) in about
    assert ("delete", "configmaps", "one-settings", 200) in about


@pytest.mark.parametrize("content", ["application/json", PROTOBUF])
def test_client_go(kube: Cluster, content: str) -> None:
    def clientgo(*words: str, told: str | None = None) -> str:
        return kube.run([CLIENTGO, "-content-type", content, *words], user="crewbot", input=told).stdout

    since = kube.mark()
    assert json.loads(clientgo("create", "secret", "typed", "a=b"))["data"] == {"a": "Yg=="}
    assert json.loads(clientgo("update", "secret", "typed", "a=c"))["data"] == {"a": "Yw=="}
    assert json.loads(clientgo("get", "secret", "typed"))["data"] == {"a": "Yw=="}
    assert "web" in [one["metadata"]["name"] for one in json.loads(clientgo("list", "pod"))["items"]]
    assert json.loads(clientgo("watch", "secret", "1"))["type"] == "ADDED"
    clientgo("delete", "secret", "typed")
    assert clientgo("exec", "web", "tr", "a-z", "A-Z", told="loud") == "LOUD"
    assert clientgo("forward", "web", str(PORT), told="ported") == "PORTED"
    about = audited(kube, since, "crewbot")
    assert [verb for verb, _, name, _ in about if name == "typed"] == ["create", "update", "get", "delete"]
    assert ("get", "pods/exec", "web", 101) in about
    created = next(one for one in kube.audited("crewbot", since=since) if one.verb == "create")
    assert created.raw["requestObject"]["data"] == {"a": "Yg=="}, "the log has bodies, whatever they were written in"


def test_watch_list(kube: Cluster) -> None:
    """Debian's etcd would not do: the server needs to ask it how far a watch is."""
    since = kube.mark()
    kube.run([CLIENTGO, "inform", "secret", "1"], environment={"KUBE_FEATURE_WatchListClient": "true"})
    asked = [one for one in kube.audited("admin", since=since, stage="") if "sendInitialEvents=true" in one.uri]
    assert {(one.verb, one.status) for one in asked} == {("watch", 200)}


@pytest.mark.parametrize("by", ["token", "certificate", "account"])
def test_the_ways_to_be_somebody(kube: Cluster, by: str) -> None:
    config = str(kube.kubeconfig("crewbot", by=by))
    who = json.loads(kube.kubectl("--kubeconfig", config, "auth", "whoami", "-o", "json"))["status"]["userInfo"]
    assert who["username"] == ("system:serviceaccount:shop:crewbot" if by == "account" else "crewbot")
    assert kube.kubectl("--kubeconfig", config, "auth", "can-i", "create", "pods/exec") == "yes\n"


def test_who_may_what(kube: Cluster) -> None:
    assert "web" in kube.kubectl("get", "pods", user="viewer")
    for words in (("get", "secret", "db"), ("get", "pods", "--as=admin"), ("delete", "pod", "web")):
        with pytest.raises(RuntimeError, match="Forbidden"):
            kube.kubectl(*words, user="viewer")
    since = kube.mark()
    kube.kubectl("get", "pods", "--as=crewbot")
    event, = [one for one in kube.audited("admin", since=since) if one.resource == "pods"]
    assert event.raw["impersonatedUser"]["username"] == "crewbot"


def test_by_name_from_another_host(kube: Cluster, the_lab: Lab) -> None:
    """As crews ask: another user, another host, the cluster's name."""
    file = the_lab.scratch / "kubeconfig"
    file.write_text(kubeconfig(f"https://{NAME}:6443", the_lab.give(kube.ca, "kube-ca.pem"),
                               {"token": kube.tokens["viewer"]}))
    done = the_lab.control([str(KUBECTL), "--kubeconfig", str(the_lab.give(file)), "get", "pods", "-o", "name"])
    assert "pod/web" in done.stdout.split(), done.stderr


def test_a_node_is_behind_proxies(kube: Cluster) -> None:
    kube.say("by the node")
    assert "by the node" in kube.kubectl("get", "--raw", "/api/v1/nodes/node/proxy/containerLogs/shop/web/app")


def test_how_requests_are_read(kube: Cluster) -> None:
    """The server's own function, and Go's own server for bytes."""
    raw = b"GET /api/v1/pods HTTP/1.1\r\nHost: a\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
    asked: Sequence[dict[str, str]] = [
        {"method": "DELETE", "url": "/api/v1/namespaces/shop/pods?labelSelector=a%3Db"},
        {"method": "GET", "url": "/%zz"}, {"raw": base64.b64encode(raw).decode()}]
    answers = kube.run([REQUESTINFO], input="".join(json.dumps(one) + "\n" for one in asked)).stdout.splitlines()
    collection, refused, both = map(json.loads, answers)
    assert (collection["info"]["Verb"], collection["info"]["LabelSelector"]) == ("deletecollection", "a=b")
    assert "invalid URL escape" in refused["error"]
    assert [one["info"]["Verb"] for one in both["served"]] == ["list"]
    assert both["statuses"] == [200, 400]


def test_it_ends_all_that_it_began(kube: Cluster) -> None:
    """One beside the other, without what is seeded; what runs in its containers too."""
    other = hosts.OTHER
    before, beside = set(hosts.processes(KUBE.netns)), hosts.processes(other.netns)
    place = kube.place.parent / "second"
    place.mkdir()
    with cluster(place, other, seed=False) as second:
        second.kubectl("run", "stays", "-n", "default", "--image=any", "--", "sleep", "infinity")
        second.wait_for_pod("stays", "default")
        assert len(hosts.processes(other.netns)) >= len(beside) + 4
    assert hosts.processes(other.netns) == beside
    assert set(hosts.processes(KUBE.netns)) == before
