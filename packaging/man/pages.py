"""Manual pages from the code: weir(1) of the commands, weir.toml(5) of the table of fields, weir-verify(1) of its file.

    python packaging/man/pages.py DIRECTORY          (Weir and what it needs must be importable)

The date in them is SOURCE_DATE_EPOCH's, if it is set.
"""
from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import click

from agent.cli import weir
from agent.config import MANY, SINGLE
from agent.settings.fields import REQUIRED, Field, Section
from agent.settings.reference import render_value

ROOT: Final = Path(__file__).resolve().parents[2]
VERIFY: Final = ROOT / "enforcer/recording/weir_verify.py"
_SEE: Final = {"weir(1)": "weir.toml(5), weir-verify(1)", "weir.toml(5)": "weir(1)", "weir-verify(1)": "weir(1)"}


def version() -> str:
    try:
        return importlib.metadata.version("weir")
    except importlib.metadata.PackageNotFoundError:
        return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def escaped(text: str) -> str:
    """One line of running text, as roff(7) reads it."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text


def paragraphs(text: str) -> Iterator[str]:
    for number, part in enumerate(re.split(r"\n\s*\n", text.strip())):
        if number:
            yield ".PP"
        yield escaped(re.sub(r"\s*\n\s*", " ", part.strip()))


def page(name: str, section: int, what: str, body: Iterable[str]) -> str:
    at = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    title = f"{name}({section})"
    date = time.strftime("%Y-%m-%d", time.gmtime(at))
    lines = [f'.TH "{name.upper()}" "{section}" "{date}" "Weir {version()}" "Weir"',
             ".SH NAME", f"{escaped(name)} \\- {escaped(what)}", *body, ".SH SEE ALSO", escaped(_SEE[title]), ".br",
             escaped("/usr/share/doc/weir/README.md; in docs: operator.md, approver.md, auditor.md, policy.md")]
    return "\n".join(lines) + "\n"


# weir(1)


def command_page() -> str:
    context = click.Context(weir, info_name="weir")
    body = [".SH SYNOPSIS", ".B weir", escaped("[OPTIONS] COMMAND [ARGUMENTS]"), ".SH DESCRIPTION",
            *paragraphs(weir.help or ""), ".SH OPTIONS", *options(weir, context), ".SH COMMANDS",
            *commands(weir, context), ".SH EXIT STATUS", *paragraphs(weir.epilog or ""), *FILES]
    return page("weir", 1, "contains AI crews: their connections go through one enforcer", body)


FILES: Final = (
    ".SH FILES",
    ".TP", "/etc/weir/weir.toml", escaped("The configuration: weir.toml(5)."),
    ".TP", "/etc/weir/groups.toml", escaped("Who is in which group."),
    ".TP", "/etc/weir/policies/*.cedar", escaped("Policies."),
    ".TP", "/var/lib/weir/recording", escaped("Recordings; members of the group weir-audit may read them."))


def commands(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in sorted(group.list_commands(context)):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        yield f'.SS "{escaped(" ".join([inner.command_path, *command.collect_usage_pieces(inner)]))}"'
        yield from paragraphs(command.help or "")
        yield from options(command, inner)
        if command.epilog and command.epilog != weir.epilog:
            yield ".PP"
            yield from paragraphs(command.epilog)
        if isinstance(command, click.Group):
            yield from commands(command, inner)


def options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1] and "--help" not in parameter.opts:
            yield ".TP"
            yield f"\\fB{escaped(record[0])}\\fR"
            yield escaped(re.sub(r"\s+", " ", record[1]))


# weir.toml(5)


def file_page() -> str:
    body = [".SH DESCRIPTION", escaped(
        "/etc/weir/weir.toml, or the file named by --config, is TOML; groups.toml and policies/*.cedar lie beside it. "
        "All of them belong to root, and nobody else may write them. `weir check` names every error with file, line, "
        "field and what would be right; `weir reload` takes a change over. "
        "What is marked (restart) is read when the agent starts. "
        "/etc/weir/weir.toml.default has every field, commented out.")]
    for section in (*SINGLE, *MANY):
        body += fields(section, section.name)
    return page("weir.toml", 5, "configuration of Weir", body)


def fields(section: Section, name: str) -> Iterator[str]:
    yield f'.SH "{escaped(f"[[{name}]]" if section.many else f"[{name}]")}"'
    yield from paragraphs(section.meaning)
    for one in section.fields:
        yield ".TP"
        yield f"\\fB{escaped(one.name)}\\fR" + (escaped(f" ({', '.join(one.of)})") if one.of else "")
        yield from paragraphs(f"{one.meaning} {value(one)}")
    for child in section.children:
        yield from fields(child, f"{name}.{child.name}")


def value(one: Field) -> str:
    default = "Required." if one.default is REQUIRED else "" if one.default is None else \
        f"Default: {render_value(one.default)}."
    return " ".join(filter(None, (f"Value: {one.kind.right}.", default, "(restart)" if one.restart else "")))


# weir-verify(1)


def verify_page() -> str:
    """Of the file's own docstring: it is handed on as it is."""
    first, usage, *rest = re.split(r"\n\s*\n", (ast.get_docstring(ast.parse(VERIFY.read_text())) or "").strip())
    words = usage.strip().removeprefix("python3 weir_verify.py ")
    body = [".SH SYNOPSIS", ".B weir\\-verify", escaped(words), ".SH DESCRIPTION",
            *paragraphs("\n\n".join([*rest, f"{first.split('.', 1)[1].strip()} It is /usr/share/weir/weir_verify.py, "
                                            "which may be copied to another machine."]))]
    return page("weir-verify", 1, "verifies a recording of Weir, without Weir", body)


def main(arguments: list[str]) -> int:
    into = Path(arguments[0])
    for name, text in (("weir.1", command_page()), ("weir.toml.5", file_page()), ("weir-verify.1", verify_page())):
        (into / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
