"""Weir as user CA: what it signs, by ssh-keygen's reading and a real sshd's decision."""
from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import ssh

from agent.credential.client_authority import AuthorityError
from agent.ssh.keys import PrivateKey, load_key, parse_certificate, render_public
from agent.ssh.user_authority import (
    finish_user_rotation,
    issue_login,
    login_name,
    next_user_authority,
    prepare_user_rotation,
    render_trusted,
    user_authority,
)

SSHD = Path("/usr/sbin/sshd")


def place(state: Path) -> Path:
    return state / "ca" / "web"


def test_it_is_made_once_and_its_key_is_roots(tmp_path: Path) -> None:
    made: list[PrivateKey] = []
    threads = [threading.Thread(target=lambda: made.append(user_authority(tmp_path, "web"))) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len({render_public(one.public_key()) for one in made}) == 1
    assert (place(tmp_path) / "user-ca.key").stat().st_mode & 0o777 == 0o600
    assert render_trusted("web", made[0]) == f"{render_public(made[0].public_key())} weir-user-ca-web\n"


def test_what_it_signs_is_one_account_for_minutes(tmp_path: Path) -> None:
    certificate, key, end = issue_login(user_authority(tmp_path, "web"), "deploy", login_name("corp:ada:crew:01J"))
    file = tmp_path / "id-cert.pub"
    file.write_text(certificate)
    shown = subprocess.run(["ssh-keygen", "-Lf", file], capture_output=True, text=True, check=True).stdout
    lines = [line.strip() for line in shown.splitlines()]
    assert "Type: ssh-ed25519-cert-v01@openssh.com user certificate" in lines
    assert 'Key ID: "weir:corp:ada:crew:01J"' in lines
    assert lines[lines.index("Principals:") + 1] == "deploy"
    assert "Critical Options: (none)" in lines
    assert lines[lines.index("Extensions:") + 1:] == ["permit-port-forwarding", "permit-pty"]
    found = parse_certificate(certificate)
    assert found.type == ssh.SSHCertificateType.USER
    assert found.valid_before == end
    assert 0 < end - time.time() <= 300
    assert issue_login(user_authority(tmp_path, "web"), "deploy", "x")[1] != key
    for wrong in ("", "a\nb", "x" * 257):
        with pytest.raises(ValueError, match="no such account"):
            issue_login(user_authority(tmp_path, "web"), wrong, "x")


def test_what_sshd_logs_is_one_word() -> None:
    assert login_name("") == "weir"
    assert login_name('a"b c\n\\é:w:s') == "weir:a?b?c???:w:s"
    assert len(login_name("x" * 5000)) == 512


@pytest.mark.parametrize("spoil", ["mode", "other", "gone"])
def test_one_that_is_wrong_is_not_replaced(tmp_path: Path, spoil: str) -> None:
    user_authority(tmp_path, "web")
    key = place(tmp_path) / "user-ca.key"
    if spoil == "mode":
        key.chmod(0o640)
    elif spoil == "other":
        user_authority(tmp_path, "other")
        key.write_bytes((tmp_path / "ca" / "other" / "user-ca.key").read_bytes())
    else:
        key.unlink()
    before = (place(tmp_path) / "user-ca.key.pub").read_bytes()
    with pytest.raises(AuthorityError, match=r"not the key of user-ca\.key\.pub"):
        user_authority(tmp_path, "web")
    assert (place(tmp_path) / "user-ca.key.pub").read_bytes() == before
    (place(tmp_path) / "user-ca.key.pub").unlink()
    user_authority(tmp_path, "web")


def test_rotation_in_two_steps(tmp_path: Path) -> None:
    with pytest.raises(AuthorityError, match="--prepare first"):
        finish_user_rotation(tmp_path, "web")
    first, second = user_authority(tmp_path, "web"), prepare_user_rotation(tmp_path, "web")
    shown = [render_public(one.public_key()) for one in (first, second)]
    assert render_public(prepare_user_rotation(tmp_path, "web").public_key()) == shown[1]
    assert render_public(user_authority(tmp_path, "web").public_key()) == shown[0]
    assert render_public(finish_user_rotation(tmp_path, "web").public_key()) == shown[1]
    assert next_user_authority(tmp_path, "web") is None


def test_a_crash_between_two_renames_is_finished(tmp_path: Path) -> None:
    user_authority(tmp_path, "web")
    second = render_public(prepare_user_rotation(tmp_path, "web").public_key())
    (place(tmp_path) / "next-user-ca.key").rename(place(tmp_path) / "user-ca.key")
    assert render_public(user_authority(tmp_path, "web").public_key()) == second
    prepare_user_rotation(tmp_path, "web")
    (place(tmp_path) / "next-user-ca.key.pub").unlink()
    assert next_user_authority(tmp_path, "web") is None
    prepare_user_rotation(tmp_path, "web")
    finish_user_rotation(tmp_path, "web")
    assert load_key(place(tmp_path) / "user-ca.key") is not None


# a real sshd


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[int]:
    """Its port.  It trusts the authority of target `web`, and nothing else."""
    if not SSHD.exists() or os.geteuid() != 0:
        pytest.skip(f"needs root and {SSHD} (apt install openssh-server)")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "host"], check=True)
    trusted = tmp_path / "trusted"
    trusted.write_text(render_trusted("web", user_authority(tmp_path, "web")))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    config = tmp_path / "sshd_config"
    config.write_text(f"ListenAddress 127.0.0.1:{port}\nHostKey {tmp_path}/host\nPidFile none\nStrictModes no\n"
                      f"TrustedUserCAKeys {trusted}\nAuthorizedKeysFile none\nPasswordAuthentication no\n"
                      "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nUsePAM no\n"
                      "LogLevel VERBOSE\nSubsystem sftp internal-sftp\nForceCommand internal-sftp\n")
    made = not Path("/run/sshd").exists()
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=log)
    for _ in range(100):
        if b"listening" in (tmp_path / "log").read_bytes():
            break
        time.sleep(0.05)
    assert b"listening" in (tmp_path / "log").read_bytes(), (tmp_path / "log").read_text()
    yield port
    process.terminate()
    process.wait(10)
    if made:
        shutil.rmtree("/run/sshd", ignore_errors=True)


def test_a_real_sshd_lets_that_account_in(tmp_path: Path, sshd: int) -> None:
    user, said = pwd.getpwuid(0).pw_name, {}
    for account, name in ((user, "right"), ("somebody", "wrong")):
        certificate, key, _ = issue_login(user_authority(tmp_path, "web"), account, login_name("local:ada:crew:1"))
        file = tmp_path / name
        file.touch(0o600)
        file.write_text(key)
        file.with_name(f"{name}-cert.pub").write_text(certificate)
        said[name] = subprocess.run(
            ["sftp", "-F", "none", "-P", str(sshd), "-i", file, "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
             "-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no", "-b", "-", f"{user}@127.0.0.1"],
            input="pwd\n", capture_output=True, text=True, timeout=120)
    assert "Remote working directory: " in said["right"].stdout, said["right"].stderr
    assert said["wrong"].returncode == 255
    assert "ID weir:local:ada:crew:1" in (tmp_path / "log").read_text(), "who it was stands in sshd's log"
