"""TCP and UDP sockets of this network namespace by their local port, from sock_diag(7): linux/inet_diag.h; and where
a Unix socket is bound: linux/unix_diag.h."""
from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

from agent.block.attribution import Held

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _CGROUP_ID = 4, 20, 21
_REQUEST_ONE: Final = 0x1             # NLM_F_REQUEST
_REQUEST_DUMP: Final = 0x301          # NLM_F_REQUEST | NLM_F_DUMP
_ERROR, _DONE = 2, 3
_HEADER: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=BBBBI")     # family, protocol, extensions, pad, states; then the socket's id
_ID: Final = struct.Struct("!HH16s16s")       # ports and addresses; then interface and cookie, in host order
_ID_BYTES, _MESSAGE_BYTES, _INODE_AT = 48, 72, 68
_ANY_STATE: Final = (1 << 32) - 1     # an unconnected datagram socket counts as closed
_CONNECTED: Final = sum(1 << state for state in (1, 2, 4, 5, 8, 9, 11))       # all but LISTEN and those without owner
_LISTEN: Final = 1 << 10
_RECEIVE: Final = 1 << 17
_NOBODY: Final = (1 << 64) - 1        # INET_DIAG_NOCOOKIE, twice
_UNIX: Final = struct.Struct("=BBHIIIQ")      # family, protocol, pad, states, inode, show; then a cookie, or -1
_UNIX_BYTES: Final = 16               # struct unix_diag_msg
_SHOW_VFS, _VFS = 1 << 1, 1           # UDIAG_SHOW_VFS, UNIX_DIAG_VFS


def tcp_sockets(port: int, listening: bool = False) -> list[Held]:
    """Connected or connecting ones with that local port (0: any), both families.  Raises OSError."""
    states = _CONNECTED | (_LISTEN if listening else 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as link:
        link.settimeout(5.0)
        return [one for family in (socket.AF_INET, socket.AF_INET6)
                for one in _dump(link, family, port, socket.IPPROTO_TCP, states)]


def all_tcp_sockets() -> list[Held]:
    """Every connected or connecting one of the calling thread's network namespace.  Raises OSError."""
    return tcp_sockets(0)


def udp_sockets(port: int) -> list[Held]:
    """Those with that local port, connected or not, both families.  Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as link:
        link.settimeout(5.0)
        return [one for family in (socket.AF_INET, socket.AF_INET6)
                for one in _dump(link, family, port, socket.IPPROTO_UDP, _ANY_STATE)]


def bound_inode(one: socket.socket) -> int:
    """The low 32 bits of the inode of the path to which a Unix socket was bound; 0: to none.  Raises OSError."""
    asked = _UNIX.pack(socket.AF_UNIX, 0, 0, _ANY_STATE, os.fstat(one.fileno()).st_ino & _ANY_STATE, _SHOW_VFS, _NOBODY)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as link:
        link.settimeout(5.0)
        link.send(_HEADER.pack(_HEADER.size + len(asked), _SOCK_DIAG_BY_FAMILY, _REQUEST_ONE, 1, 0) + asked)
        received = link.recv(_RECEIVE)
    if (reason := _error(received)):
        raise OSError(reason, f"sock_diag: {os.strerror(reason)}")
    found = dict(_attributes(received[_HEADER.size + _UNIX_BYTES:]))
    return int(struct.unpack_from("=I", found[_VFS])[0]) if _VFS in found else 0


def _dump(link: socket.socket, family: int, port: int, protocol: int, states: int) -> Iterator[Held]:
    body = _REQUEST.pack(family, protocol, 0, 0, states)
    body += _ID.pack(port, 0, b"", b"").ljust(_ID_BYTES, b"\0")
    link.send(_HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + body)
    while True:
        received = link.recv(_RECEIVE)
        while received:
            length, kind, _, _, _ = _HEADER.unpack_from(received)
            if kind == _DONE:
                return
            if (number := _error(received)):
                raise OSError(number, f"sock_diag: {os.strerror(number)}")
            yield _parse(received[_HEADER.size:length])
            received = received[(length + 3) & ~3:]


def _parse(message: bytes) -> Held:
    """struct inet_diag_msg, then attributes."""
    local_port, remote_port, local, remote = _ID.unpack_from(message, 4)
    cookie = struct.unpack_from("=II", message, 4 + 40)
    cgroup = 0
    for kind, value in _attributes(message[_MESSAGE_BYTES:]):
        if kind == _CGROUP_ID and len(value) == 8:
            cgroup = struct.unpack("=Q", value)[0]
    if message[0] == socket.AF_INET:
        local, remote = (bytes(10) + b"\xff\xff" + one[:4] for one in (local, remote))
    return Held(local, local_port, remote, remote_port, cookie[0] | cookie[1] << 32, cgroup, message[1],
                struct.unpack_from("=I", message, _INODE_AT)[0])


def _attributes(rest: bytes) -> Iterator[tuple[int, bytes]]:
    while len(rest) >= 4:
        length, kind = struct.unpack_from("=HH", rest)
        yield kind, rest[4:length]
        rest = rest[(max(length, 4) + 3) & ~3:]


def _error(message: bytes) -> int:
    """Its number, where the message is one; 0: it is none."""
    return -int(struct.unpack_from("=i", message, _HEADER.size)[0]) if _HEADER.unpack_from(message)[1] == _ERROR else 0
