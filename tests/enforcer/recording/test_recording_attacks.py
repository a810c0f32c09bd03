"""What an attacker can do to the path journal -> recorder -> SQLite -> verifier: as the enforcer's user, who may put
anything into the journal's directory, as an auditor who edits a file, as one who leaves notes."""
from __future__ import annotations

import base64
import errno
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import msgspec
import pytest
import zstandard

from agent.contract.journal import BLOB, EVENT, render_record
from enforcer.hot.chain import Chain, make_digest, make_leaf
from enforcer.recording import intake, locks, notes, schema, store, weir_verify
from enforcer.recording import journal as journal_module
from enforcer.recording import recorder as recording_process
from enforcer.recording.intake import JournalFile
from enforcer.recording.journal import JournalWriter
from enforcer.words import events
from enforcer.words.errors import RecordingError

SALT = b"s" * 16


# The file, edited


def edit(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def append_forged(path: Path, event: events.RecorderEvent) -> None:
    """An event after the last signed one, as anybody can make it: chain, row and state are right."""
    db = sqlite3.connect(path)
    seq, head = db.execute("SELECT seq, head FROM state").fetchone()
    chain, body = Chain(seq, head), events.render_event(event)
    chain.add(body)
    db.execute("INSERT INTO event (seq, kind, body) VALUES (?, ?, ?)", (seq + 1, event.kind, body))
    db.execute(schema.INSERT[event.kind], schema.derive[event.kind](seq + 1, event, lambda _: None))
    db.execute("UPDATE state SET seq = ?, head = ?", (seq + 1, chain.head))
    db.execute("UPDATE file SET closed = NULL")
    db.commit()
    db.close()


def tell(scene, *operations: int) -> Path:
    scene.start()
    writer = scene.writer()
    writer.append(scene.opened())
    for number in operations:
        writer.append(*scene.intent(number, text=b"SELECT secret FROM t -- %d" % number))
    writer.flush()
    scene.host_event()
    scene.turn(2)
    scene.stop()
    scene.assert_verified()
    return scene.files()[0]


def test_an_unsigned_excuse_does_not_take_a_signed_statements_text_away(scene) -> None:
    path = tell(scene, 1)
    gone = make_digest(SALT, b"SELECT secret FROM t -- 1")
    edit(path, "UPDATE intent SET text = NULL", "DELETE FROM blob")
    append_forged(path, events.RecorderEvent(30, 1, 1, "journal.blobs-missing", {"digests": gone.hex(), "file": "x"}))
    assert any("is not there" in one for one in scene.verify().problems)


@pytest.mark.parametrize("edited", [
    """'{"a":"other",' || substr(detail, 2)""", """'{"b":"other","a":"1","b":"2"}'"""])
def test_a_key_twice_in_a_json_column(scene, edited: str) -> None:
    path = tell(scene, 1)
    edit(path, f"UPDATE host_event SET detail = {edited}")
    assert any("says something else" in one for one in scene.verify().problems)


@pytest.mark.parametrize("edited", ["[3.0]", "[3e0]"])
def test_another_type_in_a_json_column(scene, edited: str) -> None:
    writer = scene.writer()
    writer.append(events.Gap(6, 1, 1, "S", (3,), "x"))
    writer.flush()
    scene.start()
    scene.turn()
    scene.stop()
    edit(scene.files()[0], f"UPDATE gap SET operations = '{edited}'")
    assert any("says something else" in one for one in scene.verify().problems)


@pytest.mark.parametrize("edited", ["[1.0]", "[true]", '["1"]', '{"1":"forged"}', '{"1":2,"1":1}'])
def test_another_type_among_a_payloads_ids(scene, edited: str) -> None:
    writer = scene.writer()
    writer.append(*scene.result(1, payload=b"delivered"))
    writer.flush()
    scene.start()
    scene.turn()
    scene.stop()
    assert scene.rows("SELECT payload FROM result") == [("[1]",)]
    edit(scene.files()[0], f"UPDATE result SET payload = '{edited}'")
    assert any("says something else" in one for one in scene.verify().problems)


def compress_lying(scene, packed: bytes) -> None:
    path = tell(scene, 1)
    db = sqlite3.connect(path)
    db.execute("UPDATE blob SET encoding = 1, body = ?", (packed,))
    db.commit()
    db.close()


def test_a_blob_that_swells(scene) -> None:
    """256 MiB of zeros in place of 25 bytes."""
    compressor = zstandard.ZstdCompressor().compressobj(size=1 << 28)
    packed = b"".join([*(compressor.compress(bytes(1 << 20)) for _ in range(1 << 8)), compressor.flush()])
    compress_lying(scene, packed)
    tracemalloc.start()
    try:
        problems = scene.verify().problems
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert problems
    assert most < 1 << 26


@pytest.mark.skipif(not shutil.which("zstd"), reason="needs the program zstd: apt-get install zstd")
@pytest.mark.parametrize("size", [3 << 20, 1 << 28])
def test_a_large_blob_by_the_program_zstd(size: int) -> None:
    """One larger than a pipe, and one that swells: more than it says is not read."""
    content = base64.b64encode(os.urandom(size)) if size < 1 << 22 else bytes(size)
    packed, most = zstandard.ZstdCompressor().compress(content), min(len(content), 1 << 22)
    made = []
    asking = threading.Thread(target=lambda: made.append(weir_verify._run_zstd("zstd", packed, most)), daemon=True)
    asking.start()
    asking.join(20)
    assert made == [content[:most + 1]]


def test_bytes_after_a_compressed_blob(scene) -> None:
    text = b"SELECT secret FROM t -- 1"
    compress_lying(scene, zstandard.ZstdCompressor().compress(text))
    assert scene.verify().problems == []
    edit(scene.files()[0], "UPDATE blob SET body = body || x'68696464656e'")
    assert scene.verify().problems


def test_a_trigger_under_a_name_like_sqlites(scene) -> None:
    path = tell(scene, 1)
    edit(path, "CREATE TRIGGER sqliteX AFTER INSERT ON intent BEGIN DELETE FROM intent WHERE seq = new.seq; END")
    assert any("sqliteX" in one for one in (*scene.verify().notes, *scene.verify().problems))


def test_a_trigger_under_a_tables_name(scene) -> None:
    """Triggers have names of their own; whose row lies before the table's is read first."""
    path = tell(scene, 1)
    edit(path, "CREATE TRIGGER intent AFTER INSERT ON state BEGIN DELETE FROM intent; END", "PRAGMA writable_schema=ON",
         "UPDATE sqlite_master SET rowid = -1 WHERE type = 'trigger'",
         "UPDATE sqlite_master SET rowid = -2 WHERE name = 'state'")
    report = scene.verify()
    assert any("intent" in one for one in (*report.notes, *report.problems))


def test_a_trigger_under_a_name_of_sqlites_own(scene) -> None:
    path = tell(scene, 1)
    edit(path, "CREATE TRIGGER x AFTER INSERT ON intent BEGIN DELETE FROM intent; END", "PRAGMA writable_schema=ON",
         "UPDATE sqlite_master SET name = 'sqlite_x', sql = replace(sql, 'TRIGGER x', 'TRIGGER sqlite_x') "
         "WHERE type = 'trigger'")
    report = scene.verify()
    assert any("sqlite_x" in one for one in (*report.notes, *report.problems))


@pytest.mark.parametrize("table", ["blob", "event", "file", "intent"])
def test_a_view_in_a_tables_place_is_not_read(scene, table: str) -> None:
    """It may go on for ever."""
    path = tell(scene, 1)
    columns = [row[1] for row in scene.rows(f"PRAGMA table_info({table})")]
    endless = ("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT "
               + ", ".join(f"x AS {one}" for one in columns) + " FROM n WHERE x < 0")
    edit(path, f"ALTER TABLE {table} RENAME TO hidden", f"CREATE VIEW {table} AS {endless}")
    done = subprocess.run([sys.executable, weir_verify.__file__, path], capture_output=True, text=True, timeout=20,
                          check=False)
    assert done.returncode in (1, 2), done


def test_what_a_file_calls_its_tables_does_not_steer_the_terminal(scene) -> None:
    path = tell(scene, 1)
    edit(path, "UPDATE event SET seq = 99 WHERE seq = 1",
         'CREATE VIEW "a\x1b[2J\x9b2J\nverified: all of it\x1b[8m" AS SELECT 1')
    path = path.rename(path.with_name("recording-\x1b[8m.sqlite"))
    report = scene.verify()
    shown = weir_verify.render_report(report)
    assert "NOT VERIFIED" in shown
    assert all(line.isprintable() for line in shown.split("\n"))
    assert not any(line.startswith("verified") for line in shown.split("\n"))
    path.write_bytes(b"SQLite format 3\0" + b"\0" * 100)
    done = subprocess.run([sys.executable, weir_verify.__file__, path], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().isprintable()


def test_a_tail_that_nobody_signed_is_not_called_verified(scene) -> None:
    path = tell(scene, 1)
    append_forged(path, events.RecorderEvent(30, 1, 1, "recorder.started", {}))
    last = weir_verify.render_report(scene.verify()).splitlines()[-1]
    assert "1 not signed" in last


def sign_nothing(path: Path, event_at: int) -> None:
    """Without the key: every checkpoint away, every statement another, the chain made anew."""
    db = sqlite3.connect(path)
    db.execute("DELETE FROM checkpoint")
    db.execute("UPDATE file SET closed = NULL")
    seq, head = db.execute("SELECT seq_before, head_before FROM file").fetchone()
    chain = Chain(seq, head)
    for seq, kind, body in db.execute("SELECT seq, kind, body FROM event ORDER BY seq").fetchall():
        values = msgspec.msgpack.decode(body)
        values[1] = event_at
        body = msgspec.msgpack.encode(values)
        chain.add(body)
        db.execute("UPDATE event SET body = ? WHERE seq = ?", (body, seq))
        db.execute(f"UPDATE {schema.SPOKEN[kind][0]} SET at = ? WHERE seq = ?", (event_at, seq))
    db.execute("UPDATE state SET seq = ?, head = ?", (chain.sequence, chain.head))
    db.commit()
    db.close()


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_file_that_nobody_signed_is_not_verified(scene, hours: int) -> None:
    sign_nothing(tell(scene, 1, 2), time.time_ns() + hours * 3600 * 10**9)
    report = scene.verify()
    assert (report.problems, report.code) == ([], 3)
    assert "verified as far as it is signed: " in weir_verify.render_report(report)
    assert weir_verify.report_json(report)["verified"] is False


def test_what_was_written_just_now_may_lack_its_signature(scene) -> None:
    sign_nothing(tell(scene, 1, 2), time.time_ns())
    report = scene.verify()
    assert (report.problems, report.code) == ([], 0)
    assert any("not signed yet" in one for one in report.notes)


def sign(scene) -> None:
    scene.recorder._store.checkpoint()
    scene.recorder._commit()


def test_old_events_that_are_signed_do_not_make_new_ones_overdue(scene) -> None:
    scene.start()
    scene.at -= 3 * 3600 * 10**9
    writer = scene.writer()
    for _ in range(2):
        writer.append(*scene.intent(1))
        writer.flush()
        scene.turn()
        sign(scene)
        scene.at = time.time_ns()
    writer.append(*scene.intent(2))
    writer.flush()
    scene.turn()
    report = scene.verify()
    assert (report.problems, report.code, report.counts["unsigned"]) == ([], 0, 1)


def test_a_text_that_nothing_excuses_is_missed_in_the_unsigned_tail_too(scene) -> None:
    scene.start()
    sign(scene)
    writer = scene.writer()
    writer.append(*scene.intent(1))
    writer.flush()
    scene.turn()
    edit(scene.files()[0], "UPDATE intent SET text = NULL")
    assert any("is not there" in one for one in scene.verify().problems)


def test_an_excuse_is_good_until_the_next_checkpoint(scene) -> None:
    """What was lost once came again, and somebody took it away."""
    scene.start()
    writer = scene.writer()
    event, blobs = scene.intent(1)
    writer.append(event)
    writer.flush()
    scene.turn()
    assert "journal.blobs-missing" in scene.names()
    sign(scene)
    writer.append(event, blobs)
    writer.flush()
    scene.turn()
    scene.stop()
    scene.assert_verified()
    edit(scene.files()[0], "UPDATE intent SET text = NULL", "DELETE FROM blob")
    assert any("is not there" in one for one in scene.verify().problems)


@pytest.mark.parametrize("reads", ["verify", "sessions"])
def test_a_journal_beside_a_file_is_not_passed_over(scene, reads: str) -> None:
    """The file is as it was signed, and SQLite would roll it back to what the journal says as soon as anybody opens it
    who may write."""
    path, forged = tell(scene, 1), "SELECT reason FROM intent"
    journal = path.with_name(f"{path.name}-journal")
    edit(path, "UPDATE intent SET reason = 'forged'")
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA cache_size = 1")
    db.execute("BEGIN")
    db.execute("UPDATE intent SET reason = ''")
    db.execute("CREATE TABLE spill AS SELECT randomblob(100000)")
    db.execute("DROP TABLE spill")
    left = journal.read_bytes()
    db.execute("COMMIT")
    db.close()
    journal.write_bytes(left)
    if reads == "verify":
        with pytest.raises(weir_verify.Unreadable):
            scene.verify()
    else:
        with pytest.raises(RecordingError):
            scene.reader().sessions()
    db = sqlite3.connect(path)
    assert db.execute(forged).fetchall() == [("forged",)]
    db.close()


def leave_out(path: Path, table: str) -> None:
    """What an export does with an event that was not asked for."""
    db = sqlite3.connect(path)
    (seq, body), = db.execute(f"SELECT seq, body FROM event JOIN {table} USING (seq)").fetchall()
    db.execute("UPDATE event SET kind = NULL, body = NULL, leaf = ? WHERE seq = ?", (make_leaf(seq, body), seq))
    db.execute(f"DELETE FROM {table}")
    db.execute("UPDATE file SET number = 0")
    db.commit()
    db.close()


@pytest.mark.parametrize("name", ["recording-20261124T000000Z-1.sqlite", "recording-x.sqlite"])
def test_a_recordings_file_is_no_export(scene, name: str) -> None:
    path = tell(scene, 1)
    path = path.rename(path.with_name(name))
    leave_out(path, "intent")
    assert any("says that it is an export" in one for one in scene.verify().problems)
    assert weir_verify.verify_files([path.rename(path.with_name("taken.sqlite"))]).code == 0


def test_a_file_under_another_files_name(scene) -> None:
    path = tell(scene, 1)
    path.rename(path.with_name("recording-20261124T000000Z-7.sqlite"))
    assert any("says that it is number 1" in one for one in scene.verify().problems)


# The journal's writer, on a disk that fails


def make(directory: Path) -> JournalWriter:
    return JournalWriter(directory, "enforcer0", "0123456789abcdef", limit=1 << 20, reserve=0)


def named_and_held(directory: Path) -> tuple[set[bytes], set[bytes]]:
    """Digests of texts that a file's events name and that it holds, over all files."""
    named, held = set(), set()
    for path in directory.glob("*.journal"):
        file = JournalFile(directory, path.name, 0)
        for kind, body, _ in file.records(1 << 20):
            if kind == EVENT:
                named.add((path.name, msgspec.msgpack.decode(body)[9]))
            elif kind == BLOB:
                held.add((path.name, make_digest(body[:16], body[16:])))
        file.close()
    return named, held


def test_texts_of_a_write_that_found_no_file_come_again(scene, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = make(scene.journal)
    event, blobs = scene.intent(1)

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal_module.os, "write", full)
    monkeypatch.setattr(journal_module.os, "open", full)
    for _ in range(2):                # the first is cut off and leaves the file, the second finds no other
        writer.append(event, blobs)
        with pytest.raises(journal_module.RecordingError, match="No space"):
            writer.flush()
    monkeypatch.undo()
    writer.append(event, blobs)
    writer.flush()
    writer.close()
    named, held = named_and_held(scene.journal)
    assert named
    assert named <= held


@pytest.mark.parametrize("late", [False, True])
def test_texts_lie_in_the_file_that_is_begun_after_a_failed_sync(
        scene, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    """`late`: the sync fails, in its thread, between append and flush."""
    writer = make(scene.journal)
    event, blobs = scene.intent(1)
    writer.append(event, blobs)
    writer.flush()

    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    def fail() -> None:
        monkeypatch.setattr(journal_module.os, "fdatasync", broken)
        with pytest.raises(journal_module.RecordingError, match="Input/output"):
            writer.sync()
        monkeypatch.undo()

    if late:
        writer.append(event, blobs)
        fail()
        with pytest.raises(journal_module.RecordingError, match="another was begun"):
            writer.flush()
    else:
        fail()
    writer.append(event, blobs)
    writer.flush()
    writer.close()
    named, held = named_and_held(scene.journal)
    assert len({name for name, _ in named}) == 2
    assert named <= held


def test_a_failed_write_and_then_a_failed_sync(scene, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = make(scene.journal)
    event, blobs = scene.intent(1)

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(journal_module.os, "write", broken)
    monkeypatch.setattr(journal_module.os, "fdatasync", broken)
    writer.append(event, blobs)
    for step in (writer.flush, writer.sync):
        with pytest.raises(journal_module.RecordingError, match="Input/output"):
            step()
    monkeypatch.undo()
    writer.append(event, blobs)
    writer.flush()
    writer.close()
    named, held = named_and_held(scene.journal)
    assert named
    assert named <= held


# The journal's directory, written to by the enforcer's user


@pytest.mark.parametrize("event", [
    b"\x93\x14\x01\xcb\x7f\xf0\0\0\0\0\0\0", b"\x80", b"\x91" * 5000 + b"\x00", b"\x93\x14\x01\xcb\x7f\xf8\0\0\0\0\0\0",
    b"\x93\x14\x01\xa1x", b"\x90", b"\xc0"])
def test_a_strange_file_of_no_enforcer_stops_nothing(scene, monkeypatch: pytest.MonkeyPatch, event: bytes) -> None:
    monkeypatch.setattr(recording_process, "QUIET", -1.0)
    for digit in "12":
        (scene.journal / f"agent-{digit * 16}-0.journal").write_bytes(render_record(EVENT, event))
    scene.start()
    scene.turn(4)
    scene.stop()
    scene.assert_verified()


def test_a_thousand_files_do_not_keep_the_agents_out(scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_process, "MOST_FILES", 5)
    for number in range(9):
        path = scene.journal / f"{'agent' if os.geteuid() == 0 else 'aa'}-{number:016x}-0.journal"
        path.write_bytes(b"")
        if os.geteuid() == 0:
            os.chown(path, 12345, 12345)
    scene.start()
    scene.turn()
    scene.host_event("agent.said")
    scene.turn(2)
    assert scene.rows("SELECT name FROM host_event") == [("agent.said",)]
    scene.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away: run it as root")
@pytest.mark.parametrize("writer", ["agent", "aa"])
def test_files_of_nobody_who_may_write_go(scene, monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    """Each looks as if another of their kind had come later: they are not compared with one another, which would take
    longer the more there are."""
    monkeypatch.setattr(recording_process, "QUIET", -1.0)
    asked = []
    monkeypatch.setattr(JournalFile, "first_monotonic", lambda file: asked.append(file.name) or 0)
    for number in range(5):
        path = scene.journal / f"{writer}-{number:016x}-0.journal"
        path.write_bytes(b"")
        os.chown(path, 12345, 12345)
    scene.start()
    scene.turn(3)
    assert (scene.journal_files(), asked) == ([], [])
    scene.stop()


def test_what_is_no_file_keeps_no_place(scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_process, "MOST_FILES", 3)
    names = iter(f"aa-{number:016x}-0.journal" for number in range(9))
    for make in (lambda path: path.mkdir(), lambda path: path.symlink_to("/etc/passwd"), os.mkfifo):
        for _ in range(3):
            make(scene.journal / next(names))
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(scene.journal / f"aa-{'f' * 16}-0.journal"))
    scene.start()
    writer = scene.writer()
    writer.append(scene.closed())
    writer.flush()
    scene.turn(6)
    assert scene.rows("SELECT session FROM session_closed") == [("S1",)]
    scene.stop()


@pytest.mark.parametrize("bad", [False, True])
def test_an_ended_file_that_became_a_directory(scene, bad: bool) -> None:
    writer = scene.writer()
    writer.append(scene.closed())
    if bad:
        writer._pending.append(b"\x01\xff\xff\xff\xff" + b"x" * 20)
    writer.flush()
    name = scene.journal_files()[0]
    scene.start()
    if bad:
        (scene.journal / f".{name}.bad").mkdir()
        (scene.journal / f".{name}.bad" / "x").write_bytes(b"")
        scene.turn(45)
        assert "journal.corrupt" in scene.names()
        os.close(writer._fd)
        writer._fd = -1
        scene.turn(2)
    else:
        writer.close()
        scene.recorder._look(0.0)
        scene.recorder._take_all()
        scene.recorder._commit()
        (scene.journal / name).unlink()
        (scene.journal / name).mkdir()
        scene.turn(3)
    writer = scene.writer()
    writer.append(scene.closed("after"))
    writer.flush()
    scene.turn(2)
    assert scene.rows("SELECT session FROM session_closed ORDER BY seq") == [("S1",), ("after",)]
    scene.stop()
    scene.assert_verified()


def test_what_was_taken_is_published_whatever_lies_in_the_way(scene) -> None:
    (scene.journal / ".taken.new").mkdir()
    (scene.journal / ".taken.new" / "x").write_bytes(b"")
    scene.start()
    scene.turn()
    assert scene.taken() == {}
    scene.stop()


def test_what_could_not_be_published_goes(scene, monkeypatch: pytest.MonkeyPatch) -> None:
    (scene.journal / "taken").mkdir()
    (scene.journal / f".taken-{'0' * 16}.new").write_bytes(b"")
    monkeypatch.setattr(recording_process, "QUIET", -1.0)
    scene.start()
    scene.turn()
    assert sorted(one.name for one in scene.journal.iterdir()) == ["taken"]
    scene.stop()


def test_so_many_lists_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_KNOWN", 10)
    schema._known.clear()
    for number in range(100):
        assert schema._list((str(number),)) == f'["{number}"]'
        assert len(schema._known) <= 10


def test_a_blob_that_is_no_longer_remembered_is_found_again(scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MOST_BLOBS", 2)
    scene.start()
    writer = scene.writer()
    for number in (1, 2, 3, 1):
        writer.append(*scene.intent(number, text=b"SELECT %d" % number))
    writer.flush()
    scene.turn()
    assert "journal.blobs-missing" not in scene.names()
    scene.stop()
    scene.assert_verified()


def test_large_lists_are_not_remembered(scene) -> None:
    """A crew names what it likes in a statement: thousands of resources, others every time."""
    scene.start()
    writer = scene.writer()
    tracemalloc.start()
    try:
        for number in range(150):
            named = tuple(("sql:select", f"public.{'x' * 50}_{number}_{one}") for one in range(2000))
            writer.append(*scene.intent(number, requests=named, rules=("deny",)))
            writer.flush()
            scene.turn()
            if number == 20:
                before = tracemalloc.get_traced_memory()[0]
        assert tracemalloc.get_traced_memory()[0] - before < 8 << 20
    finally:
        tracemalloc.stop()
    scene.stop()


# Notes


@pytest.mark.parametrize("what", ["file", "directory"])
def test_leftovers_in_the_spool_keep_no_note_back(scene, what: str) -> None:
    scene.start()
    spool = scene.recording / "reads"
    for number in range(notes.AT_ONCE * 2):
        if what == "file":
            (spool / f".note-{number:032x}").write_bytes(b"")
        else:
            (spool / f"d{number}").mkdir()
            (spool / f"d{number}" / "x").write_bytes(b"")
    scene.turn(4)
    for number in range(5):
        notes.leave_note(scene.recording, notes.Note("read", {"what": str(number)}))
    scene.turn(3)
    assert scene.names().count("read") == 5
    scene.stop()


@pytest.mark.parametrize("note", [
    b"\x83\xa4name\xa1\xff\xa6detail\x80\xa7digests\x90", b"\x81\xa6detail\x81\xa1\xff\xa1a",
    b"\x81\xa1x" + b"\x91" * 100_000 + b"\xc0", b"\xc1", b""])
def test_a_strange_note_stops_nothing(scene, note: bytes) -> None:
    scene.start()
    (scene.recording / "reads" / f"note-{'0' * 32}").write_bytes(note)
    scene.turn()
    assert scene.names().count("note.malformed") == 1
    assert list((scene.recording / "reads").iterdir()) == []
    scene.stop()


@pytest.mark.parametrize("left", [False, True])
def test_half_notes_are_kept_until_nobody_finishes_them(scene, monkeypatch: pytest.MonkeyPatch, left: bool) -> None:
    monkeypatch.setattr(notes, "HALF", -1.0 if left else 60.0)
    scene.start()
    half = scene.recording / "reads" / f".note-{'0' * 32}"
    half.write_bytes(b"")
    os.utime(half, (1 << 33, 1 << 33))
    scene.turn()
    assert half.exists() != left
    scene.stop()


def test_many_texts_are_erased_in_one_pass_over_the_blobs(scene) -> None:
    """The recorder takes nothing meanwhile, and its bound stops the crews."""
    scene.start()
    db = scene.recorder._store._db
    digests = [number.to_bytes(32, "big") for number in range(3000)]
    db.executemany("INSERT INTO blob VALUES (?, ?, ?, 0, 1, ?)",
                   ((number + 1000, digest, SALT, b"x") for number, digest in enumerate(digests)))
    steps = []
    db.set_progress_handler(lambda: steps.append(1), 1000)
    assert store._erase(db, tuple(digests[:1000]), b"") == 1000
    assert len(steps) < 1000
    assert db.execute("SELECT count(*) FROM blob WHERE body IS NOT NULL").fetchone() == (2000,)


# Locks


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "rb")
fcntl.lockf(file, fcntl.LOCK_SH, int(sys.argv[3]), int(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("what", "start", "length"), [
    ("-shm", 120, 1), ("-shm", 120, 8), ("", 0x40000000, 512)], ids=["to write", "all", "of the file"])
def test_who_may_only_read_does_not_keep_the_recorder_from_writing(
        scene, monkeypatch: pytest.MonkeyPatch, what: str, start: int, length: int) -> None:
    monkeypatch.setattr(store, "BUSY", 50)
    writer = scene.writer()
    scene.start()
    writer.append(scene.opened())
    writer.flush()
    scene.turn()
    [file] = scene.files()
    if not what:
        scene.stop()                  # out of WAL mode, and into it again needs the file alone
    command = [sys.executable, "-c", HOLD, f"{file}{what}", str(start), str(length)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        writer.append(*scene.intent(1))
        writer.flush()
        if what:
            with pytest.raises(sqlite3.OperationalError, match="locked") as reason:
                scene.turn()
            locks.shut_out(scene.recording, reason.value)
            scene.kill()
        recorder = scene.start()
        assert scene.recording.stat().st_mode & 0o777 == 0o700, "shut, so that nobody takes them again at once"
        scene.turn()
        [told] = scene.rows("SELECT detail FROM recorder_event WHERE name = 'recording.locked'")
        assert f'"pid":"{holder.pid}"' in told[0]
        assert not (scene.recording / locks.FOUND).exists()
        assert scene.rows("SELECT count(*) FROM intent") == [(1,)]
        recorder._shut_until = 1.0
        scene.turn()
        assert scene.recording.stat().st_mode & 0o777 == 0o750
        holder.kill()
    scene.stop()
    scene.assert_verified()
