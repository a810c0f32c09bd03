"""What a crew may move is bound as it was looked at: by a descriptor, not by its name.

bubblewrap takes names, and of /proc/self/fd/N it makes a name again (0.8; `--bind-fd` of 0.11 does, too, and compares
afterwards).  Between that and its mount a crew of another start can put a link there.  So there is a stage: a file
system in a mount namespace of this start's own, in which each source is bound by its descriptor, and whose names only
root can change.  It lies over the start's own cgroup directory, which is root's, and which no view shows.

Root's part is a child, forked before its parent becomes the workload's user.  It is given descriptors and binds them,
one after the other; it opens no name that anybody else has made.
"""
from __future__ import annotations

import ctypes
import os
import socket
import stat
import struct
from collections.abc import Sequence
from typing import Final, NoReturn

_OPENAT2: Final = 437                 # system call number, everywhere; libc has no function
_NO_LINKS: Final = 0x02 | 0x04        # RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS of linux/openat2.h
_CLONE_NEWNS: Final = 0x20000
_BIND, _REC, _SLAVE, _PLAIN = 0x1000, 0x4000, 0x80000, 0b1110          # mount(2); nosuid, nodev, noexec
_AT_ONCE: Final = 32                  # descriptors in one message
_DONE: Final = b"+"
_libc = ctypes.CDLL(None, use_errno=True)


def open_plain(path: str, flags: int) -> int:
    """What lies there now, by an absolute name in which no link is.  Raises OSError."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, _NO_LINKS)
    fd = int(_libc.syscall(_OPENAT2, -1, os.fsencode(path), how, len(how)))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    return fd


class Stage:
    """Made as root; `bind` as anybody; `close` before execve(2)."""

    def __init__(self, directory: str) -> None:
        """The caller has a mount namespace of its own from here on.  Raises OSError."""
        if _libc.unshare(_CLONE_NEWNS) != 0:
            raise OSError(ctypes.get_errno(), "a mount namespace of its own")
        _mount("none", "/", "", _REC | _SLAVE)
        _mount("weir", directory, "tmpfs", _PLAIN, "mode=0755,size=64k")
        self._directory, self._count = directory, 0
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            self._sock.close()        # or the end of its parent's would never be seen
            _serve(theirs, directory)
        theirs.close()

    def bind(self, paths: Sequence[str]) -> list[str]:
        """Where each of them is on the stage.  Raises OSError: a link is in the name by now, or nothing there."""
        for at in range(0, len(paths), _AT_ONCE):
            self._send(paths[at:at + _AT_ONCE])
        first, self._count = self._count, self._count + len(paths)
        return [f"{self._directory}/{number}" for number in range(first, self._count)]

    def _send(self, paths: Sequence[str]) -> None:
        fds: list[int] = []
        try:
            for path in paths:
                fds.append(open_plain(path, os.O_PATH | os.O_NOFOLLOW))
            socket.send_fds(self._sock, [_DONE], fds)
        finally:
            for fd in fds:
                os.close(fd)
        if self._sock.recv(1) != _DONE:
            raise OSError("the workload's directories could not be bound")

    def close(self) -> None:
        self._sock.close()
        os.waitpid(self._pid, 0)


def _serve(sock: socket.socket, directory: str) -> NoReturn:
    """Root's part.  Ends with the other end, or where something cannot be bound: then there is no answer."""
    try:
        number = 0
        while True:
            there, fds, _, _ = socket.recv_fds(sock, 1, _AT_ONCE)
            if not there:
                break
            for fd in fds:
                _put(fd, f"{directory}/{number}")
                number += 1
            sock.send(_DONE)
    finally:
        os._exit(0)


def _put(fd: int, place: str) -> None:
    """Takes the descriptor."""
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        os.mkdir(place)
    else:
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    _mount(f"/proc/self/fd/{fd}", place, "", _BIND | _REC)
    os.close(fd)


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    words = [os.fsencode(word) for word in (source, target, kind)]
    if _libc.mount(*words, ctypes.c_ulong(flags), os.fsencode(options)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)
