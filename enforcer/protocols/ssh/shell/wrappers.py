"""Commands that run another: where that stands in their words.  Pure.

Each reader is given the words behind the program's name and tells `Inside` what is in them; Unreadable says why that
cannot be told.  Sources: the manual pages of sudo(8), doas(1), env(1), find(1), xargs(1), su(1), bash(1), ...
"""
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from enforcer.protocols.ssh.shell.lexer import Unreadable
from enforcer.protocols.ssh.shell.line import WRITE, Word
from enforcer.protocols.ssh.shell.options import Form, literal, read_options
from enforcer.protocols.ssh.shell.programs import SHELLS, last

_ASSIGNMENT: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


class Inside(Protocol):
    moved: bool                       # the working directory is another
    rehomed: bool                     # the home is another

    def command(self, words: Sequence[Word], more: bool) -> None:
        """A command within; `more`: it is given further arguments that nobody sees here."""

    def script(self, text: str) -> None: ...

    def assign(self, name: str, value: Word) -> None: ...

    def redirect(self, how: str, word: Word) -> None: ...


_FORMS: Final = {
    "sudo": Form("AbBEHknPS", "ugprtTC", (
        "askpass", "background", "bell", "preserve-env", "set-home", "non-interactive", "reset-timestamp",
        "preserve-groups", "stdin"), ("user", "group", "prompt", "role", "type", "command-timeout", "close-from")),
    "doas": Form("n", "u"),
    "env": Form("i0v", "u", ("ignore-environment", "null", "debug"), ("unset",)),
    "nohup": Form(),
    "setsid": Form("cfw", "", ("ctty", "fork", "wait")),
    "nice": Form("", "n", (), ("adjustment",)),
    "ionice": Form("t", "cn", ("ignore",), ("class", "classdata")),
    "timeout": Form("v", "ks", ("foreground", "preserve-status", "verbose"), ("kill-after", "signal"), before=1),
    "time": Form("p"),
    "stdbuf": Form("", "ioe", (), ("input", "output", "error")),
    "exec": Form("cl", "a"),
    "command": Form("pvV"),
    "builtin": Form(),
    "busybox": Form(),
    "toybox": Form(),
    "xargs": Form("0rtpxo", "dEILnPs", (
        "null", "no-run-if-empty", "verbose", "interactive", "exit"),
        ("max-args", "max-procs", "max-chars", "delimiter")),
}
_ASSIGNING: Final = ("sudo", "env")
_SUDO: Final = ("sudo", "doas")


def look_inside(name: str, words: Sequence[Word], more: bool, inside: Inside) -> None:
    """Unreadable."""
    read = _READERS.get(name) or (_shell if name in SHELLS else None)
    if read:
        read(words, more, inside)
    elif name in _FORMS:
        _wrapper(name, words, more, inside)


def _wrapper(name: str, words: Sequence[Word], more: bool, inside: Inside) -> None:
    form = _FORMS[name]
    found, at = read_options(form, words, name)
    if name == "command" and found.keys() & {"v", "V"}:
        return
    inside.rehomed |= name in _SUDO
    if name == "env" and words[at:] and words[at].source == "-":
        at += 1
    for word in words[at:at + form.before]:
        literal(word, name)
    at += form.before
    while name in _ASSIGNING and at < len(words) and (match := _ASSIGNMENT.match(words[at].source)):
        value = literal(words[at], name).partition("=")[2]
        inside.assign(match[1], Word(value, value, True))
        at += 1
    if name in ("env", "sudo", "time") and at < len(words) and "=" in words[at].value:
        raise Unreadable(f"{name} with a variable of an unusual name")
    _rest(name, words[at:], more, inside)


def _rest(name: str, words: Sequence[Word], more: bool, inside: Inside) -> None:
    if words:
        inside.command(words, more)
    elif more:
        raise Unreadable(f"{name} of a command that is read from elsewhere")


def _nice(words: Sequence[Word], more: bool, inside: Inside) -> None:
    """nice -10 COMMAND, too."""
    begin = 1 if words and re.fullmatch(r"-[0-9]+", words[0].source) else 0
    _wrapper("nice", words[begin:], more, inside)


