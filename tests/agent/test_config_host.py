"""The configuration on its host: files, owners, users; credentials read at use."""
from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config import nameserver
from agent.contract.groups import groups_of
from agent.credential.secrets import SecretError, choose, read_row
from agent.people.identity import subject_of
from agent.settings.check import check_policies, load_block, load_config
from agent.settings.credential_check import wrong_secret
from agent.settings.credential_table import CredentialRow
from agent.settings.fields import ConfigError

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """A configuration directory of whoever runs the test, with one target."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "a.cedar").write_text("permit (principal, action, resource);\n")
    (tmp_path / "policies" / "b.cedar~").write_text("not one\n")
    (tmp_path / "groups.toml").write_text('[groups]\ndata = ["user:nobody"]\n')
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("hunter2\n")
    (tmp_path / "weir.toml").write_text(f"""
[runtime]
user = "nobody"
audit_user = "mail"
approvers = "nogroup"
[dns]
resolver = "10.0.0.53"
[[workload]]
name = "crew"
users = ["daemon"]
[[target]]
name = "orders"
protocol = "postgresql"
hosts = ["db"]
port = 5432
tls_ca = "{tmp_path}/ca.pem"
[[target.credential]]
user = "svc"
password_file = "{secret}"
""")
    for path in tmp_path.rglob("*"):
        path.chmod(path.stat().st_mode & ~0o022)
    return tmp_path


def problems(etc: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(etc / "weir.toml")
    return str(caught.value)


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_everything_beside_it_is_read(etc: Path) -> None:
    config = load_config(etc / "weir.toml")
    assert config.groups == {"data": ("user:nobody",)}
    assert config.policies == {str(etc / "policies" / "a.cedar"): "permit (principal, action, resource);\n"}
    assert config.roots == {"orders": CERTIFICATE}
    assert config.dns.resolver == ("10.0.0.53", 53)


def test_users_and_files_that_are_not_there(etc: Path) -> None:
    change(etc / "weir.toml", 'user = "nobody"', 'user = "nobody-here"')
    change(etc / "weir.toml", 'approvers = "nogroup"', 'approvers = "no-such-group"')
    change(etc / "weir.toml", 'users = ["daemon"]', 'users = ["root", "mail", "who"]')
    (etc / "ca.pem").unlink()
    (etc / "secret").unlink()
    found = problems(etc)
    for wanted in (
        "weir.toml:3: runtime.user: there is no user 'nobody-here'",
        "weir.toml:5: runtime.approvers: there is no group",
        "weir.toml:10: workload[1].users: names root", "names mail, which is Weir's own user", "there is no user 'who'",
        "weir.toml:16: target[1].tls_ca:", "weir.toml:19: target[1].credential[1].password_file:",
    ):
        assert wanted in found


@pytest.mark.parametrize(("name", "mode", "wanted"), [
    ("weir.toml", 0o664, "others than root can write it"), ("groups.toml", 0o646, "others than root can write it"),
    ("policies/a.cedar", 0o622, "others than root can write it"), ("secret", 0o640, "others than root can read it"),
    ("secret", 0o604, "others than root can read it"),
])
def test_files_that_others_reach(etc: Path, name: str, mode: int, wanted: str) -> None:
    (etc / name).chmod(mode)
    assert wanted in problems(etc)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize(("name", "wanted"), [("weir.toml", "owner daemon"), ("secret", "owner daemon")])
def test_files_of_another_owner(etc: Path, name: str, wanted: str) -> None:
    os.chown(etc / name, 1, 1)
    assert wanted in problems(etc)


def test_a_missing_file_and_a_binary_one(etc: Path) -> None:
    (etc / "groups.toml").write_bytes(b"[groups]\n\xff")
    assert "groups.toml:2: is not UTF-8" in problems(etc)
    (etc / "weir.toml").unlink()
    assert "there is no such file" in problems(etc)


def test_a_missing_file_says_what_the_readme_says(etc: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("/etc/weir/none/weir.toml")
    command = str(caught.value).partition("clone: ")[2].replace("/etc/weir/none", "/etc/weir")
    assert command
    assert f"`{command}`, in the clone" in (Path(__file__).parents[2] / "README.md").read_text()
    assert str(load_block("/etc/weir/none/weir.toml")[1][0]) == str(caught.value)
    with pytest.raises(ConfigError, match=r"packaging/default.*renamed to lab.toml"):
        load_config(etc / "lab.toml")


def test_a_ca_file_that_is_none(etc: Path) -> None:
    (etc / "ca.pem").write_text("hello")
    assert "holds no certificate" in problems(etc)


def test_the_hosts_resolver(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("# nameserver 9.9.9.9\nsearch x\nnameserver fe80::1%eth0\nnameserver 192.0.2.7\nnameserver 1.1.1.1")
    assert nameserver(str(file)) == ("192.0.2.7", 53)
    assert nameserver(str(tmp_path / "none")) is None


# credentials


def row(name: str, database: str = "*", role: str = "*", group: str = "*") -> CredentialRow:
    return CredentialRow(database, role, group, name, "/x", None, None)


@pytest.mark.parametrize(("asked", "wanted"), [
    (("shop", "ada", ()), "db"), (("shop", "app", ()), "db-role"), (("other", "app", ("data",)), "role"),
    (("other", "ada", ("data", "x")), "group"), (("other", "ada", ()), "any"), (("shop", "ada", ("data",)), "db-group"),
])
def test_the_most_specific_row_wins(asked: tuple[str, str, tuple[str, ...]], wanted: str) -> None:
    rows = (row("any"), row("group", group="data"), row("role", role="app"), row("db", "shop"),
            row("db-group", "shop", group="data"), row("db-role", "shop", "app"))
    found = choose(rows, *asked)
    assert found is not None
    assert found.user == wanted


def test_no_row_fits() -> None:
    assert choose((row("a", "shop"), row("b", group="data")), "x", "y", ()) is None


def test_a_secret_is_read_at_use_and_in_no_error(etc: Path) -> None:
    target = load_config(etc / "weir.toml").targets[0]
    assert read_row(target.credentials[0]).password == "hunter2"
    (etc / "secret").write_text("hunter3")
    found = read_row(target.credentials[0])
    assert found.password == "hunter3"
    assert "hunter3" not in repr(found)
    for spoil in (lambda f: f.chmod(0o640), lambda f: (f.chmod(0o600), f.write_bytes(b"hunter3\0x")),
                  lambda f: f.write_bytes(b"\xff hunter3"), lambda f: f.write_text("\n"),
                  lambda f: f.write_text("hunter3" * 1000), lambda f: (f.unlink(), os.mkfifo(f, 0o600)),
                  lambda f: f.unlink()):
        spoil(etc / "secret")
        with pytest.raises(SecretError) as caught:
            read_row(target.credentials[0])
        assert "hunter" not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.fixture
def unit(etc: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """$CREDENTIALS_DIRECTORY as systemd makes it for a unit of root's, and a row that names one of it."""
    change(etc / "weir.toml", f'password_file = "{etc}/secret"', 'password_credential = "orders"')
    directory = etc / "unit"
    directory.mkdir(0o700)
    (directory / "orders").touch(0o600)
    (directory / "orders").write_text("hunter4\n")
    (directory / "orders").chmod(0o400)
    directory.chmod(0o500)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(directory))
    return directory


