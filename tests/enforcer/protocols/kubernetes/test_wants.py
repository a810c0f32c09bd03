"""What policy is asked about requests."""
from __future__ import annotations

from typing import Any

import pytest
from kubepaths import accepted

from enforcer.http.messages import Headers
from enforcer.policy.model import fits
from enforcer.protocols.kubernetes.facts import UNREAD
from enforcer.protocols.kubernetes.info import Unclear
from enforcer.protocols.kubernetes.request_info import read_info
from enforcer.protocols.kubernetes.target_path import parse_target
from enforcer.protocols.kubernetes.wants import Wants, ask_port, read_wants

POD = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"image": "nginx"}]}}
PODS = "/api/v1/namespaces/shop/pods"


def wants(method: str, target: str, body: object = None, headers: Headers = ()) -> Wants:
    path, query, _ = parse_target(target.encode())
    found = read_wants("prod", read_info(method, path, query), query, headers, body, method=method)
    assert found.requests
    assert all(map(fits, found.requests))
    return found


def said(method: str, target: str, body: object = None, headers: Headers = ()) -> dict[str, Any]:
    return dict(wants(method, target, body, headers).requests[0].attributes)


@pytest.mark.parametrize(("method", "target", "verb", "action", "resource"), [
    ("GET", PODS, "list", "k8s:list", "Resource prod shop pods"),
    ("GET", "/api/v1/pods", "list", "k8s:list", "Resource prod * pods"),
    ("HEAD", f"{PODS}/web", "get", "k8s:get", "Object prod shop pods web"),
    ("GET", f"{PODS}?watch=1", "watch", "k8s:watch", "Resource prod shop pods"),
    ("GET", f"{PODS}?fieldSelector=metadata.name%3Dweb", "list", "k8s:list", "Object prod shop pods web"),
    ("GET", "/api/v1/namespaces/shop", "get", "k8s:get", "Object prod shop namespaces shop"),
    ("GET", "/api/v1/namespaces", "list", "k8s:list", "Resource prod * namespaces"),
    ("GET", "/api/v1/nodes/n1", "get", "k8s:get", "Object prod * nodes n1"),
    ("DELETE", f"{PODS}/web", "delete", "k8s:delete", "Object prod shop pods web"),
    ("DELETE", PODS, "deletecollection", "k8s:deletecollection", "Resource prod shop pods"),
    ("GET", f"{PODS}/web/log", "get", "k8s:get", "Object prod shop pods/log web"),
    ("GET", "/apis/apps/v1/namespaces/shop/deployments/web/scale", "get", "k8s:get",
     "Object prod shop deployments.apps/scale web"),
    ("GET", f"{PODS}/web/exec?command=sh", "exec", "k8s:exec", "Object prod shop pods/exec web"),
    ("POST", f"{PODS}/web/exec?command=sh", "exec", "k8s:exec", "Object prod shop pods/exec web"),
    ("POST", f"{PODS}/web/attach", "attach", "k8s:attach", "Object prod shop pods/attach web"),
    ("GET", f"{PODS}/web/portforward?ports=80", "port-forward", "k8s:portforward",
    "Object prod shop pods/portforward web"),
    ("DELETE", "/api/v1/namespaces/shop/services/web/proxy/x", "proxy", "k8s:proxy",
    "Object prod shop services/proxy web"),
    ("OPTIONS", "/api/v1/nodes/n1:10250/proxy/", "proxy", "k8s:proxy", "Object prod * nodes/proxy n1"),
    ("GET", "/healthz", "get", "k8s:get", "Url prod /healthz"),
    ("HEAD", "/apis/apps/v1", "get", "k8s:get", "Url prod /apis/apps/v1"),
    ("POST", "/logs/x", "call", "k8s:call", "Url prod /logs/x"),
    ("OPTIONS", "/", "call", "k8s:call", "Url prod /"),
])
def test_action_and_resource(method: str, target: str, verb: str, action: str, resource: str) -> None:
    found = wants(method, target)
    assert (found.verb, len(found.requests)) == (verb, 1)
    assert (found.requests[0].action, " ".join((found.requests[0].kind, *found.requests[0].path))) == (action, resource)


@pytest.mark.parametrize(("method", "target", "writes"), [
    ("GET", PODS, False), ("GET", f"{PODS}?watch=1", False), ("DELETE", PODS, True),
    ("GET", f"{PODS}/web/exec", True), ("GET", f"{PODS}/web/proxy/", False), ("POST", f"{PODS}/web/proxy/", True),
    ("POST", "/logs", True), ("GET", "/version", False),
    ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", False),
    ("POST", "/apis/example.com/v1/reviews", True),
])
def test_what_writes(method: str, target: str, writes: bool) -> None:
    assert wants(method, target, POD if method == "POST" else None).writes == writes


