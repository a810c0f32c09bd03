"""What a crew's connect looks like: to the crew, to who accepts, and in the ring."""
from __future__ import annotations

import array
import ctypes
import os
import socket
import subprocess
from pathlib import Path

import pytest
from blockhost import (
    CONNECT,
    CREW4,
    CREW6,
    DNS,
    DNS4,
    NO_DNS4,
    PORT,
    SERVER4,
    SERVER6,
    SINK,
    Block,
    cookie,
    entered,
    listener,
    whose,
)
from lab.hosts import wait_until

from agent.block.cgroups import cgroup_id
from probes import abi

pytestmark = pytest.mark.kernel

@pytest.mark.parametrize(("to", "source", "family"), [
    (SERVER4, "", socket.AF_INET), (SERVER4, CREW4, socket.AF_INET), (SERVER6, "", socket.AF_INET6),
    (SERVER6, CREW6, socket.AF_INET6), ("::ffff:" + SERVER4, "", socket.AF_INET), ("127.0.0.1", "", socket.AF_INET),
    ("::1", "", socket.AF_INET6), ("203.0.113.5", "", socket.AF_INET),
])
@pytest.mark.parametrize("how", [{"mark": 9}, {}, {"mark": 9, "leave": True}], ids=["mark", "cgroup", "left"])
def test_attributed_before_it_is_accepted(
    contained: Block, to: str, source: str, family: socket.AddressFamily, how: dict[str, int]) -> None:
    contained.containment.register([("127.0.0.1", 5432), ("::1", 5432)])
    with listener(family) as door:
        crew = contained.python(CONNECT, to, 5432, *([source] if source else []), **how)
        accepted, _ = door.accept()
        with accepted:
            origin = whose(contained, accepted)
            assert origin is not None
            assert (origin.destination, origin.port) == (to.removeprefix("::ffff:"), 5432)
            assert (origin.owner, origin.hook) == ((9, "mark") if how else (0, "cgroup"))
            assert origin.tgid == crew.pid
            if "leave" not in how:
                assert origin.cgroup == cgroup_id(contained.containment.slice / "one")
            assert whose(contained, accepted) is None, "handed out once"
            said, _ = crew.communicate("\n", timeout=10)
    assert said == f"('{to}', 5432)\n" * 2, "the crew sees whom it dialled"
    assert [one for one in contained.containment.drain() if one.port == 5432] == [origin]


def test_each_of_many_has_its_answer_when_it_is_accepted(contained: Block) -> None:
    script = "import socket\nfor _ in range(900): socket.create_connection(('203.0.113.5', 5432), 5).close()"
    with listener() as door:
        crew = contained.python(script, mark=9)
        unknown = 0
        for _ in range(900):
            accepted, _ = door.accept()
            with accepted:
                unknown += whose(contained, accepted) is None
        crew.communicate(timeout=30)
    assert unknown == 0
    assert len(contained.containment.drain()) == 900


def test_an_ordinary_process_is_left_alone(contained: Block) -> None:
    with socket.create_connection((SERVER4, SINK), 5) as one:
        assert one.getpeername() == (SERVER4, SINK)
    assert contained.containment.drain() == []


def test_who_dials_the_listener_by_hand_is_nobody(contained: Block) -> None:
    with listener() as door:
        crew = contained.python(CONNECT, SERVER4, 5432, CREW4, mark=9)
        accepted, (_, port) = door.accept()
        accepted.close()
        crew.communicate("\n", timeout=10)
        # Nobody has asked for that origin; an ordinary process gets the same address and port.
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind((CREW4, port))
            other.connect(("127.0.0.1", PORT))
            accepted, peer = door.accept()
            with accepted:
                assert peer == (CREW4, port)
                assert whose(contained, accepted) is None
                assert contained.containment.by_redirect(
                    cookie(accepted), socket.inet_aton(CREW4), port) is None


def test_another_namespace_has_other_sockets(contained: Block) -> None:
    with listener() as door:
        crew = contained.python(CONNECT, SERVER4, 5432)
        accepted, _ = door.accept()
        with accepted:
            address, port = accepted.getpeername()
            with entered(contained.server), socket.socket() as elsewhere:
                other = cookie(elsewhere)
            assert other != cookie(accepted)
            assert contained.containment.by_redirect(other, socket.inet_aton(address), port) is None
            assert whose(contained, accepted) is not None
        crew.communicate("\n", timeout=10)


