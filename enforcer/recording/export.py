"""Parts of a recording, taken away.

SQLite: a file of the same form (`file.number` 0) that still verifies.  It spans whole checkpoints; events that were not
asked for keep their leaf and nothing else, so that chain and signatures hold, and say nothing.
NDJSON: an event a line.  CSV: an operation a line.  Both in the order of the chain.
"""
# ruff: noqa: S608 (the only names in the statements are of schema.SPOKEN)
from __future__ import annotations

import csv
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from enforcer.hot.chain import Chain, make_leaf
from enforcer.recording import schema
from enforcer.recording.asciicast import render_asciicast
from enforcer.recording.read import Entry, Reader, read_parameters
from enforcer.recording.replay import entry_json, utc_time
from enforcer.recording.store import CHANGED
from enforcer.recording.tapes import is_terminal
from enforcer.words import decisions, events
from enforcer.words.errors import RecordingError
from enforcer.words.reported import say

COLUMNS: Final = (                  # docs/recording.md: stable, new ones come at the end
    "seq", "time", "session", "operation", "actor", "verb", "decision", "text", "parameters", "requests", "rules",
    "masks", "reason", "status", "tag", "sqlstate", "rows", "bytes", "milliseconds", "error",
    "reported", "streams")
LATE: Final = 50_000                  # events within which the recorder says that blobs were missing
_EXCUSES: Final = "SELECT seq FROM recorder_event WHERE name = 'journal.blobs-missing'"
_DECODERS: Final = {kind: msgspec.msgpack.Decoder(struct).decode for kind, struct in schema.STRUCTS.items()}


def write_ndjson(entries: Iterable[Entry], out: IO[str]) -> int:
    """How many."""
    count = 0
    for entry in entries:
        out.write(msgspec.json.encode(entry_json(entry)).decode() + "\n")
        count += 1
    return count


def write_asciicast(reader: Reader, session: str, operation: int, out: IO[str]) -> int:
    """How many lines.  `operation` 0: the only one that has a terminal, or streams.  Raises RecordingError."""
    operation = operation or _only(reader, session)
    count = 0
    for line in render_asciicast(reader.streams_of(session, operation), f"{session} {operation}"):
        out.write(line + "\n")
        count += 1
    if count < 2:
        raise RecordingError(f"operation {operation} of {session} has no streams")
    return count


def _only(reader: Reader, session: str) -> int:
    """Raises RecordingError."""
    found = sorted(operation for _, operation, _ in reader.streaming(session))
    terminals = [one for one in found if is_terminal(next(reader.streams_of(session, one), None))]
    chosen = terminals or found
    if len(chosen) != 1:
        what = f"operations {', '.join(map(str, chosen[:20]))} have" if chosen else "no operation has"
        raise RecordingError(f"{what} streams: --operation says which" if chosen else f"{session}: {what} streams")
    return chosen[0]


Ends = Callable[[str, int], Iterable[Entry]]           # of the streams of an operation


def write_csv(operations: Iterable[tuple[Entry, list[Entry]]], out: IO[str], ends: Ends = lambda *_: ()) -> int:
    """A line an operation, in the order given; one a result where it has several.  How many lines."""
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    count = 0
    for intent, results in operations:
        cells = _intent_cells(intent)
        streams = _streams(ends(intent.event.session, intent.event.operation))
        for after in [_result_cells(one) for one in results] or [[""] * 7]:
            writer.writerow([*cells, *after, say(intent.event.reported), streams])
            count += 1
    return count


def _streams(ends: Iterable[Entry]) -> str:
    return "; ".join(f"{one.event.stream} {one.event.kept}/{one.event.bytes} {(one.content or b'').decode()}".rstrip()
                     for one in ends)


def _result_cells(entry: Entry) -> list[Any]:
    e = entry.event
    error = (entry.error or b"").decode(errors="replace")
    return [e.status, e.tag, e.sqlstate, e.rows, e.bytes, e.duration / 10**6, error]


