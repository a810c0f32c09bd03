"""Pure: [[vault]]: the table of its fields, and what must hold between them."""
from __future__ import annotations

from typing import Final

import msgspec

from agent.contract.vault import APPROLE, CERT, JWT, KUBERNETES, METHODS, TOKEN, VAULTS, Method
from agent.settings import fields as kinds
from agent.settings.fields import Field, Report, Section
from agent.settings.positions import Path as Place


class VaultEntry(msgspec.Struct, frozen=True):
    """A server that credentials come from; `agent.contract.vault.Server` is what its process is told of it."""

    name: str
    address: str
    ca: str | None
    namespace: str | None
    auth: Method
    mount: str | None                 # None: the method's name
    role: str | None
    role_id: str | None
    secret_id_file: str | None
    jwt_file: str | None
    token_file: str | None
    certificate_file: str | None
    key_file: str | None

    @property
    def secret_file(self) -> tuple[str, str] | None:
        """Name and value of the field, of the method's one secret; None: it is a certificate."""
        names = ("secret_id_file", "jwt_file", "token_file")
        return next(((name, file) for name in names if (file := getattr(self, name))), None)


# By method: what it needs, and what it may have besides.
_FIELDS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    APPROLE: (("role_id", "secret_id_file"), ("mount",)),
    JWT: (("jwt_file",), ("role", "mount")),
    KUBERNETES: (("role", "jwt_file"), ("mount",)),
    TOKEN: (("token_file",), ()),
    CERT: (("certificate_file", "key_file"), ("role", "mount")),
}
_OF_METHODS: Final = tuple(dict.fromkeys(name for parts in _FIELDS.values() for part in parts for name in part))

VAULT: Final = Section("vault", VaultEntry, True, "A server that speaks Vault's API (OpenBao, HashiCorp Vault): "
    "[[target.credential]] rows name it.", (
    Field("name", kinds.NAME, "For `vault` of a [[target.credential]].", example="safe"),
    Field("address", kinds.ISSUER, "Where it is; that of the active server, where standbys do not forward.",
          example="https://vault.lab.example:8200"),
    Field("ca", kinds.PATH, "Roots for its certificate, PEM.  Default: the system's.", None, "/etc/weir/vault-ca.pem"),
    Field("namespace", kinds.VAULT_PATH, "Its namespace, where it has them.", None, "teams/data"),
    Field("auth", kinds.choice(*METHODS), "How Weir says there who it is: `approle` (`role_id`, `secret_id_file`), "
          "`jwt` or `kubernetes` (`role`, `jwt_file`), `token` (`token_file`), `cert` (`certificate_file`, "
          "`key_file`).", APPROLE),
    Field("mount", kinds.VAULT_PATH, "Where that method is mounted.  Default: its name.", None, "crews"),
    Field("role_id", kinds.TEXT, "`approle`: the role's ID.", None, "59d6d1ca-47bb-4e7e-a40b-8be3bc5a0ba8"),
    Field("secret_id_file", kinds.PATH, "`approle`: file that holds a secret ID; root's, mode 0600.", None,
          "/etc/weir/credentials/vault"),
    Field("role", kinds.TEXT, "`jwt`, `kubernetes`, `cert`: the role there.", None, "weir", instead=True),
    Field("jwt_file", kinds.PATH, "`jwt`, `kubernetes`: file that holds a JWT; root's, mode 0600; read again at each "
          "login there.", None, "/run/spire/weir.jwt", instead=True),
    Field("token_file", kinds.PATH, "`token`: file that holds a token; root's, mode 0600; a new one counts at once.",
          None, "/etc/weir/credentials/vault-token", instead=True),
    Field("certificate_file", kinds.PATH, "`cert`: client certificate, PEM; root's, mode 0600.", None,
          "/etc/weir/credentials/vault.pem", instead=True),
    Field("key_file", kinds.PATH, "`cert`: its key, PEM; root's, mode 0600.", None,
          "/etc/weir/credentials/vault.key", instead=True),
), attribute="vaults")


def check_vaults(report: Report) -> None:
    entries = report.entries("vault")
    for path, entry in entries:
        _check_method(entry, path, report)
    _check_named({entry.name for _, entry in entries}, report)


def _check_method(entry: VaultEntry, path: Place, report: Report) -> None:
    needed, allowed = _FIELDS[entry.auth]
    for name in needed:
        if getattr(entry, name) is None:
            report.add(path, f'{name} is missing: auth = "{entry.auth}" needs it')
    for name in _OF_METHODS:
        if getattr(entry, name) is not None and name not in (*needed, *allowed):
            report.add((*path, name), f'is not for auth = "{entry.auth}", which has {", ".join((*needed, *allowed))}: '
                       "leave it out, or change `auth`")


def _check_named(names: set[str], report: Report) -> None:
    """Rows name one that is there.  Of one with a mistake nobody knows the name."""
    for path, row in report.entries("target", "credential"):
        if row.vault and row.vault not in names and not report.wrong("vault"):
            report.add((*path, "vault"), f"there is no [[vault]] {row.vault!r}; there is: "
                       f"{', '.join(sorted(names)) or 'none'}")


__all__ = ["VAULT", "VAULTS", "VaultEntry", "check_vaults"]
