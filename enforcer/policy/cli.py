"""`weir policy ...`: works on files, without a running agent."""
from __future__ import annotations

import grp
import json
import os
import pwd
import sys
from pathlib import Path
from typing import NoReturn

import click

from agent.contract.groups import groups_of
from enforcer.policy.beside import LOCAL, Beside, notes, parse_beside
from enforcer.policy.cedar import PolicySet, load_policies
from enforcer.policy.check import check_files
from enforcer.policy.explain import decide, explain
from enforcer.policy.tables import failures, parse_table, principal_of
from enforcer.words.decisions import NAMES
from enforcer.words.errors import ConfigError
from enforcer.words.operations import Principal, Request
from enforcer.words.reported import Call

CONFIG = "/etc/weir/weir.toml"


def _directory(context: click.Context, _: click.Parameter, value: Path | None) -> Path:
    """Beside the configuration that `weir` was given."""
    return value or Path(context.obj or CONFIG).parent / "policies"


_FILES = click.option("--policies", "directory", callback=_directory, type=click.Path(path_type=Path),
                      help="Directory of *.cedar files.  Default: policies, beside weir.toml.")


@click.group(epilog="Exit codes: 0 as it should be, 1 not, 2 usage.")
def policy() -> None:
    """Check, explain and test policies."""


def _fail(text: str) -> NoReturn:
    raise click.ClickException(text)


def _note_json(context: click.Context, _: click.Parameter, value: bool) -> bool:
    """For `weir` (agent/cli.py), which says what is wrong: as JSON too."""
    context.meta["weir.json"] = value
    return value


def _load(directory: Path) -> PolicySet:
    try:
        return load_policies({str(path): path.read_text("utf-8") for path in _files(directory)})
    except (ConfigError, OSError, UnicodeDecodeError) as error:
        _fail(str(error))


def _files(directory: Path) -> list[Path]:
    """Of the directory; what is not there, or may not be looked into, is never taken for "no policy"."""
    try:
        return sorted(path for path in directory.iterdir() if path.suffix == ".cedar" and path.name[0] != ".")
    except OSError as error:
        _fail(f"{directory}: {error.strerror}; --policies names another directory")


@policy.command(epilog="Exit codes: 0 right, 1 not, 2 usage.")
@_FILES
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False))
def check(directory: Path, files: tuple[str, ...]) -> None:
    """Check FILES, or every *.cedar of the directory.

    Grammar, names, holds, schema."""
    chosen = list(files) or [str(path) for path in _files(directory)]
    found = check_files(chosen)
    if found:
        _fail("\n".join(found))
    if not chosen:
        click.echo(f"{directory} holds no *.cedar file: nothing is permitted")
        return
    click.echo(f"{len(chosen)} {'file is' if len(chosen) == 1 else 'files are'} right")


@policy.command("explain", epilog="Exit codes: 0 permitted, 1 denied, held or failed, 2 usage.")
@_FILES
@click.option("--subject", help='Who asks, as the recording shows it: "local:ada".  Default with --workload: the '
              "first of its users.")
@click.option("--workload", default="", help="The workload that they act through.")
@click.option("--group", "groups", multiple=True, help="A group that they are in, besides those of groups.toml; may be "
              "given again.")
@click.option("--target", required=True)
@click.option("--database", help="Of a PostgreSQL target: what is asked is SQL.")
@click.option("--account", help="Of an SSH target, the user there: what is asked is a command line.")
@click.option("--method", help="Of a Kubernetes target, GET or another: what is asked is a path with its query.")
@click.option("--body", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="With --method: a file with the object that is written, JSON or YAML; of PATCH a merge patch.")
@click.option("--schema", default="public", show_default=True, help="Where names without a schema lie.")
@click.option("--reported", multiple=True, metavar="TOOL[/AGENT[/TASK[/CREW]]]",
              help="A tool call that its process reports; again for several at once.")
@click.option("--json", "as_json", is_flag=True, callback=_note_json, help="One JSON document instead of text.")
@click.argument("text", metavar="SQL|COMMAND|PATH")
@click.pass_context
def explain_(
    context: click.Context, directory: Path, subject: str | None, workload: str, groups: tuple[str, ...], target: str,
    database: str | None, account: str | None, method: str | None, body: Path | None, schema: str,
    reported: tuple[str, ...], as_json: bool, text: str,
) -> None:
    """What SQL, a command line or a request asks for, and the answer.

    Names are read without a catalogue.  Labels of columns are not looked at, and "connect", which a session needs
    before it says anything, is not asked.  Groups are those of groups.toml beside the policies."""
    given = [one for one in (database, account, method) if one]
    if len(given) != 1:
        raise click.UsageError(
            "Give one of '--database' (SQL), '--account' (a command line) and '--method' (a request)." if given else
            "Missing option '--database' (SQL), '--account' (a command line over SSH) or '--method' (a request to a "
            "cluster).")
    if body and not method:
        raise click.UsageError("'--body' is of a request: give '--method' too.")
    if not subject and not workload:
        raise click.UsageError("Missing option '--subject' or '--workload'.")
    policies = _load(directory)
    beside, unread = _beside(directory.parent / Path(context.obj or CONFIG).name)
    noted = list(notes(beside, target, groups, workload)) if beside else [unread] if unread else []
    for note in () if as_json else noted:
        click.echo(f"weir: note: {note}", err=True)
    principal = _principal(beside, subject, workload, groups)
    seen: tuple[str, ...] = ()
    if method:
        requests, error, seen = _asked_of_cluster(text, target, method, body)
    else:
        requests, error = (_commands(text, target, account) if account else
                           _analyse(text, target, database or "", schema))
    if error:
        _fail(f"refused before policy: {error}")
    calls = tuple(map(_call, reported))
    rows = list(explain(policies, principal, requests, calls))
    whole = decide(policies, principal, requests, (), calls)
    if as_json:
        click.echo(json.dumps({"outcome": NAMES[whole.outcome], "reason": whole.reason, "requests": [
            {"action": r.action, "resource": r.resource, "outcome": r.outcome, "rules": r.rules} for r in rows],
            "seen": seen, "notes": noted}))
    else:
        for row in rows:
            rules = ", ".join(f"{n} ({p})" for n, p in zip(row.rules, row.places, strict=True)) or "no policy"
            click.echo(f"{row.outcome:7} {row.action} {row.resource}: {rules}")
        for one in seen:
            click.echo(f"seen    {one}")
        click.echo(f"{NAMES[whole.outcome]}{': ' + whole.reason if whole.reason else ''}")
    sys.exit(0 if NAMES[whole.outcome] == "permit" else 1)


