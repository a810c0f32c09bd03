"""Answers and bodies in Kubernetes' protobuf."""
import json
import random
import struct

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet

from agent.contract.target import FieldLabel, Target
from enforcer.http.messages import Answer
from enforcer.protocols.kubernetes.bodies import read_body
from enforcer.protocols.kubernetes.bodies.envelope import MAGIC, parse_envelope
from enforcer.protocols.kubernetes.bodies.schema import META, RUNTIME, find_message, message_class
from enforcer.protocols.kubernetes.info import Info, Unclear
from enforcer.protocols.kubernetes.masking import make_masker

PROTOBUF = b"application/vnd.kubernetes.protobuf"
LAST = "kubectl.kubernetes.io/last-applied-configuration"
EVERY = frozenset(("secret", "secret.helm", "secret.token", "pii", "secret.token.github"))
SECRETS = Info(True, "/x", "list", "api", "", "v1", "a", "secrets")
CREATE = Info(True, "/x", "create", "api", "", "v1", "a", "pods")


def info(group: str, resource: str, verb: str = "get") -> Info:
    return Info(True, "/x", verb, "api", group, "v1", "a", resource)


def target(*labels, detectors=()):
    return Target("prod", "kubernetes", ("k",), 6443, (), field_labels=labels, detectors=detectors)


def make(api_version: str, kind: str, **fields):
    return find_message(api_version, kind)(**fields)


def wrapped(message, api_version="v1", kind=None) -> bytes:
    unknown = message_class(f"{RUNTIME}.Unknown")()
    unknown.typeMeta.apiVersion, unknown.typeMeta.kind = api_version, kind or message.DESCRIPTOR.name
    unknown.raw = message.SerializeToString()
    return MAGIC + unknown.SerializeToString()


def secret(name="s", kind="Opaque", data=None, **annotations):
    return make("v1", "Secret", metadata={"name": name, "annotations": annotations}, type=kind,
                data=data or {"p": b"hunter22"})


def run(about, data, masked=EVERY, to=None, kind=PROTOBUF, size=0):
    masker = make_masker(about, (), to or target(), frozenset(masked), Answer(200, b"", ((b"content-type", kind),)))
    size = size or len(data) or 1
    return b"".join(masker.feed(data[at:at + size]) for at in range(0, len(data), size)) + masker.end()


def test_secrets_alone_and_in_lists():
    shown = parse_envelope(run(info("", "secrets"), wrapped(secret()))).message
    assert dict(shown.data) == {"p": b"[redacted]"}
    assert shown.metadata.name == "s"
    many = wrapped(make("v1", "SecretList", items=[secret(), secret("h", "helm.sh/release.v1")]))
    shown = parse_envelope(run(SECRETS, many, size=3)).message
    assert [dict(one.data) for one in shown.items] == [{"p": b"[redacted]"}] * 2
    helm = parse_envelope(run(SECRETS, many, ("secret",))).message.items
    assert [dict(one.data)["p"] for one in helm] == [b"[redacted]", b"hunter22"]


def test_tokens_are_never_shown():
    held = wrapped(secret("t", "kubernetes.io/service-account-token", {"token": b"eyJ", "namespace": b"a"}))
    shown = parse_envelope(run(info("", "secrets"), held, ())).message
    assert dict(shown.data) == {"token": b"[redacted]", "namespace": b"a"}
    asked = Info(True, "/x", "create", "api", "", "v1", "a", "serviceaccounts", "token", "d")
    said = make("authentication.k8s.io/v1", "TokenRequest", status={"token": "eyJ.x.y"})
    assert b"eyJ" not in run(asked, wrapped(said, "authentication.k8s.io/v1"), ())


def test_annotations_repeat_values():
    applied = json.dumps({"kind": "Secret", "data": {"p": "aHVudGVyMjI="}, "stringData": {"p": "hunter22"}})
    out = run(info("", "secrets"), wrapped(secret(**{LAST: applied, "note": "hunter22!", "other": "stays"})))
    assert b"hunter22" not in out
    assert b"aHVudGVy" not in out
    assert b"stays" in out
    partly = make("meta.k8s.io/v1", "PartialObjectMetadataList", items=[{"metadata": {"annotations": {LAST: applied}}}])
    assert b"hunter22" not in run(SECRETS, wrapped(partly, "meta.k8s.io/v1"))


