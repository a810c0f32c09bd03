"""What approvers read of requests to a cluster, and which others go with one yes."""
from __future__ import annotations

import json
from typing import Any

from httptalk import CREDENTIAL, TARGET, Talk, request
from pump import TableGate

from enforcer.policy.holds import parse_hold
from enforcer.policy.model import _MORE
from enforcer.protocols.kubernetes.layer import KubernetesLayer
from enforcer.protocols.kubernetes.manner import SEEN
from enforcer.words import commands
from enforcer.words.decisions import HOLD, Decision

PODS = "/api/v1/namespaces/shop/pods"
RULE = parse_hold("held", "approvers=dba, reuse=command")


class Held(TableGate):
    def decide(self, *arguments: Any, **more: Any) -> Decision:
        found = super().decide(*arguments, **more)
        asked = any(one.action.startswith("k8s:") for one in arguments[1])
        return Decision(HOLD, (RULE.rule,), holds=(RULE,)) if asked else found


def pod(name: str = "web", image: str = "nginx", **more: Any) -> bytes:
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **more},
                       "spec": {"containers": [{"name": "c", "image": image}]}}).encode()


def held(method: str, path: str, body: bytes = b"", *headers: str) -> commands.Hold:
    made = Talk(Held(), CREDENTIAL, KubernetesLayer, TARGET).open()
    made.say(request(method, path, body, *headers, *(["Content-Type: application/json"] if body else [])))
    [hold] = [one for one in made.commands if isinstance(one, commands.Hold)]
    return hold


def test_a_request_with_what_policy_saw_in_it() -> None:
    hold = held("POST", f"{PODS}?dryRun=All", pod(annotations={"padding": "x" * 50_000}))
    assert hold.text.startswith(f"POST {PODS}?dryRun=All\n(folded: ")
    assert '"image": "nginx"' in hold.text
    assert hold.parameters[0] == "dry_run: yes"
    assert "images: nginx" in hold.parameters
    assert not [one for one in hold.parameters if one.startswith(("path:", "version:"))]


def test_of_every_attribute_it_is_known_who_says_it() -> None:
    """A new one is told to nobody before somebody has thought of passwords."""
    line = {"path", "version", "labels", "fields", "command", "line", "container", "ports", "method"}
    assert set(SEEN) | line == set(_MORE["Object"])
    assert not set(SEEN) & line


def test_a_password_in_a_command_is_in_neither() -> None:
    hold = held("GET", f"{PODS}/web/exec?command=mysql&command=-psecret1&command=--password%3Dsecret2&stdout=true", b"",
                "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: v4.channel.k8s.io")
    assert "mysql" in hold.text
    assert hold.parameters == ()
    for shown in (hold.text, hold.action, hold.covers):
        assert "secret" not in shown


def test_what_one_yes_is_for() -> None:
    first = held("POST", PODS, pod("a"))
    assert first.covers == ("k8s:create of pods in namespace shop: of any name, with any content in which policy sees "
                            "the same")
    alike = held("POST", PODS, pod("b", labels={"any": "thing"}))
    assert (alike.covers, alike.shape) == (first.covers, first.shape)
    for path, body in ((PODS, pod("a", "evil")), (f"{PODS}?dryRun=All", pod("a")),
                       ("/api/v1/namespaces/other/pods", pod("a")), ("/api/v1/namespaces/shop/configmaps", pod("a"))):
        other = held("POST", path, body)
        assert (other.covers, other.shape) != (first.covers, first.shape)
    assert held("DELETE", f"{PODS}/a").shape == held("DELETE", f"{PODS}/b").shape != held("DELETE", PODS).shape


def test_whoever_it_acts_as_is_said() -> None:
    hold = held("DELETE", "/api/v1/nodes/one", b"", "Impersonate-User: ada")
    assert hold.covers.startswith("k8s:delete of nodes of the cluster; k8s:impersonate of user ada: ")
    assert held("PUT", "/logs/x").covers.startswith("k8s:call of /logs/x: ")
