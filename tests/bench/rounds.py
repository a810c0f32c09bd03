"""Rounds of one measure: directly and through Weir, in turns, with what a person reads meanwhile."""
from __future__ import annotations

from collections.abc import Callable

from bench.figures import Run


def rounds(title: str, once: Callable[[str], Run], quick: bool) -> list[dict[str, Run]]:
    """`once` runs the way that it is given, "direct" or "weir"; who begins changes with every round."""
    found = []
    for number in range(2 if quick else 3):
        order = ("direct", "weir") if number % 2 == 0 else ("weir", "direct")
        row = {way: once(way) for way in order}
        found.append({way: row[way] for way in ("direct", "weir")})
        print(f"  {title}: " + ", ".join(f"{way} {run.rate:.0f}/s, p50 {run.p50:.0f} µs, {run.cost:.0f} µs CPU"
                                         for way, run in found[-1].items()), flush=True)
    return found


def against_ratio(ratio: float, target: float) -> str:
    return f"\n{ratio:.2f} of going directly, target {target:.2f}: {'met' if ratio >= target else '**not met**'}.\n"


def against_added(found: list[dict[str, Run]], target: float) -> str:
    """Both in microseconds."""
    added = sorted(row["weir"].p50 - row["direct"].p50 for row in found)[len(found) // 2]
    return (f"\n{added / 1000:.1f} ms added, target under {target / 1000:.0f}: "
            f"{'met' if added < target else '**not met**'}.\n")

