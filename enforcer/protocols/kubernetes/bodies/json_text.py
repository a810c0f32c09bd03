"""JSON that nobody reads otherwise (RFC 8259): no name twice in an object, no NaN, no numbers beyond what Go keeps.

Source: sigs.k8s.io/json, which the API server reads JSON by: integers are int64, other numbers float64.
"""
from __future__ import annotations

import json
import re
from itertools import islice
from math import isinf
from typing import Any, Final

import msgspec

from enforcer.protocols.kubernetes.info import Unclear

DEPTH: Final = 100                    # objects and lists in each other
TOO_MANY: Final = 413                 # HTTP's status for it
VALUES: Final = 100_000               # in a body: read, judged, written down in a quarter of a second
_INT: Final = 1 << 63
_DIGITS: Final = 20                   # of an integer that fits
_QUOTE: Final = ord('"')
_MARK: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[,\[{:]', re.DOTALL)    # a text is one, whatever is in it


def parse_json(data: bytes) -> Any:
    """One value and nothing after it; Unclear where it is none, or where readers differ."""
    if has_many(data):
        raise too_many()
    try:
        value = _decoder.decode(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise Unclear("the body is not UTF-8") from None
    except RecursionError:
        raise Unclear("the body is too deep") from None
    except json.JSONDecodeError as error:
        raise Unclear(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    check_depth(value)
    return value


def render_json(value: Any) -> bytes:
    """Unclear where a text in it is none (half a surrogate pair)."""
    try:
        return msgspec.json.encode(value)
    except (UnicodeEncodeError, OverflowError, RecursionError, msgspec.MsgspecError):
        raise Unclear("the body holds what cannot be written in UTF-8") from None


def has_many(data: bytes | bytearray) -> bool:
    """More values than anybody means to wait for; nothing is made of it before."""
    if sum(map(data.count, (b",", b"[", b"{", b":"))) <= VALUES:      # each value but the first stands behind one
        return False
    marks = (1 for one in _MARK.finditer(data) if data[one.start()] != _QUOTE)
    return next(islice(marks, VALUES, None), None) is not None


def too_many() -> Unclear:
    return Unclear(f"the body holds more than {VALUES} values", TOO_MANY)


def check_depth(value: Any, most: int = DEPTH) -> None:
    """Unclear where it is deeper."""
    level = [value]
    for _ in range(most):
        level = [below for one in level if isinstance(one, (dict, list))
                 for below in (one.values() if isinstance(one, dict) else one) if isinstance(below, (dict, list))]
        if not level:
            return
    raise Unclear("the body is too deep")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unclear("the body has a name twice in an object")
    return found


def _integer(text: str) -> int:
    if len(text) <= _DIGITS and -_INT <= (number := int(text)) < _INT:
        return number
    raise Unclear("the body has a number that is too large")


def _number(text: str) -> float:
    if isinf(number := float(text)):
        raise Unclear("the body has a number that is too large")
    return number


def _constant(text: str) -> Any:
    raise Unclear(f"the body is not JSON: {text}")


_decoder: Final = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=_integer, parse_float=_number, parse_constant=_constant)
