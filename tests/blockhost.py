"""The real block in two network namespaces of its own: `crew`, where it holds, and `server`, whose word is the verdict.

Everything is named after this process and taken away at the end, whatever happens.
"""
from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from escape.sink import Sink
from lab.hosts import wait_until

from agent.block import cgroups
from agent.block.attribution import Origin
from agent.block.containment import Containment
from agent.techniques import Where
from probes import libbpf, links

NAME = f"wt{os.getpid()}"
PORT = 15997                          # of the listeners
SINK = 7007                           # at the server
DNS = 53
CREW4, SERVER4, NO_DNS4 = "10.79.0.1", "10.79.0.2", "10.79.0.53"
DNS4 = SERVER4
CREW6, SERVER6 = "fd79::1", "fd79::2"
PYTHON = "/usr/bin/python3"
AGENT = Path(__file__).resolve().parents[1] / "agent"
HEADERS = Path("/run") / NAME / "headers"
CONNECT = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
s.settimeout(5)
if len(sys.argv) > 3:
    s.bind((sys.argv[3], 0))
s.connect((sys.argv[1], int(sys.argv[2])))
print(s.getpeername()[:2], flush=True)
sys.stdin.readline()
print(s.getpeername()[:2], flush=True)
"""
FLOOD = """
import collections, json, socket, sys
said = collections.Counter()
for _ in range(int(sys.argv[1])):
    with socket.socket() as one:
        try:
            one.connect(("203.0.113.9", 9))
        except OSError as error:
            said[error.strerror] += 1
print(json.dumps(said), flush=True)
"""
TOO_FAST, NOBODY = "Cannot assign requested address", "Connection refused"      # to who connects in FLOOD
AS_NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--", PYTHON, "-I", "-c"]
_libc = ctypes.CDLL(None, use_errno=True)


def ip(*lines: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


@contextmanager
def entered(netns: str) -> Iterator[None]:
    """The calling thread, and what it starts, is in that namespace meanwhile."""
    with ExitStack() as stack:
        before = stack.enter_context(open("/proc/thread-self/ns/net"))
        inside = stack.enter_context(open(f"/run/netns/{netns}"))
        assert _libc.setns(inside.fileno(), 0x40000000) == 0     # CLONE_NEWNET
        try:
            yield
        finally:
            assert _libc.setns(before.fileno(), 0x40000000) == 0


@contextmanager
def namespaces() -> Iterator[tuple[str, str]]:
    crew, server = f"{NAME}-crew", f"{NAME}-server"
    try:
        ip(f"netns add {crew}", f"netns add {server}",
           f"link add eth0 netns {crew} type veth peer name eth0 netns {server}")
        for netns, four, six in ((crew, [CREW4], CREW6), (server, [SERVER4, NO_DNS4], SERVER6)):
            with entered(netns):
                ip("link set lo up", "link set eth0 up", *(f"address add {one}/24 dev eth0" for one in four),
                   f"address add {six}/64 dev eth0 nodad")
        yield crew, server
    finally:
        for netns in (crew, server):
            subprocess.run(["ip", "netns", "delete", netns], check=False, capture_output=True)


@dataclass
class Block:
    """A Containment in place, and what tests do with it.  Tests run in the crew's namespace."""

    containment: Containment
    run: Path
    server: str
    sink: Sink
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def fresh(self, *, redirect: bool = True, port: int = PORT) -> Containment:
        """Another object for the same block, as a second start has it."""
        return Containment(NAME, port=port, resolver=(DNS4, DNS), redirect=redirect, run=self.run, headers=HEADERS)

    def start(
        self, command: Sequence[str], *, inside: bool = True, mark: int = 0, leave: bool = False, child: str = "one",
    ) -> subprocess.Popen[str]:
        """`inside`: in a child of the slice from the first instruction on; `leave`: after the mark, out of it again."""
        group = self.containment.slice / child

        def before() -> None:
            if inside:
                (group / "cgroup.procs").write_text("0")
            if mark:
                self.containment.mark(os.getpid(), mark)
            if leave:
                (self.containment.slice.parent / "cgroup.procs").write_text("0")

        if inside:
            group.mkdir(exist_ok=True)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True, preexec_fn=before)
        self.started.append(process)
        return process

    def python(self, script: str, *arguments: object, **how: object) -> subprocess.Popen[str]:
        return self.start([PYTHON, "-I", "-c", script, *map(str, arguments)], **how)  # type: ignore[arg-type]

    def technique(self, name: str, token: str, **how: object) -> tuple[int, str]:
        """Exit code (0: it believes that it got through) and output."""
        to = Where(SERVER4, SERVER6, SINK, PORT, own4=CREW4, own6=CREW6)
        process = self.start(["env", "-C", str(AGENT), PYTHON, "-m", "techniques", name, token, *to.words()],
                             **how)  # type: ignore[arg-type]
        out, _ = process.communicate(timeout=60)
        return process.returncode, out

    def end(self) -> None:
        """Every process that was started, and what is in the slice."""
        if self.containment.slice.exists():
            cgroups.kill(self.containment.slice)
        for process in self.started:
            with suppress(ProcessLookupError):
                process.kill()
            process.communicate()
        self.started.clear()
        wait_until("the slice is empty", lambda: not cgroups.populated(self.containment.slice))


@contextmanager
def listener(family: socket.AddressFamily = socket.AF_INET) -> Iterator[socket.socket]:
    """In the enforcer's place, 5 s a step."""
    with socket.socket(family) as one:
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1" if family == socket.AF_INET else "::1", PORT))
        one.listen(64)
        one.settimeout(5)
        if (doors := Path("/run", NAME, "bpf/doors")).exists():
            with links.opened(doors) as fd:
                libbpf.update(fd, struct.pack("=i", one.fileno()), struct.pack("=I", 1))
        yield one


def cookie(one: socket.socket) -> int:
    """Of its network namespace."""
    return int.from_bytes(one.getsockopt(socket.SOL_SOCKET, 71, 8), "little")


def socket_cookie(one: socket.socket) -> int:
    return int.from_bytes(one.getsockopt(socket.SOL_SOCKET, 57, 8), "little")


def whose(block: Block, accepted: socket.socket) -> Origin | None:
    return block.containment.take(socket_cookie(accepted))


def line(process: subprocess.Popen[str], said: str = "") -> str:
    """Its next line, after it was told `said`."""
    assert process.stdin is not None
    assert process.stdout is not None
    if said:
        process.stdin.write(said + "\n")
        process.stdin.flush()
    return process.stdout.readline().strip()


@contextmanager
def outsider(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A user who is nobody's crew."""
    with subprocess.Popen([*AS_NOBODY, script, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as process:
        yield process
        process.kill()
