"""`weir key`: which keys there are, and their rotation."""
from __future__ import annotations

import time

import click

from agent.commands import screen
from agent.commands.asked import EXIT_CODES, asked, note_json
from agent.contract import control

CHECKPOINT = "checkpoint"
_JSON = click.option("--json", "as_json", is_flag=True, callback=note_json, help="One JSON document instead of text.")


@click.group(invoke_without_command=True, epilog=EXIT_CODES)
@_JSON
@click.pass_context
def key(context: click.Context, as_json: bool) -> None:
    """Weir's keys and authorities.

    Without a command, which there are.  Root only."""
    if context.invoked_subcommand is not None:
        return
    answer = asked(context.obj, control.AskKeys(), control.Keys)
    if as_json:
        screen.print_json({"keys": answer.keys, "authorities": answer.authorities})
        return
    for one in answer.keys:
        since = time.strftime("%Y-%m-%d", time.localtime(one.since / 1e9))
        click.echo(f"{one.name:10} {one.id}  since {since}  {one.use}")
    click.echo(f"{CHECKPOINT:10} {'':16}  the recorder's, of its checkpoints: signing.pub beside the recording")
    for ca in answer.authorities:
        more = ", its successor is prepared" if ca.next else ""
        end = f"until {ca.until[:10]}" if ca.until else ca.serial
        what = "host key" if ca.of == "hosts" else "authority"
        click.echo(screen.safe(f"{what:10} of {ca.of} of target {ca.target}, {end}{more}"))


@key.command(epilog=EXIT_CODES)
@click.argument("name", type=click.Choice([CHECKPOINT, "forwarded", "approval", "mask", "link"]))
@click.option("--reason", default="", help="Is recorded with it.")
@_JSON
@click.pass_context
def rotate(context: click.Context, name: str, reason: str, as_json: bool) -> None:
    """Put another key in the place of NAME.  Root only.

    checkpoint: the recorder signs with it from a new file on; old and new key have both signed the change.
    forwarded: digests of what was forwarded; the old one is kept for earlier recordings.
    approval: tickets, elevations and approvals that stand are over; what waits goes on.
    mask: values that the hash mask made before look different from then on.
    link: links that webhooks were sent lead to nothing; what waits goes on, without links."""
    if name == CHECKPOINT:
        _rotate_checkpoint(context.obj, reason, as_json)
        return
    answer = asked(context.obj, control.RotateKey(name, reason), control.KeyRotated)
    if answer.error:
        raise click.ClickException(answer.error)
    _say(name, answer.before, answer.after, as_json)


def _rotate_checkpoint(file: str, reason: str, as_json: bool) -> None:
    from agent.settings.check import load_block
    from enforcer.recording.rekeying import change_key
    from enforcer.words.errors import RecordingError

    try:
        before, after = change_key(load_block(file)[0].recordings, reason)
    except (RecordingError, OSError) as wrong:
        raise click.ClickException(str(wrong)) from None
    _say(CHECKPOINT, before, after, as_json)


def _say(name: str, before: str, after: str, as_json: bool) -> None:
    if as_json:
        screen.print_json({"key": name, "before": before, "after": after})
    else:
        click.echo(f"{name}: key {after} in place of {before}")
