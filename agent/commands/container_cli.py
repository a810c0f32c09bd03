"""`weir container-args`: what podman or docker is told."""
from __future__ import annotations

import pwd
from pathlib import Path

import click

from agent.commands import screen
from agent.config import Config
from agent.settings.check import load_config
from agent.settings.fields import ConfigError
from agent.settings.host_table import Workload
from agent.workload.container_args import CGROUPFS, DOCKER, PODMAN, PROFILE, SYSTEMD, notes, render_args


@click.command("container-args", epilog="Exit codes: 0 done, 1 refused, 2 usage.")
@click.argument("workload")
@click.option("--user", default="", help="One of the workload's users: who the container is for policies.  Default: "
              "its only one.")
@click.option("--manager", type=click.Choice([SYSTEMD, CGROUPFS]), default=None,
              help="Who makes the runtime's cgroups (podman info, docker info say it).  Default: systemd where it runs "
              "this host.")
@click.option("--engine", type=click.Choice([PODMAN, DOCKER]), default=PODMAN, show_default=True,
              help="Who is told: docker does not know all that podman needs.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text.")
@click.pass_context
def container_args(
    context: click.Context, workload: str, user: str, manager: str | None, engine: str, as_json: bool,
) -> None:
    """What starts a container as WORKLOAD.

    Arguments of podman or docker: podman run $(weir container-args WORKLOAD) IMAGE.  Containers of a host: one of
    a pod is not supported yet."""
    context.meta["weir.json"] = as_json
    config = _load(context.obj)
    chosen = _workload(config, workload)
    account = _account(chosen, user)
    if not (config.run / "trust" / PROFILE).exists():
        raise click.ClickException("the files that a container is given are not there: start the agent first")
    manager = manager or (SYSTEMD if Path("/run/systemd/system").is_dir() else CGROUPFS)
    arguments = render_args(config, chosen, account.pw_uid, account.pw_gid, manager, engine)
    if as_json:
        screen.print_json({"arguments": arguments, "notes": notes(config)})
        return
    click.echo("\n".join(arguments))
    for note in notes(config):
        click.echo(f"weir: {note}", err=True)


def _load(file: str) -> Config:
    try:
        return load_config(file)
    except ConfigError as wrong:
        raise click.ClickException(str(wrong)) from None


def _workload(config: Config, name: str) -> Workload:
    if (found := config.workload(name)) is not None:
        return found
    names = ", ".join(one.name for one in config.workloads) or "none"
    raise click.ClickException(f"{config.file}: there is no [[workload]] {name!r}; there is: {names}")


def _account(workload: Workload, user: str) -> pwd.struct_passwd:
    if not user and len(workload.users) > 1:
        raise click.ClickException(f"workload {workload.name} has several users ({', '.join(workload.users)}): say "
                                   "which with --user")
    name = user or workload.users[0]
    if name not in workload.users:
        raise click.ClickException(f"{name} is not among the `users` of workload {workload.name}")
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise click.ClickException(f"there is no user {name!r} on this host") from None
