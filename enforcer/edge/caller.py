"""The process at the other end of a Unix socket, as the kernel noted it when it called connect(2): unix(7)."""
from __future__ import annotations

import errno
import os
import select
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

_PEERPIDFD: Final = 77                # SO_PEERPIDFD, asm-generic/socket.h, since Linux 6.5


@dataclass(frozen=True, slots=True)
class Caller:
    """A context: the descriptor is closed at its end."""

    pid: int                          # initial pid namespace
    uid: int
    pidfd: int                        # of SO_PEERPIDFD; before Linux 6.5 opened now, by the pid

    def is_there(self) -> bool:
        """Whether the process has not ended, and so the pid is nobody else's."""
        ended = select.poll()
        ended.register(self.pidfd, select.POLLIN)
        return not ended.poll(0)      # readable once it has ended, pidfd_open(2)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.pidfd)


def find_caller(link: socket.socket) -> Caller | None:
    """None where it has ended, or is of a pid namespace that is not seen from here."""
    try:
        pid, uid, _ = struct.unpack("=iII", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return Caller(pid, uid, _pidfd(link, pid)) if pid > 0 else None
    except OSError:
        return None


def _pidfd(link: socket.socket, pid: int) -> int:
    try:
        return link.getsockopt(socket.SOL_SOCKET, _PEERPIDFD)
    except OSError as reason:
        if reason.errno != errno.ENOPROTOOPT:
            raise                     # it has ended, and its pid may be another's
    return os.pidfd_open(pid)
