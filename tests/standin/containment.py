"""A small kernel side in place of agent/block/containment.py, for the tests of the agent, in a network namespace of its
own. The block is a real one, of nftables alone: crews are redirected or dropped; marks are written to a real map.
"""
from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.block.attribution import Held
from agent.block.sockdiag import tcp_sockets
from agent.layout import cgroup_root
from agent.workload.launcher import open_owners

PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


@dataclass(frozen=True)
class Origin:
    owner: int
    tgid: int
    cgroup: int
    cookie: int
    when: int
    destination: str
    port: int
    hook: str
    verdict: str = "dns"


class Containment:
    """A connection is attributed by the sockets that the slice's processes hold."""

    def __init__(self, name: str, *, port: int, resolver: object, redirect: bool, run: Path, headers: Path) -> None:
        self.name, self.port = name, port
        self.slice = cgroup_root() / f"{self.name}.slice"
        self.path = f"{self.slice.relative_to('/sys/fs/cgroup')}"
        self.owners = run / "bpf" / "owners"
        self.ring_fd, self.ring = os.pipe()
        os.set_blocking(self.ring_fd, False)
        self.lsm = "off: a stand-in"

    def install(self) -> None:
        lines = "link set lo up\naddress replace 192.0.2.1/24 dev lo\n"
        subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True, env=PATH)
        bpffs = self.owners.parent
        bpffs.mkdir(mode=0o700, exist_ok=True)
        if not os.path.ismount(bpffs):
            subprocess.run(["mount", "-t", "bpf", "none", str(bpffs)], check=True)
        if not self.owners.exists():
            subprocess.run(["bpftool", "map", "create", str(self.owners), "type", "array", "key", "4", "value", "4",
                            "entries", "4194304", "name", "owners"], check=True, env=PATH)
        self.mark = open_owners(str(self.owners))
        self.block()

    def block(self) -> None:
        self.slice.mkdir(exist_ok=True)
        rules = f"""
            table inet {self.name}
            delete table inet {self.name}
            table inet {self.name} {{
              chain to {{ type nat hook output priority -100;
                socket cgroupv2 level 1 "{self.path}" meta l4proto tcp redirect to :{self.port}; }}
              chain out {{ type filter hook output priority 0;
                socket cgroupv2 level 1 "{self.path}" jump crew; }}
              chain crew {{ tcp dport {self.port} accept; drop; }}
            }}"""
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True, env=PATH)

    def drain(self) -> list[Origin]:
        try:
            lines = os.read(self.ring_fd, 1 << 16).decode().splitlines()
        except BlockingIOError:
            return []
        return [Origin(**json.loads(line)) for line in lines]

    def bounded(self) -> list[object]:
        return []

    def is_crew(self, pid: int) -> bool:
        return f"/{self.name}.slice" in Path(f"/proc/{pid}/cgroup").read_text()

    def register(self, places: Iterable[tuple[str, int]]) -> None:
        pass

    def know_doors(self, descriptors: Iterable[int]) -> None:
        pass

    def is_door(self, descriptor: int) -> bool:
        return True

    def take(self, cookie: int) -> Origin | None:
        return None

    def by_redirect(self, netns: int, address: bytes, port: int) -> Origin | None:
        inode = self._inode(port)
        for path, _, _ in os.walk(self.slice):
            for pid in Path(path, "cgroup.procs").read_text().split():
                if any(os.path.realpath(fd).endswith(f"socket:[{inode}]") for fd in Path(f"/proc/{pid}/fd").iterdir()):
                    line = {"owner": 0, "tgid": int(pid), "cgroup": os.stat(path).st_ino, "cookie": 5, "when": 0,
                            "destination": "", "port": 0, "hook": "redirect"}
                    os.write(self.ring, json.dumps(line).encode() + b"\n")
                    return Origin(**line)
        return None

    def asker(self, netns: int, stream: bool, address: bytes, port: int) -> int:
        return 0

    @staticmethod
    def _inode(port: int) -> str:
        for table in ("tcp", "tcp6"):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                words = line.split()
                if int(words[1].rpartition(":")[2], 16) == port:
                    return words[9]
        return "none"

    def tcp_sockets(self) -> list[object]:
        return []

    def tcp_ends(self, port: int) -> list[Held]:
        return tcp_sockets(port)

    def crew_cgroups(self) -> set[int]:
        return {os.stat(path).st_ino for path, _, _ in os.walk(self.slice)}

    def seal(self, ends: Iterable[object]) -> None:
        pass

    def joined(self) -> tuple[Path, ...]:
        return ()

    def recall(self) -> None:
        pass

    def freeze(self, on: bool) -> None:
        (self.slice / "cgroup.freeze").write_text(str(int(on)))

    def watched(self) -> dict[Path, str]:
        return {self.slice.parent: self.slice.name, self.owners.parent: ""}

    def mangling(self) -> list[str]:
        return []

    def beside(self) -> list[str]:
        return []

    def foreign_sockets(self, end: str) -> list[object]:
        return []

    def remark(self, starts: dict[str, int]) -> int:
        return 0

    def owner_of(self, pid: int) -> int:
        return 0

    def task(self, pid: int) -> tuple[int, int] | None:
        path = Path(f"/proc/{pid}/cgroup").read_text().rpartition("0::")[2].split("\n")[0]
        return (0, os.stat(f"{cgroup_root()}{path}").st_ino) if self.is_crew(pid) else None

    def problems(self) -> list[str]:
        if (self.slice / "self-probe-stuck").exists():
            return ["stuck"]
        done = subprocess.run(["nft", "list", "table", "inet", self.name], capture_output=True, text=True,
                              env=PATH)
        return [] if done.stdout.count("cgroupv2") == 2 else ["the table is not as it should be"]

    def repair(self) -> None:
        self.block()

    def release(self) -> None:
        if "populated 1" in (self.slice / "cgroup.events").read_text():
            raise RuntimeError("the slice holds a process")
        subprocess.run(["nft", "delete", "table", "inet", self.name], check=True, env=PATH)
        for path in [*self.slice.iterdir(), self.slice]:
            if path.is_dir():
                path.rmdir()
