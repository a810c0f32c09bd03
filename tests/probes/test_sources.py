"""Where a crew's connect says that it comes from: an answer to an address that is not this host's goes to the wire."""
from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
from blockhost import PYTHON, SERVER4, SERVER6, SINK, Block, entered, listener

pytestmark = pytest.mark.kernel

CHOSEN, CONTROL = "fd79::cafe:f00d:1234:5678", "fd79::c0:1"
CHOSEN4, CONTROL4 = "10.79.0.99", "10.79.0.98"
FREEBIND = 78                         # IPV6_FREEBIND
# SOURCE ADDRESS of IPv6, of IPv4, PORT: by every option that lets a socket have any address.
SPOOF = """
import socket, sys
six, four, port = sys.argv[1:3], sys.argv[3:5], int(sys.argv[5])
for family, (source, host), level, option in (
        (10, six, 41, 78), (10, six, 41, 75), (10, six, 0, 15), (2, four, 0, 19)):
    with socket.socket(family) as s:
        s.settimeout(0.3)
        try:
            s.setsockopt(level, option, 1)
            s.bind((source, 4242))
            s.connect((host, port))
        except OSError as error:
            print(error)
"""


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


class Wire:
    """What arrives at the server."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link

    def told_until(self, *addresses: str) -> bytes:
        """Every frame up to where each of the addresses was in one."""
        end, seen = time.monotonic() + 10, b""
        while not all(packed(one) in seen for one in addresses):
            assert time.monotonic() < end, "the control did not arrive"
            seen += self._link.recv(65536)
        return seen


@pytest.fixture
def wire(block: Block) -> Iterator[Wire]:
    with entered(block.server):
        link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    with link:
        link.bind(("eth0", 0))
        link.settimeout(10)
        yield Wire(link)


@pytest.mark.parametrize("layers", ["contained", "without_rules", "detached"])
def test_nobody_answers_to_an_address_of_a_crews_choice(
    request: pytest.FixtureRequest, wire: Wire, layers: str) -> None:
    """The control: the same by whoever is no crew, to the server itself."""
    block: Block = request.getfixturevalue(layers)
    with listener(), listener(socket.AF_INET6):
        said, _ = block.python(SPOOF, CHOSEN, SERVER6, CHOSEN4, SERVER4, SINK).communicate(timeout=20)
        assert said.count("not permitted") == (4 if layers != "detached" else 0)
        other = block.python(SPOOF, CONTROL, SERVER6, CONTROL4, SERVER4, SINK, inside=False)
        seen = wire.told_until(CONTROL, CONTROL4)
        other.kill()
    assert [one for one in (CHOSEN, CHOSEN4) if packed(one) in seen] == []


LENT = """
import socket, sys
s = socket.socket(fileno=int(sys.argv[1]))
s.settimeout(0.3)
s.connect((sys.argv[2], 9))
"""


def test_what_was_bound_by_somebody_else_is_not_answered_either(contained: Block, wire: Wire) -> None:
    """A socket that was made outside: neither setsockopt's hook nor the rules of crews know it."""
    with socket.socket(socket.AF_INET6) as lent, listener(socket.AF_INET6):
        lent.setsockopt(socket.IPPROTO_IPV6, FREEBIND, 1)
        lent.bind((CHOSEN, 4242))
        group = contained.containment.slice / "one"
        group.mkdir(exist_ok=True)
        subprocess.run([PYTHON, "-I", "-c", LENT, str(lent.fileno()), SERVER6], pass_fds=[lent.fileno()], timeout=30,
                       preexec_fn=lambda: (group / "cgroup.procs").write_text("0") and None, capture_output=True)
        other = contained.python(SPOOF, CONTROL, SERVER6, CONTROL4, SERVER4, SINK, inside=False)
        seen = wire.told_until(CONTROL)
        other.kill()
    assert packed(CHOSEN) not in seen
