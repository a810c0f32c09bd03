"""The system calls of Weir's own processes, pure: what they need unconditionally, and what they need in part.

An allow-list, unlike a crew's (agent/workload/seccomp.py): these run known code.  What is not on it says ENOSYS, as an
older kernel would, for that is what libraries are ready for.  After the groups of systemd (systemd.exec(5),
SystemCallFilter=): @system-service without @privileged, @resources, @setuid, @chown, @keyring, @aio, @ipc but pipes and
memfd_create, and whatever makes, moves or watches another process.  No truncate, which Landlock knows since Linux 6.2.
"""
from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Final

from agent.workload.seccomp import Condition, Rule, masked

_WORDS: Final = """
brk munmap mremap madvise msync mlock mlock2 munlock membarrier memfd_create
arch_prctl prctl set_tid_address set_thread_area get_thread_area set_robust_list get_robust_list rseq
execve exit exit_group futex restart_syscall sched_yield sched_getaffinity getcpu
sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min
getpid getppid gettid getpgid getpgrp getsid getuid geteuid getgid getegid getgroups getresuid getresgid capget
getpriority getrlimit getrusage times sysinfo uname umask getcwd getrandom
kill tgkill tkill pidfd_open pidfd_send_signal wait4 waitid
rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait sigaltstack signalfd signalfd4
clock_getres clock_gettime clock_nanosleep nanosleep gettimeofday time pause
alarm getitimer setitimer timer_create timer_delete timer_getoverrun timer_gettime timer_settime
timerfd_create timerfd_gettime timerfd_settime
read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek
close close_range dup dup2 dup3 pipe pipe2
poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2
access faccessat faccessat2 stat fstat lstat newfstatat statx statfs fstatfs readlink readlinkat getdents getdents64
chdir fchdir rename renameat renameat2 link linkat unlink unlinkat rmdir ftruncate fallocate fadvise64 readahead
fsync fdatasync sync_file_range syncfs sendfile splice tee copy_file_range flock fcntl utimensat futimesat utime utimes
getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr
inotify_init inotify_init1 inotify_add_watch inotify_rm_watch
accept accept4 bind connect listen getpeername getsockname getsockopt setsockopt shutdown
recvfrom recvmsg recvmmsg sendto sendmsg sendmmsg
"""
ALLOWED: Final = tuple(_WORDS.split())

# CLONE_NEW*, and of CLONE_THREAD that it is there: threads, no processes.
NAMESPACES: Final = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000 | 0x80
_THREAD: Final = 0x00010000
_WRITE, _EXECUTE = 2, 4               # PROT_*
SETUID, SETGID = 0o4000, 0o2000
UNIX, INET, INET6 = 1, 2, 10
FAMILIES: Final = {"AF_UNIX": UNIX, "AF_INET": INET, "AF_INET6": INET6}
_LAST: Final = INET6
_STREAM, _DATAGRAM, _TYPES, _PROTOCOLS = 1, 2, 0xF, (0, 6, 17)     # SOCK_TYPE_MASK; any, TCP, UDP
_LOW: Final = 0xFFFFFFFF
# TCGETS (isatty), TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX.
_IOCTLS: Final = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# Where the mode is, of calls that can set bits.
_MODES: Final = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "mkdir": 1, "mkdirat": 2, "creat": 1, "open": 2, "openat": 3}


def own_limits() -> Iterator[Rule]:
    yield Rule("prlimit64", 0, (Condition(0, "EQ", 0),))


def own_devices() -> Iterator[Rule]:
    yield from (Rule("ioctl", 0, (masked(1, _LOW, number),)) for number in _IOCTLS)


def threads() -> Iterator[Rule]:
    """A filter cannot read clone3's flags in memory: it is not there, and libc falls back to clone."""
    yield Rule("clone", 0, (masked(0, NAMESPACES | _THREAD, _THREAD),))


def memory() -> Iterator[Rule]:
    """Nothing is executable that was writable."""
    yield from (Rule("mmap", 0, (masked(2, _WRITE | _EXECUTE, one),)) for one in (0, _WRITE, _EXECUTE))
    yield Rule("mprotect", 0, (masked(2, _EXECUTE, 0),))


def modes(refused: int) -> Iterator[Rule]:
    """Without these bits."""
    yield from (Rule(call, 0, (masked(at, refused, 0),)) for call, at in _MODES.items())


def sockets(families: tuple[str, ...]) -> Iterator[Rule]:
    """Of the internet's TCP and UDP alone: with protocol 0 the type chooses, and SOCK_SEQPACKET would be SCTP."""
    numbers = sorted(FAMILIES[name] for name in families)
    for family in set(range(_LAST + 1)) - set(numbers):
        yield Rule("socket", errno.EAFNOSUPPORT, (Condition(0, "EQ", family),))
    yield Rule("socket", errno.EAFNOSUPPORT, (Condition(0, "GT", _LAST),))
    yield Rule("socketpair", 0, (Condition(0, "EQ", UNIX),))
    for family in numbers:
        if family == UNIX:
            yield Rule("socket", 0, (Condition(0, "EQ", UNIX),))
            continue
        for kind in (_STREAM, _DATAGRAM):
            for protocol in _PROTOCOLS:
                yield Rule("socket", 0, (Condition(0, "EQ", family), masked(1, _TYPES, kind),
                                         Condition(2, "EQ", protocol)))
