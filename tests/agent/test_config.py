"""The configuration: every error at once, with file, line, field and what would be right."""
from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import Config, needs_restart, parse_config
from agent.settings import reference
from agent.settings.groups_file import parse_groups
from agent.settings.positions import line_of, locate

ROOT = Path(__file__).resolve().parents[2]

WHOLE = """
[runtime]
name = "weirlab"
[enforcer]
port = 15433
hold = "5m"
[dns]
resolver = "10.77.0.53"
[recording]
journal_limit = "8MiB"
[[egress]]
name = "model"
addresses = ["10.77.0.3", "model.lab.example"]
ports = [443, 8080]
[[workload]]
name = "crew"
users = ["crew"]
directories = ["~", "~/work"]
read_only = ["/opt/crew"]
[[target]]
name = "orders"
protocol = "postgresql"
hosts = ["DB.lab.example.", "10.77.0.4"]
port = 5432
tls_ca = "/etc/weir/db-ca.pem"
trust = ["~/db-ca.pem"]
[[target.credential]]
user = "crew_svc"
password_file = "/etc/weir/credentials/orders"
[[target.credential]]
database = "shop"
role = "reporting"
group = "data"
user = "reporting"
certificate_file = "/etc/weir/credentials/r.pem"
key_file = "/etc/weir/credentials/r.key"
[[target.label]]
label = "pii.email"
column = "public.customers.email"
mask = "partial"
[[target.label]]
label = "secret"
column = 'public."Customers"."api.key"'
"""


def errors(text: str) -> list[str]:
    config, report = parse_config(text, "weir.toml")
    assert (config is None) == bool(report.problems)
    return [str(one) for one in report.problems]


def right(text: str) -> Config:
    config, report = parse_config(text, "weir.toml")
    assert config is not None, "\n".join(map(str, report.problems))
    return config


def test_a_whole_configuration() -> None:
    config = right(WHOLE)
    assert (config.runtime.user, config.enforcer.hold, config.dns.resolver) == ("weir", 300, ("10.77.0.53", 53))
    assert config.recording.journal_limit == 8 << 20
    assert (str(config.run), str(config.state)) == ("/run/weirlab", "/var/lib/weirlab")
    [target] = config.targets
    assert target.hosts == ("db.lab.example", "10.77.0.4")
    assert (target.tls, target.payload_limit, target.databases) == ("verify-full", 1 << 20, ())
    assert [row.user for row in target.credentials] == ["crew_svc", "reporting"]
    assert target.labels[0].column_label().mask == "partial"
    assert target.labels[1].column == ("public", "Customers", "api.key")
    assert target.labels[1].mask == "redact"
    assert config.workloads[0].directories == ("~", "~/work")


def test_nothing_configured_is_right() -> None:
    config = right("")
    assert (config.runtime.name, config.targets, config.control) == ("weir", (), Path("/run/weir/control.sock"))


def test_what_no_crew_sees_any_of() -> None:
    """Of a Weir by another name, that of the usual place neither."""
    here, _ = parse_config('[runtime]\nname = "weirlab"\n', "/srv/lab/weir.toml")
    usual, _ = parse_config("", "/etc/weir/weir.toml")
    assert here is not None
    assert usual is not None
    assert here.own_directories == ("/srv/lab", "/etc/weir", "/run/weirlab", "/var/lib/weirlab")
    assert usual.own_directories == ("/etc/weir", "/run/weir", "/var/lib/weir")


def test_units_of_workloads() -> None:
    text = '[[workload]]\nname = "{}"\nunit = "{}"\n'
    assert right(text.format("a", "crew@1.service")).workloads[0].unit == "crew@1.service"
    assert right(text.format("a", "crew.service")).workloads[0].users == (), "DynamicUser= may be meant"
    for name, said in (("crew", "is no such name"), ("crew@.service", "template"), ("ssh.service", "the host's own"),
                       ("weir-agent.service", "Weir's own"), ("a b.service", "is no such name")):
        assert said in errors(text.format("a", name))[0]
    twice = text.format("a", "crew.service") + text.format("b", "crew.service")
    assert errors(twice) == ["weir.toml:6: workload[2].unit: crew.service is workload[1] already"]
    assert "one of end, report, restart" in errors(text.format("a", "crew.service") + 'running = "kill"\n')[0]


