"""`weir selftest`: ways round, tried from inside a workload on this host.  What arrives at a decoy outside, or what the
technique itself holds in its hands, got through.

The techniques are agent/techniques, a folder of standard library only: it is handed to the system's Python as an
archive over standard input, once inside a workload and once, as the control, outside as root.  A technique whose
control does not arrive proves nothing on this host and is told apart.  The whole matrix, with servers and neighbours,
is the project's own test.
"""
from __future__ import annotations

import base64
import io
import json
import os
import selectors
import socket
import subprocess
import tempfile
import threading
import uuid
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import msgspec

from agent.config import Config
from agent.processes import ENVIRONMENT, python_module
from agent.settings.check import load_config
from agent.settings.host_table import Workload
from agent.techniques import TECHNIQUES, Where, start_of
from agent.workload.launch import HOST

PYTHON: Final = "/usr/bin/python3"
_SOURCES: Final = Path(__file__).resolve().parents[1] / "techniques"
_MOST: Final = 65536                  # bytes of one datagram or read
_KEPT: Final = 4096                   # pieces that a decoy remembers
# What needs a neighbour, a second host, an interface of a certain name or somebody's help, or would change this host.
NEEDS_MORE: Final = frozenset({
    "link-local", "bind-to-device", "loopback-by-device", "loopback-by-device-ipv6", "foreign-source",
    "foreign-source-ipv6", "registered-then-unspecified", "source-port-again", "source-route", "routing-header",
    "dialled-from-outside", "udp-broadcast", "udp-dns-port", "udp-answer", "join-group", "join-group-ipv4", "udp-lite",
    "sctp", "dccp",
    "packet-socket", "packet-socket-datagram", "packet-socket-past-the-queue", "netlink-route-change",
    "algorithm-socket", "fork-storm", "full-ring", "static-binary", "preloaded", "set-uid-root", "tun",
    "trace-outside", "read-outside", "take-descriptor", "shared-memory", "files-of-others", "system-bus",
    "session-bus", "systemd-private", "docker", "ssh-agent", "screen", "name-service-cache", "resolve-service",
    "local-database", "temporary-directory", "abstract", "shared-directory", "tmux", "handed-connected",
    "handed-datagram-connected", "handed-unconnected", "handed-datagram", "handed-listening", "connected-outside",
    "inherited", "by-the-listener", "by-the-listeners-port", "bind-the-listener", "listen-without-bind",
    "stop-weir", "kill-weir"})
TRIED: Final = tuple(name for name in TECHNIQUES if name not in NEEDS_MORE)

# Takes the archive, then becomes the batch; what follows on standard input is the batch's.
_BOOT: Final = """
import base64, os, sys, tempfile
path = tempfile.mkdtemp() + "/techniques.zip"
with open(path, "wb") as file:
    file.write(base64.b64decode(sys.stdin.buffer.readline()))
print("ready", flush=True)
os.environ["PYTHONPATH"] = path
os.execv(sys.executable, [sys.executable, "-m", "techniques", "batch"])
"""


class Finding(msgspec.Struct, frozen=True):
    technique: str
    verdict: Literal["stopped", "not contained", "not tried"]
    said: str                         # what the kernel or the decoy answered: to the technique, or to its control


class SelftestError(RuntimeError):
    """Nothing could be tried: why."""


class Decoy:
    """TCP and UDP on every address of this network namespace, outside the slice; echoes, and remembers."""

    def __init__(self) -> None:
        self._seen: list[bytes] = []
        self._doors: list[socket.socket] = []
        family, host = (socket.AF_INET6, "::") if socket.has_dualstack_ipv6() else (socket.AF_INET, "")
        stream = socket.create_server((host, 0), family=family, dualstack_ipv6=family == socket.AF_INET6)
        self.port: int = stream.getsockname()[1]
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        datagrams.bind((host, self.port))
        self._doors = [stream, datagrams]
        self._wake, self._stop = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def saw(self, token: str) -> bool:
        return any(token.encode() in one for one in list(self._seen))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.close()
        self._thread.join(5)

    def _serve(self) -> None:
        with ExitStack() as stack, selectors.DefaultSelector() as selector:
            for door in (*self._doors, self._wake):
                selector.register(stack.enter_context(door), selectors.EVENT_READ, stack)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._wake:
                        return
                    self._one(key.fileobj, selector, stack)  # type: ignore[arg-type]

    def _one(self, door: socket.socket, selector: selectors.BaseSelector, stack: ExitStack) -> None:
        try:
            if door is self._doors[1]:
                data, peer = door.recvfrom(_MOST)
                self._keep(data)
                door.sendto(data, peer)
            elif door is self._doors[0]:
                selector.register(stack.enter_context(door.accept()[0]), selectors.EVENT_READ)
            elif data := door.recv(_MOST):
                self._keep(data)
                door.sendall(data)
            else:
                selector.unregister(door)
                door.close()
        except OSError:
            if door not in self._doors:
                selector.unregister(door)
                door.close()

    def _keep(self, data: bytes) -> None:
        self._seen = [*self._seen, data][-_KEPT:]


