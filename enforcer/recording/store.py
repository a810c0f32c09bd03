"""The recording's files: the one writer of them.

Theory.  The newest file is open in WAL mode.  What belongs together is committed together: events, their rows and
blobs, the chain's state and the positions in the journal, so that a recorder that is killed takes up exactly where it
was.  A commit is in the kernel; `sync()` puts it on the disk, and only then may journal files be deleted.

A file is closed by a last checkpoint and `file.closed`; the next one is made under another name and renamed, with the
chain's state, positions and open sessions carried over; then the old one leaves WAL mode (a reader may put that off).
Whatever a crash leaves of this, `open_store` finishes.
"""
from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import zstandard

from agent.contract.journal import BODY_LIMIT
from enforcer.hot.chain import Chain, first_head, make_digest
from enforcer.recording import schema
from enforcer.recording.signing import (
    Checkpoint,
    Signer,
    forget_following,
    load_following,
    promote_following,
    render_checkpoint,
    verify,
)
from enforcer.words.errors import RecordingError
from enforcer.words.events import RECORDER, Erasure, RecorderEvent, render_event

FILE: Final = re.compile(r"recording-\d{8}T\d{6}Z-(\d{1,9})\.sqlite")
PLAIN: Final = 0                      # blob.encoding
ZSTD: Final = 1
COMPRESS: Final = 1024                # bytes from which compression is tried; what is shorter stays readable in sqlite3
PAGES: Final = 8000                   # of the WAL, before it is written back
BUSY: Final = 2000                    # milliseconds to wait for a reader
SECOND: Final = 10**9
CHANGED: Final = "key.changed"        # the recorder's event of another signing key (weir_verify.py)


