"""[[vault]] and the rows that name one: what is right, and what is wrong with file, line and what would be right."""
from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import Config, parse_config
from agent.contract.vault import Made, Server, Stored
from agent.credential.secrets import SecretError
from agent.credential.vaults import read_material, render_server, render_source
from agent.settings.check import load_config
from agent.settings.fields import ConfigError

VAULT = """
[[vault]]
name = "safe"
address = "https://vault.lab.example:8200/"
"""
APPROLE = VAULT + 'role_id = "weir"\nsecret_id_file = "/etc/weir/credentials/vault"\n'
TARGET = """
[[target]]
name = "orders"
protocol = "postgresql"
hosts = ["db.lab.example"]
port = 5432
[[target.credential]]
"""
ROW = TARGET + 'vault = "safe"\n'


def errors(text: str) -> list[str]:
    return [str(one) for one in parse_config(text, "weir.toml")[1].problems]


def right(text: str) -> Config:
    config, report = parse_config(text, "weir.toml")
    assert config is not None, "\n".join(map(str, report.problems))
    return config


def test_what_its_process_is_told() -> None:
    config = right(APPROLE + 'namespace = "teams/data"\n' + ROW + 'path = "crews/orders"\n')
    [one], [target] = config.vaults, config.targets
    assert render_server(one, "ROOTS") == Server(
        "safe", "https://vault.lab.example:8200", "ROOTS", "teams/data", "approle", "approle", "", "weir")
    assert render_source(target.credentials[0]) == Stored(
        "secret", "crews/orders", "", "username", "password", "", "")


@pytest.mark.parametrize(("row", "source"), [
    ('path = "a/b"\nmount = "kv/x"\nuser = "svc"\npassword_field = "pw"\n',
     Stored("kv/x", "a/b", "svc", "username", "pw", "", "")),
    ('path = "a"\nuser_field = "u"\ncertificate_field = "c"\nkey_field = "k"\n',
     Stored("secret", "a", "", "u", "password", "c", "k")),
    ('database_role = "orders"\n', Made("database", "orders", False)),
    ('static_role = "orders"\nmount = "pg"\n', Made("pg", "orders", True)),
])
def test_rows(row: str, source: Stored | Made) -> None:
    assert render_source(right(APPROLE + ROW + row).targets[0].credentials[0]) == source


@pytest.mark.parametrize("auth", [
    'auth = "jwt"\njwt_file = "/run/x.jwt"\n',
    'auth = "kubernetes"\nrole = "weir"\njwt_file = "/run/x.jwt"\nmount = "k8s"\n',
    'auth = "token"\ntoken_file = "/etc/weir/token"\n',
    'auth = "cert"\ncertificate_file = "/etc/weir/c.pem"\nkey_file = "/etc/weir/c.key"\nrole = "weir"\n',
])
def test_each_method(auth: str) -> None:
    [one] = right(VAULT + auth).vaults
    assert render_server(one, "").mount == (one.mount or one.auth)


