"""Hosts: network namespaces on one bridge, with names and addresses of their own.

Everything that the lab leaves on the machine while it runs carries PREFIX in its name, so that the next run finds and
removes what a killed one left: namespaces (with their links, addresses, nftables), processes in them, the runtime of
Weir that ran there.  One lab a machine: a lock holds the others back.
"""
from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PREFIX = "wl-"
BRIDGE = PREFIX + "net"
RUNTIME = "weirlab"                   # [runtime] name of the Weir under test
LOCK = Path("/run/lock/weir-lab.lock")
SCRATCH = "weir-lab-"                 # directories below /var/tmp
NETNS = Path("/run/netns")
USER = "labcrew"                      # whom crews run as
PATIENCE = float(os.environ.get("WEIR_LAB_PATIENCE", "1"))                 # times what is waited, on a slow machine
V4 = "10.77.0."
V6 = "fd77::"


@dataclass(frozen=True)
class Host:
    """A namespace with one link `eth0` to the bridge; `number` is the last part of both addresses."""

    name: str
    number: int

    @property
    def netns(self) -> str:
        return PREFIX + self.name

    @property
    def path(self) -> Path:
        return NETNS / self.netns

    @property
    def ipv4(self) -> str:
        return f"{V4}{self.number}"

    @property
    def ipv6(self) -> str:
        return f"{V6}{self.number}"

    def argv(self, command: Sequence[str]) -> list[str]:
        """`command` on this host.  Not `ip netns exec`: that remounts /sys and hides the cgroups."""
        return ["nsenter", f"--net={self.path}", "--", *command]

    def run(self, command: Sequence[str], **options: object) -> subprocess.CompletedProcess[str]:
        """Run to its end; output as text."""
        chosen: dict[str, object] = {"capture_output": True, "text": True, "timeout": 120} | options
        return subprocess.run(self.argv(command), **chosen)  # type: ignore[call-overload,no-any-return]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is on this host meanwhile."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        inside = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(inside)
            yield
        finally:
            _setns(before)
            os.close(inside)
            os.close(before)


@dataclass(frozen=True)
class Here(Host):
    """This very machine in the place of a host: no namespace; its addresses are there already, or loopback's."""

    addresses: tuple[str, str] = ("127.0.0.1", "::1")

    @property
    def netns(self) -> str:
        return ""                     # as `ip` has it

    @property
    def ipv4(self) -> str:
        return self.addresses[0]

    @property
    def ipv6(self) -> str:
        return self.addresses[1]

    def argv(self, command: Sequence[str]) -> list[str]:
        return list(command)

    @contextmanager
    def entered(self) -> Iterator[None]:
        yield


CREW = Host("crew", 2)                # Weir and the crews run here
MODEL = Host("model", 3)              # the crew's language model
DB = Host("db", 4)                    # PostgreSQL
SSH = Host("ssh", 5)                  # sshd
BASTION = Host("bastion", 6)          # another one, by which crews go on
KUBE = Host("kube", 7)                # Kubernetes' API server
OTHER = Host("other", 9)              # an ordinary client without Weir: the control
DNS = Host("dns", 53)
HOSTS = (CREW, MODEL, DB, SSH, BASTION, KUBE, OTHER, DNS)
NAMES = {"db.lab.example": DB, "model.lab.example": MODEL, "other.lab.example": OTHER, "crew.lab.example": CREW,
         "api.lab.example": OTHER, "alias.lab.example": DB,
         "ssh.lab.example": SSH, "bastion.lab.example": BASTION, "kube.lab.example": KUBE}


def _setns(fd: int) -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000) != 0:      # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), "setns")


