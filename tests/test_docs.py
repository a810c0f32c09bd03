"""Documentation is run: commands exist, configuration and policies parse, tables hold."""
from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from agent.cli import weir
from agent.config import parse_config
from agent.settings.groups_file import parse_groups
from enforcer.core.layer import Layer
from enforcer.policy.cedar import load_policies
from enforcer.policy.tables import failures, parse_table
from enforcer.protocols import Protocol

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/operator").glob("*.md"))]
BLOCK = re.compile(r"^ *```(\w+)\n(.*?)```", re.M | re.S)
CONTEXT = click.Context(weir)


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


@pytest.mark.parametrize("text", [one for one in blocks("toml") if not one.startswith(("[groups]", "[people]"))])
def test_configurations_of_the_pages(text: str) -> None:
    """What a page leaves out, because it was said before, are fields that are needed."""
    _, report = parse_config(text, "block.toml")
    assert not report.problems, "\n".join(map(str, report.problems))


@pytest.mark.parametrize("text", [one for one in blocks("toml") if one.startswith(("[groups]", "[people]"))])
def test_groups_of_the_pages(text: str) -> None:
    _, report = parse_groups(text, "block.toml")
    assert not report.problems, "\n".join(map(str, report.problems))


def test_every_block_is_of_a_kind_that_is_looked_at() -> None:
    """Of other programs' own (HCL of Vault, sshd_config, a unit's drop-in) there are few."""
    kinds = [kind for page in PAGES for kind, _ in BLOCK.findall(page.read_text())]
    assert set(kinds) <= {"text", "toml", "sh", "cedar", "sql", "ini", "hcl", "sshd_config", "yaml"}
    assert len([one for one in kinds if one in ("ini", "hcl", "sshd_config", "yaml")]) <= 4


def test_what_policies_page_explains_is_permitted(tmp_path: Path) -> None:
    """With the policies of that page."""
    page = ROOT / "docs/policy.md"
    found = {kind: [text for one, text in BLOCK.findall(page.read_text()) if one == kind] for kind in ("cedar", "sh")}
    (tmp_path / "policies").mkdir()
    for number, text in enumerate(found["cedar"]):
        (tmp_path / f"policies/{number}.cedar").write_text(text)
    lines = [shlex.split(line)[1:] for text in found["sh"] for line in text.splitlines()]
    assert len(lines) >= 2
    for words in lines:
        done = CliRunner().invoke(weir, [*words[:2], "--policies", str(tmp_path / "policies"), *words[2:]])
        assert done.exit_code == 0, done.output
        assert "permit" in done.output


def said_to_run() -> list[str]:
    """Lines of blocks, and of tables and sentences what stands in backquotes and begins with `weir`."""
    lines = [line for text in blocks("sh") for line in text.splitlines() if line and not line.startswith("#")]
    for page in PAGES:
        if not page.name.startswith("reference-"):
            lines += re.findall(r"`((?:sudo )?weir [^`\n]*)`", page.read_text())
    return sorted(set(lines))


@pytest.mark.parametrize("text", blocks("sh"))
def test_blocks_are_a_shells(text: str) -> None:
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", said_to_run())
def test_commands_have_these_options(line: str) -> None:
    """Every `weir ...` of the pages, with its options."""
    for said in re.findall(r"\bweir ((?:[a-z][a-z-]*|--?[a-z]).*?)(?=\)|\||>|#|$)", line):
        words = said.replace("[", " ").replace("]", " ").split()
        command: click.Command = weir
        while words and isinstance(command, click.Group) and (inner := command.get_command(CONTEXT, words[0])):
            command = inner
            words.pop(0)
        mine = words[:words.index("--")] if "--" in words else words
        known = {flag for one in (*command.params, *weir.params) for flag in (*one.opts, *one.secondary_opts)}
        for flag in re.findall(r"(?<!\S)--[a-z][a-z-]*|(?<!\S)-[a-z](?!\S)", " ".join(mine)):
            assert flag in known | {"--help"}, f"{line}: {flag}"


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
        for path in re.findall(r"(?<![\w./*])(?:packaging|agent|enforcer|probes|tests)/[\w./-]*\w", page.read_text()):
            assert (ROOT / path).exists() or [*ROOT.glob(f"{path}*")], f"{page.name}: {path}"


