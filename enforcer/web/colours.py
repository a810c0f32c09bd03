"""SQL in colours, as pieces of text; nothing is left out, added or moved.  Pure.

PostgreSQL's own scanner says where the tokens are (pglast), so that what looks like a comment or a string is one.  What
does not scan, as a statement that was cut, is one piece without a class.  What could not be seen, or passes for
something else, is marked within: "unseen" (shown as an escape) and "foreign" (a letter that may look like another).
"""
from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Final

from pglast import parser

from agent.contract.said import foreign, safe

LONGEST: Final = 20_000               # characters that are scanned; texts that are shown are shorter
KEYWORD, TEXT, NUMBER, COMMENT, NAME, PARAMETER = "keyword", "text", "number", "comment", "name", "parameter"
_CLASSES: Final = {
    "SCONST": TEXT, "USCONST": TEXT, "BCONST": TEXT, "XCONST": TEXT, "ICONST": NUMBER, "FCONST": NUMBER,
    "SQL_COMMENT": COMMENT, "C_COMMENT": COMMENT, "PARAM": PARAMETER, "IDENT": NAME, "UIDENT": NAME,
}
# Keywords that are names most of the time (PostgreSQL documentation, appendix C, "non-reserved").
_NAMES: Final = ("NO_KEYWORD", "UNRESERVED_KEYWORD", "COL_NAME_KEYWORD")
_WRITES: Final = frozenset((
    "DELETE_P", "INSERT", "UPDATE", "TRUNCATE", "DROP", "ALTER", "MERGE", "COPY", "SET", "VALUES", "GRANT", "REVOKE",
    "CALL", "BEGIN_P", "COMMIT", "ROLLBACK", "EXPLAIN", "EXECUTE", "PREPARE", "DECLARE", "BY", "SHOW", "LOCK_P"))

Piece = tuple[str, str]               # class, text


def colour(text: str) -> list[Piece]:
    """Pieces whose raw texts, put together, are the text."""
    if len(text) > LONGEST or "\0" in text:
        return [("", text)]
    try:
        tokens = parser.scan(text)
    except (parser.ParseError, ValueError):
        return [("", text)]
    pieces, at = [], 0
    for token in tokens:
        if token.start < at or token.end + 1 > len(text):      # not of this text: show it plain
            return [("", text)]
        pieces += [("", text[at:token.start])] if token.start > at else []
        pieces.append((_class(token.name, token.kind), text[token.start:token.end + 1]))
        at = token.end + 1
    return [*pieces, ("", text[at:])] if at < len(text) else pieces


def _class(name: str, kind: str) -> str:
    if (found := _CLASSES.get(name)) is not None:
        return found
    return KEYWORD if kind not in _NAMES or name in _WRITES else NAME if kind != "NO_KEYWORD" else ""


def mark(text: str) -> Iterator[Piece]:
    """Runs of what is to be seen as it is, and of what is not; safe to be shown."""
    for kind, run in groupby(text, _seen):
        said = "".join(run)
        yield kind, said if kind != "unseen" else safe(said)


def _seen(one: str) -> str:
    if one in ("\n", "\t") or " " <= one <= "~":
        return ""
    if safe(one) != one:
        return "unseen"
    return "foreign" if foreign(one) else ""
