"""Findings -> what would be configured, by table; read by the parsers and the schema that Weir itself has."""
from __future__ import annotations

import msgspec
import pytest

from agent.config import Config, parse_config
from agent.init.findings import COMMAND, OTHER, UNIT, Crew, Peer, Secret
from agent.init.policies import HARMLESS
from agent.init.proposal import Proposal, only_sure, propose
from agent.init.rendering import File, Missing, Rendered, render
from agent.settings import advice, notices
from agent.settings.groups_file import parse_groups
from enforcer.policy.cedar import PolicySet, load_policies
from enforcer.policy.tables import failures, parse_table

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG10eEI6aW+ZfURANj2dwOHwSyiuIcF30QoBCZWZmE40"
CA = "-----BEGIN CERTIFICATE-----\nAAAABBBBCCCCDDDDEEEE\n-----END CERTIFICATE-----\n"
DIRECTORY = "/etc/weir"
DATABASE = Peer("postgresql", ("db.lab",), 5432, ("DATABASE_URL of crew.service",), addresses=("10.0.0.4",), user="svc",
                database="shop", secrets=(Secret("password", "hunter2", "DATABASE_URL of crew.service"),))
OPEN = Peer("postgresql", ("10.0.0.4",), 5432, ("2 open connections of crew.service",), addresses=("10.0.0.4",))
HOST = Peer("ssh", ("web.lab",), 22, ("~/.ssh/config of crew",), user="deploy", keys=(KEY,))
CLUSTER = Peer("kubernetes", ("k.lab",), 443, ("~/.kube/config of crew",), database="shop", authorities=CA)
MODEL = Peer(OTHER, ("api.openai.com",), 443, ("OPENAI_API_KEY of crew.service",), addresses=("1.2.3.4",))


def crew(*peers: Peer, **how: str) -> Crew:
    made = Crew(UNIT, "crew.service", "crew", "/home/crew", "it imports crewai", ("/opt/crew",), peers)
    return msgspec.structs.replace(made, **how)


def proposed(*peers: Peer, take: bool = False, mode: str = "enforce") -> Proposal:
    return propose([crew(*peers)], [], [], mode, take)


def texts(rendered: Rendered) -> dict[str, str]:
    return {one.path.removeprefix(f"{DIRECTORY}/"): one.text for one in rendered.files}


def read(proposal: Proposal) -> tuple[Config, PolicySet, Rendered]:
    """By the real parser, schema and notes of `weir check`: nothing is wrong, and nothing hardly meant."""
    rendered = render(proposal, DIRECTORY)
    said = texts(rendered)
    config, report = parse_config(said["weir.toml"], f"{DIRECTORY}/weir.toml")
    assert config is not None, "\n".join(map(str, report.problems))
    groups, wrong = parse_groups(said["groups.toml"], "groups.toml")
    assert not wrong.problems
    policies = {name: text for name, text in said.items() if name.endswith(".cedar")}
    config = msgspec.structs.replace(config, groups=groups.groups, policies=policies)
    assert not notices.notes(config)
    return config, load_policies(policies), rendered


# what becomes one


