"""Masks: a value of a labelled column -> what is shown of it.  Pure; type and wire format stay.

Text-like types take any mask; other types take `null`, or what they can hold; where a mask does not fit the type the
value becomes NULL: never the value itself.
"""
from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import Final

# pg_type.dat: bytea, char, name, text, json, xml, bpchar, varchar, unknown
TEXTS: Final = frozenset((18, 19, 25, 142, 1042, 1043, 705))
_TEXT: Final = 25
_LIMITS: Final = {18: 1, 19: 63}       # bytes of "char" and name (NAMEDATALEN - 1)
REDACTED: Final = "[redacted]"
HASH: Final = 16                      # hex digits shown

_key = secrets.token_bytes(32)         # until one is set: nobody can know it, values of one process look equal


def set_key(key: bytes) -> None:
    """Of the `hash` mask: equal values of one installation look equal, and tell nothing else."""
    global _key
    _key = key


def mask_value(mask: str, type_oid: int, format: int, value: bytes) -> bytes | None:
    """The value as shown; None is NULL.  `format` 0 is text, 1 binary (the same bytes for text-like types)."""
    if type_oid not in TEXTS:
        return None
    limit = _LIMITS.get(type_oid)
    name, _, argument = mask.partition(":")
    work = _MASKS.get(name)
    if work is None:
        return None
    try:
        shown = work(value.decode("utf-8"), argument)
    except UnicodeDecodeError:
        return None
    data = None if shown is None else shown.encode("utf-8")
    return None if data is None or (limit is not None and len(data) > limit) else data


def mask_text(mask: str, value: bytes) -> bytes | None:
    """`mask_value` of what is a text, and no column's."""
    return mask_value(mask, _TEXT, 0, value)


def make_mask(mask: str, type_oid: int, format: int) -> Callable[[bytes], bytes | None]:
    """`mask_value` for a column: what is the same for all its values is done once."""
    if mask == "partial" and type_oid in TEXTS and type_oid not in _LIMITS:
        return mask_partial
    return partial(mask_value, mask, type_oid, format)


def mask_partial(value: bytes) -> bytes | None:
    """The mask `partial` of a text, without decoding what is ASCII."""
    if not value.isascii():
        return mask_text("partial", value)
    at = value.rfind(b"@")
    if at < 0:
        return value[:1] + b"***" if len(value) > 3 else b"***"
    first = value[:1] if at > 1 else b""
    dot = value.rfind(b".", at + 1)
    return first + b"***@***" + value[dot:] if dot > at + 1 else first + b"***@***"


def _partial(value: str, _: str) -> str:
    """The first letter and, of an address, the domain's end: a***@***.example.  Short parts are not shown at all."""
    local, at, domain = value.rpartition("@")
    if not at:
        return f"{value[0]}***" if len(value) > 3 else "***"
    first = local[0] if len(local) > 1 else ""
    host, dot, end = domain.rpartition(".")
    return f"{first}***@***.{end}" if host and dot else f"{first}***@***"


def _hash(value: str, _: str) -> str:
    return hmac.new(_key, value.encode("utf-8"), sha256).hexdigest()[:HASH]


_MASKS: Final[dict[str, Callable[[str, str], str | None]]] = {
    "redact": lambda value, _: REDACTED,
    "partial": _partial,
    "hash": _hash,
    "null": lambda value, _: None,
    "constant": lambda value, argument: argument,
}
