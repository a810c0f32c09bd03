"""Run inside the machine, as root, after package.py: Weir's AppArmor profile, where the kernel mediates user namespaces
(Linux 6.7, AppArmor 4).

Not collected by an ordinary run, like checks.py.  Debian's kernel has no switch that keeps them from all programs
without a profile, as Ubuntu's has (kernel.apparmor_restrict_unprivileged_userns).  In its place stands a profile of the
same name that permits everything else: it is the kernel that refuses, and the launcher that is refused, as there.  The
other switch of Ubuntu's, by which who is under no profile and has no privilege gets another only beside its own, is on.
"""
from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vm.package import AS_CREW, ask_database, database, right, run, wait_enforcing
from vm.package_after import main_pid

__all__ = ["database"]
SWITCH = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
STACKED = "kernel.apparmor_restrict_unprivileged_unconfined"
LOADED = Path("/sys/kernel/security/apparmor/profiles")
PACKAGED, PROFILE = Path("/usr/share/weir/weir.apparmor"), Path("/etc/apparmor.d/weir")
WITHOUT = """
abi <abi/4.0>,
include <tunables/global>
profile weir flags=(attach_disconnected, mediate_deleted) {
  allow all,
  deny userns,
}
"""


def load(text: str) -> None:
    """Whoever is under it is at once under the new one."""
    PROFILE.write_text(text)
    right("apparmor_parser", "--replace", "--skip-cache", str(PROFILE))


def label(pid: str) -> str:
    return Path(f"/proc/{pid}/attr/current").read_text().strip()


def crew(*command: str) -> subprocess.CompletedProcess[str]:
    return run(*AS_CREW, *command)


@pytest.fixture(scope="module", autouse=True)
def under_it() -> Iterator[None]:
    assert os.geteuid() == 0, "run it as root, inside the machine"
    assert not SWITCH.exists(), "this kernel has the switch: try that in place of another profile"
    assert not PROFILE.exists(), "the package loads it only where the switch is on"
    assert label(main_pid()) == "unconfined"
    load(PACKAGED.read_text())
    right("sysctl", "--write", f"{STACKED}=1")
    right("systemctl", "restart", "weir-agent")
    wait_enforcing()
    yield
    right("sysctl", "--write", f"{STACKED}=0")
    right("apparmor_parser", "--remove", str(PROFILE))
    PROFILE.unlink()
    right("systemctl", "restart", "weir-agent")
    wait_enforcing()


def test_the_agent_and_all_that_it_starts_are_under_it() -> None:
    assert "weir (unconfined)" in LOADED.read_text().splitlines()
    pids = [main_pid()]
    for name in ("enforcer", "recorder"):
        pids += Path(f"/sys/fs/cgroup/weir.weir/{name}/cgroup.procs").read_text().split()
    assert len(pids) >= 3
    assert {label(pid) for pid in pids} == {"weir (unconfined)"}
    assert crew("cat", "/proc/self/attr/current").stdout.strip() == "weir (unconfined)"


def test_a_crew_reaches_its_database_under_it(database: None) -> None:
    assert ask_database() == "42\n"


def test_where_user_namespaces_are_refused_the_caller_is_told() -> None:
    load(WITHOUT)
    assert label(main_pid()) == "weir (enforce)"
    refused = crew("echo", "started")
    load(PACKAGED.read_text())
    assert (refused.returncode, refused.stdout) == (125, "")
    assert "bwrap: Creating new namespace failed: Permission denied" in refused.stderr
    assert "weir doctor" in refused.stderr
    assert crew("echo", "started").stdout == "started\n"
