"""The Python client: what it says of namespace shop, as JSON.  KUBECONFIG says where, and who asks."""
from __future__ import annotations

import json
from typing import Any

from kubernetes import client, config, dynamic, watch
from kubernetes.stream import portforward, stream

NAMESPACE, POD = "shop", "web"
MADE = "made-by-python"


def main() -> None:
    config.load_kube_config()
    core = client.CoreV1Api()
    said: dict[str, Any] = {
        "pods": [pod.metadata.name for pod in core.list_namespaced_pod(NAMESPACE, label_selector="app=web").items],
        "secret": core.read_namespaced_secret("db", NAMESPACE).type,
        "writes": writes(core), "exec": executed(core), "shell": interactive(core), "dynamic": by_dynamic(),
        "denied": denied(core), "forward": forwarded(core),
    }
    print(json.dumps(said, sort_keys=True))


def writes(core: client.CoreV1Api) -> list[Any]:
    """A ConfigMap's life, and what a watch that began before tells of it."""
    version = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=MADE), data={"step": "1"})
    core.create_namespaced_config_map(NAMESPACE, body)
    core.patch_namespaced_config_map(MADE, NAMESPACE, {"data": {"step": "2"}})
    core.delete_namespaced_config_map(MADE, NAMESPACE)
    told, watching = [], watch.Watch()
    for event in watching.stream(
        core.list_namespaced_config_map, NAMESPACE, resource_version=version,
        field_selector=f"metadata.name={MADE}", timeout_seconds=60,
    ):
        told.append([event["type"], event["object"].data])
        if event["type"] == "DELETED":
            watching.stop()
    return told


def executed(core: client.CoreV1Api) -> str:
    words = ["sh", "-c", "echo out; echo err >&2"]
    answer: str = stream(core.connect_get_namespaced_pod_exec, POD, NAMESPACE, command=words, stdout=True, stderr=True,
                         stdin=False, tty=False)
    return "".join(sorted(answer.splitlines(keepends=True)))


def interactive(core: client.CoreV1Api) -> list[Any]:
    shell = stream(core.connect_get_namespaced_pod_exec, POD, NAMESPACE, command=["sh"], stdout=True, stderr=True,
                   stdin=True, tty=False, _preload_content=False)
    shell.write_stdin("echo $((6 * 7)); exit 3\n")
    shell.run_forever(timeout=60)
    return [shell.read_stdout(), shell.returncode]


def by_dynamic() -> list[Any]:
    orders = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="shop.example.com/v1", kind="Order")
    return [[one.metadata.name, one.spec.customer] for one in orders.get(namespace=NAMESPACE).items]


def denied(core: client.CoreV1Api) -> list[Any]:
    try:
        core.read_namespaced_secret("absent", NAMESPACE)
    except client.ApiException as error:
        return [error.status, error.reason]
    return []


def forwarded(core: client.CoreV1Api) -> str:
    """Port 7777 of the pod says again, in upper case, what it was told."""
    forward = portforward(core.connect_get_namespaced_pod_portforward, POD, NAMESPACE, ports="7777")
    socket = forward.socket(7777)
    socket.sendall(b"hello")
    got = b""
    while len(got) < 5:
        got += socket.recv(100)
    socket.close()
    return got.decode()


if __name__ == "__main__":
    main()
