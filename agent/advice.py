"""Pure: what is right and yet hardly meant, and what is still to be filled in: `weir check` adds it as notes.

Policies are looked at as text, for the names in them; whether they are right is said by agent/check.py.
"""
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from agent.config import Config
from agent.fields import Problem
from agent.status import said_of_mode

_NAMED: Final = re.compile(r'\b(Target|Database|Schema|Table|Function|Group|Workload|Label)::"([^"/\n]+)')
_APPROVERS: Final = re.compile(r'(?:@hold\("[^"\n]*?approvers=|[",] *break-glass=|[",] *escalate=\w+:)([^",\n]*)')
_PERMIT: Final = re.compile(r"\bpermit\b[^;]*;")
_REPORTED: Final = re.compile(r"""\bcontext\s*(?:\.\s*|\[\s*"|\bhas\s+"?)reported\b""")
_OF_TARGETS: Final = ("Target", "Database", "Schema", "Table", "Function")


def missing(config: Config) -> Iterator[str]:
    """What a configuration needs before a crew can work, and does not have."""
    if not config.targets:
        yield ("no [[target]]: name your database, and below it under [[target.credential]] the user and the file with "
               "the password that Weir logs in with")
    if not config.workloads:
        yield "no [[workload]]: name what `weir run --workload` may start, and the users it may run as"
    if not config.egress:
        yield "no [[egress]]: crews reach no model; name its address and port, unless they need none"
    if not config.groups:
        yield f"{config.directory}/groups.toml puts nobody into a group"
    if not any(_code(text).strip() for text in config.policies.values()):
        yield (f"{config.directory}/policies/*.cedar permit nothing, so every statement is denied; "
               "policies/examples.cedar of packaging/default shows how")


def lax(config: Config) -> Iterator[str]:
    """Workloads whose egress is not enforced."""
    for workload, mode in sorted(config.egress_modes.items()):
        yield said_of_mode(workload, mode) + "; `weir egress suggest` drafts the [[egress]] that it needs"


def notes(config: Config) -> tuple[Problem, ...]:
    """Names in policies that nothing has: such a policy never applies, or such a hold can never be answered; and what
    permits by a crew's own word."""
    targets = frozenset(one.name for one in config.targets)
    known = {
        **dict.fromkeys(_OF_TARGETS, targets), "Group": set(config.groups),
        "Workload": {one.name for one in config.workloads}, "Label": set(_labels(config))}
    places = {**dict.fromkeys(_OF_TARGETS, "[[target]]"), "Group": "group of groups.toml",
              "Workload": "[[workload]]", "Label": "[[target.label]]"}
    found = [
        Problem(file, line, "", f'{kind}::"{name}" names no {places[kind]}{_known(known[kind])}')
        for file, line, kind, name in _names(config.policies) if name not in known[kind]]
    return (*dict.fromkeys(found), *_permits_by_word(config.policies))


def _permits_by_word(policies: dict[str, str]) -> Iterator[Problem]:
    for file, text in policies.items():
        code = _code(text)
        for match in _PERMIT.finditer(code):
            if _REPORTED.search(match[0]):
                yield Problem(file, code.count("\n", 0, match.start()) + 1, "", "permits by context.reported, which is "
                              "what a crew says of itself: one that lies is permitted too")


def secret_files(config: Config) -> Iterator[str]:
    """Files of root's that hold a secret."""
    rows = (row for target in config.targets for row in target.credentials)
    named = [file for row in rows for file in (row.password_file, row.certificate_file, row.key_file)]
    named += [provider.client_secret_file for provider in config.providers]
    named += [one.identity.token_file for one in config.workloads if one.identity]
    yield from filter(None, named)


def _labels(config: Config) -> Iterator[str]:
    """Labels, and what they are in: pii.email is in pii."""
    for target in config.targets:
        for row in target.labels:
            parts = row.label.split(".")
            yield from (".".join(parts[:count + 1]) for count in range(len(parts)))


def _known(names: Iterable[str]) -> str:
    return f": there is {', '.join(sorted(names))}" if names else ": there is none"


def _names(policies: dict[str, str]) -> Iterator[tuple[str, int, str, str]]:
    """(file, line, kind, name) of what policies name."""
    for file, text in policies.items():
        for number, line in enumerate(_code(text).split("\n"), 1):
            for match in _NAMED.finditer(line):
                yield file, number, match[1], match[2]
            for match in _APPROVERS.finditer(line):
                yield from ((file, number, "Group", name) for name in match[1].split())


def _code(text: str) -> str:
    """Without comments; lines stay where they are.  A "//" in a string ends it too, which costs a note."""
    return re.sub(r"//.*", "", text)
