"""A path through an object: `*` is every item of a list, every key of a map."""
from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any

from enforcer.policy.masks import REDACTED
from enforcer.protocols.kubernetes.masking.rules import Path, Rule


def mask_place(value: Any, rule: Rule) -> None:
    """In place; everything below the path, keys stay."""
    path, same = rule.path, rule.same
    if len(path) == 2 and path[1] == "*" and same is not None and isinstance(value, dict):
        held = value.get(path[0])
        if isinstance(held, dict):    # of a Secret
            for key, one in held.items():
                held[key] = same if isinstance(one, str) else mask_all(one, rule)
            return
    for holder, key in find_places(value, path):
        one = holder[key]
        holder[key] = same if same is not None and isinstance(one, str) else mask_all(one, rule)


def find_places(value: Any, path: Path) -> Iterator[tuple[Any, Any]]:
    """(object or list, key or index) of each.  A list where the path names no item is gone through."""
    if not path:
        return
    if isinstance(value, list):
        inner = path[1:] if path[0] == "*" else path
        for at, one in enumerate(value):
            if not inner:
                yield value, at
            else:
                yield from find_places(one, inner)
    elif isinstance(value, dict):
        for key in list(value) if path[0] == "*" else [path[0]] if path[0] in value else []:
            if len(path) == 1:
                yield value, key
            else:
                yield from find_places(value[key], path[1:])


def mask_all(value: Any, rule: Rule) -> Any:
    if isinstance(value, dict):
        return {key: mask_all(one, rule) for key, one in value.items()}
    if isinstance(value, list):
        return [mask_all(one, rule) for one in value]
    return mask_text(value, rule) if isinstance(value, str) else None


def mask_text(value: str, rule: Rule) -> str | None:
    masked = rule.mask(_plain(value) if rule.encoded else value.encode("utf-8", "replace"))
    if masked is None and rule.encoded:
        masked = REDACTED.encode()
    if masked is None:
        return None
    return b64encode(masked).decode() if rule.encoded else masked.decode("utf-8", "replace")


def plain_text(value: str) -> str:
    """What base64 stands for, "" where it is none or no text."""
    return _plain(value).decode("utf-8", "ignore")


def _plain(value: str) -> bytes:
    try:
        return b64decode(value)
    except (binascii.Error, ValueError):
        return b""
