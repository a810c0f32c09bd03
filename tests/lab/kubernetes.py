"""A real Kubernetes API server with etcd on a host of its own, and a node whose containers are local commands.

./bootstrap builds it (install_kubernetes: Kubernetes, etcd and Helm from their modules, tests/kube for the lab's own
programs); a start with everything below takes some seconds.

    with cluster(lab.scratch) as kube:                     # at https://kube.lab.example:6443 and both its addresses
        kube.kubectl("get", "pods", "-n", "shop")          # as admin, on its own host, without Weir
        kube.kubeconfig("crewbot")                         # a file; users: admin, crewbot, viewer
        kube.tokens["crewbot"], kube.certificate("crewbot"), kube.service_token()    # the three ways to be somebody
        kube.audited("crewbot")                            # what the server says that it was asked, and answered

Namespace `shop` has: pod `web` (container `app`: mirrors its input, see `say`), Deployment `api`, Service `web`, Secret
`db` (its password is `kube.password`), ConfigMap `settings`, accounts `default` and `crewbot`, a custom resource
(orders.shop.example.com) with an object `first`.  `fill` makes as many pods as a benchmark wants.

The node (tests/kube/streams) takes pods that have none, runs their commands with /tmp and /root of their own, writes
their status, ends them, and serves exec, attach, port-forward and logs.  A pod's port is the same port of this host's
loopback, or what `port` says.  Kubernetes' own controllers (tests/kube/controllers) make what a Deployment or a Job
says, end namespaces, and take away what lost its owner.
"""
from __future__ import annotations

import json
import os
import secrets
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from cryptography.hazmat.primitives.asymmetric import rsa

from lab.certificates import Authority, make_authority, make_client, make_leaf, private_pem, write
from lab.hosts import KUBE, PATIENCE, Host, ip, wait_until
from lab.servers import listening, server

HOME = Path(os.environ.get("WEIR_PREFIX", "/opt/weir")) / "kube"
BIN = HOME / "bin"                    # kube-apiserver etcd kubectl helm kubelet-streams kube-controllers ...
KUBECTL = BIN / "kubectl"
DEBIAN_KUBECTL = HOME / "debian/usr/bin/kubectl"           # 1.20: SPDY
HELM = BIN / "helm"
CLIENTGO = BIN / "clientgo"
REQUESTINFO = BIN / "requestinfo"
MISSING = f"no Kubernetes at {HOME}: ./bootstrap test installs it"
SEEDS = Path(__file__).resolve().parent.parent / "kube"
NAME = "kube.lab.example"
PORT = 6443
NAMES = (NAME, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
SERVICES = "10.96.0.0/16"             # cluster addresses of services; nothing routes them
NODE = "node"
NODE_ADDRESS = "10.78.0.1"            # on the host's loopback: proxies refuse 127.0.0.1
KUBELET_PORT = 10250
ETCD_PORT = 2379
NAMESPACE = "shop"
USERS = {"admin": ("system:masters",), "crewbot": (), "viewer": ()}        # by token; and their groups
NODE_USER = "system:node:" + NODE
CONTROLLERS_USER = "system:kube-controller-manager"
GROUPS = USERS | {NODE_USER: ("system:masters",), CONTROLLERS_USER: ("system:masters",)}
POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{{level: {level}}}]
"""
# What ID tokens it takes, and of whom: it reads the file again when it changes.
# https://kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration
AUTHENTICATION = {"apiVersion": "apiserver.config.k8s.io/v1beta1", "kind": "AuthenticationConfiguration", "jwt": []}
STARTED = 120.0                       # seconds, on a busy machine too
WITHIN = f"--timeout={60 * PATIENCE:.0f}s"        # of kubectl


class Answered(RuntimeError):
    """The API server refused what the lab itself asked."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text[:500]}")
        self.status = status


@dataclass(frozen=True)
class Event:
    """One of the audit log: a request at a stage.  https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/"""

    stage: str                        # ResponseStarted (only what lasts), ResponseComplete, Panic
    user: str
    verb: str
    uri: str
    status: int
    resource: str                     # with /SUBRESOURCE where there is one
    namespace: str
    name: str
    raw: dict[str, Any] = field(repr=False)


