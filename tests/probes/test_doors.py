"""Weir's places on loopback are Weir's: nobody else has them, and who had them before gets nothing of a crew's."""
from __future__ import annotations

import socket
from pathlib import Path

import pytest
from blockhost import (
    CONNECT,
    CREW4,
    HEADERS,
    NAME,
    PORT,
    SERVER4,
    SINK,
    Block,
    entered,
    line,
    listener,
    outsider,
)

from agent.block.containment import Containment

pytestmark = pytest.mark.kernel

TAKE = """
import socket, sys
host, port, kind = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
door = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
    door.setsockopt(socket.SOL_SOCKET, option, 1)
try:
    door.bind((host, port))
    print("bound", flush=True)
except OSError as error:
    print(error.strerror, flush=True)
sys.stdin.readline()
"""
# Without bind: the port that the kernel chooses.
CHOSEN = """
import socket, struct, sys
door = socket.socket(int(sys.argv[2]))
door.setsockopt(0, 51, struct.pack("=I", int(sys.argv[1]) << 16 | int(sys.argv[1])))        # IP_LOCAL_PORT_RANGE
door.listen()
print(door.getsockname()[1], flush=True)
door.settimeout(0.5)
try:
    print(door.accept(), flush=True)
except TimeoutError:
    print("nobody came", flush=True)
"""
TAKEN = "Address already in use"
RANGE, LOWEST = (Path("/proc/sys/net/ipv4") / one for one in ("ip_local_port_range", "ip_unprivileged_port_start"))


def taken(host: str, port: int = PORT, kind: int = socket.SOCK_STREAM) -> str:
    with outsider(TAKE, host, port, int(kind)) as other:
        return line(other)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0"])
def test_the_listeners_port_is_roots(contained: Block, host: str) -> None:
    assert taken(host) == TAKEN
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as door:
        door.bind((host, PORT))
    with entered(contained.server):
        assert taken(host) == "bound", "another network's"


def test_other_places_are_anybodys(contained: Block) -> None:
    for host, port, kind in ((CREW4, PORT, 1), ("127.0.0.2", PORT, 1), ("127.0.0.1", PORT + 1, 1),
                             ("127.0.0.1", PORT, 2)):
        assert taken(host, port, kind) == "bound"


@pytest.mark.parametrize(("host", "family"), [("0.0.0.0", socket.AF_INET), ("::", socket.AF_INET6)])
def test_who_has_the_listeners_port_gets_nothing(contained: Block, host: str, family: socket.AddressFamily) -> None:
    """Where it was bound before the hooks were there, or chosen by the kernel, which asks no hook."""
    before = RANGE.read_text()
    RANGE.write_text("15000 60999")
    try:
        with outsider(CHOSEN, PORT, int(family)) as other:
            assert line(other) == str(PORT)
            for to in (SERVER4, "fd79::2") if family == socket.AF_INET6 else (SERVER4,):
                said, _ = contained.python(CONNECT, to, SINK).communicate(timeout=20)
                assert "ConnectionRefusedError" in said
            assert line(other) == "nobody came"
    finally:
        RANGE.write_text(before)
    with listener():
        assert line(contained.python(CONNECT, SERVER4, SINK)) == f"('{SERVER4}', {SINK})", "the control"


def test_root_has_it_and_is_not_weir(contained: Block) -> None:
    with socket.create_server(("127.0.0.1", PORT)) as door:
        said, _ = contained.python(CONNECT, SERVER4, SINK).communicate(timeout=20)
        assert "ConnectionRefusedError" in said
        contained.containment.know_doors([door.fileno()])
        crew = contained.python(CONNECT, SERVER4, SINK)
        assert line(crew) == f"('{SERVER4}', {SINK})"


RESOLVER = "127.53.53.53"
ASK = """
import socket, sys
for how in ("datagram", "connected", "stream"):
    with socket.socket(2, 1 if how == "stream" else 2) as s:
        s.settimeout(1)
        try:
            if how == "datagram":
                s.sendto(b"question", (sys.argv[1], 53))
            else:
                s.connect((sys.argv[1], 53))
                s.send(b"question")
            print("sent", flush=True)
        except OSError as error:
            print(type(error).__name__, flush=True)
"""


def test_the_resolvers_place(contained: Block) -> None:
    """With a resolver of its own on loopback; beside it a DNS server of the host, on every address."""
    own = Containment(NAME, port=PORT, resolver=(RESOLVER, 53), redirect=True, run=contained.run, headers=HEADERS)
    own.install()
    own.close()
    before = LOWEST.read_text()
    LOWEST.write_text("0")
    try:
        assert [taken(RESOLVER, 53, kind) for kind in (1, 2)] == [TAKEN] * 2
        assert [taken(host, 53, 2) for host in ("127.0.0.53", "")] == ["bound"] * 2
    finally:
        LOWEST.write_text(before)
    asked: dict[bool, list[str]] = {}
    for known in (False, True):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, socket.create_server(("", 53)) as streams:
            datagrams.bind(("", 53))
            if known:
                contained.containment.know_doors([datagrams.fileno(), streams.fileno()])
            said, _ = contained.python(ASK, RESOLVER).communicate(timeout=20)
            asked[known] = said.split()
            datagrams.setblocking(False)
            came = 0
            while True:
                try:
                    came += len(datagrams.recv(100)) > 0
                except BlockingIOError:
                    break
            assert came == (2 if known else 0)
    assert asked == {False: ["PermissionError", "PermissionError", "ConnectionRefusedError"], True: ["sent"] * 3}
