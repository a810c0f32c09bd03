"""tests/escape/matrix.toml, row by row, in each state: what the row says is what the server saw.

One workload tries everything, in the states one after the other; the state is asked of the kernel before and after.
The same attempts outside, without Weir, are the control: where one does not arrive, its row proves nothing and fails.
"""
from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import re
import socket
import sqlite3
import subprocess
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest
from clients.test_clients import environment
from escape.attempts import SINK
from escape.matrix import NEITHER, PAGE, STATES, Row, read_rows, render_page
from escape.states import OwnNetwork, asleep, detach_probes, expected, layers, without_rules
from escape.surroundings import Server, server, surroundings
from lab.hosts import CREW, DB, OTHER, USER, Host, wait_until
from lab.lab import Lab
from lab.weir import AS_ROOT, ROOTED, WORKLOAD, Installed, weir

from agent.techniques import TECHNIQUES, Where

ROWS = read_rows()
PYTHON = "/usr/bin/python3"
EVERY_CONTROL = "WEIR_EVERY_CONTROL" in os.environ      # in tests/vm, whose kernel has what others lack
TIMES = 200 if EVERY_CONTROL else 40     # and whose processor is emulated: what looks every second looks less often
EVERY_ROOT = "WEIR_EVERY_ROOT" in os.environ      # everything as mapped root too, in each state: in test-all
EVERY_NETWORK = "WEIR_EVERY_NETWORK" in os.environ      # the same for a network of its own; else a part, in one state
ROOT, OWN = "root-", "own-"           # before a state: as mapped root; in a network of its own
CHOSEN = os.environ.get("WEIR_ROWS", "").split()        # in tests/vm, where each attempt takes long; none: all
NAMES = [name for name in TECHNIQUES if not CHOSEN or name in CHOSEN]
AS_ROOT_TOO = [name for name in NAMES if ROWS[name].root or EVERY_ROOT]
FEW = ("plain-ipv4", "plain-ipv6", "any-address", "own-addresses", "fast-open-sendto", "ip-options", "udp", "udp-ipv6",
       "udp-dns-port", "fragments", "join-group", "packet-socket", "netlink-route-change", "double-fork",
       "set-namespace", "abstract", "shared-directory", "handed-connected", "by-the-listener", "bind-the-listener")
PRIVATELY_TOO = [name for name in NAMES if EVERY_NETWORK or name in FEW]


@dataclass(frozen=True)
class Try:
    """One attempt: its answer, and whether it arrived by the row's witness."""

    arrived: bool
    said: str


def token_of(technique: str, state: str) -> tuple[str, int]:
    """Which attempt it is; and the source port that stands for it."""
    number = zlib.crc32(f"{technique}/{state}".encode())
    return f"token-{technique}-{state}-{number:08x}", 20000 + number % 10000


