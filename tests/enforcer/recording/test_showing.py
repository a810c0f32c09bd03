"""`weir replay` and `weir sessions watch` on a terminal: what goes to it, and how it is left."""
from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tapes
from rich.console import Console

from enforcer.recording.read import Entry
from enforcer.recording.screens import Drawn
from enforcer.recording.showing import Live, Pace, play
from enforcer.recording.tapes import read_pieces
from enforcer.words import events

ROOT = Path(__file__).resolve().parents[3]


def entries(*pieces: tuple[int, str, bytes], end: bool = True) -> list[Entry]:
    return [Entry(number, event.kind, event, content=blobs[0][2] if blobs else None)
            for number, (event, blobs) in enumerate(tapes.flow(*pieces, at=10**18, end=end), 1)]


def console() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120, height=40)


def test_pauses_are_as_they_were_and_none_is_long() -> None:
    waits: list[float] = []
    one = console()
    play(read_pieces(entries(*tapes.TERMINAL)), one, Pace(2.0, 3.0), waits.append)
    assert max(waits) == 1.5          # of the minute
    assert 0.44 < waits[1] < 0.46
    assert sum(waits) < 3
    waits.clear()
    play(read_pieces(entries(*tapes.TERMINAL)), console(), Pace(0.0), waits.append)
    assert waits == []


def test_nothing_reaches_past_the_terminal_and_it_is_left_in_order() -> None:
    one = console()
    play(read_pieces(entries(*tapes.TERMINAL)), one, Pace(0.0))
    text = one.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b]" not in text
    assert "\x1b[6n" not in text
    assert "\x1b[c" not in text
    assert text.endswith("\x1b[?25h\r\n")
    screen = Drawn()
    list(screen.feed(text))
    assert screen.shown()[:3] == ["agent@db-1:~$ ls", "notes  pass.txt  grüße", "agent@db-1:~$ exit"]


def test_a_terminal_that_is_too_small_is_told() -> None:
    one = Console(file=io.StringIO(), force_terminal=True, width=60, height=20)
    play(read_pieces(entries(*tapes.TERMINAL)), one, Pace(0.0))
    assert "make it larger" in one.file.getvalue()  # type: ignore[attr-defined]


def test_the_terminal_is_reset_when_somebody_stops_it() -> None:
    one = console()

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(read_pieces(entries((0, "size", b"80x24"), (1, "out", b"\x1b[?1049h\x1b[31m"), (900, "out", b"x"))), one,
             Pace(), stop)
    assert "\x1b[?1049l\x1b[0m" in one.file.getvalue()  # type: ignore[attr-defined]


def test_a_live_terminal_is_drawn_and_lines_wait() -> None:
    one = console()
    live = Live(one)
    first, *rest = entries((0, "size", b"80x24"), (1, "out", b"before "), (2, "out", b"now"), end=False)
    assert live.see(first, False)
    assert live.see(rest[0], False)
    live.begin()
    assert "before" in one.file.getvalue()  # type: ignore[attr-defined]
    assert live.see(rest[1], True)
    live.say("a line")
    assert one.file.getvalue().endswith("before now")  # type: ignore[attr-defined]
    result = events.Result(4, 1, 1, "S1", 1, "ok", "", "", 0, 0, 0, b"", b"", (), b"")
    assert not live.see(Entry(9, 4, result), True)
    live.say("another")
    live.close()
    text = one.file.getvalue()  # type: ignore[attr-defined]
    assert text.index("now") < text.index("a line") < text.index("another")


def on_a_terminal(*arguments: str, until: str = "", act: Any = None, seconds: float = 60) -> str:
    """What a command writes to a pseudo-terminal."""
    leader, follower = pty.openpty()
    os.set_blocking(leader, False)
    process = subprocess.Popen(
        [sys.executable, "-m", "agent.cli", *arguments], stdin=follower, stdout=follower, stderr=follower, cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TERM": "xterm-256color", "PYTHONDONTWRITEBYTECODE": "1",
             "COLUMNS": "120", "LINES": "40"})
    os.close(follower)
    said, end = "", time.monotonic() + seconds
    while time.monotonic() < end:
        ready, _, _ = select.select([leader], [], [], 0.2)
        if ready:
            try:
                data = os.read(leader, 65536)
            except OSError:           # the other end is closed
                break
            said += data.decode(errors="replace")
        if act is not None and until in said:
            act()
            act = None
    os.close(leader)
    assert process.wait(10) == 0, said
    return said


def test_replay_in_a_terminal(scene: Any) -> None:
    tapes.write_session(scene, scene.writer())
    scene.start()
    scene.turn(2)
    said = on_a_terminal("replay", "S1", "--recording", str(scene.recording), "--idle", "0.1s")
    assert "\x1b[1;32magent@db-1\x1b[0m:~$ " in said
    assert "]52;" not in said.replace("\\x1b]52;", "")
    assert said.index("shell") < said.index("agent@db-1\x1b[0m") < said.index("exit 0") < said.index("disk full")


def test_watch_in_a_terminal(scene: Any) -> None:
    writer = scene.writer()
    writer.append(scene.opened(protocol="ssh"))
    writer.append(*scene.intent(1, text=b"shell", verb="shell"))
    for one in tapes.flow((0, "size", b"80x24"), (1, "out", b"before$ "), at=scene.at, end=False):
        writer.append(*one)
    writer.flush()
    scene.start()
    scene.turn(2)

    def go_on() -> None:
        for one in tapes.flow((2, "out", b"\x1b[7mnow\x1b[0m\x1b]0;x\x07\r\n"), at=scene.at):
            writer.append(*one)
        writer.append(*scene.result(1))
        writer.append(scene.closed())
        writer.flush()
        scene.turn(3)

    said = on_a_terminal("sessions", "watch", "S1", "--recording", str(scene.recording), until="before$", act=go_on)
    assert "before$ \x1b[7mnow\x1b[0m\r" in said
    assert "\x1b]0" not in said
    assert said.index("now") < said.index("client closed")
