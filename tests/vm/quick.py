"""A quick machine: what `./bootstrap install` made on this host goes in on a disk, and the checkout as it lies there.

The root file system has bootstrap's Debian packages already, so that nothing is installed over the network.  The disk
is a copy, mounted where the prefix lies on this host (environments hold their own path); the guest may write to it.
"""
from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Final

from vm.machine import Machine, MachineError

PREFIX: Final = Path(os.environ.get("WEIR_PREFIX", "/opt/weir"))
LEFT_OUT: Final = {"build", "golang"}          # bootstrap's own scratch, and what it builds with
LABEL: Final = "weir-prefix"
DISK: Final = "8G"                    # sparse
COPY_SECONDS: Final = 600


def disk(directory: Path) -> list[str]:
    """An image of the prefix below `directory`, as QEMU's arguments.  No installation: MachineError."""
    if not (PREFIX / "venv/bin/weir").exists():
        raise MachineError(f"nothing is installed at {PREFIX}: ./bootstrap install, or WEIR_PREFIX")
    staging, image = directory / "prefix", directory / "prefix.img"
    staging.mkdir()
    for entry in PREFIX.iterdir():
        if entry.name not in LEFT_OUT and entry.exists():
            _copy(entry, staging / entry.name)
    _run(["mkfs.ext4", "-q", "-L", LABEL, "-d", str(staging), str(image), DISK])
    _run(["rm", "-rf", str(staging)])
    return ["-drive", f"file={image},if=virtio,format=raw,cache=unsafe"]


def _copy(entry: Path, to: Path) -> None:
    """A link out of the prefix is followed, those within are kept; links to the same files where that is possible."""
    if subprocess.run(["cp", "-alH", str(entry), str(to)], capture_output=True, timeout=COPY_SECONDS).returncode:
        _run(["rm", "-rf", str(to)])
        _run(["cp", "-aH", str(entry), str(to)])


def prepare(guest: Machine, root: Path) -> None:
    """The prefix mounted, at every boot too; the checkout in the user's home; users, the command, changed files."""
    prefix = shlex.quote(str(PREFIX))
    done = guest.run(f"sudo mkdir -p {prefix} && echo LABEL={LABEL} {prefix} ext4 defaults 0 2 | "
                     f"sudo tee -a /etc/fstab && sudo systemctl daemon-reload && sudo mount {prefix}", seconds=120)
    if done.status:
        raise MachineError(f"the prefix: {done.output}")
    push(guest, root)


def push(guest: Machine, root: Path) -> None:
    """The checkout as it lies there now, and what it changes of the installation."""
    guest.write("/tmp/checkout.tar.gz", packed(root))
    done = guest.run("sudo rm -rf weir && mkdir weir && tar -C weir -xzf /tmp/checkout.tar.gz && "
                     f"cd weir && sudo WEIR_DEV=1 WEIR_PREFIX={shlex.quote(str(PREFIX))} ./bootstrap install",
                     seconds=COPY_SECONDS)
    if done.status:
        raise MachineError(f"the checkout: {done.output[-3000:]}")


def packed(root: Path) -> bytes:
    """A checkout as it lies there now, without what git ignores: tar.gz."""
    listed = subprocess.run(["git", "-C", str(root), "ls-files", "-coz", "--exclude-standard", "--deduplicate"],
                            check=True, capture_output=True, timeout=60).stdout
    names = b"\0".join(name for name in listed.split(b"\0") if (root / os.fsdecode(name)).is_file())
    return subprocess.run(["tar", "-C", str(root), "--null", "-T", "-", "-cz"], input=names, check=True,
                          capture_output=True, timeout=120).stdout


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=COPY_SECONDS)
    if done.returncode:
        raise MachineError(f"{command[0]}: {done.stderr[-2000:]}")