def test_all_errors_come_at_once_with_their_lines() -> None:
    found = errors("""
[runtime]
nam = "x"
[enforcer]
port = 70000
hold = "15 minutes"
[[target]]
name = "a"
hosts = ["db", "10.0.0.0/8"]
protocol = "postgre"
port = true
[[target.credential]]
user = "u"
[[workload]]
name = "crew"
users = []
[egrets]
""")
    assert [re.match(r"weir.toml:(\d+): ([^:]*):", one).groups() for one in found] == [  # type: ignore[union-attr]
        ("17", "egrets"), ("3", "runtime.nam"), ("5", "enforcer.port"), ("6", "enforcer.hold"),
        ("10", "target[1].protocol"), ("9", "target[1].hosts"), ("11", "target[1].port"),
        ("16", "workload[1].users"), ("12", "target[1].credential[1]"),
    ]
    assert "did you mean [[egress]]?" in found[0]
    assert "did you mean name?" in found[1]
    assert "a whole number from 1024 to 65535 would be right" in found[2]
    assert "did you mean postgresql?" in found[4]


TARGET = '[[target]]\nname = "a"\nprotocol = "postgresql"\nhosts = ["db"]\nport = 5432\n'
ISSUED = '[[target.credential]]\nuser = "u"\ncertificate = "issue"\n'
HELPER = '[[target.credential]]\nexec = ["/usr/local/libexec/x", "-v", "-v"]\n'
CREDENTIAL = '[[target.credential]]\nuser = "u"\npassword_file = "/etc/p"\n'
EGRESS = "[[egress]]\nname = 'a'\n"


