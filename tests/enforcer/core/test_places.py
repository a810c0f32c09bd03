"""Which registered target a name or an address means at an outer server."""
from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.target import Target
from enforcer.core.places import find_target, is_loopback, plain_host

BASTION = Target("bastion", "ssh", ("bastion.example",), 22, ("192.0.2.1", "2001:db8::1"))
ORDERS = Target("orders", "postgresql", ("Orders.Example", "orders-old.example"), 5432, ("192.0.2.2", "2001:db8::2"))
BESIDE = Target("beside", "postgresql", ("db.bastion.example",), 5433, ("192.0.2.1",))
LOCAL = Target("local", "postgresql", ("localhost",), 5434, ("127.0.0.1",))
HERE = Target("here", "ssh", ("127.0.0.1",), 22, ("127.0.0.1",))
TARGETS = (BASTION, ORDERS, BESIDE, LOCAL, HERE)


@pytest.mark.parametrize(("host", "port", "name"), [
    ("orders.example", 5432, "orders"), ("ORDERS.example.", 5432, "orders"), ("orders-old.EXAMPLE", 5432, "orders"),
    ("orders.example", 5433, ""), ("orders", 5432, ""), ("xorders.example", 5432, ""), ("", 5432, ""),
    ("192.0.2.2", 5432, "orders"), ("::ffff:192.0.2.2", 5432, "orders"), ("[2001:DB8:0::2]", 5432, "orders"),
    ("2001:db8::2%eth0", 5432, "orders"), ("0xc0000202", 5432, "orders"), ("192.2.2", 5432, ""),
    ("192.0.514", 5432, "orders"), ("0300.0.02.2", 5432, "orders"), ("3221225986", 5432, "orders"),
    ("localhost", 5433, "beside"), ("127.0.0.1", 5433, "beside"), ("127.9", 5433, "beside"), ("::1", 5433, "beside"),
    ("::ffff:127.0.0.1", 5433, "beside"), ("0.0.0.0", 5433, "beside"), ("", 5433, "beside"),
    ("db.localhost.", 5433, "beside"), ("localhost", 22, "bastion"),
    ("localhost", 5434, ""), ("127.0.0.1", 5434, ""),        # this host's, not the bastion's
])
def test_table(host: str, port: int, name: str) -> None:
    found = find_target(TARGETS, host, port, BASTION)
    assert (found.name if found else "") == name


def test_loopback_of_a_server_on_this_host_is_this_hosts() -> None:
    found = find_target(TARGETS, "localhost", 5434, HERE)
    assert found is LOCAL


@given(st.lists(st.sampled_from(["0", "1", "10", "010", "0x1f", "255", "256", "08", "0x", "99999", "4294967295", "-1"]),
                min_size=1, max_size=5).map(".".join))
def test_addresses_as_the_c_library_reads_them(text: str) -> None:
    """What inet_aton(3) takes is the same address; what it does not take stays a name."""
    try:
        wanted = socket.inet_ntoa(socket.inet_aton(text))
    except OSError:
        wanted = text
    assert plain_host(text) == wanted


@given(st.text(max_size=80))
def test_anything_may_be_said(text: str) -> None:
    is_loopback(plain_host(text))
