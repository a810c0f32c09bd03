"""The requests that name paths: what each asks of policy, and what is sent of it.

A path is forwarded as it was decided: the directory's real path, and what follows links whole.  So a link that is
put in place between decision and use changes what happens only where it replaces one of the names of a real path; SFTP
has no way to say "and follow no link".  What people approved is looked up again before it is sent.  After OPEN and
OPENDIR the gate asks for the real path once more, right behind the request, and gives no handle out where it changed;
for what else follows links (STAT, SETSTAT, statvfs) and for the directories of the others that race remains, and so
does what an OPEN with CREAT or TRUNC did before it was found out.  A link that is put back before the second look is
not seen.  Only who may make or move links on the server can try it.

Policies see paths: renaming a directory takes what is in it along.  What somebody else linked under a second name (a
hard link) cannot be told from a file of its own.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from enforcer.protocols.ssh.sftp.messages import (
    ATTRS,
    EXTENDED,
    EXTENDED_REPLY,
    FLAG_APPEND,
    FLAG_CREAT,
    FLAG_READ,
    FLAG_TRUNC,
    FLAG_WRITE,
    HANDLE,
    LSTAT,
    MKDIR,
    NAME,
    OPEN,
    OPENDIR,
    READLINK,
    REALPATH,
    REMOVE,
    RENAME,
    RMDIR,
    SETSTAT,
    STAT,
    STATUS,
    SYMLINK,
    Attributes,
    Fields,
    parse_attributes,
    string,
)
from enforcer.protocols.ssh.sftp.paths import DOTS, ROOT, shown, split

FOLLOW, ENTRY, LOOK, LOOSE, TARGET, EXPAND = range(6)
# FOLLOW  links are followed: the whole path is resolved
# ENTRY   names an entry of a directory, as remove and rename do: its directory is resolved
# LOOK    the same, but "x/" and "x/." follow x (lstat, lsetstat)
# LOOSE   the same, for what is made: "x/." is what x is
# TARGET  the text of a link: sent as it is, judged as where it leads to
# EXPAND  the server says which path is meant

LIST, READS, WRITES, REMOVES = "sftp:list", "sftp:read", "sftp:write", "sftp:remove"
RENAMES, SETS, SYMLINKS, MAKES = "sftp:rename", "sftp:setstat", "sftp:symlink", "sftp:mkdir"
NAMES_BY_ID: Final = b"users-groups-by-id@openssh.com"


@dataclass(frozen=True, slots=True)
class Form:
    verb: str
    ways: tuple[int, ...]
    actions: tuple[tuple[str, int], ...]      # action on which path
    answers: tuple[int, ...]                  # types that the server may answer with
    mutates: bool = False
    rest: str = ""                            # "attributes", "flags": what follows the paths
    leaks: bool = False                       # takes content to where its label is not, or changes what is under one
    extension: bytes = b""
    kind: int = EXTENDED
    answered: bool = False                    # by Weir, with the path that was decided


def _form(kind: int, verb: str, ways: tuple[int, ...], *actions: tuple[str, int], answers: tuple[int, ...] = (STATUS,),
          mutates: bool = False, rest: str = "", leaks: bool = False, answered: bool = False) -> tuple[int, Form]:
    return kind, Form(verb, ways, actions, answers, mutates, rest, leaks, b"", kind, answered)


def _extension(name: bytes, verb: str, ways: tuple[int, ...], *actions: tuple[str, int],
               answers: tuple[int, ...] = (STATUS,), mutates: bool = False, rest: str = "", leaks: bool = False,
               answered: bool = False) -> tuple[bytes, Form]:
    return name, Form(verb, ways, actions, answers, mutates, rest, leaks, name, EXTENDED, answered)


# Section 6.  A rename puts content at its second path: it is a write there.  A second name by `hardlink` reads and
# writes the first; some systems follow a link there and some do not, so it is followed before.  Servers differ in the
# order of SYMLINK's paths (OpenSSH's PROTOCOL, 4.1): both are asked for.
FORMS: Final = dict((
    _form(OPEN, "open", (FOLLOW,), answers=(HANDLE, STATUS), rest="flags"),
    _form(LSTAT, "lstat", (LOOK,), (LIST, 0), answers=(ATTRS, STATUS)),
    _form(STAT, "stat", (FOLLOW,), (LIST, 0), answers=(ATTRS, STATUS)),
    _form(SETSTAT, "setstat", (FOLLOW,), (SETS, 0), mutates=True, rest="attributes"),
    _form(OPENDIR, "opendir", (FOLLOW,), (LIST, 0), answers=(HANDLE, STATUS)),
    _form(REMOVE, "remove", (ENTRY,), (REMOVES, 0), mutates=True),
    _form(MKDIR, "mkdir", (LOOSE,), (MAKES, 0), mutates=True, rest="attributes"),
    _form(RMDIR, "rmdir", (ENTRY,), (REMOVES, 0), mutates=True),
    _form(REALPATH, "realpath", (FOLLOW,), (LIST, 0), answered=True),
    _form(RENAME, "rename", (ENTRY, ENTRY), (RENAMES, 0), (RENAMES, 1), (WRITES, 1), mutates=True, leaks=True),
    _form(READLINK, "readlink", (ENTRY,), (LIST, 0), answers=(NAME, STATUS)),
    _form(SYMLINK, "symlink", (TARGET, LOOSE), (SYMLINKS, 0), (SYMLINKS, 1), mutates=True, leaks=True),
))
EXTENDED_FORMS: Final = dict((
    _extension(b"posix-rename@openssh.com", "posix-rename", (ENTRY, ENTRY), (RENAMES, 0), (RENAMES, 1), (WRITES, 1),
               mutates=True, leaks=True),
    _extension(b"hardlink@openssh.com", "hardlink", (FOLLOW, LOOSE), (READS, 0), (WRITES, 0), (WRITES, 1), mutates=True,
               leaks=True),
    _extension(b"statvfs@openssh.com", "statvfs", (FOLLOW,), (LIST, 0), answers=(EXTENDED_REPLY, STATUS)),
    _extension(b"lsetstat@openssh.com", "lsetstat", (LOOK,), (SETS, 0), mutates=True, rest="attributes"),
    _extension(b"expand-path@openssh.com", "expand-path", (EXPAND,), (LIST, 0), answered=True),
    _extension(b"home-directory", "home-directory", (EXPAND,), (LIST, 0), answered=True),
))


@dataclass(frozen=True, slots=True)
class Wish:
    """A request as the client sent it."""

    form: Form
    paths: tuple[bytes, ...]
    rest: bytes = b""                         # what follows the paths, as it is
    flags: int = 0                            # of OPEN
    attributes: Attributes | None = None      # of what is there already

    @property
    def resizes(self) -> bool:
        return self.attributes is not None and self.attributes.size is not None

    @property
    def reads(self) -> bool:
        """OpenSSH opens for reading what says neither (flags_from_portable)."""
        return self.form.kind == OPEN and (bool(self.flags & FLAG_READ) or not self.flags & FLAG_WRITE)

    @property
    def writes(self) -> bool:
        return bool(self.flags & (FLAG_WRITE | FLAG_APPEND | FLAG_CREAT | FLAG_TRUNC)) or self.resizes

    @property
    def mutates(self) -> bool:
        return self.form.mutates or self.writes

    @property
    def actions(self) -> tuple[tuple[str, int], ...]:
        opened = ((READS, 0),) * self.reads + ((WRITES, 0),) * self.writes
        return self.form.actions + opened

    @property
    def leaks(self) -> bool:
        return self.form.leaks or self.writes


def parse_wish(form: Form, fields: Fields) -> Wish:
    paths = tuple(fields.path() for _ in form.ways)
    rest, flags, attributes = fields.rest(), 0, None
    if form.rest == "flags":
        flags = fields.u32()
    if form.rest:
        attributes = parse_attributes(fields)
    fields.end()
    return Wish(form, paths, rest, flags, None if form.kind in (OPEN, MKDIR) else attributes)


def whole(way: int, path: bytes) -> bool:
    """Is the path resolved whole, or only its directory?  `path` is absolute."""
    name = split(path)[1]
    if way == LOOK and path.endswith(ROOT):
        return True
    return way == FOLLOW or name in DOTS


def sent(way: int, original: bytes, real: bytes) -> bytes:
    """The path that is forwarded.  What only a directory can be stays so: "x/" must not reach a file x, and where the
    last name was `.` or `..` the kernel refuses to remove, rename or link it."""
    if way == ENTRY and split(original)[1] in DOTS:
        return real.rstrip(ROOT) + b"/."
    return real + ROOT if original.endswith(ROOT) and real != ROOT else real


def body(wish: Wish, paths: tuple[bytes, ...]) -> bytes:
    """Of the request that is forwarded, behind its id."""
    name = (string(wish.form.extension),) if wish.form.extension else ()
    return b"".join((*name, *map(string, paths), wish.rest))


def tell(wish: Wish, reals: list[bytes]) -> bytes:
    """What is recorded and shown: "open /srv/x for reading", and how the client wrote it where that is something
    else."""
    told = b" to ".join(map(shown, reals[:len(wish.paths)])) or b"all"
    if wish.form.kind == SYMLINK:
        told = shown(reals[1]) + b" to " + shown(wish.paths[0])
    ways = wish.form.ways
    others = [path for path, real, way in zip(wish.paths, reals, ways, strict=False) if path != real and way != TARGET]
    written = b" (written " + b", ".join(map(shown, others)) + b")" if others else b""
    return b"".join((wish.form.verb.encode(), b" ", told, _purpose(wish), written))


def _purpose(wish: Wish) -> bytes:
    if wish.attributes is not None:
        return b": " + str(wish.attributes).encode()
    if wish.form.kind != OPEN:
        return b""
    purposes = ["reading"] * wish.reads + ["writing"] * wish.writes
    ways = [name for flag, name in ((FLAG_CREAT, "create"), (FLAG_TRUNC, "truncate"), (FLAG_APPEND, "append"))
            if wish.flags & flag]
    return f" for {' and '.join(purposes)}{', ' * bool(ways)}{', '.join(ways)}".encode()
