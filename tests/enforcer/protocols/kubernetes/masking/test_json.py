"""Answers in JSON: what is masked where, item by item, whatever the cuts."""
import json
import random
from base64 import b64encode

import pytest
from effort import at_most

from agent.contract.target import FieldLabel, Target
from enforcer.http.messages import Answer
from enforcer.protocols.kubernetes.info import Info, Unclear
from enforcer.protocols.kubernetes.masking import labels_of_answer, make_masker, never_shown

MARK = b64encode(b"[redacted]").decode()
PASSWORD = b64encode(b"hunter22").decode()
LAST = "kubectl.kubernetes.io/last-applied-configuration"
SECRETS = Info(True, "/api/v1/namespaces/a/secrets", "list", "api", "", "v1", "a", "secrets")
SECRET = Info(True, "/api/v1/namespaces/a/secrets/s", "get", "api", "", "v1", "a", "secrets", name="s")
USERS = Info(True, "/apis/acme.example/v1/users", "list", "apis", "acme.example", "v1", "", "users")
EVERY = frozenset(("secret", "secret.helm", "secret.token", "pii.email"))


def target(*labels: FieldLabel, detectors=()) -> Target:
    return Target("prod", "kubernetes", ("k",), 6443, ("10.0.0.1",), field_labels=labels, detectors=detectors)


def answer(kind: bytes = b"application/json", status: int = 200) -> Answer:
    return Answer(status, b"OK", ((b"content-type", kind),))


def run(info, data, masked=EVERY, to=None, kind=b"application/json", status=200, size=0) -> bytes:
    masker = make_masker(info, (), to or target(), frozenset(masked), answer(kind, status))
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    size = size or len(raw) or 1
    out = b"".join(masker.feed(raw[at:at + size]) for at in range(0, len(raw), size))
    return out + masker.end()


