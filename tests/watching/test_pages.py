"""What docs/operator.md says of metrics and alerts is what there is."""
from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml

from agent.config import parse_config
from agent.contract.families import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/operator.md").read_text()
SECTION = PAGE[PAGE.index("## Watching Weir"):PAGE.index("## Disk")]
RULES = ROOT / "packaging/prometheus/weir.rules.yml"


def rows(first: str) -> list[list[str]]:
    """Of the table whose first column has that head."""
    lines = SECTION[SECTION.index(f"| {first} |"):].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_each_metric_stands_there() -> None:
    said = [[cell.strip() for cell in row] for row in rows("metric")]
    assert said == [[f"`{one.name}`", one.kind, ", ".join(f"`{label}`" for label in one.labels), one.meaning]
                    for one in FAMILIES]


def test_each_alert_has_something_to_do() -> None:
    alerts = [one["alert"] for one in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]]
    said = rows("alert")
    assert [row[0] for row in said] == alerts
    assert all(len(row) == 3 and row[1] and row[2] for row in said)


def test_links_within_the_page_lead_somewhere() -> None:
    heads = {re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-")
             for head in re.findall(r"(?m)^#+ (.+)$", PAGE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", SECTION)) <= heads


def test_prometheus_takes_the_configuration(tools: Path, tmp_path: Path) -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", SECTION, re.S)
    (tmp_path / "prometheus.yml").write_text(text.replace("/etc/prometheus", str(RULES.parent)))
    done = subprocess.run([str(tools / "promtool"), "check", "config", str(tmp_path / "prometheus.yml")],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS: 1 rule files found" in done.stdout
    [target] = yaml.safe_load(text)["scrape_configs"][0]["static_configs"][0]["targets"]
    [block] = re.findall(r"```toml\n(.*?)```", SECTION, re.S)
    config, report = parse_config(block, "block.toml")
    assert config is not None, report.problems
    assert config.metrics.listen == (target.rpartition(":")[0], int(target.rpartition(":")[2]))
