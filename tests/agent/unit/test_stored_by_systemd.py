"""When systemd itself keeps what it was given, and when not: a `systemd --user` of the test's own (privatesystemd.py),
a unit that has of weir-agent.service what is about that, and in it a listener by agent/unit/stored.py.
"""
from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab.hosts import wait_until
from privatesystemd import PrivateSystemd, missing, private_systemd

from agent.network.networks import MOST

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

ROOT = Path(__file__).resolve().parents[3]
UNIT = (ROOT / "packaging/systemd/weir-agent.service").read_text()
MAX = re.search(r"(?m)^FileDescriptorStoreMax=(\d+)$", UNIT)
NAME = "door.service"
DOOR = """
import os, signal, socket, sys
from agent.unit import stored
from agent.unit.units import tell_systemd
handed = stored.take_stored()
found = [fd for name, fd in handed if name == "weir.1"]
door = socket.socket(fileno=found[0]) if found else socket.create_server(("127.0.0.1", 0))
if not found:
    stored.store("weir.1", [door.fileno()])
    for number in range(int(sys.argv[2])):
        with socket.socket(socket.AF_UNIX) as one:
            stored.store(f"more.{number}", [one.fileno()])
with open(sys.argv[1], "a") as said:
    said.write(f"{os.getpid()} {'weir.1' if found else 'nothing'} {door.getsockname()[1]}\\n")
tell_systemd("READY=1")
signal.pause()
"""


@dataclass
class Door:
    systemd: PrivateSystemd
    place: Path
    seen: int = 0

    def write(self, keeps: str, more: int = 0) -> None:
        """`more`: how many it stores beside the listener."""
        taken = re.findall(r"(?m)^(?:Type|Restart|KillMode)=.*\n", UNIT)
        assert len(taken) == 3
        self.systemd.write(NAME, "[Unit]\nDefaultDependencies=no\nStartLimitIntervalSec=0\n[Service]\n"
                           f"{''.join(taken)}{keeps}\n"
                           f"RestartSec=1\nEnvironment=PYTHONPATH={ROOT}\n"
                           f"ExecStart={sys.executable} {self.place}/door.py {self.place}/said {more}\n")

    def next(self) -> tuple[int, str, int]:
        """Of the next one that has started: pid, what it was handed, port."""
        def lines() -> list[str]:
            with suppress(FileNotFoundError):
                return (self.place / "said").read_text().splitlines()
            return []

        wait_until("it has started", lambda: len(lines()) > self.seen and self.state == "active")
        pid, handed, port = lines()[self.seen].split()
        self.seen += 1
        assert len(lines()) == self.seen
        return int(pid), handed, int(port)

    @property
    def state(self) -> str:
        return self.systemd.shown(NAME, "Unit", "ActiveState").strip('"')

    @property
    def kept(self) -> int:
        return int(self.systemd.shown(NAME, "Service", "NFileDescriptorStore"))


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    (tmp_path / "door.py").write_text(DOOR)
    with private_systemd() as systemd:
        made = Door(systemd, tmp_path)
        assert MAX is not None
        made.write(MAX[0])
        systemd.reload()
        systemd.queue("StartUnit", NAME)
        yield made
        systemd.queue("StopUnit", NAME)
        wait_until("it has stopped", lambda: made.state in ("inactive", "failed"))


def dial(port: int) -> int:
    with socket.socket() as one:
        one.settimeout(5)
        return one.connect_ex(("127.0.0.1", port))


def test_a_restart_and_a_crash_hand_it_over(door: Door) -> None:
    pid, handed, port = door.next()
    assert (handed, door.kept) == ("nothing", 1)
    door.systemd.queue("RestartUnit", NAME)
    pid, handed, again = door.next()
    assert (handed, again, door.kept) == ("weir.1", port, 1)
    os.kill(pid, signal.SIGKILL)
    wait_until("it has ended", lambda: not Path("/proc", str(pid)).exists())
    assert dial(port) == 0, "it waits"
    _, handed, again = door.next()
    assert (handed, again, door.kept) == ("weir.1", port, 1)


def test_a_stop_closes_it(door: Door) -> None:
    _, _, port = door.next()
    door.systemd.queue("StopUnit", NAME)
    wait_until("it has stopped", lambda: door.state == "inactive")
    wait_until("nobody listens", lambda: dial(port) != 0)
    assert door.kept == 0
    door.systemd.queue("StartUnit", NAME)
    assert door.next()[1] == "nothing"


def test_another_version_of_the_unit(door: Door) -> None:
    """It is read before the new agent starts.  One that keeps nothing: an agent of before, which knows of none."""
    _, _, port = door.next()
    assert MAX is not None
    door.write(MAX[0])
    door.systemd.reload()
    door.systemd.queue("RestartUnit", NAME)
    assert door.next()[1:] == ("weir.1", port)
    door.write("")
    door.systemd.reload()
    assert door.kept == 0
    door.systemd.queue("RestartUnit", NAME)
    assert door.next()[1] == "nothing"


def test_a_full_store_is_handed_over(door: Door) -> None:
    """And no more is taken than can be: with more than half of the descriptors that a process may have by default, it
    could not be started again."""
    assert MAX is not None
    most = int(MAX[1])
    door.next()
    door.systemd.queue("StopUnit", NAME)
    wait_until("it has stopped", lambda: door.state == "inactive")
    door.write(MAX[0], most + 10)
    door.systemd.reload()
    door.systemd.queue("StartUnit", NAME)
    port = door.next()[2]
    wait_until("it is full", lambda: door.kept == most)
    door.systemd.queue("RestartUnit", NAME)
    assert door.next()[1:] == ("weir.1", port)
    assert door.kept == most
    assert most >= (MOST // 3 + 1) * 4, "of many networks, and the host's"