@pytest.mark.parametrize(("peers", "places"), [
    ((), []),
    ((DATABASE, OPEN), [("shop", "postgresql", ("db.lab",), 5432)]),
    ((OPEN, DATABASE), [("shop", "postgresql", ("db.lab",), 5432)]),
    ((OPEN,), [("database", "postgresql", ("10.0.0.4",), 5432)]),
    ((MODEL, Peer(OTHER, ("1.2.3.4",), 443, ("open",), addresses=("1.2.3.4",))),
     [("api.openai.com", OTHER, ("api.openai.com",), 443)]),
    # What speaks is known by what is said elsewhere.
    ((CLUSTER, Peer(OTHER, ("k.lab",), 443, ("open",))), [("k", "kubernetes", ("k.lab",), 443)]),
    ((Peer("postgresql", ("db.lab",), 6432, ("url",)), Peer(OTHER, ("db.lab",), 6432, ("open",))),
     [("db", "postgresql", ("db.lab",), 6432)]),
    ((HOST, Peer("ssh", ("other.lab",), 22, ("x",))), [("web", "ssh", ("web.lab",), 22),
                                                       ("other", "ssh", ("other.lab",), 22)]),
    ((DATABASE, msgspec.structs.replace(DATABASE, hosts=("db2.lab",), addresses=())),
     [("shop", "postgresql", ("db.lab",), 5432), ("shop-2", "postgresql", ("db2.lab",), 5432)]),
    # A second name of one database; two models of one network have addresses in common.
    ((DATABASE, msgspec.structs.replace(DATABASE, hosts=("alias.lab",))),
     [("shop", "postgresql", ("db.lab", "alias.lab"), 5432)]),
    ((MODEL, msgspec.structs.replace(MODEL, hosts=("api.anthropic.com",))),
     [("api.openai.com", OTHER, ("api.openai.com",), 443), ("api.anthropic.com", OTHER, ("api.anthropic.com",), 443)]),
    ((Peer("postgresql", ("localhost",), 5432, ("a",)), Peer("postgresql", ("127.0.0.1",), 5432, ("b",))),
     [("database", "postgresql", ("127.0.0.1", "::1", "localhost"), 5432)]),
])
def test_places(peers: tuple[Peer, ...], places: list[tuple[str, str, tuple[str, ...], int]]) -> None:
    config, _, _ = read(proposed(*peers))
    found = [(one.name, one.protocol, one.hosts, one.port) for one in config.targets]
    found += [(one.name, OTHER, one.addresses, one.ports[0]) for one in config.egress]
    assert found == places


def test_of_two_accounts_and_databases_neither_is_said() -> None:
    both = proposed(HOST, msgspec.structs.replace(HOST, user="root"), DATABASE,
                    msgspec.structs.replace(DATABASE, database="other"))
    assert [(one.name, one.peer.user, one.peer.database) for one in both.places if one.peer.protocol == "ssh"] == [
        ("web", "", "")]
    policies = texts(render(both, DIRECTORY))["policies/first.cedar"]
    assert "Account::" not in policies
    assert "Database::" not in policies


def test_what_is_only_known_is_not_taken_by_itself() -> None:
    known = msgspec.structs.replace(HOST, sure=False)
    assert only_sure(proposed(known)).places == ()
    assert len(proposed(known).places) == 1
    seen = proposed(known, Peer("ssh", ("web.lab",), 22, ("1 open connection of crew.service",)))
    assert len(only_sure(seen).places) == 1


def test_a_target_that_was_named_has_its_name_and_what_was_found_of_it() -> None:
    named = Peer("postgresql", ("db.lab",), 5432, ("--target",), name="orders")
    made = propose([crew(DATABASE)], [], [named], "enforce", True)
    [place] = made.places
    assert (place.name, place.peer.user, place.peer.database, place.take) == ("orders", "svc", "shop", True)


# what is written