def test_names_that_pages_say_are_in_these_files() -> None:
    """`path` (`name`): a function, class or table there."""
    found = [one for page in PAGES for one in re.findall(
        r"`((?:agent|enforcer|probes|tests)/[\w./-]+\.py)`\s+\(`(\w+)`\)", page.read_text())]
    assert len(found) > 20
    for path, name in found:
        text = (ROOT / path).read_text()
        assert re.search(rf"^(?:class|(?:async )?def) {name}\b|^{name}\b.* = ", text, re.M), (path, name)


def test_the_glossary_is_in_order() -> None:
    words = re.findall(r"^\| ([a-z][a-z ]*) \|", (ROOT / "docs/glossary.md").read_text(), re.M)[1:]
    assert len(words) > 50
    assert words == sorted(set(words))


def test_every_field_of_a_protocols_entry_is_told() -> None:
    page = (ROOT / "docs/developer.md").read_text()
    section = page[page.index("## Adding a protocol"):page.index("## How to test")]
    assert {one.name for one in fields(Protocol)} - {"name"} <= set(re.findall(r"`(\w+)`", section))
    assert [one for one in dir(Layer) if not one.startswith("_") and f"`{one}`" not in section] == []


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


def test_versions_of_the_readme_are_those_that_tests_use() -> None:
    readme = PAGES[0].read_text()
    locked = dict(re.findall(r"^([a-z0-9-]+)==([\w.]+)", "".join(
        (ROOT / f"requirements-{one}.lock").read_text() for one in ("crew", "clients")), re.M))
    for said, package in (
            ("psycopg2 {}", "psycopg2-binary"), ("psycopg {}", "psycopg"), ("asyncpg {}", "asyncpg"),
            ("pg8000 {}", "pg8000"), ("SQLAlchemy {}", "sqlalchemy"), ("paramiko {}", "paramiko"),
            ("asyncssh {}", "asyncssh"), ("Fabric {}", "fabric"), ("(core {})", "ansible-core"),
            ("Python's client {}", "kubernetes"), ("crewai {}", "crewai")):
        assert said.format(locked[package]) in readme
    modules = (ROOT / "tests/kube/go.mod").read_text() + (ROOT / "tests/clients/go/go.mod").read_text()
    for said, module in (("kubectl {}", "k8s.io/kubernetes v"), ("API server {}", "k8s.io/kubernetes v"),
                         ("Helm {}", "helm.sh/helm/v3 v"), ("client-go {}", "k8s.io/client-go v"),
                         ("pgx {}", "github.com/jackc/pgx/v5 v")):
        assert said.format(modules.partition(module)[2].split()[0]) in readme
    node = json.loads((ROOT / "tests/clients/node/package.json").read_text())
    assert f"node-postgres {node['dependencies']['pg']}" in readme


def test_figures_of_the_readme_are_measured_ones() -> None:
    """Each row's stand in one row after another of a table in the file that it names."""
    readme = PAGES[0].read_text()
    section = readme[readme.index("## How fast"):readme.index("## Limits, today")]
    rows = re.findall(r"^\| (?!what|---).*? \| (\d+) \| (\d+) \| ([\d.]+) \| (.*) \|$", section, re.M)
    assert len(rows) > 10
    results = ""
    for direct, through, share, measured in rows:
        if link := re.search(r"\]\((docs/results/[\w.-]+)\)", measured):
            results = (ROOT / link[1]).read_text()
            assert re.search(r"\d{4}-\d\d-\d\d", measured)[0] in results.splitlines()[2]
        table = re.search(
            rf"\| (?:direct|pgbouncer) \| {direct} \|(?:(?!\n\n).)*\| weir \| {through} \|[^\n]*", results, re.S)
        assert table, (direct, through)
        assert f" {share} (" in table[0].splitlines()[-1], (direct, through, share)
