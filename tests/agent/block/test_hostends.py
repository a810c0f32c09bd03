"""rtnetlink's answers about links, and the rules on the host's ends of them."""
from __future__ import annotations

import socket
import struct

import pytest

from agent.block.hostends import (
    Link,
    closed,
    host_ends,
    messages,
    others,
    parse_address,
    parse_link,
    parse_number,
    render_links,
    render_number,
    render_table,
)
from agent.network.interfaces import OwnAddresses, links

LO = Link(1, "lo", "", True)
HOST = (LO, Link(5, "eth0", "", False), Link(7, "veth1", "veth", False, 2, 0), Link(8, "veth2", "veth", False, 2, 1),
        Link(9, "veth3", "veth", False, 10), Link(11, "br0", "bridge", False))
LISTED = """table netdev weir {
	chain ingress_7 {
		type filter hook ingress device "veth1" priority -500; policy drop;
	}

	chain egress_7 {
		type filter hook egress device "veth1" priority -500; policy drop;
	}
}
"""


def attribute(kind: int, value: bytes) -> bytes:
    return (struct.pack("=HH", 4 + len(value), kind) + value).ljust((7 + len(value)) & ~3, b"\0")


def link(index: int, flags: int, *attributes: bytes) -> bytes:
    return struct.pack("=BxHiII", 0, 1, index, flags, 0) + b"".join(attributes)


def test_a_link() -> None:
    body = link(7, 0x1043, attribute(3, b"veth1\0"), attribute(5, struct.pack("=i", 2)),
                attribute(18 | 0x8000, attribute(1, b"veth\0")), attribute(37, struct.pack("=i", 0)))
    assert parse_link(16, body) == HOST[2]
    assert parse_link(3, body) is None


@pytest.mark.parametrize(("family", "attributes", "wanted"), [
    (2, attribute(1, bytes((10, 0, 0, 1))) + attribute(2, bytes((10, 0, 0, 2))), "10.0.0.2"),
    (10, attribute(1, socket.inet_pton(socket.AF_INET6, "fd00::1")), "fd00::1"),
    (2, attribute(1, b"\1\2"), ""), (2, b"", ""),
])
def test_an_address(family: int, attributes: bytes, wanted: str) -> None:
    body = struct.pack("=BBBBI", family, 24, 0, 0, 2) + attributes
    assert parse_address(20, body) == wanted
    assert parse_address(21, body) == ""
    for at in range(len(body)):
        parse_address(20, body[:at])


def test_this_host_s_own_addresses() -> None:
    own = OwnAddresses()
    assert own.has("127.0.0.1")
    assert not own.has("203.0.113.9")


def test_every_cut_and_every_length() -> None:
    """Whatever comes: links, or none."""
    body = link(7, 0, attribute(3, b"veth1\0"), attribute(18, attribute(1, b"veth\0")), attribute(37, b"\0\0\0\0"))
    for at in range(len(body)):
        parse_link(16, body[:at])
        parse_link(16, body[:at] + b"\xff" * 4 + body[at + 4:])
    assert list(messages(struct.pack("=IHHII", 15, 16, 0, 0, 0))) == []
    assert list(messages(struct.pack("=IHHII", 999, 16, 0, 0, 0))) == []


def test_the_number_of_a_namespace() -> None:
    assert parse_number(88, b"\0" * 4 + attribute(1, struct.pack("=i", 4))) == 4
    assert parse_number(88, b"\0" * 4) == -1
    assert struct.unpack_from("=I", render_number(9), 24) == (9,)


def test_which_ends() -> None:
    assert [one.index for one in host_ends(HOST, 0)] == [7]
    assert host_ends(HOST, -1) == (), "no number: nothing leads there, least of all what stays here"
    inside = (LO, Link(2, "eth0", "veth", False, 7, 0))
    assert others(inside, host_ends(HOST, 0)) == ()
    assert others(inside, ()) == inside[1:]
    tunnel = Link(3, "tun0", "tun", False)
    assert others((*inside, tunnel), host_ends(HOST, 0)) == (tunnel,)


def test_the_rules() -> None:
    assert render_table("weir", [HOST[2]]).replace("\n\n", "\n") == LISTED.replace("\n\n", "\n")
    assert closed(LISTED, [HOST[2]])
    assert closed(LISTED, [])
    assert not closed(LISTED, HOST[2:4])
    assert not closed("", [HOST[2]])
    for before, after in (("drop", "accept"), ("ingress device", "egress device"), ("veth1", "veth9"), ("-500", "500")):
        assert not closed(LISTED.replace(before, after, 1), [HOST[2]]), after


def test_a_rule_in_a_chain_that_lets_through() -> None:
    listed = LISTED.replace("policy drop;\n", "policy drop;\n\t\taccept\n", 1)
    assert not closed(listed, [HOST[2]])


@pytest.mark.parametrize("name", ['a"b', "a;b", "", "a b", "sixteen-letters-"])
def test_a_name_that_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="no rule can have"):
        render_table("weir", [Link(3, name, "veth", False, 2, 0)])


def test_this_hosts_links() -> None:
    assert {(one.index, one.name) for one in links()} == set(socket.if_nameindex())
    assert [one.name for one in links() if one.loopback] == ["lo"]
    assert len(render_links()) == 32