def test_a_crews_socket_in_other_hands_is_still_the_crews(contained: Block) -> None:
    """Made in the slice, sent over a Unix socket, connected by an ordinary process."""
    ours, theirs = socket.socketpair()
    theirs.set_inheritable(True)
    script = """
import array, socket, sys
unix = socket.socket(fileno=int(sys.argv[1]))
tcp, udp = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
unix.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [tcp.fileno(), udp.fileno()]))])
sys.stdin.readline()
"""
    group = contained.containment.slice / "one"
    group.mkdir(exist_ok=True)
    command = ["/usr/bin/python3", "-I", "-c", script, str(theirs.fileno())]
    crew = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[theirs.fileno()],
                            preexec_fn=lambda: (group / "cgroup.procs").write_text("0") and None)
    with ours, theirs, listener() as door:
        _, [(_, _, raw)], _, _ = ours.recvmsg(1, 1024)
        tcp, udp = (socket.socket(fileno=fd) for fd in array.array("i", raw))
        with tcp, udp:
            tcp.connect((SERVER4, SINK))
            accepted, _ = door.accept()
            with accepted:
                origin = whose(contained, accepted)
            assert origin is not None
            assert (origin.hook, origin.cgroup, origin.tgid) == ("socket", cgroup_id(group), os.getpid())
            with pytest.raises(PermissionError):
                udp.sendto(b"token-udp", (SERVER4, SINK))
            udp.connect((SERVER4, SINK))
            with pytest.raises(PermissionError):
                udp.send(b"token-udp")
        crew.communicate(b"\n", timeout=10)
    assert not contained.sink.saw("token-udp")


def test_an_ordinary_processs_socket_in_a_crews_hands(contained: Block) -> None:
    script = """
import socket, sys
tcp, udp = (socket.socket(fileno=int(fd)) for fd in sys.argv[1:3])
tcp.connect((sys.argv[3], int(sys.argv[4])))
for act in (lambda: udp.connect((sys.argv[3], int(sys.argv[4]))), lambda: udp.send(b"token-lent"),
            lambda: udp.sendto(b"token-lent", (sys.argv[3], int(sys.argv[4])))):
    try:
        act()
        print("through")
    except OSError as error:
        print(error.strerror)
"""
    group = contained.containment.slice / "one"
    group.mkdir(exist_ok=True)
    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, listener() as door:
        done = subprocess.run(
            ["/usr/bin/python3", "-I", "-c", script, str(tcp.fileno()), str(udp.fileno()), SERVER4, str(SINK)],
            pass_fds=[tcp.fileno(), udp.fileno()], preexec_fn=lambda: (group / "cgroup.procs").write_text("0") and None,
            capture_output=True, text=True, timeout=30)
        accepted, _ = door.accept()
        with accepted:
            origin = whose(contained, accepted)
    assert origin is not None
    assert (origin.destination, origin.hook) == (SERVER4, "cgroup")
    assert "through" not in done.stdout, done.stdout + done.stderr
    assert not contained.sink.saw("token-lent")


RESOLVE = """
import socket, sys
s = socket.socket(socket.AF_INET, int(sys.argv[2]))
s.settimeout(5)
if sys.argv[2] == "1" or sys.argv[3] == "connected":
    s.connect((sys.argv[1], 53))
    s.send(b"question")
else:
    s.sendto(b"question", (sys.argv[1], 53))
print(s.recv(100), flush=True)
"""


@pytest.mark.parametrize("how", [{"mark": 9}, {}, {"mark": 9, "leave": True}], ids=["mark", "cgroup", "left"])
@pytest.mark.parametrize(("kind", "way"), [(1, ""), (2, "sendto"), (2, "connected")])
def test_the_resolver_is_reached(contained: Block, kind: int, way: str, how: dict[str, int]) -> None:
    said, _ = contained.python(RESOLVE, DNS4, kind, way, **how).communicate(timeout=20)
    assert said == "b'question'\n"
    seen = contained.containment.drain()
    assert [(one.destination, one.port, one.verdict) for one in seen] == ([(DNS4, DNS, "dns")] if kind == 1 else [])


@pytest.mark.parametrize("way", ["sendto", "connected"])
def test_another_name_server_is_not(contained: Block, way: str) -> None:
    said, _ = contained.python(RESOLVE, NO_DNS4, 2, way).communicate(timeout=20)
    assert "PermissionError" in said


KINDS = """
import socket
for family in (socket.AF_INET, socket.AF_INET6):
    for kind, protocol in ((1, 0), (1, 6), (2, 0), (2, 17), (3, 1), (3, 255), (1, 262), (2, 136), (2, 1), (1, 132)):
        try:
            socket.socket(family, kind, protocol).close()
            print(kind, protocol, "made")
        except PermissionError:
            print(kind, protocol, "refused")
        except OSError:
            print(kind, protocol, "unknown to this kernel")
socket.socketpair()
"""


def test_kinds_of_sockets(contained: Block) -> None:
    said, _ = contained.python(KINDS).communicate(timeout=20)
    made = {line.rsplit(" ", 1)[0] for line in said.splitlines() if line.endswith("made")}
    assert made == {"1 0", "1 6", "2 0", "2 17"}, said
    assert "Traceback" not in said


FILL = """
import socket, sys
for number in range(int(sys.argv[1])):
    with socket.socket() as s:
        try:
            s.connect(("203.0.113.9", 9))
        except ConnectionRefusedError:
            pass                         # nobody listens: it was let through to the listener's place
        except PermissionError:
            print(number, "full", flush=True)
            break
else:
    print(sys.argv[1], "room", flush=True)
sys.stdin.readline()
try:
    socket.socket().connect(("203.0.113.9", 9))
except OSError as error:
    print(type(error).__name__, flush=True)
"""


