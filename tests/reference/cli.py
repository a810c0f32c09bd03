"""docs/reference-cli.md: what `weir COMMAND --help` says, of every command."""
from __future__ import annotations

from collections.abc import Iterator

import click

from agent.cli import weir

_HEAD = """\
# Commands

<!-- Made by `make docs` from the commands themselves (agent/cli.py). -->

Every command that there is, with what `--help` says of it. Before the command `--config FILE` names another
configuration than `/etc/weir/weir.toml`. With `--json` a command gives one JSON document, mistakes as
`{"error": ...}`. A message that begins with `weir:` goes to standard error. [operator.md](operator.md) says when to use
what.
"""


def render_page() -> str:
    return _HEAD + "".join(_section(path, command) for path, command in commands())


def commands() -> Iterator[tuple[str, click.Command]]:
    """`weir approvals approve`, and what it is; in alphabetical order, groups before what is in them."""
    yield from _below("weir", weir)


def _below(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in sorted(command.list_commands(context)):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _below(f"{path} {name}", inner)


def _section(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path)
    usage = " ".join((path, *command.collect_usage_pieces(context)))
    parts = [f"\n## {path}\n```text\n{usage}\n```\n{_text(command.help)}\n"]
    rows = [row for one in command.params if (row := _row(one, context))]
    if rows:
        parts.append("\n| | |\n|---|---|\n" + "".join(rows))
    if command.epilog:
        parts.append(f"\n{_text(command.epilog)}\n")
    return "".join(parts)


def _row(one: click.Parameter, context: click.Context) -> str:
    """Of an option; arguments stand in the usage."""
    if not isinstance(one, click.Option) or one.hidden:
        return ""
    record = one.get_help_record(context)
    if record is None:
        return ""
    flags, meaning = (text.replace("|", "\\|") for text in record)
    return f"| `{flags}` | {' '.join(meaning.split())} |\n"


def _text(text: str | None) -> str:
    """Paragraphs on a line each."""
    paragraphs = (text or "").replace("\b", "").split("\n\n")
    return "\n\n".join(" ".join(one.split()) for one in paragraphs if one.strip())
