"""Policies: Cedar text in files -> a checked set.

`load_policies` checks grammar, annotations and schema, and names file, line and column of what is wrong.
Source: docs.cedarpolicy.com, Policies, Grammar and Schema format.
"""
from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final

import cedarpy

from enforcer.policy.holds import HoldError, parse_hold
from enforcer.policy.mistakes import UNCLOSED, locate, meant, unclosed, words
from enforcer.words.decisions import HoldTerms
from enforcer.words.errors import ConfigError

BASE: Final = "base.cedar"
SCHEMA: Final = "weir.cedarschema"
FILE_LIMIT: Final = 1 << 20           # characters of one file
POLICIES_LIMIT: Final = 10_000
_CONTEXT: Final = {"Var": "context"}
_APPROVED: Final = {".": {"left": _CONTEXT, "attr": "approved"}}
_TYPE: Final = re.compile(r"(?m)^entity (\w+)")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,99}\Z")


@dataclass(frozen=True)
class Policy:
    name: str                         # its @id
    effect: str                       # "permit" | "forbid"
    hold: HoldTerms | None
    file: str
    line: int
    text: str
    reads_reports: bool = False       # it looks at context.reported


@dataclass(frozen=True)
class PolicySet:
    """`policies` by Cedar's own id; `parsed` and `schema` are cedarpy's handles."""

    policies: dict[str, Policy]
    parsed: cedarpy.PolicySet
    schema: cedarpy.Schema = field(repr=False)
    reads_reports: bool = False       # any of them looks at context.reported


@dataclass(frozen=True)
class _Piece:
    file: str
    line: int
    column: int
    text: str


def load_policies(files: dict[str, str], *, checked: bool = False) -> PolicySet:
    """The base policy and these.  ConfigError names the first thing that is wrong.  `checked`: another process has
    validated these very texts against the schema, which takes the interpreter's lock for as long as it lasts."""
    pieces = [piece for name, text in {BASE: _shipped(BASE), **files}.items() for piece in _split(name, text)]
    if len(pieces) > POLICIES_LIMIT:
        raise ConfigError("policies", 0, 0, f"{len(pieces)} policies; at most {POLICIES_LIMIT}")
    schema_text = _shipped(SCHEMA)
    policies: dict[str, Policy] = {}
    where: dict[str, _Piece] = {}
    for number, piece in enumerate(pieces):
        policy = _read(piece)
        if policy.name in where:
            first = where[policy.name]
            raise ConfigError(piece.file, piece.line, piece.column,
                              f'@id("{policy.name}") is taken by {first.file}:{first.line}: give each policy its own')
        where[policy.name] = piece
        policies[f"policy{number}"] = policy
    whole = "\n".join(piece.text for piece in pieces)
    schema = cedarpy.Schema.from_str(schema_text)
    if not checked:
        _check_schema(pieces, whole, schema, _TYPE.findall(schema_text))
    return PolicySet(
        policies, cedarpy.PolicySet.from_str(whole), schema, any(one.reads_reports for one in policies.values()))


def _shipped(name: str) -> str:
    return resources.files("enforcer.policy").joinpath(name).read_text("utf-8")


def _check_schema(pieces: list[_Piece], whole: str, schema: cedarpy.Schema, types: list[str]) -> None:
    result = cedarpy.validate_policies(whole, schema)
    if result.validation_passed:
        return
    for error in result.errors:
        number = str(error.policy_id or "").removeprefix("policy")
        if number.isdigit() and int(number) < len(pieces):
            raise _mistake(pieces[int(number)], _plain(str(error.error)), types)
        raise ConfigError("policies", 0, 0, _plain(str(error.error)))


def _mistake(piece: _Piece, said: str, types: list[str], name: str = "") -> ConfigError:
    """What Cedar says of a policy, where that stands in it, and what was meant."""
    at, more = locate(piece.text, said, _complaint)
    notes = "".join(f"; {one}" for one in (more, meant(said, types, piece.text)) if one)
    return _at(piece, at, said + name + notes)


def _at(piece: _Piece, at: int, message: str) -> ConfigError:
    before = piece.text[:at]
    lines = before.count("\n")
    column = len(before) - before.rfind("\n") if lines else piece.column + at
    return ConfigError(piece.file, piece.line + lines, column, message)