def test_what_cannot_be_logged_is_refused(contained: Block) -> None:
    """By several workloads: the turn of one does not fill the ring."""
    count, each = 0, abi.CONNECTS_AT_ONCE
    assert 2 * each * ctypes.sizeof(abi.Origin) < abi.RING_BYTES
    for number in range(31, 31 + abi.RING_BYTES // (each * ctypes.sizeof(abi.Origin)) + 1):
        crew = contained.python(FILL, each, mark=number)
        assert crew.stdout is not None
        assert crew.stdin is not None
        done, said = crew.stdout.readline().split()
        count += int(done)
    assert said == "full"
    lines = contained.containment.drain()
    assert len(lines) == count
    crew.stdin.write("\n")
    crew.stdin.flush()
    assert crew.stdout.readline() == "ConnectionRefusedError\n", "with room in the ring it goes on"
    assert len(contained.containment.drain()) == 1


def test_redirected_by_the_rules_alone(detached: Block) -> None:
    with listener() as four, listener(socket.AF_INET6) as six:
        for door, to, source in ((four, SERVER4, CREW4), (six, SERVER6, CREW6)):
            crew = detached.python(CONNECT, to, 5432)
            accepted, (address, port, *_) = door.accept()
            with accepted:
                assert address == source
                family = door.family
                netns = cookie(accepted)
                origin = detached.containment.by_redirect(netns, socket.inet_pton(family, address), port)
                assert origin is not None
                assert (origin.destination, origin.port, origin.hook) == (to, 5432, "redirect")
                assert origin.cgroup == cgroup_id(detached.containment.slice / "one")
                assert (origin.owner, origin.tgid) == (0, 0)
                said, _ = crew.communicate("\n", timeout=10)
                assert said == f"('{to}', 5432)\n" * 2


def test_dropped_by_the_rules_alone_where_they_do_not_redirect(contained: Block) -> None:
    other = contained.fresh(redirect=False)
    other.install()
    assert other.problems() == []
    assert any(one.startswith("nftables:") for one in contained.containment.problems())
    other.close()
    contained.containment.close()
    for pin in contained.containment.bpffs.glob("link_*"):
        pin.unlink()
    script = CONNECT.replace("s.settimeout(5)", "s.settimeout(1)")
    with listener() as door:
        said, _ = contained.python(script, SERVER4, SINK).communicate(timeout=20)
        assert "TimeoutError" in said
        door.setblocking(False)
        with pytest.raises(BlockingIOError):
            door.accept()


MARKS = """
import os, sys, threading
print(os.getpid(), flush=True)
child = os.fork()
if child == 0:
    os.setsid()
    if os.fork() == 0:
        def last():
            print(os.getpid(), flush=True)
            sys.stdin.readline()
            os._exit(0)
        threading.Thread(target=last).start()
        import ctypes
        ctypes.CDLL(None).syscall(60, 0)
    os._exit(0)
os.waitpid(child, 0)
"""


def test_the_mark_goes_to_all_descendants(contained: Block) -> None:
    crew = contained.python(MARKS, mark=1234, leave=True)
    assert crew.stdout is not None
    first, last = int(crew.stdout.readline()), int(crew.stdout.readline())
    assert first != last
    wait_until("the first is gone", lambda: crew.poll() is not None)
    for pid in (first, last):
        assert contained.containment.owner_of(pid) == 1234
    assert contained.containment.is_crew(last)
    assert not contained.containment.is_crew(os.getpid())
    assert contained.containment.owner_of(os.getpid()) == 0
    crew.communicate("\n", timeout=10)


def test_a_pid_that_is_used_again_has_no_mark(contained: Block) -> None:
    last = int(Path("/proc/loadavg").read_text().split()[-1])
    stale = range(last + 1, last + 200)
    for pid in stale:
        contained.containment.mark(pid, 66)
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        try:
            assert child.pid in stale
            assert contained.containment.owner_of(child.pid) == 0
        finally:
            child.kill()


def test_a_crew_by_its_cgroup_alone(contained: Block) -> None:
    crew = contained.python("import sys; sys.stdin.readline()")
    assert contained.containment.owner_of(crew.pid) == 0
    assert contained.containment.is_crew(crew.pid)
    crew.communicate("\n", timeout=10)


def test_who_cannot_be_told_counts_as_a_crew(contained: Block) -> None:
    assert contained.containment.is_crew(0)
    assert contained.containment.is_crew(-1)
    assert contained.containment.is_crew((1 << 22) - 1)
    assert contained.fresh().is_crew(os.getpid())


@pytest.mark.parametrize(("pid", "owner"), [(0, 1), (-1, 1), (1 << 22, 1), (1, 0), (1, -1), (1, 0xFFFFFFFF)])
def test_no_such_mark(contained: Block, pid: int, owner: int) -> None:
    with pytest.raises(ValueError):
        contained.containment.mark(pid, owner)