@pytest.mark.parametrize(("method", "target", "status"), [
    ("OPTIONS", PODS, 405), ("get", PODS, 405), ("TRACE", PODS, 405), ("FOO", "/version", 405), ("get", "/version",
    405),
    ("CONNECT", "/version", 405), ("PUT", f"{PODS}/web/exec", 405), ("DELETE", f"{PODS}/web/portforward", 405),
    ("TRACE", f"{PODS}/web/proxy", 405), ("POST", "/api/v1/watch/pods", 405), ("GET", "/api/v1/proxy/nodes/n1", 405),
    ("GET", "/api/v1/watch/namespaces/a/pods/web/exec", 405),
    ("GET", "/api/v1/namespaces/*/pods", 400), ("GET", "/api/v1/namespaces/A/pods", 400),
    ("GET", "/api/v1/namespaces/a.b/pods", 400), ("GET", "/api/v1/deployments.apps", 400), ("GET", "/api/v1/Pods", 400),
    ("GET", "/apis/Apps/v1/deployments", 400), ("GET", "/api/v1/namespaces/shop/pods/web/l%20og", 400),
    ("GET", "/apis/a%20b/v1/deployments", 400),
    ("GET", "/api/v1/namespaces/shop/services/:80/proxy", 400),
    ("GET", "/api/v1/namespaces/shop/services/ftp:a:80/proxy", 400),
    ("GET", f"{PODS}/web/portforward?ports=80,x", 400), ("GET", f"{PODS}/web/portforward?ports=65536", 400),
    ("GET", f"{PODS}/web/portforward?ports=080", 400), ("DELETE", f"{PODS}/web?dryRun=Some", 400),
    ("DELETE", f"{PODS}/web?dryRun=", 400),
])
def test_is_refused(method: str, target: str, status: int) -> None:
    with pytest.raises(Unclear) as refused:
        wants(method, target)
    assert refused.value.status == status


def test_attributes_of_path_and_query() -> None:
    found = said("GET", f"{PODS}/web/exec?command=ls&command=-l&container=app")
    assert (found["path"], found["version"], found["command"], found["container"], found["ports"]) == (
        f"{PODS}/web/exec", "v1", ("ls", "-l"), "app", ())
    assert (found["line"], found["method"]) == ("ls -l", "GET")
    assert said("POST", f"{PODS}/web/exec?command=sh&command=-c&command=a%20b")["line"] == "sh -c 'a b'"
    found = said("GET", f"{PODS}?labelSelector=app%3Dweb&fieldSelector=spec.nodeName%3Dn1")
    assert (found["labels"], found["fields"]) == ("app=web", "spec.nodeName=n1")
    assert said("GET", f"{PODS}/web/portforward?ports=80,81&ports=82")["ports"] == ("80", "81", "82")
    assert said("GET", "/api/v1/namespaces/shop/services/https:web:8443/proxy/a")["ports"] == ("8443",)
    assert said("GET", "/api/v1/namespaces/shop/services/web/proxy/?command=x")["ports"] == ()


def test_ports_of_a_forward_are_asked_one_by_one() -> None:
    path, query, _ = parse_target(f"{PODS}/web/portforward".encode())
    found = ask_port("prod", read_info("POST", path, query), 5432)
    assert fits(found)
    assert (found.action, found.path, dict(found.attributes)["ports"]) == (
        "k8s:portforward", ("prod", "shop", "pods/portforward", "web"), ("5432",))


def test_what_a_body_says() -> None:
    evil = {"kind": "Pod", "spec": {"hostNetwork": True, "containers": [{"securityContext": {"privileged": True}}]}}
    found = said("POST", PODS, evil)
    assert (found["kinds"], found["privileged"], found["host_namespaces"]) == (("Pod",), True, True)
    patch = ((b"content-type", b"application/json-patch+json; charset=utf-8"),)
    found = said("PATCH", f"{PODS}/web", [{"op": "add", "path": "/spec/containers/-", "value": {"image": "x"}}], patch)
    assert found["images"] == ("x",)
    assert said("PATCH", f"{PODS}/web/ephemeralcontainers", {}, (
        (b"content-type", b"application/strategic-merge-patch+json"),))["ephemeral"]


def test_a_body_that_is_not_read_is_opaque() -> None:
    for method, target in (("POST", PODS), ("PUT", f"{PODS}/web"), ("PATCH", f"{PODS}/web")):
        assert said(method, target)["opaque"] == (UNREAD,)
    assert said("DELETE", f"{PODS}/web")["opaque"] == ()
    with pytest.raises(Unclear) as refused:
        wants("PATCH", f"{PODS}/web", {}, ((b"content-type", b"application/json"),))
    assert refused.value.status == 415


def test_each_service_account_is_asked_for() -> None:
    body = {"spec": {"serviceAccountName": "b", "serviceAccount": "a"}}
    asked = wants("POST", PODS, body).requests
    assert [dict(one.attributes)["service_account"] for one in asked] == ["a", "b"]


