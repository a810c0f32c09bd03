"""[[target]] with protocol = "kubernetes": its own fields, labels on fields, forwards to targets."""
from __future__ import annotations

import base64
from pathlib import Path

import msgspec
import pytest

from agent.config import parse_config
from agent.contract.target import FieldLabel, Forward
from agent.credential.client_authority import client_authority, issue
from agent.settings import advice
from agent.settings.check import load_config
from agent.settings.fields import ConfigError
from agent.settings.notices import notes
from agent.settings.target_table import TargetEntry
from agent.workload.container_args import DOCKER, SYSTEMD, render_args
from agent.workload.container_args import notes as container_notes

CLUSTER = """
[[target]]
name = "cluster"
protocol = "kubernetes"
hosts = ["Cluster.lab.example", "10.96.0.1"]
"""
ROW = "[[target.credential]]\n"
TOKEN = ROW + 'token_file = "/etc/weir/credentials/token"\n'
LABEL = '[[target.label]]\nlabel = "pii.email"\n'
FORWARD = '[[target.forward]]\ntarget = "db"\nnamespace = "data"\npods = "db-*"\nport = 5432\n'
DATABASE = """
[[target]]
name = "db"
protocol = "postgresql"
hosts = ["db"]
port = 5432
[[target.credential]]
user = "u"
password_file = "/p"
"""
VAULT = '[[vault]]\nname = "safe"\naddress = "https://vault"\nauth = "token"\ntoken_file = "/t"\n'


def right(text: str) -> TargetEntry:
    config, report = parse_config(text, "weir.toml")
    assert config is not None, "\n".join(map(str, report.problems))
    return config.targets[0]


def errors(text: str) -> list[str]:
    config, report = parse_config(text, "weir.toml")
    assert (config is None) == bool(report.problems)
    return [str(one) for one in report.problems]


def test_what_a_cluster_has_by_itself() -> None:
    made = right(CLUSTER + TOKEN)
    assert (made.hosts, made.port, made.tls, made.payload, made.certified) == (
        ("cluster.lab.example", "10.96.0.1"), 6443, "verify-full", "none", True)
    assert "jwt" in made.detectors
    assert (made.credentials[0].user, made.credentials[0].role, made.credentials[0].group) == (None, "*", "*")


def test_a_whole_one() -> None:
    made = right(CLUSTER + """port = 443
tls = "verify-ca"
tls_ca = "/etc/weir/cluster-ca.pem"
trust = ["~/cluster.yaml"]
detectors = []
payload = "content"
payload_limit = "1GiB"
""" + TOKEN + LABEL + 'field = "configmaps:data.password"\nmask = "partial"\n' + FORWARD + DATABASE)
    assert (made.port, made.tls, made.payload, made.trust) == (443, "verify-ca", "content", ("~/cluster.yaml",))
    assert [row.field_label() for row in made.labels] == [
        FieldLabel("pii.email", "", "configmaps", ("data", "password"), "partial")]
    assert made.forwards == (Forward("db", "data", "db-*", 5432),)


@pytest.mark.parametrize(("field", "group", "resource", "path"), [
    ("configmaps:data.password", "", "configmaps", ("data", "password")),
    ("deployments.apps:spec.template.spec.containers[*].env[*].value", "apps", "deployments",
     ("spec", "template", "spec", "containers", "*", "env", "*", "value")),
    ("users.example.org:spec.items.*.email", "example.org", "users", ("spec", "items", "*", "email")),
    ('secrets:data."ca.crt"', "", "secrets", ("data", "ca.crt")), ('a:x."y z".w', "", "a", ("x", "y z", "w")),
    ("configmaps:.data.password", "", "configmaps", ("data", "password")),
])
def test_paths(field: str, group: str, resource: str, path: tuple[str, ...]) -> None:
    made = right(CLUSTER + TOKEN + LABEL + f"field = '{field}'\n")
    assert made.labels[0].field_label() == FieldLabel("pii.email", group, resource, path)


