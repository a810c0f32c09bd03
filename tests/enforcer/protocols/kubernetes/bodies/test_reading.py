"""Bodies: read whole or refused, and rendered anew from what was read."""
import json
import random
from base64 import b64decode
from pathlib import Path

import pytest
import yaml
from effort import at_most

from enforcer.protocols.kubernetes.bodies import accept, read_body
from enforcer.protocols.kubernetes.info import Info, Unclear

CREATE = Info(True, "/api/v1/namespaces/a/pods", "create", "api", "", "v1", "a", "pods")
PATCH = Info(True, "/api/v1/namespaces/a/pods/p", "patch", "api", "", "v1", "a", "pods", name="p")
LIST = Info(True, "/api/v1/pods", "list", "api", "", "v1", "", "pods")
PROXY = Info(True, "/api/v1/namespaces/a/services/s/proxy/x", "create", "api", "", "v1", "a", "services", "proxy", "s")
APPLY = b"application/apply-patch+yaml"


def test_json_is_rendered_anew():
    written = b' {"a" : [1, 1.0, -0.5, true, null, "\\u00e9\\ud83d\\ude00"]} '
    body = read_body(b"application/json; charset=UTF-8", written, CREATE)
    assert body.value == {"a": [1, 1.0, -0.5, True, None, "é😀"]}
    assert body.rendered == '{"a":[1,1.0,-0.5,true,null,"é😀"]}'.encode()
    assert body.content_type == b"application/json"
    assert read_body(b"", b"{}", CREATE).content_type == b"application/json"
    assert read_body(b"", b"", CREATE).value is None


@pytest.mark.parametrize("data", [
    b'{"a":1,"a":2}', b'{"a":{"\\u0062":1,"b":2}}', b'{"a":NaN}', b'{"a":Infinity}', b'{"a":-Infinity}', b'{"a":1e999}',
    b'{"a":9223372036854775808}', b'{"a":' + b"1" * 10_000 + b"}", b'{"a":1}x', b'{"a":1}{"a":1}', b'{"a":1', b"[1]",
    b'"x"', b"null", b"\xef\xbb\xbf{}", b'{"a":"\xff"}', b'{"a":"\\ud800"}', b"\x00{}", b"{'a':1}", b'{"a":1,}',
    b'{"a":01}', b'{"a":"\n"}', b'{"a":' * 101 + b"1" + b"}" * 101, b'{"a":' * 100_000, b"[" * 1_000_000,
    b'{"\\ud800":1}', '{"a":1}'.encode("utf-16"), b'{"a":+1}', b'{"a":.5}', b'{"a":0x10}', b"/**/{}",
])
def test_json_that_readers_differ_about(data):
    with pytest.raises(Unclear) as raised:
        read_body(b"application/json", data, CREATE)
    assert raised.value.status == (413 if len(data) > 100_000 else 400)


@pytest.mark.parametrize(("kind", "info"), [
    (b"application/cbor", CREATE), (b"application/apply-patch+cbor", PATCH), (b"text/plain", CREATE),
    (b"application/json", PATCH), (b"application/x-www-form-urlencoded", CREATE), (APPLY, CREATE),
    (b"application/merge-patch+json", CREATE), (b"application/json; charset=latin-1", CREATE),
    (b"application/json; as=Table", CREATE), (b"application/json, application/yaml", CREATE), (b"\xff\xfe", CREATE),
])
def test_forms_that_nobody_here_reads(kind, info):
    with pytest.raises(Unclear) as raised:
        read_body(kind, b"{}", info)
    assert raised.value.status == 415


