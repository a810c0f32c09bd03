"""Memory over a long session and over many sessions.

    PYTHONPATH=tests:. python -m bench.long [--statements 1000000] [--sessions 500] [--out FILE]      root
"""
from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from clients.test_clients import PYTHON, environment
from lab.lab import lab
from lab.weir import Installed, weir

LONG = """
import sys, psycopg
total = int(sys.argv[1])
with psycopg.connect("", autocommit=True) as connection:
    done = 0
    while done < total:
        with connection.pipeline():
            for number in range(1000):
                connection.execute("SELECT count(*) FROM products WHERE id > %s", (number % 5,), prepare=True)
        done += 1000
        if done % (total // 10) == 0:
            print(done, flush=True)
"""
MANY = """
import sys, psycopg2
held = []
for number in range(int(sys.argv[1])):
    connection = psycopg2.connect("")
    connection.autocommit = True
    connection.cursor().execute("SELECT %s", (number,))
    held.append(connection)
    if number % 100 == 99:
        print(number + 1, flush=True)
print("open", flush=True)
sys.stdin.readline()
"""


def rss(installed: Installed) -> dict[str, float]:
    """MiB of enforcer, recorder and agent."""
    return {name: psutil.Process(pid).memory_info().rss / 2**20 for name, pid in installed.pids().items()}


def watch(installed: Installed, script: str, argument: int) -> list[tuple[str, dict[str, float]]]:
    """Memory at the beginning and at each line that the client prints."""
    seen = [("start", rss(installed))]
    process = subprocess.Popen(
        installed.crew_argv(PYTHON, "-c", script, str(argument)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, cwd=installed.lab.home, env=installed.lab.client_environment(environment(installed.lab, "wrong")))
    assert process.stdout is not None
    for line in process.stdout:
        seen.append((line.strip(), rss(installed)))
        print(f"  {seen[-1]}", flush=True)
        if line.strip() == "open":
            break
    process.communicate("\n")
    return seen


def table(title: str, seen: list[tuple[str, dict[str, float]]]) -> str:
    rows = "".join(f"| {when} | {' | '.join(f'{mib[n]:.0f}' for n in ('enforcer', 'recorder', 'agent'))} |\n"
                   for when, mib in seen)
    return f"### {title}\n\n| | enforcer MiB | recorder MiB | agent MiB |\n|---|---|---|---|\n{rows}"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.long")
    parser.add_argument("--statements", type=int, default=1_000_000)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    with lab() as made:
        made.database.admin("ALTER SYSTEM SET log_statement = 'none'; SELECT pg_reload_conf();", "postgres")
        with weir(made) as installed:
            many = watch(installed, MANY, given.sessions)
            began = time.monotonic()
            long = watch(installed, LONG, given.statements)
            took = time.monotonic() - began
            verified = installed.weir("verify", "--recording", str(installed.recording), timeout=600)
    text = (f"# Memory\n\n{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, Linux {os.uname().release}\n\n"
            + table(f"{given.sessions} open sessions", many) + "\n"
            + table(f"{given.statements} statements in one session, {took:.0f} s", long)
            + f"\n`weir verify` afterwards: exit {verified.returncode}, {verified.stdout.strip().splitlines()[-1]}\n")
    print(text)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text)
    return verified.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
