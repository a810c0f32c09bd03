"""SSH: direct and through Weir, interleaved in one run, with recording on.

    PYTHONPATH=tests:. python -P -m bench.ssh [--quick] [--out FILE]         root

Handshakes, commands on one connection, keys in a terminal, many sessions at once by asyncssh; bulk by OpenSSH's own
programs.  The proxy's processor time is of enforcer and recorder together; of bulk, a megabyte.
"""
from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.__main__ import processor
from bench.figures import Run, ratios, table
from bench.rounds import against_added, against_ratio, rounds
from clients.test_clients import PYTHON
from lab.lab import lab
from lab.ssh import SshLab, ssh_lab, ssh_weir
from lab.weir import Installed

BULK = 0.4                            # of direct, with recording on
ADDED = 2000.0                        # microseconds that an exec may take longer
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Measure:
    name: str
    title: str
    count: int
    quick: int

    @property
    def bulk(self) -> bool:
        return self.name in ("read", "write", "get", "put")


MEASURES = (
    Measure("handshake", "handshakes, one after the other", 60, 20),
    Measure("exec", "commands on one connection, one after the other", 400, 100),
    Measure("echo", "keys in a terminal, until they are seen", 2000, 500),
    Measure("sessions", "200 sessions at once, a command in each", 200, 60),
    Measure("read", "bytes read from a command (ssh)", 400_000_000, 100_000_000),
    Measure("write", "bytes written to a command (ssh)", 400_000_000, 100_000_000),
    Measure("get", "bytes read from a file (sftp)", 400_000_000, 100_000_000),
    Measure("put", "bytes written to a file (sftp)", 400_000_000, 100_000_000),
)


def once(way: str, made: SshLab, installed: Installed, measure: Measure, count: int) -> Run:
    made.ssh.fresh("bench")
    argv, chosen = [PYTHON, str(made.lab.home / "ssh_client.py"), measure.name, str(count)], made.environment("bench")
    pids = [installed.pids()[name] for name in ("enforcer", "recorder")] if way == "weir" else []
    before = processor(pids)
    done = (installed.crew(*argv, environment=chosen, timeout=300) if pids
            else made.control(*argv, environment=chosen))
    if done.returncode != 0:
        raise RuntimeError(f"{way}, {measure.name}: {done.stderr[-800:]}")
    told = json.loads(done.stdout)
    return Run(told["rate"], told["p50"], (processor(pids) - before) * 1e6 / told["count"])


def against_targets(measure: Measure, found: list[dict[str, Run]]) -> str:
    if measure.bulk:
        return against_ratio(ratios(found, "weir", "direct").median, BULK)
    return against_added(found, ADDED) if measure.name == "exec" else ""


def measured(made: SshLab, installed: Installed, measure: Measure, quick: bool) -> str:
    count = measure.quick if quick else measure.count
    found = rounds(measure.title, lambda way: once(way, made, installed, measure, count), quick)
    return table(measure.title, found) + against_targets(measure, found)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.ssh")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=[one.name for one in MEASURES], action="append")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    with ExitStack() as stack:
        made = stack.enter_context(ssh_lab(stack.enter_context(lab())))
        installed = stack.enter_context(ssh_weir(made))
        made.lab.give(HERE / "ssh_client.py")
        said = [measured(made, installed, one, given.quick)
                for one in MEASURES if not given.only or one.name in given.only]
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    text = (f"# Benchmark of SSH\n\n{when} UTC, Linux {os.uname().release}, {os.cpu_count()} cores shared by client, "
            "proxy and server; recording on, 64 KiB of each stream kept. Median (least-most) of rounds; of "
            "bulk the rate is bytes a second, the cost of a megabyte. Targets: bulk 0.40 of direct, under 2 ms added "
            "to an exec besides the handshake.\n\n" + "\n".join(said))
    print(text)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
