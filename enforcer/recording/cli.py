"""Reading commands: `weir sessions` (and `watch`), `replay`, `search`, `export`, `verify`, `erase`.

They work on the recording's files, for members of the auditors' group, without root and without a running agent.
Reading is recorded: a command that cannot leave its note (notes.py) shows nothing.  A copy elsewhere has no `reads`
directory, and is read without one.
"""
from __future__ import annotations

import os
import sqlite3
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import click
import msgspec
from rich.console import Console

from agent.contract.documents import render_json
from agent.contract.names import covers
from enforcer.recording import egress as places
from enforcer.recording import erasing, export, notes, replay
from enforcer.recording.following import follow
from enforcer.recording.read import FORBIDDEN, Entry, Reader, open_recording
from enforcer.recording.searching import Search, Searched, line_json, render_left, render_line
from enforcer.recording.showing import Live, Pace, play, show_session, terminals_of
from enforcer.recording.tapes import read_pieces
from enforcer.recording.verify import read_key, verify
from enforcer.recording.weir_verify import Unreadable, parse_expected, render_report, report_json, unfit
from enforcer.words import events
from enforcer.words.errors import RecordingError

DEFAULT: Final = Path("/var/lib/weir/recording")
NANO: Final = 10**9
LONGEST_PAUSE: Final = 3.0            # seconds between two events of a replay with --speed
Command = TypeVar("Command", bound=Callable[..., Any])


def _default(context: click.Context) -> Path:
    """Where the configuration that `weir` was given puts it."""
    with suppress(OSError, tomllib.TOMLDecodeError, TypeError, AttributeError):
        runtime = tomllib.loads(Path(str(context.obj)).read_text()).get("runtime", {})
        state = runtime.get("state") or f"/var/lib/{runtime.get('name', 'weir')}"
        return Path(state) / "recording"
    return DEFAULT


def _recording(command: Command) -> Command:
    return click.option(
        "--recording", "directory", type=click.Path(path_type=Path, readable=False),
        callback=lambda context, _, value: value or _default(context),
        help="Directory of the recording, or one file of it.  Default: where weir.toml says, /var/lib/weir/recording.",
    )(command)


def _note_json(context: click.Context, _: click.Parameter, value: bool) -> bool:
    """For `weir` (agent/cli.py), which says what is wrong: as JSON too."""
    context.meta["weir.json"] = value
    return value


_JSON: Final = click.option("--json", "as_json", is_flag=True, callback=_note_json,
                            help="JSON instead of text; times in UTC.")


class Seconds(click.ParamType[float]):
    """2, 2s, 0.5s"""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            found = float(str(value).removesuffix("s"))
        except ValueError:
            found = -1.0
        if not 0 <= found < 10**6:
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return found


_EXIT: Final = "Exit codes: 0 done, 1 refused or failed, 2 usage."
# Rows that no recorder has written.
_BROKEN: Final = (ValueError, TypeError, LookupError, ArithmeticError, msgspec.MsgspecError)


class _NotReadable(click.ClickException):
    """Of `verify`, whose 1 says "not verified"."""

    exit_code = 2


@contextmanager
def reading(place: Path, name: str, detail: dict[str, str]) -> Iterator[Reader]:
    """Open it, leave the note, or end with what is wrong."""
    if wrong := _unreadable(place):
        raise click.ClickException(f"{place}: {wrong}")
    try:
        with open_recording(place) as reader:
            # One file of a live recording is no way round the note.
            notes.leave_note(place if place.is_dir() else place.resolve().parent, notes.Note(name, detail))
            yield reader
    except (RecordingError, PermissionError) as reason:
        raise click.ClickException(str(reason)) from reason
    except (sqlite3.Error, *_BROKEN) as reason:
        raise click.ClickException(f"{place}: cannot be read to its end: {reason}; run `weir verify`") from reason


def _unreadable(path: Path) -> str:
    """Why there is nothing to read, or not for this user."""
    try:
        path.stat()
    except FileNotFoundError:
        return ("there is no recording; it begins when the agent first starts.  --recording names another directory, "
                "--config (before the command) another Weir")
    except OSError as reason:
        return FORBIDDEN if isinstance(reason, PermissionError) else reason.strerror or str(reason)
    return "" if os.access(path, os.R_OK) else FORBIDDEN


@click.group()
def group() -> None:
    """Reading the recording."""


@group.group(epilog=_EXIT, invoke_without_command=True)
@_recording
@_JSON
@click.option("--last", default=50, show_default=True, help="How many, the newest; 0: all.")
@click.pass_context
def sessions(context: click.Context, directory: Path, as_json: bool, last: int) -> None:
    """Sessions that were recorded, the newest last.

    Operations are the crew's, without Weir's own. A narrow terminal leaves columns out and shortens names; a pipe and
    --json have all."""
    if context.invoked_subcommand is None:
        _show_sessions(directory, as_json, last)


