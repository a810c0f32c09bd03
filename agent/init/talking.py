"""Effects: whom a crew talks to, from its connections (sock_diag(7)), its environment and the files of its user."""
from __future__ import annotations

import os
import pwd
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Final

import msgspec

from agent import procfs
from agent.block.attribution import Held
from agent.block.sockdiag import tcp_sockets
from agent.contract.said import safe
from agent.credential.trust import SYSTEM_BUNDLE, expand_home
from agent.init.clients import certificates, checked, keys_of
from agent.init.files import read_file
from agent.init.findings import OTHER, PORTS, Findings, Peer
from agent.init.home import FILE_LIMIT, Said
from agent.init.recorded import asked
from agent.init.strings import LIBPQ, VARIABLES, is_usual, parse_environment, parse_libpq
from agent.processes import python_module, unprivileged
from agent.settings.credential_table import SSH

PROCESSES: Final = 400                # of one crew that are looked at
PEERS: Final = 500                    # of one crew: each is compared with each
SSH_HOSTS: Final = 20                 # of connections, that are looked for in known_hosts: that takes a while for each
_NAMES: Final = 3.0                   # seconds for looking up all names
_LISTEN: Final = 10                   # include/net/tcp_states.h
_DNS: Final = 53


def peers_of(
    name: str, pids: Sequence[int], environment: Mapping[str, str], account: pwd.struct_passwd | None,
    sockets: Sequence[Held], notes: list[str],
) -> tuple[Peer, ...]:
    variables = dict(environment)     # what root has written comes first
    databases: list[Mapping[str, str]] = []
    for pid in pids[:PROCESSES]:
        if len(variables) > VARIABLES:
            break
        whole = {**(own := _environment_of(pid)), **environment}
        variables |= {name: value for name, value in own.items() if name not in environment}
        if own.get("PGHOST", "") == whole.get("PGHOST", ""):
            databases.append(whole)   # Debian's psql says a host of its own: it is not where another's password goes
    home = home_of(account)
    said = [*parse_environment({name: value for name, value in variables.items() if name not in LIBPQ}, safe(name)),
            *(parse_libpq(one, safe(name)) for one in databases or [environment])]
    peers = [_with_roots(one, home, account) for one in said if one is not None]
    peers += _connected(name, pids, sockets)
    if account is not None and account.pw_uid != 0:
        peers += _of_home(account, peers, variables.get("KUBECONFIG", ""), notes)
    peers = list(dict.fromkeys(peers))
    if len(peers) > PEERS:
        notes.append(f"{safe(name)}: it is known to talk to {len(peers)} places; {PEERS} of them are looked at")
    return tuple(peers[:PEERS])


def _with_roots(peer: Peer, home: str, account: pwd.struct_passwd | None) -> Peer:
    """And the certificates of the root file that its client names, where it is root's or the user's own.  The system's
    is what counts without one."""
    if not peer.root_file or (peer.root_file.startswith("~") and not home):
        return peer
    if os.path.realpath(peer.root_file) == SYSTEM_BUNDLE:
        return msgspec.structs.replace(peer, root_file="")
    owners = {0, *([account.pw_uid] if account else [])}
    with suppress(OSError, ValueError):
        content = read_file(expand_home(peer.root_file, home), owners)
        return msgspec.structs.replace(peer, authorities=certificates(content.decode(errors="replace")))
    return peer


def _environment_of(pid: int) -> dict[str, str]:
    """What it was started with."""
    with suppress(OSError):
        pairs = (word.partition("=") for word in os.fsdecode(procfs.read_bytes(pid, "environ")).split("\0"))
        return {name: value for name, equals, value in pairs if equals}
    return {}


def open_sockets(notes: list[str]) -> list[Held]:
    try:
        return tcp_sockets(0, listening=True)
    except OSError as reason:
        notes.append(f"open connections are not looked at: {reason.strerror}")
        return []


