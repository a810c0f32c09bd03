"""SQLite's connections that nobody has closed: from Python 3.13 on each is a warning when it is finalised."""
from __future__ import annotations

import gc
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar


class Watched(sqlite3.Connection):
    left: ClassVar[list[str]] = []     # where those were made that went open
    made = 0

    def __init__(self, *given: Any, **named: Any) -> None:
        self._where = ""
        super().__init__(*given, **named)
        Watched.made += 1
        maker = sys._getframe(1)
        self._where = f"{maker.f_code.co_filename}:{maker.f_lineno}"

    def close(self) -> None:
        self._where = ""
        super().close()

    def __del__(self) -> None:
        if self._where:
            self.left.append(self._where)


@contextmanager
def watched() -> Iterator[None]:
    """Every connection that is made in this process."""
    connect = sqlite3.connect
    sqlite3.connect = partial(connect, factory=Watched)  # type: ignore[assignment]
    try:
        yield
    finally:
        sqlite3.connect = connect


def check_closed(before: int) -> None:
    """`before`: how many had been made when the test began."""
    if Watched.made > before:
        gc.collect()
    left, Watched.left = Watched.left, []
    assert not left, f"SQLite connections that nobody has closed: {left}"
