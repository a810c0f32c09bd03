"""`weir selftest`: its judgement, and the command on a host where Weir holds."""
from __future__ import annotations

import json
import subprocess

import pytest
from lab.hosts import CREW, USER
from lab.lab import Lab
from lab.weir import Installed, weir

from agent.commands.selftest import NEEDS_MORE, TRIED, Decoy, _attempts, judge
from agent.techniques import TECHNIQUES, Where


def test_every_technique_is_tried_or_needs_more() -> None:
    assert set(TECHNIQUES) >= NEEDS_MORE
    assert set(TRIED) | NEEDS_MORE == set(TECHNIQUES)


def test_judgement() -> None:
    arrived, not_there = (True, "through"), (False, "refused")
    control = dict.fromkeys(TRIED, arrived) | {TRIED[1]: not_there, TRIED[2]: not_there}
    crew = dict.fromkeys(TRIED, not_there) | {TRIED[0]: arrived, TRIED[2]: arrived}
    said = {one.technique: one.verdict for one in judge(control, crew)}
    assert [said[name] for name in TRIED[:4]] == ["not contained", "not tried", "not contained", "stopped"]


HERE_NOT = {"ping-socket", "message-bus", "systemd-run"}       # without a control where they are closed or not there


@pytest.mark.lab
def test_without_a_block_it_gets_through(the_lab: Lab) -> None:
    """The same attempts by an ordinary user on a host without Weir: what would be said of a block that is none."""
    from agent.commands.selftest import _BOOT, PYTHON

    with CREW.entered(), Decoy() as decoy:
        where = Where(CREW.ipv4, CREW.ipv6, decoy.port, own4=CREW.ipv4, own6=CREW.ipv6)
        command = ["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--", PYTHON, "-c", _BOOT]
        done = _attempts(command, the_lab.client_environment(), where, decoy)
    through = {name for name, (arrived, _) in done.items() if arrived}
    assert through >= {"plain-ipv4", "plain-ipv6", "udp", "fragments", "io-uring-connect", "user-namespace", "vsock"}


@pytest.mark.lab
def test_the_command(the_lab: Lab) -> None:
    with weir(the_lab) as installed:
        done = installed.weir("selftest", "--json", timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        found = {one["technique"]: one["verdict"] for one in json.loads(done.stdout)}
        assert set(found) == set(TRIED)
        others = {name: verdict for name, verdict in found.items() if verdict != "stopped"}
        assert set(others) <= HERE_NOT
        assert set(others.values()) <= {"not tried"}
        people_see_it(installed)


def people_see_it(installed: Installed) -> None:
    refused = installed.weir("selftest", user=USER)
    assert (refused.returncode, refused.stderr) == (1, "weir: weir selftest needs root: the controls are root's\n")
    unknown = installed.weir("selftest", "--workload", "nobody")
    assert (unknown.returncode, unknown.stderr) == (1, "weir: no workload nobody\n")
    shown: subprocess.CompletedProcess[str] = installed.weir("selftest", "--network", "host", timeout=200)
    assert "now inside workload crew, in the host's network" in shown.stdout
    assert "0 not contained" in shown.stdout.splitlines()[-1], shown.stdout
