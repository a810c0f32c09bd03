"""The agent in a network namespace of its own, with a small kernel side, enforcer and recorder in place of the real
ones: `python agenthost.py weir.toml`.  The block is a real one, of nftables alone: crews are redirected or dropped.
"""
from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from agent import processes, services
from agent.check import load_config
from agent.config import Config
from agent.launcher import open_owners
from agent.layout import cgroup_root
from agent.supervisor import Agent

PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
HERE = Path(__file__).resolve().parent


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


class Kernel:
    """Marks are a dictionary; a connection is attributed by the sockets that the slice's processes hold."""

    def __init__(self, config: Config, root: Path) -> None:
        self.name, self.port = config.runtime.name, config.enforcer.port
        self.slice = root / f"{self.name}.slice"
        self.path = f"{self.slice.relative_to('/sys/fs/cgroup')}"
        self.owners = config.run / "bpf" / "owners"
        self.ring_fd, self.ring = os.pipe()
        os.set_blocking(self.ring_fd, False)

    def install(self) -> None:
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

    def is_crew(self, pid: int) -> bool:
        return f"/{self.name}.slice" in Path(f"/proc/{pid}/cgroup").read_text()

    def take(self, netns: int, address: bytes, port: int) -> Origin | None:
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

    @staticmethod
    def _inode(port: int) -> str:
        for table in ("tcp", "tcp6"):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                words = line.split()
                if int(words[1].rpartition(":")[2], 16) == port:
                    return words[9]
        return "none"

    def problems(self) -> list[str]:
        if (self.slice / "self-probe-stuck").exists():
            return ["stuck"]
        done = subprocess.run(["nft", "list", "table", "inet", self.name], capture_output=True, text=True,
                              env=PATH)
        return [] if done.stdout.count("cgroupv2") == 2 else ["the table is not as it should be"]

    def repair(self) -> None:
        self.block()

    def release(self) -> None:
        subprocess.run(["nft", "delete", "table", "inet", self.name], check=True, env=PATH)
        for path in [*self.slice.iterdir(), self.slice]:
            if path.is_dir():
                path.rmdir()


def standin(module: str) -> list[str]:
    if not module.startswith("enforcer"):
        return processes.python_module(module)
    code = f"import sys; sys.path.insert(0, {str(HERE.parent)!r}); import runpy; " \
           f"runpy.run_path({str(HERE / (module.rpartition('.')[2].replace('app', 'enforcer') + '.py'))!r}, " \
           f"run_name='__main__')"
    return [sys.executable, "-I", "-c", code]


def main() -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="agent: %(message)s")
    lines = "link set lo up\naddress replace 192.0.2.1/24 dev lo\n"
    subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True, env=PATH)
    services.python_module = standin
    config, root = load_config(sys.argv[1]), cgroup_root()

    async def run() -> int:
        agent = Agent(config, Kernel(config, root), cgroups=root)
        return await agent.run()

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:      # as the machine's lock, by name
        lock.bind(f"\0{config.runtime.name}")
        return asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main())