def secret(name="s", kind="Opaque", **data) -> dict:
    return {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": name}, "data": data, "type": kind}


def listed(*items, kind="SecretList") -> dict:
    return {"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": list(items)}


def test_a_secret():
    shown = json.loads(run(SECRET, secret(password=PASSWORD)))
    assert shown["data"] == {"password": MARK}
    assert shown["metadata"] == {"name": "s"}


def test_what_policy_shows_stays():
    assert json.loads(run(SECRET, secret(password=PASSWORD), ("secret.token",)))["data"] == {"password": PASSWORD}


def test_a_list_however_it_is_cut_and_wherever_its_kind_stands():
    whole = listed(secret("a", password=PASSWORD), secret("é😀", x=PASSWORD))
    late = dict(reversed(whole.items()))
    for value in (whole, late):
        for text in (json.dumps(value), json.dumps(value, indent=2), json.dumps(value, ensure_ascii=False)):
            once = run(SECRETS, text.encode())
            found = json.loads(once)
            assert [one["data"] for one in found["items"]] == [{"password": MARK}, {"x": MARK}]
            assert (found["kind"], found["metadata"]) == ("SecretList", {"resourceVersion": "7"})
            assert found["items"][1]["metadata"]["name"] == "é😀"
            for size in (1, 2, 3, 7, 64):
                assert run(SECRETS, text.encode(), size=size) == once


def test_items_leave_before_the_list_ends():
    masker = make_masker(SECRETS, (), target(), EVERY, answer())
    raw = json.dumps(listed(*[secret(str(at), x=PASSWORD) for at in range(100)])).encode()
    assert len(masker.feed(raw[:len(raw) // 2])) > len(raw) // 3


def test_an_empty_list_and_one_that_is_null():
    assert json.loads(run(SECRETS, listed()))["items"] == []
    assert json.loads(run(SECRETS, {**listed(), "items": None}))["items"] is None


@pytest.mark.parametrize("cut", range(0, 150, 1))
def test_a_list_that_is_cut_is_not_read(cut):
    raw = json.dumps(listed(secret(password=PASSWORD))).encode()
    masker = make_masker(SECRETS, (), target(), EVERY, answer())
    out = b""
    try:
        out = masker.feed(raw[:cut])
        out += masker.end()
        assert cut == 0
    except Unclear:
        pass
    assert PASSWORD.encode() not in out


@pytest.mark.parametrize("raw", [
    b"[]", b"1", b'"x"', b"nonsense", b'{"items":[{"data":{"a":"b"}}],"items":[]}', b'{"items":[],"data":{"a":"b"}}',
    b'{"data":{"a":"aHVudGVyMjI="},"items":[]}', b"{} {}", b"\xff", b'{"items":[1]}', b'{"items":["aHVudGVyMjI="]}',
    b'{"kind":"SecretList","items":[{"x":NaN}]}', b'{"a" 1}', b"{1:2}", b'{"items":[{}{}]}', b"[" * 100_000,
    b'{"items":[' + b'[' * 100_000, b'{"x":1' + b"0" * 5000 + b"}", b'{"x":"\\ud800"}',
    b'{"kind":"Status","message":1e999999}x',
])
def test_what_cannot_be_read_is_not_delivered(raw):
    for info in (SECRETS, SECRET):
        out = []
        with pytest.raises(Unclear):
            masker = make_masker(info, (), target(), EVERY, answer())
            out.append(masker.feed(raw))
            out.append(masker.end())
            raise Unclear(str(out)) if info is SECRET and b"hunter" not in b"".join(out) else AssertionError(out)
        assert PASSWORD.encode() not in b"".join(out)


def test_names_in_escapes_and_twice_are_masked():
    raw = (b'{"kind":"Secret","apiVersion":"v1","metadata":{},"\\u0064ata":{"p":"aHVudGVyMjI="},'
           b'"data":{"q":"aHVudGVyMjI="},"type":"Opaque"}')
    out = run(SECRET, raw)
    assert b"aHVudGVyMjI" not in out
    assert json.loads(out)["data"] == {"q": MARK}


def test_helm_has_a_label_of_its_own():
    release = secret("sh.helm.release.v1.x.v1", "helm.sh/release.v1", release=PASSWORD)
    assert json.loads(run(SECRET, release, ("secret", "secret.token")))["data"] == {"release": PASSWORD}
    assert json.loads(run(SECRET, release, ("secret.helm",)))["data"] == {"release": MARK}


def test_a_token_of_a_service_account_is_never_shown():
    held = secret("t", "kubernetes.io/service-account-token", token=PASSWORD, namespace="YQ==")
    assert json.loads(run(SECRET, held, ()))["data"] == {"token": MARK, "namespace": "YQ=="}
    held = secret("t", "Opaque", token=PASSWORD)
    held["metadata"]["annotations"] = {"kubernetes.io/service-account.name": "default"}
    assert json.loads(run(SECRET, held, ()))["data"]["token"] == MARK
    asked = Info(True, "/x", "create", "api", "", "v1", "a", "serviceaccounts", "token", "default")
    said = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {"audiences": ["x"]},
            "status": {"token": "eyJhbGciOi.x.y", "expirationTimestamp": "2030-01-01T00:00:00Z"}}
    shown = json.loads(run(asked, said, (), status=201))
    assert shown["status"] == {"token": "[redacted]", "expirationTimestamp": "2030-01-01T00:00:00Z"}
    assert never_shown(asked)
    assert never_shown(SECRETS)
    assert not never_shown(USERS)


def test_last_applied_repeats_values_and_is_masked_inside():
    applied = {"apiVersion": "v1", "kind": "Secret", "data": {"p": PASSWORD}, "stringData": {"q": "hunter23"},
               "metadata": {"name": "s", "annotations": {LAST: json.dumps(secret(r="aHVudGVyMjQ="))}}}
    held = secret(p=PASSWORD)
    held["metadata"]["annotations"] = {LAST: json.dumps(applied), "note": f"it is {PASSWORD}", "other": "stays",
                                       "objectset.rio.cattle.io/applied": "H4sIAAAA"}
    shown = json.loads(run(SECRET, held))
    kept = shown["metadata"]["annotations"]
    inner = json.loads(kept[LAST])
    assert inner["data"] == {"p": MARK}
    assert inner["stringData"] == {"q": "[redacted]"}
    assert inner["metadata"]["name"] == "s"
    assert "aHVudGVy" not in json.dumps(shown)
    assert (kept["note"], kept["other"]) == ("[redacted]", "stays")
    assert kept["objectset.rio.cattle.io/applied"] == "[redacted]"
    held["metadata"]["annotations"][LAST] = "{no json " + PASSWORD
    assert json.loads(run(SECRET, held))["metadata"]["annotations"][LAST] == "[redacted]"


def test_a_last_applied_that_says_another_type_is_not_believed():
    held = secret(p=PASSWORD)
    held["metadata"]["annotations"] = {LAST: json.dumps(secret(kind="helm.sh/release.v1", p=PASSWORD))}
    assert PASSWORD not in run(SECRET, held, ("secret",)).decode()


def test_managed_fields_name_keys_only_and_stay():
    held = secret(p=PASSWORD)
    held["metadata"]["managedFields"] = [{"fieldsV1": {"f:data": {".": {}, "f:p": {}}}, "manager": "kubectl"}]
    assert json.loads(run(SECRET, held))["metadata"] == held["metadata"]


def table(whole, cells=("s", "Opaque", 1, "5d")) -> dict:
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": [
        {"name": "Name", "type": "string", "format": "name"}, {"name": "Type", "type": "string"},
        {"name": "Data", "type": "string"}, {"name": "Age", "type": "date"}],
        "rows": [{"cells": list(cells), "object": whole}]}


def test_tables_keep_their_cells_and_mask_their_objects():
    for info in (SECRETS, SECRET):
        shown = json.loads(run(info, table(secret(p=PASSWORD))))
        assert shown["rows"][0]["cells"] == ["s", "Opaque", 1, "5d"]
        assert shown["rows"][0]["object"]["data"] == {"p": MARK}
        partly = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {
            "name": "s", "annotations": {LAST: json.dumps(secret(p=PASSWORD))}}}
        assert PASSWORD not in run(info, table(partly)).decode()
        assert json.loads(run(info, table(None)))["rows"][0]["object"] is None


