"""Pages of a recording: from its files, the newest first, until the page is full or its time is over.

Each statement is bounded by an index or by the time; what is not whole says so.
"""
# ruff: noqa: S608 (the only names in the statements are of schema.SPOKEN)
from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import msgspec

from agent.contract.ledger import HISTORY, LINES, SESSIONS, TAPE, AskRecording
from enforcer.recording import paged, replay, schema, tapes
from enforcer.recording.paged import (
    HistoryPage,
    Line,
    LinesPage,
    Past,
    RecordedSession,
    SessionsPage,
    TapePage,
    TapePiece,
)
from enforcer.recording.read import open_file, read_content, read_parameters
from enforcer.recording.store import list_files
from enforcer.words import decisions, events
from enforcer.words.reported import say

FILES: Final = 400                    # that are looked at
STEPS: Final = 2000                   # of SQLite's machine between looks at the clock
COUNTED: Final = 1000                 # operations of a session that are counted in a list
BLOB: Final = 1 << 20                 # bytes of a text or payload that is read
ROOM: Final = 384 << 10               # bytes of a page's texts; what is more comes with the next one
TAPE_ROOM: Final = 256 << 10          # bytes of pieces of streams
ELSEWHERE: Final = "too long for a page: weir replay shows it"
LATE: Final = "the recording was too slow: not all of it is here"
_ASSENTS: Final = 8                   # answers that are told to one hold,
_BEFORE: Final = 100_000              # among so many events before its last: there is no index over tickets
_SHORT: Final = 400                   # characters of a fact
_DECODERS: Final = {kind: msgspec.msgpack.Decoder(struct).decode for kind, struct in schema.STRUCTS.items()}

Page = SessionsPage | LinesPage | HistoryPage | TapePage


class Files:
    """A recording's files, opened one after the other as they are needed; each statement ends when the time is over."""

    def __init__(self, recording: Path, until: float) -> None:
        self._paths, self._until = list_files(recording)[-FILES:], until
        self._open: dict[Path, sqlite3.Connection] = {}

    def __enter__(self) -> Files:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        for db in self._open.values():
            db.close()

    def newest_first(self) -> Iterator[sqlite3.Connection]:
        return map(self._db, reversed(self._paths))

    def since(self, first: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        """In the order of the chain, from this one on."""
        begun = False
        for path in self._paths:
            begun = begun or self._open.get(path) is first
            if begun:
                yield self._db(path)

    def _db(self, path: Path) -> sqlite3.Connection:
        if path not in self._open:
            db = self._open[path] = open_file(path)
            db.execute("PRAGMA busy_timeout=100")
            db.set_progress_handler(lambda: time.monotonic() > self._until, STEPS)
        if time.monotonic() > self._until:
            raise sqlite3.OperationalError("interrupted")
        return self._open[path]


def make_page(recording: Path, question: AskRecording, until: float) -> Page:
    """`until`: time.monotonic() by which it is made, whole or not.  Raises RecordingError, sqlite3.Error, OSError."""
    with Files(recording, until) as files:
        if question.what == SESSIONS:
            return _sessions(files, question.at)
        if question.what == LINES:
            return _lines(files, question.name, question.at)
        if question.what == TAPE:
            return _tape(files, question.name, question.operation, question.at)
        assert question.what == HISTORY
        return _history(files, question.name, question.at)


# Sessions

_OPENED: Final = ("SELECT seq, session, at, subject, workload, pid, exe, protocol, target, database, role "
                  "FROM session_opened")


def _sessions(files: Files, before: int) -> SessionsPage:
    found: list[RecordedSession] = []
    wrong = ""
    try:
        for db in files.newest_first():
            rows = db.execute(f"{_OPENED} WHERE seq < ? ORDER BY seq DESC LIMIT ?",
                              (before or schema.LARGEST, paged.SESSIONS + 1 - len(found))).fetchall()
            found += [_session(files, db, row) for row in rows]
            if len(found) > paged.SESSIONS:
                break
    except sqlite3.OperationalError as reason:
        wrong = _late(reason)
    shown = tuple(found[:paged.SESSIONS])
    return SessionsPage(shown, shown[-1].seq if shown and (len(found) > len(shown) or wrong) else 0, wrong)


def _session(files: Files, first: sqlite3.Connection, row: tuple[Any, ...]) -> RecordedSession:
    seq, session, at, *others = row
    closed, reason, counts = 0, "", [0, 0, 0]
    for db in files.since(first):
        ended = db.execute("SELECT at, reason FROM session_closed WHERE session = ?", (session,)).fetchone()
        seen = db.execute(
            "SELECT sum(actor <> 'weir'), sum(decision = ?2), sum(decision = ?3) FROM "
            "(SELECT actor, decision FROM intent WHERE session = ?1 LIMIT ?4)",
            (session, decisions.DENY, decisions.HOLD, COUNTED)).fetchone()
        counts = [one + (more or 0) for one, more in zip(counts, seen, strict=True)]
        if ended:
            closed, reason = ended
            break
    subject, workload, pid, exe, protocol, target, database, role = map(_short, others)
    operations, denied, held = counts
    return RecordedSession(seq, session, at, closed, subject, workload, pid, exe, protocol, target, database, role,
                           operations, denied, held, _short(reason))


def _short(value: Any) -> Any:
    return _cut(value, _SHORT) if isinstance(value, str) else value


def _cut(text: str, most: int = paged.TEXT) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters in all, cut here)"


