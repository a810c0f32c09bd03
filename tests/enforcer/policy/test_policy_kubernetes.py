"""Policies on clusters: attributes, groups of actions, the base policy, tables, explain."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.cli import weir
from agent.contract.owner import Owner
from enforcer.core.gate import CedarGate
from enforcer.policy.cedar import load_policies
from enforcer.policy.evaluation import rule
from enforcer.policy.model import fits
from enforcer.policy.tables import failures, parse_table
from enforcer.protocols.kubernetes.explained import requests_of
from enforcer.words.decisions import DENY, PERMIT
from enforcer.words.errors import ConfigError
from enforcer.words.operations import Principal, Request

WHO = Principal("local:u", ("ops",), Owner("", 1, "u", "local:u", ("ops",), None, "", 1, "h", 5, "mark"))
PODS = "/api/v1/namespaces/shop/pods"
POD = '{"kind": "Pod", "spec": {"containers": [{"image": "registry.example/web:1"}]}}'
EVIL = '{"kind": "Pod", "spec": {"containers": [{"image": "x", "securityContext": {"privileged": true}}]}}'


def asked(method: str, path: str, body: str | None = None) -> tuple[Request, ...]:
    requests, error = requests_of("prod", method, path, body)
    assert not error, error
    assert all(map(fits, requests))
    return requests


def permitted(policy: str, method: str, path: str, body: str | None = None) -> bool:
    policies = load_policies({"f.cedar": policy})
    return all(rule(policies, WHO, one, False).outcome == PERMIT for one in asked(method, path, body))


def permit(scope: str, condition: str = "true") -> str:
    return f'@id("x") permit (principal, {scope}) when {{ {condition} }};'


ANY = "action, resource"
READ = 'action in Action::"k8s:read", resource'
WRITE = 'action in Action::"k8s:write", resource'


@pytest.mark.parametrize(("policy", "method", "path", "body", "outcome"), [
    (permit('action in Action::"k8s", resource in Target::"prod"'), "GET", PODS, None, True),
    (permit('action in Action::"k8s", resource in Target::"other"'), "GET", PODS, None, False),
    (permit(READ), "GET", f"{PODS}?watch=1", None, True),
    (permit(READ), "GET", f"{PODS}/web/log", None, True),
    (permit(READ), "GET", f"{PODS}/web/exec", None, False),
    (permit(READ), "GET", f"{PODS}/web/proxy/", None, False),
    (permit(READ), "DELETE", PODS, None, False),
    (permit('action in Action::"k8s:read", resource in Namespace::"prod/shop"'), "GET", PODS, None, True),
    (permit('action in Action::"k8s:read", resource in Namespace::"prod/shop"'), "GET", "/api/v1/pods", None, False),
    (permit('action in Action::"k8s:read", resource in Namespace::"prod/*"'), "GET", "/api/v1/pods", None, True),
    (permit('action in Action::"k8s:read", resource in Resource::"prod/shop/pods"'), "GET", f"{PODS}/web", None, True),
    (permit('action in Action::"k8s:read", resource in Resource::"prod/shop/pods"'), "GET", PODS, None, True),
    (permit('action in Action::"k8s:read", resource in Resource::"prod/shop/pods"'), "GET", f"{PODS}/web/log", None,
    False),
    (permit('action in Action::"k8s:read", resource == Object::"prod/shop/pods%2Flog/web"'), "GET", f"{PODS}/web/log",
     None, True),
    (permit(READ, 'resource.resource == "pods/log" && resource.namespace == "shop"'), "GET", f"{PODS}/web/log", None,
    True),
    (permit(READ, 'resource.resource == "deployments" && resource.group == "apps"'), "GET",
     "/apis/apps/v1/namespaces/shop/deployments", None, True),
    (permit(READ, 'resource.resource == "deployments" && resource.group == ""'), "GET",
     "/apis/apps/v1/namespaces/shop/deployments", None, False),
    (permit(READ, 'resource.namespace == ""'), "GET", "/api/v1/nodes", None, True),
    (permit(WRITE, "!resource.privileged"), "POST", PODS, POD, True),
    (permit(WRITE, "!resource.privileged"), "POST", PODS, EVIL, False),
    (permit(WRITE, "resource.dry_run"), "POST", f"{PODS}?dryRun=All", POD, True),
    (permit(WRITE, "resource.dry_run"), "POST", PODS, POD, False),
    (permit(WRITE, '["registry.example/web:1"].containsAll(resource.images)'), "POST", PODS, POD, True),
    (permit(WRITE, '["registry.example/web:1"].containsAll(resource.images)'), "POST", PODS, EVIL, False),
    (permit(WRITE, 'resource.service_account == "a"'), "POST", PODS, '{"serviceAccountName": "a"}', True),
    (permit(WRITE, 'resource.service_account == "a"'), "POST", PODS,
     '{"serviceAccountName": "a", "serviceAccount": "b"}', False),
    (permit(WRITE, "resource.opaque.isEmpty()"), "PATCH", f"{PODS}/web", "spec: {securityContext: null}", False),
    (permit(WRITE, "resource.opaque.isEmpty()"), "PATCH", f"{PODS}/web", "metadata: {labels: {a: null}}", True),
    (permit('action == Action::"k8s:exec", resource', 'resource.command == ["ls"]'), "GET",
    f"{PODS}/web/exec?command=ls",
     None, True),
    (permit('action == Action::"k8s:exec", resource', 'resource.command == ["ls"]'), "GET",
     f"{PODS}/web/exec?command=ls&command=-l", None, False),
    (permit('action == Action::"k8s:portforward", resource', '["5432"].containsAll(resource.ports)'), "GET",
     f"{PODS}/web/portforward?ports=5432", None, True),
    (permit('action == Action::"k8s:portforward", resource', '["5432"].containsAll(resource.ports)'), "GET",
     f"{PODS}/web/portforward?ports=22", None, False),
    (permit('action == Action::"k8s:exec", resource', 'resource.line == "ls -l"'), "POST",
     f"{PODS}/web/exec?command=ls&command=-l", None, True),
    (permit('action == Action::"k8s:exec", resource', 'resource.line == "ls -l"'), "POST",
     f"{PODS}/web/exec?command=-l&command=ls", None, False),
    (permit('action == Action::"k8s:proxy", resource', 'resource.method == "GET"'), "GET",
     "/api/v1/namespaces/shop/services/web/proxy/", None, True),
    (permit('action == Action::"k8s:proxy", resource', 'resource.method == "GET"'), "POST",
     "/api/v1/namespaces/shop/services/web/proxy/", None, False),
    (permit('action == Action::"k8s:call", resource', 'resource.path == "/x"'), "POST", "/x", None, True),
])
def test_policies(policy: str, method: str, path: str, body: str | None, outcome: bool) -> None:
    assert permitted(policy, method, path, body) == outcome


def test_a_forbid_of_what_is_privileged() -> None:
    policy = (permit(ANY) + '@id("no") forbid (principal, action in Action::"k8s:write", resource) '
              "when { resource.privileged };")
    assert permitted(policy, "POST", PODS, POD)
    assert not permitted(policy, "POST", PODS, EVIL)
    assert permitted(policy, "DELETE", f"{PODS}/web")


def test_acting_as_somebody_is_asked_for() -> None:
    policies = load_policies({"f.cedar": permit(
        'action == Action::"k8s:impersonate", resource',
        'resource.kind == "user" && resource.name == "system:node:a"')})
    for who, outcome in (("user system:node:a", PERMIT), ("user b", DENY), ("group system:node:a", DENY)):
        assert rule(policies, WHO, Request("k8s:impersonate", "Identity", ("prod", who)), False).outcome == outcome
    assert rule(load_policies({"f.cedar": permit(READ)}), WHO, Request("k8s:impersonate", "Identity", ("prod",
    "user a")),
                False).outcome == DENY


@pytest.mark.parametrize(("method", "path", "body", "outcome"), [
    *(("GET", path, None, True) for path in (
        "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/version", "/openapi/v2",
        "/openapi/v3/apis/apps/v1",
        "/healthz")),
    *(("GET", path, None, False) for path in ("/", "/metrics", "/logs/", "/debug/pprof/", "/configz", PODS,
    "/api/v1/nodes")),
    ("POST", "/api/v1", None, False), ("POST", "/version", None, False),
    ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "{}", True),
    ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", "{}", True),
    ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", "{}", False),
    ("POST", "/apis/authorization.k8s.io/v1/namespaces/shop/localsubjectaccessreviews", "{}", False),
    ("POST", "/apis/evil.example/v1/selfsubjectaccessreviews", "{}", False),
])
def test_the_base_policy(method: str, path: str, body: str | None, outcome: bool) -> None:
    policies = load_policies({})
    assert all((rule(policies, WHO, one, False).outcome == PERMIT) == outcome for one in asked(method, path, body))


@pytest.mark.parametrize(("method", "path", "reason"), [
    ("GET", PODS, "k8s:list on resource shop/pods is denied: no policy permits it"),
    ("GET", f"{PODS}/web/log", "k8s:get on object shop/pods/log/web is denied: no policy permits it"),
    ("GET", "/metrics", "k8s:get on url /metrics is denied: no policy permits it"),
])
def test_reasons(method: str, path: str, reason: str) -> None:
    assert CedarGate(load_policies({})).decide(WHO, asked(method, path)).reason == reason


TABLE = """
local:u  ops  k8s:list         Resource::prod/shop/pods                                      permit
local:u  ops  k8s:list         Resource::prod/*/pods                                         deny
local:u  ops  k8s:get          Object::prod/shop/pods/web                                    permit
local:u  ops  k8s:get          Object::prod/shop/pods/log/web                                permit
local:u  ops  k8s:get          Object::prod/shop/pods%2Flog/web                              permit
local:u  ops  k8s:get          Object::prod/other/pods/log/web                               deny
local:u  ops  k8s:create       Resource::"prod/shop/pods images=a images=b"                  permit
local:u  ops  k8s:create       Resource::"prod/shop/pods images=a images=b images=c"         deny
local:u  ops  k8s:create       Resource::"prod/shop/pods privileged images=a"                deny
local:u  ops  k8s:create       Resource::"prod/shop/deployments.apps privileged=false"       permit
local:u  ops  k8s:create       Resource::"prod/shop/pods/eviction service_account=x"         permit
local:u  ops  k8s:get          Url::prod//version                                            permit
local:u  ops  k8s:call         Url::"prod//logs/a dry_run"                                   deny
local:u  ops  k8s:impersonate  Identity::"prod/user system:serviceaccount:a:b"               permit
local:u  ops  k8s:impersonate  Identity::"prod/group x/y"                                    deny
"""
POLICY = """
@id("reads") permit (principal in Group::"ops", action in Action::"k8s:read", resource in Namespace::"prod/shop");
@id("writes") permit (principal in Group::"ops", action == Action::"k8s:create", resource)
when { !resource.privileged && ["a", "b"].containsAll(resource.images) };
@id("acts") permit (principal, action == Action::"k8s:impersonate", resource) when { resource.kind == "user" };
"""


def test_tables() -> None:
    assert [(row.line, found) for row, found in failures(
        load_policies({"f.cedar": POLICY}), parse_table("t", TABLE))] == []


@pytest.mark.parametrize(("resource", "wrong"), [
    ("Resource::prod/shop", "is not the path of Resource: TARGET/NAMESPACE/RESOURCE[/SUBRESOURCE]"),
    ("Object::prod/shop/pods", "is not the path of Object"),
    ("Object::prod/shop/pods/a/b/c", "is not the path of Object"),
    ("Object::prod//pods/a", "is not the path of Object"),
    ('Resource::""', "is not the path of Resource"),
    ('Resource::"prod/shop/pods nope"', '"nope" is no attribute of Resource: capabilities, command'),
    ('Resource::"prod/shop/pods privileged=yes"', "is no attribute of Resource"),
    ("Resource::\"prod/shop/pods line='x\"", "is no command line"),
    ('Resource::"prod/shop/pods images"', "is no attribute of Resource"),
])
def test_tables_that_are_wrong(resource: str, wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong.replace("[", r"\[")):
        list(parse_table("t", f"local:u - k8s:create {resource} deny"))


def explain(directory: Path, *arguments: str) -> Result:
    return CliRunner().invoke(weir, [
        "policy", "explain", "--policies", str(directory), "--subject", "local:u", "--group", "ops", "--target", "prod",
        *arguments])


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/a.cedar").write_text(POLICY)
    return tmp_path / "policies"


def test_explain(policies: Path, tmp_path: Path) -> None:
    done = explain(policies, "--method", "GET", f"{PODS}/web/log")
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, "permit"), done.output
    assert "permit  k8s:get shop/pods/log/web: reads" in done.output
    (tmp_path / "pod.yaml").write_text("spec: {containers: [{securityContext: {privileged: true}}]}\n")
    done = explain(policies, "--method", "POST", "--body", str(tmp_path / "pod.yaml"), "--json", PODS)
    assert done.exit_code == 1
    assert json.loads(done.stdout)["requests"] == [
        {"action": "k8s:create", "resource": "shop/pods", "outcome": "deny", "rules": []}]
    done = explain(policies, "--method", "POST", "--body", str(tmp_path / "pod.yaml"), PODS)
    assert "seen    privileged: yes" in done.output.splitlines()


@pytest.mark.parametrize(("arguments", "code", "said"), [
    (("--method", "GET", "/api//v1"), 1, "refused before policy: the path holds an empty or a dot segment"),
    (("--method", "FOO", PODS), 1, "refused before policy: nothing there is done by FOO; GET, HEAD, POST, "),
    (("--method", "GET", "api/v1"), 1, "refused before policy: what is asked for is no path that begins with a slash"),
    (("--method", "PUT", f"{PODS}/web/exec"), 1, "nothing there is done by PUT; GET, POST would be right"),
    (("--method", "GET", "--account", "x", PODS), 2, "Give one of"),
    (("--account", "x", "--body", "/dev/null", "ls"), 2, "No such|is a directory|not a file|give '--method'|Invalid"),
    ((PODS,), 2, "Missing option '--database'"),
])
def test_explain_says_what_is_wrong(policies: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = explain(policies, *arguments)
    assert done.exit_code == code, done.output
    assert any(one in done.output for one in said.split("|")), done.output


def test_a_body_that_is_none(policies: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("a: [")
    done = explain(policies, "--method", "POST", "--body", str(tmp_path / "bad"), PODS)
    assert done.exit_code == 1
    assert "the body is not one YAML document" in done.output