def _show_sessions(directory: Path, as_json: bool, last: int) -> None:
    with reading(directory, "read", {"what": "sessions"}) as reader:
        found = reader.sessions()[-last:] if last > 0 else reader.sessions()
        if as_json:
            click.echo(render_json([replay.session_json(one) for one in found]))
            return
        if not found:
            click.echo("no session is recorded yet", err=True)
            return
        console = _console()
        for line in replay.render_sessions(found, console.width if sys.stdout.isatty() else None):
            console.print(line, soft_wrap=True)


@sessions.command(epilog=_EXIT)
@click.argument("session")
@_recording
@_JSON
@click.option("--all", "everything", is_flag=True, help="As of `weir replay`.")
def watch(session: str, directory: Path, as_json: bool, everything: bool) -> None:
    """Show what a session does, as it happens.

    As `weir replay` shows it, without what was before; until the session closes, or ^C.  With --json one line each.
    SESSION may be the beginning of its name."""
    new, console = False, _console()
    live = Live(console) if console.is_terminal and not as_json else None

    def entries() -> Iterator[Entry]:
        nonlocal new
        for fresh, entry in _watched(directory, session, lambda: live.begin() if live else None):
            new = fresh
            yield entry

    with suppress(KeyboardInterrupt):
        if as_json:
            for entry in entries():
                if new:
                    click.echo(render_json(replay.entry_json(entry)))
            return
        try:
            for _, text in replay.render_transcript(_beside(entries(), live, lambda: new), everything):
                if new:
                    live.say(text) if live else console.print(text, soft_wrap=True)
        finally:
            if live:
                live.close()


def _beside(entries: Iterator[Entry], live: Live | None, is_new: Callable[[], bool]) -> Iterator[Entry]:
    """Without what is drawn as a terminal."""
    for entry in entries:
        if live is None or not live.see(entry, is_new()):
            yield entry


def _watched(directory: Path, session: str, begin: Callable[[], None]) -> Iterator[tuple[bool, Entry]]:
    """What was before counts in what is said at the end; what comes from now on is new."""
    last, closed = 0, False
    with reading(directory, "read", {"what": "watch", "session": session}) as reader:
        name = reader.find_session(session)
        for entry in reader.entries(name):
            last, closed = entry.seq, closed or entry.kind == events.SESSION_CLOSED
            yield False, entry
    if closed:
        click.echo(f"{name} has closed; weir replay {name} shows it", err=True)
        return
    if not directory.is_dir():
        raise click.ClickException(f"{directory}: nothing is added to a copy")
    begin()
    try:
        for entry in follow(directory, name, last):
            yield True, entry
    except (RecordingError, sqlite3.Error, *_BROKEN) as reason:
        raise click.ClickException(str(reason)) from reason


@group.command("replay", epilog=_EXIT)
@click.argument("session")
@_recording
@_JSON
@click.option("--speed", type=click.FloatRange(min=0), default=None,
              help="Show it as it went: 1 as fast as it was, 10 ten times faster, 0 all at once.  Default: terminals "
                   "as fast as they were, the rest at once.")
@click.option("--idle", type=Seconds(), default="2s", show_default=True, help="The longest pause of a terminal.")
@click.option("--operation", type=int, default=0, help="Only this one's streams.")
@click.option("--all", "everything", is_flag=True, help="Also what Weir sent only so that the server itself fails "
              "where it denied something, or to find where a path leads.  --json has it always.")
def replay_session(
    session: str, directory: Path, as_json: bool, speed: float | None, idle: float, operation: int, everything: bool,
) -> None:
    """A session as it went.  SESSION may be the beginning of its name.

    In a terminal, what happened in terminals is shown there as it looked; elsewhere, and of other streams, as text with
    control characters to be seen."""
    with reading(directory, "read", {"what": "session", "session": session}) as reader:
        name = reader.find_session(session)
        entries = reader.streams_of(name, operation) if operation else reader.entries(name)
        if as_json:
            click.echo(render_json([replay.entry_json(entry) for entry in entries]))
            return
        console, shown = _console(), 0
        if console.is_terminal and (terminals := terminals_of(reader, name)):
            with suppress(KeyboardInterrupt):
                pace = Pace(1.0 if speed is None else speed, idle)
                if operation in terminals:
                    play(read_pieces(entries), console, pace)
                    return
                if not operation:
                    show_session(reader, name, console, pace, speed or 0, everything)
                    return
        for after, text in replay.render_transcript(replay.join_pieces(entries), everything):
            if speed:
                time.sleep(min(LONGEST_PAUSE, max(0, after - shown) / NANO / speed))
                shown = after
            console.print(text, soft_wrap=True)


