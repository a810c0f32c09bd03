"""YAML as the API server reads it, for what is sent on as JSON.

Source: sigs.k8s.io/yaml with go.yaml.in/yaml/v2, resolve.go: YAML 1.1's booleans and octal numbers; no numbers in base
60, times are texts.  What only few readers know (tags, more than one document, keys that are no texts) is refused.
"""
from __future__ import annotations

import re
from math import isfinite
from typing import Any, Final

import yaml

from enforcer.protocols.kubernetes.bodies.json_text import DEPTH
from enforcer.protocols.kubernetes.info import Unclear

MOST: Final = 200_000                 # values, with what aliases repeat
_NULL: Final = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE: Final = frozenset(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"))
_FALSE: Final = frozenset(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"))
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]++|[0-9]++(?:\.[0-9]*+)?)(?:[eE][-+]?[0-9]++)?")
_NO_NUMBER: Final = frozenset((".nan", ".NaN", ".NAN", ".inf", ".Inf", ".INF", "+.inf", "-.inf", "+.Inf", "-.Inf",
                               "+.INF", "-.INF"))
_INT: Final = re.compile(r"([-+]?)(0b[01_]++|0x[0-9a-fA-F_]++|0o?[0-7_]++|[1-9][0-9_]*+|0)")
_TAGS: Final = {"tag:yaml.org,2002:" + one for one in ("str", "map", "seq", "int", "float", "bool", "null")}


def parse_yaml(data: bytes) -> Any:
    """One document; Unclear where it is none, or where readers differ."""
    try:
        text = data.decode("utf-8")
        loader = _Loader(text)
        node = loader.get_single_node()
    except UnicodeDecodeError:
        raise Unclear("the body is not UTF-8") from None
    except (yaml.YAMLError, RecursionError, ValueError):
        raise Unclear("the body is not one YAML document") from None
    return None if node is None else _Reading().read(node, DEPTH)


class _Loader(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser, yaml.composer.Composer,
              yaml.resolver.BaseResolver):
    """Nodes only: what a scalar means is said here, and no object is ever made."""

    def __init__(self, text: str) -> None:
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)
        yaml.composer.Composer.__init__(self)
        yaml.resolver.BaseResolver.__init__(self)


class _Reading:
    def __init__(self) -> None:
        self._left = MOST

    def read(self, node: yaml.Node, depth: int) -> Any:
        self._left -= 1
        if depth < 0 or self._left < 0:
            raise Unclear("the body is too deep, or its aliases repeat too much")
        if node.tag not in _TAGS:
            raise Unclear("the body has a YAML tag")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(one, depth - 1) for one in node.value]
        if not isinstance(node, yaml.ScalarNode):
            raise Unclear("the body is not one YAML document")
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in node.value:
            key = self.read(name, 0)
            if not isinstance(key, str) or (key == "<<" and name.style is None):
                raise Unclear("the body has a key that is no text, or merges another object: write it out")
            if key in found:
                raise Unclear("the body has a name twice in an object")
            found[key] = self.read(value, depth - 1)
        return found


def _scalar(node: yaml.ScalarNode) -> Any:
    text: str = node.value
    if node.style is not None:
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
    if (match := _INT.fullmatch(text)) is not None and text[-1] != "_":
        digits = match[2].replace("_", "")
        base = {"0b": 2, "0x": 16, "0o": 8}.get(digits[:2]) or (8 if digits[0] == "0" and len(digits) > 1 else 10)
        number = int(digits[2:] if digits[1:2] in ("b", "x", "o") else digits, base) * (-1 if match[1] == "-" else 1)
        if not -(1 << 63) <= number < 1 << 63:
            raise Unclear("the body has a number that is too large")
        return number
    if _FLOAT.fullmatch(text) and isfinite(found := float(text)):
        return found
    return text
