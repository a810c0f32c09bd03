"""Exec lines that are the far end of scp, rsync, git or sftp, and nothing else.  Pure.

Clients start these programs with options that are known; a line with any other is no transfer, but a command like any:
options that run programs, read lists or write logs elsewhere are not on the lists.
Sources: OpenSSH scp.c (main, -f and -t), rsync options.c (server_options), git-upload-pack(1), git-receive-pack(1).
"""
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from enforcer.protocols.ssh.paths import canonical, canonical_at_home
from enforcer.protocols.ssh.shell.line import READ, WRITE, Line, Word

SCP: Final = "scp"
RSYNC: Final = "rsync"
GIT: Final = "git"
SFTP: Final = "sftp"
MOST: Final = 100                     # paths: each is decided


class Transfer(msgspec.Struct, frozen=True):
    """`directions`: READ, WRITE, as the server does to its files; `paths` as enforcer.protocols.ssh.paths writes them;
    `recursive`: what is below them is meant too, or may be: what is written to a directory has its name on the wire;
    `options`: those that matter to a policy, "--delete" say.  Of SFTP only that it is: what it does is in its bytes."""

    kind: str
    directions: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    recursive: bool = False
    options: tuple[str, ...] = ()


def recognise(line: Line) -> Transfer | None:
    """None: it is a command like any."""
    if line.opaque or not line.plain or not line.plain[0].literal:
        return None
    program = _PROGRAM.fullmatch(line.plain[0].value)
    read = _READERS.get(program[1]) if program else None
    if read:
        return read(line.plain[1:])
    return Transfer(SFTP) if line.plain[0].value in _SFTP_SERVERS and len(line.plain) == 1 else None


_PROGRAM: Final = re.compile(r"(?:/bin/|/usr/bin/|/usr/local/bin/)?([a-z-]+)")
# By name alone it may be whatever lies in a PATH that the account can write to; sftp(1) never says it so.
_SFTP_SERVERS: Final = (
    "/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server", "/usr/libexec/sftp-server", "/usr/lib/sftp-server")


def _path(word: Word) -> str:
    """Empty: it cannot be told."""
    return canonical_at_home(word.value) if word.tilde else canonical(word.value)


def _transfer(
    kind: str, directions: tuple[str, ...], words: Sequence[Word], recursive: bool, options: tuple[str, ...],
) -> Transfer | None:
    if len(words) > MOST:
        return None
    paths = tuple(map(_path, words))
    return Transfer(kind, directions, paths, recursive, options) if paths and all(paths) else None


def _scp(words: Sequence[Word]) -> Transfer | None:
    letters, at = "", 0
    while at < len(words) and (match := re.fullmatch(r"-([rpdvqtf]+)", words[at].value)):
        letters, at = letters + match[1], at + 1
    ended = at < len(words) and words[at].value == "--"
    paths = words[at + ended:]
    writes = "t" in letters
    if writes == ("f" in letters) or (writes and len(paths) != 1):
        return None
    if not ended and any(word.value.startswith("-") for word in paths):
        return None
    return _transfer(SCP, (WRITE,) if writes else (READ,), paths, writes or "r" in letters, ())


# Short ones as server_options() bundles them, without -s (paths come later, over the wire) and what takes a value.
_RSYNC_SHORT: Final = re.compile(r"-([vqnlLogDtpdrRuxHAXEUNOJcbWISKkyzmhiC]*)(?:e[0-9]*\.[0-9]*[A-Za-z]*)?")
_RSYNC_LONG: Final = frozenset((
    "--delete", "--delete-before", "--delete-during", "--delete-after", "--delete-delay", "--delete-excluded",
    "--delete-missing-args", "--ignore-missing-args", "--ignore-errors", "--force", "--partial", "--inplace",
    "--append", "--append-verify", "--existing", "--ignore-existing", "--remove-source-files", "--remove-sent-files",
    "--numeric-ids", "--safe-links", "--munge-links", "--copy-unsafe-links", "--no-implied-dirs", "--implied-dirs",
    "--size-only", "--delay-updates", "--fuzzy", "--prune-empty-dirs", "--stats", "--specials", "--no-specials",
    "--devices", "--fake-super", "--super", "--open-noatime", "--mkpath", "--preallocate", "--sparse", "--no-r",
    "--no-W", "--no-inc-recursive", "--new-compress", "--old-compress", "--no-fake-super", "--no-super", "--no-i-r"))
_RSYNC_VALUED: Final = re.compile(
    r"(--(?:max-delete|timeout|contimeout|bwlimit|compress-level|compress-choice|checksum-choice|checksum-seed|"
    r"modify-window|block-size|log-format|out-format|max-size|min-size|max-alloc|info|debug|iconv|usermap|groupmap|"
    r"stop-at|stop-after))=.*", re.DOTALL)
_RSYNC_TELLING: Final = "LKkbn"
_ITSELF: Final = frozenset(("--server", "--sender"))


def _rsync(words: Sequence[Word]) -> Transfer | None:
    """rsync --server [--sender] OPTION ... . PATH ..."""
    values = [word.value for word in words]
    if values[:1] != ["--server"] or "." not in values:
        return None
    dot = values.index(".")
    options, letters = dict[str, None](), ""
    for value in values[1:dot]:
        if match := _RSYNC_SHORT.fullmatch(value):
            letters += match[1]
        elif match := _RSYNC_VALUED.fullmatch(value):
            options[match[1]] = None
        elif value in _RSYNC_LONG or value in _ITSELF:
            options[value] = None
        else:
            return None
    # popt finds options behind paths, too.
    if any(value.startswith("-") for value in values[dot + 1:]):
        return None
    told = (*(one for one in options if one not in _ITSELF), *(f"-{one}" for one in _RSYNC_TELLING if one in letters))
    sends, removes = "--sender" in options, options.keys() & {"--remove-source-files", "--remove-sent-files"}
    directions = ((READ, WRITE) if removes else (READ,)) if sends else (WRITE,)
    return _transfer(RSYNC, directions, words[dot + 1:], not sends or "r" in letters, told)


def _git(direction: str) -> Callable[[Sequence[Word]], Transfer | None]:
    def read(words: Sequence[Word]) -> Transfer | None:
        if len(words) != 1 or words[0].value.startswith("-"):
            return None
        word = words[0]
        # git, path.c enter_repo(): ~ and ~user, though they came in quotes.
        if word.value.startswith("~"):
            at_home = word.value == "~" or word.value.startswith("~/")
            return _transfer(GIT, (direction,), (Word("", word.value, False, True),), False, ()) if at_home else None
        return _transfer(GIT, (direction,), words, False, ())
    return read


_SERVICES: Final = {
    "upload-pack": _git(READ), "upload-archive": _git(READ), "receive-pack": _git(WRITE)}


def _git_service(words: Sequence[Word]) -> Transfer | None:
    """git upload-pack REPOSITORY"""
    read = _SERVICES.get(words[0].value) if words else None
    return read(words[1:]) if read else None


_READERS: Final[dict[str, Callable[[Sequence[Word]], Transfer | None]]] = {
    "scp": _scp, "rsync": _rsync, "git": _git_service, **{f"git-{name}": read for name, read in _SERVICES.items()}}
