"""Modes of egress on the road: real crews, a real TLS server, a real PostgreSQL.  Each test sets the mode by a reload.
What arrived is the server's to say.
"""
from __future__ import annotations

import json
import subprocess
import tomllib
import uuid
from collections.abc import Callable, Iterator

import pytest
from clients.test_clients import environment
from escape.attempts import SINK
from escape.sink import Sink
from lab.hosts import CREW, DB, DNS, OTHER, USER, wait_until
from lab.lab import Lab
from lab.weir import AUDITOR, Installed, weir
from road.test_names import ASK, PORT, TALK, Echo, rows

pytestmark = pytest.mark.lab

Crew = Callable[..., str]
MODE = '\n[egress_policy]\nmode = "{}"\n'
STRICT = f"""
[[workload]]
name = "strict"
users = ["{USER}"]
directories = ["~"]
egress = "enforce"
"""
STAYS = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 8)
for line in iter(sys.stdin.readline, ""):
    try:
        s.sendall(line.encode())
        print(s.recv(1000), flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


@pytest.fixture(scope="module")
def echo(the_lab: Lab) -> Iterator[Echo]:
    one = Echo(the_lab.scratch)
    yield one
    one.close()


@pytest.fixture(scope="module")
def lax(the_lab: Lab, echo: Echo) -> Iterator[Installed]:
    with weir(the_lab, more=STRICT + MODE.format("record")) as installed:
        yield installed


def reload(lax: Installed, mode: str, more: str = "") -> None:
    base = lax.config.read_text().partition(MODE[:18])[0]
    lax.config.write_text(base + MODE.format(mode) + more)
    done = lax.weir("reload")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def crew(lax: Installed) -> Iterator[Crew]:
    with lax.inside("host") as inside:
        yield lambda *command: _said(inside.run_inside(["/usr/bin/python3", "-c", *map(str, command)]))


def strict(lax: Installed, *command: object) -> str:
    argv = lax.argv("run", "--workload", "strict", "--user", USER, "--", "/usr/bin/python3", "-c", *map(str, command))
    done = subprocess.run(CREW.argv(argv), capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
                          cwd=lax.lab.home, env=lax.lab.client_environment())
    return _said((done.returncode, done.stdout, done.stderr))


def _said(done: tuple[int, str, str]) -> str:
    return done[1].strip() or done[2]


def recorded(lax: Installed, sql: str, *wanted: str) -> None:
    wait_until(f"{wanted} in {sql}",
               lambda: any(all(one in str(row) for one in wanted) for row in rows(lax, sql)), 20)


NOTES = "SELECT mode, speaks, name, rule, reason FROM flow_noted"
ANSWERED = "SELECT workload, detail FROM host_event WHERE name = 'dns.answered'"


def test_record_lets_through_and_records(lax: Installed, crew: Crew, echo: Echo) -> None:
    """A name and an address that nothing permits; the workload beside it is enforced."""
    reload(lax, "record")
    token = uuid.uuid4().hex
    assert token in crew(TALK, "api.lab.example", PORT, "api.lab.example", token)
    assert token in crew(TALK, OTHER.ipv4, 8081, "plain",
                         f"b'CONNECT {token}:22 HTTP/1.1\\r\\n\\r\\n'")
    assert crew(TALK, OTHER.ipv4, 8081, "plain", r"b'\0\0\0\x08\x04\xd2\x16\x2f'").startswith("b'")
    recorded(lax, ANSWERED, "crew", "api.lab.example", '"mode":"record"')
    recorded(lax, NOTES, "'record', 'tls', 'api.lab.example', '', ''")
    recorded(lax, NOTES, "'record', 'proxy', '', '', ''")
    recorded(lax, NOTES, "'record', 'postgresql', '', '', ''")
    assert "would_refuse" not in str(rows(lax, ANSWERED))
    assert token + "x" not in strict(lax, TALK, OTHER.ipv4, 8081, "plain", f"b'{token}x'")
    assert not echo.saw(token + "x")
    assert strict(lax, ASK, "api.lab.example", 1, "udp", "127.53.53.53") == "5 0"


QUERY = """
import os, subprocess, sys
for host in sys.argv[1:]:
    for text in ("SELECT 41 + 1", "DROP TABLE public.customers"):
        done = subprocess.run(["psql", "-X", "-A", "-t", "-w", "-h", host, "-c", text], capture_output=True, text=True)
        print(done.stdout, done.stderr)
"""


def test_a_target_goes_through_its_protocol_however_it_is_dialled(lax: Installed) -> None:
    """With the crew's wrong password, as only a session of the enforcer's can."""
    reload(lax, "record")
    hosts = ("db.lab.example", "alias.lab.example", DB.ipv4, DB.ipv6)
    done = lax.crew("/usr/bin/python3", "-c", QUERY, *hosts, environment=environment(
        lax.lab, "wrong", PGSSLMODE="disable"))
    assert done.stdout.count("42\n") == len(hosts), done.stdout
    assert done.stdout.count('forbidden by policy "no-ddl-by-crews"') == len(hosts), done.stdout
    assert not [row for row in rows(lax, "SELECT destination FROM flow_opened") if row[0].endswith(" 5432")]


def test_what_stays_refused_in_record(lax: Installed, crew: Crew, echo: Echo) -> None:
    reload(lax, "record")
    token = uuid.uuid4().hex
    with CREW.entered():
        own = Sink(SINK)
    with own:
        for address in ("127.0.0.1", "::1", "0.0.0.0", "::ffff:127.0.0.1"):
            assert token not in crew(TALK, address, SINK, "plain", f"b'{token}'")
        assert not own.saw(token)
    for address in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200"):
        assert crew(TALK, address, 80, "plain", "b'x'") in ("ConnectionResetError", "b''")
    recorded(lax, "SELECT destination, reason FROM refused", "169.254.169.254 80", "metadata: no mode lets it through")
    recorded(lax, "SELECT destination, reason FROM refused", f"127.0.0.1 {SINK}", "loopback: no mode lets it through")
    assert crew(ASK, "meta.lab.example", 1, "udp", "127.53.53.53") == "5 0"
    assert crew(ASK, f"{token}.lab.example", 1, "udp", DNS.ipv4)[0] not in "0123456789"
    assert token not in (lax.lab.scratch / "dns.log").read_text()


def test_it_is_said_and_accounted_for(lax: Installed) -> None:
    reload(lax, "record")
    shown = lax.weir("status").stdout
    assert "egress: record for workload crew: NOT ENFORCED" in shown
    assert "for workload strict" not in shown
    assert json.loads(lax.weir("status", "--json").stdout)["modes"] == {"crew": "record"}
    assert "note: egress: record for workload crew: NOT ENFORCED" in lax.weir("check").stdout
    assert "egress: record for workload crew: NOT ENFORCED" in lax.log.read_text()
    assert "is in mode record" in lax.weir("selftest").stderr
    accounted = json.loads(lax.weir("ledger", "--json").stdout)
    assert accounted["unaccounted"] == 0
    assert accounted["accounted"]["flow"] >= 3


def test_an_enforcer_that_was_killed_comes_back_in_the_same_modes(lax: Installed, crew: Crew, echo: Echo) -> None:
    reload(lax, "record")
    lax.kill("enforcer")
    token = uuid.uuid4().hex
    assert token in crew(TALK, OTHER.ipv4, PORT, "api.lab.example", token)
    assert token + "z" not in strict(lax, TALK, OTHER.ipv4, PORT, "api.lab.example", token + "z")
    assert not echo.saw(token + "z")


def test_from_record_by_suggestion_and_shadow_to_enforce(lax: Installed, crew: Crew, echo: Echo) -> None:
    """What is suggested permits what was seen; shadow says what it does not; enforce ends that."""
    reload(lax, "record")
    token = uuid.uuid4().hex
    assert token in crew(TALK, "api.lab.example", PORT, "api.lab.example", token)
    recorded(lax, NOTES, "'record', 'tls', 'api.lab.example', '', ''")
    permits = "".join(f'[[egress]]\nname = "{one["name"]}"\naddresses = {json.dumps(one["addresses"])}\n'
                      f'ports = {one["ports"]}\n' for one in tomllib.loads(_suggested(lax))["egress"]
                      if one["addresses"] == ["api.lab.example"])
    reload(lax, "shadow", permits)
    assert '["api.lab.example"]' not in _suggested(lax)
    assert token in crew(TALK, "api.lab.example", PORT, "api.lab.example", token)
    assert token in crew(TALK, "api.lab.example", PORT, "evil.example", token)
    assert token in crew(TALK, "other.lab.example", 8444, "other.lab.example", token)
    recorded(lax, NOTES, "'shadow', 'tls', 'evil.example', 'name', \"TLS for 'evil.example', which")
    recorded(lax, NOTES, "'shadow', '', '', 'address', 'no target and no egress entry has this address and port'")
    recorded(lax, ANSWERED, "other.lab.example", '"mode":"shadow"', '"would_refuse":"no target and no egress entry')
    assert not [row for row in rows(lax, NOTES) if row[0] == "shadow" and row[2] == "api.lab.example" and row[4]]
    stays = subprocess.Popen(
        lax.crew_argv("/usr/bin/python3", "-c", STAYS, OTHER.ipv4, "8081"), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, cwd=lax.lab.home, env=lax.lab.client_environment())
    try:
        assert _say(stays, "before") == "b'before\\n'"
        reload(lax, "enforce", permits)
        assert _say(stays, "after") in ("ConnectionResetError", "b''", "BrokenPipeError")
    finally:
        stays.kill()
        stays.communicate()
    assert token in crew(TALK, "api.lab.example", PORT, "api.lab.example", token)
    assert token + "y" not in crew(TALK, "api.lab.example", PORT, "evil.example", token + "y")
    assert token + "y" not in crew(TALK, OTHER.ipv4, 8081, "plain", f"b'{token}y'")
    assert not echo.saw(token + "y")
    assert not echo.saw("after")
    recorded(lax, "SELECT reason FROM flow_closed", "egress is enforced now")
    recorded(lax, "SELECT workload, detail FROM host_event WHERE name = 'egress.mode'", "crew",
             '{"before":"shadow","mode":"enforce"}')
    assert "NOT ENFORCED" not in lax.weir("status").stdout


def _suggested(lax: Installed) -> str:
    done = lax.weir("egress", "suggest", "--recording", str(lax.recording), user=AUDITOR)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _say(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()
