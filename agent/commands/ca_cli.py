"""`weir ca`: the authority that a target's server has to trust, and successors of authorities."""
from __future__ import annotations

from pathlib import Path

import click

from agent.commands import screen
from agent.commands.asked import EXIT_CODES, asked, note_json
from agent.contract import control
from agent.credential.client_authority import AuthorityError, client_authority, next_client_authority
from agent.credential.trust import render_certificate
from agent.settings.check import load_config
from agent.settings.credential_table import SSH
from agent.settings.fields import ConfigError
from agent.ssh.user_authority import next_user_authority, render_trusted, user_authority


class _Shown(click.Group):
    """`weir ca TARGET` is `weir ca show TARGET`."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Its options may come first."""
        first = next((one for one in args if not one.startswith("-")), None)
        if first is not None and first not in self.commands:
            args = ["show", *args]
        return super().parse_args(context, args)


_JSON = click.option("--json", "as_json", is_flag=True, callback=note_json, help="One JSON document instead of text.")


@click.group(cls=_Shown, subcommand_metavar="TARGET | rotate TARGET", epilog=EXIT_CODES)
def ca() -> None:
    """Weir's authorities of TARGET.

    Without a command the one of Weir's client certificates, as PEM; of an SSH host the line for TrustedUserCAKeys."""


@ca.command(epilog="Exit codes: 0 done, 1 refused, 2 usage.")
@click.argument("target")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of PEM.")
@click.pass_context
def show(context: click.Context, target: str, as_json: bool) -> None:
    """The authority of Weir's client certificates for TARGET.

    As PEM, for ssl_ca_file of its server, or --client-ca-file of an API server; of an SSH host as a line for the file
    that TrustedUserCAKeys of its sshd_config names.  While a successor is prepared, both.  Made where it is not there
    yet.  For targets with a credential that says certificate = "issue".  Root only."""
    context.meta["weir.json"] = as_json
    try:
        config = load_config(context.obj)
        found = next((one for one in config.targets if one.name == target), None)
        if found is None:
            names = ", ".join(one.name for one in config.targets) or "none"
            raise click.ClickException(f"{config.file}: there is no [[target]] {target!r}; there is: {names}")
        if not any(row.certificate for row in found.credentials):
            raise click.ClickException(f'{config.file}: no [[target.credential]] of {target} says '
                                       'certificate = "issue"')
        config.state.mkdir(mode=0o755, parents=True, exist_ok=True)
        if found.protocol == SSH:
            _show_line(config.state, target, as_json)
            return
        certificate = client_authority(config.state, target).certificate
        following = next_client_authority(config.state, target)
    except (ConfigError, AuthorityError, ValueError) as wrong:
        raise click.ClickException(str(wrong)) from None
    except OSError as wrong:
        raise click.ClickException(f"{wrong.filename or config.state}: {wrong.strerror}: run this as root") from None
    pem = "".join(render_certificate(one).decode() for one in (certificate, following) if one is not None)
    if as_json:
        screen.print_json({"target": target, "certificate": pem, "until": certificate.not_valid_after_utc.isoformat()})
    else:
        click.echo(pem, nl=False)


def _show_line(state: Path, target: str, as_json: bool) -> None:
    present, following = user_authority(state, target), next_user_authority(state, target)
    lines = render_trusted(target, present, *([following] if following else []))
    if as_json:
        screen.print_json({"target": target, "trusted_user_ca_keys": lines})
    else:
        click.echo(lines, nl=False)


@ca.command(epilog=EXIT_CODES)
@click.argument("target")
@click.option("--clients", is_flag=True, help="The authority of Weir's client certificates, which TARGET's server "
              "trusts.  In two steps: --prepare, then without it.")
@click.option("--prepare", is_flag=True, help="Make the successor, which signs nothing yet, and print both: give "
              "that to the server first.")
@click.option("--now", is_flag=True, help="Do not wait until workloads that run have ended: their clients may refuse "
              "what the successor signs until they are started again.")
@click.option("--reason", default="", help="Is recorded with it.")
@_JSON
@click.pass_context
def rotate(
    context: click.Context, target: str, clients: bool, prepare: bool, now: bool, reason: str, as_json: bool,
) -> None:
    """Give an authority of TARGET a successor.  Root only.

    Without --clients the one that crews trust.  What is started from now on trusts both; the successor signs once all
    that ran before has ended.  Of an SSH host these are its host keys, which are replaced at once: while workloads run
    only with --now, for their clients may refuse them until they are started again."""
    if (prepare and not clients) or (now and clients):
        raise click.UsageError("--prepare goes with --clients, and --now without")
    step = (control.PREPARE if prepare else control.FINISH) if clients else control.NOW if now else control.SERVERS
    answer = asked(context.obj, control.RotateAuthority(target, step, reason), control.AuthorityRotated)
    if answer.error:
        raise click.ClickException(answer.error)
    if as_json:
        screen.print_json(answer)
    elif prepare:
        click.echo(answer.certificate, nl=False)
        where = "ssl_ca_file" if "BEGIN CERTIFICATE" in answer.certificate else "TrustedUserCAKeys"
        click.echo(f"give both to the server ({where}), then: weir ca rotate {target} --clients", err=True)
    elif clients:
        click.echo("the successor signs from now on; the server may forget the one before in ten minutes, when the "
                   "last certificate that it has signed is over")
    elif answer.in_force:
        click.echo("the successor signs from now on")
    else:
        click.echo(f"the successor is trusted by what is started from now on, and signs once {answer.waiting} older "
                   f"start{'s of workloads have' if answer.waiting != 1 else ' of a workload has'} ended")
