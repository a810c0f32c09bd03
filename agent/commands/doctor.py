"""`weir doctor`: whether this host has what Weir needs, and what to do where it does not.  It changes nothing."""
from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import pwd
import shutil
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from agent import procfs
from agent.block import sockdiag
from agent.config import DNS_PORT, Config
from agent.confined.view import NO_VIEW
from agent.layout import CGROUPS, USERS, LayoutError, cgroup_root, find_account, find_accounts
from agent.settings.host_table import LISTEN
from agent.status import said_of_nobody
from agent.workload import landlock, sharing
from probes import abi, lsm

OLDEST: Final = (6, 1)                # Debian 12
DISK: Final = 1 << 30                 # bytes that should be free below /var/lib
KUBERNETES: Final = frozenset(("kubelet", "k3s", "k3s-server", "k3s-agent", "kubelite", "k0s"))     # proc(5), comm
RESTRICTED: Final = "kernel/apparmor_restrict_unprivileged_userns"      # Ubuntu 23.10 and later
PROFILES: Final = Path("/sys/kernel/security/apparmor/profiles")        # "NAME (MODE)" a line; root reads it
OK, WARN, FAIL = "ok", "warn", "fail"
_STA_UNSYNC: Final = 0x0040           # adjtimex(2)
_TIMEX_WORDS: Final = 64              # of 4 bytes: more than struct timex has
_STATUS_WORD: Final = 10              # modes, (pad), offset, freq, maxerror, esterror, status: 64-bit longs


class Finding(msgspec.Struct, frozen=True):
    name: str
    state: str                        # ok | warn | fail
    found: str
    advice: str = ""


def examine(config: Config | None) -> tuple[Finding, ...]:
    """Every check; none raises."""
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("kernel", kernel), ("architecture", architecture), ("btf", btf), ("cgroups", cgroups), ("bpf", bpf),
        ("bcc", bcc), ("headers", headers), ("libbpf", lambda: library("libbpf.so.1", "libbpf1")),
        ("nftables", nftables),
        ("bubblewrap", lambda: program("bwrap", "bubblewrap")),
        ("libseccomp", libseccomp), ("landlock", scopes), ("BPF LSM", bpf_lsm),
        ("user namespaces", user_namespaces), ("ipv6", ipv6), ("clock", clock), ("disk", lambda: disk(config)),
        ("users", lambda: users(config)), ("units", lambda: units(config)), ("workloads", lambda: workloads(config)),
        ("page", lambda: page(config)),
        ("socket diagnosis", diagnosis), ("resolver", lambda: resolver(config)), ("other tools", other_tools),
        ("pods", pods),
    ]
    return tuple(_guarded(name, check) for name, check in checks)


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return msgspec.structs.replace(check(), name=name)
    except Exception as reason:       # a check that fails is a finding, not an end
        return Finding(name, WARN, f"could not be looked at: {reason}")


def kernel() -> Finding:
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        return Finding("", FAIL, release, f"Weir needs Linux {OLDEST[0]}.{OLDEST[1]} or later")
    return Finding("", OK, release)


def architecture() -> Finding:
    machine = platform.machine()
    known = machine in ("x86_64", "aarch64")
    return Finding("", OK if known else FAIL, machine, "" if known else "x86_64 and aarch64 are known")


def btf() -> Finding:
    if Path("/sys/kernel/btf/vmlinux").exists():
        return Finding("", OK, "the kernel describes its types")
    return Finding("", WARN, "no /sys/kernel/btf/vmlinux", "not needed yet; a distribution's kernel has it")


def cgroups() -> Finding:
    try:
        path = cgroup_root()
    except LayoutError as reason:
        return Finding("", FAIL, str(reason), "or boot with systemd.unified_cgroup_hierarchy=1")
    return Finding("", OK, f"version 2 at {path}" + (" (hybrid)" if path != CGROUPS[0] else ""))


