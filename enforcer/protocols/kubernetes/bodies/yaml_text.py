"""YAML as the API server reads it, for what is sent on as JSON.

Source: sigs.k8s.io/yaml with go.yaml.in/yaml/v2, resolve.go: YAML 1.1's booleans and octal numbers; no numbers in base
60, times are texts.  What only few readers know (tags, more than one document, keys that are no texts) is refused.
"""
from __future__ import annotations

import re
from collections.abc import Iterator
from math import isfinite
from typing import Any, Final

import yaml

from enforcer.protocols.kubernetes.bodies.json_text import DEPTH
from enforcer.protocols.kubernetes.info import Unclear

LARGEST: Final = 1 << 20              # bytes: YAML takes a hundred times longer to read than JSON
MOST: Final = 50_000                  # values, with what aliases repeat
_NULL: Final = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE: Final = frozenset(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"))
_FALSE: Final = frozenset(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"))
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]++|[0-9]++(?:\.[0-9]*+)?)(?:[eE][-+]?[0-9]++)?")
_NO_NUMBER: Final = frozenset(
    sign + "." + name for sign in ("", "+", "-") for name in ("nan", "NaN", "NAN", "inf", "Inf", "INF"))
_INT: Final = re.compile(r"([-+]?)(0b[01_]++|0x[0-9a-fA-F_]++|0o?[0-7_]++|[1-9][0-9_]*+|0)")
_BASES: Final = {"0b": 2, "0x": 16, "0o": 8}
_PARSER: Final = getattr(yaml, "CLoader", yaml.Loader)       # of events only: no object is ever made by it


def parse_yaml(data: bytes) -> Any:
    """One document; Unclear where it is none, or where readers differ."""
    if len(data) > LARGEST:
        raise Unclear(f"more than {LARGEST >> 20} MiB of YAML: send JSON", 413)
    try:
        return _Reading(yaml.parse(data.decode("utf-8"), Loader=_PARSER)).document()
    except UnicodeDecodeError:
        raise Unclear("the body is not UTF-8") from None
    except (yaml.YAMLError, ValueError):
        raise Unclear("the body is not one YAML document") from None


class _Reading:
    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._left = MOST
        self._anchors: dict[str, tuple[Any, int]] = {}       # value, and how many there are in it

    def document(self) -> Any:
        self._expect(yaml.StreamStartEvent)
        start = self._expect(yaml.DocumentStartEvent)
        if start.version or start.tags:
            raise Unclear("the body has a YAML directive")
        value = self._value(next(self._events), DEPTH)
        self._expect(yaml.DocumentEndEvent)
        self._expect(yaml.StreamEndEvent)
        return value

    def _expect(self, kind: type[Any]) -> Any:
        event = next(self._events)
        if not isinstance(event, kind):
            raise Unclear("the body is not one YAML document")
        return event

    def _value(self, event: Any, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        self._count(1)
        if depth <= 0 or not isinstance(event, yaml.NodeEvent):
            raise Unclear("the body is too deep")
        if getattr(event, "tag", None) is not None:
            raise Unclear("the body has a YAML tag")
        before = self._left
        value = self._read(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = value, before - self._left + 1
        return value

    def _count(self, values: int) -> None:
        self._left -= values
        if self._left < 0:
            raise Unclear("too much YAML, or its aliases repeat too much: send JSON", 413)

    def _alias(self, event: Any) -> Any:
        if event.anchor not in self._anchors:
            raise Unclear("the body has an alias of what is not there, or not whole")
        value, size = self._anchors[event.anchor]
        self._count(size)
        return value

    def _read(self, event: Any, depth: int) -> Any:
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(depth)
        if isinstance(event, yaml.SequenceStartEvent):
            found = []
            while not isinstance(one := next(self._events), yaml.SequenceEndEvent):
                found.append(self._value(one, depth - 1))
            return found
        return _scalar(event)

    def _mapping(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(name := next(self._events), yaml.MappingEndEvent):
            key = self._value(name, 1) if isinstance(name, yaml.ScalarEvent | yaml.AliasEvent) else None
            if not isinstance(key, str) or key == "<<":
                raise Unclear("the body has a key that is no text, or merges another object: write it out")
            if key in found:
                raise Unclear("the body has a name twice in an object")
            found[key] = self._value(next(self._events), depth - 1)
        return found


def _scalar(event: Any) -> Any:
    text: str = event.value
    if not event.implicit[0]:         # quoted, or a block
        return text
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if text in _NO_NUMBER:
        raise Unclear("the body has a number that JSON has not")
    return _plain_number(text)


def _plain_number(text: str) -> int | float | str:
    if len(text) > 64:
        return text
    if (match := _INT.fullmatch(text)) is not None:
        return _integer(match[1], match[2].replace("_", ""))
    if _FLOAT.fullmatch(text) and isfinite(found := float(text)):
        return found
    return text


def _integer(sign: str, digits: str) -> int:
    base = _BASES.get(digits[:2]) or (8 if digits[0] == "0" else 10)
    body = digits[2:] if digits[:2] in _BASES else digits
    if not body:
        raise Unclear("the body has a number that readers differ about")
    number = int(body, base) * (-1 if sign == "-" else 1)
    if not -(1 << 63) <= number < 1 << 63:
        raise Unclear("the body has a number that is too large")
    return number
