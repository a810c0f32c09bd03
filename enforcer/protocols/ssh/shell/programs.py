"""What is known of programs and variables by their names."""
from __future__ import annotations

from typing import Final

# Change how the rest of a line is read or what its names mean, or run what is not in the line.
OPAQUE: Final = frozenset((
    # of shells
    ".", "source", "alias", "unalias", "trap", "hash", "rehash", "enable", "disable", "bind", "complete",
    "compgen", "mapfile", "readarray", "read", "let", "getopts", "shopt", "setopt", "unsetopt", "emulate",
    "jobs", "fc", "autoload", "zmodload", "functions", "sched", "zle", "vared", "abbr", "setenv", "print",
    "integer", "float", "nameref", "unhash", "getln", "zparseopts", "zformat", "zregexparse", "zstyle", "global",
    # other shells and what opens one
    "fish", "csh", "tcsh", "rc", "es", "mksh", "yash", "pwsh", "xonsh", "nu", "elvish", "login", "newgrp", "sg",
    "runuser", "pkexec", "run0", "machinectl", "screen", "tmux", "script", "expect", "unbuffer",
    # what runs another command in a way of its own
    "chroot", "nsenter", "unshare", "flock", "watch", "parallel", "strace", "ltrace", "gdb", "systemd-run",
    "setpriv", "start-stop-daemon", "chrt", "taskset", "numactl", "fakeroot", "proot", "faketime", "cpulimit",
    "dbus-run-session", "xvfb-run", "firejail", "bwrap", "rlwrap", "entr", "at", "batch", "setarch", "linux64",
    "linux32", "i386", "x86_64", "choom", "prlimit", "capsh", "sudoedit", "torsocks", "proxychains", "eatmydata",
    "catchsegv", "run-parts", "chronic", "ifne", "softlimit", "setuidgid", "envdir", "gosu", "su-exec",
    "daemonize", "daemon", "cgexec", "aa-exec", "runcon", "ld.so",
))
SHELLS: Final = frozenset(("sh", "bash", "dash", "zsh", "ash", "ksh", "rbash", "rzsh", "ksh93"))
MOVES: Final = frozenset(("cd", "chdir", "pushd", "popd"))     # relative paths mean something else then
DECLARES: Final = frozenset(("export", "declare", "typeset", "local", "readonly"))
# Builtins of which some shell takes a word for arithmetic, which runs the $(...) in it even where it was quoted.
COUNTS: Final = frozenset((
    "test", "[", "unset", "wait", "shift", "exit", "return", "break", "continue", "ulimit", "umask", "logout", "kill",
    "suspend", *DECLARES))
_DANGEROUS: Final = frozenset((
    "PATH", "IFS", "ENV", "BASH_ENV", "HOME", "ZDOTDIR", "SHELLOPTS", "BASHOPTS", "BASH_ALIASES", "BASH_CMDS",
    "BASH_COMPAT", "BASH_LOADABLES_PATH", "POSIXLY_CORRECT", "PS4", "PROMPT_COMMAND", "FPATH", "fpath", "path",
    "cdpath", "CDPATH", "GLOBIGNORE", "EXECIGNORE", "FIGNORE", "NULLCMD", "READNULLCMD", "SHELL", "STARSHIP_SHELL",
    "aliases", "functions", "commands", "options", "argv", "OPTIND", "OLDPWD", "PWD", "TMPPREFIX", "histchars",
    "fish_user_paths", "GCONV_PATH", "LOCPATH"))


def is_dangerous(variable: str) -> bool:
    """Whether what a line means depends on it."""
    return variable in _DANGEROUS or variable.startswith(("LD_", "DYLD_", "BASH_FUNC_"))


def last(program: str) -> str:
    return program.rpartition("/")[2]


def is_opaque(name: str) -> bool:
    return name in OPAQUE or name.startswith(("ld-linux", "ld-musl", "ld64"))
