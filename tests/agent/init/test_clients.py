"""Client files of a crew's user, as they are read by a process of that user."""
from __future__ import annotations

import base64
import os
from pathlib import Path

import msgspec
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from agent.init.clients import checked, parse_known_hosts, parse_ssh_config
from agent.init.findings import Peer, Secret
from agent.init.home import Said, read_home

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG10eEI6aW+ZfURANj2dwOHwSyiuIcF30QoBCZWZmE40"
CA = "-----BEGIN CERTIFICATE-----\nAAAABBBBCCCCDDDDEEEE\n-----END CERTIFICATE-----\n"
CONFIG = """
Host *
  User everybody
Host web web.alias *.wild !x
  HostName web.lab.example
  User deploy
  Port 2222
  IdentityFile ~/.ssh/web
host=db
Host bad
  HostName $(id)
Match host x
  HostName y
"""


def private_key() -> bytes:
    return ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())


def kubeconfig(server: str = "https://k.lab:6443", **user: str) -> str:
    text: str = yaml.safe_dump({
        "clusters": [{"name": "c", "cluster": {
            "server": server, "certificate-authority-data": base64.b64encode(CA.encode()).decode()}}],
        "users": [{"name": "u", "user": user}], "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}]})
    return text


KEY_FILE = private_key().decode()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".ssh/config").write_text(CONFIG)
    (tmp_path / ".ssh/known_hosts").write_text(
        f"[web.lab.example]:2222 {KEY}\nother.lab,10.0.0.9 {KEY}\n*.wild {KEY}\n")
    (tmp_path / ".ssh/web").write_bytes(private_key())
    (tmp_path / ".kube/config").write_text(kubeconfig(token="TOKEN-OF-CREW"))
    return tmp_path


def test_hosts_of_ssh_config() -> None:
    found = [(one.alias, one.host, one.port, one.user) for one in parse_ssh_config(CONFIG)]
    assert found == [("web", "web.lab.example", 2222, "deploy"), ("web.alias", "web.lab.example", 2222, "deploy"),
                     ("db", "db", 22, "")]


def test_hosts_of_known_hosts() -> None:
    assert parse_known_hosts(f"a.lab,[b.lab]:2222 {KEY}\n|1|x|y {KEY}\n@revoked c {KEY}\n*.d {KEY}\nnonsense\n") == (
        ("a.lab", 22), ("b.lab", 2222))


def test_a_home(home: Path) -> None:
    said = read_home(str(home), "crew", ())
    web = next(one for one in said.peers if one.hosts == ("web.lab.example",))
    assert (web.protocol, web.port, web.user, web.keys, web.sure) == ("ssh", 2222, "deploy", (KEY,), True)
    assert [one.kind for one in web.secrets] == ["key"]
    assert {one.hosts[0] for one in said.peers if not one.sure} == {"other.lab", "10.0.0.9"}
    [cluster] = [one for one in said.peers if one.protocol == "kubernetes"]
    assert (cluster.hosts, cluster.port, cluster.database, cluster.authorities) == (("k.lab",), 6443, "shop", CA)
    assert [(one.kind, one.value) for one in cluster.secrets] == [("token", "TOKEN-OF-CREW")]
    assert "TOKEN-OF-CREW" not in repr(said)
    assert msgspec.json.decode(msgspec.json.encode(said), type=Said) == said


def test_what_cannot_be_read_is_said_and_what_is_no_file_is_not_waited_for(home: Path) -> None:
    (home / ".kube/config").write_text("a: &a [x]\nb: <<\n")
    (home / ".ssh/config").unlink()
    os.mkfifo(home / ".ssh/config")
    (home / ".ssh/known_hosts").write_bytes(b"x" * (1 << 20) + b"y")
    said = read_home(str(home), "crew", ("/nowhere",))
    assert said.peers == ()
    assert "merges keys" in said.notes[-1]


@pytest.mark.parametrize("server", ["http://k.lab", "https://", "k.lab", "https://k.lab:99999", "https://a b"])
def test_a_server_that_is_none(home: Path, server: str) -> None:
    (home / ".kube/config").write_text(kubeconfig(server, token="t"))
    assert [one for one in read_home(str(home), "crew", ()).peers if one.protocol == "kubernetes"] == []


def test_what_came_from_the_user_is_checked_anew() -> None:
    evil = Peer("ssh", ("web.lab", 'x"\n'), 22, ("a\x1b[2J\nb",), user="a\nb", keys=(KEY, "ssh-rsa x\n[[target]]"),
                authorities=f"junk\n{CA}", secrets=(Secret("password", "x", "y"), Secret("key", KEY_FILE, "z\n")))
    found = checked(evil)
    assert found is not None
    assert (found.hosts, found.why, found.user, found.keys, found.authorities) == (
        ("web.lab",), ("a\\x1b[2J\\nb",), "", (KEY,), CA)
    assert [(one.kind, one.place) for one in found.secrets] == [("key", "z\\n")]
    assert checked(Peer("postgresql", ("h",), 1, ())) is None
    assert checked(Peer("ssh", ("h",), 1 << 17, ())) is None
    assert checked(Peer("ssh", ("a b",), 22, ())) is None


@pytest.mark.parametrize(("protocol", "secrets", "taken"), [
    ("ssh", (("key", KEY_FILE),), True), ("ssh", (("key", "nonsense"),), False), ("ssh", (("token", "t"),), False),
    ("kubernetes", (("token", "t.o.k"),), True), ("kubernetes", (("token", "a b\n"),), False),
    ("kubernetes", (("certificate", "x"), ("key", "y")), False), ("kubernetes", (), False)])
def test_what_could_open_nothing_is_no_credential(
    protocol: str, secrets: tuple[tuple[str, str], ...], taken: bool,
) -> None:
    found = checked(Peer(protocol, ("h",), 22, ("x",), secrets=tuple(Secret(*one, "somewhere") for one in secrets)))
    assert found is not None
    assert bool(found.secrets) == taken
