"""Providers, identities of workloads and nested groups in the configuration."""
from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import Config, parse_config
from agent.contract.groups import groups_of
from agent.contract.identity import ServiceIdentity
from agent.settings.check import load_config
from agent.settings.fields import ConfigError
from agent.settings.groups_file import parse_groups

PROVIDER = """
[[provider]]
name = "corp"
issuer = "https://idp.lab.example/realms/corp"
client_id = "weir"
"""
WORKLOAD = """
[[workload]]
name = "crew"
users = ["crew"]
"""


def errors(text: str) -> list[str]:
    return [str(one) for one in parse_config(text, "weir.toml")[1].problems]


def right(text: str) -> Config:
    config, report = parse_config(text, "weir.toml")
    assert config is not None, "\n".join(map(str, report.problems))
    return config


def test_a_provider_with_its_defaults() -> None:
    [one] = right(PROVIDER).providers
    assert one.algorithms == ("RS256", "PS256", "ES256", "EdDSA")
    assert (one.client_secret_file, one.audience, one.ca, one.groups, one.required) == (None, None, None, {}, {})
    assert (one.subject_claim, one.groups_claim, one.max_session, one.refresh) == ("sub", ("groups",), 43200, 60)


def test_everything_of_a_provider() -> None:
    config = right(PROVIDER + """
audience = "api"
algorithms = ["ES256"]
groups_claim = "realm_access.roles"
max_session = "8h"
hosts = ["keys.lab.example", "[2001:db8::2]:8443"]
introspect = true
client_secret_file = "/etc/weir/secret"
refresh = "30s"
[provider.groups]
"/staff/data" = "data"
dba = "dba"
[provider.required]
email_verified = true
hd = "lab.example"
[[provider]]
name = "other"
issuer = "https://[2001:db8::1]:8443"
client_id = "x"
""")
    one, other = config.providers
    assert one.groups_claim == ("realm_access", "roles")
    assert one.groups == {"/staff/data": "data", "dba": "dba"}
    assert one.required == {"email_verified": True, "hd": "lab.example"}
    assert config.provider("other") == other
    assert (one.introspect, other.introspect) == (True, False)
    assert (one.hosts, other.hosts) == (("keys.lab.example", "[2001:db8::2]:8443"), ())
    assert config.provider("third") is None


@pytest.mark.parametrize(("field", "said"), [
    ('issuer = "http://idp.lab.example"', "an https URL"), ('issuer = "https://idp/?x"', "an https URL"),
    ('issuer = "https://user@idp"', "an https URL"), ('issuer = "https://idp#x"', "an https URL"),
    ('issuer = "https://idp:0"', "an https URL"), ('issuer = "https://idp:65536/x"', "an https URL"),
    ('hosts = ["https://keys.lab.example"]', "HOST or HOST:PORT"), ('hosts = ["keys:99999"]', "HOST or HOST:PORT"),
    ('hosts = ["keys/x"]', "HOST or HOST:PORT"), ('hosts = ["a@keys"]', "HOST or HOST:PORT"),
    ('algorithms = ["none"]', "is none of them"), ('algorithms = ["HS256"]', "is none of RS256"),
    ("algorithms = []", "a list of at least 1"), ('name = "local"', "is taken"), ('name = "Corp"', "no such name"),
    ('name = "a:b"', "no such name"), ('groups_claim = "a..b"', "no path of claims"),
    ('groups = ["x"]', "is not a table"), ("groups = {a = 1}", "is not a text"), ("required = {a = [1]}", "is no text"),
    ('max_session = "31d"', "out of bounds"), ('refresh = "0s"', "out of bounds"), ('scopes = ["a b"]', "no such name"),
    ("introspect = true", "name `client_secret_file` too"),
    ('client_secret = "x"', "client_secret_file names the file that holds it"),
])
def test_mistakes_are_named_with_line_and_field(field: str, said: str) -> None:
    name = field.partition(" =")[0]
    lines = [line for line in PROVIDER.strip().splitlines() if not line.startswith(f"{name} =")]
    [found] = errors("\n".join([*lines, field]))
    assert found.startswith(f"weir.toml:{len(lines) + 1}: provider[1].{name}: ")
    assert said in found


def test_two_providers_of_one_name() -> None:
    assert errors(PROVIDER + PROVIDER) == ["weir.toml:8: provider[2].name: 'corp' is also the name of provider[1]"]


