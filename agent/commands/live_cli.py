"""`weir sessions kill`, `weir lock`, `weir unlock`: what root does to what is open, and to who may open something."""
from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import click
from rich.text import Text

from agent.commands import screen
from agent.commands.asked import EXIT_CODES, asked, note_json
from agent.contract import control
from agent.contract.locks import KINDS, Lock

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


_JSON: Final = click.option("--json", "as_json", is_flag=True, callback=note_json,
                            help="One JSON document instead of text; times in nanoseconds UTC.")
_KIND: Final = click.Choice(KINDS)


@click.command(epilog=EXIT_CODES)
@click.argument("session")
@click.option("--reason", default="", help="The crew is told, and it is recorded.")
@_JSON
@click.pass_obj
def kill(file: str, session: str, reason: str, as_json: bool) -> None:
    """End an open session or flow at once, as root.

    With the protocol's own error.  SESSION may be the beginning of its name; `weir status --sessions` has them.  What
    its server is at is cancelled; what the server had finished is done."""
    killed = _done(asked(file, control.KillSession(session, reason), control.Killed))
    view = killed.session
    if as_json:
        screen.print_json({"error": "", "session": view})
    elif view is not None:
        ended = f"{view.session} has ended: {view.subject} through {view.workload}, "
        click.echo(screen.safe(ended) + screen.place(view))


@click.command(epilog=EXIT_CODES)
@click.argument("kind", type=_KIND, required=False)
@click.argument("name", required=False)
@click.option("--reason", default="", help="Whoever is refused is told, and it is recorded.")
@click.option("--for", "span", default="", metavar="TIME",
              help='How long: "30m", "2h", "7d".  Default: until weir unlock.')
@_JSON
@click.pass_obj
def lock(file: str, kind: str | None, name: str | None, reason: str, span: str, as_json: bool) -> None:
    """What is locked out; with KIND and NAME, lock it, as root.

    What is open of it ends at once, new connections are refused, nothing is started for it, and a subject asks for
    nothing, answers nothing and cannot log in.  A subject is local:USER or PROVIDER:NAME; local:USER also locks what
    speaks through that user for a login.  Over restarts, until `weir unlock`."""
    if kind is None:
        if reason or span:
            raise click.UsageError("what is to be locked?")
        _show(asked(file, control.AskStatus(), control.Status).locks, as_json)
        return
    if name is None:
        raise click.UsageError(f"which {kind}?")
    done = _done(asked(file, control.PutLock(kind, name, reason, _seconds(span)), control.LockDone))
    _say(done, as_json, f"{kind} {name} is locked; {done.ended} of its sessions and flows were open, and have ended")


@click.command(epilog=EXIT_CODES)
@click.argument("kind", type=_KIND)
@click.argument("name")
@_JSON
@click.pass_obj
def unlock(file: str, kind: str, name: str, as_json: bool) -> None:
    """Take a lock away, as root."""
    done = _done(asked(file, control.LiftLock(kind, name), control.LockDone))
    _say(done, as_json, f"{kind} {name} is not locked any more")


def _say(done: control.LockDone, as_json: bool, text: str) -> None:
    if as_json:
        screen.print_json(done)
        return
    click.echo(screen.safe(text))
    for note in done.notes:
        click.echo(f"note: {screen.safe(note)}")


def _show(locks: Sequence[Lock], as_json: bool) -> None:
    if as_json:
        screen.print_json(locks)
    elif not locks:
        click.echo("nothing is locked")
    for one in () if as_json else locks:
        what = f"{one.kind} {screen.safe(one.name)}"
        screen.console().print(Text.assemble((what, "bold"), f"  {screen.said_of_lock(one)}"))


def _seconds(text: str) -> int:
    """0: for good."""
    found = re.fullmatch(r"([1-9][0-9]{0,7})([smhd])", text)
    if text and found is None:
        raise click.UsageError(f'--for {text}: "30m", "2h" or "7d" would be right')
    return int(found[1]) * _UNITS[found[2]] if found else 0


def _done(answer: Any) -> Any:
    if answer.error:
        raise click.ClickException(answer.error)
    return answer
