"""Whose an accepted connection is, where others have the same address and port: before, after, or at once."""
from __future__ import annotations

import socket
import subprocess

import pytest
from blockhost import PORT, PYTHON, SERVER4, SINK, Block, line, listener, outsider, whose

pytestmark = pytest.mark.kernel

VICTIM, ATTACKER = {"mark": 8, "child": "two"}, {"mark": 7}
FROM = 40011                          # in the range from which the kernel chooses: where the victim's port lies
# ADDRESS PORT SOURCE DEVICE: what connect says, and then whatever it is told to do.
DIAL = """
import socket, struct, sys
host, port, source, device = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
s.settimeout(2)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.setsockopt(0, 51, struct.pack("=I", source << 16 | source))           # IP_LOCAL_PORT_RANGE
try:
    if device:
        s.setsockopt(socket.SOL_SOCKET, 25, device.encode())
    s.connect((host, port))
    print("connected", flush=True)
except OSError as error:
    print(error.strerror or error, flush=True)
def said(act):
    try:
        act()
        print("done", flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
for line in sys.stdin:
    exec(line)
"""
RESET = 's.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); said(s.close)'


def dial(block: Block, host: str, port: int, device: str = "", **how: object) -> subprocess.Popen[str]:
    return block.python(DIAL, host, port, FROM, device, **how)


def test_what_was_sent_before_somebody_else_had_the_port_is_not_his(contained: Block) -> None:
    """The first is gone by when it is asked whose its connection is."""
    with listener() as door:
        first = dial(contained, "203.0.113.9", 9, **ATTACKER)
        assert line(first) == "connected"
        accepted, _ = door.accept()
        assert line(first, "said(lambda: s.sendall(b'theirs'))") == "done"
        assert line(first, RESET) == "done"
        then = dial(contained, SERVER4, SINK, **VICTIM)
        assert line(then) == "connected"
        with accepted, door.accept()[0] as other:
            origin, another = whose(contained, accepted), whose(contained, other)
    assert origin is not None
    assert (origin.owner, origin.destination) == (7, "203.0.113.9")
    assert another is not None
    assert (another.owner, another.destination) == (8, SERVER4)


def test_a_socket_of_a_device_is_no_second_one_of_an_address(contained: Block) -> None:
    """The kernel lets two have the same ends, where the first is bound to a device; then or later."""
    with listener() as door:
        assert line(dial(contained, "203.0.113.9", 9, "lo", **ATTACKER)) == "Operation not permitted"
        later = dial(contained, "203.0.113.9", 9, **ATTACKER)
        assert line(later) == "connected"
        assert line(later, "said(lambda: s.setsockopt(1, 25, b'lo'))") == "Operation not permitted"
        assert line(later, "said(lambda: s.setsockopt(1, 62, struct.pack('=i', 1)))") == "Operation not permitted"
        with socket.socket() as lent:
            lent.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
            lent.set_inheritable(True)
            script = "import socket, sys; socket.socket(fileno=int(sys.argv[1])).connect(('203.0.113.9', 9))"
            group = contained.containment.slice / "one"
            done = subprocess.run([PYTHON, "-I", "-c", script, str(lent.fileno())], pass_fds=[lent.fileno()], text=True,
                                  preexec_fn=lambda: (group / "cgroup.procs").write_text("0") and None,
                                  capture_output=True, timeout=30)
        assert "PermissionError" in done.stderr
        door.accept()[0].close()
        door.setblocking(False)
        with pytest.raises(BlockingIOError):
            door.accept()
    assert [one.verdict for one in contained.containment.drain()] == ["redirected", "refused"]


@pytest.mark.parametrize(("family", "host"), [
    (socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET, "::ffff:127.0.0.1"),
    (socket.AF_INET6, "::1"), (socket.AF_INET6, "::")])
@pytest.mark.parametrize("device", ["", "lo"])
def test_no_outsider_dials_the_listener(
    contained: Block, family: socket.AddressFamily, host: str, device: str) -> None:
    with listener(family) as door:
        with outsider(DIAL, host, PORT, FROM, device) as other:
            assert line(other) == "Operation not permitted"
        door.setblocking(False)
        with pytest.raises(BlockingIOError):
            door.accept()


def test_a_port_of_that_number_elsewhere_is_anybodys(contained: Block) -> None:
    """Where Weir does not listen."""
    with outsider(DIAL, "127.0.0.1", PORT, FROM, "") as other:
        assert line(other) == "Connection refused"
    with socket.create_server(("127.0.0.2", PORT)), outsider(DIAL, "127.0.0.2", PORT, FROM, "") as other:
        assert line(other) == "connected"


@pytest.mark.parametrize("who", ["a crew, within itself", "nobody's"])
def test_another_connect_from_the_same_port_takes_nothing_away(contained: Block, who: str) -> None:
    how: dict[str, object] = ATTACKER if who != "nobody's" else {"inside": False}
    served = contained.python("import socket, sys; door = socket.create_server(('127.0.0.1', 17341))\n"
                              "print('up', flush=True); sys.stdin.read()", **how)
    assert line(served) == "up"
    with listener() as door:
        assert line(dial(contained, SERVER4, SINK, **VICTIM)) == "connected"
        accepted, _ = door.accept()
        with accepted:
            assert line(dial(contained, "127.0.0.1", 17341, **how)) == "connected"
            origin = whose(contained, accepted)
    assert origin is not None
    assert (origin.owner, origin.destination) == (8, SERVER4)


FAST = """
import socket, sys
for number in range(3):
    with socket.socket() as s:
        if sys.argv[2] == "sendto":
            s.sendto(b"early", 0x20000000, (sys.argv[1], 9))        # MSG_FASTOPEN
        else:
            s.setsockopt(socket.IPPROTO_TCP, 30, 1)                 # TCP_FASTOPEN_CONNECT
            s.connect((sys.argv[1], 9))
            s.sendall(b"early")
        s.recv(1)
"""


@pytest.mark.parametrize("way", ["sendto", "connect"])
def test_fast_open_is_no_other_handshake(contained: Block, way: str) -> None:
    with listener() as door:
        contained.python(FAST, SERVER4, way, **VICTIM)
        for _ in range(3):
            accepted, _ = door.accept()
            with accepted:
                assert accepted.recv(10) == b"early"
                origin = whose(contained, accepted)
                accepted.sendall(b".")
            assert origin is not None
            assert (origin.owner, origin.destination) == (8, SERVER4)
