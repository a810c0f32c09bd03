"""Ways round the block, as root and without the launcher's filters; the verdict is the server's."""
from __future__ import annotations

import socket
import uuid
from collections.abc import Iterable

import pytest
from blockhost import CREW4, DNS, Block

from agent.block.cgroups import cgroup_id
from agent.techniques import calls

pytestmark = pytest.mark.kernel

# What the hooks and rules alone must hold, of all that test_matrix tries with the launcher.
WAYS = sorted({
    "plain-ipv4", "plain-ipv6", "v4-mapped", "fast-open-sendto", "fast-open-sendmsg-ipv6", "fast-open-connect",
    "multipath", "bind-to-device", "disconnect-and-again", "source-port-again", "ip-options", "udp", "udp-connected",
    "udp-ipv6", "fragments", "raw-ip", *calls.TECHNIQUES, "double-fork", "new-session", "thread-of-dead-leader",
    "leave-cgroup", "set-namespace"})
PLACES = {
    "in the slice": {"inside": True},
    "in the slice, marked": {"inside": True, "mark": 7},
    "marked, out of the slice": {"inside": True, "mark": 7, "leave": True},
}


def tried(block: Block, technique: str, places: Iterable[str]) -> None:
    for place in places:
        if (technique, place) == ("leave-cgroup", "in the slice"):
            continue                  # without a mark it would be nobody's: the launcher gives one before anything runs
        token = f"token-{uuid.uuid4().hex}"
        code, said = block.technique(technique, token, **PLACES[place])
        assert not block.sink.saw(token), f"{place}: {said}"
        assert code != 0, f"{place}: {said}"


@pytest.mark.parametrize("technique", WAYS)
def test_the_way_exists(contained: Block, technique: str) -> None:
    """The control: outside of the slice it leads to the server."""
    token = f"token-{uuid.uuid4().hex}"
    _, said = contained.technique(technique, token, inside=False)
    assert contained.sink.saw(token), said


@pytest.mark.parametrize("technique", WAYS)
def test_the_block(contained: Block, technique: str) -> None:
    tried(contained, technique, PLACES)


# Raw sockets are sock_create's, and a program that was in the slice and left it is the mark's: the probes'.
@pytest.mark.parametrize("technique", WAYS)
def test_the_probes_alone(without_rules: Block, technique: str) -> None:
    tried(without_rules, technique, PLACES)


@pytest.mark.parametrize("technique", sorted(set(WAYS) - {"leave-cgroup"}))
def test_the_rules_alone(detached: Block, technique: str) -> None:
    tried(detached, technique, ["in the slice"])


def test_the_listener_is_not_dialled_by_hand(contained: Block) -> None:
    for place in PLACES.values():
        code, said = contained.technique("by-the-listener", "token", **place)
        assert code == 1, said
        assert "not permitted" in said
    assert {origin.verdict for origin in contained.containment.drain()} == {"refused"}


def test_the_listeners_port_is_not_bound(contained: Block) -> None:
    for place in PLACES.values():
        code, said = contained.technique("bind-the-listener", "token", **place)
        assert code == 1, said
        assert "not permitted" in said
    code, said = contained.technique("bind-the-listener", "token", inside=False)
    assert code == 0, said


BIND = """
import socket, sys
try:
    with socket.socket(socket.AF_INET, int(sys.argv[3])) as s:
        s.bind((sys.argv[1], int(sys.argv[2])))
    print("bound")
except PermissionError:
    print("not permitted")
"""


def bound(block: Block, address: str, port: int, kind: int, **how: object) -> str:
    said, _ = block.python(BIND, address, port, kind, **how).communicate(timeout=20)
    return said.strip()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_the_resolvers_port_is_not_bound(contained: Block, kind: int) -> None:
    """Whoever has it on every address would answer, while Weir's own sockets are closed."""
    for place in PLACES.values():
        for address in ("0.0.0.0", "127.53.53.53", "127.0.0.1"):
            assert bound(contained, address, DNS, kind, **place) == "not permitted", address
    assert bound(contained, "127.53.53.53", DNS, kind, inside=False) == "bound"
    assert bound(contained, "127.0.0.1", DNS + 1, kind, inside=True) == "bound"


ASK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if sys.argv[1] == "connected":
    s.connect(("127.0.0.1", 53))
elif sys.argv[1] == "bound":
    s.bind(("127.0.0.1", 0))
else:
    s.bind(("0.0.0.0", 0))
print(s.getsockname()[1], flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("how", ["connected", "bound", "any"])
def test_whose_datagrams(contained: Block, how: str) -> None:
    containment = contained.containment
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        netns = int.from_bytes(own.getsockopt(socket.SOL_SOCKET, 71, 8), "little")
    for inside in (True, False):
        process = contained.python(ASK, how, inside=inside)
        assert process.stdout is not None
        port = int(process.stdout.readline())
        found = containment.asker(netns, False, b"\x7f\0\0\1", port)
        assert found == (cgroup_id(containment.slice / "one") if inside else 0)
        assert containment.asker(netns + 1, False, b"\x7f\0\0\1", port) == 0
        process.communicate("\n", timeout=20)
        assert containment.asker(netns, False, b"\x7f\0\0\1", port) == 0


JOIN = """
import socket, struct, sys
V4, V6, group, six = socket.AF_INET, socket.AF_INET6, bytes([239, 1, 2, 3]), bytes([255, 2]) + bytes(13) + b"x"
def place(family, address):
    return (struct.pack("=HH", family, 0) + (bytes(4) if family == V6 else b"") + address).ljust(128, bytes(1))
number = struct.pack("=I", socket.if_nametoindex("eth0"))
index = struct.pack("=I4x", socket.if_nametoindex("eth0"))
said = []
for family, level, option, value in (
        (V4, 0, 35, group + socket.inet_aton(sys.argv[1])), (V4, 0, 42, index + place(V4, group)),
        (V4, 0, 46, index + place(V4, group) + place(V4, bytes([10, 0, 0, 1]))),
        (V6, 41, 20, six + number), (V6, 41, 42, index + place(V6, six))):
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.setsockopt(level, option, value)
            said.append("joined")
        except PermissionError:
            said.append("refused")
print(*said)
"""


def test_no_group_is_joined(contained: Block) -> None:
    for inside, said in ((False, "joined"), (True, "refused")):
        out, _ = contained.python(JOIN, CREW4, inside=inside).communicate(timeout=20)
        assert out.split() == [said] * 5, out


CHOOSE = """
import ctypes, socket, struct
code = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0), 8)         # BPF_RET | BPF_K: the first one
with socket.socket() as one:
    one.setsockopt(socket.SOL_SOCKET, 15, 1)                                    # SO_REUSEPORT
    try:
        one.setsockopt(socket.SOL_SOCKET, 51, struct.pack("@HP", 1, ctypes.addressof(code)))
        print("chosen")
    except PermissionError:
        print("refused")
"""


def test_nobody_chooses_who_of_a_group_is_meant(contained: Block) -> None:
    """A unit has no filter of system calls that would know."""
    for inside, said in ((False, "chosen"), (True, "refused")):
        out, _ = contained.python(CHOOSE, inside=inside).communicate(timeout=20)
        assert out == f"{said}\n"


def test_long_options_pass(contained: Block) -> None:
    """More than a page, which a program sees none of."""
    code = "import socket\nsocket.socket().setsockopt(6, 13, b'cubic' + bytes(8000))\nprint('done')"
    out, _ = contained.python(code, inside=True).communicate(timeout=20)
    assert out == "done\n"
