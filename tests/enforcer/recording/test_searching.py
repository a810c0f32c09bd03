"""Words that stood on a screen, whatever way they came there."""
from __future__ import annotations

import json
import time
from typing import Any

import pytest
import tapes
from click.testing import CliRunner

from enforcer.recording.cli import group
from enforcer.recording.screens import Drawn
from enforcer.recording.searching import Search


def drawn(*texts: str, columns: int = 80, rows: int = 24) -> list[str]:
    one = Drawn(columns, rows)
    return [line for text in texts for line in one.feed(text) if line] + list(one.finish())


@pytest.mark.parametrize(("text", "wanted"), [
    ("$ pas\bss\r\n", "$ pass"), ("red\x1b[31mword\x1b[0m", "redword"), ("secret\x1b[2J\x1b[Hnew", "secret"),
    ("secret\r\x1b[Knew", "secret"), ("secreX\x1b[Dt\r\n", "secret"), ("10%\r20%\r\n", "10%"),
    ("one\x1b[?1049h\x1b[Hvim here\x1b[?1049l two", "vim here"), ("one\x1b[?1049h\x1b[Hvim\x1b[?1049l two", "one two"),
    ("\x1b[5;3Hthere\x1b[1;1Hhere", "  there"), ("a\x1b[5Cb", "a     b"), ("e\u0301t\u00e9", "été"),
    ("\x1b]0;title\x07text", "text"), ("漢字", "漢字"), ("\x1b[2;4rkept\x1bc", "kept")])
def test_lines_as_they_were_drawn(text: str, wanted: str) -> None:
    assert wanted in drawn(text)
    assert wanted in drawn(*text)     # a piece for each character


def test_what_scrolled_off_and_what_was_wrapped() -> None:
    assert drawn("".join(f"line {number}\r\n" for number in range(50)), rows=5) == [
        f"line {number}" for number in range(50)]
    assert drawn("a long word that goes round\r\nx", columns=10, rows=3) == ["a long word that goes round", "x"]


def test_typed_letter_by_letter_into_the_middle() -> None:
    keys = ["$ rm /tm", "p", "\b\x1b[P", "p", "\x1b[2D", "\x1b[@s", "\r\n"]
    assert drawn(*keys)[-1] == "$ rm /tsmp"


@pytest.mark.parametrize("text", [
    "Z" + "\u0301" * 200_000, "\x1b[9999b" * 20_000, "\x1b[9999L\x1b[9999@\x1b[9999P" * 5_000,
    "\x1b[" + "9" * 200_000 + "m", "\x1b]0;" + "x" * 500_000, "w" * 100_000, "\x1b[1;1r\n" * 20_000])
def test_nothing_is_slow_out_of_proportion(text: str) -> None:
    """The caller may look at the clock often, whatever the size."""
    large = Drawn(1000, 200)
    list(large.feed("x" * 200_000))
    last, longest = time.monotonic(), 0.0
    for _ in large.feed(text[:2000] + "\x1b[2J" * 100):
        now = time.monotonic()
        last, longest = now, max(longest, now - last)
    assert longest < 10
    began = time.monotonic()
    drawn(text)
    assert time.monotonic() - began < 5


@pytest.fixture
def taped(scene: Any) -> Any:
    tapes.write_session(scene, scene.writer())
    scene.start()
    scene.turn(2)
    return scene


def run(scene: Any, *words: str) -> Any:
    result = CliRunner().invoke(group, ["search", *words, "--recording", str(scene.recording)])
    assert result.exit_code == 0, result.output
    return result


def test_search_names_session_operation_time_and_line(taped: Any) -> None:
    found = json.loads(run(taped, "PASS.TXT", "--json").stdout)
    assert [(one["type"], one["session"], one["operation"], one["stream"], one["line"]) for one in found] == [
        ("line", "S1", 1, "screen", "notes  pass.txt  grüße")]
    assert found[0]["time"].endswith("Z")
    text = run(taped, "disk", "full").stdout
    assert "S1    2 err warning: \\x1b[31mdisk full" in text
    assert "exec psql" in run(taped, "psql").stdout
    assert "nothing holds" in run(taped, "no-such-word").stderr
    assert "S1    2 in select 1;" in run(taped, "select", "1").stdout


def test_what_was_not_searched_is_said(taped: Any) -> None:
    said = run(taped, "pass", "--seconds", "0").stderr
    assert "2 of 2 operations with streams were not searched to their end" in said
    assert "--seconds" in said
    assert "not searched" not in run(taped, "pass").stderr


def test_a_line_without_end_comes_in_parts(scene: Any) -> None:
    writer = scene.writer()
    writer.append(scene.opened())
    pieces = [(number, "out", b"x" * 60_000) for number in range(5)]
    for one in tapes.flow(*pieces, (9, "out", b" needle"), at=scene.at):
        writer.append(*one)
    writer.flush()
    scene.start()
    scene.turn(2)
    with scene.reader() as reader:
        [found] = Search(["needle"], time.monotonic() + 30).run(reader, 10)
    assert found.line.endswith("needle")
    assert len(found.line) < 500
