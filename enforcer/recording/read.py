"""Reading a recording: over all its files, without write permission, while the recorder writes.

A file in WAL mode is read through its -shm, which the auditors' group may read; a closed file is one plain file.
"""
# ruff: noqa: S608 (the only names in the statements are of schema.SPOKEN; the rest are numbers)
from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

import msgspec

from enforcer.recording import ledger, schema
from enforcer.recording.store import list_files, read_blob
from enforcer.recording.weir_verify import explain, unfit
from enforcer.words import events
from enforcer.words.errors import RecordingError

KIND_NAMES: Final = {kind: table for kind, (table, _) in schema.SPOKEN.items()}
_DECODERS: Final = {kind: msgspec.msgpack.Decoder(struct).decode for kind, struct in schema.STRUCTS.items()}
_ERASED: Final = None
RECENT: Final = 200_000               # events that a recorder looks at when it starts
ALARMED: Final = 10                   # files before the newest that it looks for alarms in
FORBIDDEN: Final = "Permission denied; members of the auditors' group (weir-audit) may read it"


class Session(msgspec.Struct, frozen=True):
    """One line of `weir sessions`.  Times in nanoseconds UTC; `closed` 0: open, or never closed."""

    session: str
    opened: int
    closed: int
    subject: str
    workload: str
    pid: int
    exe: str
    protocol: str
    target: str
    database: str
    role: str
    operations: int                   # of the crew
    denied: int
    held: int
    bytes_in: int
    bytes_out: int
    reason: str
    backend: int


class Entry(msgspec.Struct, frozen=True):
    """One event with what its digests stand for.  None: there is none, or it was erased or lost."""

    seq: int
    kind: int
    event: Any                        # the struct of its kind
    text: bytes | None = None
    parameters: bytes | None = None
    payload: tuple[bytes | None, ...] = ()
    error: bytes | None = None
    content: bytes | None = None      # of a piece of a stream; of a stream's end its SHA-256, hex


class Forwarded(msgspec.Struct, frozen=True):
    """A statement that went to the server."""

    session: str
    operation: int
    digest: bytes                     # forwarded_digest(key, the statement's bytes)
    text: bytes | None                # as recorded
    outcome: str                      # status of its result, "gap", or "" where neither is there yet


def forwarded_digest(key: bytes, statement: bytes) -> bytes:
    """What an intent's `forwarded` holds; `key` is the content of forwarded.key (docs/decisions/0002)."""
    return blake2b(statement, digest_size=32, key=key).digest()


def open_file(path: Path) -> sqlite3.Connection:
    """For reading only.  Raises RecordingError."""
    if wrong := unfit(path):
        raise RecordingError(f"{path}: {wrong}")
    beside = [Path(f"{path}-wal"), Path(f"{path}-journal")]
    # Without -wal, and without the right to make one, only "immutable" opens a file whose header still says WAL.  It
    # passes over a -journal, which who may write would roll the file back by.
    for options in ("mode=ro", "mode=ro&immutable=1"):
        if "immutable" in options and any(one.exists() for one in beside):
            break
        db = sqlite3.connect(f"file:{quote(str(path))}?{options}", uri=True, isolation_level=None)
        try:
            db.execute("PRAGMA query_only=ON")
            db.execute("PRAGMA trusted_schema=OFF")
            db.execute("PRAGMA busy_timeout=2000")
            if db.execute("SELECT format FROM file").fetchone() != (schema.FORMAT,):
                raise RecordingError(f"{path}: not a recording of format {schema.FORMAT}")
            return db
        except sqlite3.DatabaseError as reason:
            db.close()
            told = explain(reason)
        except BaseException:
            db.close()
            raise
    raise RecordingError(f"{path}: {told}")


def ledger_events(dbs: Iterable[sqlite3.Connection], after: int = 0) -> Iterator[tuple[int, Any]]:
    """(seq, event) of what belongs to the ledger, in order.  What was left out of an export is not there."""
    kinds = ", ".join(map(str, sorted(ledger.KINDS)))
    for db in dbs:
        for seq, kind, body in db.execute(
                f"SELECT seq, kind, body FROM event WHERE seq > ? AND kind IN ({kinds}) ORDER BY seq", (after,)):
            yield seq, _DECODERS[kind](body)


