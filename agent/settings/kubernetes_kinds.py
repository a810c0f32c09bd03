"""Pure: what fields of Kubernetes targets may hold."""
from __future__ import annotations

import re
from typing import Any, Final

from agent.settings.fields import MASK, TEXT, Kind

IMPLIED: Final = ("secret", "secret.helm", "secret.token")     # labels that a cluster's objects have without a row
Labelled = tuple[str, str, tuple[str, ...]]                     # group, resource, path

# DNS-1035 labels and DNS-1123 subdomains, as kubectl has `deployments.apps`.
_RESOURCE: Final = re.compile(r"([a-z]([a-z0-9-]{0,61}[a-z0-9])?)(?:\.([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?))?")
_STEP: Final = re.compile(r'"([^"\\]{1,253})"|(\*)|([A-Za-z0-9_$-]{1,253})')
_NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PODS: Final = re.compile(r"[a-z0-9*]([a-z0-9.*-]{0,251}[a-z0-9*])?")
STEPS: Final = 32                     # of a path


def _field(value: Any) -> Labelled:
    place, colon, path = TEXT.parse(value).partition(":")
    found = _RESOURCE.fullmatch(place)
    if not colon or found is None:
        raise ValueError(f"{place[:80]!r} is no resource, as `kubectl api-resources` has it, with a colon after it")
    return found[3] or "", found[1], _path(path)


def _path(text: str) -> tuple[str, ...]:
    """`spec.users[*].email`, `data."ca.crt"`."""
    steps, rest = list[str](), text.replace("[*]", ".*").removeprefix(".")
    while rest or not steps:
        step = _STEP.match(rest)
        if step is None or len(steps) == STEPS:
            raise ValueError(f"{text[:80]!r} is no path of 1 to {STEPS} names")
        steps.append(step[1] or step[2] or step[3])
        rest = rest[step.end():]
        if rest and (not rest.startswith(".") or rest == "."):
            raise ValueError(f"{text[:80]!r} is no path: between two names stands a dot, and a name that has one in it "
                             'stands in quotes')
        rest = rest[1:]
    if steps[0] == "*":
        raise ValueError(f"{text[:80]!r} begins with `*`, which is every field there is")
    return tuple(steps)


def _mask(value: Any) -> str:
    mask: str = MASK.parse(value)
    if mask == "null":
        raise ValueError("null is no mask of a field that has to be there")
    return mask


def _matching(pattern: re.Pattern[str]) -> Any:
    def parse(value: Any) -> str:
        if not pattern.fullmatch(text := TEXT.parse(value)):
            raise ValueError(f"{text[:80]!r} is no such name")
        return str(text)

    return parse


FIELD: Final = Kind('a resource, a colon and the path of a field, like "configmaps:data.password" or '
                    '"users.example.org:spec.items[*].email"', _field)
FIELD_MASK: Final = Kind("one of redact, partial, hash, constant:TEXT", _mask)
NAMESPACE: Final = Kind("a namespace", _matching(_NAMESPACE))
PODS: Final = Kind("a pod's name, in which `*` stands for anything", _matching(_PODS))
