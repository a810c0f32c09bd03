"""Keys as ssh-keygen and OpenSSL write them, and what is none."""
from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agent.contract.credential import Credential
from agent.ssh.keys import KeyWrong, fingerprint, parse_private, parse_public, render_private, render_public
from agent.ssh.login import checked


def keygen(*arguments: str | Path) -> None:
    subprocess.run(["ssh-keygen", "-q", *arguments], check=True, capture_output=True)


def key(place: Path, *how: str, phrase: str = "") -> Path:
    keygen(*(how or ("-t", "ed25519")), "-N", phrase, "-C", "", "-f", place)
    return place


@pytest.mark.parametrize("how", [("-t", "ed25519"), ("-t", "ecdsa"), ("-t", "ecdsa", "-b", "521"), ("-t", "rsa"),
                                 ("-t", "rsa", "-m", "PEM"), ("-t", "ecdsa", "-m", "PKCS8")])
def test_what_ssh_keygen_makes(tmp_path: Path, how: tuple[str, ...]) -> None:
    file = key(tmp_path / "key", *how)
    found = parse_private(file.read_bytes())
    public = file.with_suffix(".pub").read_text()
    assert render_public(found.public_key()) == parse_public(public) == parse_public(f"{public.strip()} a comment")
    again = tmp_path / "again"
    again.touch(0o600)
    again.write_text(render_private(found))
    done = subprocess.run(["ssh-keygen", "-y", "-f", again], capture_output=True, text=True, check=True)
    assert done.stdout.split()[:2] == public.split()[:2]
    done = subprocess.run(["ssh-keygen", "-lf", again], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1] == fingerprint(public)


@pytest.mark.parametrize("how", [("-t", "ed25519"), ("-t", "rsa", "-m", "PEM"), ("-t", "ecdsa", "-m", "PKCS8")])
def test_an_encrypted_one_says_so(tmp_path: Path, how: tuple[str, ...]) -> None:
    content = key(tmp_path / "key", *how, phrase="hunter2").read_bytes()
    with pytest.raises(KeyWrong, match=r"is encrypted.*ssh-keygen -p"):
        parse_private(content)


@pytest.mark.parametrize("content", [b"", b"hunter2", b"-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n",
                                     b"-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----\n"])
def test_what_is_none(content: bytes) -> None:
    with pytest.raises(KeyWrong, match="holds no private key") as caught:
        parse_private(content)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("text", ["", "ssh-ed25519", "ssh-dss AAAA", "ssh-ed25519 AAAA", "AAAA ssh-ed25519"])
def test_what_is_no_public_key(text: str) -> None:
    with pytest.raises(KeyWrong):
        parse_public(text)


def test_a_short_rsa_key_is_none(tmp_path: Path) -> None:
    with pytest.raises(KeyWrong, match="2048"):
        parse_public(key(tmp_path / "key", "-t", "rsa", "-b", "1024").with_suffix(".pub").read_text())


# what can log in


def certified(tmp_path: Path, *how: str) -> tuple[str, str]:
    """(certificate, key)."""
    authority, file = key(tmp_path / "ca"), key(tmp_path / "key")
    keygen("-s", authority, "-I", "it", "-n", "deploy", *how, file.with_suffix(".pub"))
    return (tmp_path / "key-cert.pub").read_text(), file.read_text()


def test_a_key_alone_a_password_an_agent(tmp_path: Path) -> None:
    file = key(tmp_path / "key", "-t", "ecdsa", "-m", "PKCS8")
    found = checked(Credential("deploy", key=file.read_text()), 0)
    assert found.key.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    for one in (Credential("deploy", "hunter2"), Credential("deploy", agent="/run/x")):
        assert checked(one, 0) == one


def test_a_certificate_ends_when_it_says(tmp_path: Path) -> None:
    certificate, private = certified(tmp_path, "-V", "20200101000000Z:20300101000000Z")
    found = checked(Credential("deploy", "", certificate, private), 1.6e9)
    assert (found.certificate, found.expires) == (certificate.strip(), 1893456000)
    assert checked(Credential("deploy", "", certificate, private, expires=1700000000), 1.6e9).expires == 1700000000
    with pytest.raises(KeyWrong, match="its certificate has expired"):
        checked(Credential("deploy", "", certificate, private), 2e9)


def test_one_for_ever(tmp_path: Path) -> None:
    certificate, private = certified(tmp_path)
    assert checked(Credential("deploy", "", certificate, private), 1.6e9).expires == 0


def test_what_does_not_belong_together(tmp_path: Path) -> None:
    certificate, private = certified(tmp_path)
    other = key(tmp_path / "other").read_text()
    for one, said in ((Credential("d", "", certificate, other), "of another key"),
                      (Credential("d", "", certificate), "has no key"),
                      (Credential("d", "", (tmp_path / "key.pub").read_text(), private), "no certificate of"),
                      (Credential("d", "", "hunter2", private), "no certificate of"),
                      (Credential("d", "", "", "hunter2"), "its key holds no")):
        with pytest.raises(KeyWrong, match=said) as caught:
            checked(one, 0)
        assert "hunter2" not in str(caught.value)


def test_a_hosts_certificate_logs_nobody_in(tmp_path: Path) -> None:
    certificate, private = certified(tmp_path, "-h")
    with pytest.raises(KeyWrong, match="no certificate of a user"):
        checked(Credential("deploy", "", certificate, private), 0)
