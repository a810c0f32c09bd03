"""What a login at an SSH host is given, from every source; and no secret in any error."""
from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from agent.config import parse_config
from agent.contract.credential import Credential
from agent.contract.target import Target
from agent.credential.credentials import Credentials
from agent.credential.helper import parse_output
from agent.credential.secrets import SecretError
from agent.credential.vaults import render_source
from agent.settings.credential_table import CredentialRow
from agent.settings.target_table import TargetEntry
from agent.ssh.host_keys import host_keys
from agent.ssh.keys import parse_certificate, parse_private, render_public
from agent.ssh.verifying import verifying_lines

A = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG10eEI6aW+ZfURANj2dwOHwSyiuIcF30QoBCZWZmE40"
CONFIG = """
[runtime]
state = "{place}/state"
[[target]]
name = "web"
protocol = "ssh"
hosts = ["web.lab"]
host_keys = ["{key}"]
[[target.credential]]
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    for name, phrase in (("key", ""), ("ca", ""), ("locked", "hunter2")):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", phrase, "-C", "", "-f", tmp_path / name], check=True)
    subprocess.run(["ssh-keygen", "-q", "-s", tmp_path / "ca", "-I", "it", "-n", "deploy", "-V", "+1h",
                    tmp_path / "key.pub"], check=True)
    (tmp_path / "key-cert.pub").chmod(0o600)
    (tmp_path / "password").touch(0o600)
    (tmp_path / "password").write_text("hunter2\n")
    return tmp_path


async def find(place: Path, row: str, account: str = "deploy", who: str = "") -> Credential:
    config, report = parse_config(CONFIG.format(place=place, key=A) + row.format(place=place), "weir.toml")
    assert config is not None, report.problems
    credentials = Credentials(place / "cgroup")
    try:
        return await credentials.find(config, config.targets[0], "", account, ("data",), who)
    finally:
        await credentials.close()


async def test_a_key_for_the_account_that_is_asked_for(place: Path) -> None:
    found = await find(place, 'key_file = "{place}/key"')
    assert (found.user, found.password, found.certificate, found.agent) == ("deploy", "", "", "")
    public = render_public(parse_private(found.key.encode()).public_key())
    assert public == " ".join((place / "key.pub").read_text().split()[:2])
    assert "PRIVATE" not in repr(found)
    assert (await find(place, 'key_file = "{place}/key"\nuser = "root"')).user == "root"


async def test_a_certificate_of_somebody_elses(place: Path) -> None:
    found = await find(place, 'key_file = "{place}/key"\ncertificate_file = "{place}/key-cert.pub"')
    assert found.certificate == (place / "key-cert.pub").read_text().strip()
    assert 0 < found.expires - time.time() <= 3600


async def test_a_password_and_an_agent(place: Path) -> None:
    assert await find(place, 'password_file = "{place}/password"') == Credential("deploy", "hunter2")
    assert await find(place, 'agent = "/run/keys/a.sock"') == Credential("deploy", agent="/run/keys/a.sock")


async def test_a_certificate_of_weirs_for_each_login(place: Path) -> None:
    row = 'certificate = "issue"'
    first, second = [await find(place, row, who="corp:ada:crew:01J") for _ in range(2)]
    assert first.key != second.key
    found = parse_certificate(first.certificate)
    assert (found.key_id, found.valid_principals) == (b"weir:corp:ada:crew:01J", [b"deploy"])
    assert first.expires == found.valid_before
    for account in ("", "a\nb", "x" * 300):
        with pytest.raises(SecretError, match="no certificate can be signed: there is no such account"):
            await find(place, row, account)
    (place / "state" / "ca" / "web" / "user-ca.key").chmod(0o644)
    with pytest.raises(SecretError, match="root's alone"):
        await find(place, row)


@pytest.mark.parametrize(("row", "wanted"), [
    ('key_file = "{place}/locked"', "its key is encrypted, and nobody is asked for a passphrase"),
    ('key_file = "{place}/password"', "its key holds no private key"),
    ('key_file = "{place}/key"\ncertificate_file = "{place}/password"', "its certificate holds no certificate of"),
    ('key_file = "{place}/ca"\ncertificate_file = "{place}/key-cert.pub"', "its certificate is of another key"),
    ('key_file = "{place}/key"\nrole = "root"', "no credential of target web is for"),
])
async def test_what_cannot_log_in(place: Path, row: str, wanted: str) -> None:
    with pytest.raises(SecretError) as caught:
        await find(place, row)
    assert wanted in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_a_credential_of_the_unit(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = place / "credentials"
    directory.mkdir(mode=0o700)
    (directory / "web").touch(0o400)
    (directory / "web").write_text((place / "key").read_text())
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(directory))
    monkeypatch.setattr("agent.credential.unit_credentials.open_credential.__defaults__", (os.environ,))
    assert (await find(place, 'key_credential = "web"')).key.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")


def test_a_helper_may_print_a_key_alone(place: Path) -> None:
    key = (place / "key").read_text()
    found, _ = parse_output(json.dumps({"key": key}).encode(), "", 0, ssh=True)
    assert (found.user, found.key) == ("", key)
    found, _ = parse_output(json.dumps({"user": "root", "key": key, "certificate": "c"}).encode(), "", 0, ssh=True)
    assert (found.user, found.certificate) == ("root", "c")
    for wrong in ({}, {"user": "root"}, {"certificate": "c"}):
        with pytest.raises(SecretError, match="neither a password nor a key"):
            parse_output(json.dumps(wrong).encode(), "", 0, ssh=True)
    with pytest.raises(SecretError, match="neither a password nor a certificate"):
        parse_output(json.dumps({"key": key}).encode(), "svc", 0)


def test_vault_has_the_key_and_the_crew_says_the_account() -> None:
    row = CredentialRow(vault="safe", path="crews/web", key_field="key", user_field="")
    source: Any = render_source(row)
    assert (source.user, source.user_field, source.key_field) == ("", "", "key")


async def test_the_enforcers_ssh_takes_what_it_is_given(place: Path) -> None:
    """Host keys, lines by which the host is verified, a key and a certificate: as asyncssh reads them there."""
    wire = pytest.importorskip("enforcer.protocols.ssh.wire")
    own = host_keys(place / "state", "web")
    entry = TargetEntry(name="web", protocol="ssh", hosts=("web.lab", "192.0.2.9"), port=2222, host_keys=(A,))
    target = Target("web", "ssh", entry.hosts, 2222, (), host_keys=own.private, known_hosts=verifying_lines(entry, ""),
                    options={"authentication": "none,publickey"})
    assert wire.methods(target) == ("none", "publickey")
    assert set(wire.crew_options(target).server_host_keys) >= {b"ssh-ed25519", b"ecdsa-sha2-nistp256", b"rsa-sha2-512"}
    options = wire.server_options(target, await find(place, 'certificate = "issue"'))
    assert options.username == "deploy"
    assert any(one.has_cert for one in options.client_keys)
    trusted = options.known_hosts.match("web.lab", "192.0.2.7", 2222)[0]
    assert [one.export_public_key().decode().strip() for one in trusted] == [A]
