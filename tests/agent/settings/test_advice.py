"""What `weir check` adds to a configuration that is right: notes."""
from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec
import pytest

from agent.config import Config, parse_config
from agent.settings import advice
from agent.settings.groups_file import parse_groups
from enforcer.policy.cedar import load_policies
from enforcer.policy.model import DEPTHS

DEFAULT = Path(__file__).resolve().parents[3] / "packaging/default"
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
    assert len(load.policies) == len(base()) + 18
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


@pytest.mark.parametrize(("named", "noted"), [
    ('Account::"deploy"', 'is nothing: an Account has 2 parts, Account::"TARGET/ACCOUNT"'),
    ('Object::"prod/shop/pods/exec/web"',
     'is nothing: an Object has 4 parts, Object::"TARGET/NAMESPACE/RESOURCE/NAME"; a `/` within a part is %2F, as in '
     "pods%2Flog"),
    ('Identity::"prod"', 'is nothing: an Identity has 2 parts, Identity::"TARGET/KIND NAME"'),
    ('Database::"web/deploy"', "is nothing: web is a target of protocol ssh, which has no Database"),
    ('Account::"orders/deploy"', "is nothing: orders is a target of protocol postgresql, which has no Account"),
    ('Target::"web"', ""), ('Account::"web/deploy"', ""), ('Database::"orders/shop"', ""),
])
def test_what_a_policy_names_is_of_its_targets_protocol(named: str, noted: str) -> None:
    found = [str(one) for one in advice.notes(whole(f'@id("a") permit (principal, action, resource in {named});'))]
    assert found == ([f"p.cedar:1: {named} {noted}"] if noted else [])


def test_an_account_that_no_credential_opens(tmp_path: Path) -> None:
    made = whole('@id("a") permit (principal, action, resource in Account::"web/root");\n'
                 '@id("b") permit (principal, action, resource in Account::"web/deploy");')
    targets = tuple(msgspec.structs.replace(one, credentials=tuple(
        msgspec.structs.replace(row, role="deploy", agent=str(tmp_path / "gone")) for row in one.credentials))
        for one in made.targets)
    made = msgspec.structs.replace(made, targets=targets)
    assert [str(one) for one in advice.notes(made)] == [
        'p.cedar:1: Account::"web/root" is never reached: no [[target.credential]] of web is for the role root']
    assert any(f"{tmp_path}/gone is not there: logins fail" in str(one)
               for one in advice.absent(made, {}, {}, lambda path: False))


@pytest.mark.parametrize(("condition", "noted"), [
    ('resource.path == "/srv/*"', True), ('resource.line=="ls *"', True), ('resource.path like "/srv/*"', False),
    ('resource.path == "/srv"', False), ('resource.name == "x" && resource.path like "/srv/*"', False),
])
def test_a_star_means_something_only_after_like(condition: str, noted: bool) -> None:
    policy = f'@id("a") permit (principal, action, resource)\nwhen {{ {condition} }};'
    found = [str(one) for one in advice.notes(whole(policy))]
    assert len(found) == noted
    assert all(one.startswith("p.cedar:2: resource.") and one.endswith("only after `like`") for one in found)


def base() -> set[str]:
    return set(load_policies({}).policies)


def test_a_fresh_copy_says_what_to_fill_in(tmp_path: Path) -> None:
    shutil.copytree(DEFAULT, tmp_path / "etc")
    found = "\n".join(advice.missing(config((tmp_path / "etc/weir.toml").read_text(), policies={
        "examples.cedar": EXAMPLES.read_text()})))
    for piece in ("[[target]]", "[[target.credential]]", "[[workload]]", "[[egress]]", "groups.toml", "permit nothing"):
        assert piece in found
    assert "policies/examples.cedar of packaging/default shows how" not in found


@pytest.mark.parametrize(("there", "named"), [
    ("/etc/weir/policies/examples.cedar", "; /etc/weir/policies/examples.cedar shows how"),
    ("/etc/weir/policies/own.cedar", "; policies/examples.cedar of packaging/default shows how")])
def test_where_examples_of_policies_are(there: str, named: str) -> None:
    assert any(one.endswith(named) for one in advice.missing(config("", policies={there: "// nothing"})))


