"""Pure: [[target.credential]]: the table of its fields, and what must hold between them."""
from __future__ import annotations

from typing import Final

import msgspec

from agent.settings import fields as kinds
from agent.settings.fields import Field, Report, Section
from agent.settings.positions import Path as Place


class CredentialRow(msgspec.Struct, frozen=True):
    """Where a credential comes from, never the secret itself."""

    database: str = "*"               # every one
    role: str = "*"
    group: str = "*"
    user: str | None = None           # SSH: None is the account that the crew asks for
    password_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    password_credential: str | None = None      # names in the unit's $CREDENTIALS_DIRECTORY
    certificate_credential: str | None = None
    key_credential: str | None = None
    exec: tuple[str, ...] | None = None      # a helper that prints it
    exec_user: str | None = None
    exec_timeout: int = 5             # seconds
    certificate: str | None = None    # ISSUE: Weir's own authority makes it
    vault: str | None = None          # name of a [[vault]]
    mount: str | None = None          # None: MOUNTS
    path: str | None = None           # KV version 2
    user_field: str | None = None     # None: USERNAME, PASSWORD
    password_field: str | None = None
    certificate_field: str | None = None
    key_field: str | None = None
    database_role: str | None = None  # of the database engine: a user for a lease,
    static_role: str | None = None    # or one that is always there
    agent: str | None = None          # Unix socket of an ssh-agent
    ssh_role: str | None = None       # of the SSH engine, which signs a key for each login
    token_file: str | None = None     # bearer token
    token_credential: str | None = None
    token_field: str | None = None    # None: TOKEN
    issuer: str | None = None         # OpenID Connect: tokens are had for a refresh token
    issuer_ca: str | None = None
    client_id: str | None = None
    client_secret_file: str | None = None
    refresh_token_file: str | None = None

    def has(self, part: str) -> bool:
        """Whether this part comes from a file or the unit's credentials."""
        return bool(getattr(self, f"{part}_file") or getattr(self, f"{part}_credential"))

    @property
    def needs_tls(self) -> str:
        """The field that does, or empty."""
        names = ("certificate", "certificate_file", "certificate_credential", "certificate_field")
        return next((name for name in names if getattr(self, name)), "")


POSTGRESQL, SSH, KUBERNETES = "postgresql", "ssh", "kubernetes"       # as their folders are called
ISSUE: Final = "issue"
USERNAME: Final = "username"          # as Vault's documentation has them
PASSWORD: Final = "password"          # noqa: S105
TOKEN: Final = "token"                # noqa: S105
STORED: Final = ("user_field", "password_field", "certificate_field", "key_field", "token_field")
KINDS: Final = {POSTGRESQL: ("path", "database_role", "static_role"), SSH: ("path", "ssh_role"), KUBERNETES: ("path",)}
OIDC: Final = ("issuer", "issuer_ca", "client_id", "client_secret_file", "refresh_token_file")
_EVERY: Final = ("path", "database_role", "static_role", "ssh_role")
NAME_LIMIT: Final = 64                # characters of a common name (RFC 5280, appendix A.1)
PARTS: Final = ("password", "certificate", "key", "token")
SOURCES: Final = tuple(f"{part}_{kind}" for part in PARTS for kind in ("file", "credential"))

