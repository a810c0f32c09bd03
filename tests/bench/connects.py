"""What containment costs: a connect of a crew and of everybody else, conntrack entries, memory at rest.

    PYTHONPATH=tests:. python -m bench.connects [--count 1000] [--rounds 5] [--out FILE]      root

Medians within a round; ordinary processes are measured before Weir is there, while it is, and after it was released.
"""
from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.__main__ import processor
from bench.long import rss
from lab.hosts import CREW, DB, Host
from lab.lab import Lab, lab
from lab.servers import listening, server
from lab.weir import Installed, weir

PORT, LOCAL = 7020, 7021
IDLE = 20.0                           # seconds
MORE = f"""
[[egress]]
name = "echo"
addresses = ["{DB.ipv4}"]
ports = [{PORT}]
"""
ECHO = """
import socket, sys, threading
door = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=4096)
def serve(one):
    with one:
        try:
            one.sendall(one.recv(16))
        except OSError:
            pass
while True:
    threading.Thread(target=serve, args=(door.accept()[0],)).start()
"""
# Microseconds: median of connect(2), and of connect(2) to the first byte of the answer.
CLIENT = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}
static int order(const void *a, const void *b) {
    return *(double *)a < *(double *)b ? -1 : *(double *)a > *(double *)b;
}
int main(int argc, char **argv) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    struct linger hard = {1, 0};
    int count = atoi(argv[3]);
    double *opened = calloc(count, sizeof *opened), *answered = calloc(count, sizeof *answered);
    inet_pton(AF_INET, argv[1], &to.sin_addr);
    for (int i = 0; i < count; i++) {
        char byte = '\x80';      /* no protocol that the enforcer knows begins so: it does not wait for more */
        int s = socket(AF_INET, SOCK_STREAM, 0);
        double began = now();
        if (connect(s, (struct sockaddr *)&to, sizeof to) != 0) return 1;
        opened[i] = now() - began;
        if (write(s, &byte, 1) != 1 || read(s, &byte, 1) != 1) return 2;
        answered[i] = now() - began;
        setsockopt(s, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        close(s);
    }
    qsort(opened, count, sizeof *opened, order);
    qsort(answered, count, sizeof *answered, order);
    printf("%.2f %.2f\n", opened[count / 2], answered[count / 2]);
    return 0;
}
"""
OWN = """
import subprocess, sys, time
server = subprocess.Popen([sys.executable, "echo.py", "127.0.0.1", sys.argv[1]])
time.sleep(1)
print(subprocess.run(["./client", "127.0.0.1", *sys.argv[1:]], capture_output=True, text=True, check=True).stdout)
server.kill()
"""
Ask = Callable[[], subprocess.CompletedProcess[str]]


def figures(ask: Ask, rounds: int) -> tuple[float, float]:
    found = []
    for _ in range(rounds):
        done = ask()
        if done.returncode != 0:
            raise RuntimeError(f"{done.returncode}: {done.stdout}{done.stderr}")
        found.append(tuple(map(float, done.stdout.split())))
    return statistics.median(one[0] for one in found), statistics.median(one[1] for one in found)


def prepare(made: Lab) -> None:
    source = made.scratch / "client.c"
    source.write_text(CLIENT)
    subprocess.run(["gcc", "-O2", "-o", made.scratch / "client", source], check=True)
    (made.scratch / "echo.py").write_text(ECHO)
    (made.scratch / "own.py").write_text(OWN)
    for name in ("client", "echo.py", "own.py"):
        made.give(made.scratch / name)
    (made.home / "client").chmod(0o755)


@contextmanager
def echo(made: Lab, host: Host, address: str, port: int) -> Iterator[None]:
    log = made.scratch / f"echo{port}.log"
    with server(host, ["/usr/bin/python3", str(made.scratch / "echo.py"), address, str(port)], log) as process:
        listening(host, address, port, process, log)
        yield


def ordinary(made: Lab, address: str, port: int, count: int) -> Ask:
    return lambda: CREW.run([str(made.home / "client"), address, str(port), str(count)])


def crew(installed: Installed, command: Sequence[str]) -> Ask:
    return lambda: installed.crew(*command)


def tracked() -> int:
    """Entries of conntrack on the crew's host."""
    return int(CREW.run(["cat", "/proc/sys/net/netfilter/nf_conntrack_count"]).stdout or 0)


def caused(ask: Ask) -> int:
    before = tracked()
    ask()
    return max(0, tracked() - before)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.connects")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    rows: dict[str, tuple[float, float]] = {}
    entries: dict[str, int] = {}
    with ExitStack() as stack:
        made = stack.enter_context(lab())
        prepare(made)
        for host, address, port in ((DB, DB.ipv4, PORT), (CREW, "127.0.0.1", LOCAL)):
            stack.enter_context(echo(made, host, address, port))
        away = ordinary(made, DB.ipv4, PORT, given.count)
        here = ordinary(made, "127.0.0.1", LOCAL, given.count)

        def everybody(when: str) -> None:
            rows[f"ordinary process, {when}"] = figures(away, given.rounds)
            rows[f"ordinary process on loopback, {when}"] = figures(here, given.rounds)

        everybody("without Weir")
        for redirect in (False, True):
            more = MORE + ("" if redirect else "\n[nftables]\nredirect = false\n")
            with weir(made, more=more) as installed:
                name = f"redirect = {str(redirect).lower()}"
                entries[name] = caused(ordinary(made, DB.ipv4, PORT, 200))
                if not redirect:
                    continue
                memory, idle = rss(installed), idling(installed)
                everybody("with Weir")
                client = [str(made.home / "client"), DB.ipv4, str(PORT), str(given.count)]
                rows["crew, a flow to an egress entry"] = figures(crew(installed, client), given.rounds)
                own = ["/usr/bin/python3", "own.py", "17022", str(given.count)]
                rows["crew, its own server on loopback"] = figures(crew(installed, own), given.rounds)
        everybody("after release")
    text = report(rows, entries, memory, idle)
    print(text)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text)
    return 0


def idling(installed: Installed) -> dict[str, float]:
    """Share of a processor that each of Weir's processes takes when nothing happens, in per cent."""
    pids = installed.pids()
    before = {name: processor([pid]) for name, pid in pids.items()}
    time.sleep(IDLE)
    return {name: (processor([pid]) - before[name]) * 100 / IDLE for name, pid in pids.items()}


def report(
    rows: dict[str, tuple[float, float]], entries: dict[str, int], memory: dict[str, float], idle: dict[str, float],
) -> str:
    bases = {True: rows["ordinary process on loopback, without Weir"], False: rows["ordinary process, without Weir"]}
    lines = [
        f"| {name} | {opened:.1f} | {opened / bases['loopback' in name][0]:.2f} | {answered:.1f} | "
        f"{answered / bases['loopback' in name][1]:.2f} |"
        for name, (opened, answered) in rows.items()]
    return "\n".join([
        "# What containment costs", "",
        f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, Linux {os.uname().release}, {os.cpu_count()} cores. "
        "Medians; ratios to the same without Weir.", "",
        "| | connect µs | ratio | to the first byte µs | ratio |", "|---|---|---|---|---|", *lines, "",
        "Entries of connection tracking that 200 connections of an ordinary process leave: "
        + ", ".join(f"{count} with `{name}`" for name, count in entries.items()) + ".", "",
        "At rest: " + ", ".join(f"{name} {mib:.0f} MiB and {idle[name]:.1f} % of a processor"
                                for name, mib in memory.items()) + ".", ""])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
