"""The recorder: takes the journal into the recording.  Its own process and user.

    python -I -m enforcer.recording.recorder --journal DIR --recording DIR [--checkpoint-seconds N] [--rotate-bytes N]
        [--ledger FD]

Theory of operation.  A turn reads what every journal file has new, numbers and chains it, and commits it together with
the positions reached.  What is on the disk is published (`taken`), and files that were taken to their end are deleted,
only after a sync.  Any error of SQLite or of the disk ends the process: the next one goes on from the last commit.

A journal file has ended when it says END, or when its writer is gone: who writes as "enforcer..." holds a lock on the
file; the agent does not, its file has ended when a later one of another instance is there.  When no file of an
enforcer's instance is left and another instance has come, or some seconds have passed, its open sessions are closed
here, with a gap event that names the operations whose results are not known.

Exit: 0 after SIGTERM, 1 where it cannot go on.
"""
from __future__ import annotations

import argparse
import errno
import fcntl
import gc
import logging
import os
import signal
import sqlite3
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.contract.journal import BLOB, END, EVENT
from agent.contract.ledger import AskLedger, LedgerAnswer
from agent.contract.logs import log_to_stderr
from enforcer.hot.chain import make_digest
from enforcer.recording import ledger, locks, notes, schema
from enforcer.recording.answering import Door
from enforcer.recording.asking import PagesAsked
from enforcer.recording.erasure import erase_everywhere, read_erased
from enforcer.recording.intake import LOCKING, JournalFile
from enforcer.recording.journal import NAME, SALT, TAKEN
from enforcer.recording.open_sessions import OpenSessions
from enforcer.recording.read import recent_events
from enforcer.recording.signing import Signer, load_signer, make_following, promote_following
from enforcer.recording.store import close_older, list_files, newest_key
from enforcer.words import events
from enforcer.words.errors import RecordingError

LOG = logging.getLogger("weir.recorder")

_render: Final = msgspec.msgpack.Encoder().encode      # as events.render_event, without a call in between

BATCH: Final = 2 << 20                # bytes of journal, of one file, that one transaction takes
PENDING: Final = 4 << 20              # bytes in memory before a transaction is committed
BUSY_PAUSE: Final = 0.025             # seconds between turns under load: what came meanwhile is one transaction
IDLE_PAUSE: Final = 0.02
LOOK: Final = 0.1                     # seconds between looks for new files and notes
SYNC: Final = 0.1                     # seconds between syncs
CLOSE_OLDER: Final = 30.0             # seconds between attempts at files that a reader kept in WAL mode
GONE: Final = 5.0                     # seconds without any file before an instance counts as gone
QUIET: Final = 60.0                   # seconds without a byte before the agent's superseded file counts as ended
SIGN_AT: Final = 200_000              # events that are signed at the latest
MOST_FILES: Final = 1000              # journal files followed at a time
WAIT: Final = 10.0                    # seconds for another recorder to end
STOP: Final = -(1 << 40)              # in place of the bytes taken: more waits than any bound allows
DAY: Final = 86_400 * 10**9
LOCK: Final = "recorder.lock"
GARBAGE: Final = (50_000, 20, 20)     # gc thresholds: rows of a batch are many objects, none of them in a cycle

# Fields that were appended: how many lie from there to the end, name and default.
_APPENDED: Final = {
    kind: [(len(fields) - at, one.name, one.default) for at, one in enumerate(fields)
           if one.default is not msgspec.NODEFAULT]
    for kind, fields in ((kind, msgspec.structs.fields(struct)) for kind, struct in schema.STRUCTS.items())
}
NOTHING: Final[frozenset[int]] = frozenset()
HOST_ONLY: Final = frozenset((events.HOST,))
ENFORCER_ONLY: Final = frozenset(range(events.SESSION_OPENED, events.SESSION_NOTED + 1))


@dataclass(frozen=True)
class Options:
    journal: Path
    recording: Path
    checkpoint: float = 10.0          # seconds
    rotate: int = 1 << 30             # bytes
    ledger: int = -1                  # descriptor that the agent asks by


