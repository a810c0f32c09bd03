"""Answers in Kubernetes' protobuf: masked in the messages themselves, so that what Weir does not know of them stays."""
from __future__ import annotations

import struct
from base64 import b64encode
from dataclasses import replace
from typing import Any, Final

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from enforcer.policy.masks import REDACTED
from enforcer.protocols.kubernetes.bodies.envelope import MAGIC, Envelope, parse_envelope, render_envelope
from enforcer.protocols.kubernetes.bodies.json_text import TOO_MANY, VALUES
from enforcer.protocols.kubernetes.bodies.messages import raw_name
from enforcer.protocols.kubernetes.bodies.schema import INLINE, META, is_map, message_class
from enforcer.protocols.kubernetes.info import Unclear
from enforcer.protocols.kubernetes.masking.managed import mask_raw
from enforcer.protocols.kubernetes.masking.objects import LEAST, ObjectMask, hide_quoted, sought
from enforcer.protocols.kubernetes.masking.places import mask_all, mask_place
from enforcer.protocols.kubernetes.masking.rules import Path, Rule

LARGEST: Final = 16 << 20             # bytes of an answer, or of one event
# What an answer about an object may be besides it: none has the object's own fields.
OTHERS: Final = ("PartialObjectMetadata", "Scale", "DeleteOptions", "Binding", "Eviction", "TokenRequest")
_LENGTH: Final = struct.Struct(">I")  # apimachinery, pkg/util/framer: before each event


class ProtobufWhole:
    """One object or list."""

    def __init__(self, mask: ObjectMask) -> None:
        self._mask, self._kept = mask, bytearray()

    def feed(self, data: bytes) -> bytes:
        self._kept += data
        if len(self._kept) > LARGEST:
            raise Unclear(f"an answer in protobuf of more than {LARGEST >> 20} MiB in which something is masked: ask "
                          "for JSON, or for less at a time (limit=)")
        return b""

    def end(self) -> bytes:
        return mask_body(bytes(self._kept), self._mask) if self._kept else b""


class ProtobufFrames:
    """A watch: events with their lengths before them."""

    def __init__(self, mask: ObjectMask) -> None:
        self._mask, self._kept = mask, bytearray()

    def feed(self, data: bytes) -> bytes:
        self._kept += data
        out = []
        while len(self._kept) >= _LENGTH.size:
            size = int(_LENGTH.unpack_from(self._kept)[0])
            if size > LARGEST:
                raise Unclear(f"an event of more than {LARGEST >> 20} MiB in a watch in which something is masked: ask "
                              "for JSON")
            if len(self._kept) < _LENGTH.size + size:
                break
            event = self._event(bytes(self._kept[_LENGTH.size:_LENGTH.size + size]))
            del self._kept[:_LENGTH.size + size]
            out += [_LENGTH.pack(len(event)), event]
        return b"".join(out)

    def end(self) -> bytes:
        if self._kept:
            raise Unclear("a watch that ended within an event")
        return b""

    def _event(self, data: bytes) -> bytes:
        try:
            event: Any = message_class(f"{META}.WatchEvent").FromString(data)
        except DecodeError:
            raise Unclear("an event of a watch that is none") from None
        event.DiscardUnknownFields()
        if event.object.raw:
            event.object.raw = mask_body(event.object.raw, self._mask)
        return bytes(event.SerializeToString())


def mask_body(data: bytes, mask: ObjectMask) -> bytes:
    if not data.startswith(MAGIC):
        raise Unclear("an answer that is not Kubernetes' protobuf")
    envelope = _parse(data)
    try:
        if envelope.kind == "Status":
            _mask_status(envelope.message)
        else:
            mask_message(envelope.message, mask)
    except UnicodeError:
        raise Unclear("an answer that is not UTF-8") from None
    except RecursionError:
        raise Unclear("an answer that is too deep to be masked") from None
    return render_envelope(envelope)


def _parse(data: bytes) -> Envelope:
    try:
        return parse_envelope(data, VALUES)
    except Unclear as error:
        if error.status != TOO_MANY:
            raise
        raise Unclear(f"an answer in protobuf of more than {VALUES} values in which something is masked: ask for JSON, "
                      "or for less at a time (limit=)") from None


