"""A session as a transcript for people, and events as JSON.  Pure.

What is shown was written by crews and servers: control characters are made visible, so that no terminal obeys them.
"""
from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from rich.text import Text

from enforcer.recording.payload import parse_payload
from enforcer.recording.read import KIND_NAMES, Entry, Session, read_parameters
from enforcer.words import decisions, events
from enforcer.words.reported import say

WIDE: Final = 2000                    # characters of one text that are shown
ROWS: Final = 10                      # of an answer that are shown
_STYLES: Final = {decisions.PERMIT: "green", decisions.DENY: "bold red", decisions.HOLD: "yellow"}
_STATUS: Final = {"ok": "green", "error": "red", "denied": "bold red"}
_INDENT: Final = re.compile(r"\n[\n ]+")
SECOND: Final = 10**9


def plain(text: str, limit: int = WIDE) -> str:
    """Without control characters; newlines and tabs as spaces."""
    shown = "".join(
        one if one.isprintable() else " " if one in "\n\r\t" else f"\\x{ord(one):02x}" for one in text[:limit])
    return shown + ("..." if len(text) > limit else "")


def local_time(nanoseconds: int) -> str:
    """In the reader's time zone, to the second."""
    return datetime.fromtimestamp(nanoseconds / SECOND).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def utc_time(nanoseconds: int) -> str:
    whole, rest = divmod(nanoseconds, SECOND)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def size(count: int) -> str:
    return f"{count} B" if count < 10_000 else f"{count / 1000:.0f} kB" if count < 10**7 else f"{count / 10**6:.0f} MB"


def render_sessions(sessions: Sequence[Session], room: int | None = None) -> Iterator[Text]:
    """A line each, columns below one another.  `room`: columns of the terminal; None: it is none, and all is shown."""
    lines = [_HEADS, *map(_cells, sessions)]
    if room is not None:
        lines = _fit(lines, room)
    widths = _widths(lines)
    for number, line in enumerate(lines):
        cells = [cell.rjust(width) if head in _NUMBERS else cell.ljust(width)
                 for head, cell, width in zip(lines[0], line, widths, strict=True)]
        yield Text("  ".join(cells).rstrip(), "" if number else "bold")


_HEADS: Final = (
    "SESSION", "OPENED", "SECONDS", "WHO", "WORKLOAD", "WHERE", "OPERATIONS", "DENIED", "HELD", "OUT", "END")
_NUMBERS: Final = ("SECONDS", "OPERATIONS", "OPS", "DENIED", "HELD", "OUT")
_SPARED: Final = ("OUT", "WORKLOAD", "SECONDS", "HELD", "END", "OPS")      # left out in this order, for room
_LEAST: Final = {"END": 13, "WHERE": 12, "WHO": 10}            # that is left of what is cut, in this order
_YEAR: Final = 5                      # characters of "2026-", and of ":SS"
_SECONDS: Final = 3