@dataclass
class Cluster:
    host: Host
    place: Path
    authority: Authority              # of the server's certificate
    clients: Authority                # of certificates that clients have
    tokens: dict[str, str]            # by user
    client: httpx2.Client = field(repr=False)
    password: str = ""                # in Secret db
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return f"Cluster({self.place})"

    @property
    def url(self) -> str:
        """By name."""
        return f"https://{NAME}:{PORT}"

    @property
    def base(self) -> str:
        """By address: there is no name server on its own host."""
        return f"https://{self.host.ipv4}:{PORT}"

    @property
    def ca(self) -> Path:
        return self.place / "ca.pem"

    @property
    def log(self) -> Path:
        return self.place / "kube-apiserver.log"

    @property
    def audit(self) -> Path:
        return self.place / "audit.log"

    # --- who asks ---

    def certificate(self, user: str) -> tuple[Path, Path]:
        """Files of a certificate and its key that make their holder this user."""
        files = self.place / f"{user}.pem", self.place / f"{user}.key"
        if not files[0].exists():
            leaf, key = make_client(self.clients, user, GROUPS.get(user, ()))
            write(files[0], leaf)
            write(files[1], key, 0o600)
        return files

    def service_token(self, account: str = "crewbot", namespace: str = NAMESPACE, seconds: int = 3600) -> str:
        """A token of a service account's, as pods have them (TokenRequest)."""
        made = self.ask("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", {
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": seconds}})
        token: str = made["status"]["token"]
        return token

    def trust_issuers(self, *issuers: tuple[str, str, str]) -> None:
        """(URL, authority in PEM, audience) of each provider whose ID tokens' subjects are users of that name."""
        jwt = [{"issuer": {"url": url, "certificateAuthority": ca, "audiences": [audience]},
                "claimMappings": {"username": {"claim": "sub", "prefix": ""}}} for url, ca, audience in issuers]
        path = self.place / "authentication.json"
        write(path.with_suffix(".new"), json.dumps(AUTHENTICATION | {"jwt": jwt})).replace(path)

    def kubeconfig(self, user: str = "admin", *, by: str = "token", url: str = "", ca: Path | None = None) -> Path:
        """A file for clients.  `by`: token, certificate, or account (of a service account that is called so)."""
        who: dict[str, str] = {}
        if by == "certificate":
            leaf, key = self.certificate(user)
            who = {"client-certificate": str(leaf), "client-key": str(key)}
        else:
            who = {"token": self.tokens[user] if by == "token" else self.service_token(user)}
        path = self.place / f"kubeconfig-{user}-{secrets.token_hex(3)}"
        return write(path, kubeconfig(url or self.base, ca or self.ca, who), 0o600)

    # --- asking ---

    def ask(
        self, method: str, path: str, body: Any = None, *, user: str = "admin", kind: str = "application/json",
    ) -> Any:
        """One request without kubectl; the parsed answer.  Raises Answered."""
        headers = {"Authorization": f"Bearer {self.tokens[user]}", "Content-Type": kind}
        content = None if body is None else json.dumps(body)
        with self.host.entered():
            answer = self.client.request(method, self.base + path, content=content, headers=headers)
        if answer.status_code >= 400:
            raise Answered(answer.status_code, answer.text)
        return answer.json() if answer.headers["Content-Type"].startswith("application/json") else answer.text

    def environment(self, user: str = "admin") -> dict[str, str]:
        return {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(self.place), "KUBECONFIG": str(self._kubeconfig(user)),
                "HELM_CACHE_HOME": str(self.place / "helm"), "LANG": "C.UTF-8"}

    def _kubeconfig(self, user: str) -> Path:
        path = self.place / f"kubeconfig-{user}"
        if not path.exists():
            write(path, kubeconfig(self.base, self.ca, {"token": self.tokens[user]}), 0o600)
        return path

    def run(
        self, command: Sequence[str | Path], *, user: str = "admin", input: str | None = None, check: bool = True,
        timeout: float = 120, environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """A client on the server's own host, without Weir.  Raises RuntimeError with its words where it fails."""
        source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        done = self.host.run([str(word) for word in command], env=self.environment(user) | dict(environment or {}),
                             cwd=self.place, timeout=timeout, **source)
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def kubectl(self, *words: str, user: str = "admin", input: str | None = None) -> str:
        """What it prints.  Raises RuntimeError."""
        return self.run([KUBECTL, *words], user=user, input=input).stdout

    # --- what the server says that it did ---

    def mark(self) -> int:
        """Where the audit log ends now, for `audited`."""
        return self.audit.stat().st_size

    def audited(self, user: str = "", *, since: int = 0, stage: str = "ResponseComplete") -> list[Event]:
        """Requests, in the order in which they were answered.  An empty `user` or `stage`: of all.

        The server writes an event before a request ends, but the client may have its answer some microseconds earlier.
        """
        with open(self.audit, "rb") as file:
            file.seek(since)
            lines = file.read().splitlines(keepends=True)
        events = [parse_event(line) for line in lines if line.endswith(b"\n")]
        return [one for one in events if user in ("", one.user) and stage in ("", one.stage)]

    # --- pods ---

    def container(self, pod: str = "web", container: str = "app", namespace: str = NAMESPACE) -> Path:
        """Its directory: `tmp` and `home` are what it has as /tmp and /root, `log` is its log."""
        return self.place / "pods" / namespace / pod / container

    def say(self, text: str, pod: str = "web", container: str = "app", stream: str = "stdout") -> None:
        """Another line of its log."""
        now = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z"
        with open(self.container(pod, container) / "log", "a") as file:
            file.write(f"{stamp} {stream} F {text}\n")

    def port(self, number: int, address: str, pod: str = "web", namespace: str = NAMESPACE) -> None:
        """Where a port of the pod leads from here on: ADDRESS:PORT, seen from the cluster's host."""
        ports = self.place / "pods" / namespace / pod / "ports"
        ports.mkdir(parents=True, exist_ok=True)
        (ports / str(number)).write_text(address)

    def wait_for_pod(self, pod: str = "web", namespace: str = NAMESPACE, condition: str = "Ready") -> None:
        self.kubectl("wait", f"--for=condition={condition}", f"pod/{pod}", "-n", namespace, WITHIN)

    def fill(self, count: int = 5000, prefix: str = "fill", namespace: str = NAMESPACE) -> None:
        """So many pods, PREFIX-00000 and on, that seem to run on another node."""
        self.run([CLIENTGO, "-n", namespace, "fill", prefix, str(count), f"127.0.0.1:{ETCD_PORT}"], timeout=600)

    # --- its parts ---

    def _start(self, stack: ExitStack, name: str, command: Sequence[str], port: int = 0, address: str = "") -> None:
        log = self.place / f"{name}.log"
        process = stack.enter_context(server(self.host, command, log, ending="KILL", environment={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.place)}))
        self.processes[name] = process
        if port:
            listening(self.host, address, port, process, log)

    def start_etcd(self, stack: ExitStack) -> None:
        here, peers = f"http://127.0.0.1:{ETCD_PORT}", f"http://127.0.0.1:{ETCD_PORT + 1}"
        self._start(stack, "etcd", [
            str(BIN / "etcd"), f"--data-dir={self.place}/etcd", "--unsafe-no-fsync", "--log-level=warn", "--name=lab",
            f"--listen-client-urls={here}", f"--advertise-client-urls={here}", f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}", f"--initial-cluster=lab={peers}",
            "--quota-backend-bytes=8589934592",
        ], ETCD_PORT, "127.0.0.1")

    def start_server(self, stack: ExitStack, more: Sequence[str] = ()) -> None:
        place = self.place
        self._start(stack, "kube-apiserver", [
            str(BIN / "kube-apiserver"), f"--etcd-servers=http://127.0.0.1:{ETCD_PORT}",
            "--bind-address=::", f"--advertise-address={self.host.ipv4}", f"--secure-port={PORT}",
            "--endpoint-reconciler-type=none", f"--service-cluster-ip-range={SERVICES}", "--allow-privileged=true",
            f"--tls-cert-file={place}/server.pem", f"--tls-private-key-file={place}/server.key",
            "--authorization-mode=RBAC", f"--client-ca-file={place}/clients.pem",
            f"--token-auth-file={place}/tokens.csv", f"--authentication-config={place}/authentication.json",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={place}/accounts.key",
            f"--service-account-signing-key-file={place}/accounts.key",
            f"--requestheader-client-ca-file={place}/front.pem", "--requestheader-allowed-names=front-proxy",
            "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-", "--enable-aggregator-routing=true",
            f"--proxy-client-cert-file={place}/front-proxy.pem", f"--proxy-client-key-file={place}/front-proxy.key",
            f"--kubelet-client-certificate={place}/kubelet-client.pem",
            f"--kubelet-client-key={place}/kubelet-client.key",
            f"--kubelet-certificate-authority={place}/ca.pem", "--kubelet-preferred-address-types=InternalIP",
            f"--audit-policy-file={place}/policy.yaml", f"--audit-log-path={self.audit}", "--audit-log-mode=blocking",
            "--audit-log-maxsize=100000", "--profiling=false", *more,
        ], PORT, self.host.ipv4)
        wait_until("kube-apiserver is ready", self._ready, STARTED)

    def _ready(self) -> bool:
        if self.processes["kube-apiserver"].poll() is not None:
            raise RuntimeError(f"kube-apiserver ended:\n{self.log.read_text()[-2000:]}")
        try:
            return bool(self.ask("GET", "/readyz") == "ok")
        except (httpx2.HTTPError, Answered):
            return False

    def start_node(self, stack: ExitStack) -> None:
        """In mount and process namespaces of its own: its mounts and what it runs end with it."""
        ip(f"address replace {NODE_ADDRESS}/32 dev lo", netns=self.host.netns)
        config = self.kubeconfig(NODE_USER, by="certificate")
        self._start(stack, "kubelet-streams", [
            "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--propagation", "private",
            str(BIN / "kubelet-streams"), f"-address={NODE_ADDRESS}", f"-port={KUBELET_PORT}", f"-node={NODE}",
            f"-cert={self.place}/node.pem", f"-key={self.place}/node.key", f"-client-ca={self.place}/clients.pem",
            f"-dir={self.place}/pods", f"-kubeconfig={config}",
        ], KUBELET_PORT, NODE_ADDRESS)

    def start_controllers(self, stack: ExitStack) -> None:
        config = self.kubeconfig(CONTROLLERS_USER, by="certificate")
        self._start(stack, "kube-controllers", [str(BIN / "kube-controllers"), f"-kubeconfig={config}"])

    def seed(self) -> None:
        """What the module's docstring says that there is."""
        self.kubectl("create", "-f", "-", input=(SEEDS / "seed.yaml").read_text().replace("@PASSWORD@", self.password))
        self.kubectl("wait", "--for=condition=Established", "crd/orders.shop.example.com", WITHIN)
        self.kubectl("wait", "--for=create", "serviceaccounts/default", "-n", NAMESPACE, WITHIN)
        self.kubectl("create", "-f", str(SEEDS / "seed-then.yaml"))
        self.wait_for_pod()
        self.kubectl("rollout", "status", "deployment/api", WITHIN)


def kubeconfig(url: str, ca: Path, user: Mapping[str, str], namespace: str = NAMESPACE) -> str:
    """The text of a file; YAML's subset JSON."""
    return json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": url, "certificate-authority": str(ca)}}],
        "users": [{"name": "lab", "user": dict(user)}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab", "namespace": namespace}}],
    }, indent=1)


