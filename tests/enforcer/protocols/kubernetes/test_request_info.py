"""What requests are taken for: real ones, and odd ones."""
from __future__ import annotations

import pytest

from enforcer.protocols.kubernetes.info import Info, Unclear
from enforcer.protocols.kubernetes.request_info import read_info
from enforcer.protocols.kubernetes.selectors import valid_labels
from enforcer.protocols.kubernetes.target_path import parse_target


def info(method: str, target: str) -> Info:
    path, query, _ = parse_target(target.encode())
    return read_info(method, path, query)


NAMED = "fieldSelector=metadata.name%3D"


@pytest.mark.parametrize(("method", "target", "told"), [        # verb group/version namespace resource/subresource name
    ("GET", "/api/v1/pods", "list /v1 - pods -"),
    ("HEAD", "/api/v1/pods", "list /v1 - pods -"),
    ("GET", "/api/v1/pods/", "list /v1 - pods -"),
    ("GET", "/api/v1/namespaces/shop/pods", "list /v1 shop pods -"),
    ("GET", "/api/v1/namespaces/shop/pods?watch=1", "watch /v1 shop pods -"),
    ("GET", "/api/v1/namespaces/shop/pods?watch", "watch /v1 shop pods -"),
    ("GET", "/api/v1/namespaces/shop/pods?watch=yes", "watch /v1 shop pods -"),
    ("GET", "/api/v1/namespaces/shop/pods?watch=False", "list /v1 shop pods -"),
    ("GET", "/api/v1/namespaces/shop/pods?watch=0", "list /v1 shop pods -"),
    ("GET", "/api/v1/namespaces/shop/pods/web?watch=1", "get /v1 shop pods web"),
    ("GET", "/api/v1/watch/namespaces/shop/pods", "watch /v1 shop pods -"),
    ("GET", "/api/v1/watch/namespaces/shop/pods/web", "watch /v1 shop pods web"),
    ("POST", "/api/v1/watch/pods", "watch /v1 - pods -"),
    ("GET", "/api/v1/proxy/namespaces/shop/services/web/x/y", "proxy /v1 shop services web"),
    ("GET", f"/api/v1/namespaces/shop/pods?{NAMED}web&watch=true", "watch /v1 shop pods web"),
    ("GET", f"/api/v1/namespaces/shop/pods?{NAMED}web,spec.nodeName!%3Dn", "list /v1 shop pods web"),
    ("GET", "/api/v1/namespaces/shop/pods?fieldSelector=metadata.name!%3Dweb", "list /v1 shop pods -"),
    ("GET", f"/api/v1/namespaces/shop/pods?{NAMED}a%5C%3Db", "list /v1 shop pods a=b"),
    *(("GET", f"/api/v1/namespaces/shop/pods?{NAMED}{name}", "list /v1 shop pods -") for name in ("a%25b", "a/b")),
    ("DELETE", f"/api/v1/namespaces/shop/pods?{NAMED}web", "deletecollection /v1 shop pods -"),
    ("DELETE", "/api/v1/namespaces/shop/pods/web", "delete /v1 shop pods web"),
    ("POST", "/api/v1/namespaces/shop/pods", "create /v1 shop pods -"),
    ("POST", "/api/v1/namespaces", "create /v1 - namespaces -"),
    ("GET", "/api/v1/namespaces/shop", "get /v1 shop namespaces shop"),
    ("PUT", "/api/v1/namespaces/shop/finalize", "update /v1 shop namespaces/finalize shop"),
    ("PATCH", "/api/v1/namespaces/shop/status", "patch /v1 shop namespaces/status shop"),
    ("GET", "/api/v1/namespaces/shop/pods/web/log?follow=true", "get /v1 shop pods/log web"),
    ("POST", "/api/v1/namespaces/shop/pods/web/exec?command=sh", "create /v1 shop pods/exec web"),
    ("GET", "/api/v1/namespaces/shop/pods/web/exec?command=sh", "get /v1 shop pods/exec web"),
    ("POST", "/api/v1/namespaces/shop/pods/web/eviction", "create /v1 shop pods/eviction web"),
    ("POST", "/api/v1/namespaces/shop/serviceaccounts/ci/token", "create /v1 shop serviceaccounts/token ci"),
    ("GET", "/api/v1/namespaces/shop/services/https:web:8443/proxy/a/b", "get /v1 shop services/proxy https:web:8443"),
    ("GET", "/api/v1/nodes/n1/proxy/metrics", "get /v1 - nodes/proxy n1"),
    ("PATCH", "/apis/apps/v1/namespaces/shop/deployments/web/scale", "patch apps/v1 shop deployments/scale web"),
    ("GET", "/apis/shop.example.com/v1alpha1/orders", "list shop.example.com/v1alpha1 - orders -"),
    ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
     "create authorization.k8s.io/v1 - selfsubjectaccessreviews -"),
    ("OPTIONS", "/api/v1/pods", " /v1 - pods -"),
    ("get", "/api/v1/pods", " /v1 - pods -"),
])
def test_resources(method: str, target: str, told: str) -> None:
    found = info(method, target)
    resource = f"{found.resource}/{found.subresource}" if found.subresource else found.resource
    assert found.is_resource
    assert (f"{found.verb} {found.group}/{found.version} {found.namespace or '-'} {resource} {found.name or '-'}"
            == told)


