"""Kubeconfigs as workloads see them: what stays, what is replaced, and what a client reads of it."""
from __future__ import annotations

import base64
import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from agent.cli import weir
from agent.credential.client_authority import client_authority, issue
from agent.kubernetes.clusters import NO_CLUSTERS, ClusterTrust, kubeconfig_binds, named
from agent.kubernetes.kubeconfig import (
    PLACEHOLDER,
    Cluster,
    cover,
    parse_clusters,
    plain,
    render_clusters,
    render_kubeconfig,
)

KUBE = Path(os.environ.get("WEIR_PREFIX", "/opt/weir")) / "kube"
PEM = "-----BEGIN CERTIFICATE-----\nweir\n-----END CERTIFICATE-----\n"
CLUSTER = Cluster("cluster", ("cluster.lab.example", "10.96.0.1", "2001:db8::1"), 6443, PEM)
AUTHORITY = base64.b64encode(PEM.encode()).decode()
# As `kubectl config set-cluster`, `set-credentials` and `set-context` write it.
WRITTEN = """\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: T1dO
    server: https://cluster.lab.example:6443
  name: lab
- cluster:
    certificate-authority: /home/ann/other.crt
    server: https://other.example:6443
  name: other
contexts:
- context:
    cluster: lab
    namespace: crews
    user: ann
  name: ann@lab
- context:
    cluster: other
    user: bob
  name: bob@other
current-context: ann@lab
kind: Config
preferences: {}
users:
- name: ann
  user:
    client-certificate-data: SECRET1
    client-key-data: SECRET2
- name: bob
  user:
    token: not-of-this-cluster
"""


def covered(content: str | bytes, *clusters: Cluster) -> Any:
    found = cover(content.encode() if isinstance(content, str) else content, clusters or (CLUSTER,))
    return None if found is None else yaml.safe_load(found)


def with_user(user: Any, server: str = "https://cluster.lab.example:6443", **cluster: Any) -> str:
    return json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "k", "cluster": {"server": server, **cluster}}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}], "users": [{"name": "u", "user": user}]})


def test_one_that_kubectl_wrote() -> None:
    found, before = covered(WRITTEN), yaml.safe_load(WRITTEN)
    assert found["clusters"][0]["cluster"] == {
        "server": "https://cluster.lab.example:6443", "certificate-authority-data": AUTHORITY}
    assert found["users"][0] == {"name": "ann", "user": {"token": PLACEHOLDER}}
    assert (found["clusters"][1], found["users"][1]) == (before["clusters"][1], before["users"][1])
    for same in ("contexts", "current-context", "apiVersion", "kind", "preferences"):
        assert found[same] == before[same]


@pytest.mark.parametrize("user", [
    {"token": "SECRET"}, {"tokenFile": "/SECRET"}, {"username": "u", "password": "SECRET"},
    {"client-key": "/SECRET", "client-certificate": "/SECRET"},
    {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "SECRET", "args": ["SECRET"],
              "env": [{"name": "X", "value": "SECRET"}]}},
    {"auth-provider": {"name": "oidc", "config": {"refresh-token": "SECRET", "client-secret": "SECRET"}}},
    {"Token": "SECRET", "unheard-of": "SECRET"}, {}, None,
])
def test_nothing_worth_stealing_is_left(user: Any) -> None:
    shown = cover(with_user(user).encode(), (CLUSTER,))
    assert shown is not None
    assert b"SECRET" not in shown
    assert yaml.safe_load(shown)["users"] == [{"name": "u", "user": {"token": PLACEHOLDER}}]


def test_who_it_asks_to_be_is_no_secret() -> None:
    found = covered(with_user({"token": "SECRET", "as": "root", "as-groups": ["system:masters"]}))
    assert found["users"][0]["user"] == {"token": PLACEHOLDER, "as": "root", "as-groups": ["system:masters"]}


def test_weir_is_verified_and_spoken_to_directly() -> None:
    found = covered(with_user({}, **{
        "insecure-skip-tls-verify": True, "tls-server-name": "other", "proxy-url": "http://proxy", "extensions": []}))
    assert found["clusters"][0]["cluster"] == {
        "server": "https://cluster.lab.example:6443", "extensions": [], "certificate-authority-data": AUTHORITY}