def bpf() -> Finding:
    types = Path("/proc/filesystems").read_text().split()
    if "bpf" not in types:
        return Finding("", FAIL, "the kernel has no bpf file system", "a kernel with CONFIG_BPF_SYSCALL")
    tracing = Path("/sys/kernel/tracing").is_dir() or Path("/sys/kernel/debug").is_dir() or "tracefs" in types
    if not tracing:
        return Finding("", FAIL, "no tracefs", "a kernel with CONFIG_FTRACE: the task_newtask tracepoint is needed")
    return Finding("", OK, "bpf and tracefs are there")


def bcc() -> Finding:
    if importlib.util.find_spec("bcc") is None:
        return Finding("", FAIL, "this Python does not find bcc", "apt-get install python3-bpfcc, and an environment "
                       "made with --system-site-packages of /usr/bin/python3")
    return Finding("", OK, "python3-bpfcc")


def headers() -> Finding:
    build = Path("/lib/modules", platform.release(), "build")
    if build.exists():
        return Finding("", OK, f"of this kernel, at {build}")
    others = sorted(one.parents[2] for one in Path("/usr/src").glob("linux-headers-*/include/linux/kconfig.h"))
    if others:
        return Finding("", OK, f"of another kernel, {others[-1].name}; only stable interfaces are used")
    return Finding("", FAIL, "no kernel headers",
                   "apt-get install linux-headers-amd64, on Ubuntu linux-headers-generic (any version will do)")


def library(name: str, package: str) -> Finding:
    try:
        ctypes.CDLL(name)
    except OSError:
        return Finding("", FAIL, f"no {name}", f"apt-get install {package}")
    return Finding("", OK, name)


def program(name: str, package: str) -> Finding:
    path = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    return Finding("", OK, path) if path else Finding("", FAIL, f"no {name}", f"apt-get install {package}")


def nftables() -> Finding:
    if importlib.util.find_spec("nftables") is None:
        return Finding("", FAIL, "this Python does not find nftables", "apt-get install python3-nftables")
    found = library("libnftables.so.1", "libnftables1")
    if found.state != OK:
        return found
    return program("nft", "nftables")


def libseccomp() -> Finding:
    if importlib.util.find_spec("seccomp") is None:
        return Finding("", FAIL, "this Python does not find seccomp", "apt-get install python3-seccomp")
    return library("libseccomp.so.2", "libseccomp2")


def bpf_lsm() -> Finding:
    """Optional: no reason to warn."""
    why = lsm.absent()
    return Finding("", OK, f"not there: {why}" if why else "there; weir status says what it took")


def scopes() -> Finding:
    version = landlock.version()
    if not version:
        return Finding("", WARN, NO_VIEW, "Linux 6.12 or later, with landlock in its `lsm=`")
    if version < landlock.SCOPES and not lsm.absent():
        return Finding("", OK, f"ABI {version}: no scopes; BPF LSM closes abstract Unix sockets instead")
    if version < landlock.SCOPES:
        return Finding("", WARN, f"ABI {version}: no scopes", "Linux 6.12 or later, with landlock in its `lsm=`, "
                       "or BPF LSM: without either a workload in the host's network reaches its abstract Unix sockets "
                       "(ss -xl shows them with an @)")
    return Finding("", OK, f"ABI {version}, with scopes")


def user_namespaces(sysctls: Path = Path("/proc/sys"), profiles: Path = PROFILES) -> Finding:
    for name in ("user/max_user_namespaces", "kernel/unprivileged_userns_clone"):
        path = sysctls / name
        if path.exists() and path.read_text().strip() == "0":
            return Finding("", FAIL, f"{name} is 0", f"sysctl -w {name.replace('/', '.')}=1 (a larger number for the "
                           "first): bubblewrap needs them")
    restricted = sysctls / RESTRICTED
    if restricted.exists() and restricted.read_text().strip() != "0" and not _has_profile(profiles):
        return Finding("", FAIL, f"{RESTRICTED} keeps them from programs without a profile, and Weir's is not loaded",
                       "install -m 644 /usr/share/weir/weir.apparmor /etc/apparmor.d/weir (packaging/apparmor/weir of "
                       "a clone), apparmor_parser -r /etc/apparmor.d/weir, systemctl restart weir-agent: bubblewrap "
                       "needs them")
    return Finding("", OK, "may be made")


