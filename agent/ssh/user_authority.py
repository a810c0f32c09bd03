"""Weir as the user CA of a target (PROTOCOL.certkeys of OpenSSH): sshd trusts one key, and each login gets a fresh
key with a certificate for minutes, for one account.

The authority's key stays with the agent; it is never replaced by itself, for sshd would not know the new one.
"""
from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import SSHCertificateBuilder, SSHCertificateType

from agent.credential.client_authority import AuthorityError, locked
from agent.credential.trust import NEXT, authority_directory, finish_promotion, promote
from agent.ssh.keys import PrivateKey, load_key, render_private, render_public, write_key

STEM: Final = "user-ca"
ENDS: Final = ("key", "key.pub")
LIFE: Final = 300                     # seconds
BEHIND: Final = 300                   # seconds that sshd's clock may be behind
NAME_LIMIT: Final = 256               # characters of an account
ID_LIMIT: Final = 512                 # characters of what sshd logs of a login
# sshd asks these of a certificate; what of it a crew may do, policy says.  No agent, no X11, no rc file.
_EXTENSIONS: Final = (b"permit-port-forwarding", b"permit-pty")


def user_authority(state: Path, target: str) -> PrivateKey:
    """The target's; made where there is none.  Raises AuthorityError, OSError, and ValueError for a target's name that
    is no file's."""
    (state / "ca").mkdir(mode=0o755, exist_ok=True)
    directory = authority_directory(state, target)
    with locked(directory):
        finish_promotion(directory, STEM, ENDS)
        if not (directory / f"{STEM}.key.pub").exists():
            return _make(directory, STEM)
        found = load_key(directory / f"{STEM}.key")
        public = (directory / f"{STEM}.key.pub").read_text()
    if found is None or render_public(found.public_key()) != public.strip():
        raise AuthorityError(f"{directory}/{STEM}.key is not the key of {STEM}.key.pub, or not root's alone (mode "
                             "0600); remove both for a new authority, and give that to sshd")
    return found


def next_user_authority(state: Path, target: str) -> PrivateKey | None:
    """The one that a rotation has prepared.  Raises OSError, ValueError."""
    return _prepared(authority_directory(state, target))


def prepare_user_rotation(state: Path, target: str) -> PrivateKey:
    """The next one, which signs nothing until `finish_user_rotation`: sshd is given it first.  As user_authority."""
    user_authority(state, target)
    directory = authority_directory(state, target)
    with locked(directory):
        return _prepared(directory) or _make(directory, NEXT + STEM)


def finish_user_rotation(state: Path, target: str) -> PrivateKey:
    """From here on the next one signs.  Raises AuthorityError where none was prepared, and as user_authority."""
    user_authority(state, target)
    directory = authority_directory(state, target)
    with locked(directory):
        if _prepared(directory) is None:
            raise AuthorityError(f"no new authority is prepared for {target}: weir ca rotate {target} --clients "
                                 "--prepare first, and give sshd what it prints")
        promote(directory, STEM, ENDS)
    return user_authority(state, target)


def render_trusted(target: str, *authorities: PrivateKey) -> str:
    """Lines of a file for TrustedUserCAKeys of sshd_config(5)."""
    return "".join(f"{render_public(one.public_key())} weir-user-ca-{target}\n" for one in authorities)


def issue_login(authority: PrivateKey, user: str, name: str) -> tuple[str, str, int]:
    """(certificate, key, end in Unix seconds): a fresh key for a login as `user`; `name` is what sshd logs.  Raises
    ValueError for a user that no account is called."""
    if not is_account(user):
        raise ValueError("there is no such account")
    key, now = ed25519.Ed25519PrivateKey.generate(), int(time.time())
    builder = (
        SSHCertificateBuilder().public_key(key.public_key()).serial(secrets.randbits(64))
        .type(SSHCertificateType.USER).key_id(name.encode()).valid_principals([user.encode()])
        .valid_after(now - BEHIND).valid_before(now + LIFE))
    for extension in _EXTENSIONS:
        builder = builder.add_extension(extension, b"")
    return builder.sign(authority).public_bytes().decode(), render_private(key), now + LIFE


def is_account(name: str) -> bool:
    """Whether anything may be signed for it."""
    return 0 < len(name) <= NAME_LIMIT and name.isprintable()


def login_name(who: str) -> str:
    """What sshd logs as the certificate's ID: whose login it was, as far as it is known."""
    said = "".join(one if "!" <= one <= "~" and one not in '"\\' else "?" for one in who)
    return f"weir:{said}"[:ID_LIMIT].rstrip(":")


def _prepared(directory: Path) -> PrivateKey | None:
    """Whole: a crash may have left the key alone."""
    there = (directory / f"{NEXT}{STEM}.{ENDS[1]}").exists()
    return load_key(directory / f"{NEXT}{STEM}.key") if there else None


def _make(directory: Path, stem: str) -> PrivateKey:
    key = ed25519.Ed25519PrivateKey.generate()
    write_key(directory / f"{stem}.key", key)
    return key
