"""Loopback on a crew's host: its own servers, the host's, what is registered there; as the launcher starts crews."""
from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from lab.hosts import CREW, wait_until
from lab.lab import Lab
from lab.servers import listening, server
from lab.weir import Installed, weir

pytestmark = pytest.mark.lab

HERE = Path(__file__).resolve().parent
UNREGISTERED, EGRESS, REGISTERED, OWN = 7010, 7011, 7012, 7013
MORE = f"""
[[egress]]
name = "helper"
addresses = ["127.0.0.1"]
ports = [{EGRESS}, {REGISTERED}]
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


def read(host: Installed, port: int, network: str = "private") -> str:
    return host.crew("/usr/bin/python3", "-c", READ, "127.0.0.1", str(port), network=network).stdout.strip()


def test_a_tool_server_of_the_crews_own(host: Installed) -> None:
    host.lab.give(HERE / "crew" / "tool_server.py")
    python = str(host.prefix.parent / "crew" / "bin" / "python")
    done = host.crew(python, "tool_server.py", timeout=180)
    assert done.stdout == "refused first: True\n['add'] 42\n", done.stdout + done.stderr


def test_the_hosts_services_are_reached_by_egress_alone(host: Installed) -> None:
    control = subprocess.run(CREW.argv(["/usr/bin/python3", "-c", READ, "127.0.0.1", str(UNREGISTERED)]),
                             capture_output=True, text=True, timeout=30)
    assert control.stdout == "the host's\n"
    assert read(host, EGRESS) == read(host, EGRESS, "host") == "the host's"
    assert read(host, UNREGISTERED, "host") in ("closed", "ConnectionResetError")
    assert read(host, UNREGISTERED) == "ConnectionRefusedError", "in a network of its own nobody is there"

    file = sorted(host.recording.glob("*.sqlite"))[-1]
    asked = f"SELECT count(*) FROM refused WHERE destination = '127.0.0.1 {UNREGISTERED}'"

    def recorded() -> bool:
        said = subprocess.run(["sqlite3", "-readonly", str(file), asked], capture_output=True, text=True, check=True)
        return int(said.stdout) > 0

    wait_until("the refusal is on record", recorded, 10)


SERVE = """
import subprocess, sys
subprocess.Popen([sys.executable, "-m", "http.server", "-b", "127.0.0.1", sys.argv[1]],
                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
"""
ASK = """
import sys, time, urllib.request
for _ in range(100):
    try:
        print(urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/", timeout=3).status)
        break
    except ConnectionRefusedError:
        time.sleep(0.1)
    except OSError as reason:
        if not isinstance(getattr(reason, "reason", None), ConnectionRefusedError):
            print(reason)
            break
        time.sleep(0.1)
"""


def test_two_workloads_do_not_meet(host: Installed) -> None:
    """Each start is one: what one serves, another does not reach."""
    with host.inside("host") as one:
        assert one.run_inside(["/usr/bin/python3", "-c", SERVE, str(OWN)])[0] == 0
        assert one.run_inside(["/usr/bin/python3", "-c", ASK, str(OWN)])[1] == "200\n"
        assert read(host, OWN, "host") in ("closed", "ConnectionResetError")
        assert read(host, OWN) == "ConnectionRefusedError"


def test_a_registered_place_is_not_the_crews_own(host: Installed) -> None:
    with host.inside() as one:
        assert one.run_inside(["/usr/bin/python3", "-c", SERVE, str(REGISTERED)])[0] == 0
        said = one.run_inside(["/usr/bin/python3", "-c", ASK, str(REGISTERED)])[1]
        assert said, "it connected, to the enforcer"
        assert "200" not in said


FLOOD = """
import socket, sys, time
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    with socket.socket() as one:
        one.setblocking(False)
        try:
            one.connect(("203.0.113.9", 9))
        except OSError:
            pass
"""


def test_who_connects_as_fast_as_it_can_keeps_nobody_from_connecting(host: Installed) -> None:
    flood = ["sh", "-c", '/usr/bin/python3 -c "$1" 5 & /usr/bin/python3 -c "$1" 5; wait', "sh", FLOOD]
    with host.inside() as other, subprocess.Popen(host.crew_argv(*flood), stdin=subprocess.DEVNULL, cwd=host.lab.home,
                                                  env=host.lab.client_environment()) as fast:
        while fast.poll() is None:
            assert other.run_inside(["/usr/bin/python3", "-c", READ, "127.0.0.1", str(EGRESS)])[1] == "the host's\n"
        assert fast.returncode == 0
    file = sorted(host.recording.glob("*.sqlite"))[-1]
    asked = ("SELECT count(*), sum(detail ->> 'refused') FROM host_event WHERE name = 'connects.bounded' "
             "AND workload = 'crew'")

    def recorded() -> bool:
        said = subprocess.run(["sqlite3", "-readonly", str(file), asked], capture_output=True, text=True, check=True)
        events, refused = said.stdout.split("|")
        return 2 <= int(events) <= 20 and int(refused) > 1000

    wait_until("what was refused is on record, a few times", recorded, 20)


# One's own bytes, from the port that the other will have: the socket is bound to a device, so that the kernel lets both
# have the same ends; connects before it keep the agent busy.
STEAL = """
import socket, struct, sys
port, decoys = int(sys.argv[1]), []
for _ in range(700):
    decoys.append(socket.socket())
    decoys[-1].setblocking(False)
    decoys[-1].connect_ex(("203.0.113.9", 9))
s = socket.socket()
s.setsockopt(0, 51, struct.pack("=I", port << 16 | port))               # IP_LOCAL_PORT_RANGE
s.setblocking(False)
try:
    s.setsockopt(socket.SOL_SOCKET, 25, b"lo")                          # SO_BINDTODEVICE
    s.connect_ex(("203.0.113.9", 9))
    s.send(b"stolen" * 50000)
except OSError as error:
    print(error.strerror, flush=True)
print("sent", flush=True)
sys.stdin.read()
"""
SPEAK = """
import socket, struct, sys
s = socket.socket()
s.setsockopt(0, 51, struct.pack("=I", int(sys.argv[1]) << 16 | int(sys.argv[1])))
s.settimeout(10)
print("ready", flush=True)
sys.stdin.readline()
try:
    s.connect(("127.0.0.1", int(sys.argv[2])))
    s.sendall(b"mine")
    print(s.recv(10), flush=True)
except OSError as error:
    print(error, flush=True)
"""


def begin(host: Installed, *command: object) -> subprocess.Popen[str]:
    return subprocess.Popen(host.crew_argv("/usr/bin/python3", "-c", *map(str, command), network="host"),
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=host.lab.home,
                            env=host.lab.client_environment())


@pytest.mark.parametrize("port", range(41000, 41003))
def test_nobody_speaks_in_anothers_name(host: Installed, port: int) -> None:
    """Who has the port first is not taken for who has it when the agent comes to say whose it is."""
    with CREW.entered():
        door = socket.create_server(("127.0.0.1", REGISTERED))
    with door, begin(host, SPEAK, port, REGISTERED) as victim, begin(host, STEAL, port) as thief:
        try:
            assert victim.stdout
            assert victim.stdin
            assert thief.stdout
            assert victim.stdout.readline() == "ready\n"
            while thief.stdout.readline() != "sent\n":
                pass
            victim.stdin.write("\n")
            victim.stdin.flush()
            door.settimeout(40)        # a SYN that met the thief's is sent again after 1, 3, 7, 15 seconds
            with door.accept()[0] as came:
                assert came.recv(10) == b"mine"
                came.sendall(b"heard")
            assert victim.stdout.readline() == "b'heard'\n"
        finally:
            victim.kill()
            thief.kill()
