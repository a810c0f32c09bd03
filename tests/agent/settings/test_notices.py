"""What `weir check` notes of the host."""
from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from agent.cli import weir
from agent.config import Config, parse_config
from agent.settings.notices import notes

TARGET = """
[[target]]
name = "orders"
protocol = "postgresql"
hosts = ["db"]
port = 5432
[[target.credential]]
user = "svc"
"""


def config(text: str, file: Path = Path("/etc/weir/weir.toml")) -> Config:
    made, report = parse_config(text, str(file))
    assert made is not None, report.problems
    return made


def said(made: Config) -> str:
    return "\n".join(map(str, notes(made)))


@pytest.mark.parametrize(("credential", "uid", "noted"), [
    ('password_file = "/p"', 1000, True), ('password_file = "/p"', 0, False),
    ('password_credential = "p"', 1000, False),
    ('certificate_file = "/c"\nkey_file = "/k"', 1000, True),
])
def test_credentials_that_nobody_but_root_can_look_at(
    credential: str, uid: int, noted: bool, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert ("credentials were not looked at: not root" in said(config(TARGET + credential))) is noted


@pytest.mark.parametrize("provider", [
    'provider]]\nname = "corp"\nissuer = "https://idp.lab.example"\nclient_id = "weir"\nclient_secret_file = "/s"',
    'saml_provider]]\nname = "corp"\nissuer = "urn:idp"\nentity_id = "urn:weir"\nmetadata = "/x"\nkey_file = "/k"',
])
def test_secrets_of_providers_that_nobody_but_root_can_look_at(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "credentials were not looked at: not root" in said(config(f"[[{provider}\n"))


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can leave its rights")
def test_a_check_without_root_says_what_it_did_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, file = tmp_path / "secret", tmp_path / "weir.toml"
    secret.touch(0o600)
    secret.write_text("hunter2")
    file.write_text('[runtime]\nuser = "nobody"\naudit_user = "mail"\napprovers = "nogroup"\n'
                    + TARGET + f'password_file = "{secret}"\n')
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = CliRunner().invoke(weir, ["--config", str(file), "check"])
    assert "credentials were not looked at" in done.output
    assert done.exit_code == 0


def test_members_that_this_host_does_not_have(tmp_path: Path) -> None:
    made = msgspec.structs.replace(config("", tmp_path / "weir.toml"), groups={
        "data": ("user:no-such-crew", "user:nobody"), "dba": ("group:no-such-group", "group:nogroup")})
    (tmp_path / "groups.toml").write_text('[groups]\n\ndata = []\ndba = []\n')
    assert [str(one).partition(" is nobody")[0] for one in notes(made)] == [
        f"{tmp_path}/groups.toml:3: groups.data: 'user:no-such-crew'",
        f"{tmp_path}/groups.toml:4: groups.dba: 'group:no-such-group'"]


def test_who_is_to_answer_and_cannot(tmp_path: Path) -> None:
    text = """[slack]
bot_token_file = "/b"
app_token_file = "/a"
team = "T012AB3C4"
channel = "C012AB3C4"
[slack.people]
U012AB3C4 = "local:no-such-dba"
U912AB3C4 = "local:nobody"
[slack.channels]
dba = "C112AB3C4"
dbas = "C212AB3C4"
[[webhook]]
name = "pager"
url = "https://hooks.lab.example/weir"
secret_file = "/s"
approver = "local:no-such-dba"
"""
    (tmp_path / "weir.toml").write_text(text)
    made = msgspec.structs.replace(config(text, tmp_path / "weir.toml"), groups={"dba": ("user:nobody",)})
    who = "'local:no-such-dba' is nobody: this host has no such user"
    assert [str(one).partition("weir.toml:")[2] for one in notes(made)] == [
        f"16: webhook[1].approver: {who}",
        "16: webhook[1].approver: its events hold no links: there is no page ([web] url)",
        f"7: slack.people.U012AB3C4: {who}", "11: slack.channels.dbas: nobody is in a group 'dbas': there is dba"]


def test_directories_and_trust_files_that_are_not_there(tmp_path: Path) -> None:
    text = (f'[[workload]]\nname = "a"\nusers = ["daemon"]\ndirectories = ["{tmp_path}", "~/no-such", '
            f'"{tmp_path}/no-such"]\n' + TARGET.replace("[[target.c", 'trust = ["~/no-such.pem"]\n[[target.c')
            + 'password_credential = "p"\n')
    (tmp_path / "weir.toml").write_text(text)
    found = said(config(text, tmp_path / "weir.toml"))
    assert "weir.toml:4: workload[1].directories: ~/no-such is not there for daemon: crews" in found
    assert f"directories: {tmp_path}/no-such is not there: crews" in found
    assert "target[1].trust: ~/no-such.pem is not there for daemon" in found
    assert len(found.splitlines()) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone looks")
@pytest.mark.parametrize(("content", "noted"), [
    ("hunter2", False), ("hunter2\n", False), ("hunter2\r\n", False), ("hunter2\nhunter3\n", True),
    ("# orders\nhunter2", True),
])
def test_a_password_file_of_several_lines(content: str, noted: bool, tmp_path: Path) -> None:
    secret, text = tmp_path / "secret", TARGET + f'password_file = "{tmp_path}/secret"\n'
    secret.touch(0o600)
    secret.write_text(content)
    (tmp_path / "weir.toml").write_text(text)
    found = said(config(text, tmp_path / "weir.toml"))
    assert ("weir.toml:9: target[1].credential[1].password_file: " in found) is noted
    assert ("more than one line" in found) is noted
    assert "hunter" not in found