@group.command(epilog=_EXIT)
@click.argument("words", nargs=-1, required=True)
@_recording
@_JSON
@click.option("--last", default=100, show_default=True, help="At most so many of each kind, the newest.")
@click.option("--seconds", type=Seconds(), default="20s", show_default=True,
              help="How long terminals and streams may take, the newest first.")
def search(words: tuple[str, ...], directory: Path, as_json: bool, last: int, seconds: float) -> None:
    """Operations and refusals that hold every word.

    In the statement, what it asks for, rules or reasons; of a refused connection in its destination, target, workload
    and program too: weir search 10.0.0.9.  And lines that do, of what stood on a terminal's screen or flowed in a
    stream."""
    with reading(directory, "read", {"what": "search", "words": " ".join(words)[:1000]}) as reader:
        found = reader.search(words, last)
        looked = Search(words, time.monotonic() + seconds, _progress())
        lines = looked.run(reader, last)
        if sys.stderr.isatty():
            click.echo("\r\x1b[K", nl=False, err=True)
        if left := render_left(looked.searched):
            more = f"--last {last * 10}" if len(lines) >= last else f"--seconds {seconds * 10:.0f}"
            click.echo(f"{left}: {more}", err=True)
        if as_json:
            click.echo(render_json([*map(replay.entry_json, found), *map(line_json, lines)]))
            return
        if not found and not lines:
            click.echo("nothing holds every one of these words", err=True)
        for one in reversed(found):
            _console().print(replay.render_found(one), soft_wrap=True)
        for line in sorted(lines, key=lambda one: one.at):
            _console().print(render_line(line), soft_wrap=True)


def _progress() -> Callable[[Searched], None]:
    """On a terminal, ten times a second."""
    if not sys.stderr.isatty():
        return lambda _: None
    last = [time.monotonic()]

    def tell(searched: Searched) -> None:
        if time.monotonic() - last[0] > 0.1:
            last[0] = time.monotonic()
            click.echo(f"\r\x1b[Kterminals and streams: {searched.seen / 10**6:.1f} of {searched.bytes / 10**6:.1f} MB",
                       nl=False, err=True)

    return tell


@group.group(epilog=_EXIT)
def egress() -> None:
    """What crews reach besides targets, from the recording."""


@egress.command(epilog=_EXIT)
@_recording
@_JSON
@click.option("--workload", default="", help="Of one workload.  Default: of all.")
@click.pass_context
def suggest(context: click.Context, directory: Path, as_json: bool, workload: str) -> None:
    """Draft [[egress]] for what crews reached.

    In the modes record and shadow, where weir.toml does not permit it yet.  Databases that nobody registered,
    proxies and services of this host are named in comments."""
    entries = _egress_entries(str(context.obj))

    def permitted(host: str, port: int) -> bool:
        return any(port in one.get("ports", ()) and any(
            covers(str(name).lower().removesuffix("."), host) for name in one.get("addresses", ())) for one in entries)

    with reading(directory, "read", {"what": "egress", "workload": workload[:100]}) as reader:
        found = places.read_places(reader.dbs, permitted, workload)
        if as_json:
            click.echo(render_json([places.place_json(one) for one in found]))
        else:
            click.echo(places.render_draft(found, (str(one.get("name")) for one in entries)), nl=False)


