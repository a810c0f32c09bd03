"""What is shown on the machine, in order.  Every step is a shell command of the machine's user, in the clone."""
from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Final

# WEIR_PREFIX is set in the shell that runs a step.
PYTEST: Final = ('sudo WEIR_EVERY_CONTROL=1 WEIR_PREFIX="$WEIR_PREFIX" "$WEIR_PREFIX/dev/bin/python" -m pytest -q '
                 "-p no:cacheprovider")


# By Debian's own Python and pytest, where bootstrap installs nothing: tests/conftest.py would want what it installs.
DEBIANS_PYTEST: Final = "sudo python3 -P -m pytest -q -p no:cacheprovider --noconftest"
PACKAGES: Final = "/var/tmp/packages"  # in the machine: weir's, and the same as the next version
BUILT: Final = (f"{{ ls {PACKAGES}/*.deb >/dev/null 2>&1 || {{ sudo ./bootstrap package {PACKAGES} && "
                f"sudo packaging/build --offline --version 0.1.0+1 {PACKAGES}; }}; }}")


@dataclass(frozen=True)
class Step:
    name: str
    command: str
    seconds: float                    # bound
    needed: bool = False              # without it the rest shows nothing
    boots: int = 0                    # so often the command is run, the machine booted, and `then` run
    then: str = ""


def pytest(name: str, what: str, minutes: float, by: str = PYTEST) -> Step:
    return Step(name, f"{by} {what}", minutes * 60)


INSTALLING: Final = (Step("install", "sudo ./bootstrap install", 1800, needed=True),
                     Step("install again", "sudo ./bootstrap install", 300))


def boot(state: str) -> Step:
    return Step(state, f'sudo "$WEIR_PREFIX/dev/bin/python" tests/vm/boot.py {shlex.quote(state)}', 900, boots=2,
                then=f"{PYTEST} tests/vm/boot.py")


STEPS: Final = (
    *INSTALLING,
    pytest("fresh machine", "tests/vm/checks.py", 20),
    pytest("weir init", "tests/vm/first.py", 20),
    pytest("BPF LSM", "tests/vm/lsm.py", 30),
    pytest("weir adopt", "tests/vm/adopted.py", 60),
    boot("boot"),
    boot("boot, configuration broken"),
    boot("boot, guard refuses"),
    Step("containers", "sudo apt-get install -y -q --no-install-recommends podman crun netavark && "
         f"{PYTEST} tests/vm/containers.py", 1800),
    Step("demo", "sudo ./bootstrap demo", 2700),
    Step("matrix", f"sudo modprobe -a dccp_ipv4 sctp && {PYTEST} tests/escape/test_matrix.py", 3600),
    pytest("probes", "tests/probes", 60),
    pytest("escapes", "tests/escape --ignore tests/escape/test_matrix.py", 60),
    pytest("agent", "tests/agent", 40),
    pytest("road", "tests/road --deselect tests/road/test_demo.py::test_the_demo", 20),
    pytest("enforcer", "tests/enforcer -x", 60),
    # Last: it takes what bootstrap has installed of Weir out of the way.
    Step("package", f"{BUILT} && {PYTEST} tests/vm/package.py tests/vm/package_road.py", 7200,
         boots=1, then=f"{PYTEST} tests/vm/package_after.py"),
)

# On a Debian that is not bootstrap's nothing but the package, and so nothing that it could be put beside.
NOT_BESIDE: Final = "--deselect tests/vm/package.py::test_it_is_not_put_beside_what_bootstrap_installed"
ELSEWHERE: Final = (
    Step("package", f"{BUILT} && {DEBIANS_PYTEST} {NOT_BESIDE} tests/vm/package.py tests/vm/profile.py", 7200, boots=1,
         then=f"{DEBIANS_PYTEST} tests/vm/package_after.py"),
)

FACTS: Final = {
    "kernel": "uname -rv",
    "Debian": "cat /etc/debian_version",
    "PID 1": "ps -o comm= -p 1; systemctl --version | head -1",
    "cgroups": "stat -fc %T /sys/fs/cgroup; findmnt -no OPTIONS /sys/fs/cgroup",
    "security modules": "cat /sys/kernel/security/lsm",
    "name resolution": "grep -v '^#' /etc/resolv.conf; ls -l /etc/resolv.conf",
    "processors and memory": "nproc; free -m | awk '/^Mem/ {print $2 \" MiB\"}'",
}
