"""What processes call themselves: anybody may have a name that is no UTF-8, or that looks like a line of its own."""
from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent import procfs
from agent.block import cgroups, marks
from agent.block.watch import _state
from agent.commands import doctor
from agent.workload import sharing
from agent.workload.container import parse_mounts, parse_status
from agent.workload.launcher import _is_payload
from agent.workload.owners import Owners, Start
from agent.workload.survey import read_process

NAMES = [b"\xff\xfe", b"a) R 1 (\xff", b"\rNSpid:\t7 2", b"\x0cUid:\t0", b"\xe2\x80\xa8Uid:\t0"]
NAMED = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(15, bytes.fromhex(sys.argv[1]), 0, 0, 0)
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=NAMES)
def named(request: pytest.FixtureRequest) -> Iterator[int]:
    """The pid of a process that calls itself so."""
    with subprocess.Popen([sys.executable, "-c", NAMED, request.param.hex()], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield process.pid
        process.kill()


def test_every_reader_reads_on(named: int, tmp_path: Path) -> None:
    assert marks.parent_and_began(named)[0] == os.getpid()
    assert _state(named) in ("R", "S")
    assert cgroups.path_of(named) == cgroups.path_of(os.getpid())
    assert Owners(tmp_path / "owners.json").find_process(named) is None
    assert not _is_payload(named)
    assert doctor.pods().state in ("ok", "warn")
    assert sharing.processes_of(os.getuid(), lambda pid: pid != named)
    # What it is stands in lines of the kernel's, not in its name.
    assert parse_status(procfs.read_shown(named, "status"))[1] == {os.getuid()}
    assert read_process(named, {}).uids == {os.getuid()}


def test_a_mount_does_not_hide_behind_its_name() -> None:
    line = "36 35 98:0 / /mnt\u2028x rw,noatime master:1 - ext3 /dev/root rw,errors=continue"
    assert [(one.point, one.kind) for one in parse_mounts(line + "\n")] == [("/mnt\u2028x", "ext3")]


def test_a_start_that_cannot_be_kept_keeps_no_other_from_it(tmp_path: Path) -> None:
    """Names of cgroups are bytes as well."""
    owners = Owners(tmp_path / "owners.json")
    good = Start(owners.draw(), "crew", 5, "games", (), "/sys/fs/cgroup/weir.slice/crew-1", 0)
    odd = Start(owners.draw(), "crew", 5, "games", (), os.fsdecode(b"/sys/fs/cgroup/weir.slice/\xff"), 0)
    with pytest.raises(ValueError):
        owners.put(odd)
    owners.put(good)
    assert list(Owners(tmp_path / "owners.json")) == [good] == list(owners)


def test_links_in_a_circle_are_read_past(tmp_path: Path) -> None:
    """A crew may make them of its own directory; who may write where they lie is said all the same."""
    tmp_path.chmod(0o777)
    (tmp_path / "work").symlink_to("work")
    crew: Any = SimpleNamespace(name="crew", users=("nobody",), directories=(str(tmp_path / "work"),))
    assert [one.key for one in sharing.writable(crew, "nobody")] == [f"directory {tmp_path}/work"]
