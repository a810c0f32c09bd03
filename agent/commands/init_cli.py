"""`weir init`: a first configuration, by questions or by flags."""
from __future__ import annotations

import grp
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import click
import msgspec
from rich.text import Text

from agent.commands import screen
from agent.commands.init_questions import Questions
from agent.config import DEFAULT_FILE
from agent.contract.target import ENFORCE, MODES
from agent.init import writing
from agent.init.finding import find
from agent.init.findings import UNIT, Findings, Peer
from agent.init.proposal import Proposal, only_sure, propose
from agent.init.rendering import Missing, Rendered, render
from agent.init.strings import Unclear, parse_target
from agent.init.writing import Change, WritingError
from agent.layout import LayoutError
from agent.settings.fields import NAME
from agent.unit.adopt import refused
from agent.unit.systemd import SystemdError
from agent.unit.units import has_agent

APPROVERS: Final = "weir-approvers"   # `[runtime] approvers`, of this host
RECORDING: Final = "/var/lib/weir/recording"
_COLOURS: Final = {"+": "green", "-": "red", "@": "cyan", "#": "dim"}


class Written(msgspec.Struct, frozen=True):
    path: str
    state: str                        # agent.init.writing
    mode: str
    backup: str = ""                  # what was there


class Made(msgspec.Struct, frozen=True):
    name: str
    what: str                         # a unit, a user; a protocol, or "egress"
    place: str = ""
    why: tuple[str, ...] = ()


class Outcome(msgspec.Struct, frozen=True):
    state: str                        # "written" | "would be written" | "unchanged"
    files: tuple[Written, ...]
    workloads: tuple[Made, ...]
    targets: tuple[Made, ...]
    egress: tuple[Made, ...]
    missing: tuple[Missing, ...]
    notes: tuple[str, ...]
    next: tuple[str, ...]


@click.command(epilog="Exit codes: 0 written, as it is already, or shown with --dry-run; 1 refused, failed or not "
                      "wanted; 2 usage.  Nothing is written unless all of it is right.")
@click.option("--unit", "units", multiple=True, metavar="UNIT", help="A service of systemd's that is a crew; more than "
              "once for several.  Default: those that look like one.")
@click.option("--user", "users", multiple=True, metavar="USER", help="Somebody whose crew `weir run` starts; more than "
              "once for several.")
@click.option("--target", "targets", multiple=True, metavar="NAME=URL", help="What it talks to, besides what is found: "
              "postgresql://USER@HOST:PORT/DATABASE, ssh://ACCOUNT@HOST, kubernetes://HOST:PORT/NAMESPACE.  Never with "
              "a password: everybody on the host sees it.")
@click.option("--no-find", is_flag=True, help="Of whom crews talk to, only what --target names.")
@click.option("--recording", type=click.Path(path_type=Path, file_okay=False), default=None, help="Take what crews "
              f"reached in the modes record and shadow from there.  Default: {RECORDING}, where it is.")
@click.option("--egress", "mode", type=click.Choice(MODES), default=None, help="What becomes of what nothing permits. "
              f"Default: {ENFORCE}, which refuses it; record lets it pass and says so.")
