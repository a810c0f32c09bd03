"""What is wrong in a policy file is said with file, line and column, and with what would be right."""
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from enforcer.policy.cedar import BASE, FILE_LIMIT, load_policies
from enforcer.policy.check import check_files
from enforcer.words.decisions import HoldTerms
from enforcer.words.errors import ConfigError

GOOD = '@id("readers") permit (principal in Group::"data", action in Action::"sql:read", resource in Target::"shop");\n'
HELD = 'forbid (principal, action, resource) unless { context.approved };'
# text -> line, column, a part of the message
WRONG = {
    "permit (principal, action, resource)": (1, 36, 'without its ";"'),
    '\n\n  @id("x") permit (principal, action == Action::"sql:selec", resource);': (
        3, 41, 'Action::"sql:selec"`; did you mean Action::"sql:select"?'),
    GOOD + '  @id("x") permit (principal, action, resource) when { principal.foo == 1 };': (2, 66, "foo"),
    "permit (principal, action, resource);": (1, 1, '@id("readers")'),
    '@id("") permit (principal, action, resource);': (1, 1, "name of letters"),
    '@id("a b") permit (principal, action, resource);': (1, 1, "name of letters"),
    '@id("a") @hold("approvers=dba") permit (principal, action, resource);': (1, 1, "unless { context.approved }"),
    '@id("a") @hold("approvers=dba") forbid (principal, action, resource);': (1, 1, "unless { context.approved }"),
    '@id("a") @hold("approvers=dba") forbid (principal, action, resource) when { context.approved };':
        (1, 1, "unless { context.approved }"),
    '@id("a") @hold("approvers=dba") forbid (principal, action, resource) unless { !context.approved };':
        (1, 1, "unless { context.approved }"),
    f'@id("a") @hold("aprovers=dba") {HELD}': (1, 17, "approvers=GROUP"),
    f'@id("a") @hold("approvers=dba, within=0m") {HELD}': (1, 32, "within=0m"),
    f'@id("a") @hold("approvers=dba, within=soon") {HELD}': (1, 32, "within=soon"),
    f'@id("a") @hold("approvers=") {HELD}': (1, 17, "approvers="),
    f'@id("a") @hold("within=5m") {HELD}': (1, 10, "who may answer"),
    f'@id("a") @hold {HELD}': (1, 10, "who may answer"),
    '@id("a") permit (principal action, resource);': (1, 28, "unexpected token"),
    '@id("a") permit (principal is Usr, action, resource);': (1, 31, "Usr`; did you mean User?"),
    '@id("a") permit (principal, action, resource) when { "open };': (1, 54, "closing quote is missing"),
    '// one\n' + GOOD + GOOD: (3, 1, "taken by f.cedar:2"),
    '@id("base:mine") permit (principal, action, resource);': (1, 1, "base:"),
    '@id("base:transactions") permit (principal, action, resource);': (1, 1, "base:"),
    '@id("a") @advice("b") permit (principal, action, resource);': (1, 1, "@advice"),
    '@id("a") @id("b") permit (principal, action, resource);': (1, 10, "duplicate annotation"),
    '@id("a") permit (principal == ?principal, action, resource);': (1, 1, "?principal"),
    '@id("a") permit (principal, action, resource) when { context.nope };': (1, 62, "nope"),
    '@id("a") permit (principal, action == Action::"sql:set", resource == Table::"x");': (1, 1, "action"),
    # The mistake's own line, not the policy's first.
    '@id("a")\npermit (principal, action, resource)\n\n' + GOOD: (
        4, 1, '`@`: not Cedar\'s grammar; is the ";" before it'),
    '@id("a")\nallow (principal, action, resource);': (2, 1, "grammar; there are permit and forbid"),
    '@id("a") // allow\n@id("allow")\nallow (principal, action, resource);': (3, 1, "invalid policy effect"),
    '@id("a")\npermit (\n  principal,\n  action == Action::"sql:reed",\n  resource);': (
        4, 13, 'did you mean Action::"sql:read"?'),
    '@id("a")\npermit (\n  principal in group::"data", action, resource);': (
        3, 16, "unrecognized entity type `group`; did you mean Group?"),
    '@id("group") // group\npermit (principal, action, resource)\nwhen { principal in\n group::"x" };': (
        4, 2, "did you mean Group?"),
    '@id("a")\npermit (principal,\n actoin == Action::"connect", resource);': (3, 2, "did you mean action?"),
    '@id("a")\npermit (principal, action == Action::"connect", resource) when {\n context["aproved"] };': (
        3, 10, "did you mean approved?"),
    '@id("a")\npermit (principal,\n action == action::"connect", resource);': (3, 12, "expected an entity uid"),
    '@id("a")\npermit (principal,\n action == "connect", resource);': (3, 12, "found literal"),
    '@id("a")\npermit (principal, action, resource)\n when { context.approved = true };': (3, 26, "'='"),
    '@id("a")\npermit (principal, action, resource)\n when { foo(1) };': (3, 9, "not a valid function"),
    '@id("a")\npermit (principal,\n action == Action::"connect, resource);\n' + GOOD + GOOD: (
        3, 20, "its closing quote is missing"),
    '@id("a")\npermit (principal,\n action == Action::"connect, resource);\n' + GOOD + GOOD + '"': (
        3, 20, "its closing quote is missing"),
    '@id("a")\npermit (principal,\n action == Action"connect", resource);': (3, 18, 'token `"connect"`'),
    '@id("a")\npermit (principal,\n action == Action::zz, resource);': (3, 12, "found name `Action::zz`"),
    '@id("a")\npermit (principal,\n action == Action::"b", resource in Target:"c");': (3, 43, "token `:`"),
    '@id("a")\npermit (principal,\n action in Action::,\n resource);': (3, 20, "token `,`"),
    '@id("a")\npermit (principal, action, resource)\n when { context. };': (3, 18, "token `}`"),
    '@id("a"\npermit (principal, action, resource);': (2, 1, "`permit`: not Cedar's grammar"),
    '@id("a")\npermit (principal, action,\n resource;': (3, 10, "token `;`"),
    '@id("a")\npermit (principal,\n action == #, resource);': (3, 12, "invalid token"),
    # Where nobody knows, the policy's first line.
    '@id("a")\npermit (principal,\n action) when { resource has name };': (1, 1, "missing the `resource` variable"),
    '@id("a")\npermit (principal, action, resource)\nif {\n if true then true else true };': (1, 1, "condition: if"),
    "x" * (FILE_LIMIT + 1): (0, 0, str(FILE_LIMIT)),
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:60].strip())
def test_wrong_policies_are_located(text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_policies({"f.cedar": text})
    error, (line, column, part) = raised.value, WRONG[text]
    assert (error.file, error.line, error.column) == ("f.cedar", line, column)
    assert part in error.message


@pytest.mark.parametrize(("scope", "said"), [
    ('action == Action::"ssh:run", resource', 'Action::"ssh:run" is a group: write action in'),
    ('action == Action::"ssh:exec", resource == Target::"web"', "write resource in Target, for what lies in it"),
    ('action == Action::"sql:select", resource in Account::"web/deploy"', "another kind of resource"),
])
def test_a_scope_that_nothing_fits_says_what_would(scope: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_policies({"p.cedar": f'@id("a") permit (principal, {scope});'})


def test_an_attribute_of_another_action_is_not_meant_to_be_itself() -> None:
    with pytest.raises(ConfigError, match=r"`path` on entity type `Command` not found$"):
        load_policies({"p.cedar": '@id("a") permit (principal, action == Action::"ssh:exec", resource) '
                                  'when { resource.path == "/bin/ls" };'})


def test_names_are_unique_across_files() -> None:
    with pytest.raises(ConfigError, match=r"b\.cedar:2:1.*a\.cedar:1"):
        load_policies({"a.cedar": GOOD, "b.cedar": "\n" + GOOD})


@pytest.mark.parametrize("text", ["", "\n", "// only a comment"])
def test_a_file_may_be_empty(text: str) -> None:
    assert {policy.file for policy in load_policies({"f.cedar": text}).policies.values()} == {BASE}


def test_a_semicolon_in_a_string_or_a_comment_ends_nothing() -> None:
    odd = '@id("a") // not; here\n permit (principal, action, resource) when { context.exe == "/bin/x;y \\" // z" };\n'
    text = odd + GOOD
    mine = [policy for policy in load_policies({"f.cedar": text}).policies.values() if policy.file == "f.cedar"]
    assert [(policy.name, policy.line) for policy in mine] == [("a", 1), ("readers", 3)]


def test_names_follow_their_policies_however_many() -> None:
    """Cedar numbers policies; a decision must name the right one of 40."""
    texts = [f'@id("p{n}") permit (principal == User::"u{n}", action, resource);' for n in range(40)]
    found = load_policies({"f.cedar": "\n".join(texts)})
    for key, policy in found.policies.items():
        if policy.file == "f.cedar":
            assert f'User::"u{policy.name[1:]}"' in policy.text
            assert policy.line == int(policy.name[1:]) + 1
            assert key.startswith("policy")


@pytest.mark.parametrize(("text", "terms"), [
    ("approvers=dba", HoldTerms("a", ("dba",), 900, False)),
    ("approvers=dba dev, within=2h, reason=required", HoldTerms("a", ("dba", "dev"), 7200, True)),
    ("within=30s,approvers=x,reason=optional", HoldTerms("a", ("x",), 30, False)),
    ("approvers=x, within=7d", HoldTerms("a", ("x",), 604800, False)),
])
def test_terms_of_holds(text: str, terms: HoldTerms) -> None:
    found = load_policies({"f.cedar": f'@id("a") @hold("{text}") {HELD}'})
    assert [policy.hold for policy in found.policies.values() if policy.name == "a"] == [terms]


def test_check_names_every_file_and_line(tmp_path: Path) -> None:
    good, bad, binary = tmp_path / "good.cedar", tmp_path / "bad.cedar", tmp_path / "binary.cedar"
    good.write_text(GOOD)
    bad.write_text("\npermit (principal, action, resource);")
    binary.write_bytes(b"\xff\xfe")
    assert check_files([str(good)]) == []
    found = check_files([str(good), str(bad), str(binary), str(tmp_path / "absent")])
    assert [line.split(": ")[0] for line in found] == [
        f"{binary}:0:0", f"{tmp_path / 'absent'}:0:0", f"{bad}:2:1"]
    assert check_files([str(good), str(good)]) == []
    other = tmp_path / "other.cedar"
    other.write_text(GOOD)
    assert "taken by" in check_files([str(good), str(other)])[0]


def test_check_as_a_program(tmp_path: Path) -> None:
    bad = tmp_path / "bad.cedar"
    bad.write_text("permit (principal, action, resource);")
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-m", "enforcer.policy.check", str(bad)], cwd=root, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{bad}:1:1: ")