CREDENTIAL: Final = Section("credential", CredentialRow, True, "A real credential at this target.  The most specific "
    "row that fits is used: a named database counts more than a named role, that more than a named group.", (
    Field("database", kinds.SELECTOR, "Database that it is for.", "*", of=(POSTGRESQL,)),
    Field("role", kinds.SELECTOR, "User name that the crew asks for; with SSH the account.", "*", of=(POSTGRESQL, SSH)),
    Field("group", kinds.SELECTOR, "Group of the principal.", "*"),
    Field("user", kinds.TEXT, "User name at the target.  Needed where neither `exec` nor `vault` says it.", None,
          "crew_svc", of=(POSTGRESQL,)),
    Field("user", kinds.TEXT, "Account at the target.  Default: the one that the crew asks for, or what `exec` or "
          "`vault` says.", None, "deploy", of=(SSH,)),
    Field("user", kinds.TEXT, "Who that is in the cluster, as recordings show it.  Needed with `certificate`, where it "
          "is the certificate's name.  Default: as the token or certificate says.", None,
          "system:serviceaccount:crews:weir", of=(KUBERNETES,)),
    Field("token_file", kinds.PATH, "File that holds a bearer token and nothing else; root's, mode 0600; read again at "
          "each login.", None, "/etc/weir/credentials/cluster.token", of=(KUBERNETES,)),
    Field("token_credential", kinds.UNIT_CREDENTIAL, "In place of token_file: a credential of the agent's unit.", None,
          "cluster.token", instead=True, of=(KUBERNETES,)),
    Field("password_file", kinds.PATH, "File that holds the password and nothing else; root's, mode 0600.", None,
          "/etc/weir/credentials/orders", of=(POSTGRESQL, SSH)),
    Field("certificate_file", kinds.PATH, "Client certificate, PEM; root's, mode 0600.", None,
          "/etc/weir/credentials/orders.pem", of=(POSTGRESQL,)),
    Field("certificate_file", kinds.PATH, "In place of a token: client certificate, PEM; root's, mode 0600.", None,
          "/etc/weir/credentials/cluster.pem", instead=True, of=(KUBERNETES,)),
    Field("certificate_file", kinds.PATH, "Certificate for `key_file`, as ssh-keygen -s writes it (KEY-cert.pub); "
          "root's, mode 0600.", None, "/etc/weir/credentials/web-cert.pub", of=(SSH,)),
    Field("key_file", kinds.PATH, "Its key, PEM; root's, mode 0600.", None,
          "/etc/weir/credentials/orders.key", of=(POSTGRESQL,)),
    Field("key_file", kinds.PATH, "Its key, PEM; root's, mode 0600.", None,
          "/etc/weir/credentials/cluster.key", instead=True, of=(KUBERNETES,)),
    Field("key_file", kinds.PATH, "Private key, in OpenSSH's format or PEM, not encrypted; root's, mode 0600.", None,
          "/etc/weir/credentials/web", of=(SSH,)),
    Field("password_credential", kinds.UNIT_CREDENTIAL, "In place of password_file: a credential of the agent's unit "
          "(`LoadCredential=`, `LoadCredentialEncrypted=`).", None, "orders", instead=True, of=(POSTGRESQL, SSH)),
    Field("certificate_credential", kinds.UNIT_CREDENTIAL, "In place of certificate_file.", None, "orders.pem",
          instead=True),
    Field("key_credential", kinds.UNIT_CREDENTIAL, "In place of key_file.", None, "orders.key", instead=True),
    Field("exec", kinds.COMMAND, "In place of files: a helper that prints the credential as JSON.  Root alone may "
          "write it and every directory above it; its arguments are seen by everybody on the host.", None,
          ["/usr/local/libexec/orders-credential"], instead=True),
    Field("exec_user", kinds.ACCOUNT, "Who the helper runs as: never root, nobody of Weir's and no workload's user.",
          None, "orders-helper", instead=True),
    Field("exec_timeout", kinds.duration("1s", "30s"), "How long the helper may take.", "5s", instead=True),
    Field("certificate", kinds.choice(ISSUE), "In place of certificate_file and key_file: Weir issues a certificate "
          "for `user`, good for ten minutes.  `weir ca TARGET` prints the authority that the server trusts.",
          None, ISSUE, instead=True, of=(POSTGRESQL,)),
    Field("certificate", kinds.choice(ISSUE), "In place of files: Weir makes a key for each login and signs it for "
          "the account, good for five minutes.  `weir ca TARGET` prints the line for sshd's TrustedUserCAKeys.",
          None, ISSUE, instead=True, of=(SSH,)),
    Field("certificate", kinds.choice(ISSUE), "In place of files: Weir issues a certificate for `user`, good for ten "
          "minutes.  `weir ca TARGET` prints the authority for `--client-ca-file` of the API server.",
          None, ISSUE, instead=True, of=(KUBERNETES,)),
    Field("issuer", kinds.ISSUER, "In place of files: the OpenID Connect provider whose ID tokens the API server takes "
          "(`--oidc-issuer-url`).  Weir gets them for the refresh token, again before each expires.", None,
          "https://login.lab.example", instead=True, of=(KUBERNETES,)),
    Field("issuer_ca", kinds.PATH, "Roots for its certificate, PEM.  Default: the system's.", None,
          "/etc/weir/login-ca.pem", instead=True, of=(KUBERNETES,)),
    Field("client_id", kinds.TEXT, "Weir's client there (`--oidc-client-id`).", None, "kubernetes", instead=True,
          of=(KUBERNETES,)),
    Field("client_secret_file", kinds.PATH, "File that holds its secret; root's, mode 0600.  Default: it has none.",
          None, "/etc/weir/credentials/login.secret", instead=True, of=(KUBERNETES,)),
    Field("refresh_token_file", kinds.PATH, "File that holds the refresh token; root's, mode 0600.  Where the provider "
          "gives another one Weir writes it there.", None, "/etc/weir/credentials/cluster.refresh", instead=True,
          of=(KUBERNETES,)),
    Field("agent", kinds.SOCKET, "In place of files: Unix socket of an ssh-agent that has the key; Weir's user "
          "reaches it, and no crew.", None, "/run/keys/agent.sock", instead=True, of=(SSH,)),
    Field("vault", kinds.NAME, "In place of files: the [[vault]] that it comes from, with one of `path`, "
          "`database_role`, `static_role`.", None, "safe", instead=True, of=(POSTGRESQL,)),
    Field("vault", kinds.NAME, "In place of files: the [[vault]] that it comes from, with one of `path`, `ssh_role`.",
          None, "safe", instead=True, of=(SSH,)),
    Field("vault", kinds.NAME, "In place of files: the [[vault]] that it comes from, with `path`.", None, "safe",
          instead=True, of=(KUBERNETES,)),
    Field("mount", kinds.VAULT_PATH, "Where that engine is mounted.  Default: `secret` with `path`, else `database`.",
          None, "secret", instead=True, of=(POSTGRESQL,)),
    Field("mount", kinds.VAULT_PATH, "Where that engine is mounted.  Default: `secret` with `path`, else `ssh`.",
          None, "secret", instead=True, of=(SSH,)),
    Field("mount", kinds.VAULT_PATH, "Where that engine is mounted.  Default: `secret`.", None, "secret", instead=True,
          of=(KUBERNETES,)),
    Field("path", kinds.VAULT_PATH, "Of a secret of a KV engine, version 2; its newest version counts.", None,
          "crews/orders", instead=True),
    Field("user_field", kinds.TEXT, "Field of it that has the user, where `user` does not say it.  Default: "
          "`username`.", None, "username", instead=True),
    Field("password_field", kinds.TEXT, "Field of it that has the password.  Default: `password`.", None, "password",
          instead=True, of=(POSTGRESQL, SSH)),
    Field("token_field", kinds.TEXT, "Field of it that has the bearer token.  Default: `token`.", None, "token",
          instead=True, of=(KUBERNETES,)),
    Field("certificate_field", kinds.TEXT, "Field of it that has a client certificate, as certificate_file would.",
          None, "certificate", instead=True),
    Field("key_field", kinds.TEXT, "Field of it that has the key, as key_file would.", None, "key", instead=True),
    Field("database_role", kinds.VAULT_PATH, "Role of a database engine: Vault makes a user for a lease, which Weir "
          "renews while sessions use it, and gives back after the last.", None, "orders", instead=True,
          of=(POSTGRESQL,)),
    Field("static_role", kinds.VAULT_PATH, "Static role of a database engine: Vault changes the password of a user "
          "that stays.", None, "orders-static", instead=True, of=(POSTGRESQL,)),
    Field("ssh_role", kinds.VAULT_PATH, "Role of an SSH engine: Weir makes a key for each login, and Vault signs it "
          "for the account.", None, "crews", instead=True, of=(SSH,)),
), attribute="credentials")