def test_managed_fields_tell_items_of_lists_by_their_values():
    label = FieldLabel("pii", "", "pods", ("spec", "imagePullSecrets", "*", "name"))
    raw = b'{"f:spec":{"f:imagePullSecrets":{"k:{\\"name\\":\\"hunter22\\"}":{}}}}'
    pod = make("v1", "Pod", metadata={"managedFields": [{"fieldsV1": {"Raw": raw}}]})
    assert b"hunter22" not in run(info("", "pods"), wrapped(pod), to=target(label))


def test_labelled_fields_of_built_in_kinds():
    label = FieldLabel("pii", "", "pods", ("spec", "containers", "*", "env", "*", "value"), "partial")
    pod = make("v1", "Pod", spec={"containers": [{"name": "c", "env": [{"name": "E", "value": "ada@corp.example"}]}],
                                  "nodeName": "n"})
    shown = parse_envelope(run(info("", "pods"), wrapped(pod), to=target(label))).message
    assert shown.spec.containers[0].env[0].value == "a***@***.example"
    assert (shown.spec.containers[0].env[0].name, shown.spec.nodeName) == ("E", "n")
    inline = FieldLabel("pii", "", "pods", ("spec", "volumes", "*", "hostPath", "path"))
    pod = make("v1", "Pod", spec={"volumes": [{"name": "v", "volumeSource": {"hostPath": {"path": "/secret"}}}]})
    assert b"/secret" not in run(info("", "pods"), wrapped(pod), to=target(inline))
    whole = FieldLabel("pii", "", "pods", ("spec",))
    out = run(info("", "pods"), wrapped(pod), to=target(whole))
    assert b"/secret" not in out
    count = FieldLabel("pii", "apps", "deployments", ("spec", "replicas"))
    made = make("apps/v1", "Deployment", spec={"replicas": 7})
    shown = parse_envelope(run(info("apps", "deployments"), wrapped(made, "apps/v1"), to=target(count))).message
    assert shown.spec.replicas == 0


def test_a_path_that_the_messages_do_not_know_is_not_shown():
    for path in (("spec", "novel"), ("spec", "containers", "*", "novel"), ("spec", "novel", "x")):
        with pytest.raises(Unclear):
            run(info("", "pods"), wrapped(make("v1", "Pod", spec={"nodeName": "n"})),
                to=target(FieldLabel("pii", "", "pods", path)))


def test_config_maps_by_detectors():
    token = "ghp_" + "a1B2" * 9
    held = make("v1", "ConfigMap", data={"k": token, "o": "x"}, binaryData={"b": token.encode()})
    out = run(info("", "configmaps"), wrapped(held), to=target(detectors=("github-token",)))
    assert token.encode() not in out
    assert dict(parse_envelope(out).message.data)["k"] == "ghp_" + "*" * 36


def frame(kind: str, data: bytes) -> bytes:
    event = message_class(f"{META}.WatchEvent")(type=kind, object={"raw": data}).SerializeToString()
    return struct.pack(">I", len(event)) + event


def test_watches():
    watch = info("", "secrets", "watch")
    status = make("v1", "Status", message='data: Invalid value: "hunter22"', code=410)
    raw = frame("ADDED", wrapped(secret())) + frame("BOOKMARK", wrapped(make("v1", "Secret"))) + frame(
        "ERROR", wrapped(status))
    once = run(watch, raw, kind=PROTOBUF + b";stream=watch")
    assert b"hunter22" not in once
    assert once.count(b"k8s\0") == 3
    for size in (1, 5, 100):
        assert run(watch, raw, kind=PROTOBUF + b";stream=watch", size=size) == once
    masker = make_masker(watch, (), target(), EVERY, Answer(200, b"", ((b"content-type", PROTOBUF),)))
    assert masker.feed(frame("ADDED", wrapped(secret())))
    for bad in (b"\xff\xff\xff\xff", struct.pack(">I", 3) + b"\xff\xff\xff", frame("ADDED", b"xx")):
        with pytest.raises(Unclear):
            run(watch, bad, kind=PROTOBUF)
    with pytest.raises(Unclear):
        run(watch, raw[:50], kind=PROTOBUF)


