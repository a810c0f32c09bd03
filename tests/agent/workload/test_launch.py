"""Commands started by the launcher, with real processes, cgroups and bubblewrap."""
from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from launchhost import UID, Host

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    base = tmp_path_factory.mktemp("launch")
    made = Host(base, f"weirtest-launch{os.getpid()}")
    yield made
    made.close()


def status(text: bytes) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.decode().splitlines())}


def test_identity(host: Host) -> None:
    code, out, err = host.run("cat", "/proc/self/status")
    assert (code, err) == (0, b"")
    seen = status(out)
    assert seen["Uid"].split() == [str(UID)] * 4
    assert seen["Gid"].split() == [str(UID)] * 4
    assert {seen[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2")
    # 32 and 33 are libc's own and no program can reset them: whoever started the tests may ignore them.
    assert int(seen["SigIgn"], 16) & ~(0b11 << 31) == 0
    assert seen["SigBlk"] == "0" * 16


def test_supplementary_groups_are_the_callers(host: Host) -> None:
    shared = host.base / "shared"
    shared.write_text("for the group")
    os.chown(shared, 0, UID + 1)
    shared.chmod(0o040)
    _, out, _ = host.run(sys.executable, "-c", "import os; print(len(os.getgroups()))")
    assert out == b"1\n"              # shown as nogroup, for the user namespace maps only the user's own
    with subprocess.Popen(["cat", shared], user=UID, group=UID, extra_groups=[UID + 1]) as control:
        assert control.wait() == 0


def test_in_its_cgroup_before_its_first_instruction(host: Host) -> None:
    _, out, _ = host.run("grep", "^0:", "/proc/self/cgroup")
    assert out.decode().startswith(f"0::/{host.slice.name}/crew-")


NAMED = """
import ctypes, signal
ctypes.CDLL(None).prctl(15, b"\\xff\\xfe", 0, 0, 0)
signal.signal(signal.SIGTERM, lambda number, frame: exit(7))
print(flush=True)
signal.pause()
"""


def test_what_a_crew_calls_itself_ends_no_other(host: Host) -> None:
    """Its name is any bytes; the launcher looks at it to find who is to get a signal."""
    with host.start("cat", stdin=subprocess.PIPE) as other:
        host.expect("launched")
        with host.start(sys.executable, "-c", NAMED) as named:
            assert named.stdout is not None
            assert named.stdout.readline() == b"\n"
            named.send_signal(signal.SIGTERM)
            assert named.wait(20) == 7
        assert other.communicate(b"still there", timeout=20)[0] == b"still there"
    assert other.returncode == 0


def test_the_cgroup_is_gone_when_the_caller_is_told(host: Host) -> None:
    before = host.commands()
    assert host.run("sh", "-c", "sleep 1000 & setsid sleep 1000 & exit 3")[0] == 3
    assert host.commands() == before


@pytest.mark.parametrize(("argv", "code"), [
    (("true",), 0), (("sh", "-c", "exit 7"), 7), (("sh", "-c", "kill -9 $$"), 137), (("sh", "-c", "kill $$"), 143),
    (("/etc/passwd",), 126), (("/usr",), 126), (("nosuchcommand",), 127), (("/nosuch/command",), 127),
    (("./nosuch",), 127),
])
def test_exit_codes(host: Host, argv: tuple[str, ...], code: int) -> None:
    assert host.run(*argv)[0] == code


def test_not_found_says_so(host: Host) -> None:
    assert host.run("nosuchcommand")[2] == b"weir: nosuchcommand: command not found\n"


def test_a_script_without_its_interpreter(host: Host) -> None:
    script = host.home / "orphan"
    script.write_text("#!/nosuch/interpreter\n")
    script.chmod(0o755)
    code, _, err = host.run("./orphan")
    assert code == 127
    assert b"No such file" in err


def test_a_command_outside_the_view_is_named(host: Host) -> None:
    hidden = host.base / "tool"
    hidden.write_text("#!/bin/sh\n")
    hidden.chmod(0o755)
    code, _, err = host.run(str(hidden))
    assert code == 127
    assert b"not in this workload's view" in err
    assert b"read_only" in err


def test_pipes_carry_bytes_both_ways(host: Host) -> None:
    content = os.urandom(5_000_001)
    code, out, err = host.run("sh", "-c", "cat >&2; exit 4", input=content)
    assert (code, out, err == content) == (4, b"", True)
    code, out, _ = host.run("cat", input=content)
    assert (code, out) == (0, content)


def test_arguments_and_variables_are_bytes(host: Host) -> None:
    code, out, _ = host.run("sh", "-c", 'printf "%s|" "$@" "$ODD"', "sh", "", "a b", os.fsdecode(b"\xff\xfe"), "-n",
                            env={"ODD": os.fsdecode(b"\xe9=x\n")})
    assert (code, out) == (0, b"|a b|\xff\xfe|-n|\xe9=x\n|")


def _limit() -> None:
    os.umask(0o027)
    resource.setrlimit(resource.RLIMIT_NOFILE, (123, 456))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def test_limits_and_umask_are_the_callers(host: Host) -> None:
    _, out, _ = host.run("sh", "-c", "umask; ulimit -Sn; ulimit -Hn; ulimit -c", preexec_fn=_limit)
    assert out.split() == [b"0027", b"123", b"456", b"0"]


def test_nothing_but_descriptors_0_to_2(host: Host) -> None:
    _, out, _ = host.run(sys.executable, "-c", "import os; print(sorted(os.listdir('/proc/self/fd')))")
    assert out == b"['0', '1', '2', '3']\n"       # 3 is the listing's own


def test_the_loaders_variables_reach_only_the_command(host: Host) -> None:
    env = {"LD_LIBRARY_PATH": "/opt/lib", "LD_PRELOAD": "/nosuch.so", "GCONV_PATH": "/tmp", "SSH_AUTH_SOCK": "/x"}
    code, out, _ = host.run("env", env=env)      # the caller's own loader complains of the library
    assert code == 0
    names = {line.partition(b"=")[0] for line in out.splitlines()}
    assert b"LD_LIBRARY_PATH" in names
    assert not names & {b"LD_PRELOAD", b"GCONV_PATH", b"SSH_AUTH_SOCK"}


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_a_socket_as_descriptor_is_refused(host: Host, family: int, name: str) -> None:
    with socket.socket(family) as sock:
        process = host.start("true", **{name: sock})
        _, err = process.communicate(timeout=20)
    assert process.returncode == 125
    if name != "stderr":
        assert b"is a socket" in err


@pytest.mark.parametrize(("path", "flags", "word"), [
    # A directory would end Python itself before it could ask.
    ("/etc/passwd", os.O_PATH, b"only a path"), ("/dev/loop-control", 0, b"a device"),
])
def test_other_ways_round_as_descriptor(host: Host, path: str, flags: int, word: bytes) -> None:
    if not Path(path).exists():
        path, word = "/dev/net/tun", b"a device"
    fd = os.open(path, flags)
    try:
        code, _, err = host.run("true", stdin=fd)
    finally:
        os.close(fd)
    assert code == 125
    assert word in err


def test_root_must_name_a_user(host: Host) -> None:
    code, _, err = host.run("id", root=True)
    assert code == 125
    assert b"--user" in err


def test_root_names_a_user(host: Host) -> None:
    env = {"HOME": "/root", "SUDO_USER": "somebody"}
    _, out, err = host.run("sh", "-c", "id -u; pwd; echo $HOME $USER; env | grep -c SUDO", root=True, user="tester",
                              cwd=Path("/root"), env=env)
    assert (out.split(), err) == ([b"%d" % UID, bytes(host.home), bytes(host.home), b"tester", b"0"], b"")


@pytest.mark.parametrize("user", ["root", "nosuchuser"])
def test_root_cannot_name_root(host: Host, user: str) -> None:
    assert host.run("id", root=True, user=user)[0] == 125


def test_others_cannot_name_root(host: Host) -> None:
    assert host.run("id", user="root")[0] == 125


def test_unknown_workload(host: Host) -> None:
    code, _, err = host.run("true", workload="nosuch")
    assert code == 125
    assert b"no workload 'nosuch'" in err


def test_a_directory_outside_the_view(host: Host) -> None:
    code, out, err = host.run("pwd", cwd=host.base / "etc")
    assert (code, out) == (0, bytes(host.home) + b"\n")
    assert b"is not in the view" in err


def test_weirs_files_are_not_there(host: Host) -> None:
    script = "cat $1/etc/weir.toml; ls -A $1/run $1/state; ls -A /sys /sys/fs; : > /proc/sys/kernel/core_pattern"
    code, out, err = host.run("sh", "-c", script, "sh", str(host.base))
    assert b"secret" not in out + err
    assert err.count(b"No such file") >= 3
    assert code != 0


def test_weirs_files_are_covered_where_their_parent_is_shown(tmp_path: Path) -> None:
    made = Host(tmp_path, f"weirtest-cover{os.getpid()}", directories=["~", str(tmp_path)])
    try:
        code, out, _ = made.run("sh", "-c", "find $1/etc $1/run $1/state; touch $1/etc/x", "sh", str(tmp_path))
        assert out.decode().split() == [str(tmp_path / part) for part in ("etc", "run", "state")]
        assert code != 0
    finally:
        made.close()


def test_the_system_is_read_only(host: Host) -> None:
    for path in ("/usr/x", "/etc/x", "/x", "/proc/sys/x"):
        code, _, err = host.run("touch", path)
        assert code == 1, path
        assert b"Read-only" in err or b"denied" in err or b"No such" in err
    name = f"x-{os.getpid()}"
    assert host.run("sh", "-c", f"touch /tmp/{name} /run/{name} /var/tmp/{name} ~/{name}")[0] == 0
    assert (host.home / name).exists()
    assert [place for place in ("/tmp", "/run", "/var/tmp") if Path(place, name).exists()] == []


def test_resolv_conf_is_weirs(host: Host) -> None:
    assert host.run("cat", "/etc/resolv.conf")[1].startswith(b"nameserver 10.77.0.53\n")


def test_processes_of_others_are_not_there(host: Host) -> None:
    _, out, _ = host.run("sh", "-c", "ls /proc | grep -c '^[0-9]'; cat /proc/1/comm")
    assert int(out.split()[0]) <= 5
    assert out.split()[1] == b"bwrap"


REFUSED = """
import ctypes, errno, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    return "-" if libc.syscall(number, *arguments) >= 0 else errno.errorcode[ctypes.get_errno()]
def family(*arguments):
    try:
        socket.socket(*arguments).close()
    except OSError as reason:
        return errno.errorcode[reason.errno]
    return "-"
print("io_uring", call(425, 1, 0), "bpf", call(321, 0, 0, 0))
print("perf", call(298, 0, 0, 0, 0, 0), "keyctl", call(250, 0, 0))
print("clone3", call(435, 0, 0), "unshare", call(272, 0x10000000))
print("mount", call(165, 0, 0, 0, 0, 0), "setns", call(308, 0, 0))
print("clone", call(56, 0x10000000 | 17, 0, 0, 0, 0), "userfaultfd", call(323, 0))
print("tiocsti", call(16, 0, ctypes.c_ulong(0x5412), b"x"), "high", call(16, 0, ctypes.c_ulong(0x100005412), b"x"))
print("vsock", family(40, 1), "packet", family(17, 3), "alg", family(38, 5))
print("xdp", family(44, 3), "netfilter", family(16, 3, 12))
print("route", family(16, 3, 0), "unix", family(1, 1), "tcp", family(2, 1, 6))
print("udp6", family(10, 2, 17), "stream", family(2, 1 | 0o2004000))
print("icmp", family(2, 2, 1), "udplite", family(2, 2, 136), "mptcp", family(2, 1, 262))
print("choose", call(54, 0, 1, 51, 0, 0), "program", call(54, 0, 1, ctypes.c_ulong(0x100000034), 0, 0))
print("seqpacket", family(2, 5), "sctp", family(2, 1, 132))
print("raw", family(2, 3, 255), "high", call(41, ctypes.c_ulong(0x100000011), 3, 0))
"""


def test_system_calls(host: Host) -> None:
    code, out, err = host.run(sys.executable, "-c", REFUSED)
    assert (code, err) == (0, b"")
    words = out.decode().split()
    seen = dict(zip(words[::2], words[1::2], strict=True))
    wanted = {name: "EPERM" for name in ("io_uring", "bpf", "perf", "keyctl", "unshare", "mount", "setns", "clone",
                                         "userfaultfd", "tiocsti", "choose", "program")}
    wanted |= {"clone3": "ENOSYS"} | {name: "EAFNOSUPPORT" for name in ("vsock", "packet", "alg", "xdp", "high")}
    others = ("netfilter", "icmp", "udplite", "mptcp", "seqpacket", "sctp", "raw")
    wanted |= dict.fromkeys(others, "EPROTONOSUPPORT")
    wanted |= {name: "-" for name in ("route", "unix", "tcp", "udp6", "stream")}
    assert seen == wanted


FOREIGN = r"""
#include <unistd.h>
int main(void) {
    long r;
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "memory");      /* getpid as i386 numbers it */
    return r > 0 ? 9 : 8;
}
"""


def test_foreign_architecture_is_killed(host: Host) -> None:
    source, program = host.base / "foreign.c", host.home / "foreign"
    source.write_text(FOREIGN)
    subprocess.run(["gcc", "-o", program, source], check=True)
    control = subprocess.run([program])
    assert control.returncode == 9    # the kernel has int 0x80: what follows shows something
    assert host.run("./foreign")[0] == 128 + signal.SIGSYS


def test_threads_and_children_still_work(host: Host) -> None:
    script = ("import concurrent.futures as c, subprocess; print(sum(c.ThreadPoolExecutor(4).map(int, '1234')), "
              "subprocess.run(['echo', 'x'], capture_output=True).stdout, "
              "sum(c.ProcessPoolExecutor(2).map(int, '56')))")
    assert host.run(sys.executable, "-c", script)[1] == b"10 b'x\\n' 11\n"


# signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_reach_the_command(host: Host, number: signal.Signals) -> None:
    # In the background: dash takes a SIGINT by which its child in the foreground ends for one of its own, once more.
    script = "trap 'echo got; exit 42' TERM HUP INT USR1 USR2; echo ready; while :; do sleep 0.05 & wait; done"
    with host.start("sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.stdout.read() == b"got\n"
        assert process.wait(20) == 42


def test_an_unhandled_signal_ends_the_command(host: Host) -> None:
    with host.start("sh", "-c", "echo ready; exec sleep 1000") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.wait(20) == 143


def test_a_signal_while_it_is_starting_is_not_lost(host: Host) -> None:
    for _ in range(5):
        with host.start("sleep", "1000") as process:
            host.expect("launched")
            process.terminate()
            # Before it has begun to catch signals the caller ends of it, as any program would.
            assert process.wait(20) in (143, -signal.SIGTERM)


@pytest.mark.parametrize("trap", ["", "trap '' HUP; "])
def test_a_killed_caller_takes_its_command_along(host: Host, trap: str) -> None:
    with host.start("sh", "-c", trap + "echo ready; while :; do sleep 0.1; done") as process:
        assert process.stdout is not None
        process.stdout.readline()
        [number, pid] = host.expect("launched")
        process.kill()
        ended = host.expect("ended")
        assert ended[0] == number
        assert ended[1] == (137 if trap else 129)
        assert not Path(f"/proc/{pid}").exists()
    assert not host.commands()


def test_garbage_from_a_caller_ends_its_command(host: Host) -> None:
    from agent.contract.control import Run, render_frame
    from agent.frames import send

    host.forget()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(UID)
        os.setuid(UID)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(host.control))
            run = Run("crew", "", (b"sleep", b"1000"), b"/", {b"PATH": b"/usr/bin"}, False)
            fd = os.open("/dev/null", os.O_RDWR)
            send(sock, render_frame(run), [fd, fd, fd])
            sock.recv(4)
            sock.sendall(b"\xff\xff\xff\x7f" + b"x" * 1000)
            sock.recv(100000)
        os._exit(0)
    os.waitpid(pid, 0)
    assert host.expect("ended")[1] == 129


# what is left when somebody dies


def test_the_agent_dies_and_commands_are_served_to_their_end(tmp_path: Path) -> None:
    made = Host(tmp_path, f"weirtest-agent{os.getpid()}")
    try:
        with made.start("sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done") as process:
            assert process.stdout is not None
            process.stdout.readline()
            made.process.kill()
            made.process.wait()
            launcher = os.pidfd_open(made.launcher)
            process.terminate()
            assert process.wait(20) == 5
        import select

        assert select.select([launcher], [], [], 20)[0]      # nothing left to serve: the launcher has gone
        os.close(launcher)
        assert not made.commands()
    finally:
        made.close()


def test_the_launcher_dies_and_its_commands_with_it(tmp_path: Path) -> None:
    made = Host(tmp_path, f"weirtest-dead{os.getpid()}")
    try:
        with made.start("sh", "-c", "echo ready; sleep 1000") as process:
            assert process.stdout is not None
            process.stdout.readline()
            os.kill(made.launcher, signal.SIGKILL)
            assert process.wait(20) == 125
            assert made.expect("ended")[1] == 125
            assert made.expect("lost") is True
    finally:
        made.close()


def test_many_at_once(host: Host) -> None:
    running = [host.start("sh", "-c", f"exit {number}") for number in range(20)]
    assert [process.wait(60) for process in running] == list(range(20))
    for process in running:
        process.communicate()
    assert not host.commands()


def test_the_source_is_not_writable(host: Host) -> None:
    assert host.run("touch", str(host.code / "x"))[0] == 1
