"""By somebody else's hand: services of the host, sockets that others made, files that others run."""
from __future__ import annotations

import array
import contextlib
import os
import socket
import subprocess
import time

from .common import WAIT, Where, called, collected, first, libc, say, was_the_bystander

COOKIE = 57                           # SO_COOKIE, asm-generic/socket.h


def _by(token: bytes, address: str | bytes) -> None:
    """A service that does for others what they may not."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(WAIT)
        s.connect(address)
        say(s, token)


def system_bus(token: bytes, to: Where) -> None:
    """systemd-run, and every service that is started by a message."""
    _by(token, "/run/dbus/system_bus_socket")


def message_bus(token: bytes, to: Where) -> None:
    """The system's real bus answers whoever asks."""
    _run("/usr/bin/busctl", "--system", "--timeout=20", "list")


def systemd_run(token: bytes, to: Where) -> None:
    """systemd itself starts what it is told, outside."""
    _run("/usr/bin/systemd-run", "--system", "--quiet", "--wait", "--collect", "/bin/true")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT * 10, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise OSError(done.stderr.strip() or done.returncode)


def session_bus(token: bytes, to: Where) -> None:
    _by(token, f"/run/user/{os.getuid()}/bus")


def systemd_private(token: bytes, to: Where) -> None:
    first([lambda: _by(token, "/run/systemd/private"), lambda: _by(token, f"/run/user/{os.getuid()}/systemd/private")])


def docker(token: bytes, to: Where) -> None:
    first([lambda: _by(token, "/run/docker.sock"), lambda: _by(token, "/var/run/docker.sock")])


def ssh_agent(token: bytes, to: Where) -> None:
    _by(token, f"/tmp/ssh-weirtest{os.getuid()}/agent.1")


def screen(token: bytes, to: Where) -> None:
    _by(token, f"/run/screen/S-{os.getuid()}/1.test")


def name_service_cache(token: bytes, to: Where) -> None:
    """nscd resolves for whoever asks, over its own sockets."""
    first([lambda place=place: _by(token, place) for place in  # type: ignore[misc]
           ("/run/nscd/socket", "/var/run/nscd/socket", "/run/weirtest-nscd/socket")])


def resolve_service(token: bytes, to: Where) -> None:
    """nss-resolve: systemd-resolved over varlink."""
    _by(token, "/run/systemd/resolve/io.systemd.Resolve")


def local_database(token: bytes, to: Where) -> None:
    _by(token, "/run/postgresql/.s.PGSQL.7007")


def temporary_directory(token: bytes, to: Where) -> None:
    """Of some other program."""
    first([lambda: _by(token, "/tmp/weirtest.sock"), lambda: _by(token, "/var/tmp/weirtest.sock")])


def abstract(token: bytes, to: Where) -> None:
    """The name belongs to the network namespace, not to the files."""
    _by(token, b"\0" + to.abstract.encode())


def shared_directory(token: bytes, to: Where) -> None:
    """A socket in the workload's own directory, which a process of the same user outside serves."""
    _by(token, to.door)


def tmux(token: bytes, to: Where) -> None:
    """A real server outside runs what it is told."""
    command = f"exec /usr/bin/python3 -m techniques plain-ipv4 {token.decode()} {' '.join(to.words())}"
    done = subprocess.run(["/usr/bin/tmux", "-S", to.terminal, "run-shell", command], capture_output=True, text=True,
                          timeout=WAIT * 3)
    if done.returncode != 0:
        raise OSError(done.stderr)
    print(done.stdout, flush=True)


def scheduled(token: bytes, to: Where) -> None:
    """cron and at: what is in the spool is run outside, as the same user."""
    found = []
    for place in ("/var/spool/cron/crontabs", "/var/spool/cron/atjobs", "/etc/cron.d"):
        if os.access(place, os.W_OK | os.X_OK):
            found.append(place)
    if not found:
        raise OSError("none of the spools")
    print(found, flush=True)


