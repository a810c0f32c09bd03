"""Network namespaces that the agent makes: what is in them, and that no thread stays where it does not belong."""
from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.block import nft
from agent.network.doors import close_all, open_dns, open_listeners
from agent.network.loopback import FOUR, SIX, parse_error, render_setup
from agent.network.netns import Namespace, current_cookie, has_ipv4, has_ipv6, inside


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    one = Namespace.make()
    yield one
    one.close()


def addresses() -> set[str]:
    """As getaddrinfo's AI_ADDRCONFIG lists them."""
    net = Path("/proc/thread-self/net")
    return {*(net / "fib_trie").read_text().split(), *(net / "if_inet6").read_text().split()}


@pytest.mark.kernel
def test_there_is_nothing_but_lo(namespace: Namespace) -> None:
    assert namespace.call(socket.if_nameindex) == [(1, "lo")]
    assert namespace.cookie not in (0, current_cookie())


@pytest.mark.kernel
@pytest.mark.parametrize("family", [True, False])
def test_clients_find_a_network_of_the_families_that_the_host_has(
    monkeypatch: pytest.MonkeyPatch, family: bool,
) -> None:
    monkeypatch.setattr("agent.network.netns.has_ipv4", lambda: family)
    monkeypatch.setattr("agent.network.netns.has_ipv6", lambda: not family)
    one = Namespace.make()
    try:
        there = one.call(addresses)
        assert (FOUR in there, socket.inet_pton(socket.AF_INET6, SIX).hex() in there) == (family, not family)
        assert one.call(own_address) == ("127.0.0.1" if family else "Network is unreachable")
    finally:
        one.close()


def own_address() -> str:
    """As programs look for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))
        except OSError as reason:
            return reason.strerror
        return str(one.getsockname()[0])


@pytest.mark.kernel
def test_the_thread_that_goes_in_does_not_come_back(namespace: Namespace) -> None:
    here, mine = current_cookie(), threading.get_ident()
    assert namespace.call(current_cookie) == namespace.cookie
    assert namespace.call(threading.get_ident) != mine
    assert current_cookie() == here
    with pytest.raises(ZeroDivisionError):
        namespace.call(lambda: 1 // 0)
    assert current_cookie() == here


@pytest.mark.kernel
def test_what_is_given_up_is_entered_by_nobody(namespace: Namespace) -> None:
    namespace.close()
    namespace.close()
    with pytest.raises(OSError, match="given up"):
        namespace.call(current_cookie)


def test_what_is_no_network_namespace() -> None:
    fd = os.open("/proc/self/ns/pid", os.O_RDONLY)
    with pytest.raises(OSError, match="setns"):
        Namespace(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    with pytest.raises(OSError, match="setns"):
        inside(-1, current_cookie)


@pytest.mark.kernel
def test_somebody_elses(namespace: Namespace) -> None:
    own = Namespace.of(os.getpid())
    assert own.cookie == current_cookie()
    own.close()


@pytest.mark.kernel
def test_each_change_of_rules_has_a_number_of_its_own(namespace: Namespace) -> None:
    first = namespace.call(nft.generation)
    assert namespace.call(nft.generation) == first
    namespace.call(lambda: nft._command("table inet wt-generation"))
    assert namespace.call(nft.generation) != first


@pytest.mark.kernel
def test_the_same_doors_in_each(namespace: Namespace) -> None:
    """Ports that are taken here are free there."""
    other = Namespace.make()
    opened = [one for where in (namespace, other)
              for one in where.call(lambda: [*open_listeners(15432), *open_dns("127.53.53.53")])]
    try:
        assert [one.getsockname()[:2] for one in opened[:4]] == [
            ("127.0.0.1", 15432), ("::1", 15432), ("127.53.53.53", 53), ("127.53.53.53", 53)]
        with pytest.raises(OSError, match=r"127\.0\.0\.1 port 15432"):
            namespace.call(lambda: open_listeners(15432))
    finally:
        close_all(opened)
        other.close()


def test_the_requests_are_rtnetlinks() -> None:
    kinds = [int.from_bytes(one[4:6], "little") for one in render_setup(True, True)]
    assert kinds == [16, 20, 24, 20]          # RTM_NEWLINK, RTM_NEWADDR, RTM_NEWROUTE, RTM_NEWADDR
    assert [int.from_bytes(one[:4], "little") for one in render_setup(True, True)] == list(
        map(len, render_setup(True, True)))
    assert len(render_setup(False, False)) == 1
    with pytest.raises(ValueError, match="no acknowledgement"):
        parse_error(render_setup(True, True)[0])


def test_what_the_host_has() -> None:
    assert isinstance(has_ipv4(), bool)
    assert isinstance(has_ipv6(), bool)