@pytest.mark.parametrize(("text", "wanted"), [
    ("x = [", "not TOML"),
    ("a = 1\na = 2\n", "weir.toml:2: not TOML"),
    ("[runtime]\nname = 'Weir'", "runtime.name: 'Weir' is no such name"),
    ("[runtime]\nstate = 'var'", "runtime.state: it is not an absolute path"),
    ("[runtime]\nstate = '/var/../etc'", "is not an absolute path"),
    ("[runtime]\nstate = '/var'", "/var is not a directory of Weir's own"),
    ("[runtime]\nrun = '/var/lib/weir/run'", "lie in one another"),
    ("[runtime]\nuser = 'weir-audit'", "could then change the recording"),
    ("runtime = 3", "write [runtime]"),
    ("[target]\nname = 'a'", "write [[target]]"),
    ("[enforcer]\ndurable = 'writs'", "did you mean writes?"),
    # names that are not known: the line of the first, and how it would be written
    ("[[targets]]\nname = 'a'", "weir.toml:1: targets: is not known; did you mean [[target]]?"),
    ("\n\n[[Workloads]]\n[[Workloads]]", "weir.toml:3: Workloads: is not known; did you mean [[workload]]?"),
    ("[TARGET]\nname = 'a'", "weir.toml:1: TARGET: is not known; did you mean [[target]]?"),
    ("\n[enforcers]", "weir.toml:2: enforcers: is not known; did you mean [enforcer]?"),
    ("[weir]", "weir.toml:1: weir: is not known; there are: [runtime], [enforcer]"),
    ("targets = 3", "weir.toml:1: targets: is not known; did you mean [[target]]?"),
    ("\ntargets.name = 'x'", "weir.toml:2: targets: is not known; did you mean [[target]]?"),
    ("port = 1", "weir.toml:1: port: is not known here; it is a field of [enforcer] or [[saml_provider]] or "
                 "[[target]]"),
    ("[[credential]]\nuser = 'u'", "weir.toml:1: credential: is not known here; it is written [[target.credential]]"),
    ("[runtime]\n[runtime.label]", "weir.toml:2: runtime.label: is not known here; it is written [[target.label]]"),
    (TARGET + "[[target.credentials]]", "weir.toml:6: target[1].credentials: is not known; did you mean [[target.cred"),
    (TARGET + "[[target.labels]]", "weir.toml:6: target[1].labels: is not known; did you mean [[target.label]]?"),
    (TARGET + "credential = 3", "weir.toml:6: target[1].credential: may stand often: write [[target.credential]]"),
    (TARGET + "credential = [3]", "weir.toml:6: target[1].credential[1]: is a table: write [[target.credential]] and"),
    (TARGET + CREDENTIAL + "pasword_file = '/x'", ":9: target[1].credential[1].pasword_file: is not known; did you me"),
    (TARGET + CREDENTIAL + "hosts = ['x']", ":9: target[1].credential[1].hosts: is not known here; it is a field of "),
    (TARGET + CREDENTIAL + "[[target.label]]\nLabel = 'x'", ":10: target[1].label[1].Label: is not known; did you me"),
    ("[enforcer]\nmax-sessions = 1", "weir.toml:2: enforcer.max-sessions: is not known; did you mean max_sessions?"),
    ("[enforcer]\nport.x = 1", "weir.toml:2: enforcer.port: {'x': 1} is no whole number"),
    ("[[workload]]\nuser = ['x']", "weir.toml:2: workload[1].user: is not known; did you mean users?"),
    ("[[egress]]\nhosts = ['x']",
     "weir.toml:2: egress[1].hosts: is not known here; it is a field of [[provider]] or [[target]]"),
    ("[[runtime]]", "weir.toml:1: runtime: is a table: write [runtime]"),
    ("[dns]\nresolver = 'dns.example'", "dns.resolver: 'dns.example' is not an address"),
    ("[dns]\nresolver = '10.0.0.1:99999'", "99999 is out of bounds"),
    ("[nftables]\nredirect = 1", "1 is neither true nor false"),
    ("[recording]\nreserve = '5 kB'", "is not a number with a unit of B, KiB"),
    ("[recording]\njournal_limit = '1KiB'", "is out of bounds"),
    ("[[egress]]\nname = 'a'\naddresses = ['0.0.0.0']\nports = [1]", "is no host's address"),
    ("[[egress]]\nname = 'a'\naddresses = ['1.2.3.4', '::ffff:1.2.3.4']\nports = [1]", "names the same twice"),
    ("[[egress]]\nname = 'a'\naddresses = ['1.2.3.4']\nports = [0]", "0 is out of bounds"),
    ("[enforcer]\nport = '15432'", "enforcer.port: '15432' is no whole number: write it without quotes; a whole numb"),
    ("[nftables]\nredirect = 'true'", "'true' is neither true nor false: write it without quotes"),
    ("[[egress]]\nname = 'a'\naddresses = ['10.0.0.0/8']\nports = [1]", "is a network"),
    *((f"[[egress]]\nname = 'a'\naddresses = ['{wide}']\nports = [1]", "is wider than one owner's names")
      for wide in ("*", "*.", "*.com", "*.co.uk", "*.1.2.3.4", "*x.example.com")),
    ("[[egress]]\nname = 'a'\naddresses = ['x.*.example.com']\nports = [1]", "is not a host name"),
    ("[[egress]]\nname = 'a'\naddresses = ['*.*.example.com']\nports = [1]", "is not a host name"),
    ("[[egress]]\nname = 'a'\naddresses = ['169.254.169.254']\nports = [80]", "metadata = true would permit it"),
    ("[[egress]]\nname = 'a'\naddresses = ['fd00:ec2::254']\nports = [80]", "hands out this machine's own credentials"),
    (TARGET.replace('"db"', '"*.example.com"') + CREDENTIAL, "'*.example.com' is not a host name"),
    ("[dns]\nlisten = '10.0.0.53'", "dns.listen: '10.0.0.53' is none; an address of 127.0.0.0/8 would be right"),
    ("[dns]\nlisten = '::1'", "an address of 127.0.0.0/8 would be right"),
    ("[dns]\nlisten = '127.0.0.1:5353'", "an address of 127.0.0.0/8 would be right"),
    ("[[egress]]\nname = 'a b'\naddresses = ['1.2.3.4']\nports = [1]", "'a b' is no such name"),
    ("[[egress]]\nname = 'a'\naddresses = ['127.0.0.1']\nports = [15432]", "the enforcer's own listener"),
    ("[[workload]]\nname = 'a'\nusers = ['x']\ndirectories = ['work']", "it is not an absolute path"),
    *(("[[workload]]\nname = 'a'\nusers = ['x']\n" + seen, wanted) for seen, wanted in (
        ("directories = ['~', '/']", "weir.toml:4: workload[1].directories: / holds /tmp, and what is there no work"),
        ("read_only = ['/']", "weir.toml:4: workload[1].read_only: / holds /tmp"),
        ("directories = ['/var']", "directories: /var holds /var/tmp"),
        ("directories = ['/proc/self']", "directories: /proc/self lies in /proc"),
        ("directories = ['/run/x']", "directories: /run/x lies in /run"))),
    ("[[workload]]\nname = 'a'\nusers = ['x']\n" * 2, "'a' is also the name of workload[1]"),
    (TARGET, "has no [[target.credential]]"),
    (TARGET + '[[target.credential]]\nuser = "u"', "has neither password_file nor"),
    (TARGET + '[[target.credential]]\nuser = "u"\nkey_file = "/k"', "only one of certificate_file and key_file"),
    (TARGET + CREDENTIAL + 'password_credential = "p"', "[1].password_credential: stands beside password_file"),
    *((TARGET + f'[[target.credential]]\nuser = "u"\npassword_credential = "{name}"',
       ":8: target[1].credential[1].password_credential: ") for name in ("../p", "a/b", ".", "..", "", "x" * 256)),
    (TARGET + '[[target.credential]]\npassword_file = "/p"', "target[1].credential[1]: user is missing: a text"),
    (TARGET + ISSUED.replace("issue", "isue"), "[1].certificate: 'isue' is not known; did you mean issue?"),
    (TARGET + ISSUED.replace('"u"', '"' + "u" * 65 + '"'), ":7: target[1].credential[1].user: is longer than the 64"),
    (TARGET + ISSUED + 'key_file = "/k"', ':9: target[1].credential[1].key_file: stands beside certificate = "issue"'),
    (TARGET + ISSUED + 'certificate_credential = "c"', ":9: target[1].credential[1].certificate_credential: stands"),
    (TARGET + ISSUED.replace('user = "u"\n', ""), "target[1].credential[1]: user is missing"),
    (TARGET.replace("port", "tls = 'disable'\nport") + ISSUED, ":9: target[1].credential[1].certificate: needs TLS"),
    (TARGET.replace("port", "upstream = '/run/pg/s'\nport") + ISSUED, "needs TLS, and this target has `upstream`"),
    (TARGET + HELPER + 'exec_user = "x"\ncertificate = "issue"', "9: target[1].credential[1].certificate: stands"),
    (TARGET + HELPER, "exec_user is missing: the name of a user"),
    (TARGET + HELPER + 'exec_user = "root"', "weir.toml:8: target[1].credential[1].exec_user: is root; a user"),
    (TARGET + HELPER + 'exec_user = "x"\npassword_file = "/p"', "9: target[1].credential[1].password_file: stands"),
    (TARGET + HELPER + 'exec_user = "x"\nkey_credential = "k"', "9: target[1].credential[1].key_credential: stands"),
    (TARGET + HELPER + 'exec_user = "x"\nexec_timeout = "31s"', "exec_timeout: '31s' is out of bounds"),
    (TARGET + CREDENTIAL + 'exec_user = "x"', ":9: target[1].credential[1].exec_user: is for a row with `exec`"),
    *((TARGET + f"[[target.credential]]\nexec_user = 'x'\nexec = {command}",
       ":8: target[1].credential[1].exec: ") for command in (
        "[]", "'/x'", "['x']", "['/../x']", "['/x', '']", "['/x', 3]", "['/x', \"a\\u0000\"]")),
    (TARGET + CREDENTIAL + 'key_credential = "k"', "only one of certificate_file and key_file"),
    (TARGET.replace("port", "tls = 'disable'\nport") + CREDENTIAL + 'key_file = "/k"\ncertificate_credential = "c"',
     "credential[1].certificate_credential: needs TLS"),
    (TARGET.replace('"postgresql"', '"postgres"') + CREDENTIAL,
     "'postgres' is none of kubernetes, postgresql, ssh; did you mean postgresql?"),
    ("[egress_policy]\nmode = 'enforc'", "'enforc' is none of enforce, shadow, record; did you mean enforce?"),
    (EGRESS + "addresses = ['api.lab.example']\nports = 443", "443 is not a list of at least 1: write [443]; a list"),
    (EGRESS + "addresses = 'api.lab.example'\nports = [443]", '1: write ["api.lab.example"]; a list, each'),
    (EGRESS + "addresses = ['api.lab.example:443']\nports = [443]", "has a port, which goes into `ports`; a list"),
    (EGRESS + "addresses = ['*.lab.example:443']\nports = [443]", "has a port, which goes into `ports`; a list"),
    (EGRESS + "addresses = ['[2001:db8::1]:443']\nports = [443]", "has a port, which goes into `ports`; a list"),
    (EGRESS + "addresses = ['https://api.lab.example/v1']\nports = [443]", "is a URL: write the host name alone"),
    (TARGET.replace('"db"', '"db:5432"') + CREDENTIAL, "'db:5432' has a port, which goes into `port`; a list"),
    (TARGET + CREDENTIAL.replace("password_file", "password"),
     ".password: is not known: secrets never stand in this file; password_file names the file that holds it"),
    (TARGET + "password = 'x'\n" + CREDENTIAL,
     "target[1].password: is not known: secrets never stand in this file; password_file, a field of [[target.credenti"),
    ("[[provider]]\nclient_secret = 'x'", "client_secret: is not known: secrets never stand in this file; client_secr"),
    ("\n[[workload]]\nname = newc", "weir.toml:3: not TOML: invalid value: a text stands in quotes"),
    ("[[workload]]\nname = 'a'\n#[[target]]\nname = 'b'\n",
     "weir.toml:4: not TOML: cannot overwrite a value: it stands in this section already; is the [[...]] above it "
     "still a comment?"),
    ("[[workload]]\ndirectories = [~/work]", "weir.toml:2: not TOML: invalid value: a text stands in quotes"),
    (TARGET + CREDENTIAL * 2, "the same database, role and group as credential[1]"),
    (TARGET + CREDENTIAL + '[[target.label]]\nlabel = "pii"\ncolumn = "a.b"', "is not of three names"),
    (TARGET + CREDENTIAL + '[[target.label]]\nlabel = "pii"\ncolumn = "a.b.c"\nmask = "stars"', "is no mask"),
    (TARGET + CREDENTIAL + '[[target.label]]\nlabel = "pii"\ncolumn = "a.b.c"\n' * 2, "labelled by label[1] already"),
    (TARGET + 'tls = "disable"\ntls_ca = "/a"\n' + CREDENTIAL, "leave one of them out"),
    (TARGET + CREDENTIAL + TARGET.replace('"a"', '"b"') + CREDENTIAL, "db port 5432 belongs to target 'a' already"),
    (TARGET + CREDENTIAL + "[[egress]]\nname = 'e'\naddresses = ['DB']\nports = [5432]", "never is an opaque flow"),
])
def test_what_is_wrong_is_named(text: str, wanted: str) -> None:
    assert wanted in "\n".join(errors(text))