def _intent_cells(entry: Entry) -> list[Any]:
    e = entry.event
    return [
        entry.seq, utc_time(e.at), e.session, e.operation, e.actor, e.verb, decisions.NAMES.get(e.decision, e.decision),
        (entry.text or b"").decode(errors="replace"),
        msgspec.json.encode(read_parameters(entry.parameters)).decode() if entry.parameters else "",
        " ".join(f"{action}:{resource}" for action, resource in e.requests), " ".join(e.rules), " ".join(e.masks),
        e.reason]


def write_sqlite(reader: Reader, sessions: Iterable[str], path: Path) -> tuple[int, int]:
    """The sessions' events, in a file that verifies.  How many, and how many events at its end nobody has signed yet,
    those that were left out among them.  RecordingError where there are none, or `path` is there already, cannot be
    made or is named as a recording's own file, which no export is."""
    if path.name.startswith("recording-"):
        raise RecordingError(f"{path.name} is how a recording's own files are named: give the export another name")
    chosen = _choose(reader, sessions)
    if not chosen:
        raise RecordingError("there is nothing to export")
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as reason:
        raise RecordingError(f"{path}: {reason.strerror}") from reason
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("BEGIN")
        for statement in schema.SCHEMA:
            db.execute(statement)
        unsigned = _Export(reader, db, chosen).run()
        db.execute("COMMIT")
        db.execute(f"PRAGMA application_id={schema.APPLICATION}")
        db.execute(f"PRAGMA user_version={schema.FORMAT}")
    except BaseException:
        db.close()
        path.unlink()
        raise
    db.close()
    return len(chosen), unsigned


def _choose(reader: Reader, sessions: Iterable[str]) -> set[int]:
    return {row[0] for db in reader.dbs for session in sessions for table in schema.tables_of_sessions(db)
            for row in db.execute(f"SELECT seq FROM {table} WHERE session = ?", (session,))}


def _always(reader: Reader, low: int, high: int) -> set[int]:
    """What explains the others: which configuration was in force, and who signs from then on."""
    found = set()
    for db in reader.dbs:
        found |= {row[0] for row in db.execute(
            "SELECT seq FROM recorder_event WHERE name = ? AND seq BETWEEN ? AND ?", (CHANGED, low, high))}
        if db.execute("PRAGMA table_info(configured)").fetchone():     # else of an earlier build
            found |= {row[0] for row in db.execute("SELECT seq FROM configured WHERE seq BETWEEN ? AND ?", (low, high))}
    return found


