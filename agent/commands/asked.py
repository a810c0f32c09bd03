"""A command's question to the agent: its answer, or the command's end with what is wrong and its exit code."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import click

from agent.commands.asking import AskingError, NotRunning, ask, control_path, how_to_start
from agent.contract.control import Message

NOT_RUNNING: Final = 3                # exit code
EXIT_CODES: Final = "Exit codes: 0 done, 1 refused or failed, 2 usage, 3 the agent is not running."
Wanted = TypeVar("Wanted", bound=Message)


def note_json(context: click.Context, _: click.Parameter, value: bool) -> bool:
    """For `weir` (agent/cli.py), which says what is wrong: as JSON too."""
    context.meta["weir.json"] = value
    return value


class AgentNotRunning(click.ClickException):
    exit_code = NOT_RUNNING


@contextmanager
def asking(file: str) -> Iterator[None]:
    """What is asked in it is asked of the agent of this configuration.  Raises click.ClickException."""
    try:
        yield
    except NotRunning as reason:
        raise AgentNotRunning(f"{reason}; {how_to_start(file)}") from None
    except AskingError as reason:
        raise click.ClickException(str(reason)) from None


def asked(file: str, question: Message, wanted: type[Wanted]) -> Wanted:
    """Raises click.ClickException."""
    with asking(file):
        answer = ask(control_path(file), question)
    if not isinstance(answer, wanted):
        raise click.ClickException(getattr(answer, "text", "") or "the agent answered something else")
    return answer
