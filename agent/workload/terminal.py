"""Terminals: raw mode on the caller's side, pseudo terminals on the launcher's.  Source: tty_ioctl(4), pty(7)."""
from __future__ import annotations

import fcntl
import os
import struct
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_SIZE: Final = struct.Struct("HHHH")  # struct winsize: rows, columns, unused pixels
LARGEST: Final = 0xFFFF


def size_of(fd: int) -> tuple[int, int]:
    """Rows and columns."""
    rows, columns, _, _ = _SIZE.unpack(fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(_SIZE.size)))
    return int(rows), int(columns)


def apply_size(fd: int, rows: int, columns: int) -> None:
    """The foreground group gets SIGWINCH where that is a change.  On the master it counts for the slave."""
    bounded = (max(0, min(number, LARGEST)) for number in (rows, columns))
    fcntl.ioctl(fd, termios.TIOCSWINSZ, _SIZE.pack(*bounded, 0, 0))


def open_terminal(uid: int, rows: int, columns: int) -> tuple[int, int]:
    """Master and slave, both close-on-exec; the slave belongs to the uid, mode 0620, as login(1) leaves a terminal."""
    master, slave = os.openpty()
    try:
        os.fchown(slave, uid, -1)
        os.fchmod(slave, 0o620)
        apply_size(master, rows, columns)
    except BaseException:
        os.close(master)
        os.close(slave)
        raise
    return master, slave


def foreground(master: int) -> int:
    """Foreground process group of the slave, in our pid namespace; 0 where there is none or it is not visible."""
    try:
        group: int = struct.unpack("i", fcntl.ioctl(master, termios.TIOCGPGRP, bytes(4)))[0]
    except OSError:
        return 0
    return max(group, 0)


@contextmanager
def raw(fd: int) -> Iterator[None]:
    """Every byte as typed while inside; the former state comes back whatever happens."""
    saved = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSADRAIN)
        yield
    finally:
        # TCSADRAIN: what the command printed last comes out in the mode it was printed for.
        termios.tcsetattr(fd, termios.TCSADRAIN, saved)
