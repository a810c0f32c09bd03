"""Texts of proc(5).  What a process calls itself is any bytes, and so are paths: nothing here fails because of them.

Lines end with a newline and with nothing else: the kernel escapes that one in names, and not what else Python would
take for an end (carriage return, form feed, U+2028), by which a name could look like a line of its own.
"""
from __future__ import annotations

import os
from typing import Final

LIMIT: Final = 1 << 20                # bytes of a file


def read_bytes(pid: int | str, name: str) -> bytes:
    """Raises OSError: it has ended, or may not be looked at."""
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read(LIMIT)


def read_shown(pid: int | str, name: str) -> str:
    """For people: without what UTF-8 cannot hold.  Raises OSError."""
    return read_bytes(pid, name).decode(errors="backslashreplace")


def read_lines(pid: int | str, name: str) -> list[str]:
    """As os.fsdecode gives them: a path in them leads where it says.  Raises OSError."""
    return os.fsdecode(read_bytes(pid, name)).split("\n")


def stat_fields(pid: int) -> list[str]:
    """/proc/PID/stat from field 3 on: what stands before is the number and the name.  Raises OSError."""
    return read_bytes(pid, "stat").rpartition(b")")[2].decode().split()
