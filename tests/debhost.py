"""The Debian package: its one command, and a fresh Debian 12 that it is installed in."""
from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LATER = "0.1.0+1"


def run(*command: str, seconds: float = 600, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, env={**os.environ, **more})


def right(*command: str, seconds: float = 600, **more: str) -> str:
    done = run(*command, seconds=seconds, **more)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def build(into: Path, work: Path, *options: str) -> Path:
    """Without network, in a directory of its own."""
    work.mkdir(parents=True)
    said = right("unshare", "--net", str(ROOT / "packaging/build"), "--offline", *options, str(into),
                 seconds=2400, TMPDIR=str(work))
    return Path(said.splitlines()[-1])


class Chroot:
    """A fresh Debian 12 with what Weir's package depends on, and no systemd that runs."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return run("unshare", "--pid", "--fork", f"--mount-proc={self.root}/proc", "chroot", str(self.root), *command,
                   DEBIAN_FRONTEND="noninteractive", LC_ALL="C.UTF-8", PATH="/usr/sbin:/usr/bin:/sbin:/bin")

    def right(self, *command: str) -> str:
        done = self.run(*command)
        assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    def install(self, package: Path) -> subprocess.CompletedProcess[str]:
        shutil.copy(package, self.root / "srv")
        return self.run("apt-get", "install", "-q", "-y", "--allow-downgrades", "--no-install-recommends",
                        f"/srv/{package.name}")
