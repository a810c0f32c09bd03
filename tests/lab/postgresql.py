"""A real PostgreSQL 15 on the database host: TLS from the lab's CA, SCRAM, every statement in csvlog.

Database `shop`, owned by crew_svc: the real credential, which crews never see.  What it may not do by Weir, the server
itself would let it do: a denial is Weir's own.
"""
from __future__ import annotations

import csv
import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab import certificates
from lab.hosts import DB, Host, wait_until
from lab.servers import listening, server

BIN = Path("/usr/lib/postgresql/15/bin")
PORT = 5432
NAME = "db.lab.example"
ROLES = ("crew_svc", "reporting")
LOG_ENCODING = "utf-8"

SETTINGS = """
listen_addresses = '*'
port = {port}
unix_socket_directories = '{socket}'
max_connections = 700
shared_buffers = 128MB
fsync = off
ssl = on
ssl_cert_file = '{tls}/server.pem'
ssl_key_file = '{tls}/server.key'
ssl_ca_file = '{tls}/ca.pem'
password_encryption = scram-sha-256
log_destination = csvlog
logging_collector = on
log_directory = log
log_filename = 'postgresql'
log_rotation_age = 0
log_rotation_size = 0
log_statement = all
log_connections = on
log_disconnections = on
log_timezone = UTC
timezone = UTC
"""

HBA = """
local all postgres peer map=lab
local all peered peer map=lab
local all all scram-sha-256
host all all all scram-sha-256
"""

SHOP = """
CREATE TABLE customers (
  id integer PRIMARY KEY, name text NOT NULL, email text NOT NULL, api_key text NOT NULL, country text NOT NULL,
  since date NOT NULL
);
CREATE TABLE products (id integer PRIMARY KEY, name text NOT NULL, price numeric(10, 2) NOT NULL);
CREATE TABLE orders (
  id integer PRIMARY KEY, customer_id integer NOT NULL REFERENCES customers, product_id integer NOT NULL REFERENCES
  products, quantity integer NOT NULL, status text NOT NULL, ordered_at timestamptz NOT NULL
);
CREATE TABLE bulk (id integer PRIMARY KEY, label text NOT NULL, email text NOT NULL, amount double precision NOT NULL);
CREATE TABLE scratch (id serial PRIMARY KEY, note text);
INSERT INTO customers VALUES
  (1, 'Ada Lovelace', 'ada@analytical.example', 'sk-live-51c0ffee', 'GB', '2023-02-10'),
  (2, 'Grace Hopper', 'grace@navy.example', 'sk-live-7badcafe', 'US', '2023-05-03'),
  (3, 'Konrad Zuse', 'konrad@z3.example', 'sk-live-0ddba115', 'DE', '2024-01-22'),
  (4, 'Radia Perlman', 'radia@spanning.example', 'sk-live-5eaf00d5', 'US', '2024-08-15'),
  (5, 'Edsger Dijkstra', 'edsger@shortest.example', 'sk-live-a1b2c3d4', 'NL', '2025-03-30');
INSERT INTO products VALUES
  (1, 'Punched cards', 12.50), (2, 'Compiler', 990.00), (3, 'Relay', 3.20), (4, 'Router', 440.00);
INSERT INTO orders
  SELECT n, 1 + n % 5, 1 + n % 4, 1 + n % 3, (ARRAY['open', 'paid', 'shipped', 'cancelled'])[1 + n % 4],
         timestamptz '2026-01-01 00:00:00Z' + n * interval '7 hours'
  FROM generate_series(1, 120) AS n;
INSERT INTO bulk SELECT n, 'row ' || n, 'user' || n || '@bulk.example', n * 0.25 FROM generate_series(1, 100000) AS n;
CREATE VIEW open_orders AS SELECT id, customer_id FROM orders WHERE status = 'open';
ANALYZE;
"""


@dataclass(frozen=True)
class LoggedStatement:
    """One line of csvlog that says that a statement ran (or, where `error`, which failed)."""

    backend: int
    source: str                       # address of the client, "[local]" for the Unix socket
    user: str
    database: str
    message: str
    error: bool
    statement: str                    # the statement behind an error
    session: str = ""                 # unique to one backend's life
    application: str = ""