@pytest.mark.parametrize("server", [
    "https://cluster.lab.example:6443", "https://CLUSTER.lab.example.:6443/k8s/c-1", "cluster.lab.example:6443",
    "https://10.96.0.1:6443", "https://[2001:db8::1]:6443", "https://[2001:DB8:0::1]:6443/",
])
def test_servers_that_are_the_cluster(server: str) -> None:
    assert covered(with_user({"token": "SECRET"}, server))["users"][0]["user"] == {"token": PLACEHOLDER}


@pytest.mark.parametrize("server", [
    "https://cluster.lab.example", "https://cluster.lab.example:443", "https://evil.cluster.lab.example:6443",
    "https://10.96.0.2:6443", "https://x:y", "https://[", "", "https://cluster.lab.example:6443@other",
])
def test_servers_that_are_another(server: str) -> None:
    assert covered(with_user({"token": "t"}, server)) is None


def test_the_usual_port() -> None:
    there = Cluster("c", ("10.96.0.1",), 443, PEM)
    assert covered(with_user({"token": "SECRET"}, "https://10.96.0.1"), there)["users"][0]["user"] == {
        "token": PLACEHOLDER}


def test_users_of_whom_this_file_does_not_say_what_they_are_for() -> None:
    """$KUBECONFIG may name the cluster in another file."""
    alone = {"users": [{"name": "u", "user": {"token": "SECRET"}}]}
    assert covered(json.dumps(alone))["users"] == [{"name": "u", "user": {"token": PLACEHOLDER}}]
    elsewhere = {**alone, "contexts": [{"name": "c", "context": {"cluster": "elsewhere", "user": "u"}}]}
    assert covered(json.dumps(elsewhere))["users"] == [{"name": "u", "user": {"token": PLACEHOLDER}}]
    both = yaml.safe_load(WRITTEN)
    both["contexts"].append({"name": "bob@lab", "context": {"cluster": "lab", "user": "bob"}})
    assert covered(json.dumps(both))["users"][1] == {"name": "bob", "user": {"token": PLACEHOLDER}}


def test_files_of_roots_get_weirs() -> None:
    own = b"# ours\n-----BEGIN CERTIFICATE-----\nown\n-----END CERTIFICATE-----"
    assert cover(own, (CLUSTER,)) == own + b"\n" + PEM.encode()


@pytest.mark.parametrize("content", [
    "", "\n", "{}", "apiVersion: v1\nkind: Config\n", "---\n---\n", "clusters: null\nusers: []\n",
])
def test_nothing_in_it(content: str) -> None:
    assert covered(content) is None


@pytest.mark.parametrize("content", [
    b"\xff\xfe", "users: []".encode("utf-16"), b"a: b: c", b"- a\n", b"text", b"[" * 5000, b"{" * 5000,
    b"clusters: {}\nusers: 4\n", b"users: [4]\n",
    b"users: [{user: {token: SECRET}}]\n", b"users: [{name: u, user: [SECRET]}]\n", b"a: !!python/name:os.system x\n",
    b"a: &a {x: 1}\nb: {<<: *a}\n", b"a: *b\n", b"\t{", b'{"users": ', b"\x00", b"? [a]\n: b\n? {a: b}\n: c\n",
])
def test_what_cannot_be_read_is_not_shown(content: bytes) -> None:
    shown = cover(content, (CLUSTER,))
    assert shown is not None
    assert shown.startswith(b"# Weir does not show this file: ")
    assert b"SECRET" not in shown
    assert yaml.safe_load(shown) == {"apiVersion": "v1", "kind": "Config"}


def test_one_that_is_too_long_is_not_shown() -> None:
    assert b"too long" in (cover(None, (CLUSTER,)) or b"")


def test_json_and_what_only_looks_like_it() -> None:
    tabbed = with_user({"token": "SECRET"}).replace(", ", ",\n\t")
    for content in (tabbed, "{users: [{name: u, user: {token: SECRET}}]}"):
        assert covered(content)["users"] == [{"name": "u", "user": {"token": PLACEHOLDER}}]


def test_aliases_stay_as_short_as_they_were() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    shown = cover("\n".join([*lines, "users: [{name: u, user: {token: SECRET}}]"]).encode(), (CLUSTER,))
    assert shown is not None
    assert len(shown) < 10_000
    assert b"SECRET" not in shown


def test_texts_that_yaml_would_take_for_something_else() -> None:
    found = covered(WRITTEN.replace("ann@lab", "'2026-01-01'").replace("namespace: crews", "namespace: 0755").replace(
        "user: ann", "user: 1:30").replace("name: ann\n", "name: 1:30\n"))
    assert (found["current-context"], found["contexts"][0]["context"]["namespace"], found["users"][0]["name"]) == (
        "2026-01-01", "0755", "1:30")
    assert found["users"][0]["user"] == {"token": PLACEHOLDER}


