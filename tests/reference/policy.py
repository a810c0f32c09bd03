"""docs/reference-policy.md: actions, resources and what is known of them, from enforcer/policy/weir.cedarschema."""
from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from importlib import resources

from enforcer.policy import detectors
from enforcer.policy.cedar import BASE, SCHEMA, load_policies
from enforcer.policy.model import CHAIN

_HEAD = """\
# Actions and resources

<!-- Made by `make docs` from enforcer/policy/weir.cedarschema and base.cedar. -->

All that a policy may speak of. What it means, and when it is asked, says [policy.md](policy.md).
"""
_ENTITY = re.compile(r"^entity (\w+)(?: in \[([\w, ]+)\])?(?: = \{(.*?)\})?;", re.M | re.S)
_ACTION = re.compile(
    r'^action ((?:"[\w:-]+"(?:,\s*)?)+)(?: in \[([^\]]+)\])?'
    r"(?:\s+appliesTo \{\s*principal: \[\w+\], resource: \[([\w, ]+)\], context: \w+ \})?;", re.M)
_TYPE = re.compile(r"^type (\w+) = \{(.*?)^\};", re.M | re.S)
_FIELD = re.compile(r'"(\w+)": ([\w<>]+)')


def render_page() -> str:
    schema = resources.files("enforcer.policy").joinpath(SCHEMA).read_text()
    return "".join((_HEAD, _actions(schema), _resources(schema), _context(schema), _base(), _detectors()))


def actions(schema: str) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Of each: the groups that it is in, and what it is asked of; a group is asked of nothing."""
    found: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for names, groups, kinds in _ACTION.findall(schema):
        for name in re.findall(r'"([\w:-]+)"', names):
            found[name] = (tuple(re.findall(r'"([\w:-]+)"', groups)), tuple(re.findall(r"\w+", kinds)))
    return found


def entities(schema: str) -> dict[str, tuple[tuple[str, ...], dict[str, str]]]:
    """Of each: what it may lie in, and its attributes with their types."""
    return {name: (tuple(re.findall(r"\w+", parents)), dict(_FIELD.findall(fields)))
            for name, parents, fields in _ENTITY.findall(schema)}


def _actions(schema: str) -> str:
    found = actions(schema)
    members = defaultdict(list)
    for name, (groups, _) in found.items():
        for group in groups:
            members[group].append(name)
    rows = [f"| `{name}` | {_code(kinds)} | {_code(groups)} |\n" for name, (groups, kinds) in found.items() if kinds]
    return ("\n## Actions\n| action | asked of | in the groups |\n|---|---|---|\n" + "".join(rows)
            + "\n## Groups of actions\n`action in Action::\"GROUP\"` is all of them.\n\n| group | has |\n|---|---|\n"
            + "".join(f"| `{name}` | {_code(members[name])} |\n" for name, (_, kinds) in found.items() if not kinds))


def _resources(schema: str) -> str:
    rows, before = [], dict[str, str]()
    for name, (parents, fields) in entities(schema).items():
        path = "/".join(kind.upper() for kind in CHAIN.get(name, ()))
        known = ", ".join(f"`{field}` {_type(kind)}" for field, kind in fields.items())
        first = before.setdefault(known, name)
        known = f"those of `{first}`" if first != name and len(fields) > 5 else known
        shown = f'`{name}::"{path}"`' if path else ""
        rows.append(f"| `{name}` | {shown} | {_code(parents)} | {known} |\n")
    return ("\n## Principals and resources\nA slash within a name is written `%2F`.\n\n"
            "| kind | id | lies in | attributes |\n|---|---|---|---|\n" + "".join(rows))


def _context(schema: str) -> str:
    parts = ["\n## Context\n"]
    for name, body in _TYPE.findall(schema):
        rows = []
        for line in body.splitlines():
            said = line.partition("//")[2].strip()
            rows += [f"| `{field}` | {_type(kind)} | {said} |\n" for field, kind in _FIELD.findall(line)]
        where = "context" if name == "Asked" else "context.reported"
        parts.append(f"\n`{where}`\n\n| attribute | type | |\n|---|---|---|\n" + "".join(rows))
    return "".join(parts)


def _base() -> str:
    base = [one for one in load_policies({}).policies.values() if one.file == BASE]
    return ("\n## The base policy\nIn force beside yours. A `forbid` of yours wins over each of its permits."
            "\n\n| policy | effect |\n|---|---|\n"
            + "".join(f"| `{one.name}` | {one.effect} |\n" for one in sorted(base, key=lambda one: one.line)))


def _detectors() -> str:
    return ("\n## Detectors\n| detector | label |\n|---|---|\n"
            + "".join(f"| `{name}` | `{detectors.LABELS[name]}` |\n" for name in detectors.DETECTORS))


def _type(kind: str) -> str:
    return {"String": "text", "Bool": "true or false", "Set<String>": "set of texts"}.get(kind, kind)


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{one}`" for one in names)