def test_yaml_is_sent_as_json():
    text = (b"a: yes\nb: 0644\nc: 1:30\nd: 2001-01-01\ne: ~\nf: &x [1, 'no']\ng: *x\nh: 1_000\ni: .5\nj: 0x1F\n"
            b"k: |\n  z\n")
    body = read_body(b"application/yaml", text, CREATE)
    assert body.value == {"a": True, "b": 420, "c": "1:30", "d": "2001-01-01", "e": None, "f": [1, "no"],
                          "g": [1, "no"], "h": 1000, "i": 0.5, "j": 31, "k": "z\n"}
    assert body.content_type == b"application/json"
    assert json.loads(body.rendered) == body.value
    applied = read_body(APPLY, "kind: ConfigMap\ndata: {x: \"\\x7f\\u2028é😀\"}".encode(), PATCH)
    assert applied.content_type == APPLY
    assert yaml.safe_load(applied.rendered) == applied.value == {"kind": "ConfigMap", "data": {"x": "\x7f\u2028é😀"}}
    assert b"\x7f" not in applied.rendered
    assert read_body(APPLY, b'{"kind":"Pod"}', PATCH).rendered == b'{"kind":"Pod"}'
    assert read_body(APPLY, b'{kind: Pod}', PATCH).value == {"kind": "Pod"}


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (at, at, b",".join([b"*%c" % (at - 1)] * 9)) for at in range(ord("b"), ord("i")))


@pytest.mark.parametrize("data", [
    BOMB, b"&a [*a]", b"a: &a {b: *a}", b"a: 1\n---\nb: 2", b"a: 1\na: 2", b"1: 2", b"? [a]\n: b", b"a: !!binary aGk=",
    b"a: !!python/object:os.system x", b"!x a: 1", b"a: .inf", b"a: .NaN", b"<<: {a: 1}\nb: 2", b"- a", b"x", b"a: [",
    b"\xff", b"a: \x00", b"a: " + b"[" * 100_000, b"{" * 5000, b"a: 99999999999999999999", b"%YAML 9.9\n---\na: *b",
    b"yes: 1", b"a: !!set {x}", b"a:\n  - &b c\n  - *d",
])
def test_yaml_that_readers_differ_about(data):
    for kind, info in ((b"application/yaml", CREATE), (APPLY, PATCH)):
        with pytest.raises(Unclear):
            read_body(kind, data, info)


def test_a_key_that_is_an_object_in_yaml_is_none_however_deep_it_is():
    with pytest.raises(Unclear, match="no text"):
        read_body(b"application/yaml", b"? " * 100_000, CREATE)


