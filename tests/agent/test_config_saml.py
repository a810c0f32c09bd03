"""SAML providers in the configuration, and their metadata, which an unprivileged process reads."""
from __future__ import annotations

from pathlib import Path

import pytest
import saml_idp as idp

from agent.config import Config, parse_config
from agent.contract.identity import METADATA, NAME_ID
from agent.people.identities import render_saml
from agent.settings.check import check_metadata, load_config
from agent.settings.fields import ConfigError

SAML = """
[[saml_provider]]
name = "adfs"
issuer = "https://idp.lab.example/saml"
entity_id = "urn:weir:lab"
metadata = "/etc/weir/adfs.xml"
"""
OIDC = """
[[provider]]
name = "adfs"
issuer = "https://idp.lab.example"
client_id = "weir"
"""
WORKLOAD = """
[[workload]]
name = "crew"
users = ["games"]
"""


def errors(text: str) -> list[str]:
    return [str(one) for one in parse_config(text, "weir.toml")[1].problems]


def right(text: str) -> Config:
    config, report = parse_config(text, "weir.toml")
    assert config is not None, "\n".join(map(str, report.problems))
    return config


def test_a_provider_with_its_defaults() -> None:
    config = right(SAML + WORKLOAD + "person = true\n")
    [one] = config.saml
    assert (one.port, one.key_file, one.subject_attribute, one.groups_attribute) == (None, None, None, "groups")
    assert one.max_session == 43200
    assert config.provider("adfs") is one
    assert config.logins == (one,)
    told = render_saml(one, "KEY", "ROOTS", b"<x/>")
    assert (told.subject_claim, told.groups_claim, told.metadata, told.key) == (NAME_ID, ("groups",), b"<x/>", "KEY")


def test_everything_of_a_provider() -> None:
    place = 'metadata_url = "https://idp.lab.example/m?x=1"'
    config = right(SAML.replace('metadata = "/etc/weir/adfs.xml"', place) + """
ca = "/etc/weir/ca.pem"
key_file = "/etc/weir/saml.pem"
port = 15439
subject_attribute = "uid"
groups_attribute = "http://schemas.xmlsoap.org/claims/Group"
max_session = "8h"
[saml_provider.groups]
"/staff/data" = "data"
[saml_provider.required]
department = "data"
""")
    [one] = config.saml
    assert (one.metadata_url, one.port, one.groups) == ("https://idp.lab.example/m?x=1", 15439, {"/staff/data": "data"})
    told = render_saml(one, "", "", b"")
    assert told.groups_claim == ("http://schemas.xmlsoap.org/claims/Group",)
    assert (told.subject_claim, told.required) == ("uid", {"department": "data"})


@pytest.mark.parametrize(("field", "said"), [
    ('issuer = "corp"', "a URI"), ('entity_id = "we ir"', "a URI"), ('entity_id = "urn:a b"', "a URI"),
    ('metadata = "adfs.xml"', "not an absolute path"), ('metadata_url = "http://idp.lab.example/m"', "an https URL"),
    ("port = 80", "from 1024 to 65535"), ("port = 15432", "is the enforcer's own"), ('name = "local"', "is taken"),
    ("required = {a = true}", "is not a text"), ("groups = {a = 1}", "is not a text"),
    ('max_session = "31d"', "out of bounds"), ('client_id = "x"', "client_id"), ('refresh = "1m"', "refresh"),
    ('ca = "/etc/weir/ca.pem"', "is not used without `metadata_url`")])
def test_mistakes_are_named_with_line_and_field(field: str, said: str) -> None:
    name = field.partition(" =")[0]
    lines = [line for line in SAML.strip().splitlines() if not line.startswith(f"{name} =")]
    found = [one for one in errors("\n".join([*lines, field])) if f"saml_provider[1].{name}: " in one]
    assert len(found) == 1
    assert found[0].startswith(f"weir.toml:{len(lines) + 1}: ")
    assert said in found[0]


def test_one_place_of_metadata() -> None:
    without = SAML.replace('metadata = "/etc/weir/adfs.xml"', "")
    assert "weir.toml:2: saml_provider[1].metadata: none is there; one of" in errors(without)[0]
    assert "weir.toml:6: saml_provider[1].metadata: both are there" in errors(SAML + 'metadata_url = "https://x/y"\n')[0]


def test_both_kinds_share_their_names() -> None:
    [found] = errors(OIDC + SAML)
    assert "saml_provider[1].name: 'adfs' is also the name of provider[1]" in found


def test_a_workload_needs_another_kind_of_provider() -> None:
    [found] = errors(SAML + WORKLOAD + 'identity = {provider = "adfs", token_file = "/x"}\n')
    assert "weir.toml:11: workload[1].identity: 'adfs' is a [[saml_provider]], which knows people alone" in found


def written(tmp_path: Path, metadata: bytes, *, mode: int = 0o644) -> Path:
    file = tmp_path / "idp.xml"
    file.write_bytes(metadata)
    file.chmod(mode)
    path = tmp_path / "weir.toml"
    path.write_text(SAML.replace("/etc/weir/adfs.xml", str(file)))
    return path


def test_metadata_is_read_and_checked_by_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import agent.settings.check as module
    # It is not the users' that matters.
    monkeypatch.setattr(module, "unprivileged", lambda command, user, **more: command)
    monkeypatch.setattr(module, "_check_accounts", lambda report: None)
    config = load_config(written(tmp_path, idp.metadata()))
    assert config.metadata == {"adfs": idp.metadata()}
    assert check_metadata(config) == ()
    [found] = check_metadata(load_config(written(tmp_path, idp.metadata(entity="https://other"))))
    assert str(found) == f"{tmp_path}/idp.xml: names another entityID than `issuer`"


@pytest.mark.parametrize(("metadata", "mode", "said"), [
    (idp.metadata(), 0o666, "others than root can write it"), (b"\xff", 0o644, "is not UTF-8"),
    (b" " * (METADATA + 1), 0o644, f"has more than {METADATA} bytes")])
def test_files_that_are_not_taken(tmp_path: Path, metadata: bytes, mode: int, said: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        load_config(written(tmp_path, metadata, mode=mode))
    assert f"{tmp_path}/weir.toml:6: saml_provider[1].metadata: {tmp_path}/idp.xml" in str(wrong.value)
    assert said in str(wrong.value)


def test_keys_are_roots_alone(tmp_path: Path) -> None:
    path = written(tmp_path, idp.metadata())
    key = tmp_path / "key.pem"
    key.write_text(idp.WEIRS_PEM)
    key.chmod(0o644)
    path.write_text(path.read_text() + f'key_file = "{key}"\n')
    with pytest.raises(ConfigError, match=f"saml_provider\\[1\\].key_file: {key}: others than root can read it"):
        load_config(path)
