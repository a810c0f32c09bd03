"""managedFields: names of fields and, of lists, the values that tell their items apart.

Source: sigs.k8s.io/structured-merge-diff, fieldpath/serialize-pe.go: "f:NAME", "k:{KEYS}", "v:VALUE", "i:INDEX".
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from enforcer.policy.masks import REDACTED
from enforcer.protocols.kubernetes.info import Unclear
from enforcer.protocols.kubernetes.masking.rules import Path, Rule

_ITEMS: Final = ("k:", "v:", "i:")


def mask_managed(metadata: Any, rules: tuple[Rule, ...]) -> None:
    """In place; only what a target's settings label can stand there."""
    entries = metadata.get("managedFields") if isinstance(metadata, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and "fieldsV1" in entry:
            entry["fieldsV1"] = mask_fields(entry["fieldsV1"], rules)


def mask_fields(fields: Any, rules: tuple[Rule, ...]) -> Any:
    for rule in rules:
        if rule.named:
            fields = _mask(fields, rule.path, False)
    return fields


def mask_raw(data: bytes, rules: tuple[Rule, ...]) -> bytes:
    """The same as JSON."""
    if not data or not any(rule.named for rule in rules):
        return data
    try:
        return msgspec.json.encode(mask_fields(msgspec.json.decode(data), rules))
    except (msgspec.MsgspecError, RecursionError):
        raise Unclear("managedFields that are not JSON") from None


def _mask(fields: Any, path: Path, below: bool) -> Any:
    """`below`: all of it has the label."""
    if not isinstance(fields, dict):
        return fields
    return dict(_entries(fields, path, below))


def _entries(fields: dict[str, Any], path: Path, below: bool) -> Iterator[tuple[str, Any]]:
    for key, value in fields.items():
        if key[:2] in _ITEMS:
            rest = path[1:] if path[:1] == ("*",) else path
            every = below or not rest
            yield _item(key, rest, every), _mask(value, rest, every)
        elif below or (path and path[0] in ("*", key[2:])):
            yield key, _mask(value, path[1:], below or len(path) == 1)
        else:
            yield key, value


def _item(key: str, path: Path, every: bool) -> str:
    if key.startswith("v:"):
        return f'v:"{REDACTED}"' if every else key
    if key.startswith("i:"):
        return key
    try:
        names = msgspec.json.decode(key[2:], type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        return f'k:{{"{REDACTED}":""}}'
    hidden = {name: REDACTED for name in names if every or path[0] in ("*", name)}
    return "k:" + msgspec.json.encode({**names, **hidden}).decode() if hidden else key
