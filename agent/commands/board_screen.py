"""The live list on a terminal: keys in, the board drawn anew each second and at each key."""
from __future__ import annotations

import codecs
import os
import re
import select
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.live import Live

from agent.commands import screen
from agent.commands.asking import AskingError, ask
from agent.commands.board import BACK, DOWN, ENTER, ESCAPE, PAGE, PAGE_UP, UP, Board
from agent.contract import control
from agent.contract.messages import HoldView

LOOKING: Final = 1.0                  # seconds between questions of what waits
_READ: Final = 256                    # bytes of keys at a time
# ECMA-48 5.4: CSI, parameters, intermediates, a final byte; SS3 and one byte; with Alt; else a character.
_KEY: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1bO.|\x1b.?|.", re.DOTALL)
_NAMED: Final = {"\x1b[A": UP, "\x1bOA": UP, "\x1b[B": DOWN, "\x1bOB": DOWN, "\x1b[6~": PAGE,
                 "\x1b[5~": PAGE_UP, "\r": ENTER, "\n": ENTER, "\x1b": ESCAPE, "\x7f": BACK, "\x08": BACK}


def show_board(path: Path) -> None:
    """Until q or ^C.  Standard input and output are a terminal.  Raises NotRunning, AskingError."""
    board, looked = Board(), -LOOKING
    board.take(_holds(path))          # what is wrong is said before the screen is another
    console = screen.console()
    with _keys(0) as read, Live(console=console, screen=True, auto_refresh=False) as live:
        while not board.over:
            if (now := time.monotonic()) - looked >= LOOKING:
                board.take(_holds(path))
                looked = now
            live.update(board.draw(console, *console.size, now), refresh=True)
            for key in read(LOOKING):
                if not board.over and (answer := board.press(key, time.monotonic())):
                    board.note = _tell(path, answer, board.note)
                    looked = -LOOKING


def _holds(path: Path) -> tuple[HoldView, ...]:
    answer = ask(path, control.ListApprovals())
    if not isinstance(answer, control.Approvals):
        raise AskingError(answer.text if isinstance(answer, control.Refused) else "the agent answered something else")
    return answer.holds


def _tell(path: Path, message: control.Message, note: str) -> str:
    answer = ask(path, message)
    wrong = answer.error if isinstance(answer, control.Answered) else getattr(answer, "text", "not understood")
    return f"{note}: {screen.safe(wrong)}" if wrong else f"{note}: done"


@contextmanager
def _keys(terminal: int) -> Iterator[Callable[[float], list[str]]]:
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
    """Names of agent.commands.board, and characters; what a terminal sends besides is left out."""
    found = (_NAMED.get(key, key) for key in _KEY.findall(text))
    return [key for key in found if not key.startswith("\x1b")]
