"""What the kernel tells by itself of changes at the block: nftables over netlink, pins and slice by inotify.

Only a reason to look, never what is looked at: the watch asks the kernel what is so.  What nobody tells of (a link that
is detached, a program that is replaced, a mount) the watch finds at its next look, within a second.  Sources:
linux/netfilter/nfnetlink.h, linux/inotify.h; of Linux 6.18, bpffs and cgroup2 tell of everything that goes through
the file system.
"""
from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

_NETLINK_NETFILTER, _SOL_NETLINK, _ADD_MEMBERSHIP, _NFTABLES = 12, 270, 1, 7
_EVENT: Final = struct.Struct("=iIII")
_MODIFY, _MOVED, _CREATE, _DELETE, _UNMOUNT, _IGNORED = 0x2, 0xC0, 0x100, 0x200, 0x2000, 0x8000
_BYTES: Final = 1 << 16
_libc = ctypes.CDLL(None, use_errno=True)


class Changes:
    """`watched`: directory -> the name in it that matters, "" for every one; `changed` is called in the loop."""

    def __init__(self, watched: Mapping[Path, str], changed: Callable[[], None]) -> None:
        self._watched, self._changed = dict(watched), changed
        self._inotify = -1
        self._names: dict[int, str] = {}
        self._link: socket.socket | None = None

    def open(self) -> None:
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        self._link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
                                   _NETLINK_NETFILTER)
        self._link.bind((0, 0))
        self._link.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NFTABLES)
        loop.add_reader(self._link.fileno(), self._on_rules)
        self._inotify = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._inotify < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        loop.add_reader(self._inotify, self._on_files)
        self.again()

    def again(self) -> None:
        """Directories may be others now: after a repair."""
        if self._inotify < 0:
            return
        for path, name in self._watched.items():
            number = _libc.inotify_add_watch(self._inotify, os.fsencode(path), _MOVED | _CREATE | _DELETE)
            if number >= 0:
                self._names[number] = name

    def also(self, paths: Iterable[Path]) -> None:
        """Of these everything matters, also what is written to them.  One that goes is not watched any more."""
        for path in paths if self._inotify >= 0 else ():
            number = _libc.inotify_add_watch(self._inotify, os.fsencode(path), _MODIFY | _MOVED | _CREATE | _DELETE)
            self._names.setdefault(number, "")

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        if self._link is not None:
            loop.remove_reader(self._link.fileno())
            self._link.close()
            self._link = None
        if self._inotify >= 0:
            loop.remove_reader(self._inotify)
            os.close(self._inotify)
            self._inotify = -1

    def _on_rules(self) -> None:
        assert self._link is not None
        with suppress(OSError):       # ENOBUFS: more than the socket holds; a change all the same
            self._link.recv(_BYTES)
        self._changed()

    def _on_files(self) -> None:
        with suppress(BlockingIOError):
            data = os.read(self._inotify, _BYTES)
            while data:
                number, mask, _, length = _EVENT.unpack_from(data)
                name = data[_EVENT.size:_EVENT.size + length].rstrip(b"\0").decode(errors="replace")
                data = data[_EVENT.size + length:]
                if self._names.get(number, "") in ("", name) or mask & (_UNMOUNT | _IGNORED):
                    self._changed()
                if mask & _IGNORED:
                    self._names.pop(number, None)
