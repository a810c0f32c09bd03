"""Pure: who may start which workload as whom, and what the command is given.

`resolve_run` is the one decision behind `weir run`: a Launch, or the text of a refusal.
"""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from agent.contract.control import Run
from agent.credential.trust import Trust, binds_for
from agent.kubernetes.clusters import kubeconfig_binds, named, service_binds
from agent.workload.launch import HOST, PRIVATE, Launch
from agent.workload.view import Bind, View, shows

REFUSED: Final = 125
_ARGUMENTS: Final = 1 << 21           # bytes of argv and env in all: the default limit of execve(2), ARG_MAX
_VARIABLES: Final = 4096

# What changes how the C library itself loads and looks things up (glibc, sysdeps/generic/unsecvars.h).  A variable that
# a crew left in its user's profile must not reach the programs that build the sandbox, and none of them is a client's.
# LD_LIBRARY_PATH is: it is given to the command only (agent/workload/launcher.py).
_LOADER: Final = frozenset({
    b"GCONV_PATH", b"GETCONF_DIR", b"GLIBC_TUNABLES", b"HOSTALIASES", b"LOCALDOMAIN", b"LOCPATH", b"MALLOC_TRACE",
    b"NIS_PATH", b"NLSPATH", b"RESOLV_HOST_CONF", b"RES_OPTIONS",
})
# Sockets that are not in the view; a client that finds the name would wait for them or complain.
_SOCKETS: Final = frozenset({
    b"SSH_AUTH_SOCK", b"SSH_AGENT_PID", b"GPG_AGENT_INFO", b"XDG_RUNTIME_DIR", b"DBUS_SESSION_BUS_ADDRESS",
    b"DBUS_SYSTEM_BUS_ADDRESS", b"NOTIFY_SOCKET", b"LISTEN_FDS", b"LISTEN_PID", b"LISTEN_FDNAMES",
})
# Each *replaces* the client's roots by the named file, so each names system roots and Weir's authorities together.
# PGSSLROOTCERT is not among them, on purpose: to libpq a root file that exists, however named, turns `require` and even
# `prefer` into verification (fe-secure-openssl.c, initialize_SSL), and it would hide ~/.postgresql/root.crt.  A client
# that names a root file, or has that one, finds Weir's authority added to it; one that has none is left as it was.
TRUST_VARIABLES: Final = (
    b"SSL_CERT_FILE",                 # OpenSSL, Go, Ruby, rustls-native-certs, httpx
    b"REQUESTS_CA_BUNDLE", b"CURL_CA_BUNDLE", b"AWS_CA_BUNDLE", b"GIT_SSL_CAINFO", b"PIP_CERT", b"HTTPLIB2_CA_CERTS",
    b"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", b"CARGO_HTTP_CAINFO", b"DENO_CERT",
    b"NODE_EXTRA_CA_CERTS",           # adds to Node's own roots
)


class Workload(Protocol):
    """A [[workload]] of the configuration."""

    @property
    def name(self) -> str: ...
    @property
    def users(self) -> tuple[str, ...]: ...
    @property
    def directories(self) -> tuple[str, ...]: ...
    @property
    def read_only(self) -> tuple[str, ...]: ...
    @property
    def root(self) -> bool: ...
    @property
    def network(self) -> str: ...


@dataclass(frozen=True)
class Account:
    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]           # supplementary
    home: str
    shell: str = "/bin/sh"


@dataclass(frozen=True)
class Surroundings:
    """What the agent adds to a request."""

    number: int
    owner: int
    cgroup: str                       # absolute path of the child to be made
    hidden: tuple[str, ...]           # /etc/weir, /run/NAME, /var/lib/NAME
    withheld: frozenset[int]          # gids that no workload is given: Weir's own groups
    trust: Trust
    resolv: str = ""                  # file that shows as /etc/resolv.conf
    hosts: str = ""                   # file that shows as /etc/hosts
    socket_directory: str = ""        # of Weir's own Unix sockets
    sockets: tuple[tuple[str, str], ...] = ()       # path in the view, name in the directory
    real_sockets: tuple[str, ...] = ()              # of targets on the host: nothing may show what is there


@dataclass(frozen=True)
class Refusal:
    text: str
    code: int = REFUSED


def resolve_run(
    request: Run, workload: Workload | None, caller: Account, named: Account | None, around: Surroundings,
) -> Launch | Refusal:
    """`caller` by the kernel's word, with its supplementary groups (SO_PEERCRED, SO_PEERGROUPS); `named` is the account
    of `request.user`, None where there is none of that name."""
    if request.user and named is None:
        return Refusal(f"there is no user {request.user!r}")
    refusal = _malformed(request) or _unpermitted(request, workload, caller, named)
    if refusal:
        return Refusal(refusal)
    assert workload is not None
    account = named or caller
    view = _view(workload, account, around, request.env, request.cwd)
    if seen := shown_socket(workload.name, around.real_sockets, lambda path: shows(view, path)):
        return Refusal(seen)
    cwd = request.cwd
    if account.uid != caller.uid and not shows(view, os.fsdecode(cwd)):
        cwd = os.fsencode(account.home)     # root's own directory is nothing that another user could start in
    return Launch(
        number=around.number, workload=workload.name, argv=request.argv,
        env=environment(request.env, account, caller, around.trust), cwd=cwd, uid=account.uid, gid=account.gid,
        groups=tuple(group for group in account.groups if group > 0 and group not in around.withheld),
        tty=request.tty, rows=request.rows, columns=request.columns, owner=around.owner, cgroup=around.cgroup,
        view=view, root=workload.root, network=request.network or workload.network)