def recent_events(newest: sqlite3.Connection, before: list[Path]) -> Iterator[tuple[int, Any]]:
    """As `ledger_events`, of the last RECENT events in `newest` and the last file of `before`: what is open lies among
    them.  Of what is older, in the last ALARMED files, only alarms and who has looked at them.  `newest` is the
    recorder's own: a second one beside it could find the file locked."""
    after = newest.execute("SELECT seq FROM state").fetchone()[0] - RECENT
    with Reader(before[-ALARMED:]) as reader:
        dbs = (*reader.dbs, newest)
        first = dbs[-2:][0].execute("SELECT min(seq) FROM event").fetchone()[0] or 0
        yield from _alarms(dbs, max(after, first - 1))
        yield from ledger_events(dbs[-2:], after)


def _alarms(dbs: Iterable[sqlite3.Connection], until: int) -> Iterator[tuple[int, Any]]:
    names = ", ".join(f"'{name}'" for name in ledger.STANDING)
    for db in dbs:
        chosen = f"SELECT seq FROM host_event WHERE seq <= :until AND name IN ({names})"
        if any(column[1] == "note" for column in db.execute("PRAGMA table_info(hold)")):      # not an earlier build's
            chosen += " UNION SELECT seq FROM hold WHERE seq <= :until AND note = :glass"
        for seq, kind, body in db.execute(
                f"SELECT seq, kind, body FROM event WHERE body IS NOT NULL AND seq IN ({chosen}) ORDER BY seq",
                {"until": until, "glass": ledger.BROKEN}):
            yield seq, _DECODERS[kind](body)