def check_row(row: CredentialRow, protocol: str, peer: bool, path: Place, report: Report) -> None:
    """`peer`: the server may take Weir by its uid."""
    if not row.user and not row.exec and not row.vault and (protocol not in (SSH, KUBERNETES) or (
            row.certificate and protocol == KUBERNETES)):
        report.add(path, f"user is missing: {kinds.TEXT.right}")
    if row.vault:
        _check_vault(row, protocol, path, report)
        return
    for name in ("mount", *_EVERY, *STORED):
        if getattr(row, name):
            report.add((*path, name), "is for a row with `vault`")
    if row.exec:
        _check_exec(row, path, report)
        return
    if row.exec_user:
        report.add((*path, "exec_user"), "is for a row with `exec`")
    for part in PARTS:
        if getattr(row, f"{part}_file") and getattr(row, f"{part}_credential"):
            report.add((*path, f"{part}_credential"), f"stands beside {part}_file: leave one of them out")
    if row.certificate:
        _check_issued(row, path, report)
    elif protocol == SSH:
        _check_keys(row, path, report)
    elif protocol == KUBERNETES:
        _check_bearer(row, path, report)
    elif row.has("certificate") != row.has("key"):
        report.add(path, "names only one of certificate_file and key_file; both would be right")
    elif not row.has("password") and not row.has("certificate") and not peer:
        report.add(path, "has neither password_file nor certificate_file with key_file")