def _complaint(text: str) -> str:
    try:
        cedarpy.policies_to_json_str(text)
    except ValueError as error:
        return str(error)
    return ""


def _plain(text: str) -> str:
    """Cedar's words without its own policy numbers."""
    return re.sub(r"for policy `policy\d+`, ", "", text).replace("\n", " ")


def _read(piece: _Piece) -> Policy:
    try:
        parsed = json.loads(cedarpy.policies_to_json_str(piece.text))
    except ValueError as error:
        raise _mistake(piece, str(error), [], ": not Cedar's grammar") from None
    found = list(parsed.get("staticPolicies", {}).values())
    if len(found) != 1 or parsed.get("templates"):
        raise ConfigError(
            piece.file, piece.line, piece.column, "one policy is wanted here, without ?principal or ?resource")
    return _policy(piece, found[0])


def _policy(piece: _Piece, parsed: dict[str, Any]) -> Policy:
    annotations: dict[str, str] = parsed.get("annotations") or {}

    def wrong(text: str) -> ConfigError:
        return ConfigError(piece.file, piece.line, piece.column, text)

    name = annotations.get("id") or ""
    if not _NAME.match(name):
        raise wrong('every policy has a name of letters, digits and . : _ - @ + : @id("readers")')
    if name.startswith("base:") and piece.file != BASE:
        raise wrong(f'@id("{name}"): names that begin with base: are the shipped policy\'s')
    unknown = set(annotations) - {"id", "hold"}
    if unknown:
        raise wrong(f"@{min(unknown)} is not known here: there are @id and @hold")
    hold = None
    if "hold" in annotations:
        try:
            hold = parse_hold(name, annotations["hold"] or "")
        except HoldError as error:
            raise _located(piece, error) from None
        conditions = parsed["conditions"]
        if parsed["effect"] != "forbid" or {"kind": "unless", "body": _APPROVED} not in conditions:
            raise wrong("@hold stands on a policy of the form: forbid (...) unless { context.approved };")
    return Policy(
        name, parsed["effect"], hold, piece.file, piece.line, piece.text.strip(), _reads_reports(parsed["conditions"]))


def _reads_reports(expression: Any) -> bool:
    """Whether it looks at context.reported, or at the context as a whole.  Source: Cedar, JSON policy format."""
    if isinstance(expression, list):
        return any(map(_reads_reports, expression))
    if not isinstance(expression, dict):
        return False
    if expression.get("left") == _CONTEXT and "attr" in expression:
        return bool(expression["attr"] == "reported")
    return expression == _CONTEXT or any(map(_reads_reports, expression.values()))


def _located(piece: _Piece, error: HoldError) -> ConfigError:
    """Where the part that is wrong stands, or else the annotation."""
    annotation = max(piece.text.find("@hold"), 0)
    at = piece.text.find(error.part, annotation) if error.part else annotation
    return _at(piece, annotation if at < 0 else at, f"@hold: {error}")


def _split(file: str, text: str) -> Iterator[_Piece]:
    """Each policy with where it begins: up to a `;` outside of strings and comments."""
    if len(text) > FILE_LIMIT:
        raise ConfigError(file, 0, 0, f"{len(text)} characters; at most {FILE_LIMIT}")
    begin, counted, line = -1, 0, 1
    for match in _TOKEN.finditer(text):
        word = match[0]
        if word.startswith("//") or word.isspace():
            continue
        if begin < 0:
            begin = match.start()
        if word == ";":
            line += text.count("\n", counted, begin)
            counted = begin
            yield _Piece(file, line, begin - text.rfind("\n", 0, begin), text[begin:match.end()])
            begin = -1
    if begin >= 0:
        open_at, last = unclosed(text), words(text[begin:])[-1]
        at, wrong = (open_at, UNCLOSED) if open_at >= 0 else (begin + last.at, 'a policy without its ";" at the end')
        raise _at(_piece(file, text, 0, len(text)), at, wrong)


_TOKEN: Final = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"?|;|\s+|[^\s;"/]+|/')


def _piece(file: str, text: str, begin: int, end: int) -> _Piece:
    line = text.count("\n", 0, begin) + 1
    return _Piece(file, line, begin - (text.rfind("\n", 0, begin) + 1) + 1, text[begin:end])