def test_what_was_meant_is_said_once_and_a_value_never_where_a_secret_may_stand() -> None:
    [said] = errors(TARGET.replace('"postgresql"', '"postgres"') + CREDENTIAL)
    assert said.endswith("did you mean postgresql?")
    [said] = errors(TARGET + CREDENTIAL.replace("password_file", "password").replace("/p", "hunter2"))
    assert "hunter2" not in said
    [said] = errors("[enforcer]\nport =\n")
    assert "quotes" not in said


def test_a_secret_in_the_place_of_its_file_is_not_shown() -> None:
    [said] = errors(TARGET + CREDENTIAL.replace("/etc/p", "hunter2"))
    assert "password_file: it is not an absolute path" in said
    assert "hunter2" not in said


def test_a_misspelt_name_is_one_error() -> None:
    [said] = errors(TARGET.replace("port", "prot") + CREDENTIAL)
    assert "target[1].prot: is not known; did you mean port?" in said


def test_errors_of_one_kind_do_not_hide_the_others() -> None:
    found = "\n".join(errors(TARGET + CREDENTIAL * 2 + "[enforcer]\nport = 1\n[runtime]\nrun = '/run'\n"))
    assert "credential[2]" in found
    assert "enforcer.port" in found
    assert "not a directory of Weir's own" in found


