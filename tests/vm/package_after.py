"""Run inside the machine, as root, after package.py and a boot: upgrade, downgrade, removal and purge of the package.

While it is upgraded two crews dial a server without a pause: one that `weir run` has started, and one that was put into
the slice by hand, past the launcher.  The verdict is the server's, which a control outside the slice has to reach.  No
connect of theirs is refused: systemd keeps the listeners from one agent to the next.
"""
from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from escape.sink import Sink
from lab.hosts import wait_until

from vm.package import (
    AS_CREW,
    DATABASE,
    ETC,
    PINS,
    SERVER,
    SLICE,
    STATE,
    UNITS,
    active,
    ask_database,
    database,
    install,
    packages,
    recorded,
    right,
    run,
    state,
    status,
    wait_enforcing,
)

__all__ = ["database"]
# Says whether it goes round, until its standard input ends; counts what it has tried, and where nobody listened.
DIAL = """
import select, socket, sys
name, host, port, cgroup = sys.argv[1:5]
if cgroup:
    open(cgroup, "w").write("0")
tried = refused = 0
print("ready", flush=True)
while not tried or not select.select([sys.stdin], [], [], 0.2)[0]:
    tried += 1
    try:
        with socket.create_connection((host, int(port)), 3) as one:
            one.sendall(f"from-{name}".encode())
    except ConnectionRefusedError:
        refused += 1
    except OSError:
        pass
print(tried, refused, flush=True)
"""


def own_address() -> str:
    return right("hostname", "-I").split()[0]


@pytest.fixture(scope="module")
def server() -> Iterator[Sink]:
    with Sink(SERVER) as sink:
        yield sink