class Recorder:
    """`stopping` is set by a signal."""

    def __init__(self, options: Options, signer: Signer) -> None:
        self._options, self._signer = options, signer
        self.stopping = False
        notes.make_spool(options.recording)
        self._store, shut_out = locks.open_unlocked(options.recording, signer)
        self._signer = signer = self._store.signer     # another, where a change of keys was to be finished
        self._shut_until = time.monotonic() + locks.SHUT_FOR if shut_out else 0.0
        self._files: dict[str, JournalFile] = {}
        self._positions = self._store.positions()
        self._sessions, self._gaps = OpenSessions(), 0
        for session, writer in self._store.live():
            self._sessions.put(writer, session, self._store.open_operations(session))
            for body in self._store.holds_of(session):
                self._sessions.see_hold(msgspec.msgpack.decode(body, type=events.HoldChanged))
        self._decode = {kind: msgspec.msgpack.Decoder(struct).decode for kind, struct in schema.STRUCTS.items()}
        self._missing: set[bytes] = set()
        self._erased = read_erased(list_files(options.recording))      # they may still lie in the journal
        self._changed: set[str] = set()                # files whose position moved since the last commit
        self._ended: list[JournalFile] = []            # to be deleted after the next sync
        self._gone: dict[str, float] = {}              # instance -> since when it has no file
        self._grown: dict[str, tuple[int, float]] = {} # file -> (size, since when)
        self._published = b""
        self._dirty, self._due = True, dict.fromkeys(("look", "sync", "checkpoint", "older"), 0.0)
        self._due["checkpoint"] = time.monotonic() + options.checkpoint
        self._book = ledger.resume(self._store.recent(recent_events, list_files(options.recording)[:-1]))
        self._door = None
        if options.ledger >= 0:
            pages = PagesAsked(options.recording, lambda name, detail: self._store.tell(name, detail))
            self._door = Door(options.ledger, self._answer, pages)
        self._store.tell("recorder.started", {"key": signer.key_id, "file": self._store.path.name})
        if shut_out:
            self._store.tell("recording.locked", shut_out)

    def run(self) -> None:
        while not self.stopping:
            time.sleep(BUSY_PAUSE if self.turn() else IDLE_PAUSE)
        self.stop()

    def turn(self) -> bool:
        """Everything that is due; whether there was anything to take."""
        now = time.monotonic()
        if self._is_due("look", now, LOOK):
            self._look(now)
        took = self._take_all()
        self._commit()
        if self._is_due("sync", now, SYNC):
            self._settle(now)
        if self._shut_until and now > self._shut_until:
            self._options.recording.chmod(locks.OPEN)
            self._shut_until = 0.0
        if self._door is not None:
            self._door.turn()
        return took

    def _answer(self, question: AskLedger) -> LedgerAnswer:
        """From what is committed: asked between turns."""
        book = self._book
        return LedgerAnswer(
            question.number, book.open(question.before), len(book), dict(book.counts),
            {file.name: file.taken for file in self._files.values() if not file.ended},
            (*book.alarms, *book.glass), self._gaps)

    def stop(self) -> None:
        """Take what is there, sign it, close the file."""
        self._look(time.monotonic())
        while self._take_all():
            self._commit()
        self._look(time.monotonic())
        self._store.tell("recorder.stopped", {})
        self._commit()
        self._store.checkpoint()
        self._commit()
        self._sync()
        self._store.close()
        if self._door is not None:
            self._door.close()

    def _is_due(self, name: str, now: float, every: float) -> bool:
        if now < self._due[name]:
            return False
        self._due[name] = now + every
        return True

    # Taking

    def _take_all(self) -> bool:
        """Of each instance the first file that has not ended: its events keep their order."""
        took, done = False, set()
        for file in tuple(self._files.values()):
            if not file.ended and file.key not in done:
                done.add(file.key)
                took |= self._take(file)
                if self._store.pending > PENDING:
                    self._commit()
        return took

    def _take(self, file: JournalFile) -> bool:
        before, blob, kinds = file.taken, partial(self._blob, file), _may_write(file)
        for kind, body, after in file.records(BATCH):
            if kind == EVENT:
                self._take_event(file, body, blob, kinds)
            elif kind == BLOB and len(body) >= SALT:
                digest = make_digest(body[:SALT], body[SALT:])
                if digest not in file.blobs and digest not in self._erased:
                    file.know_blob(digest, self._store.add_blob(digest, body[:SALT], body[SALT:]))
            elif kind == END and not body:
                file.ended = True
            else:
                self._malformed(file, body, f"a record of kind {kind}")
            file.taken = after
        if self._missing:
            self._store.tell("journal.blobs-missing", {
                "digests": ",".join(sorted(one.hex() for one in self._missing)), "file": file.name})
            self._missing.clear()
        if file.error and not file.told:
            self._corrupt(file)
        if file.taken == before and not file.ended:
            return False
        self._changed.add(file.name)
        if file.ended:
            self._finish(file)
        return True

    def _finish(self, file: JournalFile) -> None:
        file.forget_blobs()
        self._ended.append(file)

    def _take_event(self, file: JournalFile, body: bytes, blob: schema.BlobId, kinds: frozenset[int]) -> None:
        kind = _kind_of(body)
        if kind not in kinds:
            return self._malformed(file, body, f"an event of kind {kind}")
        try:
            event = self._decode[kind](body)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return self._malformed(file, body, "an event that cannot be read")
        if not _is_form(event, body) or not schema.fits(kind, event):
            return self._malformed(file, body, "an event in another form")
        if kind == events.SESSION_CLOSED:
            self._tell_lost(file.key, event.session)  # type: ignore[attr-defined]
        seq = self._store.add(kind, event, body, blob)
        self._gaps += kind == events.GAP
        self._sessions.see(file.key, kind, event)
        if kind in ledger.KINDS:
            self._book.see(seq, event)
        return None

    def _tell_lost(self, key: str, session: str) -> None:
        """The enforcer gives each operation a result or a gap before it closes a session; what it gave while the
        journal could not be written is nowhere."""
        lost = self._sessions.unanswered(key, session)
        if lost:
            now, boot = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            reason = "lost: the journal could not take their results"
            self._add(events.Gap(events.GAP, now, boot, session, lost, reason))

    def _blob(self, file: JournalFile, digest: bytes) -> int | None:
        number = file.blobs.get(digest)
        if number is None:
            found = None if digest in self._erased else file.find_blob(digest)
            if found is None:
                self._missing.add(digest)
                return None
            number = self._store.add_blob(digest, found[:SALT], found[SALT:])
            file.know_blob(digest, number)
        return number

    def _malformed(self, file: JournalFile, body: bytes, what: str) -> None:
        self._store.tell("journal.malformed", {
            "file": file.name, "at": str(file.taken), "what": what, "bytes": str(len(body)),
            "digest": blake2b(body, digest_size=32).hexdigest()})

    def _corrupt(self, file: JournalFile) -> None:
        """Nothing more can be read of it.  While its writer lives it stays, and stops the writer: see _publish()."""
        file.told = True
        self._store.tell("journal.corrupt", {
            "file": file.name, "what": file.error, "taken": str(file.taken), "bytes": str(file.size() - file.taken)})

    # Files

    def _look(self, now: float) -> None:
        """New files, files whose writer is gone, instances that are gone, notes."""
        with os.scandir(self._options.journal) as entries:
            found = [entry for entry in entries if NAME.fullmatch(entry.name)]
        own = {entry.name for entry in found if entry.name.startswith("agent") and _is_own(entry)}
        names = sorted((entry.name for entry in found), key=lambda name: (name not in own, _order(name)))
        for name in names[:MOST_FILES]:
            if name not in self._files:
                self._follow(name)
        present, done = set(names), set()
        for file in tuple(self._files.values()):
            if not file.ended and file.key not in done:
                done.add(file.key)
                self._examine(file, file.name in present, now)
        self._end_instances(now)
        self._take_notes()

    def _follow(self, name: str) -> None:
        taken, ended = self._positions.get(name, (0, 0))
        try:
            file = JournalFile(self._options.journal, name, taken)
        except (OSError, ValueError) as reason:
            LOG.warning("%s is not taken: %s", name, reason)
            if isinstance(reason, ValueError) or reason.errno in (errno.ELOOP, errno.ENXIO):
                with suppress(OSError):            # no file at all: it must not keep a file's place
                    _put_aside(self._options.journal / name)
            return
        self._files[name] = file
        if ended:                     # a crash came between the commit and the deletion
            file.ended = True
            self._ended.append(file)

    def _examine(self, file: JournalFile, present: bool, now: float) -> None:
        size = file.size()
        if size < file.taken:
            self._end(file, "journal.truncated", {"size": str(size)})
        elif not present:
            self._take(file)
            self._end(file, "journal.vanished", {"bytes": str(size - file.taken)})
        elif self._is_abandoned(file, size, now):
            while not file.ended and self._take(file):     # all that was written before the lock was let go
                self._commit()
            if file.error:
                self._end(file, "", {})
            elif not file.ended:
                left = file.size() - file.taken
                self._end(file, "journal.torn" if left else "", {"bytes": str(left)})

    def _is_abandoned(self, file: JournalFile, size: int, now: float) -> bool:
        if file.writer.startswith(LOCKING):
            return file.is_abandoned()
        if _may_write(file) and any(other.key == file.key and other.number > file.number and _may_write(other)
                                    for other in self._files.values()):
            return True               # its one writer went on in another file
        known = self._grown.get(file.name)
        if known is None or known[0] != size:
            self._grown[file.name] = (size, now)
            return False
        return now - known[1] > QUIET and (not _may_write(file) or self._is_superseded(file))

    def _is_superseded(self, file: JournalFile) -> bool:
        """Another instance began later, by both clocks; or this one was written before the host booted."""
        began = file.first_monotonic()
        if began > time.clock_gettime_ns(time.CLOCK_BOOTTIME):
            return True
        return any(other.writer == file.writer and _may_write(other) and other.instance != file.instance
                   and other.modified() > file.modified() and other.first_monotonic() > began
                   for other in self._files.values())

    def _end(self, file: JournalFile, name: str, detail: dict[str, str]) -> None:
        file.ended = True
        if name:
            self._store.tell(name, {"file": file.name, "taken": str(file.taken), **detail})
        self._changed.add(file.name)
        self._finish(file)

    def _end_instances(self, now: float) -> None:
        """Close what dead instances left open."""
        running = {file.key for file in self._files.values() if not file.ended}
        writers = {key.partition("-")[0] for key in running}
        for key in tuple(self._sessions.writers):
            if key in running:
                self._gone.pop(key, None)
                continue
            if not self._sessions.writers[key]:
                del self._sessions.writers[key]
                continue
            since = self._gone.setdefault(key, now)
            if key.partition("-")[0] in writers or now - since > GONE or self.stopping:
                self._close_sessions(key)
                del self._gone[key]

    def _close_sessions(self, key: str) -> None:
        reason = f"interrupted: the enforcer that held it ({key}) is gone"
        for session, operations in self._sessions.end(key):
            now, boot = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            self._add(events.Gap(events.GAP, now, boot, session, operations, reason))
            for hold in self._sessions.take_holds(session):
                self._add(msgspec.structs.replace(
                    hold, at=now, monotonic=boot, state="cancelled", by="", reason=reason, note=""))
            self._add(events.SessionClosed(events.SESSION_CLOSED, now, boot, session, reason, 0, 0, 0))

    def _add(self, event: Any) -> None:
        self._gaps += event.kind == events.GAP
        self._store.add(event.kind, event, events.render_event(event), lambda digest: None)

    # Notes of readers

    def _take_notes(self) -> None:
        taken = []
        for path, note, uid in notes.take_notes(self._options.recording):
            if note is None or note.name not in ("read", "exported", "erase", "rekey"):
                self._store.tell("note.malformed", {"uid": str(uid)})
            elif note.name == "erase":
                self._erase(note, uid)
            elif note.name == "rekey":
                self._rekey(note, uid)
            else:
                self._store.tell(note.name, {**note.detail, "uid": str(uid), "user": notes.name_user(uid)})
            taken.append(path)
        if taken:
            self._commit()            # twice is better than never, should the process end before they are deleted
            for path in taken:
                notes.remove(path)

    def _erase(self, note: notes.Note, uid: int) -> None:
        detail = {"uid": str(uid), "user": notes.name_user(uid), "reason": note.detail.get("reason", "")}
        if uid not in (0, os.geteuid()) or not note.digests or any(len(one) != 32 for one in note.digests):
            self._store.tell("erase.refused", detail)
            return
        self._commit()
        self._erased.update(note.digests)
        try:
            erase_everywhere(self._store, list_files(self._options.recording), self._signer, note.digests,
                             notes.name_user(uid), detail["reason"])
        except sqlite3.OperationalError as reason:
            if self._store.pending:   # not even the event could be written
                raise
            self._store.tell("erase.failed", {**detail, "error": str(reason)})

    def _rekey(self, note: notes.Note, uid: int) -> None:
        """Another signing key, for root and the recorder's own user."""
        detail = {"uid": str(uid), "user": notes.name_user(uid), "reason": note.detail.get("reason", "")}
        if uid not in (0, os.geteuid()):
            self._store.tell("rekey.refused", detail)
            return
        self._commit()
        directory = self._options.recording
        self._signer = make_following(directory)
        self._store = self._store.rekey(self._signer, self._sessions.operations(), detail)
        promote_following(directory)
        self._begin_file()

    # Committing

    def _commit(self) -> None:
        for name in self._changed:
            file = self._files[name]
            self._positions[name] = (file.taken, int(file.ended))
            self._store.also("INSERT OR REPLACE INTO position VALUES (?, ?, ?)", (name, file.taken, int(file.ended)))
        self._changed.clear()
        opened, closed = self._sessions.take()
        for row in opened:
            self._store.also("INSERT OR REPLACE INTO live VALUES (?, ?)", row)
        for session in closed:
            self._store.also("DELETE FROM live WHERE session = ?", (session,))
        if self._store.chain.leaves >= SIGN_AT:
            self._store.checkpoint()
        self._dirty |= bool(self._store.pending)
        self._store.commit()

    def _settle(self, now: float) -> None:
        if self._is_due("checkpoint", now, self._options.checkpoint):
            self._store.checkpoint()
            self._store.commit()
            self._dirty = True
        if self._dirty or self._ended:
            self._sync()
        if self._must_rotate():
            self._rotate()
        if self._is_due("older", now, CLOSE_OLDER):
            close_older(list_files(self._options.recording)[:-1])
            self._clear_unnamed()

    def _clear_unnamed(self) -> None:
        """What a writer made that died before it could give it its name (journal.py)."""
        before = time.time() - QUIET
        for path in (*self._options.journal.glob(".*.journal.new"), *self._options.journal.glob(f".{TAKEN}-*.new")):
            with suppress(OSError):
                if path.lstat().st_mtime < before:
                    path.unlink()

    def _sync(self) -> None:
        self._store.sync()
        self._dirty = False
        ended, self._ended = self._ended, []
        for file in ended:
            _put_away(file)
            self._files.pop(file.name).close()
            self._grown.pop(file.name, None)
            self._positions.pop(file.name, None)
            self._store.also("DELETE FROM position WHERE file = ?", (file.name,))
        self._publish()

    def _publish(self) -> None:
        """Everyone who may enter the directory may read it: its group is the enforcer's, which is not ours to give."""
        content = msgspec.msgpack.encode({
            name: STOP if file.error else file.taken for name, file in self._files.items()})
        if content == self._published:
            return
        try:
            _replace(self._options.journal / TAKEN, content)
        except OSError as reason:     # a full disk: what is published stays behind, which stops the writers
            LOG.warning("%s cannot be published: %s", TAKEN, reason)
            return
        self._published = content

    def _must_rotate(self) -> bool:
        store = self._store
        return store.size() > self._options.rotate or time.time_ns() // DAY > store.made // DAY

    def _rotate(self) -> None:
        self._commit()
        self._store = self._store.rotate(self._sessions.operations())
        self._begin_file()

    def _begin_file(self) -> None:
        self._store.begin()
        for file in self._files.values():
            file.forget_blobs()
        self._store.tell("continued", {"file": self._store.path.name})
        self._commit()
        self._sync()