@click.option("--take-credentials", "take", is_flag=True, help="Passwords, keys and tokens that are found become files "
              "of root's, mode 0600.  They are never shown.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
@click.option("--dry-run", "dry", is_flag=True, help="Show what would be written, ask nothing and write nothing.")
@click.option("--force", is_flag=True, help="Also in place of a configuration that is there; it is kept beside.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text; with --yes or --dry-run.")
@click.pass_context
def init(
    context: click.Context, units: tuple[str, ...], users: tuple[str, ...], targets: tuple[str, ...], no_find: bool,
    recording: Path | None, mode: str | None, take: bool, yes: bool, dry: bool, force: bool, as_json: bool,
) -> None:
    """Write a first configuration for the crews of this host.

    Looks for crews, and for the databases, SSH hosts, clusters and models that they talk to: in units, open
    connections, environments and client files.  Asks which of them count, shows what it would write and writes it:
    weir.toml, groups.toml and policies that permit reading, hold changes and deny the rest.  Changes nothing else, and
    contacts nobody; as root."""
    context.meta["weir.json"] = as_json
    _usage(yes, dry, as_json)
    named = tuple(map(_named_target, targets))
    if os.geteuid() != 0:
        raise click.ClickException("only root may look at crews and write the configuration: sudo weir init")
    found = _found(units, users, no_find, recording)
    notes = list(found.notes)
    if yes or dry:
        whole = propose(found.crews, found.recorded, named, mode or ENFORCE, take)
        proposal = only_sure(whole)
        notes += [f"not taken, for nobody said what it is: {one.peer.hosts[0]} port {one.peer.port} "
                  f"({'; '.join(one.peer.why)}); a question, without --yes"
                  for one in whole.egress if one not in proposal.egress]
    else:
        proposal, more = Questions(found, named, mode, take, lambda chosen, who: _found(
            chosen, who, no_find, recording)).ask()
        notes += more
    outcome = _carried_out(context.obj, proposal, notes, dry=dry, force=force, ask=not yes, as_json=as_json)
    if as_json:
        screen.print_json(outcome)
        return
    for line in _said(outcome):
        click.echo(screen.safe(line))


def _usage(yes: bool, dry: bool, as_json: bool) -> None:
    if as_json and not (yes or dry):
        raise click.UsageError("--json asks nothing: with --yes or --dry-run")
    if not (yes or dry) and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("there is no terminal to ask questions on: --yes asks none, --dry-run shows what it "
                               "would write")


def _named_target(text: str) -> Peer:
    name, equals, url = text.partition("=")
    try:
        NAME.parse(name if equals else "")
    except ValueError:
        # Who leaves the name out has a password there, maybe.
        raise click.UsageError("--target: NAME=URL would be right, NAME of letters, digits, '.', '_' and '-'") from None
    try:
        return parse_target(name, url)
    except Unclear as wrong:
        raise click.UsageError(f"--target {name}: {wrong}") from None


def _found(units: Sequence[str], users: Sequence[str], no_find: bool, recording: Path | None) -> Findings:
    there = Path(RECORDING)           # empty where nothing has run but the guard, or a release
    place = recording or (there if any(there.glob("recording-*.sqlite")) else None)
    found = find(units, users, None if no_find else place)
    if no_find:
        found = msgspec.structs.replace(
            found, crews=tuple(msgspec.structs.replace(one, peers=()) for one in found.crews))
    return found


def _carried_out(
    file: str, proposal: Proposal, notes: list[str], *, dry: bool, force: bool, ask: bool, as_json: bool,
) -> Outcome:
    """Raises click.ClickException."""
    if not proposal.workloads:
        raise click.ClickException("\n".join((*notes, "no crew was found or named: --unit UNIT names a service of "
                                              "systemd's, --user USER somebody whose crew `weir run` starts")))
    rendered = render(proposal, os.path.dirname(file), os.path.basename(file))
    try:
        changes = writing.plan(rendered.files, force)
        if not dry:
            writing.refuse_what_is_in_the_way(changes)
        if (wrong := writing.credentials_of_others(changes, file)) and not dry:
            raise click.ClickException("\n".join(("nothing was written:", *wrong)))
        notes += [*wrong, *writing.policies_of_others(changes, file)]
        notes += [*_checked(file, proposal, rendered, changes), *_nobody_answers()]
        notes += [f"{one.file.path} is there already: without --force it stays, and nothing is written"
                  for one in changes if one.state == writing.IN_THE_WAY]
        if not as_json:
            _show(changes)
        if all(change.state in (writing.SAME, writing.KEPT) for change in changes):
            return _outcome(file, proposal, rendered, changes, notes, "unchanged", {})
        if dry:
            return _outcome(file, proposal, rendered, changes, notes, "would be written", {})
        if ask and not click.confirm("Write this?", default=False):
            raise click.ClickException("nothing was written")
        backups = writing.write(changes)
    except (WritingError, OSError) as reason:
        raise click.ClickException(str(reason)) from None
    return _outcome(file, proposal, rendered, changes, notes, "written", backups)


def _checked(file: str, proposal: Proposal, rendered: Rendered, changes: Sequence[Change]) -> Iterator[str]:
    """Notes of what `weir adopt` would refuse.  Raises click.ClickException where something is wrong."""
    config, problems = writing.check(changes, file, [one.path for one in rendered.missing])
    if config is None:
        raise click.ClickException("\n".join(("nothing was written, for it would not be right:", *map(str, problems))))
    for one in proposal.workloads:
        workload = config.workload(one.name)
        if one.crew.kind == UNIT and workload is not None:
            try:
                wrong = refused(config, workload, one.crew.name)
            except (SystemdError, LayoutError, OSError) as reason:
                wrong = (str(reason),)
            yield from (f"weir adopt will refuse {one.crew.name}: {why}" for why in wrong)


def _nobody_answers() -> Iterator[str]:
    with suppress(KeyError):
        if not grp.getgrnam(APPROVERS).gr_mem:
            yield (f"nobody is in the group {APPROVERS}, and what is held waits for nobody: sudo usermod -aG "
                   f"{APPROVERS} NAME")


def _show(changes: Sequence[Change]) -> None:
    console = screen.console()
    for line in writing.render_changes(changes):
        console.print(Text(screen.safe(line), style=_COLOURS.get(line[:1], "")))


def _outcome(
    file: str, proposal: Proposal, rendered: Rendered, changes: Sequence[Change], notes: Iterable[str], state: str,
    backups: dict[str, str],
) -> Outcome:
    missing = tuple(one for one in rendered.missing if not os.path.exists(one.path))
    places = {name: tuple(_made(one.name, one.peer) for one in some)
              for name, some in (("targets", proposal.targets), ("egress", proposal.egress))}
    return Outcome(
        state, tuple(Written(one.file.path, one.state, f"{one.file.mode:04o}", backups.get(one.file.path, ""))
                     for one in changes),
        tuple(Made(one.name, one.crew.kind, one.crew.name, (one.crew.why,)) for one in proposal.workloads),
        places["targets"], places["egress"], missing, tuple(dict.fromkeys((*notes, *rendered.remarks))),
        tuple(_next(file, proposal, missing)))


def _made(name: str, peer: Peer) -> Made:
    return Made(name, peer.protocol or "egress", peer.socket or f"{peer.hosts[0]} port {peer.port}", peer.why)


def _next(file: str, proposal: Proposal, missing: Sequence[Missing]) -> Iterator[str]:
    """Commands that lead to the first recorded session."""
    weir = "weir" if file == DEFAULT_FILE else f"weir --config {shlex.quote(file)}"
    yield from (one.how for one in missing)
    yield f"sudo {weir} check"
    if Path("/run/weir/control.sock").exists():
        yield f"sudo {weir} reload"
    elif file == DEFAULT_FILE and has_agent():
        yield "sudo systemctl start weir-agent"
    else:
        yield f"sudo {weir} agent   # in a terminal of its own; it says \"enforcing\""
    for one in proposal.workloads:
        if one.crew.kind == UNIT:
            yield f"sudo {weir} adopt --running restart {shlex.quote(one.crew.name)}"
        else:
            yield f"sudo {weir} run --workload {one.name} --user {one.crew.user} -- COMMAND"
    yield f"sudo {weir} sessions"


def _said(outcome: Outcome) -> Iterator[str]:
    for note in outcome.notes:
        yield f"note: {note}"
    if outcome.missing:
        yield "still to be put there, by you:"
        yield from (f"  {one.path}: {one.what}" for one in outcome.missing)
    for one in outcome.files:
        if one.backup:
            yield f"{one.path} was replaced; what was there is {one.backup}"
    counts = (f"{len(some)} {what}{'' if len(some) == 1 else 's'}" for what, some in (
        ("workload", outcome.workloads), ("target", outcome.targets), ("egress place", outcome.egress)))
    yield f"{outcome.state}: {', '.join(counts)}"
    if outcome.state != "would be written":
        yield "next:"
        yield from (f"  {line}" for line in outcome.next)
