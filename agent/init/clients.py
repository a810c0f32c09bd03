"""Pure: what the client files of a crew's user say of whom it talks to.

The crew wrote them: what is no host, port, key or certificate is left out.  What is read here is read by a process of
that user (agent/init/home.py), and checked once more where it arrives.

Sources: ssh_config(5); sshd(8), SSH_KNOWN_HOSTS FILE FORMAT.
"""
from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from agent.contract.credential import Credential
from agent.contract.said import safe
from agent.init.findings import CERTIFICATE, KEY, TOKEN, Peer, Secret
from agent.init.strings import host_of, printable
from agent.kubernetes.kubeconfig import Server
from agent.kubernetes.login import TokenWrong
from agent.kubernetes.login import checked as checked_login
from agent.settings.credential_table import KUBERNETES, SSH
from agent.ssh.keys import KeyWrong, parse_private, parse_public
from agent.ssh.known_hosts import PORT, is_for, name_of, parse_line

MOST: Final = 200                     # hosts of one file
KEYS: Final = 16                      # of one host
SECRET_LIMIT: Final = 1 << 16        # characters of a key or token
_BRACKETED: Final = re.compile(r"\[([^\]]+)\]:(\d{1,5})")
_WORDS: Final = re.compile(r'"([^"]*)"|(\S+)')


class Host(msgspec.Struct, frozen=True):
    """A block of ssh_config for one host."""

    alias: str
    host: str
    port: int
    user: str
    key_files: tuple[str, ...]


def parse_ssh_config(text: str) -> tuple[Host, ...]:
    """Blocks that name a host; patterns, Match and Include are not followed."""
    found: list[Host] = []
    aliases: list[str] = []
    said: dict[str, list[str]] = {}
    for line in [*text.splitlines(), "Host"]:
        word, values = _line(line)
        if word not in ("host", "match"):
            said.setdefault(word, []).extend(values[:1])
            continue
        found += (one for alias in aliases if (one := _host(alias, said)) is not None)
        aliases = [value for value in values if not set(value) & set("*?!")] if word == "host" else []
        said = {}
    return tuple(dict.fromkeys(found))[:MOST]


def _line(line: str) -> tuple[str, list[str]]:
    """The keyword in lower case and its arguments; empty: a comment."""
    line = line.strip()
    if not line or line.startswith("#"):
        return "", []
    word, _, rest = re.sub(r"[\s=]+", " ", line, count=1).partition(" ")
    return word.lower(), [quoted or plain for quoted, plain in _WORDS.findall(rest)]


def _host(alias: str, said: dict[str, list[str]]) -> Host | None:
    host = host_of((said.get("hostname") or [alias])[0].replace("%h", alias))
    port = (said.get("port") or [str(PORT)])[0]
    if not host or not port.isdecimal() or not 0 < int(port[:6]) < 1 << 16:
        return None
    files = tuple(one for one in said.get("identityfile", []) if printable(one))
    return Host(alias, host, int(port), printable((said.get("user") or [""])[0]), files)


def parse_known_hosts(text: str) -> tuple[tuple[str, int], ...]:
    """Hosts that lines name in plain words."""
    found: dict[tuple[str, int], None] = {}
    for line in filter(None, map(parse_line, text.splitlines())):
        for pattern in line.hosts.split(","):
            bracketed = _BRACKETED.fullmatch(pattern)
            host, port = (bracketed[1], int(bracketed[2])) if bracketed else (pattern, PORT)
            if not line.marker and 0 < port < 1 << 16 and (right := host_of(host)):
                found[right, port] = None
    return tuple(found)[:MOST]


def keys_of(text: str, hosts: Sequence[str], port: int) -> tuple[str, ...]:
    """What a known_hosts file has for one of these."""
    names = [name_of(host, port) for host in hosts]
    return tuple(dict.fromkeys(_keys(text, names)))[:KEYS]


def _keys(text: str, names: Sequence[str]) -> Iterator[str]:
    for line in filter(None, map(parse_line, text.splitlines())):
        if line.marker or not any(is_for(line, name) for name in names):
            continue
        try:
            yield " ".join(parse_public(line.key).split()[:2])
        except KeyWrong:
            continue


def ssh_peer(host: Host, known: str, secrets: tuple[Secret, ...], where: str) -> Peer:
    """`known`: text of known_hosts.  Weir is told the host's own name; an alias is the client's."""
    names = tuple(dict.fromkeys((host.host, *([host_of(host.alias)] if host_of(host.alias) else []))))
    return Peer(SSH, (host.host,), host.port, (where,), user=host.user, keys=keys_of(known, names, host.port),
                secrets=secrets)


def cluster_peer(server: Server, authorities: str, where: str) -> Peer | None:
    """`authorities`: PEM, of the file where the kubeconfig names one."""
    host = host_of(server.host)
    if not host:
        return None
    secrets: tuple[Secret, ...] = ()
    if server.token:
        secrets = (Secret(TOKEN, server.token, f"the token of {where}"),)
    elif server.certificate and server.key:
        secrets = (Secret(CERTIFICATE, server.certificate, f"the client certificate of {where}"),
                   Secret(KEY, server.key, f"the client key of {where}"))
    return Peer(KUBERNETES, (host,), server.port, (where,), database=printable(server.namespace),
                authorities=certificates(server.authorities or authorities), secrets=secrets)


_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]{16,65536}?-----END CERTIFICATE-----")


def certificates(text: str) -> str:
    """PEM of the certificates in it, and nothing else."""
    return "".join(f"{one}\n" for one in _PEM.findall(text))


def checked(peer: Peer) -> Peer | None:
    """What came from a process of the crew's user, looked at anew.  None: it is none."""
    hosts = tuple(filter(None, map(host_of, peer.hosts)))
    secrets = tuple(Secret(one.kind, one.value, _plain(one.place)) for one in peer.secrets[:2]
                    if one.kind in (TOKEN, KEY, CERTIFICATE) and 0 < len(one.value) <= SECRET_LIMIT)
    if not hosts or peer.protocol not in (SSH, KUBERNETES) or not 0 < peer.port < 1 << 16:
        return None
    return Peer(
        peer.protocol, hosts[:1], peer.port, tuple(map(_plain, peer.why[:1])), user=printable(peer.user),
        database=printable(peer.database), keys=tuple(one for one in peer.keys[:KEYS] if _is_key(one)),
        authorities=certificates(peer.authorities[:SECRET_LIMIT]), sure=peer.sure,
        secrets=secrets if _opens(peer.protocol, secrets) else ())


def _opens(protocol: str, secrets: Sequence[Secret]) -> bool:
    """Whether it could be a credential there, as `weir check` would want it."""
    said = {one.kind: one.value for one in secrets}
    try:
        if protocol == SSH:
            parse_private(said.get(KEY, "").encode())
        else:
            checked_login(Credential("", token=said.get(TOKEN, ""), certificate=said.get(CERTIFICATE, ""),
                                     key=said.get(KEY, "")), 0)
    except (KeyWrong, TokenWrong):
        return False
    return True


def _plain(text: str) -> str:
    return safe(text[:200])


def _is_key(text: str) -> bool:
    try:
        return parse_public(text) == text
    except KeyWrong:
        return False