@pytest.mark.parametrize(("method", "target", "body", "tried"), [
    ("POST", f"{PODS}?dryRun=All", POD, True), ("POST", f"{PODS}?dryRun=All&dryRun=All", POD, True),
    ("POST", PODS, {**POD, "dryRun": ["All"]}, False), ("DELETE", f"{PODS}/web?dryRun=All", None, True),
    ("DELETE", f"{PODS}/web", {"dryRun": ["All"]}, True), ("DELETE", f"{PODS}/web?dryRun=All", {"dryRun": ["All"]},
    True),
    ("DELETE", f"{PODS}/web", {}, False), ("DELETE", PODS, {"dryRun": []}, False),
    ("POST", f"{PODS}/web/eviction", {"deleteOptions": {"dryRun": ["All"]}}, True),
    ("POST", f"{PODS}/web/eviction?dryRun=All", {"deleteOptions": None}, True),
    ("GET", f"{PODS}?dryRun=All", None, False), ("POST", f"{PODS}/web/exec?dryRun=All", None, False),
    ("POST", f"{PODS}/web/proxy/?dryRun=x", None, False),
    ("POST", "/api/v1/namespaces/shop/serviceaccounts/ci/token?dryRun=All", {}, False),      # it is made all the same
])
def test_dry_run(method: str, target: str, body: object, tried: bool) -> None:
    found = wants(method, target, body)
    assert dict(found.requests[0].attributes)["dry_run"] == tried


@pytest.mark.parametrize("body", [{}, {"dryRun": []}, {"dryRun": None}, {"dryRun": "All"}, {"dryRun": ["all"]}, [],
"x"])
def test_a_delete_that_only_seems_to_be_tried_is_refused(body: object) -> None:
    with pytest.raises(Unclear):
        wants("DELETE", f"{PODS}/web?dryRun=All", body)


@pytest.mark.parametrize(("headers", "told"), [
    ((), ()),
    (((b"impersonate-user", b"ada"),), ("user ada",)),
    (((b"impersonate-user", b"system:node:n"), *((b"impersonate-group", one) for one in (b"b", b"a", b"b"))),
     ("user system:node:n", "group b", "group a")),
    (((b"impersonate-uid", b"7"), (b"impersonate-user", b"a"), (b"impersonate-extra-example.com%2fScopes", b"x y")),
     ("uid 7", "user a", "extra example.com/scopes=x y")),
])
def test_whom_it_acts_as(headers: Headers, told: tuple[str, ...]) -> None:
    found = wants("GET", PODS, headers=headers)
    assert [(one.action, one.kind, one.path) for one in found.requests[1:]] == [
        ("k8s:impersonate", "Identity", ("prod", one)) for one in told]


@pytest.mark.parametrize("headers", [
    [(b"impersonate-user", b"")], [(b"impersonate-user", b"a"), (b"impersonate-user", b"a")], [(b"impersonate-group",
    b"a")],
    [(b"impersonate-uid", b"a")], [(b"impersonate-extra-a", b"a")], [(b"impersonate-user", b"\xff")],
    [(b"impersonate-user", b"a"), (b"impersonate-other", b"a")], [(b"impersonate-user", b"a"), (b"impersonate-extra-",
    b"a")],
    [(b"impersonate-user", b"a"), (b"impersonate-extra-%zz", b"a")], [(b"impersonate-user", b"a\tb")],
    [(b"impersonate-user", b"a"), (b"impersonate-group", b"")], [(b"impersonate-user", b"a"),
    (b"impersonate-extra-%FF", b"")],
])
def test_nobody_to_act_as(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Unclear):
        wants("GET", PODS, headers=tuple(headers))


def test_shapes() -> None:
    shape = wants("DELETE", f"{PODS}/a").shape
    assert shape == wants("DELETE", f"{PODS}/b").shape
    others = [wants("DELETE", f"{PODS}/a?dryRun=All"), wants("DELETE", "/api/v1/namespaces/other/pods/a"),
              wants("GET", f"{PODS}/a"), wants("DELETE", PODS), wants("DELETE", f"{PODS}/a", headers=(
                  (b"impersonate-user", b"x"),)), wants("DELETE", "/api/v1/namespaces/shop/secrets/a")]
    assert shape not in [one.shape for one in others]
    run = f"{PODS}/a/exec?command=sh"
    assert wants("GET", run).shape == wants("GET", run.replace("/a/", "/b/")).shape
    assert wants("GET", run).shape not in (wants("GET", f"{run}&stdin=true").shape, wants("GET", f"{run}&tty=1").shape)
    assert wants("POST", "/api/v1/namespaces/shop/services/web/proxy/health").shape == b""
    one, two = (wants("GET", f"{PODS}/a/exec?command={c}") for c in ("a&command=b", "b&command=a"))
    assert one.shape != two.shape


def test_whatever_is_asked_fits_policy_or_is_refused() -> None:
    asked = refused = 0
    for method, target, _, info in accepted(7, 4_000):
        _, query, _ = parse_target(target.encode())
        try:
            found = read_wants("prod", info, query, (), {}, method=method)
        except Unclear:
            refused += 1
            continue
        asked += 1
        assert all(map(fits, found.requests)), target
        assert found.requests[0].kind == "Url" or "." not in info.resource
    assert asked > 500
    assert refused > 500
