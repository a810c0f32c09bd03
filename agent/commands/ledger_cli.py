"""`weir ledger`: from the running agent, or for an auditor from the recording alone."""
from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from agent.commands import screen
from agent.commands.asked import asked
from agent.contract import control
from agent.contract.control import LedgerView
from agent.contract.ledger import FOREIGN, GLASS, Alarm, Connect, said_of_glass

ALARMED = 1
_ACCOUNTED: Final = "Connects that the kernel saw of crews, and how each ended."


@click.command(epilog="Exit codes: 0 all is accounted for, 1 something is not, or failed, 2 usage, 3 the agent is not "
                      "running (--recording works without).")
@click.option("--recording", "place", type=click.Path(path_type=Path, readable=False), default=None,
              help="From a recording alone: its directory, or one file.  For auditors, without root.")
@click.option("--acknowledge", is_flag=True, help="The alarms were looked at: `weir status` leaves them out from now "
              "on; the recording keeps them, and who said so.  Root only.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text; times in nanoseconds UTC.")
@click.pass_context
def ledger(context: click.Context, place: Path | None, acknowledge: bool, as_json: bool) -> None:
    """Connects that the kernel saw, and what accounts for them.

    Sessions, flows and refusals in the recording.  Without --recording: since the recorder's start."""
    context.meta["weir.json"] = as_json
    if acknowledge:
        if place is not None:
            raise click.UsageError("--acknowledge is said to the running agent: without --recording")
        _acknowledge(context.obj, as_json)
        return
    view = _recorded(place) if place is not None else asked(context.obj, control.AskLedger(), LedgerView)
    if as_json:
        screen.print_json({"accounted": accounted(view), "unaccounted": len(view.alarms), "waiting": view.waiting,
                           "known": view.known, "answers": view.answers, "open": list(map(_connect, view.open)),
                           "alarms": list(map(_alarm, view.alarms))})
    else:
        for line in render(view):
            click.echo(line)
    sys.exit(ALARMED if view.alarms or not view.known else 0)


def accounted(view: LedgerView) -> dict[str, int]:
    return {how: count for how, count in view.counts.items() if how not in ("unaccounted", "foreign sockets")}


def render(view: LedgerView) -> list[str]:
    if not view.known:
        return ["the recorder has not said yet"]
    found = accounted(view)
    lines = [f"{sum(found.values()) + view.waiting + view.counts.get('unaccounted', 0)} connects of crews"]
    lines += [f"  {count:8} {screen.safe(how)}" for how, count in sorted(found.items())]
    lines += [f"  {view.waiting:8} not decided yet"] if view.waiting else []
    lines += [f"  open: {_where(one)}" for one in view.open]
    if not view.alarms:
        return [*lines, "nothing is unaccounted for"]
    return [*lines, f"{len(view.alarms)} alarms", *(f"  {screen.ago(one.at)} ago: {_why(one)}" for one in view.alarms)]


def _where(one: Connect) -> str:
    return screen.safe(f"{one.workload or '(no workload)'} pid {one.pid} to {one.destination}, {one.verdict}, "
                       f"{screen.ago(one.at)} ago, socket {one.cookie:x}")


def _why(one: Alarm) -> str:
    detail = one.detail
    if one.name == GLASS:
        return screen.safe(f"the glass was broken: {said_of_glass(one)}")
    who = f"{one.workload or '(no workload)'} pid {detail.get('pid', '')}"
    if one.name == FOREIGN:
        return screen.safe(f"{who} ({detail.get('exe', '')}) holds a socket that was not made there: "
                           f"{detail.get('family', '')}, peer {detail.get('peer') or 'none'}; {detail.get('done', '')}")
    return screen.safe(f"{who} to {detail.get('destination', '')}: {detail.get('why', '')}"
                       + (f" (peer {detail['peer']})" if detail.get("peer") else ""))


def _connect(one: Connect) -> dict[str, Any]:
    return msgspec.structs.asdict(one)


def _alarm(one: Alarm) -> dict[str, Any]:
    return msgspec.structs.asdict(one)


def _recorded(place: Path) -> LedgerView:
    view: LedgerView = importlib.import_module("enforcer.recording.ledger_view").recorded(place)
    return view


def _acknowledge(file: str, as_json: bool) -> None:
    asked(file, control.Acknowledge(), control.Answered)
    if as_json:
        screen.print_json({"error": ""})
    else:
        click.echo("acknowledged: the recording says by whom")
