"""Clients in a workload and a real sshd that has Weir's host keys: known by unmodified clients, whatever lay there."""
from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from launchhost import UID, Host

pytestmark = pytest.mark.kernel

SSHD = Path("/usr/sbin/sshd")
NAME = "127.0.0.1"
OLD = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG10eEI6aW+ZfURANj2dwOHwSyiuIcF30QoBCZWZmE40"
CLIENT = """
import asyncio, sys
import asyncssh

async def main():
    try:
        await asyncssh.connect(sys.argv[1], int(sys.argv[2]), username="nobody", client_keys=None, agent_path=None)
    except asyncssh.PermissionDenied:
        print("known")
    except asyncssh.HostKeyNotVerifiable as reason:
        print("unknown:", reason)

asyncio.run(main())
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((NAME, 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    if not SSHD.exists():
        pytest.skip(f"no {SSHD} (apt install openssh-server)")
    port = free_port()
    made = Host(tmp_path_factory.mktemp("hosts"), f"weirtest-hosts{os.getpid()}",
                ssh=[{"name": "web", "hosts": [NAME, "web.lab"], "port": port}])
    made.port = port  # type: ignore[attr-defined]
    yield made
    made.close()


@pytest.fixture(scope="module")
def port(host: Host) -> Iterator[int]:
    found: int = host.port  # type: ignore[attr-defined]
    config = host.base / "sshd_config"
    keys = "".join(f"HostKey {host.base}/state/ca/web/ssh_host_{kind}_key\n" for kind in ("ed25519", "ecdsa", "rsa"))
    config.write_text(f"ListenAddress {NAME}:{found}\n{keys}PidFile none\nUsePAM no\nPasswordAuthentication no\n")
    made = not Path("/run/sshd").exists()
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with open(host.base / "sshd.log", "wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=log)
    for _ in range(100):
        if b"listening" in (host.base / "sshd.log").read_bytes():
            break
        time.sleep(0.05)
    yield found
    process.terminate()
    process.wait(10)
    if made:
        shutil.rmtree("/run/sshd", ignore_errors=True)


@pytest.fixture
def folder(host: Host) -> Iterator[Path]:
    """~/.ssh, which is not there yet."""
    place = host.home / ".ssh"
    shutil.rmtree(place, ignore_errors=True)
    yield place
    shutil.rmtree(place, ignore_errors=True)


def give(folder: Path, **files: str) -> None:
    folder.mkdir(mode=0o700)
    for name, text in files.items():
        (folder / name).write_text(text)
        os.chown(folder / name, UID, UID)
    os.chown(folder, UID, UID)


@pytest.mark.parametrize("before", ["nothing", "a directory", "a file", "hashed"])
def test_an_unmodified_client_knows_weir(host: Host, port: int, folder: Path, before: str) -> None:
    old = f"[{NAME}]:{port} {OLD}\n*.lab {OLD}\nelse {OLD}\n"
    if before == "a directory":
        give(folder, id_ed25519="a key")
    elif before != "nothing":
        give(folder, id_ed25519="a key", known_hosts=old)
    if before == "hashed":
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", folder / "known_hosts"], check=True, capture_output=True)
        (folder / "known_hosts.old").unlink()
        os.chown(folder / "known_hosts", UID, UID)
    kept = {one.name: one.read_bytes() for one in folder.iterdir()} if folder.exists() else {}
    assert host.run(sys.executable, "-c", CLIENT, NAME, str(port), env={"USER": "tester"}) == (0, b"known\n", b"")
    _, shown, _ = host.run("sh", "-c", "cat ~/.ssh/known_hosts; cat ~/.ssh/id_ed25519 2>/dev/null")
    assert shown.endswith(b"a key") == (before in ("a directory", "a file", "hashed"))
    after = {one.name: one.read_bytes() for one in folder.iterdir()}
    assert after == kept, "nothing on the host has changed"


def test_openssh_takes_what_a_workload_is_shown(host: Host, port: int, folder: Path, tmp_path: Path) -> None:
    """By its own reading of both files; ssh itself wants a user that /etc/passwd has."""
    give(folder, known_hosts=f"[{NAME}]:{port} {OLD}\n")
    for name in ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts"):
        code, shown, said = host.run("sh", "-c", f"cat {name}")
        assert code == 0, said
        file = tmp_path / "shown"
        file.write_bytes(shown)
        done = subprocess.run(
            ["ssh", "-F", "none", "-p", str(port), "-o", f"UserKnownHostsFile={file}", "-o",
             "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o",
             "IdentityFile=none", "-o", "IdentityAgent=none", f"nobody@{NAME}", "true"],
            capture_output=True, text=True, timeout=60)
        assert "Permission denied" in done.stderr, done.stderr
        assert "verification failed" not in done.stderr
    assert OLD.encode() not in shown
