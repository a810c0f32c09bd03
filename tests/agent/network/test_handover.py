"""Listeners from one agent to the next: those that are as they should be, and no others.  The service manager is a
small one (tests/standin/manager.py), the protocol and the sockets are real; each test has networks of its own.
"""
from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from standin.manager import Manager

from agent.network import handover
from agent.network.doors import BACKLOG, close_all
from agent.network.handover import Handover
from agent.network.netns import Namespace

pytestmark = pytest.mark.kernel

NAME, PORT, DNS = "wt", 15432, "127.53.53.53"
Opened = tuple[list[socket.socket], list[socket.socket]]
_TCP_INFO, _UNACKED = 11, 24          # linux/tcp.h: of a listener, how many wait to be accepted


@dataclass
class Kernel:
    """`agent.block.kernel.Kernel`, as far as it goes here: what the probes keep goes with the socket."""

    doors: set[int] = field(default_factory=set)

    def know_doors(self, descriptors: Iterable[int]) -> None:
        self.doors |= set(map(inode, descriptors))

    def is_door(self, descriptor: int) -> bool:
        return inode(descriptor) in self.doors


@dataclass
class Host:
    """One boot of a host: its manager, its namespace, what its probes know; agents come and go."""

    manager: Manager
    namespace: Namespace
    stack: ExitStack
    kernel: Kernel = field(default_factory=Kernel)

    @property
    def group(self) -> str:
        return f"{NAME}.{self.namespace.cookie}"

    def agent(self, name: str = NAME) -> Handover:
        """One that starts, with what the manager has."""
        self.manager.heard()
        one = Handover([(name, os.dup(fd)) for name, fd in self.manager.kept])
        one.begin(name)
        return one

    def open(self, agent: Handover, port: int = PORT, dns: str = DNS, namespace: Namespace | None = None) -> Opened:
        where = namespace or self.namespace
        found = where.call(lambda: agent.open_doors(where.cookie, port, dns, self.kernel))
        self.stack.callback(close_all, [*found[0], *found[1]])
        return found

    def dial(self, port: int = PORT, address: str = "127.0.0.1") -> socket.socket:
        def connect() -> socket.socket:
            return socket.create_connection((address, port), 5)

        return self.stack.enter_context(self.namespace.call(connect))

    def foreign(self, make: Callable[[], socket.socket], name: str = "") -> int:
        """In the manager's store, made by somebody else; its inode."""
        one = self.namespace.call(make)
        self.manager.keep(name or self.group, [one.detach()])
        return inode(self.manager.kept[-1][1])


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with ExitStack() as stack:
        manager = stack.enter_context(Manager(tmp_path / "notify"))
        namespace = Namespace.make()
        stack.callback(namespace.close)
        yield Host(manager, namespace, stack)


def inode(descriptor: int) -> int:
    return os.fstat(descriptor).st_ino


def inodes(opened: Opened) -> list[int]:
    return [inode(one.fileno()) for part in opened for one in part]


def listening(port: int, address: str = "127.0.0.1") -> Callable[[], socket.socket]:
    def make() -> socket.socket:
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((address, port))
        one.listen(1)
        return one

    return make


def waiting(one: socket.socket) -> int:
    return int.from_bytes(one.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 104)[_UNACKED:_UNACKED + 4], "little")


def test_who_connects_while_no_agent_runs_waits_for_the_next(host: Host) -> None:
    first = host.open(host.agent())
    host.manager.until([host.group])
    before = inodes(first)
    close_all([*first[0], *first[1]])
    clients = [host.dial(), host.dial(address="::1"), host.dial(53, DNS)]
    gone = host.dial()
    gone.close()
    then = host.open(host.agent())
    assert inodes(then) == before
    for client, door in zip(clients, (*then[0], then[1][1]), strict=True):
        accepted, peer = door.accept()
        assert peer == client.getsockname()
        accepted.sendall(b"served")
        assert client.recv(9) == b"served"
        accepted.close()
    accepted, _ = then[0][0].accept()
    assert accepted.recv(1) == b"", "its client has given up, and that is seen"
    accepted.close()


def test_nothing_is_told_twice(host: Host) -> None:
    host.open(host.agent())
    host.manager.heard()
    told = len(host.manager.told)
    agent = host.agent()
    host.open(agent)
    agent.settle()
    host.manager.heard()
    assert [one for one in host.manager.told[told:] if "HEARD" not in one] == []