def run_selftest(
    file: str, workload: str, user: str, network: str, tell: Callable[[str], None],
) -> list[Finding]:
    """As root, with the agent running.  `file`: the configuration; `network`: as `weir run` has it, "": the workload's
    own.  Raises SelftestError, ConfigError; OSError."""
    if os.geteuid() != 0:
        raise SelftestError("weir selftest needs root: the controls are root's")
    config = load_config(file)
    chosen = _workload(config, workload)
    if mode := config.egress_modes.get(chosen.name):
        raise SelftestError(f"egress of workload {chosen.name} is in mode {mode}: TCP gets through by configuration; "
                            "try a workload where it is enforced")
    inside = [*python_module("agent.cli"), "--config", str(config.file), "run", "--workload", chosen.name, "--user",
              user or chosen.users[0], "--network", network or chosen.network, "--", PYTHON, "-c", _BOOT]
    with Decoy() as decoy, tempfile.TemporaryDirectory() as scratch:
        where = _where(config, decoy.port)
        tell(f"{len(TRIED)} techniques, first without Weir")
        control = _attempts([PYTHON, "-c", _BOOT], dict(ENVIRONMENT) | {"TMPDIR": scratch}, where, decoy)
        where_it_runs = "the host's network" if (network or chosen.network) == HOST else "a network of its own"
        tell(f"now inside workload {chosen.name}, in {where_it_runs}")
        return judge(control, _attempts(inside, dict(ENVIRONMENT), where, decoy))


def judge(control: Mapping[str, tuple[bool, str]], crew: Mapping[str, tuple[bool, str]]) -> list[Finding]:
    """Pure: (arrived, what was said) of each technique without Weir and inside a workload."""
    found = []
    for name in TRIED:
        arrived, said = crew[name]
        if arrived:
            found.append(Finding(name, "not contained", said))
        elif not control[name][0]:
            found.append(Finding(name, "not tried", f"also without Weir it does not arrive: {control[name][1]}"))
        else:
            found.append(Finding(name, "stopped", said))
    return found


def _workload(config: Config, name: str) -> Workload:
    found = next((one for one in config.workloads if not name or one.name == name), None)
    if found is None:
        raise SelftestError(f"no workload {name}" if name else "the configuration has no [[workload]]")
    return found


def _where(config: Config, port: int) -> Where:
    """This host's own addresses stand for the server's: the layers know only loopback and the listeners."""
    four, six = _own(socket.AF_INET, "192.0.2.1") or "127.0.0.1", _own(socket.AF_INET6, "2001:db8::1") or "::1"
    return Where(four, six, port, config.enforcer.port, own4=four, own6=six, run=str(config.run),
                 bystander=os.getpid(), began=start_of(os.getpid()))


def _own(family: socket.AddressFamily, towards: str) -> str:
    """The address from which a packet there would go; nothing is sent."""
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        try:
            one.connect((towards, 9))
        except OSError:
            return ""
        return str(one.getsockname()[0])


def _attempts(command: Sequence[str], env: dict[str, str], where: Where, decoy: Decoy) -> dict[str, tuple[bool, str]]:
    """What each technique came to: whether it arrived or believes so, and its last words."""
    tokens = {name: f"token-{uuid.uuid4().hex}" for name in TRIED}
    lines = [[name, token, *where.words()] for name, token in tokens.items()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=env, cwd="/") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdin.write(_archive() + "\n")
            process.stdin.flush()
            ready = process.stdout.readline() == "ready\n"
            process.stdin.write(json.dumps(lines) + "\n")
            process.stdin.close()
            answer = process.stdout.readline() if ready else ""
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise SelftestError(f"nothing could be tried: {process.stderr.read().strip() or 'it ended at once'}")
    answers: list[Any] = json.loads(answer)
    return {name: (code == 0 or decoy.saw(tokens[name]), _last(name, said)) for name, code, said in answers}


def _last(name: str, said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1].removeprefix(f"{name}: ") if lines else "ended by the kernel"


def _archive() -> str:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path in sorted(_SOURCES.glob("*.py")):
            file.write(path, f"techniques/{path.name}")
    return base64.b64encode(buffer.getvalue()).decode()
