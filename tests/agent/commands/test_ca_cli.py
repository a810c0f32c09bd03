"""`weir ca`: the authority for the server, and no key."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509

from agent.cli import weir
from agent.ssh.user_authority import finish_user_rotation, prepare_user_rotation

CONFIG = """
[runtime]
user = "nobody"
audit_user = "mail"
approvers = "nogroup"
state = "{state}"
[[target]]
name = "orders"
protocol = "postgresql"
hosts = ["db"]
port = 5432
[[target.credential]]
user = "svc"
certificate = "issue"
[[target]]
name = "other"
protocol = "postgresql"
hosts = ["db2"]
port = 5432
[[target.credential]]
user = "svc"
password_file = "{secret}"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("hunter2")
    file = tmp_path / "weir.toml"
    file.write_text(CONFIG.format(state=tmp_path / "var" / "state", secret=secret))
    file.chmod(0o644)
    return file


def run(config: Path, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(weir, ["--config", str(config), "ca", *arguments])
    assert "PRIVATE" not in done.output
    return done.exit_code, done.output


def test_the_same_each_time(config: Path) -> None:
    code, pem = run(config, "orders")
    assert code == 0, pem
    assert x509.load_pem_x509_certificate(pem.encode()).subject.rfc4514_string() == (
        "CN=Weir client authority for orders,O=Weir")
    assert run(config, "orders") == (0, pem)
    assert json.loads(run(config, "--json", "orders")[1])["certificate"] == pem


@pytest.mark.parametrize(("target", "wanted"), [
    ("nowhere", "weir.toml: there is no [[target]] 'nowhere'; there is: orders, other"),
    ("other", 'weir.toml: no [[target.credential]] of other says certificate = "issue"'),
])
def test_refused(config: Path, target: str, wanted: str) -> None:
    code, said = run(config, target)
    assert code == 1
    assert wanted in said


SSH = """
[[target]]
name = "web"
protocol = "ssh"
hosts = ["web.lab"]
host_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG10eEI6aW+ZfURANj2dwOHwSyiuIcF30QoBCZWZmE40"]
[[target.credential]]
certificate = "issue"
"""


def test_of_an_ssh_host_it_is_a_line_for_sshd(config: Path) -> None:
    config.write_text(config.read_text() + SSH)
    code, line = run(config, "web")
    assert code == 0, line
    assert line.startswith("ssh-ed25519 AAAA")
    assert line.endswith(" weir-user-ca-web\n")
    assert json.loads(run(config, "--json", "web")[1]) == {"target": "web", "trusted_user_ca_keys": line}
    state = config.parent / "var" / "state"
    prepare_user_rotation(state, "web")
    both = run(config, "web")[1]
    assert both.startswith(line)
    assert both.count("\n") == 2
    finish_user_rotation(state, "web")
    assert line + run(config, "web")[1] == both
