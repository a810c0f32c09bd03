"""An exec command line -> what it does.  Pure; whatever the bytes, it gives a Line, in bounded time."""
from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Sequence
from typing import Final

from enforcer.protocols.ssh.paths import canonical, canonical_at_home
from enforcer.protocols.ssh.shell import grammar
from enforcer.protocols.ssh.shell.lexer import RESERVED, Reader, Run, Unreadable
from enforcer.protocols.ssh.shell.line import APPEND, READ, WRITE, Assignment, Command, Line, Redirection, Word
from enforcer.protocols.ssh.shell.programs import COUNTS, DECLARES, MOVES, is_dangerous, is_opaque, last
from enforcer.protocols.ssh.shell.words import read_word
from enforcer.protocols.ssh.shell.wrappers import look_inside

LONGEST: Final = 32 * 1024            # bytes of a line
MOST: Final = 100                     # commands and redirections that are told
SCRIPTS: Final = 6                    # of shells in shells
WITHIN: Final = 16                    # of commands that run each other
_TRIED: Final = 512                   # bytes of a line that is told in parts where it cannot be read whole
_SHORT: Final = 2048                  # bytes of a line whose meaning is kept
_CONTROL: Final = re.compile(r"[\0-\x08\x0b-\x1f\x7f]")
_ASSIGNED: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\[|\+?=)")
_HOW: Final = {"<": (READ,), ">": (WRITE,), ">>": (APPEND,), "<>": (READ, WRITE)}


def analyse_line(line: bytes) -> Line:
    """`line`: what the login shell is given behind -c."""
    return _kept(line) if len(line) <= _SHORT else _analyse(line)


@functools.lru_cache(maxsize=500)
def _kept(line: bytes) -> Line:
    """Crews say the same thing again and again."""
    return _analyse(line)


def _analyse(line: bytes) -> Line:
    findings = Findings()
    if len(line) > LONGEST:
        return Line(opaque=(f"longer than {LONGEST} bytes",))
    try:
        findings.script(line.decode("utf-8"))
    except UnicodeDecodeError:
        return Line(opaque=("not UTF-8",))
    return findings.line()


