"""A body by its content type: what it says, and what of it the server gets."""
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from enforcer.protocols.kubernetes.bodies.accepting import JSON, PROTOBUF
from enforcer.protocols.kubernetes.bodies.envelope import parse_body
from enforcer.protocols.kubernetes.bodies.json_text import parse_json, render_json
from enforcer.protocols.kubernetes.bodies.yaml_text import parse_yaml
from enforcer.protocols.kubernetes.info import Info, Unclear

_APPLY: Final = b"application/apply-patch+yaml"
_JSON_PATCH: Final = b"application/json-patch+json"
_PATCHES: Final = (_JSON_PATCH, b"application/merge-patch+json", b"application/strategic-merge-patch+json")
_YAML: Final = b"application/yaml"
OPERATIONS: Final = 10_000            # apiserver, endpoints/handlers/patch.go: maxJSONPatchOperations
STEPS: Final = 50_000                 # segments of all of its paths
SHOWN: Final = 100                    # bytes of a content type that a reason names
# go.yaml.in/yaml/v2, readerc.go: what YAML has only escaped.  Beyond U+FFFF it has no escapes that JSON has.
_NO_YAML: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Body:
    """`value` as its JSON would be, None where there is none (`rendered` b"") or where it is nobody's to read
    (`opaque`: of a proxy's request)."""

    value: Any
    rendered: bytes                   # what the server gets
    content_type: bytes               # of `rendered`
    opaque: bool = False


def read_body(content_type: bytes, data: bytes, info: Info) -> Body:
    """Unclear(400) where it cannot be told what it says, Unclear(415) where nobody here knows its form."""
    if info.verb == "proxy" or info.subresource == "proxy":
        return Body(None, data, content_type, True)
    if not data:
        return Body(None, b"", b"")
    kind = _media_type(content_type)
    if kind == PROTOBUF:
        value, rendered = parse_body(data)
        return Body(value, rendered, PROTOBUF)
    if info.verb == "patch":
        return _patch(kind, data)
    if kind in (b"", JSON):
        return _json(parse_json(data), JSON)
    if kind == _YAML:
        return _json(parse_yaml(data), JSON)
    raise _unknown(kind)


def _patch(kind: bytes, data: bytes) -> Body:
    if kind == _APPLY:
        value = _apply(data)
        return Body(_object(value), _as_yaml(render_json(value)), _APPLY)
    if kind not in _PATCHES:
        raise _unknown(kind)
    value = parse_json(data)
    if isinstance(value, list) != (kind == _JSON_PATCH):
        raise Unclear("the body is not a patch of the form that its content type says")
    if kind == _JSON_PATCH:
        _check_operations(value)
    return _json(value, kind)


def _check_operations(operations: list[Any]) -> None:
    """Their paths are gone through as their values are."""
    if len(operations) > OPERATIONS:
        raise Unclear(f"a JSON patch of more than {OPERATIONS} operations", 413)
    paths = (one.get(name) for one in operations if isinstance(one, dict) for name in ("path", "from"))
    if sum(one.count("/") for one in paths if isinstance(one, str)) > STEPS:
        raise Unclear(f"a JSON patch whose paths have more than {STEPS} segments", 413)


def _json(value: Any, kind: bytes) -> Body:
    if kind != _JSON_PATCH:
        _object(value)
    return Body(value, render_json(value), kind)


def _object(value: Any) -> Any:
    if not isinstance(value, dict):
        raise Unclear("the body is not an object")
    return value


def _apply(data: bytes) -> Any:
    """What is written as JSON; "{" begins YAML too."""
    if data.lstrip()[:1] == b"{":
        try:
            return parse_json(data)
        except Unclear as error:
            if "not JSON" not in error.reason:
                raise
    return parse_yaml(data)


def _as_yaml(rendered: bytes) -> bytes:
    text = rendered.decode("utf-8")
    return _NO_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode("utf-8")


def _media_type(content_type: bytes) -> bytes:
    """Without its parameters, of which only charset=utf-8 says what is true."""
    name, _, parameters = content_type.partition(b";")
    for one in parameters.split(b";"):
        key, _, value = one.strip().lower().partition(b"=")
        if key and (key, value.strip(b'"')) != (b"charset", b"utf-8"):
            raise _unknown(content_type)
    return name.strip().lower()


def _unknown(kind: bytes) -> Unclear:
    shown = kind[:SHOWN].decode("ascii", "replace")
    return Unclear(f"a body of the type {shown!r}: send JSON, YAML or Kubernetes' protobuf", 415)