class Reader:
    """`files` in the order of the chain.  A context manager.  Raises RecordingError, sqlite3.Error."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.files = tuple(files)
        self.dbs: list[sqlite3.Connection] = []
        try:
            for path in self.files:
                self.dbs.append(open_file(path))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for db in self.dbs:
            db.close()

    def sessions(self) -> list[Session]:
        """In the order in which they were opened."""
        opened: dict[str, dict[str, Any]] = {}
        for db in self.dbs:
            for row in _dicts(db, "SELECT session, at AS opened, subject, workload, pid, exe, protocol, target, "
                                  "database, role, backend FROM session_opened ORDER BY seq"):
                opened.setdefault(row["session"], {**row, **_NOTHING_YET})
        for db in self.dbs:
            for row in _dicts(db, "SELECT session, at AS closed, bytes_in, bytes_out, reason FROM session_closed"):
                if row["session"] in opened:
                    opened[row["session"]].update(row)
            for row in _dicts(db, "SELECT session, sum(actor <> 'weir') AS operations, sum(decision = 2) AS denied, "
                                  "sum(decision = 3) AS held FROM intent GROUP BY session"):
                if row["session"] in opened:
                    for name in ("operations", "denied", "held"):
                        opened[row["session"]][name] += row[name]
        return [Session(**row) for row in opened.values()]

    def find_session(self, beginning: str) -> str:
        """The one session whose name begins so.  RecordingError where there is none or more than one."""
        found = {row[0] for db in self.dbs for row in db.execute(
            "SELECT session FROM session_opened WHERE substr(session, 1, ?) = ?", (len(beginning), beginning))}
        if beginning in found or len(found) == 1:
            return beginning if beginning in found else found.pop()
        raise RecordingError(f"{len(found) or 'no'} session{'s begin' if found else ' begins'} with {beginning!r}")

    def entries(self, *sessions: str, after: int = 0) -> Iterator[Entry]:
        """Events of these sessions, or of all where none is named, in the order of the chain, after this one."""
        statement = f"SELECT seq, kind, body FROM event WHERE body IS NOT NULL AND seq > {after:d}"
        for db in self.dbs:
            parts = " UNION ALL ".join(
                f"SELECT seq FROM {table} WHERE {_among(sessions)}" for table in schema.tables_of_sessions(db))
            chosen = f" AND seq IN ({parts})" if sessions else ""
            for seq, kind, body in db.execute(f"{statement}{chosen} ORDER BY seq", sessions):
                yield make_entry(db, seq, kind, body)

    def operations(self, *sessions: str) -> Iterator[tuple[Entry, list[Entry]]]:
        """Each intent with its results, in the order of the chain; of these sessions, or of all."""
        last = {row[0]: number for number, db in enumerate(self.dbs)
                for row in db.execute("SELECT session FROM session_closed")}
        statement = ("SELECT e.seq, e.kind, e.body FROM intent i JOIN event e ON e.seq = i.seq WHERE e.body IS NOT NULL"
                     + (f" AND i.{_among(sessions)}" if sessions else "") + " ORDER BY i.seq")
        for number, db in enumerate(self.dbs):
            for seq, kind, body in db.execute(statement, sessions):
                entry = make_entry(db, seq, kind, body)
                until = max(number, last.get(entry.event.session, len(self.dbs) - 1))
                yield entry, [one for later in self.dbs[number:until + 1] for one in _results(later, entry.event)]

    def streams_of(self, session: str, operation: int, after: int = 0) -> Iterator[Entry]:
        """Pieces and ends of the streams of one operation, in the order of the chain."""
        for db in self.dbs:
            if "streamed" in schema.tables_of_sessions(db):
                for seq, kind, body in db.execute(
                        "SELECT seq, kind, body FROM event WHERE body IS NOT NULL AND seq IN ("
                        "SELECT seq FROM streamed WHERE session = ?1 AND operation = ?2 AND seq > ?3 UNION ALL "
                        "SELECT seq FROM stream_ended WHERE session = ?1 AND operation = ?2 AND seq > ?3) ORDER BY seq",
                        (session, operation, after)):
                    yield make_entry(db, seq, kind, body)

    def stream_ends(self, session: str, operation: int) -> Iterator[Entry]:
        """How the streams of one operation ended."""
        for db in self.dbs:
            if "stream_ended" in schema.tables_of_sessions(db):
                for row in db.execute(
                        "SELECT e.seq, e.kind, e.body FROM stream_ended s JOIN event e ON e.seq = s.seq WHERE "
                        "s.session = ? AND s.operation = ? AND e.body IS NOT NULL ORDER BY s.seq",
                        (session, operation)):
                    yield make_entry(db, *row)

    def streaming(self, session: str = "") -> list[tuple[str, int, int]]:
        """(session, operation, bytes that were kept) of what has streams, the newest first."""
        found: dict[tuple[str, int], list[int]] = {}
        for db in self.dbs:
            if "streamed" in schema.tables_of_sessions(db):
                for name, operation, kept, last in db.execute(
                        "SELECT session, operation, sum(bytes), max(seq) FROM streamed" + (
                            " WHERE session = ?" if session else "") + " GROUP BY session, operation",
                        (session,) if session else ()):
                    one = found.setdefault((name, operation), [0, 0])
                    one[0], one[1] = one[0] + kept, last
        ordered = sorted(found.items(), key=lambda one: -one[1][1])
        return [(name, operation, kept) for (name, operation), (kept, _) in ordered]

    def search(self, words: Iterable[str], limit: int = 1000) -> list[Entry]:
        """Intents whose text, requests, rules or reason hold every word, and refusals, by their destination, target,
        workload and program too; the newest first."""
        wanted = [word.casefold() for word in words]
        found: list[Entry] = []
        for db in reversed(self.dbs):
            for seq, kind, body in db.execute(
                    "SELECT seq, kind, body FROM event WHERE kind IN (3, 7) AND body IS NOT NULL ORDER BY seq DESC"):
                entry = make_entry(db, seq, kind, body)
                if all(word in _searchable(entry) for word in wanted):
                    found.append(entry)
                    if len(found) >= limit:
                        return found
        return found

    def forwarded_by_backend(self) -> dict[int, list[Forwarded]]:
        """What was forwarded, by process id of the server's backend, in order: to be compared with the server's log."""
        backends: dict[str, int] = {}
        results: dict[tuple[str, int], str] = {}
        for db in self.dbs:
            backends.update(db.execute("SELECT session, backend FROM session_opened"))
            for session, number, status in db.execute("SELECT session, operation, status FROM result"):
                results[session, number] = status
            for session, numbers in db.execute("SELECT session, operations FROM gap"):
                for number in msgspec.json.decode(numbers):
                    results.setdefault((session, number), "gap")
        found: dict[int, list[Forwarded]] = {}
        for db in self.dbs:
            for session, number, digest, text in db.execute(
                    "SELECT session, operation, forwarded, text FROM intent WHERE forwarded IS NOT NULL ORDER BY seq"):
                found.setdefault(backends.get(session, 0), []).append(Forwarded(
                    session, number, digest, read_content(db, text), results.get((session, number), "")))
        return found


_NOTHING_YET: Final = {
    "closed": 0, "operations": 0, "denied": 0, "held": 0, "bytes_in": 0, "bytes_out": 0, "reason": ""}


def open_recording(place: Path) -> Reader:
    """A recording's directory, or one file of it (an export).  Raises RecordingError."""
    try:
        files = list_files(place) if place.is_dir() else [place]
    except PermissionError as reason:
        raise RecordingError(f"{place}: {FORBIDDEN}") from reason
    except OSError as reason:
        raise RecordingError(f"{place}: {reason.strerror}") from reason
    if not files:
        raise RecordingError(f"{place}: holds no recording (recording-*.sqlite)")
    return Reader(files)