def test_how_many_may_wait_is_this_agents_to_say(host: Host) -> None:
    first, _ = host.open(host.agent())
    first[0].listen(1)
    listeners, _ = host.open(host.agent())
    # Of a listener it is the other number: linux/tcp.h, tcpi_sacked.
    assert int.from_bytes(listeners[0].getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 104)[28:32], "little") == BACKLOG
    host.dial()
    assert waiting(listeners[0]) == 1


def test_another_port(host: Host) -> None:
    first = host.open(host.agent())
    before = inodes(first)
    close_all([*first[0], *first[1]])
    then = host.open(host.agent(), port=PORT + 1)
    assert inodes(then)[2:] == before[2:], "the resolver's stay"
    host.manager.heard()
    assert [inode(fd) for _, fd in host.manager.kept] == inodes(then)
    with pytest.raises(ConnectionRefusedError):
        host.dial()
    host.dial(PORT + 1)


def test_another_resolver(host: Host) -> None:
    before = inodes(host.open(host.agent()))
    then = inodes(host.open(host.agent(), dns="127.53.53.54"))
    assert (then[:2], set(then[2:]) & set(before)) == (before[:2], set())


def of_another_namespace() -> socket.socket:
    elsewhere = Namespace.make()
    try:
        return elsewhere.call(listening(PORT))
    finally:
        elsewhere.close()


def only_bound() -> socket.socket:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", PORT))
    return one


def connected() -> socket.socket:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind((DNS, 53))
    one.connect((DNS, 53))
    return one


def unix() -> socket.socket:
    one = socket.socket(socket.AF_UNIX)
    one.bind("\0weir-handover-test")
    one.listen(1)
    return one


NOBODYS, BOUND, CONNECTED = (
    pytest.param(listening(PORT), False, "the probes do not know it as Weir's", id="nobody's"),
    pytest.param(only_bound, True, "it does not listen", id="bound"),
    pytest.param(connected, True, "it is connected", id="connected"))
ELSEWHERE = (
    pytest.param(of_another_namespace, True, "of another network namespace", id="elsewhere"),
    pytest.param(unix, True, "neither TCP nor UDP", id="unix"),
    pytest.param(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW), True, "neither TCP nor UDP", id="netlink"))


@pytest.mark.parametrize(("make", "known", "wrong"), [NOBODYS, BOUND, CONNECTED, *ELSEWHERE])
def test_a_descriptor_that_is_no_door(
    host: Host, caplog: pytest.LogCaptureFixture, make: Callable[[], socket.socket], known: bool, wrong: str,
) -> None:
    """By the name of doors, where there are none: they are opened, though it may have the address."""
    made = host.foreign(make)
    if known:
        host.kernel.doors.add(made)
    then = host.open(host.agent())
    assert made not in inodes(then)
    host.manager.heard()
    assert [inode(fd) for _, fd in host.manager.kept] == inodes(then)
    assert wrong in caplog.text
    host.dial()
    assert waiting(then[0][0]) == 1


@pytest.mark.parametrize(("make", "known", "wrong"), ELSEWHERE)
def test_a_descriptor_that_is_no_door_beside_those_that_are(
    host: Host, make: Callable[[], socket.socket], known: bool, wrong: str,
) -> None:
    before = inodes(host.open(host.agent()))
    host.manager.heard()
    host.kernel.doors.add(host.foreign(make))
    assert len(host.manager.kept) == len(before) + 1
    assert inodes(host.open(host.agent())) == before, "they are served again"
    host.manager.heard()
    assert [inode(fd) for _, fd in host.manager.kept] == before, "it was forgotten, and they are stored again"


@pytest.mark.parametrize("name", ["weir.1", "unknown", "\x1b[2J", "\udcff", f"{NAME}x.1", ""])
def test_what_has_another_name_goes_before_anything_is_opened(
    host: Host, caplog: pytest.LogCaptureFixture, name: str,
) -> None:
    """It may have the address."""
    host.manager.keep(name, [host.namespace.call(listening(PORT)).detach()])
    host.manager.keep(name, [os.open("/dev/null", os.O_RDONLY)])
    then = host.open(host.agent())
    host.manager.until([host.group])
    assert len(host.manager.kept) == len(inodes(then)) == 4
    assert "not this Weir's" in caplog.text
    assert "no socket" in caplog.text


