"""What of a text is recorded: constants that flow into labelled columns, and passwords, are hidden."""
from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from pglast.parser import ParseError, scan

from agent.contract.target import Target
from enforcer.protocols.postgresql.operations.words import TEXT_LIMIT, Analysis

BEGINNING: Final = 4096               # bytes that are recorded of a text that is too long
HIDDEN: Final = "'***'"
_TELLING: Final = frozenset((
    "SCONST", "USCONST", "BCONST", "XCONST", "ICONST", "FCONST", "SQL_COMMENT", "C_COMMENT"))
# PASSWORD 'x', password=x, my.password = "x", PASSWORD ''x'' within a string, PASSWORD $$x$$, //user:x@host.
_PASSWORD: Final = re.compile(
    rb"""(passw(?:or)?d"?\s*(?::?=\s*|to\s+)?(?:e|u&)?|://[^\s/:@']{0,100}:(?=[^\s/@']{1,200}@))"""
    rb"""(?:''[^']*''|'(?:[^'\\]|\\.|'')*'|"[^"]*"|\$\w{0,20}\$[^$]*\$\w{0,20}\$|(?<=[=:])[^\s'";,@]+)""",
    re.IGNORECASE | re.DOTALL)
_SECRETIVE: Final = re.compile(r"passw|secret|connection|options|identified", re.IGNORECASE)


def hide(text: str, places: set[int], every: bool) -> bytes:
    """The text with the constants that begin at these byte offsets replaced; `every`: with all constants and comments,
    and what stands for a password without quotes or in the wrong ones."""
    raw = text.encode()
    offsets = _byte_offsets(text)
    parts, kept, negative = [], 0, -1
    before, bare = "", -1             # the token before; where a password without quotes has come to
    for token in scan(text):
        start, end = offsets(token.start), offsets(token.end + 1)
        if every and (start == bare or (before == "PASSWORD" and token.name in ("IDENT", "UIDENT"))):
            if start != bare:
                parts += [raw[kept:start], HIDDEN.encode()]
            kept = bare = end
            continue
        before = token.name
        if token.name == "ASCII_45" and start in places:       # a negative number begins with its sign
            negative = start
            continue
        if negative >= 0 or start in places or (every and token.name in _TELLING):
            parts += [raw[kept:negative if negative >= 0 else start], HIDDEN.encode()]
            kept, negative = end, -1
    return b"".join([*parts, raw[kept:]])


def _byte_offsets(text: str) -> Callable[[int], int]:
    if text.isascii():
        return lambda at: at
    sums = [0]
    for character in text:
        sums.append(sums[-1] + len(character.encode()))
    return lambda at: sums[min(at, len(text))]


def hide_passwords(recorded: bytes) -> bytes:
    """In settings, options, code: its rest tells what was done."""
    return _PASSWORD.sub(rb"\1***", recorded)


def unread(text: str, target: Target, reason: str, code: str) -> Analysis:
    """Nothing of it is forwarded.  What might be a password, or a labelled value, is not recorded either."""
    if not target.labels and not _SECRETIVE.search(text):
        raw = text.encode()
        return Analysis((), reason, raw if len(raw) <= TEXT_LIMIT else raw[:BEGINNING], code=code)
    try:
        recorded = hide(text, set(), True) if len(text) <= TEXT_LIMIT else b"(not recorded: it is too long to be read)"
    except (ParseError, ValueError):
        recorded = b"(not recorded: it cannot be read, and may hold what must not be seen)"
    said, quoted, near = reason.partition(" at or near ")
    if quoted and near.strip('"').encode() not in recorded:        # the reason is recorded as well
        reason = said
    return Analysis((), reason, recorded, True, code)
