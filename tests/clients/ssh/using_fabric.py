"""Fabric: run, sudo is not there, put and get, a context that forwards, a group of hosts."""
from __future__ import annotations

import os
import socket

import paramiko
from common import BASTION, HERE, HOST, LOGIN, WORK, begin, finish, free_port, reachable, said
from fabric import Config, Connection, ThreadingGroup

begin()
settings = Config(overrides={"load_ssh_configs": True, "run": {"hide": True, "warn": True}})


def connection(host: str = HOST) -> Connection:
    made = Connection(host, user=LOGIN, config=settings)
    made.client.load_host_keys(os.path.expanduser("~/.ssh/known_hosts"))
    made.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    return made


with connection() as one:
    done = one.run("echo out; echo err >&2; exit 7")
    said.append([done.stdout, done.stderr, done.return_code])
    done = one.run("stty size | wc -w; echo $TERM", pty=True)
    said.append([done.stdout.split()[:1], done.return_code])
    (HERE / "file").write_text("by fabric\n")
    said.append(one.put(str(HERE / "file"), f"{WORK}/put").remote)
    one.get(f"{WORK}/put", str(HERE / "got"))
    said.append((HERE / "got").read_text())
    with one.cd(WORK):
        said.append(one.run("ls").stdout)
    port = free_port()
    with one.forward_local(port, remote_port=int(os.environ["ECHO_PORT"]), remote_host="127.0.0.1"):
        with reachable(("127.0.0.1", port)) as there:
            there.sendall(b"forwarded")        # Fabric's tunnel ends once either side has said all: nobody does before
            said.append(there.recv(9, socket.MSG_WAITALL).decode())
group = ThreadingGroup.from_connections([connection(HOST), connection(BASTION)])
said.append(sorted(done.stdout for done in group.run("id -un").values()))
group.close()
finish()
