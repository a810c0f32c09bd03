"""`weir approvals history`: what waited for people and what became of it, told from the recording, without root."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich.text import Text

from agent.contract.documents import render_json
from enforcer.recording.cli import _EXIT, _JSON, _console, _recording, reading
from enforcer.recording.read import Reader, make_entry, read_content, read_parameters
from enforcer.recording.replay import local_time, plain, utc_time
from enforcer.words import events

NEAR: Final = 2000                    # events around an answer among which the agent's own is looked for
_STYLES: Final = {"pending": "yellow", "approved": "green", "used": "green", "denied": "bold red"}


class Step(msgspec.Struct, frozen=True):
    time: str                         # UTC
    at: int                           # nanoseconds UTC
    seq: int                          # of the event
    state: str
    by: str
    reason: str
    note: str
    session: str
    operation: int
    way: str = ""                     # where it was answered: "web SESSION", "slack U...", "link NAME"; "": a terminal


class Told(msgspec.Struct, frozen=True):
    """One ticket, from its first event on."""

    ticket: str
    form: str
    subject: str
    target: str
    what: str
    text: str | None                  # the statement; None: there is none, or no longer
    parameters: tuple[str | None, ...]
    state: str                        # the last one
    steps: tuple[Step, ...]


@click.command(epilog=_EXIT)
@click.argument("ticket", required=False, default="")
@_recording
@_JSON
@click.option("--last", default=50, show_default=True, help="How many, the newest; 0: all.")
def history(ticket: str, directory: Path, as_json: bool, last: int) -> None:
    """What people were asked, and said, from the recording.

    Of one TICKET, or the newest.  For members of the auditors' group, without root."""
    with reading(directory, "read", {"what": "approvals", "ticket": ticket[:100]}) as reader:
        found = list(tell(reader, ticket, last))
        if as_json:
            click.echo(render_json(found))
            return
        if not found:
            click.echo("nothing has waited for an approval" if not ticket else f"no ticket {ticket} is recorded",
                       err=True)
        for one in found:
            for line in render(one):
                _console().print(line, soft_wrap=True)


def tell(reader: Reader, ticket: str = "", last: int = 0) -> Iterator[Told]:
    """The newest (0: all), in the order in which they were asked.  Tickets are drawn at random: two of one name are
    years apart, and are told from each other by what ends the first."""
    every: list[list[tuple[int, Any]]] = []
    open_: dict[str, list[tuple[int, Any]]] = {}
    for db in reader.dbs:
        statement = "SELECT seq, kind, body FROM event WHERE kind = ? AND body IS NOT NULL ORDER BY seq"
        for row in db.execute(statement, (events.HOLD,)):
            event = make_entry(db, *row).event
            if ticket and event.ticket != ticket:
                continue
            if event.ticket not in open_ or (event.state == "pending" and not event.note and not event.by):
                open_[event.ticket] = []
                every.append(open_[event.ticket])
            open_[event.ticket].append((row[0], event))
    for steps in every[-max(last, 0):]:
        yield _told(reader, steps)


def _told(reader: Reader, steps: list[tuple[int, Any]]) -> Told:
    first = steps[0][1]
    subject, target = _asker(reader, first.session) if not first.subject else (first.subject, first.target)
    text, parameters = _statement(reader, first.session, first.operation) if first.operation else (None, None)
    return Told(
        first.ticket, first.form, subject, target, first.what, None if text is None else text.decode(errors="replace"),
        tuple(read_parameters(parameters)), steps[-1][1].state,
        tuple(Step(utc_time(e.at), e.at, seq, e.state, e.by, e.reason, e.note, e.session, e.operation,
                   _way(reader, seq, e)) for seq, e in steps))


def _way(reader: Reader, seq: int, step: Any) -> str:
    """By the agent's own word, which is recorded about when the enforcer's is."""
    if not step.by or step.state == "used":
        return ""
    for db in reader.dbs:
        for (detail,) in db.execute(
                "SELECT detail FROM host_event WHERE seq BETWEEN ? AND ? AND name = 'approval.answered' "
                "ORDER BY abs(seq - ?)", (seq - NEAR, seq + NEAR, seq)):
            said = msgspec.json.decode(detail or "{}", type=dict[str, Any])
            if (said.get("ticket"), said.get("by"), said.get("error")) == (step.ticket, step.by, ""):
                return str(said.get("way", ""))
    return ""


def _asker(reader: Reader, session: str) -> tuple[str, str]:
    """Events of earlier builds do not name him."""
    for db in reader.dbs:
        row = db.execute("SELECT subject, target FROM session_opened WHERE session = ?", (session,)).fetchone()
        if row is not None:
            return str(row[0]), str(row[1])
    return "", ""


def _statement(reader: Reader, session: str, operation: int) -> tuple[bytes | None, bytes | None]:
    for db in reader.dbs:
        row = db.execute(
            "SELECT text, parameters FROM intent WHERE session = ? AND operation = ?", (session, operation)).fetchone()
        if row is not None:
            return read_content(db, row[0]), read_content(db, row[1])
    return None, None


def render(one: Told) -> Iterator[Text]:
    yield Text.assemble(
        (plain(one.ticket), "bold"), f"  {plain(one.form)}  {plain(one.subject)} at {plain(one.target)}: "
        f"{plain(one.what)}")
    if one.text is not None:
        with_ = f"  with {plain(', '.join(map(str, one.parameters)))}" if one.parameters else ""
        yield Text(f"    {plain(one.text)}{with_}", "dim")
    for step in one.steps:
        said = f" by {plain(step.by)}" if step.by else ""
        said += f", {plain(step.way)}" if step.way else ""
        said += f" ({plain(step.note)})" if step.note else ""
        said += f": {plain(step.reason)}" if step.reason else ""
        where = f"  [session {plain(step.session)}, operation {step.operation}]" if step.state == "used" else ""
        yield Text.assemble((f"    {local_time(step.at)}  ", "dim"), (f"{plain(step.state):9}",
                            _STYLES.get(step.state, "")), said, (where, "dim"))
