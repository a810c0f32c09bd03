"""Paths of a JSON patch (RFC 6902, RFC 6901), as the API server's own reader takes them.

Source: gopkg.in/evanphx/json-patch.v4: what stands before the first "/" is not looked at; indexes may be negative, and
whether a segment is an index or a name only the object knows.
"""
from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from enforcer.protocols.kubernetes.masking.rules import Path

LONGEST: Final = 64                   # segments
_INDEX: Final = re.compile(r"-?[0-9]*+")


def parse_pointer(text: Any) -> Path:
    """() is the whole object, and what is none."""
    if not isinstance(text, str):
        return ()
    return tuple(one.replace("~1", "/").replace("~0", "~") for one in text.split("/")[1:])


def is_told(pointer: Path) -> bool:
    """It is not that long that nobody writes it but to make others wait."""
    return len(pointer) <= LONGEST


def rests(pointer: Path, path: Path) -> Iterator[Path]:
    """What of a labelled path is left below this place; () where all of it is labelled.  A path that names no item of
    a list goes through it."""
    if not pointer or not path:
        yield path
        return
    if path[0] in ("*", pointer[0]):
        yield from rests(pointer[1:], path[1:])
    if path[0] != "*" and _INDEX.fullmatch(pointer[0]):
        yield from rests(pointer[1:], path)


def lies_on(pointer: Path, path: Path) -> bool:
    """One of them leads to, or through, the other."""
    return next(rests(pointer, path), None) is not None


def around(pointer: Path, value: Any) -> dict[str, Any] | None:
    """The object that has this value in its metadata, or is it, and nothing else; None where it is elsewhere."""
    if not pointer:
        return value if isinstance(value, dict) else None
    if pointer[0] != "metadata" or len(pointer) > 3:
        return None
    for name in reversed(pointer):
        value = {name: value}
    return dict(value)


def within(pointer: Path, value: Any) -> Any:
    """The value at this place again."""
    for name in pointer:
        value = value[name]
    return value