def _late(reason: sqlite3.OperationalError) -> str:
    """Raises it where it is something else."""
    if "interrupt" in str(reason) or "locked" in str(reason):
        return LATE
    raise reason


# Lines

NEAR: Final = 20_000                  # events from a file's end: looked through, in place of all that the session did


_BEGINS: Final = {"streamed": " AND offset = 0"}      # of its pieces only the first are lines


def _page_of(db: sqlite3.Connection, session: str) -> str:
    tables = " UNION ALL ".join(f"SELECT seq FROM {table} WHERE {session} = ?1 AND seq > ?2{_BEGINS.get(table, '')}"
                                for table in schema.tables_of_sessions(db))
    return (f"SELECT seq, kind, body FROM event WHERE body IS NOT NULL AND seq IN (SELECT seq FROM ({tables}) "
            "ORDER BY seq LIMIT ?3) ORDER BY seq")


# By the session's index, or (SQLite documentation, "The Query Optimizer", 8: unary "+") through the last events.
_BY_INDEX, _THROUGH = "session", "+session"


def _lines(files: Files, session: str, after: int) -> LinesPage:
    known: RecordedSession | None = None
    lines: list[Line] = []
    last, more, wrong, room = after, 0, "", ROOM
    try:
        first = _find(files, session)
        if first is None:
            return LinesPage(wrong="no such session is recorded")
        known = _session(files, first, first.execute(f"{_OPENED} WHERE session = ?", (session,)).fetchone())
        for db in files.since(first):
            for seq, kind, body in _events(db, session, last):
                if room <= 0 or len(lines) == paged.LINES:
                    more = last
                    break
                line, last = _line(db, seq, kind, body), seq
                if line is not None:
                    lines.append(line)
                    room -= len(msgspec.msgpack.encode(line))
            if more:
                break
    except sqlite3.OperationalError as reason:
        wrong, more = _late(reason), last if lines else 0
    return LinesPage(known, tuple(lines), last, more, wrong)


def _events(db: sqlite3.Connection, session: str, after: int) -> Iterator[tuple[int, int, bytes]]:
    """To the file's end, some at a time: how many of them are lines is not known before."""
    end = db.execute("SELECT max(seq) FROM event").fetchone()[0] or 0
    statement = _page_of(db, _THROUGH if end - after < NEAR else _BY_INDEX)
    while rows := db.execute(statement, (session, after, paged.LINES + 1)).fetchall():
        yield from rows
        after = rows[-1][0]


def _find(files: Files, session: str) -> sqlite3.Connection | None:
    for db in files.newest_first():
        if db.execute("SELECT 1 FROM session_opened WHERE session = ?", (session,)).fetchone():
            return db
    return None