def test_a_credential_of_the_unit(etc: Path, unit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = load_config(etc / "weir.toml").targets[0]
    assert read_row(target.credentials[0]).password == "hunter4"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert load_config(etc / "weir.toml").targets[0] == target     # `weir check` is no unit's
    with pytest.raises(SecretError, match=r"password_credential orders: .*LoadCredential=orders:PATH"):
        read_row(target.credentials[0])


@pytest.mark.parametrize(("spoil", "wanted"), [
    (lambda unit: unit.chmod(0o750), "others than root reach"), (lambda unit: unit.chmod(0o505), "others than root"),
    (lambda unit: (unit / "orders").unlink(), "has no such credential; LoadCredential=orders:PATH"),
    (lambda unit: (unit / "orders").chmod(0o440), "others than root can read it"),
    (lambda unit: (unit / "orders").rename(unit / "x") and (unit / "orders").symlink_to(unit / "x"), "Too many levels"),
    (lambda unit: (unit / "orders").unlink() or (unit / "orders").mkdir(0o700), "directory"),
    (lambda unit: (unit / "orders").unlink() or os.mkfifo(unit / "orders", 0o400), "is not a file"),
    (lambda unit: unit.rename(unit.with_name("other")) and unit.symlink_to(unit.with_name("other")), "Not a directory"),
])
def test_a_credential_of_the_unit_that_is_none(
    etc: Path, unit: Path, spoil: Callable[[Path], object], wanted: str,
) -> None:
    target = load_config(etc / "weir.toml").targets[0]
    unit.chmod(0o700)
    spoil(unit)
    assert "target[1].credential[1].password_credential: orders:" in problems(etc)
    with pytest.raises(SecretError, match="password_credential orders") as caught:
        read_row(target.credentials[0])
    assert wanted in str(caught.value)
    assert "hunter" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="programs of root's are root's")
