"""Options of a command, where the first word that is none ends them (POSIX.1-2017, 12.2; getopt(3), "+").  Pure."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from enforcer.protocols.ssh.shell.lexer import Unreadable
from enforcer.protocols.ssh.shell.line import Word


@dataclass(frozen=True)
class Form:
    """Letters without and with a value, long names without and with one; how many words stand before the command."""

    flags: str = ""
    valued: str = ""
    long_flags: tuple[str, ...] = ()
    long_valued: tuple[str, ...] = ()
    before: int = 0


Found = dict[str, str]
_END: Final = "--"


def literal(word: Word, of: str) -> str:
    if not word.literal:
        raise Unreadable(f"{of} with a word that is expanded")
    return word.value


def read_options(form: Form, words: Sequence[Word], of: str) -> tuple[Found, int]:
    """(options by name, number of the first word that is none).  Unreadable: one that is not in the form."""
    found: Found = {}
    at = 0
    while at < len(words) and words[at].source[:1] in ("-", "'", '"', "\\", "$", "`"):
        text = literal(words[at], of)
        if not text.startswith("-") or text == "-":
            break
        at += 1
        if text == _END:
            break
        at = _long(form, text[2:], words, at, found, of) if text.startswith(_END) else _short(
            form, text[1:], words, at, found, of)
    return found, at


def _long(form: Form, text: str, words: Sequence[Word], at: int, found: Found, of: str) -> int:
    name, mark, value = text.partition("=")
    if name in form.long_valued:
        found[name] = value if mark else _value(words, at, of)
        return at if mark else at + 1
    if name not in form.long_flags or (mark and name != "preserve-env"):
        raise Unreadable(f"{of} --{name}")
    found[name] = value
    return at


def _short(form: Form, text: str, words: Sequence[Word], at: int, found: Found, of: str) -> int:
    for number, letter in enumerate(text):
        if letter in form.valued:
            rest = text[number + 1:]
            found[letter] = rest or _value(words, at, of)
            return at if rest else at + 1
        if letter not in form.flags:
            raise Unreadable(f"{of} -{letter}")
        found[letter] = ""
    return at


def _value(words: Sequence[Word], at: int, of: str) -> str:
    if at >= len(words):
        raise Unreadable(f"{of} with an option without its value")
    return literal(words[at], of)
