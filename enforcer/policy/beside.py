"""What `weir policy explain` takes from weir.toml and groups.toml beside the policies: names, and who is in what group.

Pure.  Whether these files are right is `weir check`'s to say: of what is not as it should be, nothing is taken.
"""
from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

LOCAL = "local:"                      # subjects of this host


@dataclass(frozen=True)
class Workload:
    users: tuple[str, ...]
    named: bool                       # a login or a provider says who stands behind it


@dataclass(frozen=True)
class Beside:
    targets: frozenset[str]
    workloads: dict[str, Workload]
    groups: dict[str, tuple[str, ...]]      # of groups.toml: name -> members
    given: frozenset[str]             # groups that providers put subjects into


def parse_beside(config: str, groups: str) -> Beside:
    """Of the texts of weir.toml and groups.toml.  Raises ValueError: no TOML."""
    raw, members = tomllib.loads(config), tomllib.loads(groups).get("groups")
    given = (group for one in _tables(raw, "provider") if isinstance(found := one.get("groups"), dict)
             for group in found.values())
    return Beside(
        frozenset(_texts(one.get("name") for one in _tables(raw, "target"))),
        {one["name"]: Workload(tuple(_texts(one.get("users"))), bool(one.get("person") or one.get("identity")))
         for one in _tables(raw, "workload") if isinstance(one.get("name"), str)},
        {name: tuple(_texts(found)) for name, found in members.items()} if isinstance(members, dict) else {},
        frozenset(_texts(given)))


def _tables(raw: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    found = raw.get(name)
    yield from (one for one in found if isinstance(one, dict)) if isinstance(found, list) else ()


def _texts(values: object) -> Iterator[str]:
    if isinstance(values, Iterable) and not isinstance(values, str | dict):
        yield from (one for one in values if isinstance(one, str))


def notes(beside: Beside, target: str, groups: Iterable[str], workload: str) -> Iterator[str]:
    """Names that nothing has: what is answered for them is right, and hardly what was asked."""
    if target not in beside.targets:
        yield f'there is no target "{target}" in weir.toml{_known(beside.targets)}'
    if workload and workload not in beside.workloads:
        yield f'there is no workload "{workload}" in weir.toml{_known(beside.workloads)}'
    known = {*beside.groups, *beside.given}
    for group in groups:
        if group not in known:
            yield f'there is no group "{group}" in groups.toml{_known(known)}'


def _known(names: Iterable[str]) -> str:
    return f": there is {', '.join(sorted(names))}" if names else ": there is none"
