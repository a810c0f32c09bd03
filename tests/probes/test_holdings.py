"""A socket that was made outside and that a crew holds: no hook and no rule sees it, so it is found by looking.

In each case the control comes first: what the crew says over it reaches the server.
"""
from __future__ import annotations

import array
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from blockhost import SERVER4, SERVER6, SINK, Block, listener
from lab.hosts import wait_until

from agent.block import holdings, sockdiag
from agent.block.holdings import CONNECTION, PROCESS, RECORD
from agent.block.marks import TICK

pytestmark = pytest.mark.kernel

# Takes a socket in one of three ways, then says over it what it is told, one line each, and what came of that.
HOLDER = """
import array, ctypes, json, os, socket, sys, threading
def by_rights(path):
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(path)
        _, ancillary, _, _ = door.recvmsg(1, 100)
    return array.array("i", ancillary[0][2])[0]
def by_inheritance(number):
    return int(number)
def by_getfd(where):
    libc = ctypes.CDLL(None, use_errno=True)
    pid, number = map(int, where.split(":"))
    fd = libc.syscall(438, libc.syscall(434, pid, 0), number, 0)
    assert fd >= 0, ctypes.get_errno()
    return fd
def say(link):
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            link.send(line.strip().encode())
            print("sent", flush=True)
        except OSError as reason:
            print(type(reason).__name__, flush=True)
def held(how, what):
    say(socket.socket(fileno=globals()["by_" + how](what)))
def thread(how, what):
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(0x400) == 0         # CLONE_FILES: this thread's own table of descriptors
    held(how, what)
if sys.argv[3] == "thread":
    one = threading.Thread(target=thread, args=sys.argv[1:3])
    one.start()
    one.join()
else:
    held(*sys.argv[1:3])
"""


class Holder:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.pid = process, process.pid
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def say(self, token: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{token}\n")
        self.process.stdin.flush()
        return self._line()


@contextmanager
def handed(
    block: Block, link: socket.socket, how: str, table: str = "process", script: str = HOLDER,
) -> Iterator[Holder]:
    if how == "rights":
        path = Path(f"/run/{os.getpid()}-handover")
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(str(path))
            door.listen()
            try:
                process = block.python(script, how, path, table, mark=9)
                peer, _ = door.accept()
                with peer:
                    peer.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [link.fileno()]))])
            finally:
                path.unlink()
    elif how == "inheritance":
        os.set_inheritable(link.fileno(), True)
        group = block.containment.slice / "one"
        group.mkdir(exist_ok=True)

        def before() -> None:
            (group / "cgroup.procs").write_text("0")

        process = subprocess.Popen(
            ["/usr/bin/python3", "-I", "-c", HOLDER, how, str(link.fileno()), table], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=before, close_fds=False)
        block.started.append(process)
    else:
        process = block.python(HOLDER, how, f"{os.getpid()}:{link.fileno()}", table, mark=9, leave=True)
    holder = Holder(process)
    # Of who is outside of the slice it is known by its mark: once the hook that hands it on was seen after its birth.
    time.sleep(2 * TICK / 1e9)
    assert block.containment.problems() == []
    yield holder


def connected(address: str = SERVER4) -> socket.socket:
    return socket.create_connection((address, SINK), 5)


def reaches(block: Block, holder: Holder, token: str) -> bool:
    """The server has it; or who says it was told that it cannot."""
    if holder.say(token) != "sent":
        return False
    wait_until("the server", lambda: block.sink.saw(token), 5)
    return True


@pytest.mark.parametrize("table", ["process", "thread"])
@pytest.mark.parametrize("how", ["rights", "inheritance", "getfd"])
@pytest.mark.parametrize("address", [SERVER4, SERVER6])
def test_a_connected_socket_from_outside(contained: Block, how: str, address: str, table: str) -> None:
    with connected(address) as link, handed(contained, link, how, table) as holder:
        assert reaches(contained, holder, f"control-{how}-{table}-{address}"), "nothing else stops it"
        [found] = contained.containment.foreign_sockets(CONNECTION)
        assert (found.place.pid, found.peer, found.family.split()[1]) == (holder.pid, f"{address} {SINK}", "stream")
        assert found.cookie == holdings.cookie_of(link)
        assert found.done == "its connection was ended"
        assert (found.place.tid == holder.pid) == (table == "process")
        token = f"after-{how}-{table}-{address}"
        assert holder.say(token) != "sent"
        assert not contained.sink.saw(token)
        assert contained.containment.foreign_sockets(CONNECTION) == [], "said once"


