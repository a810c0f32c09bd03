"""`weir sessions watch`: what comes, once each, over files, to the end; and what it leaves alone."""
from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from enforcer.recording import following
from enforcer.recording.cli import group
from enforcer.recording.following import follow
from enforcer.recording.store import list_files
from enforcer.words.errors import RecordingError


@pytest.fixture
def begun(scene: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(following, "PAUSE", 0.01)
    scene.live = scene.writer()
    scene.live.append(scene.opened("S1"))
    scene.live.append(*scene.intent(1, text=b"SELECT 'before'"))
    scene.live.append(*scene.result(1))
    scene.live.flush()
    scene.start()
    scene.turn(2)
    return scene


def add(scene: Any, *numbers: int, end: bool = False) -> None:
    for number in numbers:
        scene.live.append(*scene.intent(number, text=b"SELECT 'later'"))
        scene.live.append(*scene.result(number))
    if end:
        scene.live.append(scene.closed("S1", operations=3))
    scene.live.flush()
    scene.turn(2)


def test_each_once_over_files_and_no_others(begun: Any) -> None:
    found = follow(begun.recording, "S1", 0, 0.01)
    assert [next(found).kind for _ in range(3)] == [1, 3, 4]
    begun.live.append(begun.opened("S2"))
    add(begun, 2)
    assert [next(found).event.operation for _ in range(2)] == [2, 2]
    files = len(list_files(begun.recording))
    begun.recorder._rotate()
    assert len(list_files(begun.recording)) == files + 1
    add(begun, 3, end=True)
    rest = list(found)
    assert [(one.kind, getattr(one.event, "operation", 0)) for one in rest] == [(3, 3), (4, 3), (2, 0)]
    assert not Path(f"{list_files(begun.recording)[0]}-wal").exists(), "nobody kept it open"


def test_a_recording_that_is_shut_for_a_while(begun: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    away = begun.recording.with_name("away")
    found = follow(begun.recording, "S1", 3, 0.01)
    begun.recording.rename(away)
    threading.Timer(0.2, lambda: away.rename(begun.recording)).start()
    assert next(found).kind == 4
    begun.recording.rename(away)
    monkeypatch.setattr(following, "PATIENCE", 0.1)
    with pytest.raises(RecordingError):
        next(found)


def watch(scene: Any, *options: str) -> tuple[threading.Thread, list[Any]]:
    """In the background; its result, once the session has closed."""
    results: list[Any] = []
    words = ["sessions", "watch", "S1", "--recording", str(scene.recording), *options]
    thread = threading.Thread(target=lambda: results.append(CliRunner().invoke(group, words)))
    thread.start()
    return thread, results


@pytest.mark.parametrize("as_json", [False, True])
def test_what_is_new_as_replay_shows_it(begun: Any, as_json: bool) -> None:
    thread, results = watch(begun, *(["--json"] if as_json else []))
    time.sleep(1)                     # it has read what was: nothing outside of it says so
    add(begun, 2, 3, end=True)
    thread.join(30)
    [result] = results
    assert result.exit_code == 0, (result.output, result.exception)
    assert "before" not in result.stdout
    if as_json:
        shown = [json.loads(line) for line in result.stdout.splitlines()]
        assert [one["type"] for one in shown] == ["intent", "result", "intent", "result", "session_closed"]
    else:
        assert result.stdout.count("SELECT 'later'") == 2
        assert "3 operations" in result.stdout, "what was before counts"


def test_one_that_has_closed_is_said_to_be(begun: Any) -> None:
    add(begun, end=True)
    result = CliRunner().invoke(group, ["sessions", "watch", "S1", "--recording", str(begun.recording)])
    assert (result.exit_code, result.stdout) == (0, "")
    assert "S1 has closed; weir replay S1 shows it" in result.stderr


def test_none_and_several(begun: Any) -> None:
    begun.live.append(begun.opened("S2"))
    add(begun)
    for name, why in (("S", "2 sessions begin"), ("X", "no session begins")):
        result = CliRunner().invoke(group, ["sessions", "watch", name, "--recording", str(begun.recording)])
        assert result.exit_code == 1
        assert why in result.output


def test_sessions_alone_are_what_they_were(begun: Any) -> None:
    result = CliRunner().invoke(group, ["sessions", "--json", "--last", "1", "--recording", str(begun.recording)])
    assert [one["session"] for one in json.loads(result.stdout)] == ["S1"]
    assert CliRunner().invoke(group, ["sessions", "--recording", str(begun.recording)]).stdout.startswith("SESSION")
