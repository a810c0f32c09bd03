"""A service manager as small as can be, with systemd's protocol: sd_notify(3) with descriptors, sd_listen_fds(3).

It keeps what it is given by name until it is told to forget it, and hands it to what it starts.  Of one socket it keeps
one descriptor, as systemd does (same_fd).
"""
from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

MOST: Final = 253                     # SCM_MAX_FD
# NAMES NUMBERS COMMAND...: it becomes the command, with these descriptors from 3 on, for its own pid.
_THROUGH: Final = """
import fcntl, os, sys
names, numbers, command = sys.argv[1], sys.argv[2], sys.argv[3:]
above = [fcntl.fcntl(int(one), fcntl.F_DUPFD, 1000) for one in numbers.split(",") if one]
for place, one in enumerate(above):
    os.dup2(one, 3 + place)
os.closerange(3 + len(above), 3000)
if above:
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(above)), LISTEN_FDNAMES=names)
os.execvp(command[0], command)
"""


class Manager:
    """A context.  `path`: where it listens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept: list[tuple[str, int]] = []
        self.told: list[str] = []
        self._changed = threading.Condition()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._hear)

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.kept}

    def sockets(self, name: str) -> list[socket.socket]:
        """Copies, the caller's to close."""
        return [socket.socket(fileno=os.dup(fd)) for one, fd in self.kept if one == name]

    def through(self) -> list[str]:
        """The command that starts another with what is kept; it must inherit `descriptors`."""
        numbers = ",".join(str(fd) for _, fd in self.kept)
        return [sys.executable, "-I", "-c", _THROUGH, ":".join(name for name, _ in self.kept), numbers]

    def descriptors(self) -> tuple[int, ...]:
        return tuple(fd for _, fd in self.kept)

    def keep(self, name: str, descriptors: Iterable[int]) -> None:
        """They become its own."""
        with self._changed:
            there = {os.fstat(fd).st_ino for _, fd in self.kept}
            for fd in descriptors:
                if os.fstat(fd).st_ino in there:
                    os.close(fd)
                else:
                    self.kept.append((name, fd))
            self._changed.notify_all()

    def forget(self, *names: str) -> None:
        """None: all, as where the unit stops."""
        with self._changed:
            for name, fd in tuple(self.kept):
                if not names or name in names:
                    os.close(fd)
                    self.kept.remove((name, fd))
            self._changed.notify_all()

    def until(self, names: Sequence[str]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.names == set(names), 30), self.names

    def heard(self) -> None:
        """Everything that it was told before has been done."""
        seen = threading.Event()
        self._asked = seen
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
            one.connect(str(self.path))
            one.send(b"HEARD=1")
        assert seen.wait(30)

    def _hear(self) -> None:
        while True:
            said, descriptors, _, _ = socket.recv_fds(self._socket, 4096, MOST)
            words = dict(line.partition("=")[::2] for line in os.fsdecode(said).splitlines())
            self.told.append(os.fsdecode(said))
            if words.get("FDSTORE") == "1":
                self.keep(words["FDNAME"], descriptors)
            elif words.get("FDSTOREREMOVE") == "1":
                self.forget(words["FDNAME"])
            elif "HEARD" in words:
                self._asked.set()
            elif "END" in words:
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
    ) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
            one.connect(str(self.path))
            one.send(b"END=1")
        self._thread.join()
        self.forget()
        self._socket.close()
