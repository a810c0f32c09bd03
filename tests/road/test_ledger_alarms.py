"""The ledger end to end: what went round, or was handed in, is an alarm.  A Weir of its own for each."""
from __future__ import annotations

import array
import ctypes
import json
import os
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from escape.attempts import SINK
from escape.sink import Sink
from lab.hosts import CREW, DB, USER, wait_until
from lab.lab import Lab
from lab.weir import AUDITOR, Installed, weir

from probes import libbpf, links

pytestmark = pytest.mark.lab

def ledger(installed: Installed, *more: str, user: str = "") -> dict[str, object]:
    done = installed.weir("ledger", "--json", *more, user=user)
    assert done.stdout, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


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
        crew = subprocess.Popen(
            installed.crew_argv("/usr/bin/python3", "-c", HOLDS, DB.ipv4, str(SINK), token, network="host"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=the_lab.home,
            env=the_lab.client_environment())
        assert crew.stdin is not None
        assert crew.stdout is not None
        try:
            assert crew.stdout.readline() == "ready\n"
            os.kill(installed.process.pid, signal.SIGSTOP)      # else the watch may be faster than the crew
            detach("connect4", "connect6", "egress")
            CREW.run(["nft", "delete", "table", "inet", "weirlab"], check=True)
            crew.stdin.write("go\n")
            crew.stdin.flush()
            assert crew.stdout.readline() == "sent\n"
            wait_until("the control: without both layers it is through", lambda: sink.saw(token), 5)
            os.kill(installed.process.pid, signal.SIGCONT)
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
    print("ended", flush=True)
except OSError:                       # reset, or not connected any more
    print("ended", flush=True)
"""


def test_a_socket_that_is_handed_in_is_an_alarm_and_ended(the_lab: Lab, sink: Sink) -> None:
    with weir(the_lab) as installed:
        token, path = f"token-{uuid.uuid4().hex}", the_lab.home / "handover.sock"
        path.unlink(missing_ok=True)
        with CREW.entered():
            link = socket.create_connection((DB.ipv4, SINK), 5)
        link.setblocking(True)        # else the crew's would not wait either
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
            assert crew.stdout.readline() == "ended\n"
            assert time.monotonic() - began < 5
            crew.communicate(timeout=20)
        wait_until("the alarm", lambda: ledger(installed)["alarms"], 10)
        [alarm] = ledger(installed)["alarms"]  # type: ignore[misc]
        detail = alarm["detail"]
        assert (alarm["name"], alarm["workload"], detail["peer"]) == ("socket.foreign", "crew", f"{DB.ipv4} {SINK}")
        assert detail["exe"].startswith("/usr/bin/python3")
        assert detail["done"] == "its connection was ended"
        assert installed.status()["state"] == "degraded"
