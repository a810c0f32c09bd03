"""The ledger end to end: whatever crews do is accounted for; what went round, or was handed in, is an alarm."""
from __future__ import annotations

import array
import ctypes
import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.test_clients import environment
from escape.sink import Sink
from lab.hosts import CREW, DB, MODEL, USER, wait_until
from lab.lab import MODEL_PORT, Lab
from lab.weir import AUDITOR, Installed, weir

from probes import libbpf, links

pytestmark = pytest.mark.lab

SINK = 7007                           # of the database's host; no target


@pytest.fixture(scope="module")
def sink(the_lab: Lab) -> Iterator[Sink]:
    with DB.entered():
        opened = Sink(SINK)
    with opened:
        yield opened


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
    wait_until("nothing is open in the ledger", lambda: ledger(installed).get("waiting") == 0, 30)
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
for number in range(100):
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).close()
    except OSError:
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
    python(own_weir, CLOSES_AT_ONCE, DB.ipv4, SINK)          # refused: nobody's target
    python(own_weir, CLOSES_AT_ONCE, DB.ipv4, 5432)          # a target; gone before or while it becomes a session
    python(own_weir, CLOSES_AT_ONCE, MODEL.ipv4, MODEL_PORT)  # flows
    python(own_weir, GIVES_UP)                               # reset before anybody accepts
    python(own_weir, AGAIN, DB.ipv4)                         # one socket, ten connects
    after = settled(own_weir)
    assert (after["unaccounted"], after["alarms"]) == (0, [])
    found = after["accounted"]
    assert isinstance(found, dict)
    more = {how: count - before.get(how, 0) for how, count in found.items()}
    assert sum(more.values()) == 1 + 3 * 100 + 50 + 10 + more.get("dns", 0), more
    assert more["session"] >= 1
    assert more["flow"] >= 50
    assert more["refused"] >= 100
    assert own_weir.weir("ledger").returncode == 0


def test_who_is_no_crew_stays_out_of_it(own_weir: Installed, sink: Sink) -> None:
    before = settled(own_weir)["accounted"]
    done = CREW.run(["/usr/bin/python3", "-c", CLOSES_AT_ONCE, DB.ipv4, str(SINK)], capture_output=True)
    assert done.returncode == 0
    assert settled(own_weir)["accounted"] == before


def test_an_auditor_reads_it_from_the_recording_alone(own_weir: Installed) -> None:
    settled(own_weir)
    own_weir.settle()
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
        crew.run_inside(["/usr/bin/python3", "-c", CLOSES_AT_ONCE, DB.ipv4, "5432"])
        own_weir.wait()
    assert settled(own_weir)["unaccounted"] == 0


def detach(*names: str) -> None:
    bpffs = Path("/run/weirlab/bpf")
    for name in names:
        with links.opened(links.link_pin(bpffs, name)) as fd:
            libbpf._lib.bpf_link_detach.argtypes = (ctypes.c_int,)
            assert libbpf._lib.bpf_link_detach(fd) == 0


HOLDS = """
import socket, sys
address, port, token = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
one = socket.create_connection((address, int(port)), 5)
one.send(token.encode())
print("sent", flush=True)
sys.stdin.readline()
"""


def test_what_went_past_the_enforcer_is_an_alarm(the_lab: Lab, sink: Sink) -> None:
    """Both layers are taken away for a moment: the server has the crew's bytes.  The watch puts them back; the ledger
    says that somebody was through."""
    with weir(the_lab) as installed:
        token = f"token-{uuid.uuid4().hex}"
        crew = subprocess.Popen(installed.crew_argv("/usr/bin/python3", "-c", HOLDS, DB.ipv4, str(SINK), token),
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=the_lab.home,
                                env=the_lab.client_environment())
        assert crew.stdin is not None
        assert crew.stdout is not None
        try:
            assert crew.stdout.readline() == "ready\n"
            for _ in range(20):       # the watch may be faster than the crew
                detach("connect4", "connect6", "egress")
                CREW.run(["nft", "delete", "table", "inet", "weirlab"], check=True)
                crew.stdin.write("go\n")
                crew.stdin.flush()
                crew.stdout.readline()
                break
            went = bool(sink.saw(token))
            assert went, "the control: without both layers it is through"
            wait_until("the alarm", lambda: ledger(installed)["unaccounted"] == 1, 30)
        finally:
            crew.kill()
            crew.communicate()
        [alarm] = ledger(installed)["alarms"]  # type: ignore[misc]
        assert alarm["workload"] == "crew"
        assert f"{DB.ipv4} {SINK}" in (alarm["detail"]["destination"], alarm["detail"]["peer"])
        assert any("nobody accounts for a connect of crew" in one for one in installed.status()["reasons"])  # type: ignore[attr-defined]
        assert installed.status()["state"] == "degraded"
        assert installed.weir("ledger").returncode == 1
        alone = ledger(installed, "--recording", str(installed.recording), user=AUDITOR)
        assert alone["unaccounted"] == 1
        assert installed.weir("ledger", "--acknowledge", user=AUDITOR).returncode == 1, "root only"
        assert installed.weir("ledger", "--acknowledge").returncode == 0
        installed.wait()
        assert ledger(installed)["alarms"] == []
        assert ledger(installed, "--recording", str(installed.recording))["unaccounted"] == 1, "the recording keeps it"


RECEIVES = """
import array, socket, sys
with socket.socket(socket.AF_UNIX) as door:
    door.connect("handover.sock")
    _, ancillary, _, _ = door.recvmsg(1, 100)
link = socket.socket(fileno=array.array("i", ancillary[0][2])[0])
link.send(sys.argv[1].encode())
print("sent", flush=True)
try:
    while link.recv(100):
        pass
    print("closed", flush=True)
except OSError as reason:
    print(type(reason).__name__, flush=True)
"""


def test_a_socket_that_is_handed_in_is_an_alarm_and_ended(the_lab: Lab, sink: Sink) -> None:
    with weir(the_lab) as installed:
        token, path = f"token-{uuid.uuid4().hex}", the_lab.home / "handover.sock"
        path.unlink(missing_ok=True)
        with CREW.entered():
            link = socket.create_connection((DB.ipv4, SINK), 5)
        with link, socket.socket(socket.AF_UNIX) as door:
            door.bind(str(path))
            subprocess.run(["chown", USER, str(path)], check=True)
            door.listen()
            crew = subprocess.Popen(
                installed.crew_argv("/usr/bin/python3", "-c", RECEIVES, token), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, text=True, cwd=the_lab.home, env=the_lab.client_environment())
            assert crew.stdout is not None
            peer, _ = door.accept()
            with peer:
                peer.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [link.fileno()]))])
            assert crew.stdout.readline() == "sent\n"
            began = time.monotonic()
            wait_until("the server", lambda: sink.saw(token), 5)
            assert crew.stdout.readline() == "ConnectionResetError\n"
            assert time.monotonic() - began < 5
            crew.communicate(timeout=20)
        wait_until("the alarm", lambda: ledger(installed)["alarms"], 10)
        [alarm] = ledger(installed)["alarms"]  # type: ignore[misc]
        detail = alarm["detail"]
        assert (alarm["name"], alarm["workload"], detail["peer"]) == ("socket.foreign", "crew", f"{DB.ipv4} {SINK}")
        assert detail["exe"].startswith("/usr/bin/python3")
        assert detail["done"] == "its connection was ended"
        assert installed.status()["state"] == "degraded"
        assert os.path.exists(installed.recording)