def _connected(name: str, pids: Sequence[int], sockets: Sequence[Held]) -> Iterator[Peer]:
    """Where its sockets lead to; not to servers of its own."""
    inodes = {inode for pid in pids[:PROCESSES] for inode in _inodes(pid)}
    served = {one.local_port for one in sockets if one.state == _LISTEN and one.inode in inodes}
    accepted = {(one.remote, one.remote_port) for one in sockets if one.state != _LISTEN and one.local_port in served}
    places: dict[tuple[str, int], int] = {}
    for one in sockets:
        if one.state == _LISTEN or one.inode not in inodes or one.local_port in served or one.remote_port == _DNS:
            continue
        if (one.remote, one.remote_port) in accepted or (_is_loopback(one) and one.remote_port in served):
            continue
        where = _address(one.remote), one.remote_port
        places[where] = places.get(where, 0) + 1
    for (address, port), count in places.items():
        how = f"{count} open connection{'s' if count > 1 else ''} of {safe(name)}"
        protocol = PORTS.get(port, OTHER)
        yield Peer(protocol, (address,), port, (how,), addresses=(address,),
                   sure=protocol != OTHER or is_usual(address, port))


def _inodes(pid: int) -> Iterator[int]:
    """Of the sockets that it holds."""
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError, ValueError):
                leads = os.readlink(f"/proc/{pid}/fd/{fd}")
                if leads.startswith("socket:["):
                    yield int(leads[8:-1])


def _address(packed: bytes) -> str:
    found = ip_address(packed)
    return str(getattr(found, "ipv4_mapped", None) or found)


def _is_loopback(one: Held) -> bool:
    return ip_address(_address(one.remote)).is_loopback


def _of_home(
    account: pwd.struct_passwd, peers: Iterable[Peer], kubeconfig: str, notes: list[str],
) -> Iterator[Peer]:
    """What files of the user say; and host keys for SSH hosts that were found otherwise."""
    paths = [path for path in kubeconfig.split(":") if path.startswith("/")][:8]
    command = unprivileged([*python_module("agent.init.home"), *paths], account.pw_name, role="look")
    said = asked(command, Said, f"files of {account.pw_name} are", notes) if os.geteuid() == 0 else None
    if said is None:
        return
    notes += [safe(note)[:300] for note in said.notes[:20]]
    yield from filter(None, map(checked, said.peers[:1000]))
    known = said.known_hosts[:FILE_LIMIT]
    for peer in [one for one in peers if one.protocol == SSH][:SSH_HOSTS]:
        if keys := keys_of(known, peer.hosts, peer.port):
            yield msgspec.structs.replace(peer, keys=keys, why=(f"~/.ssh/known_hosts of {account.pw_name}",))


def home_of(account: pwd.struct_passwd | None) -> str:
    """Empty: there is none of its own."""
    if account is None or account.pw_uid == 0:
        return ""
    home = account.pw_dir.rstrip("/")
    return home if home.count("/") > 1 and os.path.isdir(home) else ""


# names


def resolved(found: Findings) -> Findings:
    """With the addresses that names lead to, as far as they are had in a few seconds."""
    every = [*(peer for crew in found.crews for peer in crew.peers), *found.recorded]
    known = _look_up({host for peer in every for host in peer.hosts if not peer.addresses})

    def with_addresses(peer: Peer) -> Peer:
        more = dict.fromkeys((*peer.addresses, *(one for host in peer.hosts for one in known.get(host, ()))))
        return msgspec.structs.replace(peer, addresses=tuple(more))

    crews = (msgspec.structs.replace(one, peers=tuple(map(with_addresses, one.peers))) for one in found.crews)
    return msgspec.structs.replace(
        found, crews=tuple(crews), recorded=tuple(map(with_addresses, found.recorded)))


def _look_up(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """A thread each, for getaddrinfo(3) has no timeout: who takes longer is not waited for."""
    found: dict[str, tuple[str, ...]] = {}

    def ask(name: str) -> None:
        with suppress(OSError, UnicodeError):
            infos = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            found[name] = tuple(dict.fromkeys(str(info[4][0]) for info in infos))

    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in sorted(names)[:100]]
    for one in threads:
        one.start()
    ends = time.monotonic() + _NAMES
    for one in threads:
        one.join(max(0.0, ends - time.monotonic()))
    return dict(found)
