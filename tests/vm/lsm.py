"""Run inside the machine, as root, with an agent of its own: what BPF LSM refuses to whoever is in the crews' slice,
where no launcher and no seccomp filter stands in the way; and that it refuses nobody else anything.

Not collected by an ordinary run (its name).  Each check runs the same lines in the slice and, as control, outside.
"""
from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from vm import checks

SLICE, CONTROL = checks.SLICE, "/run/weir/control.sock"
ENTER = "import os, socket, sys\nopen(sys.argv[1] + '/cgroup.procs', 'w').write('0')\n"
# family, type, protocol -> errno, or 0
SOCKETS = """import json
said = {}
for one in json.loads(sys.argv[2]):
    try:
        socket.socket(*one).close()
        said[str(one)] = 0
    except OSError as reason:
        said[str(one)] = reason.errno
print(json.dumps(said))
"""
REFUSED = [(38, 5, 0), (17, 3, 768), (40, 1, 0), (16, 3, 12), (16, 3, 9), (16, 3, 16), (31, 3, 0)]
PERMITTED = [(1, 1, 0), (1, 2, 0), (2, 1, 0), (2, 2, 17), (10, 1, 6), (16, 3, 0)]
REACH = """kind, name = int(sys.argv[2]), sys.argv[3].replace("@", "\\0", 1)
one = socket.socket(socket.AF_UNIX, kind)
try:
    one.connect(name)
    print("connected")
except OSError as reason:
    print(reason.errno)
"""
OWN = """listener = socket.socket(socket.AF_UNIX)
listener.bind("\\0weir-vm-own")
listener.listen()
if os.fork() == 0:
    one = socket.socket(socket.AF_UNIX)
    one.connect("\\0weir-vm-own")
    print("connected", flush=True)
    os._exit(0)
os.wait()
"""
MEMORY = """try:
    open(f"/proc/{sys.argv[2]}/mem", "rb").close()
    print("opened")
except OSError as reason:
    print(reason.errno)
"""
CALLS = """import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for number, words in ((321, (0, ctypes.create_string_buffer(b"\\1\\0\\0\\0\\4\\0\\0\\0\\4\\0\\0\\0\\1", 128), 128)),
                      (298, (ctypes.create_string_buffer(b"\\1\\0\\0\\0\\x80", 128), 0, -1, -1, 0))):
    print(0 if libc.syscall(number, *words) >= 0 else ctypes.get_errno())
"""


@contextlib.contextmanager
def cgroup(name: str) -> Iterator[str]:
    path = SLICE / name
    path.mkdir()
    try:
        yield str(path)
    finally:
        path.rmdir()


def inside(program: str, *words: str, name: str = "lsm") -> str:
    with cgroup(name) as path:
        return run(ENTER + program, path, *words)


def outside(program: str, *words: str) -> str:
    return run("import os, socket, sys\n" + program, "", *words)


def run(program: str, *words: str) -> str:
    done = subprocess.run(["/usr/bin/python3", "-c", program, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def agent() -> Iterator[None]:
    with checks.running():
        yield


@contextlib.contextmanager
def host_service(kind: int, name: str) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX, kind) as one:
        one.bind(name.replace("@", "\0", 1))
        if kind != socket.SOCK_DGRAM:
            one.listen()
        yield


def test_it_is_on_and_says_so() -> None:
    status = json.loads(checks.weir("status", "--json").stdout)
    assert status["lsm"] == ("on: socket_create, unix_stream_connect, unix_may_send, ptrace_access_check, bpf, "
                             "perf_event_open")
    assert status["state"] == "enforcing"


def test_only_usual_families_are_a_crews() -> None:
    asked = json.dumps([*REFUSED, *PERMITTED])
    assert set(json.loads(inside(SOCKETS, asked)).items()) >= {(str(list(one)), 0) for one in PERMITTED}
    crew, others = json.loads(inside(SOCKETS, asked)), json.loads(outside(SOCKETS, asked))
    for one in map(str, map(list, REFUSED)):
        assert crew[one] in (93, 97), one                   # EPROTONOSUPPORT, EAFNOSUPPORT
    there = [one for one in map(str, map(list, REFUSED)) if others[one] == 0]
    assert len(there) >= 4, others                          # the ways that exist on this kernel


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_an_abstract_socket_of_the_hosts_is_not_reached(kind: int) -> None:
    with host_service(kind, "@weir-vm-host"):
        assert outside(REACH, str(int(kind)), "@weir-vm-host") == "connected"
        assert inside(REACH, str(int(kind)), "@weir-vm-host") == "1"


def test_nor_one_of_another_start() -> None:
    with cgroup("other") as other:
        server = subprocess.Popen(
            ["/usr/bin/python3", "-c", ENTER + "one = socket.socket(socket.AF_UNIX)\none.bind('\\0weir-vm-other')\n"
             "one.listen()\nprint('up', flush=True)\nsys.stdin.read()", other], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True)
        with server:
            assert server.stdout is not None
            assert server.stdout.readline() == "up\n"
            assert outside(REACH, "1", "@weir-vm-other") == "connected"
            assert inside(REACH, "1", "@weir-vm-other") == "1"


def test_its_own_is() -> None:
    assert inside(OWN) == "connected"


def test_a_socket_in_a_directory_is_reached_and_weirs_own_is_not(tmp_path: Path) -> None:
    with host_service(socket.SOCK_STREAM, str(tmp_path / "door")):
        assert inside(REACH, "1", str(tmp_path / "door")) == "connected"
    assert outside(REACH, "1", CONTROL) == "connected"
    assert inside(REACH, "1", CONTROL) == "1"


def test_memory_of_others_is_not_a_crews() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        assert outside(MEMORY, str(other.pid)) == "opened"
        assert inside(MEMORY, str(other.pid)) in ("1", "13")
        other.kill()


def test_its_own_childs_is() -> None:
    said = inside("child = os.fork()\nif child == 0:\n    import time\n    time.sleep(60)\n"
                  "sys.argv[2:] = [str(child)]\n" + MEMORY + "os.kill(child, 9)\nos.wait()\n")
    assert said == "opened"


def test_bpf_and_perf_events_are_not_a_crews() -> None:
    assert outside(CALLS).split() == ["0", "0"]
    assert inside(CALLS).split() == ["1", "1"]


def test_a_pin_that_is_removed_is_put_back() -> None:
    pin = Path("/run/weir/bpf/link_lsm__bpf")
    pin.unlink()
    checks.wait_for("degraded", 60)
    checks.wait_for("enforcing")
    assert pin.exists()
    assert inside(CALLS).split() == ["1", "1"]


def test_a_workload_works_under_it() -> None:
    """Mark before the first instruction, bubblewrap and all."""
    done: subprocess.CompletedProcess[str] = checks.run(*_workload(), "/usr/bin/python3", "-c", "print('here')")
    assert done.stdout == "here\n", done.stderr


def _workload() -> Sequence[str]:
    return checks.AS_CREW


if __name__ == "__main__":
    sys.exit(os.EX_USAGE)
