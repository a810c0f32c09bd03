"""Which credential a login at a target gets, and reading it: at use, never kept, never named in an error."""
from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from agent.contract.credential import Credential
from agent.credential.unit_credentials import open_credential
from agent.kubernetes.login import TOKEN_LIMIT
from agent.settings.credential_check import wrong_secret
from agent.settings.credential_table import CredentialRow
from agent.settings.target_table import TargetEntry

PASSWORD_LIMIT: Final = 4096          # bytes; libpq takes no longer ones (fe-auth.c, SCRAM and md5 take any)
PEM_LIMIT: Final = 1 << 18            # bytes
ANY: Final = "*"


class SecretError(Exception):
    """Why there is no credential.  Holds no secret."""


def choose(rows: tuple[CredentialRow, ...], database: str, role: str, groups: tuple[str, ...]) -> CredentialRow | None:
    """Pure: the most specific row that fits: database before role before group; among equals the first."""
    def fits(row: CredentialRow) -> bool:
        return (row.database in (ANY, database) and row.role in (ANY, role)
                and (row.group == ANY or row.group in groups))

    def weight(row: CredentialRow) -> tuple[bool, bool, bool]:
        return row.database != ANY, row.role != ANY, row.group != ANY

    return max(filter(fits, rows), key=weight, default=None)


def choose_row(target: TargetEntry, database: str, role: str, groups: tuple[str, ...]) -> CredentialRow:
    """Raises SecretError where none fits."""
    row = choose(target.credentials, database, role, groups)
    if row is None:
        raise SecretError(f"no credential of target {target.name} is for database {database!r}, role {role!r} and "
                          "these groups")
    return row


def read_row(row: CredentialRow) -> Credential:
    """What lies in files and in the unit's credentials, as it is now.  Raises SecretError."""
    password = _part(row, "password", PASSWORD_LIMIT).rstrip("\r\n")
    if row.has("password") and (not password or "\0" in password):
        field = "password_file" if row.password_file else "password_credential"
        raise SecretError(f"{field} holds no password")
    return Credential(
        user=row.user or "", password=password, certificate=_part(row, "certificate", PEM_LIMIT),
        key=_part(row, "key", PEM_LIMIT), token=_part(row, "token", TOKEN_LIMIT), agent=row.agent or "")


def _part(row: CredentialRow, part: str, limit: int) -> str:
    if file := getattr(row, f"{part}_file"):
        return _text(lambda: _open(file), limit, f"{part}_file {file}")
    if name := getattr(row, f"{part}_credential"):
        return _text(lambda: open_credential(name), limit, f"{part}_credential {name}")
    return ""


def _open(file: str) -> int:
    return os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)


def read_secret(file: str, limit: int, field: str) -> bytes:
    """What a file that nobody but root can read holds.  Raises SecretError."""
    return _read(lambda: _open(file), limit, f"{field} {file}")


def _read(opening: Callable[[], int], limit: int, what: str) -> bytes:
    try:
        with open(opening(), "rb") as opened:
            wrong = wrong_secret(os.fstat(opened.fileno()))
            if wrong:
                raise SecretError(f"{what}: {wrong}")
            content = opened.read(limit + 1)
    except OSError as reason:
        raise SecretError(f"{what}: {reason.strerror}") from None
    if len(content) > limit:
        raise SecretError(f"{what} has more than {limit} bytes")
    return content


def _text(opening: Callable[[], int], limit: int, what: str) -> str:
    try:
        return _read(opening, limit, what).decode()
    except UnicodeDecodeError:
        raise SecretError(f"{what} is not UTF-8") from None
