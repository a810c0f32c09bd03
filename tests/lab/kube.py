"""The lab's cluster with Weir in front of it; the crew's side: a kubeconfig whose token is worthless.

The crew's token counts for nothing; the control, on a host without Weir, gets the real one.
"""
from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab import kube_oracle
from lab.hosts import KUBE
from lab.kubernetes import BIN, DEBIAN_KUBECTL, NAMESPACE, Cluster, cluster, kubeconfig
from lab.lab import Lab
from lab.weir import POLICY, Installed, configure, weir

TARGET = "prod"
SERVICE_USER = "crewbot"              # whom Weir logs in as
KUBECTL = str(BIN / "kubectl")
OLD_KUBECTL = str(DEBIAN_KUBECTL)
ENTRY = """
[[target]]
name = "{name}"
protocol = "kubernetes"
hosts = ["{host}", "kubernetes.default.svc", "{ipv4}"]
port = 6443
tls_ca = "{ca}"
trust = ["~/.kube/ca.pem"]
{more}
[[target.credential]]
{credential}
"""
SHOUTING = 7777                       # a port of pods, see `shouting`
# Whatever the server would let Weir's account do.
ALL = """
@id("prod-all")
permit (principal in Group::"data", action, resource in Target::"prod");
"""


@dataclass(frozen=True, eq=False)
class KubeLab:
    lab: Lab
    cluster: Cluster

    def give_home(self) -> None:
        """~/.kube, as a person of that cluster has it; the token is none."""
        ca = self.lab.give(self.cluster.ca, ".kube/ca.pem")
        for name, token in (("config", "worthless"), ("real", self.cluster.tokens[SERVICE_USER])):
            file = self.lab.scratch / f"kubeconfig-crew-{name}"
            file.write_text(kubeconfig(self.cluster.url, ca, {"token": token}))
            self.lab.give(file, f".kube/{name}").chmod(0o600)

    @property
    def config(self) -> Path:
        return self.lab.home / ".kube/config"

    def control(
        self, *command: str, environment: Mapping[str, str] | None = None, timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Without Weir, with the real token."""
        real = {"KUBECONFIG": str(self.lab.home / ".kube/real")}
        return self.lab.control(command, real | dict(environment or {}), timeout)

    def entry(self, more: str = "", credential: str = "", name: str = TARGET) -> str:
        token = self.lab.scratch / "kube-token"
        token.write_text(self.cluster.tokens[SERVICE_USER])
        token.chmod(0o600)
        return ENTRY.format(
            name=name, host=self.cluster.url.removeprefix("https://").partition(":")[0], ipv4=self.cluster.host.ipv4,
            ca=self.cluster.ca, more=more, credential=credential or f'token_file = "{token}"')


@contextmanager
def kube_lab(lab: Lab) -> Iterator[KubeLab]:
    with cluster(lab.scratch) as made:
        made.ask("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {
            "metadata": {"name": "crewbot-is-broad"}, "subjects": [{"kind": "User", "name": SERVICE_USER}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}})
        one = KubeLab(lab, made)
        one.give_home()
        yield one


@contextmanager
def shouting() -> Iterator[None]:
    """Behind a port of the cluster's pods, a server says again what it is told, in upper case."""
    with KUBE.entered():
        server = socket.create_server(("127.0.0.1", SHOUTING))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                while told := connection.recv(65536):
                    connection.sendall(told.upper())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(10)


@contextmanager
def kube_weir(
    made: KubeLab, policy: str = ALL, more: str = "", credential: str = "", labels: bool = False, **options: str,
) -> Iterator[Installed]:
    """Weir with the cluster registered; `more` and `credential` are of its target."""
    made.give_home()
    tables = options.pop("more_tables", "") + made.entry(more, credential)
    config = configure(made.lab, policy=POLICY + policy, more=tables, labels=labels, **options)
    with weir(made.lab, config) as installed:
        yield installed


@contextmanager
def overseen(made: KubeLab, installed: Installed) -> Iterator[None]:
    """What the API server says that it was asked meanwhile, and what is recorded, are the same."""
    since, before = made.cluster.mark(), kube_oracle.recorded(installed.recording, TARGET)
    yield
    installed.settle()
    done = {name: one for name, one in kube_oracle.recorded(installed.recording, TARGET).items() if name not in before}
    wrong = kube_oracle.complaints(done, made.cluster.audited(SERVICE_USER, since=since))
    assert not wrong, "the recording and the server disagree:\n" + "\n".join(wrong[:20])


def kubectl(
    installed: Installed, *words: str, input: str | None = None, old: bool = False, timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """The crew's."""
    return installed.crew(OLD_KUBECTL if old else KUBECTL, *words, input=input, timeout=timeout)


def shown(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


__all__ = ["ALL", "KUBECTL", "NAMESPACE", "OLD_KUBECTL", "SHOUTING", "TARGET", "KubeLab", "kube_lab", "kube_weir",
           "kubectl", "overseen", "shouting", "shown"]
