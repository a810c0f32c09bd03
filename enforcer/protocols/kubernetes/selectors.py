"""Field and label selectors, as far as they say which object is meant.  Pure.

Source: k8s.io/apimachinery, pkg/fields and pkg/labels, selector.go.
"""
from __future__ import annotations

import re
from typing import Final

from enforcer.protocols.kubernetes.info import Unclear

_NAME: Final = "metadata.name"
_OPERATOR: Final = re.compile("!=|==|=")
_ESCAPED: Final = re.compile(r"\\(.?)", re.DOTALL)
_WORD: Final = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY: Final = rf"(?:[a-z0-9](?:[-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_WORD}"
_VALUE: Final = rf"[ \t]*+(?:{_WORD})?+[ \t]*+"        # possessive: blanks belong to one of the two
_VALUES: Final = rf"\({_VALUE}(?:,{_VALUE})*+\)"
_LABEL: Final = re.compile(
    rf"[ \t]*(?:![ \t]*{_KEY}|{_KEY}(?:[ \t]*(?:==|=|!=)[ \t]*(?:{_WORD})?|[ \t]+(?:in|notin)[ \t]*{_VALUES})?)[ \t]*")


def named_by(selector: str) -> str:
    """The one name that a field selector leaves, or "".  Unclear where it is none, or says several."""
    found = {value for field, operator, value in map(_term, _terms(selector)) if field == _NAME and operator != "!="}
    if len(found) > 1:
        raise Unclear("the field selector says several names")
    name = found.pop() if found else ""
    return "" if name in (".", "..") or "/" in name or "%" in name else name     # path.IsValidPathSegmentName


def _terms(selector: str) -> list[str]:
    """What commas part that have no backslash before them."""
    return [one for one in re.findall(r"(?:[^\\,]|\\.?)*", selector, re.DOTALL) if one]


def _term(term: str) -> tuple[str, str, str]:
    operator = _OPERATOR.search(term)
    if operator is None:
        raise Unclear("the field selector cannot be read")
    return term[:operator.start()], operator[0], _unescaped(term[operator.end():])


def _unescaped(value: str) -> str:
    """fields.UnescapeValue."""
    if any(one[1] not in ("\\", ",", "=") for one in _ESCAPED.finditer(value)) or "=" in _ESCAPED.sub("", value):
        raise Unclear("the field selector cannot be read")
    return _ESCAPED.sub(r"\1", value)


def valid_labels(selector: str) -> bool:
    """Whether every server can read it; rare forms (comparisons of numbers) count as unreadable."""
    return not selector.strip() or all(map(_LABEL.fullmatch, _split(selector)))


def _split(selector: str) -> list[str]:
    """By commas outside of parentheses."""
    found, depth, start = [], 0, 0
    for at, character in enumerate(selector):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            found.append(selector[start:at])
            start = at + 1
    return [*found, selector[start:]]