# sockets that others made

def _ask(to: Where, word: bytes, give: int = -1) -> tuple[bytes, list[int]]:
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(WAIT)
        s.connect(to.handing)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [give]))] if give >= 0 else []
        s.sendmsg([word + b"\n"], ancillary)
        said, descriptors, _, _ = socket.recv_fds(s, 4096, 1)
        return said, descriptors


def _name(s: socket.socket) -> None:
    """By the kernel's cookie, which whoever finds the socket tells as well."""
    print(f"cookie {int.from_bytes(s.getsockopt(socket.SOL_SOCKET, COOKIE, 8), 'little'):x}", flush=True)


def _use(s: socket.socket, token: bytes, times: int) -> None:
    """As whoever has use for it does: once and again."""
    _name(s)
    s.settimeout(WAIT)
    say(s, token)
    for _ in range(times):
        time.sleep(0.1)
        try:
            say(s, token)
        except OSError as error:
            print(error, flush=True)
            return


def handed_connected(token: bytes, to: Where) -> None:
    """SCM_RIGHTS of a connection that a process outside has opened."""
    with socket.socket(fileno=_ask(to, b"connected")[1][0]) as s:
        _use(s, token, to.times)


def handed_datagram_connected(token: bytes, to: Where) -> None:
    with socket.socket(fileno=_ask(to, b"datagram-connected")[1][0]) as s:
        _use(s, token, to.times)


def handed_unconnected(token: bytes, to: Where) -> None:
    """Made outside, connected here."""
    with socket.socket(fileno=_ask(to, b"unconnected")[1][0]) as s:
        s.settimeout(WAIT)
        s.connect((to.host4, to.port))
        say(s, token)


def handed_datagram(token: bytes, to: Where) -> None:
    with socket.socket(fileno=_ask(to, b"datagram")[1][0]) as s:
        s.settimeout(WAIT)
        s.sendto(token, (to.host4, to.port))
        if token not in s.recv(4096):
            raise OSError("no echo")


def handed_listening(token: bytes, to: Where) -> None:
    """A listener of a process outside: what it accepts was opened by the server."""
    with socket.socket(fileno=_ask(to, b"listening")[1][0]) as door:
        _name(door)
        door.settimeout(0.5)
        for _ in range(to.times // 4):        # some have waited until the server gave up
            with contextlib.suppress(OSError), door.accept()[0] as conn:
                conn.settimeout(WAIT)
                say(conn, token)
                print("the server was answered", flush=True)


def connected_outside(token: bytes, to: Where) -> None:
    """Made here, connected by a process outside, used here."""
    with socket.socket() as s:
        said, _ = _ask(to, f"connect {to.host4} {to.port}".encode(), s.fileno())
        print(said, flush=True)
        s.settimeout(WAIT)
        say(s, token)


def inherited(token: bytes, to: Where) -> None:
    """Whatever was open in whoever started the workload."""
    for fd in range(3, 256):
        try:
            with socket.socket(fileno=os.dup(fd)) as s:
                if s.family == socket.AF_INET:
                    s.settimeout(WAIT)
                    return say(s, token)
        except OSError:
            continue
    raise OSError("nothing of the kind")


def wake_up(token: bytes, to: Where) -> None:
    """A signal to a process outside, by its number there."""
    os.kill(to.bystander, 0)
    was_the_bystander(to)


def pidfd_of_another(token: bytes, to: Where) -> None:
    called(libc.syscall(434, to.bystander, 0), "pidfd_open")
    was_the_bystander(to)


TECHNIQUES = collected(
    system_bus, message_bus, systemd_run, session_bus, systemd_private, docker, ssh_agent, screen, name_service_cache,
    resolve_service,
    local_database, temporary_directory, abstract, shared_directory, tmux, scheduled, handed_connected,
    handed_datagram_connected, handed_unconnected, handed_datagram, handed_listening, connected_outside, inherited,
    wake_up, pidfd_of_another)