def _put_away(file: JournalFile) -> None:
    """Deleted; kept for who wants to look where it could not be read.  Its writer may have put anything in its place,
    or in the way.  Raises OSError where it stays: it must not be taken again."""
    if not file.error:
        with suppress(FileNotFoundError, IsADirectoryError):   # a directory is no file of a journal
            os.unlink(file.path)
        return
    try:
        os.rename(file.path, file.path.with_name(f".{file.name}.bad"))
    except FileNotFoundError:
        pass
    except OSError:
        _put_aside(file.path)


def _put_aside(path: Path) -> None:
    os.rename(path, path.with_name(f".{path.name}.{os.urandom(8).hex()}.bad"))


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}-{os.urandom(8).hex()}.new")      # nobody can lay anything in its way
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, 0o644)
            file.write(content)
        fresh.rename(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def _is_form(event: Any, body: bytes) -> bool:
    """Canonical; of an earlier build's event without the fields that came since."""
    if _render(event) == body:
        return True
    return any(getattr(event, name) == default and _render(msgspec.structs.astuple(event)[:-number]) == body
               for number, name, default in _APPENDED.get(event.kind, ()))


def _kind_of(body: bytes) -> int:
    """msgpack: fixarray and a positive fixint, or array 16 and the same."""
    size = len(body)
    if size > 1:
        first = body[0]
        if first & 0xF0 == 0x90:
            return body[1]
        if first == 0xDC and size > 3:
            return body[3]
    return -1


def _may_write(file: JournalFile) -> frozenset[int]:
    """The agent's events come from root's files only, everything of sessions and flows from an enforcer's."""
    if file.writer.startswith(LOCKING):
        return ENFORCER_ONLY
    return HOST_ONLY if file.writer.startswith("agent") and file.owner in (0, os.geteuid()) else NOTHING


def _is_own(entry: os.DirEntry[str]) -> bool:
    """Of root or of the recorder's user: such a file is followed however many others there are."""
    try:
        return entry.stat(follow_symlinks=False).st_uid in (0, os.geteuid())
    except OSError:
        return False


def _order(name: str) -> tuple[str, int]:
    key, _, number = name.removesuffix(".journal").rpartition("-")
    return key, int(number)


def take_lock(recording: Path, wait: float = WAIT) -> int:
    """One recorder at a time.  Gives the descriptor that holds the lock.  Raises RecordingError."""
    fd = os.open(recording / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    until = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(fd)
                raise RecordingError(f"another recorder writes to {recording}") from None
            time.sleep(0.05)


def parse_options(arguments: list[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(prog="weir-recorder", description=__doc__)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--recording", type=Path, required=True)
    parser.add_argument("--checkpoint-seconds", type=float, default=10.0)
    parser.add_argument("--rotate-bytes", type=int, default=1 << 30)
    parser.add_argument("--ledger", type=int, default=-1)
    given = parser.parse_args(arguments)
    return Options(given.journal, given.recording, given.checkpoint_seconds, given.rotate_bytes, given.ledger)


def main() -> int:
    log_to_stderr()
    options = parse_options()
    os.umask(0o027)
    gc.freeze()
    gc.set_threshold(*GARBAGE)
    try:
        lock = take_lock(options.recording)
        recorder = Recorder(options, load_signer(options.recording, newest_key(options.recording)))

        def stop(*_: object) -> None:
            recorder.stopping = True

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        recorder.run()
        os.close(lock)
        return 0
    except (RecordingError, OSError, sqlite3.Error) as reason:
        LOG.error("the recorder ends: %s", reason)
        locks.shut_out(options.recording, reason)
        return 1


if __name__ == "__main__":
    sys.exit(main())
