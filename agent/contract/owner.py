"""Who opened a connection, as the kernel saw it."""
from __future__ import annotations

import msgspec


class Process(msgspec.Struct, frozen=True):
    """The process that called connect(2).  Fields that could not be read are empty: it had exited."""

    pid: int                          # initial pid namespace (tgid)
    exe: str = ""                     # /proc/PID/exe
    exe_sha256: str = ""              # hex; empty where it could not be read
    argv: tuple[str, ...] = ()        # bounded: 64 arguments, 4096 characters in all
    started: int = 0                  # CLOCK_BOOTTIME nanoseconds


class Owner(msgspec.Struct, frozen=True):
    """The answer to whois: attribution of one connection."""

    workload: str                     # name of the launch unit
    uid: int                          # uid that the workload runs as
    user: str                         # its name, or the number as text
    subject: str                      # who is behind it: "local:USER", or "PROVIDER:NAME" of a login
    groups: tuple[str, ...]           # of the subject
    process: Process | None           # None where only the workload is known (attribution "redirect")
    cgroup: str                       # path below the v2 root, empty if not known
    cookie: int                       # kernel socket cookie of the crew's socket, 0 if not known
    destination: str                  # original destination address, text, v4-mapped is given as IPv4
    port: int                         # original destination port
    attribution: str                  # "mark" | "cgroup" | "redirect"; the enforcer's own word: "tunnel"
    target: str = ""                  # name of the registered target that this address and port belong to, or ""
    egress: str = ""                  # name of the [[egress]] entry that permits it, or ""
    names: tuple[str, ...] = ()       # of [[egress]] entries, for which Weir's resolver gave this address
    listed: bool = False              # an [[egress]] entry has this very address
    others: tuple[str, ...] = ()      # of the other family, given for every one of `names`
    login: str = ""                   # that says so; when it ends, so does the session
    nobody: str = ""                  # why nobody is behind it: then nothing is permitted, and `subject` is empty
    local: bool = False               # by a Unix socket: `destination` is its path, and no hook saw a connect
    stamp: int = 0                    # who is behind it and in which groups, as a number; 0: not known (PutInForce)
