"""[[target]] with protocol = "ssh": its own fields, and no other protocol's."""
from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest

from agent.config import parse_config
from agent.settings import advice
from agent.settings.check import load_config
from agent.settings.fields import ConfigError
from agent.settings.notices import notes
from agent.settings.target_table import TARGET, TargetEntry

A = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG10eEI6aW+ZfURANj2dwOHwSyiuIcF30QoBCZWZmE40"
WEB = f"""
[[target]]
name = "web"
protocol = "ssh"
hosts = ["Web.lab.example", "10.0.0.9"]
host_keys = ["{A} root@web"]
"""
BARE = WEB.replace("host_keys", "#host_keys")
KEY = '[[target.credential]]\nkey_file = "/etc/weir/credentials/web"\n'
VAULT = '[[vault]]\nname = "safe"\naddress = "https://vault"\nauth = "token"\ntoken_file = "/t"\n'
LABEL = '[[target.label]]\nlabel = "secret.app"\n'
DATABASE = '[[target]]\nname = "db"\nprotocol = "postgresql"\nhosts = ["db"]\nport = 5432\n'
PASSWORD = '[[target.credential]]\nuser = "u"\npassword_file = "/p"\n'


def vaulted(row: str) -> str:
    return f'{VAULT}{WEB}[[target.credential]]\nvault = "safe"\n{row}'


def right(text: str) -> TargetEntry:
    config, report = parse_config(text, "weir.toml")
    assert config is not None, "\n".join(map(str, report.problems))
    return config.targets[0]


def errors(text: str) -> list[str]:
    config, report = parse_config(text, "weir.toml")
    assert (config is None) == bool(report.problems)
    return [str(one) for one in report.problems]


def test_what_an_ssh_host_has_by_itself() -> None:
    made = right(WEB + KEY)
    assert (made.hosts, made.port, made.payload, made.certified) == (
        ("web.lab.example", "10.0.0.9"), 22, "none", False)
    assert made.host_keys == (A,)
    assert made.authentication == ("none", "publickey", "password", "keyboard-interactive")
    assert "private-key" in made.detectors
    assert (made.tls, made.tls_ca, made.databases, made.sockets) == ("disable", None, (), ())
    assert (made.credentials[0].user, made.credentials[0].role) == (None, "*")


def test_a_whole_one() -> None:
    made = right(WEB + f"""port = 2222
known_hosts = "/etc/weir/known_hosts"
host_ca = ["{A}"]
authentication = ["publickey"]
detectors = []
payload = "content"
payload_limit = "1GiB"
trust = ["~/hosts"]
""" + KEY + LABEL + 'path = "/etc/app/*.key"\n' + LABEL + 'command = "vault read *"\n')
    assert (made.port, made.payload, made.payload_limit, made.detectors) == (2222, "content", 1 << 30, ())
    found = [row.content_label() for row in made.labels]
    assert [(one.label, one.path, one.command) for one in found if one] == [
        ("secret.app", "/etc/app/*.key", ""), ("secret.app", "", "vault read *")]
    assert [row.column_label() for row in made.labels] == [None, None]


def test_of_an_unknown_protocol_nothing_else_is_said() -> None:
    assert ["protocol" in one for one in errors(WEB.replace('"ssh"', '"sftp"') + "tls = 'x'\n" + KEY)] == [True]


