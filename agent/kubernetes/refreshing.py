"""ID tokens of a cluster whose API server takes those of an OpenID Connect provider: had for a refresh token.

The provider is spoken with by a process of its own (enforcer/credentials/refresh.py); here the files are read, and the
refresh token that came in place of the old one is written before the ID token is used: a provider takes the old one
once.
"""
from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

import msgspec

from agent.contract.credential import Credential
from agent.contract.refresh import TOKEN, Asked, parse_given
from agent.credential.helper import Helper
from agent.credential.kept import Fetched, keep_until
from agent.credential.secrets import SecretError, read_secret
from agent.credential.trust import write_file
from agent.kubernetes.login import TokenWrong, checked
from agent.processes import python_module
from agent.settings.credential_table import CredentialRow

MODULE: Final = "enforcer.credentials.refresh"
SECONDS: Final = 30.0                 # for it all
SECRET: Final = 4096                  # bytes
ROOTS: Final = 1 << 20                # bytes


async def refreshed(helper: Helper, user: str, row: CredentialRow) -> Fetched:
    """`user`: who the process runs as.  Raises SecretError."""
    asked = await asyncio.to_thread(_asked, row)
    try:
        output = await helper.run(
            python_module(MODULE), user, SECONDS, given=msgspec.json.encode(asked), role="refresh")
        given = parse_given(output)
    except (SecretError, OSError, msgspec.MsgspecError) as reason:
        raise SecretError("no ID token: the process that asks for one "
                          + (str(reason) if isinstance(reason, SecretError) else "could not do it")) from None
    if given.error:
        raise SecretError("no ID token: " + "".join(one if one.isprintable() else "?" for one in given.error))
    if given.refresh_token and given.refresh_token != asked.refresh_token:
        await asyncio.to_thread(_write, row.refresh_token_file or "", given.refresh_token)
    try:
        found = checked(Credential(row.user or "", token=given.id_token), time.time())
    except TokenWrong as reason:
        raise SecretError(f"no ID token: {reason}") from None
    return Fetched(found, keep_until(found.expires) if found.expires else 0.0)


def _asked(row: CredentialRow) -> Asked:
    """Raises SecretError."""
    try:
        token = _text(row.refresh_token_file, TOKEN, "refresh_token_file")
        secret = _text(row.client_secret_file, SECRET, "client_secret_file")
        ca = Path(row.issuer_ca).read_bytes()[:ROOTS].decode("ascii") if row.issuer_ca else ""
    except UnicodeDecodeError:
        raise SecretError("refresh_token_file, client_secret_file or issuer_ca holds something else") from None
    except OSError as reason:
        raise SecretError(f"issuer_ca {row.issuer_ca}: {reason.strerror}") from None
    return Asked(row.issuer or "", ca, row.client_id or "", secret, token)


def _text(file: str | None, limit: int, field: str) -> str:
    """Raises SecretError, UnicodeDecodeError."""
    return read_secret(file, limit, field).decode("ascii").strip("\r\n") if file else ""


def _write(file: str, token: str) -> None:
    """Raises SecretError: the next login would have none."""
    try:
        write_file(Path(file), token.encode() + b"\n", 0o600)
    except OSError as reason:
        raise SecretError(f"refresh_token_file {file} cannot be written ({reason.strerror}), and the token in it has "
                          "ended with this answer") from None
