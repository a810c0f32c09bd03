"""The completeness oracle of SSH: what the login shell and internal-sftp say they did, and what the recording says.

    executed  = records of login_shell.c: every command and shell, with the client's address
    files     = lines of internal-sftp at VERBOSE: opens, removals, renames, ...; of each session its own lines
    recorded  = intents of the recording that were permitted, and what Weir itself asked (actor "weir")

Both ways, as multisets: what ran is recorded as often as it ran, with the same bytes, and what was permitted ran,
unless its result says why not.
"""
from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from enforcer.protocols.ssh.sftp.paths import shown
from enforcer.recording.read import Entry, open_recording
from enforcer.words.decisions import PERMIT
from lab.hosts import CREW
from lab.sshd import Login, Sshd

SOURCES = (CREW.ipv4, CREW.ipv6)
SHELL = b""                           # where there is no command
RAN = ("exec", "shell")
# What has a result like this may not have run, or not to its end.
UNFINISHED = frozenset(("error", "cancelled", "denied", "skipped", ""))


@dataclass(frozen=True)
class Mark:
    """How long the logs of a server were."""

    logins: int
    files: int


def mark(server: Sshd) -> Mark:
    return Mark(len(server.logins()), len(server.files()))


@dataclass(frozen=True)
class Done:
    """One thing that was permitted, as the recording has it."""

    session: str
    number: int
    actor: str
    verb: str
    text: bytes
    requests: tuple[tuple[str, str], ...]
    status: str                       # "" where there is no result

    def __str__(self) -> str:
        ended = self.status or "no result"
        return f"{self.verb} {self.text[:200]!r} ({self.session}, operation {self.number}, {ended})"


def read(recording: Path, protocol: str = "ssh") -> dict[str, list[Done]]:
    """What was permitted of each target, in order."""
    with open_recording(recording) as reader:
        targets = {one.session: one.target for one in reader.sessions() if one.protocol == protocol}
        found: dict[str, list[Done]] = {}
        for intent, results in reader.operations():
            target = targets.get(intent.event.session)
            if target is not None and intent.event.decision == PERMIT:
                found.setdefault(target, []).append(_done(intent, results))
    return found


def _done(intent: Entry, results: Sequence[Entry]) -> Done:
    event = intent.event
    return Done(event.session, event.operation, event.actor, event.verb, intent.text or b"", event.requests,
                results[-1].event.status if results else "")


# --- commands

def commands_wrong(logins: Iterable[Login], done: Iterable[Done]) -> list[str]:
    """What does not agree."""
    recorded: dict[bytes, list[Done]] = {}
    for one in done:
        if one.actor == "crew" and one.verb in RAN:
            recorded.setdefault(one.text if one.verb == "exec" else SHELL, []).append(one)
    wrong = []
    for login in logins:
        if login.source not in SOURCES:
            continue
        waiting = recorded.get(login.command or SHELL)
        if waiting:
            waiting.pop(0)
        else:
            wrong.append(f"{login.user} ran what nobody recorded: {login.command!r}")
    wrong += [f"recorded, and never ran: {one}" for some in recorded.values() for one in some
              if one.status not in UNFINISHED]
    return wrong


# --- files: what was asked of the server, as (verb, path); paths as Weir shows them

LINE = re.compile(r"internal-sftp\[(\d+)\]: (.*)")
SESSION = re.compile(r"session opened for local user (\S+) from \[([^\]]+)\]")
OPEN = re.compile(r'open "(.*)" flags [A-Z,]+ mode \S+$')
CLOSED = re.compile(r'close "(.*)" bytes read (\d+) written (\d+)$')
TWO = re.compile(r'(posix-rename|rename|symlink|hardlink) old "(.*)" new "(.*)"$')
ONE = re.compile(r'(opendir|closedir|lstat name|stat name|realpath|readlink|remove name|rmdir name|mkdir name|statvfs|'
                 r'set) "(.*)"[^"]*$')
