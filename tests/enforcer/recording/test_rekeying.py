"""Another signing key: either key vouches for the other, a forged change is refused, and whoever is killed at whatever
step leaves a recording that goes on and verifies."""
from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from enforcer.recording import rekeying, signing, store, weir_verify
from enforcer.recording.export import write_sqlite
from enforcer.recording.notes import Note, leave_note
from enforcer.recording.read import open_recording
from enforcer.recording.signing import load_signer
from enforcer.recording.store import list_files, newest_key
from enforcer.recording.verify import read_key

SCRIPT = Path(weir_verify.__file__)


@pytest.fixture
def scene(make_scene, tmp_path: Path):
    one = make_scene(tmp_path)
    yield one
    one.close()


def write(scene, session: str) -> None:
    writer = scene.writer()
    scene.all_kinds(writer, session)
    writer.close()
    scene.turn(2)


def verify(scene, *keys: bytes) -> tuple[int, list[str]]:
    """By the file that an auditor runs."""
    words = [word for key in keys for word in ("--key", key.hex())]
    done = subprocess.run([sys.executable, "-I", str(SCRIPT), "--json", *words, str(scene.recording)],
                          capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["problems"]


def changed(scene, times: int = 1) -> list[bytes]:
    """Public keys, the first one first."""
    scene.start()
    keys = [read_key(scene.recording / "signing.pub")]
    write(scene, "S0")
    for number in range(times):
        leave_note(scene.recording, Note("rekey", {"reason": "it is time"}))
        scene.turn()
        keys.append(read_key(scene.recording / "signing.pub"))
        write(scene, f"S{number + 1}")
    scene.stop()
    assert len(set(keys)) == times + 1
    return keys


def test_one_key_is_enough(scene) -> None:
    keys = changed(scene, 2)
    for key in keys:
        assert verify(scene, key) == (0, []), "whichever it is"
    assert verify(scene) == (0, [])
    code, problems = verify(scene, Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    assert code == 1
    assert all("not yours" in one or "signature is wrong" in one for one in problems)
    with closing(sqlite3.connect(list_files(scene.recording)[0])) as db, db:
        [detail] = db.execute("SELECT detail FROM recorder_event WHERE name = 'key.changed'").fetchone()
    said = json.loads(detail)
    assert (said["before"], said["after"], said["reason"]) == (keys[0].hex(), keys[1].hex(), "it is time")
    assert (scene.recording / "signing.key").stat().st_mode & 0o777 == 0o600
    assert not (scene.recording / "signing-next.key").exists()


def test_a_session_goes_on_over_it(scene) -> None:
    scene.start()
    writer = scene.writer()
    writer.append(scene.opened("S1"))
    writer.append(*scene.intent(1, "S1"))
    writer.flush()
    scene.turn()
    leave_note(scene.recording, Note("rekey", {}))
    scene.turn()
    writer.append(*scene.result(1, "S1"))
    writer.append(scene.closed("S1"))
    writer.flush()
    scene.turn()
    writer.close()
    scene.turn(2)
    scene.stop()
    assert verify(scene)[0] == 0
    assert len(list_files(scene.recording)) == 2
    assert not scene.rows("SELECT * FROM gap")


def test_files_that_are_signed_by_another_key(scene) -> None:
    """Somebody makes the file after the change anew, with the key before or one of his own: neither is right."""
    keys = changed(scene)
    [first, last] = list_files(scene.recording)
    with closing(sqlite3.connect(last)) as db, db:
        db.execute("UPDATE file SET public_key = ?", (keys[0],))
    code, problems = verify(scene, keys[0])
    assert code == 1
    assert f"{last.name} is not signed by the key that {first.name} says" in problems
    assert verify(scene)[0] == 1, "without a key as well"
    forged = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    with closing(sqlite3.connect(last)) as db, db:
        db.execute("UPDATE file SET public_key = ?", (forged,))
    assert verify(scene, keys[0])[0] == verify(scene, keys[1])[0] == verify(scene)[0] == 1


@pytest.mark.parametrize("half", ["before", "after"])
def test_a_forged_change(scene, monkeypatch, half: str) -> None:
    """Who has one of the keys only, and the whole recording, cannot make the change: both sign it."""
    honest = signing.Signer.sign_change

    def forge(self, recording: bytes, following, at: int) -> dict[str, str]:
        own = signing.Signer(Ed25519PrivateKey.generate())
        said = honest(self, recording, following, at)
        text = signing.render_change(recording, self.public, following.public, at)
        return said | {f"by_{half}": own._private.sign(text).hex()}

    monkeypatch.setattr(signing.Signer, "sign_change", forge)
    keys = changed(scene)
    for given in ((keys[0],), (keys[1],), ()):
        code, problems = verify(scene, *given)
        assert code == 1
        assert any("a change of the key is not signed by both keys" in one for one in problems)


def test_only_root_and_the_recorder_may(scene, monkeypatch) -> None:
    scene.start()
    write(scene, "S1")
    monkeypatch.setattr("enforcer.recording.notes._read", lambda path: (Note("rekey", {}), 4711))
    before = newest_key(scene.recording)
    leave_note(scene.recording, Note("rekey", {}))
    scene.turn()
    assert newest_key(scene.recording) == before
    assert scene.rows("SELECT name FROM recorder_event WHERE name = 'rekey.refused'")


def test_without_a_recorder(scene) -> None:
    scene.start()
    write(scene, "S1")
    scene.stop()
    first = read_key(scene.recording / "signing.pub")
    before, after = rekeying.change_key(scene.recording, "it runs not")
    assert before == signing.name_key(first) != after
    scene.start()
    write(scene, "S2")
    scene.stop()
    assert verify(scene, first) == (0, [])


def test_what_is_erased_later_is_signed_by_the_new_key(scene) -> None:
    keys = changed(scene)
    scene.start()
    with open_recording(scene.recording) as reader:
        gone = next(row[0] for row in reader.dbs[0].execute("SELECT digest FROM blob WHERE body IS NOT NULL"))
    leave_note(scene.recording, Note("erase", {"reason": "asked to"}, (gone,)))
    scene.turn()
    scene.stop()
    for key in keys:
        assert verify(scene, key) == (0, [])


def test_an_export_over_it(scene, tmp_path: Path) -> None:
    keys = changed(scene)
    path = tmp_path / "some.sqlite"
    with open_recording(scene.recording) as reader:
        write_sqlite(reader, ["S0", "S1"], path)
    for key in keys:
        report = weir_verify.verify_files([path], [key])
        assert (report.code, report.problems) == (0, [])


# killed at each step

STEPS = [(signing, "_write"), (store, "_make"), (store, "_sync_directory"), (signing, "_sync_rename"),
         (store.Store, "close_for"), (store.Store, "commit"), (store.Store, "begin"), (store.Store, "close")]


def killed_at(scene, step: int) -> bool:
    """A recorder in another process changes its key and is killed before its step of this number; whether it was."""
    child = os.fork()
    if child == 0:
        try:
            count = 0
            recorder = scene.start()
            recorder.turn()
            leave_note(scene.recording, Note("rekey", {}))

            def stepping(inner):
                def outer(*args, **named):
                    nonlocal count
                    if count == step:
                        os.kill(os.getpid(), signal.SIGKILL)
                    count += 1
                    return inner(*args, **named)
                return outer

            for where, name in STEPS:
                setattr(where, name, stepping(getattr(where, name)))
            scene.turn()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.slow
def test_killed_at_each_step(make_scene, tmp_path: Path) -> None:
    step, killed = 0, True
    seen = set()
    while killed:
        (tmp_path / str(step)).mkdir()
        scene = make_scene(tmp_path / str(step))
        scene.start()
        first = read_key(scene.recording / "signing.pub")
        write(scene, "S1")
        scene.stop()
        killed = killed_at(scene, step)
        scene.recorder = None
        for note in (scene.recording / "reads").iterdir():     # else the next recorder does what was asked
            note.unlink()
        load_signer(scene.recording, newest_key(scene.recording))
        scene.start()
        write(scene, "S2")
        scene.stop()
        last = read_key(scene.recording / "signing.pub")
        assert newest_key(scene.recording) == last
        assert not (scene.recording / "signing-next.key").exists()
        for key in (first, last):
            assert verify(scene, key) == (0, []), step
        seen.add(first == last)
        scene.close()
        step += 1
    assert seen == {True, False}, "of what was killed early the old key stayed, later the new one came"
    assert step > 6
