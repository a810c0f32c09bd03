"""SFTP version 3, the codec: draft-ietf-secsh-filexfer-02 and OpenSSH's PROTOCOL, section 4."""
from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

from enforcer.words.errors import RemoteProtocolError

VERSION_3: Final = 3
INIT, VERSION, OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT = range(1, 11)
OPENDIR, READDIR, REMOVE, MKDIR, RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK = range(11, 21)
STATUS, HANDLE, DATA, NAME, ATTRS = range(101, 106)
EXTENDED, EXTENDED_REPLY = 200, 201

OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE = range(6)
OP_UNSUPPORTED: Final = 8

FLAG_READ, FLAG_WRITE, FLAG_APPEND, FLAG_CREAT, FLAG_TRUNC, FLAG_EXCL = 1, 2, 4, 8, 16, 32
FLAGS: Final = 63
SIZE, OWNER, PERMISSIONS, TIMES, PAIRS = 1, 2, 4, 8, 0x80000000
LINK, DIRECTORY, KIND = 0o120000, 0o040000, 0o170000

PATH_LIMIT: Final = 4096
HANDLE_LIMIT: Final = 256
NAME_LIMIT: Final = 4096
REASON_LIMIT: Final = 1024

# Extensions that Weir knows, with the versions of them that it knows.
EXTENSIONS: Final = {
    b"posix-rename@openssh.com": b"1", b"statvfs@openssh.com": b"2", b"fstatvfs@openssh.com": b"2",
    b"hardlink@openssh.com": b"1", b"fsync@openssh.com": b"1", b"lsetstat@openssh.com": b"1",
    b"limits@openssh.com": b"1", b"expand-path@openssh.com": b"1", b"copy-data": b"1", b"home-directory": b"1",
    b"users-groups-by-id@openssh.com": b"1",
}
_U32, _U64, HEAD = Struct(">I"), Struct(">Q"), Struct(">IBI")
_LIMITS: Final = Struct(">QQQQ")


class Fields:
    """The fields of a packet, one after the other; `end` says that there are no more."""

    __slots__ = ("_at", "_view")

    def __init__(self, view: memoryview, at: int = HEAD.size) -> None:
        self._view, self._at = view, at

    @property
    def left(self) -> int:
        return len(self._view) - self._at

    def _move(self, size: int) -> int:
        at = self._at
        if size > len(self._view) - at:
            raise RemoteProtocolError("an SFTP packet ends within a field")
        self._at = at + size
        return at

    def u32(self) -> int:
        return int(_U32.unpack_from(self._view, self._move(4))[0])

    def u64(self) -> int:
        return int(_U64.unpack_from(self._view, self._move(8))[0])

    def string(self, limit: int, what: str = "a string") -> bytes:
        size = self.u32()
        if size > limit:
            raise RemoteProtocolError(f"{what} of an SFTP packet has {size} bytes")
        at = self._move(size)
        return bytes(self._view[at:at + size])

    def view(self) -> memoryview:
        size = self.u32()
        at = self._move(size)
        return self._view[at:at + size]

    def path(self) -> bytes:
        return self.string(PATH_LIMIT, "a path")

    def handle(self) -> bytes:
        return self.string(HANDLE_LIMIT, "a handle")

    def rest(self) -> bytes:
        return bytes(self._view[self._at:])

    def end(self) -> None:
        if self.left:
            raise RemoteProtocolError(f"an SFTP packet has {self.left} bytes too many")


@dataclass(frozen=True, slots=True)
class Attributes:
    flags: int
    size: int | None
    owner: tuple[int, int] | None
    permissions: int | None

    @property
    def is_link(self) -> bool | None:
        """None: the server does not say."""
        return None if self.permissions is None else self.permissions & KIND == LINK

    @property
    def is_directory(self) -> bool | None:
        return None if self.permissions is None else self.permissions & KIND == DIRECTORY

    def __str__(self) -> str:
        """What they set, for people."""
        told = [f"size {self.size}"] if self.size is not None else []
        told += [f"owner {self.owner[0]}:{self.owner[1]}"] if self.owner is not None else []
        told += [f"mode {self.permissions & 0o7777:04o}"] if self.permissions is not None else []
        return ", ".join(told + ["times"] * bool(self.flags & TIMES))


def parse_attributes(fields: Fields) -> Attributes:
    """Section 5."""
    flags, size, owner, permissions = fields.u32(), None, None, None
    if flags & ~(SIZE | OWNER | PERMISSIONS | TIMES | PAIRS):
        raise RemoteProtocolError(f"SFTP attributes have flags {flags:#x}")
    if flags & SIZE:
        size = fields.u64()
    if flags & OWNER:
        owner = (fields.u32(), fields.u32())
    if flags & PERMISSIONS:
        permissions = fields.u32()
    if flags & TIMES:
        fields.u64()
    if flags & PAIRS:
        for _ in range(_count(fields, 8)):
            fields.view()
            fields.view()
    return Attributes(flags, size, owner, permissions)


def _count(fields: Fields, smallest: int) -> int:
    count = fields.u32()
    if count * smallest > fields.left:
        raise RemoteProtocolError(f"an SFTP packet counts {count} where it has no room for them")
    return count


@dataclass(frozen=True, slots=True)
class Status:
    code: int
    message: bytes


def parse_status(packet: memoryview) -> Status:
    """Section 7; servers of the first versions send no message."""
    fields = Fields(packet)
    code, message = fields.u32(), b""
    if fields.left:
        message = bytes(fields.view())
        fields.view()
    fields.end()
    return Status(code, message)


def parse_names(packet: memoryview) -> list[bytes]:
    """Only the names: what is listed of them is for the client."""
    fields = Fields(packet)
    names = []
    for _ in range(_count(fields, 12)):
        names.append(fields.string(NAME_LIMIT, "a name"))
        fields.view()
        parse_attributes(fields)
    fields.end()
    return names


def parse_version(packet: memoryview) -> tuple[int, list[tuple[bytes, bytes]]]:
    """INIT and VERSION: section 4."""
    fields = Fields(packet, 5)
    version, pairs = fields.u32(), []
    while fields.left:
        pairs.append((bytes(fields.view()), bytes(fields.view())))
    return version, pairs


def string(content: bytes) -> bytes:
    return _U32.pack(len(content)) + content


def render(kind: int, number: int, *parts: bytes | memoryview) -> bytes:
    """`number`: the id, or a version."""
    return b"".join((HEAD.pack(5 + sum(map(len, parts)), kind, number), *parts))


def renumber(packet: memoryview, number: int) -> bytes:
    """The same packet with another id."""
    return b"".join((packet[:5], _U32.pack(number), packet[9:]))


def render_status(number: int, code: int, message: str) -> bytes:
    told = " ".join(message.split()).encode("utf-8", "replace")[:REASON_LIMIT]
    told = told.decode("utf-8", "ignore").encode()
    return render(STATUS, number, _U32.pack(code), string(told), string(b"en"))


def render_name(number: int, path: bytes) -> bytes:
    return render(NAME, number, _U32.pack(1), string(path), string(path), _U32.pack(0))


def render_limits(number: int, packet: memoryview, handles: int) -> bytes:
    """OpenSSH's PROTOCOL, 4.8: the server's limits, none higher than Weir's own (0: the server names none)."""
    fields = Fields(packet)
    told = [fields.u64() for _ in range(4)]
    fields.end()
    most = (256 * 1024, 255 * 1024, 255 * 1024, handles)
    lowest = [min(value, limit) if value else limit for value, limit in zip(told, most, strict=True)]
    return render(EXTENDED_REPLY, number, _LIMITS.pack(*lowest))
