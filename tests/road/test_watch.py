"""What is done to Weir while it runs: noticed within about a second, put right, recorded, said; nothing gets out.

A table of faults; the verdict is the server's.  Each begins and ends with "enforcing".
"""
from __future__ import annotations

import ctypes
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from escape.attempts import TECHNIQUES, attempt
from escape.sink import Sink
from lab.hosts import CREW, RUNTIME, wait_until
from lab.lab import Lab
from lab.weir import Inside, Installed, weir

from agent.block.containment import _in_host
from probes import libbpf, links

pytestmark = pytest.mark.lab

HERE = Path(__file__).resolve().parents[1]
BPFFS = Path("/run") / RUNTIME / "bpf"


@pytest.fixture(scope="module")
def watched(the_lab: Lab) -> Iterator[Installed]:
    with weir(the_lab) as made:
        the_lab.give(TECHNIQUES)
        yield made


@pytest.fixture(scope="module")
def crew(watched: Installed) -> Iterator[Inside]:
    with watched.inside("host") as made:
        yield made


def events(installed: Installed, *names: str) -> list[dict[str, str]]:
    """Host events of these names, in the recording."""
    newest = max(installed.recording.glob("recording-*.sqlite"), key=lambda path: int(path.stem.rpartition("-")[2]))
    db = sqlite3.connect(f"file:{newest}?mode=ro", uri=True)
    try:
        rows = db.execute("SELECT name, detail FROM host_event ORDER BY seq").fetchall()
    finally:
        db.close()
    return [{"name": name, **json.loads(detail)} for name, detail in rows if name in names]


def nft(*command: str) -> None:
    CREW.run(["nft", *command], check=True)


def detach(name: str) -> None:
    with links.opened(links.link_pin(BPFFS, name)) as fd:
        libbpf._lib.bpf_link_detach.argtypes = (ctypes.c_int,)
        assert libbpf._lib.bpf_link_detach(fd) == 0


# Another program of the same name and maps: only its instructions tell.
REPLACE = """
import os, sys
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from probes import libbpf, links, loader
loader._choose_headers(Path(sys.argv[2]))
import bcc
begins = "int connect4(struct bpf_sock_addr *ctx)\\n{\\n"
text = loader.source().replace(begins, begins + "\\tstruct settings *s = current_settings();\\n"
                               "\\tif (s && s->listener)\\n\\t\\treturn PASS;")
module = bcc.BPF(text=text, cflags=loader.flags(Path(sys.argv[1])))
hook = next(one for one in links.HOOKS if one.name == "connect4")
program = module.load_func(hook.name, hook.program_type, attach_type=hook.attach_type).fd
with links.opened(links.link_pin(Path(sys.argv[1]), "connect4")) as link:
    libbpf.link_update(link, program)
"""