def _check_keys(row: CredentialRow, path: Place, report: Report) -> None:
    """Of SSH.  A key may come without a certificate, and may be an agent's."""
    if row.agent:
        for name in SOURCES:
            if getattr(row, name):
                report.add((*path, name), "stands beside agent: leave one of them out")
    elif row.has("certificate") and not row.has("key"):
        report.add(path, "names a certificate without its key; key_file beside certificate_file would be right")
    elif not row.has("key") and not row.has("password"):
        report.add(path, 'has neither key_file nor password_file, agent, exec, vault or certificate = "issue"')


def _check_bearer(row: CredentialRow, path: Place, report: Report) -> None:
    """Of a cluster: a token, a certificate with its key, or what ID tokens are had for."""
    if row.issuer:
        for name in SOURCES:
            if getattr(row, name):
                report.add((*path, name), "stands beside issuer: leave one of them out")
        for name in ("client_id", "refresh_token_file"):
            if not getattr(row, name):
                report.add(path, f"{name} is missing: issuer needs it")
        return
    for name in OIDC[1:]:
        if getattr(row, name):
            report.add((*path, name), "is for a row with `issuer`")
    if row.has("certificate") != row.has("key"):
        report.add(path, "names only one of certificate_file and key_file; both would be right")
    elif row.has("token") and row.has("key"):
        report.add(path, "names a token and a certificate; one of them would be right")
    elif not row.has("token") and not row.has("key"):
        report.add(path, 'has neither token_file nor certificate_file with key_file, exec, vault, issuer or '
                   'certificate = "issue"')


def _check_vault(row: CredentialRow, protocol: str, path: Place, report: Report) -> None:
    ssh = protocol == SSH
    for name in (*SOURCES, *OIDC, "certificate", "exec", "exec_user", "agent"):
        if getattr(row, name):
            report.add((*path, name), "stands beside vault: leave one of them out")
    known = KINDS[protocol]
    named = [name for name in known if getattr(row, name)]
    if len(named) != 1:
        report.add((*path, named[1] if named else "vault"), f"names {' and '.join(named) or 'nothing there'}; one of "
                   f"{', '.join(known)} would be right")
    elif not row.path:
        for name in (STORED if ssh else ("user", *STORED)):
            if getattr(row, name):
                report.add((*path, name), f"stands beside {named[0]}, by which Vault says "
                           f"{'what is needed' if ssh else 'user and password'}: leave it out")
    elif row.user and row.user_field:
        report.add((*path, "user_field"), "stands beside user: leave one of them out")
    if bool(row.certificate_field) != bool(row.key_field) and not (ssh and row.key_field):
        report.add(path, "names only one of certificate_field and key_field; both would be right")


def _check_issued(row: CredentialRow, path: Place, report: Report) -> None:
    for name in (*SOURCES[2:], *OIDC, "agent"):
        if getattr(row, name):
            report.add((*path, name), f'stands beside certificate = "{ISSUE}": leave one of them out')
    if row.user and len(row.user) > NAME_LIMIT:
        report.add((*path, "user"), f"is longer than the {NAME_LIMIT} characters that a certificate has for it")


def _check_exec(row: CredentialRow, path: Place, report: Report) -> None:
    for name in (*SOURCES, *OIDC, "certificate", "agent"):
        if getattr(row, name):
            report.add((*path, name), "stands beside exec: leave one of them out")
    if not row.exec_user:
        report.add(path, f"exec_user is missing: {kinds.ACCOUNT.right}, that the helper runs as")
    elif row.exec_user == "root":
        report.add((*path, "exec_user"), "is root; a user without privileges would be right")