def parse_event(line: bytes) -> Event:
    raw = json.loads(line)
    about = raw.get("objectRef", {})
    resource = "/".join(filter(None, (about.get("resource", ""), about.get("subresource", ""))))
    return Event(raw["stage"], raw["user"].get("username", ""), raw["verb"], raw["requestURI"],
                 raw.get("responseStatus", {}).get("code", 0), resource, about.get("namespace", ""),
                 about.get("name", ""), raw)


def _write_identities(made: Cluster) -> None:
    place, authority = made.place, made.authority
    write(made.ca, authority.pem)
    write(place / "clients.pem", made.clients.pem)
    front = make_authority("Lab Kubernetes front proxy CA")
    write(place / "front.pem", front.pem)
    addresses = (made.host.ipv4, made.host.ipv6, "127.0.0.1", "10.96.0.1")
    for name, (leaf, key) in {
        "server": make_leaf(authority, NAMES, addresses), "node": make_leaf(authority, (NODE,), (NODE_ADDRESS,)),
        "front-proxy": make_client(front, "front-proxy"),
    }.items():
        write(place / f"{name}.pem", leaf)
        write(place / f"{name}.key", key, 0o600)
    made.certificate("kubelet-client")
    made.trust_issuers()
    write(place / "accounts.key", private_pem(rsa.generate_private_key(65537, 2048)), 0o600)
    lines = [f'{token},{user},{user},"{",".join(USERS[user])}"' for user, token in made.tokens.items()]
    write(place / "tokens.csv", "\n".join(lines) + "\n", 0o600)


