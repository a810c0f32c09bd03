"""Pure: groups.toml: who is in which group, and whose names are one person's."""
from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agent.contract.locks import LONGEST
from agent.contract.messages import MOST
from agent.contract.people import MOST as NAMES
from agent.contract.people import People
from agent.people.identity import LOCAL
from agent.settings import fields as kinds
from agent.settings.fields import Report
from agent.settings.positions import locate
from agent.settings.syntax import syntax_problem

if TYPE_CHECKING:
    from agent.config import Config

MEMBERS: Final = ("user", "group", "workload", "subject", "weir")


class Groups(msgspec.Struct, frozen=True):
    """groups.toml."""

    groups: dict[str, tuple[str, ...]] = {}      # name -> members
    people: People = People()


def parse_groups(text: str, file: str) -> tuple[Groups, Report]:
    """groups.toml: `[groups]`, each a name and a list of members, each of one of MEMBERS; `[people]`, each a name and a
    list of subjects."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        return Groups(), Report(file, {}, [syntax_problem(file, str(wrong), text)])
    report = Report(file, locate(text))
    kinds.check_names(raw, {"groups": "[groups]", "people": "[people]"}, (), report)
    groups = {name: _members(name, value, report) for name, value in _of_groups(raw, "groups", report).items()}
    _check_nesting(groups, report)
    people = {name: _names_of(name, value, report) for name, value in _of_groups(raw, "people", report).items()}
    _check_people(people, report)
    return Groups(groups, People(people)), report


def _of_groups(raw: Mapping[str, Any], table: str, report: Report) -> dict[str, Any]:
    found = raw.get(table, {})
    if not isinstance(found, dict):
        report.add((table,), f"is a table: write [{table}] and the {table} below")
        return {}
    if len(found) > MOST:
        report.add((table,), f"has {len(found)} {table}; {MOST} at most")
    return found


def _names_of(person: str, value: Any, report: Report) -> tuple[str, ...]:
    right = 'a list like ["local:ada", "corp:ada@example.org"] would be right'
    try:
        kinds.NAME.parse(person)
        names: tuple[str, ...] = kinds.several(kinds.TEXT).parse(value)
    except ValueError as wrong:
        report.add(("people", person), f"{wrong}; {right}")
        return ()
    if len(names) > NAMES:
        report.add(("people", person), f"has {len(names)} names; {NAMES} at most")
        return ()
    for name in names:
        provider, colon, who = name.partition(":")
        if not provider or not colon or not who or len(name) > LONGEST:
            report.add(("people", person), f"{name!r} is no name of a person; local:USER or PROVIDER:SUBJECT, of "
                       f"{LONGEST} characters at most, would be right")
    return names


def _check_people(people: Mapping[str, tuple[str, ...]], report: Report) -> None:
    """No name is two people's."""
    seen: dict[str, str] = {}
    for person, names in people.items():
        for name in names:
            if (first := seen.setdefault(name, person)) != person:
                report.add(("people", person), f"{name!r} is a name of {first!r} already; one list with all of the "
                           "person's names would be right")


def check_providers_of(people: People, config: Config, report: Report) -> None:
    """A name of a provider that is not there would be nobody's, and somebody could then answer what they asked."""
    known = (LOCAL, *(one.name for one in config.logins))
    for person, names in people.everybody.items():
        for name in names:
            provider, colon, user = name.partition(":")
            if colon and provider not in known:
                hint = f"; {LOCAL}:{user} is the user of this host" if provider == "user" else ""
                report.add(("people", person), f"{name!r} names no provider; there is: {', '.join(known)}{hint}")


def _check_nesting(groups: Mapping[str, tuple[str, ...]], report: Report) -> None:
    """Every inner group is there, and none is in itself."""
    inner = {name: [one.removeprefix("weir:") for one in members if one.startswith("weir:")]
             for name, members in groups.items()}
    for name, found in inner.items():
        unknown = [one for one in found if one not in groups]
        for one in unknown:
            report.add(("groups", name), f"'weir:{one}' names no group of this file")
        if not unknown and name in _reached(name, inner):
            report.add(("groups", name), "is a member of itself: leave out one of the `weir:` members that lead there")


def _reached(start: str, inner: Mapping[str, list[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(inner[start])
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += inner.get(name, [])
    return found


def _members(name: str, value: Any, report: Report) -> tuple[str, ...]:
    try:
        kinds.NAME.parse(name)
        members: tuple[str, ...] = kinds.several(kinds.TEXT).parse(value)
    except ValueError as wrong:
        report.add(("groups", name), f"{wrong}; a list like [\"user:ada\", \"group:staff\", \"workload:crew\"] would "
                   "be right")
        return ()
    for member in members:
        kind, colon, who = member.partition(":")
        if kind not in MEMBERS or not colon or not who or (kind == "subject" and ":" not in who):
            report.add(("groups", name), f"{member!r} is no member; user:NAME, group:UNIXGROUP, workload:NAME, "
                       "subject:PROVIDER:NAME or weir:GROUP would be right")
    return members