def list_files(directory: Path) -> list[Path]:
    """In the order of the chain."""
    found = [(int(match[1]), path) for path in directory.iterdir() if (match := FILE.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


class Store:
    """The open file.  Every public method may raise sqlite3.Error or OSError: then the process ends, and the next one
    goes on from what was committed."""

    def __init__(self, path: Path, signer: Signer) -> None:
        self.path, self._signer = path, signer
        self._wal = -1
        self._db = _connect(path)
        try:
            self._read()
        except BaseException:
            self._db.close()
            raise
        self._compress = zstandard.ZstdCompressor(level=3).compress
        self._events: list[tuple[int, int, bytes]] = []
        self._rows: dict[int, list[schema.Row]] = {kind: [] for kind in schema.SPOKEN}
        self._blobs: list[tuple[Any, ...]] = []
        self._other: list[tuple[str, tuple[Any, ...]]] = []
        self.pending = 0              # bytes, about

    def _read(self) -> None:
        """What it begins with, checked."""
        row = self._db.execute("SELECT recording, number, made, closed, seq_before, public_key FROM file").fetchone()
        self.recording, self.number, self.made, self.closed, seq_before, self.public = row
        self.chain = _resume(self._db, self.path, seq_before)
        self._next_blob = self._db.execute("SELECT coalesce(max(id), 0) + 1 FROM blob").fetchone()[0]

    @property
    def signer(self) -> Signer:
        return self._signer

    def begin(self) -> None:
        """Into WAL mode, for writing."""
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(f"PRAGMA wal_autocheckpoint={PAGES}")
        with self._transaction():
            self._db.execute("UPDATE state SET seq = seq")
        self._db.execute("SELECT seq FROM state").fetchone()    # leaves a read mark for readers who may not write
        self._wal = os.open(f"{self.path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        _sync_directory(self.path.parent)

    # Adding: into memory until commit()

    def add(self, kind: int, event: Any, body: bytes, blob: schema.BlobId) -> int:
        """Gives the event's number.  `event` must fit (schema.fits); `body` are its canonical bytes."""
        chain = self.chain
        chain.add(body)
        seq: int = chain.sequence
        self._events.append((seq, kind, body))
        self._rows[kind].append(schema.derive[kind](seq, event, blob))
        self.pending += len(body) + 200
        return seq

    def add_blob(self, digest: bytes, salt: bytes, content: bytes) -> int:
        """Gives its id in this file."""
        number: int = self._next_blob
        self._next_blob += 1
        encoding, body = PLAIN, content
        if len(content) >= COMPRESS:
            packed = self._compress(content)
            if len(packed) < len(content) * 9 // 10:
                encoding, body = ZSTD, packed
        self._blobs.append((number, digest, salt, encoding, len(content), body))
        self.pending += len(body) + 100
        return number

    def tell(self, name: str, detail: dict[str, str]) -> int:
        """An event of the recorder's own."""
        now, boot = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        event = RecorderEvent(RECORDER, now, boot, name, dict(sorted(detail.items())))
        return self.add(RECORDER, event, render_event(event), no_blob)

    def also(self, statement: str, values: tuple[Any, ...]) -> None:
        """Another statement of the same transaction, in order."""
        self._other.append((statement, values))

    def checkpoint(self) -> None:
        """Sign what is new; nothing new, nothing signed.  Part of the next commit."""
        if not self.chain.leaves:
            return
        row = self._db.execute("SELECT seq_to, head FROM checkpoint ORDER BY seq_to DESC LIMIT 1").fetchone()
        if row is None:
            row = self._db.execute("SELECT seq_before, head_before FROM file").fetchone()
        point = Checkpoint(row[0] + 1, self.chain.sequence, row[1], self.chain.head, self.chain.root(), time.time_ns())
        self.also("INSERT INTO checkpoint VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (
            point.seq_to, point.seq_from, point.head_before, point.head, point.merkle_root, point.at,
            self._signer.key_id, self._signer.sign_checkpoint(self.recording, point),
        ))
        self.chain.mark()

    def commit(self) -> None:
        """One transaction.  In the kernel at return: it survives the process, not the machine."""
        if not self._events and not self._other and not self._blobs:
            return
        with self._transaction():
            many = self._db.executemany
            if self._blobs:
                many("INSERT INTO blob VALUES (?, ?, ?, ?, ?, ?)", self._blobs)
            many("INSERT INTO event (seq, kind, body) VALUES (?, ?, ?)", self._events)
            for kind, rows in self._rows.items():
                if rows:
                    many(schema.INSERT[kind], rows)
                    rows.clear()
            for statement, values in self._other:
                self._db.execute(statement, values)
            self._db.execute("UPDATE state SET seq = ?, head = ?", (self.chain.sequence, self.chain.head))
        self._events.clear()
        self._blobs.clear()
        self._other.clear()
        self.pending = 0

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)

    def sync(self) -> None:
        """What was committed is on the disk at return."""
        os.fdatasync(self._wal)

    def size(self) -> int:
        return os.stat(self.path).st_size + os.fstat(self._wal).st_size

    # What the recorder remembers here

    def positions(self) -> dict[str, tuple[int, int]]:
        return {name: (taken, ended) for name, taken, ended in self._db.execute("SELECT * FROM position")}

    def live(self) -> list[tuple[str, str]]:
        """(session, writer) of sessions that were opened and not closed."""
        return self._db.execute("SELECT session, writer FROM live").fetchall()

    def recent(
        self, read: Callable[[sqlite3.Connection, list[Path]], Iterable[tuple[int, Any]]], before: list[Path],
    ) -> Iterable[tuple[int, Any]]:
        """What `read` reads from this file and those before it."""
        return read(self._db, before)

    def open_operations(self, session: str) -> set[int]:
        """Permitted intents of a session without a result or gap."""
        return {row[0] for row in self._db.execute(
            "SELECT operation FROM live_operation WHERE session = :s "
            "UNION SELECT operation FROM intent WHERE session = :s AND (decision = 1 OR forwarded IS NOT NULL) "
            "EXCEPT SELECT operation FROM result WHERE session = :s "
            "EXCEPT SELECT value FROM gap, json_each(gap.operations) WHERE session = :s", {"s": session})}

    def holds_of(self, session: str) -> list[bytes]:
        """Events of what it waited for, in order."""
        return [row[0] for row in self._db.execute(
            "SELECT e.body FROM hold h JOIN event e ON e.seq = h.seq WHERE h.session = ? AND e.body IS NOT NULL "
            "ORDER BY h.seq", (session,))]

    def is_current(self) -> bool:
        """Whether its tables have the columns of this build: a file of an earlier one is not gone on with."""
        return all(len(self._db.execute(f"PRAGMA table_info({table})").fetchall()) == columns
                   for table, columns in schema.SPOKEN.values())

    def rekey(self, following: Signer, operations: Iterable[tuple[str, int]], by: dict[str, str]) -> Store:
        """The next file, signed by another key; this one ends with what both say of it.  Killed after this one was
        closed, `open_store` makes the next."""
        name = _file_name(self.number + 1)
        self.tell(CHANGED, {**self._signer.sign_change(self.recording, following, time.time_ns()), **by})
        self.close_for(name)
        return self.give_way(self.follow(name, operations, following))

    def changed_to(self) -> bytes:
        """The public key that a closed file ends by naming as its successor, b"" where it names none."""
        row = self._db.execute("SELECT detail FROM recorder_event WHERE name = ? ORDER BY seq DESC LIMIT 1",
                               (CHANGED,)).fetchone()
        detail = msgspec.json.decode(row[0], type=dict[str, str]) if row else {}
        return bytes.fromhex(detail["after"]) if detail.get("before") == self.public.hex() else b""

    def close_for(self, name: str) -> None:
        """Nothing more comes into this file."""
        self.tell("rotated", {"next": name})
        self.checkpoint()
        self.also("UPDATE file SET closed = ?", (time.time_ns(),))
        self.commit()
        self.sync()

    def rotate(self, operations: Iterable[tuple[str, int]]) -> Store:
        """The next file; this one is closed.  `operations`: open ones of live sessions."""
        name = _file_name(self.number + 1)
        self.close_for(name)
        return self.give_way(self.follow(name, operations))

    def follow(self, name: str, operations: Iterable[tuple[str, int]], signer: Signer | None = None) -> Store:
        """The file after this one, open."""
        signer = signer or self._signer
        path = self.path.with_name(name)
        carried = [
            *(("INSERT INTO position VALUES (?, ?, ?)", (one, taken, ended))
              for one, (taken, ended) in self.positions().items()),
            *(("INSERT INTO live VALUES (?, ?)", row) for row in self.live()),
            *(("INSERT INTO live_operation VALUES (?, ?)", row) for row in operations),
        ]
        _make(path, signer, self.recording, self.number + 1, self.chain.sequence, self.chain.head, carried)
        return Store(path, signer)

    def give_way(self, following: Store) -> Store:
        """This file is closed, and that one gone on with."""
        try:
            self.close()
        except BaseException:
            following.abandon()
            raise
        return following

    def close(self) -> None:
        """One file remains, where no reader is in the way; else the next start or rotation sees to it."""
        if self._wal >= 0:
            os.close(self._wal)
            self._wal = -1
        with suppress(sqlite3.OperationalError):
            _leave_wal(self._db)
        self._db.close()

    def abandon(self) -> None:
        """It could not be begun."""
        if self._wal >= 0:
            os.close(self._wal)
            self._wal = -1
        self._db.close()

    # Erasure

    def erase(self, erasure: Erasure) -> None:
        """Append the signed event, then take salts and bodies out of this file."""
        body = render_event(erasure)
        self.add(erasure.kind, erasure, body, no_blob)
        self.commit()
        _erase(self._db, erasure.digests, body)


class _Transaction:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


def no_blob(_: bytes) -> None:
    return None


def open_store(directory: Path, signer: Signer) -> Store:
    """The newest file, or the first one.  Raises RecordingError where the recording is not as it was left."""
    for leftover in directory.glob(".recording-*"):
        leftover.unlink()
    files = list_files(directory)
    if not files:
        recording = os.urandom(16)
        path = directory / _file_name(1)
        _make(path, signer, recording, 1, 0, first_head(recording), ())
        files = [path]
    close_older(files[:-1])
    try:
        store = Store(files[-1], signer)
        try:
            return _go_on(store, directory)
        except BaseException:
            store.abandon()
            raise
    except (sqlite3.DatabaseError, TypeError) as reason:
        raise RecordingError(f"{files[-1]}: {reason}") from reason


def _go_on(store: Store, directory: Path) -> Store:
    """With this file, or with the one after it."""
    if store.public != store.signer.public:
        raise RecordingError(f"{store.path} was signed with another key than signing.key: put that one back, or "
                             "move the recording away together with its signing.pub")
    if store.closed is None:
        forget_following(directory)            # the change of keys never came to be
    if store.closed is None and store.is_current():
        return store
    if store.closed is None:
        store.begin()
        store.close_for(_file_name(store.number + 1))
    operations = [(session, number) for session, _ in store.live() for number in store.open_operations(session)]
    successor = load_following(directory)
    if successor is not None and successor.public != store.changed_to():
        successor = None              # it never came to be
    following = store.give_way(store.follow(_file_name(store.number + 1), operations, successor))
    if successor is not None:
        promote_following(directory)
    return following


def newest_key(directory: Path) -> bytes | None:
    """The public key that the newest file names; None where there is none.  Raises RecordingError."""
    files = list_files(directory)
    if not files:
        return None
    try:
        db = _connect(files[-1])
        try:
            return bytes(db.execute("SELECT public_key FROM file").fetchone()[0])
        finally:
            db.close()
    except (sqlite3.DatabaseError, TypeError) as reason:
        raise RecordingError(f"{files[-1]}: {reason}") from reason


def close_older(files: Iterable[Path]) -> None:
    """Files before the newest leave WAL mode, where a crash or a reader was in the way before."""
    for path in files:
        if Path(f"{path}-wal").exists():
            with suppress(sqlite3.OperationalError):
                db = _connect(path)
                try:
                    _leave_wal(db)
                finally:
                    db.close()


def erase_in(path: Path, erasure: Erasure) -> int:
    """Take salts and bodies out of a closed file.  How many blobs."""
    db = _connect(path)
    try:
        found = _erase(db, erasure.digests, render_event(erasure))
        _leave_wal(db)
        return found
    finally:
        db.close()


def _erase(db: sqlite3.Connection, digests: tuple[bytes, ...], statement: bytes) -> int:
    """secure_delete overwrites what lay in the pages, VACUUM the free ones, TRUNCATE the WAL."""
    db.execute("PRAGMA secure_delete=ON")
    wanted = frozenset(digests)
    with _Transaction(db):            # one pass: there is no index of digests
        found = [row for row in db.execute("SELECT id, digest FROM blob WHERE body IS NOT NULL") if row[1] in wanted]
        for number, digest in found:
            db.execute("UPDATE blob SET salt = NULL, body = NULL, size = 0, encoding = 0 WHERE id = ?", (number,))
            db.execute("INSERT OR REPLACE INTO erased VALUES (?, ?)", (digest, statement))
    if found:
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return len(found)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, cached_statements=256)
    db.execute(f"PRAGMA busy_timeout={BUSY}")
    return db


