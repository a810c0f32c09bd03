"""A `systemd --user` of the test's own, with a bus of its own: what systemd says of units, on a host that another init
runs.  It starts nothing but itself.  /run is its own, for it asks there whether systemd runs the host (sd_booted(3)).
So is its cgroup: it takes all below for its own, and removes what is empty.
"""
from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.hosts import wait_until

from agent.block import cgroups
from agent.layout import cgroup_root

PROGRAM = "/lib/systemd/systemd"
SECONDS = 20.0
_START = f"""
set -e
echo 0 >"$CGROUP/cgroup.procs"
mount --make-rprivate / && mount -t tmpfs none /run && mkdir -p /run/systemd/system
exec setpriv --pdeathsig TERM {PROGRAM} --user --unit=weirtest.target
"""
# It is on a bus where these two run, whoever they are.
_UNITS = {
    "weirtest.target": "[Unit]\nDefaultDependencies=no\nWants=dbus.socket dbus.service\n",
    "dbus.socket": "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=%t/bus\n",
    "dbus.service": "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\n[Service]\nType=notify\n"
                    "ExecStart=dbus-daemon --session --address=systemd: --nofork --nopidfile --systemd-activation "
                    "--nosyslog\n",
}


def missing() -> str:
    return lacking((PROGRAM, "busctl", "dbus-daemon"), "systemd dbus-daemon")


def lacking(programs: Sequence[str], packages: str) -> str:
    """What is not here of what a test with a mount of its own needs; empty: nothing."""
    if os.geteuid() != 0:
        return "needs root, for a mount of its own"
    found = [name for name in programs if shutil.which(name) is None]
    return f"{', '.join(found)}: apt install {packages}" if found else ""


@dataclass(frozen=True)
class PrivateSystemd:
    units: Path
    address: str

    def write(self, name: str, text: str) -> None:
        path = self.units / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def remove(self, name: str) -> None:
        """With its drop-ins."""
        (self.units / name).unlink(missing_ok=True)
        shutil.rmtree(self.units / f"{name}.d", ignore_errors=True)

    def reload(self) -> None:
        """It reads the files again."""
        self._call("Reload")

    def queue(self, job: str, unit: str) -> None:
        """`job`: StartUnit, RestartUnit, StopUnit.  It is not waited for."""
        self._call(job, "ss", unit, "replace")

    def shown(self, unit: str, interface: str, name: str) -> str:
        """A property, as busctl writes it."""
        path = self._call("LoadUnit", "s", unit).split()[-1].strip('"')
        return self._ask("get-property", "org.freedesktop.systemd1", path, f"org.freedesktop.systemd1.{interface}",
                         name).split(maxsplit=1)[1].strip()

    def _call(self, *words: str) -> str:
        return self._ask("call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
                         "org.freedesktop.systemd1.Manager", *words)

    def is_up(self) -> bool:
        return "org.freedesktop.systemd1 " in self._ask("list", "--acquired", check=False)

    def _ask(self, *words: str, check: bool = True) -> str:
        return subprocess.run(["busctl", f"--address={self.address}", *words], check=check, capture_output=True,
                              text=True, timeout=SECONDS).stdout


@contextmanager
def private_systemd() -> Iterator[PrivateSystemd]:
    base = Path(tempfile.mkdtemp(prefix="weir-systemd-", dir="/var/tmp"))     # names of sockets are short
    cgroup = Path(tempfile.mkdtemp(prefix="wt-systemd-", dir=cgroup_root()))
    try:
        units, runtime = base / "units", base / "run"
        units.mkdir()
        runtime.mkdir(mode=0o700)
        made = PrivateSystemd(units, f"unix:path={runtime}/bus")
        for name, text in _UNITS.items():
            made.write(name, text)
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _START], cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "HOME": str(base), "XDG_RUNTIME_DIR": str(runtime),
                 "SYSTEMD_UNIT_PATH": f"{units}:", "CGROUP": str(cgroup)})
        try:
            wait_until("systemd on its bus", made.is_up, SECONDS)
            yield made
        finally:
            process.terminate()
            process.wait(SECONDS)
    finally:
        shutil.rmtree(base)
        cgroups.kill(cgroup)
        wait_until("it is empty", lambda: not cgroups.populated(cgroup), SECONDS)
        cgroups.remove(cgroup)
