"""Loopback on a crew's host: its own servers, the host's, and what is registered there; by the launcher, as crews run."""
from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from lab.hosts import CREW, OTHER, wait_until
from lab.lab import Lab
from lab.servers import listening, server
from lab.weir import Installed, weir

pytestmark = pytest.mark.lab

HERE = Path(__file__).resolve().parent
UNREGISTERED, EGRESS = 7010, 7011
MORE = f"""
[[egress]]
name = "helper"
addresses = ["127.0.0.1"]
ports = [{EGRESS}]
"""
HELLO = """
import socketserver, sys
class Hello(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"the host's\\n")
socketserver.TCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Hello).serve_forever()
"""
READ = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as one:
        print(one.makefile().readline().strip() or "closed")
except OSError as reason:
    print(type(reason).__name__)
"""


@pytest.fixture(scope="module")
def host(the_lab: Lab) -> Iterator[Installed]:
    """Services of the host itself, on the loopback interface that the crews share."""
    with ExitStack() as stack:
        for port in (UNREGISTERED, EGRESS):
            log = the_lab.scratch / f"host{port}.log"
            process = stack.enter_context(server(CREW, ["/usr/bin/python3", "-c", HELLO, str(port)], log))
            listening(CREW, "127.0.0.1", port, process, log)
        yield stack.enter_context(weir(the_lab, more=MORE))


def read(host: Installed, port: int) -> str:
    return host.crew("/usr/bin/python3", "-c", READ, "127.0.0.1", str(port)).stdout.strip()


def test_a_tool_server_of_the_crews_own(host: Installed) -> None:
    host.lab.give(HERE / "crew" / "tool_server.py")
    python = str(host.prefix.parent / "crew" / "bin" / "python")
    done = host.crew(python, "tool_server.py", timeout=180)
    assert done.stdout == "refused first: True\n['add'] 42\n", done.stdout + done.stderr


def test_the_hosts_services_are_reached_by_egress_alone(host: Installed) -> None:
    control = subprocess.run(CREW.argv(["/usr/bin/python3", "-c", READ, "127.0.0.1", str(UNREGISTERED)]),
                             capture_output=True, text=True, timeout=30)
    assert control.stdout == "the host's\n"
    assert read(host, EGRESS) == "the host's"
    assert read(host, UNREGISTERED) in ("closed", "ConnectionResetError")

    def refused() -> bool:
        said = host.weir("export", "--format", "ndjson", "--all", "-o", "-", "--recording", str(host.recording))
        return f"127.0.0.1 {UNREGISTERED}" in said.stdout

    rows = subprocess.run(
        ["sqlite3", "-json", str(sorted(host.recording.glob("*.sqlite"))[-1]),
         f"SELECT reason FROM refused WHERE destination = '127.0.0.1 {UNREGISTERED}'"], capture_output=True, text=True)
    wait_until("the refusal is on record", lambda: bool(rows.stdout), 10)
    assert json.loads(rows.stdout), refused


def test_two_workloads_do_not_meet(host: Installed) -> None:
    """Each start is one: what one serves, another does not reach."""
    with host.inside() as one:
        serve = "import http.server, os\nif os.fork() == 0:\n    os.setsid()\n    os.close(1)\n    os.close(2)\n" \
                "    http.server.test(port=17500, bind='127.0.0.1')\n"
        assert one.run_inside(["/usr/bin/python3", "-c", serve])[0] == 0
        ask = ["/usr/bin/python3", "-c", "import urllib.request as u, time\nfor _ in range(50):\n    try:\n"
               "        print(u.urlopen('http://127.0.0.1:17500/', timeout=5).status); break\n"
               "    except OSError: time.sleep(0.1)\n"]
        assert one.run_inside(ask)[1] == "200\n"
        assert read(host, 17500) in ("closed", "ConnectionResetError")
        control = subprocess.run(OTHER.argv(["true"]), timeout=10)
        assert control.returncode == 0
