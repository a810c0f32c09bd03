"""A container as an OCI runtime (Debian's runc) makes it, from the arguments that podman or docker would be given.

runc itself makes the namespaces, the cgroup, the mounts, the filter and gives the rights up; here is only what podman
does before it: arguments in, config.json out.  Its files are the host's programs, and an /etc of its own.
"""
from __future__ import annotations

import ipaddress
import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from escape.attempts import where

from agent.techniques import Where
from lab.hosts import CREW, RUNTIME, Host, end, ip, processes
from lab.lab import Lab
from lab.weir import RUNNER, Inside

# runc knows cgroups of one version only: in a mount namespace of its own version 2 is where it looks.
IN_CGROUPS = ("unshare", "--mount", "sh", "-c", 'mount -t cgroup2 none /sys/fs/cgroup && exec "$@"', "sh")
STATE = f"/run/{RUNTIME}-runc"
PASSWD = "root:x:0:0::/:/bin/sh\ncrew:x:{uid}:{gid}::/home:/bin/sh\n"
LINKS = ("bin", "lib", "lib64", "sbin")


@dataclass(frozen=True)
class Image:
    """What podman would have in its store, or make: directories, no programs."""

    root: Path

    @classmethod
    def make(cls, directory: Path) -> Image:
        root = directory / "image"
        for one in ("etc/ssl/certs", "proc", "sys", "dev", "tmp", "run", "usr", "home"):
            (root / one).mkdir(parents=True)
        for one in LINKS:
            (root / one).symlink_to(f"usr/{one}")
        (root / "tmp").chmod(0o1777)
        (root / "etc" / "passwd").write_text(PASSWD.format(uid=1000, gid=1000))
        (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        return cls(root)


@dataclass
class Options:
    """Of `podman run`, as far as they are understood here."""

    cgroup_parent: str = ""
    network: str = ""                 # none, or ns:PATH
    user: str = "0:0"
    rights: tuple[str, ...] = ("CAP_CHOWN", "CAP_NET_RAW", "CAP_SETUID", "CAP_SETGID", "CAP_NET_BIND_SERVICE")
    no_new_privileges: bool = False
    filter: dict[str, Any] | None = field(default_factory=lambda: {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mount", "kexec_load"], "action": "SCMP_ACT_ERRNO"}]})
    volumes: list[tuple[str, str, str]] = field(default_factory=list)
    env: list[str] = field(default_factory=lambda: ["PATH=/usr/bin:/bin", "LANG=C.UTF-8"])


def parse(arguments: Sequence[str]) -> Options:
    options = Options()
    for argument in arguments:
        name, _, value = argument.partition("=")
        if argument == "--cgroups=no-conmon":
            pass                      # nobody watches it here
        elif name == "--cgroup-parent":
            options.cgroup_parent = value
        elif name == "--network":
            options.network = value
        elif name == "--user":
            options.user = value
        elif (name, value) == ("--cap-drop", "all"):
            options.rights = ()
        elif name == "--cap-add":
            options.rights = (*options.rights, value)
        elif argument == "--security-opt=no-new-privileges":
            options.no_new_privileges = True
        elif argument == "--security-opt=seccomp=unconfined":
            options.filter = None
        elif argument.startswith("--security-opt=seccomp="):
            options.filter = json.loads(Path(argument.split("=", 2)[2]).read_text())
        elif name == "--volume":
            source, target, how = value.split(":")
            options.volumes.append((source, target, how))
        elif name == "--env":
            options.env.append(value)
        else:
            raise ValueError(f"podman knows it, and this does not: {argument}")
    return options


def render(image: Image, name: str, options: Options, command: Sequence[str]) -> dict[str, Any]:
    """config.json, OCI runtime specification 1.0."""
    uid, gid = map(int, options.user.split(":"))
    sets = ("bounding", "effective", "permitted") if uid == 0 else ("bounding",)
    network = {"type": "network"} | ({"path": options.network[3:]} if options.network.startswith("ns:") else {})
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "nodev", "mode=1777"]},
        {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]},
        *({"destination": target, "type": "bind", "source": source, "options": ["bind", how]}
          for source, target, how in options.volumes)]
    process: dict[str, Any] = {
        "user": {"uid": uid, "gid": gid}, "args": list(command), "env": options.env, "cwd": "/",
        "capabilities": {one: list(options.rights) for one in sets}, "noNewPrivileges": options.no_new_privileges}
    linux: dict[str, Any] = {
        "cgroupsPath": f"{options.cgroup_parent}/libpod-{name}",
        "namespaces": [*({"type": one} for one in ("pid", "ipc", "uts", "mount", "cgroup")),
                       *(() if options.network == "host" else (network,))],
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]}
    if options.filter is not None:
        linux["seccomp"] = options.filter
    return {"ociVersion": "1.0.2", "root": {"path": str(image.root)}, "process": process, "mounts": mounts,
            "linux": linux}


