"""A connect that no hook rewrote is seen when it is established: the sockops hook is another one than connect's."""
from __future__ import annotations

import ctypes
import os
import socket

import pytest
from blockhost import DNS, DNS4, SERVER4, SERVER6, SINK, Block, listener

from agent.block import nft
from probes import libbpf, links

pytestmark = pytest.mark.kernel


def detach(block: Block, *names: str) -> None:
    """As an attacker with the right would: BPF_LINK_DETACH, whoever holds the link."""
    for name in names:
        with links.opened(links.link_pin(block.containment.bpffs, name)) as fd:
            libbpf._lib.bpf_link_detach.argtypes = (ctypes.c_int,)
            assert libbpf._lib.bpf_link_detach(fd) == 0


CONNECT = """
import socket, sys
one = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
one.send(sys.argv[3].encode())
print(int.from_bytes(one.getsockopt(socket.SOL_SOCKET, 57, 8), 'little'), flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize(("address", "how"), [
    (SERVER4, {"mark": 9}), (SERVER4, {}), (SERVER6, {"mark": 9}), ("::ffff:" + SERVER4, {"mark": 9}),
    (SERVER4, {"mark": 9, "leave": True})])
def test_past_the_rewrite(contained: Block, address: str, how: dict[str, int]) -> None:
    detach(contained, "connect4", "connect6", "egress")
    nft.delete_table(contained.containment._rules.name)
    token = f"past-{address}-{len(how)}"
    crew = contained.python(CONNECT, address, SINK, token, **how)
    assert crew.stdout is not None
    said = crew.stdout.readline()
    assert said.strip().isdigit(), said + crew.stdout.read()
    cookie = int(said)
    [seen] = contained.containment.drain()
    assert (seen.verdict, seen.destination, seen.port) == ("elsewhere", address.removeprefix("::ffff:"), SINK)
    assert (seen.owner, seen.cookie) == (how.get("mark", 0), cookie)
    assert any(one.cookie == seen.cookie and one.remote_port == SINK for one in contained.containment.tcp_sockets())
    crew.communicate("\n", timeout=10)


def test_what_goes_to_the_listener_is_not_elsewhere(contained: Block) -> None:
    with listener(), listener(socket.AF_INET6):
        for address in (SERVER4, SERVER6, "::ffff:" + SERVER4):
            contained.python(CONNECT, address, 5432, "x", mark=9).communicate("\n", timeout=10)
    assert [one.verdict for one in contained.containment.drain()] == ["redirected"] * 3


def test_dns_over_tcp_is_not_elsewhere(contained: Block) -> None:
    contained.python(CONNECT, DNS4, DNS, "x", mark=9).communicate("\n", timeout=10)
    assert [one.verdict for one in contained.containment.drain()] == ["dns"]


def test_who_is_no_crew_is_not_seen(contained: Block) -> None:
    with socket.create_connection((SERVER4, SINK), 5):
        pass
    assert contained.containment.drain() == []
    assert os.getpid() not in contained.containment.crew()