def _has_profile(profiles: Path) -> bool:
    """weir-agent.service names it."""
    return any(line.partition(" ")[0] == "weir" for line in profiles.read_text().splitlines())


def ipv6() -> Finding:
    if Path("/proc/net/if_inet6").exists():
        return Finding("", OK, "there, and contained like IPv4")
    return Finding("", OK, "not there")


def clock() -> Finding:
    """adjtimex(2) with modes 0 only reads."""
    buffer = (ctypes.c_uint32 * _TIMEX_WORDS)()
    libc = ctypes.CDLL(None, use_errno=True)
    state = libc.adjtimex(buffer)
    if state < 0:
        return Finding("", WARN, os.strerror(ctypes.get_errno()))
    if buffer[_STATUS_WORD] & _STA_UNSYNC:
        return Finding("", WARN, "not synchronised", "run chrony or systemd-timesyncd: auditors compare times; order "
                       "is kept without it")
    return Finding("", OK, "synchronised")


def disk(config: Config | None) -> Finding:
    path = config.state if config else Path("/var/lib")
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    wanted = DISK + (config.recording.reserve if config else 0)
    if free < wanted:
        return Finding("", WARN, f"{free >> 20} MiB free at {path}", f"{wanted >> 20} MiB would be good: when the "
                       "reserve is reached, operations are refused")
    return Finding("", OK, f"{free >> 20} MiB free at {path}")


def page(config: Config | None) -> Finding:
    if config is None or config.web.url is None:
        return Finding("", OK, "none: [web] has no url")
    listen = config.web.listen
    where = f"{config.web.url}, served at {f'{listen[0]} port {listen[1]}' if listen else config.web_socket}"
    if not config.logins:
        return Finding("", WARN, where, said_of_nobody(config.web.url))
    if listen and not _answers(config.control):
        places = {abi.packed(one) for one in (listen[0], "0.0.0.0", "::")}     # noqa: S104
        if any(one.local in places and not one.remote_port
               for one in sockdiag.tcp_sockets(listen[1], listening=True)):
            return Finding("", WARN, where, "another program listens there (ss -ltnp shows which it is): give [web] "
                           "listen another port")
    return Finding("", OK, where)


def users(config: Config | None) -> Finding:
    if config is None:
        missing = [name for name in USERS if find_account(name) is None]
        if missing:
            return Finding("", FAIL, f"no user {' and '.join(missing)}",
                           "Weir's package, or ./bootstrap install, makes them")
        return Finding("", OK, ", ".join(USERS))
    try:
        accounts = find_accounts(config)
    except LayoutError as reason:
        return Finding("", FAIL, str(reason))
    if len({0, accounts.weir.pw_uid, accounts.audit.pw_uid}) < 3:
        return Finding("", FAIL, "enforcer and recorder share a uid, or are root", "two unprivileged users")
    return Finding("", OK, f"{accounts.weir.pw_name}, {accounts.audit.pw_name}")


def units(config: Config | None) -> Finding:
    """Those that are workloads."""
    wanted = [one.unit for one in config.workloads if one.unit] if config else []
    if not Path("/run/systemd/system").is_dir():
        advice = "weir run starts workloads" if wanted else ""
        return Finding("", FAIL if wanted else OK, "systemd does not run this host", advice)
    from agent.unit.adopt import state_of_units

    if config is not None and (found := list(state_of_units(config))):
        return Finding("", WARN, "; ".join(found), "weir adopt UNIT")
    return Finding("", OK, ", ".join(wanted) if wanted else "none is a workload")