@pytest.mark.parametrize(("text", "wanted"), [
    (WEB + "tls = 'disable'\n" + KEY,
     "weir.toml:7: target[1].tls: is not a field of ssh targets, but of postgresql, kubernetes ones"),
    (WEB + "databases = ['x']\nsockets = ['/tmp/x']\n" + KEY, "target[1].sockets: is not a field of ssh targets"),
    (DATABASE + f"host_keys = ['{A}']\n" + PASSWORD,
     "target[1].host_keys: is not a field of postgresql targets, but of ssh ones: leave it out"),
    (DATABASE + PASSWORD + "agent = '/run/x'\n", "credential[1].agent: is not a field of postgresql targets"),
    (DATABASE + PASSWORD + LABEL + "path = '/x'\n", "label[1].path: is not a field of postgresql targets"),
    (DATABASE.replace("port = 5432\n", "") + PASSWORD, "target[1]: port is missing"),
    (WEB + KEY + "database = 'x'\n", "credential[1].database: is not a field of ssh targets, but of postgresql ones"),
    (WEB + KEY + LABEL + "column = 'a.b.c'\n", "label[1].column: is not a field of ssh targets"),
    (WEB + "host_key = 'x'\n" + KEY, "host_key: is not known; did you mean host_keys?"),
    (WEB.replace('"ssh"', '"shh"') + KEY, "'shh' is none of kubernetes, postgresql, ssh; did you mean ssh?"),
    (WEB + "payload = 'rows'\n" + KEY, "payload: 'rows' is none of them; one of none, content"),
    (WEB + "port = 0\n" + KEY, "port: 0 is out of bounds"),
    (WEB + "authentication = []\n" + KEY, "authentication: [] is not a list of at least 1"),
    (WEB + "authentication = ['gssapi-with-mic']\n" + KEY, "is none of them; a list, each one of none, publickey"),
    (WEB + "detectors = ['passwords']\n" + KEY, "is none of"),
    (WEB.replace('["Web.lab.example", "10.0.0.9"]', "[]") + KEY, "hosts: [] is not a list of at least 1"),
    (BARE + KEY, "weir.toml:2: target[1]: has no `host_keys`, `known_hosts` or `host_ca`, and Weir could not tell it "
     "from another host: ssh-keyscan web.lab.example prints its keys, and ssh-keygen -lf there, on the host itself, "
     "says whether they are"),
    (BARE + "port = 2222\n" + KEY, "ssh-keyscan -p 2222 web.lab.example"),
    (BARE + "host_keys = ['ssh-ed25519 AAAA']\n" + KEY, "host_keys: its base64 is no key of that type; a list, each a"),
    (BARE + "host_keys = ['ssh-dss AAAA']\n" + KEY, "of a type that SSH hosts have"),
    (BARE + f"host_keys = ['web.lab.example {A}']\n" + KEY, "it is a line of known_hosts: without its first word"),
    (BARE + "host_keys = ['SHA256:u9Yj']\n" + KEY, "it is a fingerprint and not the key"),
    (WEB + "[[target.credential]]\naccount = 'x'\nkey_file = '/k'\n", "is not known; did you mean role?"),
    (BARE + "host_ca = ['-----BEGIN OPENSSH PRIVATE KEY-----']\n" + KEY, "it is a private key, which never stands"),
    (WEB, "has no [[target.credential]]"),
    (WEB + KEY * 2, "is for the same role and group as credential[1]"),
    (WEB + "[[target.credential]]\nuser = 'x'\n", "has neither key_file nor password_file, agent, exec, vault or"),
    (WEB + "[[target.credential]]\ncertificate_file = '/c'\n", "names a certificate without its key"),
    (WEB + KEY + "agent = '/run/a.sock'\n", "credential[1].key_file: stands beside agent"),
    (WEB + KEY + "certificate = 'issue'\n", 'credential[1].key_file: stands beside certificate = "issue"'),
    (WEB + KEY + "key_credential = 'x'\n", "key_credential: stands beside key_file"),
    (WEB + KEY + "key = 'x'\n", "credential[1].key: is not known"),
    (WEB + "[[target.credential]]\nexec = ['/x']\nexec_user = 'h'\nagent = '/run/a'\n", "agent: stands beside exec"),
    (vaulted("path = 'a'\nssh_role = 'b'\n"), "ssh_role: names path and ssh_role; one of path, ssh_role"),
    (vaulted("database_role = 'a'\n"), "credential[1].database_role: is not a field of ssh targets"),
    (vaulted("ssh_role = 'b'\nkey_field = 'key'\n"), "key_field: stands beside ssh_role, by which Vault says what"),
    (vaulted("path = 'a'\ncertificate_field = 'c'\n"), "names only one of certificate_field and key_field"),
    (WEB + KEY + LABEL, "label[1]: names nothing; one of `path` and `command` would be right"),
    (WEB + KEY + LABEL + "path = '/x'\ncommand = 'y'\n", "names both `path` and `command`"),
    (WEB + KEY + LABEL + "path = 'x'\n", "'x' is no absolute path; an absolute path, in which `*` stands for anything"),
    (WEB + KEY + LABEL + "path = '/a/../b'\n", "is no absolute path"),
    (WEB + KEY + (LABEL + "path = '/x'\n") * 2, "label[2].path: is labelled by label[1] already"),
    (WEB + KEY + DATABASE.replace("5432", "22").replace('"db"]', '"WEB.lab.example"]') + PASSWORD,
     "web.lab.example port 22 belongs to target 'web' already"),
])
def test_what_is_wrong_is_named(text: str, wanted: str) -> None:
    assert wanted in "\n".join(errors(text))


@pytest.mark.parametrize("row", ["agent = '/run/keys/a.sock'", "password_file = '/p'", "certificate = 'issue'",
                                 "key_credential = 'web'", "exec = ['/x']\nexec_user = 'helper'",
                                 "key_file = '/k'\ncertificate_file = '/c'\nrole = 'deploy'\nuser = 'root'"])
def test_where_a_credential_may_come_from(row: str) -> None:
    assert right(WEB + "[[target.credential]]\n" + row + "\n").credentials


