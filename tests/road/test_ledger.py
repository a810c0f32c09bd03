"""The ledger end to end: whatever crews do is accounted for."""
from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from clients.test_clients import environment
from escape.attempts import SINK
from escape.sink import Sink
from lab.hosts import CREW, DB, MODEL, wait_until
from lab.lab import MODEL_PORT, Lab
from lab.weir import AUDITOR, Installed, weir

pytestmark = pytest.mark.lab

@pytest.fixture(scope="module")
def own_weir(the_lab: Lab) -> Iterator[Installed]:
    with weir(the_lab) as made:
        yield made


def ledger(installed: Installed, *more: str, user: str = "") -> dict[str, object]:
    done = installed.weir("ledger", "--json", *more, user=user)
    assert done.stdout, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def settled(installed: Installed) -> dict[str, object]:
    """What the recording holds already is in it, too."""
    seen = ledger(installed)["answers"]
    assert isinstance(seen, int)

    def ready() -> bool:
        now = ledger(installed)
        return now["answers"] > seen + 1 and now["waiting"] == 0  # type: ignore[operator,no-any-return]

    wait_until("nothing is open in the ledger", ready, 30)
    return ledger(installed)


def python(installed: Installed, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return installed.crew("/usr/bin/python3", "-c", script, *map(str, arguments))


# Ends that a connection may come to: (what the crew does, how the ledger calls it, how often)
GIVES_UP = """
import socket, struct
for number in range(50):
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.setblocking(False)
    one.connect_ex(("192.0.2.77", 5432))
    one.close()
"""
CLOSES_AT_ONCE = """
import socket, sys
for number in range(int(sys.argv[3])):
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).close()
    except OSError:
        pass
"""
# Its network ends with it, and what waits there to be accepted; they are accepted in order, so that the last one's end
# is behind all of them.
LEAVES_LAST = CLOSES_AT_ONCE + """
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as last:
    try:
        last.sendall(bytes(8))
        while last.recv(100):
            pass
    except ConnectionError:
        pass
"""
AGAIN = """
import ctypes, socket, struct, sys
one = socket.socket()
for number in range(10):
    one.connect((sys.argv[1], 5432))
    assert ctypes.CDLL(None).connect(one.fileno(), struct.pack("=H14x", socket.AF_UNSPEC), 16) == 0
"""


def test_whatever_crews_do_is_accounted_for(own_weir: Installed, sink: Sink) -> None:
    before = settled(own_weir)["accounted"]
    assert isinstance(before, dict)
    done = own_weir.crew("psql", "-X", "-A", "-t", "-w", "-c", "SELECT 1", environment=environment(
        own_weir.lab, "wrong"))
    assert done.stdout == "1\n", done.stderr
    python(own_weir, LEAVES_LAST, DB.ipv4, SINK, 99)         # refused: nobody's target
    python(own_weir, LEAVES_LAST, DB.ipv4, 5432, 99)         # a target; gone before or while it becomes a session
    python(own_weir, CLOSES_AT_ONCE, MODEL.ipv4, MODEL_PORT, 20)     # flows
    python(own_weir, GIVES_UP)                               # reset before anybody accepts
    python(own_weir, AGAIN, DB.ipv4)                         # one socket, ten connects
    after = settled(own_weir)
    assert (after["unaccounted"], after["alarms"]) == (0, [])
    found = after["accounted"]
    assert isinstance(found, dict)
    more = {how: count - before.get(how, 0) for how, count in found.items()}
    assert sum(more.values()) == 1 + 100 + 100 + 20 + 50 + 10 + more.get("dns", 0), more
    assert more["session"] >= 1
    assert more["flow"] >= 10
    assert more["refused"] >= 200
    assert own_weir.weir("ledger").returncode == 0


def test_who_is_no_crew_stays_out_of_it(own_weir: Installed, sink: Sink) -> None:
    before = settled(own_weir)["accounted"]
    done = CREW.run(["/usr/bin/python3", "-c", CLOSES_AT_ONCE, DB.ipv4, str(SINK), "100"], capture_output=True)
    assert done.returncode == 0
    assert settled(own_weir)["accounted"] == before


def test_an_auditor_reads_it_from_the_recording_alone(own_weir: Installed) -> None:
    settled(own_weir)
    alone = ledger(own_weir, "--recording", str(own_weir.recording), user=AUDITOR)
    assert (alone["unaccounted"], alone["waiting"]) == (0, 0)
    found, running = alone["accounted"], settled(own_weir)["accounted"]
    assert isinstance(found, dict)
    assert isinstance(running, dict)
    assert found["session"] >= running.get("session", 0)
    assert found["refused"] >= running.get("refused", 0)
    shown = own_weir.weir("ledger", "--recording", str(own_weir.recording), user=AUDITOR)
    assert shown.returncode == 0
    assert "nothing is unaccounted for" in shown.stdout
    assert own_weir.weir("ledger", user="labcrew").returncode == 1, "neither root nor an auditor"


def test_who_waits_for_an_enforcer_is_no_alarm(own_weir: Installed) -> None:
    """In the backlog of a killed one, over its restart."""
    with own_weir.inside() as crew:
        own_weir.kill("enforcer")
        crew.run_inside(["/usr/bin/python3", "-c", CLOSES_AT_ONCE, DB.ipv4, "5432", "100"])
        own_weir.wait()
    assert settled(own_weir)["unaccounted"] == 0


STORM = """
import socket, sys
for number in range(int(sys.argv[3])):
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as one:
            one.recv(1)
    except OSError:
        pass
"""


def test_no_alarm_in_a_storm_while_the_enforcer_is_killed(own_weir: Installed, sink: Sink) -> None:
    """As many connects as four crews can make, and kill -9 in between."""
    before = settled(own_weir)
    crews = [subprocess.Popen(own_weir.crew_argv("/usr/bin/python3", "-c", STORM, DB.ipv4, str(SINK), "1500"),
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=own_weir.lab.home,
                              env=own_weir.lab.client_environment()) for _ in range(4)]
    try:
        for _ in range(3):
            own_weir.kill("enforcer")
            own_weir.wait()
        assert [crew.wait(120) for crew in crews] == [0, 0, 0, 0]
    finally:
        for crew in crews:
            crew.kill()
            crew.wait()
    after = settled(own_weir)
    assert (after["unaccounted"], after["alarms"]) == (0, [])
    totals = [sum(one["accounted"].values()) for one in (before, after)]  # type: ignore[attr-defined]
    assert totals[1] - totals[0] >= 6000