def replace_program() -> None:
    done = subprocess.run(["/usr/bin/python3", "-c", REPLACE, str(BPFFS), f"/var/lib/{RUNTIME}/headers",
                           str(HERE.parent)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


FAULTS: dict[str, tuple[Callable[[], object], str]] = {
    "the table is flushed": (lambda: nft("flush", "table", "inet", RUNTIME), "lacks"),
    "the table is deleted": (lambda: nft("delete", "table", "inet", RUNTIME), "is not there"),
    "a chain is flushed": (lambda: nft("flush", "chain", "inet", RUNTIME, "crew_output"), "lacks"),
    "a rule that accepts comes first": (
        lambda: nft("insert", "rule", "inet", RUNTIME, "crew_output", "accept"), "has also 'accept'"),
    "the table sleeps": (lambda: nft("add", "table", "inet", RUNTIME, "{ flags dormant; }"), "dormant"),
    **{f"{name} is detached": (lambda name=name: detach(name), f"hook {name}")  # type: ignore[misc]
       for name in ("connect4", "connect6", "sendmsg4", "sock_create", "sockops", "egress")},
    "connect4 runs another program": (replace_program, "runs another program of that name"),
    "a link loses its pin": (lambda: (BPFFS / "link_connect4").unlink(), "hook connect4"),
    "the mark's link loses its pin": (lambda: (BPFFS / "link_newtask").unlink(), "hook newtask"),
    "a map loses its pin": (lambda: (BPFFS / "owners").unlink(), "map owners"),
    "the pins' file system is unmounted": (lambda: _in_host(["umount", str(BPFFS)]), "map owners"),
}


# A few for each Weir: who does it again and again is not served at once (agent/block/repairs.py).
GROUPS = [list(FAULTS)[at:at + 4] for at in range(0, len(FAULTS), 4)]


@pytest.mark.parametrize("faults", GROUPS, ids=[one[0].replace(" ", "-") for one in GROUPS])
def test_the_block_is_put_back(the_lab: Lab, sink: Sink, faults: list[str]) -> None:
    with weir(the_lab) as installed:
        the_lab.give(TECHNIQUES)
        with installed.inside("host") as crew:
            for fault in faults:
                one_fault(installed, crew, sink, fault)


def one_fault(installed: Installed, crew: Inside, sink: Sink, fault: str) -> None:
    break_it, found = FAULTS[fault]
    before = len(events(installed, "repaired", "degraded"))
    break_it()
    token, command = attempt("plain-ipv4")
    crew.run_inside(command)

    def told() -> list[dict[str, str]]:
        return events(installed, "repaired", "degraded")[before:]

    wait_until(f"{fault}: the repair in the recording", told, 30)
    assert not sink.saw(token), fault
    assert [one["left"] for one in told() if found in one.get("found", "")] == [""], fault
    installed.wait(seconds=30)
    token, command = attempt("plain-ipv4")
    crew.run_inside(command)
    assert not sink.saw(token), fault


def test_both_layers_at_once(watched: Installed, crew: Inside, sink: Sink) -> None:
    """Everything in the slice stands still until they are back."""
    before = len(events(watched, "repaired"))
    for name in ("connect4", "connect6", "egress"):
        detach(name)
    nft("delete", "table", "inet", RUNTIME)
    wait_until("the repair", lambda: len(events(watched, "repaired")) > before, 30)
    watched.wait(seconds=120)
    frozen = next(Path("/sys/fs/cgroup").glob(f"**/{RUNTIME}.slice/cgroup.freeze"))
    assert frozen.read_text() == "0\n"
    token, command = attempt("plain-ipv4")
    crew.run_inside(command)
    assert not sink.saw(token)


@pytest.mark.parametrize("victim", ["enforcer", "recorder", "launcher"])
def test_a_process_that_is_stopped_by_a_signal_goes_on(
    watched: Installed, crew: Inside, sink: Sink, victim: str) -> None:
    before = len(events(watched, f"{victim}.suspended"))
    pid = pids(watched)[victim]
    os.kill(pid, signal.SIGSTOP)
    token, command = attempt("plain-ipv4")
    crew.run_inside(command)
    wait_until("the event", lambda: len(events(watched, f"{victim}.suspended")) > before, 10)
    watched.wait(seconds=30)
    assert not sink.saw(token)
    assert pids(watched)[victim] == pid, "its sessions live on"


@pytest.mark.parametrize("victim", ["enforcer", "recorder"])
def test_a_process_that_is_killed_comes_back(watched: Installed, crew: Inside, sink: Sink, victim: str) -> None:
    before = len(events(watched, f"{victim}.ended"))
    watched.kill(victim)
    token, command = attempt("plain-ipv4")
    crew.run_inside(command)
    wait_until("the event", lambda: len(events(watched, f"{victim}.ended")) > before, 10)
    watched.wait(seconds=30)
    assert not sink.saw(token)


def pids(installed: Installed) -> dict[str, int]:
    found = installed.pids()
    for child in psutil.Process(installed.process.pid).children():
        if child.name() == "weir-launcher":
            found["launcher"] = child.pid
    return found


def test_a_table_that_changes_packets_behind_the_check(watched: Installed) -> None:
    nft("add", "table", "ip", "mangling")
    try:
        nft("add", "chain", "ip", "mangling", "out", "{ type route hook output priority 10; }")
        nft("add", "rule", "ip", "mangling", "out", "ip daddr 203.0.113.9 ip daddr set 203.0.113.10")
        wait_until("it is said", lambda: any("changes packets after" in one for one in watched.status()["reasons"]), 30)  # type: ignore[attr-defined]
        assert watched.status()["state"] == "degraded"
    finally:
        nft("delete", "table", "ip", "mangling")
    watched.wait(seconds=60)
    assert [one["rules"] for one in events(watched, "beside")][-1] == ""


@pytest.mark.slow
def test_who_flushes_again_and_again_is_not_an_event_each_time(watched: Installed, crew: Inside, sink: Sink) -> None:
    watched.wait(seconds=120)
    before = len(events(watched, "repaired", "degraded"))
    for _ in range(100):
        nft("flush", "table", "inet", RUNTIME)
        time.sleep(0.1)               # somebody's program, not one that waits for anything
    token, command = attempt("plain-ipv4")
    crew.run_inside(command)
    assert not sink.saw(token)
    wait_until("it is said", lambda: any("again and again" in one for one in watched.status()["reasons"]), 10)  # type: ignore[attr-defined]
    assert len(events(watched, "repaired", "degraded")) - before < 20, "not each is an event"
