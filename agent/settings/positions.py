"""Pure: in which line of a TOML text each table and key stands, which tomllib does not tell.

The text has been parsed by tomllib before, so only what separates statements is looked at (TOML 1.0): table headers,
keys, and values no deeper than where they end.  What stands inside an inline table or an array has its key's line.
"""
from __future__ import annotations

import re
import tomllib
from typing import Final

Path = tuple[str | int, ...]          # ("target", 0, "credential", 1, "user")

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY: Final = re.compile(r'[ \t]*(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\')[ \t]*')
_VALUE: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"""+|' + r"'''.*?'''+|"
    + r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'|" + r"#[^\n]*|[\[\]{}\n]|[^\[\]{}\n\"'#]+",
    re.DOTALL)


def locate(text: str) -> dict[Path, int]:
    """Lines, from 1.  A table that is only implied has no entry; `line_of` takes what is nearest."""
    return _Scan(text).run()


def line_of(lines: dict[Path, int], path: Path) -> int:
    """Of the longest part of the path that stands in the text, or of the first that stands below it (an array of tables
    has no line but its tables'); 0 where none does."""
    for length in range(len(path), 0, -1):
        if line := lines.get(path[:length]) or _first_below(lines, path[:length]):
            return line
    return 0


def _first_below(lines: dict[Path, int], path: Path) -> int:
    return min((line for place, line in lines.items() if place[:len(path)] == path), default=0)


class _Scan:
    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._table: Path = ()
        self._counts: dict[Path, int] = {}      # arrays of tables: index of the last one
        self._lines: dict[Path, int] = {}

    def run(self) -> dict[Path, int]:
        while True:
            self._skip(_BLANK)
            if self._at >= len(self._text):
                return self._lines
            start = self._at
            if self._text[start] == "[":
                self._header()
            else:
                self._note((*self._table, *self._keys()))
                self._at += 1         # "="
                self._value()
            if self._at <= start:     # not TOML; the caller has said so already
                return self._lines

    def _skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found.group()

    def _keys(self) -> list[str]:
        parts = []
        while part := self._skip(_KEY).strip():
            parts.append(_unquote(part))
            if self._text[self._at:self._at + 1] != ".":
                break
            self._at += 1
        return parts

    def _header(self) -> None:
        many = self._text.startswith("[[", self._at)
        self._at += 2 if many else 1
        path: Path = ()
        parts = self._keys()
        for number, part in enumerate(parts):
            path += (part,)
            if many and number == len(parts) - 1:
                self._counts[path] = self._counts.get(path, -1) + 1
            if path in self._counts:
                path += (self._counts[path],)
        self._note(path)
        self._table = path
        self._at += 2 if many else 1

    def _note(self, path: Path) -> None:
        self._lines.setdefault(path, self._text.count("\n", 0, self._at) + 1)

    def _value(self) -> None:
        depth = 0
        while piece := self._skip(_VALUE):
            depth += (piece in ("[", "{")) - (piece in ("]", "}"))
            if piece == "\n" and depth <= 0:
                return


def _unquote(part: str) -> str:
    if part[0] not in "\"'":
        return part
    try:
        return str(next(iter(tomllib.loads(f"{part} = 0"))))
    except tomllib.TOMLDecodeError:
        return part
