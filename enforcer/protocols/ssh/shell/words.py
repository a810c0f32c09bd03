"""A word of the shell -> its value, where every shell gives it the same one.  Pure.

Source: POSIX.1-2017, Shell Command Language, 2.2 Quoting, 2.6 Word Expansions; fish-doc, Quotes; zshexpn(1).
Text is Latin-1 here, a character a byte; what comes out is UTF-8.
"""
from __future__ import annotations

import re
from typing import Final

from enforcer.protocols.ssh.shell.line import Word

_PLAIN: Final = re.compile(r"[^\s'\"\\$`*?\[\]{}~^=%:()<>|&;]+")
_GLOBS: Final = frozenset("*?[{}^")
_WHOLE: Final = ("{}", "[", "]", "[[", "{", "}")


def read_word(source: str) -> Word:
    """Of one word, as the lexer found it."""
    home = source == "~" or source.startswith("~/")
    value = _value(source[1:] if home else source, not home)
    text = utf8(source)
    if value is None:
        return Word(text, text, False)
    return Word(text, utf8("~" + value if home else value), not home, home)


def utf8(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", "replace")


def _value(source: str, begins: bool) -> str | None:
    """None: it is expanded, or shells differ about it."""
    if source in _WHOLE:
        return source
    found, at = list[str](), 0
    while at < len(source):
        piece = _PIECES.get(source[at], _bare)(source, at, begins and not any(found))
        if piece is None:
            return None
        found.append(piece[0])
        at = piece[1]
    return "".join(found)


_Piece = tuple[str, int] | None


def _bare(source: str, at: int, first: bool) -> _Piece:
    char = source[at]
    if match := _PLAIN.match(source, at):
        return match[0], match.end()
    if char in _GLOBS or char in "$`" or char in "<>(":
        return None
    # zshexpn(1), `=' expansion; fish: its own process.
    if first and (char in "=~" or source.startswith("%self", at)):
        return None
    # POSIX 2.6.1: after = and : in an assignment; bash does it in other words too.
    if char in "=:" and source[at + 1:at + 2] == "~":
        return None
    return char, at + 1


def _escaped(source: str, at: int, first: bool) -> _Piece:
    after = source[at + 1:at + 2]
    # fish-doc, Escaping characters: \n, \x6d, \u... are other characters there.
    return None if not after or after.isalnum() or after == "\n" else (after, at + 2)


def _single(source: str, at: int, first: bool) -> _Piece:
    end = source.find("'", at + 1)
    text = source[at + 1:end]
    # fish-doc, Quotes: \' and \\ are escapes in single quotes, too.
    return None if end < 0 or "\\\\" in text or text.endswith("\\") else (text, end + 1)


def _double(source: str, at: int, first: bool) -> _Piece:
    found, at = list[str](), at + 1
    while at < len(source):
        char = source[at]
        if char == '"':
            return "".join(found), at + 1
        after = source[at + 1:at + 2]
        if char == "`" or (char == "$" and after not in ('"', " ")):
            return None
        if char == "\\" and after in ("`", "\n", ""):
            return None
        taken = char == "\\" and after in ('"', "\\", "$")
        found.append(after if taken else char)
        at += 2 if taken else 1
    return None


_PIECES: Final = {"\\": _escaped, "'": _single, '"': _double}