@dataclass(frozen=True)
class Network:
    """A bridge of the host's with two namespaces at it: a container's, and a neighbour's, who is no crew."""

    box: Host
    neighbour: Host
    four: str = "10.78.0."
    six: str = "fd78::"

    @classmethod
    @contextmanager
    def made(cls) -> Iterator[Network]:
        one = cls(Host("box", 21), Host("neighbour", 22))
        try:
            one._make()
            yield one
        finally:
            for host in (one.box, one.neighbour):
                end(processes(host.netns))
                ip(f"netns delete {host.netns}")
            ip("link delete lab-bridge", netns=CREW.netns)

    def _make(self) -> None:
        ip("link add lab-bridge type bridge forward_delay 0", "link set lab-bridge up",
           f"address add {self.four}1/24 dev lab-bridge", netns=CREW.netns)
        for host in (self.box, self.neighbour):
            port = f"p-{host.name}"
            ip(f"netns add {host.netns}")
            ip(f"link add {port} type veth peer name eth0 netns {host.netns}",
               f"link set {port} master lab-bridge up", netns=CREW.netns)
            ip("link set lo up", "link set eth0 up", f"address add {self.four}{host.number}/24 dev eth0",
               f"address add {self.six}{host.number}/64 dev eth0 nodad", f"route add default via {self.four}1",
               netns=host.netns)

    def where(self) -> Where:
        """For a technique that is tried in the box."""
        with self.neighbour.entered():
            [local] = [line.split()[0] for line in Path("/proc/thread-self/net/if_inet6").read_text().splitlines()
                       if line.startswith("fe80") and line.endswith("eth0")]
        link = str(ipaddress.IPv6Address(bytes.fromhex(local)))
        return where(self.box, host4=f"{self.four}{self.neighbour.number}", host6=f"{self.six}{self.neighbour.number}",
                     own4=f"{self.four}{self.box.number}", own6=f"{self.six}{self.box.number}", link=link)


@contextmanager
def container(lab: Lab, image: Image, name: str, *arguments: str) -> Iterator[Inside]:
    """It runs commands as long as the block does."""
    bundle = Path(tempfile.mkdtemp(prefix=f"bundle-{name}-", dir=lab.scratch))
    config = render(image, name, parse(arguments), ["/usr/bin/python3", "-c", RUNNER])
    (bundle / "config.json").write_text(json.dumps(config))
    runc = (*IN_CGROUPS, "runc", "--root", STATE)
    log = (bundle / "log").open("w")
    process = subprocess.Popen(CREW.argv([*runc, "run", "--bundle", str(bundle), name]), stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=log, text=True, cwd="/")
    made = Inside(process)
    try:
        try:              # the runtime itself may fail
            made.run_inside(["true"])
        except (RuntimeError, OSError) as reason:
            raise RuntimeError(f"{reason}: {(bundle / 'log').read_text()}") from None
        yield made
    finally:
        subprocess.run(CREW.argv([*runc, "kill", name, "KILL"]), capture_output=True)
        process.communicate()
        log.close()
        subprocess.run(CREW.argv([*runc, "delete", "--force", name]), capture_output=True)