def test_very_many_values_in_a_list_make_nobody_wait():
    listed = find_message("v1", "SecretList")()
    listed.items.add().data.update({f"k{at}": b"v" for at in range(20_000)})
    for _ in range(5):
        listed.items.add().CopyFrom(listed.items[0])
    with pytest.raises(Unclear, match="ask for JSON"):
        run(info("", "secrets", "list"), wrapped(listed))


def test_what_is_not_known_of_a_message_stays_but_in_a_body_is_refused():
    raw = secret().SerializeToString() + b"\xfa\x7f\x03new"
    novel = find_message("v1", "Secret").FromString(raw)
    shown = parse_envelope(run(info("", "secrets"), wrapped(novel))).message
    assert len(UnknownFieldSet(shown)) == 1
    with pytest.raises(Unclear) as raised:
        read_body(PROTOBUF, wrapped(novel), CREATE)
    assert raised.value.status == 415


@pytest.mark.parametrize("data", [
    b"{}", b"k8s", b"k8s\0\xff", MAGIC, wrapped(secret(), "acme.example/v1", "Thing"),
    wrapped(secret(), "v2", "Nothing"),
])
def test_what_nobody_here_knows_is_not_delivered(data):
    with pytest.raises(Unclear):
        run(info("", "secrets"), data)
    with pytest.raises(Unclear):
        read_body(PROTOBUF, data, CREATE)


def test_a_body_reads_as_its_json_does():
    pod = make("v1", "Pod", metadata={"name": "p", "labels": {"a": "b"}, "creationTimestamp": {"seconds": 86400},
                                      "ownerReferences": [{"kind": "Job", "name": "j"}],
                                      "managedFields": [{"fieldsV1": {"Raw": b'{"f:spec":{}}'}}]},
               spec={"hostNetwork": True, "serviceAccountName": "sa",
                     "volumes": [{"name": "v", "volumeSource": {"hostPath": {"path": "/"}}}],
                     "containers": [{"name": "c", "image": "i", "securityContext": {"privileged": True},
                                     "resources": {"limits": {"cpu": {"string": "1"}}},
                                     "livenessProbe": {
                                         "handler": {"httpGet": {"port": {"type": 1, "strVal": "http"}}}}}],
                     "ephemeralContainers": [{"ephemeralContainerCommon": {"name": "e", "image": "d"}}]})
    body = read_body(PROTOBUF, wrapped(pod), CREATE)
    assert body.value == {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "labels": {"a": "b"}, "creationTimestamp": "1970-01-02T00:00:00Z",
                     "ownerReferences": [{"kind": "Job", "name": "j"}],
                     "managedFields": [{"fieldsV1": {"f:spec": {}}}]},
        "spec": {"hostNetwork": True, "serviceAccountName": "sa", "volumes": [{"name": "v", "hostPath": {"path": "/"}}],
                 "containers": [{"name": "c", "image": "i", "securityContext": {"privileged": True},
                                 "resources": {"limits": {"cpu": "1"}},
                                 "livenessProbe": {"httpGet": {"port": "http"}}}],
                 "ephemeralContainers": [{"name": "e", "image": "d"}]}}
    assert parse_envelope(body.rendered).message == pod
    options = read_body(PROTOBUF, wrapped(make("apps/v1", "DeleteOptions", dryRun=["All"]), "apps/v1"), CREATE)
    assert options.value == {"apiVersion": "apps/v1", "kind": "DeleteOptions", "dryRun": ["All"]}


def test_garbage_is_unclear_and_nothing_else():
    rng = random.Random(5)
    seeds = [wrapped(secret(**{LAST: "{}"})), wrapped(make("v1", "SecretList", items=[secret()])),
             frame("ADDED", wrapped(secret()))]
    for _ in range(3000):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        cut = bytes(data[:rng.randrange(len(data) + 1)])
        for about in (SECRETS, info("", "secrets", "watch")):
            try:
                run(about, cut)
            except Unclear:
                pass
        try:
            read_body(PROTOBUF, cut, CREATE)
        except Unclear:
            pass