@pytest.mark.parametrize("row", ["ssh_role = 'crews'\nuser = 'deploy'", "path = 'a'\nkey_field = 'key'", "path = 'a'"])
def test_what_vault_may_give(row: str) -> None:
    assert right(vaulted(row + "\n")).credentials


def test_every_field_is_somebodys() -> None:
    """And what two protocols have by one name stands once for each."""
    for section in (TARGET, *TARGET.children):
        for protocol in ("postgresql", "ssh", "kubernetes"):
            names = [one.name for one in section.of(protocol)]
            assert len(names) == len(set(names))
    assert {"name", "protocol"} == {one.name for one in TARGET.of("nobody")}


# on a host


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    for name, how in (("web", ()), ("other", ()), ("locked", ("-N", "phrase"))):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", *(how or ("-N", "")), "-f", tmp_path / name], check=True)
    subprocess.run(["ssh-keygen", "-q", "-s", tmp_path / "other", "-I", "x", tmp_path / "web.pub"], check=True)
    (tmp_path / "web-cert.pub").chmod(0o600)
    (tmp_path / "hosts").write_text(f"web.lab.example {A}\n")
    (tmp_path / "hosts").chmod(0o644)
    return tmp_path


def loaded(place: Path, row: str, more: str = "") -> list[str]:
    """What is wrong, without the accounts of this host."""
    file = place / "weir.toml"
    file.write_text('[runtime]\nuser = "nobody"\naudit_user = "mail"\napprovers = "nogroup"\n' + BARE + more
                    + f'known_hosts = "{place}/hosts"\n[[target.credential]]\n' + row.format(place=place) + "\n")
    file.chmod(0o644)
    try:
        config = load_config(file)
    except ConfigError as wrong:
        return [str(one) for one in wrong.problems]
    assert config.known_hosts == {"web": f"web.lab.example,10.0.0.9 {A}\n"}
    assert str(place / "hosts") in config.digests
    return []


def test_files_that_are_right(place: Path) -> None:
    assert loaded(place, 'key_file = "{place}/web"\ncertificate_file = "{place}/web-cert.pub"') == []
    assert loaded(place, 'agent = "/run/not/there/yet"') == []


@pytest.mark.parametrize(("row", "wanted"), [
    ('key_file = "{place}/locked"', "locked is encrypted, and nobody is asked for a passphrase"),
    ('key_file = "{place}/hosts"', "others than root can read it"),
    ('key_file = "{place}/nothing"', "there is no such file"),
    ('key_file = "{place}/web-cert.pub"', "holds no private key"),
    ('key_file = "{place}/other"\ncertificate_file = "{place}/web-cert.pub"', "web-cert.pub is of another key than"),
    ('key_file = "{place}/web"\ncertificate_file = "{place}/other"', "other holds no certificate of OpenSSH's"),
    ('agent = "{place}/web"', "web is no socket"),
])
def test_files_that_are_wrong(place: Path, row: str, wanted: str) -> None:
    [said] = loaded(place, row)
    assert wanted in said
    assert said.startswith(f"{place}/weir.toml:")
    assert "credential[1]." in said


def test_a_known_hosts_file_that_is_wrong(place: Path) -> None:
    row = 'agent = "/run/a"'
    (place / "hosts").write_text(f"else {A}\n")
    assert "known_hosts: " in loaded(place, row)[0]
    assert "has no line for web.lab.example: ssh-keyscan web.lab.example" in loaded(place, row)[0]
    (place / "hosts").chmod(0o666)
    assert any("others than root can write it" in one for one in loaded(place, row))
    (place / "hosts").unlink()
    assert "there is no such file" in loaded(place, row)[0]


def test_a_certificate_that_has_expired_is_a_note(place: Path) -> None:
    """It may be renewed at any time, so the configuration is right."""
    subprocess.run(["ssh-keygen", "-q", "-s", place / "other", "-I", "x", "-V", "20200101:20200102", place / "web.pub"],
                   check=True)
    (place / "web-cert.pub").chmod(0o600)
    row = 'key_file = "{place}/web"\ncertificate_file = "{place}/web-cert.pub"'
    assert loaded(place, row) == []
    said = [str(one) for one in notes(load_config(place / "weir.toml"))]
    assert [one for one in said if "certificate_file: " in one and "web-cert.pub has expired: logins fail" in one]


def test_labels_of_detectors_are_known_to_policies() -> None:
    config, report = parse_config(WEB + KEY, "weir.toml")
    assert config is not None, report.problems
    for label, noted in (("secret.token.jwt", False), ("pci", False), ("pii.email", True)):
        text = f'permit (principal, action, resource in Label::"{label}");'
        found = advice.notes(msgspec.structs.replace(config, policies={"p.cedar": text}))
        assert any("names no [[target.label]]" in one.message for one in found) == noted
