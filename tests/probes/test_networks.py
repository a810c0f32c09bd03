"""The block in other network namespaces than the host's: one that Weir made, with nothing but `lo`, and somebody's."""
from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from blockhost import CONNECT, CREW4, NAME, PYTHON, SERVER4, SINK, Block, listener, whose

from agent.block import nft
from agent.block.cgroups import cgroup_id
from agent.network.netns import Namespace

pytestmark = pytest.mark.kernel


@pytest.fixture
def network(contained: Block) -> Iterator[Namespace]:
    with contains(contained, Namespace.make()) as one:
        yield one


@contextmanager
def contains(block: Block, namespace: Namespace) -> Iterator[Namespace]:
    try:
        block.containment.contain(namespace, "crew, owner 9")
        yield namespace
    finally:
        block.end()
        block.containment.let_go(namespace.cookie)
        namespace.close()


@contextmanager
def door_in(namespace: Namespace, family: socket.AddressFamily = socket.AF_INET) -> Iterator[socket.socket]:
    with ExitStack() as stack:
        yield namespace.call(lambda: stack.enter_context(listener(family)))


def crew_in(
    block: Block, namespace: Namespace, script: str, *arguments: object, **how: object,
) -> subprocess.Popen[str]:
    fd = namespace.descriptor()
    try:
        process = block.start(["nsenter", f"--net=/proc/{os.getpid()}/fd/{fd}", "--", PYTHON, "-I", "-c",
                               "print('here', flush=True)\n" + script, *map(str, arguments)], **how)  # type: ignore[arg-type]
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
    finally:
        os.close(fd)
    return process


@pytest.mark.parametrize(("to", "family"), [
    (SERVER4, socket.AF_INET), ("2001:db8::1", socket.AF_INET6), ("127.0.0.1", socket.AF_INET)])
def test_the_probes_know_whose_it_is(
    contained: Block, network: Namespace, to: str, family: socket.AddressFamily) -> None:
    contained.containment.register([("127.0.0.1", 5432)])
    with door_in(network, family) as door:
        crew = crew_in(contained, network, CONNECT, to, 5432, mark=9)
        accepted, _ = door.accept()
        with accepted:
            origin = whose(contained, accepted)
            assert origin is not None
            assert (origin.owner, origin.destination, origin.port) == (9, to, 5432)
            held = [one for one in contained.containment.tcp_sockets() if one.cookie == origin.cookie]
            assert [one.netns for one in held] == [network.cookie]
        assert crew.communicate("\n", timeout=10)[0] == f"('{to}', 5432)\n" * 2


def test_the_same_address_and_port_in_two_networks(contained: Block, network: Namespace) -> None:
    script = CONNECT.replace("s.bind((sys.argv[3], 0))", "s.bind((sys.argv[3], 40100))")
    with listener() as here, door_in(network) as there:
        crews = [contained.python(script, SERVER4, 5432, "127.0.0.1", mark=8),
                 crew_in(contained, network, script, SERVER4, 5433, "127.0.0.1", mark=9)]
        for door, owner, port in ((there, 9, 5433), (here, 8, 5432)):
            accepted, peer = door.accept()
            with accepted:
                assert peer == ("127.0.0.1", 40100)
                origin = whose(contained, accepted)
                assert origin is not None
                assert (origin.owner, origin.port) == (owner, port)
        for crew in crews:
            crew.communicate("\n", timeout=10)


def test_the_rules_alone_redirect_and_know_the_cgroup(detached: Block, network: Namespace) -> None:
    """In one that Weir has made, and in somebody else's with a link to elsewhere, as a container has it."""
    foreign = Namespace(os.open(f"/run/netns/{detached.server}", os.O_RDONLY))
    with contains(detached, foreign):
        for where, to, port in ((network, "203.0.113.5", 5432), (foreign, CREW4, SINK)):
            with door_in(where) as door:
                crew = crew_in(detached, where, CONNECT, to, port)
                accepted, (address, source) = door.accept()
                with accepted:
                    origin = detached.containment.by_redirect(where.cookie, socket.inet_aton(address), source)
                    assert origin is not None
                    assert (origin.destination, origin.port, origin.hook) == (to, port, "redirect")
                    assert origin.cgroup == cgroup_id(detached.containment.slice / "one")
                crew.communicate("\n", timeout=10)
        foreign.call(lambda: nft.delete_table(NAME))


def test_who_asks_the_resolver(contained: Block, network: Namespace) -> None:
    script = ("import socket, sys\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('', 40101))\n"
              "print('bound', flush=True)\nsys.stdin.readline()")
    crew = crew_in(contained, network, script)
    assert crew.stdout is not None
    assert crew.stdout.readline() == "bound\n"
    ask = contained.containment.asker
    address = socket.inet_aton("127.0.0.1")
    assert ask(network.cookie, False, address, 40101) == cgroup_id(contained.containment.slice / "one")
    other = Namespace.make()
    assert ask(other.cookie, False, address, 40101) == 0, "that is not contained"
    other.close()
    crew.communicate("\n", timeout=10)


def test_what_is_taken_away_there_is_put_back(contained: Block, network: Namespace) -> None:
    network.call(lambda: nft._command("flush ruleset"))
    assert contained.containment.problems() == [
        f"nftables: table inet {NAME} is not there (in the network of crew, owner 9)"]
    contained.containment.repair()
    assert contained.containment.problems() == []