def test_a_whole_one() -> None:
    config, policies, rendered = read(proposed(DATABASE, OPEN, HOST, CLUSTER, MODEL, take=True))
    [workload] = config.workloads
    assert (workload.name, workload.unit, workload.users, workload.directories, workload.read_only) == (
        "crew", "crew.service", ("crew",), ("~",), ("/opt/crew",))
    shop, web, k = config.targets
    assert (shop.tls, shop.credentials[0].user, shop.credentials[0].password_file) == (
        "verify-full", "svc", f"{DIRECTORY}/credentials/shop")
    assert (web.host_keys, web.credentials[0].key_file) == ((KEY,), f"{DIRECTORY}/credentials/web.key")
    assert (k.tls_ca, k.credentials[0].token_file) == (f"{DIRECTORY}/k-ca.pem", f"{DIRECTORY}/credentials/k.token")
    assert config.groups == {"approvers": ("group:weir-approvers",), "crew": ("workload:crew",)}
    assert not list(advice.missing(config))
    assert not list(advice.lax(config))
    assert [(one.path, one.mode, one.secret) for one in rendered.files if one.secret] == [
        (f"{DIRECTORY}/credentials/shop", 0o600, DATABASE.secrets[0])]
    assert [one.path for one in rendered.missing] == [
        f"{DIRECTORY}/credentials/web.key", f"{DIRECTORY}/credentials/k.token"]
    assert rendered.files[-1].path == f"{DIRECTORY}/weir.toml"
    rows = parse_table("first", """
        # SUBJECT GROUPS ACTION RESOURCE EXPECTED
        local:crew crew connect Database::shop/shop permit
        local:crew crew connect Database::shop/other deny
        local:crew other connect Database::shop/shop deny
        local:crew crew sql:select Table::shop/shop/public/orders permit
        local:crew crew sql:listen Database::shop/shop permit
        local:crew crew sql:insert Table::shop/shop/public/orders hold
        local:crew crew sql:delete Table::shop/shop/public/orders hold
        local:crew crew sql:truncate Table::shop/shop/public/orders deny
        local:crew crew sql:ddl Table::shop/shop/public/orders deny
        local:crew crew sql:do Database::shop/shop deny
        local:crew crew sql:call Function::shop/shop/public/f deny
        local:crew crew connect Account::web/deploy permit
        local:crew crew connect Account::web/root deny
        local:crew crew ssh:exec Command::"web/deploy/df -h" permit
        local:crew crew ssh:exec Command::"web/deploy/rm -rf /" hold
        local:crew crew ssh:exec Command::"web/deploy/df -h /" hold
        local:crew crew ssh:exec-opaque Account::web/deploy deny
        local:crew crew ssh:shell Account::web/deploy deny
        local:crew crew sftp:read File::web/deploy//var/log/a permit
        local:crew crew sftp:read File::web/deploy//home/deploy/.ssh/id_rsa deny
        local:crew crew sftp:write File::web/deploy//var/log/a hold
        local:crew crew ssh:exec-write File::web/deploy//dev/null permit
        local:crew crew ssh:forward-local Endpoint::"web/deploy/db 5432" deny
        local:crew crew connect Target::k permit
        local:crew crew k8s:get Object::k/shop/pods/web permit
        local:crew crew k8s:list Resource::k/other/pods deny
        local:crew crew k8s:delete Object::k/shop/pods/web hold
        local:crew crew k8s:exec Object::k/shop/pods%2Fexec/web hold
        local:crew crew k8s:proxy Object::k/shop/pods%2Fproxy/web deny
        """)
    assert not list(failures(policies, rows))


@pytest.mark.parametrize(("peer", "fields"), [
    (msgspec.structs.replace(DATABASE, tls="disable"), {"tls": "disable"}),
    (msgspec.structs.replace(DATABASE, tls="require"), {"tls": "verify-full", "tls_ca": None}),
    (msgspec.structs.replace(DATABASE, authorities=CA, root_file="~/db-ca.pem"),
     {"tls_ca": f"{DIRECTORY}/shop-ca.pem", "trust": ("~/db-ca.pem",)}),
    (Peer("postgresql", ("localhost",), 5432, ("x",)), {"tls": "disable"}),
    (Peer("postgresql", ("localhost",), 5432, ("x",), tls="verify-full"), {"tls": "verify-full"}),
    (Peer("postgresql", (), 5432, ("x",), socket="/run/postgresql/.s.PGSQL.5432", user="svc"),
     {"sockets": ("/run/postgresql/.s.PGSQL.5432",), "upstream": "/run/postgresql/.s.PGSQL.5432", "hosts": ()}),
    (msgspec.structs.replace(HOST, keys=(), port=2222), {"known_hosts": f"{DIRECTORY}/web-known_hosts", "port": 2222}),
    (msgspec.structs.replace(CLUSTER, authorities=""), {"tls_ca": None}),
])
def test_how_a_target_is_reached(peer: Peer, fields: dict[str, object]) -> None:
    config, _, _ = read(proposed(peer))
    [target] = config.targets
    assert {name: getattr(target, name) for name in fields} == fields


def test_each_thing_that_is_missing_comes_with_the_command_for_it() -> None:
    _, _, rendered = read(proposed(msgspec.structs.replace(HOST, keys=(), port=2222), DATABASE))
    assert [(one.path.rpartition("/")[2], one.how.split()[0]) for one in rendered.missing] == [
        ("shop", "sudo"), ("web-known_hosts", "ssh-keyscan"), ("web.key", "sudo")]
    assert "ssh-keyscan -p 2222 web.lab" in rendered.missing[1].how
    assert rendered.missing[0].what == "the password for shop, which is sent to db.lab port 5432"
    with_blank = render(proposed(DATABASE), "/etc/a b; c").missing[0].how
    assert with_blank.endswith("&& sudoedit '/etc/a b; c/credentials/shop'")


