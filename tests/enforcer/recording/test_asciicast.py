"""asciicast v2 of what was recorded."""
from __future__ import annotations

import json
from typing import Any

import pytest
import tapes
from click.testing import CliRunner

from enforcer.recording.asciicast import render_asciicast
from enforcer.recording.cli import group
from enforcer.recording.read import Entry
from enforcer.recording.tapes import parse_size, read_pieces


def entries(*pieces: tuple[int, str, bytes], end: bool = True) -> list[Entry]:
    return [Entry(number, event.kind, event, content=blobs[0][2] if blobs else None)
            for number, (event, blobs) in enumerate(tapes.flow(*pieces, at=10**18, end=end), 1)]


def cast(*pieces: tuple[int, str, bytes]) -> tuple[dict[str, Any], list[list[Any]]]:
    header, *events = [json.loads(line) for line in render_asciicast(entries(*pieces), "S1 1")]
    return header, events


def test_a_terminal() -> None:
    header, events = cast(*tapes.TERMINAL)
    assert header == {"version": 2, "width": 80, "height": 24, "timestamp": 10**9, "title": "S1 1"}
    assert events[:3] == [[0.01, "o", "\x1b]0;agent@db-1\x07\x1b[1;32magent@db-1\x1b[0m:~$ "], [0.9, "i", "l"],
                          [0.91, "o", "l"]]
    assert [60.0, "r", "100x30"] in events
    text = "".join(data for _, code, data in events if code == "o")
    assert "grüße" in text
    assert "\ufffd" not in text
    times = [one[0] for one in events]
    assert times == sorted(times)


def test_a_terminal_that_says_its_size_late() -> None:
    """Not over SSH, where it comes with the terminal; a key may come before it."""
    header, events = cast((0, "size", b"0x0"), (1, "in", b"\x04"), (2, "size", b"101x33"), (3, "out", b"a"))
    assert (header["width"], header["height"]) == (101, 33)
    assert [code for _, code, _ in events] == ["i", "o"]
    header, events = cast((0, "size", b"0x0"), (1, "out", b"a"), (2, "size", b"101x33"))
    assert (header["width"], header["height"]) == (80, 24)
    assert [code for _, code, _ in events] == ["o", "r"]


@pytest.mark.parametrize("cut", range(1, 12))
def test_characters_are_whole_wherever_pieces_end(cut: int) -> None:
    content = "aé漢🦆\ufffdz".encode() + b"\xff!"
    _, events = cast((0, "size", b"80x24"), (1, "out", content[:cut]), (1, "in", "ß".encode()),
                     (2, "out", content[cut:]))
    assert "".join(data for _, code, data in events if code == "o") == "aé漢🦆\ufffdz\ufffd!"


def test_a_character_that_never_ends() -> None:
    _, events = cast((0, "out", b"a\xe6\xbc"))
    assert events == [[0.0, "o", "a"], [0.0, "o", "\ufffd"]]


def test_an_exec_and_nothing() -> None:
    header, events = cast(*tapes.EXEC)
    assert (header["width"], header["height"]) == (80, 24)
    assert [code for _, code, _ in events] == ["i", "o", "o", "o"]
    [line] = render_asciicast([])
    assert json.loads(line)["version"] == 2


@pytest.mark.parametrize(("content", "size"), [
    (b"80x24", (80, 24)), (b"0x0", (80, 24)), (b"999999x999999", (1000, 200)), (b"", (80, 24)), (b"x", (80, 24)),
    (b"-1x-5", (80, 24)), (b"9" * 5000 + b"x24", (80, 24)), ("²x³".encode(), (80, 24))])
def test_sizes(content: bytes, size: tuple[int, int]) -> None:
    assert parse_size(content) == size


def test_time_never_runs_back() -> None:
    pieces = list(read_pieces(entries((5, "out", b"a"), (3, "out", b"b"), (9, "out", b"c"))))
    assert [one.after for one in pieces] == [0, 0, 4 * tapes.MILLISECOND]


def test_export(scene: Any) -> None:
    tapes.write_session(scene, scene.writer())
    scene.start()
    scene.turn(2)

    def export(*arguments: str) -> Any:
        return CliRunner().invoke(group, [
            "export", "--format", "asciicast", "-o", "-", "--recording", str(scene.recording), *arguments])

    found = export("--session", "S1")
    assert found.exit_code == 0
    assert json.loads(found.stdout.splitlines()[0])["title"] == "S1 1"
    assert "select 1" in export("--session", "S1", "--operation", "2").stdout
    assert export().exit_code == 2
    assert "no streams" in export("--session", "S1", "--operation", "7").stderr
