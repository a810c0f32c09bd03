"""Text tables of requests and expected decisions: `weir policy test`.

    # SUBJECT  GROUPS    ACTION      RESOURCE                       EXPECTED
    local:ada  data,dba  sql:select  Table::orders/shop/public/t    permit
    local:ada  -         connect     Database::orders/shop          deny
    local:ada  ops       ssh:exec    Command::"web/deploy/ls -l"    permit

Words are separated by blanks, but in double quotes; # begins a comment; groups are joined by commas, - is none.  Of
what is reached over SSH the last part of a path may hold slashes (File::web/deploy//etc/passwd); a Command's is the
whole line, all of it literal, a Variable's NAME=VALUE.

    local:ada  ops       k8s:get     Object::prod/shop/pods/log/web                               permit
    local:ada  ops       k8s:create  Resource::"prod/shop/pods privileged images=nginx images=x"  deny
    local:ada  ops       k8s:get     Url::prod//healthz                                           permit

Of a cluster a subresource stands behind its resource, and words after the path are attributes: NAME is true,
NAME=VALUE a text, or one of a set, NAME='A VALUE' one with blanks.
"""
from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from agent.contract.owner import Owner
from enforcer.policy.cedar import PolicySet
from enforcer.policy.evaluation import rule
from enforcer.policy.model import CHAIN, KINDS, PARENTS, known
from enforcer.words.decisions import NAMES
from enforcer.words.errors import ConfigError
from enforcer.words.operations import Attribute, Principal, Request

_CODE: Final = re.compile(r'(?:[^"#]|"[^"]*"|")*')          # up to a comment
_OF_CLUSTERS: Final = ("Url", "Resource", "Object", "Identity")
_SHAPES: Final = {"Resource": "TARGET/NAMESPACE/RESOURCE[/SUBRESOURCE]",
                  "Object": "TARGET/NAMESPACE/RESOURCE[/SUBRESOURCE]/NAME"}
_WORD: Final = re.compile(r'(?:[^\s"]|"[^"]*"|")+')


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
        words = _split(line)
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
                  _request(file, number, action, kind, path.replace('"', "")), expected)


def _split(line: str) -> list[str]:
    code = _CODE.match(line)
    return _WORD.findall(code[0]) if code else []


def _request(file: str, number: int, action: str, kind: str, path: str) -> Request:
    parts = tuple(path.split("/"))
    if kind in _OF_CLUSTERS:
        return _of_cluster(file, number, action, kind, path)
    if "Account" not in (kind, *CHAIN[kind]) or kind == "Account":
        return Request(action, kind, parts)
    if kind == "Variable":
        *place, said = path.split("/", 2)
        name, _, value = said.partition("=")
        return Request(action, kind, (*place, name), (("value", value),))
    if kind != "Command":
        return Request(action, kind, tuple(path.split("/", 2)))
    *place, line = path.split("/", 2)
    words = _words(file, number, line)
    return Request(action, kind, (*place, *words[:1], shlex.join(words)),
                   (("arguments", tuple(words[1:])), ("literal", True)))


def _words(file: str, number: int, line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise ConfigError(file, number, 1, f'"{line}" is no command line: {error}') from None


def _of_cluster(file: str, number: int, action: str, kind: str, text: str) -> Request:
    if kind == "Identity":
        return Request(action, kind, tuple(text.split("/", 1)))
    path, _, words = text.partition(" ")
    if kind == "Url":
        place, _, path = path.partition("/")
        words = f"path={shlex.quote(path)} {words}"
        return Request(action, kind, (place, path), _attributes(file, number, kind, words))
    parts = [unquote(part) for part in path.split("/")]
    wanted = len(CHAIN[kind])
    if len(parts) == wanted + 1:      # "pods/log"
        parts[2:4] = ["/".join(parts[2:4])]
    if len(parts) != wanted or not all(parts):
        raise ConfigError(file, number, 1, f'"{path}" is not the path of {kind}: {_SHAPES[kind]}')
    return Request(action, kind, tuple(parts), _attributes(file, number, kind, words))


def _attributes(file: str, number: int, kind: str, text: str) -> tuple[tuple[str, Attribute], ...]:
    """ "privileged", "service_account=ci", "images=a images=b", "line='ls -l'"."""
    found: dict[str, Attribute] = {}
    for word in _words(file, number, text):
        name, equals, value = word.partition("=")
        default = known(kind).get(name)
        if isinstance(default, bool) and value in ("", "true", "false"):
            found[name] = value != "false"
        elif isinstance(default, str) and equals:
            found[name] = value
        elif isinstance(default, tuple) and equals:
            before = found.get(name, ())
            found[name] = (*before, value) if isinstance(before, tuple) else (value,)
        else:
            raise ConfigError(file, number, 1, f'"{word}" is no attribute of {kind}: {", ".join(sorted(known(kind)))}')
    return tuple(found.items())


def principal_of(subject: str, groups: tuple[str, ...], workload: str = "") -> Principal:
    owner = Owner(workload, 0, subject, subject, groups, None, "", 0, "", 0, "mark")
    return Principal(subject, groups, owner)


def failures(policies: PolicySet, rows: Iterator[Row]) -> Iterator[tuple[Row, str]]:
    """(row, what policy says instead)."""
    for row in rows:
        found = NAMES[rule(policies, row.principal, row.request, False).outcome]
        if found != row.expected:
            yield row, found
