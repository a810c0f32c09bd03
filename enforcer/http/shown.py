"""What people see of a request: its line, its body folded to what a person reads, and what policy saw in it.  Pure.

A body may be megabytes, and its sender chooses what stands where.  So it is folded from the inside: every list and
object keeps its first entries and says how many more there are, every long string its beginning and its length.  Lists
are folded first: their items are alike, and names are what a person looks for.  What decides does not hang on it:
policy's own view of the whole body stands beside it (`told`).
"""
from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from enforcer.core.book import Manner
from enforcer.core.desk import Ask
from enforcer.words.operations import Attribute, Request

ROOM: Final = 2800                    # characters: what a message in Slack may have, too
NAMES: Final = 20                     # of one attribute
_ONE: Final = re.compile(r"[^\s,\"]+")


@dataclass(frozen=True, slots=True)
class _Step:
    """How much is shown."""

    letters: int                      # of a string
    items: int                        # of a list
    names: int                        # of an object
    deep: int = 24                    # levels


# From what nobody misses to the least that is of use.
_STEPS: Final = (
    _Step(2000, 1000, 1000), _Step(400, 100, 200), _Step(200, 30, 100), _Step(120, 12, 50), _Step(80, 6, 40),
    _Step(60, 3, 30), _Step(60, 2, 20), _Step(40, 1, 20), _Step(30, 1, 12), _Step(20, 1, 6), _Step(20, 1, 12, 4),
    _Step(20, 1, 6, 3), _Step(20, 1, 3, 2), _Step(20, 1, 1, 1))


class _Full(Exception):
    """There is no more room."""


class RequestManner(Manner):
    """Its text is the request's line, and where it has a body an empty line and that as JSON.  `seen`: attributes that
    are told beside it; others may hold what is no one's to read."""

    def __init__(self, seen: tuple[str, ...] = ()) -> None:
        self._seen = seen

    def shown(self, ask: Ask) -> str:
        return fold(self.text(ask).decode("utf-8", "backslashreplace"))

    def parameters(self, ask: Ask) -> tuple[str, ...]:
        return (*ask.parameters, *told(ask.requests, self._seen))


def told(requests: Iterable[Request], seen: tuple[str, ...]) -> tuple[str, ...]:
    """What policy sees of the resources besides what their paths say, a line each: "images: nginx:1.25, redis:7"."""
    lines = (f"{name}: {said}" for one in requests for name, value in one.attributes
             if name in seen and (said := _said(value)))
    return tuple(dict.fromkeys(lines))


def _said(value: Attribute) -> str:
    """Empty where it says nothing: false, or none of them."""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, str):
        return value and _word(value)
    more = f" and {len(value) - NAMES} more" if len(value) > NAMES else ""
    return ", ".join(map(_word, value[:NAMES])) + more


def _word(text: str) -> str:
    """In quotes where it might be taken for several, or for another attribute."""
    return text if _ONE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def fold(text: str, room: int = ROOM) -> str:
    """The same, in so many characters (from 200 on); what is left out says so where it stood."""
    if len(text) <= room:
        return text
    head, blank, body = text.partition("\n\n")
    value = _parse(body) if blank and len(head) < room // 2 else None
    if value is None:
        return text                   # of what is no JSON only the beginning could be shown: who shows it, says so
    said = f"{head}\n(folded: {len(body)} characters in all)\n\n"
    return said + _folded(value, room - len(said))


def _parse(body: str) -> object:
    """None where it is none."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _folded(value: object, room: int) -> str:
    for step in _STEPS:
        try:
            return "\n".join(_bounded(_lines(value, step), room))
        except _Full:
            continue
    return "(too much of it: nothing is shown)"


def _bounded(lines: Iterator[str], room: int) -> Iterator[str]:
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            raise _Full
        yield line


def _lines(value: object, step: _Step, indent: str = "", name: str = "", end: str = "") -> Iterator[str]:
    """`name`: what stands before it; `end`: after it."""
    if not value or not isinstance(value, dict | list):
        yield f"{indent}{name}{_plain(value, step)}{end}"
        return
    opens, closes = "{}" if isinstance(value, dict) else "[]"
    if len(indent) >= step.deep:
        yield f"{indent}{name}{opens}... {_count(len(value))}, too deep{closes}{end}"
        return
    yield f"{indent}{name}{opens}"
    yield from _inner(value, step, indent + " ")
    yield f"{indent}{closes}{end}"


def _inner(value: dict[str, object] | list[object], step: _Step, indent: str) -> Iterator[str]:
    most = step.names if isinstance(value, dict) else step.items
    for number, one in enumerate(value):
        if number == most:
            yield f"{indent}... {_count(len(value) - number)} more"
            return
        end = "," if number < len(value) - 1 else ""
        if isinstance(value, dict):
            yield from _lines(value[str(one)], step, indent, f"{_plain(one, step)}: ", end)
        else:
            yield from _lines(one, step, indent, "", end)


def _count(number: int) -> str:
    return f"{number} {'entry' if number == 1 else 'entries'}"


def _plain(value: object, step: _Step) -> str:
    if isinstance(value, str) and len(value) > step.letters:
        return f"{json.dumps(value[:step.letters], ensure_ascii=False)}... ({len(value)} characters)"
    return json.dumps(value, ensure_ascii=False)
