"""What a benchmark says: numbers out of pgbench's text, ratios within a round, their median and spread.  Pure."""
from __future__ import annotations

import math
import re
import statistics
from dataclasses import dataclass

THROUGHPUT = 0.6                      # of PgBouncer's statements a second, at 8 clients
LATENCY_TIMES = 2.5                   # times the microseconds that PgBouncer adds to p50, at 8 clients
MASKED_BULK = 0.5                     # of the rows a second of going directly
TPS = re.compile(r"^tps = ([\d.]+)", re.M)
TIMING = re.compile(r"^Time: ([\d.]+) ms", re.M)
LATENCY = re.compile(r"^latency average = ([\d.]+) ms", re.M)
DONE = re.compile(r"^number of transactions actually processed: (\d+)", re.M)
FAILED = re.compile(r"^number of failed transactions: (\d+)", re.M)


@dataclass(frozen=True)
class Run:
    """One run of one way: statements a second, p50 in microseconds, processor microseconds of the proxy a statement."""

    rate: float
    p50: float
    cost: float


@dataclass(frozen=True)
class Spread:
    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f}-{self.most:.2f})"


def parse_pgbench(text: str) -> tuple[float, int]:
    """(statements a second, statements done); ValueError where pgbench failed or lost a transaction."""
    rate, done, failed = TPS.search(text), DONE.search(text), FAILED.search(text)
    if not rate or not done or (failed and failed[1] != "0"):
        raise ValueError(f"pgbench did not finish: {text[-400:]}")
    return float(rate[1]), int(done[1])


def parse_log(text: str) -> float:
    """Median latency in microseconds from pgbench's per-transaction log (-l): the third column is microseconds."""
    return statistics.median(int(line.split()[2]) for line in text.splitlines())


def parse_timing(text: str, times: int) -> float:
    """Median microseconds of psql's `Time:` lines; ValueError where there are not `times` of them."""
    found = [float(one) * 1000 for one in TIMING.findall(text)]
    if len(found) != times:
        raise ValueError(f"{len(found)} of {times} reads were timed: {text[-400:]}")
    return statistics.median(found)


def ratios(rounds: list[dict[str, Run]], way: str, base: str) -> Spread:
    """way's rate over base's, paired within a round."""
    found = [row[way].rate / row[base].rate for row in rounds]
    return Spread(statistics.median(found), min(found), max(found))


def added(rounds: list[dict[str, Run]], way: str) -> float:
    """Microseconds that `way` adds to the median latency of going directly."""
    return statistics.median(row[way].p50 - row["direct"].p50 for row in rounds)


def table(title: str, rounds: list[dict[str, Run]]) -> str:
    """One Markdown table: a row a way."""
    head = (
        f"### {title}\n\n| way | per second | p50 µs | added p50 µs | of PgBouncer | of direct | proxy µs CPU |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    return head + "".join(_row(rounds, way) for way in rounds[0])


def against_targets(title: str, rounds: list[dict[str, Run]]) -> str:
    """A line beside the table for what has a target: is it met?  "" for the rest."""
    if ", 8 clients" in title:
        ratio, pooled = ratios(rounds, "weir", "pgbouncer").median, added(rounds, "pgbouncer")
        times = added(rounds, "weir") / pooled if pooled > 0 else math.inf
        return (f"\nThroughput {ratio:.2f} of PgBouncer's, target {THROUGHPUT:.2f}: {_met(ratio >= THROUGHPUT)}.  "
                f"Added p50 {times:.1f} times PgBouncer's, target at most {LATENCY_TIMES}: "
                f"{_met(times <= LATENCY_TIMES)}.\n")
    if "a masked column" in title:
        ratio = ratios(rounds, "weir", "direct").median
        return f"\n{ratio:.2f} of going directly, target {MASKED_BULK:.2f}: {_met(ratio >= MASKED_BULK)}.\n"
    return ""


def _met(met: bool) -> str:
    return "met" if met else "**not met**"


def _row(rounds: list[dict[str, Run]], way: str) -> str:
    rate, p50, cost = (statistics.median(getattr(row[way], name) for row in rounds) for name in ("rate", "p50", "cost"))
    against = str(ratios(rounds, way, "pgbouncer")) if "pgbouncer" in rounds[0] else "-"
    return (
        f"| {way} | {rate:.0f} | {p50:.0f} | {added(rounds, way):.0f} | {against} | {ratios(rounds, way, 'direct')} "
        f"| {cost:.1f} |\n"
    )
