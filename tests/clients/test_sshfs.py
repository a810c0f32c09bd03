"""sshfs.  Mounting is no crew's business: the kernel asks for what no crew has.  So sshfs itself runs beside the crews,
and the ssh that it starts is the crew's (`ssh_command`), by the same names."""
from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from lab.hosts import CREW, OTHER
from lab.lab import Lab
from lab.ssh import LOGIN, SshLab, ssh_weir
from lab.sshd import NAME

pytestmark = pytest.mark.lab

SCRIPT = """
set -eu
mkdir -p "$MOUNT"
sshfs -o ssh_command="$SSH" "$AT:$WORK" "$MOUNT"
trap 'cd /; umount "$MOUNT"' EXIT
cd "$MOUNT"
head -c 3000000 /dev/zero | tr '\\0' x > big
sha256sum big | cut -c1-64
mkdir -p a/b
echo one > a/b/f; echo two >> a/b/f; cat a/b/f
mv a/b/f a/b/g; ln -s g a/b/l; cat a/b/l; chmod 640 a/b/g; truncate -s 4 a/b/g; stat -c '%s %a %F' a/b/g
find . | sort
rm a/b/l a/b/g; rmdir a/b a; rm big; ls -A | wc -l
cat missing 2>&1 || true
"""


def mounted(lab: Lab, host: list[str], ssh: str, place: Path) -> subprocess.CompletedProcess[str]:
    """In a mount namespace of its own, which takes the mount along."""
    chosen = {"MOUNT": str(place), "SSH": ssh, "AT": f"{LOGIN}@{NAME}", "WORK": "sshfs"}
    return subprocess.run([*host, "unshare", "--mount", "--propagation", "private", "sh", "-c", SCRIPT],
                          env=lab.client_environment(chosen), cwd=lab.home, capture_output=True, text=True, timeout=120)


def test_sshfs(the_ssh: SshLab) -> None:
    lab = the_ssh.lab
    the_ssh.ssh.fresh("sshfs")
    own = lab.scratch / "dot-ssh"
    # The control: the same, and ssh with the crew's key on a host without Weir.
    as_there = shlex.join(["ssh", "-F", str(own / "config"), "-o", f"UserKnownHostsFile={own}/known_hosts", "-i",
                           str(the_ssh.ssh.crew_key), "-o", f"HostName={the_ssh.ssh.host.ipv4}",
                           "-o", f"HostKeyAlias={NAME}"])
    control = mounted(lab, OTHER.argv([]), as_there, lab.scratch / "mounted")
    assert control.returncode == 0, control.stderr
    with ssh_weir(the_ssh) as installed:
        the_ssh.ssh.fresh("sshfs")
        # A workload is given no sockets, and one is what sshfs talks to its ssh by.
        piped = lab.scratch / "piped-ssh"
        piped.write_text(f'#!/bin/sh\ncat | {shlex.join(installed.crew_argv("ssh")[3:])} "$@" | cat\n')
        piped.chmod(0o755)
        crew = mounted(lab, CREW.argv([]), str(piped), lab.scratch / "mounted")
        assert (crew.returncode, crew.stdout) == (0, control.stdout), crew.stderr
    assert "missing" in control.stdout
