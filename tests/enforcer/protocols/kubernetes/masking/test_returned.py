"""Masks that come back, requests that would tell; what of bodies is recorded."""
import json
from base64 import b64encode

import pytest
from effort import at_most

from agent.contract.target import FieldLabel, Target
from enforcer.protocols.kubernetes.info import Info
from enforcer.protocols.kubernetes.masking import labels_of_answer, redact_body, returned_masks
from enforcer.protocols.kubernetes.masking.detecting import DEAR, PATIENCE, Detecting

MARK = b64encode(b"[redacted]").decode()
PASSWORD = b64encode(b"hunter22").decode()
LAST = "kubectl.kubernetes.io/last-applied-configuration"
POINTER = "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration"
UPDATE = Info(True, "/x", "update", "api", "", "v1", "a", "secrets", name="s")
PATCH = Info(True, "/x", "patch", "api", "", "v1", "a", "secrets", name="s")
USERS = Info(True, "/x", "patch", "apis", "acme.example", "v1", "a", "users", name="u")
CONFIG = Info(True, "/x", "update", "api", "", "v1", "a", "configmaps", name="c")
PODS = Info(True, "/x", "patch", "api", "", "v1", "a", "pods", name="p")


def target(*labels, detectors=()):
    return Target("prod", "kubernetes", ("k",), 6443, (), field_labels=labels, detectors=detectors)


def users(mask: str, *path: str) -> Target:
    return target(FieldLabel("pii", "acme.example", "users", path or ("spec", "users", "*", "email"), mask))


@pytest.mark.parametrize("value", [
    {"data": {"p": MARK}}, {"data": {"a": PASSWORD, "p": MARK.rstrip("=") + "=="}}, {"stringData": {"p": "[redacted]"}},
    {"data": {"p": None}}, {"metadata": {"annotations": {LAST: json.dumps({"data": {"p": MARK}})}}},
    {"metadata": {"annotations": {LAST: "[redacted]"}}},
    {"metadata": {"managedFields": [{"fieldsV1": {"f:spec": {'k:{"email":"[redacted]"}': {}}}}]}},
])
def test_masks_in_an_update(value):
    assert returned_masks(value, UPDATE, target())
    assert not returned_masks(value, UPDATE, target(), frozenset())


@pytest.mark.parametrize("value", [
    None, {}, {"data": {"p": PASSWORD}}, {"data": None}, {"metadata": {"annotations": {"note": "[redacted]"}}},
    {"stringData": {"p": "x"}}, {"metadata": {"annotations": {LAST: json.dumps({"data": {"p": PASSWORD}})}}},
    {"data": "x"}, {"data": ["x"]}, {"metadata": []},
])
def test_updates_without(value):
    assert returned_masks(value, UPDATE, target()) == []


def test_null_takes_a_key_away_in_a_patch():
    assert returned_masks({"data": {"p": None}}, PATCH, target()) == []


@pytest.mark.parametrize(("mask", "text", "is_mask"), [
    ("partial", "a***@***.example", True), ("partial", "a***", True), ("partial", "***", True),
    ("partial", "ada", False),
    ("hash", "0123456789abcdef", True), ("hash", "0123456789abcdeg", False), ("constant:none", "none", True),
    ("constant:none", "some", False), ("partial", "[redacted]", True), ("redact", "[redacted] x", False),
])
def test_each_mask_is_known_by_its_form(mask, text, is_mask):
    found = returned_masks({"spec": {"users": [{"email": text}]}}, USERS, users(mask))
    assert found == (["spec.users.*.email"] if is_mask else [])


@pytest.mark.parametrize("operation", [
    {"op": "test", "path": "/data/p", "value": PASSWORD}, {"op": "test", "path": "/data", "value": {}},
    {"op": "test", "path": "", "value": {}}, {"op": "test", "path": "x/data/p", "value": ""},
    {"op": "test", "path": POINTER, "value": ""}, {"op": "test", "path": "/metadata", "value": ""},
    {"op": "copy", "from": "/data/p", "path": "/metadata/annotations/x"},
    {"op": "move", "from": "/data", "path": "/x"},
    {"op": "copy", "from": POINTER, "path": "/metadata/annotations/x"}, {"op": "copy", "from": "", "path": "/x"},
    {"op": "copy", "path": "/x"}, {"op": "move", "from": 1, "path": "/x"},
    {"op": "add", "path": "/data/p", "value": MARK},
    {"op": "replace", "path": "/data", "value": {"p": MARK}}, {"op": "add", "path": "", "value": {"data": {"p": MARK}}},
    {"op": "add", "path": POINTER, "value": "[redacted]"},
    {"op": "add", "path": "/stringData/0", "value": "[redacted]"},
    {"op": "test", "path": "/da~1ta", "value": 1, "value2": 1} | {"path": "/data/~0"},
    {"op": "add", "path": "/data/0/1/2/3/4", "value": MARK}, {"op": "test", "path": "/0" * 5000, "value": 1},
    {"op": "copy", "from": "/x" * 5000, "path": "/y"},
])
def test_json_patches_that_tell_or_give_back(operation):
    assert returned_masks([{"op": "remove", "path": "/x"}, operation], PATCH, target())


