"""What held sessions cost, and how long an approval takes to become bytes, on a lab of its own:

    PYTHONPATH=tests:. python -P -m bench.held [--sessions 200] [--seconds 60]         root

Processor time of enforcer, agent and web process while nothing is open, and while the sessions are held and their plans
are known (each is asked for once, when the hold begins), with a page open that shows them all; then each hold is
approved, one after the other, by one approver's process, and the time from sending the answer to the client's having
the result bounds approve-to-forward from above: it holds the agent, the enforcer, fdatasync, the server and the way
back.
"""
from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import httpx2
from bench.__main__ import processor
from clients.test_clients import PYTHON, environment
from hostile import serving
from lab.hosts import CREW, wait_until
from lab.lab import lab
from lab.page import PAGE, PORT, URL, Page, field, settings
from lab.weir import APPROVER, POLICY, Installed, configure, weir

TARGET = 20.0                         # milliseconds, approve-to-forward
QUIET = 1.0                           # percent of a processor that held sessions may add

HOLDING = """
import sys, threading, time, psycopg2
threading.stack_size(256 * 1024)
def connect():
    while True:                       # a workload may connect only so fast
        try:
            return psycopg2.connect("")
        except psycopg2.OperationalError:
            time.sleep(0.2)
def hold(number):
    cursor = connect().cursor()
    cursor.execute(f"DELETE FROM orders WHERE id = -{number}")
    print(number, time.time_ns(), flush=True)
threads = [threading.Thread(target=hold, args=(n,)) for n in range(1, int(sys.argv[1]) + 1)]
for one in threads: one.start()
for one in threads: one.join()
"""
APPROVING = """
import sys, time
from pathlib import Path
from agent.commands.asking import ask
from agent.contract import control
path = Path(sys.argv[1])
for line in sys.stdin:
    began = time.time_ns()
    answer = ask(path, control.Decide(line.strip(), True, "bench"))
    print(began, answer.error, flush=True)
"""


def spent(installed: Installed, seconds: float) -> dict[str, float]:
    """Percent of one processor, of each of Weir's processes."""
    pids = {name: pid for name, pid in installed.pids().items() if name != "recorder"}
    pids["web"] = installed.status()["web"]["pid"]  # type: ignore[index]
    before = {name: processor([pid]) for name, pid in pids.items()}
    time.sleep(seconds)
    return {name: 100 * (processor([pid]) - before[name]) / seconds for name, pid in pids.items()}


def held(installed: Installed) -> list[dict[str, object]]:
    return list(json.loads(installed.weir("approvals", "list", "--json", user=APPROVER).stdout))


def latencies(installed: Installed, holding: subprocess.Popen[str]) -> list[float]:
    """Milliseconds, of each hold."""
    assert holding.stdout is not None
    control_socket = json.loads(installed.weir("status", "--json").stdout)["runtime"]
    command = ["setpriv", "--reuid", APPROVER, "--regid", APPROVER, "--init-groups", "--",
               str(installed.prefix / "bin" / "python"), "-I", "-c", APPROVING, f"/run/{control_socket}/control.sock"]
    found = []
    with subprocess.Popen(CREW.argv(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as approver:
        assert approver.stdin is not None
        assert approver.stdout is not None
        for view in held(installed):
            approver.stdin.write(f"{view['ticket']}\n")
            approver.stdin.flush()
            began, _, error = approver.stdout.readline().strip().partition(" ")
            if error:
                raise RuntimeError(error)
            _, ended = holding.stdout.readline().split()
            found.append((int(ended) - int(began)) / 1e6)
        approver.stdin.close()
    return found


@contextmanager
def looking(page: Page) -> Iterator[list[str]]:
    """The page of what waits is open; what it was told."""
    told: list[str] = []

    def listen() -> None:
        with CREW.entered(), httpx2.Client(base_url=URL, timeout=None) as client, client.stream(
                "GET", "/events/holds", headers={"Cookie": f"weir={page.cookies['weir']}"}) as answer:
            told.extend(answer.iter_text())

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    yield told
    page.ask("POST", "/logout", csrf=field("csrf", page.ask("GET", "/").text))
    thread.join(30)


def measure(installed: Installed, page: Page, sessions: int, seconds: float) -> str:
    idle = spent(installed, seconds)
    holding = subprocess.Popen(
        installed.crew_argv(PYTHON, "-c", HOLDING, str(sessions)), stdout=subprocess.PIPE, text=True,
        cwd=installed.lab.home, env=installed.lab.client_environment(environment(installed.lab, "wrong")))
    try:
        wait_until(f"{sessions} holds", lambda: len(held(installed)) == sessions, 120)
        wait_until("their plans", lambda: all(one["plan"] != "being asked for" for one in held(installed)), 300)
        with looking(page) as told:
            wait_until("the page", lambda: told, 30)
            time.sleep(2)
            busy = spent(installed, seconds)
        took = latencies(installed, holding)
    finally:
        holding.kill()
        holding.communicate()
    return render(sessions, seconds, idle, busy, took)


def render(
    sessions: int, seconds: float, idle: dict[str, float], busy: dict[str, float], took: list[float],
) -> str:
    """A Markdown table, and whether the targets are met."""
    rows = "".join(
        f"| {name} | {idle[name]:.2f} | {busy[name]:.2f} | {busy[name] - idle[name]:+.2f} |\n" for name in idle)
    added, middle = sum(busy.values()) - sum(idle.values()), statistics.median(took)
    late = sorted(took)[int(len(took) * 0.95)]
    quiet, quick = ("met" if met else "**not met**" for met in (added <= QUIET, middle <= TARGET))
    return (
        f"### {sessions} held sessions for {seconds:.0f} s\n\n| process | % of a processor, idle | held | added |\n"
        f"|---|---|---|---|\n{rows}\nAdded {added:.2f} % of a processor, target at most {QUIET:.0f}: {quiet}.  Approve "
        f"to the client's result: median {middle:.1f} ms, 95 of a hundred within {late:.1f} ms; target of "
        f"approve-to-forward {TARGET:.0f}: {quick}.\n")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.held")
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args(arguments)
    with lab() as made, ExitStack() as stack:
        with CREW.entered():
            provider = stack.enter_context(serving(made.scratch))
        more = settings(provider, made.scratch / "idp.pem") + PAGE.format(
            url=URL, listen=f"127.0.0.1:{PORT}", more="")
        installed = stack.enter_context(weir(made, configure(made, policy=POLICY, more=more)))
        with CREW.entered():
            client = stack.enter_context(httpx2.Client(base_url=URL, timeout=30))
        page = Page(provider, client).log_in("carol", "dba")
        print(measure(installed, page, given.sessions, given.seconds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