def _leave_wal(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA journal_mode=DELETE")


def _file_name(number: int) -> str:
    return time.strftime(f"recording-%Y%m%dT%H%M%SZ-{number}.sqlite", time.gmtime())


def _make(
    path: Path, signer: Signer, recording: bytes, number: int, seq: int, head: bytes,
    carried: Iterable[tuple[str, tuple[Any, ...]]],
) -> None:
    """A whole new file, or none."""
    fresh = path.with_name(f".{path.name}")
    fresh.unlink(missing_ok=True)
    db = _connect(fresh)
    try:
        db.execute(f"PRAGMA application_id={schema.APPLICATION}")
        db.execute(f"PRAGMA user_version={schema.FORMAT}")
        with _Transaction(db):
            for statement in schema.SCHEMA:
                db.execute(statement)
            db.execute("INSERT INTO file VALUES (1, ?, ?, ?, ?, ?, ?, NULL, ?)",
                       (schema.FORMAT, recording, number, seq, head, time.time_ns(), signer.public))
            db.execute("INSERT INTO state VALUES (1, ?, ?)", (seq, head))
            for one, values in carried:
                db.execute(one, values)
    finally:
        db.close()
    fresh.chmod(0o640)
    fresh.rename(path)
    _sync_directory(path.parent)


def _resume(db: sqlite3.Connection, path: Path, seq_before: int) -> Chain:
    """The chain at its end, checked from the last checkpoint on.  Raises RecordingError where somebody changed it."""
    seq, head = db.execute("SELECT seq, head FROM state").fetchone()
    last = db.execute("SELECT * FROM checkpoint ORDER BY seq_to DESC LIMIT 1").fetchone()
    recording, head_before, public = db.execute("SELECT recording, head_before, public_key FROM file").fetchone()
    if last is None:
        chain = Chain(seq_before, head_before)
    else:
        seq_to, seq_from, before, at_head, root, at, key_id, signature = last
        text = render_checkpoint(recording, key_id, Checkpoint(seq_from, seq_to, before, at_head, root, at))
        if not verify(public, signature, text):
            raise RecordingError(f"{path}: the last checkpoint's signature is wrong: the recording was changed")
        chain = Chain(seq_to, at_head)
    for number, body in db.execute("SELECT seq, body FROM event WHERE seq > ? ORDER BY seq", (chain.sequence,)):
        if number != chain.sequence + 1 or not isinstance(body, bytes):
            raise RecordingError(f"{path}: event {chain.sequence + 1} is not there: the recording was changed")
        chain.add(body)
    if (chain.sequence, chain.head) != (seq, head):
        raise RecordingError(f"{path}: its events do not give the chain's head: the recording was changed")
    return chain


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_blob(salt: bytes, encoding: int, size: int, body: bytes, digest: bytes) -> bytes:
    """The content.  Raises ValueError where it is not what the digest says."""
    content = body
    if encoding == ZSTD:
        try:
            if size > BODY_LIMIT or zstandard.frame_content_size(body) != size:
                raise ValueError(f"blob {digest.hex()} has another size than it says")
            content = zstandard.ZstdDecompressor().decompress(body)
        except zstandard.ZstdError as reason:
            raise ValueError(f"blob {digest.hex()}: {reason}") from reason
    if make_digest(salt, content) != digest:
        raise ValueError(f"blob {digest.hex()} was changed")
    return content


def decode_statement(statement: bytes) -> Erasure:
    return msgspec.msgpack.decode(statement, type=Erasure)
