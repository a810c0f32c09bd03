"""Heads of requests and answers, as values."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Headers = tuple[tuple[bytes, bytes], ...]      # names in lower case, values without blanks around them


@dataclass(frozen=True, slots=True)
class Head:
    """Of a request."""

    method: str                       # as it was sent: "GET"
    target: bytes                     # as it was sent: b"/api/v1/pods?limit=500"
    headers: Headers


@dataclass(frozen=True, slots=True)
class Answer:
    """Head of a response."""

    status: int
    reason: bytes
    headers: Headers


def values(headers: Headers, name: bytes) -> list[bytes]:
    """Of every field of this name, in order."""
    return [value for found, value in headers if found == name]


def value(headers: Headers, name: bytes) -> bytes:
    """All of this name as one list (RFC 9110 5.3), b"" where there is none."""
    return b", ".join(values(headers, name))


def without(headers: Headers, names: Iterable[bytes]) -> Headers:
    left = frozenset(names)
    return tuple(one for one in headers if one[0] not in left)
