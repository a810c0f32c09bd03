"""Keys of a terminal: by name, one at a time."""
from __future__ import annotations

import codecs
import os
import re
import select
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

UP, DOWN, PAGE, PAGE_UP, ENTER, ESCAPE, BACK = "up", "down", "page", "page up", "enter", "escape", "back"
_READ: Final = 256                    # bytes of keys at a time
# ECMA-48 5.4: CSI, parameters, intermediates, a final byte; SS3 and one byte; with Alt; else a character.
_KEY: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1bO.|\x1b.?|.", re.DOTALL)
_NAMED: Final = {"\x1b[A": UP, "\x1bOA": UP, "\x1b[B": DOWN, "\x1bOB": DOWN, "\x1b[6~": PAGE,
                 "\x1b[5~": PAGE_UP, "\r": ENTER, "\n": ENTER, "\x1b": ESCAPE, "\x7f": BACK, "\x08": BACK}


@contextmanager
def keys(terminal: int) -> Iterator[Callable[[float], list[str]]]:
    """Each at once and not shown; what was typed before is dropped.  ^C leaves."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(timeout: float) -> list[str]:
        if not select.select([terminal], [], [], timeout)[0]:
            return []
        raw = os.read(terminal, _READ)
        return parse_keys(decoder.decode(raw)) if raw else ["q"]         # hung up

    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        now = termios.tcgetattr(terminal)
        now[6][termios.VSUSP] = b"\0"         # the shell would have a terminal that shows nothing
        termios.tcsetattr(terminal, termios.TCSAFLUSH, now)
        yield read
    except KeyboardInterrupt:
        pass
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def parse_keys(text: str) -> list[str]:
    """Names, and characters; what a terminal sends besides is left out."""
    found = (_NAMED.get(key, key) for key in _KEY.findall(text))
    return [key for key in found if not key.startswith("\x1b")]