def _line(db: sqlite3.Connection, seq: int, kind: int, body: bytes) -> Line | None:
    """None: not shown, as `weir replay` leaves it out."""
    event = _DECODERS[kind](body)
    made = _LINES.get(kind)
    return made(db, seq, event) if made is not None else None


def _opened(db: sqlite3.Connection, seq: int, e: Any) -> Line:
    facts = (("dialled", e.destination), ("known by", e.attribution), ("crew", e.client_tls or "plaintext"),
             ("upstream", e.upstream), ("started as", " ".join(e.argv)))
    return Line(seq, e.at, "opened", text=_cut(replay.spoken(e.role, e.protocol), _SHORT), facts=_facts(*facts))


def _closed(db: sqlite3.Connection, seq: int, e: Any) -> Line:
    return Line(seq, e.at, "closed", text=_cut(
        f"{e.reason}; {replay.size(e.bytes_in)} in, {replay.size(e.bytes_out)} out", _SHORT))


def _asked(db: sqlite3.Connection, seq: int, e: Any) -> Line | None:
    if replay.unsaid(e.actor, e.verb):
        return None
    text, parameters = db.execute("SELECT text, parameters FROM intent WHERE seq = ?", (seq,)).fetchone()
    said, erased = _text(db, text) if e.text else ("", False)
    with_ = ""
    if e.parameters:
        given = _content(db, parameters)
        with_ = ("(erased)" if given is None else ELSEWHERE if given is _TOO_LONG
                 else ", ".join("null" if one is None else repr(one) for one in read_parameters(given)))
    return Line(
        seq, e.at, "asked", e.operation, decisions.NAMES.get(e.decision, str(e.decision)), _cut(e.actor, _SHORT),
        _cut(e.verb, _SHORT), said, erased, _facts(
            ("with", with_), ("asks", ", ".join(f"{action} {resource}" for action, resource in e.requests)),
            ("rules", ", ".join(e.rules)), ("masked", ", ".join(e.masks)), ("because", e.reason),
            ("ticket", e.ticket), ("reported", say(e.reported))))


def _answered(db: sqlite3.Connection, seq: int, e: Any) -> Line | None:
    asked = db.execute("SELECT actor, verb FROM intent WHERE session = ? AND operation = ?",
                       (e.session, e.operation)).fetchone()
    if asked and replay.unsaid(*asked):
        return None
    payload, error = db.execute("SELECT payload, error FROM result WHERE seq = ?", (seq,)).fetchone()
    said, erased = _text(db, error) if e.error else ("", False)
    delivered = replay.delivered(e)
    head = ", ".join(one for one in (e.tag, e.sqlstate) if one)
    text = "  ".join(one for one in (head, said, f"{delivered}{e.duration / 10**6:.1f} ms") if one)
    return Line(seq, e.at, "answered", e.operation, _cut(e.status, _SHORT), _cut(asked[0], _SHORT) if asked else "",
                text=_cut(text), erased=erased, rows=tuple(
                    row for one in msgspec.json.decode(payload)[:replay.ROWS] for row in _rows(db, one)))


def _hold(db: sqlite3.Connection, seq: int, e: Any) -> Line:
    said = f"{e.ticket}{f' by {e.by}' if e.by else ''}{f' ({e.note})' if e.note else ''}"
    return Line(seq, e.at, "hold", e.operation, _cut(e.state, _SHORT), text=_cut(
        f"{said}: {e.reason}" if e.reason else said, _SHORT))


def _gap(db: sqlite3.Connection, seq: int, e: Any) -> Line:
    numbers = ", ".join(map(str, e.operations[:20])) or "none"
    return Line(seq, e.at, "gap", text=_cut(f"{e.reason}; operations whose results are not known: {numbers}"))


def _begun(db: sqlite3.Connection, seq: int, e: Any) -> Line | None:
    """Of an operation's pieces only the first is a line: the others are behind it."""
    first = db.execute("SELECT min(seq) FROM streamed WHERE session = ? AND operation = ?",
                       (e.session, e.operation)).fetchone()[0]
    if first != seq or e.offset:
        return None
    if e.stream == tapes.SIZE:
        return Line(seq, e.at, "stream", e.operation, text="a terminal", tape="terminal")
    return Line(seq, e.at, "stream", e.operation, text="streams", tape="streams")


