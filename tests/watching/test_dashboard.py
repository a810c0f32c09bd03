"""The dashboard: by Grafana's own types, and each query by promtool and by the metrics that there are."""
from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.contract.families import BY_NAME

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "packaging/grafana/weir.json"
BOARD: dict[str, Any] = json.loads(FILE.read_text())
PANELS: list[dict[str, Any]] = BOARD["panels"]
QUERIES = [(one["title"], target["expr"]) for one in PANELS for target in one.get("targets", ())]
METRIC = re.compile(r"\bweir_[a-z_]+\b")
TSC = ("--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--moduleResolution", "nodenext", "--target",
       "es2022")


def typed(tools: Path, scratch: Path, board: Path) -> str:
    """What the compiler of TypeScript says of it."""
    (scratch / "node_modules").symlink_to(tools / "node_modules")
    made = subprocess.run(["node", str(Path(__file__).with_name("grafana.mjs")), str(board)], capture_output=True,
                          text=True, timeout=60, check=True)
    (scratch / "board.ts").write_text(made.stdout)
    done = subprocess.run(["node", str(tools / "node_modules/typescript/bin/tsc"), *TSC, "board.ts"], cwd=scratch,
                          capture_output=True, text=True, timeout=120)
    assert (done.returncode == 0) == (not done.stdout), done.stdout + done.stderr
    return done.stdout


def test_it_is_what_grafana_takes(tools: Path, tmp_path: Path) -> None:
    assert typed(tools, tmp_path, FILE) == ""


@pytest.mark.parametrize(("right", "wrong"), [
    ('"placement": "bottom"', '"placement": "botom"'), ('"type": "prometheus"', '"kind": "prometheus"'),
    ('"schemaVersion": 39', '"schemaVersion": "39"'), ('"drawStyle": "line"', '"drawStyle": "lines"')])
def test_what_grafana_does_not_take_is_seen(tools: Path, tmp_path: Path, right: str, wrong: str) -> None:
    text = FILE.read_text()
    assert right in text
    (tmp_path / "wrong.json").write_text(text.replace(right, wrong))
    assert "error TS" in typed(tools, tmp_path, tmp_path / "wrong.json")


def test_promtool_takes_each_query(tools: Path, tmp_path: Path) -> None:
    rules = [{"record": f"panel:query:{at}", "expr": expr.replace("$__rate_interval", "5m")}
             for at, (_, expr) in enumerate(QUERIES)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    done = subprocess.run([str(tools / "promtool"), "check", "rules", str(tmp_path / "rules.yml")],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("title", "expr"), QUERIES)
def test_a_query_names_what_there_is(title: str, expr: str) -> None:
    names = METRIC.findall(expr)
    assert names, title
    assert set(names) <= set(BY_NAME)
    labels = {"instance", *(label for name in names for label in BY_NAME[name].labels)}
    assert set(re.findall(r'(\w+)=~?"', expr)) <= labels
    for listed in re.findall(r"by \(([^)]*)\)", expr):
        assert set(re.split(r",\s*", listed)) <= labels


def test_panels_lie_beside_one_another() -> None:
    taken: set[tuple[int, int]] = set()
    for place in (one["gridPos"] for one in PANELS):
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({one["id"] for one in PANELS}) == len(PANELS)


def test_legends_show_labels_that_are_left() -> None:
    for one in PANELS:
        for target in one.get("targets", ()):
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            if listed := re.search(r"by \(([^)]*)\)", target["expr"]):
                assert shown <= set(re.split(r",\s*", listed[1])), one["title"]