def mask_message(message: Any, mask: ObjectMask) -> None:
    """An object or a list of them, in place."""
    fields = message.DESCRIPTOR.fields_by_name
    if "items" in fields and fields["items"].is_repeated and message.DESCRIPTOR.name.endswith("List"):
        for one in message.items:
            _mask_item(one, mask)
        return
    metadata: Any = getattr(message, "metadata", None)
    annotations = dict(getattr(metadata, "annotations", {}))
    hidden: set[str] | None = set() if annotations else None
    kind = message.type if "type" in fields and isinstance(message.type, str) else ""
    rules = mask.rules({"type": kind, "metadata": {"annotations": annotations}})
    for rule in rules:
        if rule.named and message.DESCRIPTOR.name not in OTHERS and not _knows(message.DESCRIPTOR, rule.path):
            raise Unclear("an answer in protobuf with a labelled field that Weir does not know: ask for JSON")
        _walk(message, rule.path, rule, hidden)
    if rules:
        found = sought(hidden or set(), annotations)
        for entry in getattr(metadata, "managedFields", ()):
            entry.fieldsV1.Raw = mask_raw(entry.fieldsV1.Raw, rules)
        for name, text in annotations.items():
            metadata.annotations[name] = mask.mask_annotation(name, text, kind, found)


def _mask_item(one: Any, mask: ObjectMask) -> None:
    if one.DESCRIPTOR.name == "RawExtension":
        one.raw = mask_body(one.raw, mask)
    else:
        mask_message(one, mask)


def _mask_status(message: Any) -> None:
    message.message = hide_quoted(message.message)
    for cause in message.details.causes:
        cause.message = hide_quoted(cause.message)


def _knows(kind: Descriptor, path: Path) -> bool:
    """The path leads somewhere in messages of this kind, or into what is JSON."""
    if not path or raw_name(kind.full_name):
        return True
    return any(_leads(field, path) for field in kind.fields)


def _leads(field: FieldDescriptor, path: Path) -> bool:
    inner: Any = field.message_type
    if field.json_name == INLINE:
        return _knows(inner, path)
    if path[0] not in ("*", field.json_name):
        return False
    rest = path[1:]
    if is_map(field):
        inner, rest = inner.fields_by_name["value"].message_type, rest[1:]
    elif field.is_repeated and rest[:1] == ("*",):
        rest = rest[1:]
    return _knows(inner, rest) if inner is not None else not rest


def _walk(message: Any, path: Path, rule: Rule, hidden: set[str] | None) -> None:
    """Masks what the path leads to; everything below where it has ended."""
    if name := raw_name(message.DESCRIPTOR.full_name):
        setattr(message, name, _mask_json(getattr(message, name), path, rule))
        return
    for field, value in message.ListFields():
        if field.json_name == INLINE:
            _walk(value, path, rule, hidden)
        elif not path or path[0] in ("*", field.json_name):
            _mask_field(message, field, value, path[1:], rule, hidden)


def _mask_field(
    message: Any, field: FieldDescriptor, value: Any, path: Path, rule: Rule, hidden: set[str] | None,
) -> None:
    if is_map(field):
        for key in list(value):
            if path and path[0] not in ("*", key):
                continue
            if isinstance(value[key], Message):
                _walk(value[key], path[1:], rule, hidden)
            elif len(path) < 2:
                value[key] = _scalar(value[key], rule, hidden)
    elif field.is_repeated:
        path = path[1:] if path[:1] == ("*",) else path
        if field.message_type is not None:
            for one in value:
                _walk(one, path, rule, hidden)
        elif not path:
            value[:] = [_scalar(one, rule, hidden) for one in value]
    elif field.message_type is not None:
        _walk(value, path, rule, hidden)
    elif not path:
        setattr(message, field.name, _scalar(value, rule, hidden))


def _scalar(value: Any, rule: Rule, hidden: set[str] | None) -> Any:
    """Numbers have no mask but the one of nothing."""
    if not isinstance(value, (str, bytes)):
        return type(value)()
    plain = value.encode("utf-8") if isinstance(value, str) else value
    masked = rule.mask(plain)
    if hidden is not None and rule.kind != "detect" and len(plain) >= LEAST:
        hidden |= {plain.decode("utf-8", "ignore"), b64encode(plain).decode()} - {""}
    if isinstance(value, bytes):
        return REDACTED.encode() if masked is None else masked
    return "" if masked is None else masked.decode("utf-8", "replace")


def _mask_json(data: bytes, path: Path, rule: Rule) -> bytes:
    if not data:
        return data
    try:
        value = msgspec.json.decode(data)
        if path:
            mask_place(value, replace(rule, path=path))
        else:
            value = mask_all(value, rule)
        return msgspec.json.encode(value)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise Unclear("an answer that is not JSON where it should be") from None