def workloads(config: Config | None) -> Finding:
    """What `weir run` would call degraded, were they started now by somebody else."""
    if config is None or not config.workloads:
        return Finding("", OK, "none is configured")
    found, slice_ = [], config.runtime.name
    for workload in config.workloads:
        for user in workload.users:
            with suppress(KeyError):
                names = sharing.processes_of(pwd.getpwnam(user).pw_uid, lambda pid: _in_slice(pid, slice_))
                found += [f"{workload.name}: {weak}" for weak in (
                    *sharing.uid_shared(user, names), *sharing.configured(config, workload, user),
                    *sharing.writable(workload, user))]
    if found:
        return Finding("", WARN, f"degraded: {'; '.join(found)}", "no layer sees what others of the same "
                       "user, or in the same directories, do for a crew")
    return Finding("", OK, "users and directories of their own")


def _in_slice(pid: int, name: str) -> bool:
    """By its cgroup."""
    return any(line.startswith(f"0::/{name}.slice") for line in procfs.read_lines(pid, "cgroup"))


def diagnosis() -> Finding:
    """sock_diag(7) for TCP and UDP: by it connections and questions to the resolver are attributed."""
    missing = []
    for name, ask in (("tcp_diag", sockdiag.tcp_sockets), ("udp_diag", sockdiag.udp_sockets)):
        try:
            ask(DNS_PORT)
        except OSError:
            missing.append(name)
    if missing:
        return Finding("", FAIL, f"no {' and '.join(missing)}", f"modprobe {' '.join(missing)}, or a kernel with "
                       "CONFIG_INET_DIAG and CONFIG_INET_UDP_DIAG")
    return Finding("", OK, "TCP and UDP")


def resolver(config: Config | None) -> Finding:
    """Whether the agent could listen where crews ask."""
    address = config.dns.listen if config else LISTEN
    if config and _answers(config.control):
        return Finding("", OK, f"{address} port {DNS_PORT}: the agent runs")
    places = {abi.packed(one) for one in (address, "0.0.0.0", "::")}           # noqa: S104
    taken = [one for one in (*sockdiag.tcp_sockets(DNS_PORT, listening=True), *sockdiag.udp_sockets(DNS_PORT))
             if one.local_port == DNS_PORT and one.local in places]
    if taken:
        shown = ", ".join(sorted({abi.unpacked(one.local) for one in taken}))
        return Finding("", FAIL, f"a DNS server has port {DNS_PORT} of {shown}, and Weir's needs {address}",
                       "let it listen on its own addresses only (ss -lunp shows which it is), or set [dns] listen to "
                       "another of 127.0.0.0/8")
    return Finding("", OK, f"{address} port {DNS_PORT} is free")


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as one:
        return one.connect_ex(str(path)) == 0


def pods() -> Finding:
    names = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            names.add(procfs.read_shown(pid, "comm").strip())
    if found := sorted(names & KUBERNETES):
        return Finding("", WARN, f"Kubernetes runs here ({', '.join(found)})", "pods are not supported yet: what runs "
                       "in them is not contained")
    return Finding("", OK, "no Kubernetes here")


def other_tools() -> Finding:
    """What also takes hold of connections or of the rules."""
    try:
        listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, timeout=10,
                                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}).stdout
    except (OSError, subprocess.SubprocessError):
        listed = ""
    found = [name for name in ("firewalld", "istio", "cilium", "tailscale") if name in listed]
    found += [name for name, path in (("Cilium", "/sys/fs/bpf/cilium"), ("Tetragon", "/sys/fs/bpf/tetragon"),
                                      ("Docker", "/run/docker.sock")) if Path(path).exists()]
    if found:
        return Finding("", WARN, ", ".join(found), "they may reorder rules or attach hooks of their own: weir status "
                       "says whether Weir's are in place; containers have namespaces that this Weir does not contain")
    return Finding("", OK, "none that gets in the way")
