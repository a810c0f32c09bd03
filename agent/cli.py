"""`weir ...`: thin, one function a command.  Reading commands are the enforcer's own, loaded when they are asked for.

Exit codes: 0 done; 1 refused, failed or (status, check, doctor) not as it should be; 2 usage; 3 the agent is not
running.  `weir run` gives the command's own, 125 where it is Weir that failed or refused, 126 and 127 as a shell's.
What is wrong goes to standard error, each line as `weir: ...`; with --json to standard output as {"error": ...}, except
where the command line itself is wrong.
"""
from __future__ import annotations

import importlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NoReturn, TypeVar

import click
from click.exceptions import NoArgsIsHelpError
from rich.text import Text

from agent.commands import screen
from agent.commands.asked import EXIT_CODES, NOT_RUNNING
from agent.commands.asking import AskingError, NotRunning, ask, control_path, how_to_start, renamed
from agent.config import DEFAULT_FILE
from agent.contract import control
from agent.contract.documents import render_json
from agent.contract.messages import REASON_REQUIRED, HoldView

FAILED, USAGE, WEIRS_OWN = 1, 2, 125
AS_JSON: Final = "weir.json"          # key of click's `meta`, said again where the option is
Wanted = TypeVar("Wanted")
WATCHING: Final = 1.0                 # seconds between looks at what waits

# Commands of the enforcer's side: module, and the name of its click group; read by people without root.
_ELSEWHERE: Final = {
    **dict.fromkeys(("replay", "egress", "verify", "export", "search", "erase"),
                    "enforcer.recording.cli:group"),
    "sessions": "agent.commands.sessions_cli:sessions",
    "policy": "enforcer.policy.cli:policy",
    "ledger": "agent.commands.ledger_cli:ledger",
    "ca": "agent.commands.ca_cli:ca",
    "key": "agent.commands.key_cli:key",
    "kubeconfig": "agent.commands.kubeconfig_cli:kubeconfig",
    "container-args": "agent.commands.container_cli:container_args",
    "init": "agent.commands.init_cli:init",
    "adopt": "agent.commands.adopt_cli:adopt",
    "notify": "agent.commands.notify_cli:notify",
    "login": "agent.commands.login_cli:login",
    "logout": "agent.commands.login_cli:logout",
    "whoami": "agent.commands.login_cli:whoami",
    "top": "agent.commands.top_cli:top",
    "lock": "agent.commands.live_cli:lock",
    "unlock": "agent.commands.live_cli:unlock",
}
# As `weir --help` shows them.
SECTIONS: Final = (
    ("First steps", ("doctor", "init", "check")),
    ("Weir on this host", (
        "agent", "guard", "status", "health", "top", "reload", "stop", "release", "selftest", "notify")),
    ("Crews", ("run", "adopt", "container-args", "kubeconfig", "egress")),
    ("People", ("approvals", "request", "login", "whoami", "logout", "lock", "unlock")),
    ("Policies, keys", ("policy", "key", "ca")),
    ("What happened", ("sessions", "replay", "search", "export", "verify", "ledger", "erase")),
)


class Commands(click.Group):
    """Ours, and those that are loaded when they are asked for.  Whatever is wrong is said as `weir: ...`."""

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, complete_var: str | None = None,
        standalone_mode: bool = True, **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            code = super().main(args, "weir", complete_var, standalone_mode=False, **extra)
        except NoArgsIsHelpError as wrong:
            click.echo(wrong.format_message(), err=True)
            sys.exit(USAGE)
        except click.UsageError as wrong:
            _fail(f"{_in_one_line(wrong.format_message())}\n{_usage(wrong)}", USAGE)
        except click.ClickException as wrong:
            _fail(wrong.format_message(), wrong.exit_code)
        except click.Abort:
            _fail("interrupted")
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, context: click.Context) -> Any:
        """Commands of the enforcer's side leave in `meta` whether JSON was asked for."""
        try:
            return super().invoke(context)
        except click.ClickException as wrong:
            if isinstance(wrong, click.UsageError) or not context.meta.get(AS_JSON):
                raise
            _fail(wrong.format_message(), wrong.exit_code, as_json=True)

    def list_commands(self, context: click.Context) -> list[str]:
        return [*self.commands, *_ELSEWHERE]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        return _elsewhere(name) if name in _ELSEWHERE else super().get_command(context, name)


