"""Run inside the machine, as root: Weir as an operator of a fresh Debian 12 has it, on the machine's own network.

Not collected by an ordinary run (its name): it takes /etc/weir, the crews' slice and the machine's real resolver, and
systemd for the agent's service.  In order; each check stands on those before it.
"""
from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

ETC, SLICE, UNIT, USER = Path("/etc/weir"), Path("/sys/fs/cgroup/weir.slice"), "weir-agent", "crew"
OUTSIDE = ("deb.debian.org", 80)      # allowed by [[egress]]
CONFIG = f"""
[[egress]]
name = "mirror"
addresses = ["{OUTSIDE[0]}"]
ports = [{OUTSIDE[1]}]

[[workload]]
name = "crew"
users = ["{USER}"]
directories = ["~"]
"""
# A connect alone shows nothing, for it may be the enforcer that accepts: who is reached has to answer.
ASK = """import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 20) as one:
    one.sendall(b"HEAD / HTTP/1.0\\r\\nHost: " + sys.argv[1].encode() + b"\\r\\n\\r\\n")
    print("answered" if one.recv(100) else "nothing")
"""
INTRUDER = f"import sys; open('{SLICE}/by-hand/cgroup.procs', 'w').write('0')\nprint('inside')\n" + ASK
AS_CREW = ("weir", "run", "--workload", "crew", "--user", USER, "--")


def run(*command: str, seconds: float = 120, input: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, input=input, cwd="/")


