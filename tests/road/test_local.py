"""Registered Unix sockets: in the view Weir's own, in place of the database's; who connects there is known, judged and
recorded as over TCP."""
from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
from clients.test_clients import PYTHON
from lab.hosts import CREW, USER
from lab.lab import Lab
from lab.postgresql import Database
from lab.weir import POLICY, Installed, configure, weir

pytestmark = pytest.mark.lab

DIALLED = "/var/run/postgresql/.s.PGSQL.5432"        # target shop; upstream is TCP
NEAR = "/tmp/weir-lab/.s.PGSQL.5433"                  # target near; upstream is the database's own socket
MORE = f"""
[[target]]
name = "near"
protocol = "postgresql"
port = 5433
sockets = ["{NEAR}"]
upstream = "{{real}}"

[[target.credential]]
user = "crew_svc"
password_file = "{{etc}}/credentials/shop"

[[target.credential]]
role = "peered"
user = "peered"
"""
NEAR_POLICY = """
@id("near-connect")
permit (principal in Group::"data", action == Action::"connect", resource in Target::"near");
@id("near-readers")
permit (principal in Group::"data", action in Action::"sql:read", resource in Target::"near");
"""


def real(database: Database) -> str:
    return str(database.directory / ".s.PGSQL.5432")


@pytest.fixture(scope="module")
def local(the_lab: Lab) -> Iterator[Installed]:
    the_lab.database.admin("CREATE ROLE peered LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO peered")
    etc = the_lab.scratch / f"etc{the_lab.number + 1}"
    file = configure(the_lab, labels=True, target=f'sockets = ["{DIALLED}"]', policy=POLICY + NEAR_POLICY,
                     more=MORE.format(real=real(the_lab.database), etc=etc))
    with ExitStack() as stack:
        stack.callback(the_lab.database.admin, "DROP OWNED BY peered; DROP ROLE peered")
        installed = stack.enter_context(weir(the_lab, file))
        stack.enter_context(installed.overseen())
        yield installed


def environment(**more: str) -> dict[str, str]:
    """No host: the clients' own default, the local socket."""
    return {"PGDATABASE": "shop", "PGUSER": "crew_svc", "PGCONNECT_TIMEOUT": "20", **more}


def psql(local: Installed, *sql: str, **more: str) -> subprocess.CompletedProcess[str]:
    words = [word for text in sql for word in ("-c", text)]
    return local.crew("psql", "-X", "-A", "-t", "-w", *words, environment=environment(**more))