def _call(text: str) -> Call:
    tool, agent, task, crew = (text.split("/", 3) + [""] * 3)[:4]
    return Call(crew, agent, task, tool)


def _beside(file: Path) -> tuple[Beside | None, str]:
    """None where there is no weir.toml, or where what is said comes between."""
    groups = file.with_name("groups.toml")
    try:
        return parse_beside(file.read_text("utf-8"), groups.read_text("utf-8") if groups.exists() else ""), ""
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        wrong = f"{error.filename}: {error.strerror}"
    except ValueError as error:
        wrong = f"{file.parent}: {error}"
    return None, f"groups of groups.toml are not known: {wrong}"


def _principal(beside: Beside | None, subject: str | None, workload: str, groups: tuple[str, ...]) -> Principal:
    """With the groups that the agent gives it."""
    acting = beside.workloads.get(workload) if beside else None
    if not subject:
        if acting is None or acting.named or not acting.users:
            _fail(f'who acts through workload "{workload}" is not said in weir.toml: --subject says it')
        subject = LOCAL + acting.users[0]
    user = subject.removeprefix(LOCAL) if subject.startswith(LOCAL) else ""
    mine = groups_of(beside.groups if beside else {}, user=user, unix=_unix_groups(user) if user else (),
                     workload=workload, subject="" if user else subject, given=groups)
    return principal_of(subject, mine, workload)


def _unix_groups(user: str) -> tuple[str, ...]:
    """Those of a user of this host; of another nobody knows any."""
    try:
        account = pwd.getpwnam(user)
        return tuple(grp.getgrgid(gid).gr_name for gid in os.getgrouplist(user, account.pw_gid))
    except KeyError:
        return ()


def _analyse(sql: str, target: str, database: str, schema: str) -> tuple[tuple[Request, ...], str]:
    """By the protocol's own analysis, loaded when it is asked for: policy itself knows no SQL."""
    import importlib

    contract = importlib.import_module("agent.contract.target")
    words = importlib.import_module("enforcer.protocols.postgresql.operations.words")
    operations = importlib.import_module("enforcer.protocols.postgresql.operations.analysis")
    meaning = words.Meaning(database, "", ("pg_catalog", schema), None, 0)
    analysis = operations.analyse(sql, meaning, contract.Target(target, "postgresql", (), 5432, ()), {})
    if not analysis.error and not analysis.statements:
        return (), "SQL holds no statement"
    return tuple(dict.fromkeys(r for s in analysis.statements for r in s.requests)), analysis.error


def _commands(text: str, target: str, account: str) -> tuple[tuple[Request, ...], str]:
    """As _analyse: policy itself knows no shell."""
    import importlib

    requests = importlib.import_module("enforcer.protocols.ssh.requests")
    return tuple(requests.make_requests(os.fsencode(text), target, account)), ""


def _asked_of_cluster(
    text: str, target: str, method: str, body: Path | None,
) -> tuple[tuple[Request, ...], str, tuple[str, ...]]:
    """As _analyse, and what policy sees of the body: policy itself knows no Kubernetes."""
    import importlib

    explained = importlib.import_module("enforcer.protocols.kubernetes.explained")
    try:
        content = body.read_text("utf-8") if body else None
    except (OSError, UnicodeDecodeError) as error:
        _fail(f"{body}: {error}")
    requests, wrong = explained.requests_of(target, method, text, content)
    return requests, wrong, explained.seen(requests)


@policy.command("test", epilog="Exit codes: 0 as the tables say, 1 not, 2 usage.")
@_FILES
@click.argument("tables", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def test_(directory: Path, tables: tuple[Path, ...]) -> None:
    """Compare text TABLES of requests with what the policies decide."""
    policies = _load(directory)
    wrong = 0
    try:
        rows = [row for table in tables for row in parse_table(str(table), table.read_text("utf-8"))]
    except (ConfigError, UnicodeDecodeError) as error:
        _fail(str(error))
    for row, found in failures(policies, iter(rows)):
        wrong += 1
        what = f"{row.request.action} {row.request.resource}"
        click.echo(f"{row.file}:{row.line}: {what}: {found}, expected {row.expected}")
    click.echo(f"{len(rows) - wrong} of {len(rows)} as expected")
    sys.exit(1 if wrong else 0)