@pytest.mark.parametrize("operation", [
    {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
    {"op": "add", "path": "/data/p", "value": PASSWORD},
    {"op": "remove", "path": "/data/p"},
    {"op": "copy", "from": "/metadata/labels/a", "path": "/metadata/labels/b"},
    {"op": "test", "path": "/metadata/annotations/note", "value": "x"},
    {"op": "add", "path": "/immutable", "value": True},
    "nonsense", None, {"op": None},
])
def test_json_patches_that_do_not(operation):
    assert returned_masks([operation], PATCH, target()) == []


@pytest.mark.parametrize(("work", "source"), [("copy", "/data/token"), ("move", "/data/token"), ("copy", "/data"),
                                              ("copy", "")])
def test_a_token_is_taken_nowhere_by_who_may_see_secrets(work, source):
    patch = [{"op": work, "from": source, "path": "/data/other"}]
    assert returned_masks(patch, PATCH, target(), frozenset()) == [f"{work} of {source}"]
    assert not returned_masks([{"op": work, "from": "/data/key", "path": "/data/other"}], PATCH, target(), frozenset())


def test_places_within_lists():
    to = users("redact")
    for path in ("/spec/users/0/email", "/spec/users/-/email", "/spec/users", "/spec/users/-1"):
        assert returned_masks([{"op": "test", "path": path, "value": "x"}], USERS, to)
    assert not returned_masks([{"op": "test", "path": "/spec/users/0/name", "value": "x"}], USERS, to)
    added = {"op": "add", "path": "/spec/users/-", "value": {"email": "[redacted]"}}
    assert returned_masks([added], USERS, to)
    # a path that says nothing of the list goes through it all the same
    assert returned_masks([added], USERS, users("redact", "spec", "users", "email"))


def test_a_field_selector_tells_too():
    info = Info(True, "/x", "list", "apis", "acme.example", "v1", "", "users",
                field_selector="metadata.name!=a,spec.pin==7")
    assert returned_masks(None, info, users("redact", "spec", "pin")) == ["the field selector spec.pin"]
    assert not returned_masks(None, info, users("redact", "spec", "other"))


def test_without_labels_nothing_is_refused():
    assert returned_masks([{"op": "test", "path": "", "value": "[redacted]"}], PODS, target()) == []


@pytest.mark.parametrize("value", [
    {"kind": "Secret", "data": {"p": PASSWORD}, "stringData": {"q": "hunter22"}, "metadata": {"annotations": {
        LAST: json.dumps({"data": {"p": PASSWORD}, "stringData": {"q": "hunter22"}})}}},
    {"kind": "Secret", "type": "helm.sh/release.v1", "data": {"p": PASSWORD}},
    [{"op": "add", "path": "/data/p", "value": PASSWORD}], [{"op": "add", "path": "/data", "value": {"p": PASSWORD}}],
    [{"op": "add", "path": "", "value": {"data": {"p": PASSWORD}}}],
    [{"op": "add", "path": "/data/0", "value": PASSWORD}],
    [{"op": "add", "path": "x/data/p", "value": PASSWORD}],
    [{"op": "add", "path": "/stringData/-", "value": "hunter22"}],
    [{"op": "replace", "path": POINTER, "value": json.dumps({"data": {"p": PASSWORD}})}],
    [{"op": "replace", "path": "/metadata/annotations", "value": {LAST: json.dumps({"data": {"p": PASSWORD}})}}],
    [{"op": "add", "path": "/data/1/2/3/4/5", "value": PASSWORD}],
])
def test_what_is_recorded_of_a_body(value):
    before = json.dumps(value)
    shown = json.dumps(redact_body(value, PATCH, target()))
    assert PASSWORD not in shown
    assert "hunter22" not in shown
    assert json.dumps(value) == before


def test_detectors_and_labels_in_what_is_recorded():
    token = "ghp_" + "a1B2" * 9
    pod = {"kind": "Pod", "spec": {"containers": [{"env": [{"name": "T", "value": token}], "args": ["a", token]}]}}
    shown = redact_body(pod, PODS, target(detectors=("github-token",)))
    stars = "ghp_" + "*" * 36
    assert shown["spec"]["containers"][0] == {"env": [{"name": "T", "value": stars}], "args": ["a", stars]}
    assert redact_body(pod, PODS, target()) == pod
    operation = [{"op": "add", "path": "/spec/users/-", "value": {"email": "ada@x.example", "name": "Ada"}}]
    assert redact_body(operation, USERS, users("redact"))[0]["value"] == {"email": "[redacted]", "name": "Ada"}
    review = Info(True, "/x", "create", "apis", "authentication.k8s.io", "v1", "", "tokenreviews")
    assert redact_body({"spec": {"token": "eyJ"}}, review, target())["spec"]["token"] == "[redacted]"
    assert redact_body(None, PODS, target()) is None


def test_a_patch_made_to_take_long():
    to, path = users("redact", "spec", "users"), "/spec/users/0" + "/x" * 50 + "/1/2"
    value = [{"op": "add", "path": path, "value": "x"}] * 10_000
    with at_most(100):
        assert returned_masks(value, USERS, to) == []
        redact_body(value, USERS, to)


@pytest.mark.parametrize("text", ["ghp_" + "a" * 36, "eyJ" * 13, "2345 67", "https://a:b"])
@pytest.mark.parametrize("info", [PODS, CONFIG], ids=["pods", "configmaps"])
def test_values_made_to_take_long(text, info):
    """Three megabytes of them are looked through in less time than others notice, and none is shown for that."""
    to = target(detectors=tuple(FOUND))
    body = {"kind": "X", "data": {f"k{number}": text for number in range(40_000)}}
    redact_body({"data": {"k": text}}, info, to)
    with at_most(40):
        shown = redact_body(body, info, to)["data"]
    assert shown["k39999"] == "[redacted]"
    assert not returned_masks({"data": {"k": text}}, CONFIG, to)
    assert returned_masks({"data": {"k": "[redacted]"}}, CONFIG, to)


def test_how_many_are_looked_through():
    look = Detecting(frozenset(("secret.token.github",)))
    values = [f"token {FOUND['github-token']} of {number}" for number in range(PATIENCE // DEAR)]
    shown = [look.text(one) for one in values]
    assert shown[150] == "token ghp_" + "*" * 36 + " of 150"
    assert shown[-1] == look.text(values[0]) == "[redacted]"
    assert look.text("a plain one") == "a plain one"
    look.renew()
    assert look.text(values[0]).startswith("token ghp_***")


FOUND = {
    "private-key": "-----BEGIN RSA PRIVATE KEY-----\nMIIBOgIBAAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf9Cnzj4p4WGeKLs1Pt8Q\n"
                   "-----END RSA PRIVATE KEY-----\n",
    "aws-key": "AKIAIOSFODNN7EXAMPLE", "google-key": "AIza" + "a1B2c" * 7, "github-token": "ghp_" + "a1B2" * 9,
    "slack-token": "xoxb-123456789012-abcdef", "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "password-in-url": "postgres://ada:hunter22@db/x", "card-number": "4111111111111111 ",
    "iban": "DE89370400440532013000 ",
}


@pytest.mark.parametrize("detector", FOUND)
def test_what_a_detector_masked_comes_back(detector):
    to, text = target(detectors=(detector,)), f"x = {FOUND[detector]}\n"
    info = Info(True, "/x", "update", "api", "", "v1", "a", "configmaps", name="c")
    shown = Detecting(frozenset(labels_of_answer(info, to))).text(text)
    assert shown != text
    assert returned_masks({"data": {"k": shown}}, info, to) == ["data.k"]
    assert returned_masks({"metadata": {"annotations": {LAST: json.dumps({"data": {"k": shown}})}}}, info, to)
    assert returned_masks([{"op": "replace", "path": "/data/k", "value": shown}], info, to)
    assert not returned_masks({"data": {"k": text, "banner": "/" + "*" * 70 + "/\n * a:b *\n"}}, info, to)
    assert not returned_masks({"data": {"k": shown}}, info, target())
    assert not returned_masks({"data": {"k": shown}}, info, to, frozenset())
    assert returned_masks([{"op": "copy", "from": "/data/k", "path": "/metadata/annotations/k"}], info, to)


def test_a_misspelled_secret_is_not_recorded():
    shown = redact_body({"kind": "Secret", "stringdata": {"p": "hunter22"}, "Data": "hunter22", "immutable": True},
                        UPDATE, target())
    assert shown == {"kind": "Secret", "stringdata": "[redacted]", "Data": "[redacted]", "immutable": True}
