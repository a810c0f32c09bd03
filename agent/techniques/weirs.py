"""Against Weir itself."""
from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import struct
import subprocess
from pathlib import Path

from .common import WAIT, Where, called, collected, first, libc, tcp


def by_the_listener(token: bytes, to: Where) -> None:
    """Dial the enforcer's listener by hand and speak to it as if it were the server."""
    first([
        lambda: tcp(token, socket.AF_INET, "127.0.0.1", to.listener),
        lambda: tcp(token, socket.AF_INET, "127.0.0.2", to.listener),
        lambda: tcp(token, socket.AF_INET, "0.0.0.0", to.listener),
        lambda: tcp(token, socket.AF_INET6, "::1", to.listener),
        lambda: tcp(token, socket.AF_INET6, "::ffff:127.0.0.1", to.listener)])


def by_the_listeners_port(token: bytes, to: Where) -> None:
    """On an address of the host's: it is rewritten as any other, and no target is there."""
    tcp(token, socket.AF_INET, to.own4, to.listener)


def bind_the_listener(token: bytes, to: Where) -> None:
    """Squat the enforcer's port: whoever binds it gets what others are redirected to."""
    first([lambda host=host, family=family: _bound(family, host, to.listener)  # type: ignore[misc]
           for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, ""), (socket.AF_INET6, "::1"),
                                (socket.AF_INET6, "::"), (socket.AF_INET6, "::ffff:127.0.0.1"))])


def _bound(family: socket.AddressFamily, host: str, port: int) -> None:
    with socket.socket(family) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.bind((host, port))
        s.listen()
        print("bound", host, port, flush=True)


def listen_without_bind(token: bytes, to: Where) -> None:
    """The kernel chooses the port in listen(2), which no hook of bind sees; IP_LOCAL_PORT_RANGE leaves one choice."""
    with socket.socket() as s:
        s.setsockopt(socket.IPPROTO_IP, 51, struct.pack("=HH", to.listener, to.listener))
        s.listen()
        if s.getsockname()[1] != to.listener:
            raise OSError(f"got {s.getsockname()[1]}")


def approve(token: bytes, to: Where) -> None:
    """Answer one's own held operation, or anything else that is asked at Weir's own sockets."""
    first([lambda path=path: _reached(path) for path in  # type: ignore[misc]
           [f"{to.run}/control.sock", *map(str, Path(to.run).glob("**/*.sock"))]])


def _reached(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(WAIT)
        s.connect(path)
        print("connected", path, flush=True)


def unlink_pins(token: bytes, to: Where) -> None:
    """Without its pin a program is detached.  Looked for, left where it is."""
    place = Path(to.run, "bpf")
    if not (list(place.iterdir()) and os.access(place, os.W_OK | os.X_OK)):
        raise OSError("not to be written to")


def detach_bpf(token: bytes, to: Where) -> None:
    """bpf(2): BPF_PROG_GET_NEXT_ID, then the rest would follow."""
    called(libc.syscall(321, 11, ctypes.create_string_buffer(16), 16), "bpf")


def flush_nftables(token: bytes, to: Where) -> None:
    """Whoever may list the table may also flush it (CAP_NET_ADMIN); it is left as it is."""
    done = subprocess.run(["/usr/sbin/nft", "list", "tables"], capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(done.stderr.strip())
    print(done.stdout, flush=True)


def stop_weir(token: bytes, to: Where) -> None:
    _signalled(to, signal.SIGSTOP)


def kill_weir(token: bytes, to: Where) -> None:
    _signalled(to, signal.SIGKILL)


def _signalled(to: Where, number: signal.Signals) -> None:
    reached = []
    for pid in filter(None, to.pids.split(",")):
        with contextlib.suppress(OSError):
            os.kill(int(pid), number)
            reached.append(pid)
    if not reached:
        raise OSError("no such process")
    print(number.name, reached, flush=True)


def read_secrets(token: bytes, to: Where) -> None:
    """What is Weir's own: keys, credentials, recording, journal."""
    found = [path for path in (to.run, to.run.replace("/run/", "/var/lib/"), "/etc/weir")
             if Path(path).is_dir() and any(Path(path).iterdir())]
    if not found:
        raise OSError("nothing there")
    print(found, flush=True)


TECHNIQUES = collected(
    by_the_listener, by_the_listeners_port, bind_the_listener, listen_without_bind, approve, unlink_pins, detach_bpf,
    flush_nftables, stop_weir, kill_weir, read_secrets)
