"""What stands around a crew and, for the control, around the same user on a host without Weir."""
from __future__ import annotations

import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from escape.attempts import CALLS, HERE, SINK, TECHNIQUES, where
from escape.sink import Caller, Sink, Wire
from lab.hosts import BRIDGE, CREW, DB, OTHER, USER, Host
from lab.lab import Lab
from lab.servers import stop
from lab.weir import PORT

from agent.techniques import Where, start_of

PYTHON = "/usr/bin/python3"
UID = "{uid}"
# Well-known sockets; a stand-in serves each, which speaks to the server.  That of nscd stands beside its place: every
# process of this machine would ask it.
DOORS = (
    "/run/dbus/system_bus_socket", "/run/user/{uid}/bus", "/run/systemd/private", "/run/docker.sock",
    "/tmp/ssh-weirtest{uid}/agent.1", "/run/screen/S-{uid}/1.test", "/run/weirtest-nscd/socket",
    "/run/systemd/resolve/io.systemd.Resolve", "/run/postgresql/.s.PGSQL.7007",
    "/tmp/weirtest.sock",
)
ABSTRACT = "weirtest-abstract"
PROGRAM = r"""
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int attempt(void) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
    struct timeval wait = {3, 0};
    char back[64];
    int s = syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
    inet_pton(AF_INET, getenv("TO"), &to.sin_addr);
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    if (syscall(SYS_connect, s, &to, sizeof to) != 0) return 1;
    if (write(s, getenv("TOKEN"), strlen(getenv("TOKEN"))) < 0) return 2;
    return read(s, back, sizeof back) > 0 ? 0 : 3;
}
"""
STATIC = PROGRAM + "int main(void) { return attempt(); }\n"
PRELOAD = PROGRAM + """
__attribute__((constructor)) static void first(void) { if (getenv("TOKEN")) _exit(attempt()); }
"""
# That it is uid 0 says little: a workload may be shown as root.  What counts is root's power over the host's files.
SUID = """
#include <fcntl.h>
#include <unistd.h>
int main(void) { return setuid(0) == 0 && getuid() == 0 && open("/etc/shadow", O_RDONLY) >= 0 ? 0 : 1; }
"""


class Server:
    """Everything whose word is the verdict."""

    def __init__(self, stack: ExitStack) -> None:
        self._witnesses: list[Sink | Wire | Caller] = []
        for host, ports in ((CREW, [SINK]), (OTHER, [SINK, PORT]), (DB, [SINK])):
            with host.entered():
                self._witnesses += [stack.enter_context(Sink(port)) for port in ports]
        with DB.entered():
            self._wire = stack.enter_context(Wire())
            caller = Caller([CREW.ipv4, OTHER.ipv4], [CALLS, CALLS + 1])
            self._witnesses += [self._wire, stack.enter_context(caller)]

    def saw(self, token: str) -> bool:
        return any(witness.saw(token) for witness in self._witnesses)

    def saw_bytes(self, some: bytes) -> bool:
        """On the wire."""
        return any(some in frame for frame in list(self._wire.seen))

    def saw_port(self, port: int) -> bool:
        return port in self._wire.ports


@contextmanager
def server() -> Iterator[Server]:
    """The database's host takes part in what a hostile neighbour would do: it answers for loopback addresses, follows
    source routes, is a router of segments."""
    for name in ("ipv4/conf/all/accept_source_route", "ipv4/conf/eth0/accept_source_route",
                 "ipv4/conf/all/route_localnet", "ipv4/conf/eth0/route_localnet",
                 "ipv6/conf/all/seg6_enabled", "ipv6/conf/eth0/seg6_enabled"):
        DB.run(["sysctl", "-qw", f"net/{name}=1"])
    subprocess.run(["ip", "-n", BRIDGE, "link", "set", "lab", "type", "bridge", "mcast_snooping", "0"], check=True)
    for host in (CREW, OTHER):        # as desktop distributions have it
        host.run(["sysctl", "-qw", "net/ipv4/ping_group_range=0 2147483647"])
    with ExitStack() as stack:
        yield Server(stack)


@contextmanager
def surroundings(lab: Lab) -> Iterator[dict[str, Where]]:
    """Host name -> what to tell an attempt that is made there."""
    uid = pwd.getpwnam(USER).pw_uid
    link = DB.run(["ip", "-6", "-o", "address", "show", "dev", "eth0", "scope", "link"]).stdout.split()[3].split("/")[0]
    lab.give(TECHNIQUES)
    _programs(lab)
    places = [place for door in DOORS if not _answers(place := door.format(uid=uid))]
    made: dict[str, Where] = {}
    with ExitStack() as stack:
        for host in (CREW, OTHER):
            door, handing, terminal = (f"{lab.home}/{name}-{host.name}" for name in ("door", "handing", "terminal"))
            stack.callback(_forget, terminal, places if host == CREW else [])
            _start(stack, host, "", "relay", DB.ipv4, str(SINK), f"@{ABSTRACT}", *(places if host == CREW else []))
            _start(stack, host, USER, "relay", DB.ipv4, str(SINK), door)
            pid, held, memory = _start(stack, host, USER, "bystander", DB.ipv4, str(SINK), handing, str(CALLS)).split()
            host.run(["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "tmux", "-S", terminal, "-f",
                      "/dev/null", "new-session", "-d"], check=True, cwd=lab.home, env=lab.client_environment())
            stack.callback(subprocess.run, ["tmux", "-S", terminal, "kill-server"], capture_output=True)
            made[host.name] = where(host, link=link, bystander=int(pid), began=start_of(int(pid)), held=int(held),
                                    memory=int(memory), handing=handing, door=door, abstract=ABSTRACT,
                                    terminal=terminal)
        yield made


def _programs(lab: Lab) -> None:
    for name, source, options in (("static", STATIC, ["-static"]), ("preload.so", PRELOAD, ["-shared", "-fPIC"]),
                                  ("suid", SUID, [])):
        (lab.home / f"{name}.c").write_text(source)
        subprocess.run(["gcc", "-O1", *options, "-o", lab.home / name, lab.home / f"{name}.c"], check=True)
    (lab.home / "suid").chmod(0o4755)


def _start(stack: ExitStack, host: Host, user: str, *words: str) -> str:
    """One of outside.py; its first line."""
    as_user = ["--reuid", user, "--regid", user, "--init-groups"] if user else []
    process = subprocess.Popen(
        host.argv(["setpriv", *as_user, "--pdeathsig", "KILL", "--", PYTHON, "-I", "-c",
                   (HERE / "outside.py").read_text(), *words]),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd="/")
    stack.callback(stop, process)
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"outside.py {words} did not start")
    return line


def _answers(place: str) -> bool:
    """A service of this machine: it is left alone."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(place) == 0


def _forget(terminal: str, places: list[str]) -> None:
    for path in (terminal, *places):
        Path(path).unlink(missing_ok=True)
        with_parent = Path(path).parent
        if with_parent.name.startswith(("ssh-weirtest", "S-", "weirtest-")):
            shutil.rmtree(with_parent, ignore_errors=True)
