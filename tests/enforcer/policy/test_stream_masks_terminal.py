"""Masks in what real programs write to a real terminal: a screen looks the same but for the stars."""
from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import struct
import termios
import time
from pathlib import Path

import pyte
import pytest

from enforcer.policy.detectors import LABELS
from enforcer.policy.stream_masks import StreamMask

ALL = frozenset(LABELS.values())
TOKEN = b"ghp_" + b"Zq7" * 12
COLUMNS, ROWS = 40, 12


class Shown(pyte.Screen):
    def select_graphic_rendition(self, *attributes: int, private: bool = False) -> None:
        """vim's private ones are none, which pyte does not know."""
        if not private:
            super().select_graphic_rendition(*attributes)


def screen(raw: bytes) -> list[str]:
    shown = Shown(COLUMNS, ROWS)
    pyte.ByteStream(shown).feed(raw)
    return [line.rstrip() for line in shown.display]


def written(command: list[str], home: Path, typed: list[tuple[bytes, bytes]]) -> bytes:
    """All that it writes while each (keys, what is waited for) is typed."""
    pid, master = pty.fork()
    if pid == 0:
        time.sleep(0.2)               # until the terminal has its size
        os.execvpe(command[0], command, {"PATH": os.environ["PATH"], "TERM": "xterm", "HOME": str(home), "PS1": "> "})
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    out = b""
    for keys, awaited in typed:
        os.write(master, keys)
        seen, ends = len(out), time.monotonic() + 20
        while awaited not in out[seen:]:
            assert select.select([master], [], [], max(0, ends - time.monotonic()))[0], out
            out += os.read(master, 4096)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    os.close(master)
    return out


def check(raw: bytes, step: int) -> None:
    mask = StreamMask(ALL, columns=COLUMNS)
    out = b"".join(mask.feed(raw[at:at + step]) for at in range(0, len(raw), step)) + mask.flush()
    assert len(out) == len(raw)
    assert mask.found == {"secret.token.github"}
    assert b"Zq7" not in out
    for before, after in zip(screen(raw), screen(out), strict=True):
        assert len(before) == len(after)
        assert all(one == other or other == "*" for one, other in zip(before, after, strict=True))
    assert "*" in "".join(screen(out)) or "Zq7" not in "".join(screen(raw))


@pytest.mark.parametrize("step", [1, 7, 4096])
def test_a_line_that_readline_breaks(tmp_path: Path, step: int) -> None:
    shell = ["bash", "--norc", "--noprofile", "-i"]
    check(written(shell, tmp_path, [
        (b"", b"> "), (b"echo a longer text " + TOKEN, b"Zq7"), (b"\r", TOKEN), (b"\x1b[A", b"text")]), step)


@pytest.mark.parametrize(("command", "end"), [
    (["less", "file"], b"file"), (["vim", "-u", "NONE", "-N", "file"], b"file"), (["cat", "file"], b"end"),
    (["fold", "-w", str(COLUMNS), "file"], b"end"),
], ids=lambda value: value[0] if isinstance(value, list) else "")
def test_a_file_that_a_program_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], end: bytes,
) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed: apt-get install {command[0]}")
    (tmp_path / "file").write_bytes(b"one\nsome words before it, and then " + TOKEN + b"\nend\n")
    monkeypatch.chdir(tmp_path)
    for step in (1, 5, 4096):
        check(written(command, tmp_path, [(b"", end if command[0] in ("cat", "fold") else b"end")]), step)


@pytest.mark.parametrize("unit", [b"\x08 \x08eyJhbGciOi.", b"ghp_\x08", b"\x1b[1m\x0800", b"eyJhbGciOi.\x08"])
@pytest.mark.parametrize("cut", [32768, 14])
def test_what_backspaces_make_long_to_read_is_masked_unread(unit: bytes, cut: int) -> None:
    """Eight seconds for each message of 32 KiB, of everybody's time."""
    raw = unit * (131072 // len(unit))
    mask, began = StreamMask(frozenset(LABELS.values()), columns=80), time.process_time()
    out = b"".join(mask.feed(raw[at:at + cut]) for at in range(0, len(raw), cut)) + mask.flush()
    assert time.process_time() - began < 4         # half a second or so, where nothing else runs
    assert len(out) == len(raw)
    assert "unreadable" in mask.found
    secret = b"ghp_" + b"a" * 36
    more = mask.feed(b"x" * 70_000 + b"\nclear\n" + secret + b"\n") + mask.flush()
    assert more.endswith(b"\nclear\nghp_" + b"*" * 36 + b"\n")


@pytest.mark.parametrize("piece", [b"\x08" * 80 + b"another line that was typed before", b"|\x08", b"a\x08 \x08b "])
def test_what_shells_and_spinners_do_is_read(piece: bytes) -> None:
    mask = StreamMask(frozenset(LABELS.values()), columns=80)
    out = b"".join(mask.feed(piece) for _ in range(5_000)) + mask.flush()
    assert out == piece * 5_000