def test_a_client_certificate_is_two_files() -> None:
    pair = (Secret("certificate", "C", "the certificate"), Secret("key", "K", "the key"))
    config, _, rendered = read(proposed(msgspec.structs.replace(CLUSTER, secrets=pair), take=True))
    row = config.targets[0].credentials[0]
    assert (row.certificate_file, row.key_file) == (f"{DIRECTORY}/credentials/k.pem", f"{DIRECTORY}/credentials/k.key")
    assert {one.path: one.secret for one in rendered.files if one.secret} == {
        row.certificate_file: pair[0], row.key_file: pair[1]}


@pytest.mark.parametrize("mode", ["enforce", "shadow", "record"])
def test_the_mode_of_egress(mode: str) -> None:
    config, _, rendered = read(proposed(MODEL, mode=mode))
    assert (config.workloads[0].egress or "enforce") == mode
    assert ("NOT ENFORCED" in texts(rendered)["weir.toml"]) == (mode != "enforce")


def test_several_crews_each_with_its_own() -> None:
    second = Crew(COMMAND, "ada", "ada", "/home/ada", "you named it", (), (OPEN,))
    third = Crew(UNIT, "approvers.service", "", "", "x", (), (OPEN,))
    config, policies, _ = read(propose([crew(DATABASE, HOST), second, third], [], [], "enforce"))
    assert [(one.name, one.users, one.unit) for one in config.workloads] == [
        ("crew", ("crew",), "crew.service"), ("ada", ("ada",), None), ("approvers", (), "approvers.service")]
    assert config.groups["crew-approvers"] == ("workload:approvers",)
    rows = parse_table("first", """
        local:x ada connect Database::shop/shop permit
        local:x crew-approvers sql:select Table::shop/shop/public/orders permit
        local:x ada connect Account::web/deploy deny
        """)
    assert not list(failures(policies, rows))


# what one crew says, and another one's secret


EVIL = msgspec.structs.replace(
    DATABASE, hosts=("evil.lab",), tls="disable", authorities=CA, why=("X of evil.service",), secrets=())


def of_two(*peers: Peer, second: tuple[Peer, ...] = (DATABASE,), named: tuple[Peer, ...] = ()) -> Proposal:
    evil = crew(*peers, name="evil.service", user="evil", home="/home/evil")
    return propose([evil, crew(*second)], [], named, "enforce", True)


@pytest.mark.parametrize("secrets", [(), (Secret("password", "x", "X of evil.service"),)])
def test_a_name_of_one_crew_that_leads_to_the_others_database_is_not_where_its_password_goes(
    secrets: tuple[Secret, ...],
) -> None:
    """Who has the name leads it elsewhere afterwards."""
    made = of_two(msgspec.structs.replace(EVIL, secrets=secrets))
    config, _, _ = read(made)
    assert {one.hosts: one.tls for one in config.targets} == {("db.lab",): "verify-full", ("evil.lab",): "disable"}
    assert {one.peer.hosts[0]: [secret.value for secret in one.peer.secrets] for one in made.places} == {
        "db.lab": ["hunter2"], "evil.lab": [one.value for one in secrets]}


def test_a_crew_does_not_say_how_another_ones_database_is_known_and_is_not_given_its_password() -> None:
    config, _, rendered = read(of_two(msgspec.structs.replace(EVIL, hosts=("db.lab",))))
    [target] = config.targets
    assert (target.hosts, target.tls, target.tls_ca) == (("db.lab",), "verify-full", None)
    assert [one.group for one in target.credentials] == ["crew"]
    assert any("is for nobody else: evil cannot log in" in one for one in rendered.remarks)


def test_crews_that_have_the_same_password_have_one_credential() -> None:
    config, _, rendered = read(of_two(DATABASE))
    assert [one.group for one in config.targets[0].credentials] == ["*"]
    assert not [one for one in rendered.remarks if "nobody else" in one]


def test_of_two_passwords_each_crew_has_its_own_or_none() -> None:
    made = of_two(msgspec.structs.replace(DATABASE, secrets=(Secret("password", "x", "X of evil.service"),)))
    config, _, _ = read(made)
    assert [(one.peer.secrets[0].value, one.holders) for one in made.places] == [("x", ("evil",))]
    assert [one.group for one in config.targets[0].credentials] == ["evil"]