def _ended(db: sqlite3.Connection, seq: int, e: Any) -> Line:
    number, = db.execute("SELECT sha256 FROM stream_ended WHERE seq = ?", (seq,)).fetchone()
    return Line(seq, e.at, "stream", e.operation, text=_cut(replay.stream_said(e, _content(db, number)), _SHORT))


def _noted(db: sqlite3.Connection, seq: int, e: Any) -> Line:
    return Line(seq, e.at, "noted", text=_cut(f"{e.name}: {e.value}"))


_LINES: Final = {
    events.SESSION_OPENED: _opened, events.SESSION_CLOSED: _closed, events.INTENT: _asked, events.RESULT: _answered,
    events.HOLD: _hold, events.GAP: _gap, events.STREAMED: _begun, events.STREAM_ENDED: _ended,
    events.SESSION_NOTED: _noted,
}


def _facts(*facts: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, _cut(value, _SHORT)) for name, value in facts if value)


_TOO_LONG: Final = b"in place of what is longer than BLOB"      # told by `is`, not by what it says


def _content(db: sqlite3.Connection, number: int | None) -> bytes | None:
    if number is None:
        return None
    row = db.execute("SELECT size FROM blob WHERE id = ?", (number,)).fetchone()
    return _TOO_LONG if row is not None and row[0] > BLOB else read_content(db, number)


def _text(db: sqlite3.Connection, number: int | None) -> tuple[str, bool]:
    """The text, and whether it was erased."""
    content = _content(db, number)
    if content is None:
        return "", True
    return (f"({ELSEWHERE})", False) if content is _TOO_LONG else (_cut(content.decode(errors="replace")), False)


def _rows(db: sqlite3.Connection, number: int) -> list[str]:
    content = _content(db, number)
    if content is None:
        return ["(erased)"]
    return [f"({ELSEWHERE})"] if content is _TOO_LONG else replay.payload_rows(content)


# Streams

_PIECES: Final = ("SELECT s.seq, e.body, s.content FROM streamed s JOIN event e ON e.seq = s.seq "
                  "WHERE s.session = ?1 AND s.operation = ?2 AND s.seq > ?3 ORDER BY s.seq LIMIT ?4")
_LAST: Final = ("SELECT e.body FROM streamed s JOIN event e ON e.seq = s.seq WHERE s.session = ?1 AND s.operation = ?2 "
                "ORDER BY s.seq DESC LIMIT 1")


def _tape(files: Files, session: str, operation: int, after: int) -> TapePage:
    pieces: list[TapePiece] = []
    began, length, terminal, more, ended = -1, 0, False, False, False
    try:
        opened = _find(files, session)
        if opened is None:
            return TapePage(wrong="no such session is recorded")
        for db in files.since(opened):
            if "streamed" not in schema.tables_of_sessions(db):
                continue
            if began < 0 and (first := db.execute(_PIECES, (session, operation, 0, 1)).fetchone()):
                event = _piece(first[1])
                began, terminal = event.monotonic, event.stream == tapes.SIZE
            if newest := db.execute(_LAST, (session, operation)).fetchone():
                length = max(length, _piece(newest[0]).monotonic - began)
            ended = ended or _has_ended(db, session, operation)
            if not more:
                more = _take(db, session, operation, after, began, pieces)
    except sqlite3.OperationalError as reason:
        last, late = pieces[-1].seq if pieces else after, _late(reason)
        return TapePage(terminal, length, tuple(pieces), last, True, False, late)
    last = pieces[-1].seq if pieces else after
    return TapePage(terminal, length, tuple(pieces), last, more, ended and not more,
                    "" if began >= 0 else "nothing flowed in this operation")


def _take(
    db: sqlite3.Connection, session: str, operation: int, after: int, began: int, pieces: list[TapePiece],
) -> bool:
    """Whether there are more in this file than there is room for."""
    room = TAPE_ROOM - sum(len(one.content or b"") + 32 for one in pieces)
    for seq, body, number in db.execute(_PIECES, (session, operation, after, paged.PIECES + 1 - len(pieces))):
        if room <= 0 or len(pieces) == paged.PIECES:
            return True
        event, content = _piece(body), _content(db, number)
        if content is _TOO_LONG or content is None:
            content = b"" if not event.content else None
        pieces.append(TapePiece(seq, max(0, event.monotonic - began), _cut(event.stream, 16), content))
        room -= len(content or b"") + 32
    return False


