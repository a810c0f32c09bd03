"""What logs in at an SSH server in the crew's place: a password, a key with a certificate, one that Weir signs."""
from __future__ import annotations

import pytest
from lab.ssh import LOGIN, TARGET, SshLab, ssh_weir
from lab.sshd import NAME, make_key, sign
from recorded import unpacked

pytestmark = pytest.mark.lab

AT = f"{LOGIN}@{NAME}"


def certified(the_ssh: SshLab) -> str:
    """A key that only its certificate opens the account for."""
    keys = the_ssh.ssh.keys
    if not (keys / "signed").exists():
        make_key(keys / "signed")
        sign(keys / "user_ca", keys / "signed.pub", "-I", "lab", "-n", LOGIN)
        (keys / "signed-cert.pub").chmod(0o600)
    return f'key_file = "{keys}/signed"\ncertificate_file = "{keys}/signed-cert.pub"'


def by_password(the_ssh: SshLab) -> str:
    path = the_ssh.lab.scratch / "ssh-password"
    path.write_text(the_ssh.password)
    path.chmod(0o600)
    return f'password_file = "{path}"'


@pytest.mark.parametrize("how", ["password", "certificate", "issued"])
def test_credentials(the_ssh: SshLab, how: str) -> None:
    chosen = {"password": by_password, "certificate": certified, "issued": lambda made: 'certificate = "issue"'}[how]
    public = (the_ssh.ssh.keys / "user_ca.pub").read_text()
    with ssh_weir(the_ssh, credential=chosen(the_ssh)) as installed:
        if how == "issued":
            the_ssh.ssh.trust_users_of(installed.weir("ca", TARGET).stdout)
        try:
            done = installed.crew("ssh", AT, "id -un", timeout=60)
            assert done.stdout == f"{LOGIN}\n", done.stderr
        finally:
            the_ssh.ssh.trust_users_of(public)
        method = {"password": "Accepted password", "certificate": "ED25519-CERT", "issued": "-CERT"}[how]
        assert method in the_ssh.ssh.log().rpartition("Connection from 10.77.0.2")[2]
        secret = the_ssh.password if how == "password" else (the_ssh.ssh.keys / "signed").read_text().splitlines()[1]
        installed.settle()
        for path in (*installed.recording.glob("*.sqlite"), installed.log):
            assert not any(secret.encode() in piece for piece in (path.read_bytes(), *unpacked(path))), path
