"""`weir kubeconfig`: a file for clients of a cluster that have none."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click

from agent.commands.asking import AskingError, control_path, how_to_start
from agent.kubernetes.clusters import KNOWN
from agent.kubernetes.kubeconfig import Cluster, parse_clusters, render_kubeconfig

LIMIT: Final = 16 << 20               # bytes of what the agent has published


@click.command(epilog="Exit codes: 0 done, 1 failed, 2 usage.")
@click.argument("target")
@click.option("--name", default="", help="Of its cluster and context.  Default: TARGET.")
@click.option("--namespace", default="", help="That counts where a client names none.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="A file that is made for it, in "
              "place of standard output.")
@click.pass_context
def kubeconfig(context: click.Context, target: str, name: str, namespace: str, output: Path | None) -> None:
    """A kubeconfig for workloads, of the cluster TARGET.

    It has Weir's authority, and a token that opens nothing: the credential is Weir's.  Anybody may have it, and only
    workloads can use it.  No root is needed."""
    text = render_kubeconfig(_find(context.obj, target), name, namespace)
    if output is None:
        click.echo(text, nl=False)
    else:
        _write(output, text)


def _find(file: str, target: str) -> Cluster:
    """Raises click.ClickException."""
    try:
        known = control_path(file).parent / "trust" / KNOWN
        with known.open("rb") as opened:
            clusters = parse_clusters(opened.read(LIMIT))
    except FileNotFoundError:
        raise click.ClickException(f"no cluster is known: there is no [[target]] of protocol kubernetes, or the agent "
                                   f"has not run since ({known} is made by it); {how_to_start(file)}") from None
    except (OSError, ValueError, AskingError) as wrong:
        raise click.ClickException(f"what is known of clusters cannot be read: {wrong}") from None
    found = next((one for one in clusters if one.name == target), None)
    if found is None:
        names = ", ".join(one.name for one in clusters) or "none"
        raise click.ClickException(f"there is no cluster {target!r}; there is: {names}")
    return found


def _write(path: Path, text: str) -> None:
    """It replaces none: what is there may hold what is nowhere else.  Raises click.ClickException."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w") as file:
            file.write(text)
    except FileExistsError:
        raise click.ClickException(f"{path} is there already; name another file, or remove it") from None
    except OSError as wrong:
        raise click.ClickException(f"{path}: {wrong.strerror}") from None