EMAIL = FieldLabel("pii.email", "acme.example", "users", ("spec", "users", "*", "email"), "partial")
NUMBER = FieldLabel("pii.email", "acme.example", "users", ("spec", "pin"))


def user() -> dict:
    return {"apiVersion": "acme.example/v1", "kind": "User", "metadata": {"name": "u"},
            "spec": {"users": [{"email": "ada@corp.example", "name": "Ada"}], "pin": 1234}}


def test_labelled_fields():
    to = target(EMAIL, NUMBER)
    shown = json.loads(run(USERS, listed(user(), kind="UserList"), to=to))["items"][0]
    assert shown["spec"] == {"users": [{"email": "a***@***.example", "name": "Ada"}], "pin": None}
    assert labels_of_answer(USERS, to) == ("pii.email",)
    assert labels_of_answer(SECRETS, to) == ("secret", "secret.helm", "secret.token")


def test_cells_of_labelled_objects_are_masked_but_for_names():
    shown = json.loads(run(USERS, table(user(), ("u", "ada@corp.example", 1234, "5d")), to=target(EMAIL)))
    assert shown["rows"][0]["cells"] == ["u", "[redacted]", None, "5d"]
    assert shown["rows"][0]["object"]["spec"]["users"][0]["email"] == "a***@***.example"