def test_whatever_comes_nothing_but_an_answer_goes() -> None:
    draw = random.Random(7)
    for _ in range(400):
        content = bytearray(WRITTEN.encode())
        for _ in range(draw.randrange(1, 6)):
            place = draw.randrange(len(content))
            many = draw.randrange(3)
            content[place:place + many] = bytes(draw.choices(b":-[]{}&*!\n\t '\"#,x\x00\xff", k=draw.randrange(3)))
        shown = cover(bytes(content), (CLUSTER,))
        assert shown is None or yaml.safe_load(shown)
    for cut in range(len(WRITTEN)):
        cover(WRITTEN[:cut].encode(), (CLUSTER,))


def test_hosts() -> None:
    assert [plain(one) for one in ("A.b.", "[::1]", "0:0::1", "fe80::1%eth0", "010.0.0.1")] == [
        "a.b", "::1", "::1", "fe80::1", "010.0.0.1"]
    assert parse_clusters(render_clusters((CLUSTER,))) == (CLUSTER,)


# weir kubeconfig


def test_one_for_who_has_none() -> None:
    made = yaml.safe_load(render_kubeconfig(CLUSTER, namespace="crews"))
    assert made["clusters"] == [{"name": "cluster", "cluster": {
        "server": "https://cluster.lab.example:6443", "certificate-authority-data": AUTHORITY}}]
    assert (made["current-context"], made["contexts"][0]["context"]) == (
        "cluster", {"cluster": "cluster", "user": "weir", "namespace": "crews"})
    assert made["users"] == [{"name": "weir", "user": {"token": PLACEHOLDER}}]
    six = Cluster("six", ("2001:db8::1",), 443, PEM)
    assert '"server": "https://[2001:db8::1]:443"\n' in render_kubeconfig(six, "ctx")
    assert covered(render_kubeconfig(CLUSTER))["users"] == made["users"]


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "run" / "trust").mkdir(parents=True)
    (tmp_path / "run" / "trust" / "clusters.json").write_bytes(render_clusters((CLUSTER,)))
    path = tmp_path / "weir.toml"
    path.write_text(f'[runtime]\nrun = "{tmp_path}/run"\n')
    return str(path)


def test_the_command(file: str, tmp_path: Path) -> None:
    run = CliRunner()
    done = run.invoke(weir, ["--config", file, "kubeconfig", "cluster", "--name", "ctx"])
    assert (done.exit_code, yaml.safe_load(done.stdout)["current-context"]) == (0, "ctx")
    made = tmp_path / "made.yaml"
    assert run.invoke(weir, ["--config", file, "kubeconfig", "cluster", "-o", str(made)]).exit_code == 0
    assert made.stat().st_mode & 0o777 == 0o600
    assert made.read_text() == render_kubeconfig(CLUSTER)
    again = run.invoke(weir, ["--config", file, "kubeconfig", "cluster", "-o", str(made)])
    assert (again.exit_code, "is there already" in again.stderr) == (1, True)


def test_what_it_says_where_there_is_none(file: str, tmp_path: Path) -> None:
    run = CliRunner()
    done = run.invoke(weir, ["--config", file, "kubeconfig", "clutser"])
    assert (done.exit_code, "there is no cluster 'clutser'; there is: cluster" in done.stderr) == (1, True)
    (tmp_path / "run" / "trust" / "clusters.json").unlink()
    assert "has not run since" in run.invoke(weir, ["--config", file, "kubeconfig", "cluster"]).stderr


# kubectl itself


KUBECTLS = [path for path in (KUBE / "bin/kubectl", KUBE / "debian/usr/bin/kubectl") if path.exists()]


def kubectl(program: Path, file: Path, *words: str) -> str:
    return subprocess.run([program, f"--kubeconfig={file}", *words], check=True, capture_output=True, text=True,
                          env={"HOME": str(file.parent)}, timeout=60).stdout


