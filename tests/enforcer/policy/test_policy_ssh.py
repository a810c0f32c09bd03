"""Policies on what is reached over SSH: attributes, groups of actions, the base policy, tables, explain."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.cli import weir
from agent.contract.owner import Owner
from enforcer.core.gate import CedarGate
from enforcer.policy.cedar import load_policies
from enforcer.policy.evaluation import rule
from enforcer.policy.model import PARENTS, fits
from enforcer.policy.tables import failures, parse_table
from enforcer.words.decisions import DENY, HOLD, PERMIT
from enforcer.words.errors import ConfigError
from enforcer.words.operations import Attribute, Principal, Request

PLACE = ("web", "deploy")
WHO = Principal("local:u", ("ops",), Owner("", 1, "u", "local:u", ("ops",), None, "", 1, "h", 5, "mark"))


def command(line: str, *arguments: str, literal: bool = True, program: str = "") -> Request:
    return Request("ssh:exec", "Command", (*PLACE, program or line.split()[0], line), (
        ("arguments", arguments), ("literal", literal)))


def file(action: str, at: str, **more: Attribute) -> Request:
    return Request(action, "File", (*PLACE, at), tuple(more.items()))


def variable(name: str, value: str) -> Request:
    return Request("ssh:env", "Variable", (*PLACE, name), (("value", value),))


def account(action: str) -> Request:
    return Request(action, "Account", PLACE)


def outcome(policy: str, request: Request) -> int:
    policies = load_policies({"f.cedar": f'@id("x") {policy}'} if policy else {})
    return rule(policies, WHO, request, False).outcome


EXEC = 'permit (principal, action == Action::"ssh:exec", resource) when {{ {} }};'


@pytest.mark.parametrize(("condition", "request_", "permitted"), [
    ('resource.line == "ls -l"', command("ls -l", "-l"), True),
    ('resource.line == "ls -l"', command("ls -la", "-la"), False),
    ('resource.name == "rm"', command("/bin/rm x", "x"), True),
    ('resource.program == "rm"', command("/bin/rm x", "x"), False),
    ('resource.arguments.contains("-f")', command("rm -f", "-f"), True),
    ('resource.arguments.contains("-f")', command("rm"), False),
    ('["a", "b"].containsAll(["a"]) && resource.literal', command("ls $X", "$X", literal=False), False),
    ('resource.literal', command("ls"), True),
    ('resource.literal', Request("ssh:exec", "Command", (*PLACE, "ls", "ls")), False),       # where it is not said
    ('resource in Program::"web/deploy/ls"', command("ls -l", "-l"), True),
    ('resource in Program::"web/deploy/%2Fbin%2Fls"', command("/bin/ls -l", "-l"), True),
    ('resource in Program::"web/root/ls"', command("ls"), False),
    ('resource in Account::"web/deploy"', command("ls"), True),
    ('!Account::"web/deploy".opaque.contains("x")', command("ls"), True),
    ('resource in Target::"web"', command("ls"), True),
    ('resource in Target::"db"', command("ls"), False),
])
def test_commands(condition: str, request_: Request, permitted: bool) -> None:
    assert (outcome(EXEC.format(condition), request_) == PERMIT) == permitted


@pytest.mark.parametrize(("scope", "condition", "request_", "permitted"), [
    ('action in Action::"file:read"', 'resource.path like "/srv/*"', file("sftp:read", "/srv/a"), True),
    ('action in Action::"file:read"', 'resource.path like "/srv/*"', file("sftp:list", "/srv/a"), True),
    ('action in Action::"file:read"', 'resource.path like "/srv/*"', file("rsync:read", "/srv/a"), True),
    ('action in Action::"file:read"', 'resource.path like "/srv/*"', file("ssh:exec-read", "/srv/a"), True),
    ('action in Action::"file:read"', 'resource.path like "/srv/*"', file("scp:write", "/srv/a"), False),
    ('action in Action::"file:read"', 'resource.path like "/srv/*"', file("scp:read", "/etc/a"), False),
    ('action in Action::"file:write"', "true", file("sftp:rename", "/a"), True),
    ('action in Action::"file:write"', "true", file("ssh:exec-write", "/a"), True),
    ('action in Action::"file:write"', "true", file("sftp:read", "/a"), False),
    ('action in Action::"sftp:change"', "!resource.recursive", file("sftp:mkdir", "/a"), True),
    ('action in Action::"rsync"', "!resource.recursive", file("rsync:write", "/a", recursive=True), False),
    ('action in Action::"rsync"', '!resource.options.contains("--delete")',
     file("rsync:write", "/a", options=("--delete",)), False),
    ('action in Action::"rsync"', '!resource.options.contains("--delete")', file("rsync:write", "/a"), True),
    ('action in Action::"ssh"', "true", file("sftp:symlink", "/a"), True),
    ('action in Action::"ssh"', "true", account("ssh:x11"), True),
    ('action in Action::"ssh:run"', "true", account("ssh:exec-opaque"), True),
    ('action in Action::"ssh:run"', "true", account("ssh:shell"), False),
    ('action in Action::"ssh:forward"', 'resource is Endpoint && resource.host == "db" && resource.port == "5432"',
     Request("ssh:forward-local", "Endpoint", (*PLACE, "db 5432")), True),
    ('action in Action::"ssh:forward"', 'resource is Endpoint && resource.host == "::1"',
     Request("ssh:forward-remote", "Endpoint", (*PLACE, "::1 80")), True),
    ('action == Action::"ssh:forward-stream"', 'resource.path == "/run/x"',
     Request("ssh:forward-stream", "Socket", (*PLACE, "/run/x")), True),
    ('action in Action::"git"', 'resource.name == "a.git"',
     Request("git:push", "Repository", (*PLACE, "/g/a.git")), True),
    ('action == Action::"connect"', 'resource.name == "deploy"', account("connect"), True),
    ('action == Action::"connect"', 'resource.name == "shop"', Request("connect", "Database", ("db", "shop")), True),
])
def test_groups_and_attributes(scope: str, condition: str, request_: Request, permitted: bool) -> None:
    policy = f"permit (principal, {scope}, resource) when {{ {condition} }};"
    assert (outcome(policy, request_) == PERMIT) == permitted


@pytest.mark.parametrize("request_", [
    variable("LANG", "C.UTF-8"), variable("LC_ALL", "de_DE.utf8"), variable("LC_ALL", "C"),
    variable("LANGUAGE", "de:en"), variable("TERM", "xterm-256color"), variable("NO_COLOR", "1"),
    variable("GIT_PROTOCOL", "version=2"),
    account("ssh:terminal"), Request("ssh:subsystem", "Subsystem", (*PLACE, "sftp")),
    file("ssh:exec-write", "/dev/null"), file("ssh:exec-read", "/dev/null"),
])
def test_the_base_policy_permits(request_: Request) -> None:
    assert outcome("", request_) == PERMIT


@pytest.mark.parametrize("request_", [
    variable("LANG", "zh_CN.GBK"), variable("LANG", "/tmp/x.UTF-8"), variable("LC_X", "a[$(id)].UTF-8"),
    variable("LANGUAGE", "/tmp"), variable("TERM", "../x"), variable("LD_PRELOAD", "x"), variable("PATH", "/x"),
    variable("BASH_ENV", "x"), variable("LANGX", "C"), variable("lang", "C"), variable("GIT_PROTOCOL", "x"),
    account("ssh:shell"), account("ssh:exec-opaque"), account("ssh:agent"), account("ssh:x11"), account("ssh:tun"),
    account("connect"), command("ls"), Request("ssh:subsystem", "Subsystem", (*PLACE, "netconf")),
    Request("ssh:forward-local", "Endpoint", (*PLACE, "db 5432")),
    Request("ssh:forward-stream", "Socket", (*PLACE, "/run/x")), Request("git:fetch", "Repository", (*PLACE, "~/a")),
    *(file(action, "/a") for action in PARENTS if action.startswith(("sftp:", "scp:", "rsync:")) and
      action != "sftp:change"), file("ssh:exec-write", "/dev/nullx"), file("sftp:read", "/dev/null"),
])
def test_the_base_policy_permits_nothing_else(request_: Request) -> None:
    ruling = rule(load_policies({}), WHO, request_, False)
    assert (ruling.outcome, ruling.rules) == (DENY, ())


@pytest.mark.parametrize("request_", [
    Request("ssh:exec", "Command", (*PLACE, "ls", "ls"), (("nope", "x"),)),
    Request("ssh:exec", "Command", (*PLACE, "ls", "ls"), (("literal", "true"),)),
    Request("ssh:exec", "Command", (*PLACE, "ls", "ls"), (("arguments", "x"),)),
    Request("ssh:exec", "Command", (*PLACE, "ls", "ls"), (("literal", True), ("literal", True))),
    Request("ssh:exec", "Command", (*PLACE, "ls", "ls"), (("line", "other"),)),
    Request("ssh:exec", "Command", (*PLACE, "ls")), Request("ssh:exec", "Command", (*PLACE, "", "ls")),
    Request("ssh:exec", "Command", (*PLACE, "rm", "rm x"), (("name", "ls"),)),
    Request("ssh:env", "Variable", (*PLACE, "A"), (("value", True),)),
    file("sftp:read", "/a", path="/b"), file("sftp:read", "/a", recursive=()), file("sftp:read", ""),
    Request("sql:select", "Table", ("a", "b", "c", "d"), (("literal", True),)),
    Request("ssh:shell", "Account", PLACE, (("path", "x"),)),
    Request("ssh:forward-local", "Endpoint", (*PLACE, "db 5432"), (("port", "22"),)),
])
def test_attributes_that_do_not_fit_are_denied(request_: Request) -> None:
    policies = load_policies({"f.cedar": '@id("all") permit (principal, action, resource);'})
    assert not fits(request_)
    assert rule(policies, WHO, request_, True).rules == ("unknown-resource",)


def test_what_the_path_says_may_be_repeated() -> None:
    assert fits(Request("ssh:forward-local", "Endpoint", (*PLACE, "db 5432"), (("host", "db"), ("port", "5432"))))
    assert fits(file("sftp:read", "/a/b", path="/a/b", name="b"))
    assert fits(Request("ssh:exec", "Command", (*PLACE, "/bin/ls", "/bin/ls"), (
        ("program", "/bin/ls"), ("name", "ls"), ("line", "/bin/ls"))))


@pytest.mark.parametrize(("request_", "reason"), [
    (command("systemctl restart nginx", "restart", "nginx"),
     "ssh:exec on command systemctl restart nginx is denied: no policy permits it"),
    (Request("ssh:exec-opaque", "Account", PLACE, (("opaque", ("one", "two")),)),
     "ssh:exec-opaque on account deploy@web (one; two) is denied: no policy permits it"),
    (account("ssh:shell"), "ssh:shell on account deploy@web is denied: no policy permits it"),
    (file("sftp:write", "/etc/x"), "sftp:write on file /etc/x is denied: no policy permits it"),
    (Request("ssh:forward-local", "Endpoint", (*PLACE, "db 5432")),
     "ssh:forward-local on endpoint db 5432 is denied: no policy permits it"),
    (variable("PATH", "/x"), "ssh:env on variable PATH is denied: no policy permits it"),
    (Request("git:push", "Repository", (*PLACE, "~/a.git")),
     "git:push on repository ~/a.git is denied: no policy permits it"),
    (command("echo '\x1b[2J\n'"), "ssh:exec on command echo '�[2J�' is denied: no policy permits it"),
    (command("x" * 400), f"ssh:exec on command {'x' * 300}... is denied: no policy permits it"),
])
def test_reasons(request_: Request, reason: str) -> None:
    assert CedarGate(load_policies({})).decide(WHO, (request_,)).reason == reason


def test_a_hold() -> None:
    policy = """permit (principal, action in Action::"ssh", resource);
        @id("h") @hold("approvers=dba") forbid (principal, action == Action::"ssh:shell", resource)
        unless { context.approved };"""
    assert outcome(policy, account("ssh:shell")) == HOLD
    assert outcome(policy, account("ssh:terminal")) == PERMIT


TABLE = """
# A comment with "a quote
local:u  ops  ssh:exec          Command::"web/deploy/ls   '-l'  /a#b"      permit     # "ls" is permitted
local:u  ops  ssh:exec          Command::"web/deploy//bin/ls -l /a#b"      deny
local:u  ops  sftp:read         File::web/deploy//srv/app/x                permit
local:u  ops  sftp:read         File::web/deploy/~/x                       deny
local:u  ops  ssh:env           Variable::web/deploy/LANG=C.UTF-8          permit
local:u  ops  ssh:env           Variable::web/deploy/LANG=/x               deny
local:u  ops  ssh:forward-local Endpoint::"web/deploy/db 5432"             permit
local:u  ops  ssh:shell         Account::web/deploy                        deny
local:u  ops  sql:select        Table::a/b/c/d/e                           deny
"""
POLICY = """
@id("ls") permit (principal, action == Action::"ssh:exec", resource)
when { resource.line == "ls -l '/a#b'" && resource.arguments.contains("-l") && resource.literal };
@id("app") permit (principal, action == Action::"sftp:read", resource) when { resource.path like "/srv/app/*" };
@id("db") permit (principal, action == Action::"ssh:forward-local", resource) when { resource.port == "5432" };
"""


def test_tables() -> None:
    rows = list(parse_table("t", TABLE))
    assert len(rows) == 9
    assert not list(failures(load_policies({"f.cedar": POLICY}), iter(rows)))


@pytest.mark.parametrize("row", [
    """u - ssh:exec Command::"web/deploy/ls 'a" permit""", "u - ssh:exec Command::a/b/ls -l permit",
])
def test_rows_that_are_wrong(row: str) -> None:
    with pytest.raises(ConfigError):
        list(parse_table("t", row))


@pytest.mark.parametrize("row", ["Command::web", "Command::web/deploy/", "File::web/deploy", "Variable::web/deploy/=x"])
def test_rows_that_name_nothing_are_denied(row: str) -> None:
    policies = load_policies({"f.cedar": '@id("all") permit (principal, action, resource);'})
    action = {"C": "ssh:exec", "F": "sftp:read", "V": "ssh:env"}[row[0]]
    assert not list(failures(policies, parse_table("t", f"u - {action} {row} deny")))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "a.cedar").write_text("""@id("ls") permit (principal, action == Action::"ssh:exec", resource)
        when { resource.name == "ls" };""")
    return tmp_path


def explain(directory: Path, *arguments: str) -> Result:
    return CliRunner().invoke(weir, ["policy", "explain", "--policies", str(directory), "--subject", "corp:u",
                                     "--target", "web", *arguments])


def test_explain_of_a_command_line(directory: Path) -> None:
    done = explain(directory, "--account", "deploy", "ls -l > /dev/null")
    assert done.exit_code == 0, done.output
    assert "permit  ssh:exec ls -l: ls (" in done.output
    done = explain(directory, "--account", "deploy", "--json", "ls; sudo id")
    said = json.loads(done.output)
    assert (done.exit_code, said["outcome"]) == (1, "deny")
    assert [(one["resource"], one["outcome"]) for one in said["requests"]] == [
        ("ls", "permit"), ("sudo id", "deny"), ("id", "deny")]
    assert "opaque on account deploy@web" in explain(directory, "--account", "deploy", "$X").output
    assert "scp:write on file ~/x" in explain(directory, "--account", "deploy", "scp -t x").output


def test_explain_wants_a_database_or_an_account(directory: Path) -> None:
    for arguments in ((), ("--database", "shop", "--account", "deploy")):
        done = explain(directory, *arguments, "ls")
        assert done.exit_code == 2
        assert "--account" in done.output
