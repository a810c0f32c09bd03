"""Conversations with an API server: what is asked of policy, what the server gets, what the crew is told."""
from __future__ import annotations

import base64
import json

import pytest
from httptalk import CREDENTIAL, TARGET, Talk, request
from msgspec.structs import replace
from pump import TableGate

from enforcer.http.websocket import WebSocket
from enforcer.protocols.kubernetes.layer import KubernetesLayer
from enforcer.protocols.kubernetes.streams.offers import accept_of
from enforcer.words import events, inputs
from enforcer.words.commands import CLIENT, SERVER, Hold

PODS = "/api/v1/namespaces/shop/pods"
JSON = "Content-Type: application/json"
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
       "spec": {"containers": [{"name": "c", "image": "nginx", "securityContext": {"privileged": True}}]}}
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "type": "Opaque",
          "data": {"password": base64.b64encode(b"hunter2").decode()}}


def talk(gate: TableGate | None = None) -> Talk:
    return Talk(gate or TableGate(), CREDENTIAL, KubernetesLayer, TARGET).open()


def answer(body: object, status: str = "200 OK", kind: str = "application/json") -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return (f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(raw)}\r\n\r\n").encode() + raw


def body_of(said: list[tuple[int, bytes]]) -> bytes:
    """Of an answer to the crew, out of its chunks."""
    whole = b"".join(data for peer, data in said if peer == CLIENT)
    head, _, rest = whole.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return rest
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[:int(size, 16)], rest[int(size, 16) + 2:]
    return body


def asked(made: Talk) -> list[tuple[str, str]]:
    return list(made.intents[-1].requests)


@pytest.mark.parametrize(("method", "path", "expected"), [
    ("GET", PODS, ("k8s:list", "shop/pods")),
    ("GET", PODS + "?watch=true", ("k8s:watch", "shop/pods")),
    ("GET", PODS + "/web", ("k8s:get", "shop/pods/web")),
    ("GET", PODS + "/web/log", ("k8s:get", "shop/pods/log/web")),
    ("DELETE", PODS + "/web", ("k8s:delete", "shop/pods/web")),
    ("DELETE", PODS, ("k8s:deletecollection", "shop/pods")),
    ("GET", "/apis/apps/v1/deployments", ("k8s:list", "*/deployments.apps")),
    ("GET", "/version", ("k8s:get", "/version")),
])
def test_what_is_asked_of_policy(method: str, path: str, expected: tuple[str, str]) -> None:
    made = talk()
    [(peer, said)] = made.say(request(method, path))
    assert peer == SERVER
    assert said.startswith(f"{method} {path} HTTP/1.1\r\n".encode())
    assert asked(made) == [expected]


def test_a_crew_s_own_credentials_and_claims_do_not_go_on() -> None:
    made = talk()
    [(_, said)] = made.say(request("GET", PODS, b"", "Authorization: Bearer stolen", "Cookie: a=b",
                                   "X-Remote-User: root", "X-Forwarded-For: 1.2.3.4", "Audit-ID: mine",
                                   "User-Agent: kubectl/1.34"))
    for gone in (b"stolen", b"cookie", b"x-remote", b"x-forwarded", b"mine"):
        assert gone not in said.lower()
    assert b"authorization: Bearer tok\r\n" in said
    assert b"audit-id: SESSION-1\r\n" in said
    assert b"user-agent: kubectl/1.34\r\n" in said


def test_whom_it_impersonates_is_asked_too() -> None:
    made = talk(TableGate(deny={("k8s:impersonate", "*")}))
    [(peer, said)] = made.say(request("GET", PODS, b"", "Impersonate-User: root"))
    assert peer == CLIENT
    assert b" 403 " in said


def test_a_denial_is_a_status_that_kubectl_prints() -> None:
    made = talk(TableGate(deny={("k8s:delete", "web")}))
    [(peer, said)] = made.say(request("DELETE", PODS + "/web"))
    assert peer == CLIENT
    status = json.loads(said.partition(b"\r\n\r\n")[2])
    assert (status["kind"], status["code"], status["reason"]) == ("Status", 403, "Forbidden")
    assert "policy no forbids" in status["message"]
    assert status["details"]["name"] == "web"
    assert made.say(request("GET", PODS))[0][0] == SERVER


