"""A process is there while it runs, and nobody else is it."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from enforcer.edge.running import is_there


def started(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[19]) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


def test_until_it_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        began = started(child.pid)
        assert is_there(child.pid, began)
        assert not is_there(child.pid, began + 10_000_000), "another of the same pid"
        assert not is_there(child.pid, 0)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not is_there(child.pid, began), "its parent has not asked yet"
    assert not is_there(child.pid, began)


@pytest.mark.parametrize("stat", [
    b"", b"7 (x) R", b"7 (a) S 1 (b) " + b"0 " * 18 + b"x", b"7 (x) Z " + b"0 " * 18 + b"5 0", b"\xff" * 5000])
def test_what_cannot_be_read_is_not_there(tmp_path: Path, stat: bytes) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_bytes(stat)
    assert not is_there(7, 50_000_000, tmp_path)


def test_a_name_with_brackets_is_a_name(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_bytes(b"7 (a) Z 1 (b)) S " + b"0 " * 18 + b"5 0")
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    assert is_there(7, 5 * tick, tmp_path)
