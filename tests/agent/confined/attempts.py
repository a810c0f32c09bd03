"""Run as `python -I -c TEXT`: tries what a confined process must not do, and prints a line of JSON: by directive, each
attempt with the name of the error that it got, or "through".  Arguments: paths to be read and to be written, as JSON
{directive: {"unread": [...], "unwritten": [...]}}; a file to be given bits; a directory that it may write to; families
of sockets; where Weir's code lies, and which modules of it such a process has.
"""
from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = {                           # of the machines that these tests run on
    "x86_64": {"add_key": 248, "keyctl": 250, "io_uring_setup": 425, "setns": 308, "unshare": 272, "bpf": 321,
               "perf_event_open": 298, "ptrace": 101, "process_vm_readv": 310, "userfaultfd": 323, "personality": 135,
               "clone3": 435, "mount": 165, "fsopen": 430, "open_tree": 428, "shmget": 29, "mq_open": 240,
               "reboot": 169, "swapon": 167, "init_module": 175, "kexec_load": 246,
               "settimeofday": 164, "sethostname": 170,
               "pkey_alloc": 330, "setresuid": 117, "chown": 92, "syslog": 103, "memfd_secret": 447, "iopl": 172,
               "prlimit64": 302, "openat2": 437, "landlock_create_ruleset": 444},
    "aarch64": {"add_key": 217, "keyctl": 219, "io_uring_setup": 425, "setns": 268, "unshare": 97, "bpf": 280,
                "perf_event_open": 241, "ptrace": 117, "process_vm_readv": 270, "userfaultfd": 282, "personality": 92,
                "clone3": 435, "mount": 40, "fsopen": 430, "open_tree": 428, "shmget": 194, "mq_open": 180,
                "reboot": 142, "swapon": 224, "init_module": 105, "kexec_load": 104, "settimeofday": 170,
                "sethostname": 161, "pkey_alloc": 289, "setresuid": 147, "syslog": 116,
                "memfd_secret": 447, "prlimit64": 261, "openat2": 437, "landlock_create_ruleset": 444},
}[os.uname().machine]


def call(name: str, *arguments: int) -> None:
    ctypes.set_errno(0)
    wide = [ctypes.c_long(one) for one in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    if libc.syscall(NUMBERS[name], *wide) < 0:
        raise OSError(ctypes.get_errno(), name)


def writable_code() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def code_of_data() -> None:
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    held = ctypes.c_char.from_buffer(page)
    said = libc.mprotect(ctypes.c_void_p(ctypes.addressof(held)), 4096, 5)
    number = ctypes.get_errno()
    del held
    if said != 0:
        raise OSError(number, "mprotect")


def bits(path: str, mode: int) -> None:
    os.chmod(path, mode)
    os.chmod(path, 0o600)


def make_with_bits(directory: str) -> None:
    path = f"{directory}/bits"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o4700))
    os.unlink(path)


def make(directory: str) -> None:
    if not os.path.isdir(directory):
        os.close(os.open(directory, os.O_WRONLY))
        return
    path = f"{directory}/.weir-attempt-{os.getpid()}"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600))
    os.unlink(path)


def read(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    if os.path.isdir(path):
        os.listdir(fd)
    os.close(fd)


def new_socket(family: int, kind: int, protocol: int = 0) -> None:
    socket.socket(family, kind, protocol).close()


def system(*names: str) -> list[tuple[str, Callable[[], None]]]:
    return [(name, lambda name=name: call(name)) for name in names if name in NUMBERS]      # type: ignore[misc]


def typed() -> None:
    if libc.ioctl(0, 0x5412, b"x") != 0:
        raise OSError(ctypes.get_errno(), "TIOCSTI")


def bind_port() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))


def attempts(file: str, own: str, confined: bool) -> dict[str, list[tuple[str, Callable[[], None]]]]:
    return {
        "RestrictNamespaces": [
            ("a user namespace", lambda: call("unshare", 0x10000000)), ("nothing unshared", lambda: call("unshare", 0)),
            ("setns", lambda: call("setns", -1)), ("clone3", lambda: call("clone3"))],
        "RestrictAddressFamilies": [
            (f"family {family}", lambda family=family, kind=kind: new_socket(family, kind))  # type: ignore[misc]
            for family, kind in ((16, 3), (17, 3), (38, 5), (40, 1), (30, 5), (3, 5), (44, 3), (8, 2))] + [
            ("MPTCP", lambda: new_socket(2, 1, 262)), ("a raw socket", lambda: new_socket(2, 3, 1)),
            ("a pair of another family", lambda: socket.socketpair(2, 1) and None)],
        "RestrictSUIDSGID": [("chmod u+s", lambda: bits(file, 0o4700)), ("open u+s", lambda: make_with_bits(own)),
                             ("openat2", lambda: call("openat2")), ("chmod g+s", lambda: bits(file, 0o2700))],
        "RestrictRealtime": [
            ("SCHED_FIFO", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))),
            ("SCHED_BATCH", lambda: os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)))],
        "MemoryDenyWriteExecute": [("mmap W and X", writable_code), ("mprotect X", code_of_data)],
        "LockPersonality": [("its own personality", lambda: call("personality", 0xFFFFFFFF)),
                            ("without randomized addresses", lambda: call("personality", 0x0040000))],
        "KeyringMode": system("add_key", "keyctl"),
        "RemoveIPC": [("shared memory", lambda: call("shmget", 0, 4096, 0o1600)), *system("mq_open")],
        "PrivateMounts": system("mount", "fsopen", "open_tree"),
        "ProtectHostname": system("sethostname"),
        "ProtectClock": system("settimeofday"),
        "ProtectKernelModules": system("init_module"),
        "ProtectKernelLogs": [("the kernel's log", lambda: call("syslog", 10))],
        "SystemCallFilter": [
            ("ptrace", lambda: call("ptrace", 0x4206, os.getppid())),       # PTRACE_SEIZE
            *system("bpf", "perf_event_open", "process_vm_readv", "userfaultfd", "io_uring_setup", "reboot",
                    "swapon", "kexec_load", "pkey_alloc", "setresuid", "chown", "memfd_secret", "iopl"),
            ("a child", lambda: subprocess.run(["/bin/true"], check=True) and None),
            ("a child of its own kind", lambda: subprocess.run([sys.executable, "-I", "-c", ""], check=True) and None),
            ("another's limits", lambda: call("prlimit64", os.getppid(), 7)),
            ("TIOCSTI", typed)],
        "ProtectSystem": [("another program", lambda: os.execv("/bin/true", ["true"]))] if confined else [],
        "": [("a port", bind_port)],
        "ProtectProc": [("its parent", lambda: read(f"/proc/{os.getppid()}/status")),
                        ("all processes", lambda: read("/proc"))],
    }