OCTAL = re.compile(r"\\([0-7]{3})")
VERBS = {"set": "setstat"}            # else the first word
LINES = ("realpath", "lstat")         # of what Weir itself asks, one a line
LAST = ("rename", "posix-rename", "hardlink", "symlink")           # the log's second path is their last one
QUIET = ("session closed", "received client version", "sent status", "users-groups-by-id", "forced close", "copy-data",
         "limits", "closedir")


@dataclass
class Served:
    """One process of internal-sftp."""

    user: str = ""
    source: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    closed: list[tuple[str, int, int]] = field(default_factory=list)     # path, bytes read, written


def parse_files(lines: Iterable[str]) -> list[Served]:
    """Each session's own; ValueError for a line that says something that is not known here."""
    running: dict[str, Served] = {}
    found: list[Served] = []
    for line in lines:
        told = LINE.search(line)
        if told is None:
            continue
        process, text = told.groups()
        begins = SESSION.match(text)
        if begins:
            running[process] = Served(*begins.groups())
            found.append(running[process])
        elif process in running:
            _take(running[process], text)
    return found


def _take(served: Served, text: str) -> None:
    if closed := CLOSED.match(text):
        served.closed.append((_path(closed[1]), int(closed[2]), int(closed[3])))
    elif opened := OPEN.match(text):
        served.asked.append(("open", _path(opened[1])))
    elif two := TWO.match(text):
        served.asked.append((two[1], _path(two[3])))
    elif (one := ONE.match(text)) and one[1] != "closedir":
        verb = one[1].split()[0]
        # One line an attribute.
        asked = VERBS.get(verb, verb), _path(one[2])
        if verb != "set" or asked not in served.asked[-1:]:
            served.asked.append(asked)
    elif not text.startswith(QUIET):
        raise ValueError(f"internal-sftp says something new: {text}")


def _path(logged: str) -> str:
    """vis(3) as sshd's log.c has it, back; then as Weir shows it."""
    raw = OCTAL.sub(lambda one: chr(int(one[1], 8)), logged.encode("utf-8", "surrogateescape").decode("latin-1"))
    return shown(raw.encode("latin-1")).decode()


def _asked(one: Done) -> list[tuple[str, str]]:
    if one.actor == "weir":
        lines = [line.partition(" ") for line in one.text.decode().splitlines()] if one.verb == "resolve" else []
        return [(verb, path) for verb, _, path in lines]
    paths = [path for action, path in one.requests if action.startswith("sftp:")]
    if not paths or one.verb in ("users-groups-by-id", "realpath", "expand-path", "copy-data"):
        return []                     # Weir's own answer, or said by other lines
    path = paths[-1 if one.verb in LAST else 0]
    return [(one.verb, shown(path.encode("utf-8", "backslashreplace")).decode())]


def files_wrong(served: Iterable[Served], done: Iterable[Done]) -> list[str]:
    """All that the server was asked for is in the recording as often, and all that is recorded with success was asked
    for."""
    recorded: dict[tuple[str, str], list[Done]] = {}
    for one in done:
        for asked in _asked(one):
            recorded.setdefault(asked, []).append(one)
    for some in recorded.values():    # what surely ran is taken first
        some.sort(key=lambda one: one.status in UNFINISHED)
    wrong = []
    for session in served:
        for verb, path in session.asked if session.source in SOURCES else ():
            waiting = recorded.get((verb, path))
            if waiting:
                waiting.pop(0)
            else:
                wrong.append(f"internal-sftp was asked for what nobody recorded: {verb} {path}")
    wrong += [f"recorded with success, and never asked for: {one}" for some in recorded.values() for one in some
              if one.status not in UNFINISHED]
    return wrong


def complaints(server: Sshd, since: Mark, done: Sequence[Done]) -> list[str]:
    """Empty where the server's logs and the recording of its target agree."""
    return (commands_wrong(server.logins()[since.logins:], done)
            + files_wrong(parse_files(server.files()[since.files:]), done))