def ip(*lines: str, netns: str = "") -> None:
    """One batch of `ip` commands; it stops at the first that fails."""
    inside = ["-n", netns] if netns else []
    done = subprocess.run(["ip", *inside, "-batch", "-"], input="\n".join(lines), text=True, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip: {done.stderr.strip()}")


def _link(host: Host) -> None:
    port = f"p-{host.name}"
    ip(f"netns add {host.netns}")
    ip(f"link add {port} type veth peer name eth0 netns {host.netns}", f"link set {port} master lab up", netns=BRIDGE)
    ip(
        "link set lo up",
        "link set eth0 up",
        f"address add {host.ipv4}/24 dev eth0",
        f"address add {host.ipv6}/64 dev eth0 nodad",
        netns=host.netns,
    )


def make() -> None:
    ip(f"netns add {BRIDGE}")
    ip("link add lab type bridge forward_delay 0", "link set lab up", netns=BRIDGE)
    for host in HOSTS:
        _link(host)


def processes(netns: str) -> list[int]:
    """Processes in a namespace, this one left out."""
    done = subprocess.run(["ip", "netns", "pids", netns], capture_output=True, text=True)
    return [pid for pid in map(int, done.stdout.split()) if pid != os.getpid()]


def end(pids: Sequence[int]) -> None:
    """SIGKILL, then wait until they are gone (they may not be our children)."""
    watched = []
    for pid in pids:
        try:
            watched.append(os.pidfd_open(pid))
            signal.pidfd_send_signal(watched[-1], signal.SIGKILL)
        except ProcessLookupError:
            continue
    for fd in watched:
        _wait_for_exit(fd)
        os.close(fd)


def _wait_for_exit(fd: int) -> None:
    import select

    select.select([fd], [], [], 10)


def remove() -> None:
    """Everything that this or an earlier, killed lab left behind."""
    for name in _namespaces():
        end(processes(name))
    remove_runtime()
    for name in _namespaces():
        ip(f"netns delete {name}")
    for directory in Path("/var/tmp").glob(SCRATCH + "*"):
        shutil.rmtree(directory, ignore_errors=True)


def _namespaces() -> list[str]:
    return sorted(path.name for path in NETNS.glob(PREFIX + "*")) if NETNS.is_dir() else []


def remove_runtime() -> None:
    """The block of a Weir whose lab is gone: its slice, its pinned programs, its files.  Links detach with their pins;
    nftables and listeners went with the namespace's processes, or go with the namespace."""
    run = Path("/run") / RUNTIME
    root = Path("/sys/fs/cgroup/unified") if Path("/sys/fs/cgroup/unified").is_dir() else Path("/sys/fs/cgroup")
    for top in root.glob(RUNTIME + ".*"):
        _remove_cgroup(top)
    while run.is_dir() and _mounted(run / "bpf"):
        subprocess.run(["umount", "-l", str(run / "bpf")], check=True)
    shutil.rmtree(run, ignore_errors=True)
    shutil.rmtree(Path("/var/lib") / RUNTIME, ignore_errors=True)


def _mounted(path: Path) -> bool:
    return any(line.split()[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _remove_cgroup(top: Path) -> None:
    groups = sorted([top, *(path for path in top.rglob("*") if path.is_dir())], reverse=True)
    for _ in range(10):
        pids = [int(pid) for group in groups for pid in (group / "cgroup.procs").read_text().split()]
        if not pids:
            break
        end(pids)
    for group in groups:
        group.rmdir()


def make_user(name: str = USER) -> None:
    """The crew's user stays between runs; `bootstrap clean` removes it."""
    if subprocess.run(["getent", "passwd", name], capture_output=True).returncode != 0:
        subprocess.run(["useradd", "--create-home", "--shell", "/bin/bash", name], check=True)


@contextmanager
def locked() -> Iterator[None]:
    """One lab a machine: waits, and says so."""
    LOCK.parent.mkdir(exist_ok=True)
    with open(LOCK, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another lab runs on this machine ({LOCK}): waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def hosts() -> Iterator[Path]:
    """All hosts, for as long as the block runs; gives a scratch directory (0755) that goes with them."""
    if os.geteuid() != 0:
        raise PermissionError("the lab makes network namespaces: run it as root")
    with locked():
        remove()
        make_user()
        scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir="/var/tmp"))
        scratch.chmod(0o755)
        try:
            make()
            yield scratch
        finally:
            remove()


def wait_until(what: str, ready: object, seconds: float = 30) -> None:
    """Ask again until `ready()` is true; for servers that tell nobody when they are."""
    deadline = time.monotonic() + seconds * PATIENCE
    while not ready():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds * PATIENCE:.0f} s")
        time.sleep(0.02 * PATIENCE)   # asking takes the processor from what is waited for


def main(argv: Sequence[str]) -> int:
    """`python -m lab.hosts clean`: remove leftovers, the crew's user included."""
    if list(argv) != ["clean"]:
        print("usage: python -m lab.hosts clean", file=sys.stderr)
        return 2
    with locked():
        remove()
        subprocess.run(["userdel", "-r", USER], capture_output=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