def test_cells_come_later_than_columns_in_a_watch():
    watch = Info(True, "/x", "watch", "apis", "acme.example", "v1", "", "users")
    first, second = table(user(), ("u", "ada@corp.example", 1, "5d")), table(user(), ("u", "ada@corp.example", 1, "5d"))
    del second["columnDefinitions"]
    raw = "".join(json.dumps({"type": "ADDED", "object": one}) + "\n" for one in (first, second)).encode()
    once = run(watch, raw, to=target(EMAIL))
    for line in once.splitlines():
        assert json.loads(line)["object"]["rows"][0]["cells"] == ["u", "[redacted]", None, "5d"]
    assert run(watch, raw, to=target(EMAIL), size=1) == once


def test_a_watch():
    watch = Info(True, "/x", "watch", "api", "", "v1", "a", "secrets")
    error = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "too old", "code": 410}
    events = [("ADDED", secret(p=PASSWORD)), ("BOOKMARK", {"kind": "Secret", "apiVersion": "v1", "metadata": {
        "resourceVersion": "9"}}), ("ERROR", error), ("DELETED", secret(p=PASSWORD))]
    raw = b"".join(json.dumps({"type": kind, "object": one}).encode() + b"\n" for kind, one in events)
    masker = make_masker(watch, (), target(), EVERY, answer(b"application/json;stream=watch"))
    lines = raw.splitlines(keepends=True)
    for line in lines:
        out = masker.feed(line)
        assert out.endswith(b"\n")
        assert b"aHVudGVy" not in out
    assert masker.end() == b""
    for bad in (b"{}\nx\n", b'{"type":"ADDED","object":[1]}\n', b'{"type":"ADDED","data":"x"}\n', b"[]\n"):
        with pytest.raises(Unclear):
            run(watch, bad)


def test_errors_do_not_quote():
    said = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Invalid", "code": 422,
            "message": 'User "u" is invalid: spec.pin: Invalid value: "hunter22": must be a number',
            "details": {"causes": [{"message": 'Invalid value: "hunter22": must be', "field": "spec.pin"}]}}
    for status, info in ((422, USERS), (200, USERS), (422, SECRETS)):
        out = run(info, said, to=target(NUMBER), status=status)
        assert b"hunter22" not in out
        assert b"spec.pin: Invalid value:" in out
    quoted = {"kind": "Status", "apiVersion": "v1", "message": 'cannot read map[string]{"p":"hunter22"}'}
    assert b"hunter" not in run(SECRET, quoted)
    plain = 'secrets "s" not found'
    assert json.loads(run(SECRET, {"kind": "Status", "message": plain}, status=404))["message"] == plain


def test_forms_that_nobody_here_reads():
    for kind in (b"application/yaml", b"application/cbor", b"text/html", b"text/plain", b""):
        with pytest.raises(Unclear):
            make_masker(SECRET, (), target(), EVERY, answer(kind))
    with pytest.raises(Unclear):
        make_masker(SECRET, (), target(), EVERY, Answer(200, b"", (
            (b"content-type", b"application/json"), (b"content-encoding", b"gzip"))))


def test_one_object_is_bounded():
    masker = make_masker(SECRETS, (), target(), EVERY, answer())
    masker.feed(b'{"items":[{"data":{"x":"')
    piece = b"A" * (1 << 20)
    with pytest.raises(Unclear):
        for _ in range(40):
            masker.feed(piece)


def test_logs_and_config_maps_by_detectors():
    to = target(detectors=("github-token",))
    token = "ghp_" + "a1B2" * 9
    log = Info(True, "/x", "get", "api", "", "v1", "a", "pods", "log", "p")
    labels = frozenset(labels_of_answer(log, to))
    assert labels == {"secret.token.github"}
    for size in (0, 1, 5):
        out = run(log, f"x {token} y\n".encode(), labels, to, b"text/plain", size=size)
        assert out == b"x ghp_" + b"*" * 36 + b" y\n"
    config = Info(True, "/x", "get", "api", "", "v1", "a", "configmaps", "", "c")
    held = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"annotations": {
        LAST: json.dumps({"kind": "ConfigMap", "data": {"k": token}})}}, "data": {"k": f"t={token}", "o": "stays"}}
    assert frozenset(labels_of_answer(config, to)) == labels
    shown = run(config, held, labels, to)
    assert token.encode() not in shown
    assert json.loads(shown)["data"] == {"k": "t=ghp_" + "*" * 36, "o": "stays"}
    assert json.loads(run(config, held, (), to))["data"]["k"] == f"t={token}"


