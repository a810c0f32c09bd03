"""The system calls that a workload is refused, as a BPF program for bubblewrap's --seccomp.

A list of what is denied, not of what is allowed: a crew's clients and their runtimes work unchanged.  What is here
makes sockets that the probes do not see, opens the kernel's larger attack surfaces, or makes namespaces in which the
view would not hold.  Source: libseccomp 2.5, seccomp_rule_add(3); man-pages 6.

`seccomp` is libseccomp's own Python binding (Debian: python3-seccomp), kept with the library.
"""
from __future__ import annotations

import errno
import tempfile
from typing import Final

import seccomp  # type: ignore[import-not-found,import-untyped,unused-ignore]

_REFUSED: Final = (                   # EPERM, as without the capability
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
_JOINS: Final = ((0, (35, 39, 41, 42, 46, 48)), (41, (20, 27, 42, 46, 48)), (1, (51, 52)))
_TREE: Final = 2                      # a binary tree over the numbers: eight comparisons a call, not sixty
_LOW: Final = 0xFFFFFFFF              # the kernel takes an int or unsigned int: the upper half is the caller's


def render_filter() -> bytes:
    """struct sock_filter array in the order of the machine."""
    rules = seccomp.SyscallFilter(defaction=seccomp.ALLOW)
    # int 0x80 and x32 number their calls differently: no rule below would hold for them.
    rules.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    rules.set_attr(seccomp.Attr.CTL_OPTIMIZE, _TREE)
    refused = seccomp.ERRNO(errno.EPERM)
    for name in _REFUSED:
        _add(rules, refused, name)
    # A filter cannot read clone3's flags in memory; libc falls back to clone.
    _add(rules, seccomp.ERRNO(errno.ENOSYS), "clone3")
    for flag in _NAMESPACES:
        _add(rules, refused, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, flag, flag))
    for number in _IOCTLS:
        _add(rules, refused, "ioctl", seccomp.Arg(1, seccomp.MASKED_EQ, _LOW, number))
    for level, options in _JOINS:
        for option in options:
            _add(rules, refused, "setsockopt", seccomp.Arg(1, seccomp.MASKED_EQ, _LOW, level),
                 seccomp.Arg(2, seccomp.MASKED_EQ, _LOW, option))
    _sockets(rules)
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def _sockets(rules: object) -> None:
    """UNIX, INET and INET6 with TCP and UDP, NETLINK for routes: what the probes do not rewrite must not exist."""
    unknown, protocol = seccomp.ERRNO(errno.EAFNOSUPPORT), seccomp.ERRNO(errno.EPROTONOSUPPORT)
    _add(rules, unknown, "socket", seccomp.Arg(0, seccomp.GE, _FAMILIES))
    for family in set(range(_FAMILIES)) - {_UNIX, _INET, _INET6, _NETLINK}:
        _add(rules, unknown, "socket", seccomp.Arg(0, seccomp.EQ, family))
    # Pairs are made as sockets are, module and all, before the family is asked whether it has any: TIPC has.
    _add(rules, unknown, "socketpair", seccomp.Arg(0, seccomp.NE, _UNIX))
    _add(rules, protocol, "socket", seccomp.Arg(0, seccomp.EQ, _NETLINK), seccomp.Arg(2, seccomp.NE, 0))
    for family in (_INET, _INET6):
        # With protocol 0 the type chooses: SOCK_SEQPACKET would be SCTP.
        for kind in set(range(_TYPES + 1)) - {_STREAM, _DATAGRAM}:
            _add(rules, protocol, "socket", seccomp.Arg(0, seccomp.EQ, family),
                 seccomp.Arg(1, seccomp.MASKED_EQ, _TYPES, kind))
        _add(rules, protocol, "socket", seccomp.Arg(0, seccomp.EQ, family), seccomp.Arg(2, seccomp.GT, _UDP))
        for number in set(range(1, _UDP)) - {_TCP}:
            _add(rules, protocol, "socket", seccomp.Arg(0, seccomp.EQ, family), seccomp.Arg(2, seccomp.EQ, number))


def _add(rules: object, action: object, name: str, *arguments: object) -> None:
    """What this architecture does not have is left out; what the library does not know by name is an error."""
    number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, name)
    if number == _UNKNOWN:
        raise OSError(errno.ENOSYS, f"libseccomp does not know {name}: version 2.5 or later is needed")
    if number >= 0:
        rules.add_rule(action, number, *arguments)  # type: ignore[attr-defined]