def test_a_socket_that_is_only_reported(contained: Block) -> None:
    with connected() as link, handed(contained, link, "rights") as holder:
        [found] = contained.containment.foreign_sockets(RECORD)
        assert found.done == "left as it is"
        assert reaches(contained, holder, "reported-only")


def test_the_process_that_holds_it_is_killed(contained: Block) -> None:
    with connected() as link, handed(contained, link, "rights") as holder:
        [found] = contained.containment.foreign_sockets(PROCESS)
        assert found.done == "its process was killed"
        assert holder.process.wait(10) == -9


@pytest.mark.parametrize(("family", "kind", "name"), [
    (socket.AF_PACKET, socket.SOCK_RAW, "PACKET raw"), (socket.AF_INET, socket.SOCK_RAW, "INET raw"),
    (socket.AF_INET, socket.SOCK_DGRAM, "INET datagram"), (socket.AF_VSOCK, socket.SOCK_STREAM, "VSOCK stream"),
])
def test_what_has_no_connection_to_end_ends_its_process(
    contained: Block, family: socket.AddressFamily, kind: socket.SocketKind, name: str) -> None:
    protocol = socket.IPPROTO_UDP if (family, kind) == (socket.AF_INET, socket.SOCK_RAW) else 0
    with socket.socket(family, kind, protocol) as link, handed(contained, link, "rights") as holder:
        [found] = contained.containment.foreign_sockets(CONNECTION)
        assert (found.family, found.done) == (name, "its process was killed")
        assert holder.process.wait(10) == -9


def test_one_that_listens(contained: Block) -> None:
    """Who connects to it would be let in under the name of whoever made it."""
    with socket.create_server(("127.0.0.1", 0)) as door, handed(contained, door, "rights"):
        [found] = contained.containment.foreign_sockets(CONNECTION)
        assert found.done == "its connection was ended"
        with pytest.raises(OSError):
            door.accept()


OWN = """
import socket, sys
pairs = [socket.socketpair() for _ in range(5)]
links = [socket.socket(family, kind) for family in (socket.AF_INET, socket.AF_INET6)
         for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM) for _ in range(5)]
route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
there = socket.create_connection((sys.argv[1], 5432), 5)
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("how", [{"mark": 9}, {}, {"mark": 9, "leave": True}], ids=["mark", "cgroup", "left"])
def test_what_a_crew_makes_itself_is_no_alarm(contained: Block, how: dict[str, int]) -> None:
    with listener():
        crew = contained.python(OWN, SERVER4, **how)
        assert crew.stdout is not None
        assert crew.stdout.readline() == "ready\n"
        assert contained.containment.foreign_sockets(CONNECTION) == []
        assert crew.pid in contained.containment.crew()
        assert crew.poll() is None


def test_a_socket_from_outside_that_the_crew_connects_itself(contained: Block) -> None:
    """The hooks see that, and send it to the listener: it is contained."""
    script = HOLDER.replace("def say(link):", f"def say(link):\n    link.connect(({SERVER4!r}, 5432))")
    with socket.socket() as link, listener(), socket.socket(socket.AF_UNIX) as door:
        path = f"/run/{os.getpid()}-handover"
        door.bind(path)
        door.listen()
        try:
            process = contained.python(script, "rights", path, "process", mark=9)
            peer, _ = door.accept()
            with peer:
                peer.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [link.fileno()]))])
            Holder(process)
        finally:
            os.unlink(path)
        assert contained.containment.foreign_sockets(CONNECTION) == []
        assert [one.verdict for one in contained.containment.drain()] == ["redirected"]


def test_sockets_that_were_made_while_the_probes_were_away(detached: Block) -> None:
    """Their cgroup says it."""
    crew = detached.python("import socket, sys\none = socket.create_server(('127.0.0.1', 0))\nprint('ready', "
                           "flush=True)\nsys.stdin.readline()")
    assert crew.stdout is not None
    assert crew.stdout.readline() == "ready\n"
    detached.containment.repair()
    # A listening one is not among those that are connected: one that is accepted or connected is told by its cgroup.
    assert all(one.family.startswith("INET") for one in detached.containment.foreign_sockets(RECORD))


def test_a_crew_in_a_network_namespace_of_its_own(contained: Block) -> None:
    """Its accepted sockets are told by their cgroup, which its own namespace's sock_diag knows."""
    script = ("import ctypes, socket, subprocess, sys\nassert ctypes.CDLL(None).unshare(0x40000000) == 0\n"
              "subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)\n"
              "door = socket.create_server(('127.0.0.1', 7777))\n"
              "one = socket.socket()\none.setblocking(False)\none.connect_ex(('127.0.0.1', 7777))\n"
              "print('ready', flush=True)\nsys.stdin.readline()")
    crew = contained.python(script, mark=9)
    assert crew.stdout is not None
    assert crew.stdout.readline() == "ready\n"
    assert contained.containment.foreign_sockets(CONNECTION) == []