@dataclass(frozen=True)
class Database:
    host: Host
    directory: Path
    authority: certificates.Authority
    passwords: dict[str, str]

    def __repr__(self) -> str:
        return f"Database({self.directory})"

    @property
    def ca(self) -> Path:
        """What a client names as its sslrootcert."""
        return self.directory / "tls" / "ca.pem"

    def admin(self, sql: str, database: str = "shop", user: str = "postgres") -> str:
        """Run as a superuser by the Unix socket, without Weir; unaligned output.  Left out of the oracle's view by its
        source."""
        done = subprocess.run(
            ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", str(self.directory), "-p", str(PORT),
             "-U", user, "-d", database, "-f", "-"],
            input=sql, capture_output=True, text=True, env={"PATH": os.environ["PATH"]},
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()

    def dsn(self, role: str = "crew_svc", **more: str) -> str:
        """For the control: the real credential, straight to the server."""
        return f"postgresql://{role}:{self.passwords[role]}@{NAME}:{PORT}/shop" + "".join(
            f"{'&' if number else '?'}{key}={value}" for number, (key, value) in enumerate(more.items())
        )

    def log(self) -> list[list[str]]:
        """All rows of csvlog so far, only whole ones."""
        path = self.directory / "data" / "log" / "postgresql.csv"
        text = path.read_text(LOG_ENCODING, errors="surrogateescape")
        rows = list(csv.reader(text.splitlines(keepends=True), strict=False))
        return [row for row in rows if len(row) == 26]

    def statements(self) -> list[LoggedStatement]:
        return [_logged(row) for row in self.log() if row[13].startswith(STATEMENT) or row[11] in ERRORS]


STATEMENT = ("statement: ", "execute ", "fastpath function call: ")
ERRORS = ("ERROR", "FATAL", "PANIC")


def _logged(row: list[str]) -> LoggedStatement:
    """Columns as in PostgreSQL 15, 20.8.4 (Using CSV-Format Log Output)."""
    source = row[4].rpartition(":")[0] or row[4]
    failed = row[11] in ERRORS
    return LoggedStatement(int(row[3] or 0), source, row[1], row[2], row[13], failed, row[19], row[5], row[22])


def _prepare(directory: Path, host: Host) -> tuple[certificates.Authority, dict[str, str]]:
    tls = directory / "tls"
    tls.mkdir(mode=0o755)
    authority = certificates.make_authority()
    leaf, key = certificates.make_leaf(authority, (NAME,), (host.ipv4, host.ipv6))
    certificates.write(tls / "ca.pem", authority.pem)
    certificates.write(tls / "server.pem", leaf)
    owned = certificates.write(tls / "server.key", key, 0o600)
    for path in (directory, owned):
        subprocess.run(["chown", "postgres:postgres", str(path)], check=True)
    return authority, {role: secrets.token_urlsafe(18) for role in ROLES}


def _initialise(directory: Path) -> None:
    data = directory / "data"
    subprocess.run(
        ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups", str(BIN / "initdb"),
         "-D", str(data), "-U", "postgres", "-A", "peer", "-E", "UTF8", "--locale", "C.UTF-8", "--no-sync",
         "--no-instructions"],
        check=True, capture_output=True, cwd="/",
    )
    with open(data / "postgresql.conf", "a") as file:
        file.write(SETTINGS.format(port=PORT, socket=directory, tls=directory / "tls"))
    (data / "pg_hba.conf").write_text(HBA)
    (data / "pg_ident.conf").write_text("lab root postgres\nlab postgres postgres\nlab weir peered\n")


def _fill(database: Database) -> None:
    for role, password in database.passwords.items():
        database.admin(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'", "postgres")
    database.admin("CREATE DATABASE shop OWNER crew_svc", "postgres")
    database.admin(
        "ALTER SCHEMA public OWNER TO crew_svc; SET ROLE crew_svc;" + SHOP
        + "RESET ROLE; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reporting;"
    )


@contextmanager
def postgresql(scratch: Path, host: Host = DB) -> Iterator[Database]:
    """A server with database `shop` while the block runs."""
    directory = scratch / "pg"
    directory.mkdir(mode=0o755)
    database = Database(host, directory, *_prepare(directory, host))
    _initialise(directory)
    log = directory / "server.log"
    # QUIT is PostgreSQL's immediate shutdown: there is nothing here worth a checkpoint.
    with server(host, [str(BIN / "postgres"), "-D", str(directory / "data")], log, "postgres", "QUIT") as process:
        listening(host, host.ipv4, PORT, process, log)
        ready = [str(BIN / "pg_isready"), "-q", "-h", str(directory), "-p", str(PORT)]
        wait_until("postgresql", lambda: subprocess.run(ready).returncode == 0)        # it listens before it is
        _fill(database)
        yield database
