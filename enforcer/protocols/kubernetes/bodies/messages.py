"""A message as the value that its JSON form would be: the same names, what is not set left out."""
from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from enforcer.protocols.kubernetes.bodies.json_text import parse_json, too_many
from enforcer.protocols.kubernetes.bodies.schema import INLINE, META, RUNTIME, is_map, stands_alone
from enforcer.protocols.kubernetes.info import Unclear

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_APIEXTENSIONS: Final = "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions"


def check_message(message: Message, left: int) -> int:
    """Unclear where it holds more values than that; gives how many more it might."""
    for field, value in message.ListFields():
        many = list(value.values()) if is_map(field) else value if field.is_repeated else (value,)
        if (left := left - len(many)) < 0:
            raise too_many()
        if field.message_type is not None and many and isinstance(many[0], Message):
            for one in many:
                left = check_message(one, left)
    return left


def read_message(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        read = _read_field(field, value)
        if field.json_name == INLINE and isinstance(read, dict):
            found |= read
        else:
            found[field.json_name] = read
    return found


def raw_name(message: str) -> str:
    """Name of the field that holds the JSON text which all of this message is in JSON, "" where it is none."""
    return _RAW.get(message, "")


def _read_field(field: FieldDescriptor, value: Any) -> Any:
    if is_map(field):
        return {str(key): _read_one(one) for key, one in value.items()}
    if field.is_repeated:
        return [_read_one(one) for one in value]
    return _read_one(value)


def _read_one(value: Any) -> Any:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if not isinstance(value, Message):
        return value
    name = value.DESCRIPTOR.full_name
    if (special := _SPECIAL.get(name)) is not None:
        return special(value)
    if field := _RAW.get(name):
        return _raw(getattr(value, field))
    return read_message(value).get("items", []) if stands_alone(name) else read_message(value)


def _raw(data: bytes) -> Any:
    if not data:
        return None
    if data.startswith(b"k8s\0"):
        raise Unclear("a message within a message: send JSON", 415)
    return parse_json(data)


def _time(value: Any, form: str = "%Y-%m-%dT%H:%M:%SZ") -> str | None:
    """None where nothing is set: Go's zero time."""
    if not value.ListFields():
        return None
    try:
        return (_EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)).strftime(form)
    except OverflowError:
        raise Unclear("the body has a time that is none") from None


def _micro_time(value: Any) -> str | None:
    return _time(value, "%Y-%m-%dT%H:%M:%S.%fZ")


def _int_or_string(value: Any) -> Any:
    return value.strVal if value.type == 1 else value.intVal


def _text(value: Any) -> Any:
    return getattr(value, "string", "")


def _nanoseconds(value: Any) -> str:
    return f"{value.duration}ns"


_SPECIAL: Final[dict[str, Callable[[Any], Any]]] = {
    f"{META}.Time": _time, f"{META}.MicroTime": _micro_time, f"{META}.Duration": _nanoseconds,
    "k8s.io.apimachinery.pkg.util.intstr.IntOrString": _int_or_string,
    "k8s.io.apimachinery.pkg.api.resource.Quantity": _text,
}
_RAW: Final = {
    f"{META}.FieldsV1": "Raw", f"{RUNTIME}.RawExtension": "raw",
    f"{_APIEXTENSIONS}.v1.JSON": "raw", f"{_APIEXTENSIONS}.v1beta1.JSON": "raw",
}
