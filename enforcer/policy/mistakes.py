"""Where in a policy a mistake stands, and what was probably meant.  Pure.

Cedar says what is wrong and gives no place.  What its grammar does not know is found by giving it ever less of the
text; what it names, where exactly one word of the policy is that, or where each that is would be wrong.  Else nobody
knows, and the policy's beginning has to do: a wrong line is worse.
"""
from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from enforcer.policy.model import PARENTS

# docs.cedarpolicy.com, Grammar: a text may go on over lines; one that nobody closes goes on to the end.
_WORD: Final = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*(?:"|\Z)|[A-Za-z_]\w*|\d+|::|[=!<>]=|&&|\|\||\S', re.DOTALL)
_INVALID: Final = "invalid token"
_UNREAD: Final = re.compile(rf"unexpected token `.+`|{_INVALID}", re.DOTALL)
_NAMED: Final = tuple(re.compile(one, re.DOTALL) for one in (
    r"invalid policy effect: (?P<name>\S+)",
    r"found an invalid variable in the policy scope: (?P<name>\S+)",
    r"invalid policy condition: (?P<name>\S+)",
    r".* but got `(?P<name>[^`]+)`",
    r".*, found (?:literal|name) `(?P<name>[^`]+)`",
    r"invalid member access `(?P<name>[^`]+)`, .*",
    r"invalid variable: (?P<name>\S+)",
    r"`(?P<name>\w+)` is not a valid (?:function|method).*",
    r"attribute `(?P<name>\w+)` .*not found.*",
))
# Each of these is wrong wherever it stands.
_EVERYWHERE: Final = tuple(re.compile(one, re.DOTALL) for one in (
    r"unrecognized action `(?P<name>[^`]+)`.*",
    r"unrecognized entity type `(?P<name>[^`]+)`.*",
    r"'(?P<name>=)' is not a valid operator.*",
))
_ACTION: Final = re.compile(r'unrecognized action `Action::"(?P<name>[^"`]*)"`')
_TYPE: Final = re.compile(r"unrecognized entity type `(?P<name>[^`]+)`")
_ATTRIBUTE: Final = re.compile(r"attribute `(?P<name>\w+)` ")
_VARIABLE: Final = re.compile(r"found an invalid variable in the policy scope: (?P<name>\S+)")
_EFFECT: Final = re.compile(r"invalid policy effect: (?P<name>\S+)")
_ATTRIBUTES: Final = (
    "approved", "elevated", "reported", "workload", "exe", "schema", "name", "program", "line", "arguments", "literal",
    "path", "recursive", "options", "host", "port", "value",
    "opaque")
_IS_ACTION: Final = re.compile(r'\baction\s*==\s*Action::"([^"\n]*)"')
_IS_RESOURCE: Final = re.compile(r"\bresource\s*==\s*(\w+)::")
_NEAR: Final = 0.6
UNCLOSED: Final = "a text that goes on over lines: its closing quote is missing"


@dataclass(frozen=True)
class Word:
    at: int
    end: int
    text: str


def words(text: str) -> list[Word]:
    """Without comments."""
    found = (Word(match.start(), match.end(), match[0]) for match in _WORD.finditer(text))
    return [word for word in found if not word.text.startswith("//")]


def unclosed(text: str) -> int:
    """Where the first text begins that ends in another line, or never; -1: there is none."""
    return next((word.at for word in words(text) if _over_lines(word)), -1)


def _over_lines(word: Word) -> bool:
    return word.text[0] == '"' and ("\n" in word.text or word.text[-1] != '"' or len(word.text) == 1)


def locate(text: str, said: str, complaint: Callable[[str], str]) -> tuple[int, str]:
    """(offset of what is wrong, what else there is to say); 0 where it is not known.  `said` is Cedar's complaint of
    this policy, `complaint` gives that of another text, "": none."""
    parts = words(text)
    if _UNREAD.fullmatch(said):
        return _grammar(parts, said, lambda end: complaint(text[:end] + " ;"))
    if said.startswith("duplicate annotation: @"):
        return _second(parts, said.removeprefix("duplicate annotation: @")), ""
    for patterns, most in ((_NAMED, 1), (_EVERYWHERE, len(parts))):
        if found := next(filter(None, (one.fullmatch(said) for one in patterns)), None):
            places = _places(parts, found["name"], said)
            return (places[0] if 0 < len(places) <= most else 0), ""
    return 0, ""


def _grammar(parts: list[Word], said: str, complaint: Callable[[int], str]) -> tuple[int, str]:
    """An LR parser complains of the first word that nothing can follow; it reads on at the next ";".  So of a text that
    ends with that word and a ";" it says the same, of a shorter one something else."""
    low, high = 0, len(parts) - 1
    if said == "unexpected token `;`":
        low = high                    # the only one
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if complaint(parts[middle].end) == said else (middle + 1, high)
    if low < 0 or said not in (_INVALID, f"unexpected token `{parts[low].text}`"):
        return 0, ""
    word, before = parts[low], parts[low - 1] if low else None
    if before and _over_lines(before):
        return before.at, UNCLOSED
    begins = before and before.text in (")", "}") and word.text in ("@", "permit", "forbid")
    return word.at, 'is the ";" before it missing?' if begins else ""


def _second(parts: list[Word], name: str) -> int:
    places = [one.at for one, after in itertools.pairwise(parts) if (one.text, after.text) == ("@", name)]
    return places[1] if len(places) > 1 else 0


def _places(parts: list[Word], name: str, said: str) -> list[int]:
    """Where these words stand; an attribute may be named in quotes."""
    wanted = [word.text for word in words(name)]
    found = [parts[n].at for n in range(len(parts) - len(wanted) + 1)
             if [word.text for word in parts[n:n + len(wanted)]] == wanted]
    if said.startswith("attribute "):
        found += [word.at for word in parts if word.text == f'"{name}"']
    if _TYPE.match(said):             # group::"x", is group
        follows = {word.at: (before.text, after.text) for before, word, after in zip(
            parts, parts[1:], parts[2:], strict=False)}
        found = [at for at in found if at in follows and (follows[at][0] == "is" or follows[at][1] == "::")]
    return found


def meant(said: str, types: Iterable[str], text: str = "") -> str:
    """What there is instead, or empty.  `types`: of entities; `text`: of the policy."""
    if said.startswith("unable to find an applicable action"):
        return _applicable(text)
    if found := _ACTION.match(said):
        return _near(found["name"], PARENTS, 'Action::"{}"')
    if found := _TYPE.match(said):
        return _near(found["name"], types, "{}")
    if found := _ATTRIBUTE.match(said):
        return "" if found["name"] in _ATTRIBUTES else _near(found["name"], _ATTRIBUTES, "{}")
    if found := _VARIABLE.match(said):
        return _near(found["name"], ("principal", "action", "resource"), "{}")
    return "there are permit and forbid" if _EFFECT.match(said) else ""


def _applicable(text: str) -> str:
    """Each request is of an action that is no group, and of a resource of one kind."""
    groups = {group for parents in PARENTS.values() for group in parents}
    if (found := _IS_ACTION.search(text)) and found[1] in groups:
        return f'Action::"{found[1]}" is a group: write action in'
    if (found := _IS_RESOURCE.search(text)) and found[1] in ("Target", "Account"):
        return f"write resource in {found[1]}, for what lies in it"
    return "the action is asked of another kind of resource (docs/policy.md)"


def _near(name: str, names: Iterable[str], shown: str) -> str:
    known = {one.lower(): one for one in names}
    near = difflib.get_close_matches(name.lower(), known, 1, _NEAR)
    return f"did you mean {shown.format(known[near[0]])}?" if near else ""
