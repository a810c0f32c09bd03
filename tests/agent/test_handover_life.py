"""From one agent to the next: a service manager (tests/standin/manager.py) keeps the listeners meanwhile, so that a
crew that connects waits and is served, and is never refused; where the unit stops, or the agent does not come up,
nothing is left.  As in test_supervisor.py: a host of its own, real crews and rules, stand-ins for probes, enforcer and
recorder.
"""
from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from standin.crew import Crew
from standin.host import CONFIG, PORT, Host
from standin.manager import Manager

pytestmark = pytest.mark.kernel

_TCP_INFO, _UNACKED = 11, 24          # linux/tcp.h: of a listener, how many wait to be accepted
REFUSED = "ConnectionRefusedError"
# Dials without a pause until its standard input ends; then what it met.
DIAL = """
import collections, json, select, socket, sys
met = collections.Counter()
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.005)[0]:
    try:
        with socket.create_connection(("192.0.2.4", 5432), 20):
            met["connected"] += 1
    except OSError as reason:
        met[type(reason).__name__] += 1
print(json.dumps(met), flush=True)
"""


@pytest.fixture
def host() -> Iterator[Host]:
    one = Host(f"wh-{os.getpid() % 10000}")
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def manager(host: Host) -> Iterator[Manager]:
    with Manager(host.base / "notify") as one:
        yield one


def group(host: Host) -> str:
    """Of the host's doors."""
    code = "from agent.network.netns import current_cookie; print(current_cookie())"
    done = subprocess.run(host.inside(host.python, "-c", code), env=host.environment, capture_output=True, text=True,
                          check=True)
    return f"{host.name}.{done.stdout.strip()}"


def end(host: Host, number: signal.Signals = signal.SIGTERM) -> int:
    assert host.agent is not None
    host.agent.send_signal(number)
    code = host.wait()
    host.agent = None
    return code


def listeners(host: Host, manager: Manager) -> list[int]:
    manager.heard()
    return [os.fstat(fd).st_ino for name, fd in manager.kept if name == group(host)]


def wait_until_waiting(manager: Manager, name: str) -> None:
    """Somebody has connected to a listener that nobody serves."""
    copies = manager.sockets(name)
    deadline = time.monotonic() + 30
    try:
        while not any(one.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 104)[_UNACKED] for one in copies
                      if one.type == socket.SOCK_STREAM):
            assert time.monotonic() < deadline, "nobody has come"
            time.sleep(0.01)
    finally:
        for one in copies:
            one.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_who_connects_while_no_agent_runs_is_served_by_the_next(
    host: Host, manager: Manager, number: signal.Signals,
) -> None:
    host.start(manager=manager)
    doors = group(host)
    reports = f"{host.name}.local.@reports"
    manager.until([doors, reports])
    before = listeners(host, manager)
    with Crew(host) as crew:
        first = crew.whose()["owner"]
        assert isinstance(first, dict)
        end(host, number)
        crew.ask("192.0.2.4", 5432)
        wait_until_waiting(manager, doors)
        host.start(manager=manager)
        answer = json.loads(crew.answer())
        assert answer["owner"]["target"] == "orders"
        assert {name: answer["owner"][name] for name in ("workload", "user", "cgroup")} == {
            name: first[name] for name in ("workload", "user", "cgroup")}
        assert answer["user"] == "svc", "and gets its credential"
        assert listeners(host, manager) == before
        assert manager.names == {doors, reports}


def test_none_is_refused_while_agents_come_and_go(host: Host, manager: Manager) -> None:
    host.start(manager=manager)
    dialling = host.crew("/usr/bin/python3", "-c", DIAL, stdin=subprocess.PIPE)
    try:
        assert dialling.stdout is not None
        assert dialling.stdout.readline() == "ready\n"
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
            end(host, number)
            wait_until_waiting(manager, group(host))
            host.start(manager=manager)
        met = json.loads(dialling.communicate(timeout=60)[0])
    finally:
        dialling.kill()
        dialling.communicate()
    assert met["connected"] > 0
    assert REFUSED not in met, met


def test_a_stop_leaves_nothing(host: Host, manager: Manager) -> None:
    """Nor does what goes on without an agent have them: the launcher, and the crew, were started by an agent to which
    they had been handed."""
    host.start(manager=manager)
    end(host)
    host.start(manager=manager)
    with Crew(host) as crew:
        assert crew.whose()["owner"]
        end(host)
        manager.forget()              # as systemd does where no job is queued for the unit
        assert crew.connect("192.0.2.4", 5432) == REFUSED
        assert crew.connect("192.0.2.4", 5432) == REFUSED


def test_a_release_leaves_nothing(host: Host, manager: Manager) -> None:
    host.start(manager=manager)
    manager.until([group(host), f"{host.name}.local.@reports"])
    assert host.weir("release").returncode == 0
    assert host.wait() == 0
    manager.until([])


@pytest.mark.parametrize("how", ["a configuration", "a policy"])
def test_an_agent_that_does_not_come_up_gives_them_up(host: Host, manager: Manager, how: str) -> None:
    """Else crews would wait for as long as it is started again and again."""
    host.start(manager=manager)
    with Crew(host) as crew:
        assert crew.whose()["owner"]
        end(host)
        if how == "a configuration":
            host.write(CONFIG.replace("port = 5432", "port = 0"))
        else:
            (host.base / "etc" / "policies" / "b.cedar").write_text(
                '@id("WRONG") permit (principal, action, resource);')
        host.start("", manager=manager)
        assert host.wait() == 1
        host.agent = None
        manager.until([])
        assert crew.connect("192.0.2.4", 5432) == REFUSED


def test_another_port(host: Host, manager: Manager) -> None:
    host.start(manager=manager)
    before = listeners(host, manager)
    end(host)
    host.write(CONFIG, PORT + 1)
    host.start(manager=manager)
    with Crew(host) as crew:
        assert crew.whose()["owner"]
    after = listeners(host, manager)
    assert (len(after), after[2:]) == (4, before[2:])
    connected = subprocess.run(host.inside("/usr/bin/python3", "-c", "import socket, sys; sys.exit(socket.socket()"
                                           f".connect_ex(('127.0.0.1', {PORT})))"), check=False).returncode
    assert connected == 111, "nobody has the port of before"


def test_what_is_foreign_is_closed_and_said(host: Host, manager: Manager) -> None:
    host.start(manager=manager)
    doors = group(host)
    before = listeners(host, manager)
    end(host)
    read, write = os.pipe()
    os.close(write)
    manager.keep("mine", [read])
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen(1)
        manager.keep(doors, [os.dup(one.fileno())])
    host.start(manager=manager)
    assert listeners(host, manager) == before
    manager.until([doors, f"{host.name}.local.@reports"])
    assert "kept as mine is closed: no socket" in host.said()
    assert f"kept as {doors} is closed: of another network namespace" in host.said()


def test_a_crew_has_nothing_of_the_managers(host: Host, manager: Manager) -> None:
    host.start(manager=manager)
    end(host)
    host.start(manager=manager)
    code, out, _ = host.run("/usr/bin/env")
    assert code == 0
    assert "NOTIFY_SOCKET" not in out
    assert "LISTEN_" not in out
    assert host.agent is not None
    environments = [Path(f"/proc/{pid}/environ").read_text() for pid in
                    Path(f"/proc/{host.agent.pid}/task/{host.agent.pid}/children").read_text().split()]
    assert environments
    assert not [one for one in environments if "NOTIFY_SOCKET" in one or "LISTEN_" in one]