class Findings:
    """What was found up to now, of a line and of the scripts in it."""

    def __init__(self) -> None:
        self._commands, self._redirections = list[Command](), list[tuple[str, Word, bool]]()
        self._assignments, self._opaque = list[Assignment](), list[str]()
        self._plain: tuple[Word, ...] = ()
        self._depth = self._within = 0
        self.moved = self.rehomed = False

    def line(self) -> Line:
        if not (self._commands or self._redirections or self._assignments or self._opaque):
            self.opaque("nothing in it")
        redirections = tuple(dict.fromkeys(self._redirected(*one) for one in self._redirections))
        return Line(tuple(dict.fromkeys(self._commands)), redirections, tuple(dict.fromkeys(self._assignments)),
                    tuple(dict.fromkeys(self._opaque)), self._plain)

    def opaque(self, reason: str) -> None:
        if len(self._opaque) < MOST:
            self._opaque.append(reason)

    def script(self, text: str) -> None:
        """One that a shell is given."""
        if self._depth >= SCRIPTS:
            self.opaque(f"more than {SCRIPTS} shells in shells")
            return
        self._depth += 1
        self._read(text.encode())
        self._depth -= 1

    def _read(self, line: bytes) -> None:
        text = line.decode("latin-1")
        if match := _CONTROL.search(text):
            self.opaque("NUL in it" if match[0] == "\0" else "a control character in it")
            return
        try:
            runs = Reader(text).read()
            theirs, right = grammar.parse(line)
            if not right or not grammar.alike(runs, theirs, text):
                raise Unreadable("shells may read it in several ways")
        except Unreadable as reason:
            self.opaque(str(reason))
            runs = grammar.parse(line)[0] if len(line) <= _TRIED else []
        for run in runs:
            self._run(run, text)
        if len(runs) == 1 and self._depth == 1 and not self._opaque:
            self._one(runs[0], text)

    def _one(self, run: Run, text: str) -> None:
        words = tuple(read_word(text[begin:end]) for begin, end in run.words)
        alone = not run.redirections and not run.loop and not self._assignments
        if alone and all(word.literal or word.tilde for word in words) and (
                text.strip(" \t\n") == text[run.words[0][0]:run.words[-1][1]]):
            self._plain = words

    def _run(self, run: Run, text: str) -> None:
        sources = [text[begin:end] for begin, end in run.words]
        if run.expanding:
            self.opaque("a here-document with expansions in it")
        for operator, (begin, end) in run.redirections:
            for how in _HOW.get(operator, ()):
                self.redirect(how, read_word(text[begin:end]))
            if operator not in ("<<", "<<<", "<&", ">&", *_HOW):
                self.opaque("a redirection that shells read differently")
        if run.loop:
            self._loop(sources)
            return
        while sources and (match := _ASSIGNED.match(sources[0])):
            self._assigned(match, sources.pop(0))
        if sources:
            self.command([read_word(source) for source in sources], False)

    def _loop(self, sources: list[str]) -> None:
        name = sources[0]
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            self.opaque("a loop over a variable of an unusual name")
        for source in sources[1:] or ["$@"]:
            self.assign(name, read_word(source))

    def _assigned(self, match: re.Match[str], source: str) -> None:
        if match[2] != "=":
            self.opaque("an assignment that shells read differently")
        self.assign(match[1], read_word(source[match.end():]))

    def assign(self, name: str, value: Word) -> None:
        if len(self._assignments) >= MOST:
            self.opaque(f"more than {MOST} variables")
            return
        self._assignments.append(Assignment(name, value.value, value.literal))
        if is_dangerous(name):
            self.opaque(f"{name} is set, on which the rest depends")
        elif not value.literal:
            self.opaque(f"the value of {name} cannot be told")
        elif _runs(value):
            self.opaque(f"the value of {name} holds what arithmetic would run")

    def redirect(self, how: str, word: Word) -> None:
        if len(self._redirections) >= MOST:
            self.opaque(f"more than {MOST} redirections")
            return
        self._redirections.append((how, word, self.rehomed))

    def _redirected(self, how: str, word: Word, rehomed: bool) -> Redirection:
        path = ""
        if word.tilde and not rehomed:
            path = canonical_at_home(word.value)
        elif word.literal and (word.value.startswith("/") or not self.moved):
            path = canonical(word.value)
        if path.startswith(("/dev/tcp/", "/dev/udp/")):        # bash(1), REDIRECTION
            self.opaque("a redirection to the network")
        if not path:
            self.opaque("the path of a redirection cannot be told")
        return Redirection(how, path or word.source, bool(path))

    def command(self, words: Sequence[Word], more: bool) -> None:
        """`more`: it is given further arguments that are not seen here."""
        if len(self._commands) >= MOST:
            self.opaque(f"more than {MOST} commands")
            return
        program = words[0]
        if not program.literal or not program.value or "=" in program.value:       # to zsh and fish é=1 is a variable
            self.opaque("the name of a program cannot be told")
            return
        self._commands.append(_command(words, more))
        self._within += 1
        rehomed = self.rehomed
        try:
            self._look(last(program.value), words, more)
        except Unreadable as reason:
            self.opaque(str(reason))
            self.moved = rehomed = True            # for all that is known
        self._within, self.rehomed = self._within - 1, rehomed

    def _look(self, name: str, words: Sequence[Word], more: bool) -> None:
        if self._within > WITHIN:
            raise Unreadable(f"more than {WITHIN} commands that run each other")
        if is_opaque(name) or name in RESERVED:
            raise Unreadable(f'"{name}", which runs or changes what is not in the line')
        self.moved |= name in MOVES
        if name in COUNTS and any(_runs(word) for word in words[1:]):
            raise Unreadable(f"{name} of what arithmetic would run")
        if name == "set":
            _check_set(words[1:])
        if name in _INTO and any(word.value.startswith(_INTO[name]) for word in words[1:2]):
            raise Unreadable(f"{name} into a variable")
        if name in DECLARES or name == "unset":
            self._declare(name, words[1:])
        look_inside(name, words[1:], more, self)

    def _declare(self, name: str, words: Sequence[Word]) -> None:
        """export NAME=VALUE ...; unset NAME ..."""
        for word in words:
            match = re.match(r"([A-Za-z_][A-Za-z0-9_]*)(?:(=)|\Z)", word.source)
            if word.source in ("-x", "-g", "-r", "-gx", "-v") and word.literal:
                continue
            if not match:
                raise Unreadable(f"{name} of what cannot be told")
            value = read_word(word.source.encode().decode("latin-1")[match.end():])
            if match[2] or name == "unset":
                self.assign(match[1], value)


_INTO: Final = {"printf": "-v", "wait": "-"}      # bash: the option names one
_SET: Final = re.compile(r"[-+][eux]+|[-+][eux]*o|pipefail|errexit|nounset|xtrace")


def _check_set(words: Sequence[Word]) -> None:
    for word in words:
        if not word.literal or not _SET.fullmatch(word.value):
            raise Unreadable("set, of more than -e, -u, -x and pipefail")


def _runs(word: Word) -> bool:
    """Where a shell takes it for arithmetic, it runs what is in it."""
    return word.literal and ("$" in word.value or "`" in word.value)


def _command(words: Sequence[Word], more: bool) -> Command:
    literal = all(word.literal for word in words) and not more
    line = shlex.join(word.value for word in words) if literal else " ".join(word.source for word in words)
    return Command(words[0].value, tuple(word.value for word in words[1:]), line + " ..." * more, literal)
