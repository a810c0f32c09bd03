"""The root file system of a fresh Debian server, built once by mmdebstrap from Debian's own packages.

Nothing of the host that builds it is in it: what a host needs to reach package registries is given to the running
machine (host.py), so that this may be kept and used for many runs.
"""
from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import debhost

SUITE: Final = "bookworm"             # that bootstrap is made for
NAMES: Final = {SUITE: "debian-12", "trixie": "debian-13"}
USER: Final = "admin"
# Beside Debian's own "important" set, what its installer puts on a server, and git for the clone.
PACKAGES: Final = (
    "linux-image-amd64", "systemd-sysv", "systemd-timesyncd", "dbus", "libpam-systemd", "openssh-server", "sudo", "git",
    "ca-certificates", "python3", "curl", "ifupdown", "isc-dhcp-client")
# What escapes and containers are tried with.
MEANS: Final = ("screen", "cron", "at", "podman", "crun", "netavark", "kmod", "strace")
HOOKS: Final = (
    'printf "auto lo\\niface lo inet loopback\\nallow-hotplug ens3\\niface ens3 inet dhcp\\n" '
    '>"$1/etc/network/interfaces"',
    'printf "/dev/vda / ext4 defaults 0 1\\n" >"$1/etc/fstab"',
    'echo weir-vm >"$1/etc/hostname"',
    'printf "127.0.0.1 localhost\\n127.0.1.1 weir-vm\\n::1 localhost\\n" >"$1/etc/hosts"',
    f'chroot "$1" useradd -m -s /bin/bash -G sudo {USER}',
    f'echo "{USER} ALL=(ALL) NOPASSWD: ALL" >"$1/etc/sudoers.d/{USER}"; chmod 440 "$1/etc/sudoers.d/{USER}"',
    'printf "UseDNS no\\n" >"$1/etc/ssh/sshd_config.d/vm.conf"',
    'chroot "$1" systemctl enable ssh')
# The lab starts servers of its own, and nothing else takes the emulated processor's time.
QUIET: Final = ('for unit in postgresql pgbouncer nftables apt-daily.timer apt-daily-upgrade.timer man-db.timer '
                'dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap podman.socket podman podman-auto-update.timer '
                'podman-restart; do chroot "$1" systemctl disable $unit || true; done',)
BEFORE: Final = ('mkdir -p "$1/etc/postgresql-common"; '
                 'echo "create_main_cluster = false" >"$1/etc/postgresql-common/createcluster.conf"',)
SIZE: Final = "24G"                   # sparse
BUILD_SECONDS: Final = 1200
TOOLS: Final = ("mmdebstrap", "e2fsprogs", "qemu-system-x86", "qemu-utils")


class ImageError(Exception):
    """The root file system cannot be built; the message says why."""


def lab_packages() -> tuple[str, ...]:
    """What `./bootstrap install` and the lab would install, and the kernel's headers."""
    return (*debhost.listed("RUNTIME", "BUILD", "LAB"), "linux-headers-amd64")


def quick_packages() -> tuple[str, ...]:
    """These, and what tests are made with."""
    return (*lab_packages(), *MEANS)


def package_packages() -> tuple[str, ...]:
    """What the package depends on, and what its checks are made with: by names that every release has."""
    return (*debhost.listed("RUNTIME"), "linux-headers-amd64", "apparmor", "postgresql", "procps", "python3-pytest",
            "python3-pytest-asyncio")


def build(directory: Path, options: list[str], more: Sequence[str] = (), suite: str = SUITE) -> Path:
    """The folder with `root.img`, `vmlinuz` and `initrd`, built where it is not there yet.

    `options` are apt's; `more` are packages beside a fresh server's.
    """
    own = debhost.own_sources()
    recipe = repr((PACKAGES, HOOKS, SIZE, [str(own)] if own else [], *((more, QUIET, BEFORE) if more else ()))).encode()
    made = directory / f"{NAMES[suite]}-{hashlib.sha256(recipe).hexdigest()[:12]}"
    if made.exists():
        return made
    need("mmdebstrap", "mkfs.ext4", "qemu-system-x86_64", "qemu-img")
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        root, parts = Path(temporary, "root"), Path(temporary, "parts")
        parts.mkdir()
        debian(root, options, (*PACKAGES, *more), BEFORE if more else (), (*HOOKS, *(QUIET if more else ())),
               suite=suite)
        for name, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd", "initrd.img-*")):
            (found,) = (root / "boot").glob(pattern)
            shutil.copy(found, parts / name)
        run(["mkfs.ext4", "-q", "-d", str(root), str(parts / "root.img"), SIZE])
        if not made.exists():         # another run was faster
            parts.rename(made)
    return made


def need(*tools: str) -> None:
    """ImageError where one of this host's programs is missing."""
    for tool in tools:
        if shutil.which(tool) is None:
            raise ImageError(f"{tool} is missing: apt-get install {' '.join(TOOLS)}")


def debian(
    root: Path, options: Sequence[str], packages: Sequence[str], before: Sequence[str], after: Sequence[str],
    seconds: float = BUILD_SECONDS, suite: str = SUITE,
) -> None:
    """A tree of Debian at `root`, beside which is room; `before` and `after` everything is unpacked and set up:
    mmdebstrap's hooks."""
    run(["mmdebstrap", "--quiet", "--variant=important", f"--include={','.join(packages)}",
         *(f"--aptopt={line}" for line in options), *(f"--essential-hook={hook}" for hook in before),
         *(f"--customize-hook={hook}" for hook in after), suite, str(root),
         *debhost.sources(root.parent, suite)], seconds)


def run(command: Sequence[str], seconds: float = BUILD_SECONDS) -> None:
    """To its end; ImageError with its last words where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    if done.returncode:
        raise ImageError(f"{command[0]}: {done.stderr[-2000:]}")