def test_what_a_body_says_is_recorded_and_goes_on() -> None:
    made = talk()
    [(_, said)] = made.say(request("POST", PODS, json.dumps(POD).encode(), JSON))
    assert json.loads(said.partition(b"\r\n\r\n")[2]) == POD
    assert made.texts[-1].startswith(f"POST {PODS}\n")
    assert '"nginx"' in made.texts[-1]
    assert made.intents[-1].durable


def test_a_held_request_warns_its_user() -> None:
    made = talk(TableGate(hold={("k8s:delete", "web")}))
    assert made.say(request("DELETE", PODS + "/web")) == []
    made.tell(inputs.HoldOpened(1, "T-77", "deletes need a dba"))
    [(peer, _)] = made.tell(inputs.HoldAnswered(1, "approved", "ada", "", "T-77"))
    assert peer == SERVER
    [(_, said)] = made.hear(answer({"kind": "Status", "status": "Success"}))
    assert b"warning: 299 - \"held for approval: ticket T-77" in said


def test_a_held_request_that_is_denied_says_by_whom() -> None:
    made = talk(TableGate(hold={("k8s:delete", "web")}))
    made.say(request("DELETE", PODS + "/web"))
    made.tell(inputs.HoldOpened(1, "T-77", "deletes need a dba"))
    [(peer, said)] = made.tell(inputs.HoldAnswered(1, "denied", "ada", "not on a Friday", "T-77"))
    assert peer == CLIENT
    assert b"not on a Friday" in said
    assert b"T-77" in said


def test_secrets_are_masked_and_their_answer_is_not_compressed() -> None:
    made = talk()
    [(_, said)] = made.say(request("GET", "/api/v1/namespaces/shop/secrets/db", b"", "Accept-Encoding: gzip"))
    assert b"accept-encoding" not in said
    shown = json.loads(body_of(made.hear(answer(SECRET))))
    assert base64.b64decode(shown["data"]["password"]) != b"hunter2"
    assert "hunter2" not in str(made.blobs)
    assert "secret" in made.intents[-1].masks


def test_secrets_of_who_may_see_them_are_not() -> None:
    made = talk(TableGate(unmasked={"secret", "secret.helm", "secret.token"}))
    made.say(request("GET", "/api/v1/namespaces/shop/secrets/db"))
    assert json.loads(body_of(made.hear(answer(SECRET)))) == SECRET


def test_an_answer_that_cannot_be_masked_is_not_shown() -> None:
    made = talk()
    made.say(request("GET", "/api/v1/namespaces/shop/secrets/db"))
    said = b"".join(data for _, data in made.hear(answer(b"hunter2", kind="text/html")))
    assert b"hunter2" not in said
    assert b" 502 " in said or not said


def test_what_nobody_must_read_may_be_compressed() -> None:
    made = talk(TableGate(unmasked={"secret", "secret.helm", "secret.token"}))
    [(_, said)] = made.say(request("GET", PODS, b"", "Accept-Encoding: gzip"))
    assert b"accept-encoding: gzip" in said


def test_tokens_are_never_shown() -> None:
    made = talk(TableGate(unmasked={"secret", "secret.helm", "secret.token"}))
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
    made.say(request("POST", "/api/v1/namespaces/shop/serviceaccounts/default/token", json.dumps(body).encode(), JSON))
    shown = body_of(made.hear(answer({**body, "status": {"token": "eyJsecret"}}, "201 Created")))
    assert b"eyJsecret" not in shown
    assert "eyJsecret" not in str(made.blobs)


