"""`weir ca`: the authority that a target's server has to trust."""
from __future__ import annotations

import click

from agent.commands import screen
from agent.credential.client_authority import AuthorityError, client_authority
from agent.credential.trust import render_certificate
from agent.settings.check import load_config
from agent.settings.fields import ConfigError


@click.command(epilog="Exit codes: 0 done, 1 refused, 2 usage.")
@click.argument("target")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of PEM.")
@click.pass_context
def ca(context: click.Context, target: str, as_json: bool) -> None:
    """The authority of Weir's client certificates for TARGET.

    As PEM, for ssl_ca_file of its server.  Made where it is not there yet.  For targets with a credential that
    says certificate = "issue".  Root only."""
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
        certificate = client_authority(config.state, target).certificate
    except (ConfigError, AuthorityError, ValueError) as wrong:
        raise click.ClickException(str(wrong)) from None
    except OSError as wrong:
        raise click.ClickException(f"{wrong.filename or config.state}: {wrong.strerror}: run this as root") from None
    pem = render_certificate(certificate).decode()
    if as_json:
        screen.print_json({"target": target, "certificate": pem, "until": certificate.not_valid_after_utc.isoformat()})
    else:
        click.echo(pem, nl=False)