@pytest.mark.parametrize(("method", "target", "verb"), [
    ("GET", "/", "get"), ("GET", "/api", "get"), ("GET", "/api/v1", "get"), ("GET", "/apis", "get"),
    ("GET", "/apis/apps", "get"), ("GET", "/apis/apps/v1", "get"), ("POST", "/healthz/etcd/x/y", "post"),
    ("GET", "/API/v1/pods", "get"), ("GET", "/logs/a/b/c/d", "get"), ("HEAD", "/version", "head"),
])
def test_what_is_no_resource(method: str, target: str, verb: str) -> None:
    found = info(method, target)
    assert (found.is_resource, found.verb, found.path, found.resource) == (False, verb, target, "")


def test_selectors_are_those_of_what_selects() -> None:
    query = "?labelSelector=a%3Db&fieldSelector=x%3Dy"
    for method, target, told in (("GET", "/api/v1/pods", True), ("DELETE", "/api/v1/namespaces/a/pods", True),
                                 ("GET", "/api/v1/namespaces/a/pods/web", False), ("GET", "/api/v1/watch/pods", False)):
        found = info(method, target + query)
        assert (found.label_selector, found.field_selector) == (("a=b", "x=y") if told else ("", ""))


@pytest.mark.parametrize("target", [
    "/api/v1/watch", "/apis/apps/v1/proxy", "/api/v1/pods?watch=1&watch=0", "/api/v1/pods?watch=0&w%61tch=1",
    "/api/v1/pods?watch=fal%C5%BFe", "/api/v1/pods?limit=x", "/api/v1/pods?limit=", "/api/v1/pods?limit=1_0",
    "/api/v1/pods?limit=9223372036854775808", "/api/v1/pods?timeoutSeconds=1.5", "/api/v1/pods?fieldSelector=a",
    "/api/v1/pods?limit=%D9%A1", f"/api/v1/pods?{NAMED}a,metadata.name%3Db", f"/api/v1/pods?{NAMED}a%5Cx",
    f"/api/v1/pods?{NAMED}a%3Db", f"/api/v1/pods?{NAMED}a&labelSelector=,", f"/api/v1/pods?{NAMED}a&{NAMED}b",
    "/api/v1/namespaces/a/pods/web/exec?container=a&container=b", "/version?pretty=0&pretty=1",
])
def test_is_refused(target: str) -> None:
    with pytest.raises(Unclear):
        info("GET", target)


def test_the_query_of_what_is_proxied_is_another_servers() -> None:
    assert info("GET", "/api/v1/namespaces/a/services/web/proxy/x?limit=1&limit=2").subresource == "proxy"


@pytest.mark.parametrize(("selector", "valid"), [
    ("", True), (" ", True), ("a", True), ("!a", True), ("a=b", True), ("a==b,c!=d", True), ("a=", True),
    ("example.com/a in (b,c)", True), ("a notin (b),c", True), ("a in (,b)", True), ("a in ()", True), (" a = b ",
    True),
    (",", False), ("a,", False), ("a b", False), ("a=b=c", False), ("a in b", False), ("a in (b", False), ("-a", False),
    ("a=b/c", False), ("a/b/c", False), ("a in (b c)", False), ("(", False), (")", False),
])
def test_label_selectors(selector: str, valid: bool) -> None:
    assert valid_labels(selector) == valid


def test_hostile_selectors_take_no_time() -> None:
    for selector in ("a in (" + ",   " * 10_000 + "!", "a" * 60_000 + " ", "a in (" + " " * 60_000, "((((" * 10_000):
        assert not valid_labels(selector)
    with pytest.raises(Unclear):
        info("GET", "/api/v1/pods?fieldSelector=" + "%5C" * 20_001)
