"""The system calls that a workload is refused, as a BPF program for bubblewrap's --seccomp; and the one way in which
filters are made here (those of Weir's own processes: agent/confined).

A list of what is denied, not of what is allowed: a crew's clients and their runtimes work unchanged.  What is here
makes sockets that the probes do not see, opens the kernel's larger attack surfaces, or makes namespaces in which the
view would not hold.  Source: libseccomp 2.5, seccomp_rule_add(3); man-pages 6.

`seccomp` is libseccomp's own Python binding (Debian: python3-seccomp), kept with the library.
"""
from __future__ import annotations

import errno
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import seccomp  # type: ignore[import-not-found,import-untyped,unused-ignore]

REFUSED: Final = (                    # EPERM, as without the capability
    "io_uring_setup", "io_uring_enter", "io_uring_register",
    "bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key",
    "mount", "umount", "umount2", "pivot_root", "chroot", "mount_setattr", "move_mount", "open_tree",
    "fsopen", "fsconfig", "fsmount", "fspick", "unshare", "setns",
    "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff",
    "acct", "quotactl", "quotactl_fd", "syslog", "open_by_handle_at", "iopl", "ioperm", "uselib", "vhangup",
    "settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "sethostname", "setdomainname", "nfsservctl",
)
_NAMESPACES: Final = (                # clone(2) flags
    0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x00000080,
)
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_FAMILIES: Final = 64                 # above AF_MAX of every kernel so far; what is larger is refused by one comparison
_STREAM, _DATAGRAM, _TYPES = 1, 2, 0xF  # SOCK_TYPE_MASK: the flags SOCK_NONBLOCK and SOCK_CLOEXEC lie above
_TCP, _UDP = 6, 17
_UNKNOWN: Final = -1                  # __NR_SCMP_ERROR; other negative numbers: not on this architecture
# TIOCSTI types into the terminal, TIOCLINUX pastes, TIOCSETD loads line disciplines.
_IOCTLS: Final = (0x5412, 0x541C, 0x5423)
# Joining a multicast group: the kernel reports its name to the neighbours, in packets that are no socket's, and so no
# layer's.  Fourteen bytes of an IPv6 group are whatever the crew likes.  Level (IPPROTO_IP, IPPROTO_IPV6), options.
# Choosing who of a group gets a connection (SO_ATTACH_REUSEPORT_CBPF, _EBPF): the probes choose as the kernel does.
# An address that is not this host's (IP_FREEBIND, IP_TRANSPARENT; IPV6_TRANSPARENT, IPV6_FREEBIND): the enforcer's
# answer would go there, on the wire.  A device (SO_BINDTODEVICE, SO_BINDTOIFINDEX): two could have the same ends.
_OPTIONS: Final = ((0, (15, 19, 35, 39, 41, 42, 46, 48)), (41, (20, 27, 42, 46, 48, 75, 78)), (1, (25, 51, 52, 62)))
_TREE: Final = 2                      # a binary tree over the numbers: eight comparisons a call, not sixty
_LOW: Final = 0xFFFFFFFF              # the kernel takes an int or unsigned int: the upper half is the caller's


@dataclass(frozen=True)
class Condition:
    argument: int
    comparison: str                   # of seccomp_rule_add(3), without SCMP_CMP_
    value: int                        # of MASKED_EQ: the mask
    other: int = 0                    # of MASKED_EQ: what is left


@dataclass(frozen=True)
class Rule:
    """The call fails with `error` where every condition holds; 0: it is let through."""

    call: str
    error: int
    conditions: tuple[Condition, ...] = ()


def rules() -> Iterator[Rule]:
    yield from (Rule(name, errno.EPERM) for name in REFUSED)
    # A filter cannot read clone3's flags in memory; libc falls back to clone.
    yield Rule("clone3", errno.ENOSYS)
    yield from (Rule("clone", errno.EPERM, (masked(0, flag, flag),)) for flag in _NAMESPACES)
    yield from (Rule("ioctl", errno.EPERM, (masked(1, _LOW, number),)) for number in _IOCTLS)
    for level, options in _OPTIONS:
        yield from (Rule("setsockopt", errno.EPERM, (masked(1, _LOW, level), masked(2, _LOW, option)))
                    for option in options)
    yield from _sockets()