def test_a_mask_is_not_written_back() -> None:
    made = talk()
    made.say(request("GET", "/api/v1/namespaces/shop/secrets/db"))
    shown = body_of(made.hear(answer(SECRET)))
    [(peer, said)] = made.say(request("PUT", "/api/v1/namespaces/shop/secrets/db", shown, JSON))
    assert peer == CLIENT
    assert b" 422 " in said
    [cause] = json.loads(said.partition(b"\r\n\r\n")[2])["details"]["causes"]
    assert "password" in cause["message"]


def test_who_may_see_it_may_ask_about_it() -> None:
    patch = [{"op": "test", "path": "/data/password", "value": "eA=="}, {"op": "remove", "path": "/data/x"}]
    raw = request("PATCH", "/api/v1/namespaces/shop/secrets/db", json.dumps(patch).encode(),
                  "Content-Type: application/json-patch+json")
    assert talk().say(raw)[0][0] == CLIENT
    assert talk(TableGate(unmasked={"secret", "secret.helm", "secret.token"})).say(raw)[0][0] == SERVER


@pytest.mark.parametrize(("unmasked", "kept"), [(set(), True), ({"secret", "secret.helm", "secret.token"}, False)])
def test_what_is_labelled_is_not_in_the_recording_whoever_may_see_it(unmasked: set[str], kept: bool) -> None:
    made = Talk(TableGate(unmasked=unmasked), CREDENTIAL, KubernetesLayer, replace(TARGET, payload="content")).open()
    made.say(request("GET", "/api/v1/namespaces/shop/secrets/db"))
    made.hear(answer(SECRET))
    assert SECRET["data"]["password"] not in str(made.blobs)
    assert any(isinstance(one, events.Streamed) for one in made.recorded) == kept


def test_what_is_written_into_a_secret_is_not_recorded() -> None:
    made = talk()
    [(peer, said)] = made.say(request("POST", "/api/v1/namespaces/shop/secrets", json.dumps(SECRET).encode(), JSON))
    assert peer == SERVER
    assert SECRET["data"]["password"].encode() in said
    assert SECRET["data"]["password"] not in str(made.blobs)


@pytest.mark.parametrize(("raw", "status"), [
    (request("GET", "/api/v1/namespaces/shop/../kube-system/secrets"), 400),
    (request("GET", "/api/v1//pods"), 400),
    (request("GET", "/api/v1/namespaces/shop%2Fpods"), 400),
    (request("GET", "/api/v1/pods%00"), 400),
    (request("GET", "http://elsewhere/api/v1/pods"), 400),
    (request("POST", PODS, b'{"a":1,"a":2}', JSON), 400),
    (request("POST", PODS, b"{", JSON), 400),
    (request("POST", PODS, b"\xd9\xd9\xf7\xa0", "Content-Type: application/cbor"), 415),
    (request("POST", PODS, b"x", "Content-Type: application/x-unknown"), 415),
    (request("POST", PODS, b"\x1f\x8b", JSON, "Content-Encoding: gzip"), 415),
    (request("GET", PODS, b"", "Connection: Upgrade", "Upgrade: websocket"), 501),
    (request("POST", PODS, b"x" * (4 << 20), JSON), 413),
])
def test_what_may_be_read_in_two_ways_goes_nowhere(raw: bytes, status: int) -> None:
    made = talk()
    said = made.say(raw)
    assert [peer for peer, _ in said] == [CLIENT]
    assert said[0][1].startswith(b"HTTP/1.1 %d " % status)
    assert made.results == ["denied"]


def test_an_error_of_the_server_is_recorded_with_its_message() -> None:
    made = talk()
    made.say(request("GET", PODS + "/web"))
    made.hear(answer({"kind": "Status", "message": 'pods "web" not found', "code": 404}, "404 Not Found"))
    result = [event for event in made.recorded if isinstance(event, events.Result)][-1]
    assert (result.status, result.tag) == ("error", "404")
    assert made.blobs[result.error] == b'pods "web" not found'


