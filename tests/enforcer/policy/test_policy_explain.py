"""`weir policy explain`: who asks, by weir.toml and groups.toml beside the policies, and what of unknown names."""
from __future__ import annotations

import grp
import json
import os
import pwd
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.cli import weir
from agent.config import parse_config
from agent.settings.groups_file import parse_groups
from enforcer.policy.beside import parse_beside

CONFIG = """
[[target]]
name = "orders"
[[workload]]
name = "crew"
users = ["newcrew"]
[[workload]]
name = "unit"
[[workload]]
name = "person"
users = ["newcrew"]
person = true
[[provider]]
name = "corp"
groups = { staff = "given" }
"""
GROUPS = """
[groups]
data = ["user:newcrew", "subject:corp:7b1f"]
crews = ["workload:crew"]
both = ["weir:crews", "weir:given"]
unix = ["group:%s"]
"""
ROOT = Path(__file__).resolve().parents[3]
SQL = "SELECT 1 FROM t"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Each group may read a table of its name."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/a.cedar").write_text("".join(
        f'@id("{group}") permit (principal in Group::"{group}", action, resource in Target::"orders");\n'
        for group in ("data", "crews", "both", "unix", "given", "more")))
    (tmp_path / "weir.toml").write_text(CONFIG)
    (tmp_path / "groups.toml").write_text(GROUPS % grp.getgrgid(pwd.getpwuid(os.getuid()).pw_gid).gr_name)
    return tmp_path / "weir.toml"


def explain(file: Path, *arguments: str, sql: str = SQL, target: str = "orders") -> Result:
    return CliRunner().invoke(weir, ["--config", str(file), "policy", "explain", "--target", target, "--database",
                                     "shop", *arguments, sql])


@pytest.mark.parametrize(("arguments", "rules"), [
    ("--subject local:newcrew", {"data"}), ("--subject local:ada", set()), ("--subject corp:7b1f", {"data"}),
    ("--workload crew", {"data", "crews", "both"}), ("--workload crew --subject local:ada", {"crews", "both"}),
    ("--workload unit --subject corp:7b1f", {"data"}), ("--subject local:ada --group given", {"given", "both"}),
    ("--subject local:newcrew --group given", {"data", "given", "both"}),
    (f"--subject local:{pwd.getpwuid(os.getuid()).pw_name}", {"unix"}),
])
def test_groups_are_those_of_the_file(file: Path, arguments: str, rules: set[str]) -> None:
    done = explain(file, *arguments.split())
    assert (done.exit_code, done.stderr) == (0 if rules else 1, "")
    found = done.stdout.splitlines()[0].partition("public.t: ")[2]
    assert {one.split()[0] for one in found.split(", ")} == (rules or {"no"})


def test_groups_of_a_file_are_taken_as_the_agent_takes_them(file: Path) -> None:
    text = file.with_name("groups.toml").read_text()
    assert parse_beside("", text).groups == parse_groups(text, "groups.toml")[0].groups
    config = (ROOT / "packaging/default/weir.toml").read_text()
    config = re.sub(r"(?m)^#(?=[a-z_\[])", "", config)
    made, report = parse_config(config, "weir.toml")
    assert made is not None, report.problems
    found = parse_beside(config, "")
    assert found.targets == {one.name for one in made.targets}
    assert {name: one.users for name, one in found.workloads.items()} == {one.name: one.users for one in made.workloads}
    assert found.given == {group for one in made.providers for group in one.groups.values()}


@pytest.mark.parametrize(("arguments", "target", "note"), [
    ("--subject local:newcrew", "odrers", 'there is no target "odrers" in weir.toml: there is orders'),
    ("--subject local:newcrew --group dta", "orders", 'there is no group "dta" in groups.toml: there is both, crews'),
    ("--subject local:newcrew --workload crw", "orders", 'there is no workload "crw" in weir.toml: there is crew'),
])
def test_unknown_names_are_noted_and_answered(file: Path, arguments: str, target: str, note: str) -> None:
    done = explain(file, *arguments.split(), target=target)
    assert done.stderr.startswith(f"weir: note: {note}")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout.splitlines()[-1].startswith("permit" if target == "orders" else "deny: ")


def test_notes_are_in_the_document(file: Path) -> None:
    done = explain(file, "--subject", "local:newcrew", "--json", target="odrers")
    assert (done.exit_code, done.stderr) == (1, "")
    assert json.loads(done.stdout)["notes"] == ['there is no target "odrers" in weir.toml: there is orders']
    file.write_text("x =")
    assert "are not known" in json.loads(explain(file, "--subject", "a:b", "--json").stdout)["notes"][0]


@pytest.mark.parametrize("name", ["unit", "person", "crw"])
def test_who_acts_through_a_workload_is_not_guessed(file: Path, name: str) -> None:
    done = explain(file, "--workload", name)
    assert (done.exit_code, done.stdout) == (1, "")
    assert f'who acts through workload "{name}" is not said' in done.stderr


def test_somebody_asks(file: Path) -> None:
    done = explain(file)
    assert done.exit_code == 2
    assert "Missing option '--subject' or '--workload'" in done.stderr


@pytest.mark.parametrize("sql", ["", " ", ";", "/* nothing */"])
def test_no_statement_is_not_permitted(file: Path, sql: str) -> None:
    done = explain(file, "--subject", "local:newcrew", sql=sql)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "SQL holds no statement" in done.stderr


@pytest.mark.parametrize(("name", "text"), [("groups.toml", "[groups"), ("weir.toml", "x = "), ("weir.toml", None)])
def test_files_beside_that_cannot_be_read(file: Path, name: str, text: str | None) -> None:
    if text is None:
        file.unlink()
    else:
        file.with_name(name).write_text(text)
    done = explain(file, "--subject", "local:newcrew", "--group", "more")
    assert done.stdout.splitlines()[-1] == "permit"
    assert ("weir: note: groups of groups.toml are not known: " in done.stderr) is (text is not None)


@pytest.mark.parametrize("text", [
    "groups = 3", "[groups]\na = 3", "[groups]\na = [3, [4]]", "[[provider]]\ngroups = {a = 3}",
    "target = 3\nworkload = [3]", "[[workload]]\nname = 3\nusers = 3", "[[provider]]\ngroups = [3]",
])
def test_what_is_not_as_it_should_be_is_not_taken(text: str) -> None:
    found = parse_beside(text, text)
    assert not found.targets | found.workloads.keys() | found.given
    assert not any(found.groups.values())


def test_help_says_what_is_not_looked_at(file: Path) -> None:
    said = " ".join(explain(file, "--help").stdout.split())
    assert "Labels of columns are not looked at" in said
    assert '"connect", which a session needs before it says anything, is not asked' in said
