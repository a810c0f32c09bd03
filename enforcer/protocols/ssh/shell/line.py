"""What a command line does, in pieces."""
from __future__ import annotations

from typing import Final

import msgspec

READ: Final = "read"
WRITE: Final = "write"
APPEND: Final = "append"


class Word(msgspec.Struct, frozen=True):
    """`source` as it stands in the line; `value` what the program gets, where `literal` (no expansion of any kind).
    `tilde`: all of it is literal but its beginning, ~ or ~/, which `value` still has."""

    source: str
    value: str
    literal: bool
    tilde: bool = False


class Command(msgspec.Struct, frozen=True):
    """A simple command.  `line`: as shlex.join writes it where all of it is literal, else its source; it ends in " ..."
    where it is given more arguments than are seen here (xargs, find).  `arguments` are values, or sources."""

    program: str
    arguments: tuple[str, ...]
    line: str
    literal: bool


class Redirection(msgspec.Struct, frozen=True):
    """`path` as enforcer.protocols.ssh.paths writes it where it is `literal`, else its source."""

    how: str                          # READ | WRITE | APPEND
    path: str
    literal: bool


class Assignment(msgspec.Struct, frozen=True):
    """Of a variable, of the shell or of a program's environment."""

    name: str
    value: str
    literal: bool


class Line(msgspec.Struct, frozen=True):
    """`opaque`: why not all of it can be told, empty where it can; what could be told is there all the same.
    `plain`: the words of a line that is one simple command and nothing else, without any expansion but a leading ~."""

    commands: tuple[Command, ...] = ()
    redirections: tuple[Redirection, ...] = ()
    assignments: tuple[Assignment, ...] = ()
    opaque: tuple[str, ...] = ()
    plain: tuple[Word, ...] = ()
