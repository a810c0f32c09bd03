"""Pure: how a workload's clients know Weir in the place of clusters: what lies in RUN/trust, and where it is bound."""
from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.kubernetes.kubeconfig import PLACEHOLDER, Cluster, render_clusters
from agent.workload.view import Bind

KNOWN, TOKEN, NAMESPACE = "clusters.json", "token", "namespace"        # in RUN/trust: everybody may read them
USER_FILE: Final = "~/.kube/config"
VARIABLE: Final = b"KUBECONFIG"
HOST, PORT = b"KUBERNETES_SERVICE_HOST", b"KUBERNETES_SERVICE_PORT"
FILES_LIMIT: Final = 32               # of $KUBECONFIG
# k8s.io/client-go, rest.InClusterConfig, by the name that no link of a view is in: /var/run is one to /run.
SERVICE_ACCOUNT: Final = "/run/secrets/kubernetes.io/serviceaccount"


@dataclass(frozen=True)
class ClusterTrust:
    directory: str = ""               # RUN/trust; empty: there is no cluster
    clusters: tuple[Cluster, ...] = ()
    files: tuple[str, ...] = ()       # every `trust` entry of clusters

    def contents(self) -> dict[str, bytes]:
        """Of its files, by name."""
        return {KNOWN: render_clusters(self.clusters), TOKEN: PLACEHOLDER.encode(), NAMESPACE: b"default"}

    def path(self, name: str) -> str:
        return str(Path(self.directory, name))


NO_CLUSTERS: Final = ClusterTrust()


def kubeconfig_binds(paths: Iterator[str], trust: ClusterTrust) -> tuple[Bind, ...]:
    """Over kubeconfigs and files of roots, where they are."""
    if not trust.clusters:
        return ()
    absolute = (path for path in dict.fromkeys(paths) if path.startswith("/"))
    return tuple(Bind(trust.path(KNOWN), path, kubeconfig=True) for path in absolute)


def service_binds(env: Mapping[bytes, bytes], authorities: str, trust: ClusterTrust) -> Iterator[Bind]:
    """A pod's service account, where the environment says that this is a pod of a registered cluster."""
    host, port = env.get(HOST, b"").decode("ascii", "replace"), env.get(PORT, b"").decode("ascii", "replace")
    if not port.isdecimal() or len(port) > 5 or not any(one.has(host, int(port)) for one in trust.clusters):
        return
    yield Bind(authorities, f"{SERVICE_ACCOUNT}/ca.crt", absent="make")
    yield Bind(trust.path(TOKEN), f"{SERVICE_ACCOUNT}/{TOKEN}", absent="make")
    yield Bind(trust.path(NAMESPACE), f"{SERVICE_ACCOUNT}/{NAMESPACE}", absent="make", own=True)


def named(env: Mapping[bytes, bytes], cwd: bytes) -> Iterator[str]:
    """Files that clients started there, with this environment, read: those of $KUBECONFIG, or the one below $HOME."""
    paths = [path for path in env.get(VARIABLE, b"").split(b":") if path][:FILES_LIMIT]
    if home := env.get(b"HOME", b""):
        paths.append(home + USER_FILE.removeprefix("~").encode())
    for path in paths:
        text = posixpath.normpath(posixpath.join(cwd, path).decode("utf-8", "replace"))
        if text.startswith("/") and text.isprintable():
            yield text