class Sections(Commands):
    """`weir --help` shows its commands below what they are for."""

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        wide = max(len(name) for _, names in SECTIONS for name in names)
        for title, names in SECTIONS:
            with formatter.section(title):
                formatter.write_dl([(f"{name:{wide}}", self._summary(context, name, formatter.width - wide - 6))
                                    for name in names])

    def _summary(self, context: click.Context, name: str, width: int) -> str:
        command = self.get_command(context, name)
        return command.get_short_help_str(width) if command is not None else ""


def _in_one_line(message: str) -> str:
    """Click lists what an argument may be below one another, with tabs."""
    return " ".join(message.split())


def _usage(wrong: click.UsageError) -> str:
    if wrong.ctx is None:
        return "weir --help says what there is"
    path = wrong.ctx.command_path
    return f"usage: {path} {' '.join(wrong.ctx.command.collect_usage_pieces(wrong.ctx))}; {path} --help says more"


def _elsewhere(name: str) -> click.Command | None:
    module, _, attribute = _ELSEWHERE[name].partition(":")
    try:
        group = getattr(importlib.import_module(module), attribute)
    except ImportError as reason:
        missing = f"not installed: {reason}"
        return click.Command(name, params=[click.Argument(["rest"], nargs=-1, type=click.UNPROCESSED)], help=missing,
                             context_settings={"ignore_unknown_options": True}, callback=lambda rest: _fail(missing))
    return group.commands.get(name) if name != attribute.replace("_", "-") else group  # type: ignore[no-any-return]


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        metadata = importlib.import_module("importlib.metadata")
        try:
            click.echo(f"weir {metadata.version('weir')}")
        except metadata.PackageNotFoundError:
            click.echo("weir, not installed: run from its source")
        context.exit()


@click.group(cls=Sections, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "file", default=DEFAULT_FILE, show_default=True, help="Configuration file.")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version,
              help="Show the version and exit.")
@click.pass_context
def weir(context: click.Context, file: str) -> None:
    """Weir: every connection of a crew goes through one enforcer, or nowhere."""
    context.obj = os.path.abspath(file)


_JSON: Final = click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text.")
_NETWORK: Final = click.option(
    "--network", type=click.Choice(["private", "host"]), help="A network namespace of its own with only lo "
    "and Weir in it, or the host's.  Default: as the workload's configuration says; where that is private, only root "
    "may choose host.")


# the agent itself


@weir.command(epilog="Exit codes: 0 stopped in order, 1 could not start or could not go on (the block stays in both), "
                     "2 usage.")
@click.pass_obj
def agent(file: str) -> None:
    """Run the agent in the foreground, as root.

    Until `weir stop` or SIGTERM; SIGHUP reloads."""
    _isolated(file, "agent")
    from agent.start import start_agent

    sys.exit(start_agent(file))


@weir.command(epilog="Exit codes: 0 the block is in place, 1 it is not, 2 usage.")
@click.option("--slice", "slice_", default="", help="Refuse where the configuration's slice is not this one.")
@click.pass_obj
def guard(file: str, slice_: str) -> None:
    """Put the block in place and end, as root.

    Crews are cut off until an agent runs.  Needs no network, no names and no accounts, and of the configuration
    only what the block is made by; where that is wrong, the defaults stand.  For weir-guard.service, at boot."""
    _isolated(file, "guard", *(("--slice", slice_) if slice_ else ()))
    from agent.block.guard import start_guard

    sys.exit(start_guard(file, slice_))


def _isolated(file: str, *words: str) -> None:
    """Again with -I, where it is not: nothing may be imported from where a crew could have put it."""
    if not sys.flags.isolated:
        from agent.processes import python_module

        command = [*python_module("agent.cli"), "--config", file, *words]
        os.execv(command[0], command)  # noqa: S606


@weir.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
              epilog="Exit codes: the command's own; 125 Weir failed or refused; 126, 127 as a shell's; 2 usage.")
@click.option("--workload", required=True, help="A [[workload]] of the configuration.")
@click.option("--user", default="", help="Run as this user; only root may name another, and must.")
@_NETWORK
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def run(file: str, workload: str, user: str, network: str | None, command: tuple[str, ...]) -> None:
    """Start COMMAND in the crews' slice."""
    from agent.commands.run import run as start

    try:
        path = str(control_path(file))
    except AskingError as reason:
        _fail(str(reason), WEIRS_OWN)
    sys.exit(start(path, workload, user, command, network or ""))