def test_a_watch_flows_event_by_event() -> None:
    made = talk()
    made.say(request("GET", PODS + "?watch=true"))
    made.hear(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    line = b'{"type":"ADDED","object":{"kind":"Pod"}}\n'
    assert made.hear(b"%x\r\n%s\r\n" % (len(line), line)) == [(CLIENT, b"%x\r\n%s\r\n" % (len(line), line))]
    made.tell(inputs.ConnectionLost(CLIENT))
    assert made.results == ["cancelled"]


def test_exec_is_decided_before_anything_is_changed() -> None:
    made = talk(TableGate(deny={("k8s:exec", "web")}))
    [(peer, said)] = made.say(request(
        "POST", PODS + "/web/exec?command=rm&command=-rf&stdout=true", b"", "Connection: Upgrade", "Upgrade: SPDY/3.1",
        "X-Stream-Protocol-Version: v4.channel.k8s.io"))
    assert peer == CLIENT
    assert b" 403 " in said
    assert "rm -rf" in made.texts[-1] or "command=rm" in made.texts[-1]


@pytest.mark.parametrize(("status", "said", "shown"), [
    ("429 Too Many Requests", b"Too many requests, please try again later.\n",
     b"Too many requests, please try again later.\n"),
    ("404 Not Found", b"404 page not found\n", b"404 page not found\n"),
    ("500 Internal Server Error", b'data.password: Invalid value: "hunter2"',
     b"data.password: Invalid value: [redacted]"),
])
def test_an_error_that_is_text_where_something_is_masked(status: str, said: bytes, shown: bytes) -> None:
    """An API server's own limits say so: what a client does about them hangs on the status."""
    made = talk()
    made.say(request("GET", "/api/v1/namespaces/shop/secrets/db"))
    heard = made.hear(answer(said, status, "text/plain; charset=utf-8"))
    assert heard[0][1].startswith(f"HTTP/1.1 {status}\r\n".encode())
    assert body_of(heard) == shown
    assert (made.results, made.closed) == (["error"], False)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_an_answer_without_a_body_where_something_is_masked(status: str) -> None:
    made = talk()
    made.say(request("GET", "/api/v1/namespaces/shop/secrets/db"))
    heard = made.hear(f"HTTP/1.1 {status}\r\n\r\n".encode())
    assert heard == [(CLIENT, f"HTTP/1.1 {status}\r\n\r\n".encode())]
    assert (made.results, made.closed) == (["ok"], False)


def test_text_that_is_no_error_is_not_shown_where_something_is_masked() -> None:
    made = talk()
    made.say(request("GET", "/api/v1/namespaces/shop/secrets/db"))
    [(_, said)] = made.hear(answer(b"hunter2", "200 OK", "text/plain"))
    assert said.startswith(b"HTTP/1.1 502 ")
    assert b"hunter2" not in said


def test_names_that_other_servers_read_as_claims_do_not_go_on() -> None:
    [(_, said)] = talk().say(request("GET", PODS, b"", "X_Remote_User: root", "Impersonate_User: root",
                                     "X-HTTP-Method-Override: DELETE", "X-Original-URL: /api/v1/secrets",
                                     "X_Mine: kept"))
    for gone in (b"root", b"override", b"original"):
        assert gone not in said.lower()
    assert b"x_mine: kept\r\n" in said


def test_a_password_in_the_line_of_what_cannot_be_read_is_not_recorded() -> None:
    made = talk()
    [(_, said)] = made.say(request("GET", PODS + "/web/exec?command=x&env=PASSWORD=hunter22;a"))
    assert b" 400 " in said
    assert "hunter22" not in str(made.blobs)


APPLIED = "Content-Type: application/apply-patch+yaml"
ROLE = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles/reader"
ORDER = "/apis/shop.example/v1/namespaces/shop/orders/one"


@pytest.mark.parametrize(("method", "path", "kind", "body", "creates"), [
    ("PATCH", PODS + "/web", APPLIED, POD, True),
    ("PATCH", PODS + "/web/status", APPLIED, POD, False),
    ("PATCH", PODS + "/web", "Content-Type: application/merge-patch+json", POD, False),
    ("PUT", PODS + "/web", JSON, POD, False),
    ("PUT", ROLE, JSON, {"rules": []}, True),
    ("PUT", ROLE, JSON, {"metadata": {"resourceVersion": "7"}}, True),
    ("PUT", ROLE, JSON, {"metadata": {"uid": "6f7344e2"}}, False),
    ("PUT", ORDER, JSON, {"metadata": {}}, True),
    ("PUT", ORDER + "/status", JSON, {"metadata": {}}, False),
])
def test_who_may_not_create_makes_nothing_by_another_verb(
    method: str, path: str, kind: str, body: object, creates: bool,
) -> None:
    made = talk(TableGate(deny={("k8s:create", "*")}))
    [(peer, said)] = made.say(request(method, path, json.dumps(body).encode(), kind))
    assert peer == (CLIENT if creates else SERVER)
    assert (b"forbids k8s:create" in said) == creates


@pytest.mark.parametrize(("query", "line"), [
    ("command=ls&stdout=true", "exec -n shop web -- ls"),
    ("command=sh&stdin=true&tty=true", "exec -n shop -i -t web -- sh"),
    ("command=sh&command=-c&command=a%0Ab&stdin=0", "exec -n shop web -- sh -c 'a\nb'"),
    ("container=c%20--%20ls&command=rm", "exec -n shop web -c 'c -- ls' -- rm"),
    ("command=&command=x", "exec -n shop web -- '' x"),
])
def test_a_command_is_shown_so_that_nothing_poses_as_another(query: str, line: str) -> None:
    made = talk()
    made.say(request("GET", f"{PODS}/web/exec?{query}", b"", "Connection: Upgrade", "Upgrade: SPDY/3.1"))
    assert made.texts[-1] == line


@pytest.mark.parametrize("what", ["exec", "attach"])
@pytest.mark.parametrize("sees", [False, True])
def test_what_a_command_prints_is_masked_by_the_target_s_detectors(what: str, sees: bool) -> None:
    gate = TableGate(unmasked={"pci.card-number"} if sees else set())
    made = Talk(gate, CREDENTIAL, KubernetesLayer, replace(TARGET, detectors=("card-number",))).open()
    key = base64.b64encode(bytes(16))
    made.say(request("GET", f"{PODS}/web/{what}?command=cat&stdout=true", b"", "Connection: Upgrade",
                     "Upgrade: websocket", f"Sec-WebSocket-Key: {key.decode()}", "Sec-WebSocket-Version: 13",
                     "Sec-WebSocket-Protocol: v4.channel.k8s.io"))
    assert made.intents[-1].masks == (() if sees else ("pci.card-number",))
    made.hear(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
              b"Sec-WebSocket-Accept: " + accept_of(key) + b"\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n")
    [(peer, said)] = made.hear(WebSocket(False).message(b"\x01card 4111 1111 1111 1111\n"))
    assert peer == CLIENT
    assert (b"4111 1111 1111 1111" in said) is sees
    assert b"card 4111" in said


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_why_a_command_does_not_run_is_shown(kind: str) -> None:
    made = Talk(TableGate(), CREDENTIAL, KubernetesLayer, replace(TARGET, detectors=("card-number",))).open()
    made.say(request("GET", f"{PODS}/web/exec?command=ls", b"", "Connection: Upgrade", "Upgrade: SPDY/3.1"))
    said = made.hear(answer({"kind": "Status", "message": "no such pod"}, "404 Not Found", kind))
    assert b" 404 " in said[0][1]
    assert b"no such pod" in body_of(said)


def test_an_approval_of_what_a_proxy_passes_on_is_of_its_headers_too() -> None:
    """Whoever approved one action does not let through another."""
    path = "/api/v1/namespaces/shop/services/web/proxy/soap"
    digests = []
    for header in ("SOAPAction: read", "SOAPAction: drop", "SOAPAction: read\r\nUser-Agent: other"):
        made = talk(TableGate(hold={("k8s:proxy", "web")}))
        made.say(request("POST", path, b"<x/>", header))
        [held] = made.of(Hold)
        digests.append(held.exact)
    assert digests[0] == digests[2]
    assert digests[0] != digests[1]
