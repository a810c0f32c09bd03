"""What flows is recorded, read, exported, erased and verified as all else is."""
from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import tapes
from click.testing import CliRunner

from enforcer.recording import schema
from enforcer.recording.cli import group
from enforcer.words import events


def run(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(group, [str(one) for one in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture
def taped(scene: Any) -> Any:
    tapes.write_session(scene, scene.writer())
    scene.start()
    scene.turn(2)
    return scene


def test_views(taped: Any) -> None:
    rows = taped.rows("SELECT session, operation, stream, bytes, kept, sha256 FROM streams ORDER BY seq")
    out = b"".join(content for _, stream, content in tapes.TERMINAL if stream == "out")
    assert ("S1", 1, "out", len(out), len(out), sha256(out).hexdigest()) in rows
    assert {(row[1], row[2]) for row in rows} == {(1, "in"), (1, "out"), (2, "in"), (2, "out"), (2, "err")}
    assert taped.rows("SELECT session, name, value FROM notes") == [("S1", "shared", "two clients")]
    taped.assert_verified()


def test_a_piece_is_bounded(taped: Any) -> None:
    writer = taped.writer()
    writer.append(*tapes.streamed("out", b"x" * events.PIECE, at=taped.at, session="S2"))
    writer.append(*tapes.streamed("out", b"x" * (events.PIECE + 1), at=taped.at, session="S2"))
    writer.flush()
    taped.turn(2)
    assert taped.rows("SELECT bytes FROM streamed WHERE session = 'S2'") == [(events.PIECE,)]
    assert "journal.malformed" in taped.names()


@pytest.mark.parametrize("change", [
    "UPDATE streamed SET bytes = bytes + 1 WHERE stream = 'out'", "UPDATE streamed SET content = content + 1",
    "UPDATE streamed SET stream = 'err' WHERE stream = 'out'", "DELETE FROM streamed WHERE stream = 'size'",
    "UPDATE stream_ended SET kept = 0", "UPDATE stream_ended SET sha256 = NULL WHERE operation = 2 AND stream = 'err'",
    "UPDATE session_noted SET value = 'one'"])
def test_a_changed_row_is_found(taped: Any, change: str) -> None:
    taped.stop()
    taped.assert_verified()
    [path] = taped.files()
    db = sqlite3.connect(path)
    db.execute(change)
    db.commit()
    db.close()
    assert taped.verify().problems


def test_a_crash_closes_a_session_with_its_streams(scene: Any, quick: None) -> None:
    writer = scene.writer()
    tapes.write_session(scene, writer, end=False)
    scene.start()
    scene.turn(2)
    os.close(writer._fd)              # its process is gone, and the lock with it
    writer._fd = -1
    scene.turn(4)
    assert scene.rows("SELECT session, operations FROM gap") == [("S1", "[1,2]")]
    assert scene.rows("SELECT session FROM session_closed") == [("S1",)]
    assert scene.rows("SELECT * FROM live") == []
    scene.assert_verified()
    assert "out" in run("replay", "S1", "--recording", scene.recording).stdout


def test_a_recording_of_before_goes_on(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is closed, the next one has the tables; both are read, exported and verified together."""
    new = ("streamed", "stream_ended", "session_noted", "streams", "notes")
    with monkeypatch.context() as earlier:
        earlier.setattr(schema, "SCHEMA", tuple(
            one for one in schema.SCHEMA if not any(f" {name} " in one for name in new)))
        for kind in (events.STREAMED, events.STREAM_ENDED, events.SESSION_NOTED):
            earlier.delitem(schema.SPOKEN, kind)
        writer = scene.writer()
        writer.append(scene.opened())
        writer.append(*scene.intent(1))
        writer.append(*scene.result(1))
        writer.flush()
        scene.start()
        scene.turn(2)
        scene.stop()
    assert not [row for row in scene.rows("SELECT name FROM sqlite_master") if row[0] in new]
    scene.start()
    for one in tapes.flow((0, "size", b"80x24"), (5, "out", b"found later"), at=scene.at, operation=2):
        writer.append(*one)
    writer.flush()
    scene.turn(2)
    assert len(scene.files()) == 2
    shown = run("replay", "S1", "--recording", scene.recording).stdout
    assert "SELECT 1" in shown
    assert "found later" in shown
    assert "found later" in run("search", "found", "--recording", scene.recording).stdout
    run("export", "--session", "S1", "-o", scene.base / "out.sqlite", "--recording", scene.recording)
    scene.assert_verified()


def test_a_transcript_shows_streams_apart(taped: Any) -> None:
    shown = run("replay", "S1", "--recording", taped.recording).stdout
    assert "\x1b" not in shown
    assert "noted shared: two clients" in shown
    assert "\\x1b]52;c;ZXZpbA==" in shown
    assert "grüße" in shown           # cut within a character, by two pieces
    wanted = ["in select 1;", "out one     two", "err warning: \\x1b[31mdisk full", "out three", "in ends: 10 B",
              f"SHA-256 {sha256(b'select 1;' + bytes([10])).hexdigest()}"]
    shown = shown[shown.index("exec psql -c -"):]
    places = [shown.index(one) for one in wanted]
    assert places == sorted(places)
    only = run("replay", "S1", "--operation", 2, "--recording", taped.recording).stdout
    assert "disk full" in only
    assert "notes" not in only


def test_json(taped: Any) -> None:
    found = json.loads(run("replay", "S1", "--json", "--recording", taped.recording).stdout)
    pieces = [one for one in found if one["type"] == "streamed" and one["stream"] == "out"]
    assert pieces[0]["content"].startswith("\x1b]0;agent@db-1")
    cut = next(one for one in pieces if one["content"] is None)
    assert cut["base64"].endswith("yww==")
    assert [one["kept"] for one in found if one["type"] == "stream_ended"][-1] == 28
    assert {one["name"] for one in found if one["type"] == "session_noted"} == {"shared"}


def test_exports(taped: Any, tmp_path: Path) -> None:
    run("export", "--session", "S1", "-o", tmp_path / "one.sqlite", "--recording", taped.recording)
    report = taped.verify(tmp_path / "one.sqlite")
    assert report.problems == []
    db = sqlite3.connect(tmp_path / "one.sqlite")
    assert db.execute("SELECT count(*) FROM streamed").fetchone() == (len(tapes.TERMINAL) + len(tapes.EXEC),)
    assert db.execute("SELECT count(*) FROM streamed WHERE content IS NULL").fetchone() == (0,)
    db.close()
    text = run("export", "--format", "csv", "-o", "-", "--recording", taped.recording).stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[1]["streams"].startswith(f"in 10/10 {sha256(b'select 1;' + bytes([10])).hexdigest()}; out 14/14 ")
    lines = run("export", "--format", "ndjson", "-o", "-", "--recording", taped.recording).stdout.splitlines()
    assert sum('"streamed"' in one for one in lines) == len(tapes.TERMINAL) + len(tapes.EXEC)


def test_erasing(taped: Any) -> None:
    taped.stop()
    assert taped.rows("SELECT body FROM blob WHERE instr(body, CAST('disk full' AS BLOB))")
    run("erase", "--session", "S1", "--operation", 2, "--reason", "secret", "--recording", taped.recording)
    assert not taped.rows("SELECT body FROM blob WHERE instr(body, CAST('disk full' AS BLOB))")
    whole = sha256(b"select 1;\n").hexdigest().encode()
    assert not taped.rows("SELECT body FROM blob WHERE body = ?", whole)       # it would tell who guesses
    shown = run("replay", "S1", "--recording", taped.recording).stdout
    assert "err (erased)" in shown
    assert "grüße" in shown
    taped.assert_verified()
    cast = run("export", "--format", "asciicast", "--session", "S1", "-o", "-", "--recording", taped.recording).stdout
    assert "notes" in cast