def test_a_file_by_the_name_of_doors(host: Host) -> None:
    before = inodes(host.open(host.agent()))
    host.manager.heard()
    host.manager.keep(host.group, [os.open("/dev/null", os.O_RDONLY)])
    then = host.open(host.agent())
    assert inodes(then) == before
    host.manager.heard()
    assert [inode(fd) for _, fd in host.manager.kept] == before, "the file was forgotten, and they are stored again"


def test_an_address_that_stays_taken_is_an_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is left of what was opened, here or with the manager."""
    monkeypatch.setattr(handover, "PATIENCE", 0.1)
    other = host.namespace.call(listening(53, DNS))
    host.stack.enter_context(other)
    host.foreign(listening(PORT))
    agent = host.agent()
    began = time.monotonic()
    with pytest.raises(OSError, match="does a DNS server"):
        host.open(agent)
    assert time.monotonic() - began >= 0.1
    host.manager.until([])
    other.close()
    host.open(agent)


def test_namespaces_are_apart(host: Host) -> None:
    other = Namespace.make()
    host.stack.callback(other.close)
    agent = host.agent()
    mine, others = host.open(agent), host.open(agent, namespace=other)
    host.manager.until([host.group, f"{NAME}.{other.cookie}"])
    agent = host.agent()
    assert inodes(host.open(agent, namespace=other)) == inodes(others)
    agent.drop(other.cookie)
    host.manager.until([host.group])
    assert inodes(host.open(agent)) == inodes(mine)


def test_what_nobody_takes_goes(host: Host) -> None:
    """A network whose workload has ended meanwhile."""
    opened = host.open(host.agent())
    close_all([*opened[0], *opened[1]])
    host.manager.until([host.group])
    agent = host.agent()
    agent.settle()
    host.manager.until([])
    with pytest.raises(ConnectionRefusedError):
        host.dial()


@pytest.mark.parametrize("when", ["at once", "begun", "opened"])
def test_who_gives_up_leaves_nothing(host: Host, when: str) -> None:
    opened = host.open(host.agent())
    close_all([*opened[0], *opened[1]])
    host.manager.heard()
    agent = Handover([(name, os.dup(fd)) for name, fd in host.manager.kept])
    if when != "at once":
        agent.begin(NAME)
    again = host.open(agent) if when == "opened" else ([], [])
    agent.give_up()
    agent.give_up()
    close_all([*again[0], *again[1]])
    host.manager.until([])
    with pytest.raises(ConnectionRefusedError):
        host.dial()
    if when == "opened":
        host.open(agent)
        host.manager.until([])


# Unix sockets


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "sockets"
    made.mkdir()
    return made


def reach(path: Path) -> socket.socket:
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(5)
    try:
        one.connect(str(path))
    except OSError:
        one.close()
        raise
    return one


def test_who_dials_a_unix_socket_waits_too(host: Host, place: Path) -> None:
    if not handover.keeps_peers():
        pytest.skip("the kernel does not keep who connected: Linux 6.5")
    host.agent().open_local(place, "orders").close()
    host.manager.until([f"{NAME}.local.orders"])
    with reach(place / "orders") as client:
        door = host.agent().open_local(place, "orders")
        with door, door.accept()[0] as accepted:
            accepted.sendall(b"served")
        assert client.recv(9) == b"served"


def test_a_kernel_that_does_not_keep_who_connected(
    host: Host, place: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handover, "_SO_PEERPIDFD", 0x7fff)
    host.agent().open_local(place, "orders").close()
    host.manager.heard()
    assert host.manager.kept == []
    with pytest.raises(ConnectionRefusedError):
        reach(place / "orders")


@pytest.mark.parametrize("what", ["replaced", "removed", "a file", "no listener"])
def test_a_unix_socket_to_which_the_path_does_not_lead(host: Host, place: Path, what: str) -> None:
    path = place / "orders"
    host.agent().open_local(place, "orders").close()
    host.manager.heard()
    before = [inode(fd) for _, fd in host.manager.kept]
    path.unlink()
    match what:
        case "replaced":
            with socket.socket(socket.AF_UNIX) as other:
                other.bind(str(path))
        case "a file":
            path.write_text("")
        case "no listener":
            host.manager.forget()
            with socket.socket(socket.AF_UNIX) as other:
                other.bind(str(path))
                host.manager.keep(f"{NAME}.local.orders", [os.dup(other.fileno())])
    with host.agent().open_local(place, "orders") as door:
        assert inode(door.fileno()) not in before
        with reach(path), door.accept()[0]:
            pass
    host.manager.heard()
    assert len(host.manager.kept) == (1 if handover.keeps_peers() else 0)
