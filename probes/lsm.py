"""BPF LSM, where this kernel has it: whether it does, and what its programs are compiled with."""
from __future__ import annotations

from pathlib import Path
from typing import Final

from probes import btf
from probes.links import PlatformError

MODULES: Final = Path("/sys/kernel/security/lsm")
# struct, names of the member
MEMBERS: Final = (
    ("cgroup", ("kn",)), ("kernfs_node", ("id",)), ("kernfs_node", ("parent", "__parent")),
    ("unix_sock", ("addr",)), ("unix_address", ("name",)), ("socket", ("sk",)), ("sock", ("sk_cgrp_data",)),
    ("task_struct", ("tgid",)), ("task_struct", ("cgroups",)), ("css_set", ("dfl_cgrp",)),
)


def absent() -> str:
    """Why the kernel has none; empty where it has."""
    try:
        modules = MODULES.read_text().strip().split(",")
    except OSError as reason:
        return f"{MODULES}: {reason.strerror}"
    return "" if "bpf" in modules else (
        f"bpf is not among the kernel's security modules ({','.join(modules)}): lsm=...,bpf on its command line")


def flags(control: Path) -> list[str]:
    """What makes the compiler see bpf/lsm.bpf.c.  `control`: the name that the agent's control socket is bound
    by.  Raises PlatformError: why there is none."""
    if why := absent():
        raise PlatformError(why)
    return ["-DLSM", f'-DCONTROL="{control}"',
            *(f"-DOFFSET_{name}={offset}" for name, offset in btf.offsets(MEMBERS).items())]
