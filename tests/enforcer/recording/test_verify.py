"""The verifier finds everything that can be done to a recording, and nothing where nothing was done."""
from __future__ import annotations

import ast
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from hashlib import blake2b
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from enforcer.recording import schema, signing, store, weir_verify
from enforcer.recording.erasure import erase_everywhere
from enforcer.recording.weir_verify import Unreadable, verify_signature

SCRIPT = Path(weir_verify.__file__)
TABLES = [table for table, _ in schema.SPOKEN.values()]


@pytest.fixture(scope="module")
def whole(make_scene, tmp_path_factory) -> Path:
    """Three files; every kind of event; something erased."""
    scene = make_scene(tmp_path_factory.mktemp("whole"))
    scene.start()
    for number in (1, 2, 3):
        writer = scene.writer()
        scene.all_kinds(writer, f"S{number}")
        writer.append(*scene.intent(5, f"S{number}", b"secret %d" % number))
        writer.flush()
        scene.host_event(f"host.{number}")
        scene.turn(2)
        if number == 2:
            gone = blake2b(b"secret 2", digest_size=32, key=scene.SALT).digest()
            erase_everywhere(scene.recorder._store, store.list_files(scene.recording), scene.recorder._signer, (gone,),
                             "root", "asked to")
        scene.recorder._store.checkpoint()
        scene.recorder._store.commit()
        if number < 3:
            scene.recorder._rotate()
    scene.stop()
    scene.assert_verified()
    scene.close()
    return scene.recording


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "copy", ignore=shutil.ignore_patterns("reads"))


def files(directory: Path) -> list[Path]:
    return store.list_files(directory)


def check(directory: Path, **options) -> weir_verify.Report:
    key = weir_verify.parse_key((directory / "signing.pub").read_bytes())
    return weir_verify.verify_files([directory], [key], **{"check": signing.verify, **options})


def change(path: Path, *statements: str) -> int:
    db = sqlite3.connect(path)
    count = 0
    for statement in statements:
        count += db.execute(statement).rowcount
    db.commit()
    db.close()
    return count


def columns() -> list[tuple[str, str]]:
    db = sqlite3.connect(":memory:")
    for statement in schema.SCHEMA:
        db.execute(statement)
    found = [(table, row[1]) for table in TABLES for row in db.execute(f"PRAGMA table_info({table})")]
    db.close()
    return found


def test_as_it_is(whole: Path) -> None:
    report = check(whole)
    assert report.problems == []
    assert report.counts["files"] == 3
    assert report.counts["erased"] >= 1
    assert check(whole, check=verify_signature).problems == []


@pytest.mark.parametrize(("table", "column"), columns())
def test_a_changed_column(copy: Path, table: str, column: str) -> None:
    for path in files(copy):
        if change(path, f"UPDATE {table} SET {column} = CASE WHEN typeof({column}) = 'integer' THEN {column} + 1 "
                        f"WHEN typeof({column}) = 'blob' THEN zeroblob(length({column})) ELSE '\"other\"' END "
                        f"WHERE seq = (SELECT min(seq) FROM {table})"):
            break
    else:
        pytest.fail("there was no row")
    assert check(copy).problems


@pytest.mark.parametrize("statement", [
    "DELETE FROM {table} WHERE seq = (SELECT max(seq) FROM {table})",
    "INSERT INTO {table} (seq) VALUES (1000000)",
    "UPDATE {table} SET seq = 1000000 WHERE seq = (SELECT max(seq) FROM {table})",
])
@pytest.mark.parametrize("table", [*TABLES, "event"])
def test_rows_removed_added_and_moved(copy: Path, table: str, statement: str) -> None:
    assert any(change(path, statement.format(table=table)) for path in reversed(files(copy)))
    assert check(copy).problems


