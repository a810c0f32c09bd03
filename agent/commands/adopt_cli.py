"""`weir adopt`: a unit of systemd's becomes a workload, or is one no more."""
from __future__ import annotations

import os
import sys

import click

from agent.commands import screen
from agent.commands.asked import asking
from agent.layout import LayoutError
from agent.settings.fields import ConfigError
from agent.unit.adopt import AdoptError, Outcome
from agent.unit.adopt import adopt as do_adopt
from agent.unit.adopt import undo as do_undo
from agent.unit.adoptable import END, REPORT, RESTART
from agent.unit.systemd import SystemdError

FAILED = 1


@click.command(epilog="Exit codes: 0 done, 1 refused, failed or not in force as written, 2 usage, 3 the agent is not "
                      "running (--dry-run and --undo work without).")
@click.option("--workload", default="", help="The [[workload]] that it is; the one that has `unit` = UNIT where it is "
              "not said.")
@click.option("--running", type=click.Choice([END, REPORT, RESTART]), default=None,
              help="What becomes of what it has open: its connections are ended; or only reported, and their packets "
                   "dropped; or it is restarted.  As the workload's `running` where it is not said; with --undo only "
                   "restart means something.")
@click.option("--dry-run", "dry", is_flag=True, help="Show what would be written, and what it has open.")
@click.option("--undo", is_flag=True, help="Take the drop-in away; what runs stays confined until its next start.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text.")
@click.argument("unit")
@click.pass_context
def adopt(
    context: click.Context, workload: str, running: str | None, dry: bool, undo: bool, as_json: bool, unit: str,
) -> None:
    """Confine a service of systemd's as `weir run` a command.

    Write the drop-in, show it, and contain what runs already (root)."""
    context.meta["weir.json"] = as_json
    if undo and dry:
        raise click.UsageError("--undo shows nothing: without --dry-run")
    if os.geteuid() != 0:
        raise click.ClickException("only root adopts units")
    try:
        with asking(context.obj):
            outcome = do_undo(context.obj, unit, running or "") if undo else do_adopt(
                context.obj, unit, workload, running or "", dry)
    except (AdoptError, ConfigError, SystemdError, LayoutError, OSError) as reason:
        raise click.ClickException(str(reason)) from None
    if as_json:
        screen.print_json(outcome)
    else:
        for line in render(outcome):
            click.echo(screen.safe(line))
    sys.exit(FAILED if outcome.degraded else 0)


def render(outcome: Outcome) -> list[str]:
    lines = [*outcome.text.splitlines(), *([""] if outcome.text else [])]
    for one in outcome.sockets:
        peer = f", connected with {one.peer}" if one.peer else ""
        lines.append(f"pid {one.pid} ({one.exe}): {one.family}{peer}{f': {one.done}' if one.done else ''}")
    lines += [f"note: {note}" for note in outcome.notes]
    lines += [f"degraded: {one}" for one in outcome.degraded]
    said = {"undone": f"{outcome.file} is taken away", "would be adopted": f"{outcome.file} would be this",
            "unchanged": f"{outcome.file} is as it was"}
    lines.append(f"{outcome.unit}: {said.get(outcome.state, f'{outcome.file} is written')}"
                 + (", and it was restarted" if outcome.restarted else ""))
    return lines
