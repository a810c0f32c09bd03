"""Every test is told of connections that it, or Weir, leaves open (tests/connections.py)."""
from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from connections import Watched, check_closed

from enforcer.recording.read import open_file
from enforcer.recording.store import open_store
from enforcer.words.errors import RecordingError

ROOT = Path(__file__).resolve().parents[3]
OTHERS = {"tests/vm/package.py", "tests/vm/package_after.py"}  # are closed as their process ends


def test_one_that_is_left_is_told_of(tmp_path: Path) -> None:
    before = Watched.made
    with closing(sqlite3.connect(tmp_path / "a")):
        check_closed(before)
    db = sqlite3.connect(tmp_path / "b")
    del db
    with pytest.raises(AssertionError, match=r"test_connections\.py:"):
        check_closed(before)


def test_with_alone_closes_none() -> None:
    """It commits."""
    found = [f"{file.relative_to(ROOT)}:{number}" for part in ("agent", "enforcer", "packaging", "probes", "tests")
             for file in (ROOT / part).rglob("*.py") if str(file.relative_to(ROOT)) not in OTHERS
             for number, line in enumerate(file.read_text().splitlines(), 1)
             if re.match(r"\s*(async )?with sqlite3\.connect\(", line)]
    assert found == []


def test_a_file_that_is_no_recording_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "recording-20261129T070000Z-1.sqlite"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE file (format, recording, number, made, closed, seq_before, public_key, head_before)")
        db.execute("INSERT INTO file (format) VALUES (7)")
    before = Watched.made
    with pytest.raises(RecordingError):
        open_file(path)
    check_closed(before)
    with pytest.raises(RecordingError):
        open_store(tmp_path, None)  # type: ignore[arg-type]
    check_closed(before)