def test_last_applied_of_what_is_no_secret_stays_for_kubectl():
    held = user()
    held["metadata"]["annotations"] = {LAST: json.dumps(user())}
    shown = json.loads(run(USERS, listed(held, kind="UserList"), to=target(EMAIL)))["items"][0]
    inner = json.loads(shown["metadata"]["annotations"][LAST])
    assert inner["spec"]["users"] == [{"email": "a***@***.example", "name": "Ada"}]
    assert inner["spec"]["pin"] == 1234


def test_objects_that_look_like_lists_tables_and_errors_are_masked_all_the_same():
    for more in ({"kind": "Table", "rows": []}, {"kind": "Status"}, {"rows": 1}, {"items": ["a"]}, {"items": [user()]},
                 {"apiVersion": "v1", "kind": "Status"},
                 {"kind": "UserList", "items": [user()]}):
        out = run(Info(True, "/x", "get", "apis", "acme.example", "v1", "", "users"), user() | more, to=target(EMAIL))
        assert b"ada@" not in out
    with pytest.raises(Unclear):
        run(USERS, user() | {"apiVersion": "meta.k8s.io/v1", "kind": "Table"}, to=target(EMAIL))
    for row in ({"cells": [], "spec": user()["spec"]}, user(), 1):
        with pytest.raises(Unclear):
            run(USERS, {**table(None), "rows": [row]}, to=target(EMAIL))


def test_columns_of_custom_resources_that_are_called_as_others():
    label = FieldLabel("pii.email", "acme.example", "users", ("data", "email"))
    said = table(None, ("u", "ada@corp.example", "x", "ada@corp.example"))
    said["columnDefinitions"][1]["format"] = "name"
    assert b"ada@" not in run(USERS, said, to=target(label))


