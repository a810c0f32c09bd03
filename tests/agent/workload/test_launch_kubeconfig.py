"""Clients in a workload and a server with Weir's leaf in a cluster's place: known, and given nothing worth stealing."""
from __future__ import annotations

import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from launchhost import UID, Host

from agent.kubernetes.kubeconfig import PLACEHOLDER

KUBE = Path(os.environ.get("WEIR_PREFIX", "/opt/weir")) / "kube/bin"
NAME = "127.0.0.1"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
pytestmark = [pytest.mark.kernel, pytest.mark.skipif(
    not (KUBE / "kubectl").exists(), reason="no kubectl: ./bootstrap test installs it")]


class Server:
    """Says its version to everybody, and remembers who asked."""

    def __init__(self, port: int, certificate: Path, key: Path) -> None:
        self.seen: list[str] = []
        server = self

        class Answering(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.seen.append(self.headers.get("Authorization", ""))
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(b'{"gitVersion": "v1.99.0"}')

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer((NAME, port), Answering)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as sock:
        sock.bind((NAME, 0))
        found: int = sock.getsockname()[1]
        return found


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Host]:
    targets = [{"name": "cluster", "hosts": [NAME], "files": ["~/own.yaml", "~/ca.crt"], "cluster": port}]
    made = Host(tmp_path_factory.mktemp("kube"), f"weirtest-kube{os.getpid()}", targets=targets, read_only=[str(KUBE)])
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(host: Host, port: int) -> Iterator[Server]:
    made = Server(port, host.base / "cluster.pem", host.base / "cluster.key")
    yield made
    made.close()


def written(path: Path, port: int) -> Path:
    """As the crew's, with what opens the cluster."""
    path.parent.mkdir(exist_ok=True)
    os.chown(path.parent, UID, UID)
    cluster = {"server": f"https://{NAME}:{port}", "certificate-authority-data": "T1dO"}
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "k", "cluster": cluster}],
        "contexts": [{"name": name, "context": {"cluster": "k", "user": "u"}} for name in ("c", "d")],
        "users": [{"name": "u", "user": {"token": "SECRET"}}]}))
    os.chown(path, UID, UID)
    return path


def asked(host: Host, server: Server, *words: str, **env: str) -> str:
    server.seen.clear()
    code, out, err = host.run(str(KUBE / "kubectl"), *words, "get", "--raw", "/version", env=env)
    assert (code, b"v1.99.0" in out) == (0, True), err.decode()
    [who] = server.seen
    return who


def test_kubectl_knows_weir_by_its_own_file(host: Host, server: Server, port: int) -> None:
    own = written(host.home / ".kube/config", port)
    assert asked(host, server) == f"Bearer {PLACEHOLDER}"
    assert asked(host, server, "--kubeconfig", str(written(host.home / "own.yaml", port))) == f"Bearer {PLACEHOLDER}"
    other = written(host.home / "sub/other.yaml", port)
    assert asked(host, server, KUBECONFIG=f"{host.home}/nothing:{other}") == f"Bearer {PLACEHOLDER}"
    code, out, _ = host.run("/bin/sh", "-c", f"cat {own} {other}; ls -l {own}", env={"KUBECONFIG": str(other)})
    assert (code, b"SECRET" in out, b"-rw-------" in out) == (0, False, True)
    assert "SECRET" in own.read_text()


def test_what_kubectl_writes_stays_in_the_view(host: Host, server: Server, port: int) -> None:
    own = written(host.home / ".kube/config", port)
    before = own.read_bytes()
    kubectl = KUBE / "kubectl"
    code, out, err = host.run("/bin/sh", "-c", f"{kubectl} config use-context d && {kubectl} config current-context")
    assert (code, out.endswith(b"d\n")) == (0, True), err.decode()
    assert own.read_bytes() == before
    assert sorted(one.name for one in own.parent.iterdir()) == ["config"]


def test_one_that_cannot_be_read_is_empty(host: Host, port: int) -> None:
    own = written(host.home / ".kube/config", port)
    own.write_text("token: SECRET: [")
    code, out, _ = host.run("/bin/cat", str(own))
    assert (code, b"SECRET" in out) == (0, False)
    assert out.startswith(b"# Weir does not show this file: it is not YAML")
    own.unlink()
    os.mkfifo(own)
    assert host.run("/bin/true")[0] == 0
    own.unlink()


def test_a_pod(host: Host, server: Server, port: int) -> None:
    code = (f"import ssl, urllib.request as u; t = open('{ACCOUNT}/token').read(); "
            f"c = ssl.create_default_context(cafile='{ACCOUNT}/ca.crt'); "
            f"r = u.Request('https://{NAME}:{port}/version', headers={{'Authorization': 'Bearer ' + t}}); "
            f"print(u.urlopen(r, context=c).read(), open('{ACCOUNT}/namespace').read())")
    env = {"KUBERNETES_SERVICE_HOST": NAME, "KUBERNETES_SERVICE_PORT": str(port)}
    server.seen.clear()
    done, out, err = host.run("/usr/bin/python3", "-c", code, env=env)
    assert (done, b"v1.99.0" in out, b"default" in out) == (0, True, True), err.decode()
    assert server.seen == [f"Bearer {PLACEHOLDER}"]
    assert host.run("/bin/ls", ACCOUNT)[0] != 0