def weir(*arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    return run("weir", *arguments, seconds=seconds)


def state() -> str:
    try:
        return str(json.loads(weir("status", "--json").stdout)["state"])
    except (ValueError, KeyError):
        return ""


def wait_for(wanted: str, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while (now := state()) != wanted:
        assert time.monotonic() < end, f"{now!r}, not {wanted}: {journal()[-3000:]}{weir('status').stdout}"
        time.sleep(1)


def journal() -> str:
    return run("journalctl", "--no-pager", "-o", "cat", "-u", UNIT).stdout


def ask(where: tuple[str, int], prefix: Sequence[str] = (), program: str = ASK) -> str:
    return run(*prefix, "/usr/bin/python3", "-c", program, where[0], str(where[1])).stdout


def reaches(where: tuple[str, int], prefix: Sequence[str] = ()) -> bool:
    return "answered" in ask(where, prefix)


def intrudes(server: tuple[str, int]) -> bool:
    """A process that is put into the slice by hand, past the launcher: the kernel alone stands against it."""
    (SLICE / "by-hand").mkdir()
    said = [ask(one, program=INTRUDER) for one in (server, OUTSIDE, (address(), OUTSIDE[1]))]
    (SLICE / "by-hand").rmdir()
    assert all(one.startswith("inside") for one in said), said
    return any("answered" in one for one in said)


def address() -> str:
    """Of the place outside, as a process that is no crew's resolves it."""
    return str(socket.getaddrinfo(*OUTSIDE, family=socket.AF_INET, type=socket.SOCK_STREAM)[0][4][0])


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    """Somebody who answers, on this machine's own address, and is no target."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect((address(), 9))   # sends nothing
        own = one.getsockname()[0]
    listener = socket.create_server((own, 0))
    threading.Thread(target=_answer, args=(listener,), daemon=True).start()
    yield own, listener.getsockname()[1]
    listener.close()


def _answer(listener: socket.socket) -> None:
    with suppress(OSError):
        while True:
            with listener.accept()[0] as one:
                one.recv(100)
                one.sendall(b"hello")


@pytest.fixture(scope="module", autouse=True)
def agent() -> Iterator[None]:
    with running():
        yield


@contextmanager
def running() -> Iterator[None]:
    """Weir's agent as a service of systemd's, with the operator's first configuration."""
    assert os.geteuid() == 0, "run it as root, inside the machine"
    shutil.copytree("packaging/default", ETC, dirs_exist_ok=True)
    (ETC / "weir.toml").write_text(CONFIG)
    if run("getent", "passwd", USER).returncode:
        assert run("useradd", "-m", USER).returncode == 0
    assert weir("check").returncode == 0
    start()
    wait_for("enforcing")
    yield
    weir("release", "--kill")
    run("systemctl", "stop", UNIT)


def start() -> None:
    """The units that bootstrap installed: the guard comes up with the agent."""
    run("systemctl", "reset-failed", UNIT, "weir-guard")
    done = run("systemctl", "start", UNIT, seconds=400)
    assert done.returncode == 0, done.stderr + journal()[-3000:]


def active(unit: str) -> bool:
    return run("systemctl", "is-active", unit).stdout.strip() == "active"


def unit(*command: str, properties: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """A transient unit in the crews' slice, as somebody who knows nothing of Weir would start one."""
    options = [f"--property={one}" for one in properties]
    return run("systemd-run", "--wait", "--pipe", "-q", "--slice=weir.slice", f"--property=User={USER}", *options,
               *command, seconds=400)


def test_it_is_the_machine_that_is_meant() -> None:
    """Debian's own kernel, systemd as PID 1, cgroup v2 alone."""
    assert os.uname().release.startswith("6.1.")
    assert Path("/proc/1/comm").read_text() == "systemd\n"
    assert run("stat", "-fc", "%T", "/sys/fs/cgroup").stdout == "cgroup2fs\n"


def test_doctor_finds_nothing_that_is_missing() -> None:
    done = weir("doctor", "--json")
    assert done.returncode == 0, done.stdout
    assert [one for one in json.loads(done.stdout) if one["state"] == "fail"] == []


def test_the_agent_says_enforcing_in_the_journal() -> None:
    assert "enforcing" in journal()
    done = weir("status")
    assert done.returncode == 0
    assert "enforcing" in done.stdout


def test_the_agents_processes_are_where_they_belong() -> None:
    """The agent in systemd's unit; enforcer and recorder in Weir's own cgroups, as unprivileged users."""
    pid = run("systemctl", "show", "-P", "MainPID", UNIT).stdout.strip()
    assert Path(f"/proc/{pid}/cgroup").read_text().strip() == f"0::/system.slice/{UNIT}.service"
    for name, user in (("enforcer", "weir"), ("recorder", "weir-audit")):
        pids = Path(f"/sys/fs/cgroup/weir.weir/{name}/cgroup.procs").read_text().split()
        assert pids
        assert {run("ps", "-o", "user:20=", "-p", one).stdout.strip() for one in pids} == {user}


def test_a_crew_reaches_what_is_allowed_and_nothing_else(server: tuple[str, int]) -> None:
    assert reaches(server)
    assert reaches(OUTSIDE)
    assert reaches(OUTSIDE, AS_CREW)              # by its name, which the machine's own resolver knows
    assert not reaches(server, AS_CREW)
    assert not intrudes(server)


def test_the_slice_outlives_what_systemd_does_to_cgroups(server: tuple[str, int]) -> None:
    """daemon-reload and daemon-reexec look through the whole tree; the cgroup of a unit that ends is removed."""
    before = SLICE.stat().st_ino
    for command in (("daemon-reload",), ("daemon-reexec",)):
        assert run("systemctl", *command).returncode == 0
    assert run("systemd-run", "--wait", "--slice=other.slice", "true").returncode == 0
    assert SLICE.stat().st_ino == before
    assert state() == "enforcing"
    assert not reaches(server, AS_CREW)


def test_a_unit_in_the_slice_is_contained(server: tuple[str, int]) -> None:
    """The agent's slice and systemd's are one cgroup."""
    before = SLICE.stat().st_ino
    said = unit("/usr/bin/python3", "-c", "print(open('/proc/self/cgroup').read())\n" + ASK, *map(str, server))
    assert "0::/weir.slice/run-" in said.stdout, said
    assert "answered" not in said.stdout
    assert SLICE.stat().st_ino == before
    assert state() == "enforcing"


def test_a_slice_that_is_stopped_is_not_started_again_without_the_guard(server: tuple[str, int]) -> None:
    """systemd removes its cgroup, and rules and programs know the next one of that name only by guard or agent."""
    for without_agent in (False, True):
        if without_agent:
            assert run("systemctl", "stop", UNIT, seconds=400).returncode == 0
        assert run("systemctl", "stop", "weir.slice", seconds=400).returncode == 0
        said = unit("/usr/bin/python3", "-c", "print('ran')\n" + ASK, *map(str, server))
        assert said.stdout.startswith("ran\n"), said
        assert "answered" not in said.stdout
        assert not intrudes(server)
    start()
    wait_for("enforcing")
    assert reaches(OUTSIDE, AS_CREW)


def test_what_a_crew_runs_goes_on_while_the_agent_starts_again() -> None:
    """KillMode=process: the launcher serves what runs."""
    with subprocess.Popen([shutil.which("weir") or "weir", *AS_CREW[1:], "cat"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True, cwd="/") as crew:
        assert crew.stdin is not None
        assert crew.stdout is not None
        crew.stdin.write("before\n")
        crew.stdin.flush()
        assert crew.stdout.readline() == "before\n"
        assert run("systemctl", "restart", UNIT, seconds=400).returncode == 0
        wait_for("enforcing")
        crew.stdin.write("after\n")
        crew.stdin.close()
        assert crew.stdout.readline() == "after\n"


def test_the_block_stays_when_the_agent_is_killed(server: tuple[str, int]) -> None:
    assert run("systemctl", "kill", "--signal=KILL", UNIT).returncode == 0
    assert not intrudes(server)
    wait_for("enforcing")                         # systemd starts it again


def test_the_block_stays_when_systemd_stops_the_agent(server: tuple[str, int]) -> None:
    assert run("systemctl", "stop", UNIT).returncode == 0
    assert not intrudes(server)
    start()
    wait_for("enforcing")


def test_release_ends_units_that_would_start_again_and_takes_everything_away() -> None:
    assert run("systemd-run", "--unit=stubborn", "--slice=weir.slice", f"--property=User={USER}",
               "--property=Restart=always", "--property=RestartSec=0", "sleep", "1000").returncode == 0
    assert weir("release").returncode == 1
    assert active("stubborn")
    assert weir("release", "--kill", seconds=400).returncode == 0
    assert not active("stubborn")
    assert not active("weir.slice")
    assert not SLICE.exists()
    assert run("nft", "list", "table", "inet", "weir").returncode != 0
    assert not Path("/run/weir/bpf").exists()
    assert reaches(OUTSIDE)


def test_after_a_release_a_unit_in_the_slice_brings_the_block_back(server: tuple[str, int]) -> None:
    said = unit("/usr/bin/python3", "-c", "print('ran')\n" + ASK, *map(str, server))
    assert said.stdout.startswith("ran\n"), said
    assert "answered" not in said.stdout
    assert not active(UNIT)
    assert weir("release").returncode == 0
    assert not SLICE.exists()