@pytest.mark.parametrize(("policy", "line", "wanted"), [
    ('permit (principal, action, resource in Target::"odrers");', 1, 'Target::"odrers" names no [[target]]'),
    ('\n// Target::"not-looked-at"\npermit (principal, action, resource == Table::"shop/shop/public/x");', 3,
     'Table::"shop/shop/public/x" names no [[target]]: there is cluster, orders'),
    ('permit (principal, action, resource == Table::"orders/public/orders");', 1,
     'Table::"orders/public/orders" is nothing: a Table has 4 parts, Table::"TARGET/DATABASE/SCHEMA/TABLE"'),
    ('permit (principal, action, resource in Database::"orders");', 1,
     'Database::"orders" is nothing: a Database has 2 parts, Database::"TARGET/DATABASE"'),
    ('permit (principal, action, resource in Target::"orders/shop");', 1, "is nothing: a Target has 1 part, Target"),
    ('permit (principal, action, resource == Schema::"orders//public");', 1, "is nothing: a Schema has 3 parts"),
    ('permit (principal, action, resource == Setting::"orders/jit");', 1, "is nothing: a Setting has 3 parts"),
    ('permit (principal, action, resource == Role::"odrers/app");', 1, "names no [[target]]"),
    ('permit (principal == User::"ada", action, resource);', 1,
     'User::"ada" is nobody: User::"local:ada" is the user of this host, User::"PROVIDER:SUBJECT" a login'),
    ('permit (principal == User::"crop:7b1f", action, resource);', 1,
     'User::"crop:7b1f" names no [[provider]]: there is corp'),
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


@pytest.mark.parametrize("policy", [
    'permit (principal == User::"local:ada", action, resource);',
    'permit (principal == User::"corp:7b1f:c2", action, resource == Table::"orders/shop/public/a%2Fb");',
    'permit (principal in Group::"given", action, resource == Setting::"orders/shop/jit");',
    'permit (principal, action, resource) when { resource == Role::"orders/app" };',
    'permit (principal, action, resource in Program::"web/deploy/%2Fbin%2Fls");',
    'permit (principal, action, resource == Account::"web/deploy");',
])
def test_names_that_something_has(policy: str) -> None:
    made = whole(policy)
    provider = msgspec.structs.replace(made.providers[0], groups={"/staff": "given"})
    assert advice.notes(msgspec.structs.replace(made, providers=(provider,))) == ()


def test_shapes_are_those_of_policy() -> None:
    """And of what others lie in: nothing is asked of a namespace itself."""
    assert {kind: shape.count("/") + 1 for kind, shape in advice.SHAPES.items()} == DEPTHS | {"Namespace": 2}


@pytest.mark.parametrize(("member", "wanted"), [
    ("workload:crw", "'workload:crw' is nobody: there is no such [[workload]]; did you mean crew?"),
    ("workload:other", "there is no such [[workload]]: there is crew"),
    ("user:newcrw", "'user:newcrw' is nobody: this host has no such user"),
    ("group:nosuch", "'group:nosuch' is nobody: this host has no such group"),
    ("group:data", "this host has no such group; weir:data is the group of this file"),
    ("subject:crop:7b1f", "there is no such [[provider]]; did you mean corp?"),
    ("subject:local:ada", "user:ada is the user of this host"),
    ("user:ada", ""), ("group:staff", ""), ("workload:crew", ""), ("subject:corp:7b1f", ""), ("weir:data", ""),
    ("user:unit", ""),
])
def test_members_that_nobody_is(member: str, wanted: str) -> None:
    text = f'[groups]\ndata = []\n\ndba = ["{member}"]\n'
    groups, report = parse_groups(text, "groups.toml")
    assert not report.problems
    made = whole("")
    unit = msgspec.structs.replace(made.workloads[0], name="unit", unit="unit@1.service")
    made = msgspec.structs.replace(made, groups=groups.groups, workloads=(made.workloads[0], unit))
    found = list(advice.members(made, "groups.toml", report.lines, lambda *one: one in (
        ("user", "ada"), ("group", "staff"))))
    assert [(one.line, one.field) for one in found] == ([(4, "groups.dba")] if wanted else [])
    assert wanted in "".join(one.message for one in found)


def test_files_that_are_not_there() -> None:
    text = """
[[workload]]
name = "crew"
users = ["ada", "bob"]
directories = ["~", "~/nope"]
read_only = ["/opt/crew", "/opt/nope"]
[[target]]
name = "orders"
protocol = "postgresql"
hosts = ["db"]
port = 5432
trust = ["~/ada.pem", "~/nope.pem", "/etc/nope.pem"]
[[target.credential]]
user = "svc"
password_file = "/p"
"""
    made, report = parse_config(text, "weir.toml")
    assert made is not None
    there = {"/home/ada", "/home/bob", "/home/ada/nope", "/opt/crew", "/home/ada/ada.pem"}
    found = list(map(str, advice.absent(made, report.lines, {"ada": "/home/ada", "bob": "/home/bob"},
                                        there.__contains__)))
    assert [one.partition(": crews")[0].partition(": clients")[0] for one in found] == [
        "weir.toml:5: workload[1].directories: ~/nope is not there for bob",
        "weir.toml:6: workload[1].read_only: /opt/nope is not there",
        "weir.toml:12: target[1].trust: ~/nope.pem is not there for ada, bob",
        "weir.toml:12: target[1].trust: /etc/nope.pem is not there"]


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
