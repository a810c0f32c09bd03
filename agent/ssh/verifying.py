"""Pure: by which keys an SSH target is verified: lines of a known_hosts file, for its names alone."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from agent.ssh.keys import KeyWrong, parse_public
from agent.ssh.known_hosts import AUTHORITY, REVOKED, Line, is_for, name_of, parse_line, render_line

LIMIT: Final = 1 << 16                # characters for one target: they travel to the enforcer


class Verified(Protocol):
    """A [[target]] of SSH."""

    @property
    def hosts(self) -> tuple[str, ...]: ...
    @property
    def port(self) -> int: ...
    @property
    def host_keys(self) -> tuple[str, ...]: ...
    @property
    def host_ca(self) -> tuple[str, ...]: ...
    @property
    def known_hosts(self) -> str | None: ...


def verifying_lines(target: Verified, text: str) -> str:
    """`text`: of its known_hosts file, empty where it has none.  Each line is for all of the target's names: it is one
    host.  Raises ValueError: the file has no key of it, or one that is none."""
    names = [name_of(host, target.port) for host in target.hosts]
    hosts = ",".join(names)
    found = [Line("", hosts, key) for key in target.host_keys]
    found += [Line(AUTHORITY, hosts, key) for key in target.host_ca]
    of_file = list(_of(text, names, hosts))
    if target.known_hosts and not any(line.marker != REVOKED for line in of_file):
        raise ValueError(f"has no line for {names[0]}: ssh-keyscan{_port(target.port)} {target.hosts[0]} prints some, "
                         "and ssh-keygen -lf there, on the host itself, says whether they are its own")
    rendered = "".join(f"{line}\n" for line in dict.fromkeys(map(render_line, (*found, *of_file))))
    if len(rendered) > LIMIT:
        raise ValueError(f"has more than {LIMIT} characters of keys for {names[0]}")
    return rendered


def _of(text: str, names: Iterable[str], hosts: str) -> Iterator[Line]:
    for number, written in enumerate(text.splitlines(), 1):
        line = parse_line(written)
        if line is None or not any(is_for(line, name) for name in names):
            continue
        try:
            yield Line(line.marker, hosts, parse_public(line.key))
        except KeyWrong as wrong:
            # What is revoked must not be left out for being of a type that nobody uses.
            if line.marker == REVOKED or not _foreign(line.key):
                raise ValueError(f"line {number}: {wrong}") from None


def _foreign(key: str) -> bool:
    """Of a type that Weir does not ask for, as ssh-dss."""
    return key.split()[0] in ("ssh-dss", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com")


def _port(port: int) -> str:
    return f" -p {port}" if port != 22 else ""
