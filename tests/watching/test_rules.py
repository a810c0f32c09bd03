"""The alerts, by Prometheus's own promtool: each fires where it should, and not where it nearly should."""
from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.contract.families import BY_NAME, FAMILIES, Sample
from enforcer.metrics.rendering import render_metrics

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "packaging/prometheus/weir.rules.yml"
TESTS = RULES.with_name("weir.test.yml")
ALERTS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
METRIC = re.compile(r"\bweir_[a-z_]+\b")
MATCHER = re.compile(r'(\w+)\s*=~?\s*"[^"]*"')


def run(*command: str | Path, input: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120, input=input)


def test_promtool_takes_them(tools: Path) -> None:
    done = run(tools / "promtool", "check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_each_fires_where_it_should(tools: Path) -> None:
    done = run(tools / "promtool", "test", "rules", TESTS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_is_tried_both_ways() -> None:
    tried = [one["name"] for one in yaml.safe_load(TESTS.read_text())["tests"]]
    assert tried == [f"{one['alert']} {way}" for one in ALERTS for way in ("fires", "does not")]


def test_promtool_finds_nothing_to_mend_in_the_figures(tools: Path) -> None:
    every = (Sample(one.name, tuple(f"a {name}" for name in one.labels), 1.0) for one in FAMILIES)
    done = run(tools / "promtool", "check", "metrics", input=render_metrics(every, "")[0].decode())
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("alert", ALERTS, ids=lambda one: str(one["alert"]))
def test_an_alert_names_what_there_is(alert: dict[str, Any]) -> None:
    names = METRIC.findall(alert["expr"])
    assert set(names) <= set(BY_NAME)
    labels = {"instance", "job", *(label for name in names for label in BY_NAME[name].labels)}
    said = " ".join([alert["annotations"]["summary"], alert["annotations"]["description"]])
    assert set(re.findall(r"\$labels\.(\w+)", said)) <= labels
    assert set(MATCHER.findall(alert["expr"])) <= labels
