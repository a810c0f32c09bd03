"""One measurement of a Kubernetes client, as the crew's user.  Prints {"rate": per second, "p50": µs, "count": N}.

    kube_client.py MEASURE COUNT        MEASURE: get, list, secrets, watches, exec; read, write in bytes

$KUBECONFIG says where; the whole API is plain HTTPS, so what is measured is not a client library.
"""
from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import time
from pathlib import Path
from threading import Barrier, Thread
from urllib.parse import urlsplit

import yaml
from kubernetes import client, config
from kubernetes.stream import stream

KUBECTL = os.environ["KUBECTL"]
CONFIG = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
CLUSTER, USER = CONFIG["clusters"][0]["cluster"], CONFIG["users"][0]["user"]
ADDRESS = socket.gethostbyname(urlsplit(CLUSTER["server"]).hostname or "")       # once: names are not what is measured
SHOP = "/api/v1/namespaces/shop"
WATCHED = 200
PIECE = 1 << 20


def connect() -> http.client.HTTPSConnection:
    place = urlsplit(CLUSTER["server"])
    data = CLUSTER.get("certificate-authority-data")
    context = ssl.create_default_context(cafile=CLUSTER.get("certificate-authority"),
                                         cadata=base64.b64decode(data).decode() if data else None)
    return http.client.HTTPSConnection(ADDRESS, place.port, context=context, timeout=60)


def ask(
    connection: http.client.HTTPSConnection, method: str, path: str, body: object = None,
) -> http.client.HTTPResponse:
    connection.request(method, path, None if body is None else json.dumps(body),
                       {"Authorization": f"Bearer {USER['token']}", "Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status >= 300:
        raise RuntimeError(f"{answer.status} {answer.read()[:500]!r}")
    return answer


def say(rate: float, p50: float, count: float) -> None:
    print(json.dumps({"rate": rate, "p50": p50 * 1e6, "count": count}))


def one_by_one(count: int, path: str) -> None:
    connection, took = connect(), []
    ask(connection, "GET", path).read()
    for _ in range(count):
        began = time.perf_counter()
        ask(connection, "GET", path).read()
        took.append(time.perf_counter() - began)
    say(count / sum(took), statistics.median(took), count)


def watches(count: int) -> None:
    """So many watches at once; COUNT changes, each is seen by all of them."""
    ready, took, seen = Barrier(WATCHED + 1), [], Barrier(WATCHED + 1)

    def watch() -> None:
        try:
            see()
        except Exception as error:
            print(f"a watch: {error!r}", file=sys.stderr)
            ready.abort()
            seen.abort()

    def see() -> None:
        answer = ask(connect(), "GET", f"{SHOP}/configmaps?watch=true&fieldSelector=metadata.name%3Dbench")
        ready.wait()
        for _ in range(count):
            while b"bench" not in answer.readline():
                pass
            seen.wait()

    threads = [Thread(target=watch, daemon=True) for _ in range(WATCHED)]
    for one in threads:
        one.start()
    ready.wait(60)
    connection, began = connect(), time.perf_counter()
    for number in range(count):
        at = time.perf_counter()
        ask(connection, "POST" if number % 2 == 0 else "DELETE",
            f"{SHOP}/configmaps" if number % 2 == 0 else f"{SHOP}/configmaps/bench",
            {"metadata": {"name": "bench"}} if number % 2 == 0 else None).read()
        seen.wait(60)
        took.append(time.perf_counter() - at)
    say(count * WATCHED / (time.perf_counter() - began), statistics.median(took), count * WATCHED)


def execute(count: int) -> None:
    """Commands, one after the other, each with its handshakes."""
    config.load_kube_config()
    api, took = client.CoreV1Api(), []
    for number in range(count):
        began = time.perf_counter()
        said = stream(api.connect_get_namespaced_pod_exec, "web", "shop", command=["echo", str(number)], stdout=True,
                      stderr=True, stdin=False, tty=False)
        took.append(time.perf_counter() - began)
        assert said.strip() == str(number), said
    say(count / sum(took), statistics.median(took), count)


def read(count: int) -> None:
    began = time.perf_counter()
    command = [KUBECTL, "exec", "-n", "shop", "web", "--", "head", "-c", str(count), "/dev/zero"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        size = sum(len(piece) for piece in iter(lambda: process.stdout.read(PIECE), b""))        # type: ignore[union-attr]
    assert size == count, size
    took = time.perf_counter() - began
    say(count / took, took, count / 1e6)


def write(count: int) -> None:
    began = time.perf_counter()
    command = [KUBECTL, "exec", "-i", "-n", "shop", "web", "--", "sh", "-c", "cat > /dev/null"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for _ in range(count // PIECE):
            process.stdin.write(bytes(PIECE))
    assert process.returncode == 0
    took = time.perf_counter() - began
    say(count / took, took, count / 1e6)


def main() -> None:
    measure, count = sys.argv[1], int(sys.argv[2])
    if measure in ("get", "list", "secrets"):
        one_by_one(count, SHOP + {"get": "/pods/web", "list": "/pods", "secrets": "/secrets"}[measure])
    else:
        {"watches": watches, "exec": execute, "read": read, "write": write}[measure](count)


main()