@pytest.mark.parametrize("text", ['[groups]\na = "user:x"', "[groups]\na = ['x']", "[groups]\na = ['role:x']",
                                  "[groups]\n'a b' = []", "[group]\n", "groups = 3", "[",
                                  "[groups]\n" + "\n".join(f"g{number} = []" for number in range(1025))])
def test_wrong_groups(text: str) -> None:
    assert parse_groups(text, "groups.toml")[1].problems


def test_groups() -> None:
    found, report = parse_groups('[groups]\ndata = ["user:a", "group:g", "workload:w"]\nnone = []', "groups.toml")
    assert not report.problems
    assert found.groups == {"data": ("user:a", "group:g", "workload:w"), "none": ()}


def test_what_only_a_restart_changes() -> None:
    old = right(WHOLE)
    assert needs_restart(old, right(WHOLE.replace("5m", "6m"))) == []
    assert needs_restart(old, right(WHOLE.replace("15433", "15434").replace("8MiB", "9MiB"))) == [
        "enforcer.port", "recording.journal_limit"]


# example and reference come from the table


def test_the_example_file_is_the_tables() -> None:
    assert (ROOT / reference.EXAMPLE).read_text() == reference.render_example()


def test_the_reference_is_the_tables() -> None:
    assert (ROOT / reference.REFERENCE).read_text() == reference.render_reference()


