"""Entries for systemd-journald by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), where stderr is its.

One datagram an entry, over a Unix socket that everybody may write to, so the unprivileged processes write their own and
journald adds whose they are.  Who cannot reach it writes to stderr as before.
"""
from __future__ import annotations

import logging
import os
import re
import socket
import stat
import struct
from collections.abc import Mapping
from typing import Final

SOCKET: Final = "/run/systemd/journal/socket"
VARIABLE: Final = "JOURNAL_STREAM"    # DEVICE:INODE of the stream that journald has given, systemd.exec(5)
VALUE: Final = 2000                   # characters of one field
IDENTIFIER: Final = "weir"
_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_PRIORITY: Final = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}      # syslog(3)
_SIZE: Final = struct.Struct("<Q")


def stream() -> dict[str, str]:
    """What a child of this process has to have in its environment to know, where stderr is journald's; else nothing."""
    return {VARIABLE: os.environ[VARIABLE]} if is_journal() else {}


def is_journal(descriptor: int = 2) -> bool:
    """Whether stderr is the journal: the variable may be inherited from who has another."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get(VARIABLE, "") == f"{found.st_dev}:{found.st_ino}"


def render_entry(fields: Mapping[str, str]) -> bytes:
    """Pure.  A field whose name journald would not take is left out, and so is what is empty."""
    return b"".join(_render(name, value) for name, value in fields.items() if value and _NAME.fullmatch(name))


def _render(name: str, value: str) -> bytes:
    data = value[:VALUE].encode(errors="backslashreplace")
    if b"\n" in data:
        return name.encode() + b"\n" + _SIZE.pack(len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"


def entry_of(record: logging.LogRecord, message: str, more: Mapping[str, str]) -> dict[str, str]:
    """`more`: by names in lower case, each a WEIR_ field."""
    return {
        "MESSAGE": message, "PRIORITY": str(_PRIORITY.get(record.levelname, 6)), "SYSLOG_IDENTIFIER": IDENTIFIER,
        "WEIR_PART": record.name, **{f"WEIR_{name.upper()}": value for name, value in more.items()}}


def to_stream(line: bytes, descriptor: int = 2) -> bool:
    """Whether journald's stream has taken it, whole; does not wait."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return os.write(descriptor, line) == len(line)
        with socket.socket(fileno=os.dup(descriptor)) as stream:
            return stream.send(line, socket.MSG_DONTWAIT) == len(line)
    except OSError:                   # it is full, or gone
        return False


class Sender:
    """`send` gives whether journald has it."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def send(self, entry: Mapping[str, str]) -> bool:
        try:
            self._socket.sendto(render_entry(entry), self._path)
        except OSError:               # it is not there, or has too much to do
            return False
        return True

    def close(self) -> None:
        self._socket.close()
