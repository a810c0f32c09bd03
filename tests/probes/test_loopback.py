"""Loopback within a workload passes untouched; everything else on loopback does not, with either layer alone."""
from __future__ import annotations

import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from blockhost import CREW4, PORT, Block, listener

pytestmark = pytest.mark.kernel

SERVE = """
import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
door = socket.socket(family)
door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
door.bind((sys.argv[1], int(sys.argv[2])))
door.listen()
print("listening", flush=True)
while True:
    one, peer = door.accept()
    with one:
        try:
            one.sendall(one.recv(1 << 16) * 3)
        except ConnectionResetError:
            pass
"""
ASK = """
import socket, sys, time
token = sys.argv[3].encode()
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
s.settimeout(2)
try:
    s.connect((sys.argv[1], int(sys.argv[2])))
    s.sendall(token)
    got = b''
    while data := s.recv(1 << 16):
        got += data
    print("echo" if got == token * 3 else got, s.getpeername()[:2], flush=True)
except OSError as error:
    print(type(error).__name__, flush=True)
"""
ONE, OTHER = {"mark": 5}, {"mark": 6, "child": "two"}
BY_CGROUP = {"child": "three"}
SERVED = 17331


@contextmanager
def served(block: Block, address: str, port: int = SERVED, **how: object) -> Iterator[subprocess.Popen[str]]:
    process = block.python(SERVE, address, port, **how)
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    yield process
    process.kill()
    process.wait()


def ask(block: Block, address: str, port: int = SERVED, **how: object) -> str:
    said, _ = block.python(ASK, address, port, f"token-{uuid.uuid4().hex}", **how).communicate(timeout=30)
    return said.strip()


