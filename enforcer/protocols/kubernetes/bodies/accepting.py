"""Accept: which forms of an answer a crew may ask for (RFC 9110 12.5.1)."""
from __future__ import annotations

from typing import Final

from enforcer.http.messages import Headers, value
from enforcer.protocols.kubernetes.info import Info

JSON: Final = b"application/json"
PROTOBUF: Final = b"application/vnd.kubernetes.protobuf"
_YAML: Final = (b"application/yaml", b"application/x-yaml", b"text/yaml", b"text/x-yaml")
MOST: Final = 64                      # ranges that are read
_MANY: Final = ("list", "watch", "deletecollection")


def accept(headers: Headers, info: Info, hides: bool = False) -> bytes:
    """What of Accept goes to the server, b"" where nothing was asked for.  CBOR is taken away; YAML of objects becomes
    JSON, which is YAML too.  `hides`: something in the answer is masked; lists are asked for in JSON then, which
    streams, unless the crew takes protobuf alone."""
    asked = [one.strip() for one in value(headers, b"accept").split(b",")]
    kept = [one for one in asked[:MOST] if one and b"cbor" not in one.lower()]
    if info.is_resource and info.verb != "proxy" and info.subresource != "proxy":
        kept = [_objects(one) for one in kept]
        if hides and info.verb in _MANY:
            kept = [one for one in kept if _type(one) != PROTOBUF] or kept
    if not kept and any(asked):
        return JSON
    return b", ".join(dict.fromkeys(kept))


def _type(one: bytes) -> bytes:
    return one.partition(b";")[0].strip().lower()


def _objects(one: bytes) -> bytes:
    parameters = one.partition(b";")[2]
    if _type(one) not in _YAML:
        return one
    return JSON + b";" + parameters.strip() if parameters.strip() else JSON
