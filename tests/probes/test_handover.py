"""A listener outlives who made it: whoever connects while no agent runs is known to the next."""
from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from blockhost import CONNECT, NAME, NOBODY, PORT, PYTHON, Block, line, socket_cookie

pytestmark = pytest.mark.kernel

# CGROUP FD: in that cgroup it makes a listener, hands it over, and ends.
AGENT = """
import socket, sys
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
door = socket.socket()
door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
door.bind(("127.0.0.1", int(sys.argv[3])))
door.listen(64)
with socket.socket(fileno=int(sys.argv[2])) as keeper:
    socket.send_fds(keeper, [b"kept"], [door.fileno()])
"""


@contextmanager
def left_by_an_agent(block: Block) -> Iterator[socket.socket]:
    """Its process and its cgroup are gone."""
    group = block.containment.slice.parent / f"{NAME}-agent"
    group.mkdir()
    try:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            subprocess.run([PYTHON, "-I", "-c", AGENT, str(group), str(theirs.fileno()), str(PORT)], check=True,
                           pass_fds=[theirs.fileno()], timeout=60)
            _, [door], _, _ = socket.recv_fds(ours, 16, 1)
    finally:
        group.rmdir()
    with socket.socket(fileno=door) as kept:
        kept.settimeout(5)
        yield kept


def test_who_connects_while_no_agent_runs_is_known_to_the_next(contained: Block) -> None:
    """Before and after that one has put its own programs in the place of the first's."""
    with left_by_an_agent(contained) as door:
        contained.containment.know_doors([door.fileno()])
        early = contained.python(CONNECT, "203.0.113.9", 9, mark=8)
        assert line(early) == "('203.0.113.9', 9)", "it is connected, and waits"
        then = contained.fresh()
        then.install()
        try:
            assert then.is_door(door.fileno())
            late = contained.python(CONNECT, "203.0.113.9", 10, mark=9, child="two")
            assert line(late) == "('203.0.113.9', 10)"
            for process, owner, port in ((early, 8, 9), (late, 9, 10)):
                with door.accept()[0] as accepted:
                    origin = then.take(socket_cookie(accepted))
                assert origin is not None
                assert (origin.owner, origin.tgid, origin.destination, origin.port, origin.verdict) == (
                    owner, process.pid, "203.0.113.9", port, "redirected")
        finally:
            then.close()


def test_a_listener_that_no_agent_has_made_known_is_no_door(contained: Block) -> None:
    """Another's, or one of before the block was taken away."""
    with left_by_an_agent(contained) as door:
        assert not contained.containment.is_door(door.fileno())
        assert NOBODY in contained.python(CONNECT, "203.0.113.9", 9, mark=8).communicate(timeout=30)[0]
    read, write = os.pipe()
    with open(read), open(write, "w"), pytest.raises(OSError, match="map"):
        contained.containment.is_door(read)
