"""Text tables of requests and expected decisions: `weir policy test`.

    # SUBJECT  GROUPS    ACTION      RESOURCE                       EXPECTED
    local:ada  data,dba  sql:select  Table::orders/shop/public/t    permit
    local:ada  -         connect     Database::orders/shop          deny

Words are separated by blanks; # begins a comment; groups are joined by commas, - is none.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent.contract.owner import Owner
from enforcer.policy.cedar import PolicySet
from enforcer.policy.evaluation import rule
from enforcer.policy.model import KINDS, PARENTS
from enforcer.words.decisions import NAMES
from enforcer.words.errors import ConfigError
from enforcer.words.operations import Principal, Request


@dataclass(frozen=True)
class Row:
    file: str
    line: int
    principal: Principal
    request: Request
    expected: str


def parse_table(file: str, text: str) -> Iterator[Row]:
    """ConfigError names file and line."""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 5:
            raise ConfigError(
                file, number, 1, f"{len(words)} words; SUBJECT GROUPS ACTION KIND::PATH EXPECTED is wanted")
        subject, groups, action, resource, expected = words
        kind, mark, path = resource.partition("::")
        if not mark or kind not in KINDS:
            kinds = ", ".join(sorted(KINDS))
            raise ConfigError(file, number, 1, f'"{resource}" is not KIND::PATH with KIND one of {kinds}')
        if action not in PARENTS:
            raise ConfigError(file, number, 1, f'there is no action "{action}"')
        if expected not in NAMES.values():
            raise ConfigError(file, number, 1, f'"{expected}" is not permit, deny or hold')
        yield Row(file, number, principal_of(subject, tuple(g for g in groups.split(",") if g not in ("", "-"))),
                  Request(action, kind, tuple(path.strip('"').split("/"))), expected)


def principal_of(subject: str, groups: tuple[str, ...], workload: str = "") -> Principal:
    owner = Owner(workload, 0, subject, subject, groups, None, "", 0, "", 0, "mark")
    return Principal(subject, groups, owner)


def failures(policies: PolicySet, rows: Iterator[Row]) -> Iterator[tuple[Row, str]]:
    """(row, what policy says instead)."""
    for row in rows:
        found = NAMES[rule(policies, row.principal, row.request, False).outcome]
        if found != row.expected:
            yield row, found
