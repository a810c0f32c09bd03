"""Reading, exporting and erasing: the commands, over real files, as the users who would."""
from __future__ import annotations

import csv
import json
import os
import pwd
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from sources import copy_sources

from enforcer.recording import erasing, notes, store
from enforcer.recording.cli import group
from enforcer.recording.read import forwarded_by_backend, forwarded_digest, open_recording
from enforcer.recording.replay import plain
from enforcer.words import events
from enforcer.words.errors import RecordingError

ROOT = Path(__file__).resolve().parents[3]


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(group, [str(one) for one in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture
def told(scene):
    """Two sessions, recorded; the recorder is still at it."""
    writer = scene.writer()
    scene.all_kinds(writer, "S1")
    scene.all_kinds(writer, "S2")
    scene.start()
    scene.turn(2)
    return scene


def test_sessions(told) -> None:
    found = json.loads(run("sessions", "--json", "--recording", told.recording).stdout)
    assert [one["session"] for one in found] == ["S1", "S2"]
    assert (found[0]["operations"], found[0]["held"], found[0]["subject"]) == (2, 1, "local:zoë")
    assert found[0]["opened_utc"].endswith("Z")
    assert "local:zoë" in run("sessions", "--recording", told.recording).stdout


def test_sessions_are_whole_where_there_is_no_terminal(told, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    head, first, _ = run("sessions", "--recording", told.recording).stdout.splitlines()
    assert head.split() == ["SESSION", "OPENED", "SECONDS", "WHO", "WORKLOAD", "WHERE", "OPERATIONS", "DENIED",
                            "HELD", "OUT", "END"]
    assert "local:zoë" in first


def test_nothing_is_said_to_be_nothing(told, scene, tmp_path: Path) -> None:
    assert "no session is recorded yet" not in run("sessions", "--recording", told.recording).output
    assert run("search", "nothinglikethis", "--recording", told.recording).output == (
        "nothing holds every one of these words\n")
    for command in (("sessions",), ("replay", "S1"), ("search", "x")):
        said = run(*command, "--recording", tmp_path / "nowhere", code=1).output
        assert "there is no recording; it begins when the agent first starts" in said
    assert "there is no recording" in run("verify", "--recording", tmp_path / "nowhere", code=2).output


def test_a_replay_obeys_nothing_that_was_recorded(told) -> None:
    writer = told.writers[0]
    writer.append(told.opened("S3", application="\x1b[2J", subject="local:[red]x[/red]"))
    writer.append(*told.intent(1, "S3", b"SELECT '\x1b]0;title\x07' \xff[bold]"))
    writer.flush()
    told.turn()
    shown = run("replay", "S3", "--recording", told.recording).stdout
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\\x1b]0;title\\x07" in shown
    assert "[red]x[/red]" in shown
    assert plain("a\u202eb\x9bc\nd") == "a\\x202eb\\x9bc d"


def test_replay(told) -> None:
    shown = run("replay", "S1", "--recording", told.recording).stdout
    for piece in ("opened local:zoë", "permit", "hold pending T1", "rechte nicht da", "asks sql:select public.orders",
                  "masked pii.email", "gap", "closed", "\n               row\n", "with 'x', null"):
        assert piece in shown, piece
    found = json.loads(run("replay", "S2", "--json", "--recording", told.recording).stdout)
    assert [one["type"] for one in found] == [
        "session_opened", "intent", "result", "intent", "hold", "result", "gap", "streamed", "session_noted",
        "streamed", "stream_ended", "session_closed"]
    assert found[1]["parameters"] == ["x", None]
    assert found[1]["decision"] == "permit"
    run("replay", "S", "--recording", told.recording, code=1)
    run("replay", "nothing", "--recording", told.recording, code=1)


def test_search(told) -> None:
    found = json.loads(run("search", "delete", "FROM", "--json", "--recording", told.recording).stdout)
    assert [(one["session"], one["operation"]) for one in found] == [("S2", 2), ("S1", 2)]
    assert "refused" in run("search", "no", "--recording", told.recording).stdout
    found = json.loads(run("search", "10.0.0.9", "/bin/nc", "--json", "--recording", told.recording).stdout)
    assert {one["destination"] for one in found} == {"10.0.0.9 22"}, "by where it wanted to go, and what wanted it"
    assert json.loads(run("search", "xyzzy", "--json", "--recording", told.recording).stdout) == []


def test_reading_is_an_event(told) -> None:
    run("sessions", "--recording", told.recording)
    run("replay", "S1", "--recording", told.recording)
    told.turn()
    rows = told.rows("SELECT name, detail FROM recorder_event")
    read = [json.loads(detail) for name, detail in rows if name == "read"]
    mine = str(os.getuid())
    assert sorted((one["what"], one["uid"]) for one in read) == [("session", mine), ("sessions", mine)]
    assert list((told.recording / "reads").iterdir()) == []


def test_hostile_notes(told) -> None:
    spool = told.recording / "reads"
    name = "note-" + "0" * 31
    (spool / f"{name}1").write_bytes(b"garbage")
    (spool / f"{name}2").symlink_to("/etc/passwd")
    os.mkfifo(spool / f"{name}3")
    (spool / f"{name}4").mkdir()
    (spool / f"{name}5").write_bytes(b"x" * (notes.LIMIT + 1))
    (spool / f"{name}6").write_bytes(msgspec.msgpack.encode(notes.Note("recorder.started", {})))
    (spool / "something").write_bytes(b"")
    os.link(told.recording / "signing.pub", spool / f"{name}7")
    told.turn(2)
    assert told.names().count("note.malformed") == 7
    assert [one.name for one in spool.iterdir() if not one.name.startswith(".bad")] == []
    assert (told.recording / "signing.pub").exists()
    told.stop()
    told.assert_verified()


def test_a_reader_who_cannot_leave_a_note_is_shown_nothing(told, monkeypatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(notes.os, "open", refuse)
    result = run("sessions", "--recording", told.recording, code=1)
    assert "reading is recorded" in result.output
    assert "S1" not in result.stdout


AS_AUDITOR = """
import os, sys
os.setgroups([{gid}]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
sys.path[:0] = {path!r}
from enforcer.recording.cli import group
group({arguments!r})
"""


def as_auditor(gid: int, code: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    program = AS_AUDITOR.format(gid=gid, path=[str(code), *sys.path], arguments=[str(one) for one in arguments])
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def killed(scene, audit: pwd.struct_passwd) -> None:
    """A recorder that took everything, and then kill -9."""
    child = os.fork()
    if child == 0:
        os.setresgid(audit.pw_gid, audit.pw_gid, audit.pw_gid)
        os.setresuid(audit.pw_uid, audit.pw_uid, audit.pw_uid)
        scene.start()
        scene.turn(2)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@pytest.mark.lab
@pytest.mark.parametrize("state", ["running", "killed", "closed", "stopped"])
def test_an_auditor_without_root(make_scene, state: str) -> None:
    """Another uid, member of the auditors' group, no right to write: live, after kill -9 and after an orderly end."""
    audit = pwd.getpwnam("weir-audit")
    base = Path(subprocess.run(["mktemp", "-d", "/var/tmp/weir-read.XXXXXX"], capture_output=True, text=True,
                               check=True).stdout.strip())
    base.chmod(0o755)
    code = copy_sources(base / "code")
    scene = make_scene(base)
    os.chown(scene.recording, audit.pw_uid, audit.pw_gid)
    scene.recording.chmod(0o2750)
    os.chown(scene.journal, audit.pw_uid, audit.pw_gid)
    before = os.umask(0o027)
    try:
        scene.all_kinds(scene.writer())
        if state == "killed":
            killed(scene, audit)
        else:
            os.setegid(audit.pw_gid)
            os.seteuid(audit.pw_uid)
            scene.start()
            scene.turn(2)
            if state == "closed":     # in WAL mode, but without -wal
                scene.kill()
            elif state == "stopped":
                scene.stop()
            os.seteuid(0)
            os.setegid(0)
        assert bool(list(scene.recording.glob("*-wal"))) == (state in ("running", "killed"))
        done = as_auditor(audit.pw_gid, code, "sessions", "--json", "--recording", scene.recording)
        assert done.returncode == 0, done.stderr
        assert [one["session"] for one in json.loads(done.stdout)] == ["S1"]
        checked = as_auditor(audit.pw_gid, code, "verify", "--recording", scene.recording)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        [note] = (scene.recording / "reads").iterdir()
        assert note.stat().st_uid == 65534
        refused = as_auditor(
            audit.pw_gid, code, "erase", "--session", "S1", "--reason", "x", "--recording", scene.recording)
        assert "only root" in refused.stderr
        stranger = as_auditor(65534, code, "sessions", "--recording", scene.recording)
        assert stranger.returncode == 1
        assert "Permission denied" in stranger.stderr
        assert stat.S_IMODE((scene.recording / "signing.key").stat().st_mode) == 0o600
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o640 for path in scene.recording.glob("recording-*"))
        if state == "running":
            scene.turn()
            rows = scene.rows("SELECT name, detail FROM recorder_event")
            assert ("read", "65534") in [(name, json.loads(detail).get("uid")) for name, detail in rows]
    finally:
        os.seteuid(0)
        os.umask(before)
        scene.close()
        subprocess.run(["rm", "-rf", str(base)], check=True)


def test_an_export_verifies_and_holds_nothing_else(told, tmp_path: Path) -> None:
    told.recorder._store.checkpoint()
    told.recorder._commit()
    told.recorder._rotate()
    writer = told.writers[0]
    writer.append(*told.intent(8, "S1", b"SELECT 'later'"))
    writer.append(*told.intent(8, "S2", b"SELECT 'of another'"))
    writer.flush()
    told.turn()
    told.recorder._store.checkpoint()
    told.recorder._commit()
    out = tmp_path / "s1.sqlite"
    run("export", "--session", "S1", "-o", out, "--recording", told.recording)
    report = told.verify(out)
    assert report.problems == []
    assert report.counts["omitted"] > 3
    assert not any("not signed" in one for one in report.notes)
    db = sqlite3.connect(out)
    assert {row[0] for row in db.execute("SELECT session FROM intent")} == {"S1"}
    assert db.execute("SELECT count(*) FROM intent").fetchone() == (3,)
    db.close()
    assert b"of another" not in out.read_bytes()
    with store._connect(out) as db:
        db.execute("UPDATE intent SET decision = 1")
        db.commit()
    db.close()
    assert told.verify(out).problems
    run("export", "--session", "S1", "-o", out, "--recording", told.recording, code=1)
    run("export", "-o", tmp_path / "x", "--recording", told.recording, code=2)


def test_an_export_of_what_is_not_signed_yet(told, tmp_path: Path) -> None:
    out = tmp_path / "s1.sqlite"
    said = run("export", "--session", "S1", "-o", out, "--recording", told.recording).output
    assert "events are not signed yet" in said
    report = told.verify(out)
    assert (report.problems, report.code) == ([], 3)
    assert f"the last {report.counts['unsigned']} events" in said
    told.recorder._store.checkpoint()
    told.recorder._commit()
    said = run("export", "--session", "S1", "-o", tmp_path / "later.sqlite", "--recording", told.recording).output
    assert "not signed" not in said
    assert told.verify(tmp_path / "later.sqlite").code == 0
    writer = told.writer()
    writer.append(told.opened("S9"))
    writer.flush()
    told.turn()
    said = run("export", "--session", "S9", "-o", tmp_path / "s9.sqlite", "--recording", told.recording).output
    assert f"the last {told.verify(tmp_path / 's9.sqlite').counts['unsigned']} events" in said


@pytest.mark.parametrize("at", ["1e300", "-1e300", "1e18"])
def test_times_that_no_recorder_has_written(told, at: str) -> None:
    told.stop()
    path = told.files()[0]
    db = sqlite3.connect(path)
    db.execute(f"UPDATE session_opened SET at = {at}")
    db.commit()
    db.close()
    if at == "1e18":
        run("sessions", "--recording", path)
    else:
        assert "run `weir verify`" in run("sessions", "--recording", path, code=1).output


def test_an_export_does_not_take_the_name_of_a_recordings_file(told, tmp_path: Path) -> None:
    """`weir verify` would say that it poses as one."""
    out = tmp_path / "recording-s1.sqlite"
    done = run("export", "--session", "S1", "-o", out, "--recording", told.recording, code=1)
    assert "another name" in done.output
    assert not out.exists()


def test_ndjson_and_csv(told, tmp_path: Path) -> None:
    run("export", "--format", "ndjson", "-o", tmp_path / "all.ndjson", "--recording", told.recording)
    lines = [json.loads(line) for line in (tmp_path / "all.ndjson").read_text().rstrip("\n").split("\n")]
    assert [one["seq"] for one in lines] == list(range(1, len(lines) + 1))
    assert {"refused", "flow_opened", "recorder_event"} <= {one["type"] for one in lines}
    run("export", "--format", "csv", "--session", "S2", "-o", tmp_path / "s2.csv", "--recording", told.recording)
    with open(tmp_path / "s2.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["operation"], row["status"], row["parameters"]) for row in rows] == [
        ("1", "ok", '["x",null]'), ("2", "error", "")]


def test_verify_command(told) -> None:
    told.stop()
    done = run("verify", "--recording", told.recording)
    assert "verified: " in done.stdout
    assert "was taken from" in done.stdout
    seq, head = told.rows("SELECT seq_to, hex(head) FROM checkpoint")[-1]
    shown = json.loads(run("verify", told.recording, "--key", told.recording / "signing.pub", "--expect",
                           f"{seq}:{head}", "--json").stdout)
    assert (shown["verified"], shown["seq"]) == (True, seq)
    db = sqlite3.connect(told.files()[0])
    db.execute("UPDATE intent SET actor = 'weir'")
    db.commit()
    db.close()
    assert "NOT VERIFIED" in run("verify", "--recording", told.recording, code=1).stdout
    run("verify", told.base / "nowhere", code=2)


def test_forwarded_by_backend(scene) -> None:
    key = b"k" * 32
    writer = scene.writer()
    writer.append(scene.opened("S1", backend=7))
    for number, text in enumerate((b"SELECT 1", b"SELECT 2", b"SELECT 3", b"DROP"), 1):
        denied = text == b"DROP"
        writer.append(*scene.intent(number, text=text, decision=2 if denied else 1,
                                    forwarded=b"" if denied else forwarded_digest(key, text)))
    writer.append(*scene.result(1))
    writer.append(events.Gap(6, scene.at, 1, "S1", (2,), "gone"))
    writer.flush()
    scene.start()
    scene.turn()
    [(backend, found)] = forwarded_by_backend(scene.recording).items()
    assert backend == 7
    assert [(one.operation, one.digest, one.text, one.outcome) for one in found] == [
        (1, forwarded_digest(key, b"SELECT 1"), b"SELECT 1", "ok"),
        (2, forwarded_digest(key, b"SELECT 2"), b"SELECT 2", "gap"),
        (3, forwarded_digest(key, b"SELECT 3"), b"SELECT 3", "")]


def raw(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.glob("recording-*"))


def test_erasure_where_no_recorder_runs(told) -> None:
    secret = b"SELECT 'a secret that must go'"
    writer = told.writers[0]
    for session in ("S3", "S4"):
        writer.append(told.opened(session))
        writer.append(*told.intent(1, session, secret, b"\x91\xa6hidden"))
    writer.flush()
    told.turn()
    told.recorder._rotate()           # one copy in a closed file
    writer.append(*told.intent(2, "S4", secret))
    writer.flush()
    told.turn()
    told.stop()
    assert secret in raw(told.recording)
    run("erase", "--session", "S3", "--reason", "article 17", "--recording", told.recording)
    assert secret not in raw(told.recording)
    assert b"hidden" not in raw(told.recording)
    report = told.assert_verified()
    assert report.counts["erased"] == 3
    assert "(erased)" in run("replay", "S4", "--recording", told.recording).stdout
    assert told.rows("SELECT by, reason FROM erasure")[0][1] == "article 17"
    told.start()                      # the journal still holds the blob: it does not come back
    writer.append(*told.intent(3, "S4", secret))
    writer.flush()
    told.turn()
    told.stop()
    assert secret not in raw(told.recording)
    told.assert_verified()
    out = told.base / "out.sqlite"
    run("export", "--session", "S4", "-o", out, "--recording", told.recording)
    assert told.verify(out).problems == []


def test_erasure_by_a_recorder_that_runs(scene) -> None:
    writer = scene.writer()
    writer.append(scene.opened())
    writer.append(*scene.intent(1, text=b"SELECT 'a secret that must go'"))
    writer.flush()
    process = scene.spawn()
    try:
        while writer.backlog():
            pass
        run("erase", "--session", "S1", "--reason", "asked", "--recording", scene.recording)
        assert b"a secret" not in raw(scene.recording)
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 0
    assert scene.assert_verified().counts["erased"] == 1


def test_a_reader_in_the_way_of_an_erasure(told, monkeypatch) -> None:
    """It fails, says so, and the recorder goes on; asked for again it is done."""
    monkeypatch.setattr(store, "BUSY", 10)
    told.recorder._rotate()
    [gone] = {row[0] for row in told.rows("SELECT digest FROM blob WHERE size > 5000")}
    reader = sqlite3.connect(told.files()[0], isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM blob").fetchone()
    note = notes.Note("erase", {"reason": "x"}, (gone,))
    notes.leave_note(told.recording, note)
    told.turn()
    assert "erase.failed" in told.names()
    reader.execute("COMMIT")
    reader.close()
    notes.leave_note(told.recording, note)
    told.turn()
    assert erasing.count_left(told.recording, [gone]) == 0
    told.stop()
    told.assert_verified()


def test_only_the_owner_may_ask_for_an_erasure(told, monkeypatch) -> None:
    notes.leave_note(told.recording, notes.Note("erase", {"reason": "x"}, (b"d" * 32,)))
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    monkeypatch.setattr(notes, "_read", lambda path: (notes.Note("erase", {"reason": "x"}, (b"d" * 32,)), 1000))
    told.turn()
    monkeypatch.undo()
    assert "erase.refused" in told.names()
    with pytest.raises(RecordingError, match="nothing to erase"):
        erasing.erase(told.recording, (), "x")


def test_what_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="holds no recording"):
        open_recording(tmp_path)
    with pytest.raises(RecordingError, match="there is no such file"):
        open_recording(tmp_path / "nowhere")
    (tmp_path / "recording-20260101T000000Z-1.sqlite").write_bytes(b"garbage" * 500)
    with pytest.raises(RecordingError, match="not an SQLite file"):
        open_recording(tmp_path)
