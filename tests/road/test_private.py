"""A workload's own network: `lo` and Weir in it, and nothing else; clients notice nothing; what dies comes back.

That nothing gets out of it is the escape matrix's to show (tests/escape).
"""
from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from clients.test_clients import environment
from lab.hosts import CREW, DB, RUNTIME, USER, wait_until
from lab.lab import Lab
from lab.postgresql import NAME
from lab.weir import WORKLOAD, Inside, Installed, weir
from road.test_watch import events

pytestmark = pytest.mark.lab

# What programs look at before they connect.
LOOK = """
import json, socket, sys
def addresses(family, flags):
    try:
        found = socket.getaddrinfo(sys.argv[1], 5432, family, socket.SOCK_STREAM, 0, flags)
        return sorted({one[4][0] for one in found})
    except OSError as reason:
        return str(reason)
def own():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect(("192.0.2.1", 9))
        return one.getsockname()[0]
with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection((own(), door.getsockname()[1])) as one:
    door.accept()[0].sendall(b"served")
    served = one.recv(9).decode()
print(json.dumps({"links": socket.if_nameindex(), "own": own(), "served": served,
                  "four": addresses(socket.AF_INET, socket.AI_ADDRCONFIG),
                  "six": addresses(socket.AF_INET6, socket.AI_ADDRCONFIG),
                  "first": socket.getaddrinfo(sys.argv[1], 5432, 0, socket.SOCK_STREAM)[0][4][0]}))
"""


@pytest.fixture(scope="module")
def shared(the_lab: Lab) -> Iterator[Installed]:
    with weir(the_lab) as made:
        yield made


@pytest.fixture
def installed(shared: Installed) -> Iterator[Installed]:
    with shared.overseen():
        yield shared


@pytest.fixture
def crew(installed: Installed) -> Iterator[Inside]:
    with installed.inside() as made:
        yield made


def namespace(installed: Installed) -> str:
    """Path of that of the one workload that runs."""
    [one] = [one for one in installed.status()["workloads"] if one["workload"] == WORKLOAD]
    return f"/proc/{one['pid']}/ns/net"


def select(crew: Inside, installed: Installed, host: str = NAME) -> str:
    chosen = environment(installed.lab, "wrong", PGHOST=host)
    pairs = [f"{name}={value}" for name, value in chosen.items()]
    code, out, err = crew.run_inside(
        ["env", *pairs, "psql", "-X", "-A", "-t", "-w", "-c", "SELECT count(*) FROM products"])
    return out.strip() if code == 0 else err


def enforcers_sockets(installed: Installed) -> int:
    fds = Path("/proc", str(installed.pids()["enforcer"]), "fd")
    return sum(os.readlink(one).startswith("socket:") for one in fds.iterdir())


def test_what_programs_find_there(installed: Installed) -> None:
    done = installed.crew("/usr/bin/python3", "-c", LOOK, NAME)
    assert json.loads(done.stdout or "{}") == {
        "links": [[1, "lo"]], "own": "127.0.0.1", "served": "served", "four": [DB.ipv4], "six": [DB.ipv6],
        "first": DB.ipv4}, done.stderr


@pytest.mark.parametrize("host", [NAME, DB.ipv4, DB.ipv6])
def test_a_session(installed: Installed, crew: Inside, host: str) -> None:
    assert select(crew, installed, host) == "4"


def test_it_is_shown_and_goes_with_the_workload(installed: Installed) -> None:
    before = enforcers_sockets(installed)
    with installed.inside() as crew:
        assert enforcers_sockets(installed) == before + 4
        inode = os.stat(namespace(installed)).st_ino
        assert inode != CREW.path.stat().st_ino
        assert [one["network"] for one in installed.status()["workloads"]] == ["private"]
        assert "private network" in installed.weir("status").stdout
        crew.run_inside(["true"])
    wait_until("the sockets are closed", lambda: enforcers_sockets(installed) == before)
    agent = psutil.Process(installed.pids()["agent"])
    held = [os.stat(f"/proc/{agent.pid}/fd/{fd.name}").st_ino for fd in Path(f"/proc/{agent.pid}/fd").iterdir()
            if os.readlink(fd).startswith("net:")]
    assert inode not in held
    assert [one["network"] for one in events(installed, "launch")][-1] == "private"


def test_two_starts_do_not_see_each_other(installed: Installed, crew: Inside) -> None:
    with installed.inside() as other:
        code, out, _ = crew.run_inside(["readlink", "/proc/self/ns/net"])
        assert code == 0
        assert other.run_inside(["readlink", "/proc/self/ns/net"])[1] != out


def test_the_hosts_network_where_the_operator_says_so(installed: Installed) -> None:
    done = installed.crew("readlink", "/proc/self/ns/net", network="host")
    assert done.stdout.strip() == f"net:[{CREW.path.stat().st_ino}]"
    done = installed.weir("run", "--workload", WORKLOAD, "--network", "host", "--", "true", user=USER)
    assert (done.returncode, "only root may start it in the host's" in done.stderr) == (125, True)
    assert installed.weir("run", "--workload", WORKLOAD, "--network", "private", "--", "true", user=USER).stderr == ""


def test_an_enforcer_that_dies(installed: Installed, crew: Inside) -> None:
    assert select(crew, installed) == "4"
    installed.kill("enforcer")
    assert select(crew, installed) == "4", "who connects meanwhile waits"


def test_rules_that_are_taken_away_there(installed: Installed, crew: Inside) -> None:
    inside = ["nsenter", f"--net={namespace(installed)}", "--"]
    subprocess.run([*inside, "nft", "flush", "ruleset"], check=True)

    def back() -> bool:
        listed = subprocess.run([*inside, "nft", "list", "table", "inet", RUNTIME], capture_output=True, text=True)
        return "redirect to" in listed.stdout

    wait_until("the rules are back", back, 5)
    wait_until("it is recorded", lambda: any(
        "in the network of crew, owner" in one["found"] for one in events(installed, "repaired")), 10)
    assert select(crew, installed) == "4"


def test_an_agent_that_dies(shared: Installed) -> None:
    """The next one finds the namespace, and opens the doors in it anew.  The last test here: `shared` is not it."""
    with shared.inside() as crew:
        assert select(crew, shared) == "4"
        shared.kill("all")
        assert "refused" in select(crew, shared, DB.ipv4), "cut off"
        second = shared.again()
        second.wait()
        assert select(crew, second) == "4"
        assert [one["network"] for one in second.status()["workloads"]] == ["private"]
        subprocess.run(["nsenter", f"--net={namespace(second)}", "nft", "flush", "ruleset"], check=True)
        wait_until("it is watched", lambda: any(
            "in the network of crew" in one["found"] for one in events(second, "repaired")), 10)
        os.kill(second.pids()["enforcer"], signal.SIGKILL)
        assert select(crew, second) == "4"