@weir.command(epilog="Exit codes: 0 enforcing, 1 running but not enforcing, 2 usage, 3 not running.")
@click.option("--sessions", is_flag=True, help="Open sessions too (root and auditors).")
@_JSON
@click.pass_obj
def status(file: str, sessions: bool, as_json: bool) -> None:
    """Whether crews are contained, and by what."""
    answer = _ask(file, control.AskStatus(), control.Status, as_json)
    opened = _ask(file, control.AskSessions(), control.OpenSessions, as_json).sessions if sessions else None
    if as_json:
        screen.print_json({**_fields(answer), **({} if opened is None else {"sessions": opened})})
    else:
        screen.console().print(screen.render_status(answer))
        if opened is not None:
            screen.console().print(screen.render_sessions(opened))
    sys.exit(0 if answer.state == "enforcing" else FAILED)


@weir.command(epilog="Exit codes: 0 enforcing, and recording works; 1 running, and it is not so; 2 usage; 3 not "
                     "running.")
@_JSON
@click.pass_obj
def health(file: str, as_json: bool) -> None:
    """Whether all is as it should be, in one line.

    For monitoring; anybody may ask who is no crew.  `weir status` says more."""
    from agent.status import health_of

    found = health_of(_ask(file, control.AskStatus(), control.Status, as_json))
    if as_json:
        screen.print_json({**_fields(found), "healthy": found.healthy})
    else:
        said = f": {screen.safe(found.reason)}" if found.reason else ""
        screen.console().print(Text.assemble((found.state, screen.COLOURS.get(found.state, "bold")), said))
    sys.exit(0 if found.healthy else FAILED)


@weir.command(epilog=EXIT_CODES)
@_JSON
@click.pass_obj
def stop(file: str, as_json: bool) -> None:
    """End agent, enforcer and recorder.  The block stays: whatever runs in the slice is cut off."""
    _done(_ask(file, control.Stop(), control.Answered, as_json, until_end=True).error, as_json,
          "stopped; the block is in place (weir release takes it away)")


@weir.command(epilog="Exit codes: 0 released, 1 refused or failed, 2 usage.")
@click.option("--kill", is_flag=True, help="End what runs in the slice first.")
@_JSON
@click.pass_obj
def release(file: str, kill: bool, as_json: bool) -> None:
    """Take the block away: probes, rules and slice.  Refused while the slice holds a process.  Works without an
    agent, for root."""
    from agent.settings.check import load_block
    from agent.unit import units

    name = load_block(file)[0].runtime.name
    if kill:
        units.stop_slice(name)        # else systemd starts again what is killed
    try:
        answer = ask(control_path(file), control.Release(kill), until_end=True)
        error = _text(answer)
    except NotRunning:
        from agent.start import release_without_agent

        error = release_without_agent(file, kill)
    except AskingError as reason:
        error = str(reason)
    if not error:
        units.stop_slice(name)        # nothing in it runs; what is started in it next brings the block back
    _done(error, as_json, "released: nothing is contained any more")


@weir.command(epilog=EXIT_CODES)
@_JSON
@click.pass_obj
def reload(file: str, as_json: bool) -> None:
    """Take over the changed configuration.

    Where something is wrong the old one stays."""
    if not control_path(file).exists() and (wrong := renamed(file)):
        _done(wrong, as_json, "")
    _done(_ask(file, control.Reload(), control.Answered, as_json).error, as_json, "the new configuration is in force")


@weir.command(epilog="Exit codes: 0 nothing is wrong, 1 something is, 2 usage.")
@_JSON
@click.pass_obj
def check(file: str, as_json: bool) -> None:
    """Check weir.toml, groups.toml and policies.

    Every error with file, line, field and what would be right.  Notes say what is allowed but hardly meant, and
    what is still to be filled in."""
    from agent.settings import advice, notices
    from agent.settings.check import check_metadata, check_policies, load_config
    from agent.settings.fields import ConfigError
    from agent.unit.adopt import state_of_units

    notes: list[str] = []
    missing: list[str] = []
    try:
        config = load_config(file)
        problems = check_policies(config) + check_metadata(config)
        missing = [*advice.missing(config)]
        notes = [*map(str, notices.notes(config)), *missing, *advice.lax(config), *state_of_units(config)]
    except ConfigError as wrong:
        problems = wrong.problems
    if as_json:
        screen.print_json({"right": not problems, "problems": problems, "notes": notes})
        sys.exit(FAILED if problems else 0)
    for text in map(str, problems):
        click.echo(screen.safe(text))
    if not problems:
        verdict = "right, not complete" if missing else "right"
        click.echo(f"{config.file}: {verdict} ({_count(len(config.targets), 'target')}, "
                   f"{_count(len(config.workloads), 'workload')}, {_count(len(config.policies), 'policy file')})")
    for text in notes:
        click.echo(f"note: {screen.safe(text)}")
    sys.exit(FAILED if problems else 0)


