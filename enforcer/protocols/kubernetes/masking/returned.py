"""Masks that come back in a write, and requests that would tell what is masked.

What is masked is known by its form: [redacted], a***@***.example, sixteen hexadecimal digits, the constant.  A value
that looks so in a labelled place is refused: nobody can tell it from a mask.
"""
from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from typing import Any, Final

from agent.contract.target import Target
from enforcer.policy.detectors import labels_of
from enforcer.policy.masks import HASH, REDACTED
from enforcer.protocols.kubernetes.info import Info
from enforcer.protocols.kubernetes.masking.detecting import looks_detected
from enforcer.protocols.kubernetes.masking.labels import is_secret
from enforcer.protocols.kubernetes.masking.places import find_places, plain_text
from enforcer.protocols.kubernetes.masking.pointers import around, is_told, lies_on, parse_pointer, rests
from enforcer.protocols.kubernetes.masking.rules import LAST_APPLIED, REPEATS, Path, Rule, rules_of

_ENCODED: Final = b64encode(REDACTED.encode()).decode().rstrip("=")
SHOWN: Final = 8                      # places that are named
_PARTIAL: Final = re.compile(r".?\*\*\*(?:@\*\*\*(?:\.[^.@]*+)?)?", re.DOTALL)
_HASH: Final = re.compile(rf"[0-9a-f]{{{HASH}}}")
_TOKEN: Final = ("data", "token")
_ANNOTATIONS: Final = ("metadata", "annotations")
_SELECTED: Final = re.compile(r"(?:^|,)\s*([^=!,\s]++)\s*(?:==?|!=)")


def returned_masks(value: Any, info: Info, target: Target, masked: frozenset[str] | None = None) -> list[str]:
    """Places, for people; empty where the request may be sent on.  `masked`: the labels that are, None: all."""
    rules = [one for one in rules_of(info, target) if masked is None or one.label in masked or (
        one.kind == "detect" and not masked.isdisjoint(labels_of(target.detectors)))]
    if not rules and not is_secret(info):
        return []
    found = list(_selected(info.field_selector, [one for one in rules if one.kind != "detect"]))
    if isinstance(value, list):
        found += [place for one in value for place in _operation(one, rules)]
        found += [place for one in value if is_secret(info) for place in _taken(one)]
    elif rules and isinstance(value, dict):
        found += _object(value, rules, info.verb == "update")
    return list(dict.fromkeys(found))[:SHOWN]


def _object(value: dict[str, Any], rules: list[Rule], whole: bool = False) -> Iterator[str]:
    """`whole`: it takes the place of what was there, so that null stands for a number that was masked."""
    for rule in rules:
        for holder, key in find_places(value, rule.path):
            if _is_mask(holder[key], rule, whole):
                yield ".".join((*rule.path[:-1], str(key)))
    metadata = value.get("metadata")
    if isinstance(metadata, dict) and _mask_in(metadata.get("managedFields")):
        yield "metadata.managedFields"
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    for name, text in annotations.items() if isinstance(annotations, dict) else ():
        if (name == LAST_APPLIED or name in REPEATS) and isinstance(text, str) and _repeats(text, rules):
            yield f"metadata.annotations.{name}"


def _repeats(text: str, rules: list[Rule]) -> bool:
    """A mask is in what an annotation keeps of an object."""
    if any(one.kind == "detect" for one in rules) and looks_detected(text):
        return True
    return REDACTED in text or any(
        one.kind.startswith("constant:") and one.kind[9:] and one.kind[9:] in text for one in rules) or _ENCODED in text


def _mask_in(fields: Any) -> bool:
    """A name in it has a mask."""
    if isinstance(fields, list):
        return any(_mask_in(one) for one in fields)
    return isinstance(fields, dict) and any(REDACTED in name or _mask_in(one) for name, one in fields.items())


def _is_mask(value: Any, rule: Rule, whole: bool) -> bool:
    if isinstance(value, dict):
        return any(_is_mask(one, rule, whole) for one in value.values())
    if isinstance(value, list):
        return any(_is_mask(one, rule, whole) for one in value)
    if not isinstance(value, str):
        return value is None and whole and rule.kind != "detect"
    return _looks_masked(plain_text(value) if rule.encoded else value, rule.kind)


def _looks_masked(text: str, kind: str) -> bool:
    """Whatever a field's mask is, what cannot be masked so is redacted."""
    if text.strip() == REDACTED:
        return True
    if kind == "detect":
        return looks_detected(text)
    if kind == "partial":
        return _PARTIAL.fullmatch(text) is not None
    if kind == "hash":
        return _HASH.fullmatch(text) is not None
    return kind.startswith("constant:") and text == kind[9:]


def _operation(one: Any, rules: list[Rule]) -> Iterator[str]:
    """Of a JSON patch: `test` tells whether a guess is right, `copy` and `move` bring a value where it has no label."""
    if not isinstance(one, dict):
        return
    work, pointer, source = one.get("op"), parse_pointer(one.get("path")), parse_pointer(one.get("from"))
    if not (is_told(pointer) and is_told(source)):
        yield "a path that is very long"
        return
    if work == "test" and _labelled(pointer, [rule for rule in rules if rule.kind != "detect"]):
        yield f"test of {one.get('path')}"
    if work in ("copy", "move") and _labelled(source, rules):
        yield f"{work} of {one.get('from')}"
    if "value" in one and work != "test":
        yield from _added(pointer, one["value"], rules)


def _taken(one: Any) -> Iterator[str]:
    """A token of a service account, which nobody is shown, to where it would be read."""
    if isinstance(one, dict) and one.get("op") in ("copy", "move") and lies_on(parse_pointer(one.get("from")), _TOKEN):
        yield f"{one['op']} of {one.get('from')}"


def _added(pointer: Path, value: Any, rules: list[Rule]) -> Iterator[str]:
    if (whole := around(pointer, value)) is not None:
        yield from _object(whole, rules)
    for rule in rules if pointer else ():
        for rest in rests(pointer, rule.path):
            held = [value] if not rest else [holder[key] for holder, key in find_places(value, rest)]
            if any(_is_mask(one, rule, False) for one in held):
                yield ".".join(rule.path)


def _labelled(pointer: Path, rules: list[Rule]) -> bool:
    if not rules:
        return False
    kept = [(*_ANNOTATIONS, name) for name in (LAST_APPLIED, *REPEATS)]
    return any(lies_on(pointer, path) for path in (*kept, *(one.path for one in rules)))


def _selected(selector: str, rules: list[Rule]) -> Iterator[str]:
    """A field selector tells as much as a test."""
    for name in _SELECTED.findall(selector):
        if any(lies_on(tuple(name.split(".")), one.path) for one in rules):
            yield f"the field selector {name}"