def forwarded_by_backend(recording: Path) -> dict[int, list[Forwarded]]:
    """Of a whole recording's directory.  Raises RecordingError."""
    with open_recording(recording) as reader:
        return reader.forwarded_by_backend()


def make_entry(db: sqlite3.Connection, seq: int, kind: int, body: bytes) -> Entry:
    try:
        event = _DECODERS[kind](body)
    except (KeyError, msgspec.MsgspecError) as reason:
        raise RecordingError(f"event {seq} cannot be read: {reason}; run `weir verify`") from reason
    if kind == events.INTENT:
        text, parameters = db.execute("SELECT text, parameters FROM intent WHERE seq = ?", (seq,)).fetchone()
        return Entry(seq, kind, event, read_content(db, text), read_content(db, parameters))
    if kind == events.RESULT:
        payload, error = db.execute("SELECT payload, error FROM result WHERE seq = ?", (seq,)).fetchone()
        held = tuple(read_content(db, one) for one in msgspec.json.decode(payload))
        return Entry(seq, kind, event, None, None, held, read_content(db, error))
    if kind == events.STREAMED:
        content, = db.execute("SELECT content FROM streamed WHERE seq = ?", (seq,)).fetchone()
        return Entry(seq, kind, event, content=read_content(db, content))
    if kind == events.STREAM_ENDED:
        whole, = db.execute("SELECT sha256 FROM stream_ended WHERE seq = ?", (seq,)).fetchone()
        return Entry(seq, kind, event, content=read_content(db, whole))
    return Entry(seq, kind, event)


def read_content(db: sqlite3.Connection, number: int | None) -> bytes | None:
    """None where there is none, or no longer."""
    if number is None:
        return None
    row = db.execute("SELECT salt, encoding, size, body, digest FROM blob WHERE id = ?", (number,)).fetchone()
    if row is None or row[3] is None:
        return _ERASED
    try:
        return read_blob(*row)
    except ValueError as reason:
        raise RecordingError(f"{reason}; run `weir verify`") from reason


def read_parameters(content: bytes | None) -> list[str | None]:
    """Recorded parameters: msgpack array of strings or nil."""
    if not content:
        return []
    with suppress(msgspec.MsgspecError):
        return msgspec.msgpack.decode(content, type=list[str | None])
    return [repr(content)]


def _among(sessions: tuple[str, ...]) -> str:
    """Numbered parameters, so that a statement may ask for the same sessions several times."""
    return f"session IN ({', '.join(f'?{number}' for number in range(1, len(sessions) + 1))})"


def _results(db: sqlite3.Connection, intent: Any) -> list[Entry]:
    rows = db.execute("SELECT e.seq, e.kind, e.body FROM result r JOIN event e ON e.seq = r.seq WHERE r.session = ? "
                      "AND r.operation = ? AND e.body IS NOT NULL ORDER BY r.seq", (intent.session, intent.operation))
    return [make_entry(db, *row) for row in rows.fetchall()]


def _dicts(db: sqlite3.Connection, statement: str) -> Iterator[dict[str, Any]]:
    cursor = db.execute(statement)
    names = [column[0] for column in cursor.description]
    return (dict(zip(names, row, strict=True)) for row in cursor)


def _searchable(entry: Entry) -> str:
    event = entry.event
    parts = [str(getattr(event, name, "")) for name in
             ("session", "requests", "rules", "reason", "target", "subject", "destination", "workload", "exe")]
    if entry.text is not None:
        parts.append(entry.text.decode(errors="replace"))
    return " ".join(parts).casefold()