@weir.command(epilog="Exit codes: 0 nothing is missing, 1 something is, 2 usage.")
@_JSON
@click.pass_obj
def doctor(file: str, as_json: bool) -> None:
    """Whether this host has what Weir needs.

    And what to do where it does not."""
    from agent.commands.doctor import FAIL, examine
    from agent.settings.check import load_config
    from agent.settings.fields import ConfigError

    try:
        config = load_config(file)
    except ConfigError:
        config = None
    findings = examine(config)
    if as_json:
        screen.print_json(findings)
    else:
        colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
        for one in findings:
            advice = f": {one.advice}" if one.advice else ""
            screen.console().print(Text.assemble(
                (f"{one.state:5}", colours[one.state]), f"{one.name:16} {screen.safe(one.found)}", (advice, "dim")))
    sys.exit(FAILED if any(one.state == FAIL for one in findings) else 0)


@weir.command(epilog="Exit codes: 0 nothing got through, 1 something did or nothing could be tried, 2 usage.")
@click.option("--workload", default="", help="In which [[workload]]; the first one where it is not said.")
@click.option("--user", default="", help="As which of its users; its first one where it is not said.")
@_NETWORK
@_JSON
@click.pass_obj
def selftest(file: str, workload: str, user: str, network: str | None, as_json: bool) -> None:
    """Try ways round from inside a workload on this host (root)."""
    from agent.commands.selftest import SelftestError, run_selftest
    from agent.settings.fields import ConfigError

    try:
        found = run_selftest(file, workload, user, network or "", lambda text: None if as_json else click.echo(text))
    except (ConfigError, SelftestError, OSError) as reason:
        _fail(str(reason), as_json=as_json)
    if as_json:
        screen.print_json(found)
    else:
        screen.console().print(screen.render_selftest(found))
    sys.exit(FAILED if any(one.verdict == "not contained" for one in found) else 0)


# approvals


@weir.command(epilog=EXIT_CODES)
@click.argument("target")
@click.option("--for", "span", required=True, metavar="TIME", help='How long: "30m", "1h", up to 24h.')
@click.option("--reason", default="", help="For those who answer, and the recording.")
@_JSON
@click.pass_obj
def request(file: str, target: str, span: str, reason: str, as_json: bool) -> None:
    """Ask approvers to be elevated for TARGET for a while.

    Policies see it as context.elevated.  For whoever asks, and what runs as a crew for them; answered like a hold,
    ended by `weir approvals revoke`."""
    seconds = _seconds(span)
    answer = _ask(file, control.Elevate(target, seconds, reason), control.Requested, as_json)
    if answer.error:
        _fail(answer.error, FAILED, as_json)
    if as_json:
        screen.print_json({"ticket": answer.ticket, "error": ""})
    else:
        click.echo(f"ticket {answer.ticket}: weir approvals approve {answer.ticket} lets it in force; "
                   f"weir approvals revoke {answer.ticket} takes it back")


def _seconds(text: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,5})([smh])", text)
    if found is None:
        raise click.UsageError(f'--for {text}: "30m" or "1h" would be right')
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


class Approvals(Commands):
    """`history` reads the recording, without root: the enforcer's side has it."""

    def list_commands(self, context: click.Context) -> list[str]:
        return [*self.commands, "history"]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name != "history":
            return self.commands.get(name)
        return importlib.import_module("enforcer.recording.history").history  # type: ignore[no-any-return]


@weir.group(cls=Approvals, invoke_without_command=True, epilog=EXIT_CODES)
@_JSON
@click.pass_context
def approvals(context: click.Context, as_json: bool) -> None:
    """What waits for people, and what they have let in force.

    Without a command: the list; on a terminal as it changes, with a key for each answer."""
    if context.invoked_subcommand is not None:
        return
    if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        _show_holds(context.obj, as_json)
    else:
        from agent.commands.board_screen import show_board

        with _asking(as_json):
            show_board(control_path(context.obj))


@approvals.command("list", epilog=EXIT_CODES)
@_JSON
@click.pass_obj
def list_holds(file: str, as_json: bool) -> None:
    """What waits for an answer, and what is in force.  For members of the approvers' group, and root."""
    _show_holds(file, as_json)