def works(own: str, families: list[str], modules: list[str]) -> dict[str, bool | str]:
    """What such a process needs."""
    def thread() -> None:
        threading.Thread(target=lambda: None).start()

    def file() -> None:
        with open(f"{own}/new", "wb") as opened:
            opened.write(b"x")
            os.fdatasync(opened.fileno())
            opened.truncate(0)
        os.link(f"{own}/new", f"{own}/linked")
        os.unlink(f"{own}/new")
        os.unlink(f"{own}/linked")

    def unnamed() -> None:
        fd = os.memfd_create("pem", os.MFD_CLOEXEC)
        os.write(fd, b"x")
        with open(f"/proc/self/fd/{fd}", "rb") as opened:
            assert opened.read() == b"x"
        os.close(fd)

    def sorted_on_disk() -> None:
        import sqlite3
        base = sqlite3.connect(f"{own}/base.sqlite")
        base.executescript("PRAGMA journal_mode=WAL; PRAGMA cache_size=4; PRAGMA temp_store=FILE; CREATE TABLE t (x);"
                           "CREATE TEMP TABLE large (x)")
        base.executemany("INSERT INTO large VALUES (randomblob(?))", [(4000,)] * 500)
        assert base.execute("SELECT count(*) FROM (SELECT x FROM large ORDER BY x)").fetchone() == (500,)
        base.commit()
        base.close()

    def loop() -> None:
        import asyncio

        import uvloop

        async def work() -> None:
            ours, theirs = socket.socketpair()
            reader, writer = await asyncio.open_connection(sock=ours)
            theirs.sendall(b"here\n")
            assert await reader.readline() == b"here\n"
            await asyncio.to_thread(lambda: None)
            writer.close()
            theirs.close()

        asyncio.run(work())
        uvloop.run(work())

    def names() -> None:
        if "AF_INET" in families:
            import asyncio
            assert socket.getaddrinfo("localhost", 80)
            assert asyncio.run(_names())

    def roots() -> None:
        import ssl
        assert ssl.create_default_context().get_ca_certs()

    def servers() -> None:
        """What each role's own process imports, with all that comes behind it."""
        import importlib
        for name in modules:
            module = importlib.import_module(name)
            if hasattr(module, "protocol"):
                module.protocol.warm()

    def peers() -> None:
        ours, theirs = socket.socketpair()
        fd = ours.getsockopt(socket.SOL_SOCKET, 77) if hasattr(os, "pidfd_open") else -1
        os.close(fd)
        os.close(os.pidfd_open(os.getpid()))
        theirs.close()
        ours.close()

    done: dict[str, bool | str] = {}
    for work in (thread, file, unnamed, sorted_on_disk, loop, names, roots, servers, peers):
        try:
            work()
            done[work.__name__] = True
        except BaseException as reason:
            done[work.__name__] = f"{type(reason).__name__}: {reason}"
    return done


async def _names() -> object:
    import asyncio
    return await asyncio.get_running_loop().getaddrinfo("localhost", 80)


def tried(work: Callable[[], None]) -> str:
    try:
        work()
        return "through"
    except OSError as reason:
        return errno.errorcode.get(reason.errno or 0, str(reason))
    except BaseException as reason:
        return f"{type(reason).__name__}: {reason}"


def main() -> None:
    paths, file, own, families = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4].split()
    found: dict[str, dict[str, str]] = {}
    sys.path.insert(0, sys.argv[5])
    found_works = works(own, families, sys.argv[6:])
    for directive, some in attempts(file, own, bool(families)).items():
        found.setdefault(directive, {}).update((name, tried(work)) for name, work in some)
    for directive, kinds in paths.items():
        mine = found.setdefault(directive, {})
        mine.update((f"read {path}", tried(lambda path=path: read(path)))        # type: ignore[misc]
                    for path in kinds["unread"] if os.path.exists(path))
        mine.update((f"write {path}", tried(lambda path=path: make(path)))       # type: ignore[misc]
                    for path in kinds["unwritten"] if os.path.exists(path))
    with open("/proc/self/status") as status:
        facts = {name: rest.strip() for name, rest in (line.split(":", 1) for line in status)}
    print(json.dumps({"tried": found, "works": found_works, "facts": facts, "umask": os.umask(0),
                      "mdwe": libc.prctl(66, 0, 0, 0, 0)}))      # PR_GET_MDWE


main()