class _Export:
    def __init__(self, reader: Reader, out: sqlite3.Connection, chosen: set[int]) -> None:
        self._reader, self._out = reader, out
        low, high = min(chosen), max(chosen)
        excused = {row[0] for db in reader.dbs for row in db.execute(_EXCUSES) if low <= row[0] <= high + LATE}
        self._chosen = chosen | excused | _always(reader, low, high)
        self._blobs: dict[bytes, int] = {}
        self._first, before = self._boundary(low)
        self._last = self._end(max(self._chosen))
        self._chain = Chain(self._first - 1, before)

    def _boundary(self, low: int) -> tuple[int, bytes]:
        """Where the checkpoint's interval that holds `low` begins, and the head before it."""
        for db in self._reader.dbs:
            row = db.execute("SELECT seq_from, head_before FROM checkpoint WHERE seq_to >= ? AND seq_from <= ?",
                             (low, low)).fetchone()
            if row is not None:
                return int(row[0]), row[1]
        db = self._reader.dbs[-1]     # not signed yet: what follows the last checkpoint
        row = db.execute("SELECT seq_to, head FROM checkpoint ORDER BY seq_to DESC LIMIT 1").fetchone()
        row = row or db.execute("SELECT seq_before, head_before FROM file").fetchone()
        return row[0] + 1, row[1]

    def _end(self, high: int) -> int:
        """The last event of the interval that holds `high`; of all, where it is not signed yet."""
        ends = [row[0] for db in self._reader.dbs for row in db.execute(
            "SELECT min(seq_to) FROM checkpoint WHERE seq_to >= ?", (high,)) if row[0] is not None]
        return int(min(ends)) if ends else int(self._reader.dbs[-1].execute("SELECT max(seq) FROM event").fetchone()[0])

    def run(self) -> int:
        """How many events at the end are not signed."""
        begins = [db.execute("SELECT recording, public_key, seq_before FROM file").fetchone()
                  for db in self._reader.dbs]
        recording, public, _ = next(one for one in reversed(begins) if one[2] < self._first)
        self._out.execute("INSERT INTO file VALUES (1, ?, ?, 0, ?, ?, ?, NULL, ?)", (
            schema.FORMAT, recording, self._chain.sequence, self._chain.head, time.time_ns(), public))
        for db in self._reader.dbs:
            for seq, kind, body, leaf in db.execute(
                    "SELECT seq, kind, body, leaf FROM event WHERE seq BETWEEN ? AND ? ORDER BY seq",
                    (self._first, self._last)):
                self._copy(db, seq, kind, body, leaf)
            for row in self._checkpoints(db):
                self._out.execute("INSERT INTO checkpoint VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        self._out.execute("INSERT INTO state VALUES (1, ?, ?)", (self._chain.sequence, self._chain.head))
        signed, = self._out.execute("SELECT max(seq_to) FROM checkpoint").fetchone()
        return self._last - (signed or self._first - 1)

    def _checkpoints(self, db: sqlite3.Connection) -> Iterator[Any]:
        return db.execute("SELECT * FROM checkpoint WHERE seq_to BETWEEN ? AND ?", (self._first, self._last))

    def _copy(self, db: sqlite3.Connection, seq: int, kind: int, body: bytes | None, leaf: bytes | None) -> None:
        if seq != self._chain.sequence + 1:
            raise RecordingError(f"event {self._chain.sequence + 1} is not there: run `weir verify`")
        if body is None or seq not in self._chosen:
            known = make_leaf(seq, body) if body is not None else leaf
            self._chain.add_leaf(known or b"")
            self._out.execute("INSERT INTO event VALUES (?, NULL, NULL, ?)", (seq, known))
            return
        self._chain.add(body)
        self._out.execute("INSERT INTO event VALUES (?, ?, ?, NULL)", (seq, kind, body))
        event = _DECODERS[kind](body)
        ids = _blob_ids(db, seq, kind, event)
        row = schema.derive[kind](seq, event, lambda digest: self._copy_blob(db, digest, ids.get(digest)))
        self._out.execute(schema.INSERT[kind], row)

    def _copy_blob(self, db: sqlite3.Connection, digest: bytes, number: int | None) -> int | None:
        if number is None:
            return None
        if digest not in self._blobs:
            row = db.execute("SELECT digest, salt, encoding, size, body FROM blob WHERE id = ?", (number,)).fetchone()
            if row is None:
                raise RecordingError(f"blob {number} is not there: run `weir verify`")
            self._blobs[digest] = len(self._blobs) + 1
            self._out.execute("INSERT INTO blob VALUES (?, ?, ?, ?, ?, ?)", (self._blobs[digest], *row))
            self._out.executemany("INSERT OR IGNORE INTO erased VALUES (?, ?)",
                                  db.execute("SELECT * FROM erased WHERE digest = ?", (digest,)))
        return self._blobs[digest]


def _blob_ids(db: sqlite3.Connection, seq: int, kind: int, event: Any) -> dict[bytes, int | None]:
    if kind == events.INTENT:
        row = db.execute("SELECT text, parameters FROM intent WHERE seq = ?", (seq,)).fetchone()
        return {event.text: row[0], event.parameters: row[1]}
    if kind == events.RESULT:
        row = db.execute("SELECT payload, error FROM result WHERE seq = ?", (seq,)).fetchone()
        return {**dict(zip(event.payload, msgspec.json.decode(row[0]), strict=True)), event.error: row[1]}
    if kind == events.STREAMED:
        return {event.content: db.execute("SELECT content FROM streamed WHERE seq = ?", (seq,)).fetchone()[0]}
    if kind == events.STREAM_ENDED:
        return {event.sha256: db.execute("SELECT sha256 FROM stream_ended WHERE seq = ?", (seq,)).fetchone()[0]}
    return {}
