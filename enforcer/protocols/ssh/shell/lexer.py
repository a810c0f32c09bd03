"""A command line -> simple commands, by the rules that dash, bash, zsh and fish have in common.  Pure.

What only some of them know, or read otherwise, is Unreadable.  One pass; a character is looked at a few times at most.
Source: POSIX.1-2017, Shell Command Language, 2.3 Token Recognition, 2.7 Redirection, 2.10 Shell Grammar.
Text is Latin-1, a character a byte, so that places are offsets in bytes.
"""
from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

DEPTH: Final = 24                     # of substitutions and groups within each other
TOKENS: Final = 1500                  # words and quotes
BRANCHES: Final = 300                 # operators, reserved words, expansions: a parser takes the square of them in time

Span = tuple[int, int]


class Unreadable(Exception):
    """Why shells, or we, may read it otherwise."""


@dataclass
class Run:
    """A simple command: words, redirections as (operator, operand)."""

    words: list[Span] = field(default_factory=list)
    redirections: list[tuple[str, Span]] = field(default_factory=list)
    loop: bool = False                # for NAME in WORDS: words are NAME and WORDS
    expanding: bool = False           # a here-document with expansions in it


@dataclass
class _Level:
    """A list of commands: the line, or what is in brackets."""

    limit: int
    depth: int
    run: Run = field(default_factory=Run)
    grouped: bool = False             # a group in brackets stands where a command would
    behind: int = -1                  # where the last word ended
    waiting: list[tuple[str, bool, Run]] = field(default_factory=list)      # here-documents whose bodies are to come


_REDIRECTION: Final = re.compile(r"<<<|<<|<>|<&|>&|>>|<|>")
_CONTROL: Final = re.compile(r"&&|\|\||[;&|\n]")
_FOREIGN: Final = re.compile(r"&>|\|&|;;|;&|;\||<<-|>>?[&|]?!|>\||&[|!]|<[0-9]*-[0-9]*>")
_NUMBER: Final = re.compile(r"[0-9]+(?=[<>])")
_DELIMITER: Final = re.compile(r"[ \t]*('?)([A-Za-z_][A-Za-z0-9_]*)\1(?=[ \t\n;&|)]|\Z)")
_PARAMETER: Final = re.compile(
    r"\$(?:[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?$!-]|\{[A-Za-z_][A-Za-z0-9_]*(?::?-[A-Za-z0-9_./-]*)?\})")
_ARITHMETIC: Final = re.compile(r"\$\(\([0-9+*/% -]*\)\)")
_BEFORE: Final = frozenset(("if", "then", "else", "elif", "while", "until", "do", "!", "{"))
_CLOSING: Final = frozenset(("fi", "done", "}"))
# Words that begin something that only some shells know, or that we do not read.
STRANGE: Final = frozenset((
    "case", "esac", "select", "function", "coproc", "[[", "((", "in", "foreach", "repeat", "end", "begin", "and", "or",
    "not", "switch", "always", "nocorrect", "noglob", "-", "goto", "onintr", "@"))
RESERVED: Final = _BEFORE | _CLOSING | STRANGE | {"for"}


