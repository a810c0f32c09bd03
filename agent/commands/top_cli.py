"""`weir top`: what goes on, as it changes."""
from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import click
from rich.live import Live

from agent.commands import screen
from agent.commands.asked import EXIT_CODES, asking, note_json
from agent.commands.asking import AskingError, ask, control_path
from agent.commands.keyboard import keys
from agent.commands.top import HOLDS_BOARD, Snapshot, Top
from agent.contract import control
from agent.processes import python_module

LOOKING: Final = 1.0                  # seconds between pictures


@click.command(epilog=EXIT_CODES)
@click.option("--json", "as_json", is_flag=True, callback=note_json,
              help="One JSON document of now, instead of a picture that changes; times in nanoseconds UTC.")
@click.pass_obj
def top(file: str, as_json: bool) -> None:
    """Sessions, holds and rates, as they change.

    Keys: up and down choose a session, enter watches it (weir sessions watch), h shows what waits for people, s sorts,
    t shows one target alone, q leaves.  Sessions are for root and auditors, holds for root and approvers."""
    with asking(file):
        path = control_path(file)
        first = look(path)
        if as_json:
            screen.print_json(_as_json(first))
        elif not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise click.ClickException("this is no terminal: weir top --json says how it is now")
        else:
            _show(file, path, first)


def look(path: Path) -> Snapshot:
    """Raises NotRunning, AskingError."""
    status = ask(path, control.AskStatus())
    if not isinstance(status, control.Status):
        raise AskingError(getattr(status, "text", "") or "the agent answered something else")
    opened, held = ask(path, control.AskSessions()), ask(path, control.ListApprovals())
    return Snapshot(
        time.time_ns(), status,
        opened.sessions if isinstance(opened, control.OpenSessions) else None,
        held.holds if isinstance(held, control.Approvals) else None,
        getattr(opened, "text", ""), getattr(held, "text", ""))


def _as_json(found: Snapshot) -> dict[str, object]:
    status = found.status
    return {"at": found.at, "state": status.state, "reasons": status.reasons, "statistics": status.statistics,
            "lag": status.lag, "workloads": len(status.workloads), "sessions": found.sessions, "holds": found.holds}


def _show(file: str, path: Path, first: Snapshot) -> None:
    """Until q or ^C."""
    one = Top()
    one.take(first)
    while not one.over:
        _run(one, path)
        if one.opens:
            _open(file, one.opens)
            one.opens = ""


def _run(one: Top, path: Path) -> None:
    """Until it is over, or another screen is wanted."""
    console, looked = screen.console(), time.monotonic()
    done = False
    with keys(0) as read, Live(console=console, screen=True, auto_refresh=False) as live:
        while not one.over and not one.opens:
            if time.monotonic() - looked >= LOOKING:
                one.take(look(path))
                looked = time.monotonic()
            live.update(one.draw(console, *console.size), refresh=True)
            for key in read(LOOKING):
                if not one.over and not one.opens:
                    one.press(key)
        done = True
    if not done:
        one.over = True               # ^C


def _open(file: str, what: str) -> None:
    """Another command has the terminal until it ends; ^C is for that."""
    words = ["approvals"] if what == HOLDS_BOARD else ["sessions", "watch", "--", what]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done = subprocess.run([*python_module("agent.cli"), "--config", file, *words],
                              preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    finally:
        signal.signal(signal.SIGINT, before)
    if done.returncode or what != HOLDS_BOARD:
        click.echo("weir top: enter goes on")
        sys.stdin.readline()
