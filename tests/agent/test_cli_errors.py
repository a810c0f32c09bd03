"""What is wrong with a command line is said in one way by every command: `weir: ...`, and the documented exit code."""
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from agent import cli
from agent.cli import weir
from agent.contract import control
from agent.contract.messages import REASON_REQUIRED


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, (*path, name))


EVERY = sorted(commands(weir))
LEAVES = [path for path in EVERY if path and path not in {one[:-1] for one in EVERY}]


def run(*arguments: str) -> Result:
    found = CliRunner().invoke(weir, arguments)
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found


def assert_said(found: Result, code: int) -> None:
    assert found.exit_code == code, found.output
    assert found.stdout == ""
    lines = found.stderr.splitlines()
    assert lines
    assert all(line.startswith("weir: ") for line in lines), found.stderr
    assert "Error" not in found.stderr
    assert "Usage" not in found.stderr


def test_how_a_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_ask", lambda *_: control.Answered(REASON_REQUIRED))
    for verb in ("approve", "deny"):
        assert run("approvals", verb, "abc", *(["--reason", ""] if verb == "deny" else [])).stderr == (
            "weir: a reason is required: --reason TEXT\n")


def test_the_words_for_a_missing_reason_stand_once() -> None:
    """`weir approvals` knows by them what to add."""
    root = Path(cli.__file__).parents[1]
    found = [file.relative_to(root).as_posix() for part in ("agent", "enforcer") for file in (root / part).rglob("*.py")
             if REASON_REQUIRED in file.read_text()]
    assert found == ["agent/contract/messages.py"]


def test_every_command_is_there() -> None:
    assert {("status",), ("run",), ("approvals", "deny"), ("verify",), ("policy", "explain")} <= set(LEAVES)
    assert len(LEAVES) > 18


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_an_option_that_is_not_known(path: tuple[str, ...]) -> None:
    found = run(*path, "--nonsense")
    assert_said(found, 2)
    usage = found.stderr.splitlines()[-1]
    assert usage.startswith(f"weir: usage: {' '.join(('weir', *path))} ")
    assert usage.endswith(f"; {' '.join(('weir', *path))} --help says more")


@pytest.mark.parametrize("path", [path for path in LEAVES if path not in {("run",), ("verify",), ("search",)}
                                  and path[:1] != ("policy",)], ids=" ".join)
def test_an_argument_too_many(path: tuple[str, ...]) -> None:
    assert_said(run(*path, "a", "b", "c"), 2)


@pytest.mark.parametrize("arguments", [
    "nonsense", "approvals nonsense", "policy nonsense", "run id", "run --workload x", "approvals deny x",
    "approvals approve", "replay", "replay S --speed x", "replay S --speed -1", "search", "sessions --last x", "export",
    "export -o x", "export --session S", "export --format pdf -o x", "erase", "erase --reason x",
    "erase --reason x --session S --digest 00", "erase --reason x --operation x", "policy explain", "policy test",
    "policy test /nonexistent", "policy check /nonexistent", "--nonsense status", "--config", "verify --key",
])
def test_wrong_usage(arguments: str) -> None:
    assert_said(run(*arguments.split()), 2)


@pytest.mark.parametrize(("arguments", "code"), [
    ("status", 3), ("stop", 3), ("reload", 3), ("approvals", 3), ("approvals list", 3), ("approvals approve T", 3),
    ("approvals deny T --reason x", 3), ("approvals watch", 3), ("status --sessions", 3), ("sessions", 1),
    ("replay S", 1), ("search x", 1), ("verify", 2), ("policy explain --subject a --target t --database d SELECT", 1),
    ("export --session S -o OUT", 1), ("erase --session S --reason x", 1), ("policy check", 1),
])
def test_what_cannot_be_done(tmp_path: Path, arguments: str, code: int) -> None:
    """Nothing is there: no agent, no recording, no policies."""
    file = tmp_path / "weir.toml"
    file.write_text(f'[runtime]\nrun = "{tmp_path}/run/w"\nstate = "{tmp_path}/state/w"\n')
    given = [one.replace("OUT", f"{tmp_path}/out") for one in arguments.split()]
    assert_said(run("--config", str(file), *given), code)
    if given[0] in ("export", "erase") or arguments == "policy check":
        return
    found = run("--config", str(file), *given, "--json")
    assert (found.exit_code, found.stderr) == (code, "")
    assert list(json.loads(found.stdout)) == ["error"]


@pytest.mark.parametrize("path", [path for path in EVERY if path not in {("approvals",)}], ids=" ".join)
def test_help_says_the_exit_codes(path: tuple[str, ...]) -> None:
    found = run(*path, "--help")
    assert found.exit_code == 0
    if path[:1] != ("policy",) or path == ("policy",):
        said = " ".join(found.stdout.split())
        assert "Exit codes: " in said
        assert "2 usage" in said


def test_no_command_is_help() -> None:
    assert "Exit codes" in run().stderr
    assert run().exit_code == 2
    assert run("--version").stdout.startswith("weir")


def test_what_an_argument_may_be_is_said_in_one_line() -> None:
    found = run("key", "rotate")
    assert_said(found, 2)
    assert "Choose from: checkpoint, forwarded, approval, mask" in found.stderr.splitlines()[0]
