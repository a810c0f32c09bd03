"""Kubernetes: direct and through Weir, interleaved in one run, with recording and the masks of Secrets on.

    PYTHONPATH=tests:. python -P -m bench.kubernetes [--quick] [--out FILE]         root

The proxy's processor time is of enforcer and recorder together; of bulk, a megabyte.
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
from lab.kube import ALL, KUBECTL, KubeLab, kube_lab, kube_weir
from lab.lab import lab
from lab.weir import Installed

LISTED = 0.7                          # of direct
ADDED = 2000.0                        # microseconds that a get may take longer
PODS = 5000
SECRETS = 200
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Measure:
    name: str
    title: str
    count: int
    quick: int


MEASURES = (
    Measure("get", "gets of a pod on one connection, one after the other", 1000, 300),
    Measure("list", f"lists of {PODS} pods, one after the other", 10, 4),
    Measure("secrets", f"lists of {SECRETS} Secrets, masked, one after the other", 40, 15),
    Measure("watches", "200 watches, events that they see", 20, 8),
    Measure("exec", "commands by exec, each with its handshakes", 60, 20),
    Measure("read", "bytes read from a command (kubectl exec)", 400_000_000, 100_000_000),
    Measure("write", "bytes written to a command (kubectl exec)", 400 << 20, 100 << 20),
)


def once(way: str, made: KubeLab, installed: Installed, measure: Measure, count: int) -> Run:
    argv = [PYTHON, str(made.lab.home / "kube_client.py"), measure.name, str(count)]
    chosen = {"KUBECTL": KUBECTL, "KUBECONFIG": str(made.config)}
    pids = [installed.pids()[name] for name in ("enforcer", "recorder")] if way == "weir" else []
    before = processor(pids)
    done = (installed.crew(*argv, environment=chosen, timeout=300) if pids
            else made.control(*argv, environment={"KUBECTL": KUBECTL}, timeout=300))
    if done.returncode != 0:
        raise RuntimeError(f"{way}, {measure.name}: {done.stderr[:300]} ... {done.stderr[-500:]}")
    told = json.loads(done.stdout)
    return Run(told["rate"], told["p50"], (processor(pids) - before) * 1e6 / told["count"])


def against_targets(measure: Measure, found: list[dict[str, Run]]) -> str:
    if measure.name == "list":
        return against_ratio(ratios(found, "weir", "direct").median, LISTED)
    return against_added(found, ADDED) if measure.name == "get" else ""


def measured(made: KubeLab, installed: Installed, measure: Measure, quick: bool) -> str:
    count = measure.quick if quick else measure.count
    found = rounds(measure.title, lambda way: once(way, made, installed, measure, count), quick)
    return table(measure.title, found) + against_targets(measure, found)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.kubernetes")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=[one.name for one in MEASURES], action="append")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    chosen = [one for one in MEASURES if not given.only or one.name in given.only]
    with ExitStack() as stack:
        made = stack.enter_context(kube_lab(stack.enter_context(lab())))
        installed = stack.enter_context(kube_weir(made, ALL))
        made.lab.give(HERE / "kube_client.py")
        made.cluster.kubectl("create", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"bench-{number}", "namespace": "shop"},
             "stringData": {"password": f"{number:064}", "user": "bench"}} for number in range(SECRETS)]}))
        said = [measured(made, installed, one, given.quick) for one in chosen if one.name != "list"]
        if any(one.name == "list" for one in chosen):
            made.cluster.fill(PODS)            # afterwards: it slows down everything else
            said += [measured(made, installed, one, given.quick) for one in chosen if one.name == "list"]
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    text = (f"# Benchmark of Kubernetes\n\n{when} UTC, Linux {os.uname().release}, {os.cpu_count()} cores shared by "
            "client, proxy, API server and etcd; recording on, Secrets masked. Median (least-most) of rounds; of bulk "
            "the rate is bytes a second, the cost of a megabyte. Targets: list 0.70 of direct, under 2 ms added to a "
            "get.\n\n" + "\n".join(said))
    print(text)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
