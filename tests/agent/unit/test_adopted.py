"""What the kernel says of a unit's processes, which name themselves as they like."""
from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from agent.block.holdings import Foreign, Place
from agent.contract import control
from agent.unit import adopted
from agent.unit.adopted import read_peer, shown_socket

NAMED = "import ctypes, sys\nctypes.CDLL(None).prctl(15, bytes([255, 10, 254]), 0, 0, 0)\n" \
        "print('named', flush=True)\nsys.stdin.read()"


@pytest.fixture
def odd() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", NAMED], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_a_name_that_is_no_text(odd: int, tmp_path: Path) -> None:
    who = adopted._of_process(odd)
    assert who is not None
    assert (who.uid, who.gid, set(who.groups)) == (os.getuid(), os.getgid(), set(os.getgroups()))
    (tmp_path / "cgroup.procs").write_text(f"{odd}\n")
    assert (read_peer(tmp_path) is None) == (os.getuid() == 0), "root's own are not counted"


class Joining:
    """What the kernel side has joined.  `refused`: what it does not take."""

    def __init__(self, refused: str, *there: Path) -> None:
        self.refused, self.ids = refused, list(there)

    def joined(self) -> tuple[Path, ...]:
        return tuple(self.ids)

    def join(self, path: Path, end: str) -> list[Foreign]:
        path.stat()
        if path.parent.name == self.refused:
            raise ValueError("16 units are the most")
        self.ids.append(path)
        return []

    def leave(self, path: Path) -> None:
        self.ids.remove(path)


@pytest.mark.parametrize("refused", ["", "c.slice"])
def test_all_of_a_unit_joins_or_nothing(tmp_path: Path, refused: str) -> None:
    """What ended meanwhile is no reason; what had joined before stays."""
    places = [tmp_path / slice_ / "crew.service" for slice_ in ("a.slice", "b.slice", "c.slice")]
    for one in (places[0], places[2]):
        one.mkdir(parents=True)
    kernel = Joining(refused, tmp_path / "other.service")
    units: Any = SimpleNamespace(_agent=SimpleNamespace(kernel=kernel, cgroups=tmp_path))
    request = control.Adopt("crew.service", tuple(f"/{one.relative_to(tmp_path)}" for one in places), "end")
    if refused:
        with pytest.raises(ValueError, match="the most"):
            adopted.Units._join(units, request)
        assert kernel.ids == [tmp_path / "other.service"]
    else:
        assert adopted.Units._join(units, request) == []
        assert kernel.ids == [tmp_path / "other.service", places[0], places[2]]


def test_a_program_that_is_no_text_or_has_a_long_name() -> None:
    """A thousand of them are one answer."""
    foreign = Foreign(Place(1, 1, 3), 7, 8, "INET stream", "", "/x\udcff" + "y" * 5000, "left")
    shown = shown_socket(foreign)
    assert shown.exe.startswith("/x\\udcff" + "y")
    answer = control.Adopted("", (shown,) * control.SOCKETS)
    assert len(control.render_frame(answer)) < control.LIMIT
    assert msgspec.structs.replace(shown, exe="") == control.OpenSocket(1, "", "INET stream", "", "left")
