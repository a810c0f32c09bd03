"""Places that are no recording, as somebody types them: a sentence, the documented exit code, never a traceback."""
from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from enforcer.recording.cli import group

READING = {
    "sessions": ("sessions", "--recording"), "replay": ("replay", "S1", "--recording"),
    "search": ("search", "x", "--recording"), "erase": ("erase", "--session", "S1", "--reason", "x", "--recording"),
    "export": ("export", "--session", "S1", "-o", "OUT", "--recording"),
    "csv": ("export", "--format", "csv", "-o", "OUT", "--recording"),
}


def run(*arguments: object, code: int) -> str:
    """What it says on stderr."""
    result: Result = CliRunner().invoke(group, [str(one) for one in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.stderr


def make(tmp_path: Path, what: str) -> Path:
    place = tmp_path / what.replace(" ", "-")
    if what == "text":
        place.write_text("hello, this is a text and not a recording at all\n")
    elif what == "empty file":
        place.touch()
    elif what == "another database":
        db = sqlite3.connect(place)
        db.execute("CREATE TABLE notes (text)")
        db.commit()
        db.close()
    elif what == "another format":
        db = sqlite3.connect(place)
        db.execute("CREATE TABLE file (format, recording, number, seq_before, head_before, closed, public_key)")
        db.execute("INSERT INTO file (format) VALUES (7)")
        db.commit()
        db.close()
    elif what == "pipe":
        os.mkfifo(place)
    elif what == "loop":
        place.symlink_to(place)
    elif what == "empty directory":
        place.mkdir()
    elif what == "directory of directories":
        (place / "recording-20260101T000000Z-1.sqlite").mkdir(parents=True)
    elif what == "directory of texts":
        place.mkdir()
        (place / "recording-20260101T000000Z-1.sqlite").write_text("hello")
    return place


PLACES = {
    "missing": "there is no", "text": "is no recording: not an SQLite file",
    "empty file": "is empty, and so no recording",
    "another database": "is no recording, but some other SQLite file", "another format": "not a recording of format 1",
    "pipe": "is not a regular file", "loop": "symbolic links", "empty directory": "holds no recording",
    "directory of directories": "is a directory, not a file",
    "directory of texts": "is no recording: not an SQLite file",
}


@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize(("what", "wanted"), PLACES.items())
def test_reading_what_is_no_recording(tmp_path: Path, command: str, what: str, wanted: str) -> None:
    place = make(tmp_path, what)
    arguments = [str(tmp_path / "out") if one == "OUT" else one for one in READING[command]]
    said = run(*arguments, place, code=1)
    if command == "erase" and place.is_file():
        wanted = "name its directory"
    assert wanted in said
    assert str(place) in said
    assert "Errno" not in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("what", "wanted"), PLACES.items())
def test_verifying_what_is_no_recording(tmp_path: Path, what: str, wanted: str) -> None:
    place = make(tmp_path, what)
    for arguments in (("verify", place), ("verify", "--recording", place), ("verify", "--json", place)):
        said = run(*arguments, code=2)
        assert wanted in said
        assert str(place) in said
        assert len(said.splitlines()) == 1


def test_keys_and_expectations_that_are_none(told_file: Path) -> None:
    assert "nokey: No such file or directory" in run("verify", told_file, "--key", "nokey", code=2)
    assert "no Ed25519 public key" in run("verify", told_file, "--key", __file__, code=2)
    assert "not SEQ:HEAD" in run("verify", told_file, "--expect", "x", code=2)
    assert "invalid literal" not in run("verify", told_file, "--expect", "x:" + "0" * 64, code=2)


@pytest.fixture
def told_file(scene) -> Path:
    """The only file of a closed recording."""
    scene.all_kinds(scene.writer())
    scene.start()
    scene.turn(2)
    scene.stop()
    return scene.files()[0]


def test_a_place_that_may_not_be_written(told_file: Path, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    for form in ("sqlite", "ndjson", "csv"):
        for out, wanted in ((tmp_path / "there", "File exists"), (tmp_path / "none" / "x", "No such file")):
            said = run("export", "--session", "S1", "--format", form, "-o", out, "--recording", told_file, code=1)
            assert f"{out}: {wanted}" in said
    assert "standard output" in run("export", "--session", "S1", "-o", "-", "--recording", told_file, code=2)


def test_one_file_is_read_as_a_recording(told_file: Path, tmp_path: Path) -> None:
    """An export, say; a file of a live recording is read with a note as its directory is."""
    assert "S1" in CliRunner().invoke(group, ["sessions", "--recording", str(told_file)]).stdout
    assert len(list((told_file.parent / "reads").iterdir())) == 1
    out = tmp_path / "away" / "s1.sqlite"
    out.parent.mkdir()
    run("export", "--session", "S1", "-o", out, "--recording", told_file, code=0)
    assert "opened local:zoë" in CliRunner().invoke(group, ["replay", "S1", "--recording", str(out)]).stdout


@pytest.mark.parametrize("command", ["sessions", "replay", "csv"])
def test_a_recording_that_was_broken(told_file: Path, tmp_path: Path, command: str) -> None:
    with closing(sqlite3.connect(told_file)) as db, db:
        db.execute("UPDATE event SET body = x'ff'")
        db.execute("UPDATE result SET payload = 'x'")
        db.execute("UPDATE session_opened SET at = 'x', pid = NULL")
    arguments = [str(tmp_path / "out") if one == "OUT" else one for one in READING[command]]
    assert "weir verify" in run(*arguments, told_file, code=1)
    run("verify", told_file, code=1)