@contextmanager
def dialling(name: str, prefix: tuple[str, ...] = (), cgroup: str = "") -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([*prefix, "/usr/bin/python3", "-c", DIAL, name, own_address(), str(SERVER), cgroup],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def met(process: subprocess.Popen[str]) -> tuple[int, int]:
    """What it has tried, and how often it was refused: it says so at its end."""
    said, _ = process.communicate(timeout=120)
    tries, refused = map(int, said.split() or (0, 0))
    return tries, refused


def tried(process: subprocess.Popen[str]) -> int:
    return met(process)[0]


def main_pid() -> str:
    return shown("MainPID")


def stored() -> str:
    """Of the agent, with systemd."""
    return shown("NFileDescriptorStore")


def shown(name: str) -> str:
    return right("systemctl", "show", "--property", name, "--value", "weir-agent.service").strip()


def between() -> list[tuple[str, str, str]]:
    """Workload, executable and attribution of sessions of that application name."""
    found = []
    for file in (STATE / "recording").glob("*.sqlite"):
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as recording:
            found += recording.execute(
                "SELECT workload, exe, attribution FROM session_opened WHERE application = 'between'").fetchall()
    return found


def listens() -> bool:
    return bool(right("ss", "-Hltn", "sport", "=", ":15432"))


@contextmanager
def by_hand() -> Iterator[str]:
    place = SLICE / "by-hand"
    place.mkdir()
    yield str(place / "cgroup.procs")
    wait_until("it is empty", lambda: not (place / "cgroup.procs").read_text(), 30)
    place.rmdir()


def test_it_is_up_after_a_boot(database: None) -> None:
    assert os.geteuid() == 0
    wait_enforcing()
    before = recorded()
    assert ask_database() == "42\n"
    wait_until("it is on record", lambda: recorded() > before, 30)


@pytest.mark.parametrize("number", [1, 0], ids=["upgrade", "downgrade"])
def test_nothing_goes_round_while_the_version_changes(number: int, server: Sink, database: None) -> None:
    package = packages()[number]
    server.seen.clear()
    guard_before = SLICE.stat().st_ino
    with by_hand() as place, dialling("outside") as control, dialling("crew", AS_CREW) as crew, \
            dialling("hand", cgroup=place) as hand:
        began = time.monotonic()
        done = install(package)
        assert done.returncode == 0, done.stdout + done.stderr
        print(f"{package.name}: installed after {time.monotonic() - began:.0f} s")
        wait_enforcing()
        print(f"enforcing after {time.monotonic() - began:.0f} s")
        assert crew.poll() is None
        counts, refused = zip(*(met(one) for one in (control, crew, hand)), strict=True)
    print(f"tried: outside, crew, by hand: {counts}")
    assert min(counts) > 0
    assert refused == (0, 0, 0), "whoever connects between two agents waits"
    assert server.saw("from-outside")
    assert not server.saw("from-crew")
    assert not server.saw("from-hand")
    assert SLICE.stat().st_ino == guard_before
    assert status() == f"installed {'0.1.0+1' if number else '0.1.0'}"
    assert ask_database() == "42\n"


@pytest.mark.parametrize("how", [("restart",), ("kill", "--signal=KILL", "--kill-who=main")], ids=["restart", "crash"])
def test_nobody_is_refused_while_the_agent_is_started_again(how: tuple[str, ...], database: None) -> None:
    before = main_pid()
    with dialling("crew", AS_CREW) as crew:
        right("systemctl", *how, "weir-agent.service")
        wait_until("another agent runs", lambda: main_pid() not in ("0", before), 300)
        wait_enforcing()
        assert met(crew)[1] == 0
    assert ask_database() == "42\n"


def test_who_connects_while_no_agent_runs_is_served_by_the_next(database: None) -> None:
    """And known: workload, process and how it is known stand in the recording."""
    where = f"host=127.0.0.1 port={DATABASE} dbname=postgres user=whoever application_name=between sslmode=disable"
    asks = f"echo ready; read go; export PGPASSWORD=x; exec psql -XAtc 'select 6 * 7' '{where}'"
    before = main_pid()
    with subprocess.Popen([*AS_CREW, "sh", "-c", asks], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          cwd="/") as crew:
        assert crew.stdout is not None
        assert crew.stdout.readline() == "ready\n"
        right("systemctl", "kill", "--signal=KILL", "--kill-who=main", "weir-agent.service")
        wait_until("none runs, or another", lambda: main_pid() != before, 60)
        assert crew.communicate("go\n", timeout=900)[0] == "42\n"
    wait_enforcing()
    wait_until("it is on record", lambda: between(), 60)
    [(workload, exe, attribution)] = between()
    assert (workload, Path(exe).name, attribution) == ("crew", "psql", "mark")


def test_a_stop_leaves_nothing_at_which_somebody_waits() -> None:
    with dialling("crew", AS_CREW) as crew:
        right("systemctl", "stop", "weir-agent.service")
        wait_until("systemd keeps none", lambda: stored() == "0", 60)
        wait_until("nobody listens", lambda: not listens(), 30)
        assert crew.poll() is None
    right("systemctl", "start", "weir-agent.service")
    wait_enforcing()
    assert int(stored()) >= 4


def test_an_upgrade_with_a_wrong_configuration_leaves_the_agent_running() -> None:
    was = (ETC / "weir.toml").read_text()
    (ETC / "weir.toml").write_text(was + "nonsense\n")
    try:
        done = install(packages()[1])
        assert done.returncode == 0, done.stdout + done.stderr
        assert "goes on" in done.stdout + done.stderr
        assert state() == "enforcing"
    finally:
        (ETC / "weir.toml").write_text(was)
    right("systemctl", "restart", "weir-agent")
    wait_enforcing()


def test_a_removal_is_refused_while_a_crew_runs(server: Sink) -> None:
    server.seen.clear()
    with dialling("crew", AS_CREW) as crew:
        done = run("apt-get", "remove", "-q", "-y", "weir")
        assert done.returncode != 0
        assert "run in the slice" in done.stdout + done.stderr
        assert "the block is in place" in done.stdout + done.stderr
        assert status() == "installed 0.1.0+1"
        assert state() == "enforcing"
        assert tried(crew) > 0
    assert not server.saw("from-crew")


def test_a_removal_is_refused_while_a_unit_is_a_crew() -> None:
    unit = UNITS / "some.service"
    unit.write_text("[Service]\nExecStart=/bin/true\nSlice=weir.slice\n")
    done = run("apt-get", "remove", "-q", "-y", "weir")
    unit.unlink()
    assert done.returncode != 0
    assert str(unit) in done.stdout + done.stderr
    assert state() == "enforcing"


def test_a_removal_takes_the_block_away_and_leaves_recordings(server: Sink) -> None:
    sessions = recorded()
    right("apt-get", "remove", "-q", "-y", "weir")
    assert not active("weir-agent")
    assert not PINS.exists()
    assert not SLICE.exists()
    assert run("nft", "list", "table", "inet", "weir").returncode != 0
    assert recorded() == sessions > 0
    assert (ETC / "weir.toml").exists()
    with dialling("outside") as control:
        assert tried(control) > 0
    assert server.saw("from-outside")


def test_a_purge_keeps_recordings() -> None:
    done = run("apt-get", "purge", "-q", "-y", "weir")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"recordings stay in {STATE}" in done.stdout + done.stderr
    assert not ETC.exists()
    assert recorded() > 0


def test_a_host_that_was_never_configured_can_remove_it() -> None:
    """The guard has put the block in place, as it does at each boot."""
    assert install(packages()[0]).returncode == 0
    right("systemctl", "start", "weir-guard")
    assert PINS.exists()
    right("apt-get", "purge", "-q", "-y", "weir")
    assert not PINS.exists()
    assert recorded() > 0, "of the time before"


def test_what_is_left_is_evidence_alone() -> None:
    found = {path.name for path in STATE.iterdir()}
    assert found <= {"recording", "journal", "forwarded.key", "mask.key"}, found
    assert not Path("/run/weir").exists()
    assert not list(Path("/etc/systemd/system").glob("**/weir*"))
