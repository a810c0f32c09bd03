"""What a session's channel asks for, as policy and people see it: pure."""
from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agent.contract.target import ContentLabel, Target
from enforcer.protocols.ssh import transfers
from enforcer.protocols.ssh.paths import HOME
from enforcer.protocols.ssh.requests import requests_of
from enforcer.protocols.ssh.scp import Call, parse_call
from enforcer.protocols.ssh.sftp.paths import matches, reaches
from enforcer.protocols.ssh.shell.analysis import analyse_line
from enforcer.protocols.ssh.shell.line import READ, Line
from enforcer.protocols.ssh.transfers import Transfer, recognise
from enforcer.words.operations import Request

PROGRAM: Final = "program"            # courses: input and output of a program,
FILES: Final = "files"                # SFTP,
COPIES: Final = "copies"              # scp's legacy protocol,
BYTES: Final = "bytes"                # or bytes that only both ends understand: rsync, git, other subsystems
_TERMINAL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*|")


@dataclass(frozen=True, slots=True)
class Wanted:
    verb: str                         # "exec" | "shell" | "subsystem"
    text: bytes
    requests: tuple[Request, ...]
    course: str = PROGRAM
    labels: tuple[str, ...] = ()
    whole: bool = False               # masked whole or not at all: where it is to be masked, it is denied
    call: Call | None = None          # of scp


def want_command(target: Target, account: str, line: bytes) -> Wanted:
    told = analyse_line(line)
    transfer = recognise(told)
    if transfer is not None and transfer.kind == transfers.SFTP:
        return Wanted("exec", line, _subsystem(target.name, account, "sftp"), FILES)
    requests = requests_of(told, transfer, target.name, account)
    if transfer is None:
        return Wanted("exec", line, requests, PROGRAM, tuple(dict.fromkeys(
            _labels_of_commands(target.content_labels, told))))
    if transfer.kind == transfers.SCP:
        call = parse_call(tuple(word.value.encode("utf-8", "surrogateescape") for word in told.plain))
        if call is not None:
            return Wanted("exec", line, requests, COPIES, call=call)
    return Wanted("exec", line, requests, BYTES, tuple(dict.fromkeys(
        _labels_of_paths(target.content_labels, transfer))), whole=True)


def want_shell(target: Target, account: str) -> Wanted:
    return Wanted("shell", b"", (Request("ssh:shell", "Account", (target.name, account)),))


def want_subsystem(target: Target, account: str, name: str) -> Wanted:
    # An empty name is none that a server has, and no resource.
    return Wanted("subsystem", name.encode(), _subsystem(target.name, account, name or "-"),
                  FILES if name == "sftp" else BYTES)


def want_terminal(target: Target, account: str, name: str) -> tuple[Request, ...]:
    """Its name becomes the variable TERM there: one that is not made as names of terminals are is asked for as that."""
    asked = (Request("ssh:terminal", "Account", (target.name, account)),)
    return asked if _TERMINAL.fullmatch(name) else asked + want_variable(target, account, "TERM", name)


def want_variable(target: Target, account: str, name: str, value: str) -> tuple[Request, ...]:
    return (Request("ssh:env", "Variable", (target.name, account, name or "-"), (("value", value),)),)


def _subsystem(target: str, account: str, name: str) -> tuple[Request, ...]:
    return (Request("ssh:subsystem", "Subsystem", (target, account, name)),)


def _labels_of_commands(labels: tuple[ContentLabel, ...], line: Line) -> Iterator[str]:
    """A line that cannot be told may be any of them.  What it is given to read it may print."""
    reads = [one for one in line.redirections if one.how == READ and one.path != "/dev/null"]
    for one in labels:
        if (one.command and (line.opaque or any(matches(one.command, command.line) for command in line.commands))) or (
                one.path and any(not read.literal or _may_be(read.path, one.path) for read in reads)):
            yield one.label


def _labels_of_paths(labels: tuple[ContentLabel, ...], transfer: Transfer) -> Iterator[str]:
    """A directory holds what lies below it; a link may lead to any.  What is pushed to git shows nothing of it."""
    if transfer.kind == transfers.GIT and READ not in transfer.directions:
        return
    for one in labels:
        if one.path and (transfer.recursive or transfer.kind == transfers.RSYNC
                         or any(_may_hold(path, one.path) for path in transfer.paths)):
            yield one.label


def _may_be(path: str, pattern: str) -> bool:
    """Where home is, is not known: what begins there may be anything that does not, and the other way round."""
    return path.startswith(HOME) != pattern.startswith(HOME) or matches(pattern, path)


def _may_hold(path: str, pattern: str) -> bool:
    return _may_be(path, pattern) or reaches(pattern, path)