def masked(argument: int, mask: int, value: int) -> Condition:
    return Condition(argument, "MASKED_EQ", mask, value)


def _sockets() -> Iterator[Rule]:
    """UNIX, INET and INET6 with TCP and UDP, NETLINK for routes: what the probes do not rewrite must not exist."""
    unknown, protocol = errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT
    yield Rule("socket", unknown, (Condition(0, "GE", _FAMILIES),))
    for family in sorted(set(range(_FAMILIES)) - {_UNIX, _INET, _INET6, _NETLINK}):
        yield Rule("socket", unknown, (Condition(0, "EQ", family),))
    # Pairs are made as sockets are, module and all, before the family is asked whether it has any: TIPC has.
    yield Rule("socketpair", unknown, (Condition(0, "NE", _UNIX),))
    yield Rule("socket", protocol, (Condition(0, "EQ", _NETLINK), Condition(2, "NE", 0)))
    for family in (_INET, _INET6):
        # With protocol 0 the type chooses: SOCK_SEQPACKET would be SCTP.
        for kind in sorted(set(range(_TYPES + 1)) - {_STREAM, _DATAGRAM}):
            yield Rule("socket", protocol, (Condition(0, "EQ", family), masked(1, _TYPES, kind)))
        yield Rule("socket", protocol, (Condition(0, "EQ", family), Condition(2, "GT", _UDP)))
        for number in sorted(set(range(1, _UDP)) - {_TCP}):
            yield Rule("socket", protocol, (Condition(0, "EQ", family), Condition(2, "EQ", number)))


def make_filter(rules: Iterable[Rule], otherwise: int = 0) -> Any:
    """libseccomp's program, to be loaded or exported; `otherwise`: the error of what no rule names, 0: let through.
    Raises OSError."""
    program = seccomp.SyscallFilter(defaction=_action(otherwise))
    # int 0x80 and x32 number their calls differently: no rule would hold for them.
    program.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    program.set_attr(seccomp.Attr.CTL_OPTIMIZE, _TREE)
    for rule in rules:
        _add(program, rule)
    return program


def render_filter() -> bytes:
    """struct sock_filter array in the order of the machine."""
    program = make_filter(rules())
    with tempfile.TemporaryFile() as file:
        program.export_bpf(file)
        file.seek(0)
        return file.read()


def render_profile() -> str:
    """The same as JSON, for the runtime of a container (--security-opt seccomp=FILE; the profiles of Docker and podman,
    which make config-linux.md of the OCI's runtime specification of it).  Foreign architectures: libseccomp's default,
    which kills."""
    calls = [{"names": [rule.call], "action": "SCMP_ACT_ERRNO", "errnoRet": rule.error, "args": [
        {"index": one.argument, "value": one.value, "valueTwo": one.other, "op": f"SCMP_CMP_{one.comparison}"}
        for one in rule.conditions]} for rule in rules() if _number(rule.call) is not None]
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls}, indent=1) + "\n"


def _action(error: int) -> Any:
    return seccomp.ERRNO(error) if error else seccomp.ALLOW


def _add(program: Any, rule: Rule) -> None:
    """What this architecture does not have is left out."""
    arguments = [seccomp.Arg(one.argument, getattr(seccomp, one.comparison), one.value, one.other)
                 for one in rule.conditions]
    if (number := _number(rule.call)) is not None:
        program.add_rule(_action(rule.error), number, *arguments)


def _number(name: str) -> int | None:
    """None: not on this architecture.  Raises OSError where the library does not know the name."""
    number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, name)
    if number == _UNKNOWN:
        raise OSError(errno.ENOSYS, f"libseccomp does not know {name}: version 2.5 or later is needed")
    return int(number) if number >= 0 else None
