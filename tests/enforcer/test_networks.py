"""Sockets of other network namespaces, handed to the enforcer: what belongs together is served, and nothing else."""
from __future__ import annotations

import array
import asyncio
import os
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from agent.contract.messages import OpenNetwork
from agent.network.doors import close_all, open_dns, open_listeners
from agent.network.netns import Namespace
from enforcer.dns.server import Server
from enforcer.networks import Networks

pytestmark = pytest.mark.kernel
PORT = 15432


class Sender:
    """The agent's end, and a namespace with its doors."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        service = SimpleNamespace(answer=None, gone=None)
        self.networks = Networks(SimpleNamespace(), Server(service), theirs.detach())  # type: ignore[arg-type]
        self.namespace = Namespace.make()
        self.doors = self.namespace.call(lambda: [*open_listeners(PORT), *open_dns("127.53.53.53")])

    def send(self, doors: list[socket.socket] | None = None) -> None:
        numbers = array.array("i", [one.fileno() for one in (self.doors if doors is None else doors)])
        self.ours.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])

    def message(self, **changes: int) -> OpenNetwork:
        return OpenNetwork(**({"number": 1, "netns": self.namespace.cookie, "listeners": 2, "dns": 2} | changes))

    def connect(self) -> str:
        """What a client there hears."""
        def ask() -> str:
            with socket.create_connection(("127.0.0.1", PORT), 5) as one:
                return one.makefile().readline()

        return self.namespace.call(ask)

    def close(self) -> None:
        self.networks.end()
        assert self.networks._door is not None
        self.networks._door.close()
        self.ours.close()
        close_all(self.doors)
        self.namespace.close()


@pytest.fixture
async def sender(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sender]:
    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        writer.close()

    async def listen(edge: object, descriptors: tuple[int, ...]) -> list[asyncio.Server]:
        return [await asyncio.start_server(hello, sock=socket.socket(fileno=one)) for one in descriptors]

    monkeypatch.setattr("enforcer.networks.listen", listen)
    one = Sender()
    yield one
    one.close()
    await asyncio.sleep(0)


def sockets() -> int:
    return sum(os.readlink(f"/proc/self/fd/{name}").startswith("socket:") for name in os.listdir("/proc/self/fd")
               if os.path.lexists(f"/proc/self/fd/{name}"))


async def test_connections_wait_until_names_are_known(sender: Sender) -> None:
    sender.send()
    assert await sender.networks.open(sender.message()) == ""
    waiting = asyncio.get_running_loop().run_in_executor(None, sender.connect)
    done, _ = await asyncio.wait({waiting}, timeout=0.2)
    assert not done
    await sender.networks.ready()
    assert await waiting == "hello\n"


async def test_what_is_closed_is_closed(sender: Sender) -> None:
    await sender.networks.ready()
    before = sockets()
    sender.send()
    assert await sender.networks.open(sender.message()) == ""
    assert await asyncio.to_thread(sender.connect) == "hello\n"
    sender.networks.close(sender.namespace.cookie)
    sender.networks.close(sender.namespace.cookie)
    await asyncio.sleep(0.01)
    assert sockets() == before


@pytest.mark.parametrize("changes", [{"netns": 1}, {"listeners": 1}, {"dns": 3}])
async def test_what_does_not_belong_together_serves_nobody(sender: Sender, changes: dict[str, int]) -> None:
    before = sockets()
    sender.send()
    error = await sender.networks.open(sender.message(**changes))
    assert error in ("4 sockets came", "sockets of another network came")
    assert sockets() == before


async def test_a_message_without_its_packet(sender: Sender) -> None:
    assert await sender.networks.open(sender.message()) == "0 sockets came"
    assert "0 sockets came" in await sender.networks.open(sender.message(listeners=0, dns=0))


async def test_one_of_another_network_among_them(sender: Sender) -> None:
    with socket.create_server(("127.0.0.1", 0)) as host:
        before = sockets()
        sender.send([host, *sender.doors[1:]])
        assert await sender.networks.open(sender.message()) == "sockets of another network came"
        assert sockets() == before


async def test_the_same_again_is_no_error_and_keeps_nothing(sender: Sender) -> None:
    await sender.networks.ready()
    sender.send()
    assert await sender.networks.open(sender.message()) == ""
    before = sockets()
    sender.send()
    assert await sender.networks.open(sender.message()) == ""
    assert sockets() == before
    assert await asyncio.to_thread(sender.connect) == "hello\n"


async def test_closed_while_it_is_opened(sender: Sender) -> None:
    await sender.networks.ready()
    before = sockets()
    sender.send()
    opening = asyncio.ensure_future(sender.networks.open(sender.message()))
    await asyncio.sleep(0)
    sender.networks.close(sender.namespace.cookie)
    await opening
    await asyncio.sleep(0.01)
    assert sockets() == before
