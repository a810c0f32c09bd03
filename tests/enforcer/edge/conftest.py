"""A real PostgreSQL 15 on loopback for the edge's tests: TLS, one role for each way of logging in."""
from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab import certificates

BIN = Path("/usr/lib/postgresql/15/bin")
PASSWORD = "correct horse battery staple"
PREPARED = "pass­word Ⅸ"    # SASLprep: a soft hyphen goes, a Roman nine becomes IX
RAW = "raw بx"               # prohibited by SASLprep (mixed directions): PostgreSQL takes the bytes

ROLES = f"""
SET password_encryption = 'scram-sha-256';
CREATE ROLE scram LOGIN PASSWORD '{PASSWORD}';
CREATE ROLE prepared LOGIN PASSWORD '{PREPARED}';
CREATE ROLE raw LOGIN PASSWORD '{RAW}';
CREATE ROLE plain LOGIN PASSWORD '{PASSWORD}';
CREATE ROLE cert LOGIN;
CREATE ROLE trusted LOGIN;
CREATE ROLE nobody LOGIN PASSWORD '{PASSWORD}';
SET password_encryption = 'md5';
CREATE ROLE md5 LOGIN PASSWORD '{PASSWORD}';
"""
HBA = """
local all postgres trust
host all trusted all trust
host all plain all password
host all md5 all md5
hostssl all cert all cert
host all nobody all ident
host all all all scram-sha-256
"""
SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{directory}'
max_connections = 200
fsync = off
ssl = on
ssl_cert_file = '{directory}/server.pem'
ssl_key_file = '{directory}/server.key'
ssl_ca_file = '{directory}/ca.pem'
log_destination = stderr
log_statement = all
client_encoding = utf8
"""


@dataclass(frozen=True)
class Cluster:
    directory: Path
    port: int
    authority: certificates.Authority

    def admin(self, sql: str) -> str:
        """As superuser by the Unix socket, unaligned."""
        done = subprocess.run(
            ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", str(self.directory), "-p", str(self.port),
             "-U", "postgres", "-d", "postgres", "-c", sql],
            check=True, capture_output=True, text=True, env={**os.environ, "PGCLIENTENCODING": "UTF8"},
        )
        return done.stdout.strip()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def as_postgres(*argv: str) -> list[str]:
    return ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", *argv]


def write_tls(directory: Path, authority: certificates.Authority) -> None:
    certificate, key = certificates.make_leaf(authority, ("db.edge.example",), ("127.0.0.1",))
    certificates.write(directory / "server.pem", certificate)
    certificates.write(directory / "server.key", key, 0o600)
    certificates.write(directory / "ca.pem", authority.pem)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    directory = Path(tempfile.mkdtemp(prefix="weir-edge-"))
    owner = pwd.getpwnam("postgres")
    authority = certificates.make_authority("Edge CA")
    write_tls(directory, authority)
    for path in (directory, *directory.iterdir()):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    data, port = directory / "data", free_port()
    subprocess.run(
        as_postgres(str(BIN / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync",
                    "--locale", "C.UTF-8"),
        check=True, capture_output=True, cwd="/",
    )
    with (data / "postgresql.conf").open("a") as settings:
        settings.write(SETTINGS.format(port=port, directory=directory))
    (data / "pg_hba.conf").write_text(HBA)
    control = as_postgres(str(BIN / "pg_ctl"), "-D", str(data), "-l", str(directory / "server.log"), "-w", "-t", "60")
    subprocess.run([*control, "start"], check=True, stdout=subprocess.DEVNULL, cwd="/")
    try:
        started = Cluster(directory, port, authority)
        started.admin(ROLES)
        yield started
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL, cwd="/")
        shutil.rmtree(directory)
