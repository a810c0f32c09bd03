"""Documentation is run: commands exist, configuration and policies parse, tables hold."""
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import weir
from agent.config import parse_config
from enforcer.policy.cedar import load_policies
from enforcer.policy.tables import failures, parse_table

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/operator").glob("*.md"))]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.S)


def blocks(language: str) -> list[str]:
    return [text for page in PAGES for kind, text in BLOCK.findall(page.read_text()) if kind == language]


def commands() -> set[tuple[str, ...]]:
    """`weir WORD [WORD]` as the pages name them."""
    found = set()
    for page in PAGES:
        said = "\n".join(re.findall(r"`([^`\n]+)`", page.read_text()))
        for line in re.findall(r"(?:sudo )?\bweir ([a-z][a-z -]*)", said):
            words = tuple(word for word in line.split() if not word.startswith("-"))
            found.add(words[:2] if words[0] in ("approvals", "egress", "policy", "sessions") else words[:1])
    return found


@pytest.mark.parametrize("words", sorted(commands()), ids=" ".join)
def test_commands_exist(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(weir, [*words, "--help"])
    assert done.exit_code == 0, done.output


def test_policies_of_the_pages() -> None:
    policies = load_policies({f"block{n}.cedar": text for n, text in enumerate(blocks("cedar"))})
    rows = [row for text in blocks("text") if "EXPECTED" in text for row in parse_table("docs", text)]
    assert rows
    assert not list(failures(policies, iter(rows)))


@pytest.mark.parametrize("text", [one for one in blocks("toml") if "[[target]]" in one])
def test_targets_of_the_pages(text: str) -> None:
    """What a page leaves out, because it was said before, are fields that are needed."""
    _, report = parse_config(text, "block.toml")
    assert not report.problems, "\n".join(map(str, report.problems))


def anchors(page: Path) -> set[str]:
    """As forges make them of headings."""
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#{1,6} (.*)$", page.read_text(), re.M)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        if not link.startswith("http"):
            there = (page.parent / link) if link else page
            assert there.exists(), link
            assert not anchor or anchor in anchors(there), f"{link}#{anchor}"


def test_files_of_the_clone_that_pages_name_are_there() -> None:
    for page in PAGES:
        for path in re.findall(r"(?<![\w./])(?:packaging|agent|enforcer|probes)/[\w./-]*\w", page.read_text()):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_what_the_readme_says_to_edit_is_in_the_default_files() -> None:
    said, default = PAGES[0].read_text(), ROOT / "packaging/default"
    own = said[said.index("## Your own database"):said.index("## What works")]
    text = (default / "weir.toml").read_text()
    tables = set(re.findall(r"\[\[[a-z.]+\]\]", own))
    assert tables >= {"[[target]]", "[[target.credential]]", "[[egress]]", "[[workload]]"}
    assert all(f"#{table}\n" in text for table in tables)
    for path in re.findall(r"/etc/weir/([\w/]+\.(?:toml|cedar))", own):
        assert (default / path).exists(), path


def test_bootstrap_says_what_it_does() -> None:
    done = subprocess.run([str(ROOT / "bootstrap"), "help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout
    assert sys.version_info >= (3, 11)
