"""`weir policy ...`: works on files, without a running agent."""
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NoReturn

import click

from enforcer.policy.cedar import PolicySet, load_policies
from enforcer.policy.check import check_files
from enforcer.policy.explain import decide, explain
from enforcer.policy.tables import failures, parse_table, principal_of
from enforcer.words.decisions import NAMES
from enforcer.words.errors import ConfigError
from enforcer.words.operations import Request
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
@click.option("--subject", required=True, help='Who asks, as the recording shows it: "local:ada".')
@click.option("--group", "groups", multiple=True, help="A group that they are in; may be given again.")
@click.option("--target", required=True)
@click.option("--database", required=True)
@click.option("--schema", default="public", show_default=True, help="Where names without a schema lie.")
@click.option("--reported", multiple=True, metavar="TOOL[/AGENT[/TASK[/CREW]]]",
              help="A tool call that its process reports; again for several at once.")
@click.option("--json", "as_json", is_flag=True, callback=_note_json, help="One JSON document instead of text.")
@click.argument("sql")
def explain_(
    directory: Path, subject: str, groups: tuple[str, ...], target: str, database: str, schema: str,
    reported: tuple[str, ...], as_json: bool, sql: str,
) -> None:
    """What SQL asks for, what policy answers, and which rules say so.  Names are read without a catalogue."""
    policies, principal = _load(directory), principal_of(subject, groups)
    requests, error = _analyse(sql, target, database, schema)
    if error:
        _fail(f"refused before policy: {error}")
    calls = tuple(map(_call, reported))
    rows = list(explain(policies, principal, requests, calls))
    whole = decide(policies, principal, requests, (), calls)
    if as_json:
        click.echo(json.dumps({"outcome": NAMES[whole.outcome], "reason": whole.reason, "requests": [
            {"action": r.action, "resource": r.resource, "outcome": r.outcome, "rules": r.rules} for r in rows]}))
    else:
        for row in rows:
            rules = ", ".join(f"{n} ({p})" for n, p in zip(row.rules, row.places, strict=True)) or "no policy"
            click.echo(f"{row.outcome:7} {row.action} {row.resource}: {rules}")
        click.echo(f"{NAMES[whole.outcome]}{': ' + whole.reason if whole.reason else ''}")
    sys.exit(0 if NAMES[whole.outcome] == "permit" else 1)


def _call(text: str) -> Call:
    tool, agent, task, crew = (text.split("/", 3) + [""] * 3)[:4]
    return Call(crew, agent, task, tool)


def _analyse(sql: str, target: str, database: str, schema: str) -> tuple[tuple[Request, ...], str]:
    """By the protocol's own analysis, loaded when it is asked for: policy itself knows no SQL."""
    import importlib

    contract = importlib.import_module("agent.contract.target")
    words = importlib.import_module("enforcer.protocols.postgresql.operations.words")
    operations = importlib.import_module("enforcer.protocols.postgresql.operations.analysis")
    meaning = words.Meaning(database, "", ("pg_catalog", schema), None, 0)
    analysis = operations.analyse(sql, meaning, contract.Target(target, "postgresql", (), 5432, ()), {})
    return tuple(dict.fromkeys(r for s in analysis.statements for r in s.requests)), analysis.error


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
