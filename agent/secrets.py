"""Which credential a login at a target gets, and reading it: at use, never kept, never named in an error."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from agent.check import wrong_secret
from agent.config import CredentialRow, TargetEntry
from agent.contract.credential import Credential

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


def find_credential(target: TargetEntry, database: str, role: str, groups: tuple[str, ...]) -> Credential:
    """Raises SecretError."""
    row = choose(target.credentials, database, role, groups)
    if row is None:
        raise SecretError(f"no credential of target {target.name} is for database {database!r}, role {role!r} and "
                          "these groups")
    password = _read(row.password_file, PASSWORD_LIMIT, "password_file").rstrip("\r\n") if row.password_file else ""
    if row.password_file and (not password or "\0" in password):
        raise SecretError(f"password_file of a credential of target {target.name} holds no password")
    return Credential(
        user=row.user, password=password,
        certificate=_read(row.certificate_file, PEM_LIMIT, "certificate_file") if row.certificate_file else "",
        key=_read(row.key_file, PEM_LIMIT, "key_file") if row.key_file else "")


def _read(file: str, limit: int, field: str) -> str:
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with open(fd, "rb") as opened:
            wrong = wrong_secret(os.fstat(fd))
            if wrong:
                raise SecretError(f"{field} {Path(file)}: {wrong}")
            content = opened.read(limit + 1)
    except OSError as reason:
        raise SecretError(f"{field} {file}: {reason.strerror}") from None
    if len(content) > limit:
        raise SecretError(f"{field} {file} has more than {limit} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise SecretError(f"{field} {file} is not UTF-8") from None
