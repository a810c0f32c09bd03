"""The hook that hands marks on is away for a while: whoever is born then has its number's former holder's."""
from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from blockhost import SERVER4, SINK, Block

from agent.block.holdings import CONNECTION
from agent.block.marks import TICK

pytestmark = pytest.mark.kernel

STALE = 77
FORK = """
import ctypes, os, signal, sys
print("ready", flush=True)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)         # PR_SET_PDEATHSIG: ends with its parent
        for number in range(3):
            os.dup2(os.open("/dev/null", os.O_RDWR), number)
        signal.pause()
    print(pid, flush=True)
"""

@contextmanager
def away(block: Block) -> Iterator[None]:
    """No newtask; every number that comes next has a former holder's mark."""
    link = block.containment._links.pop("newtask")
    os.close(link)
    (block.containment.bpffs / "link_newtask").unlink()
    assert any(one.startswith("hook newtask") for one in block.containment.problems())
    with subprocess.Popen(["true"]) as last:
        numbers = range(last.pid + 1, last.pid + 400)
    for pid in numbers:
        block.containment.mark(pid, STALE)
    yield


def ready(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def said(process: subprocess.Popen[str], line: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_each_has_its_own_again(contained: Block) -> None:
    left = ready(contained.python(FORK, mark=9, leave=True))
    time.sleep(2 * TICK / 1e9)
    assert contained.containment.problems() == []
    with away(contained):
        host, crew = ready(contained.python(FORK, inside=False)), ready(contained.python(FORK, child="two"))
        unit = ready(contained.python(FORK, child="wt.service"))
        of_left = int(said(left, "fork"))
        stale = [contained.containment.owner_of(pid) for pid in (host.pid, crew.pid, unit.pid, of_left)]
        assert stale == [STALE] * 4, "the control: they have what the numbers had"
    contained.containment.repair()
    of_host = int(said(host, "fork"))
    assert contained.containment.owner_of(of_host) == STALE, "and hand it on"
    assert contained.containment.remark({str(contained.containment.slice / "two"): 8}) >= 4
    marks = {name: contained.containment.owner_of(pid) for name, pid in {
        "host": host.pid, "of host": of_host, "crew": crew.pid, "unit": unit.pid, "left": left.pid,
        "of left": of_left}.items()}
    assert marks == {"host": 0, "of host": 0, "crew": 8, "unit": 0, "left": 9, "of left": 9}
    assert contained.containment.owner_of(int(said(crew, "fork"))) == 8
    assert contained.containment.remark({}) == 0, "once"


def test_a_process_of_the_host_loses_nothing_meanwhile(contained: Block) -> None:
    """It counts as a crew's by its mark, and so holds a socket from elsewhere: its own."""
    with away(contained):
        # Connected before it had the mark, or the hooks would send it to the listener.
        with socket.create_connection((SERVER4, SINK), 5) as link:
            host = contained.start(["/usr/bin/python3", "-I", "-c", "import time; print('ready', flush=True); "
                                    "time.sleep(60)"], inside=False)
            ready(host)
            held = subprocess.Popen(["sleep", "60"], stdin=link)
            contained.started.append(held)  # type: ignore[arg-type]
            assert contained.containment.owner_of(held.pid) == STALE
            assert held.pid in contained.containment.crew()
            assert [one for one in contained.containment.foreign_sockets(CONNECTION) if one.place.pid == held.pid] == []
            link.send(b"still-connected")
    contained.containment.repair()
    assert contained.containment.foreign_sockets(CONNECTION) == []
    contained.containment.remark({})
    assert contained.containment.owner_of(held.pid) == 0
    assert contained.containment.foreign_sockets(CONNECTION) == []
