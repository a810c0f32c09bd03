"""`weir notify test`: whether approvers are reached elsewhere."""
from __future__ import annotations

import sys

import click

from agent.commands import screen
from agent.commands.asked import EXIT_CODES, asked, note_json
from agent.contract import control


@click.group(epilog=EXIT_CODES)
def notify() -> None:
    """Slack and webhooks, where what waits for approval is told."""


@notify.command(epilog=EXIT_CODES)
@click.option("--json", "as_json", is_flag=True, callback=note_json, help="One JSON document instead of text.")
@click.pass_obj
def test(file: str, as_json: bool) -> None:
    """Send a test to each place, as root, and say what came back.

    Slack's channels get a message, webhooks an event of type `weir.test`."""
    answer = asked(file, control.TestNotify(), control.NotifyTested)
    if answer.error:
        raise click.ClickException(screen.safe(answer.error))
    if as_json:
        screen.print_json(answer.results)
    for one in () if as_json else answer.results:
        click.echo(screen.safe(f"{one.way}: {one.error or one.said}"))
    if any(one.error for one in answer.results):
        sys.exit(1)
