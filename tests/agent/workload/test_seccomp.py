"""The filter itself, in a child that takes nothing but it."""
from __future__ import annotations

import base64
import errno
import subprocess
import sys

import pytest

from agent.workload.seccomp import render_filter

# Puts the filter in force (seccomp(2), no_new_privs), then makes a socket or a pair and says what came of it.
CHILD = """
import base64, ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
program = base64.b64decode(sys.argv[1])
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(len(program) // 8, program)), 0, 0) == 0
pair = (ctypes.c_int * 2)()
family, kind, protocol = map(int, sys.argv[3:])
said = libc.socket(family, kind, protocol) if sys.argv[2] == "socket" else libc.socketpair(family, kind, protocol, pair)
print(ctypes.get_errno() if said < 0 else 0)
"""


def made(what: str, family: int, kind: int, protocol: int = 0) -> int:
    """errno."""
    program = base64.b64encode(render_filter()).decode()
    done = subprocess.run([sys.executable, "-I", "-c", CHILD, program, what, str(family), str(kind), str(protocol)],
                          capture_output=True, text=True, check=True, timeout=30)
    return int(done.stdout)


@pytest.mark.parametrize(("what", "family", "kind"), [
    ("socket", 1, 1), ("socket", 2, 1), ("socket", 10, 2), ("socket", 16, 3), ("socketpair", 1, 1),
    ("socketpair", 1, 5),
])
def test_what_clients_need(what: str, family: int, kind: int) -> None:
    assert made(what, family, kind) == 0


@pytest.mark.parametrize(("what", "family"), [
    ("socket", 17), ("socket", 40), ("socket", 30), ("socketpair", 30), ("socketpair", 38), ("socketpair", 2),
])
def test_families_that_the_probes_do_not_see(what: str, family: int) -> None:
    """A pair, too: the kernel makes both sockets, and loads their module, before it asks whether there are pairs."""
    assert made(what, family, 5) == errno.EAFNOSUPPORT
