"""Weir's own host keys, by which crews know it in a target's place: made when the target appears, and kept.

One of each type that clients ask for, for each target: who has one target's key is no other one.  The keys are root's,
in ca/TARGET of the state directory; the enforcer is given them, and what crews are shown is public.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from agent.credential.trust import NO_HOSTS, HostTrust, TrustTarget, authority_directory
from agent.ssh.keys import PrivateKey, load_key, render_public, write_key
from agent.ssh.known_hosts import name_of, render_lines

KNOWN, SYSTEM = "known_hosts", "ssh_known_hosts"       # in RUN/trust
_KINDS: Final[dict[str, Callable[[], PrivateKey]]] = {
    "ssh_host_ed25519_key": ed25519.Ed25519PrivateKey.generate,
    "ssh_host_ecdsa_key": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ssh_host_rsa_key": lambda: rsa.generate_private_key(65537, 3072),
}


@dataclass(frozen=True)
class HostKeys:
    private: tuple[str, ...]          # OpenSSH's format
    public: tuple[str, ...]           # type and base64

    def __repr__(self) -> str:
        return f"HostKeys(public={self.public!r}, ...)"


def host_keys(state: Path, target: str) -> HostKeys:
    """The target's; what is missing, or is not root's alone, is made.  Raises OSError, and ValueError for a target's
    name that is no file's."""
    (state / "ca").mkdir(mode=0o755, exist_ok=True)
    directory = authority_directory(state, target)
    keys = [load_key(directory / name) or _make(directory / name) for name in _KINDS]
    # As it is written: rendered again it would be another text each time.
    private = tuple((directory / name).read_text("ascii") for name in _KINDS)
    return HostKeys(private, tuple(render_public(key.public_key()) for key in keys))


def replace_host_keys(state: Path, target: str) -> HostKeys:
    """Others, at once: who was shown the old ones refuses them.  Raises as `host_keys`."""
    directory = authority_directory(state, target)
    for name in _KINDS:
        _make(directory / name)
    return host_keys(state, target)


def prepare_hosts(targets: Iterable[tuple[TrustTarget, int]], state: Path, run: Path) -> HostTrust:
    """For these SSH targets and their ports.  Raises as `host_keys`."""
    lines, keys, files = list[str](), dict[str, tuple[str, ...]](), list[str]()
    for target, port in targets:
        own = host_keys(state, target.name)
        names = (name_of(one.lower(), port) for one in (*target.hosts, *target.addresses))
        lines.append(render_lines(names, own.public))
        keys[target.name] = own.private
        files += target.files
    if not lines:
        return NO_HOSTS
    directory = run / "trust"
    return HostTrust("".join(lines), str(directory / KNOWN), str(directory / SYSTEM), tuple(dict.fromkeys(files)), keys)


def _make(path: Path) -> PrivateKey:
    key = _KINDS[path.name]()
    write_key(path, key)
    return key
