"""Kubernetes' protobuf: four bytes, runtime.Unknown around the message, whose kind it says.

Source: k8s.io/apimachinery, pkg/runtime/serializer/protobuf.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from enforcer.protocols.kubernetes.bodies.json_text import VALUES
from enforcer.protocols.kubernetes.bodies.messages import check_message, read_message
from enforcer.protocols.kubernetes.bodies.schema import RUNTIME, find_message, message_class
from enforcer.protocols.kubernetes.info import Unclear

MAGIC: Final = b"k8s\0"


@dataclass(frozen=True, slots=True)
class Envelope:
    unknown: Any                      # runtime.Unknown
    api_version: str
    kind: str
    message: Message


def parse_body(data: bytes) -> tuple[Any, bytes]:
    """(value, rendered anew); Unclear where there is anything in it that nobody here knows."""
    found = parse_envelope(data, VALUES)
    for one in (found.unknown, found.message):
        if _has_unknown(one):
            raise Unclear(f"{found.kind} has fields that Weir does not know: send JSON", 415)
    try:
        value = {"apiVersion": found.api_version, "kind": found.kind, **read_message(found.message)}
    except UnicodeDecodeError:
        raise Unclear("the body is not UTF-8") from None
    return value, render_envelope(found)


def parse_envelope(data: bytes, most: int = 0) -> Envelope:
    """`most`: values that it may hold, 0: whatever it does."""
    if not data.startswith(MAGIC):
        raise Unclear("the body is not Kubernetes' protobuf")
    try:
        unknown: Any = message_class(f"{RUNTIME}.Unknown").FromString(data[len(MAGIC):])
        api_version, kind = unknown.typeMeta.apiVersion, unknown.typeMeta.kind
        made = find_message(api_version, kind)
        if made is None or unknown.contentEncoding or unknown.contentType:
            raise Unclear("a kind in protobuf that Weir does not know: use JSON", 415)
        message = made.FromString(unknown.raw)
        if most:
            check_message(message, most)
        return Envelope(unknown, api_version, kind, message)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        raise Unclear("the body is not Kubernetes' protobuf") from None


def render_envelope(envelope: Envelope) -> bytes:
    envelope.unknown.raw = envelope.message.SerializeToString(deterministic=True)
    return MAGIC + bytes(envelope.unknown.SerializeToString(deterministic=True))


def _has_unknown(message: Message) -> bool:
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return known.ByteSize() != message.ByteSize()