MANY = {
    "lists": (b"application/json", b'{"a":[' + b"[]," * 990_000 + b"0]}"),
    "texts": (b"application/json", b'{"a":[' + b'"",' * 990_000 + b"0]}"),
    "names": (b"application/json", b"{" + b",".join(b'"%x":0' % one for one in range(200_000)) + b"}"),
    "messages": (b"application/vnd.kubernetes.protobuf",
                 b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Endpoints\x12\x80\x89\x7a" + b"\x12\x00" * 1_000_000),
}


@pytest.mark.parametrize("name", MANY)
def test_a_body_of_very_many_values_is_refused_before_anything_is_made_of_it(name):
    kind, data = MANY[name]
    with at_most(20), pytest.raises(Unclear, match="more than 100000 values"):
        read_body(kind, data, CREATE)


def test_marks_within_texts_are_no_values():
    data = json.dumps({"data": {"table": "a,b,[{:\\\"" * 50_000}}).encode()
    assert read_body(b"", data, CREATE).rendered == data.replace(b": ", b":")


def test_paths_of_a_patch_are_no_way_to_make_others_wait():
    for operation in ({"op": "add", "path": "/" * 60_000, "value": 1},
                      {"op": "copy", "from": "/a" * 60_000, "path": "/b"}):
        with pytest.raises(Unclear, match="segments"):
            read_body(b"application/json-patch+json", json.dumps([operation]).encode(), PATCH)


def test_patches():
    ops = b'[{"op":"add","path":"/a","value":1}]'
    assert read_body(b"application/json-patch+json", ops, PATCH).value == [{"op": "add", "path": "/a", "value": 1}]
    for kind in (b"application/merge-patch+json", b"application/strategic-merge-patch+json"):
        body = read_body(kind, b'{"a":null}', PATCH)
        assert (body.value, body.content_type, body.rendered) == ({"a": None}, kind, b'{"a":null}')
        with pytest.raises(Unclear):
            read_body(kind, ops, PATCH)
    for data in (b"{}", json.dumps([{}] * 10_001).encode()):
        with pytest.raises(Unclear):
            read_body(b"application/json-patch+json", data, PATCH)


def test_what_a_proxy_is_sent_is_nobodys():
    body = read_body(b"image/png", b"\x89PNG", PROXY)
    assert (body.value, body.rendered, body.content_type, body.opaque) == (None, b"\x89PNG", b"image/png", True)


@pytest.mark.parametrize(("asked", "sent"), [
    ([], b""), ([b"application/json"], b"application/json"), ([b"*/*"], b"*/*"),
    ([b"application/cbor"], b"application/json"), ([b"application/cbor, application/json"], b"application/json"),
    ([b"application/CBOR-seq;q=1", b"*/*"], b"*/*"), ([b"application/yaml;q=0.5"], b"application/json;q=0.5"),
    ([b"application/json;as=Table;v=v1;g=meta.k8s.io,application/json"],
     b"application/json;as=Table;v=v1;g=meta.k8s.io, application/json"),
    ([b"application/vnd.kubernetes.protobuf,application/json"],
     b"application/vnd.kubernetes.protobuf, application/json"),
])
def test_accept(asked, sent):
    assert accept(tuple((b"accept", one) for one in asked), LIST) == sent


def test_accept_of_lists_in_which_something_is_masked():
    asked = ((b"accept", b"application/vnd.kubernetes.protobuf, */*"),)
    assert accept(asked, LIST, True) == b"*/*"
    assert accept(asked[:1], CREATE, True) == b"application/vnd.kubernetes.protobuf, */*"
    alone = ((b"accept", b"application/vnd.kubernetes.protobuf"),)
    assert accept(alone, LIST, True) == alone[0][1]


def without_zeros(value):
    """Protobuf has what JSON leaves out, and the other way round."""
    if isinstance(value, list):
        return [without_zeros(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {key: without_zeros(one) for key, one in value.items()}
    return {key: one for key, one in found.items() if one not in (None, "", 0, False, [], {})}


ANSWERS = json.loads(Path(__file__).with_name("answers.json").read_bytes())      # of kube-apiserver v1.34.4, both forms


@pytest.mark.parametrize("path", ANSWERS)
def test_protobuf_reads_as_the_servers_own_json(path):
    said = ANSWERS[path]
    body = read_body(b"application/vnd.kubernetes.protobuf", b64decode(said["protobuf"]), CREATE)
    assert without_zeros(body.value) == without_zeros(said["json"])
    assert read_body(body.content_type, body.rendered, CREATE).value == body.value


def test_garbage_is_unclear_and_nothing_else():
    rng = random.Random(7)
    seeds = [b'{"a":[1,{"b":"\\u00e9"}],"c":null}', b"a: &x [1, 'no']\ng: *x\nk: |\n  z\n",
             b"k8s\x00\n\x0b\n\x02v1\x12\x03Pod\x12\x00"]
    kinds = [(b"application/json", CREATE), (b"application/yaml", CREATE),
             (b"application/vnd.kubernetes.protobuf", CREATE), (b"application/json-patch+json", PATCH), (APPLY, PATCH)]
    for _ in range(3000):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 5)):
            data[rng.randrange(len(data))] = rng.choice(b'{}[]":,\\&*\n \x00\xff0a-')
        data = data[:rng.randrange(len(data) + 1)]
        kind, info = rng.choice(kinds)
        try:
            body = read_body(kind, bytes(data), info)
            assert not data or read_body(body.content_type, body.rendered, info).value == body.value
        except Unclear:
            pass