def test_many_descriptors_are_bounded(contained: Block, capsys: pytest.CaptureFixture[str]) -> None:
    """100 processes with 100 descriptors each: measured, and what a round looks at has a bound."""
    script = ("import socket, sys\nkeep = [socket.socket() for _ in range(50)] + [open('/dev/null') for _ in "
              "range(50)]\nprint(flush=True)\nsys.stdin.readline()")
    crews = [contained.python(script, mark=9) for _ in range(100)]
    for crew in crews:
        assert crew.stdout is not None
        crew.stdout.readline()
    took = []
    for _ in range(6):
        began = time.thread_time()
        assert contained.containment.foreign_sockets(CONNECTION) == []
        took.append(time.thread_time() - began)
    with capsys.disabled():
        print(f"\n100 crews x 100 descriptors: first rounds {[f'{one * 1000:.0f} ms' for one in took[:3]]}, then "
              f"{took[-1] * 1000:.0f} ms of processor time")
    assert len(contained.containment._holdings._known) == 5000
    assert took[-1] < 0.5


def test_its_number_alone_where_it_cannot_be_copied(contained: Block) -> None:
    with connected() as link:
        inode = os.fstat(link.fileno()).st_ino
        assert any(one.inode == inode for one in sockdiag.all_tcp_sockets())
        assert contained.containment._made_outside(inode)
        assert not contained.containment._made_outside(inode + 1000000)


def test_a_socket_that_others_connect_again(contained: Block) -> None:
    """It was reset in the crew's hands; whoever else holds it is no crew, and no hook minds its connect."""
    with connected() as link, handed(contained, link, "rights") as holder:
        [found] = contained.containment.foreign_sockets(CONNECTION)
        assert found.place.pid == holder.pid
        assert holder.say("reset") != "sent"
        assert contained.containment.foreign_sockets(CONNECTION) == []
        link.connect((SERVER4, SINK))
        assert reaches(contained, holder, "connected-again"), "nothing else stops it"
        [again] = contained.containment.foreign_sockets(CONNECTION)
        assert (again.peer, again.done) == (f"{SERVER4} {SINK}", "its connection was ended")
        assert holder.say("after-again") != "sent"


def test_a_crews_own_connect_is_no_excuse_for_the_next(contained: Block) -> None:
    """Handed in unconnected, sent to the listener by the crew, then connected elsewhere by who handed it in."""
    script = HOLDER.replace("def say(link):", f"def say(link):\n    link.connect(({SERVER4!r}, 5432))")
    with socket.socket() as link, listener():
        with handed(contained, link, "rights", script=script) as holder:
            assert contained.containment.foreign_sockets(CONNECTION) == []
            holdings._libc.connect(link.fileno(), holdings._UNSPECIFIED, len(holdings._UNSPECIFIED))
            link.connect((SERVER4, SINK))
            assert reaches(contained, holder, "not-the-crews-own")
            [found] = contained.containment.foreign_sockets(CONNECTION)
            assert found.peer == f"{SERVER4} {SINK}"