def test_whose_a_workload_is() -> None:
    file = WORKLOAD + 'identity = {provider = "corp", token_file = "/run/spire/crew.jwt"}\n'
    assert right(PROVIDER + file).workloads[0].identity == ServiceIdentity("corp", "/run/spire/crew.jwt")
    secret = PROVIDER + 'client_secret_file = "/etc/weir/s"\n' + WORKLOAD + 'identity = {provider = "corp"}\n'
    assert right(secret).workloads[0].identity == ServiceIdentity("corp")
    assert right(PROVIDER + WORKLOAD + "person = true\n").workloads[0].person


@pytest.mark.parametrize(("text", "said"), [
    (WORKLOAD + "person = true\n", "nobody can log in"),
    (PROVIDER + WORKLOAD + 'identity = {provider = "x"}\n', "there is no [[provider]] 'x'; there is: corp"),
    (PROVIDER + WORKLOAD + 'identity = {provider = "corp"}\n', "names no token_file"),
    (PROVIDER + WORKLOAD + 'identity = {token_file = "/x"}\n', "does not name provider"),
    (PROVIDER + WORKLOAD + 'identity = {provider = "corp", token_file = "x"}\n', "not an absolute path"),
    (PROVIDER + WORKLOAD + 'person = true\nunit = "a.service"\n', "nobody starts a unit"),
    (PROVIDER + WORKLOAD + 'person = true\nidentity = {provider = "corp", token_file = "/x"}\n', "of its own"),
])
def test_mistakes_of_workloads(text: str, said: str) -> None:
    [found] = errors(text)
    assert said in found
    assert found.startswith("weir.toml:")


def test_the_process_that_holds_tokens_has_a_user_of_its_own() -> None:
    for user in ("weir", "weir-audit"):
        [found] = errors(f'[runtime]\nidentity_user = "{user}"\n')
        assert "weir.toml:2: runtime.identity_user: is another process' user too" in found


def test_files_of_secrets_are_roots_alone(tmp_path: Path) -> None:
    secret, token, ca = tmp_path / "secret", tmp_path / "token", tmp_path / "ca.pem"
    for file in (secret, token, ca):
        file.write_text("x")
        file.chmod(0o644)
    path = tmp_path / "weir.toml"
    path.write_text(PROVIDER + f'client_secret_file = "{secret}"\nca = "{ca}"\n'
                    + WORKLOAD.replace('["crew"]', '["games"]')
                    + f'identity = {{provider = "corp", token_file = "{token}"}}\n')
    with pytest.raises(ConfigError) as wrong:
        load_config(path)
    said = str(wrong.value)
    assert f"weir.toml:6: provider[1].client_secret_file: {secret}: others than root can read it" in said
    assert f"weir.toml:7: provider[1].ca: {ca} holds no certificate" in said
    assert f"weir.toml:12: workload[1].identity: {token}: others than root can read it" in said


def test_groups_in_groups() -> None:
    found, report = parse_groups('[groups]\na = ["user:ada"]\nb = ["weir:a"]\nc = ["weir:b", "subject:corp:x"]\n', "g")
    assert not report.problems
    groups = found.groups
    assert groups_of(groups, user="ada") == ("a", "b", "c")
    assert groups_of(groups, subject="corp:x") == ("c",)
    assert groups_of(groups, subject="corp:y") == ()
    assert groups_of(groups, given=("a", "elsewhere")) == ("a", "b", "c", "elsewhere")


@pytest.mark.parametrize(("text", "said"), [
    ('a = ["weir:a"]', "g:2: groups.a: is a member of itself"),
    ('a = ["weir:b"]\nb = ["weir:c"]\nc = ["weir:a"]', "g:4: groups.c: is a member of itself"),
    ('a = ["weir:b"]', "g:2: groups.a: 'weir:b' names no group of this file"),
    ('a = ["subject:ada"]', "subject:PROVIDER:NAME or weir:GROUP would be right"),
])
def test_groups_that_go_nowhere_or_round(text: str, said: str) -> None:
    assert said in "\n".join(map(str, parse_groups(f"[groups]\n{text}\n", "g")[1].problems))


def test_a_subject_cannot_pass_for_a_local_user() -> None:
    groups = {"dba": ("user:ada", "group:dbas", "subject:corp:ada")}
    assert groups_of(groups, subject="local:ada") == ()
    assert groups_of(groups, subject="corp:ada") == ("dba",)
