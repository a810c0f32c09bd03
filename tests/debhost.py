"""The Debian package, as it is built and installed in a fresh Debian of each of the releases that it is made for.

    python -P -m debhost SUITE DIRECTORY          as root: this version and the next into DIRECTORY, for tests/vm
"""
from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
SUITES: Final = ("bookworm", "trixie")            # Debian 12, and 13 by the same recipe
LATER: Final = "0.1.0+1"
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "weir-package"
# A root, what is bound into it ("PLACE=SOURCE"), a double dash, and a command.  All mounts end with the command.
ENTER: Final = """set -e; root=$1; shift
mount -t sysfs sysfs "$root/sys"
mount -t devpts -o newinstance,gid=5,mode=620,ptmxmode=666 devpts "$root/dev/pts"
while [ "$1" != -- ]; do mkdir -p "$root/${1%%=*}"; mount --bind "${1#*=}" "$root/${1%%=*}"; shift; done; shift
exec chroot "$root" "$@"
"""


def run(*command: str, seconds: float = 600, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, env={**os.environ, **more})


def right(*command: str, seconds: float = 600, **more: str) -> str:
    done = run(*command, seconds=seconds, **more)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@dataclass(frozen=True)
class Chroot:
    """A fresh Debian, and no systemd that runs.  `binds`: places in it, and what of this host is seen there."""
    root: Path
    binds: Mapping[str, Path] = field(default_factory=dict)

    def run(self, *command: str, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        return run("unshare", "--pid", "--kill-child", f"--mount-proc={self.root}/proc", "sh", "-c", ENTER, "enter",
                   str(self.root), *(f"{place}={source}" for place, source in self.binds.items()), "--", *command,
                   seconds=seconds, DEBIAN_FRONTEND="noninteractive", LC_ALL="C.UTF-8", TMPDIR="/tmp",
                   PATH="/usr/sbin:/usr/bin:/sbin:/bin")

    def right(self, *command: str, seconds: float = 600) -> str:
        done = self.run(*command, seconds=seconds)
        assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    def install(self, package: Path) -> subprocess.CompletedProcess[str]:
        shutil.copy(package, self.root / "srv")
        return self.run("apt-get", "install", "-q", "-y", "--allow-downgrades", "--no-install-recommends",
                        f"/srv/{package.name}")


def fresh(place: Path, suite: str, *packages: str, binds: Mapping[str, Path] | None = None) -> Chroot:
    """In `place`, with these and what they depend on."""
    right("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}", suite, str(place / "root"),
          *sources(place, suite))
    return Chroot(place / "root", binds or {})


def own_sources() -> Path | None:
    """Where this host takes Debian's packages from, where it is one of these releases."""
    here = own_suite()
    for path in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        if here in SUITES and path.exists() and here in path.read_text():
            return path
    return None


def own_suite() -> str:
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "")


def sources(place: Path, suite: str) -> list[str]:
    """The same for another suite, in a file in `place`; else mmdebstrap's own choice."""
    if (own := own_sources()) is None:
        return []
    (place / own.name).write_text(own.read_text().replace(own_suite(), suite))
    return [str(place / own.name)]


def listed(*names: str) -> list[str]:
    """Packages, by the names of bootstrap's lists without _PACKAGES."""
    found = re.findall(rf"(?m)^(?:{'|'.join(names)})_PACKAGES=\(([^)]*)\)", (ROOT / "bootstrap").read_text())
    return " ".join(found).split()


def let_pip_reach(debian: Chroot) -> None:
    """A package index, as this host does."""
    for path in (Path("/etc/pip.conf"), Path("/etc/ssl/certs/ca-certificates.crt")):
        if path.exists():
            shutil.copy(path, debian.root / str(path)[1:])


def builder(place: Path, suite: str) -> Chroot:
    """With what `./bootstrap package` installs; the clone is in /clone, the wheels are fetched."""
    CACHE.mkdir(parents=True, exist_ok=True)
    debian = fresh(place, suite, "ca-certificates", "python3-venv", *listed("BUILD", "PACKAGE"),
                   binds={"clone": ROOT, "cache": CACHE})
    let_pip_reach(debian)
    debian.right("/clone/packaging/build", "--cache", "/cache", "--fetch", seconds=1200)
    return debian


def build(debian: Chroot, name: str, *options: str) -> Path:
    """Without network, in a directory of its own."""
    (debian.root / "srv" / name / "work").mkdir(parents=True)
    debian.right("unshare", "--net", "env", f"TMPDIR=/srv/{name}/work", "/clone/packaging/build", "--cache", "/cache",
                 "--offline", *options, f"/srv/{name}/made", seconds=2400)
    (made,) = (debian.root / "srv" / name / "made").glob("weir_*.deb")
    return made


def main(suite: str, into: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        debian = builder(Path(place), suite)
        for name, options in (("first", ()), ("later", ("--version", LATER))):
            print(shutil.copy(build(debian, name, *options), into), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
