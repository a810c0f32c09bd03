"""-L, -R, -D, -J, -W, and Unix sockets both ways: what goes in comes out, and each half is closed by itself."""
from __future__ import annotations

import hashlib
import os
import socket
import struct
import subprocess
import tempfile
import threading
from contextlib import contextmanager

from common import (
    AT,
    BASTION,
    HOST,
    LOGIN,
    begin,
    binary,
    echoing,
    finish,
    free_port,
    reachable,
    run,
    said,
    ssh,
    through,
)

ECHO_PORT, ECHO_SOCKET = int(os.environ["ECHO_PORT"]), os.environ["ECHO_SOCKET"]
DATA = binary(3_000_000)
SAME = hashlib.sha256(DATA).hexdigest()
# Connects from the far side: sends, closes its half, prints what came back.
FAR = """python3 -c '
import hashlib, socket, sys, threading
family, to = (socket.AF_UNIX, sys.argv[1]) if "/" in sys.argv[1] else (socket.AF_INET, ("127.0.0.1", int(sys.argv[1])))
with socket.socket(family) as one:
    one.connect(to)
    data = bytes(range(256)) * 4000
    threading.Thread(target=lambda: (one.sendall(data), one.shutdown(socket.SHUT_WR))).start()
    digest = hashlib.sha256()
    while piece := one.recv(65536): digest.update(piece)
    print(digest.hexdigest() == hashlib.sha256(data).hexdigest())
' """


@contextmanager
def tunnel(*options: str, to: str = AT):
    with subprocess.Popen(["ssh", "-N", "-o", "ExitOnForwardFailure=yes", *options, to], stdin=subprocess.DEVNULL,
                          stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def socks5(one: socket.socket, host: str, port: int) -> int:
    """RFC 1928; the reply's code."""
    one.sendall(b"\x05\x01\x00")
    assert one.recv(2) == b"\x05\x00"
    one.sendall(b"\x05\x01\x00\x03" + bytes([len(host)]) + host.encode() + struct.pack("!H", port))
    reply = one.recv(10)
    return reply[1] if reply else -1              # OpenSSH's client says nothing where the channel is not opened


begin()
port = free_port()
with tunnel("-L", f"127.0.0.1:{port}:127.0.0.1:{ECHO_PORT}"):
    for _ in range(3):
        with reachable(("127.0.0.1", port)) as one:
            said.append(through(one, DATA) == SAME)
    several = [reachable(("127.0.0.1", port)) for _ in range(20)]
    for number, one in enumerate(several):
        one.sendall(b"%d" % number)
    said.append([one.recv(10).decode() for one in several])
    for one in several:
        one.close()

closed = free_port()
with tunnel("-L", f"127.0.0.1:{closed}:127.0.0.1:9"), reachable(("127.0.0.1", closed)) as one:
    said.append(one.recv(1).decode())            # nobody listens there: the channel is not opened

port = free_port()
with tunnel("-D", f"127.0.0.1:{port}"):
    for name, to in (("127.0.0.1", ECHO_PORT), (HOST, 22), ("127.0.0.1", 9)):
        with reachable(("127.0.0.1", port)) as one:
            code = socks5(one, name, to)
            said.append([name, code == 0])
            if to == ECHO_PORT:
                said.append(through(one, DATA) == SAME)
            elif to == 22:
                said.append(one.recv(4).decode())

with socket.create_server(("127.0.0.1", 0)) as door:
    echoing(door)
    here = door.getsockname()[1]
    ssh_r = subprocess.Popen(["ssh", "-N", "-v", "-R", f"127.0.0.1:0:127.0.0.1:{here}", AT], stdin=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, text=True)
    try:
        opened = next(line for line in ssh_r.stderr if line.startswith("Allocated port "))
        threading.Thread(target=ssh_r.stderr.read, daemon=True).start()
        for _ in range(2):
            ssh(FAR + opened.split()[2])
    finally:
        ssh_r.kill()
        ssh_r.wait()

with tempfile.TemporaryDirectory() as place:
    with tunnel("-L", f"{place}/near:{ECHO_SOCKET}"), reachable(f"{place}/near", socket.AF_UNIX) as one:
        said.append(through(one, DATA) == SAME)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(f"{place}/here")
        door.listen()
        echoing(door)
        far = f"/home/{LOGIN}/{os.environ['WORK']}/far"
        with tunnel("-R", f"{far}:{place}/here"):
            ssh(f"until test -S {far}; do sleep 0.05; done; " + FAR + far)

said.append(run("ssh", "-J", f"{LOGIN}@{BASTION}", AT, "echo behind the bastion; exit 3"))
with subprocess.Popen(["ssh", "-W", f"127.0.0.1:{ECHO_PORT}", AT], stdin=subprocess.PIPE,
                      stdout=subprocess.PIPE) as one:
    out, _ = one.communicate(DATA, 60)
    said.append([one.returncode, hashlib.sha256(out).hexdigest() == SAME])
finish()