def _egress_entries(file: str) -> list[dict[str, Any]]:
    """Of weir.toml, where it can be read; whether they are right is said by `weir check`."""
    with suppress(OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        found = tomllib.loads(Path(file).read_text()).get("egress", [])
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return []


@group.command("export", epilog=_EXIT)
@_recording
@click.option("--session", "chosen", multiple=True, help="Its name, or the beginning; more than once for several.")
@click.option("--format", "form", type=click.Choice(["sqlite", "ndjson", "csv", "asciicast"]), default="sqlite",
              show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="A new file; - for all but "
              "sqlite to standard output.")
@click.option("--operation", type=int, default=0, help="For asciicast: which one.  Default: the only one with a "
              "terminal, or with streams.")
def export_sessions(directory: Path, chosen: tuple[str, ...], form: str, output: Path, operation: int) -> None:
    """Take sessions away, as SQLite, NDJSON, CSV or asciicast.

    The SQLite file verifies by itself.  asciicast (version 2) is one operation's streams, for asciinema and its
    like."""
    if form == "asciicast" and len(chosen) != 1:
        raise click.UsageError("an asciicast is of one session: --session")
    if form == "sqlite" and not chosen:
        raise click.UsageError("which sessions?  (--session; for everything, take the recording's own files)")
    if form == "sqlite" and str(output) == "-":
        raise click.UsageError("a SQLite file cannot go to standard output: -o FILE, or another --format")
    detail = {"what": form, "sessions": ",".join(chosen)[:1000] or "all"}
    with reading(directory, "exported", detail) as reader:
        names = list(dict.fromkeys(reader.find_session(one) for one in chosen))
        if form == "sqlite":
            count, unsigned = export.write_sqlite(reader, names, output)
            if unsigned:
                click.echo(f"the last {unsigned} events are not signed yet, nor will they be in this file: after the "
                           "next checkpoint an export of the same verifies whole", err=True)
        else:
            with _output(output) as out:
                count = _write(reader, names, form, out, operation)
    click.echo(f"{count} {'events' if form in ('sqlite', 'ndjson') else 'lines'}: {output}", err=True)


def _write(reader: Reader, names: list[str], form: str, out: IO[str], operation: int) -> int:
    if form == "ndjson":
        return export.write_ndjson(reader.entries(*names), out)
    if form == "asciicast":
        return export.write_asciicast(reader, names[0], operation, out)
    return export.write_csv(reader.operations(*names), out, reader.stream_ends)


@contextmanager
def _output(path: Path) -> Iterator[IO[str]]:
    if str(path) == "-":
        yield sys.stdout
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8", newline="") as out:
            yield out
    except OSError as reason:
        raise click.ClickException(f"{path}: {reason.strerror}") from reason


@group.command("verify", epilog="Exit codes: 0 verified, 1 not verified, 2 usage, or what cannot be read, "
               "3 verified as far as it is signed, and events older than an hour are not.")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, readable=False))
@_recording
@_JSON
@click.option("--key", "keys", multiple=True, type=click.Path(path_type=Path),
              help="Public key that you kept (signing.pub).  Default: the one beside the files.")
@click.option("--expect", multiple=True, metavar="SEQ:HEAD", help="A checkpoint that you kept: event number and head.")
@click.pass_context
def verify_files(
    context: click.Context, paths: tuple[Path, ...], directory: Path, as_json: bool, keys: tuple[Path, ...],
    expect: tuple[str, ...],
) -> None:
    """Whether somebody changed the recording.

    Chain, rows, blobs and signatures.  PATHS: files, or a directory of them.  weir_verify.py, beside this
    command's code, does the same with nothing but Python."""
    places = paths or (directory,)
    for one in places:
        if wrong := unfit(one) if paths and not one.is_dir() else _unreadable(one):
            raise _NotReadable(f"{one}: {wrong}")
    beside = (places[0] if places[0].is_dir() else places[0].parent) / "signing.pub"
    try:
        given = [read_key(one) for one in keys or ((beside,) if beside.exists() else ())]
        report = verify(places, given, [parse_expected(one) for one in expect])
    except (Unreadable, RecordingError, OSError, ValueError) as reason:
        raise _NotReadable(str(reason)) from reason
    if not keys and given:
        report.note(f"the key was taken from {beside}: --key with one that you kept elsewhere says more")
    click.echo(render_json(report_json(report)) if as_json else render_report(report))
    context.exit(report.code)


@group.command(epilog=_EXIT)
@_recording
@click.option("--session", "session", default="", help="Everything of this session ...")
@click.option("--operation", type=int, default=0, help="... or only of one operation.")
@click.option("--digest", "digests", multiple=True, help="Or blobs by digest, 64 hex digits.")
@click.option("--reason", required=True, help="For the signed event that stays.")
def erase(directory: Path, session: str, operation: int, digests: tuple[str, ...], reason: str) -> None:
    """Erase what operations said, for good.

    Text, parameters and payload; root or the recorder's user only.  The chain holds salted digests, so the
    recording still verifies; a signed event says who, when and why.  Texts that other events share are erased for
    them as well."""
    if bool(session) == bool(digests):
        raise click.UsageError("either --session or --digest")
    if directory.is_file():
        raise click.ClickException(f"{directory}: texts are erased from a whole recording: name its directory")
    try:
        wanted = {bytes.fromhex(one) for one in digests}
        if any(len(one) != 32 for one in wanted):
            raise ValueError("a digest has 64 hex digits")
        if session:
            with open_recording(directory) as reader:
                wanted = erasing.find_digests(reader, reader.find_session(session), operation)
        count = erasing.erase(directory, wanted, reason)
    except (RecordingError, sqlite3.Error, OSError, ValueError) as wrong:
        raise click.ClickException(str(wrong)) from wrong
    click.echo(f"{count} blobs are erased")


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)