def _widths(lines: Sequence[tuple[str, ...]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def _over(lines: Sequence[tuple[str, ...]], room: int) -> int:
    return sum(widths := _widths(lines)) + 2 * (len(widths) - 1) - room


def _fit(lines: list[tuple[str, ...]], room: int) -> list[tuple[str, ...]]:
    """What a session is found by stays, and how it went."""
    if _over(lines, room) <= 0:
        return lines
    lines = [("SESSION", "OPENED", *lines[0][2:6], "OPS", *lines[0][7:]), *(
        (line[0], line[1][_YEAR:-_SECONDS], *line[2:]) for line in lines[1:])]
    for spared in ("", *_SPARED):
        lines = _without(lines, spared) if spared else lines
        found = _cut(lines, room)
        if _over(found, room) <= 0:
            break
    return found


def _without(lines: list[tuple[str, ...]], name: str) -> list[tuple[str, ...]]:
    at = lines[0].index(name)
    return [line[:at] + line[at + 1:] for line in lines]


def _cut(lines: list[tuple[str, ...]], room: int) -> list[tuple[str, ...]]:
    """Long cells, by as much as there is too much."""
    for name, least in _LEAST.items():
        if name in lines[0] and (over := _over(lines, room)) > 0:
            at = lines[0].index(name)
            size = max(least, _widths(lines)[at] - over)
            lines = [(*line[:at], _shorten(line[at], size), *line[at + 1:]) for line in lines]
    return lines


def _shorten(cell: str, size: int) -> str:
    return cell if len(cell) <= size else f"{cell[:size - 1]}…"


def _cells(one: Session) -> tuple[str, ...]:
    """Operations of the crew; Weir's own are in the replay."""
    return (
        plain(one.session, 60), local_time(one.opened),
        f"{max(0, one.closed - one.opened) / SECOND:.1f}" if one.closed else "open", plain(one.subject, 60),
        plain(one.workload, 60), _where(one), str(one.operations), str(one.denied), str(one.held),
        size(one.bytes_out), plain(one.reason, 80))


def _where(one: Session) -> str:
    """TARGET/DATABASE, ACCOUNT@TARGET, or the target alone where there is neither."""
    if one.database:
        return f"{plain(one.target, 60)}/{plain(one.database, 60)}"
    return f"{plain(one.role, 60)}@{plain(one.target, 60)}" if one.role else plain(one.target, 60)


def spoken(role: str, protocol: str) -> str:
    """ "as ROLE (PROTOCOL)", or the protocol alone where it knows of none."""
    return f"as {role} ({protocol})" if role else f"({protocol})"


def join_pieces(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Pieces of one stream that follow one another as one, up to events.PIECE of them."""
    held: Entry | None = None
    for entry in entries:
        if held is not None and _follows(held, entry):
            held = msgspec.structs.replace(held, content=(held.content or b"") + (entry.content or b""))
            continue
        if held is not None:
            yield held
        held = entry if entry.kind == events.STREAMED else None
        if held is None:
            yield entry
    if held is not None:
        yield held


def _follows(before: Entry, entry: Entry) -> bool:
    if not before.kind == entry.kind == events.STREAMED or before.content is None or entry.content is None:
        return False
    one, other = before.event, entry.event
    return (one.session, one.operation, one.stream) == (other.session, other.operation, other.stream) and (
        one.stream in ("in", "out", "err") and len(before.content) + len(entry.content) <= events.PIECE)


def render_transcript(entries: Iterable[Entry], everything: bool = False) -> Iterator[tuple[int, Text]]:
    """(nanoseconds since the session began, lines) of each event.  What is `unsaid` is left out, unless
    `everything`."""
    began = None
    counts = dict.fromkeys(("operations", "denied", "held", "own"), 0)
    quiet: set[int] = set()
    for entry in entries:
        e = entry.event
        began = e.at if began is None else began
        after = max(0, e.at - began)
        if entry.kind == events.INTENT:
            _count(counts, e)
            if unsaid(e.actor, e.verb) and not everything:
                quiet.add(e.operation)
        if entry.kind in (events.INTENT, events.RESULT) and e.operation in quiet:
            continue
        shown = _closed(entry, counts, everything) if entry.kind == events.SESSION_CLOSED else _render(entry)
        if shown is not None:
            yield after, Text.assemble((f"{after / SECOND:>9.3f} ", "dim"), shown)


def unsaid(actor: str, verb: str) -> bool:
    """What Weir sends only so that the server itself fails where an operation was denied, which stands above it; what
    it asks an SSH server to find where a path leads, which stands in what is decided then."""
    return actor == "weir" and verb in ("denial", "resolve")


def _count(counts: dict[str, int], intent: Any) -> None:
    """As `Reader.sessions` does."""
    counts["own" if intent.actor == "weir" else "operations"] += 1
    counts["denied"] += intent.decision == decisions.DENY
    counts["held"] += intent.decision == decisions.HOLD


def _render(entry: Entry) -> Text | None:
    shown = _SHOWN.get(entry.kind)
    return None if shown is None else shown(entry)


def _opened(entry: Entry) -> Text:
    e = entry.event
    text = Text.assemble(
        ("opened ", "bold"), (plain(e.subject), "cyan"), f" in {plain(e.workload)} -> ", (plain(e.target), "cyan"),
        f" {plain(e.database)}" if e.database else "", f" {spoken(plain(e.role), plain(e.protocol))}")
    for line in (f"{plain(e.exe)} pid {e.pid} uid {e.uid} {plain(' '.join(e.argv), 200)}",
                 f"dialled {plain(e.destination)}, known by {plain(e.attribution)}, "
                 f"{plain(e.client_tls) or 'plaintext'}; upstream {plain(e.upstream)}"):
        text.append(f"\n{'':10}{line}", "dim")
    return text


def _closed(entry: Entry, counts: dict[str, int], everything: bool) -> Text:
    e = entry.event
    number, own = counts["operations"], f" and {counts['own']} of Weir's own" if everything else ""
    return Text.assemble(
        ("closed ", "bold"), f"{plain(e.reason)}; {number} operation{'' if number == 1 else 's'}{own}, "
        f"{counts['denied']} denied, {counts['held']} held, {size(e.bytes_in)} in, {size(e.bytes_out)} out")


def _intent(entry: Entry) -> Text:
    e = entry.event
    said = "(erased)" if entry.text is None else _whole(entry.text.decode(errors="replace"))
    if not e.text:
        said = ""
    verb = plain(e.verb) + (" " if said else "")
    if said.partition(" ")[0] == e.verb:
        verb = ""                     # "open /etc/hostname for reading" says it
    text = Text.assemble(
        (f"{e.operation:>4} ", "dim"), (f"{decisions.NAMES.get(e.decision, e.decision)} ", _STYLES.get(e.decision, "")),
        ("weir " if e.actor == "weir" else "", "magenta"), (verb, "dim"), (said, "bold"))
    if e.parameters:
        shown = ", ".join("null" if one is None else repr(one) for one in read_parameters(entry.parameters))
        text.append(f"\n{'':15}with {plain(shown, 400) if entry.parameters is not None else '(erased)'}", "dim")
    asked = ", ".join(f"{plain(action)} {plain(resource)}" for action, resource in e.requests)
    for name, value in (("asks", asked), ("rules", ", ".join(map(plain, e.rules))),
                        ("masked", ", ".join(map(plain, e.masks))), ("because", plain(e.reason)),
                        ("ticket", plain(e.ticket)), ("reported", plain(say(e.reported)))):
        if value:
            text.append(f"\n{'':15}{name} ", "dim")
            text.append(value, "yellow" if name == "masked" else "red" if name == "because" else "dim")
    return text


def _whole(text: str) -> str:
    """What is not shown of it is said: something may stand behind two thousand blanks; those that indent a line are no
    loss."""
    text = _INDENT.sub("\n", text)
    more = len(text) - WIDE
    return plain(text) + (f" ({more} more characters: --json has them)" if more > 0 else "")


def _result(entry: Entry) -> Text:
    e = entry.event
    said = "".join(f" {plain(one)}" for one in (e.tag, e.sqlstate) if one)
    text = Text.assemble(
        (f"{e.operation:>4} ", "dim"), (plain(e.status), _STATUS.get(e.status, "yellow")), said,
        (f"  {delivered(e)}{e.duration / 10**6:.1f} ms", "dim"))
    if e.error:
        said = "(erased)" if entry.error is None else plain(entry.error.decode(errors="replace"))
        text.append(f"\n{'':15}{said}", "red")
    for one in entry.payload:
        for line in ["(erased)"] if one is None else payload_rows(one):
            text.append(f"\n{'':15}{line}", "cyan" if one is not None else "dim")
    return text


def delivered(result: Any) -> str:
    """How much of an answer the client was given."""
    rows = f"{result.rows} {'row' if result.rows == 1 else 'rows'}, " if result.rows else ""
    return rows + (f"{size(result.bytes)}, " if result.rows or result.bytes else "")


def payload_rows(payload: bytes) -> list[str]:
    """What the client got, as it got it: the first rows."""
    rows = list(itertools.islice(parse_payload(payload), ROWS + 1))
    lines = [plain(" | ".join("NULL" if value is None else value for value in row), 200) for row in rows[:ROWS]]
    return lines + (["..."] if len(rows) > ROWS else [])


def _hold(entry: Entry) -> Text:
    e = entry.event
    return Text.assemble(
        (f"{e.operation:>4} ", "dim"), ("hold ", "yellow"), (plain(e.state), "bold"), f" {plain(e.ticket)}",
        f" by {plain(e.by)}" if e.by else "", f": {plain(e.reason)}" if e.reason else "")


def _gap(entry: Entry) -> Text:
    e = entry.event
    numbers = ", ".join(map(str, e.operations[:20])) or "none"
    return Text.assemble(("gap ", "bold red"), f"{plain(e.reason)}; operations whose results are not known: {numbers}")


def _streamed(entry: Entry) -> Text | None:
    """Lines as they are, with their control characters to be seen."""
    e = entry.event
    if e.stream == events.TYPED:
        return None                   # its content follows
    head = Text.assemble((f"{e.operation:>4} ", "dim"), (f"{plain(e.stream)} ", "cyan"))
    if entry.content is None:
        return head.append("(erased)", "dim")
    lines = entry.content.decode(errors="replace").split("\n")
    if len(lines) > 1 and not lines[-1]:
        lines.pop()                   # it ended with its line
    for number, line in enumerate(lines):
        if number:
            head.append(f"\n{'':15}")
        head.append(visible(line))
    return head


def visible(line: str) -> str:
    """All of it, without control characters."""
    return "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in line.removesuffix("\r").expandtabs(8))


def _stream_ended(entry: Entry) -> Text:
    return Text.assemble((f"{entry.event.operation:>4} ", "dim"), (stream_said(entry.event, entry.content), "dim"))


def stream_said(event: Any, whole: bytes | None) -> str:
    """Of the end of a stream: how much of it there was, and is here."""
    part = f"the first {size(event.kept)} kept" if event.kept else "none kept"
    kept = "all kept" if event.kept == event.bytes else part
    digest = f", SHA-256 {plain(whole.decode(errors='replace'), 64)}" if whole else ""
    return f"{plain(event.stream)} ends: {size(event.bytes)}, {kept}{digest}" if event.bytes else (
        f"{plain(event.stream)} ends: nothing")


def _noted(entry: Entry) -> Text:
    e = entry.event
    return Text.assemble(("noted ", "bold"), f"{plain(e.name)}: {plain(e.value)}")


_SHOWN: Final = {
    events.SESSION_OPENED: _opened, events.INTENT: _intent, events.RESULT: _result,
    events.HOLD: _hold, events.GAP: _gap, events.STREAMED: _streamed, events.STREAM_ENDED: _stream_ended,
    events.SESSION_NOTED: _noted,
}


def entry_json(entry: Entry) -> dict[str, Any]:
    """Bytes of digests as hex; texts as text, bytes that are none with replacement characters."""
    shown: dict[str, Any] = {"seq": entry.seq, "type": KIND_NAMES[entry.kind], "time": utc_time(entry.event.at)}
    for name in entry.event.__struct_fields__:
        shown[name] = _json_value(getattr(entry.event, name))
    if entry.kind == events.INTENT:
        shown["text"] = _content(entry.event.text, entry.text)
        shown["text_digest"] = entry.event.text.hex()
        shown["parameters"] = read_parameters(entry.parameters) if entry.parameters is not None else None
        shown["parameters_digest"] = entry.event.parameters.hex()
        shown["decision"] = decisions.NAMES.get(entry.event.decision, entry.event.decision)
    elif entry.kind == events.RESULT:
        shown["payload"] = [None if one is None else list(parse_payload(one)) for one in entry.payload]
        shown["error"] = _content(entry.event.error, entry.error)
    elif entry.kind == events.STREAMED:
        shown.update(content_digest=entry.event.content.hex(), **_stream_json(entry.content))
    elif entry.kind == events.STREAM_ENDED:
        shown["sha256"] = _content(entry.event.sha256, entry.content)
    return shown


def _stream_json(content: bytes | None) -> dict[str, str | None]:
    """`content` where it is text by itself, else `base64`: a piece may end within a character."""
    if content is None:
        return {"content": None}
    try:
        return {"content": content.decode()}
    except UnicodeDecodeError:
        return {"content": None, "base64": base64.b64encode(content).decode()}


def _content(digest: bytes, content: bytes | None) -> str | None:
    return None if content is None or not digest else content.decode(errors="replace")


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_json_value(one) for one in value]
    return value


def session_json(session: Session) -> dict[str, Any]:
    return {**msgspec.structs.asdict(session), "opened_utc": utc_time(session.opened),
            "closed_utc": utc_time(session.closed) if session.closed else None}


def render_found(entry: Entry) -> Text:
    """An intent or a refusal that was searched for."""
    e = entry.event
    head = (f"{local_time(e.at)} ", "dim")
    if entry.kind == events.REFUSED:
        return Text.assemble(head, ("refused ", "bold red"), f"{plain(e.workload)} {plain(e.exe)} -> "
                             f"{plain(e.destination)} {plain(e.target)}: {plain(e.reason)}")
    return Text.assemble(head, f"{plain(e.session)} ", _intent(entry))