@pytest.mark.parametrize("statement", [
    "UPDATE event SET body = substr(body, 1, length(body) - 1) || x'00' WHERE seq = 4",
    "UPDATE event SET body = NULL WHERE seq = 4", "UPDATE event SET kind = 2 WHERE seq = 4",
    "UPDATE event SET kind = NULL WHERE seq = 4", "UPDATE event SET leaf = zeroblob(32) WHERE seq = 4",
    "UPDATE event SET body = 'text' WHERE seq = 4",
    "UPDATE event SET body = (SELECT body FROM event WHERE seq = 5) WHERE seq = 4",
    "UPDATE event SET seq = -1 * seq WHERE seq = 4", "DELETE FROM event WHERE seq > 5",
    "DELETE FROM event", "DELETE FROM checkpoint", "DELETE FROM state", "UPDATE state SET seq = seq + 1",
    "UPDATE file SET head_before = zeroblob(32)", "UPDATE file SET recording = zeroblob(16)",
    "UPDATE file SET public_key = zeroblob(32)", "UPDATE file SET number = 7", "UPDATE file SET seq_before = 1",
    "UPDATE file SET closed = NULL",
    "UPDATE checkpoint SET seq_from = seq_from + 1", "UPDATE checkpoint SET seq_to = seq_to - 1",
    "UPDATE checkpoint SET head = zeroblob(32)", "UPDATE checkpoint SET head_before = zeroblob(32)",
    "UPDATE checkpoint SET merkle_root = zeroblob(32)", "UPDATE checkpoint SET at = at + 1",
    "UPDATE checkpoint SET key_id = 'other'", "UPDATE checkpoint SET signature = zeroblob(64)",
    "UPDATE checkpoint SET signature = 'text'",
    "UPDATE blob SET body = zeroblob(length(body))", "UPDATE blob SET salt = zeroblob(16)",
    "UPDATE blob SET digest = zeroblob(32)", "UPDATE blob SET size = size + 1",
    "UPDATE blob SET encoding = 1 - encoding",
    "UPDATE blob SET encoding = 9", "UPDATE blob SET body = NULL, salt = NULL", "DELETE FROM blob",
    "UPDATE blob SET id = id + 500",
    "UPDATE blob SET body = 'text'", "UPDATE intent SET text = NULL WHERE operation = 1",
    "DROP VIEW operations", "DROP INDEX intent_operation", "DROP TABLE gap",
    "DROP VIEW gaps; CREATE VIEW gaps AS SELECT 1",
])
def test_every_kind_of_change(copy: Path, statement: str) -> None:
    change(files(copy)[0], *statement.split(";"))
    assert check(copy).problems


def test_an_erasure_must_be_signed(copy: Path) -> None:
    second = files(copy)[1]
    assert change(second, "UPDATE erased SET statement = substr(statement, 1, length(statement) - 1) || x'00'")
    assert check(copy).problems
    change(second, "DELETE FROM erased")
    assert any("no erasure" in one for one in check(copy).problems)


def test_files_missing_swapped_or_of_another_recording(copy: Path, make_scene, tmp_path: Path) -> None:
    first, second, third = files(copy)
    key = weir_verify.parse_key((copy / "signing.pub").read_bytes())
    assert weir_verify.verify_files([third, first, second], [key]).problems == []
    assert any("missing between" in one for one in weir_verify.verify_files([first, third], [key]).problems)
    for one in (first, second, third):
        alone = weir_verify.verify_files([one], [key])
        assert alone.problems == []
        assert alone.notes or one == first
    other = make_scene(tmp_path / "other") if (tmp_path / "other").mkdir() is None else None
    other.start()
    other.turn()
    other.stop()
    assert weir_verify.verify_files([first, *other.files()], [key]).problems
    with pytest.raises(Unreadable):
        weir_verify.verify_files([tmp_path])


def test_the_tail_cut_off_is_found_by_who_kept_a_checkpoint(copy: Path) -> None:
    last = files(copy)[2]
    db = sqlite3.connect(last)
    seq, head = db.execute("SELECT seq_to, head FROM checkpoint ORDER BY seq_to DESC").fetchone()
    low = db.execute("SELECT min(seq_to) FROM checkpoint").fetchone()[0]
    db.close()
    assert check(copy, expect=[(seq, head)]).problems == []
    assert check(copy, expect=[(seq, b"x" * 32)]).problems
    change(last, f"DELETE FROM checkpoint WHERE seq_to > {low}", f"DELETE FROM event WHERE seq > {low}",
           *(f"DELETE FROM {table} WHERE seq > {low}" for table in TABLES),
           f"UPDATE state SET seq = {low}, head = (SELECT head FROM checkpoint WHERE seq_to = {low})")
    assert check(copy).problems == []
    assert check(copy, expect=[(seq, head)]).problems == [f"event {seq}, which you expect, is not there"]


