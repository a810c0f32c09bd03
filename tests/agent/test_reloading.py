"""A reload is one configuration or the other: what is wrong changes nothing, whoever ends in the middle of it.  With
the stand-ins of tests/standin; what the enforcer itself does is held in tests/enforcer."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from standin.crew import Crew
from standin.host import CONFIG, Host

pytestmark = pytest.mark.kernel
SLOW = pytest.mark.slow

MORE = CONFIG + """
[[target]]
name = "more"
protocol = "postgresql"
hosts = ["192.0.2.9"]
port = 5433
[[target.credential]]
user = "svc"
password_file = "{base}/etc/secret"
"""
POLICY = '@id("{}") permit (principal, action, resource);\n'


# Somebody who listens, until the test is over.
LISTEN = ("import socket, sys; one = socket.create_server(('127.0.0.1', 0)); "
          "print(one.getsockname()[1], flush=True); sys.stdin.read()")
OTHERS: list[subprocess.Popen[bytes]] = []


@pytest.fixture(scope="module")
def steady() -> Iterator[Host]:
    host = Host(f"wr-{os.getpid() % 10000}")
    try:
        host.start()
        yield host
    finally:
        host.close()


@pytest.fixture
def host(steady: Host) -> Iterator[Host]:
    """As it was, before and after."""
    yield steady
    while OTHERS:
        OTHERS.pop().communicate()
    steady.write(CONFIG)
    policy(steady, "all")
    groups(steady, "data")
    assert steady.weir("reload").returncode == 0
    steady.until(lambda: steady.status()["state"] == "enforcing", "enforcing")


def policy(host: Host, name: str) -> None:
    (host.base / "etc" / "policies" / "a.cedar").write_text(POLICY.format(name))


def groups(host: Host, name: str) -> None:
    (host.base / "etc" / "groups.toml").write_text(f'[groups]\n{name} = ["workload:crew"]\ndba = ["user:root"]\n')


def in_force(host: Host) -> tuple[Any, ...]:
    """What everything there is says: agent, enforcer, trust files."""
    status = host.status()
    trust = {path.name: path.read_bytes() for path in (host.base / "run" / "trust").iterdir() if path.is_file()}
    found = status["configuration"]
    return (found["digest"], found["since"], [one["name"] for one in status["targets"]],
            status["statistics"].get("targets"), trust)


def wrong_toml(host: Host) -> None:
    host.write(MORE.replace('name = "more"', 'name = more'))


def wrong_groups(host: Host) -> None:
    (host.base / "etc" / "groups.toml").write_text('[groups]\ndata = ["nobody"]\n')


def wrong_policy(host: Host) -> None:
    policy(host, 'x") permit (principal, action == Action::"sql:slect", resource); @id("y')


def refused_by_the_enforcer(host: Host) -> None:
    policy(host, "WRONG")


def wrong_roots(host: Host) -> None:
    Path(host.base / "etc" / "ca.pem").write_text("no certificate")
    host.write(MORE.replace("port = 5433", f'port = 5433\ntls_ca = "{host.base}/etc/ca.pem"'))


def open_secret(host: Host) -> None:
    secret = host.base / "etc" / "open"
    secret.write_text("x")
    secret.chmod(0o644)
    host.write(MORE + f'[[target.credential]]\nuser = "u"\npassword_file = "{secret}"\n')


def taken_place(host: Host) -> None:
    other = subprocess.Popen(host.inside(host.python, "-c", LISTEN), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    OTHERS.append(other)
    assert other.stdout is not None
    port = int(other.stdout.readline())
    host.write(MORE + f'[web]\nurl = "http://127.0.0.1:{port}"\nlisten = "127.0.0.1:{port}"\n')


@pytest.mark.parametrize(("make", "said"), [
    (wrong_toml, "weir.toml:3"), (refused_by_the_enforcer, "a.cedar:1:1: WRONG is wrong"),
    pytest.param(wrong_groups, "groups.toml:2: groups.data", marks=SLOW),
    pytest.param(wrong_policy, "a.cedar:1:", marks=SLOW), pytest.param(wrong_roots, "tls_ca", marks=SLOW),
    pytest.param(open_secret, "password_file", marks=SLOW),
    pytest.param(taken_place, ": Address already in use", marks=SLOW),
], ids=lambda one: getattr(one, "__name__", ""))
def test_what_is_wrong_changes_nothing(host: Host, make: Callable[[Host], None], said: str) -> None:
    before, events = in_force(host), len(host.events("config.refused"))
    host.write(MORE)
    make(host)
    done = host.weir("reload")
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr
    assert in_force(host) == before
    host.until(lambda: len(host.events("config.refused")) == events + 1, "the event")
    assert host.events("config.refused")[-1]["digest"] == before[0]


def test_it_says_what_is_in_force(host: Host) -> None:
    before = in_force(host)
    host.write(MORE)
    assert host.weir("reload").returncode == 0
    after = in_force(host)
    assert (after[2], after[3]) == (["orders", "more"], 2)
    assert after[0] != before[0]
    files = host.status()["configuration"]["files"]
    made = subprocess.run(["b2sum", "-l", "256", *files], capture_output=True, text=True, check=True).stdout
    assert dict(reversed(line.split("  ")) for line in made.splitlines()) == files
    assert sorted(map(os.path.basename, files)) == ["a.cedar", "groups.toml", "weir.toml"]
    assert subprocess.run(["b2sum", "-l", "256", "-"], input="".join(
        f"{digest}  {file}\n" for file, digest in sorted(files.items())), text=True, capture_output=True,
        check=True).stdout.split()[0] == after[0], "as docs/recording.md says"
    event = host.until(lambda: host.events("config.reloaded"), "the event")[-1]
    assert (event["before"], event["digest"]) == (before[0], after[0])
    assert event[f"file {host.file}"] == files[str(host.file)]
    assert after[0][:16] in host.weir("status").stdout


@pytest.mark.parametrize("what", ["DIES", pytest.param("HANGS", marks=SLOW)])
def test_an_enforcer_that_ends_as_it_is_put_in_force(host: Host, what: str) -> None:
    """It is followed by one that has the new configuration; none ever has the old one again."""
    host.write(MORE)
    policy(host, what)
    pid = host.status()["enforcer"]["pid"]
    assert host.weir("reload").returncode == 0
    host.until(lambda: host.status()["statistics"].get("pid", pid) != pid, "another enforcer")
    assert in_force(host)[2:4] == (["orders", "more"], 2)


def test_a_slow_one_stops_nobody(host: Host) -> None:
    """Crews are attributed by the old configuration while the new one is made ready, and by the new one after it."""
    host.write(MORE)
    policy(host, "SLOW")
    groups(host, "other")
    with Crew(host) as crew:
        assert crew.whose()["owner"]["groups"] == ["data"]
        reload = threading.Thread(target=host.weir, args=("reload",))
        reload.start()
        time.sleep(1.5)
        began = time.monotonic()
        found = crew.whose()["owner"]
        assert time.monotonic() - began < 1.5
        assert found["groups"] == ["data"]
        reload.join()
        later = crew.whose()["owner"]
        assert (later["groups"], later["stamp"] > found["stamp"]) == (["other"], True)


@SLOW
def test_two_at_once_are_one_after_the_other(host: Host) -> None:
    host.write(MORE)
    before = len(host.events("config.reloaded"))
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(host.weir("reload").returncode)) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert codes == [0, 0, 0, 0]
    assert in_force(host)[2:4] == (["orders", "more"], 2)
    host.until(lambda: len(host.events("config.reloaded")) >= before + 4, "events")
    found = host.events("config.reloaded")
    assert [one["before"] for one in found[before + 1:]] == [one["digest"] for one in found[before:-1]]


@SLOW
def test_an_agent_that_is_killed_in_it(host: Host) -> None:
    """The next one has one configuration, as a whole: that of the files."""
    host.write(MORE)
    policy(host, "SLOW")
    asking = subprocess.Popen([sys.executable, "-m", "agent.cli", "--config", str(host.file), "reload"],
                              env=host.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/")
    time.sleep(2)
    assert host.agent is not None
    host.agent.send_signal(signal.SIGKILL)
    host.agent.wait()
    asking.communicate(timeout=30)
    host.start()
    assert in_force(host)[2:4] == (["orders", "more"], 2)
