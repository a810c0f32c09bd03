"""What `weir check` adds to a configuration that is right: notes."""
from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec
import pytest

from agent import advice
from agent.config import Config, parse_config
from enforcer.policy.cedar import load_policies

DEFAULT = Path(__file__).resolve().parents[2] / "packaging/default"
EXAMPLES = DEFAULT / "policies/examples.cedar"
UNCOMMENTED = re.sub(r"(?m)^//(?=[@a-z])", "", EXAMPLES.read_text())


def config(text: str, **more: object) -> Config:
    made, report = parse_config(text, "/etc/weir/weir.toml")
    assert made is not None, report.problems
    return msgspec.structs.replace(made, **more)


def whole(policy: str) -> Config:
    """All that weir.toml shows as an example is taken; so the names of the example policies are known."""
    text = re.sub(r"(?m)^#(?=[a-z_\[])", "", (DEFAULT / "weir.toml").read_text())
    return config(text, groups={"data": ("workload:crew",), "dba": (), "privacy": ()}, policies={"p.cedar": policy})


def test_the_example_policies_are_right_with_and_without_their_comment_marks() -> None:
    assert not load_policies({"examples.cedar": EXAMPLES.read_text()}).policies.keys() - base()
    load = load_policies({"examples.cedar": UNCOMMENTED})
    assert len(load.policies) == len(base()) + 6
    assert advice.notes(whole(UNCOMMENTED)) == ()
    assert list(advice.missing(whole(UNCOMMENTED))) == []


@pytest.mark.parametrize(("policy", "noted"), [
    ('permit (principal, action, resource) when { context.reported.tool == "x" };', True),
    ('permit (principal, action, resource)\n  unless { context["reported"].certain };', True),
    ('forbid (principal, action, resource) when { context.reported.tool == "x" };', False),
    ('forbid (principal, action, resource) unless { context.reported.certain };', False),
    ('permit (principal, action, resource);\n// context.reported', False),
])
def test_what_permits_by_a_crews_own_word(policy: str, noted: bool) -> None:
    found = [str(one) for one in advice.notes(whole(f'@id("a")\n{policy}'))]
    assert [one.startswith("p.cedar:2: permits by context.reported") for one in found] == [True] * noted


def base() -> set[str]:
    return set(load_policies({}).policies)


def test_a_fresh_copy_says_what_to_fill_in(tmp_path: Path) -> None:
    shutil.copytree(DEFAULT, tmp_path / "etc")
    found = "\n".join(advice.missing(config((tmp_path / "etc/weir.toml").read_text(), policies={
        "examples.cedar": EXAMPLES.read_text()})))
    for piece in ("[[target]]", "[[target.credential]]", "[[workload]]", "[[egress]]", "groups.toml", "permit nothing"):
        assert piece in found


@pytest.mark.parametrize(("policy", "line", "wanted"), [
    ('permit (principal, action, resource in Target::"odrers");', 1, 'Target::"odrers" names no [[target]]'),
    ('\n// Target::"not-looked-at"\npermit (principal, action, resource == Table::"shop/shop/public/x");', 3,
     'Table::"shop" names no [[target]]: there is orders'),
    ('permit (principal in Group::"dota", action, resource);', 1, 'Group::"dota" names no group of groups.toml'),
    ('@id("h") @hold("within=1m, approvers=dba ops")', 1, 'Group::"ops" names no group of groups.toml'),
    ('@id("h") @hold("approvers=dba, break-glass=fire")', 1, 'Group::"fire" names no group of groups.toml'),
    ('@id("h") @hold("approvers=dba, escalate=10m:dba boss")', 1, 'Group::"boss" names no group of groups.toml'),
    ('permit (principal, action, resource in Label::"ipi");', 1, 'Label::"ipi" names no [[target.label]]'),
    ('permit (principal in Workload::"screw", action, resource);', 1, 'Workload::"screw" names no [[workload]]'),
])
def test_names_that_nothing_has(policy: str, line: int, wanted: str) -> None:
    [note] = advice.notes(whole(policy))
    assert (note.file, note.line) == ("p.cedar", line)
    assert wanted in note.message


def test_egress_that_is_not_enforced() -> None:
    workloads = """
[[workload]]
name = "one"
users = ["crew"]
[[workload]]
name = "two"
users = ["crew"]
egress = "enforce"
[[workload]]
name = "three"
users = ["crew"]
egress = "record"
"""
    made = config('[egress_policy]\nmode = "shadow"\n' + workloads)
    assert made.egress_modes == {"one": "shadow", "three": "record"}
    said = list(advice.lax(made))
    assert [one.partition(",")[0] for one in said] == [
        "egress: shadow for workload one: NOT ENFORCED", "egress: record for workload three: NOT ENFORCED"]
    assert not list(advice.lax(config(workloads.replace('"record"', '"enforce"'))))
    _, report = parse_config('[egress_policy]\nmode = "permissive"\n', "x")
    assert "one of enforce, shadow, record would be right" in str(report.problems[0])
