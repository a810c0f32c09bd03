"""Unmodified clients, by the database's own name and port: they print through Weir what they print without it."""
from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from lab.lab import Lab
from lab.postgresql import NAME
from lab.weir import Installed

pytestmark = pytest.mark.lab

HERE = Path(__file__).resolve().parent
PREFIX = Path(os.environ.get("WEIR_PREFIX", "/opt/weir"))
PYTHON = str(PREFIX / "clients" / "bin" / "python")
SCRIPTS = sorted(path.stem for path in (HERE / "scripts").glob("using_*.py"))
TLS = {
    "verify-full": {"PGSSLMODE": "verify-full"},
    "require": {"PGSSLMODE": "require"},
    "disable": {"PGSSLMODE": "disable"},
}


def environment(lab: Lab, password: str | None, **more: str) -> dict[str, str]:
    chosen = {
        "PGHOST": NAME, "PGPORT": "5432", "PGDATABASE": "shop", "PGUSER": "crew_svc", "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": str(lab.home / "db-ca.pem"), "PGCONNECT_TIMEOUT": "20", **more,
    }
    if password is not None:
        chosen["PGPASSWORD"] = password
    if chosen["PGSSLMODE"] == "disable":
        del chosen["PGSSLROOTCERT"]
    return chosen


def both(
    installed: Installed, *command: str, password: str | None = "wrong", **more: str
) -> tuple[subprocess.CompletedProcess[str], subprocess.CompletedProcess[str]]:
    """(without Weir and with the real password, through Weir with the client's own)."""
    lab = installed.lab
    real = lab.database.passwords["crew_svc"]
    control = lab.control(command, environment(lab, real, **more))
    assert control.returncode == 0, control.stderr
    return control, installed.crew(*command, environment=environment(lab, password, **more))


@pytest.mark.parametrize("script", SCRIPTS)
def test_python_clients(plain: Installed, script: str) -> None:
    path = plain.lab.give(HERE / "scripts" / f"{script}.py")
    control, crew = both(plain, PYTHON, str(path))
    assert crew.returncode == 0, crew.stderr
    assert json.loads(crew.stdout) == json.loads(control.stdout)


@pytest.mark.parametrize("tls", TLS)
@pytest.mark.parametrize("script", ["using_psycopg2", "using_asyncpg"])
def test_with_and_without_tls(plain: Installed, script: str, tls: str) -> None:
    path = plain.lab.give(HERE / "scripts" / f"{script}.py")
    control, crew = both(plain, PYTHON, str(path), **TLS[tls])
    assert crew.returncode == 0, crew.stderr
    assert json.loads(crew.stdout) == json.loads(control.stdout)


@pytest.mark.parametrize("password", ["wrong", "", None], ids=["wrong", "empty", "none"])
def test_whatever_password(plain: Installed, password: str | None) -> None:
    _, crew = both(plain, "psql", "-X", "-A", "-t", "-w", "-c", "SELECT count(*) FROM products", password=password)
    assert (crew.returncode, crew.stdout) == (0, "4\n"), crew.stderr


PSQL = r"""
\d orders
\dt
\df no_such*
SELECT * FROM products ORDER BY id;
\gdesc
BEGIN; UPDATE products SET price = price + 1; SELECT sum(price) FROM products; ROLLBACK;
SELECT 1 AS a \; SELECT 2 AS b;
\copy (SELECT id, name FROM products ORDER BY id) TO STDOUT
SELECT lo_creat(-1) > 0 AS made \gset
PREPARE p(int) AS SELECT name FROM products WHERE id = $1; EXECUTE p(3); DEALLOCATE p;
DECLARE c CURSOR WITH HOLD FOR SELECT id FROM products ORDER BY id; FETCH 2 FROM c; CLOSE c;
SELECT no_such_column FROM products;
\set ON_ERROR_STOP on
SELECT count(*) FROM orders;
"""


def test_psql(plain: Installed) -> None:
    script = plain.lab.home / "session.sql"
    script.write_text(PSQL)
    control, crew = both(plain, "psql", "-X", "-f", str(script))
    assert crew.returncode == 0, crew.stderr
    assert crew.stdout == control.stdout
    assert crew.stderr == control.stderr


RESTRICT = re.compile(r"^\\(un)?restrict .*$", re.M)


def test_pg_dump(plain: Installed) -> None:
    control, crew = both(plain, "pg_dump", "--no-owner", "-t", "products", "-t", "orders")
    assert crew.returncode == 0, crew.stderr
    # \restrict carries a word that pg_dump draws anew each time.
    assert RESTRICT.sub("", crew.stdout) == RESTRICT.sub("", control.stdout)


@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
def test_pgbench(plain: Installed, mode: str) -> None:
    _, crew = both(plain, "pgbench", "-n", "-S", "-M", mode, "-c", "4", "-t", "50")
    assert crew.returncode == 0, crew.stderr
    assert "number of transactions actually processed: 200/200" in crew.stdout
    assert "number of failed transactions: 0" in crew.stdout


def test_node_postgres(plain: Installed) -> None:
    folder = plain.lab.give(PREFIX / "node", "node")
    control, crew = both(plain, "node", str(folder / "client.js"))
    assert crew.returncode == 0, crew.stderr
    assert json.loads(crew.stdout) == json.loads(control.stdout)


def test_pgx(plain: Installed) -> None:
    program = plain.lab.give(PREFIX / "go" / "client", "goclient")
    program.chmod(0o755)
    control, crew = both(plain, str(program))
    assert crew.returncode == 0, crew.stderr
    assert json.loads(crew.stdout) == json.loads(control.stdout)