class Runner:
    """A process that tries rounds of techniques where it was started; one line in, one out."""

    def __init__(self, argv: Sequence[str], cwd: object, env: dict[str, str], held: int) -> None:
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
                                        cwd=str(cwd), pass_fds=[held])

    def attempts(self, techniques: Sequence[str], state: str, to: Where, seen: Server) -> dict[str, Try]:
        """Together; those that must be alone afterwards, one by one."""
        rounds: list[list[str]] = [[name for name in techniques if not ROWS[name].alone],
                  *([name] for name in techniques if ROWS[name].alone)]
        return {name: one for names in rounds if names for name, one in self._round(names, state, to, seen).items()}

    def _round(self, names: Sequence[str], state: str, to: Where, seen: Server) -> dict[str, Try]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        lines = [[name, token_of(name, state)[0],
                  *dataclasses.replace(to, source=token_of(name, state)[1]).words()] for name in names]
        self.process.stdin.write(json.dumps(lines) + "\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline()
        if not said:
            raise RuntimeError("the process that tries has ended")
        return {name: Try(_arrived(name, state, code, seen), f"exit {code}: {text}")
                for name, code, text in json.loads(said)}

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def _arrived(name: str, state: str, code: int, seen: Server) -> bool:
    token, port = token_of(name, state)
    match ROWS[name].witness:
        case "server":
            return seen.saw(token)
        case "wire":
            return seen.saw_bytes(f"token-{token[-8:]}".encode()) or seen.saw_bytes(b"\xef" + token[-3:].encode())
        case "port":
            return seen.saw_port(port)
    return code == 0


@contextmanager
def connected(on: object) -> Iterator[int]:
    """A connection to the server that whoever starts a command there leaves open for it."""
    with on.entered():  # type: ignore[attr-defined]
        one = socket.create_connection((DB.ipv4, SINK), 5)
    with one:
        yield one.fileno()


@dataclass(frozen=True)
class Tried:
    crew: dict[str, dict[str, Try]]   # state -> technique -> what came of it
    control: dict[str, Try]
    permitted: list[str]              # what a permitted session gave, before and after the attempts
    told: dict[str, set[str]]         # events of the recording -> cookies that they name
    lsm: bool                         # BPF LSM's programs were in place, in each state


@pytest.fixture(scope="module")
def tried(the_lab: Lab) -> Iterator[Tried]:
    with ExitStack() as stack:
        seen = stack.enter_context(server())
        around = stack.enter_context(surroundings(the_lab))
        control = controls(the_lab, around, seen)
        installed = stack.enter_context(weir(the_lab, more=AS_ROOT))
        control |= on_the_crews_host(installed, around, seen)
        yield in_every_state(installed, around[CREW.name], seen, control)


def controls(lab: Lab, around: dict[str, Where], seen: Server) -> dict[str, Try]:
    """On a host without Weir: as the same user, and as root where only root could."""
    done: dict[str, Try] = {}
    for who in ("user", "root"):
        names = [name for name in NAMES if ROWS[name].control == who]
        to = around[OTHER.name]
        as_user = ["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--"] if who == "user" else []
        with connected(OTHER) as held:
            runner = Runner(OTHER.argv([*as_user, PYTHON, "-m", "techniques", "batch"]), lab.home,
                            lab.client_environment(), held)
            try:
                done |= runner.attempts([name for name in names if not ROWS[name].alone], "control", to, seen)
                done |= runner.attempts([name for name in names if ROWS[name].alone], "control",
                                        dataclasses.replace(to, listener=free(OTHER)), seen)
            finally:
                runner.end()
    return done


def free(host: Host) -> int:
    """A port that is nobody's there, for controls that want the listener's."""
    with host.entered(), socket.create_server(("", 0)) as one:
        return int(one.getsockname()[1])


def on_the_crews_host(installed: Installed, around: dict[str, Where], seen: Server) -> dict[str, Try]:
    """As root beside Weir: against it, but for signals, whose victims are others."""
    victims = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    names = [name for name in NAMES if ROWS[name].control == "host"]
    to = dataclasses.replace(around[CREW.name], pids=",".join(str(one.pid) for one in victims), listener=free(CREW))
    with connected(CREW) as held:
        runner = Runner(CREW.argv([PYTHON, "-m", "techniques", "batch"]), installed.lab.home,
                        installed.lab.client_environment(), held)
        try:
            return runner.attempts(names, "control", to, seen)
        finally:
            runner.end()
            for one in victims:
                one.kill()
                one.wait()


def in_every_state(installed: Installed, to: Where, seen: Server, control: dict[str, Try]) -> Tried:
    to = dataclasses.replace(to, pids=",".join(map(str, installed.pids().values())), times=TIMES)
    crew: dict[str, dict[str, Try]] = {}
    lsm = str(installed.status()["lsm"]).startswith("on")
    with connected(CREW) as held, ExitStack() as stack:
        runners = {prefix: stack.enter_context(runner(installed, workload, network, held))
                   for prefix, workload, network in (
                       ("", WORKLOAD, "host"), (ROOT, ROOTED, "host"), (OWN, WORKLOAD, "private"))}
        own = own_network(installed)

        def tried_in(state: str, root: bool) -> None:
            if state != NEITHER:
                crew[state] = in_state(state, CREW, state, runners[""], NAMES, to, seen)
            if root:
                crew[ROOT + state] = in_state(state, CREW, ROOT + state, runners[ROOT], AS_ROOT_TOO, to, seen)
            if state == NEITHER or EVERY_NETWORK:
                crew[OWN + state] = in_state(state, own, OWN + state, runners[OWN], PRIVATELY_TOO, to, seen)

        permitted = [select(installed, WORKLOAD, "host"), select(installed, WORKLOAD, "private")]
        tried_in("both", root=True)
        told = events(installed)
        permitted += [select(installed, WORKLOAD, "host"), select(installed, ROOTED, "private")]
        with asleep(installed):
            with without_rules(), without_rules(own):
                tried_in("ebpf", EVERY_ROOT)
            detach_probes()
            tried_in("nftables", EVERY_ROOT)
            with without_rules(), without_rules(own):
                tried_in(NEITHER, root=False)
        put_back(installed, own)
    return Tried(crew, control, permitted, told, lsm)


def put_back(installed: Installed, own: OwnNetwork) -> None:
    """The agent puts back what was taken away.  Its state is not "enforcing": what got through is an alarm."""
    try:
        wait_until("both layers", lambda: layers() == layers(own) == expected("both"), 240)
    except TimeoutError as error:
        raise TimeoutError(f"{error}: the host has {layers()}, the workload's network {layers(own)}; "
                           f"{installed.status()}\n{installed.tail()}") from None


def own_network(installed: Installed) -> OwnNetwork:
    """Of the one workload that has one; its pid is told once it runs."""
    def pids() -> list[int]:
        return [one["pid"] for one in installed.status()["workloads"]  # type: ignore[attr-defined]
                if one["network"] == "private" and one["pid"]]

    wait_until("the workload", pids)
    [pid] = pids()
    return OwnNetwork("own", pid)


@contextmanager
def runner(installed: Installed, workload: str, network: str, held: int) -> Iterator[Runner]:
    made = Runner(installed.crew_argv(PYTHON, "-m", "techniques", "batch", workload=workload, network=network),
                  installed.lab.home, installed.lab.client_environment(), held)
    try:
        yield made
    finally:
        made.end()


def events(installed: Installed) -> dict[str, set[str]]:
    """Cookies by the name of the host event, once the recorder has taken everything."""
    installed.settle()
    found: dict[str, set[str]] = {}
    for file in installed.recording.glob("*.sqlite"):
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
            for name, detail in db.execute("SELECT name, detail FROM host_event"):
                found.setdefault(name, set()).add(json.loads(detail).get("cookie", ""))
    return found


def in_state(
    state: str, where: Host, token: str, runner: Runner, names: list[str], to: Where, seen: Server,
) -> dict[str, Try]:
    assert layers(where) == expected(state)
    done = runner.attempts(names, token, to, seen)
    assert layers(where) == expected(state)
    return done


def select(installed: Installed, workload: str, network: str) -> str:
    done = installed.crew("psql", "-X", "-A", "-t", "-w", "-c", "SELECT count(*) FROM products",
                          environment=environment(installed.lab, "wrong"), workload=workload, network=network)
    return done.stdout.strip() or done.stderr


@pytest.mark.lab
@pytest.mark.parametrize("technique", NAMES)
@pytest.mark.parametrize("state", STATES)
def test_verdict(tried: Tried, state: str, technique: str) -> None:
    hold_against(tried, ROWS[technique], ROWS[technique].verdict(state, tried.lsm), tried.crew[state][technique])


@pytest.mark.lab
@pytest.mark.parametrize("technique", AS_ROOT_TOO)
@pytest.mark.parametrize("state", STATES if EVERY_ROOT else STATES[:1])
def test_verdict_as_mapped_root(tried: Tried, state: str, technique: str) -> None:
    row = ROWS[technique]
    hold_against(tried, row, row.verdict(state, tried.lsm, root=True), tried.crew[ROOT + state][technique])


@pytest.mark.lab
@pytest.mark.parametrize("technique", PRIVATELY_TOO)
@pytest.mark.parametrize("state", [*STATES, NEITHER] if EVERY_NETWORK else [NEITHER])
def test_verdict_in_a_network_of_its_own(tried: Tried, state: str, technique: str) -> None:
    row = ROWS[technique]
    hold_against(tried, row, row.private(state, tried.lsm), tried.crew[OWN + state][technique])


def hold_against(tried: Tried, row: Row, verdict: str, one: Try) -> None:
    if verdict == "stopped":
        assert not one.arrived, one.said
        return
    if verdict == "detected":       # whether before it arrived or after
        cookies = set(re.findall(r"cookie (\w+)", one.said))
        assert cookies & tried.told.get(row.event, set()), f"no event {row.event} tells of it: {one.said}"
    else:
        assert one.arrived, f"the row says that it gets through: {one.said}"


@pytest.mark.lab
@pytest.mark.parametrize("technique", NAMES)
def test_control(tried: Tried, technique: str) -> None:
    """Without Weir it arrives: the way exists."""
    row, one = ROWS[technique], tried.control[technique]
    if row.vm and not one.arrived and not EVERY_CONTROL:
        pytest.skip(f"its control runs in tests/vm: {row.vm}")
    if not one.arrived and row.instead in tried.control and tried.control[row.instead].arrived:
        pytest.skip(f"the host's own is there, and no stand-in: its control is that of {row.instead}")
    if row.since and older(row.since):
        pytest.skip(f"Linux before {row.since} does not know this way")
    assert one.arrived, one.said


def older(release: str) -> bool:
    """Than `release`, the running kernel."""
    mine, wanted = (tuple(map(int, re.findall(r"\d+", one)[:2])) for one in (platform.release(), release))
    return mine < wanted


@pytest.mark.lab
def test_a_permitted_session_works_in_the_same_run(tried: Tried) -> None:
    assert tried.permitted == ["4"] * 4


def test_every_technique_has_a_row_and_every_row_a_technique() -> None:
    assert set(ROWS) == set(TECHNIQUES)


def test_with_both_layers_nothing_is_below_stopped() -> None:
    """But for a connected socket that is handed in, which is detected; and what a process of the same user outside does
    for the crew of its own will."""
    below = {name: row for name, row in ROWS.items() if row.both != "stopped"}
    assert all(row.rooted.get("both", row.both) == row.both for row in ROWS.values())
    assert all(row.shared or (row.both == "detected" and row.event) for row in below.values()), sorted(below)


def test_the_page_has_this_table() -> None:
    assert PAGE.read_text() == render_page(PAGE.read_text()), "python -m escape.matrix writes it again"