@contextmanager
def cluster(
    scratch: Path, host: Host = KUBE, *, audit: str = "RequestResponse", seed: bool = True, more: Sequence[str] = (),
) -> Iterator[Cluster]:
    """While the block runs.  `audit`: the level for every request (None, Metadata, Request); `more`: its flags."""
    if not (BIN / "kube-apiserver").exists():
        raise RuntimeError(MISSING)
    place = scratch / f"kube-{secrets.token_hex(3)}"
    place.mkdir(mode=0o755)
    tokens = {user: f"{user}-{secrets.token_urlsafe(24)}" for user in USERS}
    authority, clients = make_authority("Lab Kubernetes CA"), make_authority("Lab Kubernetes clients CA")
    trust = ssl.create_default_context(cadata=authority.pem)
    with httpx2.Client(verify=trust, trust_env=False, timeout=60 * PATIENCE) as client, ExitStack() as stack:
        made = Cluster(host, place, authority, clients, tokens, client, secrets.token_urlsafe(18))
        _write_identities(made)
        write(place / "policy.yaml", POLICY.format(level=audit))
        write(made.audit, "", 0o600)
        made.start_etcd(stack)
        made.start_server(stack, more)
        made.start_node(stack)
        made.start_controllers(stack)
        if seed:
            made.seed()
        yield made


__all__ = ["BIN", "CLIENTGO", "DEBIAN_KUBECTL", "HELM", "KUBECTL", "MISSING", "NAME", "NAMESPACE", "PORT",
           "REQUESTINFO", "USERS", "Answered", "Cluster", "Event", "cluster", "kubeconfig", "parse_event"]
