"""Bodies of writes: what policies are told of them."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.protocols.kubernetes.facts import (
    ACCOUNTS,
    APPLY,
    COPIED,
    DIRECTED,
    JSON,
    LIMIT,
    MERGE,
    NAMES,
    STRATEGIC,
    TAKEN,
    Facts,
    read_facts,
)
from enforcer.protocols.kubernetes.info import Unclear

CONTAINER = {"name": "app", "image": "nginx:1.25"}
EVIL = {"name": "x", "image": "evil:1", "securityContext": {"privileged": True, "capabilities": {"add": ["SYS_ADMIN"]}}}
POD = {"serviceAccountName": "ci", "hostNetwork": True, "containers": [CONTAINER], "initContainers": [EVIL],
       "ephemeralContainers": [{"image": "busybox"}], "volumes": [{"name": "h", "hostPath": {"path": "/"}}]}
ALL = Facts((), (), ("ci",), ("busybox", "evil:1", "nginx:1.25"), True, True, True, True, ("SYS_ADMIN",), ())


def made(kind: str, spec: Any, group: str = "v1") -> dict[str, Any]:
    return {"apiVersion": group, "kind": kind, "metadata": {"name": "n"}, "spec": spec}


TEMPLATE = {"template": {"metadata": {"labels": {"a": "b"}}, "spec": POD}}


@pytest.mark.parametrize(("kind", "body"), [
    ("Pod", made("Pod", POD)),
    ("PodTemplate", {"apiVersion": "v1", "kind": "PodTemplate", **TEMPLATE}),
    *((kind, made(kind, TEMPLATE, "apps/v1")) for kind in (
        "Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "ReplicationController", "Job")),
    ("CronJob", made("CronJob", {"schedule": "* * * * *", "jobTemplate": {"spec": TEMPLATE}}, "batch/v1")),
    ("Rollout", made("Rollout", {"deep": [{"er": TEMPLATE}]}, "argoproj.io/v1alpha1")),
    ("Unknown", made("Unknown", {"containers": POD["containers"], **POD}, "x.example/v1")),
])
def test_pods_are_found_wherever_they_are(kind: str, body: object) -> None:
    assert read_facts(body) == Facts((kind,), *(getattr(ALL, name) for name in (
        "owners", "service_accounts", "images", "privileged", "host_namespaces", "host_path", "ephemeral",
        "capabilities", "opaque")))


def test_an_object_without_a_kind_hides_nothing() -> None:
    assert read_facts({"spec": POD}) == ALL


def test_lists_say_what_is_in_them() -> None:
    body = {"apiVersion": "v1", "kind": "List", "items": [made("Pod", POD), made("Secret", None)]}
    assert read_facts(body).kinds == ("List", "Pod", "Secret")
    assert read_facts(body).images == ALL.images


def test_owners() -> None:
    body = made("Pod", {"containers": [CONTAINER]}) | {"metadata": {"name": "n", "ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d9", "uid": "7", "controller": True}]}}
    assert read_facts(body) == Facts(("Pod",), ("ReplicaSet/web-5d9",), images=("nginx:1.25",))


@pytest.mark.parametrize(("spec", "told"), [
    ({"hostPID": True}, {"host_namespaces": True}),
    ({"hostIPC": True}, {"host_namespaces": True}),
    ({"hostNetwork": False, "hostUsers": True}, {}),
    ({"containers": [{"securityContext": {"privileged": False, "capabilities": {"drop": ["ALL"]}}}]}, {}),
    ({"securityContext": {"windowsOptions": {"hostProcess": True}}}, {"privileged": True}),
    ({"hoſtnetworK": True, "Hostnetwork": 1}, {"host_namespaces": True}),          # as lenient decoders read
    ({"serviceAccount": "old", "serviceAccountName": "new"}, {"service_accounts": ("new", "old")}),
    ({"serviceAccount": {"name": "named"}}, {"service_accounts": ("named",)}),
    ({"serviceAccountName": ""}, {}),
    ({"volumes": [{"image": {"reference": "data:1", "pullPolicy": "Always"}}]}, {"images": ("data:1",)}),
    ({"volumes": [{"hostPath": None}]}, {}),
    ({"local": {"path": "/mnt/disk"}}, {"host_path": True}),                       # of a PersistentVolume
    ({"local": {"name": "x"}}, {}),
    ({"hostPath": {"path": "/var", "properties": 1}}, {"host_path": True}),
    ({"hostPath": {"type": "object", "properties": {"path": {"type": "string"}}}}, {}),      # a schema of one
    ({"properties": {"privileged": {"type": "boolean"}, "image": {"type": "string"}}}, {}),
    ({"ephemeralContainers": []}, {}),
])
def test_fields(spec: object, told: dict[str, Any]) -> None:
    assert read_facts(made("X", spec)) == Facts(("X",), **told)


def test_what_the_server_says_of_containers_is_not_what_they_run() -> None:
    body = made("Pod", {"containers": [CONTAINER]}) | {"status": {
        "containerStatuses": [{"image": "docker.io/library/nginx:1.25", "imageID": "sha256:1"}]}}
    assert read_facts(body).images == ("nginx:1.25",)


@pytest.mark.parametrize("patch", [MERGE, STRATEGIC, APPLY])
def test_patches_say_what_they_add(patch: str) -> None:
    assert read_facts({"spec": {"template": {"spec": POD}}}, patch) == ALL
    assert read_facts({"spec": {"replicas": 3}}, patch) == Facts()


@pytest.mark.parametrize(("patch", "body", "reason"), [
    (MERGE, {"spec": {"serviceAccountName": None}}, TAKEN),
    (STRATEGIC, {"spec": {"template": {"spec": {"securityContext": None}}}}, TAKEN),
    (MERGE, {"metadata": {"annotations": {"a": None}}}, ""),
    (STRATEGIC, {"spec": {"containers": [{"$patch": "replace"}]}}, DIRECTED),
    (STRATEGIC, {"spec": {"$patch": "delete"}}, DIRECTED),
    (STRATEGIC, {"spec": {"$retainKeys": ["type"]}}, DIRECTED),
    (STRATEGIC, {"spec": {"$deleteFromPrimitiveList/finalizers": ["x"]}}, DIRECTED),
    (STRATEGIC, {"spec": {"$setElementOrder/containers": [{"name": "app"}]}}, ""),
    (JSON, [{"op": "copy", "from": "/spec/a", "path": "/spec/b"}], COPIED),
    (JSON, [{"op": "move", "from": "/spec/a", "path": "/spec/b"}], COPIED),
    (JSON, [{"op": "remove", "path": "/spec/template/spec/containers/0/securityContext"}], TAKEN),
    (JSON, [{"op": "remove", "path": "/data/a"}, {"op": "test", "path": "/spec", "value": POD}], ""),
])
def test_patches_that_do_not_say_all(patch: str, body: object, reason: str) -> None:
    assert read_facts(body, patch) == Facts(opaque=(reason,) if reason else ())


@pytest.mark.parametrize(("path", "value", "told"), [
    ("/spec/template/spec/hostNetwork", True, {"host_namespaces": True}),
    ("/spec/containers/0/image", "evil", {"images": ("evil",)}),
    ("/spec/containers/-", EVIL, {"images": ("evil:1",), "privileged": True, "capabilities": ("SYS_ADMIN",)}),
    ("/spec/containers/0/securityContext/privileged", True, {"privileged": True}),
    ("/spec/containers/0/securityContext/capabilities/add/-", "NET_ADMIN", {"capabilities": ("NET_ADMIN",)}),
    ("/spec/containers/-1/securityContext/capabilities/add/-1", "NET_ADMIN", {"capabilities": ("NET_ADMIN",)}),
    ("/spec/volumes/0/hostPath/path", "/etc", {"host_path": True}),
    ("/spec/serviceAccountName", "admin", {"service_accounts": ("admin",)}),
    ("/spec/ephemeralContainers", [{"name": "d"}], {"ephemeral": True}),
    ("/metadata/ownerReferences/0/kind", "Node", {"owners": ("Node/",)}),
    ("", made("Pod", {"hostPID": True}), {"kinds": ("Pod",), "host_namespaces": True}),
    ("/metadata/annotations/a~1hostPID", True, {}),
])
def test_json_patches_are_laid_out(path: str, value: object, told: dict[str, Any]) -> None:
    for operation in ("add", "replace"):
        assert read_facts([{"op": operation, "path": path, "value": value}], JSON) == Facts(**told)


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """(JSON pointer, value) of everything in it that holds nothing more."""
    steps: Iterable[tuple[object, object]] = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    empty = True
    for step, one in steps:
        empty = False
        yield from leaves(one, f"{path}/{str(step).replace('~', '~0').replace('/', '~1')}")
    if empty:
        yield path, value


FIELDS = st.sampled_from([
    ("image", "a"), ("image", 1), ("serviceAccountName", "ci"), ("serviceAccount", "x"), ("privileged", True),
    ("privileged", "true"), ("hostNetwork", True), ("hostPID", False), ("hostProcess", True), ("a/b~c", True),
    ("hostPath", {"path": "/"}), ("capabilities", {"add": ["NET_ADMIN", "SYS_TIME"], "drop": ["ALL"]}), ("0", True),
    ("ephemeralContainers", [{"image": "d"}]), ("containerStatuses", [{"image": "no"}]), ("add", ["X"])])
OBJECTS = st.recursive(
    st.lists(FIELDS, max_size=4).map(dict),
    lambda inner: st.dictionaries(
        st.sampled_from(["spec", "template", "containers", "securityContext", "x", "1"]),
        st.one_of(inner, st.lists(inner, max_size=3)), max_size=3), max_leaves=8)


@settings(max_examples=150, deadline=None)
@given(OBJECTS)
def test_what_is_patched_in_bit_by_bit_is_told_as_if_it_were_written_at_once(body: dict[str, Any]) -> None:
    whole = read_facts(body)
    parts = [read_facts([{"op": "add", "path": path, "value": value}], JSON) for path, value in leaves(body)]
    for name in ("images", "service_accounts", "capabilities"):
        assert set(getattr(whole, name)) == {one for part in parts for one in getattr(part, name)}
    for name in ("privileged", "host_namespaces", "host_path", "ephemeral"):
        assert getattr(whole, name) == any(getattr(part, name) for part in parts)


@pytest.mark.parametrize("body", [
    {}, "x", None, [1], [{}], [{"op": "add"}], [{"op": "add", "path": 1}], [{"op": "add", "path": "spec"}],
    [{"op": "Add", "path": "/a", "value": 1}], [{"path": "/a"}],
])
def test_what_is_no_json_patch_is_refused(body: object) -> None:
    with pytest.raises(Unclear):
        read_facts(body, JSON)


@pytest.mark.parametrize("make", [
    lambda: [0] * (LIMIT + 1), lambda: {"a": [{}] * (LIMIT + 1)},
    lambda: [{"serviceAccountName": str(number)} for number in range(ACCOUNTS + 1)],
    lambda: [{"image": str(number)} for number in range(NAMES + 1)],
    lambda: [{"capabilities": {"add": list(map(str, range(NAMES + 1)))}}]])
def test_is_bounded(make: Callable[[], object]) -> None:
    with pytest.raises(Unclear) as refused:
        read_facts(make())
    assert refused.value.status == 413


def test_depth_is_no_matter() -> None:
    body: object = {"privileged": True}
    for _ in range(10_000):
        body = {"a": [body]}
    assert read_facts(body).privileged
    assert read_facts([{"op": "add", "path": "/a/0" * 10_000 + "/privileged", "value": True}], JSON).privileged


@pytest.mark.parametrize("body", [
    None, 1, "x", True, [], [None, [[]]], {"kind": 1, "apiVersion": 2}, {1: {"image": None}},
    {"capabilities": {"add": "ALL"}}, {"ownerReferences": "x"}, {"image": [1]}, {"serviceAccount": []}])
def test_odd_values_are_no_mistake(body: object) -> None:
    assert read_facts(body).images == ()