@approvals.command(epilog=EXIT_CODES)
@click.argument("ticket")
@click.option("--reason", default="", help="For the recording; some rules require one.")
@_JSON
@click.pass_obj
def approve(file: str, ticket: str, reason: str, as_json: bool) -> None:
    """Let it go through: once, or as its rule says.

    For members of the approvers' group, and root; also root has to be in a group that the rule names."""
    _decide(file, control.Decide(ticket, True, reason), as_json, "approved")


@approvals.command(epilog=EXIT_CODES)
@click.argument("ticket")
@click.option("--reason", required=True, help="The crew is told.")
@_JSON
@click.pass_obj
def deny(file: str, ticket: str, reason: str, as_json: bool) -> None:
    """Refuse it.

    For members of the approvers' group, and root; also root has to be in a group that the rule names."""
    _decide(file, control.Decide(ticket, False, reason), as_json, "denied")


@approvals.command("break-glass", epilog=EXIT_CODES)
@click.argument("ticket")
@click.option("--reason", required=True, help="For the recording, and whoever looks at the alarm.")
@_JSON
@click.pass_obj
def break_glass(file: str, ticket: str, reason: str, as_json: bool) -> None:
    """Let it go through alone.  It is an alarm.

    Where its rule names a group of yours for that: break-glass=GROUP."""
    _decide(file, control.BreakGlass(ticket, reason), as_json, "approved, and an alarm: weir status shows it")


@approvals.command(epilog=EXIT_CODES)
@click.argument("ticket")
@click.option("--reason", default="", help="For the recording.")
@_JSON
@click.pass_obj
def revoke(file: str, ticket: str, reason: str, as_json: bool) -> None:
    """Take back what is in force, or was asked for.

    Your own, or what you may answer."""
    _decide(file, control.Revoke(ticket, reason), as_json, "revoked")


@approvals.command(epilog=EXIT_CODES)
@_JSON
@click.pass_obj
def watch(file: str, as_json: bool) -> None:
    """Show each operation when it begins to wait.

    Until ^C; with --json one line each."""
    seen: set[str] = set()
    while True:
        holds = _ask(file, control.ListApprovals(), control.Approvals, as_json).holds
        for hold in holds:
            if hold.ticket in seen or hold.state != "pending":
                continue
            if as_json:
                click.echo(render_json(hold))
            else:
                _print_holds([hold])
        seen = {hold.ticket for hold in holds}
        time.sleep(WATCHING)


def _show_holds(file: str, as_json: bool) -> None:
    holds = _ask(file, control.ListApprovals(), control.Approvals, as_json).holds
    if as_json:
        screen.print_json(holds)
    else:
        _print_holds(holds)


def _print_holds(holds: Sequence[HoldView]) -> None:
    console = screen.console()
    console.print(screen.render_holds(holds, console.width))


def _decide(file: str, decision: control.Message, as_json: bool, done: str) -> None:
    error = _ask(file, decision, control.Answered, as_json).error
    _done(f"{error}: --reason TEXT" if error == REASON_REQUIRED else error, as_json, done)


# what they share


@contextmanager
def _asking(as_json: bool) -> Iterator[None]:
    """Ends with what was wrong."""
    try:
        yield
    except NotRunning as reason:
        _fail(f"{reason}; {how_to_start(click.get_current_context().obj)}", NOT_RUNNING, as_json)
    except AskingError as reason:
        _fail(str(reason), FAILED, as_json)


def _ask(
    file: str, message: control.Message, wanted: type[Wanted], as_json: bool, until_end: bool = False,
) -> Wanted:
    """The answer, or the end with what was wrong."""
    with _asking(as_json):
        answer = ask(control_path(file), message, until_end=until_end)
    if not isinstance(answer, wanted):
        _fail(_text(answer), FAILED, as_json)
    return answer


def _text(answer: control.Reply) -> str:
    if isinstance(answer, control.Refused | control.Failed):
        return answer.text
    return answer.error if isinstance(answer, control.Answered) else "the agent answered something else"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _done(error: str, as_json: bool, text: str) -> None:
    if error:
        _fail(error, FAILED, as_json)
    if as_json:
        screen.print_json({"error": ""})
    else:
        click.echo(text)


def _fail(text: str, code: int = FAILED, as_json: bool = False) -> NoReturn:
    if as_json:
        screen.print_json({"error": text})
    else:
        for line in text.splitlines():
            click.echo(f"weir: {screen.safe(line)}", err=True)
    sys.exit(code)


def _fields(struct: Any) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


main: Callable[[], None] = weir


if __name__ == "__main__":
    main()
