"""The arithmetic of the benchmark."""
from __future__ import annotations

import pytest
from bench import figures

PGBENCH = """\
scaling factor: 1
number of transactions actually processed: 4242
number of failed transactions: 0 (0.000%)
latency average = 0.123 ms
tps = 8123.456 (without initial connection time)
"""


def test_pgbench_is_read() -> None:
    assert figures.parse_pgbench(PGBENCH) == (8123.456, 4242)


@pytest.mark.parametrize("text", ["", PGBENCH.replace("failed transactions: 0", "failed transactions: 3")])
def test_a_failed_run_is_no_figure(text: str) -> None:
    with pytest.raises(ValueError, match="did not finish"):
        figures.parse_pgbench(text)


def test_ratios_pair_within_a_round() -> None:
    rounds = [
        {"direct": figures.Run(100, 10, 0), "pgbouncer": figures.Run(50, 20, 5), "weir": figures.Run(25, 40, 9)},
        {"direct": figures.Run(200, 10, 0), "pgbouncer": figures.Run(100, 20, 5), "weir": figures.Run(75, 50, 9)},
    ]
    assert str(figures.ratios(rounds, "weir", "pgbouncer")) == "0.62 (0.50-0.75)"
    assert figures.added(rounds, "weir") == 35
    assert "| weir | 50 | 45 | 35 | 0.62 (0.50-0.75) | 0.31 (0.25-0.38) | 9.0 |" in figures.table("x", rounds)


def test_the_log_gives_the_median() -> None:
    assert figures.parse_log("0 1 100 0 1 2\n0 2 300 0 1 2\n0 3 200 0 1 2\n") == 200


def test_targets_are_said_beside_what_has_one() -> None:
    rounds = [{"direct": figures.Run(100, 10, 0), "pgbouncer": figures.Run(50, 20, 5), "weir": figures.Run(35, 30, 9)}]
    said = figures.against_targets("select-only, simple, 8 clients", rounds)
    assert "0.70 of PgBouncer's, target 0.60: met" in said
    assert "2.0 times PgBouncer's, target at most 2.5: met" in said
    said = figures.against_targets("rows, a masked column", rounds)
    assert "0.35 of going directly, target 0.50: **not met**" in said
    assert not figures.against_targets("select-only, simple, 64 clients", rounds)
    assert not figures.against_targets("rows, no masked column", rounds)


def test_where_pgbouncer_adds_nothing_any_addition_is_too_much() -> None:
    rounds = [{"direct": figures.Run(100, 10, 0), "pgbouncer": figures.Run(50, 10, 5), "weir": figures.Run(35, 30, 9)}]
    assert "inf times PgBouncer's, target at most 2.5: **not met**" in figures.against_targets("x, 8 clients", rounds)


def test_psqls_clock() -> None:
    assert figures.parse_timing("Time: 3.5 ms\nTime: 1.5 ms\nTime: 61001.000 ms (01:01.001)\n", 3) == 3500
    with pytest.raises(ValueError, match="1 of 2"):
        figures.parse_timing("Time: 3.5 ms\n", 2)


def test_what_held_sessions_cost_is_said_beside_its_targets() -> None:
    from bench import held

    said = held.render(200, 60, {"enforcer": 0.1, "agent": 1.0}, {"enforcer": 0.3, "agent": 1.1}, [3.0, 5.0, 40.0])
    assert "| enforcer | 0.10 | 0.30 | +0.20 |" in said
    assert "Added 0.30 % of a processor, target at most 1: met" in said
    assert "median 5.0 ms" in said
    assert said.rstrip().endswith("20: met.")
    assert "**not met**" in held.render(2, 60, {"enforcer": 0.1}, {"enforcer": 9.0}, [30.0])
