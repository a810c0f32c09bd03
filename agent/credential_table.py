"""Pure: [[target.credential]]: the table of its fields, and what must hold between them."""
from __future__ import annotations

from typing import Final

import msgspec

from agent import fields as kinds
from agent.fields import Field, Report, Section
from agent.positions import Path as Place


class CredentialRow(msgspec.Struct, frozen=True):
    """Where a credential comes from, never the secret itself."""

    database: str                     # "*": every one
    role: str
    group: str
    user: str
    password_file: str | None
    certificate_file: str | None
    key_file: str | None
    password_credential: str | None = None      # names in the unit's $CREDENTIALS_DIRECTORY
    certificate_credential: str | None = None
    key_credential: str | None = None

    @property
    def certificate(self) -> bool:
        return bool(self.certificate_file or self.certificate_credential)

    @property
    def key(self) -> bool:
        return bool(self.key_file or self.key_credential)

    @property
    def password(self) -> bool:
        return bool(self.password_file or self.password_credential)


PARTS: Final = ("password", "certificate", "key")

CREDENTIAL: Final = Section("credential", CredentialRow, True, "A real credential at this target.  The most specific "
    "row that fits is used: a named database counts more than a named role, that more than a named group.", (
    Field("database", kinds.SELECTOR, "Database that it is for.", "*"),
    Field("role", kinds.SELECTOR, "User name that the crew asks for.", "*"),
    Field("group", kinds.SELECTOR, "Group of the principal.", "*"),
    Field("user", kinds.TEXT, "User name at the target.", example="crew_svc"),
    Field("password_file", kinds.PATH, "File that holds the password and nothing else; root's, mode 0600.", None,
          "/etc/weir/credentials/orders"),
    Field("certificate_file", kinds.PATH, "Client certificate, PEM; root's, mode 0600.", None,
          "/etc/weir/credentials/orders.pem"),
    Field("key_file", kinds.PATH, "Its key, PEM; root's, mode 0600.", None,
          "/etc/weir/credentials/orders.key"),
    Field("password_credential", kinds.UNIT_CREDENTIAL, "In place of password_file: a credential of the agent's unit "
          "(`LoadCredential=`, `LoadCredentialEncrypted=`).", None, "orders", instead=True),
    Field("certificate_credential", kinds.UNIT_CREDENTIAL, "In place of certificate_file.", None, "orders.pem",
          instead=True),
    Field("key_credential", kinds.UNIT_CREDENTIAL, "In place of key_file.", None, "orders.key", instead=True),
), attribute="credentials")


def check_row(row: CredentialRow, peer: bool, path: Place, report: Report) -> None:
    """`peer`: the server may take Weir by its uid."""
    for part in PARTS:
        if getattr(row, f"{part}_file") and getattr(row, f"{part}_credential"):
            report.add((*path, f"{part}_credential"), f"stands beside {part}_file: leave one of them out")
    if row.certificate != row.key:
        report.add(path, "names only one of certificate_file and key_file; both would be right")
    if not row.password and not row.certificate and not peer:
        report.add(path, "has neither password_file nor certificate_file with key_file")