@pytest.mark.parametrize(("program", "user", "wanted"), [
    ("/usr/bin/true", "games", ""), ("/usr/bin/true", "who", "exec_user: there is no user 'who'"),
    ("/usr/bin/true", "nobody", "exec_user: nobody is Weir's own user"),
    ("/usr/bin/true", "mail", "exec_user: mail is Weir's own user"),
    ("/usr/bin/true", "news", "exec_user: news is Weir's own user"),
    ("/usr/bin/true", "daemon", "exec_user: daemon is a workload's user, whose processes could read"),
    ("/usr/bin/no-such", "games", "exec: /usr/bin/no-such: No such file or directory; a program"),
    ("/etc/passwd", "games", "exec: /etc/passwd: /etc/passwd is no program"),
    ("/usr", "games", "exec: /usr: /usr is no"),
    ("/tmp/x", "games", "exec: /tmp/x: not only root may write /tmp"),
])
def test_a_helper_and_its_user(etc: Path, program: str, user: str, wanted: str) -> None:
    change(etc / "weir.toml", 'audit_user = "mail"', 'audit_user = "mail"\nidentity_user = "news"')
    change(etc / "weir.toml", f'password_file = "{etc}/secret"', f'exec = ["{program}"]\nexec_user = "{user}"')
    if not wanted:
        assert load_config(etc / "weir.toml").targets[0].credentials[0].exec == (program,)
    else:
        assert "target[1].credential[1]." + wanted in problems(etc)


def test_a_directory_is_no_secret(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert wrong_secret(tmp_path.stat()) == "is not a file"


# identity


def test_groups_of_a_principal() -> None:
    groups = {"data": ("user:crew", "workload:demo"), "dba": ("group:dbas",), "all": ("user:crew", "group:dbas")}
    assert groups_of(groups, user="crew") == ("all", "data")
    assert groups_of(groups, user="ada", unix=("dbas", "x")) == ("all", "dba")
    assert groups_of(groups, user="ada", workload="demo") == ("data",)
    assert groups_of(groups) == ()
    assert groups_of(groups, user="group:dbas") == ()
    assert subject_of("ada") == "local:ada"


# policies


def test_errors_of_policies_name_the_files_themselves(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check reads copies of them."""
    for name in ("a.cedar", "b.cedar"):
        (etc / "policies" / name).write_text('\n@id("x") permit (principal, action, resource);\n')
    config = load_config(etc / "weir.toml")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)      # the check's process may be unable to read this clone
    [found] = check_policies(config)
    assert (found.file, found.line) == (f"{etc}/policies/b.cedar", 2)
    assert f'@id("x") is taken by {etc}/policies/a.cedar:2: give' in found.message