@pytest.mark.parametrize("field", [
    "", "configmaps", "configmaps:", "configmaps:.", ":data", "ConfigMaps:data", "configmaps:data.",
    "configmaps:data..x", "a/b:data", "configmaps:*", "configmaps:*.x",
    'configmaps:data."x', "configmaps:data.x y", "configmaps:data[0]",
    "configmaps:" + ".".join("x" * 40), "a..b:x", "configmaps:data.**",
])
def test_what_is_no_field(field: str) -> None:
    [said] = errors(CLUSTER + TOKEN + LABEL + f"field = '{field}'\n")
    assert said.startswith("weir.toml:10: target[1].label[1].field: ")
    assert "would be right" in said


@pytest.mark.parametrize("row", [
    'token_credential = "x"\n', 'certificate_file = "/c"\nkey_file = "/k"\n', 'user = "u"\ncertificate = "issue"\n',
    'exec = ["/x"]\nexec_user = "h"\n',
    'issuer = "https://login"\nclient_id = "k"\nrefresh_token_file = "/r"\nclient_secret_file = "/s"\n',
    'token_file = "/t"\ngroup = "ops"\nuser = "who"\n',
])
def test_credentials(row: str) -> None:
    right(CLUSTER + ROW + row)


def test_one_of_vault() -> None:
    made = right(VAULT + CLUSTER + ROW + 'vault = "safe"\npath = "crews/cluster"\ntoken_field = "jwt"\n')
    assert (made.credentials[0].path, made.credentials[0].token_field) == ("crews/cluster", "jwt")


@pytest.mark.parametrize(("text", "wanted"), [
    (CLUSTER, "has no [[target.credential]]"),
    (CLUSTER + TOKEN * 2, "is for the same group as credential[1]"),
    (CLUSTER + ROW, "has neither token_file nor certificate_file with key_file, exec, vault, issuer or"),
    (CLUSTER + ROW + 'certificate = "issue"\n', "user is missing"),
    (CLUSTER + TOKEN + 'certificate_file = "/c"\nkey_file = "/k"\n', "names a token and a certificate"),
    (CLUSTER + ROW + 'certificate_file = "/c"\n', "names only one of certificate_file and key_file"),
    (CLUSTER + TOKEN + 'token_credential = "x"\n', "token_credential: stands beside token_file"),
    (CLUSTER + TOKEN + 'client_id = "x"\n', "client_id: is for a row with `issuer`"),
    (CLUSTER + TOKEN + 'issuer = "https://login"\nclient_id = "x"\nrefresh_token_file = "/r"\n',
     "token_file: stands beside issuer"),
    (CLUSTER + ROW + 'issuer = "https://login"\n', "client_id is missing: issuer needs it"),
    (CLUSTER + ROW + 'exec = ["/x"]\nexec_user = "h"\ntoken_file = "/t"\n', "token_file: stands beside exec"),
    (CLUSTER + TOKEN + 'token = "x"\n', "is not known: secrets never stand in this file; token_file names the file"),
    (CLUSTER + TOKEN + "password_file = '/x'\n", "password_file: is not a field of kubernetes targets"),
    (CLUSTER + TOKEN + "role = 'x'\n", "role: is not a field of kubernetes targets"),
    (CLUSTER + 'tls = "disable"\n' + TOKEN, "tls: 'disable' is none of them"),
    (CLUSTER + "databases = ['x']\n" + TOKEN, "databases: is not a field of kubernetes targets, but"),
    (VAULT + CLUSTER + ROW + 'vault = "safe"\n', "vault: names nothing there; one of path would be right"),
    (CLUSTER + TOKEN + LABEL + "field = 'a:b'\nmask = 'null'\n", "null is no mask of a field"),
    (CLUSTER + TOKEN + LABEL, "field is missing"),
    (CLUSTER + TOKEN + (LABEL + "field = 'a:b'\n") * 2, "is labelled by label[1] already"),
    (CLUSTER + TOKEN + FORWARD, "weir.toml:9: target[1].forward[1].target: there is no [[target]] 'db'"),
    (CLUSTER + TOKEN + FORWARD.replace('"db"', '"cluster"'), "is a cluster, which is reached by its own name"),
    (CLUSTER + TOKEN + FORWARD * 2 + DATABASE, "is for the same pods and port as forward[1]"),
    (CLUSTER + TOKEN + FORWARD.replace("db-*", "DB_*") + DATABASE, "'DB_*' is no such name; a pod's name"),
    (CLUSTER + TOKEN + "[[target.forward]]\n" + DATABASE, "target is missing"),
    (DATABASE + FORWARD, "target[1].forward: is not a field of postgresql targets, but of kubernetes ones"),
    (DATABASE + "[[target.forward]]\n", "target[1].forward: is not a field of postgresql targets"),
])
def test_what_is_wrong_is_named(text: str, wanted: str) -> None:
    assert [one for one in errors(text) if wanted in one], errors(text)