def test_a_recording_made_anew_with_another_key(whole: Path, make_scene, tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    scene.start()
    scene.turn()
    scene.stop()
    key = weir_verify.parse_key((whole / "signing.pub").read_bytes())
    report = weir_verify.verify_files([scene.recording], [key])
    assert any("not yours" in one for one in report.problems)
    assert any("signature is wrong" in one for one in report.problems)


def test_flipped_bytes_anywhere(whole: Path, tmp_path: Path) -> None:
    """A byte of the file itself: found, unless SQLite does not use it."""
    source = files(whole)[0].read_bytes()
    path = tmp_path / files(whole)[0].name
    key = weir_verify.parse_key((whole / "signing.pub").read_bytes())
    undetected = 0
    for at in range(0, len(source), len(source) // 60):
        if source[at] == 0:
            continue
        path.write_bytes(source[:at] + bytes([source[at] ^ 0x55]) + source[at + 1:])
        try:
            undetected += not weir_verify.verify_files([path], [key]).problems
        except Unreadable:
            pass
    assert undetected <= 6            # header counters, positions, free space


@pytest.mark.parametrize(("statements", "wanted"), [
    (["DROP VIEW flow_notes", "DROP TABLE flow_noted"], "its row in flow_noted is not there"),
    (["DROP TABLE flow_noted"], "flow_noted is gone"), (["DROP VIEW flow_notes"], "flow_notes is gone"),
])
def test_a_table_that_earlier_builds_do_not_have_is_missed_where_there_are_such_events(
        copy: Path, statements: list[str], wanted: str) -> None:
    change(files(copy)[0], *statements)
    assert any(wanted in one for one in check(copy).problems)


def test_what_was_added_is_a_note(copy: Path) -> None:
    change(files(copy)[0], "CREATE TABLE mine (x)")
    report = check(copy)
    assert report.problems == []
    assert any("mine was added" in one for one in report.notes)


def test_an_operation_of_an_earlier_build_reports_nothing(make_scene, tmp_path: Path) -> None:
    """Its event has no such field: whatever its row says there is somebody else's word."""
    scene = make_scene(tmp_path)
    scene.start()
    event, blobs = scene.intent(1)
    older = msgspec.defstruct("Older", event.__struct_fields__[:-1], frozen=True, array_like=True)
    scene.writer().append(older(*msgspec.structs.astuple(event)[:-1]), blobs)
    scene.writers[-1].flush()
    scene.turn(2)
    scene.stop()
    assert check(scene.recording).problems == []
    [path] = files(scene.recording)
    assert change(path, "UPDATE intent SET reported = '[[\"a\",\"b\",\"c\",\"d\"]]'") == 1
    assert check(scene.recording).problems
    scene.close()


def test_the_schema_that_the_verifier_knows(tmp_path: Path) -> None:
    db = sqlite3.connect(":memory:")
    for statement in schema.SCHEMA:
        db.execute(statement)
    made = {name: blake2b(sql.encode(), digest_size=32).hexdigest()[:16] for name, sql in db.execute(
        "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'")}
    db.close()
    assert made == weir_verify.SCHEMA
    for kind, (table, width) in schema.SPOKEN.items():
        assert (table, width - 1) == (weir_verify.COLUMNS[kind][0], len(weir_verify.FIELDS[kind]))


def test_the_script_alone(copy: Path, tmp_path: Path) -> None:
    """Isolated, without site-packages: compressed blobs are opened by the program zstd, or counted."""
    script = shutil.copy(SCRIPT, tmp_path / "weir_verify.py")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-S", script, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True)

    good = run("--key", copy / "signing.pub", copy)
    assert good.returncode == 0, good.stdout + good.stderr
    assert good.stdout.splitlines()[-1].startswith("verified: ")
    assert "give --key" in run(copy).stdout
    change(files(copy)[0], "UPDATE intent SET actor = 'weir' WHERE operation = 1")
    bad = run("--json", "--key", copy / "signing.pub", copy)
    assert bad.returncode == 1
    assert '"verified": false' in bad.stdout
    assert run(tmp_path / "nothing").returncode == 2
    assert run("--key", script, copy).returncode == 2


def test_the_script_is_of_the_standard_library_and_of_python_3_9() -> None:
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 9))
    nodes = list(ast.walk(tree))
    names = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module).split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    assert names - set(sys.stdlib_module_names) == {"zstandard", "compression"}
    assert not re.search(r"strict=|removeprefix|\bmatch ", SCRIPT.read_text().replace("no strict=", ""))


@given(st.binary(max_size=200), st.binary(min_size=32, max_size=32))
def test_signatures(text: bytes, seed: bytes) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = private.public_key().public_bytes_raw(), private.sign(text)
    assert verify_signature(public, signature, text)
    assert not verify_signature(public, signature, text + b"x")
    assert not verify_signature(public, signature[:63] + bytes([signature[63] ^ 1]), text)
    assert not verify_signature(public, bytes([signature[0] ^ 1]) + signature[1:], text)
    assert not verify_signature(os.urandom(32), signature, text)
    # RFC 8032, section 5.1.7: S is below the group's order, or every signature has a twin
    twin = int.from_bytes(signature[32:], "little") + weir_verify._Q
    assert not verify_signature(public, signature[:32] + twin.to_bytes(33, "little")[:32], text)


@given(st.recursive(st.one_of(st.none(), st.booleans(), st.integers(-2**63, 2**64 - 1), st.text(), st.binary()),
                    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)), max_leaves=20))
def test_msgpack(value: object) -> None:
    assert weir_verify.unpack(msgspec.msgpack.encode(value)) == value


@given(st.binary(max_size=50))
def test_msgpack_garbage(data: bytes) -> None:
    try:
        weir_verify.unpack(data)
    except (ValueError, RecursionError):
        pass
