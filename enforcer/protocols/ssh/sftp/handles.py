"""What is open, and the packets that name it."""
from __future__ import annotations

from collections import deque
from typing import Final

from enforcer.protocols.ssh.sftp.messages import (
    ATTRS,
    CLOSE,
    EXTENDED,
    EXTENDED_REPLY,
    FSETSTAT,
    FSTAT,
    NAME,
    READ,
    READDIR,
    STATUS,
    WRITE,
    Fields,
    Status,
    parse_attributes,
)
from enforcer.protocols.ssh.sftp.pieces import Pieces

HANDLES: Final = 1000                 # open at once
# Types that answer, and extensions that name a handle
ANSWERS: Final = {FSTAT: (ATTRS, STATUS), READDIR: (NAME, STATUS), CLOSE: (STATUS,), FSETSTAT: (STATUS,)}
EXTENSIONS: Final = {b"fstatvfs@openssh.com": (EXTENDED_REPLY, STATUS), b"fsync@openssh.com": (STATUS,)}


class Handle:
    """What is open: `number` is the operation of its OPEN."""

    __slots__ = (
        "advancing",
        "appends",
        "closing",
        "directory",
        "flying",
        "line",
        "listed",
        "masks",
        "name",
        "number",
        "path",
        "read",
        "reads",
        "trouble",
        "writes",
        "wrote",
    )

    def __init__(self, name: bytes, number: int, path: bytes, directory: bool) -> None:
        self.name, self.number, self.path, self.directory = name, number, path, directory
        self.reads = self.writes = self.appends = self.masks = False
        self.line: deque[Errand] = deque()
        self.advancing = False
        self.closing: Status | None = None     # the server's answer to CLOSE
        self.flying = 0                        # READ, WRITE and READDIR that are not answered
        self.listed = 0                        # names
        self.trouble: Status | None = None     # the first error
        self.read: Pieces
        self.wrote: Pieces

    def tag(self) -> str:
        if self.directory:
            return f"listed {self.listed} names"
        return "; ".join(filter(None, (self.read.tag("read"), self.wrote.tag("wrote"))))


class Errand:
    """A request that names handles and could not pass at once."""

    __slots__ = ("asked", "client", "handles", "packet")

    def __init__(self, client: int, packet: memoryview, handles: tuple[Handle, ...]) -> None:
        self.client, self.packet, self.handles = client, packet, handles
        self.asked = False


def asks(packet: memoryview) -> bool:
    return packet[4] == FSETSTAT or (packet[4] == EXTENDED and Fields(packet).string(64) == b"copy-data")


def names_of(packet: memoryview) -> tuple[bytes, ...]:
    """The handles that it names; the packet is what it must be."""
    fields, kind = Fields(packet), packet[4]
    extension = fields.string(64) if kind == EXTENDED else b""
    names: tuple[bytes, ...] = (fields.handle(),)
    if kind == READ:
        fields.u64()
        fields.u32()
    elif kind == WRITE:
        fields.u64()
        fields.view()
    elif kind == FSETSTAT:
        parse_attributes(fields)
    elif extension == b"copy-data":
        fields.u64()
        fields.u64()
        names += (fields.handle(),)
        fields.u64()
    fields.end()
    return names