def _xargs(words: Sequence[Word], more: bool, inside: Inside) -> None:
    found, at = read_options(_FORMS["xargs"], words, "xargs")
    if more:
        raise Unreadable("xargs of a command that is read from elsewhere")
    replaced = found.get("I", "")
    inner = _unknown(words[at:], replaced) if replaced else words[at:]
    if inner:
        inside.command(inner, True)


def _unknown(words: Sequence[Word], replaced: str) -> list[Word]:
    """Where this is in a word, something else will be there."""
    return [Word(word.source, word.source, False) if replaced in word.value else word for word in words]


def _find(words: Sequence[Word], more: bool, inside: Inside) -> None:
    at = 0
    while at < len(words):
        word = literal(words[at], "find")
        at += 1
        if word in ("-exec", "-execdir", "-ok", "-okdir"):
            at = _find_exec(words, at, inside)
            inside.moved |= word.endswith("dir")
        elif word in ("-fprint", "-fprint0", "-fls", "-fprintf") and at < len(words):
            inside.redirect(WRITE, words[at])
            at += 1
        elif word == "-files0-from":
            raise Unreadable("find -files0-from")
    if more:
        raise Unreadable("find with words that are read from elsewhere")


def _find_exec(words: Sequence[Word], at: int, inside: Inside) -> int:
    for end in range(at, len(words)):
        many = words[end].value == "+" and end > at and words[end - 1].value == "{}"
        if many or words[end].value == ";":
            inside.command(_unknown(words[at:end - many], "{}"), many)
            return end + 1
    raise Unreadable("find -exec without its end")


def _eval(words: Sequence[Word], more: bool, inside: Inside) -> None:
    if more:
        raise Unreadable("eval of what is read from elsewhere")
    text = " ".join(literal(word, "eval") for word in words)
    if text:
        inside.script(text)


_SHELL: Final = ("login", "noprofile", "norc", "posix")


def _shell(words: Sequence[Word], more: bool, inside: Inside) -> None:
    """sh -c SCRIPT [NAME ARGUMENT ...], sh FILE; without either it runs what it reads."""
    at, scripted = 0, False
    while at < len(words) and (text := literal(words[at], "a shell"))[:1] in ("-", "+") and len(text) > 1:
        at += 1
        if text == "--":
            break
        if text.startswith("--"):
            if text[2:] not in _SHELL:
                raise Unreadable(f"a shell with {text}")
        elif not set(text[1:]) <= set("cleuxvfo"):
            raise Unreadable(f"a shell with {text}")
        else:
            scripted |= "c" in text and text[0] == "-"
            at += text.count("o")     # each takes a word
    if at >= len(words):
        raise Unreadable("a shell that runs what it reads")
    text = literal(words[at], "a shell")
    if scripted:
        inside.script(text)
    elif not text or text in ("-", "+") or text.startswith(("/dev/", "/proc/")):
        raise Unreadable("a shell that runs what it reads")


def _su(words: Sequence[Word], more: bool, inside: Inside) -> None:
    """su [-] [USER] -c SCRIPT: its options may stand behind the user."""
    inside.rehomed, at, users = True, 0, 0
    script: str | None = None
    while at < len(words):
        text = literal(words[at], "su")
        at += 1
        if text in ("-", "-l", "--login"):
            inside.moved = True
        elif text in ("-c", "--command") and at < len(words) and script is None:
            script = literal(words[at], "su")
            at += 1
        elif text in ("-s", "--shell") and at < len(words) and last(words[at].value) in SHELLS:
            at += 1
        elif text.startswith("-") and text not in ("-m", "-p"):
            raise Unreadable(f"su {text}")
        elif not text.startswith("-"):
            users += 1
    if more or script is None or users > 1:
        raise Unreadable("su without -c, or with words for its shell")
    inside.script(script)


_Reader = Callable[[Sequence[Word], bool, Inside], None]
_READERS: Final[dict[str, _Reader]] = {
    "nice": _nice, "xargs": _xargs, "find": _find, "eval": _eval, "su": _su}
