"""The short escape matrix that is run before Weir says "enforcing": a real process in the slice tries to get out.

    python -I -m agent.block.selfprobe --cgroup DIR --uid UID --network FD TCP4 TCP6 UDP4 UDP6

The verdict is the receiver's: decoys of the agent's own, outside the slice, on loopback ports that are nobody's target.
Whatever reaches one of them got through.  In a network of its own the decoys are in there, too.  The child says what it
tried and what the kernel answered, for the report.
"""
from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import select
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from agent.network.netns import enter, inside
from agent.processes import ENVIRONMENT, python_module

NOBODY: Final = 65534
TIMEOUT: Final = 30.0                 # seconds for the whole probe, on a slow and loaded host
_ATTEMPT: Final = 0.3                 # seconds for one connect
_PLACES: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class Decoys:
    """Listening sockets that nothing of the slice may reach: TCP and UDP over IPv4 and, where there is one, IPv6."""

    def __init__(self, stack: ExitStack) -> None:
        self.tcp: dict[str, socket.socket] = {}
        self.udp: dict[str, socket.socket] = {}
        for family, address in _PLACES:
            for kind, sockets in ((socket.SOCK_STREAM, self.tcp), (socket.SOCK_DGRAM, self.udp)):
                with suppress(OSError):
                    one = stack.enter_context(socket.socket(family, kind))
                    one.bind((address, 0))
                    one.setblocking(False)
                    if kind == socket.SOCK_STREAM:
                        one.listen()
                    sockets[address] = one

    def ports(self) -> list[str]:
        return [str(sockets[address].getsockname()[1]) if address in sockets else "0"
                for sockets in (self.tcp, self.udp) for _, address in _PLACES]

    def reached(self) -> list[str]:
        """What got through: empty is good."""
        poll, sockets = select.poll(), [*self.tcp.values(), *self.udp.values()]
        for one in sockets:
            poll.register(one, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(0)}
        return [f"{'UDP' if one.type == socket.SOCK_DGRAM else 'TCP'} to {one.getsockname()[0]}" for one in sockets
                if one.fileno() in ready]


async def probe(cgroup: Path, mark: Callable[[int], None], network: int) -> list[str]:
    """What got out of the slice, or why it could not be tried; empty where the block holds.  `cgroup` is a fresh child
    of the slice; `mark(pid)` gives the child the mark that a workload would have; `network` is a descriptor of the
    namespace in which it tries."""
    with ExitStack() as stack:
        decoys = inside(network, lambda: Decoys(stack))
        cgroup.mkdir(exist_ok=True)
        try:
            process = await asyncio.create_subprocess_exec(
                *python_module("agent.block.selfprobe"), "--cgroup", str(cgroup), "--uid", str(NOBODY), "--network",
                str(network), *decoys.ports(), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                env=ENVIRONMENT, cwd="/", pass_fds=(network,))
            said = await _converse(process, mark)
            reached = decoys.reached()
        finally:
            with suppress(OSError):
                (cgroup / "cgroup.kill").write_text("1")
    if reached:
        return [f"a process in the slice reached a closed port: {one}" for one in reached]
    return [] if said == "done" else [f"the self-probe could not be run: {said}"]


async def _converse(process: asyncio.subprocess.Process, mark: Callable[[int], None]) -> str:
    """"done", or what went wrong."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(TIMEOUT):
            if (await process.stdout.readline()).strip() != b"ready":
                return "it did not start"
            mark(process.pid)
            process.stdin.write(b"go\n")
            await process.stdin.drain()
            tried = json.loads(await process.stdout.readline() or b"{}")
            await process.wait()
            return "done" if process.returncode == 0 and tried else f"exit code {process.returncode}"
    except (TimeoutError, OSError, ValueError) as reason:
        return str(reason) or type(reason).__name__
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


# the child


def attempt(ports: Sequence[int]) -> dict[str, str]:
    """Everything that must fail; what the kernel said to each."""
    said = {}
    for (family, address), tcp, udp in zip(_PLACES, ports[:2], ports[2:], strict=True):
        if tcp:
            said[f"tcp {address}"] = _tcp(family, address, tcp)
        if udp:
            said[f"udp {address}"] = _udp(family, address, udp)
    if ports[0]:
        said["tcp mapped"] = _tcp(socket.AF_INET6, "::ffff:127.0.0.1", ports[0])
    return said


def _tcp(family: socket.AddressFamily, address: str, port: int) -> str:
    try:
        with socket.socket(family) as one:
            one.settimeout(_ATTEMPT)
            one.connect((address, port))
            return "connected"        # to the enforcer's listener: the decoy says whether it was there
    except OSError as reason:
        return reason.strerror or str(reason)


def _udp(family: socket.AddressFamily, address: str, port: int) -> str:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            one.sendto(b"weir self-probe", (address, port))
            return "sent"
    except OSError as reason:
        return reason.strerror or str(reason)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="agent.block.selfprobe")
    parser.add_argument("--cgroup", required=True)
    parser.add_argument("--uid", type=int, required=True)
    parser.add_argument("--network", type=int, required=True)
    parser.add_argument("ports", type=int, nargs=4)
    given = parser.parse_args(arguments)
    Path(given.cgroup, "cgroup.procs").write_text("0")
    enter(given.network)
    os.setgroups([])
    os.setresgid(given.uid, given.uid, given.uid)
    os.setresuid(given.uid, given.uid, given.uid)
    print("ready", flush=True)
    if sys.stdin.readline() != "go\n":
        return 1
    print(json.dumps(attempt(given.ports)), flush=True)
    return 0


def name() -> str:
    """Of the probe's cgroup: fresh each time, for a name that is used again would be another cgroup with old rules."""
    return f"self-probe-{random.SystemRandom().randrange(1 << 32):08x}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