class Reader:
    def __init__(self, text: str) -> None:
        self.text, self.runs = text, list[Run]()
        self._count = self._branches = 0

    def read(self) -> list[Run]:
        """In the order in which they begin; Unreadable."""
        if self._list(0, len(self.text), "", 0) != len(self.text):
            raise Unreadable("a bracket that nothing opened")
        self.runs.sort(key=lambda run: run.words[0] if run.words else run.redirections[0][1])
        return self.runs

    def _list(self, at: int, limit: int, close: str, depth: int) -> int:
        """Up to `close`, or the limit where that is empty; gives the place behind it."""
        if depth > DEPTH:
            raise Unreadable(f"nests deeper than {DEPTH}")
        level = _Level(limit, depth)
        while at < limit:
            if self.text[at] == close:
                self._end_of(level)
                return at + 1
            at = self._step(at, level)
        if close:
            raise Unreadable("something that is not closed")
        self._end_of(level)
        return at

    def _step(self, at: int, level: _Level) -> int:
        """One token; gives the place behind it."""
        text, char = self.text, self.text[at]
        if char in " \t":
            return at + 1
        if char == "#":
            return self._comment(at, level)
        if _FOREIGN.match(text, at, level.limit):
            raise Unreadable("an operator that shells read differently")
        if char == "(":
            return self._group(at, level)
        if char == ")":
            raise Unreadable("a bracket that nothing opened")
        if match := _CONTROL.match(text, at, level.limit):
            return self._control(match, level)
        redirects = char in "<>" and text[at + 1:at + 2] != "("
        level.behind = self._redirection(at, level) if redirects else self._next(at, level)
        return level.behind

    def _comment(self, at: int, level: _Level) -> int:
        if level.depth:               # where one hides a bracket, shells differ
            raise Unreadable("a comment within brackets")
        end = self.text.find("\n", at, level.limit)
        return level.limit if end < 0 else end

    def _group(self, at: int, level: _Level) -> int:
        if level.run.words or level.run.redirections or level.grouped or self.text[at + 1:at + 2] == "(":
            raise Unreadable("a function, an array or a pattern")
        level.grouped = True
        return self._list(at + 1, level.limit, ")", level.depth + 1)

    def _control(self, match: re.Match[str], level: _Level) -> int:
        at = match.end()
        # fish: x&y is one word.
        if match[0] == "&" and match.start() == level.behind and self.text[at:min(at + 1, level.limit)] not in (
                "", " ", "\t", "\n", ";", ")"):
            raise Unreadable("an & within a word, to some shells")
        self._close(level)
        if match[0] == "\n":
            for document in level.waiting:
                at = self._body(at, level.limit, *document)
            level.waiting = []
        return at

    def _end_of(self, level: _Level) -> None:
        self._close(level)
        if level.waiting:
            raise Unreadable("a here-document without its end")

    def _next(self, at: int, level: _Level) -> int:
        """A word, or the number of a redirection."""
        number = _NUMBER.match(self.text, at, level.limit)
        if number and self.text[number.end() + 1:number.end() + 2] != "(":
            if len(number[0]) > 1:    # dash takes one digit
                raise Unreadable("a descriptor of several digits")
            return number.end()
        end = self._word(at, level.limit, level.depth)
        self._add(level.run, level.grouped, (at, end))
        return end

    def _add(self, run: Run, grouped: bool, span: Span) -> None:
        """A word; reserved ones are left out where they are that."""
        self._token()
        source = self.text[span[0]:span[1]]
        if grouped:
            raise Unreadable("a word behind a group")
        if not run.words and not run.loop and not run.redirections:
            if source in STRANGE:
                raise Unreadable(f'"{source}", which shells read differently')
            if source in _BEFORE:
                return self._branch()
            if source == "for":
                run.loop = True
                return
        elif source in ("{", "}", "[["):         # to zsh, and to busybox, they are more than that
            raise Unreadable(f'"{source}" among words')
        if run.loop and len(run.words) == 1 and source == "in":
            return
        run.words.append(span)

    def _close(self, level: _Level) -> None:
        """The end of a simple command, or of a group."""
        self._branch()
        run, level.run, level.grouped = level.run, Run(), False
        if run.words and self.text[slice(*run.words[0])] in _CLOSING:
            if len(run.words) > 1:
                raise Unreadable("a word behind a group")
            run.words = []
        if run.words or run.redirections:
            self.runs.append(run)

    def _token(self) -> None:
        self._count += 1
        if self._count > TOKENS:
            raise Unreadable(f"more than {TOKENS} words and quotes")

    def _branch(self) -> None:
        self._branches += 1
        if self._branches > BRANCHES:
            raise Unreadable(f"more than {BRANCHES} operators and expansions")

    def _redirection(self, at: int, level: _Level) -> int:
        limit, run = level.limit, level.run
        match = _REDIRECTION.match(self.text, at, limit)
        assert match
        operator, at = match[0], match.end()
        self._branch()
        if operator == "<<":
            found = _DELIMITER.match(self.text, at, limit)
            if not found:
                raise Unreadable("a here-document with an unusual end")
            level.waiting.append((found[2], bool(found[1]), run))
            run.redirections.append((operator, (found.start(1), found.end())))
            return found.end()
        while at < limit and self.text[at] in " \t":
            at += 1
        end = self._word(at, limit, level.depth)
        if end == at:
            raise Unreadable("a redirection to nothing")
        if operator in ("<&", ">&") and not re.fullmatch(r"[0-9]|-", self.text[at:end]):
            raise Unreadable("a redirection that shells read differently")
        run.redirections.append((operator, (at, end)))
        return end

    def _body(self, at: int, limit: int, delimiter: str, quoted: bool, run: Run) -> int:
        """Of a here-document; it ends with a line that is the delimiter."""
        begin = at
        while at < limit:
            found = self.text.find("\n", at, limit)
            end = limit if found < 0 else found
            if self.text[at:end] == delimiter:
                run.expanding |= not quoted and bool(re.search(r"[$`\\]", self.text[begin:at]))
                return min(end + 1, limit)
            at = end + 1
        raise Unreadable("a here-document without its end")

    def _word(self, at: int, limit: int, depth: int) -> int:
        text = self.text
        while at < limit and (char := text[at]) not in " \t\n;&|)":
            if char == "(":
                raise Unreadable("a function, an array or a pattern")
            if char in "<>":
                if text[at + 1:at + 2] != "(":
                    break
                at = self._list(at + 2, limit, ")", depth + 1)
            elif char == "'":
                at = self._single(at, limit)
            elif char == '"':
                at = self._quoted(at + 1, limit, depth)
            elif char == "\\":
                at = self._escape(at, limit)
            elif char in "$`":
                at = self._expansion(at, limit, depth, False)
            else:
                if char in "[]{}":    # to a parser with tests, arrays and braces, each may begin something
                    self._branch()
                at += 1
        return at

    def _escape(self, at: int, limit: int) -> int:
        if at + 1 >= limit or self.text[at + 1] == "\n":
            raise Unreadable("a backslash at the end of a line")
        return at + 2

    def _single(self, at: int, limit: int) -> int:
        self._token()
        end = self._found("'", at + 1, limit, "a quote")
        text = self.text[at + 1:end]
        if (len(text) - len(text.rstrip("\\"))) % 2:        # to fish, that escapes the quote
            raise Unreadable("a backslash before the end of a quote")
        return end + 1

    def _quoted(self, at: int, limit: int, depth: int) -> int:
        """Behind the double quote that closes."""
        self._token()
        while at < limit:
            char = self.text[at]
            if char == '"':
                return at + 1
            if char == "\\":
                at = self._escape(at, limit)
            elif char in "$`":
                at = self._expansion(at, limit, depth, True)
            else:
                at += 1
        raise Unreadable("a quote that is not closed")

    def _expansion(self, at: int, limit: int, depth: int, quoted: bool) -> int:
        text = self.text
        self._branch()
        if text[at] == "`":
            return self._backticks(at, limit, depth, quoted)
        if match := _ARITHMETIC.match(text, at, limit) or _PARAMETER.match(text, at, limit):
            return match.end()
        if text.startswith("$((", at):
            raise Unreadable("arithmetic")
        if text.startswith("$(", at):
            return self._list(at + 2, limit, ")", depth + 1)
        if at + 1 >= limit or text[at + 1] in (' "' if quoted else " \t\n;&|)"):
            return at + 1
        raise Unreadable("an expansion that shells read differently")

    def _backticks(self, at: int, limit: int, depth: int, quoted: bool) -> int:
        """POSIX 2.6.3: up to the next backquote, whatever is between."""
        end = self._found("`", at + 1, limit, "a backquote")
        if "\\" in self.text[at:end] or (quoted and '"' in self.text[at:end]):
            raise Unreadable("quoting within backquotes")
        self._list(at + 1, end, "", depth + 1)
        return end + 1

    def _found(self, char: str, at: int, limit: int, what: str) -> int:
        end = self.text.find(char, at, limit)
        if end < 0:
            raise Unreadable(f"{what} that is not closed")
        return end