def test_managed_fields_tell_items_of_lists_by_their_values():
    fields = {"f:spec": {"f:users": {'k:{"email":"ada@corp.example","name":"Ada"}': {".": {}, "f:email": {}}},
                         "f:set": {'v:"ada@corp.example"': {}, "i:0": {}}, "f:other": {'v:"x"': {}}}}
    held = user()
    held["metadata"]["managedFields"] = [{"manager": "m", "fieldsV1": fields}]
    labels = (EMAIL, FieldLabel("pii.email", "acme.example", "users", ("spec", "set", "*")))
    for whole in (held, {"kind": "PartialObjectMetadata", "metadata": held["metadata"]}):
        out = run(USERS, listed(whole), to=target(*labels))
        assert b"ada@" not in out
        shown = json.loads(out)["items"][0]["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]
        assert shown == {"f:users": {'k:{"email":"[redacted]","name":"Ada"}': {".": {}, "f:email": {}}},
                         "f:set": {'v:"[redacted]"': {}, "i:0": {}}, "f:other": {'v:"x"': {}}}
    out = run(USERS, listed(held), to=target(FieldLabel("pii.email", "acme.example", "users", ("spec",))))
    assert b"ada@" not in out
    assert b"Ada" not in out


def test_garbage_is_unclear_and_the_cuts_do_not_matter():
    rng = random.Random(3)
    watch = Info(True, "/x", "watch", "api", "", "v1", "a", "secrets")
    seeds = [(SECRETS, json.dumps(listed(secret("a", password=PASSWORD), secret("b")), indent=1)),
             (SECRETS, json.dumps(table(secret("a", password=PASSWORD)))), (SECRET, json.dumps(secret(p=PASSWORD))),
             (watch, json.dumps({"type": "ADDED", "object": secret(p=PASSWORD)}) + "\n")]
    for _ in range(400):
        info, text = rng.choice(seeds)
        data = bytearray(text.encode())
        for _ in range(rng.randrange(0, 4)):
            data[rng.randrange(len(data))] = rng.choice(b'{}[]":,\\ \n\x00\xff0e-')
        outs = set()
        for size in (1, rng.randrange(2, 40), 1 << 20):
            try:
                outs.add(run(info, bytes(data), size=size))
            except Unclear:
                outs.add(b"")
        assert len(outs) == 1
        found = outs.pop()
        assert not any(b'"data":{"%s":"aHVudGVyMjI="' % name in found for name in (b"p", b"password"))


def test_only_secrets_are_helms():
    held = user() | {"type": "helm.sh/release.v1"}
    held["metadata"]["annotations"] = {LAST: json.dumps(held)}
    label = FieldLabel("secret", "acme.example", "users", ("spec", "users", "*", "email"))
    assert b"ada@" not in run(USERS, listed(held), ("secret", "secret.token"), target(label))
    named = FieldLabel("secret", "", "secrets", ("data", "p"))
    release = secret(kind="helm.sh/release.v1", p=PASSWORD, q=PASSWORD)
    assert json.loads(run(SECRET, release, ("secret",), target(named)))["data"] == {"p": MARK, "q": PASSWORD}


@pytest.mark.parametrize("depth", [100, 300, 480, 700, 950, 2000])
def test_what_is_deep_is_masked_or_not_delivered(depth):
    label = FieldLabel("pii.email", "acme.example", "users", ("spec",))
    watch = Info(True, "/x", "watch", "apis", "acme.example", "v1", "", "users")
    whole = Info(True, "/x", "get", "apis", "acme.example", "v1", "", "users")
    for begin, end in (('{"a":', "}"), ("[", "]"), ('{"items":[', "]}")):
        deep = begin * depth + '"hunter22"' + end * depth
        for info, text in ((whole, '{"spec":%s}'), (USERS, '{"items":[{"spec":%s}]}'),
                           (watch, '{"object":{"spec":%s}}\n'), (USERS, '{"items":[%s]}'), (whole, "%s")):
            try:
                assert b"hunter22" not in run(info, (text % deep).encode(), to=target(label)) or text.find("spec") < 0
            except Unclear:
                pass


def test_what_would_take_long_is_not_looked_for():
    held = secret(**{f"k{at}": b64encode(b"%20d" % at).decode() for at in range(20_000)})
    held["metadata"]["annotations"] = {f"a{at}": "x" * 100 for at in range(2000)}
    with at_most(60):
        shown = json.loads(run(SECRET, held))
    assert shown["metadata"]["annotations"]["a0"] == "[redacted]"


def test_many_values_are_detected_fast():
    to = target(detectors=("github-token", "jwt", "card-number", "password-in-url"))
    config = Info(True, "/x", "get", "api", "", "v1", "a", "configmaps", "", "c")
    held = {"kind": "ConfigMap", "apiVersion": "v1", "data": {f"k{at}": "valuevalue" for at in range(30_000)}}
    with at_most(60):
        assert json.loads(run(config, held, labels_of_answer(config, to), to)) == held


def test_what_is_no_list_after_all_is_not_kept_without_end():
    masker = make_masker(SECRETS, (), target(), EVERY, answer())
    with pytest.raises(Unclear, match="more than 16 MiB"):
        for at in range(40):
            masker.feed(b'%s"name%d":"%s"' % (b"," if at else b"{", at, b"x" * 1_000_000))


@pytest.mark.parametrize(("info", "data"), [
    (SECRET, b'{"a":[' + b"[]," * 1_000_000 + b"0]}"),
    (SECRETS, b'{"items":[{"a":[' + b"[]," * 3_000_000 + b"0]}]}"),
    (SECRETS, b'{"items":[{"a":[' + b"[]," * 3_000_000),
])
def test_an_object_of_very_many_values_makes_nobody_wait(info, data):
    with at_most(250), pytest.raises(Unclear, match="more than 100000 values"):      # alone 20
        run(info, data, size=1 << 16)