def test_the_example_configures_nothing_and_says_everything() -> None:
    text = reference.render_example()
    assert right(text) == right("")
    whole = right(re.sub(r"(?m)^#(?=[a-z_\[])", "", text))
    assert whole.targets[0].labels
    assert whole.targets[0].credentials
    assert whole.workloads
    assert whole.egress


def test_the_references_blocks_are_right() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", reference.render_reference(), re.DOTALL)
    assert len(blocks) == 2
    right(blocks[0])
    assert not parse_groups(blocks[1], "groups.toml")[1].problems


def test_the_default_groups_file() -> None:
    text = (ROOT / "packaging/default/groups.toml").read_text()
    for one in (text, re.sub(r"(?m)^#(?=[a-z])", "", text)):
        assert not parse_groups(one, "groups.toml")[1].problems


# lines


def test_lines_of_everything_toml_can_write() -> None:
    text = '''a = """
b = 1
"""
[x.y] # [no]
"q.r" = [ # ]
  1,
  { z = "]" }, '"""',
]
c.d = { e = 1 }
[[t]]
s = 'a"b'
[[t.u]]
v = """x\\""" = """"
[[t]]
[[t.u]]
[[t.u]]
w = 2
'''
    tomllib.loads(text)
    lines = locate(text)
    assert lines == {
        ("a",): 1, ("x", "y"): 4, ("x", "y", "q.r"): 5, ("x", "y", "c", "d"): 9, ("t", 0): 10, ("t", 0, "s"): 11,
        ("t", 0, "u", 0): 12, ("t", 0, "u", 0, "v"): 13, ("t", 1): 14, ("t", 1, "u", 0): 15, ("t", 1, "u", 1): 16,
        ("t", 1, "u", 1, "w"): 17,
    }
    assert line_of(lines, ("x", "y", "c", "d", "e")) == 9
    assert line_of(lines, ("t", 1, "u", 1, "nothing")) == 16
    assert line_of(lines, ("nothing",)) == 0


@given(st.text(alphabet="ab[]{}=.\"'#\n\\ ,1", max_size=60))
def test_any_text_ends(text: str) -> None:
    locate(text)


@given(st.recursive(st.one_of(st.integers(), st.text(max_size=5), st.booleans(), st.floats(allow_nan=False)),
                    lambda inner: st.lists(inner, max_size=3), max_leaves=5),
       st.sampled_from(["runtime.name", "enforcer.port", "enforcer.hold", "dns.resolver", "recording.reserve",
                        "nftables.redirect", "runtime.state"]))
def test_no_value_breaks_the_parser(value: object, field: str) -> None:
    section, name = field.split(".")
    try:
        text = f"[{section}]\n{name} = {reference.render_value(value)}\n"
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    _, report = parse_config(text, "f")
    assert all(one.line in (1, 2) for one in report.problems)


# sockets

LOCAL = """
[[target]]
name = "orders"
protocol = "postgresql"
port = 5432
sockets = ["/var/run/postgresql/.s.PGSQL.5432", "/tmp/.s.PGSQL.5432"]
upstream = "/var/run/postgresql/.s.PGSQL.5432"
[[target.credential]]
user = "weir"
"""


def test_a_target_of_sockets_alone() -> None:
    [target] = right(LOCAL).targets
    assert target.sockets == ("/run/postgresql/.s.PGSQL.5432", "/tmp/.s.PGSQL.5432")
    assert (target.hosts, target.upstream) == ((), "/run/postgresql/.s.PGSQL.5432")


@pytest.mark.parametrize(("old", "new", "said"), [
    ("/tmp/.s", "/srv/.s", "lies elsewhere"), ("/tmp/.s", "/run/sockets/s", "Weir's own"),
    ("/tmp/.s", "tmp/.s", "absolute"), ("/tmp/.s", f"/tmp/{'x' * 100}/.s", "no path of a Unix socket"),
    ("upstream", "#upstream", "has no `hosts`"),
    ("upstream =", 'hosts = ["db"]\n#', "has neither password_file nor certificate_file"),
])
def test_wrong_sockets(old: str, new: str, said: str) -> None:
    _, report = parse_config(LOCAL.replace(old, new), "weir.toml")
    assert any(said in str(one) for one in report.problems), report.problems


def test_a_socket_is_one_targets() -> None:
    _, report = parse_config(LOCAL + LOCAL.replace("orders", "other"), "weir.toml")
    assert any("belongs to target 'orders' already" in str(one) for one in report.problems)
