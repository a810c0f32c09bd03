"""Paths of a JSON patch (RFC 6902, RFC 6901), as the API server's own reader takes them.

Source: gopkg.in/evanphx/json-patch.v4: what stands before the first "/" is not looked at; indexes may be negative, and
whether a segment is an index or a name only the object knows.
"""
from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Any, Final

from enforcer.protocols.kubernetes.masking.rules import Path

MOST: Final = 4                       # segments that may be indexes; with more, all ways are not tried
INDEX: Final = re.compile(r"-?[0-9]*+")
_MARK: Final = "\0value"


def parse_pointer(text: Any) -> Path:
    """() is the whole object, and what is none."""
    if not isinstance(text, str):
        return ()
    return tuple(one.replace("~1", "/").replace("~0", "~") for one in text.split("/")[1:])


def shapes_at(pointer: Path, value: Any) -> Iterator[tuple[Any, Any, Any]]:
    """(object, holder, key): every object that has the value at this place and nothing else."""
    unsure = [at for at, one in enumerate(pointer) if INDEX.fullmatch(one)]
    for lists in product((False, True), repeat=min(len(unsure), MOST)):
        chosen = dict(zip(unsure, lists, strict=False))
        root: Any = {_MARK: value}
        holder: Any = root
        key: Any = _MARK
        for at, one in enumerate(pointer):
            inner: Any = [value] if chosen.get(at) else {one: value}
            holder[key] = inner
            holder, key = inner, 0 if chosen.get(at) else one
        yield root[_MARK], holder, key


def lies_on(pointer: Path, path: Path) -> bool:
    """One of them leads to, or through, the other."""
    if not pointer or not path:
        return True
    if path[0] in ("*", pointer[0]) and lies_on(pointer[1:], path[1:]):
        return True
    return path[0] != "*" and INDEX.fullmatch(pointer[0]) is not None and lies_on(pointer[1:], path)
