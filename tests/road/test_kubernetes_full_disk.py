"""A full disk on a cluster's road: what cannot be recorded is not forwarded, and is said; with room it goes on."""
from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab.hosts import RUNTIME, wait_until
from lab.kube import ALL, KUBECTL, OLD_KUBECTL, SERVICE_USER, KubeLab, kube_weir, kubectl
from lab.weir import Installed

pytestmark = [pytest.mark.lab, pytest.mark.slow]           # kubectl tries again for long where it is not let in

BOTH = pytest.mark.parametrize("old", [False, True], ids=["of today", "1.20"])
STATE = Path("/var/lib") / RUNTIME
ROOM = 128 << 20                      # bytes of the disk that the recording is on
HELD = """
@id("deletes-need-a-dba") @hold("approvers=dba, within=5m")
forbid (principal, action == Action::"k8s:delete", resource in Target::"prod") unless { context.approved };
"""


@pytest.fixture(scope="module")
def small(the_kube: KubeLab) -> Iterator[Installed]:
    """With a disk of its own for what Weir keeps."""
    STATE.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=755", "tmpfs", str(STATE)], check=True)
    try:
        with kube_weir(the_kube, ALL + HELD) as installed:
            yield installed
    finally:
        subprocess.run(["umount", "-l", str(STATE)], check=True)
        if STATE.is_dir():
            STATE.rmdir()


@contextmanager
def full() -> Iterator[None]:
    """Nothing is free of the disk."""
    ballast = STATE / "ballast"
    try:
        disk = os.statvfs(STATE)
        with open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - (1 << 20))
        yield
    finally:
        ballast.unlink()


def running(installed: Installed, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        installed.crew_argv(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=installed.lab.home, env=installed.lab.client_environment())


@BOTH
def test_a_full_disk_forwards_nothing_and_says_so(small: Installed, the_kube: KubeLab, old: bool) -> None:
    program = OLD_KUBECTL if old else KUBECTL
    the_kube.cluster.kubectl("create", "configmap", "stays", "-n", "shop")
    try:
        held = running(small, program, "delete", "configmap", "stays")
        typed = running(small, program, "exec", "-i", "web", "--", "sh", "-c", "echo up; read line; echo $line")
        assert typed.stdin is not None
        assert typed.stdout is not None
        assert typed.stdout.readline() == "up\n"
        wait_until("the hold", lambda: b"ticket" in small.weir("approvals", "list", "--json").stdout.encode())
        since = the_kube.cluster.mark()
        with full():
            _, said = held.communicate(timeout=60)
            assert held.returncode == 1
            assert "nothing can be recorded, so nothing is forwarded" in said
            _, said = typed.communicate("typed\n", timeout=60)
            assert typed.returncode != 0
            assert "nothing can be recorded" in said
            done = kubectl(small, "get", "pods", old=old, timeout=60)
            assert done.returncode == 1
            assert not the_kube.cluster.audited(SERVICE_USER, since=since, stage="ResponseStarted")
            assert [one.resource for one in the_kube.cluster.audited(SERVICE_USER, since=since)] in ([], ["pods/exec"])
        wait_until("room again", lambda: kubectl(small, "get", "pods", old=old, timeout=60).returncode == 0, 60)
    finally:
        the_kube.cluster.kubectl("delete", "configmap", "stays", "-n", "shop")
