"""The road's benchmark: direct, PgBouncer and Weir interleaved in one run, everything on.

    PYTHONPATH=tests:. python -m bench [--quick] [--out FILE]         root

Each round runs every way once, so that the machine's mood is the same for all; what counts is ratios within a round.
All ways speak TLS to the client and to the server.  The proxy's processor time is read from /proc around each run: of
Weir it is enforcer and recorder together.
"""
from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from bench.figures import Run, against_targets, parse_log, parse_pgbench, parse_timing, table
from clients.conftest import PGBENCH
from clients.test_clients import environment
from lab.hosts import OTHER
from lab.lab import Lab, lab
from lab.postgresql import NAME
from lab.servers import listening, server
from lab.weir import Installed, weir

MODES = ("simple", "extended", "prepared")
TICK = os.sysconf("SC_CLK_TCK")
BOUNCER = """
[databases]
shop = host={host} port=5432 dbname=shop user=crew_svc password={password}
[pgbouncer]
listen_addr = {listen}
listen_port = 6432
unix_socket_dir =
auth_type = any
pool_mode = session
max_client_conn = 600
default_pool_size = 600
client_tls_sslmode = allow
client_tls_cert_file = {tls}/server.pem
client_tls_key_file = {tls}/bouncer.key
server_tls_sslmode = verify-full
server_tls_ca_file = {tls}/ca.pem
logfile =
"""


@dataclass(frozen=True)
class Way:
    name: str
    run: Callable[[Sequence[str]], subprocess.CompletedProcess[str]]     # a client's command
    pids: Callable[[], Sequence[int]]                                    # of the proxy
    environment: dict[str, str]


def processor(pids: Sequence[int]) -> float:
    """Seconds of user and system time so far."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


@contextmanager
def bouncer(made: Lab) -> Iterator[subprocess.Popen[bytes]]:
    tls = made.database.directory / "tls"
    folder = made.scratch / "bouncer"
    folder.mkdir(exist_ok=True)
    key = tls / "bouncer.key"
    key.write_bytes((tls / "server.key").read_bytes())
    config = folder / "pgbouncer.ini"
    password = made.database.passwords["crew_svc"]
    config.write_text(BOUNCER.format(host=NAME, password=password, listen=OTHER.ipv4, tls=tls))
    for path in (folder, config, key):
        subprocess.run(["chown", "postgres", str(path)], check=True)
    log = folder / "log"
    hosts = ["bwrap", "--dev-bind", "/", "/", "--ro-bind", str(made.scratch / "resolv.conf"),
             os.path.realpath("/etc/resolv.conf"), "--die-with-parent", "--"]
    with server(OTHER, [*hosts, "/usr/sbin/pgbouncer", str(config)], log, "postgres") as process:
        listening(OTHER, OTHER.ipv4, 6432, process, log)
        yield process


def ways(made: Lab, installed: Installed, process: subprocess.Popen[bytes]) -> list[Way]:
    real = made.database.passwords["crew_svc"]
    direct = environment(made, real)
    pooled = environment(made, "any", PGHOST=OTHER.ipv4, PGPORT="6432", PGSSLMODE="require")
    crew = environment(made, "wrong")
    own = installed.pids()
    inner = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    return [
        Way("direct", lambda argv: made.control(argv, direct, 300), lambda: [], direct),
        Way("pgbouncer", lambda argv: made.control(argv, pooled, 300), lambda: [process.pid, *inner], pooled),
        Way("weir", lambda argv: installed.crew(*argv, environment=crew, timeout=300),
            lambda: [own["enforcer"], own["recorder"]], crew),
    ]


def pgbench(way: Way, made: Lab, mode: str, clients: int, seconds: int) -> Run:
    for old in made.home.glob("pgbench_log.*"):
        old.unlink()
    threads = str(min(clients, 2))
    before = processor(way.pids())
    done = way.run(["pgbench", "-n", "-S", "-M", mode, "-c", str(clients), "-j", threads, "-T", str(seconds), "-l"])
    if done.returncode != 0:
        raise RuntimeError(f"{way.name}: {done.stderr[-600:]}")
    spent = processor(way.pids()) - before
    rate, count = parse_pgbench(done.stdout)
    logs = "".join(path.read_text() for path in made.home.glob("pgbench_log.*"))
    return Run(rate, parse_log(logs), spent * 1e6 / count)


def bulk(way: Way, column: str, times: int) -> Run:
    """Rows a second of 100,000 rows, read `times` times in one session; p50 is of one whole read, by psql's clock:
    how long a client takes to start is no figure of a proxy."""
    text, before = f"SELECT id, label, {column}, amount FROM bulk", processor(way.pids())
    done = way.run(["psql", "-X", "-q", "-A", "-t", "-o", "/dev/null", "-c", r"\timing on", *["-c", text] * times])
    if done.returncode != 0:
        raise RuntimeError(f"{way.name}: {done.stderr[-600:]}")
    spent, middle = processor(way.pids()) - before, parse_timing(done.stdout, times)
    return Run(100_000e6 / middle, middle, spent * 1e6 / (100_000 * times))


def measure(title: str, rounds: int, every: list[Way], one: Callable[[Way], Run]) -> str:
    found = []
    for number in range(rounds):
        row = {}
        for way in every[number % len(every):] + every[:number % len(every)]:
            row[way.name] = one(way)
        found.append({way.name: row[way.name] for way in every})
        print(f"  {title}: round {number + 1} of {rounds}: "
              + ", ".join(f"{name} {run.rate:.0f}" for name, run in found[-1].items()), flush=True)
    return table(title, found) + against_targets(title, found)


def session(made: Lab, payload: str, quick: bool) -> str:
    """Everything with payload recording `payload`."""
    rounds, seconds, said = (2, 2, []) if quick else (3, 4, [])
    with ExitStack() as stack:
        installed = stack.enter_context(weir(made, labels=True, payload=payload))
        every = ways(made, installed, stack.enter_context(bouncer(made)))
        for mode in MODES:
            for clients in (8,) if quick or payload != "none" else (1, 8, 64):
                said.append(measure(
                    f"select-only, {mode}, {clients} clients, payload {payload}", rounds, every,
                    lambda way, mode=mode, clients=clients: pgbench(way, made, mode, clients, seconds)))
        for column, name in (("label AS again", "no masked column"), ("email", "a masked column")):
            said.append(measure(f"100,000 rows, {name}, payload {payload}", rounds, every,
                                lambda way, column=column: bulk(way, column, 7)))
    return "\n".join(said)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    with lab() as made:
        made.database.admin(PGBENCH)
        made.database.admin("ALTER SYSTEM SET log_statement = 'none'; SELECT pg_reload_conf();", "postgres")
        said = [session(made, payload, given.quick) for payload in ("none", "rows")]
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    text = (f"# Benchmark of the road\n\n{when} UTC, Linux {os.uname().release}, {os.cpu_count()} cores shared by "
            "client, proxy and server; labels on, TLS on both sides, durable = writes. "
            "Median (least-most) of rounds; targets: 0.60 of PgBouncer at 8 clients, added p50 at most 2.5 times "
            "PgBouncer's, masked bulk 0.50 of direct.\n\n" + "\n".join(said))
    print(text)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
