"""The states of the block: both layers, one, or none.  What holds is asked of the kernel, never of Weir."""
from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil
from lab.hosts import CREW, RUNTIME, Host
from lab.weir import Installed

from agent.block import cgroups
from probes import libbpf, links

BPFFS = Path("/run") / RUNTIME / "bpf"


@dataclass(frozen=True)
class OwnNetwork(Host):
    """That of a workload; `number` is the pid of a process in it."""

    @property
    def path(self) -> Path:
        return Path(f"/proc/{self.number}/ns/net")


def layers(where: Host = CREW) -> dict[str, bool | None]:
    """Layer -> whether it holds whole; None: in part.  BPF_PROG_QUERY of every hook, and nft's own listing there."""
    slice_ = cgroups.find_slice(RUNTIME)
    own = set()
    for name in links.MAPS:
        if links.map_pin(BPFFS, name).exists():
            with links.opened(links.map_pin(BPFFS, name)) as fd:
                own.add(libbpf.map_info(fd).id)
    there = []
    for hook in links.HOOKS:
        if hook.place != links.TASKS:
            with links.directory(links.place_of(hook, slice_.root, slice_.path)) as target:
                programs = [libbpf.program_by_id(one) for one in libbpf.prog_query(target, hook.attach_type)]
            there.append(any(one.name == hook.name[:15] and own.intersection(one.maps) for one in programs))
    listed = where.run(["nft", "list", "table", "inet", RUNTIME])
    rules = listed.returncode == 0 and listed.stdout.count("counter packets") >= 3 and "drop" in listed.stdout
    return {"ebpf": all(there) if all(there) or not any(there) else None,
            "nftables": rules if rules or listed.returncode != 0 else None}


def expected(state: str) -> dict[str, bool]:
    return {"ebpf": state in ("both", "ebpf"), "nftables": state in ("both", "nftables")}


@contextmanager
def asleep(installed: Installed) -> Iterator[None]:
    """The agent repairs what is taken away within a second: it is stopped meanwhile, and goes on afterwards."""
    agent = psutil.Process(installed.process.pid)
    agent.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        agent.send_signal(signal.SIGCONT)


@contextmanager
def without_rules(where: Host = CREW) -> Iterator[None]:
    saved = where.run(["nft", "-s", "list", "table", "inet", RUNTIME], check=True).stdout
    where.run(["nft", "delete", "table", "inet", RUNTIME], check=True)
    try:
        yield
    finally:
        where.run(["nft", "-f", "-"], input=_readable(saved), check=True)


def _readable(listing: str) -> str:
    """nft before 1.0.8 reads neither a mask as it lists it, nor the number of the root cgroup."""
    slice_ = cgroups.find_slice(RUNTIME)
    root = PurePosixPath(slice_.nft_path).parents[slice_.level - 1]
    listing = re.sub(r"mark (0x\w+)/16", r"mark & 0xffff0000 == \1", listing)
    return re.sub(r"level 0 \d+", f'level 0 "{root}"', listing)


def detach_probes() -> None:
    """Every cgroup hook, also from those who hold its link open (BPF_LINK_DETACH); the tracepoint only marks."""
    for hook in links.HOOKS:
        with links.opened(links.link_pin(BPFFS, hook.name)) as fd:
            if hook.place != links.TASKS and libbpf._lib.bpf_link_detach(fd) != 0:
                raise OSError(f"{hook.name} could not be detached: {os.strerror(os.EINVAL)}")
