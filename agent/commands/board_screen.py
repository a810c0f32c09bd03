"""The live list on a terminal: keys in, the board drawn anew each second and at each key."""
from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from rich.live import Live

from agent.commands import screen
from agent.commands.asking import AskingError, ask
from agent.commands.board import Board
from agent.commands.keyboard import keys
from agent.contract import control
from agent.contract.messages import HoldView

LOOKING: Final = 1.0                  # seconds between questions of what waits


def show_board(path: Path) -> None:
    """Until q or ^C.  Standard input and output are a terminal.  Raises NotRunning, AskingError."""
    board, looked = Board(), -LOOKING
    board.take(_holds(path))          # what is wrong is said before the screen is another
    console = screen.console()
    with keys(0) as read, Live(console=console, screen=True, auto_refresh=False) as live:
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