def _piece(body: bytes) -> Any:
    return _DECODERS[events.STREAMED](body)


def _has_ended(db: sqlite3.Connection, session: str, operation: int) -> bool:
    return any(db.execute(statement, values).fetchone() for statement, values in (
        ("SELECT 1 FROM result WHERE session = ? AND operation = ?", (session, operation)),
        ("SELECT 1 FROM session_closed WHERE session = ?", (session,))))


# History

_HOLDS: Final = "SELECT seq, at, ticket, state, by, reason, form, subject, target, what FROM hold WHERE seq < ?1"
_REFUSED: Final = "SELECT seq, at, subject, target, destination, reason FROM refused WHERE seq < ?1 AND subject = ?2"


def _history(files: Files, subject: str, before: int) -> HistoryPage:
    """Of what was asked for the last that happened; with a subject also what was refused, and how many sessions."""
    found: dict[str, tuple[int, Past]] = {}
    sessions, wrong = 0, ""
    try:
        for db in files.newest_first():
            if len(found) <= paged.PASTS:
                _read_holds(files, db, subject, before, found)
            if subject:
                _read_refused(db, subject, before, found)
                sessions += db.execute(
                    "SELECT count(*) FROM session_opened WHERE subject = ?", (subject,)).fetchone()[0]
            elif len(found) > paged.PASTS:
                break
    except sqlite3.OperationalError as reason:
        wrong, sessions = _late(reason), -1
    newest = sorted(found.values(), key=lambda one: -one[0])
    shown = newest[:paged.PASTS]
    more = shown[-1][0] if len(newest) > len(shown) else 0
    return HistoryPage(tuple(past for _, past in shown), sessions if subject else -1, more, wrong)


def _read_holds(
    files: Files, db: sqlite3.Connection, subject: str, before: int, found: dict[str, tuple[int, Past]],
) -> None:
    chosen = _HOLDS + (" AND subject = ?2" if subject else "") + " ORDER BY seq DESC"
    values = (before or schema.LARGEST, subject) if subject else (before or schema.LARGEST,)
    for seq, at, ticket, state, by, reason, form, who, target, what in db.execute(chosen, values):
        if ticket in found or (before and _later(files, db, ticket, before)):
            continue
        if not by:
            by, reason = _said(db, ticket, seq, reason)
        found[ticket] = seq, Past(at, *map(_short, (what, target, state, by, reason, ticket, who, form)))
        if len(found) > paged.PASTS:
            return


def _said(db: sqlite3.Connection, ticket: str, seq: int, reason: str) -> tuple[str, str]:
    """Who has said what to it before its last event, which is nobody's: that it was used, or has ended."""
    said = db.execute(
        "SELECT by, reason FROM hold WHERE ticket = ? AND seq BETWEEN ? AND ? AND by <> '' ORDER BY seq DESC LIMIT ?",
        (ticket, seq - _BEFORE, seq, _ASSENTS)).fetchall()
    return ", ".join(dict.fromkeys(by for by, _ in reversed(said))), reason or next((why for _, why in said if why), "")


def _later(files: Files, first: sqlite3.Connection, ticket: str, before: int) -> bool:
    """Whether more happened to it, which an earlier page has."""
    return any(db.execute("SELECT 1 FROM hold WHERE seq >= ? AND ticket = ?", (before, ticket)).fetchone()
               for db in files.since(first))


def _read_refused(
    db: sqlite3.Connection, subject: str, before: int, found: dict[str, tuple[int, Past]],
) -> None:
    for seq, at, who, target, destination, reason in db.execute(
            f"{_REFUSED} ORDER BY seq DESC LIMIT {paged.PASTS:d}", (before or schema.LARGEST, subject)):
        found[f"refused {seq}"] = seq, Past(at, "connect", _short(target or destination), "refused", "",
                                            _short(reason), "", _short(who))