# on a host


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    certificate, key, _ = issue(client_authority(tmp_path, "cluster"), "weir")
    _, other, _ = issue(client_authority(tmp_path, "cluster"), "weir")
    expired = "e30." + base64.urlsafe_b64encode(b'{"exp":1000}').decode() + ".x"
    for name, content in (("token", "abc\n"), ("lines", "a\nb\n"), ("expired", expired), ("c", certificate),
                          ("k", key), ("o", other), ("secret", "x")):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(content)
    (tmp_path / "open").write_text("abc")
    return tmp_path


def loaded(place: Path, row: str) -> list[str]:
    file = place / "weir.toml"
    file.write_text('[runtime]\nuser = "nobody"\naudit_user = "mail"\napprovers = "nogroup"\n' + CLUSTER + ROW
                    + row.format(place=place) + "\n")
    file.chmod(0o644)
    try:
        load_config(file)
    except ConfigError as wrong:
        return [str(one) for one in wrong.problems]
    return []


@pytest.mark.parametrize(("row", "wanted"), [
    ('token_file = "{place}/token"', ""), ('token_file = "{place}/expired"', ""),
    ('certificate_file = "{place}/c"\nkey_file = "{place}/k"', ""),
    ('token_file = "{place}/open"', "others than root can read it"),
    ('token_file = "{place}/nothing"', "token_file: {place}/nothing: there is no such file"),
    ('token_file = "{place}/lines"', "token_file: its token is none"),
    ('certificate_file = "{place}/c"\nkey_file = "{place}/o"', "certificate_file: its certificate is of another key"),
    ('certificate_file = "{place}/token"\nkey_file = "{place}/k"', "its certificate or key is not PEM"),
    ('issuer = "https://i"\nclient_id = "x"\nrefresh_token_file = "{place}/secret"', ""),
    ('issuer = "https://i"\nclient_id = "x"\nrefresh_token_file = "{place}/nothing"',
     "refresh_token_file: {place}/nothing"),
    ('issuer = "https://i"\nclient_id = "x"\nrefresh_token_file = "{place}/secret"\nissuer_ca = "{place}/token"',
     "issuer_ca: {place}/token holds no certificate"),
])
def test_files(place: Path, row: str, wanted: str) -> None:
    found = loaded(place, row)
    assert len(found) == bool(wanted), found
    assert not wanted or wanted.format(place=place) in found[0]


def test_a_token_that_has_expired_is_a_note(place: Path) -> None:
    assert loaded(place, 'token_file = "{place}/expired"') == []
    said = [str(one) for one in notes(load_config(place / "weir.toml"))]
    assert [one for one in said if "token_file: its token has expired: logins fail until there is another" in one]


def test_labels_that_every_cluster_has_are_known_to_policies() -> None:
    config, _ = parse_config(CLUSTER + TOKEN, "weir.toml")
    assert config is not None
    policies = {"p.cedar": 'permit (principal, action, resource in Label::"secret.helm");\n'
                           'permit (principal, action, resource == Namespace::"cluster/crews");\n'
                           'permit (principal, action, resource == Account::"cluster/root");'}
    [note] = advice.notes(msgspec.structs.replace(config, policies=policies))
    assert "cluster is a target of protocol kubernetes, which has no Account" in note.message


def test_containers_and_units_bring_their_own_kubeconfigs() -> None:
    config, _ = parse_config(
        '[[workload]]\nname = "crew"\nusers = ["u"]\n' + CLUSTER + 'trust = ["/opt/k.yaml", "/opt/ca.crt"]\n' + TOKEN,
        "w")
    assert config is not None
    args = render_args(config, config.workloads[0], 1, 1, SYSTEMD, DOCKER)
    assert "--volume=/run/weir/trust/weir.pem:/opt/ca.crt:ro" in args
    assert not [one for one in args if "k.yaml" in one]
    assert any("bind what `weir kubeconfig cluster` prints over them" in one for one in container_notes(config))
