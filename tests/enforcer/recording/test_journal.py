"""The enforcer's end of the journal, over real files."""
from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from zlib import crc32

import msgspec
import pytest

from agent.contract.journal import BLOB, END, EVENT, HEADER
from enforcer.hot.chain import make_digest
from enforcer.recording import journal
from enforcer.recording.journal import JournalWriter
from enforcer.words import events
from enforcer.words.errors import RecordingError

INSTANCE = "0123456789abcdef"


def make(directory: Path, **options) -> JournalWriter:
    return JournalWriter(directory, "enforcer0", INSTANCE, **{"limit": 1 << 20, "reserve": 0, **options})


def closed(number: int) -> events.SessionClosed:
    return events.SessionClosed(events.SESSION_CLOSED, 1, 2, "S", "client closed", number, 0, 0)


def records(path: Path) -> list[tuple[int, bytes]]:
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        kind, size, crc = HEADER.unpack_from(data, at)
        body = data[at + HEADER.size:at + HEADER.size + size]
        assert crc == crc32(body, crc32(data[at:at + 5]))
        assert len(body) == size
        found.append((kind, body))
        at += HEADER.size + size
    return found


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.journal"))


def blob(salt: bytes, content: bytes) -> events.Blob:
    return make_digest(salt, content), salt, content


def test_what_is_flushed_is_framed(tmp_path: Path) -> None:
    writer = make(tmp_path)
    salt, text = b"s" * 16, b"SELECT 1"
    writer.append(closed(1), (blob(salt, text),))
    assert records(files(tmp_path)[0]) == []
    writer.flush()
    writer.append(closed(2), (blob(salt, text),))
    writer.flush()
    writer.sync()
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == [f"enforcer0-{INSTANCE}-0.journal"]
    assert records(files(tmp_path)[0]) == [
        (BLOB, salt + text), (EVENT, events.render_event(closed(1))), (EVENT, events.render_event(closed(2))),
        (END, b"")]


def test_the_next_file_is_there_before_the_end_of_the_last_and_holds_its_blobs(tmp_path: Path) -> None:
    writer = make(tmp_path, segment=200)
    salt, text = b"s" * 16, b"SELECT 1"
    for number in range(20):
        writer.append(closed(number), (blob(salt, text),))
        writer.flush()
    names = sorted(tmp_path.glob("*.journal"), key=lambda path: int(path.stem.split("-")[2]))
    found = [records(path) for path in names]
    assert len(found) > 3
    assert all(one[-1] == (END, b"") for one in found[:-1])
    assert all(one[0][0] == BLOB for one in found if one)
    assert [msgspec.msgpack.decode(body)[5] for one in found for kind, body in one if kind == EVENT] == list(range(20))
    writer.sync()
    writer.close()


def test_the_lock_tells_whether_the_writer_lives(tmp_path: Path) -> None:
    program = ("import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path\n"
               "from enforcer.recording.journal import JournalWriter\n"
               "w = JournalWriter(Path(sys.argv[1]), 'enforcer0', '0123456789abcdef', limit=1, reserve=0)\n"
               "print('up', flush=True); sys.stdin.read()")
    root = str(Path(__file__).resolve().parents[3])
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path), root], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline()
        fd = os.open(files(tmp_path)[0], os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        child.kill()
        child.wait()
    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.close(fd)


def test_a_failed_write_is_cut_off_and_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = make(tmp_path)
    salt, text = b"s" * 16, b"SELECT 1"
    writer.append(closed(1))
    writer.flush()
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) < 60:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, bytes(data)[:-7])

    monkeypatch.setattr(journal.os, "write", full)
    writer.append(closed(2), (blob(salt, text),))
    with pytest.raises(RecordingError, match="No space"):
        writer.flush()
    monkeypatch.undo()
    writer.flush()
    writer.append(closed(3), (blob(salt, text),))
    writer.flush()
    writer.sync()
    first, second = (records(path) for path in files(tmp_path))
    assert first == [(EVENT, events.render_event(closed(1)))]
    assert second == [(BLOB, salt + text), (EVENT, events.render_event(closed(3)))]
    writer.close()


def test_after_a_failed_sync_another_file_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = make(tmp_path)

    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(journal.os, "fdatasync", broken)
    writer.append(closed(1))
    writer.flush()
    with pytest.raises(RecordingError, match="Input/output"):
        writer.sync()
    monkeypatch.undo()
    writer.append(closed(2))
    writer.flush()
    writer.close()
    assert [len(records(path)) for path in files(tmp_path)] == [2, 2]


def test_backlog_and_bounds(tmp_path: Path) -> None:
    now = [0.0]
    writer = make(tmp_path, limit=100, clock=lambda: now[0])
    name = f"enforcer0-{INSTANCE}-0.journal"
    assert writer.backlog() == 0
    for number in range(10):
        writer.append(closed(number))
    writer.flush()
    assert writer.backlog() == 0                   # for a moment
    now[0] += 1
    size = (tmp_path / name).stat().st_size
    assert writer.backlog() == size
    with pytest.raises(RecordingError, match="wait for the recorder"):
        writer.check()
    (tmp_path / "taken").write_bytes(msgspec.msgpack.encode({name: size - 50}))
    now[0] += 1
    writer.check()
    assert writer.backlog() == 50
    for garbage in (b"\xff garbage", b"\x81\xa1\xff\x01"):      # the second: text that is no UTF-8
        (tmp_path / "taken").write_bytes(garbage)
        now[0] += 1
        with pytest.raises(RecordingError):
            writer.check()
    greedy = JournalWriter(tmp_path, "enforcer1", INSTANCE, limit=100, reserve=1 << 60)
    with pytest.raises(RecordingError, match="reserve"):
        greedy.check()
    greedy.close()
    writer.close()


def test_what_is_too_large_is_refused_whole(tmp_path: Path) -> None:
    writer = make(tmp_path)
    with pytest.raises(RecordingError):
        writer.append(closed(1), (blob(b"s" * 16, b"a"), blob(b"s" * 15, b"b")))
    with pytest.raises(RecordingError):
        writer.append(closed(1), (blob(b"s" * 16, b"x" * (32 << 20)),))
    writer.flush()
    assert records(files(tmp_path)[0]) == []
    writer.append(closed(1), (blob(b"s" * 16, b"a"),))
    writer.flush()
    assert records(files(tmp_path)[0])[0] == (BLOB, b"s" * 16 + b"a")
    writer.close()


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="No such file"):
        make(tmp_path / "nowhere")
    with pytest.raises(RecordingError, match="no name"):
        JournalWriter(tmp_path, "../enforcer", INSTANCE, limit=1, reserve=0)
