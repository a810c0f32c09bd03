"""`python -I -m agent.init.home [KUBECONFIG ...]`: what the client files of its own user say, as JSON on stdout.

The crew wrote these files, and they may be anything: they are read and parsed by a process that has become that user
(agent.processes), so that nobody reads through root what they could not read themselves.  Secrets go through the pipe
to the process that asked, and nowhere else.
"""
from __future__ import annotations

import os
import pwd
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from agent.init.clients import (
    Host,
    certificates,
    cluster_peer,
    parse_known_hosts,
    parse_ssh_config,
    ssh_peer,
)
from agent.init.findings import KEY, Peer, Secret
from agent.kubernetes.kubeconfig import Unread, servers
from agent.ssh.keys import KeyWrong, parse_private

FILE_LIMIT: Final = 1 << 20           # bytes of one file
_KEYS: Final = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")


class Said(msgspec.Struct, frozen=True):
    """`known_hosts`: for hosts that were found otherwise."""

    peers: tuple[Peer, ...] = ()
    known_hosts: str = ""
    notes: tuple[str, ...] = ()


def read_home(home: str, user: str, kubeconfigs: Sequence[str]) -> Said:
    """Effects: files are read, as whoever runs this."""
    known = _text(f"{home}/.ssh/known_hosts", [])
    notes: list[str] = []
    hosts = parse_ssh_config(_text(f"{home}/.ssh/config", notes))
    peers = [ssh_peer(one, known, tuple(_key(one, home, user)), f"~/.ssh/config of {user}") for one in hosts]
    said = {(peer.hosts[0], peer.port) for peer in peers}
    for host, port in parse_known_hosts(known):
        if (host, port) not in said:
            alone = Host(host, host, port, "", ())
            peers.append(msgspec.structs.replace(
                ssh_peer(alone, known, tuple(_key(alone, home, user)), f"~/.ssh/known_hosts of {user}"), sure=False))
    for path in dict.fromkeys((f"{home}/.kube/config", *kubeconfigs)):
        peers += _clusters(path, home, user, notes)
    return Said(tuple(peers), known, tuple(notes))


def _clusters(path: str, home: str, user: str, notes: list[str]) -> Iterator[Peer]:
    shown = f"~{path[len(home):]}" if path.startswith(f"{home}/") else path
    if not (text := _text(path, notes)):
        return
    try:
        found = servers(text.encode())
    except Unread as reason:
        notes.append(f"{shown} of {user} is not read: {reason}")
        return
    for one in found:
        roots = certificates(_text(os.path.join(os.path.dirname(path), one.authorities_file), notes)
                             if one.authorities_file else "")
        if (peer := cluster_peer(one, roots, f"{shown} of {user}")) is not None:
            yield peer


def _key(host: Host, home: str, user: str) -> Iterator[Secret]:
    """The first private key that its client would use and that has no passphrase."""
    for named in host.key_files or _KEYS:
        path = home + named[1:] if named.startswith("~/") else named
        text = _text(path, [])
        try:
            if text and parse_private(text.encode()) is not None:
                yield Secret(KEY, text, f"{named} of {user}")
                return
        except KeyWrong:
            continue


def _text(path: str, notes: list[str]) -> str:
    """Of a regular file; empty where it is not there, is none, or is too long."""
    try:
        # A FIFO would keep us waiting for who writes it.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as reason:
        if not isinstance(reason, FileNotFoundError | NotADirectoryError):
            notes.append(f"{path} is not read: {getattr(reason, 'strerror', None) or 'no such path'}")
        return ""
    with open(fd, "rb") as file:
        content = file.read(FILE_LIMIT + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    if len(content) > FILE_LIMIT:
        notes.append(f"{path} is not read: it has more than {FILE_LIMIT} bytes")
        return ""
    return content.decode(errors="replace")


def main(arguments: Sequence[str]) -> int:
    account = pwd.getpwuid(os.getuid())
    said = read_home(account.pw_dir.rstrip("/"), account.pw_name, arguments)
    sys.stdout.buffer.write(msgspec.json.encode(said))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