def test_what_one_crew_says_is_within_a_place_widens_nothing_of_another_ones() -> None:
    root = msgspec.structs.replace(HOST, user="root")
    other = msgspec.structs.replace(DATABASE, database="other")
    _, policies, _ = read(of_two(root, other, OPEN, second=(HOST, DATABASE)))
    rows = parse_table("first", """
        local:x crew connect Account::web/deploy permit
        local:x crew connect Account::web/root deny
        local:x evil connect Account::web/root permit
        local:x evil connect Account::web/deploy deny
        local:x crew sql:select Table::db/shop/public/orders permit
        local:x crew sql:select Table::db/other/public/orders deny
        local:x evil sql:select Table::db/shop/public/orders deny
        """)
    assert not list(failures(policies, rows))


def test_a_name_that_leads_here_and_there_does_not_lead_what_was_named_here() -> None:
    """Where anybody listens, and where no TLS is needed."""
    both = msgspec.structs.replace(DATABASE, hosts=("evil.lab",), addresses=("10.0.0.4", "127.0.0.1"), secrets=())
    local = Peer("postgresql", ("localhost",), 5432, ("X of evil.service",), addresses=("127.0.0.1",), tls="disable")
    named = msgspec.structs.replace(DATABASE, name="orders", why=("--target",), secrets=())
    config, _, _ = read(of_two(both, local, named=(named,)))
    target = config.targets[0]
    assert (target.name, target.hosts[0], target.tls) == ("orders", "db.lab", "verify-full")
    assert [one.group for one in target.credentials] == ["crew"]
    [target] = read(of_two(both, local, second=(), named=(named,)))[0].targets
    assert (target.name, target.hosts[0], target.tls) == ("orders", "db.lab", "verify-full")


def test_without_tls_over_a_network_is_said() -> None:
    assert any("without TLS" in one for one in render(proposed(EVIL), DIRECTORY).remarks)
    here = msgspec.structs.replace(EVIL, hosts=("localhost",), addresses=())
    assert not any("without TLS" in one for one in render(proposed(here), DIRECTORY).remarks)


def test_harmless_commands_are_to_the_word() -> None:
    assert not [one for one in HARMLESS if set(one) & set("*?$;|&<>`")]


# what others wrote


HOSTILE = ('a"b', "a'b", "a\\b", "x\n[[target]]\nname = \"y\"", "x\r\n//", "\x1b]0;t\x07\x1b[2J", "\u2028\u202e", "'''",
           '"); permit (principal, action, resource); //', "$(id)", "*", "a/b", "\U0001f600", "\x00\x7f\x9b",
           "ä" * 5000)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_findings_stay_within_their_place(text: str) -> None:
    """As if no earlier check had been: in names, comments, ids and paths."""
    evil = crew(
        msgspec.structs.replace(DATABASE, database=text, user=text, why=(text,), name="", tls=text),
        msgspec.structs.replace(HOST, user=text, why=(text,), keys=()),
        msgspec.structs.replace(CLUSTER, database=text, why=(text,)),
        msgspec.structs.replace(MODEL, why=(text,)), why=text)
    rendered = render(propose([evil], [], [], "enforce"), DIRECTORY)
    said = texts(rendered)
    for name, content in said.items():
        assert all(one == "\n" or " " <= one <= "~" for one in content), name
    config, report = parse_config(said["weir.toml"], "weir.toml")
    # A user that could stand in no configuration is a mistake of that field, and nothing else is.
    assert {one.field.rpartition(".")[2] for one in report.problems} <= {"user"}
    assert config is None or [one.protocol for one in config.targets] == ["postgresql", "ssh", "kubernetes"]
    policies = load_policies({"first.cedar": said["policies/first.cedar"]})
    assert not list(failures(policies, parse_table("x", "local:x other connect Account::web/root deny\n")))
    plain = texts(render(proposed(
        *(msgspec.structs.replace(one, why=("x",), database="", user="") for one in (DATABASE, HOST, CLUSTER)),
        MODEL), DIRECTORY))
    assert said["policies/first.cedar"].count("@id(") == plain["policies/first.cedar"].count("@id(")


def test_nothing_that_is_rendered_shows_a_secret() -> None:
    rendered = render(proposed(DATABASE, take=True), DIRECTORY)
    assert "hunter2" not in repr(rendered)
    assert not any("hunter2" in one.text for one in rendered.files if isinstance(one, File))
    assert not any("hunter2" in one.how + one.what for one in rendered.missing if isinstance(one, Missing))
    assert "hunter2" not in "".join(rendered.remarks)
    assert any("DATABASE_URL of crew.service has the password still" in one for one in rendered.remarks)
