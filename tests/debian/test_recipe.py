"""The recipe of the Debian package against what it is made from.  What is built is looked at in test_package.py."""
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import weir
from agent.config import MANY, SINGLE

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "packaging/debian"
ALWAYS_THERE = {"python3-venv", "util-linux"}      # for making an environment; essential


def pinned(name: str) -> set[str]:
    return set(re.findall(r"(?m)^([a-z0-9._-]+==\S+)", (ROOT / name).read_text()))


def test_it_depends_on_what_bootstrap_installs() -> None:
    listed = re.search(r"RUNTIME_PACKAGES=\(([^)]*)\)", (ROOT / "bootstrap").read_text())
    assert listed
    depends = re.search(r"(?ms)^Depends: (.*?)^\S", (RECIPE / "control").read_text())
    assert depends
    named = {one.strip() for one in re.split(r"[,|]", re.sub(r"\[[^\]]*\]", "", depends[1]))}
    assert set(listed[1].split()) - ALWAYS_THERE <= named
    assert "linux-headers-amd64" in named, "bcc compiles with some kernel's headers"


def test_it_is_built_with_the_versions_that_are_tested() -> None:
    assert pinned("requirements.lock") <= pinned("requirements-build.lock") <= pinned("requirements-dev.lock")


def test_the_version_is_the_programs() -> None:
    version = re.search(r'(?m)^version = "(.*)"', (ROOT / "pyproject.toml").read_text())
    changelog = re.match(r"weir \((.*)\) ", (RECIPE / "changelog").read_text())
    assert version
    assert changelog
    assert version[1] == changelog[1]


@pytest.mark.parametrize("name", ["preinst", "postinst", "prerm", "postrm"])
def test_scripts_of_dpkgs_are_shell(name: str) -> None:
    subprocess.run(["dash", "-n", str(RECIPE / name)], check=True)
    assert "#DEBHELPER#" in (RECIPE / name).read_text()


def test_pages_lie_beside_each_other_as_their_links_say() -> None:
    """README names docs/operator.md, that operator/targets.md, and what is in there ../../README.md."""
    assert "\tdh_installdocs README.md docs\n" in (RECIPE / "rules").read_text()


def test_every_link_of_a_page_leads_to_one_that_is_packaged() -> None:
    packed = subprocess.run(
        ["bash", "-c", f"{_function('sources')}\nsources"], cwd=ROOT, check=True, capture_output=True, text=True)
    there = {one for one in packed.stdout.split("\0") if one.startswith("docs/") or one == "README.md"}
    pages = sorted(one for one in there if one.endswith(".md"))
    assert len(pages) > 20
    dead = [f"{page}: {link}" for page in pages
            for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", (ROOT / page).read_text())
            if ":" not in link and not _leads(os.path.normpath(Path(page).parent / link), there)]
    assert dead == []


def _function(name: str) -> str:
    """Of packaging/build."""
    found = re.search(rf"(?ms)^{name}\(\) \{{.*?^\}}$", (ROOT / "packaging/build").read_text())
    assert found
    return found[0]


def _leads(place: str, there: set[str]) -> bool:
    """To a file, or to a directory of some."""
    return place in there or any(one.startswith(f"{place}/") for one in there)


def test_units_name_the_command_where_it_is_installed() -> None:
    """One source: bootstrap and the package fill in where it is."""
    for unit in (ROOT / "packaging/systemd").glob("*.service"):
        starts = re.findall(r"(?m)^Exec\w+=(\S+)", unit.read_text())
        assert set(starts) == {"@weir@"}, unit.name
    for rendered in ("s,@weir@,/usr/bin/weir,g", "s,@weir@,$LINK,g"):
        assert any(rendered in file.read_text() for file in (RECIPE / "rules", ROOT / "bootstrap")), rendered


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pages")
    subprocess.run([sys.executable, "packaging/man/pages.py", str(place)], cwd=ROOT, check=True,
                   env={"PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": "0"})
    return place


def test_the_manual_has_every_command(pages: Path) -> None:
    text = (pages / "weir.1").read_text().replace("\\-", "-")
    context = weir.make_context("weir", [], resilient_parsing=True)
    for name in weir.list_commands(context):
        assert f'.SS "weir {name} ' in text, name
    assert '.SS "weir approvals approve ' in text
    assert "1970-01-01" in text


def test_the_manual_has_every_field(pages: Path) -> None:
    text = (pages / "weir.toml.5").read_text().replace("\\-", "-")
    for section in (*SINGLE, *MANY):
        assert f'.SH "[{section.name}]"' in text or f'.SH "[[{section.name}]]"' in text
        for one in section.fields:
            assert f"\\fB{one.name}\\fR" in text, one.name


def test_no_line_of_the_manual_is_taken_for_a_request(pages: Path) -> None:
    """roff(7): one begins with a dot or an apostrophe."""
    known = {".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".br"}
    for page in pages.iterdir():
        for line in page.read_text().splitlines():
            assert not line.startswith((".", "'")) or line.split()[0] in known, f"{page.name}: {line}"