@pytest.mark.parametrize(("bound", "dialled"), [
    ("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("", "127.0.0.1"), ("::", "::1"), ("::", "127.0.0.1"),
    ("127.9.9.9", "127.9.9.9"), ("127.0.0.1", "::ffff:127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("::1", "::"),
])
@pytest.mark.parametrize("how", [ONE, BY_CGROUP], ids=["mark", "cgroup"])
def test_within_a_workload(contained: Block, bound: str, dialled: str, how: dict[str, object]) -> None:
    with served(contained, bound, **how):
        assert ask(contained, dialled, **how).startswith("echo ")
    assert [one.verdict for one in contained.containment.drain()] == ["local"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("without", ["probes", "rules"])
def test_within_a_workload_is_the_probes_to_say(
    request: pytest.FixtureRequest, without: str, address: str) -> None:
    """Without the rules it still passes; without the probes nobody can tell whose listener it is."""
    block: Block = request.getfixturevalue("detached" if without == "probes" else "without_rules")
    with served(block, address, **BY_CGROUP), listener(socket.AF_INET6 if ":" in address else socket.AF_INET) as door:
        asking = block.python(ASK, address, SERVED, "token", **BY_CGROUP)
        if without == "rules":
            assert asking.communicate(timeout=30)[0].startswith("echo ")
        else:
            door.accept()[0].close()
            assert "echo" not in asking.communicate(timeout=30)[0]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("server", [OTHER, BY_CGROUP, {"inside": False}], ids=["another's", "unmarked", "the host's"])
def test_others_on_loopback_are_for_the_enforcer_to_say(
    contained: Block, address: str, server: dict[str, object]) -> None:
    with served(contained, address, **server), listener(socket.AF_INET6 if ":" in address else socket.AF_INET) as door:
        asking = contained.python(ASK, address, SERVED, "token", **ONE)
        door.accept()[0].close()
        assert "echo" not in asking.communicate(timeout=30)[0]
    assert [one.verdict for one in contained.containment.drain()] == ["redirected"]


@pytest.mark.parametrize(("own", "other", "bound", "dialled"), [
    ("::1", "127.0.0.1", "::ffff:127.0.0.1", "::"), ("127.0.0.1", "127.0.0.2", "127.0.0.2", "0.0.0.0"),
    ("127.0.0.1", "127.0.0.2", "::ffff:127.0.0.2", "::ffff:0.0.0.0"),
])
@pytest.mark.parametrize("server", [OTHER, {"inside": False}], ids=["another's", "the host's"])
@pytest.mark.parametrize("layers", ["contained", "without_rules"])
def test_no_address_means_what_was_looked_at(
    request: pytest.FixtureRequest, layers: str, own: str, other: str, bound: str, dialled: str,
    server: dict[str, object]) -> None:
    """By itself the kernel takes "no address" for the one that the socket is bound to: where another listens."""
    block: Block = request.getfixturevalue(layers)
    asking = ASK.replace("s.settimeout(2)", f"s.settimeout(2); s.bind(({bound!r}, 0))")
    with served(block, own, **ONE), served(block, other, **server):
        said, _ = block.python(asking, dialled, SERVED, "token", **ONE).communicate(timeout=30)
    assert "echo" not in said or f"'{own}'" in said or f"'::ffff:{own}'" in said


def test_a_registered_place_is_redirected_whoever_listens(contained: Block) -> None:
    contained.containment.register([("127.0.0.1", SERVED), ("192.0.2.1", SERVED)])
    try:
        with served(contained, "", **ONE), listener() as door:
            asking = contained.python(ASK, "127.0.0.1", SERVED, "token", **ONE)
            door.accept()[0].close()
            assert "echo" not in asking.communicate(timeout=30)[0]
            contained.containment.register([])
            assert ask(contained, "127.0.0.1", **ONE).startswith("echo ")
    finally:
        contained.containment.register([])


def test_registered_places_outlive_a_repair(contained: Block) -> None:
    contained.containment.register([("127.0.0.1", SERVED)])
    try:
        (contained.containment.bpffs / "places").unlink()
        contained.containment.close()
        contained.containment.repair()
        with served(contained, "", **ONE), listener() as door:
            asking = contained.python(ASK, "127.0.0.1", SERVED, "token", **ONE)
            door.accept()[0].close()
            asking.communicate(timeout=30)
    finally:
        contained.containment.register([])


def test_nobody_listens_is_said_as_the_kernel_says_it(contained: Block) -> None:
    """Who waits for a server of its own to come up asks again and again."""
    for address in ("127.0.0.1", "::1", "0.0.0.0"):
        assert ask(contained, address, **ONE) == "ConnectionRefusedError"


@pytest.mark.parametrize("layers", ["contained", "without_rules", "detached"])
@pytest.mark.parametrize("address", ["127.0.0.1", CREW4])
def test_nobody_else_connects_to_a_crew(request: pytest.FixtureRequest, layers: str, address: str) -> None:
    block: Block = request.getfixturevalue(layers)
    with served(block, "", **BY_CGROUP):
        for how in ({"inside": False}, {"child": "four"}):
            with listener() as door:
                asking = block.python(ASK, address, SERVED, "token", **how)
                if "child" in how:
                    door.accept()[0].close()
                assert "echo" not in asking.communicate(timeout=30)[0]
    with served(block, "", inside=False):
        assert ask(block, address, inside=False).startswith("echo "), "the control: the way exists"


AGAIN = """
import ctypes, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
s = socket.socket()
s.settimeout(3)
s.connect(("127.0.0.1", int(sys.argv[1])))
mark = s.getsockopt(socket.SOL_SOCKET, 36)
libc.connect(s.fileno(), ctypes.create_string_buffer(16), 16)
try:
    s.connect((sys.argv[2], int(sys.argv[3])))
    print(hex(mark), s.getsockopt(socket.SOL_SOCKET, 36), flush=True)
    print(s.recv(10), flush=True)
except OSError as error:
    print(hex(mark), type(error).__name__, flush=True)
"""


def test_the_mark_goes_when_the_socket_goes_elsewhere(contained: Block) -> None:
    with served(contained, "127.0.0.1", **ONE), served(contained, "127.0.0.1", 17332, inside=False), \
            listener() as door:
        for address, port in (("203.0.113.1", 80), ("127.0.0.1", 17332)):
            asking = contained.python(AGAIN, SERVED, address, port, **ONE)
            accepted, _ = door.accept()
            accepted.sendall(b"enforcer")
            accepted.close()
            assert asking.communicate(timeout=30)[0] == "0x57650005 0\nb'enforcer'\n"


@pytest.mark.parametrize("how", [{"mark": 5}, {}], ids=["mark", "cgroup"])
def test_a_crew_cannot_mark_a_socket_that_leaves(contained: Block, how: dict[str, int]) -> None:
    """As root, which no crew is: the mark opens nothing but loopback within the slice."""
    script = f"""
import socket
s = socket.socket()
s.settimeout(2)
s.setsockopt(socket.SOL_SOCKET, 36, 0x57650005)
s.connect(("203.0.113.1", {PORT}))
print(s.getsockopt(socket.SOL_SOCKET, 36))
"""
    with listener() as door:
        asking = contained.python(script, **how)
        door.accept()[0].close()
        assert asking.communicate(timeout=20)[0] == "0\n"


SQUAT = """
import socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", int(sys.argv[1])))
print("bound", flush=True)
sys.stdin.readline()
"""


def test_a_port_that_is_bound_is_not_a_listener(contained: Block) -> None:
    """A crew binds every address without listening, a service of the host then listens on one: it is the host's."""
    squatter = contained.python(SQUAT, SERVED, **ONE)
    assert squatter.stdout is not None
    assert squatter.stdout.readline() == "bound\n"
    with served(contained, "127.0.0.1", inside=False), listener() as door:
        asking = contained.python(ASK, "127.0.0.1", SERVED, "token", **ONE)
        door.accept()[0].close()
        assert "echo" not in asking.communicate(timeout=30)[0]
    squatter.communicate("\n", timeout=10)


MARKED = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
s.settimeout(1)
s.setsockopt(socket.SOL_SOCKET, 36, int(sys.argv[3], 16))
try:
    s.connect((sys.argv[1], int(sys.argv[2])))
    print("through")
except TimeoutError:
    print("dropped")
"""


def test_a_listener_that_gives_way_is_not_followed(contained: Block) -> None:
    """Marked packets that open reach only sockets of the slice: the rules close the moment between check and packet."""
    with served(contained, "127.0.0.1", inside=False):
        dialling = contained.python(MARKED, "127.0.0.1", SERVED, "57650005", inside=False)
        assert dialling.communicate(timeout=20)[0] == "dropped\n"
        assert ask(contained, "127.0.0.1", inside=False).startswith("echo ")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_mark_names_the_workload(contained: Block, address: str) -> None:
    """One workload's marked packet, and another's listener that came in between: dialled from outside, where the hooks
    of connect say nothing."""
    with served(contained, address, **ONE):
        dialling = {mark: contained.python(MARKED, address, SERVED, mark, inside=False)
                    for mark in ("57650005", "57650006", "57658005", "57650000")}
        said = {mark: process.communicate(timeout=20)[0] for mark, process in dialling.items()}
    assert said == {"57650005": "through\n", "57650006": "dropped\n", "57658005": "dropped\n",
                    "57650000": "dropped\n"}


GROUP = """
import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
door = socket.socket(family)
door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
try:
    door.bind((sys.argv[1], int(sys.argv[2])))
    print("bound", flush=True)
except OSError as error:
    sys.exit(f"{error.strerror}")
sys.stdin.readline()
door.listen()
print("listening", flush=True)
while True:
    one, _ = door.accept()
    with one:
        one.sendall(sys.argv[3].encode())
"""
DIAL = """
import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
said = []
for _ in range(int(sys.argv[4])):
    with socket.socket(family) as one:
        one.settimeout(float(sys.argv[3]))
        try:
            one.connect((sys.argv[1], int(sys.argv[2])))
            said.append(one.makefile().read())
        except OSError as error:
            said.append(type(error).__name__)
print(*said, flush=True)
"""


def dial(block: Block, address: str, times: int, patience: float = 5.0, script: str = DIAL) -> list[str]:
    """What so many connects of workload ONE brought, `patience` seconds each."""
    return block.python(script, address, SERVED, patience, times, **ONE).communicate(timeout=60)[0].split()


@contextmanager
def grouped(block: Block, address: str, name: str, **how: object) -> Iterator[Callable[[], None]]:
    """Bound; it listens once what is yielded is called."""
    process = block.python(GROUP, address, SERVED, name, **how)
    assert process.stdout is not None
    assert process.stdout.readline() == "bound\n"

    def listen() -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "listening\n"

    yield listen
    process.kill()
    process.wait()


@pytest.mark.parametrize(("layers", "address"), [("contained", "127.0.0.1"), ("without_rules", "::1")])
@pytest.mark.parametrize("other", [OTHER, {"inside": False}], ids=["another's", "the host's"])
def test_a_group_that_others_joined(
    request: pytest.FixtureRequest, layers: str, other: dict[str, object], address: str) -> None:
    """SO_REUSEPORT: who of the group gets a connection is chosen by its ports, after the look at who listens."""
    block: Block = request.getfixturevalue(layers)
    with listener(socket.AF_INET6 if ":" in address else socket.AF_INET), \
            grouped(block, address, "others", **other) as joins, grouped(block, address, "own", **ONE) as listens:
        listens()
        assert dial(block, address, 4) == ["own"] * 4
        joins()
        said = dial(block, address, 20, 0.05)
        assert "others" not in said
        assert len(said) == 20


def test_a_group_of_ones_own(contained: Block) -> None:
    with grouped(contained, "127.0.0.1", "own", **ONE) as first, grouped(contained, "127.0.0.1", "own", **ONE) as then:
        first()
        then()
        assert dial(contained, "127.0.0.1", 8) == ["own"] * 8


@pytest.mark.parametrize(("theirs", "ours"), [("127.0.0.1", "127.0.0.1"), ("", "127.0.0.1"), ("::1", "::1")])
@pytest.mark.parametrize("other", [OTHER, {"inside": False}], ids=["another's", "the host's"])
def test_a_crew_joins_no_group_of_others(
    contained: Block, theirs: str, ours: str, other: dict[str, object]) -> None:
    """A part of who connects to them would come to the crew, and be dropped."""
    with grouped(contained, theirs, "theirs", **other) as listens:
        listens()
        said, _ = contained.python(GROUP, ours, SERVED, "own", **ONE).communicate(timeout=30)
    assert said == "Address already in use\n"


@pytest.mark.parametrize("layers", ["contained", "without_rules"])
def test_a_port_that_was_used_a_moment_ago(request: pytest.FixtureRequest, layers: str) -> None:
    """The server closed first: its end is remembered (TIME_WAIT), and a SYN of the same ports opens anew (RFC 9293
    3.6.1)."""
    twice = DIAL.replace("with socket.socket(family) as one:", "with socket.socket(family) as one:\n        "
                         "one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n        one.bind((sys.argv[1], "
                         "17339))")
    block: Block = request.getfixturevalue(layers)
    with grouped(block, "127.0.0.1", "own", **ONE) as listens:
        listens()
        assert dial(block, "127.0.0.1", 10, script=twice) == ["own"] * 10