@pytest.mark.skipif(not KUBECTLS, reason="no kubectl: ./bootstrap test installs it")
@pytest.mark.parametrize("program", KUBECTLS, ids=lambda path: "old" if "debian" in str(path) else "new")
def test_what_kubectl_writes_and_reads(program: Path, tmp_path: Path) -> None:
    file, server = tmp_path / "config", "https://cluster.lab.example:6443"
    certificate, key, _ = issue(client_authority(tmp_path, "cluster"), "ann")
    (tmp_path / "c").write_text(certificate)
    (tmp_path / "k").write_text(key)
    version = "client.authentication.k8s.io/v1beta1"
    for words in (
            f"set-cluster lab --server={server} --insecure-skip-tls-verify=true",
            "set-cluster other --server=https://other:6443",
            f"set-credentials ann --embed-certs=true --client-key={tmp_path}/k --client-certificate={tmp_path}/c",
            f"set-credentials 123 --exec-command=SECRET --exec-api-version={version}",
            "set-credentials bob --token=kept", "set-credentials eve --username=e --password=SECRET",
            "set-context 1e3 --cluster=lab --user=ann --namespace=0755", "set-context c --cluster=lab --user=123",
            "set-context o --cluster=other --user=bob", "use-context 1e3"):
        kubectl(KUBECTLS[0], file, "config", *words.split())       # 1.20 panics at users
    assert base64.b64encode(key.encode()) in file.read_bytes()
    shown = cover(file.read_bytes(), (CLUSTER,))
    assert shown is not None
    file.write_bytes(shown)
    found = json.loads(kubectl(program, file, "config", "view", "--raw", "-o", "json"))
    assert "SECRET" not in json.dumps(found) + shown.decode()
    assert base64.b64encode(key.encode()) not in shown
    assert {one["name"]: one["user"] for one in found["users"]} == {
        "ann": {"token": PLACEHOLDER}, "123": {"token": PLACEHOLDER}, "eve": {"token": PLACEHOLDER},
        "bob": {"token": "kept"}}
    assert found["clusters"][0]["cluster"] == {"server": server, "certificate-authority-data": AUTHORITY}
    assert (found["current-context"], found["contexts"][0]["context"]["namespace"]) in (("1e3", "0755"),)
    kubectl(program, file, "config", "use-context", "o")
    assert kubectl(program, file, "config", "current-context") == "o\n"


@pytest.mark.skipif(not KUBECTLS, reason="no kubectl: ./bootstrap test installs it")
@pytest.mark.parametrize("program", KUBECTLS, ids=lambda path: "old" if "debian" in str(path) else "new")
def test_kubectl_reads_weirs(program: Path, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(render_kubeconfig(CLUSTER, namespace="crews"))
    assert kubectl(program, file, "config", "view", "--minify", "-o", "jsonpath={..namespace} {..server}") == (
        "crews https://cluster.lab.example:6443")


def test_files_that_an_environment_names() -> None:
    env = {b"KUBECONFIG": b"/a/b::c/../d:/x\n:~/e", b"HOME": b"/home/ann"}
    assert list(named(env, b"/work")) == ["/a/b", "/work/d", "/work/~/e", "/home/ann/.kube/config"]
    assert list(named({}, b"/work")) == []
    trust = ClusterTrust("/run/weir/trust", (CLUSTER,))
    assert [one.target for one in kubeconfig_binds(iter(("/a", "b", "/a")), trust)] == ["/a"]
    assert kubeconfig_binds(iter(("/a",)), NO_CLUSTERS) == ()


@pytest.mark.parametrize("bomb", [
    's: &s "' + "a" * 10_000 + '"\nl: [' + "*s," * 3_000 + "]\n",
    'c: &c {server: "https://cluster.lab.example:6443", j: "' + "b" * 5_000 + '"}\nclusters:\n'
    + "- {name: a, cluster: *c}\n" * 2_000,
    "a0: &a0 [x, x]\n" + "".join(f"a{one}: &a{one} [*a{one - 1}, *a{one - 1}]\n" for one in range(1, 40)),
    "x: &x [*x]\n",
])
def test_what_a_few_bytes_stand_for_is_not_written_out(bomb: str) -> None:
    shown = cover((WRITTEN + bomb if "clusters:" not in bomb else bomb).encode(), (CLUSTER,))
    assert shown is not None
    assert shown.startswith(b"# Weir does not show this file: it is ")
    assert len(shown) < 200


def test_a_kubeconfig_in_which_a_certificate_stands_is_none_of_roots() -> None:
    text = WRITTEN + 'note: "\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"\n'
    shown = cover(text.encode(), (CLUSTER,))
    assert shown is not None
    assert yaml.safe_load(shown)["users"][0]["user"] == {"token": PLACEHOLDER}