def shown_socket(workload: str, sockets: Iterable[str], shown: Callable[[str], bool]) -> str:
    """Why a workload that sees one of these, databases' own, is refused; empty: it sees none."""
    found = next(filter(shown, sockets), "")
    return found and (f"workload {workload} would see {found}, a registered target's own socket: take its directory "
                      "out of `directories` and `read_only`")


def environment(env: dict[bytes, bytes], account: Account, caller: Account, trust: Trust) -> dict[bytes, bytes]:
    """The caller's, without what only the host can use, with Weir's trust; as login(1) where the user is another."""
    given = {name: value for name, value in env.items()
             if name not in _LOADER and name not in _SOCKETS
             and (not name.startswith(b"LD_") or name == b"LD_LIBRARY_PATH")}
    if account.uid != caller.uid:
        given = {name: value for name, value in given.items() if not name.startswith((b"SUDO_", b"XDG_"))}
        name = os.fsencode(account.name)
        given |= {b"HOME": os.fsencode(account.home), b"USER": name, b"LOGNAME": name,
                  b"SHELL": os.fsencode(account.shell)}
        given.pop(b"MAIL", None)
    if trust.bundle:
        given = {name: os.fsencode(trust.inside) for name in TRUST_VARIABLES} | given
    return given


def _malformed(request: Run) -> str:
    size = sum(map(len, request.argv)) + sum(len(name) + len(value) + 2 for name, value in request.env.items())
    if not request.argv or not request.argv[0]:
        return "no command"
    if size > _ARGUMENTS or len(request.env) > _VARIABLES:
        return "arguments and environment are longer than two megabytes, or more than 4096 variables"
    if any(b"\0" in text for text in (*request.argv, *request.env, *request.env.values(), request.cwd)):
        return "an argument or a variable holds a zero byte"
    if any(not name or b"=" in name for name in request.env) or not request.cwd.startswith(b"/"):
        return "a variable without a name, or a directory that is not absolute"
    if request.network not in ("", PRIVATE, HOST):
        return f"there is no network {request.network!r}"
    return ""


def _unpermitted(request: Run, workload: Workload | None, caller: Account, named: Account | None) -> str:
    if workload is None:
        return f"there is no workload {request.workload!r}"
    if caller.uid == 0 and named is None:
        return "a workload never runs as root: name an unprivileged user with --user"
    if caller.uid != 0 and named is not None and named.uid != caller.uid:
        return "only root may name another user"
    account = named or caller
    if account.uid == 0 or account.gid == 0:
        return f"a workload never runs as root, and {account.name} has uid or gid 0"
    if not account.home.startswith("/") or not account.home.isprintable():
        return f"the home directory of {account.name} is not an absolute, printable path"
    if account.name not in workload.users:
        return f"{account.name} is not among the `users` of workload {workload.name}"
    if request.network == HOST and workload.network != HOST and caller.uid != 0:
        return f"workload {workload.name} has a network of its own: only root may start it in the host's"
    return ""


def _view(
    workload: Workload, account: Account, around: Surroundings, env: dict[bytes, bytes], cwd: bytes,
) -> View:
    binds = list(binds_for(workload.name, account.home, around.trust))
    binds += [Bind(around.trust.authorities, path, append=True) for path in _own_roots(env, account.home, around.trust)]
    binds += kubeconfig_binds(named(env, cwd), around.trust.clusters)
    binds += service_binds(env, around.trust.authorities, around.trust.clusters)
    if around.resolv:
        binds.append(Bind(around.resolv, "/etc/resolv.conf", absent="make"))
    if around.hosts:
        binds.append(Bind(around.hosts, "/etc/hosts", absent="make"))
    return View(
        home=account.home, writable=expand(workload.directories, account.home),
        readable=expand(workload.read_only, account.home), hidden=(*around.hidden, *around.real_sockets),
        binds=tuple(dict.fromkeys(binds)), socket_directory=around.socket_directory, sockets=around.sockets)


def _own_roots(env: dict[bytes, bytes], home: str, trust: Trust) -> Iterable[str]:
    """Root files that the caller's environment chose: they stay, with Weir's authorities added in the view."""
    if not trust.authorities:
        return
    for name in (*TRUST_VARIABLES, b"PGSSLROOTCERT"):
        path = os.fsdecode(env.get(name, b""))
        if path.startswith("/") and path != trust.inside and path.isprintable():
            yield path


def expand(paths: tuple[str, ...], home: str) -> tuple[str, ...]:
    """`~` is the workload's user's home."""
    full = (home.rstrip("/") + path[1:] if path == "~" or path.startswith("~/") else path for path in paths)
    return tuple(dict.fromkeys(os.path.normpath(path) for path in full if path.startswith("/")))