@pytest.mark.parametrize(("text", "said"), [
    (VAULT, 'weir.toml:2: vault[1]: role_id is missing: auth = "approle" needs it'),
    (VAULT + 'auth = "jwt"\n', 'jwt_file is missing: auth = "jwt" needs it'),
    (VAULT + 'auth = "kubernetes"\njwt_file = "/run/j"\n', "role is missing"),
    (VAULT + 'auth = "cert"\ncertificate_file = "/etc/c"\n', "key_file is missing"),
    (APPROLE + 'token_file = "/etc/t"\n', 'weir.toml:7: vault[1].token_file: is not for auth = "approle", which has '
                                          "role_id, secret_id_file, mount"),
    (VAULT + 'auth = "token"\ntoken_file = "/etc/t"\nmount = "x"\n', "vault[1].mount: is not for"),
    (VAULT + 'auth = "ldap"\n', "vault[1].auth: 'ldap' is none of them; one of approle, jwt"),
    (VAULT + 'secret_id = "hunter2"\n', "secrets never stand in this file; secret_id_file names the file"),
    (VAULT + 'token = "hunter2"\n', "secrets never stand in this file; token_file names the file"),
    (APPROLE.replace("https:", "http:"), "an https URL without query or fragment would be right"),
    (APPROLE.replace(":8200/", ":8200/?x=1"), "an https URL"),
    (APPROLE + 'namespace = "../sys"\n', "a path like crews/orders"), (APPROLE + 'mount = "/x"\n', "a path like"),
    (APPROLE + APPROLE, "'safe' is also the name of vault[1]"),
    (TARGET + 'vault = "safe"\npath = "a"\n', "there is no [[vault]] 'safe'; there is: none"),
    (APPROLE + TARGET + 'vault = "sage"\npath = "a"\n', "there is no [[vault]] 'sage'; there is: safe"),
    (APPROLE + ROW, "names nothing there; one of path, database_role, static_role would be right"),
    (APPROLE + ROW + 'path = "a"\nstatic_role = "b"\n', "names path and static_role; one of"),
    (APPROLE + ROW + 'database_role = "a"\nuser = "u"\n', "user: stands beside database_role"),
    (APPROLE + ROW + 'static_role = "a"\npassword_field = "u"\n', "password_field: stands beside static_role"),
    (APPROLE + ROW + 'path = "a"\nuser = "u"\nuser_field = "v"\n', "user_field: stands beside user"),
    (APPROLE + ROW + 'path = "a"\ncertificate_field = "c"\n', "both would be right"),
    (APPROLE + ROW + 'path = "a"\npassword_file = "/etc/p"\n', "password_file: stands beside vault"),
    (APPROLE + ROW + 'path = "a"\nexec = ["/usr/bin/x"]\nexec_user = "nobody"\n', "exec: stands beside vault"),
    (APPROLE + ROW + 'path = "a/../../sys/raw"\n', "a path like crews/orders"),
    (APPROLE + ROW + 'path = "a?list=true"\n', "a path like crews/orders"),
    (APPROLE + ROW + 'path = "a"\ncertificate_field = "c"\nkey_field = "k"\n'
     '[[target]]\nname = "x"\nprotocol = "postgresql"\nhosts = ["x.example"]\nport = 5432\ntls = "disable"\n'
     '[[target.credential]]\nvault = "safe"\npath = "a"\ncertificate_field = "c"\nkey_field = "k"\n',
     "target[2].credential[1].certificate_field: needs TLS"),
    (TARGET + 'user = "u"\npassword_file = "/etc/p"\npath = "a"\n', "path: is for a row with `vault`"),
    ('[runtime]\nvault_user = "weir"\n', "vault_user: is another process' user too"),
])
def test_what_is_wrong(text: str, said: str) -> None:
    found = errors(text)
    assert any(said in one for one in found), found
    assert "hunter2" not in str(found)


def test_files_on_this_host(tmp_path: Path) -> None:
    """Those that something else writes may come later; `weir check` asks no server."""
    file, secret = tmp_path / "weir.toml", tmp_path / "secret"
    secret.write_text("hunter2")
    secret.chmod(0o644)
    base = APPROLE.replace("/etc/weir/credentials/vault", str(secret))
    file.write_text(base + f'ca = "{tmp_path}/none.pem"\n[[vault]]\nname = "other"\naddress = "https://x.example"\n'
                           f'auth = "token"\ntoken_file = "{tmp_path}/later"\n')
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    said = str(caught.value)
    assert f"{file}:6: vault[1].secret_id_file: {secret}: others than root can read it" in said
    assert "vault[1].ca: " in said
    assert "token_file" not in said
    assert "hunter2" not in said


def test_material(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    [one] = right(APPROLE.replace("/etc/weir/credentials/vault", str(secret))).vaults
    with pytest.raises(SecretError, match="secret_id_file"):
        read_material(one)
    secret.write_text("hunter2")
    secret.chmod(0o600)
    found = read_material(one)
    assert found.secret == b"hunter2"
    assert "hunter2" not in repr(found)
    secret.write_bytes(b"x" * (65 << 10))
    with pytest.raises(SecretError, match="has more than"):
        read_material(one)
