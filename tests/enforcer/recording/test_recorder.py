"""The recorder over real journal files."""
from __future__ import annotations

import json
import os
import pwd
import random
import shutil
import sqlite3
import subprocess
import tempfile
import time
import traceback
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.contract.journal import BLOB, END, EVENT, HEADER, render_record
from agent.journal import Journal, JournalError, make_event
from enforcer.recording import recorder as recording_process
from enforcer.recording import store
from enforcer.recording.recorder import take_lock
from enforcer.words import events
from enforcer.words.errors import RecordingError


def test_events_become_rows(scene) -> None:
    writer = scene.writer()
    scene.all_kinds(writer)
    scene.host_event()
    scene.start()
    scene.turn(2)
    assert scene.rows("SELECT session, subject, backend, groups FROM session_opened") == [
        ("S1", "local:zoë", 77, '["data"]')]
    assert scene.rows("SELECT operation, decision, text, status, tag, error FROM operations ORDER BY seq") == [
        (1, "permit", "SELECT 'it''s ' || chr(0x1b)", "ok", "SELECT 1", None),
        (2, "hold", None, "error", "SELECT 1", "rechte nicht da: ÄÖ\u2028")]
    assert scene.rows("SELECT detail FROM host_events") == [('{"a":"1","b":"2"}',)]
    for view in ("sessions", "holds", "refusals", "flows", "gaps"):
        assert len(scene.rows(f"SELECT * FROM {view}")) == 1, view
    assert scene.rows("SELECT closed FROM flows")[0][0].startswith(time.strftime("%Y-", time.gmtime(scene.at // 10**9)))
    assert scene.rows("SELECT encoding FROM blob WHERE size > 5000") == [(1,)]
    scene.stop()
    scene.assert_verified()


def test_taken_is_published_and_files_go_when_their_end_is_synced(scene) -> None:
    writer = scene.writer(segment=2000)
    scene.start()
    for number in range(40):
        writer.append(*scene.intent(number))
        writer.flush()
    scene.turn(3)
    [name] = scene.journal_files()
    assert scene.taken() == {name: (scene.journal / name).stat().st_size}
    assert (scene.journal / "taken").stat().st_mode & 0o777 == 0o644
    assert writer.backlog() == 0
    writer.sync()
    writer.close()
    scene.turn(2)
    assert scene.journal_files() == []
    assert [row[0] for row in scene.rows("SELECT operation FROM intent ORDER BY seq")] == list(range(40))
    scene.stop()
    scene.assert_verified()


def test_files_of_one_instance_are_taken_one_after_the_other(scene, monkeypatch) -> None:
    monkeypatch.setattr(recording_process, "BATCH", 500)
    writer = scene.writer(segment=3000)
    for number in range(100):
        writer.append(*scene.intent(number))
        writer.flush()
    assert len(scene.journal_files()) > 5
    scene.start()
    scene.turn(100)
    assert [row[0] for row in scene.rows("SELECT operation FROM intent ORDER BY seq")] == list(range(100))
    scene.stop()
    scene.assert_verified()


@pytest.mark.lab
def test_as_the_users_that_the_agent_uses(make_scene) -> None:
    """The recorder is no member of the enforcer's group, and yet each reads what the other writes."""
    weir, audit = pwd.getpwnam("weir"), pwd.getpwnam("weir-audit")
    base = Path(tempfile.mkdtemp(prefix="weir-users.", dir="/var/tmp"))
    base.chmod(0o755)
    scene = make_scene(base)
    for path, gid, mode in ((scene.journal, weir.pw_gid, 0o1770), (scene.recording, audit.pw_gid, 0o2750)):
        os.chown(path, audit.pw_uid, gid)
        path.chmod(mode)

    def enforcer() -> None:
        writer = scene.writer()
        scene.all_kinds(writer)
        until(lambda: writer.backlog() == 0)
        writer.close()

    def taker() -> None:
        scene.start()
        until(lambda: scene.turn() or (scene.rows("SELECT * FROM session_closed") and not scene.journal_files()))
        scene.stop()

    try:
        children = [start_as(weir, enforcer), start_as(audit, taker)]
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
        assert len(scene.rows("SELECT * FROM session_closed")) == 1
        scene.assert_verified()
    finally:
        shutil.rmtree(base)


def start_as(account: pwd.struct_passwd, work) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.umask(0o027)
            os.setgroups([])
            os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
            os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def test_blobs_are_there_after_a_restart_and_a_rotation(scene) -> None:
    writer = scene.writer()
    scene.start()
    writer.append(*scene.intent(1, text=b"SELECT shared"))
    writer.flush()
    scene.turn()
    scene.kill()
    scene.start()
    writer.append(*scene.intent(2, text=b"SELECT shared"))   # its blob lies before what was taken
    writer.flush()
    scene.turn()
    scene.recorder._rotate()
    writer.append(*scene.intent(3, text=b"SELECT shared"))
    writer.flush()
    scene.turn()
    scene.stop()
    assert scene.rows("SELECT operation, text FROM operations ORDER BY seq") == [
        (number, "SELECT shared") for number in (1, 2, 3)]
    assert "journal.blobs-missing" not in scene.names()
    scene.assert_verified()


def test_a_blob_that_never_came_is_told(scene) -> None:
    writer = scene.writer()
    writer.append(scene.intent(1)[0])
    writer.flush()
    scene.start()
    scene.turn()
    scene.stop()
    assert "journal.blobs-missing" in scene.names()
    scene.assert_verified()


def test_rotation_carries_chain_positions_and_open_sessions(scene, quick) -> None:
    writer = scene.writer()
    scene.start(rotate=1)             # every sync
    for number in range(5):
        writer.append(scene.opened(f"S{number}"))
        writer.append(*scene.intent(7, f"S{number}"))
        writer.flush()
        scene.turn()
    scene.recorder._options = scene.options()
    assert len(scene.files()) > 4
    assert all(not path.with_name(path.name + "-wal").exists() for path in scene.files()[:-1])
    scene.kill()
    os.close(writer._fd)
    writer._fd = -1
    scene.start()
    scene.turn(3)
    scene.stop()
    assert scene.rows("SELECT session, operations FROM gap ORDER BY seq") == [(f"S{n}", "[7]") for n in range(5)]
    report = scene.assert_verified()
    assert report.counts["files"] == len(scene.files())


def test_a_new_day_begins_a_new_file(scene, monkeypatch) -> None:
    scene.start()
    scene.turn()
    real = time.time_ns
    monkeypatch.setattr(recording_process.time, "time_ns", lambda: real() + recording_process.DAY)
    scene.turn()
    assert len(scene.files()) == 2
    monkeypatch.setattr(recording_process.time, "time_ns", lambda: real() - 3 * recording_process.DAY)
    scene.host_event()
    scene.turn()                      # the clock steps back: the order is that of the numbers
    assert len(scene.files()) == 2
    monkeypatch.undo()
    scene.stop()
    scene.assert_verified()


@pytest.mark.parametrize("crash", ["closed", "renamed"])
def test_a_crash_within_a_rotation(scene, crash, monkeypatch) -> None:
    writer = scene.writer()
    scene.all_kinds(writer)
    scene.start()
    scene.turn()

    def die(*_: object) -> None:
        raise InterruptedError

    store = scene.recorder._store
    monkeypatch.setattr(store, "follow" if crash == "closed" else "close", die)
    with pytest.raises(InterruptedError):
        scene.recorder._rotate()
    scene.kill()
    scene.start()
    writer.append(*scene.intent(9))
    writer.flush()
    scene.turn()
    scene.stop()
    assert len(scene.files()) == 2
    assert not list(scene.recording.glob("*-wal"))
    scene.assert_verified()
    assert len(scene.rows("SELECT * FROM session_opened")) == 1


def test_torn_at_every_offset(scene, quick) -> None:
    writer = scene.writer()
    writer.append(scene.opened())
    writer.append(*scene.intent(1))
    writer.append(scene.closed())
    writer.flush()
    [name] = scene.journal_files()
    data = (scene.journal / name).read_bytes()
    (scene.journal / name).unlink()
    scene.start()
    ends = {0}
    while max(ends) < len(data):
        ends.add(max(ends) + HEADER.size + HEADER.unpack_from(data, max(ends))[1])
    cuts = sorted({*ends, *range(0, len(data), 7)})
    for cut in cuts:
        (scene.journal / f"enforcer0-{cut:016x}-0.journal").write_bytes(data[:cut])
        scene.turn(2)
    assert scene.journal_files() == []
    scene.stop()
    assert scene.names().count("journal.torn") == len([cut for cut in cuts if cut not in ends])
    whole = sorted(ends)
    for table, end in (("session_opened", whole[1]), ("intent", whole[3])):
        assert len(scene.rows(f"SELECT * FROM {table}")) == len([cut for cut in cuts if cut >= end])
    scene.assert_verified()


def test_a_dead_enforcers_sessions_are_closed_with_a_gap(scene) -> None:
    first = scene.writer()
    scene.start()
    first.append(scene.opened("S1"))
    first.append(scene.opened("S2"))
    for number in (1, 2, 3):
        first.append(*scene.intent(number))
    first.append(*scene.result(2))
    first.append(*scene.intent(4, decision=2, forwarded=b""))
    first.append(scene.closed("S2"))
    first.flush()
    scene.turn()
    assert scene.rows("SELECT * FROM gap") == []
    os.close(first._fd)
    first._fd = -1
    scene.turn(2)
    assert scene.rows("SELECT * FROM gap") == []            # it may still be on its way down
    scene.kill()
    scene.start()
    scene.turn()
    scene.writer()
    scene.turn(2)
    assert scene.rows("SELECT session, operations FROM gap") == [("S1", "[1,3]")]
    assert [row[0] for row in scene.rows("SELECT session FROM session_closed ORDER BY seq")] == ["S2", "S1"]
    assert scene.rows("SELECT * FROM live") == []
    scene.stop()
    scene.assert_verified()


def test_a_session_whose_results_were_lost_on_the_way_has_a_gap(scene) -> None:
    """The disk was full for a moment: what lay in that write is nowhere, and the enforcer goes on."""
    writer = scene.writer()
    scene.start()
    writer.append(scene.opened())
    for number in (1, 2, 3):
        writer.append(*scene.intent(number))
    writer.append(*scene.intent(0, verb="cancel"))
    writer.append(*scene.intent(4, decision=2, forwarded=b""))
    writer.append(*scene.result(2))
    writer.append(events.Gap(events.GAP, scene.at, 1, "S1", (3,), "client closed"))
    writer.append(scene.closed())
    writer.flush()
    scene.turn()
    gaps = scene.rows("SELECT operations, reason FROM gap ORDER BY seq")
    assert gaps == [("[3]", "client closed"), ("[1]", "lost: the journal could not take their results")]
    assert scene.rows("SELECT max(seq) FROM gap") < scene.rows("SELECT seq FROM session_closed")
    scene.stop()
    scene.assert_verified()


def test_a_writer_that_lives_keeps_its_file_whatever_lies_in_it(scene) -> None:
    writer = scene.writer()
    writer.append(scene.opened())
    writer.flush()
    scene.start()
    scene.turn(3)
    assert len(scene.journal_files()) == 1
    os.write(writer._fd, b"\x01\xff\xff\xff\x7f garbage that is longer than a header")
    scene.turn(60)
    assert "journal.corrupt" in scene.names()
    assert scene.names().count("journal.corrupt") == 1
    with pytest.raises(RecordingError, match="wait for the recorder"):
        time.sleep(0.06)
        writer.check()                # nothing may be forwarded by who writes such things
    os.close(writer._fd)
    writer._fd = -1
    scene.turn(3)
    assert scene.journal_files() == []
    assert [path.suffix for path in scene.journal.glob(".*.bad")] == [".bad"]
    scene.stop()
    scene.assert_verified()


def test_a_file_that_shrinks_is_told(scene) -> None:
    writer = scene.writer()
    for number in range(5):
        writer.append(*scene.intent(number))
    writer.flush()
    scene.start()
    scene.turn()
    os.truncate(scene.journal / scene.journal_files()[0], 10)
    scene.turn(2)
    scene.stop()
    assert "journal.truncated" in scene.names()
    scene.assert_verified()


def test_what_a_writer_may_not_say(scene) -> None:
    writer = scene.writer()
    for event in (
        events.RecorderEvent(30, 1, 1, "recorder.started", {}),
        events.Erasure(31, 1, 1, (b"d" * 32,), "root", "", b"s" * 64),
        scene.closed(at=2**63), scene.closed(bytes_in=2**64 - 1), events.Gap(6, 1, 1, "S", (2**63,), ""),
    ):
        writer.append(event)
    bodies = [b"", b"\x91", b"\x93\x03\x01\x02", b"\xdc\x00\x17\x01" + b"\x00" * 30, b"\xc1" * 40,
              msgspec.msgpack.encode([2, 1, 2, "S", "r", 0, 0, 0, "more"]),
              events.render_event(scene.closed()).replace(b"\x08", b"\xcc\x08")]
    for body in bodies:
        writer._pending.append(render_record(EVENT, body))
    writer._pending += [render_record(9, b"?"), render_record(BLOB, b"short"), render_record(END, b"x")]
    writer.append(scene.closed("last"))
    writer.flush()
    forged = render_record(EVENT, events.render_event(scene.closed()))
    (scene.journal / f"agent-{'0' * 16}-0.journal").write_bytes(forged)
    scene.start()
    scene.turn()
    scene.stop()
    assert scene.rows("SELECT session FROM session_closed") == [("last",)]
    assert scene.names().count("journal.malformed") == 5 + len(bodies) + 3 + 1
    scene.assert_verified()


def test_no_link_and_no_pipe_is_followed(scene) -> None:
    (scene.journal / f"enforcer0-{'1' * 16}-0.journal").symlink_to("/etc/passwd")
    os.mkfifo(scene.journal / f"enforcer0-{'2' * 16}-0.journal")
    (scene.journal / ".taken.new").symlink_to(scene.base / "elsewhere")
    scene.start()
    scene.turn(2)
    scene.host_event()
    scene.turn()
    scene.stop()
    assert not (scene.base / "elsewhere").exists()
    scene.assert_verified()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(
    st.binary(max_size=60),
    st.tuples(st.integers(0, 5), st.binary(max_size=60)).map(lambda pair: render_record(*pair)),
    st.lists(st.one_of(st.integers(0, 40), st.text(max_size=5), st.binary(max_size=5), st.none(), st.booleans()),
             max_size=25).map(lambda items: render_record(EVENT, msgspec.msgpack.encode(items))),
), max_size=12))
def test_hostile_journals_stop_nothing(make_scene, tmp_path_factory, pieces) -> None:
    scene = make_scene(tmp_path_factory.mktemp("hostile"))
    try:
        (scene.journal / f"enforcer0-{'3' * 16}-0.journal").write_bytes(b"".join(pieces))
        scene.start()
        scene.turn(2)
        scene.stop()
        scene.assert_verified()
    finally:
        scene.close()
        shutil.rmtree(scene.base)


def test_files_that_never_got_their_name_are_cleared_away(scene) -> None:
    old, young = (scene.journal / f".enforcer0-{'4' * 16}-{number}.journal.new" for number in (0, 1))
    for path in (old, young):
        path.write_bytes(b"")
    os.utime(old, (1, 1))
    scene.start()
    scene.turn()
    assert (old.exists(), young.exists()) == (False, True)


def test_one_recorder_at_a_time(scene) -> None:
    lock = take_lock(scene.recording, 0)
    with pytest.raises(RecordingError, match="another recorder"):
        take_lock(scene.recording, 0.1)
    os.close(lock)
    os.close(take_lock(scene.recording, 0))


@pytest.mark.parametrize("statement", [
    "UPDATE state SET head = zeroblob(32)", "DELETE FROM event WHERE seq = 2",
    "UPDATE checkpoint SET head = zeroblob(32)",
    "UPDATE event SET body = zeroblob(9) WHERE seq = (SELECT max(seq) FROM event)"])
def test_a_changed_recording_is_not_gone_on_with(scene, statement) -> None:
    writer = scene.writer()
    scene.start()
    scene.turn()
    if "checkpoint" in statement:
        scene.stop()
    else:
        scene.all_kinds(writer)
        scene.turn()
        scene.kill()
    db = sqlite3.connect(scene.files()[0])
    db.execute(statement)
    db.commit()
    db.close()
    with pytest.raises(RecordingError, match="changed"):
        scene.start()


def test_a_lost_key_is_not_made_anew(scene) -> None:
    scene.start()
    scene.turn()
    scene.stop()
    (scene.recording / "signing.key").unlink()
    with pytest.raises(RecordingError, match="put it back"):
        scene.start()


def test_the_process_ends_in_order_and_says_why_it_cannot(scene) -> None:
    process = scene.spawn()
    writer = scene.writer()
    scene.all_kinds(writer)
    until(lambda: scene.files() and (scene.journal / "taken").exists() and writer.backlog() == 0)
    second = scene.spawn()
    process.terminate()
    assert process.wait() == 0
    until(lambda: scene.names().count("recorder.started") == 2)
    second.terminate()
    assert second.wait() == 0
    for one in (process, second):
        assert one.stderr
        one.stderr.close()
    scene.assert_verified()
    assert not list(scene.recording.glob("*-wal"))
    (scene.recording / "signing.key").write_text("garbage")
    third = scene.spawn()
    assert b"holds no key" in third.communicate()[1]
    assert third.returncode == 1


def until(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("kills", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_takes_everything_once(scene, kills) -> None:
    chance = random.Random(kills)
    writer = scene.writer(segment=100_000)
    writer.append(scene.opened())
    process, number = scene.spawn("--checkpoint-seconds", "0.2", "--rotate-bytes", "400000"), 0
    try:
        for _ in range(kills):
            end = time.monotonic() + chance.uniform(0.15, 0.6)
            while time.monotonic() < end:
                for _ in range(20):
                    number += 1
                    writer.append(*scene.intent(number, text=b"SELECT %d" % (number % 50), parameters=b"%d" % number))
                    writer.append(*scene.result(number))
                writer.flush()
                time.sleep(0.002)
            process.kill()
            process.communicate()
            process = scene.spawn("--checkpoint-seconds", "0.2", "--rotate-bytes", "400000")
        writer.append(scene.closed())
        writer.flush()
        writer.sync()
        writer.close()
        until(lambda: not scene.journal_files(), 60)
        process.terminate()
        assert process.wait() == 0
    finally:
        process.kill()
        process.communicate()
    assert [row[0] for row in scene.rows("SELECT operation FROM intent ORDER BY seq")] == list(range(1, number + 1))
    assert [row[0] for row in scene.rows("SELECT operation FROM result ORDER BY seq")] == list(range(1, number + 1))
    assert scene.rows("SELECT * FROM gap") == []
    report = scene.assert_verified()
    assert report.counts["files"] > 1
    assert "journal.blobs-missing" not in scene.names()


@pytest.mark.lab
def test_a_full_disk_loses_nothing(scene) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(scene.recording)], check=True)
    process = None
    try:
        writer = scene.writer()
        process = scene.spawn()
        for number in range(6000):
            writer.append(*scene.intent(number, parameters=b"%d" % number))
        writer.flush()
        assert process.wait() == 1
        assert b"full" in process.communicate()[1]
        subprocess.run(["mount", "-o", "remount,size=64m", str(scene.recording)], check=True)
        process = scene.spawn()
        until(lambda: (scene.journal / "taken").exists() and writer.backlog() == 0)
        process.terminate()
        assert process.wait() == 0
        assert [row[0] for row in scene.rows("SELECT operation FROM intent ORDER BY seq")] == list(range(6000))
        scene.assert_verified()
    finally:
        if process is not None:
            process.kill()
            process.communicate()
        subprocess.run(["umount", "-l", str(scene.recording)], check=True)


@pytest.mark.lab
def test_a_full_journal_disk(scene) -> None:
    """What a flush said is written is recorded once; what it said is not, is at most told as withdrawn."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(scene.journal)], check=True)
    try:
        writer, written, failed = scene.writer(segment=100_000), [], []
        scene.start()
        for number in range(400):
            batch = range(number * 10, number * 10 + 10)
            for one in batch:
                writer.append(*scene.intent(one, parameters=b"%d" % one * 20))
            try:
                writer.flush()
                written += batch
            except RecordingError:
                failed += batch
                scene.turn(2)         # deletes what has ended
                writer.sync()         # lets go of deleted files
                scene.turn()
        scene.turn(5)
        scene.stop()
        assert len(failed) >= 10
        taken = [row[0] for row in scene.rows("SELECT operation FROM intent ORDER BY seq")]
        assert [one for one in taken if one not in set(failed)] == written
        assert len(set(taken)) == len(taken)
        scene.assert_verified()
    finally:
        scene.close()
        scene.recorder, scene.writers = None, []
        subprocess.run(["umount", "-l", str(scene.journal)], check=True)


@pytest.mark.lab
def test_a_full_journal_disk_of_the_agents(scene) -> None:
    """A record of a write that failed may have been read: what follows is in another file, and nothing waits for it."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(scene.journal)], check=True)
    journal, written, failed, files = Journal(scene.journal, os.getgid()), [], 0, set()
    try:
        scene.start()
        for number in range(400):
            lines = [make_event("connect", "crew", {"number": number, "pad": "x" * 200}) for _ in range(10)]
            try:
                journal.record_all(lines)
                written.append(number)
                files |= set(scene.journal.glob("agent-*"))
            except JournalError:
                failed += 1
                scene.turn(3)
        journal.close()
        scene.turn(5)
        scene.stop()
        taken = [int(json.loads(row[0])["number"]) for row in scene.rows(
            "SELECT detail FROM host_event WHERE name = 'connect' ORDER BY seq")]
        assert failed >= 3
        assert len(files) >= 3
        assert [number for number in dict.fromkeys(taken) if number in written] == written
        assert all(taken.count(number) == 10 for number in written)
        assert not list(scene.journal.glob("agent-*"))
        scene.assert_verified()
    finally:
        journal.close()
        scene.close()
        scene.recorder = None
        subprocess.run(["umount", "-l", str(scene.journal)], check=True)


def test_a_reader_keeps_an_old_file_open_over_a_rotation(scene, monkeypatch) -> None:
    monkeypatch.setattr(store, "BUSY", 10)
    scene.all_kinds(scene.writer())
    scene.start()
    scene.turn()
    reader = sqlite3.connect(scene.files()[0], isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM event").fetchone()
    scene.recorder._rotate()
    scene.turn()
    first = scene.files()[0]
    assert first.with_name(first.name + "-wal").exists()
    scene.assert_verified()
    reader.execute("COMMIT")
    reader.close()
    scene.recorder._due["older"] = 0.0
    scene.turn()
    assert not first.with_name(first.name + "-wal").exists()
    scene.stop()
    scene.assert_verified()