def told(local: Installed, table: str) -> dict[str, object]:
    """The last row, once the recorder has everything."""
    local.settle()
    with closing(sqlite3.connect(f"file:{next(local.recording.glob('*.sqlite'))}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        return dict(db.execute(f"SELECT * FROM {table} WHERE workload != 'weir' ORDER BY seq DESC LIMIT 1").fetchone())


def ledger(local: Installed) -> dict[str, object]:
    found: dict[str, object] = json.loads(local.weir("ledger", "--json").stdout)
    return found


def test_it_is_judged_masked_and_recorded_as_over_tcp(local: Installed) -> None:
    done = psql(local, "SELECT name, email FROM customers WHERE id = 1", PGSSLMODE="require")
    assert done.stdout == "Ada Lovelace|a***@***.example\n", done.stderr
    assert "no-ddl-by-crews" in psql(local, "CREATE TABLE t (id int)").stderr
    last = told(local, "session_opened")
    assert (last["target"], last["attribution"], last["client_tls"], last["cookie"]) == ("shop", "mark", "", 0)
    assert last["destination"] == "/run/postgresql/.s.PGSQL.5432 5432"
    assert str(last["exe"]).endswith("psql")
    assert str(last["upstream"]).startswith("crew_svc@10.77.0.4:5432 TLSv1.3")


PSYCOPG = """
import psycopg, threading
with psycopg.connect("") as connection:
    print(connection.execute("SELECT count(*) FROM products").fetchone()[0])
    threading.Timer(0.5, connection.cancel).start()
    try:
        connection.execute("SELECT pg_sleep(20)")
    except psycopg.errors.QueryCanceled as error:
        print(error.sqlstate)
"""
ASYNCPG = """
import asyncio, asyncpg
async def main():
    connection = await asyncpg.connect(timeout=10)
    print(await connection.fetchval("SELECT count(*) FROM products"))
    await connection.close()
asyncio.run(main())
"""


@pytest.mark.parametrize(("program", "printed", "host"), [
    (PSYCOPG, "4\n57014\n", {}),                      # with a cancel, over the socket as well
    (ASYNCPG, "4\n", {}),
    pytest.param(PSYCOPG, "4\n57014\n", {"PGHOST": os.path.dirname(NEAR), "PGPORT": "5433"},
                 marks=pytest.mark.slow),
])
def test_drivers(local: Installed, program: str, printed: str, host: dict[str, str]) -> None:
    done = local.crew(PYTHON, "-c", program, environment=environment(**host), timeout=15)
    assert done.stdout == printed, done.stderr


@pytest.mark.parametrize(("role", "upstream"), [("crew_svc", "crew_svc@"), ("peered", "peered@")])
def test_the_upstream_may_be_the_real_socket(local: Installed, role: str, upstream: str) -> None:
    """By SCRAM; and by `peer`, where the server takes Weir's user."""
    near = {"PGHOST": os.path.dirname(NEAR), "PGPORT": "5433", "PGUSER": role}
    done = psql(local, "SELECT current_user, count(*) FROM products", **near)
    assert done.stdout == f"{role}|4\n", done.stderr
    assert told(local, "session_opened")["upstream"] == upstream + real(local.lab.database)


LOOK = """
import os, socket, sys
for path in sys.argv[1:]:
    with socket.socket(socket.AF_UNIX) as one:
        print(one.connect_ex(path), os.path.islink(path))
"""


def test_the_real_socket_is_in_no_view(local: Installed) -> None:
    done = local.crew("/usr/bin/python3", "-c", LOOK, real(local.lab.database), DIALLED)
    assert done.stdout == "2 False\n0 True\n", done.stderr       # ENOENT; Weir's own


ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as one:
    one.settimeout(10)
    one.connect(sys.argv[1])
    try:
        one.sendall(bytes((0, 0, 0, 8, 4, 210, 22, 47)))     # SSLRequest
        print(one.recv(1) or "refused")
    except (ConnectionResetError, BrokenPipeError):
        print("refused")
"""


@pytest.mark.parametrize("user", ["root", USER])
def test_who_is_no_crew_is_refused_and_recorded(local: Installed, user: str) -> None:
    """Also where it is the workload's own user."""
    as_user = ["setpriv", "--reuid", user, "--clear-groups", "--", "/usr/bin/python3", "-c", ASK]
    done = CREW.run([*as_user, f"/run/{local.recording.parent.name}/sockets/shop"])
    assert done.stdout == "refused\n", done.stderr
    assert "is no crew's" in str(told(local, "refused")["reason"])


ONE = ["psql", "-X", "-A", "-t", "-w", "-d", "dbname=shop user=crew_svc", "-c", "SELECT 1"]


def test_another_enforcer(local: Installed) -> None:
    """Who connects meanwhile waits; and the ledger knows of such sessions, and waits for none."""
    with local.inside() as crew:
        local.kill("enforcer")
        assert crew.run_inside(ONE) == (0, "1\n", "")
    local.settle()
    found = ledger(local)
    assert (found["unaccounted"], found["alarms"], found["waiting"]) == (0, [], 0)
    accounted = found["accounted"]
    assert isinstance(accounted, dict)
    assert accounted["session at a Unix socket"] >= 1


@pytest.mark.slow
def test_another_agent(local: Installed) -> None:
    """It makes the socket anew; a crew that runs all the while reaches that one."""
    with local.inside() as crew:
        assert crew.run_inside(ONE) == (0, "1\n", "")
        local.kill("agent")
        assert crew.run_inside(ONE)[0] != 0, "nobody is there"
        again = local.again()
        again.wait()
        assert crew.run_inside(ONE) == (0, "1\n", "")
        again.settle()
        assert ledger(again)["unaccounted"] == 0
