"""A real PostgreSQL 15 on loopback for the layer's tests: trust, a role that owns everything, one that may little."""
from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

BIN = Path("/usr/lib/postgresql/15/bin")
SQL = """
CREATE ROLE app LOGIN;
CREATE ROLE limited LOGIN;
CREATE DATABASE shop OWNER app;
\\c shop
SET ROLE app;
CREATE SCHEMA other;
CREATE TABLE public.t (id int PRIMARY KEY, note text);
INSERT INTO public.t SELECT n, 'note ' || n FROM generate_series(1, 20) AS n;
CREATE TABLE public.secret (id int, key text);
INSERT INTO public.secret VALUES (1, 'k1'), (2, 'k2');
CREATE TABLE public.people (id int PRIMARY KEY, name text, email text, born date);
INSERT INTO public.people VALUES (1, 'Ada', 'ada@x.example', '1815-12-10'), (2, 'Bob', NULL, NULL);
CREATE TABLE other.t (id int, note text);
INSERT INTO other.t VALUES (77, 'the other t');
CREATE TABLE public.big (id int, body text);
GRANT ALL ON public.t TO limited;
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def as_postgres(*argv: str) -> list[str]:
    return ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", *argv]


@pytest.fixture(scope="session")
def port() -> Iterator[int]:
    """Of the server; database shop, roles app (owns everything) and limited."""
    directory = Path(tempfile.mkdtemp(prefix="weir-layer-"))
    owner = pwd.getpwnam("postgres")
    os.chown(directory, owner.pw_uid, owner.pw_gid)
    data, chosen = directory / "data", free_port()
    subprocess.run(
        as_postgres(str(BIN / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync",
                    "--locale", "C.UTF-8"), check=True, capture_output=True, cwd="/")
    with (data / "postgresql.conf").open("a") as settings:
        settings.write(f"listen_addresses='127.0.0.1'\nport={chosen}\nunix_socket_directories='{directory}'\nfsync=off\n")
    control = as_postgres(str(BIN / "pg_ctl"), "-D", str(data), "-l", str(directory / "log"), "-w", "-t", "60")
    subprocess.run([*control, "start"], check=True, stdout=subprocess.DEVNULL, cwd="/")
    try:
        subprocess.run(["psql", "-X", "-q", "-h", str(directory), "-p", str(chosen), "-U", "postgres", "-v",
                        "ON_ERROR_STOP=1", "-f", "-"], input=SQL, text=True, check=True, capture_output=True)
        yield chosen
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, stdout=subprocess.DEVNULL, cwd="/")
        shutil.rmtree(directory)
